//! Volumes and their files as functions that images call: `EFI_SIMPLE_FILE_SYSTEM_PROTOCOL` and `EFI_FILE_PROTOCOL`.
//!
//! The number of a volume or an open file follows its functions in memory. A number that an image made up is that of none, or of
//! one that the image could have asked for.

use uefi_raw::Status;
use uefi_raw::protocol::file_system::FileMode;

use firstlight::addr::PhysAddr;
use firstlight::boot::EfiProgram;
use firstlight::efi::protocols::file_system::{FileId, HostFile, HostVolume, Read, VolumeId};
use firstlight::efi::services::Pointers;
use zerocopy::IntoBytes;

use super::calls::{call, checked, status_of};
use super::state::Running;
use firstlight_machine::PcMachine;

/// The revision of both protocols (UEFI 13.4.1, 13.5.1).
const REVISION: u64 = 0x1_0000;
/// Where the number of a file is behind its functions.
const NUMBER: u64 = 8 * 11;
/// The longest path that is opened, in characters.
const MOST_CHARACTERS: usize = 1 << 10;

/// Where the number of a volume is behind its function.
const VOLUME_NUMBER: u64 = 8 * 2;

/// A volume's interface.
pub fn volume_interface(volume: VolumeId) -> [u64; 3] {
    [REVISION, open_volume as *const () as u64, volume.raw()]
}

/// The volume with the interface at `at`, if its function is the firmware's: an image can install one of its own.
///
/// # Errors
/// `INVALID_PARAMETER` for memory that cannot be read.
pub fn own_volume(machine: &mut PcMachine, at: u64) -> Result<Option<VolumeId>, Status> {
    let function = machine.number(at.saturating_add(8))?;
    if function == open_volume as *const () as u64 { volume_at(machine, at).map(Some) } else { Ok(None) }
}

/// The volume with the interface at `this`.
fn volume_at(machine: &mut PcMachine, this: u64) -> Result<VolumeId, Status> {
    Ok(VolumeId::from_raw(machine.number(this.saturating_add(VOLUME_NUMBER))?))
}

/// The volume of the host of `program`.
///
/// # Errors
/// `OUT_OF_RESOURCES`.
pub fn volume(program: &EfiProgram) -> Result<HostVolume<'static>, Status> {
    let mut volume = HostVolume::new();
    let whole = |blob| [blob, Default::default()];
    volume.add(HostFile::new("kernel", program.file))?;
    volume.add(HostFile::new("shim", whole(program.shim.unwrap_or_default())))?;
    volume.add(HostFile::new("initrd", whole(program.initrd.unwrap_or_default())))?;
    volume.add(HostFile::new("cmdline", whole(program.command_line)))?;
    Ok(volume)
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
        work(running, id).inspect_err(|_| running.disks.give_up_lost(&mut running.services.memory))
    })
}

extern "efiapi" fn open_volume(this: u64, at: u64) -> Status {
    call(|running| {
        running.machine.check_number(at)?;
        let volume = volume_at(&mut running.machine, this)?;
        let id = running.files.open_volume(volume)?;
        publish(running, id, at)
    })
}

extern "efiapi" fn open(this: u64, at: u64, name: u64, mode: u64, _attributes: u64) -> Status {
    with_file(this, |running, id| {
        running.machine.check_number(at)?;
        let name = running.machine.text(name, MOST_CHARACTERS)?;
        let Running { machine, files, disks, .. } = &mut *running;
        let id = files.open(&mut disks.on(machine), id, &name, FileMode::from_bits_retain(mode))?;
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

extern "efiapi" fn read(this: u64, len_at: u64, to: u64) -> Status {
    with_file(this, |running, id| {
        let Running { machine, files, disks, .. } = &mut *running;
        let room = machine.check_number(len_at)?;
        let read = files.read(&mut disks.on(machine), id, room);
        let read = checked(machine, read, len_at)?;
        let result = put(running, id, &read, to);
        if result.is_err() {
            running.files.undo(id, &read)?;
        }
        result?;
        running.machine.set_number(len_at, read.len())
    })
}

/// Writes what was read of a file to `to`.
fn put(running: &mut Running, id: FileId, read: &Read<'static>, to: u64) -> Result<(), Status> {
    let Running { machine, services, files, disks, boot, .. } = running;
    match read {
        Read::Contents(pieces) => {
            let mut at = PhysAddr::new(to);
            for piece in pieces {
                let loaded = piece.load(machine, &boot.fw_cfg, at).map_err(status_of)?;
                at = loaded.end();
            }
            Ok(())
        }
        &Read::OnDisk { len: 0, .. } => Ok(()),
        &Read::OnDisk { start, len } => {
            let into = services.device_buffer(to, len)?;
            files.load(&mut disks.on(machine), id, start, into)
        }
        // At the end of a directory the buffer may be null.
        Read::Entry(info) if info.is_empty() => Ok(()),
        Read::Entry(info) => machine.put(to, info),
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
    with_file(this, |Running { machine, files, disks, .. }, id| {
        let kind = machine.guid(kind)?;
        let room = machine.number(len_at)?;
        let info = files.info(&mut disks.on(machine), id, kind, room);
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
