//! Memory services.

use uefi_raw::table::boot::AllocateType;

use super::*;

const DATA: MemoryType = MemoryType::LOADER_DATA;

#[test]
fn pages_are_allocated_where_they_are_wanted() {
    let mut test = Test::new();
    let at = test.put_number(0x50_0000);
    let (machine, services) = (&mut test.machine, &mut test.services);
    let mut allocate = |how, kind, pages, at| services.allocate_pages(machine, AllocateType(how), kind, pages, at);
    assert_eq!(allocate(2, DATA, 1, at), Ok(()));
    assert_eq!(allocate(2, DATA, 1, at), Err(Status::NOT_FOUND));
    assert_eq!(allocate(3, DATA, 1, at), Err(Status::INVALID_PARAMETER));
    assert_eq!(allocate(0, DATA, 1, 0), Err(Status::INVALID_PARAMETER));
    for kind in [MemoryType::CONVENTIONAL, MemoryType::PERSISTENT_MEMORY, MemoryType(0x6fff_ffff)] {
        assert_eq!(allocate(0, kind, 1, at), Err(Status::INVALID_PARAMETER), "{kind:?}");
    }
    assert_eq!(allocate(0, DATA, 1 << 40, at), Err(Status::OUT_OF_RESOURCES));
    assert_eq!(allocate(1, DATA, 2, at), Ok(()));
    assert_eq!(test.number(at), 0x4f_e000, "the highest below the address that was there");
    assert_eq!(test.services.free_pages(&mut test.machine, 0x4f_f000, 1), Ok(()), "a part of an allocation");
    assert_eq!(test.services.free_pages(&mut test.machine, 0x4f_f000, 1), Err(Status::NOT_FOUND));
    assert_eq!(test.services.free_pages(&mut test.machine, 0x4f_e001, 1), Err(Status::INVALID_PARAMETER));
}

#[test]
fn events_whose_functions_are_in_freed_pages_are_closed() {
    let mut test = Test::new();
    let at = test.put_number(0x40_0000);
    let (machine, services) = (&mut test.machine, &mut test.services);
    services.allocate_pages(machine, AllocateType::ADDRESS, MemoryType::LOADER_CODE, 2, at).unwrap();
    let event = |test: &mut Test, function| {
        let place = test.put_number(0);
        test.services.create_event(&mut test.machine, 0x200, 8, function, 0, 0, place).unwrap();
        test.number(place)
    };
    let (kept, closed) = (event(&mut test, 0x40_0ff8), event(&mut test, 0x40_1000));
    test.services.free_pages(&mut test.machine, 0x40_1000, 1).unwrap();
    assert_eq!(test.services.signal_event(closed), Err(Status::INVALID_PARAMETER));
    assert_eq!(test.services.signal_event(kept), Ok(()));
}

#[test]
fn nothing_is_taken_if_its_place_cannot_be_written() {
    use crate::hal::{Protect, paging};
    let mut test = Test::new();
    let page = |at| PhysRange::new(PhysAddr::new(at), 0x1000).unwrap();
    let at = 0x30_0000;
    test.machine.memory.store(at, &[0; 16]);
    test.machine.protect(page(at), paging::Access::Constants, page(0x31_0000)).unwrap();
    let (machine, services) = (&mut test.machine, &mut test.services);
    let key = services.memory.key();
    assert_eq!(services.allocate_pages(machine, AllocateType::ANY_PAGES, DATA, 1, at), Err(Status::INVALID_PARAMETER));
    assert_eq!(services.allocate_pool(machine, DATA, 8, at), Err(Status::INVALID_PARAMETER));
    assert_eq!(services.create_event(machine, 0, 8, 0, 0, 0, at), Err(Status::INVALID_PARAMETER));
    // The place of a new handle, and a handle that is a constant.
    let guid = test.put_guid(ONE);
    let list = test.put(&[guid, 0x1234, 0].map(u64::to_le_bytes).concat());
    let (machine, services) = (&mut test.machine, &mut test.services);
    assert_eq!(services.install_protocol_interface(machine, at, guid, 0, 0x1234), Err(Status::INVALID_PARAMETER));
    assert_eq!(services.install_multiple(machine, at, list), Err(Status::INVALID_PARAMETER));
    assert_eq!(services.handles.locate(crate::efi::handles::Search::Protocol(ONE)).count(), 0);
    let handle = services.install(None, TWO, 0x1234).unwrap();
    machine.memory.store(at, &handle.raw().to_le_bytes());
    assert_eq!(services.install_protocol_interface(machine, at, guid, 0, 0x1234), Ok(()));
    assert_eq!(services.memory.key(), key);
}

#[test]
fn what_the_map_shows_as_free_can_be_allocated_at_its_address() {
    let mut test = Test::new();
    let free = test.services.memory.descriptors().find(|shown| shown.ty == MemoryType::CONVENTIONAL).unwrap();
    let at = test.put_number(free.phys_start);
    let (machine, services) = (&mut test.machine, &mut test.services);
    let result = services.allocate_pages(machine, AllocateType::ADDRESS, MemoryType::LOADER_CODE, free.page_count, at);
    assert_eq!(result, Ok(()));
}

