//! Tests of the room for functions that are plugged in later.

use super::*;
use crate::pci::plan::GivenUp;
use crate::pci::register::{self, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, COMMAND_SERR};

const KIB: u64 = 1 << 10;

/// The host asks for nothing.
const NO: u32 = u32::MAX;
const NO_WIDE: u64 = u64::MAX;

fn slot() -> FakeFunction {
    port().slot()
}

#[test]
fn an_empty_slot_has_memory_and_a_conventional_one_ports_as_well() {
    let mut pci = FakePci::default();
    let express = pci.add(ROOT, 1, 0, slot());
    let conventional = pci.add(ROOT, 2, 0, bridge(Some(1), true).hot_plug());
    let neither = pci.add(ROOT, 3, 0, bridge(Some(0), true));
    let no_slot = pci.add(ROOT, 4, 0, port());
    let (_, plan) = set_up(&mut pci, &windows());
    let block = |number: u64| Some((0xc000_0000 + number * 2 * MIB, 0xc000_0000 + (number + 1) * 2 * MIB - 1));
    assert_eq!(pci.function(express).windows(), [None, block(0), block(1)]);
    assert_eq!(pci.function(conventional).windows(), [Some((0x1000, 0x1fff)), block(2), block(3)]);
    let passes = COMMAND_MEMORY | COMMAND_MASTER | COMMAND_SERR;
    assert_eq!(pci.function(express).command(), passes);
    assert_eq!(pci.function(conventional).command(), passes | COMMAND_IO);
    for index in [neither, no_slot] {
        assert_eq!((pci.function(index).windows(), pci.function(index).command()), ([None; 3], 0));
    }
    assert_eq!(plan.given_up, GivenUp::default());
}

#[test]
fn a_slot_with_a_function_has_as_much_room_as_an_empty_one() {
    let mut pci = FakePci::default();
    let port = pci.add(ROOT, 1, 0, slot());
    pci.add(On::Behind(port), 0, 0, device(1).bar(0, MEMORY, 12));
    set_up(&mut pci, &windows());
    assert_eq!(
        pci.function(port).windows(),
        [None, Some((0xc000_0000, 0xc01f_ffff)), Some((0xc020_0000, 0xc03f_ffff))]
    );
}

#[test]
fn the_room_that_the_host_asks_for_is_reserved() {
    let mut pci = FakePci::default();
    let all = pci.add(ROOT, 1, 0, slot().reserve(3, 8 * KIB, 20 << 20, NO, 16 * GIB));
    let low = pci.add(ROOT, 2, 0, slot().reserve(NO, NO_WIDE, NO, 64 << 20, NO_WIDE));
    let next = pci.add(ROOT, 3, 0, port());
    let (_, plan) = set_up(&mut pci, &windows());
    // 20 MiB at a multiple of 16 MiB, after 64 MiB at a multiple of 64 MiB.
    let memory = range(0xc400_0000, 0xc400_0000 + 20 * MIB);
    assert_eq!((plan.windows[1].memory, plan.windows[1].prefetchable), (memory, range(16 * GIB, 32 * GIB)));
    assert_eq!((plan.windows[1].io.start(), plan.windows[1].io.end()), (0x1000, 0x3000));
    assert_eq!(plan.windows[2].prefetchable, range(0xc000_0000, 0xc400_0000), "below 4 GiB, as asked");
    assert_eq!(pci.function(low).windows()[2], Some((0xc000_0000, 0xc3ff_ffff)));
    let numbers = |index: usize| pci.function(index).get(register::BUS_NUMBERS) & 0xff_ffff;
    assert_eq!([all, low, next].map(numbers), [0x04_0100, 0x05_0500, 0x06_0600]);
}

#[test]
fn present_functions_count_towards_the_room_that_the_host_asks_for() {
    let mut pci = FakePci::default();
    let port = pci.add(ROOT, 1, 0, slot().reserve(NO, NO_WIDE, 4 << 20, NO, 32 * MIB));
    pci.add(On::Behind(port), 0, 0, device(1).bar(0, MEMORY, 24).bar(2, WIDE, 20));
    set_up(&mut pci, &windows());
    let [_, memory, prefetchable] = pci.function(port).windows();
    assert_eq!(memory.map(|(first, last)| last - first + 1), Some(16 * MIB));
    assert_eq!(prefetchable.map(|(first, last)| last - first + 1), Some(32 * MIB));
}

