//! Tests of the whole module on a fake hierarchy.

mod addresses;
mod budget;
mod devices;
mod discovery;
mod existing;
mod faults;
mod hot_plug;
mod random;
mod roots;

use alloc::vec::Vec;

use super::plan::Resources;
use super::topology::{Bar, BarKind, Topology};
use super::{
    Address, Apertures, ChipsetFunction, ChipsetFunctions, ConfigAccess, Devices, HostBridge, LowApertures, Pin,
    PortRange, Routing, apply, configure, plan, scan,
};
use crate::addr::{PhysAddr, PhysRange};
use crate::fakes::pci::{FakeFunction, FakePci, On};

const ROOT: On = On::Root(0);
const IO: BarKind = BarKind::Io;
const MEMORY: BarKind = BarKind::Memory32 { prefetchable: false };
const MEMORY_PREFETCHABLE: BarKind = BarKind::Memory32 { prefetchable: true };
const WIDE: BarKind = BarKind::Memory64 { prefetchable: true };
const WIDE_PLAIN: BarKind = BarKind::Memory64 { prefetchable: false };

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

/// The apertures of q35 with 2 GiB, and a CPU with 40 address bits.
fn windows() -> Apertures {
    Apertures::new(
        LowApertures::new(PortRange::ALL, range(0xc000_0000, 0xfec0_0000)),
        Some(range(4 * GIB, 1 << 46)),
        40,
    )
}

fn low_only(start: u64, end: u64) -> Apertures {
    Apertures::new(LowApertures::new(PortRange::ALL, range(start, end)), None, 40)
}

/// An ordinary function of no known kind.
fn device(id: u16) -> FakeFunction {
    FakeFunction::new(u32::from(id) << 16 | 0x1af4, 0xff_0000)
}

fn bridge(io: Option<u8>, wide: bool) -> FakeFunction {
    FakeFunction::bridge(0x1_1b36, io, wide)
}

fn port() -> FakeFunction {
    FakeFunction::port(0xc_1b36, 4)
}

/// Scans, plans and applies, without interrupt lines.
fn set_up(pci: &mut FakePci, windows: &Apertures) -> (Topology, Resources) {
    let topology = scan(pci, 0, ChipsetFunctions::default());
    let plan = plan(&topology, windows).unwrap();
    apply(pci, &topology, &plan, &|_, _| None);
    assert_eq!(pci.misuse, Vec::<alloc::string::String>::new());
    (topology, plan)
}

/// As [`configure`], with bus 0 as the only root bus.
fn configured(
    pci: &mut FakePci,
    chipset: ChipsetFunctions<'_>,
    apertures: &dyn Fn() -> Apertures,
    routing: Routing<'_>,
) -> Devices {
    let host = HostBridge { extra_roots: 0, chipset, low: windows().low(), apertures, routing };
    configure(pci, ConfigAccess::Ports, &host)
}

/// The addresses in the BARs of a function.
fn addresses(pci: &FakePci, index: usize) -> Vec<u64> {
    pci.function(index).bars().into_iter().map(|(_, _, address, _)| address).collect()
}

fn at(bus: u8, device: u8, function: u8) -> Address {
    Address::new(bus, device, function).unwrap()
}

/// A chipset function on bus 0.
fn chipset_function(device: u16) -> ChipsetFunction {
    let address = at(0, device as u8, 0);
    ChipsetFunction { address, id: u32::from(device) << 16 | 0x1af4, class: 0xff_0000, pin: None, bars: &[] }
}
