//! What the host has, what its machine can do, and which memory it has: questions that several steps of a boot ask, and that
//! [`FwCfg`](crate::fw_cfg::FwCfg) answers.
//!
//! Assumed: a file is what its name says, since hosts of all kinds took these names from QEMU. Left out: what only one module
//! asks, which that module has.

mod map;
mod offers;
mod write;

pub use map::memory_map;
pub use offers::{
    SMBIOS_ANCHOR, SYSTEM_STATES, TABLE_LOADER, TPM_LOG, can_sleep, can_wake, describes_devices, has_acpi, has_smbios,
    has_tpm, is_silent_on_tpm, wants_f_segment,
};
pub use write::HostWrite;
