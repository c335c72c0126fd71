//! Tests of the addresses that are assigned.

use super::*;
use crate::pci::register::{self, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, COMMAND_SERR};

/// COMMAND of a function that decodes, and of a bridge that forwards everything.
const DECODES: u16 = COMMAND_IO | COMMAND_MEMORY | COMMAND_SERR;
const PASSES: u16 = COMMAND_MASTER | COMMAND_SERR;

#[test]
fn all_memory_goes_below_4_gib_while_it_fits() {
    let function = device(1).bar(0, MEMORY, 20).bar(1, IO, 5).bar(2, WIDE, 24).bar(4, WIDE_PLAIN, 14);
    let mut pci = FakePci::default().with(ROOT, 1, 0, function);
    set_up(&mut pci, &windows());
    assert_eq!(addresses(&pci, 0), [0xc100_0000, 0x1000, 0xc000_0000, 0xc110_0000]);
    assert_eq!(pci.function(0).command(), DECODES);
}

#[test]
fn all_64_bit_bars_go_above_4_gib_if_not_all_fits_below() {
    let mut pci = FakePci::default();
    let large = pci.add(ROOT, 1, 0, device(1).bar(0, WIDE, 33).bar(2, MEMORY, 16));
    let plain = pci.add(ROOT, 2, 0, device(2).bar(0, WIDE_PLAIN, 14));
    let port = pci.add(ROOT, 3, 0, port());
    let behind = pci.add(On::Behind(port), 0, 0, device(3).bar(0, WIDE, 21).bar(2, WIDE_PLAIN, 14));
    let (_, plan) = set_up(&mut pci, &windows());
    assert_eq!(plan.unassigned, []);
    assert_eq!(plan.above_4_gib(), range(8 * GIB - 2 * MIB - 0x4000, 16 * GIB));
    assert_eq!(addresses(&pci, large), [8 * GIB, 0xc020_0000]);
    assert_eq!(addresses(&pci, plain), [8 * GIB - 2 * MIB - 0x4000]);
    assert_eq!(addresses(&pci, behind), [8 * GIB - 2 * MIB, 0xc000_0000]);
    assert_eq!(plan.windows[1].prefetchable, range(8 * GIB - 2 * MIB, 8 * GIB));
    assert_eq!(plan.windows[1].memory, range(0xc000_0000, 0xc020_0000));
}

#[test]
fn nested_bridges_forward_ports_and_64_bit_memory() {
    let mut pci = FakePci::default();
    let outer = pci.add(ROOT, 1, 0, bridge(Some(0), true));
    let inner = pci.add(On::Behind(outer), 1, 0, bridge(Some(0), true));
    let leaf = pci.add(On::Behind(inner), 1, 0, device(1).bar(0, WIDE, 33).bar(2, IO, 5));
    let (_, plan) = set_up(&mut pci, &windows());
    assert_eq!(plan.unassigned, []);
    assert_eq!(addresses(&pci, leaf), [8 * GIB, 0x1000]);
    for bridge in [outer, inner] {
        assert_eq!(pci.function(bridge).windows(), [Some((0x1000, 0x1fff)), None, Some((8 * GIB, 16 * GIB - 1))]);
    }
}

#[test]
fn bars_behind_a_bridge_without_a_64_bit_window_stay_below_4_gib() {
    let mut pci = FakePci::default();
    let outer = pci.add(ROOT, 1, 0, bridge(Some(0), false));
    let inner = pci.add(On::Behind(outer), 1, 0, bridge(Some(0), true));
    let leaf = pci.add(On::Behind(inner), 1, 0, device(1).bar(0, WIDE, 20));
    pci.add(ROOT, 2, 0, device(2).bar(0, WIDE, 32));
    let (_, plan) = set_up(&mut pci, &windows());
    assert_eq!(plan.unassigned, []);
    assert_eq!(addresses(&pci, leaf), [0xc000_0000]);
    assert!(plan.windows.iter().all(|windows| windows.prefetchable.is_empty()));
}

