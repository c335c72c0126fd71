//! Handles and protocols.

use core::ffi::c_void;
use core::ptr;

use uefi::boot::{self, SearchType};
use uefi::proto::loaded_image::LoadedImage;
use uefi::{Guid, Handle, Identify, guid};
use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::table::boot::BootServices;

use crate::report::{line, result, status};
use crate::system;

static FIRST: Guid = guid!("6a1b6dd5-7b31-4a0c-8f4e-3a3d6f1c0001");
static SECOND: Guid = guid!("6a1b6dd5-7b31-4a0c-8f4e-3a3d6f1c0002");
static ABSENT: Guid = guid!("6a1b6dd5-7b31-4a0c-8f4e-3a3d6f1c0003");
static DEVICE_PATH: Guid = DevicePathProtocol::GUID;

/// A search of handles by protocol (UEFI 7.3, `EFI_BOOT_SERVICES.LocateHandle`).
const BY_PROTOCOL: i32 = 2;

/// How a protocol is opened (UEFI 7.3, `EFI_BOOT_SERVICES.OpenProtocol`).
const BY_HANDLE: u32 = 1;
const GET: u32 = 2;
const TEST: u32 = 4;
const BY_CHILD: u32 = 8;
const BY_DRIVER: u32 = 0x10;
const EXCLUSIVE: u32 = 0x20;

/// What the protocols' interfaces are.
static INTERFACES: [u64; 2] = [1, 2];

fn interface(number: usize) -> *const c_void {
    INTERFACES.get(number).map_or(ptr::null(), |interface| ptr::from_ref(interface).cast())
}

fn services() -> &'static BootServices {
    // SAFETY: boot services have not ended.
    unsafe { &*system::table().boot_services }
}

/// The number of handles with a protocol.
fn number_of(protocol: &Guid) -> usize {
    boot::locate_handle_buffer(SearchType::ByProtocol(protocol)).map_or(0, |handles| handles.len())
}

/// Prints what the services do with protocols of the program's own.
pub fn check() {
    // SAFETY: no code reads the interfaces as anything.
    let install = |on, guid: &Guid, number| unsafe { boot::install_protocol_interface(on, guid, interface(number)) };
    // SAFETY: the same.
    let uninstall =
        |from, guid: &Guid, number| unsafe { boot::uninstall_protocol_interface(from, guid, interface(number)) };
    let Some(handle) = result("InstallProtocolInterface: new handle", install(None, &FIRST, 0)) else { return };
    result("InstallProtocolInterface: the same again", install(Some(handle), &FIRST, 1));
    result("InstallProtocolInterface: another", install(Some(handle), &SECOND, 1));
    line("LocateHandleBuffer: one handle", number_of(&FIRST));
    line("ProtocolsPerHandle", boot::protocols_per_handle(handle).map_or(0, |protocols| protocols.len()));
    check_search();
    check_open(handle);
    // SAFETY: no code reads the interfaces as anything.
    let reinstall =
        |old, new| unsafe { boot::reinstall_protocol_interface(handle, &FIRST, interface(old), interface(new)) };
    result("ReinstallProtocolInterface", reinstall(0, 1));
    result("ReinstallProtocolInterface: not the old one", reinstall(0, 1));
    result("UninstallProtocolInterface: not the interface", uninstall(handle, &FIRST, 0));
    result("UninstallProtocolInterface", uninstall(handle, &FIRST, 1));
    result("UninstallProtocolInterface: again", uninstall(handle, &FIRST, 1));
    result("UninstallProtocolInterface: the last one", uninstall(handle, &SECOND, 1));
    result("ProtocolsPerHandle: of no handle", boot::protocols_per_handle(handle));
    line("LocateHandleBuffer: no handle", number_of(&FIRST));
    check_multiple();
    check_device_path();
    let result_of_connect = boot::connect_controller(boot::image_handle(), &[], None, false);
    result("ConnectController: without a driver", result_of_connect);
}