#[test]
fn reserved_bus_numbers_stay_within_the_available_ones() {
    let mut pci = FakePci::default();
    let outer = pci.add(ROOT, 1, 0, port());
    let inner = pci.add(On::Behind(outer), 0, 0, port().reserve(300, NO_WIDE, NO, NO, NO_WIDE));
    let starved = pci.add(ROOT, 2, 0, port());
    let topology = scan(&mut pci, 0, ChipsetFunctions::default());
    let numbers = |index: usize| pci.function(index).get(register::BUS_NUMBERS);
    assert_eq!([outer, inner, starved].map(numbers), [0xff_0100, 0xff_0201, 0]);
    assert_eq!(topology.buses().len(), 3);
}

#[test]
fn a_capability_of_another_vendor_or_length_asks_for_nothing() {
    let asks = |function: FakeFunction| {
        let mut pci = FakePci::default().with(ROOT, 1, 0, function);
        set_up(&mut pci, &windows()).1.windows[1].prefetchable.len()
    };
    let reserve = |function: FakeFunction| function.reserve(NO, NO_WIDE, NO, NO, 64 * MIB);
    assert_eq!(asks(reserve(port())), 64 * MIB);
    assert_eq!(asks(reserve(FakeFunction::port(0xc_1af4, 4))), 0);
    let short = port().capability(0xa0, register::CAPABILITY_VENDOR, 1 << 8 | 16);
    let other_type = port().capability(0xa0, register::CAPABILITY_VENDOR, 2 << 8 | 32);
    assert_eq!((asks(short), asks(other_type)), (0, 0));
    // A capability that reaches beyond configuration space.
    assert_eq!(asks(port().capability(0xfc, register::CAPABILITY_VENDOR, 1 << 8 | 32)), 0);
}

#[test]
fn empty_slots_lose_their_room_before_functions_do() {
    let room = low_only(0xc000_0000, 0xc080_0000);
    let mut pci = FakePci::default();
    let slots = [1, 2, 3].map(|number| pci.add(ROOT, number, 0, slot()));
    let beside = pci.add(ROOT, 4, 0, device(1).bar(0, MEMORY, 22));
    let (_, plan) = set_up(&mut pci, &room);
    assert_eq!(plan.unassigned, []);
    assert_eq!(addresses(&pci, beside), [0xc000_0000]);
    // 4 MiB remain: the first slot has all its room, the last ones have none.
    let given = slots.map(|slot| pci.function(slot).windows().into_iter().flatten().count());
    assert_eq!((given, plan.given_up), ([2, 0, 0], GivenUp { io: 0, memory: 2 }));
}

#[test]
fn room_that_the_host_did_not_ask_for_is_dropped_first() {
    let room = low_only(0xc000_0000, 0xc080_0000);
    let mut pci = FakePci::default();
    let plain = pci.add(ROOT, 1, 0, slot());
    let asked = pci.add(ROOT, 2, 0, slot().reserve(NO, NO_WIDE, 4 << 20, NO, NO_WIDE));
    let beside = pci.add(ROOT, 4, 0, device(1).bar(0, MEMORY, 22));
    let (_, plan) = set_up(&mut pci, &room);
    assert_eq!((plan.unassigned.len(), plan.given_up), (0, GivenUp { io: 0, memory: 2 }));
    assert_eq!(pci.function(asked).windows()[1].map(|(first, last)| last - first + 1), Some(4 * MIB));
    assert_eq!(pci.function(plain).windows(), [None; 3]);
    assert_ne!(addresses(&pci, beside), [0]);
    // The host asks for more than can exist, and the boot continues.
    let mut pci = FakePci::default();
    let greedy = pci.add(ROOT, 1, 0, slot().reserve(NO, u64::MAX - 1, NO - 1, NO, u64::MAX - 1));
    let beside = pci.add(ROOT, 4, 0, device(1).bar(0, MEMORY, 22).bar(1, IO, 5).bar(2, WIDE, 30));
    let (_, plan) = set_up(&mut pci, &windows());
    assert_eq!((plan.unassigned.len(), plan.given_up), (0, GivenUp { io: 1, memory: 1 }));
    assert!(addresses(&pci, beside).iter().all(|&address| address != 0));
    assert_eq!(pci.function(greedy).windows()[1].map(|(first, last)| last - first + 1), Some(2 * MIB));
}