/// The warning names the room that is short, so that its advice helps.
#[test]
fn a_bar_without_an_address_says_whether_it_could_be_above_4_gib() {
    let lost = |function: FakeFunction, behind: Option<FakeFunction>| {
        let mut pci = FakePci::default();
        let on = behind.map_or(ROOT, |bridge| On::Behind(pci.add(ROOT, 1, 0, bridge)));
        pci.add(on, 2, 0, function);
        let (_, plan) = set_up(&mut pci, &windows());
        plan.unassigned.iter().map(|lost| lost.may_be_high).collect::<Vec<_>>()
    };
    for kind in [WIDE, WIDE_PLAIN] {
        assert_eq!(lost(device(1).bar(0, kind, 40), None), [true]);
    }
    assert_eq!(lost(device(1).bar(0, WIDE, 40), Some(bridge(None, true))), [true]);
    assert_eq!(lost(device(1).bar(0, WIDE_PLAIN, 31), Some(bridge(None, true))), [false]);
    for narrow in [bridge(None, false), FakeFunction::narrow_bridge(0x1_1b36)] {
        assert_eq!(lost(device(1).bar(0, WIDE, 31), Some(narrow)), [false]);
    }
    assert_eq!(lost(device(1).bar(0, MEMORY, 31), None), [false]);
}

#[test]
fn a_bar_never_wraps_past_its_window() {
    // The aperture ends with the 32-bit space: the second mebibyte would start at address zero.
    let mut pci = FakePci::default().with(ROOT, 1, 0, device(1).bar(0, MEMORY, 20)).with(
        ROOT,
        2,
        0,
        device(2).bar(0, MEMORY, 20),
    );
    let (_, plan) = set_up(&mut pci, &low_only(0xfff0_0000, 1 << 32));
    assert_eq!((addresses(&pci, 0), addresses(&pci, 1)), ([0xfff0_0000].into(), [0].into()));
    assert_eq!(plan.unassigned.len(), 1);

    // An aperture that ends with the 64-bit space: aligning the address or adding the size would wrap.
    let all = Apertures::new(LowApertures::new(PortRange::ALL, range(0, 0)), Some(range(u64::MAX - GIB, u64::MAX)), 64);
    for orders in [[63, 63], [62, 30], [30, 30]] {
        let mut pci = FakePci::default();
        for (number, order) in (1..).zip(orders) {
            pci.add(ROOT, number, 0, device(number.into()).bar(0, WIDE, order));
        }
        let (_, plan) = set_up(&mut pci, &all);
        assert!(plan.assigned.is_empty(), "{:?}", plan.assigned);
    }

    // Sizes behind a bridge whose sum wraps.
    let mut pci = FakePci::default().with(ROOT, 1, 0, bridge(None, true));
    for number in 1..5 {
        pci.add(On::Behind(0), number, 0, device(number.into()).bar(0, WIDE, 63).bar(2, MEMORY, 12));
    }
    let (_, plan) = set_up(&mut pci, &windows());
    assert_eq!((plan.assigned.len(), plan.unassigned.len()), (4, 4));
}

#[test]
fn alignment_holes_are_filled() {
    let mut pci = FakePci::default();
    let large = pci.add(ROOT, 1, 0, device(1).bar(0, MEMORY, 28));
    let small = pci.add(ROOT, 2, 0, device(2).bar(0, MEMORY, 27).bar(1, MEMORY, 12));
    let (_, plan) = set_up(&mut pci, &low_only(0xe800_0000 - 0x1000, 0x1_0000_0000));
    assert_eq!(plan.unassigned, []);
    assert_eq!(addresses(&pci, large), [0xf000_0000]);
    assert_eq!(addresses(&pci, small), [0xe800_0000, 0xe7ff_f000]);
}

