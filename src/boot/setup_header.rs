//! What a bzImage says of itself: the setup header in its first sectors.
//!
//! Field names and meanings are those of boot.rst, "The Real-Mode Kernel Header" and "Details of Header Fields".

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Error;
use crate::addr::{Alignment, PhysAddr, PhysRange};

/// Where the header begins, in the kernel file and in `boot_params`.
pub(super) const HEADER_START: usize = 0x1f1;
/// Where the room for it in `boot_params` ends (`struct boot_params`, Linux `arch/x86/include/uapi/asm/bootparam.h`).
pub(super) const HEADER_ROOM_END: usize = 0x290;

/// `boot_flag` and `header`.
const BOOT_FLAG: u16 = 0xaa55;
const MAGIC: [u8; 4] = *b"HdrS";
/// The offset from which the byte in `jump` counts to the end of the header (boot.rst, "32-bit Boot Protocol").
const JUMP_BASE: usize = 0x202;

/// 2.06: the first with a limit for the command line; kernels before it are from before 2007.
const OLDEST: u16 = 0x206;
/// 2.09 added `setup_data`.
const WITH_SETUP_DATA: u16 = 0x209;
/// 2.10 added `pref_address`, `init_size` and `min_alignment`.
const WITH_INIT_SIZE: u16 = 0x20a;
/// 2.12 added `xloadflags`.
const WITH_XLOADFLAGS: u16 = 0x20c;

/// The end of the fields of 2.06 (`cmdline_size`) and of 2.10 (`init_size`).
const END_2_06: usize = 0x23c;
const END_2_10: usize = 0x264;

/// `loadflags`: the protected-mode part runs at 1 MiB or above.
pub(super) const LOADED_HIGH: u8 = 1 << 0;
/// `loadflags`: the kernel prints no early messages.
pub(super) const QUIET_FLAG: u8 = 1 << 5;
/// `xloadflags`: there is a 64-bit entry at 0x200.
const XLF_KERNEL_64: u16 = 1 << 0;
/// `xloadflags`: kernel, initrd, `boot_params` and command line may be above 4 GiB, so the initrd may be anywhere.
const XLF_CAN_BE_LOADED_ABOVE_4G: u16 = 1 << 1;

/// Where a bzImage is loaded unless it is relocatable (boot.rst, "Loading The Rest of The Kernel").
pub(super) const DEFAULT_ADDRESS: PhysAddr = PhysAddr::new(0x10_0000);
/// The longest command line where the header gives none (boot.rst, `cmdline_size`).
const DEFAULT_COMMAND_LINE: u64 = 255;

/// The header as it is in the file, little-endian; what the kernel's header is too short for is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    pub setup_sects: u8,
    pub root_flags: U16,
    pub syssize: U32,
    pub ram_size: U16,
    pub vid_mode: U16,
    pub root_dev: U16,
    pub boot_flag: U16,
    pub jump: [u8; 2],
    pub header: [u8; 4],
    pub version: U16,
    pub realmode_swtch: U32,
    pub start_sys_seg: U16,
    pub kernel_version: U16,
    pub type_of_loader: u8,
    pub loadflags: u8,
    pub setup_move_size: U16,
    pub code32_start: U32,
    pub ramdisk_image: U32,
    pub ramdisk_size: U32,
    pub bootsect_kludge: U32,
    pub heap_end_ptr: U16,
    pub ext_loader_ver: u8,
    pub ext_loader_type: u8,
    pub cmd_line_ptr: U32,
    pub initrd_addr_max: U32,
    pub kernel_alignment: U32,
    pub relocatable_kernel: u8,
    pub min_alignment: u8,
    pub xloadflags: U16,
    pub cmdline_size: U32,
    pub hardware_subarch: U32,
    pub hardware_subarch_data: U64,
    pub payload_offset: U32,
    pub payload_length: U32,
    pub setup_data: U64,
    pub pref_address: U64,
    pub init_size: U32,
    pub handover_offset: U32,
    pub kernel_info_offset: U32,
    /// For what later protocols add.
    pub later: [u8; HEADER_ROOM_END - 0x26c],
}

