//! Writes the plan to configuration space.
//!
//! Each register is written once, and two that form a pair in one access. Afterwards functions decode their BARs, and bridges
//! forward to the functions behind them, because small kernels do not enable devices themselves. QEMU also builds its ACPI tables
//! from what is enabled: the address space above 4 GiB, and the resources of an extra root bus. The chipset functions are left to
//! their drivers, because enabling each makes the host rebuild its memory map.
//!
//! The windows of a bridge that forwards nothing are closed: after a reset they are open, from 0 on. The I/O window of a bridge
//! that forwards only memory stays unchanged, because each write to a window makes the host rebuild its memory map, and most
//! bridges forward only memory. The open window has no effect while the bridge does not decode I/O.

use super::address::Address;
use super::config::ConfigSpace;
use super::plan::{Assignment, BridgeWindows, Resources, Unassigned};
use super::register::{self, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, COMMAND_SERR};
use super::sizing::bar_offset;
use super::topology::{Bar, BarKind, Bridge, Bus, Function, IoWindow, Pin, Topology};
use crate::addr::PhysRange;

/// The interrupt line for a device number and pin on a root bus; `None` leaves the register unchanged.
pub type Routing<'r> = &'r dyn Fn(u8, Pin) -> Option<u8>;

/// Writes addresses, windows and interrupt lines, and enables decoding. A BAR without an address is set to zero.
pub fn apply(config: &mut dyn ConfigSpace, topology: &Topology, resources: &Resources, routing: Routing) {
    for assignment in &resources.assigned {
        let Some(function) = topology.functions().get(usize::from(assignment.function)) else { continue };
        match neighbour(resources, function, assignment) {
            None => write_bar(config, function.address, assignment.bar, assignment.address),
            Some(upper) if upper.bar.register & 1 != 0 => {
                let value = upper.address << 32 | assignment.address;
                config.write64(function.address, bar_offset(assignment.bar.register), value);
            }
            // Its neighbour's access has written it.
            Some(_) => {}
        }
    }
    for &Unassigned { function, bar, .. } in &resources.unassigned {
        if let Some(function) = topology.functions().get(usize::from(function)) {
            write_bar(config, function.address, bar, 0);
        }
    }
    for bus in topology.buses() {
        for (index, function) in topology.on_bus(bus) {
            route(config, topology, bus, function, routing);
            if function.bridge.is_none() {
                turn_on(config, resources, index, function);
            }
        }
    }
    if topology.has_bridges() {
        set_up_bridges(config, topology, resources);
    }
}

/// Opens each bridge's windows for what is behind it, or closes them.
fn set_up_bridges(config: &mut dyn ConfigSpace, topology: &Topology, resources: &Resources) {
    for bus in topology.buses() {
        for (index, function) in topology.on_bus(bus) {
            if let Some(bridge) = function.bridge {
                let may_pass_on = resources.may_decode(index, function) == COMMAND_IO | COMMAND_MEMORY;
                match behind(topology, resources, bridge).filter(|_| may_pass_on) {
                    Some(windows) => open_bridge(config, function, bridge, windows),
                    None => close_windows(config, function.address),
                }
            }
        }
    }
}

/// What a bridge has to forward; `None` if nothing is behind it and nothing can be plugged in.
fn behind<'r>(topology: &Topology, resources: &'r Resources, bridge: Bridge) -> Option<&'r BridgeWindows> {
    let index = usize::from(bridge.bus?);
    let (bus, windows) = (topology.buses().get(index)?, resources.windows.get(index)?);
    (!bus.is_empty() || !windows.is_closed()).then_some(windows)
}

/// Vendor and device numbers of QEMU's PIIX3 and PIIX4 IDE controllers, the vendor in the low half.
const PIIX_IDE: [u32; 2] = [0x7010_8086, 0x7111_8086];
/// The timing registers of both channels (82371AB data sheet, 5.2.3, IDETIM). Bit 15 of each half enables the channel's decoding.
const PIIX_IDE_TIMING: u8 = 0x40;
const PIIX_IDE_DECODE: u32 = 0x8000_8000;

/// Enables decoding for the BARs that were placed. On chipset functions, only restores the decoding that the scan found.
fn turn_on(config: &mut dyn ConfigSpace, resources: &Resources, index: u16, function: &Function) {
    let found = function.command & (COMMAND_IO | COMMAND_MEMORY);
    let wanted = if function.in_chipset || function.bars.is_empty() { found } else { COMMAND_IO | COMMAND_MEMORY };
    if !function.in_chipset && PIIX_IDE.contains(&function.id) {
        // COMMAND alone does not suffice: without this bit, a driver considers the channel disabled.
        config.write32(function.address, PIIX_IDE_TIMING, PIIX_IDE_DECODE);
    }
    if wanted != 0 {
        let command = function.command & !found | wanted & resources.may_decode(index, function) | COMMAND_SERR;
        config.write32(function.address, register::COMMAND, command.into());
    }
}

