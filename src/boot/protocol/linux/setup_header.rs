//! The setup header in a kernel file's first sectors.
//!
//! Field names and meanings are those of boot.rst, "The Real-Mode Kernel Header" and "Details of Header Fields".

use zerocopy::{FromZeros, IntoBytes};

use super::raw_header::{HEADER_ROOM_END, HEADER_START, LOADED_HIGH, RawHeader};
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::boot::elf;
use crate::boot::error::Error;
use crate::boot::file_kind::FileKind;

/// `boot_flag` and `header`.
const BOOT_FLAG: u16 = 0xaa55;
const MAGIC: [u8; 4] = *b"HdrS";
/// The byte in `jump` counts from this offset to the end of the header (boot.rst, "32-bit Boot Protocol").
const JUMP_BASE: usize = 0x202;

/// 2.00: the first with this header (Linux 1.3.73).
const OLDEST: u16 = 0x200;
/// 2.02 added `cmd_line_ptr`. Since then a kernel does not use the memory at 0x90000.
const WITH_CMD_LINE_PTR: u16 = 0x202;
/// 2.03 added `initrd_addr_max`.
const WITH_INITRD_ADDR_MAX: u16 = 0x203;
/// 2.04 widened `syssize` from two bytes to four.
const WITH_WIDE_SYSSIZE: u16 = 0x204;
/// 2.05 added `relocatable_kernel`.
const WITH_RELOCATABLE_KERNEL: u16 = 0x205;
/// 2.06 added `cmdline_size`.
const WITH_CMDLINE_SIZE: u16 = 0x206;
/// 2.09 added `setup_data`.
const WITH_SETUP_DATA: u16 = 0x209;
/// 2.10 added `pref_address`, `init_size` and `min_alignment`.
const WITH_INIT_SIZE: u16 = 0x20a;
/// 2.12 added `xloadflags`.
const WITH_XLOADFLAGS: u16 = 0x20c;

/// The end of the header's first form, 2.00 (`bootsect_kludge`).
const END_2_00: usize = 0x224;

/// The offset of the 64-bit entry point in the protected-mode part (boot.rst, "64-bit Boot Protocol").
const ENTRY_64: u64 = 0x200;
/// `xloadflags`: there is a 64-bit entry point at 0x200.
const XLF_KERNEL_64: u16 = 1 << 0;
/// `xloadflags`: kernel, initrd, `boot_params` and command line may be above 4 GiB, so the initrd may be anywhere.
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 1 << 1;

/// The magic number of a kernel file with an EFI stub: that of an EFI application's DOS header (Linux
/// `arch/x86/boot/header.S`, `MZ_MAGIC`).
const EFI_STUB: [u8; 2] = *b"MZ";

/// Where a bzImage is loaded unless it is relocatable (boot.rst, "Loading The Rest of The Kernel").
pub const DEFAULT_ADDRESS: PhysAddr = PhysAddr::new(0x10_0000);
/// Where a zImage runs: its setup code moves it there from [`ZIMAGE_LOADED`] (Linux 2.6.29
/// `arch/x86/boot/header.S`, `code32_start`, and `pm.c`, `move_kernel_around`).
const ZIMAGE_ADDRESS: PhysAddr = PhysAddr::new(0x1000);
/// Where a loader puts such a zImage, and where a zImage that is not moved runs (boot.rst, "Loading The Rest of The
/// Kernel").
const ZIMAGE_LOADED: PhysAddr = PhysAddr::new(0x1_0000);
/// The longest command line if the header has no limit (boot.rst, `cmdline_size`).
const DEFAULT_COMMAND_LINE: u64 = 255;
/// The highest address of an initrd if the header has no limit (boot.rst, `initrd_addr_max`).
const DEFAULT_INITRD_ADDR_MAX: u64 = 0x37ff_ffff;
/// A 16-bit `syssize` wraps after this many bytes.
const NARROW_SYSSIZE_WRAP: u64 = 1 << 20;

/// Whether the kernel runs where it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relocation {
    /// Loaded at 1 MiB. It moves itself to its preferred address and runs there.
    Fixed,
    /// Runs where it is loaded, at its preferred address or above.
    Movable {
        /// The preferred alignment of the load address.
        alignment: Alignment,
        /// The alignment that it must have; not more than `alignment`.
        least: Alignment,
    },
}

