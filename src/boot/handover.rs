//! How the kernel is entered, as data. The code that does it is the firmware's last.

use core::fmt;

use crate::addr::{PhysAddr, PhysRange};
use crate::bios_data::BiosData;

/// Where the kernel is entered, and in which mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// In long mode with paging on: the kernel's load address + 0x200 (boot.rst, "64-bit Boot Protocol").
    Linux64(PhysAddr),
    /// In 32-bit protected mode with paging off: the kernel's load address (boot.rst, "32-bit Boot Protocol").
    Linux32(PhysAddr),
    /// As [`Self::Linux32`], once a part of low memory is filled.
    LinuxLow {
        /// The address that is jumped to.
        at: PhysAddr,
        /// What is filled first.
        block: LowBlock,
    },
    /// In 32-bit protected mode with paging off: the address in the ELF file's note (Xen `docs/misc/pvh.pandoc`).
    Pvh(PhysAddr),
    /// In 32-bit protected mode with paging off: the address that the host found in the file (Multiboot specification
    /// 0.6.96, 3.2).
    Multiboot(PhysAddr),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, at) = match self {
            Self::Linux64(at) => ("64-bit", at),
            Self::Linux32(at) | Self::LinuxLow { at, .. } => ("32-bit", at),
            Self::Pvh(at) => ("PVH", at),
            Self::Multiboot(at) => ("Multiboot", at),
        };
        write!(f, "{kind} entry at {at}")
    }
}

/// A part of low memory that the last jump fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowBlock {
    /// The bytes, whole pages of them, where they are made ready: between 1 MiB and 4 GiB.
    pub staged: PhysRange,
    /// Where they are moved to, below 640 KiB.
    pub place: PhysAddr,
}

impl LowBlock {
    /// The address that the byte now at `address` has when the kernel runs.
    #[must_use]
    pub fn at_entry(&self, address: PhysAddr) -> PhysAddr {
        if self.staged.contains_addr(address) {
            let offset = address.get().saturating_sub(self.staged.start().get());
            PhysAddr::new(self.place.get().saturating_add(offset))
        } else {
            address
        }
    }

    /// Where `len` bytes are made ready that are to be at `place`.
    pub(super) fn staged_for(&self, place: PhysAddr, len: u64) -> Option<PhysRange> {
        let offset = place.get().checked_sub(self.place.get())?;
        PhysRange::new(self.staged.start().checked_add(offset)?, len).filter(|&part| self.staged.contains(part))
    }
}

/// All that the jump to the kernel needs to know.
///
/// At any entry interrupts are off and the direction flag is clear, and a GDT is loaded whose selectors 0x10
/// (code, execute and read) and 0x18 (data, read and write) are flat 4 GiB segments; CS is 0x10, DS, ES and SS are
/// 0x18.
///
/// - [`Entry::Linux64`]: 64-bit mode; the page tables map the kernel with all of its run range, `boot_params` and the
///   command line one to one; RSI is the address of `boot_params`.
/// - [`Entry::Linux32`]: protected mode, paging off; ESI is the address of `boot_params`; EBP, EDI and EBX are zero.
/// - [`Entry::LinuxLow`]: as [`Entry::Linux32`], with the block moved to its place; the entry and the parameters are the
///   addresses after that.
/// - [`Entry::Pvh`]: protected mode, paging off, CR0 with no bit but PE (and ET) set and CR4 with none; EBX is the address
///   of [`super::pvh::HvmStartInfo`]; TR is a busy 32-bit TSS with base 0 and limit 0x67; EBP and EDI are zero.
/// - [`Entry::Multiboot`]: protected mode, paging off; EAX is 0x2badb002, EBX the address of [`super::multiboot::MultibootInfo`]; FS and
///   GS are 0x18 too. ESP is the end of some memory below 640 KiB that is not in use any more: the specification promises
///   no stack, and kernels count on one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// Where to jump, and in which mode.
    pub entry: Entry,
    /// Where [`super::linux::BootParams`], [`super::pvh::HvmStartInfo`] or [`super::multiboot::MultibootInfo`] is when the kernel runs.
    pub parameters: PhysAddr,
    /// What is written to the BIOS data area first; nothing, if that is the host's.
    pub bios_data: Option<BiosData>,
    /// What of the firmware's memory is cleared first.
    pub clears: Clears,
}

/// How the memory is cleared that stays the firmware's for a wake ([`crate::layout::KEPT_RAM`]), and that it does not use any
/// more. An operating system that ran before a reset can have written there, as to all reserved memory, and kernels look for
/// tables up to 640 KiB (Linux for an iBFT from 512 KiB on, `drivers/firmware/iscsi_ibft_find.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clears {
    /// Not at all: it is RAM, which a kernel keeps its users from, and whose next owner has to expect anything.
    Nothing,
    /// By QEMU's fw_cfg, which gives zeros for an item that there is not.
    ByDma,
    /// By the CPU.
    ByCpu,
}

impl Handover {
    /// Enters a kernel with these parameters, and leaves the BIOS data area as it is.
    #[must_use]
    pub const fn new(entry: Entry, parameters: PhysAddr) -> Self {
        Self { entry, parameters, bios_data: None, clears: Clears::Nothing }
    }
}
