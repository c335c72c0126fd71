//! What the host has and what its machine can do, as far as the names of its files tell.

use crate::fw_cfg::FwCfg;
use crate::hal::HostAccess;

/// The script that says which ACPI files go where.
pub const TABLE_LOADER: &str = "etc/table-loader";
/// The SMBIOS entry point.
pub const SMBIOS_ANCHOR: &str = "etc/smbios/smbios-anchor";
/// A device tree, which QEMU's microvm has.
const DEVICE_TREE: &str = "etc/fdt";
/// Where the log of a TPM goes: a file of zeros, which is empty on a machine without one.
pub const TPM_LOG: &str = "etc/tpm/log";

/// Which sleep states the machine offers, six bytes (QEMU `hw/acpi/core.c`, `acpi_pm1_cnt_init`). A boot goes by the name
/// alone, which tells a machine with the power management of a PC from others: to read it would cost every boot a
/// transfer.
pub const SYSTEM_STATES: &str = "etc/system-states";
const SYSTEM_STATES_LEN: usize = 6;
/// The byte of S3, and its bit for "offered"; the low bits are the type that a guest writes to sleep.
const S3: usize = 3;
const STATE_OFFERED: u8 = 1 << 7;

/// Whether the host has anything that belongs into the F-segment.
#[must_use]
pub fn wants_f_segment(fw_cfg: &FwCfg) -> bool {
    has_acpi(fw_cfg) || has_smbios(fw_cfg)
}

/// Whether the host has ACPI tables in fw_cfg.
#[must_use]
pub fn has_acpi(fw_cfg: &FwCfg) -> bool {
    fw_cfg.find(TABLE_LOADER).is_some()
}

/// Whether the host has SMBIOS tables in fw_cfg.
#[must_use]
pub fn has_smbios(fw_cfg: &FwCfg) -> bool {
    fw_cfg.find(SMBIOS_ANCHOR).is_some()
}

/// Whether the host has a TPM: then it has a log for it.
#[must_use]
pub fn has_tpm(fw_cfg: &FwCfg) -> bool {
    fw_cfg.find(TPM_LOG).is_some_and(|log| !log.is_empty())
}

/// Whether the host says nothing of a TPM, be there one or not: QEMU's machines without ACPI tables, and its microvm. The others
/// of QEMU's have a log in any case. Other hosts tell of what they have.
#[must_use]
pub fn is_silent_on_tpm(fw_cfg: &FwCfg) -> bool {
    fw_cfg.host_kind().is_qemu() && fw_cfg.find(TPM_LOG).is_none()
}

/// Whether the host has tables or a device tree that say which devices there are. A machine without them and without PCI is
/// taken for an old PC, with what every PC had.
#[must_use]
pub fn describes_devices(fw_cfg: &FwCfg) -> bool {
    has_acpi(fw_cfg) || fw_cfg.find(DEVICE_TREE).is_some()
}

/// Whether this machine can suspend, so that memory is kept for a wake.
#[must_use]
pub fn can_sleep(fw_cfg: &FwCfg) -> bool {
    fw_cfg.find(SYSTEM_STATES).is_some()
}

/// Whether the host offers S3, and ACPI tables by which an operating system finds it.
pub fn can_wake(machine: &mut impl HostAccess, fw_cfg: &FwCfg) -> bool {
    let Some(item) = fw_cfg.find(SYSTEM_STATES).filter(|_| has_acpi(fw_cfg)) else { return false };
    let mut states = [0; SYSTEM_STATES_LEN];
    fw_cfg.read(machine, item, &mut states);
    states[S3] & STATE_OFFERED != 0
}