fn check_search() {
    let mut found = ptr::null_mut();
    // SAFETY: the pointer is written.
    status("LocateProtocol", unsafe { (services().locate_protocol)(&FIRST, ptr::null(), &mut found) });
    line("LocateProtocol: the interface", found.cast_const() == interface(0));
    // SAFETY: the pointer is written.
    status("LocateProtocol: absent", unsafe { (services().locate_protocol)(&ABSENT, ptr::null(), &mut found) });
    line("LocateProtocol: absent is null", found.is_null());
    result("LocateHandle: absent", boot::locate_handle_buffer(SearchType::ByProtocol(&ABSENT)));
    let mut size = 0;
    // SAFETY: the size says that there is no room.
    let answer = unsafe { (services().locate_handle)(BY_PROTOCOL, &FIRST, ptr::null(), &mut size, ptr::null_mut()) };
    status("LocateHandle: no room", answer);
    line("LocateHandle: bytes", size);
    // SAFETY: the same.
    let answer = unsafe { (services().locate_handle)(7, &FIRST, ptr::null(), &mut size, ptr::null_mut()) };
    status("LocateHandle: unknown search", answer);
    line("LocateHandle: all", boot::locate_handle_buffer(SearchType::AllHandles).is_ok_and(|all| all.len() > 4));
    let mut none = ptr::dangling_mut();
    let image = boot::image_handle().as_ptr();
    // SAFETY: the pointer is written.
    status("HandleProtocol: absent", unsafe { (services().handle_protocol)(image, &ABSENT, &mut none) });
    line("HandleProtocol: absent is null", none.is_null());
    // SAFETY: null is what the service has to find.
    status("HandleProtocol: no handle", unsafe {
        (services().handle_protocol)(ptr::null_mut(), &LoadedImage::GUID, &mut none)
    });
    // SAFETY: the same.
    status("HandleProtocol: nowhere", unsafe {
        (services().handle_protocol)(image, &LoadedImage::GUID, ptr::null_mut())
    });
}

fn check_open(handle: Handle) {
    let own = boot::image_handle().as_ptr();
    let open = |agent: *mut c_void, controller: *mut c_void, how| {
        let mut interface = ptr::null_mut();
        // SAFETY: the pointer is written.
        unsafe { (services().open_protocol)(handle.as_ptr(), &FIRST, &mut interface, agent, controller, how) }
    };
    let close = |controller: *mut c_void| {
        // SAFETY: no code uses the interface.
        unsafe { (services().close_protocol)(handle.as_ptr(), &FIRST, own, controller) }
    };
    let (none, on) = (ptr::null_mut(), handle.as_ptr());
    status("OpenProtocol: by handle", open(own, none, BY_HANDLE));
    status("OpenProtocol: get", open(none, none, GET));
    status("OpenProtocol: test", open(none, none, TEST));
    // SAFETY: a test writes no pointer.
    status("OpenProtocol: test, nowhere", unsafe {
        (services().open_protocol)(on, &FIRST, ptr::null_mut(), own, none, TEST)
    });
    // SAFETY: the service has to find that there is no pointer.
    status("OpenProtocol: get, nowhere", unsafe {
        (services().open_protocol)(on, &FIRST, ptr::null_mut(), own, none, GET)
    });
    status("OpenProtocol: unknown way", open(own, none, 0x40));
    status("OpenProtocol: by child of itself", open(own, on, BY_CHILD));
    status("OpenProtocol: by driver without controller", open(own, none, BY_DRIVER));
    status("OpenProtocol: by driver", open(own, on, BY_DRIVER));
    status("OpenProtocol: by driver again", open(own, on, BY_DRIVER));
    let mut entries = ptr::null_mut();
    let mut count = 0;
    // SAFETY: pointer and number are written.
    let answer = unsafe { (services().open_protocol_information)(on, &FIRST, &mut entries, &mut count) };
    status("OpenProtocolInformation", answer);
    if !entries.is_null() {
        // SAFETY: the service has returned as many entries.
        let entries = unsafe { core::slice::from_raw_parts(entries, count) };
        let is_driver = entries.iter().any(|entry| {
            let handles = [entry.agent_handle, entry.controller_handle];
            entry.attributes == BY_DRIVER && handles == [own, on] && entry.open_count == 1
        });
        line("OpenProtocolInformation: the driver", is_driver);
        // SAFETY: the entries are a pool of the caller's.
        let _ = unsafe { (services().free_pool)(entries.as_ptr().cast_mut().cast()) };
    }
    status("CloseProtocol: by driver", close(on));
    status("CloseProtocol: by driver again", close(on));
    status("OpenProtocol: exclusive", open(own, none, EXCLUSIVE));
    status("OpenProtocol: exclusive again", open(own, none, EXCLUSIVE));
    status("OpenProtocol: by driver beside exclusive", open(own, on, BY_DRIVER));
    status("CloseProtocol: exclusive", close(none));
    status("CloseProtocol: what is not open", close(none));
}

