//! The boot services as functions that images call.
//!
//! Each passes its arguments as numbers to [`Services`](firstlight::efi::services::Services), which checks them. When it is done,
//! the notifications run that may.

use uefi_raw::Status;
use uefi_raw::table::boot::{AllocateType, MemoryType};

use firstlight::boot::Error;
use firstlight::efi::handles::Handle;
use firstlight::efi::protocols::BufferError;
use firstlight::efi::protocols::tcg2::ImageLoad;
use firstlight::efi::services::{self, BOOT_SERVICES, Caller, Ended, MapPlaces, Pointers, Services, Unloading, Waited};
use firstlight::fw_cfg;
use firstlight::hal::clock;
use firstlight::tpm::Action;

use super::enter::{self, MOST_RUNNING};
use super::state::{self, Running, with};
use firstlight_machine::{PcMachine, halt, leave_to_kernel, report};

/// The functions, in the order of the table (UEFI 4.4.1).
pub fn table() -> [u64; BOOT_SERVICES] {
    [
        raise_tpl as *const () as u64,
        restore_tpl as *const () as u64,
        allocate_pages as *const () as u64,
        free_pages as *const () as u64,
        get_memory_map as *const () as u64,
        allocate_pool as *const () as u64,
        free_pool as *const () as u64,
        create_event as *const () as u64,
        set_timer as *const () as u64,
        wait_for_event as *const () as u64,
        signal_event as *const () as u64,
        close_event as *const () as u64,
        check_event as *const () as u64,
        install_protocol_interface as *const () as u64,
        reinstall_protocol_interface as *const () as u64,
        uninstall_protocol_interface as *const () as u64,
        handle_protocol as *const () as u64,
        0,
        register_protocol_notify as *const () as u64,
        locate_handle as *const () as u64,
        locate_device_path as *const () as u64,
        install_configuration_table as *const () as u64,
        load_image as *const () as u64,
        start_image as *const () as u64,
        exit as *const () as u64,
        unload_image as *const () as u64,
        exit_boot_services as *const () as u64,
        get_next_monotonic_count as *const () as u64,
        stall as *const () as u64,
        set_watchdog_timer as *const () as u64,
        connect_controller as *const () as u64,
        disconnect_controller as *const () as u64,
        open_protocol as *const () as u64,
        close_protocol as *const () as u64,
        open_protocol_information as *const () as u64,
        protocols_per_handle as *const () as u64,
        locate_handle_buffer as *const () as u64,
        locate_protocol as *const () as u64,
        enter::install_multiple as *const () as u64,
        enter::uninstall_multiple as *const () as u64,
        calculate_crc32 as *const () as u64,
        copy_mem as *const () as u64,
        set_mem as *const () as u64,
        create_event_ex as *const () as u64,
    ]
}

/// The status that a function returns.
pub fn status(result: Result<(), Status>) -> Status {
    result.err().unwrap_or(Status::SUCCESS)
}

/// Calls a service, and then the notifications that may run.
pub fn call(service: impl FnOnce(&mut Running) -> Result<(), Status>) -> Status {
    let result = with(service).unwrap_or(Err(Status::DEVICE_ERROR));
    notify();
    status(result)
}

/// As [`call`], for a service that returns an address, or null if it fails.
pub fn call_for_address(service: impl FnOnce(&mut Running) -> Result<u64, Status>) -> u64 {
    let result = with(service);
    notify();
    match result {
        Some(Ok(address)) => address,
        Some(Err(_)) | None => 0,
    }
}

/// Writes the length that a call takes to `len_at`, if that is why it fails.
pub fn checked<T>(machine: &mut PcMachine, result: Result<T, BufferError>, len_at: u64) -> Result<T, Status> {
    match result {
        Ok(value) => Ok(value),
        Err(error) => {
            if let BufferError::TooSmall { needed } = error {
                machine.set_number(len_at, needed)?;
            }
            Err(error.status())
        }
    }
}

