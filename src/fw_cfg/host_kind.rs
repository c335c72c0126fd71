//! Which host this is: what the firmware may count on beyond the specifications.
//!
//! It is found once. The transport does not tell. StratoVirt and OpenBSD's vmd have QEMU's DMA register, and QEMU has none on machine types
//! before 2.5 and with `-global fw_cfg.dma_enabled=off`. The names of the files do, and these are read on each boot anyway.
//!
//! Assumed: no other host offers these names of its own accord.

use super::{Directory, Transport};

/// What the host is. It does not change while the firmware runs, whatever becomes of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// QEMU of any version and machine type, with DMA or without: what is known of QEMU's machines holds.
    Qemu,
    /// crosvm, by the identification of its device. It puts tables into memory, and ends when its guest resets
    /// (`src/crosvm/sys/linux.rs`, `VmEventType::Reset`).
    Crosvm,
    /// A host without the device. The only known one that starts firmware, by the PVH entry, is Firecracker, which does as
    /// crosvm (`src/vmm/src/devices/legacy/i8042.rs`).
    WithoutDevice,
    /// Another host, or one that is not known: nothing holds but what a specification says.
    Other,
}

/// The identification of crosvm's device, whose number is in the wrong byte order (`devices/src/fw_cfg.rs`,
/// `FW_CFG_REVISION`).
const CROSVM: u32 = 0x0100_0000;

/// A machine of QEMU's has at least one of these files, without a look at its options. The first is on every machine type
/// from 2.6 on since QEMU 4.2, microvm and isapc among them (`hw/nvram/fw_cfg.c`, `fw_cfg_machine_reset`). The others are on
/// a PC before that: one with a local APIC (`hw/i386/kvmvapic.c`), and one with power management (`hw/acpi/core.c`).
const QEMU_FILES: [&[u8]; 3] = [b"bios-geometry", b"genroms/kvmvapic.bin", b"etc/system-states"];

impl HostKind {
    /// The host with these files, and this identification of its device if that was read. One whose DMA takes the portable form
    /// alone is not QEMU.
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

    /// Whether it is QEMU.
    #[must_use]
    pub const fn is_qemu(self) -> bool {
        matches!(self, Self::Qemu)
    }

    /// Whether it puts tables into memory at each start, and into memory in which no guest has run. A guest cannot change that.
    ///
    /// Other hosts that have tables in memory give them in fw_cfg or hand over where they are. bhyve even keeps memory over
    /// a reset, and with it what its guest left there.
    #[must_use]
    pub const fn puts_tables_into_memory(self) -> bool {
        matches!(self, Self::Crosvm | Self::WithoutDevice)
    }
}