/// The assignment of the other register in the same eight bytes, if both have 32 bits and an address: the host splits one access
/// for both.
fn neighbour<'r>(resources: &'r Resources, function: &Function, assignment: &Assignment) -> Option<&'r Assignment> {
    let is_narrow = |bar: Bar| !matches!(bar.kind, BarKind::Memory64 { .. });
    let register = assignment.bar.register ^ 1;
    // Few functions have one; for the others the resources are not searched.
    let bar = *function.bars.iter().find(|bar| bar.register == register)?;
    if !is_narrow(bar) || !is_narrow(assignment.bar) {
        return None;
    }
    resources.assigned.iter().find(|other| other.function == assignment.function && other.bar.register == register)
}

#[inline(always)]
fn write_bar(config: &mut dyn ConfigSpace, address: Address, bar: Bar, value: u64) {
    let offset = bar_offset(bar.register);
    match bar.kind {
        BarKind::Memory64 { .. } if offset & 4 == 0 => config.write64(address, offset, value),
        BarKind::Memory64 { .. } => {
            config.write32(address, offset, value as u32);
            config.write32(address, bar_offset(bar.register.wrapping_add(1)), (value >> 32) as u32);
        }
        _ => config.write32(address, offset, value as u32),
    }
}

/// Writes a function's interrupt line, for operating systems without ACPI.
fn route(config: &mut dyn ConfigSpace, topology: &Topology, bus: &Bus, function: &Function, routing: Routing) {
    let Some(pin) = function.pin else { return };
    let (device, pin_at_root) = topology.interrupt_at_root(bus, function, pin);
    let Some(line) = routing(device, pin_at_root) else { return };
    if line == function.line {
        return;
    }
    match function.bridge {
        // The pin is read-only. In a bridge, the control register follows, and writing it makes the host rebuild its memory map.
        Some(_) => config.write16(function.address, register::INTERRUPT, line.into()),
        // The rest of the dword is read-only.
        None => config.write32(function.address, register::INTERRUPT, line.into()),
    }
}

/// Sets the windows of a bridge, then enables forwarding.
fn open_bridge(config: &mut dyn ConfigSpace, function: &Function, bridge: Bridge, windows: &BridgeWindows) {
    let address = function.address;
    let mut command = function.command & !(COMMAND_IO | COMMAND_MEMORY) | COMMAND_MASTER | COMMAND_SERR;
    if windows.is_closed() {
        close_windows(config, address);
    } else {
        command |= set_windows(config, address, bridge, windows);
    }
    config.write32(address, register::COMMAND, command.into());
}

/// Sets the windows that a bridge needs, and closes the others that would be enabled with them. Returns the COMMAND bits to set.
fn set_windows(config: &mut dyn ConfigSpace, address: Address, bridge: Bridge, windows: &BridgeWindows) -> u16 {
    let mut decodes = 0;
    if !windows.io.is_empty() {
        decodes |= COMMAND_IO;
        let [base, limit] = [windows.io.start(), windows.io.last()].map(|port| port >> 8 & 0xf0);
        // The upper half is the secondary status, where writing zero changes nothing.
        config.write32(address, register::IO_WINDOW, limit << 8 | base);
        if bridge.io == IoWindow::Bits32 {
            write_if_changed(config, address, register::IO_WINDOW_UPPER, 0);
        }
    } else if bridge.io != IoWindow::Absent {
        // The scan opened it to find out whether it exists.
        config.write32(address, register::IO_WINDOW, register::CLOSED_IO);
    }
    if !windows.memory.is_empty() || !windows.prefetchable.is_empty() {
        decodes |= COMMAND_MEMORY;
    }
    let (memory, _, _) = memory_window(windows.memory);
    let (prefetchable, base, limit) = memory_window(windows.prefetchable);
    // The two registers are adjacent.
    config.write64(address, register::MEMORY_WINDOW, u64::from(prefetchable) << 32 | u64::from(memory));
    // Each write makes the host rebuild its memory map, and the registers are mostly zero already.
    write_if_changed(config, address, register::PREFETCHABLE_BASE_UPPER, base);
    write_if_changed(config, address, register::PREFETCHABLE_LIMIT_UPPER, limit);
    decodes
}

/// Closes the windows of a bridge that forwards nothing.
#[cold]
fn close_windows(config: &mut dyn ConfigSpace, address: Address) {
    // The upper half is the secondary status, where writing zero changes nothing.
    config.write32(address, register::IO_WINDOW, register::CLOSED_IO);
    // The two registers are adjacent.
    let both = u64::from(register::CLOSED_MEMORY) << 32 | u64::from(register::CLOSED_MEMORY);
    config.write64(address, register::MEMORY_WINDOW, both);
}

/// A memory window's register value (base and limit), and bits 63:32 of base and limit.
fn memory_window(window: PhysRange) -> (u32, u32, u32) {
    if window.is_empty() {
        return (register::CLOSED_MEMORY, 0, 0);
    }
    let (base, limit) = (window.start().get(), window.end().get().wrapping_sub(1));
    let register = |address: u64| (address >> 16) as u32 & 0xfff0;
    (register(limit) << 16 | register(base), (base >> 32) as u32, (limit >> 32) as u32)
}

fn write_if_changed(config: &mut dyn ConfigSpace, address: Address, offset: u8, value: u32) {
    if config.read32(address, offset) != value {
        config.write32(address, offset, value);
    }
}