/// The status of a transfer to the buffer of an image.
pub fn status_of(error: Error) -> Status {
    match error {
        Error::FwCfg(fw_cfg::Error::Memory(_)) => Status::INVALID_PARAMETER,
        _ => Status::DEVICE_ERROR,
    }
}

/// Runs the notifications that may run at the present level, with nothing borrowed. What signals them is looked at once a call,
/// and not while a function runs that it would call again. So a function that causes what it is called for does not keep the
/// caller here.
fn notify() {
    with(|running| {
        running.advance();
        running.services.signal_map_change();
    });
    loop {
        let Some(Some(notification)) = with(|running| running.services.events.begin()) else { return };
        let function = notification.function;
        // SAFETY: an image passed this function to be called with the event and its context.
        unsafe { enter::call(function.address.get(), notification.event.raw(), function.context) };
        with(|running| running.services.events.end(notification));
    }
}

extern "efiapi" fn raise_tpl(level: usize) -> usize {
    with(|running| running.services.raise_level(level)).unwrap_or(level)
}

extern "efiapi" fn restore_tpl(level: usize) {
    with(|running| running.services.restore_level(level));
    notify();
}

extern "efiapi" fn allocate_pages(how: u32, kind: u32, pages: u64, at: u64) -> Status {
    let (how, kind) = (AllocateType(how), MemoryType(kind));
    call(|Running { machine, services, .. }| services.allocate_pages(machine, how, kind, pages, at))
}

extern "efiapi" fn free_pages(at: u64, pages: u64) -> Status {
    call(|Running { machine, services, .. }| services.free_pages(machine, at, pages))
}

extern "efiapi" fn get_memory_map(len: u64, map: u64, key: u64, descriptor_len: u64, version: u64) -> Status {
    let places = MapPlaces { len, map, key, descriptor_len, version };
    call(|Running { machine, services, .. }| services.memory_map(machine, &places))
}

extern "efiapi" fn allocate_pool(kind: u32, len: u64, at: u64) -> Status {
    call(|Running { machine, services, .. }| services.allocate_pool(machine, MemoryType(kind), len, at))
}

extern "efiapi" fn free_pool(at: u64) -> Status {
    call(|Running { machine, services, .. }| services.free_pool(machine, at))
}

extern "efiapi" fn create_event(kind: u32, level: u64, function: u64, context: u64, at: u64) -> Status {
    create_event_ex(kind, level, function, context, 0, at)
}

extern "efiapi" fn create_event_ex(kind: u32, level: u64, function: u64, context: u64, group: u64, at: u64) -> Status {
    call(|Running { machine, services, .. }| services.create_event(machine, kind, level, function, context, group, at))
}

extern "efiapi" fn set_timer(event: u64, kind: u32, after: u64) -> Status {
    call(|running| {
        let now = running.now();
        running.services.set_timer(now, event, kind, after)
    })
}

extern "efiapi" fn wait_for_event(count: u64, events: u64, at: u64) -> Status {
    loop {
        let waited = with(|running| {
            running.look_for_key();
            running.services.wait_for_event(&mut running.machine, count, events, at)
        });
        notify();
        match waited {
            Some(Ok(Waited::Pending)) => clock::pause(),
            Some(Ok(Waited::Done)) => return Status::SUCCESS,
            Some(Err(status)) => return status,
            None => return Status::DEVICE_ERROR,
        }
    }
}

extern "efiapi" fn signal_event(event: u64) -> Status {
    call(|running| running.services.signal_event(event))
}

extern "efiapi" fn close_event(event: u64) -> Status {
    call(|running| running.services.close_event(event))
}

extern "efiapi" fn check_event(event: u64) -> Status {
    let check = || {
        let checked = with(|running| {
            if running.key_event.raw() == event {
                running.look_for_key();
            }
            running.services.check_event(event)
        });
        checked.unwrap_or(Err(Status::DEVICE_ERROR))
    };
    notify();
    let mut checked = check();
    if checked == Ok(Waited::Pending) {
        // Its notification may signal it.
        notify();
        checked = check();
    }
    match checked {
        Ok(Waited::Done) => Status::SUCCESS,
        Ok(Waited::Pending) => Status::NOT_READY,
        Err(status) => status,
    }
}

