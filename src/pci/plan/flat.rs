//! The plan of a machine without bridges, which most are. It equals the plan of [`Planner`](super::planner::Planner), and takes
//! fewer instructions.
//!
//! Without a bridge, all buses are root buses: there are no buses to size and no windows to place. The BARs are laid out once for
//! ports and once for memory. If they do not fit into the low apertures, the planner takes over.

use super::super::apertures::LowApertures;
use super::super::topology::{BarKind, Topology};
use super::resources::Resources;
use super::space::{Item, Room, pack};
use crate::heap::{push_within_capacity, with_capacity};

/// Assigns all addresses. Returns `None` if there is a bridge, something does not fit, or the heap is full.
pub(super) fn flat(topology: &Topology, low: LowApertures) -> Option<Resources> {
    if topology.has_bridges() {
        return None;
    }
    let bars = topology.bars();
    let mut plan = Resources { assigned: with_capacity(bars).ok()?, ..Resources::default() };
    let mut items = with_capacity(bars).ok()?;
    for (is_io, room) in [(true, Room::from(low.io())), (false, Room::from(low.memory()))] {
        items.clear();
        for (function, found) in (0..u16::MAX).zip(topology.functions()) {
            for &bar in found.bars.iter().filter(|bar| (bar.kind == BarKind::Io) == is_io) {
                push_within_capacity(&mut items, Item::of_bar(function, bar)).ok()?;
            }
        }
        let (end, _) = pack(&items, room.start, &mut |item, address| plan.put(item, address))?;
        if end > room.end {
            return None;
        }
    }
    Some(plan)
}

#[cfg(test)]
mod tests {
    use arrayvec::ArrayVec;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    use alloc::vec::Vec;

    use super::super::of_any_topology;
    use super::super::planner::Planner;
    use super::super::resources::BridgeWindows;
    use super::super::space::{IO, MEMORY};
    use super::*;
    use crate::addr::{PhysAddr, PhysRange};
    use crate::pci::topology::{Bar, Bridge, Bus, Function, IoWindow, PrefetchableWindow, Reserve};
    use crate::pci::{Address, Apertures, PortRange};

    fn bar() -> impl Strategy<Value = (BarKind, u8)> {
        let memory = |kind| (Just(kind), 4_u8..28);
        prop_oneof![
            4 => (Just(BarKind::Io), 2_u8..=13),
            2 => memory(BarKind::Memory32 { prefetchable: false }),
            1 => memory(BarKind::Memory32 { prefetchable: true }),
            2 => memory(BarKind::Memory64 { prefetchable: true }),
            1 => (Just(BarKind::Memory64 { prefetchable: false }), 4_u8..64),
            1 => (Just(BarKind::Rom), 11_u8..=24),
        ]
    }

    /// Root buses with functions.
    fn topology() -> impl Strategy<Value = Topology> {
        vec(vec(vec(bar(), 0..=6), 0..6), 1..4).prop_map(|buses| {
            let mut topology = Topology::default();
            for (number, functions) in (0..).zip(buses) {
                let first = topology.functions.len() as u16;
                for (device, bars) in (0..).zip(functions) {
                    let bars = (0..).zip(bars).map(|(register, (kind, order))| Bar { register, kind, order }).collect();
                    topology.functions.push(function(number, device, bars));
                }
                let end = topology.functions.len() as u16;
                topology.buses.push(Bus { number, parent: None, first, end });
            }
            topology
        })
    }

    fn function(bus: u8, device: u8, bars: ArrayVec<Bar, 7>) -> Function {
        Function {
            address: Address::new(bus, device, 0).unwrap(),
            id: 0x5_1b36,
            class: 0xff_0000,
            command: 0,
            pin: None,
            line: 0,
            bars,
            sound: true,
            in_chipset: false,
            bridge: None,
        }
    }

    /// Apertures: mostly those of a real machine, sometimes any.
    fn windows() -> impl Strategy<Value = Apertures> {
        let ports = |bounds: (u32, u32)| PortRange::new(bounds.0.min(bounds.1), bounds.0.max(bounds.1)).unwrap();
        let any_ports = (0_u32..=0x1_0000, 0_u32..=0x1_0000);
        let io = prop_oneof![Just((0x1000, 0x1_0000)), any_ports.clone()].prop_map(ports);
        let memory = |(a, b): (u64, u64)| {
            PhysRange::from_bounds(PhysAddr::new(a.min(b) << 12), PhysAddr::new(a.max(b) << 12)).unwrap()
        };
        let low = prop_oneof![Just((0x8_0000, 0xf_ec00)), (0_u64..1 << 20, 0_u64..=1 << 20)].prop_map(memory);
        let high = proptest::option::of((1_u64 << 20..1 << 28, 1_u64 << 20..1 << 28).prop_map(memory));
        (io, any_ports.prop_map(ports), low, high)
            .prop_map(|(io, more, low, high)| Apertures::new(LowApertures::new(io, low), high, 40).or_ports(more))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

        #[test]
        fn without_bridges_the_flat_plan_equals_the_planner_s_if_all_fits(
            topology in topology(),
            windows in windows(),
        ) {
            let near = windows.low();
            let mut planner = Planner::new(&topology).unwrap();
            let has_room = planner.fits(IO, near.io().into()) && planner.fits(MEMORY, near.memory().into());
            let flat = flat(&topology, near);
            prop_assert_eq!(flat.is_some(), has_room);
            if let Some(flat) = flat {
                let plan = of_any_topology(&topology, &windows).unwrap();
                prop_assert!(plan.windows.iter().all(|&windows| windows == BridgeWindows::default()));
                prop_assert_eq!(flat, Resources { windows: Vec::new(), ..plan });
            }
        }
    }

    #[test]
    fn the_property_is_tested_with_enough_room_and_with_too_little() {
        let mut runner = TestRunner::deterministic();
        let mut outcomes = [0; 2];
        for _ in 0..200 {
            let (topology, windows) = (topology(), windows()).new_tree(&mut runner).unwrap().current();
            outcomes[usize::from(flat(&topology, windows.low()).is_some())] += 1;
        }
        assert!(outcomes.iter().all(|&count| count > 20), "{outcomes:?}");
    }

    #[test]
    fn a_machine_with_a_bridge_goes_to_the_planner() {
        let mut topology = Topology::default();
        topology.functions.push(function(0, 1, ArrayVec::new()));
        topology.buses.push(Bus { number: 0, parent: None, first: 0, end: 1 });
        let low = PhysRange::from_bounds(PhysAddr::new(0xc000_0000), PhysAddr::new(0xd000_0000)).unwrap();
        let near = LowApertures::new(PortRange::ALL, low);
        assert!(flat(&topology, near).is_some());
        topology.functions[0].bridge = Some(Bridge {
            bus: None,
            io: IoWindow::Absent,
            prefetchable: PrefetchableWindow::Absent,
            single_device: false,
            latency: 0,
            reserve: Reserve::default(),
        });
        assert_eq!(flat(&topology, near), None);
    }
}
