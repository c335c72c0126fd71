//! The volume of what the host offers to boot, as an image uses it: any calls, in any order.
//!
//! Input: where the kernel is cut in two, then calls. Each is a byte with its kind, a byte with the file, and what it takes.

use firstlight::boot::Blob;
use firstlight::efi::protocols::BufferError;
use firstlight::efi::protocols::file_system::{FileId, FileSystem, HostFile, HostVolume, MOST_OPEN, Read, Volume};
use firstlight::fakes::blocks::FakeDisks;
use uefi_raw::protocol::file_system::{FileInfo, FileMode, FileSystemInfo, FileSystemVolumeLabel};
use uefi_raw::{Guid, Status};

use crate::input::Input;

/// The kernel's bytes: each has another value than those beside it.
static KERNEL: [u8; 251] = {
    let mut bytes = [0; 251];
    let mut at = 0;
    while at < bytes.len() {
        bytes[at] = at as u8;
        at += 1;
    }
    bytes
};

/// A file as an image sees it, beside the one under test.
struct Open {
    id: FileId,
    /// Its position, if it is the kernel.
    kernel_at: Option<u64>,
}

/// Makes the calls. A read returns the bytes from the position on, and moves it. A file that is closed stays closed. No more files
/// than allowed are open. A structure has its length, and no more than the room for it.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let cut = usize::from(input.take::<u8>()).min(KERNEL.len());
    let (first, second) = KERNEL.split_at(cut);
    let mut volume = HostVolume::new();
    let files = [("kernel", [first, second]), ("initrd", [b"initrd", b""]), ("cmdline", [b"quiet\0", b""])];
    for (name, parts) in files {
        volume.add(HostFile::new(name, parts.map(Blob::Bytes))).expect("room for three files");
    }
    let mut files = FileSystem::new();
    let volume = files.add(Volume::Host(volume)).expect("room for a volume");
    let mut open: Vec<Open> = Vec::new();
    while !input.is_empty() {
        let (call, which): (u8, u8) = (input.take(), input.take());
        let index = usize::from(which) % (open.len() + 1);
        let Some(file) = open.get_mut(index) else {
            match files.open_volume(volume) {
                Ok(id) => open.push(Open { id, kernel_at: None }),
                Err(status) => assert!(status == Status::OUT_OF_RESOURCES && open.len() == MOST_OPEN),
            }
            continue;
        };
        let id = file.id;
        match call % 9 {
            0 => {
                let mode = input.pick(&[FileMode::READ, FileMode::READ | FileMode::WRITE, FileMode::CREATE]);
                let name = input.short();
                let name: Vec<u16> = name.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
                if let Ok(id) = files.open(&mut FakeDisks::default(), id, &name, mode) {
                    assert_eq!(mode, FileMode::READ);
                    let info = files
                        .info(&mut FakeDisks::default(), id, FileInfo::ID, 200)
                        .expect("information on an open file");
                    let is_kernel = info[80..].starts_with(b"k\0");
                    open.push(Open { id, kernel_at: is_kernel.then_some(0) });
                }
            }
            1 => assert_eq!(files.close(id), Ok(())),
            2 => assert_eq!(files.delete(id), Err(Status::WARN_DELETE_FAILURE)),
            3 => check_read(&mut files, file, input.take::<u32>().into()),
            4 => {
                let position: u64 = input.take();
                let result = files.set_position(id, position);
                if let Some(at) = &mut file.kernel_at {
                    assert_eq!(result, Ok(()));
                    *at = if position == u64::MAX { KERNEL.len() as u64 } else { position };
                    assert_eq!(files.position(id), Ok(*at));
                }
            }
            5 | 6 => {
                let (kind, room) = (kind(&mut input), u64::from(input.take::<u8>()));
                match files.info(&mut FakeDisks::default(), id, kind, room) {
                    Ok(info) => assert!(info.len() as u64 <= room),
                    Err(BufferError::TooSmall { needed }) => {
                        assert!(needed > room);
                        assert_eq!(
                            files.info(&mut FakeDisks::default(), id, kind, needed).map(|info| info.len() as u64),
                            Ok(needed)
                        );
                    }
                    Err(error) => assert_eq!(error.status(), Status::UNSUPPORTED),
                }
            }
            7 => assert!(files.set_info(id, kind(&mut input), input.take()).is_err()),
            _ => assert!(files.write(id).is_err() && files.flush(id).is_err()),
        }
        if matches!(call % 9, 1 | 2) {
            assert_eq!(files.close(id), Err(Status::INVALID_PARAMETER));
            open.remove(index);
        }
        assert!(open.len() <= MOST_OPEN);
    }
}

fn kind(input: &mut Input<'_>) -> Guid {
    input.pick(&[FileInfo::ID, FileSystemInfo::ID, FileSystemVolumeLabel::ID, Guid::from_bytes([7; 16])])
}

fn check_read(files: &mut FileSystem<'_>, file: &mut Open, room: u64) {
    let read = files.read(&mut FakeDisks::default(), file.id, room);
    if let Ok(read) = &read {
        assert!(read.len() <= room);
    }
    let Some(at) = &mut file.kernel_at else { return };
    let Some(rest) = usize::try_from(*at).ok().and_then(|at| KERNEL.get(at..)) else {
        return assert_eq!(read, Err(Status::DEVICE_ERROR.into()));
    };
    let Ok(Read::Contents(pieces)) = read else { panic!("{read:?}") };
    let bytes: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| match piece {
            Blob::Bytes(bytes) => *bytes,
            other => panic!("{other:?}"),
        })
        .copied()
        .collect();
    assert_eq!(bytes, rest[..rest.len().min(room as usize)]);
    *at += bytes.len() as u64;
}

/// A loader that reads the kernel in pieces, one that lists the directory, and one that tries to write.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let open = |file: u8, name: &str| {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        [&[0, file, 0, name.len() as u8][..], &name].concat()
    };
    let read = |file: u8, room: u32| [&[3, file][..], &room.to_le_bytes()].concat();
    let seek = |file: u8, to: u64| [&[4, file][..], &to.to_le_bytes()].concat();
    let volume = [3, 0].to_vec();
    vec![
        [
            vec![100],
            volume.clone(),
            open(0, "\\.\\Kernel"),
            read(1, 40),
            read(1, 100),
            seek(1, 250),
            read(1, 9),
            seek(1, u64::MAX),
            read(1, 9),
            seek(1, 252),
            read(1, 9),
            vec![1, 1],
        ]
        .concat(),
        [vec![0], volume.clone(), read(0, 4), read(0, 200), read(0, 200), read(0, 200), read(0, 0), seek(0, 0)]
            .concat(),
        [vec![5], volume, open(0, "initrd"), vec![5, 1, 0, 20, 6, 1, 1, 90, 5, 0, 2, 3, 7, 1, 0], vec![8, 1, 2, 1]]
            .concat(),
    ]
}