extern "efiapi" fn install_protocol_interface(at: u64, guid: u64, kind: u32, interface: u64) -> Status {
    call(|Running { machine, services, .. }| services.install_protocol_interface(machine, at, guid, kind, interface))
}

extern "efiapi" fn reinstall_protocol_interface(on: u64, guid: u64, old: u64, new: u64) -> Status {
    call(|Running { machine, services, .. }| services.reinstall_protocol_interface(machine, on, guid, old, new))
}

extern "efiapi" fn uninstall_protocol_interface(on: u64, guid: u64, interface: u64) -> Status {
    call(|Running { machine, services, .. }| services.uninstall_protocol_interface(machine, on, guid, interface))
}

extern "efiapi" fn handle_protocol(on: u64, guid: u64, at: u64) -> Status {
    call(|Running { machine, services, .. }| services.handle_protocol(machine, on, guid, at))
}

extern "efiapi" fn register_protocol_notify(guid: u64, event: u64, at: u64) -> Status {
    call(|Running { machine, services, .. }| services.register_protocol_notify(machine, guid, event, at))
}

extern "efiapi" fn locate_handle(kind: u32, guid: u64, key: u64, len: u64, list: u64) -> Status {
    call(|Running { machine, services, .. }| services.locate_handle(machine, kind, guid, key, len, list))
}

extern "efiapi" fn locate_device_path(guid: u64, path: u64, at: u64) -> Status {
    call(|Running { machine, services, .. }| services.locate_device_path(machine, guid, path, at))
}

extern "efiapi" fn install_configuration_table(guid: u64, table: u64) -> Status {
    call(|Running { machine, services, .. }| services.install_configuration_table(machine, guid, table))
}

extern "efiapi" fn load_image(policy: u8, parent: u64, path: u64, source: u64, len: u64, at: u64) -> Status {
    let load = |source| {
        call(|Running { machine, services, tcg2, .. }| {
            let mut record = |machine: &mut PcMachine, file, placed, path: &[u8]| match tcg2 {
                Some(tcg2) => tcg2.measure_image(machine, file, &ImageLoad { placed, path }),
                None => Ok(()),
            };
            services.load_image(machine, parent, path, source, at, &mut record)
        })
    };
    if source != 0 {
        return load((source, len));
    }
    let from_disk = with(|running| {
        let Running { machine, services, .. } = &mut *running;
        services.check_load(machine, parent, path, at)?;
        let bytes = machine.path(path)?;
        let handle = running.load_from_disk(Handle::from_raw(parent), &bytes)?;
        handle.map_or(Ok(false), |handle| running.machine.set_number(at, handle.raw()).map(|()| true))
    });
    match from_disk.unwrap_or(Err(Status::DEVICE_ERROR)) {
        Ok(true) => {
            notify();
            return Status::SUCCESS;
        }
        Ok(false) => {}
        Err(status) => return status,
    }
    match services::read_file(&mut Images, path, policy != 0) {
        Err(status) => status,
        Ok(file) => {
            let loaded = load(file);
            let (pool, _) = file;
            // It is the firmware's, so it can be freed.
            let _ = Images.with(|machine, services| services.free_pool(machine, pool));
            loaded
        }
    }
}

/// Calls of functions of images.
pub struct Images;

impl Caller for Images {
    type Machine = PcMachine;

    fn with<R>(&mut self, work: impl FnOnce(&mut PcMachine, &mut Services) -> Result<R, Status>) -> Result<R, Status> {
        with(|Running { machine, services, .. }| work(machine, services)).unwrap_or(Err(Status::DEVICE_ERROR))
    }

    fn call(&mut self, function: u64, arguments: [u64; 5]) -> Status {
        // SAFETY: an image installed this function in a protocol, which has functions with these arguments.
        Status(unsafe { enter::call_protocol(function, arguments) })
    }
}

