//! Images: the program starts itself.

use alloc::vec::Vec;

use uefi::boot::{self, LoadImageSource, MemoryType};
use uefi::fs::FileSystem;
use uefi::proto::loaded_image::LoadedImage;
use uefi::{CStr16, Handle, Status, cstr16};

use crate::report::{line, result, status};
use crate::system;

/// The load options of a child, by how it ends.
const RETURNS: &CStr16 = cstr16!("child that returns");
const EXITS: &CStr16 = cstr16!("child that exits");
const FAILS: &CStr16 = cstr16!("child that fails");

/// What a child that exits leaves.
const EXIT_DATA: &CStr16 = cstr16!("exit data");

/// The program as it is in the file.
pub fn own_file() -> Vec<u8> {
    let system = boot::get_image_file_system(boot::image_handle());
    system.map(FileSystem::new).ok().and_then(|mut system| system.read(cstr16!("kernel")).ok()).unwrap_or_default()
}

/// Ends a child. `None` in the program that the firmware has started.
pub fn as_child() -> Option<Status> {
    let own = boot::image_handle();
    let options = {
        let image = boot::open_protocol_exclusive::<LoadedImage>(own).ok()?;
        line("load options", image.load_options_as_cstr16().unwrap_or(cstr16!("none")));
        let options = image.load_options_as_cstr16().ok()?;
        [RETURNS, EXITS, FAILS].into_iter().find(|known| *known == options)?
    };
    if options == EXITS {
        let len = EXIT_DATA.num_bytes();
        let data = boot::allocate_pool(MemoryType::BOOT_SERVICES_DATA, len).ok()?.cast::<u16>();
        // SAFETY: the pool has as many bytes.
        unsafe { EXIT_DATA.as_ptr().cast::<u16>().copy_to_nonoverlapping(data.as_ptr(), len / 2) };
        // SAFETY: the program owns nothing but memory.
        let _ = unsafe { boot::exit(own, Status::ABORTED, len, data.as_ptr().cast()) };
        line("Exit", "came back");
    }
    Some(if options == FAILS { Status::VOLUME_FULL } else { Status::SUCCESS })
}

/// Prints what the services do with images.
pub fn check() {
    let own = boot::image_handle();
    let file = own_file();
    line("own file: a program", file.starts_with(b"MZ"));
    let load = |buffer| boot::load_image(own, LoadImageSource::FromBuffer { buffer, file_path: None });
    for options in [RETURNS, EXITS, FAILS] {
        let Some(child) = result("LoadImage", load(&file)) else { return };
        describe(child, file.len());
        start(child, options);
    }
    if let Ok(child) = load(&file) {
        result("UnloadImage: not started", boot::unload_image(child));
        result("UnloadImage: again", boot::unload_image(child));
    }
    result("StartImage: no image", boot::start_image(own));
    result("LoadImage: no program", load(b"no program, but as long as some headers are, with more bytes after that"));
    result("LoadImage: cut off", load(file.get(..600).unwrap_or_default()));
    let mut other = file.clone();
    let at = other.get(0x3c).map_or(0, |at| usize::from(*at)) + 4;
    if let Some(machine) = other.get_mut(at..at + 2) {
        machine.copy_from_slice(&0x14c_u16.to_le_bytes());
    }
    result("LoadImage: for another machine", load(&other));
    let mut handle = core::ptr::null_mut();
    // SAFETY: there is no source, which the service has to find.
    status("LoadImage: no source", unsafe {
        let services = system::table().boot_services;
        ((*services).load_image)(false.into(), own.as_ptr(), core::ptr::null(), core::ptr::null(), 0, &mut handle)
    });
}

/// Prints what is on the handle of an image that is not started.
fn describe(child: Handle, len: usize) {
    let Ok(image) = boot::open_protocol_exclusive::<LoadedImage>(child) else { return };
    let (base, size) = image.info();
    line("LoadedImage: memory", !base.is_null() && size as usize >= len / 2);
    line("LoadedImage: code type", format_args!("{:?}", image.code_type()));
    line("LoadedImage: data type", format_args!("{:?}", image.data_type()));
    line("LoadedImage: no load options", image.load_options_as_bytes().is_none());
    line("LoadedImage: file path", image.file_path().is_some());
    line("LoadedImage: device", image.device().is_some());
}

/// Starts an image with load options.
fn start(child: Handle, options: &CStr16) {
    if let Ok(mut image) = boot::open_protocol_exclusive::<LoadedImage>(child) {
        // SAFETY: the options are a constant.
        unsafe { image.set_load_options(options.as_ptr().cast(), options.num_bytes() as u32) };
    }
    let (mut len, mut data) = (0, core::ptr::null_mut());
    let services = system::table().boot_services;
    // SAFETY: the image is this program, which ends.
    status("StartImage", unsafe { ((*services).start_image)(child.as_ptr(), &mut len, &mut data) });
    line("StartImage: bytes of exit data", len);
    if !data.is_null() {
        // SAFETY: exit data are a pool of the caller's, and end with zero.
        line("StartImage: exit data", unsafe { CStr16::from_ptr(data.cast()) });
        // SAFETY: nothing refers to it.
        status("FreePool: exit data", unsafe { ((*services).free_pool)(data.cast()) });
    }
    result("UnloadImage: after its end", boot::unload_image(child));
}