/// Whether the kernel runs where it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relocation {
    /// Loaded at 1 MiB. It moves itself to its preferred address and runs there.
    Fixed,
    /// Runs where it is loaded, at its preferred address or above.
    Movable {
        /// What the load address is best a multiple of.
        alignment: Alignment,
        /// What it must be a multiple of; not more than `alignment`.
        least: Alignment,
    },
}

/// A setup header that was checked: a bzImage of protocol 2.06 or later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupHeader {
    pub(super) raw: RawHeader,
    relocation: Relocation,
}

impl SetupHeader {
    /// How many bytes from the start of the kernel file [`Self::parse`] looks at.
    pub const BYTES: usize = HEADER_ROOM_END;

    /// Parses the start of a kernel file, [`Self::BYTES`] of it or as many as there are.
    ///
    /// A header longer than `boot_params` has room for is cut there.
    ///
    /// # Errors
    /// [`Error::Elf`], [`Error::NotLinux`], [`Error::TooOld`], [`Error::NotLoadedHigh`], [`Error::Truncated`],
    /// [`Error::BadAlignment`].
    pub fn parse(setup: &[u8]) -> Result<Self, Error> {
        if setup.starts_with(b"\x7fELF") {
            return Err(Error::Elf);
        }
        let truncated = |needed| Error::Truncated { seen: setup.len(), needed };

        if setup.len() < END_2_06 {
            return Err(truncated(END_2_06));
        }
        let there = setup.get(HEADER_START..setup.len().min(HEADER_ROOM_END)).unwrap_or_default();
        let mut raw = RawHeader::new_zeroed();
        if let Some(room) = raw.as_mut_bytes().get_mut(..there.len()) {
            room.copy_from_slice(there);
        }
        if raw.boot_flag.get() != BOOT_FLAG || raw.header != MAGIC {
            return Err(Error::NotLinux);
        }
        let version = raw.version.get();
        if version < OLDEST {
            return Err(Error::TooOld { version });
        }
        if raw.loadflags & LOADED_HIGH == 0 {
            return Err(Error::NotLoadedHigh);
        }

        let [_, jump] = raw.jump;
        let end = JUMP_BASE.saturating_add(jump.into()).min(HEADER_ROOM_END);
        let needed = if version >= WITH_INIT_SIZE { END_2_10 } else { END_2_06 };
        if setup.len() < end || end < needed {
            return Err(Error::Truncated { seen: setup.len().min(end), needed: needed.max(end) });
        }
        // What follows the header is code, no fields.
        if let Some(code) = raw.as_mut_bytes().get_mut(end.saturating_sub(HEADER_START)..) {
            code.fill(0);
        }
        Ok(Self { relocation: relocation(&raw)?, raw })
    }

