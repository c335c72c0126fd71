//! Which host this is: what the firmware may count on beyond the specifications.
//!
//! The transport does not tell. StratoVirt and OpenBSD's vmd have QEMU's DMA register, and QEMU has none on machine types
//! before 2.5 and with `-global fw_cfg.dma_enabled=off`. The names of the files do, and these are read on each boot anyway.
//!
//! Assumed: no other host offers these names of its own accord.

use super::{Directory, Transport};

/// What the host is. It does not change while the firmware runs, whatever becomes of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind {
    /// QEMU of any version and machine type, with DMA or without: what is known of QEMU's machines holds.
    Qemu,
    /// Another host, or one that is not known: nothing holds but what a specification says.
    Other,
}

/// A machine of QEMU's has at least one of these files, without a look at its options. The first is on every machine type
/// from 2.6 on since QEMU 4.2, microvm and isapc among them (`hw/nvram/fw_cfg.c`, `fw_cfg_machine_reset`). The others are on
/// a PC before that: one with a local APIC (`hw/i386/kvmvapic.c`), and one with power management (`hw/acpi/core.c`).
const QEMU_FILES: [&[u8]; 3] = [b"bios-geometry", b"genroms/kvmvapic.bin", b"etc/system-states"];

impl HostKind {
    /// The host with these files. One whose DMA takes the portable form alone is not QEMU.
    pub(super) fn of(transport: Transport, directory: &Directory) -> Self {
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
}
