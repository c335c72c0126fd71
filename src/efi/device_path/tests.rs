//! Paths of loaders and devices; bytes that are no path.

extern crate std;

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use uefi_raw::guid;

use super::text::PathText;
use super::*;

const QEMU_LOADER: Guid = guid!("1428f772-b64a-441e-b8c3-9ebdd7f893c7");

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn kernel() -> Vec<u8> {
    let path = PathBuilder::new().vendor_media(QEMU_LOADER).unwrap();
    path.node(MEDIA, MEDIA_FILE, &[&utf16("kernel")]).unwrap().end().unwrap()
}

fn hard_drive() -> PathBuilder {
    let signature = guid!("15e39a00-1dd2-1000-8d7f-00a0c92408fc").to_bytes();
    PathBuilder::new()
        .node(ACPI, ACPI_DEVICE, &[&0x0a03_41d0_u32.to_le_bytes(), &0_u32.to_le_bytes()])
        .and_then(|path| path.node(HARDWARE, HARDWARE_PCI, &[&[0, 0x1f]]))
        .and_then(|path| {
            let (start, len) = (0x800_u64.to_le_bytes(), 0x1_0000_u64.to_le_bytes());
            path.node(MEDIA, MEDIA_HARD_DRIVE, &[&1_u32.to_le_bytes(), &start, &len, &signature, &[2, 2]])
        })
        .unwrap()
}

fn text(bytes: &[u8]) -> std::string::String {
    PathText(DevicePath::parse(bytes).unwrap()).to_string()
}

#[test]
fn a_path_ends_with_the_node_that_ends_all_of_it() {
    let mut bytes = kernel();
    let len = bytes.len();
    bytes.extend([1, 2, 3]);
    let path = DevicePath::parse(&bytes).unwrap();
    assert_eq!((path.bytes().len(), path.nodes_bytes().len(), path.nodes().count()), (len, len - 4, 2));
    for cut in 0..len {
        assert_eq!(DevicePath::parse(&bytes[..cut]), None, "{cut}");
    }
    assert_eq!(DevicePath::parse(&[0x7f, 0xff, 4, 0]).map(|path| path.nodes().count()), Some(0));
}

#[test]
fn a_node_shorter_than_its_header_is_refused() {
    for len in 0..4 {
        assert_eq!(DevicePath::parse(&[1, 1, len, 0, 0x7f, 0xff, 4, 0]), None, "{len}");
    }
}

#[test]
fn a_node_that_ends_something_is_as_long_as_its_header() {
    let end = [0x7f, 0xff, 4, 0];
    for node in [[0x7f, 0xff, 8, 0, 1, 2, 3, 4], [0x7f, 0x01, 8, 0, 1, 2, 3, 4], [0x7f, 0x02, 8, 0, 1, 2, 3, 4]] {
        assert_eq!(DevicePath::parse(&[&node, &end[..]].concat()), None, "{node:x?}");
    }
    assert_eq!(DevicePath::parse(&[[0x7f, 0x02, 4, 0], end].concat()), None);
    assert!(DevicePath::parse(&[[0x7f, 0x01, 4, 0], end].concat()).is_some());
}

#[test]
fn what_follows_a_prefix_is_a_path() {
    let disk = hard_drive().end().unwrap();
    let file = hard_drive().node(MEDIA, MEDIA_FILE, &[&utf16("\\EFI\\BOOT\\BOOTX64.EFI")]).unwrap().end().unwrap();
    let [disk, file] = [&disk, &file].map(|bytes| DevicePath::parse(bytes).unwrap());
    let rest = file.strip_prefix(disk).unwrap();
    assert_eq!(PathText(rest).to_string(), "\\EFI\\BOOT\\BOOTX64.EFI");
    assert_eq!(disk.strip_prefix(disk).unwrap().bytes(), [0x7f, 0xff, 4, 0]);
    assert_eq!(disk.strip_prefix(file), None);
}

#[test]
fn instances_are_split_one_by_one() {
    let bytes =
        hard_drive().end_instance().and_then(|path| path.vendor_media(QEMU_LOADER)).and_then(PathBuilder::end).unwrap();
    let path = DevicePath::parse(&bytes).unwrap();
    assert!(path.is_multi_instance());
    let (first, rest) = path.split_instance();
    assert_eq!(first, DevicePath::parse(&hard_drive().end().unwrap()).unwrap().nodes_bytes());
    let rest = rest.unwrap();
    assert!(!rest.is_multi_instance());
    assert_eq!(rest.split_instance(), (rest.nodes_bytes(), None));
    assert!(text(&bytes).ends_with(",0x800,0x10000),VenMedia(1428F772-B64A-441E-B8C3-9EBDD7F893C7)"));
}

