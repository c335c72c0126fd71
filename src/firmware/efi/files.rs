//! What the host offers to boot as functions that images call: `EFI_SIMPLE_FILE_SYSTEM_PROTOCOL` and `EFI_FILE_PROTOCOL`.
//!
//! The number of an open file follows its functions in memory. A number that an image made up is that of no open file.

use uefi_raw::Status;
use uefi_raw::protocol::file_system::FileMode;

use firstlight::addr::PhysAddr;
use firstlight::boot::EfiProgram;
use firstlight::efi::protocols::file_system::{FileId, FileSystem, Read, Volume, VolumeFile};
use firstlight::efi::services::Pointers;
use firstlight::fw_cfg::FwCfg;
use zerocopy::IntoBytes;

use super::calls::{call, checked, status_of};
use super::state::Running;
use crate::machine::PcMachine;

/// The revision of both protocols (UEFI 13.4.1, 13.5.1).
const REVISION: u64 = 0x1_0000;
/// Where the number of a file is behind its functions.
const NUMBER: u64 = 8 * 11;
/// The longest path that is opened, in characters.
const MOST_CHARACTERS: usize = 1 << 10;

/// The volume's interface.
pub fn volume_interface() -> [u64; 2] {
    [REVISION, open_volume as *const () as u64]
}

/// The volume of the host of `program`.
///
/// # Errors
/// `OUT_OF_RESOURCES`.
pub fn volume(program: Option<&EfiProgram>) -> Result<FileSystem<'static>, Status> {
    let mut volume = Volume::new();
    let Some(program) = program else { return Ok(FileSystem::new(volume)) };
    let whole = |blob| [blob, Default::default()];
    volume.add(VolumeFile::new("kernel", program.file))?;
    volume.add(VolumeFile::new("shim", whole(program.shim.unwrap_or_default())))?;
    volume.add(VolumeFile::new("initrd", whole(program.initrd.unwrap_or_default())))?;
    volume.add(VolumeFile::new("cmdline", whole(program.command_line)))?;
    Ok(FileSystem::new(volume))
}

/// A file's interface.
fn interface(id: FileId) -> [u64; 12] {
    [
        REVISION,
        open as *const () as u64,
        close as *const () as u64,
        delete as *const () as u64,
        read as *const () as u64,
        write as *const () as u64,
        get_position as *const () as u64,
        set_position as *const () as u64,
        get_info as *const () as u64,
        set_info as *const () as u64,
        flush as *const () as u64,
        id.raw(),
    ]
}

/// The file with the interface at `this`.
fn file(machine: &mut PcMachine, this: u64) -> Result<FileId, Status> {
    Ok(FileId::from_raw(machine.number(this.saturating_add(NUMBER))?))
}

/// Makes the interface of a file, and writes its address to `at`.
fn publish(running: &mut Running, id: FileId, at: u64) -> Result<(), Status> {
    let Running { machine, services, files, .. } = running;
    let published =
        services.pool_of(machine, interface(id).as_bytes()).and_then(|address| machine.set_number(at, address));
    published.inspect_err(|_| {
        // It is open, so it can be closed.
        let _ = files.close(id);
    })
}

/// Calls a function with the file at `this`.
fn with_file(this: u64, work: impl FnOnce(&mut Running, FileId) -> Result<(), Status>) -> Status {
    call(|running| {
        let id = file(&mut running.machine, this)?;
        work(running, id)
    })
}

extern "efiapi" fn open_volume(_this: u64, at: u64) -> Status {
    call(|running| {
        running.machine.check_number(at)?;
        let id = running.files.open_volume()?;
        publish(running, id, at)
    })
}

extern "efiapi" fn open(this: u64, at: u64, name: u64, mode: u64, _attributes: u64) -> Status {
    with_file(this, |running, id| {
        running.machine.check_number(at)?;
        let name = running.machine.text(name, MOST_CHARACTERS)?;
        let id = running.files.open(id, &name, FileMode::from_bits_retain(mode))?;
        publish(running, id, at)
    })
}

/// Closes a file, and frees its interface.
fn end(this: u64, how: impl FnOnce(&mut Running, FileId) -> Result<(), Status>) -> Status {
    with_file(this, |running, id| {
        let result = how(running, id);
        running.services.free_pool(&mut running.machine, this)?;
        result
    })
}

extern "efiapi" fn close(this: u64) -> Status {
    end(this, |running, id| running.files.close(id))
}

extern "efiapi" fn delete(this: u64) -> Status {
    end(this, |running, id| running.files.delete(id))
}

extern "efiapi" fn read(this: u64, len_at: u64, buffer: u64) -> Status {
    with_file(this, |Running { machine, files, boot, .. }, id| {
        let room = machine.check_number(len_at)?;
        let read = files.read(id, room);
        let read = checked(machine, read, len_at)?;
        let result = put(machine, &boot.fw_cfg, &read, buffer);
        if result.is_err() {
            files.undo(id, &read)?;
        }
        result?;
        machine.set_number(len_at, read.len())
    })
}

/// Writes what was read to `buffer`.
fn put(machine: &mut PcMachine, fw_cfg: &FwCfg, read: &Read<'static>, buffer: u64) -> Result<(), Status> {
    match read {
        Read::Contents(pieces) => {
            let mut at = PhysAddr::new(buffer);
            for piece in pieces {
                let loaded = piece.load(machine, fw_cfg, at).map_err(status_of)?;
                at = loaded.end();
            }
            Ok(())
        }
        Read::Entry(info) => machine.put(buffer, info),
    }
}

extern "efiapi" fn write(this: u64, _len: u64, _buffer: u64) -> Status {
    with_file(this, |running, id| running.files.write(id))
}

extern "efiapi" fn get_position(this: u64, at: u64) -> Status {
    with_file(this, |Running { machine, files, .. }, id| {
        let position = files.position(id)?;
        machine.set_number(at, position)
    })
}

extern "efiapi" fn set_position(this: u64, position: u64) -> Status {
    with_file(this, |running, id| running.files.set_position(id, position))
}

extern "efiapi" fn get_info(this: u64, kind: u64, len_at: u64, buffer: u64) -> Status {
    with_file(this, |Running { machine, files, .. }, id| {
        let kind = machine.guid(kind)?;
        let room = machine.number(len_at)?;
        let info = files.info(id, kind, room);
        let info = checked(machine, info, len_at)?;
        machine.put(buffer, &info)?;
        machine.set_number(len_at, info.len() as u64)
    })
}

extern "efiapi" fn set_info(this: u64, kind: u64, len: u64, _buffer: u64) -> Status {
    with_file(this, |Running { machine, files, .. }, id| {
        let kind = machine.guid(kind)?;
        files.set_info(id, kind, len)
    })
}

extern "efiapi" fn flush(this: u64) -> Status {
    with_file(this, |running, id| running.files.flush(id))
}