    /// The protocol version, major in the upper byte, minor in the lower.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.raw.version.get()
    }

    /// The length in bytes of the real-mode part of the file: the boot sector and `setup_sects` more. The
    /// protected-mode part follows it.
    #[must_use]
    pub fn setup_len(&self) -> u64 {
        let sectors = if self.raw.setup_sects == 0 { 4 } else { u64::from(self.raw.setup_sects) };
        sectors.saturating_add(1).saturating_mul(512)
    }

    /// The length in bytes of the protected-mode part of the file. More may follow it, such as a signature.
    #[must_use]
    pub fn kernel_len(&self) -> u64 {
        u64::from(self.raw.syssize.get()).saturating_mul(16)
    }

    /// Whether the kernel has a 64-bit entry point.
    #[must_use]
    pub fn is_64_bit(&self) -> bool {
        self.xloadflags() & XLF_KERNEL_64 != 0
    }

    /// Where the initrd may be: up to `initrd_addr_max`, and always below 4 GiB.
    ///
    /// That field is a limit of 32-bit kernels; one that takes an initrd above 4 GiB takes it anywhere below as well.
    #[must_use]
    pub fn initrd_space(&self) -> PhysRange {
        if self.xloadflags() & XLF_CAN_BE_LOADED_ABOVE_4G != 0 {
            return PhysRange::LOW_4_GIB;
        }
        let end = u64::from(self.raw.initrd_addr_max.get()).saturating_add(1);
        PhysRange::from_bounds(PhysAddr::new(0), PhysAddr::new(end)).unwrap_or_default()
    }

    /// The longest command line that the kernel takes, in bytes without the NUL.
    #[must_use]
    pub fn command_line_limit(&self) -> u64 {
        match self.raw.cmdline_size.get() {
            0 => DEFAULT_COMMAND_LINE,
            limit => limit.into(),
        }
    }

    /// Whether the kernel can run elsewhere than at its preferred address. A kernel before 2.10 is taken as fixed: it
    /// does not say how much memory it needs around it.
    #[must_use]
    pub fn relocation(&self) -> Relocation {
        self.relocation
    }

    /// Where the kernel runs from if it may choose (`pref_address`). No 64-bit kernel runs below it, wherever it is
    /// loaded (Linux `arch/x86/boot/compressed/head_64.S`, `LOAD_PHYSICAL_ADDR`).
    #[must_use]
    pub fn preferred_address(&self) -> PhysAddr {
        match self.raw.pref_address.get() {
            address if address != 0 && self.version() >= WITH_INIT_SIZE => PhysAddr::new(address),
            _ => DEFAULT_ADDRESS,
        }
    }

    /// How many bytes from its runtime start on the kernel needs before it manages memory itself, given the length of
    /// its protected-mode part: `init_size`.
    ///
    /// Kernels before 2.10 do not say. For them it is four times the length, more than they were ever compressed, and
    /// 16 MiB for what is not in the file and for their way up to the address they were built for.
    #[must_use]
    pub fn run_len(&self, kernel_len: u64) -> u64 {
        match self.raw.init_size.get() {
            init_size if init_size != 0 && self.version() >= WITH_INIT_SIZE => init_size.into(),
            _ => kernel_len.saturating_mul(4).saturating_add(16 << 20),
        }
    }

    /// The address of the first `setup_data` node that the host left in the header; zero for none.
    #[must_use]
    pub fn setup_data(&self) -> u64 {
        if self.version() < WITH_SETUP_DATA { 0 } else { self.raw.setup_data.get() }
    }

    fn xloadflags(&self) -> u16 {
        if self.version() < WITH_XLOADFLAGS { 0 } else { self.raw.xloadflags.get() }
    }
}

fn relocation(raw: &RawHeader) -> Result<Relocation, Error> {
    if raw.relocatable_kernel == 0 || raw.version.get() < WITH_INIT_SIZE {
        return Ok(Relocation::Fixed);
    }
    let alignment = raw.kernel_alignment.get();
    let preferred = Alignment::new(alignment.into()).ok_or(Error::BadAlignment { alignment })?;
    // A power of two, as its exponent; zero, or more than is preferred, says nothing.
    let least = match raw.min_alignment {
        0 => preferred,
        exponent => 1_u64.checked_shl(exponent.into()).and_then(Alignment::new).unwrap_or(preferred).min(preferred),
    };
    Ok(Relocation::Movable { alignment: preferred, least })
}

#[cfg(test)]
pub(super) mod tests {
    extern crate std;

    use core::mem::offset_of;
    use std::string::ToString;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// The first 1024 bytes of Debian's `vmlinuz-6.1.0-56-cloud-amd64`.
    pub const DEBIAN: &[u8; 1024] = include_bytes!("testdata/vmlinuz-6.1.0-56-cloud-amd64.setup");