extern "efiapi" fn start_image(handle: u64, exit_len: u64, exit_data: u64) -> Status {
    match run_image(handle, 0) {
        Err(status) => status,
        Ok((status, Ended { exit_data: (len, data) })) => {
            with(|running| {
                // An image that does not ask for them passes null pointers.
                let _ = running.machine.set_optional(exit_len, len);
                running.machine.set_optional(exit_data, data)
            });
            notify();
            status
        }
    }
}

/// Runs an image on the stack that ends at `stack`, or on the present one if that is zero. Returns what it returned.
///
/// # Errors
/// Those of [`services::Services::start_image`]; `OUT_OF_RESOURCES` for too many images within each other.
pub fn run_image(handle: u64, stack: u64) -> Result<(Status, Ended), Status> {
    let started = with(|running| {
        let depth = running.services.running_count();
        if depth >= MOST_RUNNING {
            return Err(Status::OUT_OF_RESOURCES);
        }
        Ok((depth, running.services.start_image(handle)?))
    });
    let (depth, image) = started.unwrap_or(Err(Status::DEVICE_ERROR))?;
    let (entry, table) = (image.entry.get(), image.system_table.get());
    // SAFETY: the image is in its place, with its entry point in one of its sections; nothing else uses the stack.
    let status = Status(unsafe { enter::enter_image(depth, entry, image.handle.raw(), table, stack) });
    let ended = with(|Running { machine, services, .. }| services.end_image(machine, status))
        .unwrap_or(Err(Status::DEVICE_ERROR))?;
    Ok((status, ended))
}

extern "efiapi" fn exit(handle: u64, status: usize, len: u64, data: u64) -> Status {
    let exited = with(|running| {
        let unwinds = running.services.exit(&mut running.machine, handle, (len, data))?;
        Ok((unwinds, running.services.running_count()))
    });
    match exited.unwrap_or(Err(Status::DEVICE_ERROR)) {
        Err(status) => status,
        Ok((false, _)) => Status::SUCCESS,
        // SAFETY: `exit` checked that this image runs, and is the last that was started.
        Ok((true, count)) => unsafe { enter::leave_image(count.saturating_sub(1), status) },
    }
}

extern "efiapi" fn unload_image(handle: u64) -> Status {
    let unloading = with(|Running { machine, services, .. }| services.unload_image(machine, handle));
    match unloading.unwrap_or(Err(Status::DEVICE_ERROR)) {
        Err(status) => status,
        Ok(Unloading::Done) => Status::SUCCESS,
        Ok(Unloading::Call(function, image)) => {
            // SAFETY: the image passed this function to be called with its handle.
            let status = Status(unsafe { enter::call(function, image.raw(), 0) });
            if status == Status::SUCCESS {
                return call(|Running { machine, services, .. }| services.forget_image(machine, image));
            }
            status
        }
    }
}

/// Records what the firmware does in the TPM, if there is one.
pub fn record(action: Action) {
    with(|Running { machine, tcg2, .. }| {
        if let Some(tcg2) = tcg2 {
            tcg2.record_action(machine, action);
        }
    });
}

extern "efiapi" fn exit_boot_services(_image: u64, key: u64) -> Status {
    record(Action::ExitInvoked);
    with(|running| running.services.before_exit());
    notify();
    let checked = with(|running| running.services.check_map_key(key)).unwrap_or(Err(Status::DEVICE_ERROR));
    if let Err(status) = checked {
        record(Action::ExitFailed);
        return status;
    }
    notify();
    record(Action::ExitSucceeded);
    let Some(mut running) = state::take() else { return Status::DEVICE_ERROR };
    if let Some(tcg2) = running.tcg2.take() {
        tcg2.into_session().close(&mut running.machine);
    }
    running.disks.stop(&mut running.machine);
    let ended = running.services.end(&mut running.machine);
    running.machine.map_page_zero(true);
    leave_to_kernel();
    // SAFETY: images run on the program's stack, and `running` is the program's way back, which is forgotten here.
    unsafe { enter::leave_stack(&mut running.machine, returned_late) };
    // What is on the heap stays as it is: nothing of the firmware runs after this.
    core::mem::forget(running);
    match ended {
        Ok(()) => Status::SUCCESS,
        Err(_) => {
            report(
                &"the EFI system table cannot be written at the end of boot services; this is a defect of the firmware: please \
                  report it with the host's command line",
            );
            halt()
        }
    }
}