fn check_multiple() {
    let end = ptr::null::<c_void>();
    let mut handle = ptr::null_mut();
    // SAFETY: pairs of a GUID and an interface, and the end.
    let answer = unsafe {
        (services().install_multiple_protocol_interfaces)(
            &mut handle,
            &raw const FIRST,
            interface(0),
            &raw const SECOND,
            interface(1),
            end,
        )
    };
    status("InstallMultipleProtocolInterfaces", answer);
    // SAFETY: the same.
    let answer = unsafe {
        (services().install_multiple_protocol_interfaces)(
            &mut handle,
            &raw const ABSENT,
            interface(0),
            &raw const SECOND,
            interface(1),
            end,
        )
    };
    status("InstallMultipleProtocolInterfaces: one is there", answer);
    line("InstallMultipleProtocolInterfaces: none is added", number_of(&ABSENT));
    // SAFETY: the same.
    let answer = unsafe {
        (services().uninstall_multiple_protocol_interfaces)(
            handle,
            &raw const FIRST,
            interface(0),
            &raw const ABSENT,
            interface(1),
            end,
        )
    };
    status("UninstallMultipleProtocolInterfaces: one is not there", answer);
    line("UninstallMultipleProtocolInterfaces: none is removed", number_of(&FIRST));
    // SAFETY: the same.
    let answer = unsafe {
        (services().uninstall_multiple_protocol_interfaces)(
            handle,
            &raw const FIRST,
            interface(0),
            &raw const SECOND,
            interface(1),
            end,
        )
    };
    status("UninstallMultipleProtocolInterfaces", answer);
}

/// Two handles may not have the same device path.
fn check_device_path() {
    static PATH: [u8; 24] = [
        1, 4, 20, 0, 0xd5, 0x6d, 0x1b, 0x6a, 0x31, 0x7b, 0x0c, 0x4a, 0x8f, 0x4e, 0x3a, 0x3d, 0x6f, 0x1c, 0, 1, 0x7f,
        0xff, 4, 0,
    ];
    let path: *const c_void = PATH.as_ptr().cast();
    let install = |protocol: &'static Guid| {
        let mut handle = ptr::null_mut();
        let end = ptr::null::<c_void>();
        // SAFETY: two pairs, and the end. The path is one.
        let answer = unsafe {
            (services().install_multiple_protocol_interfaces)(
                &mut handle,
                &raw const DEVICE_PATH,
                path,
                ptr::from_ref(protocol),
                interface(0),
                end,
            )
        };
        (answer, handle)
    };
    let (answer, handle) = install(&FIRST);
    status("InstallMultipleProtocolInterfaces: device path", answer);
    status("InstallMultipleProtocolInterfaces: the same device path", install(&SECOND).0);
    let locate = |protocol: &Guid| {
        let mut rest: *const DevicePathProtocol = path.cast();
        let mut found = ptr::null_mut();
        // SAFETY: both pointers are written.
        let answer = unsafe { (services().locate_device_path)(protocol, &mut rest, &mut found) };
        (answer, found == handle, rest.addr() - path.addr())
    };
    let (answer, is_found, rest) = locate(&FIRST);
    status("LocateDevicePath", answer);
    line("LocateDevicePath: the handle", is_found);
    line("LocateDevicePath: bytes before the rest", rest);
    status("LocateDevicePath: absent", locate(&ABSENT).0);
    let end = ptr::null::<c_void>();
    // SAFETY: two pairs, and the end.
    let answer = unsafe {
        (services().uninstall_multiple_protocol_interfaces)(
            handle,
            &raw const DEVICE_PATH,
            path,
            &raw const FIRST,
            interface(0),
            end,
        )
    };
    status("UninstallMultipleProtocolInterfaces: device path", answer);
}
