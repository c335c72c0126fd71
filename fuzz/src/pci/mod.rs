//! PCI: scans, plans and sets up any configuration space.
//!
//! Input: the host's apertures, the number of other root buses that it reports, and the functions: each with its address, its
//! bytes of configuration space, and the sizes of its BARs.

pub mod model;

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::pci::plan::{Assignment, BridgeWindows};
use firstlight::pci::topology::{BarKind, Topology};
use firstlight::pci::{Apertures, ChipsetFunctions, LowApertures, Pin, PortRange, apply, plan, scan};

use self::model::Model;
use crate::check;
use crate::input::Input;

/// The most functions of an input.
const MOST: u8 = 24;

/// Scans, plans and applies. Placed BARs are aligned, inside the host's apertures and the windows of the bridges on the path, and
/// disjoint. Each BAR is placed or listed as unplaced. Only registers that firmware sets up are written, and BARs only while the
/// function does not decode.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let numbers: [u16; 4] = input.take();
    let [a, b, c, d] = numbers.map(|number| u64::from(number) << 16);
    let range = |a: u64, b: u64| PhysRange::from_bounds(PhysAddr::new(a.min(b)), PhysAddr::new(a.max(b)));
    // Two apertures above 4 GiB, with a gap between them.
    let high = range(c << 8, d << 8).unwrap();
    let (first, rest) = high.split_at(high.len() / 4);
    let (_, second) = rest.split_at(high.len() / 8);
    let room = Apertures::new(LowApertures::new(PortRange::ALL, range(a, b).unwrap()), [first, second], 46)
        .or_ports(PortRange::new(0x1000, 0xa000).unwrap());
    let extra_roots: u8 = input.take();
    let mut pci = Model::take(&mut input, MOST, &[]);
    let topology = scan(&mut pci, extra_roots.into(), ChipsetFunctions::default());
    let plan = plan(&topology, &room).unwrap();
    check_plan(&topology, &plan, &room);
    apply(&mut pci, &topology, &plan, &|device, pin: Pin| Some(device ^ pin.index()));
}

type Resources = firstlight::pci::plan::Resources;

/// Ports or memory.
type Run = (bool, PhysRange);

fn ports(range: PortRange) -> PhysRange {
    let [start, end] = [range.start(), range.end()].map(|port| PhysAddr::new(port.into()));
    PhysRange::from_bounds(start, end).unwrap()
}

fn windows(windows: &BridgeWindows) -> [Run; 3] {
    [(true, ports(windows.io)), (false, windows.memory), (false, windows.prefetchable)]
}

fn is_inside((is_ports, inner): Run, outer: &[Run]) -> bool {
    outer.iter().any(|(are_ports, outer)| *are_ports == is_ports && outer.contains(inner))
}

fn check_plan(topology: &Topology, plan: &Resources, room: &Apertures) {
    let mut registers: Vec<_> = plan.assigned.iter().map(|place| (place.function, place.bar.register)).collect();
    registers.extend(plan.unassigned.iter().map(|lost| (lost.function, lost.bar.register)));
    registers.sort_unstable();
    let all = (0_u16..).zip(topology.functions()).flat_map(|(index, function)| {
        let mut bars: Vec<_> = function.bars.iter().map(|bar| (index, bar.register)).collect();
        bars.sort_unstable();
        bars
    });
    assert_eq!(registers, all.collect::<Vec<_>>(), "each register once");

    let mut places = vec![Vec::new(); topology.functions().len()];
    for place in &plan.assigned {
        places[usize::from(place.function)].push(place);
    }
    let mut children = vec![Vec::new(); topology.buses().len()];
    for (bus, passed) in topology.buses().iter().zip(&plan.windows) {
        if let Some(parent) = bus.parent {
            children[usize::from(parent.bus)].push(passed);
        }
    }
    let mut host = vec![(true, ports(room.low().io())), (true, ports(room.more_io())), (false, room.low().memory())];
    let lowest = plan.above_4_gib().start();
    host.extend(room.high().iter().filter(|high| high.contains_addr(lowest)).map(|high| (false, *high)));
    let mut at_root = Vec::new();
    for (index, bus) in topology.buses().iter().enumerate() {
        let mut here: Vec<_> = topology
            .on_bus(bus)
            .flat_map(|(function, _)| &places[usize::from(function)])
            .map(|place| run_of(place))
            .collect();
        let outer = if bus.parent.is_none() { host.clone() } else { windows(&plan.windows[index]).to_vec() };
        for passed in &children[index] {
            here.extend(windows(passed).into_iter().filter(|(_, range)| !range.is_empty()));
        }
        for &run in &here {
            assert!(is_inside(run, &outer), "{run:?} is outside {outer:?}");
        }
        let list = if bus.parent.is_none() { &mut at_root } else { &mut Vec::new() };
        list.extend(here);
        for kind in [true, false] {
            let runs: Vec<_> =
                list.iter().filter(|(are_ports, _)| *are_ports == kind).map(|(_, range)| *range).collect();
            check::disjoint(&runs);
        }
    }
}

