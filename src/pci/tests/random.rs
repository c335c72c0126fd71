//! Tests on random hierarchies: the plan is aligned, disjoint and inside its windows, and the machine decodes what the plan says.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::pci::plan::BridgeWindows;
use crate::pci::topology::IoWindow;

#[derive(Clone, Debug)]
enum Tree {
    Function(Vec<(BarKind, u8)>),
    Bridge { io: Option<u8>, wide: bool, port: bool, bars: Vec<(BarKind, u8)>, children: Vec<Tree> },
}

fn bar() -> impl Strategy<Value = (BarKind, u8)> {
    prop_oneof![
        (Just(IO), 2u8..=12),
        (Just(MEMORY), 4u8..=30),
        (any::<bool>().prop_map(|prefetchable| BarKind::Memory64 { prefetchable }), 4u8..=33),
    ]
}

fn tree() -> impl Strategy<Value = Tree> {
    vec(bar(), 0..5).prop_map(Tree::Function).prop_recursive(5, 48, 8, |inner| {
        let io = prop_oneof![Just(None), Just(Some(0)), Just(Some(1))];
        (io, any::<bool>(), any::<bool>(), vec(bar(), 0..2), vec(inner, 0..8))
            .prop_map(|(io, wide, port, bars, children)| Tree::Bridge { io, wide, port, bars, children })
    })
}

fn room() -> impl Strategy<Value = Apertures> {
    let io = (0u32..0x1_0000, 0u32..=0x1_0000).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap());
    let low = (0u64..1 << 20, 0u64..=1 << 20).prop_map(|(a, b)| range(a.min(b) << 12, a.max(b) << 12));
    let high = (0u64..1 << 28, 0u64..1 << 28).prop_map(|(a, b)| range(a.min(b) << 12, a.max(b) << 12));
    (io, low, vec(high, 0..4), 32u8..=52)
        .prop_map(|(io, low, high, bits)| Apertures::new(LowApertures::new(io, low), high, bits))
}

fn with_bars(mut function: FakeFunction, bars: &[(BarKind, u8)], count: u8) -> FakeFunction {
    let mut number = 0;
    for &(kind, order) in bars {
        let registers = if matches!(kind, BarKind::Memory64 { .. }) { 2 } else { 1 };
        if number + registers > count {
            break;
        }
        function = function.bar(number, kind, order);
        number += registers;
    }
    function
}

/// Puts `trees` on a bus: as devices, or as functions of the only device there is behind a port.
fn grow(pci: &mut FakePci, on: On, behind_port: bool, trees: &[Tree]) {
    for (place, tree) in (0u8..).zip(trees) {
        let id = (pci.nodes.len() as u32) << 16 | 0x1af4;
        let function = match tree {
            Tree::Function(bars) => with_bars(FakeFunction::new(id, 0xff_0000), bars, 6),
            Tree::Bridge { io, wide, port, bars, .. } => {
                let bridge = FakeFunction::bridge(id, *io, *wide);
                with_bars(if *port { bridge.express(4) } else { bridge }, bars, 2)
            }
        };
        let (device, number) = if behind_port { (0, place) } else { (place * 3, 0) };
        let function = if behind_port { function.multifunction() } else { function };
        let index = pci.add(on, device, number, function);
        if let Tree::Bridge { port, children, .. } = tree {
            grow(pci, On::Behind(index), *port, children);
        }
    }
}

fn machine(trees: &[Tree]) -> FakePci {
    let mut pci = FakePci::default();
    grow(&mut pci, ROOT, false, trees);
    pci
}

/// A range of addresses or ports, to check overlaps and containment.
#[derive(Clone, Copy, Debug)]
struct Run {
    ports: bool,
    range: PhysRange,
}

fn run(ports: bool, start: u64, size: u64) -> Run {
    Run { ports, range: PhysRange::new(PhysAddr::new(start), size).unwrap() }
}

fn runs(windows: &BridgeWindows) -> [Run; 3] {
    let io = run(true, windows.io.start().into(), (windows.io.end() - windows.io.start()).into());
    [io, Run { ports: false, range: windows.memory }, Run { ports: false, range: windows.prefetchable }]
}

