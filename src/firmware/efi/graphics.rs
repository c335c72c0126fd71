//! The display as functions that images call: `EFI_GRAPHICS_OUTPUT_PROTOCOL`.

use uefi_raw::Status;
use uefi_raw::protocol::console::{GraphicsOutputBltOperation, GraphicsOutputModeInformation, GraphicsOutputProtocol};
use zerocopy::IntoBytes;

use firstlight::addr::PhysAddr;
use firstlight::efi::protocols::graphics::{EDID_PROTOCOLS, Graphics, Place, Request};
use firstlight::efi::services::{DEVICE_PATH, Pointers, Services};

use super::calls::call;
use super::state::Running;
use firstlight_machine::PcMachine;

/// The words of a mode's information.
const INFORMATION: usize = 9;
const INFORMATION_LEN: u64 = 4 * INFORMATION as u64;

/// Installs the protocol on a handle with the display's device path, and the display's EDID if it has one.
///
/// # Errors
/// `OUT_OF_RESOURCES`.
pub fn install(machine: &mut PcMachine, services: &mut Services, graphics: &Graphics) -> Result<(), Status> {
    let path = graphics.device_path().map_err(|_| Status::OUT_OF_RESOURCES)?;
    let path = services.pool_of(machine, &path)?;
    let display = services.install(None, DEVICE_PATH, path)?;
    let interface = interface(machine, services, graphics)?;
    services.install(Some(display), GraphicsOutputProtocol::GUID, interface)?;
    if let Some(edid) = graphics.edid(machine) {
        // The length and the address (UEFI 12.9.2.4).
        let interface = [edid.len() as u64, services.pool_of(machine, &edid)?];
        for protocol in EDID_PROTOCOLS {
            let interface = services.pool_of(machine, interface.as_bytes())?;
            services.install(Some(display), protocol, interface)?;
        }
    }
    Ok(())
}

/// The interface: the functions, in the order of the protocol (UEFI 12.9.2), and the address of the mode behind them.
///
/// # Errors
/// `OUT_OF_RESOURCES`.
fn interface(machine: &mut PcMachine, services: &mut Services, graphics: &Graphics) -> Result<u64, Status> {
    let (count, mode) = graphics.modes();
    let information = services.pool_of(machine, information(&graphics.query_mode(mode)?).as_bytes())?;
    let memory = graphics.memory();
    let numbers =
        [u64::from(mode) << 32 | u64::from(count), information, INFORMATION_LEN, memory.start().get(), memory.len()];
    let mode = services.pool_of(machine, numbers.as_bytes())?;
    let functions = [query_mode as *const () as u64, set_mode as *const () as u64, blt as *const () as u64, mode];
    services.pool_of(machine, functions.as_bytes())
}

/// The information as it is in memory.
const fn information(of: &GraphicsOutputModeInformation) -> [u32; INFORMATION] {
    let masks = of.pixel_information;
    [
        of.version,
        of.horizontal_resolution,
        of.vertical_resolution,
        of.pixel_format.0,
        masks.red,
        masks.green,
        masks.blue,
        masks.reserved,
        of.pixels_per_scan_line,
    ]
}

/// Calls a function with the display.
fn with_display(work: impl FnOnce(&mut Running, Graphics) -> Result<(), Status>) -> Status {
    call(|running| {
        let graphics = running.graphics.ok_or(Status::DEVICE_ERROR)?;
        work(running, graphics)
    })
}

extern "efiapi" fn query_mode(_this: u64, mode: u32, len_at: u64, at: u64) -> Status {
    with_display(|Running { machine, services, .. }, graphics| {
        machine.check_number(len_at)?;
        machine.check_number(at)?;
        let information = information(&graphics.query_mode(mode)?);
        let copy = services.pool_of(machine, information.as_bytes())?;
        machine.set_number(len_at, INFORMATION_LEN)?;
        machine.set_number(at, copy)
    })
}

extern "efiapi" fn set_mode(_this: u64, mode: u32) -> Status {
    with_display(|Running { machine, .. }, graphics| graphics.set_mode(mode, machine))
}

extern "efiapi" fn blt(
    _this: u64,
    buffer: u64,
    operation: u32,
    source_x: usize,
    source_y: usize,
    destination_x: usize,
    destination_y: usize,
    width: usize,
    height: usize,
    delta: usize,
) -> Status {
    with_display(|Running { machine, .. }, graphics| {
        let transfer = graphics.blt(&Request {
            operation: GraphicsOutputBltOperation(operation),
            source: Place { x: source_x, y: source_y },
            destination: Place { x: destination_x, y: destination_y },
            width,
            height,
            delta,
        })?;
        if buffer == 0 && transfer.buffer_len()? > 0 {
            return Err(Status::INVALID_PARAMETER);
        }
        transfer.run(machine, PhysAddr::new(buffer))
    })
}
