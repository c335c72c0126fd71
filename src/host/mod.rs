//! What the host offers, what its machine can do, and which memory it has. Several steps of a boot need this, and
//! [`FwCfg`](crate::fw_cfg::FwCfg) has it.
//!
//! Assumed: a file is what its name says, since hosts of all kinds took these names from QEMU. Left out: questions of a single
//! module, which are in that module.

mod map;
mod offers;
mod write;

pub use map::memory_map;
pub use offers::{
    SMBIOS_ANCHOR, SYSTEM_STATES, TABLE_LOADER, TPM_LOG, can_sleep, can_wake, describes_devices, has_acpi, has_smbios,
    has_tpm, is_silent_on_tpm, wants_f_segment,
};
pub use write::HostWrite;