#[test]
fn no_bar_is_placed_beyond_the_physical_address_bits() {
    let mut pci =
        FakePci::default().with(ROOT, 1, 0, device(1).bar(0, WIDE, 35)).with(ROOT, 2, 0, device(2).bar(0, WIDE, 30));
    let windows = |bits| {
        Apertures::new(
            LowApertures::new(PortRange::ALL, range(0xc000_0000, 0xd000_0000)),
            Some(range(8 * GIB, 1 << 46)),
            bits,
        )
    };
    let (_, plan) = set_up(&mut pci, &windows(36));
    assert_eq!(plan.unassigned, []);
    assert_eq!(addresses(&pci, 0), [32 * GIB]);
    let (_, plan) = set_up(&mut pci, &windows(35));
    assert_eq!(plan.unassigned.len(), 1);
    assert_eq!((addresses(&pci, 0), addresses(&pci, 1)), ([0].into(), [8 * GIB].into()));
}

/// The apertures of an AMD CPU in QEMU: one up to 1012 GiB, and one from 1 TiB on.
#[test]
fn of_two_apertures_above_4_gib_the_first_that_holds_everything_is_used() {
    let rooms = [range(8 * GIB, 1012 * GIB), range(1024 * GIB, 1 << 48)];
    let windows =
        |bits| Apertures::new(LowApertures::new(PortRange::ALL, range(0xc000_0000, 0xfec0_0000)), rooms, bits);
    let place = |orders: &[u8], bits| {
        let mut pci = FakePci::default();
        for (number, &order) in (1..).zip(orders) {
            let port = pci.add(ROOT, number, 0, port());
            pci.add(On::Behind(port), 0, 0, device(number.into()).bar(0, WIDE, order));
        }
        let (_, plan) = set_up(&mut pci, &windows(bits));
        (plan.assigned.iter().map(|place| place.address / GIB).collect::<Vec<_>>(), plan.unassigned.len())
    };
    assert_eq!(place(&[35, 36], 48), ([32, 64].into(), 0));
    // One BAR of 512 GiB, eight of 128 GiB, and small ones.
    assert_eq!(place(&[39], 48), ([1024].into(), 0));
    assert_eq!(place(&[37; 8], 48), ((0..8).map(|number| 1024 + 128 * number).collect(), 0));
    assert_eq!(place(&[33, 39, 33], 48), ([1536, 1024, 1544].into(), 0));
    // The CPU's address bits reach only the first aperture.
    assert_eq!(place(&[37; 8], 40), ((1..8).map(|number| 128 * number).take(6).collect(), 2));
    // If no aperture holds all, the largest is used.
    assert_eq!(place(&[46; 4], 48), ([1 << 16, 2 << 16, 3 << 16].into(), 1));
}

#[test]
fn the_largest_bar_is_left_out_first() {
    let mut pci = FakePci::default();
    let port = pci.add(ROOT, 1, 0, port());
    let large = pci.add(On::Behind(port), 0, 0, device(1).bar(0, MEMORY, 29).bar(1, MEMORY, 12));
    let small = pci.add(ROOT, 2, 0, device(2).bar(0, MEMORY, 28));
    let (_, plan) = set_up(&mut pci, &low_only(0xe000_0000, 0xfec0_0000));
    assert_eq!(addresses(&pci, large), [0, 0xf000_0000]);
    assert_eq!(addresses(&pci, small), [0xe000_0000]);
    assert_eq!(plan.unassigned.len(), 1);
}

#[test]
fn of_equal_bars_only_the_last_ones_that_do_not_fit_are_left_out() {
    // Less than a page, a page and more. The smallest room is one byte too small for all of them.
    for order in [4, 12, 20] {
        let size = 1 << order.max(12);
        for fitting in [0, 1, 7, 8] {
            let mut pci = FakePci::default();
            for number in 1..9 {
                pci.add(ROOT, number, 0, device(number.into()).bar(0, MEMORY, order));
            }
            let start = 0xc000_0000;
            let (_, plan) = set_up(&mut pci, &low_only(start, start + fitting * size + size - 1));
            let placed: Vec<_> = plan.assigned.iter().map(|place| u64::from(place.function)).collect();
            assert_eq!(placed, (0..fitting.min(8)).collect::<Vec<_>>(), "room for {fitting} of order {order}");
        }
    }
}

