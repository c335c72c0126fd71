//! Device paths from text (UEFI 10.6): the inverse of [`super::text`].
//!
//! A node that is not one of the known ones is a file's path, as in EDK II: so the name of a file is a path as well. Linux makes
//! one of what is behind `initrd=`.
//!
//! Left out: the names of nodes that [`super::text`] does not write.

use alloc::vec::Vec;

use super::{
    ACPI, ACPI_ADDRESS, ACPI_DEVICE, HARDWARE, HARDWARE_MEMORY, HARDWARE_PCI, HARDWARE_VENDOR, MEDIA, MEDIA_CD_ROM,
    MEDIA_FILE, MEDIA_HARD_DRIVE, MEDIA_VENDOR, MESSAGING, MESSAGING_NVME, MESSAGING_SATA, MESSAGING_SCSI,
    MESSAGING_VENDOR, PathBuilder,
};
use crate::heap::{self, HeapFull};

/// Between nodes, and between instances.
const NODES: u16 = b'/' as u16;
const INSTANCES: u16 = b',' as u16;
/// Around the arguments of a node, in which none of these separates.
const OPEN: u16 = b'(' as u16;
const CLOSE: u16 = b')' as u16;

/// `ConvertTextToDevicePath`: the path of a text in UTF-16, up to a NUL if it has one.
///
/// # Errors
/// [`HeapFull`], also for a node that is too long.
pub fn path(text: &[u16]) -> Result<Vec<u8>, HeapFull> {
    let mut path = PathBuilder::new();
    let mut rest = up_to_nul(text);
    while !rest.is_empty() {
        let (node, separator, after) = split(rest);
        if !node.is_empty() {
            path = append(path, node)?;
        }
        if separator == Some(INSTANCES) {
            path = path.end_instance()?;
        }
        rest = after;
    }
    path.end()
}

/// `ConvertTextToDeviceNode`: the node of a text in UTF-16, up to a NUL if it has one.
///
/// # Errors
/// As for [`path`].
pub fn node(text: &[u16]) -> Result<Vec<u8>, HeapFull> {
    append(PathBuilder::new(), up_to_nul(text)).map(PathBuilder::without_end)
}

fn up_to_nul(text: &[u16]) -> &[u16] {
    text.split(|&unit| unit == 0).next().unwrap_or_default()
}

/// The text of the first node, what ends it, and the rest.
fn split(text: &[u16]) -> (&[u16], Option<u16>, &[u16]) {
    let mut is_within = false;
    let end = text.iter().position(|&unit| {
        match unit {
            OPEN => is_within = true,
            CLOSE => is_within = false,
            _ => {}
        }
        !is_within && matches!(unit, NODES | INSTANCES)
    });
    let (node, rest) = text.split_at_checked(end.unwrap_or(text.len())).unwrap_or((text, &[]));
    match rest.split_first() {
        Some((&separator, rest)) => (node, Some(separator), rest),
        None => (node, None, &[]),
    }
}

fn append(path: PathBuilder, text: &[u16]) -> Result<PathBuilder, HeapFull> {
    if let Some(known) = known(text)? {
        return path.node(known.kind, known.sub_kind, &[&known.data]);
    }
    let mut name = heap::with_capacity(text.len().saturating_add(1).saturating_mul(2))?;
    for byte in text.iter().chain(&[0]).flat_map(|unit| unit.to_le_bytes()) {
        heap::push_within_capacity(&mut name, byte)?;
    }
    path.node(MEDIA, MEDIA_FILE, &[&name])
}

/// A node that is not a file's.
struct Known {
    kind: u8,
    sub_kind: u8,
    data: Vec<u8>,
}

