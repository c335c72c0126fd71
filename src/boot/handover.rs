//! How the kernel is entered, as data. The firmware's last code does it.

use core::fmt;

use super::protocol::efi::EfiStart;
use crate::addr::{PhysAddr, PhysRange};
use crate::bios_data::BiosData;
use crate::fw_cfg::FwCfg;
use crate::memory_map::MemoryMap;

/// The kernel's entry point and the mode of the CPU there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In long mode with paging on: the kernel's load address + 0x200 (boot.rst, "64-bit Boot Protocol").
    Linux64(PhysAddr),
    /// In 32-bit protected mode with paging off: the kernel's load address (boot.rst, "32-bit Boot Protocol").
    Linux32(PhysAddr),
    /// As [`Self::Linux32`], after a part of low memory is filled.
    LinuxLow {
        /// The address of the jump.
        at: PhysAddr,
        /// The memory to fill first.
        block: LowBlock,
    },
    /// In 32-bit protected mode with paging off: the address in the ELF file's note (Xen `docs/misc/pvh.pandoc`).
    Pvh(PhysAddr),
    /// In 32-bit protected mode with paging off: the address that the host found in the file (Multiboot specification
    /// 0.6.96, 3.2).
    Multiboot(PhysAddr),
    /// In long mode with boot services: [`Handover::efi`] has what is started.
    Efi,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, at) = match self {
            Self::Linux64(at) => ("64-bit", at),
            Self::Linux32(at) | Self::LinuxLow { at, .. } => ("32-bit", at),
            Self::Pvh(at) => ("PVH", at),
            Self::Multiboot(at) => ("Multiboot", at),
            Self::Efi => return f.write_str("EFI entry point"),
        };
        write!(f, "{kind} entry point {at}")
    }
}

/// A part of low memory that the last jump fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowBlock {
    /// The prepared bytes, in whole pages between 1 MiB and 4 GiB.
    pub staged: PhysRange,
    /// Where they are moved to, below 640 KiB.
    pub place: PhysAddr,
}

impl LowBlock {
    /// The address at which the kernel finds the byte that is at `address` now.
    #[must_use]
    pub fn at_entry(&self, address: PhysAddr) -> PhysAddr {
        if self.staged.contains_addr(address) {
            let offset = address.get().saturating_sub(self.staged.start().get());
            PhysAddr::new(self.place.get().saturating_add(offset))
        } else {
            address
        }
    }

    /// Where to prepare `len` bytes that the kernel finds at `place`.
    pub(super) fn staged_for(&self, place: PhysAddr, len: u64) -> Option<PhysRange> {
        let offset = place.get().checked_sub(self.place.get())?;
        PhysRange::new(self.staged.start().checked_add(offset)?, len).filter(|&part| self.staged.contains(part))
    }
}

/// All that the jump to the kernel needs.
///
/// At every entry point interrupts are off and the direction flag is clear. The GDT has flat 4 GiB segments with the
/// selectors 0x10 (code, execute and read) and 0x18 (data, read and write). CS is 0x10; DS, ES and SS are 0x18.
///
/// - [`Entry::Linux64`]: 64-bit mode. The page tables map the kernel's run range, `boot_params` and the command line
///   one to one. RSI is the address of `boot_params`.
/// - [`Entry::Linux32`]: protected mode, paging off. ESI is the address of `boot_params`; EBP, EDI and EBX are zero.
/// - [`Entry::LinuxLow`]: as [`Entry::Linux32`], with the block moved to its place. The entry point and the parameters
///   are the addresses after the move.
/// - [`Entry::Pvh`]: protected mode, paging off. CR0 has only PE (and ET) set, CR4 is zero. EBX is the address of
///   [`super::pvh::HvmStartInfo`]. TR is a busy 32-bit TSS with base 0 and limit 0x67. EBP and EDI are zero.
/// - [`Entry::Multiboot`]: protected mode, paging off. EAX is 0x2badb002, EBX the address of
///   [`super::multiboot::MultibootInfo`]. FS and GS are 0x18 too. ESP is the end of memory below 640 KiB that is no
///   longer in use: the specification promises no stack, but kernels rely on one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handover {
    /// The entry point and the mode.
    pub entry: Entry,
    /// The address at which the kernel finds [`super::linux::BootParams`], [`super::pvh::HvmStartInfo`] or
    /// [`super::multiboot::MultibootInfo`].
    pub parameters: PhysAddr,
    /// What is written to the BIOS data area first. `None` leaves it as the host set it.
    pub bios_data: Option<BiosData>,
    /// How the firmware's unused memory is cleared first.
    pub clears: Clears,
    /// What boot services start with, if they are started.
    pub efi: EfiStart,
}

/// How the firmware's unused memory is cleared, in the range that stays reserved for a wake
/// ([`crate::layout::KEPT_RAM`]). An operating system that ran before a reset can have written to reserved memory.
/// Kernels search it for tables up to 640 KiB (Linux searches for an iBFT from 512 KiB on,
/// `drivers/firmware/iscsi_ibft_find.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clears {
    /// Not at all: the range is RAM for the kernel, and kernels do not trust the content of RAM.
    Nothing,
    /// By QEMU's fw_cfg, which returns zeros for an absent item.
    ByDma,
    /// By the CPU.
    ByCpu,
}

impl Handover {
    /// Enters a kernel with these parameters, and leaves the BIOS data area unchanged.
    #[must_use]
    pub const fn new(entry: Entry, parameters: PhysAddr) -> Self {
        Self { entry, parameters, bios_data: None, clears: Clears::Nothing, efi: EfiStart::none() }
    }

    /// Passes on what the boot has no more use for, to boot services.
    #[must_use]
    pub fn with(mut self, map: MemoryMap, fw_cfg: FwCfg) -> Self {
        self.efi.give(map, fw_cfg);
        self
    }
}