/// Where the first image returns to once it has ended boot services.
extern "sysv64" fn returned_late() -> ! {
    report(&Error::EfiReturnedLate);
    halt()
}

extern "efiapi" fn get_next_monotonic_count(at: u64) -> Status {
    call(|Running { machine, services, .. }| services.next_monotonic_count(machine, at))
}

extern "efiapi" fn stall(microseconds: u64) -> Status {
    let start = with(|running| running.now()).unwrap_or_default();
    let end = start.saturating_add(microseconds.saturating_mul(10));
    while with(|running| running.now()).is_some_and(|now| now < end) {
        clock::pause();
    }
    notify();
    Status::SUCCESS
}

extern "efiapi" fn set_watchdog_timer(seconds: u64, _code: u64, _len: u64, _data: u64) -> Status {
    call(|running| running.services.set_watchdog_timer(seconds))
}

extern "efiapi" fn connect_controller(on: u64, _drivers: u64, rest: u64, _recursive: u8) -> Status {
    call(|Running { machine, services, .. }| services.connect_controller(machine, on, rest))
}

extern "efiapi" fn disconnect_controller(on: u64, driver: u64, child: u64) -> Status {
    call(|running| running.services.disconnect_controller(on, driver, child))
}

extern "efiapi" fn open_protocol(on: u64, guid: u64, at: u64, image: u64, controller: u64, attributes: u32) -> Status {
    let agent = (image, controller);
    call(|Running { machine, services, .. }| services.open_protocol(machine, on, guid, at, agent, attributes))
}

extern "efiapi" fn close_protocol(on: u64, guid: u64, image: u64, controller: u64) -> Status {
    call(|Running { machine, services, .. }| services.close_protocol(machine, on, guid, (image, controller)))
}

extern "efiapi" fn open_protocol_information(on: u64, guid: u64, list: u64, count: u64) -> Status {
    call(|Running { machine, services, .. }| services.open_protocol_information(machine, on, guid, list, count))
}

extern "efiapi" fn protocols_per_handle(on: u64, list: u64, count: u64) -> Status {
    call(|Running { machine, services, .. }| services.protocols_per_handle(machine, on, list, count))
}

extern "efiapi" fn locate_handle_buffer(kind: u32, guid: u64, key: u64, count: u64, list: u64) -> Status {
    call(|Running { machine, services, .. }| services.locate_handle_buffer(machine, kind, guid, key, count, list))
}

extern "efiapi" fn locate_protocol(guid: u64, key: u64, at: u64) -> Status {
    call(|Running { machine, services, .. }| services.locate_protocol(machine, guid, key, at))
}

/// `InstallMultipleProtocolInterfaces`, with the address of the arguments after the first.
pub extern "efiapi" fn install_multiple_listed(at: u64, arguments: u64) -> Status {
    call(|Running { machine, services, .. }| services.install_multiple(machine, at, arguments))
}

/// `UninstallMultipleProtocolInterfaces`, with the address of the arguments after the first.
pub extern "efiapi" fn uninstall_multiple_listed(on: u64, arguments: u64) -> Status {
    call(|Running { machine, services, .. }| services.uninstall_multiple(machine, on, arguments))
}

extern "efiapi" fn calculate_crc32(from: u64, len: u64, at: u64) -> Status {
    call(|Running { machine, services, .. }| services.crc32(machine, from, len, at))
}

extern "efiapi" fn copy_mem(to: u64, from: u64, len: u64) {
    with(|running| services::copy(&mut running.machine, to, from, len));
}

extern "efiapi" fn set_mem(at: u64, len: u64, byte: u8) {
    with(|running| services::fill(&mut running.machine, at, len, byte));
}
