//! Disks and partitions as functions that images call: `EFI_BLOCK_IO_PROTOCOL`.
//!
//! The number of a disk or partition follows the functions in memory. A number that an image made up is that of none, or of another
//! one, which the image could have asked for.

use uefi_raw::Status;

use firstlight::disk::Blocks;
use firstlight::efi::protocols::block_io::{BlockId, BlockIo, REVISION};
use firstlight::efi::protocols::file_system::{Source, disk_status};
use firstlight::efi::services::Pointers;

use super::calls::call;
use super::state::Running;

/// Where the number of a disk or partition is behind the functions.
const NUMBER: u64 = 8 * 6;

/// The interface of a disk or partition, whose `EFI_BLOCK_IO_MEDIA` is at `media`.
pub fn interface(id: BlockId, media: u64) -> [u64; 7] {
    [
        REVISION,
        media,
        reset as *const () as u64,
        read_blocks as *const () as u64,
        write_blocks as *const () as u64,
        flush_blocks as *const () as u64,
        id.raw(),
    ]
}

/// Calls a function with the disk or partition whose interface is at `this`.
fn with_block(this: u64, work: impl FnOnce(&mut Running, BlockId, BlockIo) -> Result<(), Status>) -> Status {
    call(|running| {
        let id = BlockId::from_raw(running.machine.number(this.saturating_add(NUMBER))?);
        let io = *running.disks.io(id).ok_or(Status::INVALID_PARAMETER)?;
        work(running, id, io)
    })
}

extern "efiapi" fn reset(this: u64, _extended: u8) -> Status {
    with_block(this, |_, _, _| Ok(()))
}

extern "efiapi" fn read_blocks(this: u64, media_id: u32, first: u64, len: u64, to: u64) -> Status {
    with_block(this, |Running { machine, services, disks, .. }, id, io| {
        let bytes = io.read(media_id, first, len, to)?;
        if bytes.len == 0 {
            return Ok(());
        }
        let into = services.device_buffer(to, bytes.len)?;
        let mut source = disks.on(machine);
        let mut blocks = source.blocks(id).ok_or(Status::DEVICE_ERROR)?;
        let result = blocks.load(bytes.start, into);
        drop(blocks);
        result.map_err(|error| {
            disks.give_up_lost(&mut services.memory);
            disk_status(error)
        })
    })
}

extern "efiapi" fn write_blocks(this: u64, media_id: u32, first: u64, len: u64, from: u64) -> Status {
    with_block(this, |_, _, io| io.write(media_id, first, len, from))
}

/// Nothing was written.
extern "efiapi" fn flush_blocks(this: u64) -> Status {
    with_block(this, |_, _, _| Ok(()))
}
