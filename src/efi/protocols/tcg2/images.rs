//! Measurements of images: PCR 4 for applications and PCR 2 for drivers, by the digest of the file as it is signed (PC Client
//! Platform Firmware Profile (PFP) 1.05, 3.3.4.3 and 3.3.4.5). So they can be predicted from the file.

use alloc::vec::Vec;

use uefi_raw::Status;
use zerocopy::{FromZeros, IntoBytes};

use super::Tcg2;
use crate::addr::PhysRange;
use crate::boot::Blob;
use crate::efi::pe::{self, Span, Subsystem};
use crate::efi::protocols::file_system::HostFile;
use crate::efi::services::Placed;
use crate::fw_cfg::{FwCfg, Key};
use crate::hal::{Clock, HostAccess, Memory};
use crate::heap;
use crate::tpm::hash::{Digests, Hashes};
use crate::tpm::{EventType, MAX_SETUP, forget_host};

/// An image that is loaded, for the log.
#[derive(Clone, Copy, Debug)]
pub struct ImageLoad<'a> {
    /// Where it is in memory.
    pub placed: Placed,
    /// The bytes of its device path; empty without one.
    pub path: &'a [u8],
}

impl ImageLoad<'_> {
    /// The PCR and the event's type (PFP 10.4.1).
    const fn event(&self) -> (u32, EventType) {
        match self.placed.subsystem {
            Subsystem::Application => (4, EventType::EfiApplication),
            Subsystem::BootDriver => (2, EventType::EfiBootDriver),
            Subsystem::RuntimeDriver => (2, EventType::EfiRuntimeDriver),
        }
    }
}

/// Passes the bytes of a part of a file to hashes.
type Visit<'v, M> = &'v mut dyn FnMut(&mut M, Span, &mut Hashes) -> Result<(), Status>;

impl Tcg2 {
    /// Measures an image that is loaded from memory, where its file is `source`.
    ///
    /// # Errors
    /// `LOAD_ERROR` for a file that has no digest; `INVALID_PARAMETER` for memory that is not for images; `OUT_OF_RESOURCES`,
    /// `DEVICE_ERROR`.
    pub fn measure_image(
        &mut self,
        machine: &mut (impl Memory + Clock),
        source: PhysRange,
        load: &ImageLoad<'_>,
    ) -> Result<(), Status> {
        let headers = headers_in_memory(machine, source)?;
        let digests = self.hash_image(machine, source)?;
        self.record_image(machine, &headers, source.len(), &digests, load)
    }