fn may_hold(outer: Run, inner: Run) -> bool {
    outer.ports == inner.ports && outer.range.contains(inner.range)
}

fn assert_disjoint(runs: &[Run]) {
    for (index, a) in runs.iter().enumerate() {
        for b in &runs[index + 1..] {
            assert!(a.ports != b.ports || !a.range.overlaps(b.range), "{a:?} overlaps {b:?}");
        }
    }
}

fn ports_reach(topology: &Topology, mut bus: usize) -> bool {
    while let Some(parent) = topology.buses()[bus].parent {
        if topology.functions()[usize::from(parent.bridge)].bridge.unwrap().io == IoWindow::Absent {
            return false;
        }
        bus = parent.bus.into();
    }
    true
}

fn check_plan(topology: &Topology, plan: &Resources, room: &Apertures) {
    let bars: usize = topology.functions().iter().map(|function| function.bars.len()).sum();
    assert_eq!(plan.assigned.len() + plan.unassigned.len(), bars);
    let mut seen: Vec<_> = plan.assigned.iter().map(|p| (p.function, p.bar.register)).collect();
    seen.extend(plan.unassigned.iter().map(|u| (u.function, u.bar.register)));
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), bars, "each BAR once");
    // Of several apertures above 4 GiB, one is used.
    let lowest = plan.above_4_gib().start();
    let high = room.high().iter().find(|high| high.contains_addr(lowest)).copied().unwrap_or_default();
    let host = [
        run(true, room.low().io().start().into(), (room.low().io().end() - room.low().io().start()).into()),
        Run { ports: false, range: room.low().memory() },
        Run { ports: false, range: high },
    ];
    let mut at_root = Vec::new();
    for (index, bus) in topology.buses().iter().enumerate() {
        let mut here = Vec::new();
        // The windows that may lead here: any for a prefetchable BAR or a port, the memory window for others.
        let outer = if bus.parent.is_none() { host } else { runs(&plan.windows[index]) };
        for (function, _) in topology.on_bus(bus) {
            for placement in plan.assigned.iter().filter(|placement| placement.function == function) {
                let Bar { kind, .. } = placement.bar;
                let size = placement.bar.size();
                let this = run(kind == IO, placement.address, size);
                assert_eq!(placement.address % size, 0);
                assert_ne!(placement.address, 0);
                let allowed = match (kind, bus.parent) {
                    (BarKind::Memory32 { .. }, _) | (WIDE_PLAIN, Some(_)) => &outer[1..2],
                    _ => &outer[..],
                };
                assert!(allowed.iter().any(|&outer| may_hold(outer, this)), "{placement:?} in {outer:?}");
                assert!(kind != MEMORY || placement.address + size <= 1 << 32);
                assert!(kind != IO || ports_reach(topology, index));
                here.push(this);
            }
        }
        for (below, windows) in topology.buses().iter().zip(&plan.windows) {
            if below.parent.is_some_and(|parent| usize::from(parent.bus) == index) {
                let windows = runs(windows).map(|window| window);
                for (number, window) in windows.into_iter().enumerate().filter(|(_, window)| !window.range.is_empty()) {
                    let block = if window.ports { 0x1000 } else { MIB };
                    assert_eq!((window.range.start().get() % block, window.range.len() % block), (0, 0));
                    let allowed = if bus.parent.is_some() { &outer[number..=number] } else { &outer[..] };
                    assert!(allowed.iter().any(|&outer| may_hold(outer, window)), "{window:?} in {outer:?}");
                    assert!(number == 2 || window.range.end().get() <= 1 << 32);
                    here.push(window);
                }
            }
        }
        assert_disjoint(&here);
        if bus.parent.is_none() {
            at_root.extend(here);
        }
    }
    assert_disjoint(&at_root);
}

