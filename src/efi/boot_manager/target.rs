//! Which program the path of a load option means (UEFI 3.1.2, "Load Option Processing").
//!
//! A path may be short: `HD(…)/File(…)` is on the partition with that signature, wherever it is, and `File(…)` alone is on any
//! volume. A path without a file means the program for removable media on each volume of the device.
//!
//! Left out: short forms for USB and for networks, and programs in the firmware.

use alloc::vec::Vec;

use crate::efi::device_path::{DevicePath, HEADER_LEN, MEDIA, MEDIA_FILE, MEDIA_HARD_DRIVE, Node, PathBuilder};
use crate::heap::HeapFull;

/// The program for removable media (UEFI 3.5.1.1), in UTF-16.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "evaluated by the compiler")]
const REMOVABLE_UTF16: [u8; REMOVABLE.len() * 2 + 2] = {
    let (mut text, mut at) = ([0; REMOVABLE.len() * 2 + 2], 0);
    while at < REMOVABLE.len() {
        text[at * 2] = REMOVABLE.as_bytes()[at];
        at += 1;
    }
    text
};
/// The same as text.
pub const REMOVABLE: &str = r"\EFI\BOOT\BOOTX64.EFI";

/// A program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The volumes that it may be on.
    pub place: Place<'a>,
    /// The nodes of the file on the volume; none for the program for removable media.
    pub file: Option<&'a [u8]>,
}

/// Where a program may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// On any volume.
    Anywhere,
    /// On a partition, by the data of its node.
    Partition(&'a [u8]),
    /// On a device: the nodes of its path.
    Device(&'a [u8]),
}

impl<'a> Target<'a> {
    /// What `path` means. Only its first instance counts.
    #[must_use]
    pub fn of_path(path: DevicePath<'a>) -> Self {
        let (nodes, _) = path.split_instance();
        let (device, file) = split_file(nodes);
        let place = match Node::parse(device) {
            None => Place::Anywhere,
            Some(Node { kind: MEDIA, sub_kind: MEDIA_HARD_DRIVE, data }) => Place::Partition(data),
            Some(_) => Place::Device(device),
        };
        Self { place, file: Some(file).filter(|file| !file.is_empty()) }
    }

    /// Whether the program may be on the volume with this path.
    #[must_use]
    pub fn is_on(&self, volume: DevicePath<'_>) -> bool {
        match self.place {
            Place::Anywhere => true,
            Place::Partition(wanted) => partition(volume).is_some_and(|found| is_same_partition(wanted, found)),
            Place::Device(device) if self.file.is_some() => volume.nodes_bytes() == device,
            // If the bytes are the same, so are the lengths of the nodes.
            Place::Device(device) => volume.nodes_bytes().starts_with(device),
        }
    }

    /// Whether only one volume can be meant.
    #[must_use]
    pub const fn is_on_one(&self) -> bool {
        match self.place {
            Place::Anywhere => false,
            Place::Partition(_) => true,
            Place::Device(_) => self.file.is_some(),
        }
    }

    /// The path of the program on the volume with this path.
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn path_on(&self, volume: DevicePath<'_>) -> Result<Vec<u8>, HeapFull> {
        let path = PathBuilder::new().nodes(volume.nodes_bytes())?;
        let path = match self.file {
            Some(file) => path.nodes(file),
            None => path.node(MEDIA, MEDIA_FILE, &[&REMOVABLE_UTF16]),
        };
        path.and_then(PathBuilder::end)
    }
}

/// The nodes up to the first one of a file, and the rest.
fn split_file(nodes: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    while let Some((before, rest)) = nodes.split_at_checked(at)
        && let Some(node) = Node::parse(rest)
    {
        if (node.kind, node.sub_kind) == (MEDIA, MEDIA_FILE) {
            return (before, rest);
        }
        at = at.saturating_add(HEADER_LEN).saturating_add(node.data.len());
    }
    (nodes, &[])
}

/// The data of the node of a volume's partition, if it is on one.
fn partition(volume: DevicePath<'_>) -> Option<&[u8]> {
    let last = volume.nodes().last()?;
    ((last.kind, last.sub_kind) == (MEDIA, MEDIA_HARD_DRIVE)).then_some(last.data)
}

/// The types of signatures (UEFI 10.3.5.1).
const MBR: u8 = 1;
const GPT: u8 = 2;

/// Whether two nodes' data are for the same partition. A partition that has moved on its disk is the same; without a signature,
/// all has to be the same.
fn is_same_partition(wanted: &[u8], found: &[u8]) -> bool {
    let (Some(wanted), Some(found)) = (HardDrive::parse(wanted), HardDrive::parse(found)) else { return false };
    match wanted.signature_kind {
        GPT => (GPT, wanted.signature) == (found.signature_kind, found.signature),
        // The signature is the disk's.
        MBR => {
            let is_numbered_so = (MBR, wanted.number) == (found.signature_kind, found.number);
            is_numbered_so && wanted.signature.first_chunk::<4>() == found.signature.first_chunk()
        }
        _ => wanted == found,
    }
}

/// The data of a partition's node (UEFI 10.3.5.1).
#[derive(PartialEq, Eq)]
struct HardDrive<'a> {
    number: &'a [u8; 4],
    /// The first block and their number.
    place: &'a [u8; 16],
    signature: &'a [u8; 16],
    format: u8,
    signature_kind: u8,
}

