//! Device paths as text (UEFI 10.6).
//!
//! Nodes of this firmware and of QEMU's devices have names. All others have the specification's general form,
//! `Path(type,sub-type,data)`, or the same with the word for the type.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use uefi_raw::Guid;

use super::{
    ACPI, ACPI_ADDRESS, ACPI_DEVICE, DevicePath, HARDWARE, HARDWARE_MEMORY, HARDWARE_PCI, HARDWARE_VENDOR, MEDIA,
    MEDIA_CD_ROM, MEDIA_FILE, MEDIA_HARD_DRIVE, MEDIA_VENDOR, MESSAGING, MESSAGING_NVME, MESSAGING_SATA,
    MESSAGING_SCSI, MESSAGING_VENDOR, Node,
};
use crate::heap::{self, HeapFull};

/// `ConvertDevicePathToText` and `ConvertDeviceNodeToText`: the bytes of a text in UTF-16, with a NUL.
///
/// # Errors
/// [`HeapFull`].
pub fn utf16(text: impl fmt::Display) -> Result<Vec<u8>, HeapFull> {
    let mut units = Units(Vec::new());
    write!(units, "{text}\0").map_err(|_| HeapFull)?;
    Ok(units.0)
}

/// Takes text as UTF-16.
struct Units(Vec<u8>);

impl Write for Units {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.encode_utf16().try_for_each(|unit| heap::extend(&mut self.0, &unit.to_le_bytes())).map_err(|_| fmt::Error)
    }
}

/// A path as text: its nodes with `/` between, and `,` between instances.
#[derive(Clone, Copy, Debug)]
pub struct PathText<'a>(pub DevicePath<'a>);

/// A node as text.
#[derive(Clone, Copy, Debug)]
pub struct NodeText<'a>(pub Node<'a>);

impl fmt::Display for PathText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_first = true;
        for node in self.0.nodes() {
            if node.ends_instance() {
                f.write_char(',')?;
                is_first = true;
                continue;
            }
            if !is_first {
                f.write_char('/')?;
            }
            is_first = false;
            NodeText(node).fmt(f)?;
        }
        Ok(())
    }
}

/// "PNP" in the low half of a compressed identifier (UEFI 10.3.3).
const PNP: u32 = 0x41d0;
/// `PNP0A03` and `PNP0A08`: PCI and PCI Express root bridges.
pub const PCI_ROOT: u32 = 0x0a03_41d0;
const PCI_EXPRESS_ROOT: u32 = 0x0a08_41d0;

impl fmt::Display for NodeText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Node { kind, sub_kind, data } = self.0;
        let known = match (kind, sub_kind) {
            (HARDWARE, HARDWARE_PCI) => pci(f, data),
            (HARDWARE, HARDWARE_MEMORY) => memory(f, data),
            (HARDWARE, HARDWARE_VENDOR) => vendor(f, "VenHw", data),
            (ACPI, ACPI_DEVICE) => acpi(f, data),
            (ACPI, ACPI_ADDRESS) => address(f, data),
            (MESSAGING, MESSAGING_SCSI) => scsi(f, data),
            (MESSAGING, MESSAGING_SATA) => sata(f, data),
            (MESSAGING, MESSAGING_NVME) => nvme(f, data),
            (MESSAGING, MESSAGING_VENDOR) => vendor(f, "VenMsg", data),
            (MEDIA, MEDIA_HARD_DRIVE) => hard_drive(f, data),
            (MEDIA, MEDIA_CD_ROM) => cd_rom(f, data),
            (MEDIA, MEDIA_VENDOR) => vendor(f, "VenMedia", data),
            (MEDIA, MEDIA_FILE) => file(f, data),
            _ => None,
        };
        known.unwrap_or_else(|| {
            match kind {
                HARDWARE => write!(f, "HardwarePath({sub_kind}")?,
                ACPI => write!(f, "AcpiPath({sub_kind}")?,
                MESSAGING => write!(f, "Msg({sub_kind}")?,
                MEDIA => write!(f, "MediaPath({sub_kind}")?,
                _ => write!(f, "Path({kind},{sub_kind}")?,
            }
            if !data.is_empty() {
                f.write_char(',')?;
            }
            hex(f, data)?;
            f.write_char(')')
        })
    }
}

/// A GUID in capitals, as EDK II writes it.
struct GuidText<'a>(&'a [u8; 16]);

impl fmt::Display for GuidText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Guid::from_bytes(*self.0).to_ascii_hex_lower();
        text.iter().try_for_each(|character| f.write_char(character.to_ascii_uppercase().into()))
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
}

fn pci(f: &mut fmt::Formatter<'_>, data: &[u8]) -> Option<fmt::Result> {
    let &[function, device] = data else { return None };
    Some(write!(f, "Pci({device:#X},{function:#X})"))
}