/// A validated setup header: a bzImage or zImage of protocol 2.00 or later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupHeader {
    pub(super) raw: RawHeader,
    relocation: Relocation,
    efi_stub: bool,
}

impl SetupHeader {
    /// How many bytes [`Self::parse`] reads, from the start of the kernel file.
    pub const BYTES: usize = HEADER_ROOM_END;

    /// Parses the start of a kernel file, [`Self::BYTES`] of it or the whole file if that is shorter.
    ///
    /// A header longer than its room in `boot_params` is truncated.
    ///
    /// # Errors
    /// [`Error::Elf`], [`Error::NotLinux`], [`Error::RealModeOnly`] for a boot sector without the header,
    /// [`Error::TooOld`], [`Error::Truncated`], [`Error::BadAlignment`].
    pub fn parse(setup: &[u8]) -> Result<Self, Error> {
        if setup.starts_with(elf::MAGIC) {
            return Err(match FileKind::of(setup) {
                None => Error::Elf,
                kind => Error::NotLinux { kind },
            });
        }
        if setup.len() < END_2_00 {
            // A file that begins as an EFI program may be a kernel with an EFI stub.
            return Err(match FileKind::of(setup) {
                None | Some(FileKind::Dos) => Error::Truncated { seen: setup.len(), needed: END_2_00 },
                kind => Error::NotLinux { kind },
            });
        }
        let there = setup.get(HEADER_START..setup.len().min(HEADER_ROOM_END)).unwrap_or_default();
        let mut raw = RawHeader::new_zeroed();
        if let Some(room) = raw.as_mut_bytes().get_mut(..there.len()) {
            room.copy_from_slice(there);
        }
        if raw.boot_flag.get() != BOOT_FLAG {
            return Err(Error::NotLinux { kind: FileKind::of(setup) });
        }
        if raw.header != MAGIC {
            return Err(Error::RealModeOnly);
        }
        let version = raw.version.get();
        if version < OLDEST {
            return Err(Error::TooOld { version });
        }

        let [_, jump] = raw.jump;
        let end = JUMP_BASE.saturating_add(jump.into()).min(HEADER_ROOM_END);
        let needed = fields_end(version);
        if setup.len() < end || end < needed {
            return Err(Error::Truncated { seen: setup.len().min(end), needed: needed.max(end) });
        }
        // Code follows the header, not fields.
        if let Some(code) = raw.as_mut_bytes().get_mut(end.saturating_sub(HEADER_START)..) {
            code.fill(0);
        }
        Ok(Self { relocation: relocation(&raw)?, raw, efi_stub: setup.first_chunk() == Some(&EFI_STUB) })
    }