#[test]
fn a_bar_behind_a_window_of_the_same_size_is_left_out_in_order() {
    for (room, placed) in [(3, &["first", "behind", "last"][..]), (2, &["first", "behind"]), (1, &["first"]), (0, &[])]
    {
        let mut pci = FakePci::default();
        let mut names = Vec::from([("first", pci.add(ROOT, 1, 0, device(1).bar(0, MEMORY, 21)))]);
        let bridge = pci.add(ROOT, 2, 0, bridge(None, true));
        names.push(("behind", pci.add(On::Behind(bridge), 1, 0, device(2).bar(0, MEMORY, 21))));
        names.push(("last", pci.add(ROOT, 3, 0, device(3).bar(0, MEMORY, 21))));
        set_up(&mut pci, &low_only(0xc000_0000, 0xc000_0000 + (room << 21)));
        names.retain(|(_, function)| addresses(&pci, *function) != [0]);
        assert_eq!(names.iter().map(|(name, _)| *name).collect::<Vec<_>>(), placed);
    }
}

#[test]
fn devices_on_the_root_bus_keep_their_ports_if_bridges_need_more_than_there_are() {
    let mut pci = FakePci::default();
    let beside = pci.add(ROOT, 31, 0, device(99).bar(4, IO, 8));
    let behind: Vec<_> = (1..21)
        .map(|number| {
            let port = pci.add(ROOT, number, 0, port());
            pci.add(On::Behind(port), 0, 0, device(number.into()).bar(0, IO, 5).bar(1, IO, 5))
        })
        .collect();
    let (_, plan) = set_up(&mut pci, &windows());
    // There are 15 blocks of 4 KiB, of which the last is partly used.
    assert_eq!(plan.assigned.len(), 1 + 14 * 2);
    assert_eq!(addresses(&pci, beside), [0xf000]);
    assert_eq!(addresses(&pci, behind[13]), [0xe000, 0xe020]);
    assert_eq!(addresses(&pci, behind[14]), [0, 0]);
}

#[test]
fn ports_behind_a_bridge_without_an_io_window_take_no_room() {
    let mut pci = FakePci::default();
    let none = pci.add(ROOT, 1, 0, bridge(None, true));
    let lost = pci.add(On::Behind(none), 0, 0, device(1).bar(0, IO, 5).bar(1, MEMORY, 12));
    let beside = pci.add(ROOT, 2, 0, device(2).bar(0, IO, 5));
    let (_, plan) = set_up(&mut pci, &windows());
    assert_eq!(addresses(&pci, lost), [0, 0xc000_0000]);
    assert_eq!(addresses(&pci, beside), [0x1000]);
    assert_eq!((plan.unassigned.len(), plan.windows[1].io), (1, PortRange::default()));
    assert_eq!(pci.function(none).command(), COMMAND_MEMORY | PASSES);
}

