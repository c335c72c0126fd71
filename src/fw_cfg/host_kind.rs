//! Which host this is, and so what the firmware can rely on beyond the specifications.
//!
//! The host is identified once, by the names of its files, which every boot reads anyway. The transport does not
//! identify it: StratoVirt and OpenBSD's vmd have QEMU's DMA register, and QEMU lacks it on machine types before 2.5
//! and with `-global fw_cfg.dma_enabled=off`.
//!
//! Assumed: no other host offers these names by default.

use super::{Directory, Transport};

/// The kind of host. It does not change while the firmware runs, even if the transport does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// QEMU of any version and machine type, with or without DMA. Facts about QEMU's machines apply.
    Qemu,
    /// crosvm, by its device's identification. It puts tables into memory, and exits when its guest resets
    /// (`src/crosvm/sys/linux.rs`, `VmEventType::Reset`).
    Crosvm,
    /// A host without the device. The only known one that starts firmware, by the PVH entry point, is Firecracker,
    /// which behaves like crosvm (`src/vmm/src/devices/legacy/i8042.rs`).
    WithoutDevice,
    /// Any other host, known or unknown. Only what a specification says applies.
    Other,
}

/// The identification of crosvm's device. Its bytes are in the wrong order (`devices/src/fw_cfg.rs`,
/// `FW_CFG_REVISION`).
const CROSVM: u32 = 0x0100_0000;

/// Every QEMU machine has at least one of these files, whatever its options. The first is on every machine type from
/// 2.6 on since QEMU 4.2, including microvm and isapc (`hw/nvram/fw_cfg.c`, `fw_cfg_machine_reset`). Of older machine
/// types, a PC with a local APIC has the second (`hw/i386/kvmvapic.c`), and a PC with power management the third
/// (`hw/acpi/core.c`).
const QEMU_FILES: [&[u8]; 3] = [b"bios-geometry", b"genroms/kvmvapic.bin", b"etc/system-states"];

impl HostKind {
    /// Identifies the host by its files, and by its device's identification if that was read. A host that accepts only
    /// the portable form of DMA is not QEMU.
    pub(super) fn of(transport: Transport, identification: Option<u32>, directory: &Directory) -> Self {
        if identification == Some(CROSVM) {
            return Self::Crosvm;
        }
        let is_possible = matches!(transport, Transport::QemuDma | Transport::Ports);
        if is_possible && QEMU_FILES.iter().any(|name| directory.find(name).is_some()) {
            Self::Qemu
        } else {
            Self::Other
        }
    }

    /// Whether the host is QEMU.
    #[must_use]
    pub const fn is_qemu(self) -> bool {
        matches!(self, Self::Qemu)
    }

    /// Whether the host writes tables into memory at each start, and no guest has run in that memory, so that a guest
    /// cannot have changed them.
    ///
    /// Other hosts with tables in memory provide them in fw_cfg or pass their address. bhyve even keeps memory over a
    /// reset, with what its guest wrote there.
    #[must_use]
    pub const fn puts_tables_into_memory(self) -> bool {
        matches!(self, Self::Crosvm | Self::WithoutDevice)
    }
}