#[test]
fn the_map_is_asked_for_its_length_first() {
    let mut test = Test::new();
    let [len, key, step, version] = core::array::from_fn(|_| test.put_number(0));
    let needed = test.services.memory.descriptors_len() as u64;
    let places = MapPlaces { len, map: 0, key, descriptor_len: step, version };
    let map = |test: &mut Test, places| test.services.memory_map(&mut test.machine, &places);
    assert_eq!(map(&mut test, places), Err(Status::BUFFER_TOO_SMALL));
    assert_eq!((test.number(len), test.number(step), test.number(version)), (needed, 48, 1));
    // A null buffer that is long enough.
    assert_eq!(map(&mut test, places), Err(Status::INVALID_PARAMETER));
    assert_eq!(map(&mut test, MapPlaces { len: 0, ..places }), Err(Status::INVALID_PARAMETER));
    let buffer = test.put(&[0xcc; 0x400]);
    test.machine.memory.store(len, &0x400_u64.to_le_bytes());
    assert_eq!(map(&mut test, MapPlaces { map: buffer, ..places }), Ok(()));
    assert_eq!((test.number(len), test.number(key)), (needed, test.services.memory.key()));
    let first = test.services.memory.descriptors().next().unwrap();
    assert_eq!(test.number(buffer + 8), first.phys_start);
    assert_eq!(test.machine.memory.bytes(buffer + needed, 1), [0xcc]);
    // The key and the rest need not be asked for.
    let places = MapPlaces { len, map: buffer, key: 0, descriptor_len: 0, version: 0 };
    assert_eq!(map(&mut test, places), Ok(()));
}

#[test]
fn a_buffer_for_a_device_is_memory_of_the_map() {
    let mut test = Test::new();
    let at = test.put(&[0; 0x3000]);
    // Across regions of other types.
    let map: std::vec::Vec<_> = test.services.memory.map().regions().collect();
    let whole = map.windows(2).find(|pair| pair[0].range.end() == pair[1].range.start()).unwrap();
    let buffer = |at, len| test.services.device_buffer(at, len);
    assert_eq!(buffer(at, 0x3000).map(PhysRange::len), Ok(0x3000));
    assert!(buffer(whole[0].range.end().get() - 1, 2).is_ok());
    let end = map.last().unwrap().range.end().get();
    for (at, len) in [(end - 1, 2), (end, 1), (0xa000_0000, 1 << 20), (u64::MAX - 1, 1), (u64::MAX, 2)] {
        assert_eq!(buffer(at, len), Err(Status::INVALID_PARAMETER), "{at:#x}");
    }
    // What the firmware keeps for itself is none, but a program may read to its stack.
    let own = test.services.memory.reserve_pages(2).unwrap();
    test.services.memory.keep_stack(PhysRange::new(PhysAddr::new(at), 0x2000).unwrap());
    let buffer = |at, len| test.services.device_buffer(at, len);
    assert!(buffer(at + 0x1000, 0x800).is_ok());
    for (at, len) in [(own.start().get(), 0x10), (own.start().get() - 1, 2), (own.end().get() - 1, 0x10)] {
        assert_eq!(buffer(at, len), Err(Status::INVALID_PARAMETER), "{at:#x}");
    }
}

#[test]
fn a_pool_is_freed_by_its_address_only() {
    let mut test = Test::new();
    let at = test.put_number(0);
    let (machine, services) = (&mut test.machine, &mut test.services);
    assert_eq!(services.allocate_pool(machine, DATA, 100, 0), Err(Status::INVALID_PARAMETER));
    assert_eq!(services.allocate_pool(machine, MemoryType::CONVENTIONAL, 100, at), Err(Status::INVALID_PARAMETER));
    assert_eq!(services.allocate_pool(machine, DATA, 1 << 40, at), Err(Status::OUT_OF_RESOURCES));
    assert_eq!(services.allocate_pool(machine, DATA, 100, at), Ok(()));
    let pool = test.number(at);
    assert!(pool.is_multiple_of(8));
    for wrong in [0, pool + 8, 0xdead_beef, u64::MAX] {
        assert_eq!(test.services.free_pool(&mut test.machine, wrong), Err(Status::INVALID_PARAMETER));
    }
    assert_eq!(test.services.free_pool(&mut test.machine, pool), Ok(()));
    assert_eq!(test.services.free_pool(&mut test.machine, pool), Err(Status::INVALID_PARAMETER));
}

#[test]
fn results_are_not_written_to_the_firmwares_own_memory() {
    let mut test = Test::new();
    let own = crate::layout::FIRMWARE_RAM.start().get();
    let (machine, services) = (&mut test.machine, &mut test.services);
    for at in [0, 8, own, own + 0x8000, u64::MAX - 3] {
        assert_eq!(services.allocate_pool(machine, DATA, 8, at), Err(Status::INVALID_PARAMETER), "{at:#x}");
    }
}