#[test]
fn a_bridge_forwards_only_what_is_behind_it() {
    let mut pci = FakePci::default();
    let memory = pci.add(ROOT, 1, 0, port());
    let both = pci.add(ROOT, 2, 0, port());
    let quiet = pci.add(ROOT, 3, 0, port());
    let empty = pci.add(ROOT, 4, 0, port());
    let wide = pci.add(ROOT, 5, 0, bridge(Some(1), true).set(register::IO_WINDOW_UPPER, 0x0001_0001));
    pci.add(On::Behind(memory), 0, 0, device(1).bar(0, MEMORY, 12));
    pci.add(On::Behind(both), 0, 0, device(2).bar(0, MEMORY, 12).bar(1, IO, 5));
    pci.add(On::Behind(quiet), 0, 0, device(3));
    pci.add(On::Behind(wide), 0, 0, device(4).bar(0, WIDE, 20).bar(2, IO, 5));
    set_up(&mut pci, &windows());
    let open = |index: usize| pci.function(index).windows();
    let block = |number: u64| Some((0xc000_0000 + number * 2 * MIB, 0xc000_0000 + (number + 1) * 2 * MIB - 1));
    assert_eq!(open(memory), [None, block(0), None]);
    assert_eq!(open(both), [Some((0x1000, 0x1fff)), block(1), None]);
    assert_eq!((open(quiet), pci.function(quiet).command()), ([None; 3], PASSES));
    assert_eq!((open(empty), pci.function(empty).command()), ([None; 3], 0));
    assert_eq!(open(wide), [Some((0x2000, 0x2fff)), None, block(2)]);
    assert_eq!(pci.function(wide).command(), COMMAND_IO | COMMAND_MEMORY | PASSES);
}

/// After a reset the windows are open, from 0 on.
#[test]
fn the_windows_of_a_bridge_that_forwards_nothing_are_closed() {
    let mut pci = FakePci::default();
    let empty = [port(), bridge(Some(1), true), bridge(None, false), FakeFunction::narrow_bridge(0x1_1b36)];
    let mut closed: Vec<_> = (1..).zip(empty).map(|(device, bridge)| pci.add(ROOT, device, 0, bridge)).collect();
    // A bridge with a function that needs nothing, one whose own BAR has no address, and one behind an empty one.
    closed.push(pci.add(ROOT, 8, 0, port()));
    pci.add(On::Behind(closed[4]), 0, 0, device(1));
    closed.push(pci.add(ROOT, 9, 0, port().bar(0, MEMORY, 31)));
    pci.add(On::Behind(closed[5]), 0, 0, device(2).bar(0, MEMORY, 12));
    closed.push(pci.add(On::Behind(closed[1]), 1, 0, port()));
    // A bridge that forwards ports, and one that forwards memory.
    let ports = pci.add(ROOT, 10, 0, port());
    pci.add(On::Behind(ports), 0, 0, device(3).bar(0, IO, 5));
    let memory = pci.add(ROOT, 11, 0, port());
    pci.add(On::Behind(memory), 0, 0, device(4).bar(0, MEMORY, 12));
    assert!(closed.iter().all(|&index| pci.function(index).windows_as_read()[1] == Some((0, 0xf_ffff))));
    set_up(&mut pci, &windows());
    for index in closed {
        assert_eq!(pci.function(index).windows_as_read(), [None; 3], "{index}");
    }
    assert_eq!(pci.function(ports).windows_as_read(), [Some((0x1000, 0x1fff)), None, None]);
    let [io, memory, prefetchable] = pci.function(memory).windows_as_read();
    assert!(memory.is_some() && prefetchable.is_none());
    assert_eq!(io, Some((0, 0xfff)), "unchanged: it does not decode ports");
}

#[test]
fn small_memory_bars_do_not_share_a_page() {
    let function = device(1).bar(0, MEMORY, 4).bar(1, MEMORY, 4);
    let mut pci = FakePci::default().with(ROOT, 1, 0, function);
    set_up(&mut pci, &windows());
    assert_eq!(addresses(&pci, 0), [0xc000_0000, 0xc000_1000]);
}

#[test]
fn a_bridge_whose_own_bar_has_no_address_forwards_nothing() {
    let mut pci = FakePci::default().with(ROOT, 1, 0, port().bar(0, MEMORY, 31));
    pci.add(On::Behind(0), 0, 0, device(1).bar(0, MEMORY, 12));
    set_up(&mut pci, &windows());
    assert_eq!(pci.function(0).command(), 0);
}

