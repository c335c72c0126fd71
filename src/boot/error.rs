//! Why a kernel cannot be booted.

use core::fmt;

use uefi_raw::Status;

use super::file_kind::FileKind;
use crate::addr::{PhysAddr, PhysRange};
use crate::efi::pe;
use crate::hal::MemoryError;
use crate::{fw_cfg, memory_map};

/// What is wrong with the kernel, the initrd, the command line, or the room for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The host offers no kernel.
    NoKernel,
    /// The host offers no kernel besides the firmware, and none of its modules is one.
    NoKernelModule {
        /// How many modules there are.
        modules: usize,
    },
    /// The named file for the kernel is empty.
    EmptyFile,
    /// The kernel is an ELF file, and the host names no entry point.
    Elf,
    /// The named file for the kernel is an ELF file, which only the host can load.
    ElfFile,
    /// The host's Multiboot information is too short.
    MultibootInfo {
        /// Its length in bytes.
        len: u32,
        /// The shortest valid length.
        needed: u32,
    },
    /// The host's Multiboot information points outside of what the host has loaded.
    MultibootPointer {
        /// The structure that the pointer is for.
        what: &'static str,
        /// Where the structure begins.
        at: PhysAddr,
        /// What the host has loaded.
        loaded: PhysRange,
    },
    /// The modules in the host's Multiboot information are together longer than all that the host has loaded.
    MultibootOverlap {
        /// The first module that is beyond that length.
        at: PhysAddr,
        /// What the host has loaded.
        loaded: PhysRange,
    },
    /// The host's entry point is outside the kernel, or the kernel is not all below 4 GiB.
    EntryOutside {
        /// The entry point.
        entry: PhysAddr,
        /// The kernel's first byte.
        start: PhysAddr,
        /// Its size in bytes.
        size: u32,
    },
    /// The kernel's place, which the host has chosen, overlaps the firmware.
    KernelOverFirmware {
        /// Where the kernel is.
        kernel: PhysRange,
        /// Where the firmware is.
        firmware: PhysRange,
    },
    /// The kernel's place, which the host has chosen, is not all RAM.
    KernelOutsideRam {
        /// Where the kernel is.
        kernel: PhysRange,
    },
    /// The setup header is missing: no boot flag or no magic number.
    NotLinux {
        /// What the file is instead, if known.
        kind: Option<FileKind>,
    },
    /// The kernel file is shorter than its header says.
    FileTruncated {
        /// The length of the file in bytes.
        seen: u64,
        /// The length by the header in bytes.
        needed: u64,
    },
    /// The setup header is shorter than its protocol version requires.
    Truncated {
        /// The bytes that are there, from the start of the file.
        seen: usize,
        /// The bytes that are needed.
        needed: usize,
    },
    /// The boot protocol is older than 2.00.
    TooOld {
        /// The version of the kernel, major in the upper byte, minor in the lower.
        version: u16,
    },
    /// The kernel is an EFI program that cannot be started.
    Efi(pe::Error),
    /// The shim is not an EFI program that can be started.
    Shim(pe::Error),
    /// The EFI program could not be started.
    EfiNotStarted(Status),
    /// The EFI program returned.
    EfiReturned(Status),
    /// The EFI program returned after it had ended boot services.
    EfiReturnedLate,
    /// There is no free memory below 4 GiB for an EFI program.
    NoEfiMemory {
        /// The bytes that are needed in one piece.
        needed: u64,
    },
    /// The kernel is for a BIOS: its only entry point is in real mode.
    RealModeOnly,
    /// The 32-bit entry point in the header is outside the kernel.
    EntryMoved {
        /// `code32_start`.
        entry: PhysAddr,
        /// Where the kernel's first byte is loaded.
        start: PhysAddr,
        /// Its length in bytes.
        len: u64,
    },
    /// A zImage that is too long for low memory.
    ZImageTooLong {
        /// The length of its protected-mode part in bytes.
        len: u64,
        /// The longest that fits.
        limit: u64,
    },
    /// Not all of the low memory that a zImage runs in is free RAM.
    NoPcMemory {
        /// What the zImage needs.
        needed: PhysRange,
    },
    /// The kernel's alignment is not a power of two.
    BadAlignment {
        /// `kernel_alignment`.
        alignment: u32,
    },
    /// The command line is longer than the kernel accepts.
    CommandLineTooLong {
        /// Its length in bytes, without the NUL at its end.
        len: u64,
        /// The longest that the kernel accepts.
        limit: u64,
    },
    /// No room below 640 KiB for the command line.
    CommandLineDoesNotFit {
        /// The bytes that did not fit.
        needed: u64,
    },
    /// No room below 640 KiB for `boot_params`, `hvm_start_info`, Multiboot information or page tables.
    NoLowMemory {
        /// The bytes that did not fit.
        needed: u64,
    },
    /// The host did not deliver an item.
    FwCfg(fw_cfg::Error),
    /// The firmware's heap has no room for `boot_params`, `hvm_start_info` or Multiboot information.
    HeapFull,
    /// The memory map has no room for another region.
    MemoryMap(memory_map::Error),
    /// No room for the kernel.
    KernelDoesNotFit {
        /// The bytes that it uses until it manages memory itself.
        needed: u64,
        /// The lowest address it can run at.
        at: PhysAddr,
        /// All the RAM of the machine in bytes.
        ram: u64,
    },
    /// The kernel needs more memory than any machine has at the addresses where it can run.
    KernelOutOfReach {
        /// The bytes that it needs.
        needed: u64,
        /// The lowest address it can run at.
        at: PhysAddr,
        /// One past the highest address that it may use.
        limit: PhysAddr,
    },
    /// No room for the initrd.
    InitrdDoesNotFit {
        /// Its size in bytes.
        size: u64,
        /// One past the highest address that the kernel accepts, if it sets a limit.
        limit: Option<PhysAddr>,
        /// The longest run of free memory there, in bytes.
        free: u64,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoKernel => f.write_str(
                "no kernel: give the host one (QEMU -kernel, libvirt <kernel>), or the fw_cfg file opt/org.firstlight/kernel",
            ),
            Self::NoKernelModule { modules } => write!(
                f,
                "no kernel: fw_cfg has none, and none of {modules} modules is a bzImage; give one as the initrd (QEMU \
                 -initrd, libvirt <initrd>, Cloud Hypervisor --initramfs), or as the fw_cfg file opt/org.firstlight/kernel"
            ),
            Self::EmptyFile => f.write_str("no kernel: the fw_cfg file for the kernel is empty; put a bzImage (vmlinuz) into it"),
            Self::Elf => f.write_str("the kernel is an ELF file without a PVH entry point; use a bzImage (vmlinuz)"),
            Self::ElfFile => f.write_str(
                "the kernel is an ELF file, which the host has to load (QEMU -kernel, libvirt <kernel>); or use a bzImage \
                 (vmlinuz)",
            ),
            Self::MultibootInfo { len, needed } => write!(
                f,
                "the host's Multiboot information has {len} bytes, {needed} are needed; this is a defect of the host"
            ),
            Self::MultibootPointer { what, at, loaded } => write!(
                f,
                "the host's Multiboot information has the {what} at {at}, which is not all in what the host has loaded, \
                 {loaded}; this is a defect of the host"
            ),
            Self::MultibootOverlap { at, loaded } => write!(
                f,
                "the host's Multiboot information has overlapping modules: with the one at {at} they are longer than all \
                 that it has loaded, {loaded}; this is a defect of the host"
            ),
            Self::EntryOutside { entry, start, size } => {
                let advice = if entry == PhysAddr::new(0) {
                    "the file may have been linked without an entry point; name one to the linker"
                } else {
                    "is the file whole?"
                };
                write!(
                    f,
                    "the kernel's entry point {entry} is not in the {size} bytes from {start} that the host has loaded below \
                     4 GiB; {advice}"
                )
            }
            Self::KernelOverFirmware { kernel, firmware } => write!(
                f,
                "the host puts the kernel at {kernel}, over the firmware's own memory {firmware}; link it from 1 MiB on"
            ),
            Self::KernelOutsideRam { kernel } => write!(
                f,
                "the host puts the kernel at {kernel}, which is not all free RAM; give the machine more memory, \
                 or link the kernel elsewhere from 1 MiB on"
            ),
            Self::NotLinux { kind: None } => {
                f.write_str("the kernel has no Linux setup header; use a bzImage (vmlinuz)")
            }
            Self::NotLinux { kind: Some(kind) } => {
                write!(f, "the kernel has no Linux setup header: it is {kind}; use a bzImage (vmlinuz)")
            }
            Self::FileTruncated { seen, needed } => write!(
                f,
                "the kernel file is cut short: it has {seen} bytes, and {needed} by its header; build or copy it again"
            ),
            Self::Truncated { seen, needed } => {
                write!(f, "the kernel's setup header is cut short: {seen} bytes, {needed} needed; is the file whole?")
            }
            Self::TooOld { version } => {
                let (major, minor) = (version >> 8, version & 0xff);
                write!(f, "kernel too old: its boot protocol is {major}.{minor:02}; 2.00 (Linux 1.3.73) is needed")
            }
            Self::Efi(error) => error.fmt(f),
            Self::Shim(error) => write!(f, "the shim (QEMU -shim): {error}"),
            Self::EfiNotStarted(status) => {
                write!(f, "the EFI program could not be started: {status}; give the machine more memory")
            }
            Self::EfiReturned(status) => write!(
                f,
                "the EFI program returned: {status}; what it printed before may say why"
            ),
            Self::EfiReturnedLate => f.write_str(
                "the EFI program ended boot services and then returned, where nothing is left to return to; \
                 what it printed before may say why",
            ),
            Self::NoEfiMemory { needed } => write!(
                f,
                "the EFI program needs {} MiB in one piece below 4 GiB, which are not free; give the machine more memory",
                mib(needed)
            ),
            Self::RealModeOnly => f.write_str(
                "the kernel starts in real mode only and needs the services of a BIOS, which this firmware does not have; \
                 use a Linux kernel (bzImage) or an ELF file, or start the machine with a BIOS such as SeaBIOS",
            ),
            Self::EntryMoved { entry, start, len } => write!(
                f,
                "the kernel's header has the entry point (code32_start) at {entry}, outside its {len} bytes from {start}; use a \
                 file that no other loader has changed"
            ),
            Self::ZImageTooLong { len, limit } => {
                write!(f, "the kernel is a zImage with {len} bytes, {limit} fit below 640 KiB; use a bzImage")
            }
            Self::NoPcMemory { needed } => write!(
                f,
                "the kernel is a zImage and needs {needed}, which is not all free RAM on this machine; use a bzImage"
            ),
            Self::BadAlignment { alignment } => {
                write!(f, "the kernel asks for alignment {alignment:#x}, which is not a power of two; is the file whole?")
            }
            Self::CommandLineTooLong { len, limit } => {
                write!(f, "the command line has {len} bytes, the kernel accepts {limit}; shorten it")
            }
            Self::CommandLineDoesNotFit { needed } => {
                write!(f, "no {needed} bytes free below 640 KiB for the command line; shorten it")
            }
            Self::NoLowMemory { needed } => write!(
                f,
                "no {needed} bytes free below 640 KiB for the kernel's parameters; the host's memory map (etc/e820) must \
                 have RAM there"
            ),
            Self::FwCfg(error) => error.fmt(f),
            Self::HeapFull => f.write_str("the firmware's heap is full: the host's tables are too large"),
            Self::MemoryMap(error) => error.fmt(f),
            Self::KernelDoesNotFit { needed, at, ram } => write!(
                f,
                "the kernel needs {} MiB in one piece from {at} up, which ends at {} MiB; the machine has {} MiB in all: give \
                 it more memory",
                mib(needed),
                mib(at.get().saturating_add(needed)),
                // The firmware and the tables take less than 1 MiB.
                mib(ram)
            ),
            Self::KernelOutOfReach { needed, at, limit } => write!(
                f,
                "the kernel's header asks for {} MiB from {at} up (init_size, pref_address), and it can use none from \
                 {limit} on; is the file whole?",
                mib(needed)
            ),
            Self::InitrdDoesNotFit { size, limit, free } => {
                write!(f, "the initrd of {} MiB does not fit", mib(size))?;
                if let Some(limit) = limit {
                    write!(f, " below {limit}")?;
                }
                write!(f, ", {} MiB are free in one piece; give the machine more memory", free >> 20)
            }
        }
    }
}

impl core::error::Error for Error {}

impl From<pe::Error> for Error {
    fn from(error: pe::Error) -> Self {
        Self::Efi(error)
    }
}

impl From<fw_cfg::Error> for Error {
    fn from(error: fw_cfg::Error) -> Self {
        Self::FwCfg(error)
    }
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Self::FwCfg(error.into())
    }
}

impl From<memory_map::Error> for Error {
    fn from(error: memory_map::Error) -> Self {
        Self::MemoryMap(error)
    }
}

/// Bytes in mebibytes, rounded up.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
