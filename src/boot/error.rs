//! Why a kernel cannot be booted.

use core::fmt;

use uefi_raw::Status;

use super::file_kind::FileKind;
use crate::addr::{PhysAddr, PhysRange};
use crate::efi::pe;
use crate::hal::MemoryError;
use crate::{fw_cfg, memory_map};

/// What is wrong with the kernel, the initrd, the command line, or the room for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The host offers no kernel, and the machine has no disk.
    #[error(
        "no kernel and no disk: give the host a kernel (QEMU -kernel, libvirt <kernel>, or the fw_cfg file \
         opt/org.firstlight/kernel), or a virtio, NVMe or AHCI disk (QEMU -drive if=virtio, libvirt <disk>)"
    )]
    NoKernel,
    /// The host offers no kernel besides the firmware, and none of its modules is one.
    #[error(
        "no kernel: fw_cfg has none, and none of {modules} modules is a bzImage; give one as the initrd (QEMU \
         -initrd, libvirt <initrd>, Cloud Hypervisor --initramfs), or as the fw_cfg file opt/org.firstlight/kernel"
    )]
    NoKernelModule {
        /// How many modules there are.
        modules: usize,
    },
    /// The named file for the kernel is empty.
    #[error("no kernel: the fw_cfg file for the kernel is empty; put a bzImage (vmlinuz) into it")]
    EmptyFile,
    /// The kernel is an ELF file, and the host names no entry point.
    #[error("the kernel is an ELF file without a PVH entry point; use a bzImage (vmlinuz)")]
    Elf,
    /// The named file for the kernel is an ELF file, which only the host can load.
    #[error(
        "the kernel is an ELF file, which the host has to load (QEMU -kernel, libvirt <kernel>); or use a bzImage \
         (vmlinuz)"
    )]
    ElfFile,
    /// The host's Multiboot information is too short.
    #[error("the host's Multiboot information has {len} bytes, {needed} are needed; this is a defect of the host")]
    MultibootInfo {
        /// Its length in bytes.
        len: u32,
        /// The shortest valid length.
        needed: u32,
    },
    /// The host's Multiboot information points outside of what the host has loaded.
    #[error(
        "the host's Multiboot information has the {what} at {at}, which is not all in what the host has loaded, \
         {loaded}; this is a defect of the host"
    )]
    MultibootPointer {
        /// The structure that the pointer is for.
        what: &'static str,
        /// Where the structure begins.
        at: PhysAddr,
        /// What the host has loaded.
        loaded: PhysRange,
    },
    /// The modules in the host's Multiboot information are together longer than all that the host has loaded.
    #[error(
        "the host's Multiboot information has overlapping modules: with the one at {at} they are longer than all that \
         it has loaded, {loaded}; this is a defect of the host"
    )]
    MultibootOverlap {
        /// The first module that is beyond that length.
        at: PhysAddr,
        /// What the host has loaded.
        loaded: PhysRange,
    },
    /// The host's entry point is outside the kernel, or the kernel is not all below 4 GiB.
    #[error(
        "the kernel's entry point {entry} is not in the {size} bytes from {start} that the host has loaded below 4 GiB; {}",
        entry_advice(*entry)
    )]
    EntryOutside {
        /// The entry point.
        entry: PhysAddr,
        /// The kernel's first byte.
        start: PhysAddr,
        /// Its size in bytes.
        size: u32,
    },
    /// The kernel's place, which the host has chosen, overlaps the firmware.
    #[error("the host puts the kernel at {kernel}, over the firmware's own memory {firmware}; link it from 1 MiB on")]
    KernelOverFirmware {
        /// Where the kernel is.
        kernel: PhysRange,
        /// Where the firmware is.
        firmware: PhysRange,
    },
    /// The kernel's place, which the host has chosen, is not all RAM.
    #[error(
        "the host puts the kernel at {kernel}, which is not all free RAM; give the machine more memory, or link the \
         kernel elsewhere from 1 MiB on"
    )]
    KernelOutsideRam {
        /// Where the kernel is.
        kernel: PhysRange,
    },
    /// The setup header is missing: no boot flag or no magic number.
    #[error(fmt = not_linux)]
    NotLinux {
        /// What the file is instead, if known.
        kind: Option<FileKind>,
    },
    /// The kernel file is shorter than its header says.
    #[error("the kernel file is cut short: it has {seen} bytes, and {needed} by its header; build or copy it again")]
    FileTruncated {
        /// The length of the file in bytes.
        seen: u64,
        /// The length by the header in bytes.
        needed: u64,
    },
    /// The setup header is shorter than its protocol version requires.
    #[error("the kernel's setup header is cut short: {seen} bytes, {needed} needed; is the file whole?")]
    Truncated {
        /// The bytes that are there, from the start of the file.
        seen: usize,
        /// The bytes that are needed.
        needed: usize,
    },
    /// The boot protocol is older than 2.00.
    #[error(
        "kernel too old: its boot protocol is {}.{:02}; 2.00 (Linux 1.3.73) is needed",
        version >> 8,
        version & 0xff
    )]
    TooOld {
        /// The version of the kernel, major in the upper byte, minor in the lower.
        version: u16,
    },
    /// The kernel is an EFI program that cannot be started.
    #[error(transparent)]
    Efi(#[from] pe::Error),
    /// The shim is not an EFI program that can be started.
    #[error("the shim (QEMU -shim): {0}")]
    Shim(pe::Error),
    /// The EFI program could not be started.
    #[error("the EFI program could not be started: {status}; {}", start_advice(*.0), status = .0)]
    EfiNotStarted(Status),
    /// The EFI program returned.
    #[error("the EFI program returned: {status}; {}", after_return(*.0), status = .0)]
    EfiReturned(Status),
    /// The EFI program returned after it had ended boot services.
    #[error(
        "the EFI program ended boot services and then returned, where nothing is left to return to; what it printed \
         before may say why"
    )]
    EfiReturnedLate,
    /// There is no free memory below 4 GiB for an EFI program.
    #[error(
        "the EFI program needs {} MiB in one piece below 4 GiB, which are not free; give the machine more memory",
        mib(*needed)
    )]
    NoEfiMemory {
        /// The bytes that are needed in one piece.
        needed: u64,
    },
    /// The kernel is for a BIOS: its only entry point is in real mode.
    #[error(
        "the kernel starts in real mode only and needs the services of a BIOS, which this firmware does not have; use \
         a Linux kernel (bzImage) or an ELF file, or start the machine with a BIOS such as SeaBIOS"
    )]
    RealModeOnly,
    /// The 32-bit entry point in the header is outside the kernel.
    #[error(
        "the kernel's header has the entry point (code32_start) at {entry}, outside its {len} bytes from {start}; use \
         a file that no other loader has changed"
    )]
    EntryMoved {
        /// `code32_start`.
        entry: PhysAddr,
        /// Where the kernel's first byte is loaded.
        start: PhysAddr,
        /// Its length in bytes.
        len: u64,
    },
    /// A zImage that is too long for low memory.
    #[error("the kernel is a zImage with {len} bytes, {limit} fit below 640 KiB; use a bzImage")]
    ZImageTooLong {
        /// The length of its protected-mode part in bytes.
        len: u64,
        /// The longest that fits.
        limit: u64,
    },
    /// Not all of the low memory that a zImage runs in is free RAM.
    #[error("the kernel is a zImage and needs {needed}, which is not all free RAM on this machine; use a bzImage")]
    NoPcMemory {
        /// What the zImage needs.
        needed: PhysRange,
    },
    /// The kernel's alignment is not a power of two.
    #[error("the kernel asks for alignment {alignment:#x}, which is not a power of two; is the file whole?")]
    BadAlignment {
        /// `kernel_alignment`.
        alignment: u32,
    },
    /// The command line is longer than the kernel accepts.
    #[error("the command line has {len} bytes, the kernel accepts {limit}; shorten it")]
    CommandLineTooLong {
        /// Its length in bytes, without the NUL at its end.
        len: u64,
        /// The longest that the kernel accepts.
        limit: u64,
    },
    /// No room below 640 KiB for the command line.
    #[error("no {needed} bytes free below 640 KiB for the command line; shorten it")]
    CommandLineDoesNotFit {
        /// The bytes that did not fit.
        needed: u64,
    },
    /// No room below 640 KiB for `boot_params`, `hvm_start_info`, Multiboot information or page tables.
    #[error(
        "no {needed} bytes free below 640 KiB for the kernel's parameters; the host's memory map (etc/e820) must have \
         RAM there"
    )]
    NoLowMemory {
        /// The bytes that did not fit.
        needed: u64,
    },
    /// The host did not deliver an item.
    #[error(transparent)]
    FwCfg(#[from] fw_cfg::Error),
    /// The firmware's heap has no room for `boot_params`, `hvm_start_info` or Multiboot information.
    #[error("the firmware's heap is full: the host's tables are too large")]
    HeapFull,
    /// The memory map has no room for another region.
    #[error(transparent)]
    MemoryMap(#[from] memory_map::Error),
    /// No room for the kernel.
    #[error(
        "the kernel needs {} MiB in one piece from {at} up, which ends at {} MiB; the machine has {} MiB in all: give \
         it more memory",
        mib(*needed),
        mib(at.get().saturating_add(*needed)),
        // The firmware and the tables take less than 1 MiB.
        mib(*ram)
    )]
    KernelDoesNotFit {
        /// The bytes that it uses until it manages memory itself.
        needed: u64,
        /// The lowest address it can run at.
        at: PhysAddr,
        /// All the RAM of the machine in bytes.
        ram: u64,
    },
    /// The kernel needs more memory than any machine has at the addresses where it can run.
    #[error(
        "the kernel's header asks for {} MiB from {at} up (init_size, pref_address), and it can use none from {limit} \
         on; is the file whole?",
        mib(*needed)
    )]
    KernelOutOfReach {
        /// The bytes that it needs.
        needed: u64,
        /// The lowest address it can run at.
        at: PhysAddr,
        /// One past the highest address that it may use.
        limit: PhysAddr,
    },
    /// No room for the initrd.
    #[error(fmt = initrd_does_not_fit)]
    InitrdDoesNotFit {
        /// Its size in bytes.
        size: u64,
        /// One past the highest address that the kernel accepts, if it sets a limit.
        limit: Option<PhysAddr>,
        /// The longest run of free memory there, in bytes.
        free: u64,
    },
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Self::FwCfg(error.into())
    }
}