#[test]
fn an_io_window_that_stays_empty_is_closed_after_it_was_probed() {
    let room = Apertures::new(LowApertures::new(PortRange::default(), range(0xc000_0000, 0xd000_0000)), None, 40);
    let mut pci = FakePci::default().with(ROOT, 1, 0, port());
    pci.add(On::Behind(0), 0, 0, device(1).bar(0, IO, 5));
    set_up(&mut pci, &room);
    assert_eq!(pci.function(0).get(register::IO_WINDOW), 0x00f0);
    assert_eq!(pci.function(0).command(), PASSES);
}

#[test]
fn functions_decode_their_placed_bars_and_chipset_functions_stay_as_found() {
    let all = device(1).bar(0, MEMORY, 12).bar(1, IO, 5).bar(2, WIDE, 14);
    let mut pci = FakePci::default()
        .with(ROOT, 1, 0, all.clone())
        .with(ROOT, 2, 0, all.clone().bar(4, MEMORY, 31))
        .with(ROOT, 3, 0, all.clone().bar(4, IO, 17))
        .with(ROOT, 4, 0, device(4).rom(30).bar(0, MEMORY, 31))
        .with(ROOT, 5, 0, device(5))
        .with(ROOT, 6, 0, all.clone())
        .with(ROOT, 7, 0, all.set(register::COMMAND, COMMAND_IO.into()));
    let board =
        ChipsetFunctions { functions: &[chipset_function(6), chipset_function(7)], ..ChipsetFunctions::default() };
    let topology = scan(&mut pci, 0, board);
    let plan = plan(&topology, &windows()).unwrap();
    apply(&mut pci, &topology, &plan, &|_, _| None);
    let commands = [0, 1, 2, 3, 4, 5, 6].map(|index| pci.function(index).command());
    let ports = COMMAND_IO | COMMAND_SERR;
    let memory = COMMAND_MEMORY | COMMAND_SERR;
    assert_eq!(commands, [DECODES, ports, memory, ports, 0, 0, ports]);
    assert!(pci.misuse.is_empty(), "{:?}", pci.misuse);
}

#[test]
fn a_rom_gets_an_address_and_stays_disabled() {
    let mut pci = FakePci::default().with(ROOT, 1, 0, device(1).bar(0, MEMORY, 12).rom(16));
    let port = pci.add(ROOT, 2, 0, port());
    let behind = pci.add(On::Behind(port), 0, 0, device(2).rom(18));
    let odd = pci.add(ROOT, 3, 0, device(3).bar(0, MEMORY, 12).writable(register::ROM, 0xff00_f801));
    let in_chipset = pci.add(ROOT, 4, 0, device(4).rom(16));
    let board = ChipsetFunctions { functions: &[chipset_function(4)], ..ChipsetFunctions::default() };
    let topology = scan(&mut pci, 0, board);
    let plan = plan(&topology, &windows()).unwrap();
    apply(&mut pci, &topology, &plan, &|_, _| None);
    let rom = |index: usize| pci.function(index).get(register::ROM);
    assert_eq!((rom(0), rom(behind), rom(odd), rom(in_chipset)), (0xc020_0000, 0xc000_0000, 0, 0));
    assert_eq!(pci.function(port).windows()[1], Some((0xc000_0000, 0xc01f_ffff)));
    assert_eq!(pci.function(odd).command(), DECODES, "the ROM does not keep the function from decoding");
}

#[test]
fn an_added_piix_ide_controller_decodes_its_channels() {
    let ide = |id| FakeFunction::new(id, 0x01_0180).bar(4, IO, 4).writable(0x40, u32::MAX);
    let mut pci = FakePci::default().with(ROOT, 1, 0, ide(0x7010_8086)).with(ROOT, 2, 0, ide(0x7111_8086)).with(
        ROOT,
        3,
        0,
        ide(0x0646_1095),
    );
    set_up(&mut pci, &windows());
    assert_eq!([0, 1, 2].map(|index| pci.function(index).get(0x40)), [0x8000_8000, 0x8000_8000, 0]);
}