    /// Measures the program that the firmware starts, whose file the host has. What of the file is not in memory is transferred
    /// to `room`, in pieces.
    ///
    /// What the host has written into the file is measured as zero, so a unified kernel image is measured as it is on the host's
    /// disk (`docs/tpm.md`).
    ///
    /// # Errors
    /// As for [`Self::measure_image`].
    pub fn measure_program(
        &mut self,
        machine: &mut (impl HostAccess + Clock),
        fw_cfg: &FwCfg,
        file: [Blob<'_>; 2],
        room: PhysRange,
        load: &ImageLoad<'_>,
    ) -> Result<(), Status> {
        let [first, second] = file;
        let is_divided = matches!(first, Blob::Item { item, .. } if item.key() == Key::SETUP_DATA);
        let mut setup = Vec::new();
        if is_divided {
            if first.len() > MAX_SETUP {
                return Err(Status::LOAD_ERROR);
            }
            setup = first.read(machine, fw_cfg).map_err(cannot_read)?;
            forget_host(&mut setup);
        }
        let first = if is_divided { Blob::Bytes(&setup) } else { first };
        let file = HostFile::new("", [first, second]);
        let mut headers = Vec::new();
        for piece in &file.pieces(0, pe::MOST_HEADERS as u64) {
            let bytes = piece.read(machine, fw_cfg).map_err(cannot_read)?;
            heap::extend(&mut headers, &bytes).map_err(|_| Status::OUT_OF_RESOURCES)?;
        }
        let digests = self.hash(machine, &headers, file.len(), &mut |machine, span, hashes| {
            for &piece in &file.pieces(span.start.into(), span.len().into()) {
                hash_blob(machine, fw_cfg, piece, room, hashes)?;
            }
            Ok(())
        })?;
        self.record_image(machine, &headers, file.len(), &digests, load)
    }

    /// The digests of the image whose file is `source`.
    ///
    /// # Errors
    /// As for [`Self::measure_image`].
    pub(super) fn hash_image(
        &mut self,
        machine: &mut (impl Memory + Clock),
        source: PhysRange,
    ) -> Result<Digests, Status> {
        let headers = headers_in_memory(machine, source)?;
        self.hash(machine, &headers, source.len(), &mut |machine, span, hashes| {
            let (first, _) = source.split_at(span.end.into());
            let (_, bytes) = first.split_at(span.start.into());
            machine.inspect(bytes, &mut |bytes| hashes.update(bytes)).map_err(|_| Status::INVALID_PARAMETER)
        })
    }

    fn hash<M: Memory>(
        &mut self,
        machine: &mut M,
        headers: &[u8],
        file_len: u64,
        visit: Visit<'_, M>,
    ) -> Result<Digests, Status> {
        let parts = pe::hashed(headers, file_len).map_err(|error| self.no_digest(error))?;
        let mut hashes = self.session.hashes();
        for &part in &parts {
            visit(machine, part, &mut hashes)?;
        }
        Ok(hashes.finish())
    }

    /// Records an image with a `UEFI_IMAGE_LOAD_EVENT` (PFP 10.2.3): where it is, its length, where it is linked for, its path.
    fn record_image(
        &mut self,
        machine: &mut (impl Memory + Clock),
        headers: &[u8],
        file_len: u64,
        digests: &Digests,
        load: &ImageLoad<'_>,
    ) -> Result<(), Status> {
        let (base, _) = pe::Image::parse(headers, file_len).map_err(|error| self.no_digest(error))?.base();
        let numbers = [load.placed.place.start().get(), load.placed.len, base, load.path.len() as u64];
        let (pcr, kind) = load.event();
        let data = [numbers.as_bytes(), load.path];
        let recorded = self.session.record_digests(machine, pcr, kind as u32, digests, Some(&data));
        recorded.map_err(|error| self.status(error))
    }

    fn no_digest(&mut self, error: pe::Error) -> Status {
        self.warnings
            .warn(format_args!("an EFI image cannot be measured, and so is not loaded or gets no TPM: {error}"));
        Status::LOAD_ERROR
    }
}

/// Hashes bytes wherever they are. Those in an item are transferred to `room`.
fn hash_blob(
    machine: &mut impl HostAccess,
    fw_cfg: &FwCfg,
    blob: Blob<'_>,
    room: PhysRange,
    hashes: &mut Hashes,
) -> Result<(), Status> {
    let mut inspect = |machine: &mut _, range| {
        Memory::inspect(machine, range, &mut |bytes| hashes.update(bytes)).map_err(|_| Status::DEVICE_ERROR)
    };
    match blob {
        Blob::Bytes(bytes) => hashes.update(bytes),
        Blob::Memory(range) => inspect(machine, range)?,
        Blob::Item { .. } => {
            let at_once = u32::try_from(room.len()).unwrap_or(u32::MAX).max(1);
            let mut rest = blob;
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(at_once);
                let place = piece.load(machine, fw_cfg, room.start()).map_err(cannot_read)?;
                inspect(machine, place)?;
                rest = after;
            }
        }
    }
    Ok(())
}

/// The first bytes of a file in memory.
fn headers_in_memory(machine: &mut impl Memory, source: PhysRange) -> Result<Vec<u8>, Status> {
    let (first, _) = source.split_at(pe::MOST_HEADERS as u64);
    let mut headers = u8::new_vec_zeroed(first.len() as usize).map_err(|_| Status::OUT_OF_RESOURCES)?;
    machine.read(first.start(), &mut headers).map_err(|_| Status::INVALID_PARAMETER)?;
    Ok(headers)
}

fn cannot_read(error: crate::boot::Error) -> Status {
    crate::warn!("the EFI program cannot be read a second time, to be measured: {error}");
    Status::DEVICE_ERROR
}