/// The node `name(arguments)`; `None` if it is not a known one.
fn known(text: &[u16]) -> Result<Option<Known>, HeapFull> {
    let mut ascii = heap::with_capacity(text.len())?;
    for &unit in text {
        let Some(byte) = u8::try_from(unit).ok().filter(u8::is_ascii) else { return Ok(None) };
        heap::push_within_capacity(&mut ascii, byte)?;
    }
    let parts = str::from_utf8(&ascii).ok().and_then(|text| text.strip_suffix(')')?.split_once('('));
    let Some((name, arguments)) = parts else { return Ok(None) };
    let mut data = Data { bytes: heap::with_capacity(ascii.len().max(LONGEST))?, arguments: Some(arguments) };
    let ids = match name {
        "Pci" => data.pci(),
        "MemoryMapped" => data.numbers(&[4, 8, 8], (HARDWARE, HARDWARE_MEMORY)),
        "VenHw" => data.vendor((HARDWARE, HARDWARE_VENDOR)),
        "Scsi" => data.numbers(&[2, 2], (MESSAGING, MESSAGING_SCSI)),
        "Sata" => data.numbers(&[2, 2, 2], (MESSAGING, MESSAGING_SATA)),
        "NVMe" => data.nvme(),
        "VenMsg" => data.vendor((MESSAGING, MESSAGING_VENDOR)),
        "VenMedia" => data.vendor((MEDIA, MEDIA_VENDOR)),
        "PciRoot" => data.acpi(Some(0x0a03)),
        "PcieRoot" => data.acpi(Some(0x0a08)),
        "Acpi" => data.acpi(None),
        "AcpiAdr" => data.numbers(&[4], (ACPI, ACPI_ADDRESS)),
        "HD" => data.hard_drive(),
        "CDROM" => data.numbers(&[4, 8, 8], (MEDIA, MEDIA_CD_ROM)),
        "HardwarePath" => data.general(Some(HARDWARE)),
        "AcpiPath" => data.general(Some(ACPI)),
        "Msg" => data.general(Some(MESSAGING)),
        "MediaPath" => data.general(Some(MEDIA)),
        "Path" => data.general(None),
        _ => None,
    };
    let is_whole = data.arguments.is_none();
    let known = ids.filter(|_| is_whole).map(|(kind, sub_kind)| Known { kind, sub_kind, data: data.bytes });
    Ok(known)
}

/// The bytes of the longest node whose text may be shorter: that of a partition.
const LONGEST: usize = 38;

/// The data of a node that is made of arguments. There is room for all.
struct Data<'a> {
    bytes: Vec<u8>,
    /// Those that are left, with commas between.
    arguments: Option<&'a str>,
}

/// The type and the sub-type of a node.
type Ids = (u8, u8);