impl<'a> HardDrive<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        let (number, rest) = data.split_first_chunk()?;
        let (place, rest) = rest.split_first_chunk()?;
        let (signature, rest) = rest.split_first_chunk()?;
        let &[format, signature_kind] = rest else { return None };
        Some(Self { number, place, signature, format, signature_kind })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::efi::device_path::{ACPI, ACPI_DEVICE, HARDWARE, HARDWARE_PCI, MEDIA_CD_ROM};

    fn disk() -> PathBuilder {
        PathBuilder::new()
            .node(ACPI, ACPI_DEVICE, &[&[0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0]])
            .and_then(|path| path.node(HARDWARE, HARDWARE_PCI, &[&[0, 2]]))
            .unwrap()
    }

    fn hard_drive(path: PathBuilder, number: u32, start: u64, signature: [u8; 16], kind: u8) -> PathBuilder {
        let parts = [&number.to_le_bytes()[..], &start.to_le_bytes(), &[0; 8], &signature, &[kind, kind]];
        path.node(MEDIA, MEDIA_HARD_DRIVE, &parts).unwrap()
    }

    fn file(path: PathBuilder) -> PathBuilder {
        path.node(MEDIA, MEDIA_FILE, &[b"\\\0a\0\0\0"]).unwrap()
    }

    fn of(bytes: &[u8]) -> DevicePath<'_> {
        DevicePath::parse(bytes).unwrap()
    }

    /// Whether the option's path means a program on the volume.
    fn is_on(path: PathBuilder, volume: PathBuilder) -> bool {
        Target::of_path(of(&path.end().unwrap())).is_on(of(&volume.end().unwrap()))
    }

    const ONE: [u8; 16] = [1; 16];

    #[test]
    fn a_partition_alone_is_found_by_its_signature() {
        let short = |number, start, signature, kind| hard_drive(PathBuilder::new(), number, start, signature, kind);
        let volume = |kind| hard_drive(disk(), 1, 0x800, ONE, kind);
        for (path, kind, is) in [
            (short(1, 0x800, ONE, GPT), GPT, true),
            (file(short(1, 0x800, ONE, GPT)), GPT, true),
            // It was moved.
            (short(2, 0x900, ONE, GPT), GPT, true),
            (short(1, 0x800, [2; 16], GPT), GPT, false),
            (short(1, 0x800, ONE, MBR), GPT, false),
            // Four bytes of an MBR's are the disk's signature.
            (short(1, 0x900, [1, 1, 1, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9], MBR), MBR, true),
            (short(2, 0x800, ONE, MBR), MBR, false),
            (short(1, 0x800, [1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], MBR), MBR, false),
            (short(1, 0x800, ONE, 0), 0, true),
            (short(1, 0x900, ONE, 0), 0, false),
        ] {
            assert_eq!(is_on(path.clone(), volume(kind)), is, "{path:?} {kind}");
        }
        assert!(!is_on(short(1, 0x800, ONE, GPT), disk()));
        let cd = volume(GPT).node(MEDIA, MEDIA_CD_ROM, &[&[0; 20]]).unwrap();
        assert!(!is_on(short(1, 0x800, ONE, GPT), cd));
        let cut = PathBuilder::new().node(MEDIA, MEDIA_HARD_DRIVE, &[&[0; 8]]).unwrap();
        assert!(!is_on(cut.clone(), cut));
    }

    #[test]
    fn a_file_alone_is_on_any_volume() {
        for volume in [disk(), hard_drive(disk(), 1, 1, ONE, GPT)] {
            assert!(is_on(file(PathBuilder::new()), volume));
        }
    }

    #[test]
    fn a_device_means_its_own_volume_for_a_file_and_each_one_without() {
        let partition = || hard_drive(disk(), 1, 1, ONE, GPT);
        assert!(is_on(disk(), partition()) && is_on(disk(), disk()) && is_on(partition(), partition()));
        assert!(!is_on(partition(), disk()) && !is_on(partition(), hard_drive(disk(), 2, 1, [2; 16], GPT)));
        assert!(is_on(file(partition()), partition()) && is_on(file(disk()), disk()));
        assert!(!is_on(file(disk()), partition()) && !is_on(file(partition()), disk()));
    }

    #[test]
    fn the_program_is_the_file_on_the_volume_or_that_for_removable_media() {
        let volume = hard_drive(disk(), 1, 1, ONE, GPT).end().unwrap();
        let path = file(hard_drive(PathBuilder::new(), 1, 1, ONE, GPT)).end().unwrap();
        let target = Target::of_path(of(&path));
        assert_eq!(target.path_on(of(&volume)), file(hard_drive(disk(), 1, 1, ONE, GPT)).end());
        let path = disk().end().unwrap();
        let name: Vec<u8> = REMOVABLE.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let expected = hard_drive(disk(), 1, 1, ONE, GPT).node(MEDIA, MEDIA_FILE, &[&name]).and_then(PathBuilder::end);
        assert_eq!(Target::of_path(of(&path)).path_on(of(&volume)), expected);
    }

    #[test]
    fn several_nodes_of_a_file_stay_together_and_a_second_instance_is_nothing() {
        let two = file(file(disk())).end_instance().and_then(|path| path.nodes(&[1, 1, 6, 0, 0, 1]));
        let bytes = two.and_then(PathBuilder::end).unwrap();
        let target = Target::of_path(of(&bytes));
        let nodes = file(file(PathBuilder::new())).without_end();
        assert_eq!(target.file, Some(&nodes[..]));
        assert_eq!(target.place, Place::Device(&disk().without_end()));
        assert_eq!(vec![target.is_on_one()], [true]);
    }
}