fn memory(f: &mut fmt::Formatter<'_>, data: &[u8]) -> Option<fmt::Result> {
    let (kind, rest) = u32_of(data)?;
    let (start, rest) = u64_of(rest)?;
    let (end, rest) = u64_of(rest)?;
    rest.is_empty().then(|| write!(f, "MemoryMapped({kind:#X},{start:#X},{end:#X})"))
}

fn vendor(f: &mut fmt::Formatter<'_>, word: &str, data: &[u8]) -> Option<fmt::Result> {
    let (guid, rest) = data.split_first_chunk()?;
    let mut write = || {
        write!(f, "{word}({}", GuidText(guid))?;
        if !rest.is_empty() {
            f.write_char(',')?;
        }
        hex(f, rest)?;
        f.write_char(')')
    };
    Some(write())
}

fn acpi(f: &mut fmt::Formatter<'_>, data: &[u8]) -> Option<fmt::Result> {
    let (hid, rest) = u32_of(data)?;
    let (uid, rest) = u32_of(rest)?;
    rest.is_empty().then(|| match hid {
        PCI_ROOT => write!(f, "PciRoot({uid:#X})"),
        PCI_EXPRESS_ROOT => write!(f, "PcieRoot({uid:#X})"),
        hid if hid & 0xffff == PNP => write!(f, "Acpi(PNP{:04X},{uid:#X})", hid >> 16),
        hid => write!(f, "Acpi({hid:08X},{uid:#X})"),
    })
}

/// More than one address has the general form.
fn address(f: &mut fmt::Formatter<'_>, data: &[u8]) -> Option<fmt::Result> {
    let (address, rest) = u32_of(data)?;
    rest.is_empty().then(|| write!(f, "AcpiAdr({address:#X})"))
}

fn scsi(f: &mut fmt::Formatter<'_>, data: &[u8]) -> Option<fmt::Result> {
    let &[a, b, c, d] = data else { return None };
    Some(write!(f, "Scsi({:#X},{:#X})", u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
}

fn sata(f: &mut fmt::Formatter<'_>, data: &[u8]) -> Option<fmt::Result> {
    let &[a, b, c, d, e, g] = data else { return None };
    let [port, multiplier, lun] = [[a, b], [c, d], [e, g]].map(u16::from_le_bytes);
    Some(write!(f, "Sata({port:#X},{multiplier:#X},{lun:#X})"))
}

/// The EUI-64 has its last byte first, as EDK II writes it.
fn nvme(f: &mut fmt::Formatter<'_>, data: &[u8]) -> Option<fmt::Result> {
    let (namespace, eui64) = u32_of(data)?;
    let &[a, b, c, d, e, g, h, i] = eui64 else { return None };
    Some(write!(f, "NVMe({namespace:#X},{i:02X}-{h:02X}-{g:02X}-{e:02X}-{d:02X}-{c:02X}-{b:02X}-{a:02X})"))
}

fn hard_drive(f: &mut fmt::Formatter<'_>, data: &[u8]) -> Option<fmt::Result> {
    let (number, rest) = u32_of(data)?;
    let (start, rest) = u64_of(rest)?;
    let (len, rest) = u64_of(rest)?;
    let (signature, rest) = rest.split_first_chunk::<16>()?;
    let &[_, kind] = rest else { return None };
    Some(match kind {
        1 => {
            let (signature, _) = u32_of(signature)?;
            write!(f, "HD({number},MBR,{signature:#010X},{start:#X},{len:#X})")
        }
        2 => write!(f, "HD({number},GPT,{},{start:#X},{len:#X})", GuidText(signature)),
        kind => write!(f, "HD({number},{kind},0,{start:#X},{len:#X})"),
    })
}

fn cd_rom(f: &mut fmt::Formatter<'_>, data: &[u8]) -> Option<fmt::Result> {
    let (entry, rest) = u32_of(data)?;
    let (start, rest) = u64_of(rest)?;
    let (len, rest) = u64_of(rest)?;
    rest.is_empty().then(|| write!(f, "CDROM({entry:#X},{start:#X},{len:#X})"))
}

/// The text of a file's path is its data up to a NUL.
fn file(f: &mut fmt::Formatter<'_>, data: &[u8]) -> Option<fmt::Result> {
    let (units, _) = data.as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|&unit| unit != 0);
    let mut characters = char::decode_utf16(units);
    Some(characters.try_for_each(|character| f.write_char(character.unwrap_or(char::REPLACEMENT_CHARACTER))))
}

fn u32_of(data: &[u8]) -> Option<(u32, &[u8])> {
    data.split_first_chunk().map(|(bytes, rest)| (u32::from_le_bytes(*bytes), rest))
}

fn u64_of(data: &[u8]) -> Option<(u64, &[u8])> {
    data.split_first_chunk().map(|(bytes, rest)| (u64::from_le_bytes(*bytes), rest))
}