impl<'a> Data<'a> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        bytes.iter().try_for_each(|&byte| heap::push_within_capacity(&mut self.bytes, byte)).ok()
    }

    fn next(&mut self) -> Option<&'a str> {
        let arguments = self.arguments?;
        let (first, rest) = arguments.split_once(',').map_or((arguments, None), |(first, rest)| (first, Some(rest)));
        self.arguments = rest;
        Some(first)
    }

    /// The next argument as a number, decimal or with `0x`.
    fn number(&mut self) -> Option<u64> {
        let text = self.next()?;
        match text.strip_prefix("0x") {
            Some(digits) => hex_number(digits),
            None => digits_number(text, 10),
        }
    }

    /// Puts the next argument, a number, as `len` bytes.
    fn put_number(&mut self, len: usize) -> Option<()> {
        let bytes = self.number()?.to_le_bytes();
        let (low, high) = bytes.split_at_checked(len)?;
        if high.iter().any(|&byte| byte != 0) {
            return None;
        }
        self.put(low)
    }

    fn numbers(&mut self, lens: &[usize], ids: Ids) -> Option<Ids> {
        lens.iter().try_for_each(|&len| self.put_number(len))?;
        Some(ids)
    }

    fn put_guid(&mut self) -> Option<()> {
        let guid = guid(self.next()?)?;
        self.put(&guid)
    }

    /// Puts the next argument, two digits a byte, if there is one.
    fn put_hex(&mut self) -> Option<()> {
        let (digits, rest) = self.next().unwrap_or_default().as_bytes().as_chunks::<2>();
        for pair in digits {
            let byte = str::from_utf8(pair).ok().and_then(hex_number)?;
            self.put(&[u8::try_from(byte).ok()?])?;
        }
        rest.is_empty().then_some(())
    }

    fn pci(&mut self) -> Option<Ids> {
        let [device, function] = [self.number()?, self.number()?].map(u8::try_from);
        self.put(&[function.ok()?, device.ok()?])?;
        Some((HARDWARE, HARDWARE_PCI))
    }

    fn vendor(&mut self, ids: Ids) -> Option<Ids> {
        self.put_guid()?;
        self.put_hex()?;
        Some(ids)
    }

    /// An identifier with "PNP", or the next argument: that, or all of it in digits.
    fn acpi(&mut self, pnp: Option<u32>) -> Option<Ids> {
        const PNP: u32 = 0x41d0;
        let with_pnp = |number: u32| number << 16 | PNP;
        let identifier = match pnp {
            Some(number) => with_pnp(number),
            None => {
                let text = self.next()?;
                match text.strip_prefix("PNP") {
                    Some(digits) => with_pnp(u16::try_from(hex_number(digits)?).ok()?.into()),
                    None => u32::try_from(hex_number(text)?).ok()?,
                }
            }
        };
        self.put(&identifier.to_le_bytes())?;
        self.put_number(4)?;
        Some((ACPI, ACPI_DEVICE))
    }

    /// `NVMe(namespace,eui64)`, with the last byte of the EUI-64 first.
    fn nvme(&mut self) -> Option<Ids> {
        self.put_number(4)?;
        let mut eui64 = [0; 8];
        let mut rest = Some(self.next()?);
        for byte in eui64.iter_mut().rev() {
            let (pair, after) = rest?.split_at_checked(2)?;
            *byte = u8::try_from(hex_number(pair)?).ok()?;
            rest = if after.is_empty() { None } else { Some(after.strip_prefix('-')?) };
        }
        self.put(&eui64)?;
        rest.is_none().then_some((MESSAGING, MESSAGING_NVME))
    }

    /// `HD(number,type,signature,start,length)`. In the node, the signature and two bytes about it are behind the place.
    fn hard_drive(&mut self) -> Option<Ids> {
        self.put_number(4)?;
        let kind = self.next()?;
        let mut signature = [0; 16];
        let [format, kind] = match kind {
            "GPT" => {
                signature = guid(self.next()?)?;
                [2, 2]
            }
            "MBR" => {
                let number = u32::try_from(self.number()?).ok()?;
                signature.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
                [1, 1]
            }
            other => {
                self.number()?;
                let kind = digits_number(other, 10).and_then(|kind| u8::try_from(kind).ok());
                [0, kind.filter(|kind| ![1, 2].contains(kind))?]
            }
        };
        self.put_number(8)?;
        self.put_number(8)?;
        self.put(&signature)?;
        self.put(&[format, kind])?;
        Some((MEDIA, MEDIA_HARD_DRIVE))
    }

    /// A node by its numbers: with its type, unless the word has said that.
    fn general(&mut self, kind: Option<u8>) -> Option<Ids> {
        let kind = match kind {
            Some(kind) => kind,
            None => u8::try_from(self.number()?).ok()?,
        };
        let sub_kind = u8::try_from(self.number()?).ok()?;
        self.put_hex()?;
        // An end in the middle would end the path.
        (kind != super::END).then_some((kind, sub_kind))
    }
}