/// Bytes in mebibytes, rounded up.
fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn after_return(status: Status) -> &'static str {
    match status {
        Status::SUCCESS => "there is nothing else to boot",
        // systemd's stub before version 258.
        Status::ALREADY_STARTED => "if it has an initrd of its own, pass no other with it",
        _ => "what it printed before may say why",
    }
}

fn start_advice(status: Status) -> &'static str {
    if status == Status::OUT_OF_RESOURCES {
        "give the machine more memory"
    } else {
        "a warning before this line may say why"
    }
}

fn entry_advice(entry: PhysAddr) -> &'static str {
    if entry == PhysAddr::new(0) {
        "the file may have been linked without an entry point; name one to the linker"
    } else {
        "is the file whole?"
    }
}

fn not_linux(kind: &Option<FileKind>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str("the kernel has no Linux setup header")?;
    if let Some(kind) = kind {
        write!(f, ": it is {kind}")?;
    }
    f.write_str("; use a bzImage (vmlinuz)")
}

fn initrd_does_not_fit(size: &u64, limit: &Option<PhysAddr>, free: &u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the initrd of {} MiB does not fit", mib(*size))?;
    if let Some(limit) = limit {
        write!(f, " below {limit}")?;
    }
    write!(f, ", {} MiB are free in one piece; give the machine more memory", free >> 20)
}
