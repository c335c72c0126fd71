//! Device paths: where a device or a file is, as a list of nodes (UEFI 10).
//!
//! The bytes of a path come from outside, and [`DevicePath::parse`] checks them: the nodes are adjacent, none reaches past the
//! bytes, and the last one ends the whole path. Only the text of a path ([`text`]) depends on the types of its nodes.
//!
//! Left out: the lengths of nodes of known types. Whoever reads such a node checks its length.

pub mod from_text;
#[cfg(test)]
mod tests;
pub mod text;
pub mod utilities;

use alloc::vec::Vec;

use uefi_raw::Guid;

use crate::heap::{self, HeapFull};

/// The bytes of a node before its data: type, sub-type and length (UEFI 10.3.1).
pub const HEADER_LEN: usize = 4;
/// The limit for a path. The longest known paths have some hundred bytes.
pub const MOST_BYTES: usize = 64 << 10;

/// The type of a node that ends a path, and its two sub-types (UEFI 10.3.1, "End of Hardware Device Path").
const END: u8 = 0x7f;
const END_OF_INSTANCE: u8 = 0x01;
const END_OF_PATH: u8 = 0xff;

/// A node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Its type (UEFI 10.3, table "Generic Device Path Node Structure").
    pub kind: u8,
    /// Its sub-type.
    pub sub_kind: u8,
    /// What follows the header.
    pub data: &'a [u8],
}

/// A path, or the rest of one: its nodes, including the node that ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DevicePath<'a>(&'a [u8]);

impl<'a> DevicePath<'a> {
    /// The path at the start of `bytes`. `None` if it does not end there, if a node is shorter than its header, or if one that
    /// ends something has data or an unknown sub-type.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut len = 0_usize;
        let mut rest = bytes;
        loop {
            let (node, after) = split_node(rest)?;
            len = len.checked_add(rest.len().checked_sub(after.len())?)?;
            match (node.kind, node.sub_kind, node.data) {
                (END, END_OF_PATH, []) => return bytes.get(..len).map(Self),
                (END, END_OF_INSTANCE, []) => {}
                (END, ..) => return None,
                _ => {}
            }
            rest = after;
        }
    }

    /// The bytes, including the node that ends the path.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The bytes without the node that ends the path.
    #[must_use]
    pub fn nodes_bytes(self) -> &'a [u8] {
        self.0.split_last_chunk::<HEADER_LEN>().map_or(self.0, |(nodes, _)| nodes)
    }

    /// The nodes, without the one that ends the path, but with those that end an instance.
    pub fn nodes(self) -> impl Iterator<Item = Node<'a>> {
        let mut rest = self.nodes_bytes();
        core::iter::from_fn(move || {
            let (node, after) = split_node(rest)?;
            rest = after;
            Some(node)
        })
    }

    /// Whether it has more than one instance.
    #[must_use]
    pub fn is_multi_instance(self) -> bool {
        self.nodes().any(Node::ends_instance)
    }

    /// The first instance without its end node, and the rest of the path if there are more instances.
    #[must_use]
    pub fn split_instance(self) -> (&'a [u8], Option<Self>) {
        let mut rest = self.0;
        while let Some((node, after)) = split_node(rest) {
            if node.kind == END {
                let len = self.0.len().saturating_sub(rest.len());
                let instance = self.0.get(..len).unwrap_or_default();
                return (instance, Some(Self(after)).filter(|_| node.ends_instance()));
            }
            rest = after;
        }
        (self.nodes_bytes(), None)
    }

    /// What follows the nodes of `prefix`, if this path begins with them. If both are the same, only the end node follows.
    #[must_use]
    pub fn strip_prefix(self, prefix: DevicePath<'_>) -> Option<Self> {
        // If the bytes are the same, so are the lengths of the nodes.
        self.0.strip_prefix(prefix.nodes_bytes()).map(Self)
    }
}

impl<'a> Node<'a> {
    /// The node at the start of `bytes`. `None` if it does not end there, or if it is shorter than its header.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        split_node(bytes).map(|(node, _)| node)
    }

    fn ends_instance(self) -> bool {
        self.kind == END && self.sub_kind == END_OF_INSTANCE
    }
}

/// Whether a path ends with the node that has these bytes.
#[must_use]
pub const fn ends(node: &[u8]) -> bool {
    matches!(node, [END, END_OF_PATH, ..])
}

/// The first node of `bytes`, and what follows it.
fn split_node(bytes: &[u8]) -> Option<(Node<'_>, &[u8])> {
    let (&[kind, sub_kind, low, high], _) = bytes.split_first_chunk()?;
    let len = usize::from(u16::from_le_bytes([low, high]));
    let (node, rest) = bytes.split_at_checked(len)?;
    let data = node.get(HEADER_LEN..)?;
    Some((Node { kind, sub_kind, data }, rest))
}