/// A GUID of 8, 4, 4, 4 and 12 digits. The first three numbers are little-endian (UEFI appendix A).
fn guid(text: &str) -> Option<[u8; 16]> {
    let mut rest = Some(text);
    let mut number = |len: usize| {
        let (digits, after) = rest?.split_at_checked(len)?;
        rest = after.strip_prefix('-');
        // A separator follows each but the last.
        (rest.is_some() || after.is_empty()).then(|| hex_number(digits)).flatten()
    };
    let [a, b, c, d, e] = [number(8)?, number(4)?, number(4)?, number(4)?, number(12)?];
    if rest.is_some() {
        return None;
    }
    let [.., d0, d1] = d.to_be_bytes();
    let [_, _, e @ ..] = e.to_be_bytes();
    let ([a0, a1, a2, a3, ..], [b0, b1, ..], [c0, c1, ..]) = (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    let [e0, e1, e2, e3, e4, e5] = e;
    Some([a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, e0, e1, e2, e3, e4, e5])
}

fn hex_number(digits: &str) -> Option<u64> {
    digits_number(digits, 16)
}

/// A number of digits alone: no sign, no prefix.
fn digits_number(digits: &str, radix: u8) -> Option<u64> {
    let add = |number: u64, digit: u8| {
        let value = match digit {
            b'0'..=b'9' => digit.wrapping_sub(b'0'),
            b'a'..=b'f' => digit.wrapping_sub(b'a').wrapping_add(10),
            b'A'..=b'F' => digit.wrapping_sub(b'A').wrapping_add(10),
            _ => return None,
        };
        let number = number.checked_mul(radix.into())?;
        number.checked_add(value.into()).filter(|_| value < radix)
    };
    (!digits.is_empty()).then(|| digits.bytes().try_fold(0, add)).flatten()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::{String, ToString};

    use proptest::prelude::*;

    use super::super::DevicePath;
    use super::super::text::PathText;
    use super::*;

    fn utf16(text: &str) -> Vec<u16> {
        text.encode_utf16().collect()
    }

    /// The text of the path of a text.
    #[track_caller]
    fn back(text: &str) -> String {
        let path = path(&utf16(text)).unwrap();
        PathText(DevicePath::parse(&path).unwrap()).to_string()
    }

    /// The nodes of a text, each by its two types and its length.
    fn nodes(text: &str) -> Vec<(u8, u8, usize)> {
        let path = path(&utf16(text)).unwrap();
        let path = DevicePath::parse(&path).unwrap();
        path.nodes().map(|node| (node.kind, node.sub_kind, node.data.len())).collect()
    }

    #[test]
    fn every_node_that_is_written_is_read_back() {
        for text in [
            "",
            "PciRoot(0x0)/Pci(0x1F,0x2)/HD(1,GPT,15E39A00-1DD2-1000-8D7F-00A0C92408FC,0x800,0x10000)",
            "PcieRoot(0x2)/Pci(0x3,0x0)/HD(5,MBR,0x1234ABCD,0x0,0xFFFFFFFFFFFFFFFF)/\\EFI\\BOOT\\BOOTX64.EFI",
            "HD(1,7,0,0x1,0x2)",
            "Acpi(PNP0501,0x0)/Acpi(04030201,0x5)",
            "CDROM(0x1,0x2D,0x1680)/MemoryMapped(0x1,0x1000,0x1FFF)",
            "VenMedia(1428F772-B64A-441E-B8C3-9EBDD7F893C7)/kernel",
            "VenHw(1428F772-B64A-441E-B8C3-9EBDD7F893C7,0102FF),VenMsg(1428F772-B64A-441E-B8C3-9EBDD7F893C7)",
            "PciRoot(0x0)/Pci(0x1,0x0)/Scsi(0x2,0x3)/CDROM(0x1,0x2D,0x1680)",
            "Sata(0x2,0xFFFF,0x0)/NVMe(0x1,AB-07-06-05-04-03-02-01)",
            "Msg(19,0000FFFF0000)/HardwarePath(1,03)/AcpiPath(1)/MediaPath(1,0102)/Path(5,1,AB)",
            "\\grüße\\initrd",
        ] {
            assert_eq!(back(text), text);
        }
    }

    #[test]
    fn what_is_no_known_node_is_a_file() {
        let file = |text: &str| (MEDIA, MEDIA_FILE, 2 * (text.len() + 1));
        for text in [
            "\\initrd.img",
            "initrd",
            "Unknown(0x1)",
            "Pci(0x1)",
            "Pci(0x1,0x0,0x0)",
            "Pci(0x100,0x0)",
            "Pci(1,+1)",
            "Pci(0x,0x0)",
            "Pci(0x+1,0x0)",
            "Pci(0x1,0x0) ",
            "pci(0x1,0x0)",
            "VenHw(1428F772)",
            "VenHw(1428F772-B64A-441E-B8C3-9EBDD7F893C)",
            "VenHw(1428F772-B64A-441E-B8C3-9EBDD7F893C7-)",
            "VenHw(1428F772-B64A-441E-B8C3-9EBDD7F893C7A)",
            "VenHw(1428F772-B64A-441EB-8C3-9EBDD7F893C7)",
            "VenHw(1428F772-B64A-441E-B8C3-9EBDD7F893G7)",
            "VenHw(1428F772-B64A-441E-B8C3-9EBDD7F893C7,123)",
            "Acpi(PNP10501,0x0)",
            "Acpi(PNP0501,0x100000000)",
            "HD(1,GPT,0,0x0,0x0)",
            "HD(1,2,0,0x0,0x0)",
            "Path(127,255)",
            "NVMe(0x1,AB-07-06-05-04-03-02)",
            "NVMe(0x1,AB-07-06-05-04-03-02-01-00)",
            "NVMe(0x1,AB-07-06-05-04-03-02-001)",
            "Sata(0x2,0xFFFF)",
            "Path(256,1)",
            "(",
            ")",
            "()",
        ] {
            assert_eq!(nodes(text), [file(text)], "{text}");
        }
    }

    #[test]
    fn numbers_may_be_decimal_and_nodes_empty() {
        assert_eq!(back("/PciRoot(0)//Pci(31,2)/"), "PciRoot(0x0)/Pci(0x1F,0x2)");
        assert_eq!(nodes(",a"), [(0x7f, 1, 0), (MEDIA, MEDIA_FILE, 4)]);
        assert_eq!(nodes("a/b,c"), [(4, 4, 4), (4, 4, 4), (0x7f, 1, 0), (4, 4, 4)]);
    }

    #[test]
    fn text_ends_at_its_nul_and_a_node_has_no_end() {
        assert_eq!(path(&utf16("a\0b")), path(&utf16("a")));
        assert_eq!(node(&utf16("Pci(0x1f,0x2)\0x")).unwrap(), [1, 1, 6, 0, 2, 0x1f]);
        assert_eq!(node(&utf16("a/b")).unwrap()[4..], [b'a', 0, b'/', 0, b'b', 0, 0, 0]);
    }

    #[test]
    fn a_name_that_is_too_long_for_a_node_is_refused() {
        let longest = (0xffff - 4) / 2 - 1;
        assert!(path(&[u16::from(b'x')].repeat(longest)).is_ok());
        assert_eq!(path(&[u16::from(b'x')].repeat(longest + 1)), Err(HeapFull));
    }

    proptest! {
        #[test]
        fn any_text_is_a_path(text in "([a-zA-Z0-9(),/\\\\.é-]|Pci|HD|Path|Acpi){0,40}") {
            let bytes = path(&utf16(&text)).unwrap();
            let parsed = DevicePath::parse(&bytes).unwrap();
            prop_assert_eq!(parsed.bytes().len(), bytes.len());
            // The text of it is that path again, unless a file's node was given by numbers.
            let again = path(&utf16(&PathText(parsed).to_string())).unwrap();
            prop_assert!(text.contains("Path(") || again == bytes);
        }
    }
}
