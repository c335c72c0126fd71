//! The volume with what the host offers to boot: files in one directory, as OVMF has it (edk2
//! `OvmfPkg/QemuKernelLoaderFsDxe`).
//!
//! fw_cfg has no position that can be set. A read behind the start of an item selects it and passes over what comes before,
//! which is one transfer on QEMU; on a host without that, everything up to there is transferred again at each read. Who reads
//! a file in one piece pays for none of this.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use uefi_raw::protocol::file_system::FileAttribute;
use uefi_raw::time::Time;
use uefi_raw::{Guid, Status, guid};

use super::info::{self, FileFields, Info};
use super::name::{self, Part};
use crate::boot::Blob;
use crate::efi::device_path::PathBuilder;
use crate::heap::HeapFull;

/// The vendor in the volume's device path (edk2 `OvmfPkg/Include/Guid/QemuKernelLoaderFsMedia.h`). systemd-boot knows it too.
pub const QEMU_LOADER: Guid = guid!("1428f772-b64a-441e-b8c3-9ebdd7f893c7");

/// As many files the volume has at most.
pub const MOST_FILES: usize = 4;

/// The volume's label.
const LABEL: &str = "firstlight";

/// A file of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFile<'a> {
    name: &'static str,
    parts: [Blob<'a>; 2],
}

impl<'a> HostFile<'a> {
    /// The file of a name, which is made of one or two parts.
    #[must_use]
    pub const fn new(name: &'static str, parts: [Blob<'a>; 2]) -> Self {
        Self { name, parts }
    }

    /// Its parts, one after the other.
    #[must_use]
    pub const fn parts(&self) -> [Blob<'a>; 2] {
        self.parts
    }

    /// The length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        let [first, second] = &self.parts;
        first.len().saturating_add(second.len())
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `len` bytes from `start` on: what of them is in each part. No piece is empty.
    #[must_use]
    pub fn pieces(&self, mut start: u64, mut len: u64) -> ArrayVec<Blob<'a>, 2> {
        let mut pieces = ArrayVec::new();
        for part in self.parts {
            let piece = piece(part, start, len);
            start = start.saturating_sub(part.len());
            len = len.saturating_sub(piece.len());
            if !piece.is_empty() {
                // There are as many as there are parts.
                let _ = pieces.try_push(piece);
            }
        }
        pieces
    }
}

/// At most `len` bytes of `blob` from `start` on.
fn piece(mut blob: Blob<'_>, start: u64, len: u64) -> Blob<'_> {
    let mut left = start.min(blob.len());
    while left > 0 {
        let step = u32::try_from(left).unwrap_or(u32::MAX);
        (_, blob) = blob.split_at(step);
        left = left.saturating_sub(step.into());
    }
    let (piece, _) = blob.split_at(u32::try_from(len).unwrap_or(u32::MAX));
    piece
}

/// The volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostVolume<'a> {
    files: ArrayVec<HostFile<'a>, MOST_FILES>,
}

impl<'a> HostVolume<'a> {
    /// A volume without files.
    #[must_use]
    pub const fn new() -> Self {
        Self { files: ArrayVec::new_const() }
    }

    /// Adds a file, unless it is empty: the host does not have it then.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES` beyond [`MOST_FILES`].
    pub fn add(&mut self, file: HostFile<'a>) -> Result<(), Status> {
        if file.is_empty() {
            return Ok(());
        }
        self.files.try_push(file).map_err(|_| Status::OUT_OF_RESOURCES)
    }

    /// The device path of the volume's handle.
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn device_path() -> Result<Vec<u8>, HeapFull> {
        PathBuilder::new().vendor_media(QEMU_LOADER)?.end()
    }

    /// The device path of a file, without the volume's.
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn file_path(file: &HostFile<'_>) -> Result<Vec<u8>, HeapFull> {
        PathBuilder::new().file(file.name.encode_utf16())?.end()
    }

    /// What a path leads to.
    pub(super) fn resolve(&self, from: HostNode, path: &[u16]) -> Option<HostNode> {
        let (is_absolute, parts) = name::split(path);
        let mut node = if is_absolute { HostNode::Root } else { from };
        for part in parts {
            // A file has nothing below it, and the root nothing above.
            node = match (node, part) {
                (HostNode::Root, Part::Same) => HostNode::Root,
                (HostNode::File(_), _) | (HostNode::Root, Part::Up) => return None,
                (HostNode::Root, Part::Name(name)) => {
                    let index = self.files.iter().position(|file| name::is_same(name, file.name))?;
                    HostNode::File(index)
                }
            };
        }
        Some(node)
    }

    /// A file by its number.
    pub(super) fn file(&self, index: usize) -> Option<&HostFile<'a>> {
        self.files.get(index)
    }

    fn len(&self) -> u64 {
        self.files.iter().fold(0, |len, file| len.saturating_add(file.len()))
    }

    /// `EFI_FILE_INFO`. Nobody knows the times.
    pub(super) fn file_info(&self, node: HostNode) -> Info {
        let (name, len, attributes) = match node {
            HostNode::Root => ("", 0, FileAttribute::READ_ONLY | FileAttribute::DIRECTORY),
            HostNode::File(index) => {
                let file = self.files.get(index);
                (file.map_or("", |file| file.name), file.map_or(0, HostFile::len), FileAttribute::READ_ONLY)
            }
        };
        info::file(&FileFields { len, room: len, times: [Time::invalid(); 3], attributes }, name.encode_utf16())
    }

    /// `EFI_FILE_SYSTEM_INFO`: with blocks of one byte.
    pub(super) fn file_system_info(&self) -> Info {
        info::file_system(self.len(), 1, LABEL.encode_utf16())
    }

    /// `EFI_FILE_SYSTEM_VOLUME_LABEL`.
    pub(super) fn label(&self) -> Info {
        info::label(LABEL.encode_utf16())
    }
}

/// The root directory or a file in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostNode {
    Root,
    File(usize),
}