    /// The protocol version, major in the upper byte, minor in the lower.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.raw.version.get()
    }

    /// The length in bytes of the real-mode part of the file: the boot sector and `setup_sects` more. The
    /// protected-mode part follows it.
    #[must_use]
    pub fn setup_len(&self) -> u32 {
        let sectors = if self.raw.setup_sects == 0 { 4 } else { u32::from(self.raw.setup_sects) };
        sectors.saturating_add(1).saturating_mul(512)
    }

    /// The length in bytes of the protected-mode part of the file, rounded up to 16 bytes. More may follow it, such as
    /// a signature. Zero for a kernel before 2.04, which has no such field.
    #[must_use]
    pub fn kernel_len(&self) -> u64 {
        if self.version() < WITH_WIDE_SYSSIZE { 0 } else { u64::from(self.raw.syssize.get()).saturating_mul(16) }
    }

    /// The length in bytes of the whole file by its header, rounded up to 16 bytes. For a kernel before 2.04, the
    /// length of its real-mode part.
    #[must_use]
    pub fn file_len(&self) -> u64 {
        self.kernel_len().saturating_add(self.setup_len().into())
    }

    /// Whether it is a bzImage, whose protected-mode part runs at 1 MiB or above. A zImage runs below.
    #[must_use]
    pub fn is_loaded_high(&self) -> bool {
        self.raw.loadflags & LOADED_HIGH != 0
    }

    /// Whether the header has a field for the address of the command line. A kernel without it reads its parameters at
    /// 0x90000 only.
    #[must_use]
    pub fn has_cmd_line_ptr(&self) -> bool {
        self.version() >= WITH_CMD_LINE_PTR
    }

    /// Where the protected-mode part runs unless it is relocatable. For a bzImage it is loaded there.
    #[must_use]
    pub fn default_address(&self) -> PhysAddr {
        if self.is_loaded_high() {
            DEFAULT_ADDRESS
        } else if u64::from(self.raw.code32_start.get()) < ZIMAGE_LOADED.get() {
            ZIMAGE_ADDRESS
        } else {
            ZIMAGE_LOADED
        }
    }

    /// The offset of the entry point in the protected-mode part, which has `kernel_len` bytes. The 64-bit entry point
    /// is at 0x200, any other at the beginning (boot.rst, "64-bit Boot Protocol" and "32-bit Boot Protocol"). The
    /// exception is a kernel with a fixed address and another address in `code32_start`: there its own setup code would
    /// jump to that address.
    ///
    /// # Errors
    /// [`Error::FileTruncated`] and [`Error::EntryMoved`] if the entry point is outside the kernel.
    /// [`Error::RealModeOnly`] for a kernel without such an entry point. Its setup code reads the file and calls the
    /// BIOS. Among kernels that have no 64-bit entry point and are not relocatable, these are such kernels:
    ///
    /// - `code32_start` is zero (iPXE, gPXE, Etherboot). In every Linux kernel it is an address.
    /// - Before 2.04, `syssize` is zero, and the file is too short for its 16 bits to have wrapped (memdisk, GRUB's
    ///   `lnxboot.img`). In every Linux kernel it is the length. Later kernels other than Linux leave it zero and do
    ///   have the entry point.
    pub fn entry_offset(&self, kernel_len: u64) -> Result<u64, Error> {
        let is_relocatable = self.raw.relocatable_kernel != 0 && self.version() >= WITH_RELOCATABLE_KERNEL;
        let offset = if self.is_64_bit() { ENTRY_64 } else { 0 };
        if offset == 0 && !is_relocatable {
            return self.fixed_entry_offset(kernel_len);
        }
        if kernel_len <= offset {
            let before = u64::from(self.setup_len());
            let needed = self.file_len().max(before.saturating_add(offset).saturating_add(1));
            return Err(Error::FileTruncated { seen: before.saturating_add(kernel_len), needed });
        }
        Ok(offset)
    }

    /// The same for a kernel that cannot be moved.
    fn fixed_entry_offset(&self, kernel_len: u64) -> Result<u64, Error> {
        let code32_start = u64::from(self.raw.code32_start.get());
        let says_empty = self.version() < WITH_WIDE_SYSSIZE
            && self.raw.syssize.get() & 0xffff == 0
            && kernel_len < NARROW_SYSSIZE_WRAP - 15;
        if code32_start == 0 || says_empty {
            return Err(Error::RealModeOnly);
        }
        let start = self.default_address();
        let offset = code32_start.checked_sub(start.get());
        let moved = Error::EntryMoved { entry: PhysAddr::new(code32_start), start, len: kernel_len };
        offset.filter(|&offset| offset < kernel_len).ok_or(moved)
    }

    /// Whether the kernel has a 64-bit entry point.
    #[must_use]
    pub fn is_64_bit(&self) -> bool {
        self.is_loaded_high() && self.xloadflags() & XLF_KERNEL_64 != 0
    }

    /// Whether the kernel is also an EFI application, and so has drivers for what EFI firmware provides.
    #[must_use]
    pub fn has_efi_stub(&self) -> bool {
        self.efi_stub
    }

    /// Whether kernel and initrd may be above 4 GiB. A kernel without a 64-bit entry point cannot be reached there.
    #[must_use]
    pub fn may_be_above_4_gib(&self) -> bool {
        self.is_64_bit() && self.xloadflags() & XLF_CAN_BE_LOADED_ABOVE_4G != 0
    }

    /// Where below 4 GiB the initrd may be: up to `initrd_addr_max`.
    ///
    /// That field is a limit of 32-bit kernels. A kernel that accepts an initrd above 4 GiB accepts it anywhere below
    /// as well.
    #[must_use]
    pub fn initrd_space(&self) -> PhysRange {
        if self.xloadflags() & XLF_CAN_BE_LOADED_ABOVE_4G != 0 {
            return PhysRange::LOW_4_GIB;
        }
        let last = match self.version() {
            WITH_INITRD_ADDR_MAX.. => self.raw.initrd_addr_max.get().into(),
            _ => DEFAULT_INITRD_ADDR_MAX,
        };
        let end = last.saturating_add(1);
        PhysRange::from_bounds(PhysAddr::new(0), PhysAddr::new(end)).unwrap_or_default()
    }

    /// The longest command line that the kernel accepts, in bytes without the NUL.
    #[must_use]
    pub fn command_line_limit(&self) -> u64 {
        match self.raw.cmdline_size.get() {
            limit if limit != 0 && self.version() >= WITH_CMDLINE_SIZE => limit.into(),
            _ => DEFAULT_COMMAND_LINE,
        }
    }

    /// Whether the kernel can run at another address than its preferred one. A kernel before 2.10 counts as fixed,
    /// because its header does not say how much memory it needs.
    #[must_use]
    pub fn relocation(&self) -> Relocation {
        self.relocation
    }

    /// The lowest address from which the kernel can run (`pref_address`). No 64-bit kernel runs below it, wherever it
    /// is loaded (Linux `arch/x86/boot/compressed/head_64.S`, `LOAD_PHYSICAL_ADDR`).
    #[must_use]
    pub fn preferred_address(&self) -> PhysAddr {
        match self.raw.pref_address.get() {
            address if address != 0 && self.version() >= WITH_INIT_SIZE => PhysAddr::new(address),
            _ => DEFAULT_ADDRESS,
        }
    }

    /// How many bytes the kernel needs from its runtime start on, before it manages memory itself (`init_size`).
    /// `kernel_len` is the length of its protected-mode part.
    ///
    /// Kernels before 2.10 do not have the field. For these it is estimated as four times the length, because no kernel
    /// was compressed to less than a quarter, plus 16 MiB for data that is not in the file and for the distance to the
    /// address that the kernel was built for. Before 2.04 (Linux 2.6.14) every kernel was built for 1 MiB and unpacks
    /// behind its file. For these it is five times the length, plus 2 MiB for data that is not in the file.
    #[must_use]
    pub fn run_len(&self, kernel_len: u64) -> u64 {
        let version = self.version();
        match self.raw.init_size.get() {
            init_size if init_size != 0 && version >= WITH_INIT_SIZE => init_size.into(),
            _ if version < WITH_WIDE_SYSSIZE => kernel_len.saturating_mul(5).saturating_add(2 << 20),
            _ => kernel_len.saturating_mul(4).saturating_add(16 << 20),
        }
    }

    /// Whether the kernel reads `setup_data`.
    #[must_use]
    pub fn has_setup_data(&self) -> bool {
        self.version() >= WITH_SETUP_DATA
    }

    /// The address of the first `setup_data` node that the host left in the header. Zero for none.
    #[must_use]
    pub fn setup_data(&self) -> u64 {
        if self.has_setup_data() { self.raw.setup_data.get() } else { 0 }
    }

    fn xloadflags(&self) -> u16 {
        if self.version() < WITH_XLOADFLAGS { 0 } else { self.raw.xloadflags.get() }
    }
}

/// The offset at which the fields of this version end. A header of this version is at least as long.
fn fields_end(version: u16) -> usize {
    match version {
        ..=0x200 => END_2_00,
        0x201 => 0x226,
        0x202 => 0x22c,
        0x203..=0x204 => 0x230,
        0x205 => 0x235,
        0x206..=0x209 => 0x23c,
        _ => 0x264,
    }
}

fn relocation(raw: &RawHeader) -> Result<Relocation, Error> {
    let fixed = raw.relocatable_kernel == 0 || raw.loadflags & LOADED_HIGH == 0;
    if fixed || raw.version.get() < WITH_INIT_SIZE {
        return Ok(Relocation::Fixed);
    }
    let alignment = raw.kernel_alignment.get();
    let preferred = Alignment::new(alignment.into()).ok_or(Error::BadAlignment { alignment })?;
    // The exponent of a power of two. Zero, or more than the preferred alignment, means nothing.
    let least = match raw.min_alignment {
        0 => preferred,
        exponent => 1_u64.checked_shl(exponent.into()).and_then(Alignment::new).unwrap_or(preferred).min(preferred),
    };
    Ok(Relocation::Movable { alignment: preferred, least })
}

#[cfg(test)]
pub(super) mod tests;
