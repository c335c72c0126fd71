//! An EFI program that starts a boot loader and prints each call that the loader, and what it starts, makes of the firmware.
//!
//! It puts functions of its own into copies of the boot services table and the runtime services table, and has the system table
//! point to the copies: the firmware's own calls do not go through that. An image that asks for a protocol in `calls::TABLES` gets
//! a copy of its interface in the same way, and so for opened files. A call is one line on a debug console of its own: the name,
//! the arguments, and the result, without addresses, so that the lines under two firmwares can be compared
//! (`cargo xtask efi-diff`). `ExitBootServices` is the last one, after which the program turns the machine off.
//!
//! The loader is `\EFI\BOOT\BOOTX64.EFI` on the first volume, other than the program's own, that has it.

#![no_main]
#![no_std]

mod calls;
mod hook;
mod line;

use core::fmt::Write;
use core::ptr;

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::file_system::SimpleFileSystemProtocol;
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::table::boot::BootServices;
use uefi_raw::table::runtime::{ResetType, RuntimeServices};
use uefi_raw::table::system::SystemTable;
use uefi_raw::{Guid, Handle, Status};

use crate::line::Port;

/// Longer device paths of volumes are passed over.
const MOST_PATH: usize = 512;
/// A file path node with the program for removable media, and the end of the path (UEFI 10.3.5.4, 3.5.1.1).
const FILE: &str = "\\EFI\\BOOT\\BOOTX64.EFI\0";
const END: [u8; 4] = [0x7f, 0xff, 4, 0];
/// A search of handles by protocol (UEFI 7.3, `EFI_BOOT_SERVICES.LocateHandle`).
const BY_PROTOCOL: i32 = 2;

/// The firmware's services, not those of the copies.
#[derive(Clone, Copy)]
pub struct Firmware {
    pub boot: *const BootServices,
    pub runtime: *const RuntimeServices,
    /// The device path of the volume that the program is on.
    pub own_volume: *const DevicePathProtocol,
}

impl Firmware {
    pub fn boot(&self) -> &'static BootServices {
        // SAFETY: boot services have not ended: the program turns the machine off when they have.
        unsafe { &*self.boot }
    }

    /// The interface of a protocol on a handle. Null without it.
    pub(crate) fn interface<T>(&self, handle: Handle, protocol: &Guid) -> *const T {
        let mut found = ptr::null_mut();
        // SAFETY: the pointer is written.
        let status = unsafe { (self.boot().handle_protocol)(handle, protocol, &mut found) };
        if status == Status::SUCCESS { found.cast_const().cast() } else { ptr::null() }
    }

    /// The handles with a protocol.
    fn handles(&self, protocol: &Guid) -> Result<&'static [Handle], Status> {
        let (mut len, mut handles) = (0, ptr::null_mut());
        // SAFETY: both are written.
        match unsafe { (self.boot().locate_handle_buffer)(BY_PROTOCOL, protocol, ptr::null(), &mut len, &mut handles) }
        {
            // SAFETY: the service has returned as many handles, which nobody frees.
            Status::SUCCESS => Ok(unsafe { core::slice::from_raw_parts(handles, len) }),
            status => Err(status),
        }
    }

    /// Whether a handle is that of the program's own disk, or of a partition of it.
    pub(crate) fn is_on_own_disk(&self, handle: Handle) -> bool {
        let path: *const DevicePathProtocol = self.interface(handle, &DevicePathProtocol::GUID);
        if path.is_null() || self.own_volume.is_null() {
            return false;
        }
        // The last node of the volume's is the partition.
        let disk = line::nodes(self.own_volume).count().saturating_sub(1);
        let is_same = line::nodes(path).zip(line::nodes(self.own_volume)).take(disk).filter(|(a, b)| a == b);
        is_same.count() == disk
    }

    /// Turns the machine off.
    pub fn turn_off(&self) -> ! {
        // SAFETY: runtime services do not end.
        unsafe { ((*self.runtime).reset_system)(ResetType::SHUTDOWN, Status::SUCCESS, 0, ptr::null()) }
    }
}

#[unsafe(export_name = "efi_main")]
extern "efiapi" fn main(image: Handle, table: *mut SystemTable) -> Status {
    // SAFETY: the firmware passes its table.
    let (boot, runtime) = unsafe { ((*table).boot_services, (*table).runtime_services) };
    let mut firmware = Firmware { boot, runtime, own_volume: ptr::null() };
    let status = match load(&mut firmware, image) {
        Ok(loader) => {
            // SAFETY: the table is the firmware's, and only this program uses it.
            unsafe { hook::install(firmware, table) };
            // SAFETY: the image was loaded.
            unsafe { (firmware.boot().start_image)(loader, ptr::null_mut(), ptr::null_mut()) }
        }
        Err(status) => status,
    };
    let _ = writeln!(Port, "end: the loader returned {status:?}");
    firmware.turn_off()
}

/// Loads the boot loader.
fn load(firmware: &mut Firmware, own: Handle) -> Result<Handle, Status> {
    let boot = firmware.boot();
    let image: *const LoadedImageProtocol = firmware.interface(own, &LoadedImageProtocol::GUID);
    if image.is_null() {
        return Err(Status::NOT_FOUND);
    }
    // SAFETY: the image is this program.
    firmware.own_volume = firmware.interface(unsafe { (*image).device_handle }, &DevicePathProtocol::GUID);
    for &volume in firmware.handles(&SimpleFileSystemProtocol::GUID)? {
        let mut path = [0; MOST_PATH];
        let device: *const DevicePathProtocol = firmware.interface(volume, &DevicePathProtocol::GUID);
        if firmware.is_on_own_disk(volume) || device.is_null() || with_file(device, &mut path).is_none() {
            continue;
        }
        let mut loader = ptr::null_mut();
        // SAFETY: the path ends, and the handle is written.
        let status = unsafe { (boot.load_image)(false.into(), own, path.as_ptr().cast(), ptr::null(), 0, &mut loader) };
        if status == Status::SUCCESS {
            return Ok(loader);
        }
    }
    Err(Status::NOT_FOUND)
}

/// Writes the path of the loader on a volume. `None` if there is no room.
fn with_file(volume: *const DevicePathProtocol, to: &mut [u8; MOST_PATH]) -> Option<()> {
    let mut rest = &mut to[..];
    let mut put = |bytes: &[u8]| -> Option<()> {
        let (part, behind) = core::mem::take(&mut rest).split_at_mut_checked(bytes.len())?;
        part.copy_from_slice(bytes);
        rest = behind;
        Some(())
    };
    line::nodes(volume).try_for_each(&mut put)?;
    put(&[4, 4, (4 + 2 * FILE.len()) as u8, 0])?;
    FILE.bytes().try_for_each(|byte| put(&[byte, 0]))?;
    put(&END)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    let _ = writeln!(Port, "end: {info}");
    loop {}
}
