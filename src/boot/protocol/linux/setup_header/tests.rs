extern crate std;

use core::mem::offset_of;
use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::raw_header::RawHeader;
use super::*;

/// The first 1024 bytes of Debian's `vmlinuz-6.1.0-56-cloud-amd64`.
pub const DEBIAN: &[u8; 1024] = include_bytes!("../../../testdata/vmlinuz-6.1.0-56-cloud-amd64.setup");

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
fn fields_have_the_offsets_of_the_protocol() {
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
fn debians_kernel_is_parsed() {
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
fn a_file_that_is_not_a_kernel_is_refused() {
    // Debian's kernel has an EFI stub.
    let not_linux = |kind| Err(Error::NotLinux { kind });
    assert_eq!(parse_with(&[(0x1fe, &[0, 0])]), not_linux(Some(FileKind::Dos)));
    assert_eq!(parse_with(&[(0, b"\x7fELF"), (18, &[62, 0])]), Err(Error::Elf));
    assert_eq!(parse_with(&[(0, b"\x7fELF"), (18, &[183, 0])]), not_linux(Some(FileKind::Elf { machine: 183 })));
    assert_eq!(SetupHeader::parse(&[0; 4096]), not_linux(None));
    // Files of any length, unless a kernel may begin like them.
    assert_eq!(SetupHeader::parse(b"text"), not_linux(Some(FileKind::Text)));
    assert_eq!(SetupHeader::parse(&DEBIAN[..64]), Err(Error::Truncated { seen: 64, needed: 0x224 }));
}

#[test]
fn the_message_for_an_old_kernel_says_which_protocol_is_needed() {
    let error = parse_with(&[(0x206, &[5, 1])]).unwrap_err();
    assert_eq!(error, Error::TooOld { version: 0x105 });
    let text = "kernel too old: its boot protocol is 1.05; 2.00 (Linux 1.3.73) is needed";
    assert_eq!(error.to_string(), text);
}

/// A boot sector. Its setup code, if there is any, is not Linux's.
#[test]
fn the_message_for_a_real_mode_kernel_says_why_it_cannot_start() {
    let error = parse_with(&[(0x202, b"HdrX")]).unwrap_err();
    assert_eq!(error, Error::RealModeOnly);
    let text = error.to_string();
    for part in ["real mode only", "services of a BIOS", "bzImage", "SeaBIOS"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

/// The fields that matter, as they are in a file: `version`, `syssize`, `code32_start`, and the distance of the jump.
fn fixed(version: u16, syssize: u32, code32_start: u32, jump: u8) -> SetupHeader {
    let [version, syssize, code32_start] = [version.into(), syssize, code32_start].map(u32::to_le_bytes);
    let patches: &[(usize, &[u8])] = &[
        (0x1f4, &syssize),
        (0x201, &[jump]),
        (0x206, &version[..2]),
        (0x214, &code32_start),
        (0x234, &[0]),
        (0x236, &[0, 0]),
    ];
    parse_with(patches).unwrap()
}

#[test]
fn kernels_without_a_protected_mode_entry_point_are_identified_by_their_headers() {
    // memdisk and GRUB's lnxboot.img; iPXE.
    for header in [fixed(0x203, 0, 0x10_0000, 0x3e), fixed(0x203, 0, 0x10_0000, 0x66), fixed(0x207, 0x4a16, 0, 0x65)] {
        assert_eq!(header.entry_offset(24_744), Err(Error::RealModeOnly));
    }
    // A Linux kernel of just 1 MiB, or of 2 MiB, whose length in 16 bits is zero.
    for len in [(1 << 20) - 15, 1 << 20, 2 << 20] {
        assert_eq!(fixed(0x203, 0, 0x10_0000, 0x3e).entry_offset(len), Ok(0), "{len:#x}");
    }
    // A kernel other than Linux without a length, a relocatable one, one with a 64-bit entry point.
    assert_eq!(fixed(0x20d, 0, 0x10_0000, 0x6a).entry_offset(24_744), Ok(0));
    assert_eq!(movable((0x234, 1)).entry_offset(24_744), Ok(0));
    assert_eq!(movable((0x236, XLF_KERNEL_64 as u8)).entry_offset(24_744), Ok(0x200));
}

/// A kernel without a length, with one more byte changed: it is relocatable, or has a 64-bit entry point.
fn movable((at, value): (usize, u8)) -> SetupHeader {
    let patches: &[(usize, &[u8])] =
        &[(0x1f4, &[0; 4]), (0x214, &[0; 4]), (0x234, &[0]), (0x236, &[0, 0]), (at, &[value])];
    parse_with(patches).unwrap()
}

#[test]
fn a_file_that_ends_before_its_entry_point_is_refused() {
    for (header, entry) in [(movable((0x234, 1)), 0), (movable((0x236, XLF_KERNEL_64 as u8)), 0x200)] {
        let setup = u64::from(header.setup_len());
        for len in [0, 1, 0x1ff, 0x200, 0x201] {
            let truncated = Error::FileTruncated { seen: setup + len, needed: setup + entry + 1 };
            let expected = if len > entry { Ok(entry) } else { Err(truncated) };
            assert_eq!(header.entry_offset(len), expected, "{len:#x} bytes");
        }
    }
}

#[test]
fn an_entry_point_elsewhere_is_accepted_only_inside_the_file() {
    let offset = |code32_start| fixed(0x203, 0x1000, code32_start, 0x3e).entry_offset(0x1_0000);
    assert_eq!(offset(0x10_0000), Ok(0));
    assert_eq!(offset(0x10_1000), Ok(0x1000));
    assert_eq!(offset(0x10_ffff), Ok(0xffff));
    // Not the kernel's own: another loader has changed it, or the file is broken.
    for elsewhere in [0x11_0000, 0xf_ffff, 0x1000, 1, 0xffff_ffff] {
        let [entry, start] = [elsewhere, 0x10_0000].map(|at| PhysAddr::new(at.into()));
        assert_eq!(offset(elsewhere), Err(Error::EntryMoved { entry, start, len: 0x1_0000 }), "{elsewhere:#x}");
    }
    let text = offset(0x9_0000).unwrap_err().to_string();
    for part in ["code32_start) at 0x90000", "65536 bytes from 0x100000", "no other loader has changed"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[test]
fn a_zimage_runs_where_its_setup_code_would_move_it() {
    let low = |code32_start: u32| {
        let patches: &[(usize, &[u8])] =
            &[(0x206, &[4, 2]), (0x211, &[0]), (0x214, &code32_start.to_le_bytes()), (0x236, &[1, 0])];
        let header = parse_with(patches).unwrap();
        assert!(!header.is_loaded_high() && !header.is_64_bit());
        (header.default_address().get(), header.entry_offset(0x2_0000).ok())
    };
    assert_eq!(low(0x1000), (0x1000, Some(0)));
    assert_eq!(low(0x1400), (0x1000, Some(0x400)));
    assert_eq!(low(0x1_0000), (0x1_0000, Some(0)));
    assert_eq!(low(0x1_0200), (0x1_0000, Some(0x200)));
    assert_eq!(low(0x10_0000), (0x1_0000, None));
}

#[test]
fn a_truncated_header_is_refused() {
    for len in [0, 0x1f0, 0x202, 0x223, 0x23b, 0x263, 0x26b] {
        assert!(matches!(SetupHeader::parse(&DEBIAN[..len]), Err(Error::Truncated { .. })), "{len:#x}");
    }
    assert!(SetupHeader::parse(&DEBIAN[..0x26c]).is_ok());
    // The header itself says that it ends before `init_size`.
    assert!(matches!(parse_with(&[(0x201, &[0x40])]), Err(Error::Truncated { .. })));
    // Older headers end with the fields of their version.
    for (version, end) in
        [(0, 0x224), (1, 0x226), (2, 0x22c), (3, 0x230), (4, 0x230), (5, 0x235), (6, 0x23c), (9, 0x23c), (10, 0x264)]
    {
        let ends_at = |end: usize| parse_with(&[(0x201, &[(end - 0x202) as u8]), (0x206, &[version, 2])]);
        assert!(ends_at(end).is_ok(), "2.{version:02}");
        assert_eq!(ends_at(end - 1), Err(Error::Truncated { seen: end - 1, needed: end }), "2.{version:02}");
    }
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

    // The length is known with 2.04, and unknown before.
    for (version, kernel_len, initrd_end, cmd_line_ptr) in [
        (&[0, 2], 0, 0x3800_0000, false),
        (&[1, 2], 0, 0x3800_0000, false),
        (&[2, 2], 0, 0x3800_0000, true),
        (&[3, 2], 0, 0x2000_0000, true),
        (&[4, 2], 0xd8_2200, 0x2000_0000, true),
    ] {
        let patches: &[(usize, &[u8])] =
            &[(0x206, version), (0x22c, &[0xff, 0xff, 0xff, 0x1f]), (0x238, &[0xff, 0xff, 0, 0])];
        let header = parse_with(patches).unwrap();
        assert_eq!(header.kernel_len(), kernel_len, "{version:?}");
        assert_eq!(header.initrd_space().end(), PhysAddr::new(initrd_end), "{version:?}");
        assert_eq!(header.command_line_limit(), 255, "{version:?}");
        assert_eq!(header.has_cmd_line_ptr(), cmd_line_ptr, "{version:?}");
        assert_eq!(header.relocation(), Relocation::Fixed, "{version:?}");
    }
}

#[test]
fn the_alignment_is_a_power_of_two_and_at_least_the_minimum() {
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
fn a_sector_count_of_zero_means_four() {
    assert_eq!(parse_with(&[(0x1f1, &[0])]).unwrap().setup_len(), 5 * 512);
}

proptest! {
    #[test]
    fn no_header_panics(
        bytes in prop::collection::vec(any::<u8>(), HEADER_ROOM_END - HEADER_START),
        len in 0..0x400_usize,
        kernel_len in any::<u64>(),
        valid in any::<bool>(),
    ) {
        let mut setup = debian_with(&[(HEADER_START, &bytes)]);
        if valid {
            let version = bytes[1] & 0x1f;
            setup[0x1fe..0x208].copy_from_slice(&[0x55, 0xaa, 0xeb, bytes[0], b'H', b'd', b'r', b'S', version, 2]);
        }
        if let Ok(header) = SetupHeader::parse(&setup[..len]) {
            prop_assert!(header.version() >= 0x200);
            prop_assert!(header.is_loaded_high() || !header.is_64_bit());
            if let Ok(offset) = header.entry_offset(kernel_len) {
                prop_assert!(offset < kernel_len || offset == 0);
            }
            prop_assert!(PhysRange::LOW_4_GIB.contains(header.initrd_space()));
            let _ = (header.run_len(u64::MAX), header.setup_len(), header.kernel_len(), header.setup_data());
        }
    }
}