    /// [`DEBIAN`] with some bytes changed.
    pub fn debian_with(patches: &[(usize, &[u8])]) -> Vec<u8> {
        let mut setup = DEBIAN.to_vec();
        for (at, bytes) in patches {
            setup[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        setup
    }

    fn parse_with(patches: &[(usize, &[u8])]) -> Result<SetupHeader, Error> {
        SetupHeader::parse(&debian_with(patches))
    }

    #[test]
    fn fields_are_where_the_protocol_has_them() {
        let offset = |field: usize| field + HEADER_START;
        assert_eq!(offset(offset_of!(RawHeader, setup_sects)), 0x1f1);
        assert_eq!(offset(offset_of!(RawHeader, syssize)), 0x1f4);
        assert_eq!(offset(offset_of!(RawHeader, vid_mode)), 0x1fa);
        assert_eq!(offset(offset_of!(RawHeader, boot_flag)), 0x1fe);
        assert_eq!(offset(offset_of!(RawHeader, jump)), 0x200);
        assert_eq!(offset(offset_of!(RawHeader, header)), 0x202);
        assert_eq!(offset(offset_of!(RawHeader, version)), 0x206);
        assert_eq!(offset(offset_of!(RawHeader, type_of_loader)), 0x210);
        assert_eq!(offset(offset_of!(RawHeader, loadflags)), 0x211);
        assert_eq!(offset(offset_of!(RawHeader, code32_start)), 0x214);
        assert_eq!(offset(offset_of!(RawHeader, ramdisk_image)), 0x218);
        assert_eq!(offset(offset_of!(RawHeader, ramdisk_size)), 0x21c);
        assert_eq!(offset(offset_of!(RawHeader, heap_end_ptr)), 0x224);
        assert_eq!(offset(offset_of!(RawHeader, cmd_line_ptr)), 0x228);
        assert_eq!(offset(offset_of!(RawHeader, initrd_addr_max)), 0x22c);
        assert_eq!(offset(offset_of!(RawHeader, kernel_alignment)), 0x230);
        assert_eq!(offset(offset_of!(RawHeader, relocatable_kernel)), 0x234);
        assert_eq!(offset(offset_of!(RawHeader, min_alignment)), 0x235);
        assert_eq!(offset(offset_of!(RawHeader, xloadflags)), 0x236);
        assert_eq!(offset(offset_of!(RawHeader, cmdline_size)), 0x238);
        assert_eq!(offset(offset_of!(RawHeader, hardware_subarch)), 0x23c);
        assert_eq!(offset(offset_of!(RawHeader, payload_offset)), 0x248);
        assert_eq!(offset(offset_of!(RawHeader, setup_data)), 0x250);
        assert_eq!(offset(offset_of!(RawHeader, pref_address)), 0x258);
        assert_eq!(offset(offset_of!(RawHeader, init_size)), 0x260);
        assert_eq!(offset(offset_of!(RawHeader, handover_offset)), 0x264);
        assert_eq!(offset(offset_of!(RawHeader, kernel_info_offset)), 0x268);
        assert_eq!(offset(size_of::<RawHeader>()), 0x290);
    }

    #[test]
    fn debian_kernel() {
        let header = SetupHeader::parse(DEBIAN).unwrap();
        assert_eq!(header.version(), 0x20f);
        assert_eq!(header.setup_len(), 0x5000);
        assert_eq!(header.kernel_len(), 0xd8_2200);
        assert!(header.is_64_bit());
        assert_eq!(header.initrd_space(), PhysRange::LOW_4_GIB);
        assert_eq!(header.command_line_limit(), 2047);
        let alignment = Alignment::LARGE_PAGE;
        assert_eq!(header.relocation(), Relocation::Movable { alignment, least: alignment });
        assert_eq!(header.preferred_address(), PhysAddr::new(0x100_0000));
        assert_eq!(header.run_len(header.kernel_len()), 0x337_8000);
        assert_eq!(header.setup_data(), 0);
        assert_eq!(header.raw.kernel_info_offset.get(), 0xd7_f91c);
        assert_eq!(header.raw.later, [0; 0x24], "the code behind the header is not part of it");
        assert_eq!(SetupHeader::parse(&DEBIAN[..SetupHeader::BYTES]), Ok(header));
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert_eq!(parse_with(&[(0x202, b"HdrX")]), Err(Error::NotLinux));
        assert_eq!(parse_with(&[(0x1fe, &[0, 0])]), Err(Error::NotLinux));
        assert_eq!(parse_with(&[(0, b"\x7fELF")]), Err(Error::Elf));
        assert_eq!(parse_with(&[(0x211, &[0])]), Err(Error::NotLoadedHigh));
        assert_eq!(SetupHeader::parse(&[0; 4096]), Err(Error::NotLinux));
    }

    #[test]
    fn a_kernel_too_old_is_told_what_is_needed() {
        let error = parse_with(&[(0x206, &[4, 2])]).unwrap_err();
        assert_eq!(error, Error::TooOld { version: 0x204 });
        let text = "kernel too old: its boot protocol is 2.04; 2.06 (Linux 2.6.22) is needed";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_header_cut_short_is_refused() {
        for len in [0, 0x1f0, 0x202, 0x23b, 0x263, 0x26b] {
            assert!(matches!(SetupHeader::parse(&DEBIAN[..len]), Err(Error::Truncated { .. })), "{len:#x}");
        }
        assert!(SetupHeader::parse(&DEBIAN[..0x26c]).is_ok());
        // The header itself says that it ends before `init_size`.
        assert!(matches!(parse_with(&[(0x201, &[0x40])]), Err(Error::Truncated { .. })));
        // One of 2.06 may.
        assert!(parse_with(&[(0x201, &[0x3a]), (0x206, &[6, 2])]).is_ok());
    }

    #[test]
    fn fields_of_later_protocols_are_not_read() {
        let header = parse_with(&[(0x206, &[6, 2]), (0x22c, &[0xff, 0xff, 0xff, 0x37]), (0x250, &[1; 8])]).unwrap();
        assert!(!header.is_64_bit());
        assert_eq!(header.initrd_space().end(), PhysAddr::new(0x3800_0000));
        assert_eq!(header.relocation(), Relocation::Fixed);
        assert_eq!(header.preferred_address(), PhysAddr::new(0x10_0000));
        assert_eq!(header.run_len(2 << 20), 24 << 20);
        assert_eq!(header.setup_data(), 0);
    }

    #[test]
    fn alignments() {
        let relocation = |patches: &[(usize, &[u8])]| parse_with(patches).map(|header| header.relocation());
        let alignment = Alignment::LARGE_PAGE;
        assert_eq!(relocation(&[(0x235, &[12])]), Ok(Relocation::Movable { alignment, least: Alignment::PAGE }));
        for nothing in [0, 22, 63, 64, 255] {
            assert_eq!(relocation(&[(0x235, &[nothing])]), Ok(Relocation::Movable { alignment, least: alignment }));
        }
        assert_eq!(relocation(&[(0x230, &[0; 4])]), Err(Error::BadAlignment { alignment: 0 }));
        assert_eq!(relocation(&[(0x230, &[1; 4])]), Err(Error::BadAlignment { alignment: 0x0101_0101 }));
        assert_eq!(relocation(&[(0x230, &[1; 4]), (0x234, &[0])]), Ok(Relocation::Fixed));
    }

    #[test]
    fn four_sectors_where_none_are_given() {
        assert_eq!(parse_with(&[(0x1f1, &[0])]).unwrap().setup_len(), 5 * 512);
    }

    proptest! {
        #[test]
        fn no_header_panics(
            bytes in prop::collection::vec(any::<u8>(), HEADER_ROOM_END - HEADER_START),
            len in 0..0x400_usize,
            valid in any::<bool>(),
        ) {
            let mut setup = debian_with(&[(HEADER_START, &bytes)]);
            if valid {
                setup[0x1fe..0x208].copy_from_slice(&[0x55, 0xaa, 0xeb, bytes[0], b'H', b'd', b'r', b'S', bytes[1], 2]);
                setup[0x211] |= LOADED_HIGH;
            }
            if let Ok(header) = SetupHeader::parse(&setup[..len]) {
                prop_assert!(header.version() >= 0x206);
                prop_assert!(PhysRange::LOW_4_GIB.contains(header.initrd_space()));
                let _ = (header.run_len(u64::MAX), header.setup_len(), header.kernel_len(), header.setup_data());
            }
        }
    }
}
