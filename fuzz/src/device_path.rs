//! Device paths that an image passes: nodes, instances, prefixes, and text of a path and to one.
//!
//! Input: the length of a first path, that path, and a second one.

use std::fmt::Write;

use firstlight::efi::device_path::text::PathText;
use firstlight::efi::device_path::{
    DevicePath, HEADER_LEN, MEDIA, MEDIA_FILE, Node, PathBuilder, from_text, utilities,
};

use crate::input::Input;

/// The most characters that a byte of a path becomes: a GUID of 16 bytes has 36, and a node of 4 bytes has its numbers.
const MOST_TEXT: usize = 16;

/// Reads two paths. Nodes are all bytes of a path but those that end it. Instances are the path again, joined. What follows a
/// prefix is a path that makes the whole with it. Text has a length that the path's decides.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let first = input.long();
    let second = input.rest();
    check_text(&first.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect::<Vec<_>>());
    let paths = [first, second].map(DevicePath::parse);
    for (path, bytes) in paths.into_iter().zip([first, second]).filter_map(|(path, bytes)| path.zip(Some(bytes))) {
        check(path, bytes);
    }
    let [Some(first), Some(second)] = paths else { return };
    if let Some(rest) = first.strip_prefix(second) {
        assert_eq!([second.nodes_bytes(), rest.bytes()].concat(), first.bytes());
        assert_eq!(DevicePath::parse(rest.bytes()), Some(rest));
    }
    let joined = PathBuilder::new().nodes(second.nodes_bytes()).and_then(|path| path.nodes(first.nodes_bytes()));
    let joined = joined.and_then(PathBuilder::end).expect("room on the heap");
    let joined = DevicePath::parse(&joined).expect("a path of the nodes of two");
    assert_eq!(joined.strip_prefix(second).map(DevicePath::bytes), Some(first.bytes()));
}

fn check(path: DevicePath<'_>, bytes: &[u8]) {
    assert!(bytes.starts_with(path.bytes()));
    assert_eq!(path.bytes().len(), path.nodes_bytes().len() + HEADER_LEN);
    let nodes: Vec<u8> = path
        .nodes()
        .flat_map(|node| {
            let len = (node.data.len() + HEADER_LEN) as u16;
            [&[node.kind, node.sub_kind], &len.to_le_bytes()[..], node.data].concat()
        })
        .collect();
    assert_eq!(nodes, path.nodes_bytes());

    let (mut rest, mut len) = (Some(path), 0);
    let mut again = None;
    while let Some(next) = rest {
        let (instance, after) = next.split_instance();
        let (one, _) = utilities::next_instance(next).expect("room on the heap");
        let before = again.as_deref().and_then(DevicePath::parse);
        again = utilities::append_instance(before, DevicePath::parse(&one)).expect("room on the heap");
        // Without the node that ends it, which may have data.
        len += instance.len();
        assert!(after.is_none() || next.is_multi_instance());
        let after_len = after.map_or(0, |after| after.bytes().len());
        assert!(instance.len() + HEADER_LEN + after_len <= next.bytes().len());
        rest = after;
    }
    assert!(len <= path.nodes_bytes().len());
    assert_eq!(again.as_deref(), Some(path.bytes()));

    let mut text = String::new();
    write!(text, "{}", PathText(path)).expect("a string takes all");
    assert!(text.len() <= path.bytes().len() * MOST_TEXT, "{} bytes of text for {path:?}", text.len());
    check_text(&text.encode_utf16().collect::<Vec<_>>());
}

/// Any text is a path, and one node of it too.
fn check_text(text: &[u16]) {
    let made = from_text::path(text).expect("a path of text that is not too long");
    let path = DevicePath::parse(&made).expect("a path");
    assert_eq!(path.bytes(), made);
    let node = from_text::node(text).expect("a node of text that is not too long");
    assert!(Node::parse(&node).is_some_and(|parsed| parsed.data.len() + HEADER_LEN == node.len()));
}

/// Paths of devices, files and the initrd; two instances; a node without a known type.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    use firstlight::efi::protocols::file_system::HostVolume;
    use firstlight::efi::protocols::load_file::LoadFile2;

    let volume = HostVolume::device_path().expect("room");
    let initrd = LoadFile2::initrd_device_path().expect("room");
    let nodes = |bytes: &[u8]| bytes[..bytes.len() - HEADER_LEN].to_vec();
    let name: Vec<u8> = "\\EFI\\BOOT\\BOOTX64.EFI\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let disk = |path: PathBuilder| {
        path.node(2, 1, &[&[0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0]])
            .and_then(|path| path.node(1, 1, &[&[0, 0x1f]]))
            .and_then(|path| path.node(4, 1, &[&[1; 38]]))
    };
    let file = disk(PathBuilder::new()).and_then(|path| path.node(MEDIA, MEDIA_FILE, &[&name]));
    let file = file.and_then(PathBuilder::end).expect("room");
    let whole = disk(PathBuilder::new()).and_then(PathBuilder::end).expect("room");
    let two = disk(PathBuilder::new()).and_then(PathBuilder::end_instance);
    let two = two.and_then(|path| path.nodes(&nodes(&volume))).and_then(PathBuilder::end).expect("room");
    let other = PathBuilder::new().node(3, 0x7e, &[&[1, 2, 3]]).and_then(PathBuilder::end).expect("room");
    let pairs = [(&file, &whole), (&initrd, &volume), (&two, &other), (&volume, &volume), (&other, &file)];
    let texts =
        ["PciRoot(0x0)/Pci(0x1f,0x2)/HD(1,MBR,0x12,0x1,0x2)/\\a,VenHw(1428F772-B64A-441E-B8C3-9EBDD7F893C7,12)"];
    let texts = texts.map(|text| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    let seed =
        |(first, second): (&Vec<u8>, &Vec<u8>)| [&(first.len() as u16).to_le_bytes()[..], first, second].concat();
    pairs.into_iter().chain(texts.iter().map(|text| (text, &whole))).map(seed).collect()
}