#[test]
fn nodes_are_written_by_their_names() {
    assert_eq!(text(&kernel()), "VenMedia(1428F772-B64A-441E-B8C3-9EBDD7F893C7)/kernel");
    let disk = hard_drive().end().unwrap();
    let gpt = "HD(1,GPT,15E39A00-1DD2-1000-8D7F-00A0C92408FC,0x800,0x10000)";
    assert_eq!(text(&disk), std::format!("PciRoot(0x0)/Pci(0x1F,0x0)/{gpt}"));
    let one =
        |kind, sub_kind, data: &[u8]| text(&PathBuilder::new().node(kind, sub_kind, &[data]).unwrap().end().unwrap());
    let mut mbr = vec![0; 38];
    mbr[0] = 5;
    mbr[20..24].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
    mbr[36..].copy_from_slice(&[1, 1]);
    assert_eq!(one(MEDIA, MEDIA_HARD_DRIVE, &mbr), "HD(5,MBR,0x1234ABCD,0x0,0x0)");
    let cd = [&1_u32.to_le_bytes()[..], &0x2d_u64.to_le_bytes(), &0x1680_u64.to_le_bytes()].concat();
    assert_eq!(one(MEDIA, MEDIA_CD_ROM, &cd), "CDROM(0x1,0x2D,0x1680)");
    let memory = [&1_u32.to_le_bytes()[..], &0x1000_u64.to_le_bytes(), &0x1fff_u64.to_le_bytes()].concat();
    assert_eq!(one(HARDWARE, HARDWARE_MEMORY, &memory), "MemoryMapped(0x1,0x1000,0x1FFF)");
    assert_eq!(one(ACPI, ACPI_DEVICE, &[0xd0, 0x41, 1, 5, 0, 0, 0, 0]), "Acpi(PNP0501,0x0)");
    assert_eq!(one(ACPI, ACPI_DEVICE, &[0xd0, 0x41, 8, 0xa, 2, 0, 0, 0]), "PcieRoot(0x2)");
    assert_eq!(one(ACPI, ACPI_DEVICE, &[1, 2, 3, 4, 0, 0, 0, 0]), "Acpi(04030201,0x0)");
}

#[test]
fn text_has_two_bytes_for_each_character_and_a_nul() {
    assert_eq!(text::utf16("A/\u{20ac}").unwrap(), [0x41, 0, 0x2f, 0, 0xac, 0x20, 0, 0]);
    assert_eq!(text::utf16("").unwrap(), [0, 0]);
}

#[test]
fn unknown_nodes_and_nodes_of_unknown_lengths_are_written_by_their_numbers() {
    let one =
        |kind, sub_kind, data: &[u8]| text(&PathBuilder::new().node(kind, sub_kind, &[data]).unwrap().end().unwrap());
    assert_eq!(one(3, 18, &[2, 0, 255, 255, 0, 0]), "Sata(0x2,0xFFFF,0x0)");
    assert_eq!(one(3, 18, &[2, 0, 255, 255, 0]), "Msg(18,0200FFFF00)");
    assert_eq!(one(3, 2, &[1, 0, 2, 0]), "Scsi(0x1,0x2)");
    assert_eq!(one(3, 23, &[1, 0, 0]), "Msg(23,010000)");
    assert_eq!(one(1, 1, &[3]), "HardwarePath(1,03)");
    assert_eq!(one(2, 1, &[]), "AcpiPath(1)");
    assert_eq!(one(4, 1, &[1, 2]), "MediaPath(1,0102)");
    assert_eq!(one(5, 1, &[0xab]), "Path(5,1,AB)");
}

#[test]
fn a_node_that_is_too_long_for_its_length_is_refused() {
    assert!(PathBuilder::new().node(1, 1, &[&[0; 0xffff - 4]]).is_ok());
    assert!(PathBuilder::new().node(1, 1, &[&[0; 0xffff - 3]]).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_path_within_them_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Some(path) = DevicePath::parse(&bytes) {
            prop_assert!(bytes.starts_with(path.bytes()));
            let nodes: usize = path.nodes().map(|node| node.data.len() + HEADER_LEN).sum();
            prop_assert_eq!(nodes, path.nodes_bytes().len());
            let _ = PathText(path).to_string();
        }
    }

    #[test]
    fn nodes_of_any_lengths_are_read_back(
        nodes in prop::collection::vec((1..6_u8, any::<u8>(), prop::collection::vec(any::<u8>(), 0..48)), 0..8),
    ) {
        let made = nodes.iter().try_fold(PathBuilder::new(), |path, (kind, sub, data)| path.node(*kind, *sub, &[data]));
        let bytes = made.unwrap().end().unwrap();
        let path = DevicePath::parse(&bytes).unwrap();
        let read: Vec<_> = path.nodes().map(|node| (node.kind, node.sub_kind, node.data.to_vec())).collect();
        prop_assert_eq!(read, nodes);
        let _ = PathText(path).to_string();
    }
}
