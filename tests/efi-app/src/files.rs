//! The files on the volume that the program comes from.

use alloc::format;
use alloc::string::ToString;

use uefi::boot;
use uefi::proto::media::file::{Directory, File, FileAttribute, FileInfo, FileMode, FileSystemInfo, RegularFile};
use uefi::{CStr16, Result, cstr16};

use crate::report::{line, result};

/// Prints what the volume has, and what can be done with it.
pub fn check() {
    let Some(mut volume) = result("SimpleFileSystem", boot::get_image_file_system(boot::image_handle())) else {
        return;
    };
    let Some(mut root) = result("OpenVolume", volume.open_volume()) else { return };
    while let Ok(Some(entry)) = root.read_entry_boxed() {
        let attributes = entry.attribute();
        line("volume: file", format!("{} {attributes:?}", entry.file_name()));
    }
    match root.get_boxed_info::<FileSystemInfo>() {
        Ok(info) => {
            line("volume: read only", info.read_only());
            line("volume: free space", info.free_space());
            line("volume: label", info.volume_label().to_string());
        }
        Err(error) => line("volume: information", format!("{:?}", error.status())),
    }
    result("Open: absent", open(&mut root, cstr16!("absent"), FileMode::Read));
    result("Open: to write", open(&mut root, cstr16!("kernel"), FileMode::ReadWrite));
    result("Open: new", open(&mut root, cstr16!("new"), FileMode::CreateReadWrite));
    result("Open: with a backslash", open(&mut root, cstr16!("\\kernel"), FileMode::Read));
    result("Open: the directory itself", root.open(cstr16!("."), FileMode::Read, FileAttribute::empty()));
    if let Ok(file) = open(&mut root, cstr16!("cmdline"), FileMode::Read) {
        check_file(file);
    }
    if let Ok(file) = open(&mut root, cstr16!("kernel"), FileMode::Read) {
        result("Delete", file.delete().map_err(|error| error.status().into()));
    }
}

fn open(root: &mut Directory, name: &CStr16, mode: FileMode) -> Result<RegularFile> {
    let file = root.open(name, mode, FileAttribute::empty())?;
    file.into_regular_file().ok_or_else(|| uefi::Status::NOT_FOUND.into())
}

fn check_file(mut file: RegularFile) {
    if let Some(info) = result("GetInfo", file.get_boxed_info::<FileInfo>()) {
        line("file: name", info.file_name().to_string());
        line("file: size", info.file_size());
        line("file: attributes", format!("{:?}", info.attribute()));
    }
    let mut buffer = [0; 8];
    let text = |bytes: &[u8]| core::str::from_utf8(bytes).unwrap_or("?").to_string();
    if let Some(read) = result("Read", file.read(&mut buffer)) {
        line("Read: bytes", text(buffer.get(..read).unwrap_or_default()));
    }
    line("GetPosition", file.get_position().unwrap_or(u64::MAX));
    result("SetPosition: at the end", file.set_position(RegularFile::END_OF_FILE));
    line("Read: at the end", file.read(&mut buffer).unwrap_or(usize::MAX));
    result("SetPosition", file.set_position(4));
    if let Some(read) = result("Read: from there", file.read(&mut buffer)) {
        line("Read: those bytes", text(buffer.get(..read).unwrap_or_default()));
    }
    result("SetPosition: beyond", file.set_position(1 << 20));
    result("Read: beyond", file.read(&mut buffer));
    let _ = file.set_position(0);
    result("Write", file.write(b"x").map_err(|error| error.status().into()));
    result("Flush", file.flush());
}