/// The range of a BAR, which is aligned, and below 4 GiB if it must be.
fn run_of(place: &Assignment) -> Run {
    let size = place.bar.size();
    assert!(place.address != 0 && place.address.is_multiple_of(size), "{place:?}");
    let range = PhysRange::new(PhysAddr::new(place.address), size).unwrap();
    let narrow = !matches!(place.bar.kind, BarKind::Memory64 { .. });
    assert!(!narrow || PhysRange::LOW_4_GIB.contains(range), "{place:?}");
    (place.bar.kind == BarKind::Io, range)
}

/// The configuration space of QEMU's devices, and hierarchies of them.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let head = |flags: u8, roots: u8| {
        let room = [0xc000_u16, 0xfec0, 0x10, 0x100].map(u16::to_le_bytes).concat();
        [room, vec![roots, flags]].concat()
    };
    let function = |kind: u8, number: u8, place: u8, id: u32, class: u32, header: u8, bars: [(u32, u8); 6]| {
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&id.to_le_bytes());
        bytes[8..12].copy_from_slice(&(class << 8).to_le_bytes());
        bytes[14] = header;
        bytes[0x3d] = 1;
        for (place, (low, _)) in bytes[16..40].chunks_mut(4).zip(bars) {
            place.copy_from_slice(&low.to_le_bytes());
        }
        let orders = bars.map(|(_, order)| order);
        [&[kind, number, place, 64], &bytes[..], &orders, &[0]].concat()
    };
    const NONE: (u32, u8) = (0, 0);
    let virtio = |kind, number, place| {
        let bars = [(1, 6), (0, 13), NONE, NONE, (0xc, 15), (0, 1)];
        function(kind, number, place, 0x1000_1af4, 0x02_0000, 0, bars)
    };
    let vga = function(0, 0, 8, 0x1111_1234, 0x03_0000, 0, [(8, 25), NONE, (0, 13), NONE, NONE, NONE]);
    let bridge = |kind, number, place| {
        function(kind, number, place, 0x0001_1b36, 0x06_0400, 1, [(4, 9), (0, 1), NONE, NONE, NONE, NONE])
    };
    let mut seeds = vec![
        [head(0, 0), vga.clone(), virtio(0, 0, 16), virtio(0, 0, 24)].concat(),
        [head(0, 0), bridge(0, 0, 16), virtio(2, 0, 8), bridge(2, 0, 16), virtio(2, 2, 0), vga.clone()].concat(),
        [head(0, 2), bridge(0, 0, 16), virtio(2, 0, 8), virtio(1, 0x40, 0), bridge(1, 0x80, 0), virtio(2, 3, 0)]
            .concat(),
    ];
    for flags in [1, 2, 3, 4] {
        seeds.push([head(flags, 1), bridge(0, 0, 0), virtio(2, 0, 8), vga.clone()].concat());
    }
    for captured in [&include_bytes!("../../data/pci/q35")[..], include_bytes!("../../data/pci/pc")] {
        let functions = captured.as_chunks().0.iter().flat_map(from_capture);
        seeds.push(head(0, 0).into_iter().chain(functions).collect());
    }
    seeds
}

/// A function as `examples/capture.rs` writes it, for [`Model::take`].
fn from_capture(function: &[u8; 2 + 256 + 28]) -> Vec<u8> {
    let [behind, place, rest @ ..] = function;
    let (space, masks) = rest.split_at(256);
    let (kind, number) = behind.checked_sub(1).map_or((0, 0), |number| (2, number));
    let mut bytes = vec![kind, number, *place, 252];
    bytes.extend(&space[..252]);
    let is_bridge = space[14] & 0x7f == 1;
    let (masks, _) = masks.as_chunks();
    let order = |number: usize| {
        let mask = u32::from_le_bytes(masks[number]);
        let fixed = if number == 6 {
            0x7ff
        } else if mask & 1 != 0 {
            3
        } else {
            0xf
        };
        // The upper half of a 64-bit register has no bits of another meaning.
        let mask = if mask == u32::MAX { mask } else { mask & !fixed };
        if mask == 0 { 0 } else { mask.trailing_zeros() as u8 + 1 }
    };
    bytes.extend(if is_bridge { [0, 1, 6, 2, 3, 4, 5] } else { [0, 1, 2, 3, 4, 5, 6] }.map(order));
    bytes
}
