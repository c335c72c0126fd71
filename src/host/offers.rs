//! What the host offers and what its machine can do, by the names of its files.

use crate::fw_cfg::FwCfg;
use crate::hal::HostAccess;

/// The script that places the ACPI files.
pub const TABLE_LOADER: &str = "etc/table-loader";
/// The SMBIOS entry point.
pub const SMBIOS_ANCHOR: &str = "etc/smbios/smbios-anchor";
/// A device tree, which QEMU's microvm has.
const DEVICE_TREE: &str = "etc/fdt";
/// The place for the log of a TPM: a file of zeros, empty on a machine without a TPM.
pub const TPM_LOG: &str = "etc/tpm/log";

/// The sleep states that the machine offers, six bytes (QEMU `hw/acpi/core.c`, `acpi_pm1_cnt_init`). A boot only checks the name,
/// which shows that the machine has the power management of a PC. Reading the file would cost every boot a transfer.
pub const SYSTEM_STATES: &str = "etc/system-states";
const SYSTEM_STATES_LEN: usize = 6;
/// The byte of S3, and its bit for "offered". The low bits are the type that a guest writes to suspend.
const S3: usize = 3;
const STATE_OFFERED: u8 = 1 << 7;

/// Whether the host has anything to put into the F-segment.
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

/// Whether the host has a TPM: then it has a file for its log.
#[must_use]
pub fn has_tpm(fw_cfg: &FwCfg) -> bool {
    fw_cfg.find(TPM_LOG).is_some_and(|log| !log.is_empty())
}

/// Whether the host does not describe whether there is a TPM: QEMU's machines without ACPI tables, and its microvm. Its other
/// machines always have the file for the log. Other hosts describe their TPM.
#[must_use]
pub fn is_silent_on_tpm(fw_cfg: &FwCfg) -> bool {
    fw_cfg.host_kind().is_qemu() && fw_cfg.find(TPM_LOG).is_none()
}

/// Whether the host has tables or a device tree that describe its devices. A machine without them and without PCI is treated as
/// an old PC, with the devices that every PC had.
#[must_use]
pub fn describes_devices(fw_cfg: &FwCfg) -> bool {
    has_acpi(fw_cfg) || fw_cfg.find(DEVICE_TREE).is_some()
}

/// Whether this machine can suspend, so that memory is reserved for a wake.
#[must_use]
pub fn can_sleep(fw_cfg: &FwCfg) -> bool {
    fw_cfg.find(SYSTEM_STATES).is_some()
}

/// Whether the host offers S3, and ACPI tables in which an operating system finds it.
pub fn can_wake(machine: &mut impl HostAccess, fw_cfg: &FwCfg) -> bool {
    let is_offered = |states: [u8; SYSTEM_STATES_LEN]| states[S3] & STATE_OFFERED != 0;
    has_acpi(fw_cfg) && fw_cfg.read_file(machine, SYSTEM_STATES).is_some_and(is_offered)
}