/// Whether an access to `run` gets from the root bus to the bus `on`.
fn arrives(pci: &FakePci, on: On, run: Run) -> bool {
    let On::Behind(bridge) = on else { return true };
    let node = &pci.nodes[bridge];
    let passed = node.function.windows().into_iter().enumerate().any(|(number, window)| {
        let inside = |(first, last)| first <= run.range.start().get() && run.range.end().get() - 1 <= last;
        run.ports == (number == 0) && window.is_some_and(inside)
    });
    passed && arrives(pci, node.on, run)
}

fn check_machine(pci: &FakePci, topology: &Topology, plan: &Resources) {
    for (index, function) in topology.functions().iter().enumerate() {
        let node = &pci.nodes[(function.id >> 16) as usize];
        for (register, kind, address, size) in node.function.bars() {
            let placed = plan
                .assigned
                .iter()
                .find(|placement| (usize::from(placement.function), placement.bar.register) == (index, register));
            assert_eq!(address, placed.map_or(0, |placement| placement.address));
            // A bridge on the path whose own BARs have no address forwards nothing.
            if placed.is_some() && !behind_a_closed_bridge(topology, plan, node.function.get(0), pci) {
                assert!(arrives(pci, node.on, run(kind == IO, address, size)), "{} {register}", function.address);
            }
        }
    }
}

fn behind_a_closed_bridge(topology: &Topology, plan: &Resources, id: u32, pci: &FakePci) -> bool {
    let mut on = pci.nodes[(id >> 16) as usize].on;
    while let On::Behind(bridge) = on {
        let id = pci.function(bridge).get(0);
        if plan.unassigned.iter().any(|lost| topology.functions()[usize::from(lost.function)].id == id) {
            return true;
        }
        on = pci.nodes[bridge].on;
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn a_scan_finds_all_functions(trees in vec(tree(), 0..8)) {
        let mut pci = machine(&trees);
        let topology = scan(&mut pci, 0, ChipsetFunctions::default());
        prop_assert_eq!(&pci.misuse, &Vec::<alloc::string::String>::new());
        let mut ids: Vec<_> = topology.functions().iter().map(|function| (function.id >> 16) as usize).collect();
        ids.sort_unstable();
        prop_assert_eq!(ids, (0..pci.nodes.len()).collect::<Vec<_>>());
        for function in topology.functions() {
            let node = &pci.nodes[(function.id >> 16) as usize];
            prop_assert_eq!((function.address.device(), function.address.function()), (node.device, node.number));
            let sizes: Vec<_> = function.bars.iter().map(|bar| (bar.register, bar.kind, bar.size())).collect();
            let real: Vec<_> = node.function.bars().iter().map(|&(register, kind, _, size)| (register, kind, size)).collect();
            prop_assert_eq!(sizes, real);
        }
    }

    #[test]
    fn a_plan_is_aligned_disjoint_and_inside_its_window(trees in vec(tree(), 0..8), room in room()) {
        let mut pci = machine(&trees);
        let topology = scan(&mut pci, 0, ChipsetFunctions::default());
        check_plan(&topology, &plan(&topology, &room).unwrap(), &room);
    }

    #[test]
    fn the_machine_decodes_what_the_plan_says(trees in vec(tree(), 0..8), room in room()) {
        let mut pci = machine(&trees);
        let (topology, plan) = set_up(&mut pci, &room);
        check_machine(&pci, &topology, &plan);
    }

    #[test]
    fn all_memory_is_placed_if_there_is_plenty(trees in vec(tree(), 0..4)) {
        let mut pci = machine(&trees);
        let topology = scan(&mut pci, 0, ChipsetFunctions::default());
        let asked: u64 = topology
            .functions()
            .iter()
            .flat_map(|function| &function.bars)
            .filter(|bar| bar.kind != IO)
            .map(|bar| bar.size().max(MIB))
            .sum();
        let room = Apertures::new(LowApertures::new(PortRange::ALL, range(MIB, 1 << 32)), Some(range(1 << 40, 1 << 51)), 52);
        let plan = plan(&topology, &room).unwrap();
        // At worst, a bridge rounds up what is behind it to its alignment.
        if asked <= GIB {
            prop_assert!(plan.unassigned.iter().all(|lost| lost.bar.kind == IO), "{:?}", plan.unassigned);
        }
    }
}