#[test]
fn slots_share_the_ports_that_functions_leave() {
    let mut pci = FakePci::default();
    let slots: Vec<_> = (1..21).map(|number| pci.add(ROOT, number, 0, bridge(Some(0), true).hot_plug())).collect();
    pci.add(On::Behind(slots[19]), 1, 0, device(1).bar(0, IO, 5));
    let (_, plan) = set_up(&mut pci, &windows());
    assert_eq!((plan.unassigned.len(), plan.given_up), (0, GivenUp { io: 5, memory: 0 }));
    assert!(!plan.windows[20].io.is_empty() && !plan.windows[14].io.is_empty() && plan.windows[15].io.is_empty());
}

#[test]
fn the_other_ports_are_used_if_the_first_do_not_suffice() {
    let ports = |start, end| PortRange::new(start, end).unwrap();
    let low = range(0xc000_0000, 0xfec0_0000);
    let windows = |first, other| Apertures::new(LowApertures::new(first, low), None, 40).or_ports(other);
    let mut pci = FakePci::default();
    for number in 1..4 {
        let port = pci.add(ROOT, number, 0, port());
        pci.add(On::Behind(port), 0, 0, device(number.into()).bar(0, IO, 5));
    }
    let first_window = |pci: &mut FakePci, windows: Apertures| {
        let (_, plan) = set_up(pci, &windows);
        (plan.windows[1].io.start(), plan.unassigned.len())
    };
    assert_eq!(first_window(&mut pci, windows(ports(0xc000, 0x1_0000), ports(0x1000, 0xa000))), (0xc000, 0));
    assert_eq!(first_window(&mut pci, windows(ports(0xe000, 0x1_0000), ports(0x1000, 0xa000))), (0x1000, 0));
    assert_eq!(first_window(&mut pci, windows(ports(0xe000, 0x1_0000), ports(0x1000, 0x2000))), (0xe000, 1));
}

#[test]
fn a_bridge_with_a_32_bit_prefetchable_window_uses_it() {
    let mut pci = FakePci::default();
    let narrow = pci.add(ROOT, 1, 0, FakeFunction::narrow_bridge(0x1_1b36));
    let behind = device(1).bar(0, MEMORY_PREFETCHABLE, 24).bar(1, MEMORY, 12).bar(2, WIDE, 22).bar(4, WIDE_PLAIN, 14);
    let function = pci.add(On::Behind(narrow), 1, 0, behind.clone());
    let wide = pci.add(ROOT, 2, 0, bridge(Some(0), true));
    let inner = pci.add(On::Behind(wide), 1, 0, FakeFunction::narrow_bridge(0x1_1b36));
    let nested = pci.add(On::Behind(inner), 1, 0, behind);
    pci.add(ROOT, 3, 0, device(3).bar(0, WIDE, 33));
    let (_, plan) = set_up(&mut pci, &windows());
    assert_eq!(plan.unassigned, []);
    for (bridge, function) in [(narrow, function), (inner, nested)] {
        let [_, memory, prefetchable] = pci.function(bridge).windows().map(Option::unwrap_or_default);
        let [large, small, both, plain] = addresses(&pci, function).try_into().unwrap();
        assert!([large, both].iter().all(|&at| (prefetchable.0..prefetchable.1).contains(&at)), "{prefetchable:x?}");
        assert!([small, plain].iter().all(|&at| (memory.0..memory.1).contains(&at)), "{memory:x?}");
    }
    // The outer bridge forwards both in its memory window, because its prefetchable window may be above 4 GiB.
    let [_, outer, none] = pci.function(wide).windows();
    let (outer, inner) = (outer.unwrap(), pci.function(inner).windows()[2].unwrap());
    assert!(outer.0 <= inner.0 && inner.1 <= outer.1 && none.is_none());
    // A bridge without a prefetchable window.
    let mut pci = FakePci::default().with(ROOT, 1, 0, bridge(Some(0), false));
    pci.add(On::Behind(0), 1, 0, device(1).bar(0, MEMORY_PREFETCHABLE, 24));
    set_up(&mut pci, &windows());
    assert_eq!(pci.function(0).windows(), [None, Some((0xc000_0000, 0xc0ff_ffff)), None]);
}