/// Builds a path node by node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathBuilder {
    bytes: Vec<u8>,
}

impl PathBuilder {
    /// No nodes yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Appends a node with the concatenated `parts` as its data.
    ///
    /// # Errors
    /// [`HeapFull`], also if the node's length does not fit into 16 bits.
    pub fn node(mut self, kind: u8, sub_kind: u8, parts: &[&[u8]]) -> Result<Self, HeapFull> {
        let data_len = parts.iter().fold(0_usize, |len, part| len.saturating_add(part.len()));
        let len = u16::try_from(data_len.saturating_add(HEADER_LEN)).map_err(|_| HeapFull)?;
        let [low, high] = len.to_le_bytes();
        self.append(&[kind, sub_kind, low, high])?;
        for part in parts {
            self.append(part)?;
        }
        Ok(self)
    }

    /// Appends nodes unchanged.
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn nodes(mut self, nodes: &[u8]) -> Result<Self, HeapFull> {
        self.append(nodes)?;
        Ok(self)
    }

    /// Appends `VenMedia(vendor)` (UEFI 10.3.5.3).
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn vendor_media(self, vendor: Guid) -> Result<Self, HeapFull> {
        self.node(MEDIA, MEDIA_VENDOR, &[&vendor.to_bytes()])
    }

    /// Appends the path of a file in UTF-16 (UEFI 10.3.5.4).
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn file(self, name: impl Iterator<Item = u16>) -> Result<Self, HeapFull> {
        let mut units = Vec::new();
        name.chain([0]).try_for_each(|unit| heap::extend(&mut units, &unit.to_le_bytes()))?;
        self.node(MEDIA, MEDIA_FILE, &[&units])
    }

    /// Ends the path, and returns its bytes.
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn end(mut self) -> Result<Vec<u8>, HeapFull> {
        self.append(&[END, END_OF_PATH, HEADER_LEN as u8, 0])?;
        Ok(self.bytes)
    }

    /// Ends an instance; another one follows.
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn end_instance(mut self) -> Result<Self, HeapFull> {
        self.append(&[END, END_OF_INSTANCE, HEADER_LEN as u8, 0])?;
        Ok(self)
    }

    /// Returns the nodes without an end.
    #[must_use]
    pub fn without_end(self) -> Vec<u8> {
        self.bytes
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), HeapFull> {
        bytes.iter().try_for_each(|&byte| heap::push(&mut self.bytes, byte))
    }
}

/// Types of nodes (UEFI 10.3, table "Generic Device Path Node Structure").
pub const HARDWARE: u8 = 0x01;
/// Devices that ACPI describes.
pub const ACPI: u8 = 0x02;
/// Devices behind a bus or a network.
pub const MESSAGING: u8 = 0x03;
/// Parts of a medium.
pub const MEDIA: u8 = 0x04;

/// `Pci(device,function)` (UEFI 10.3.2.1).
pub const HARDWARE_PCI: u8 = 0x01;
/// `MemoryMapped(type,start,end)` (UEFI 10.3.2.3).
pub const HARDWARE_MEMORY: u8 = 0x03;
/// `VenHw(guid)` (UEFI 10.3.2.4).
pub const HARDWARE_VENDOR: u8 = 0x04;
/// `Acpi(hid,uid)` (UEFI 10.3.3).
pub const ACPI_DEVICE: u8 = 0x01;
/// `AcpiAdr(address)` (UEFI 10.3.3.1).
pub const ACPI_ADDRESS: u8 = 0x03;
/// `Scsi(target,lun)` (UEFI 10.3.4.2).
pub const MESSAGING_SCSI: u8 = 0x02;
/// `Sata(port,multiplier,lun)` (UEFI 10.3.4.6).
pub const MESSAGING_SATA: u8 = 0x12;
/// `NVMe(namespace,eui64)` (UEFI 10.3.4.21).
pub const MESSAGING_NVME: u8 = 0x17;
/// `VenMsg(guid)` (UEFI 10.3.4.16).
pub const MESSAGING_VENDOR: u8 = 0x0a;
/// `HD(…)` (UEFI 10.3.5.1).
pub const MEDIA_HARD_DRIVE: u8 = 0x01;
/// `CDROM(…)` (UEFI 10.3.5.2).
pub const MEDIA_CD_ROM: u8 = 0x02;
/// `VenMedia(guid)` (UEFI 10.3.5.3).
pub const MEDIA_VENDOR: u8 = 0x03;
/// A file's path (UEFI 10.3.5.4).
pub const MEDIA_FILE: u8 = 0x04;
