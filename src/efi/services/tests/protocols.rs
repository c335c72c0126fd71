//! Protocol services.

use uefi_raw::protocol::driver::DriverBindingProtocol;

use super::*;
use crate::efi::device_path::PathBuilder;

#[test]
fn a_protocol_is_installed_on_a_new_handle_or_on_one_that_is_there() {
    let mut test = Test::new();
    let (one, two) = (test.put_guid(ONE), test.put_guid(TWO));
    let (new, wrong) = (test.put_number(0), test.put_number(77));
    let install = |test: &mut Test, at, guid, kind| {
        test.services.install_protocol_interface(&mut test.machine, at, guid, kind, 0x1000)
    };
    assert_eq!(install(&mut test, 0, one, 0), Err(Status::INVALID_PARAMETER));
    assert_eq!(install(&mut test, new, 0, 0), Err(Status::INVALID_PARAMETER));
    assert_eq!(install(&mut test, new, one, 1), Err(Status::INVALID_PARAMETER));
    assert_eq!(install(&mut test, wrong, one, 0), Err(Status::INVALID_PARAMETER));
    assert_eq!(install(&mut test, new, one, 0), Ok(()));
    assert_eq!(install(&mut test, new, one, 0), Err(Status::INVALID_PARAMETER), "it has it");
    assert_eq!(install(&mut test, new, two, 0), Ok(()));
}

#[test]
fn a_protocol_that_a_handle_has_not_is_unsupported_and_null() {
    let mut test = Test::new();
    let handle = test.install(ONE, 0x1000);
    let (one, two, at) = (test.put_guid(ONE), test.put_guid(TWO), test.put_number(1));
    let get = |test: &mut Test, on, guid, at| test.services.handle_protocol(&mut test.machine, on, guid, at);
    assert_eq!(get(&mut test, handle, one, at), Ok(()));
    assert_eq!(test.number(at), 0x1000);
    assert_eq!(get(&mut test, handle, two, at), Err(Status::UNSUPPORTED));
    assert_eq!(test.number(at), 0);
    for (on, guid, at) in [(0, one, at), (77, one, at), (handle, 0, at), (handle, one, 0)] {
        assert_eq!(get(&mut test, on, guid, at), Err(Status::INVALID_PARAMETER));
    }
}

#[test]
fn a_protocol_is_opened_in_each_way() {
    let mut test = Test::new();
    let (handle, image) = (test.install(ONE, 0x1000), test.install(TWO, 0));
    let (one, two, at) = (test.put_guid(ONE), test.put_guid(TWO), test.put_number(1));
    let open = |test: &mut Test, guid, at, agent, attributes| {
        test.services.open_protocol(&mut test.machine, handle, guid, at, agent, attributes)
    };
    for attributes in [1, 2, 0x20] {
        assert_eq!(open(&mut test, one, at, (image, 0), attributes), Ok(()), "{attributes}");
        assert_eq!(test.number(at), 0x1000);
    }
    assert_eq!(open(&mut test, one, 0, (image, 0), 4), Ok(()), "a test writes nothing");
    assert_eq!(open(&mut test, two, 0, (image, 0), 4), Err(Status::UNSUPPORTED));
    assert_eq!(open(&mut test, two, at, (image, 0), 2), Err(Status::UNSUPPORTED));
    assert_eq!(test.number(at), 0);
    assert_eq!(open(&mut test, one, at, (image, 0), 0x20), Err(Status::ACCESS_DENIED), "exclusively by another");
    for (guid, at, agent, attributes) in
        [(0, at, (image, 0), 2), (one, 0, (image, 0), 2), (one, at, (0, 0), 0x20), (one, at, (image, 0), 3)]
    {
        assert_eq!(open(&mut test, guid, at, agent, attributes), Err(Status::INVALID_PARAMETER));
    }
    let (list, count) = (test.put_number(0), test.put_number(0));
    let (machine, services) = (&mut test.machine, &mut test.services);
    for (on, guid) in [(handle, two), (0, one), (77, one)] {
        assert_eq!(services.open_protocol_information(machine, on, guid, list, count), Err(Status::NOT_FOUND));
    }
    for (guid, list, count) in [(0, list, count), (one, 0, count), (one, list, 0)] {
        let result = services.open_protocol_information(machine, handle, guid, list, count);
        assert_eq!(result, Err(Status::INVALID_PARAMETER));
    }
    assert_eq!(services.open_protocol_information(machine, handle, one, list, count), Ok(()));
    assert_eq!(test.number(count), 3);
    let first = test.numbers(test.number(list), 3);
    assert_eq!(first, [image, 0, 1 << 32 | 1]);
    let (machine, services) = (&mut test.machine, &mut test.services);
    assert_eq!(services.close_protocol(machine, handle, one, (image, 0)), Ok(()));
    assert_eq!(services.close_protocol(machine, handle, one, (image, 0)), Err(Status::NOT_FOUND));
    for (on, guid, agent) in
        [(handle, one, (0, 0)), (handle, 0, (image, 0)), (0, one, (image, 0)), (handle, one, (image, 77))]
    {
        assert_eq!(services.close_protocol(machine, on, guid, agent), Err(Status::INVALID_PARAMETER));
    }
}

#[test]
fn a_driver_holds_a_protocol_and_is_told_so() {
    let mut test = Test::new();
    let (handle, image, other) = (test.install(ONE, 0x1000), test.install(TWO, 0), test.install(TWO, 1));
    let (one, at) = (test.put_guid(ONE), test.put_number(1));
    let (machine, services) = (&mut test.machine, &mut test.services);
    assert_eq!(services.open_protocol(machine, handle, one, at, (image, other), 0x10), Ok(()));
    machine.memory.store(at, &[0xee; 8]);
    // The same driver gets the interface, another does not.
    let again = services.open_protocol(machine, handle, one, at, (image, other), 0x10);
    assert_eq!((again, machine.number(at)), (Err(Status::ALREADY_STARTED), Ok(0x1000)));
    for attributes in [0x10, 0x20, 0x30] {
        let result = services.open_protocol(machine, handle, one, at, (other, image), attributes);
        assert_eq!(result, Err(Status::ACCESS_DENIED), "{attributes:#x}");
    }
    for (agent, attributes) in [
        ((0, other), 8),
        ((image, 0), 8),
        ((image, handle), 8),
        ((0, other), 0x10),
        ((image, 0), 0x10),
        ((77, 0), 0x20),
    ] {
        let result = services.open_protocol(machine, handle, one, at, agent, attributes);
        assert_eq!(result, Err(Status::INVALID_PARAMETER), "{agent:?} {attributes:#x}");
    }
    let denied = Err(Status::ACCESS_DENIED);
    assert_eq!(services.uninstall_protocol_interface(machine, handle, one, 0x1000), denied);
    assert_eq!(services.reinstall_protocol_interface(machine, handle, one, 0x1000, 0x2000), denied);
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut test = Test::new();
    test.install(ONE, 0x1000);
    let (one, two, at, list) = (test.put_guid(ONE), test.put_guid(TWO), test.put_number(0), test.put_number(0));
    let path = PathBuilder::new().vendor_media(ONE).unwrap().end().unwrap();
    let path = test.put(&path);
    let path_at = test.put_number(path);
    let (machine, services) = (&mut test.machine, &mut test.services);
    assert_eq!(services.locate_handle(machine, 2, two, 0, at, list), Err(Status::NOT_FOUND));
    assert_eq!(services.locate_handle_buffer(machine, 2, two, 0, at, list), Err(Status::NOT_FOUND));
    assert_eq!(services.locate_protocol(machine, two, 0, at), Err(Status::NOT_FOUND));
    assert_eq!(services.locate_device_path(machine, two, path_at, at), Err(Status::NOT_FOUND));
    assert_eq!(services.locate_device_path(machine, one, path_at, at), Err(Status::NOT_FOUND), "no path");
    // Null pointers and unknown kinds.
    let invalid = Err(Status::INVALID_PARAMETER);
    assert_eq!(services.locate_handle(machine, 2, 0, 0, at, list), invalid);
    assert_eq!(services.locate_handle(machine, 3, one, 0, at, list), invalid);
    assert_eq!(services.locate_handle(machine, 1, 0, 0, at, list), invalid);
    assert_eq!(services.locate_handle(machine, 0, 0, 0, 0, list), invalid);
    assert_eq!(services.locate_handle_buffer(machine, 0, 0, 0, 0, list), invalid);
    assert_eq!(services.locate_protocol(machine, one, 0, 0), invalid);
    assert_eq!(services.locate_protocol(machine, 0, 0, at), invalid);
    assert_eq!(services.locate_device_path(machine, 0, path_at, at), invalid);
    assert_eq!(services.locate_device_path(machine, one, 0, at), invalid);
    assert_eq!(services.locate_device_path(machine, one, list, at), invalid, "a null path");
}

#[test]
fn handles_are_located_with_the_length_that_they_take() {
    let mut test = Test::new();
    let handles = [test.install(ONE, 1), test.install(ONE, 2)];
    let (one, len, buffer) = (test.put_guid(ONE), test.put_number(8), test.put(&[0; 32]));
    let locate = |test: &mut Test, buffer| test.services.locate_handle(&mut test.machine, 2, one, 0, len, buffer);
    assert_eq!(locate(&mut test, 0), Err(Status::BUFFER_TOO_SMALL));
    assert_eq!(test.number(len), 16);
    assert_eq!(locate(&mut test, 0), Err(Status::INVALID_PARAMETER), "a null buffer that is long enough");
    assert_eq!(locate(&mut test, buffer), Ok(()));
    assert_eq!(test.numbers(buffer, 3), [handles[0], handles[1], 0]);
    let (count, list) = (test.put_number(0), test.put_number(0));
    let (machine, services) = (&mut test.machine, &mut test.services);
    assert_eq!(services.locate_handle_buffer(machine, 2, one, 0, count, list), Ok(()));
    assert_eq!(test.number(count), 2);
    let pool = test.number(list);
    assert_eq!(test.numbers(pool, 2), handles);
    assert_eq!(test.services.free_pool(&mut test.machine, pool), Ok(()));
    let (machine, services) = (&mut test.machine, &mut test.services);
    for (on, list, count) in [(77, list, count), (0, list, count), (handles[0], 0, count), (handles[0], list, 0)] {
        assert_eq!(services.protocols_per_handle(machine, on, list, count), Err(Status::INVALID_PARAMETER));
    }
    assert_eq!(services.protocols_per_handle(machine, handles[0], list, count), Ok(()));
    assert_eq!(test.number(count), 1);
    let guid = test.number(test.number(list));
    assert_eq!(test.machine.memory.bytes(guid, 16), ONE.to_bytes());
}

#[test]
fn who_registered_for_a_protocol_gets_each_new_handle_once() {
    let mut test = Test::new();
    let (one, at, interface) = (test.put_guid(ONE), test.put_number(0), test.put_number(0));
    let (machine, services) = (&mut test.machine, &mut test.services);
    assert_eq!(services.register_protocol_notify(machine, one, 77, at), Err(Status::INVALID_PARAMETER));
    services.create_event(machine, 0x200, 8, 0x1000, 5, 0, at).unwrap();
    let event = test.number(at);
    let (machine, services) = (&mut test.machine, &mut test.services);
    for (guid, event, at) in [(0, event, at), (one, 0, at), (one, event, 0)] {
        assert_eq!(services.register_protocol_notify(machine, guid, event, at), Err(Status::INVALID_PARAMETER));
    }
    assert_eq!(services.register_protocol_notify(machine, one, event, at), Ok(()));
    let key = test.number(at);
    test.install(ONE, 0x1000);
    assert_eq!(test.services.events.begin().map(|notification| notification.function.context), Some(5));
    let locate = |test: &mut Test| test.services.locate_protocol(&mut test.machine, one, key, interface);
    assert_eq!(locate(&mut test), Ok(()));
    assert_eq!(test.number(interface), 0x1000);
    assert_eq!(locate(&mut test), Err(Status::NOT_FOUND));
}

#[test]
fn a_device_is_located_by_the_longest_path_and_the_rest_is_returned() {
    let mut test = Test::new();
    let node = |guid| PathBuilder::new().vendor_media(guid).unwrap();
    let (short, long) = (node(ONE).end().unwrap(), node(ONE).vendor_media(TWO).unwrap().end().unwrap());
    let (short_at, long_at) = (test.put(&short), test.put(&long));
    let mut install = |path| {
        let handle = test.install(ONE, 0);
        let handle = Handle::from_raw(handle);
        test.services.install(handle, DEVICE_PATH, path).unwrap().raw()
    };
    use crate::efi::handles::Handle;
    let handles = [install(short_at), install(long_at)];
    let wanted = node(ONE).vendor_media(TWO).unwrap().vendor_media(ONE).unwrap().end().unwrap();
    let wanted = test.put(&wanted);
    let (one, path_at, at) = (test.put_guid(ONE), test.put_number(wanted), test.put_number(0));
    let locate = |test: &mut Test, at| test.services.locate_device_path(&mut test.machine, one, path_at, at);
    assert_eq!(locate(&mut test, 0), Err(Status::INVALID_PARAMETER));
    assert_eq!(locate(&mut test, at), Ok(()));
    assert_eq!((test.number(at), test.number(path_at)), (handles[1], wanted + 40));
    // A path of the same nodes leaves the end.
    test.machine.memory.store(path_at, &short_at.to_le_bytes());
    assert_eq!(locate(&mut test, at), Ok(()));
    assert_eq!((test.number(at), test.number(path_at)), (handles[0], short_at + 20));
}

/// systemd cuts the node of its partition off, and reads the GPT of what it finds.
#[test]
fn the_path_of_a_partition_without_its_last_node_is_its_disks() {
    let mut test = Test::new();
    let disk = || {
        let path = PathBuilder::new().node(2, 1, &[&[0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0]]);
        path.and_then(|path| path.node(1, 1, &[&[0, 1]])).unwrap()
    };
    let partition = |number: u32| disk().node(4, 1, &[&number.to_le_bytes(), &[7; 32], &[2, 2]]).unwrap();
    let handles = [disk(), partition(1), partition(2)].map(|path| {
        let at = test.put(&path.end().unwrap());
        let handle = test.install(ONE, 0x1000);
        test.services.install(crate::efi::handles::Handle::from_raw(handle), DEVICE_PATH, at).unwrap().raw()
    });
    let file = partition(2).node(4, 4, &[b"\\\0x\0\0\0"]).unwrap();
    for (path, handle, len) in [(disk(), 0, 18), (partition(1), 1, 60), (partition(2), 2, 60), (file, 2, 60)] {
        let start = test.put(&path.end().unwrap());
        let (one, path_at, at) = (test.put_guid(ONE), test.put_number(start), test.put_number(0));
        assert_eq!(test.services.locate_device_path(&mut test.machine, one, path_at, at), Ok(()));
        assert_eq!((test.number(at), test.number(path_at)), (handles[handle], start + len));
    }
}

#[test]
fn several_protocols_are_installed_or_none() {
    let mut test = Test::new();
    let path = PathBuilder::new().vendor_media(ONE).unwrap().end().unwrap();
    let path = test.put(&path);
    let (one, two, device_path) = (test.put_guid(ONE), test.put_guid(TWO), test.put_guid(DEVICE_PATH));
    let list = |test: &mut Test, numbers: &[u64]| test.put(numbers.as_bytes());
    let both = list(&mut test, &[device_path, path, one, 0x1000, 0]);
    let at = test.put_number(0);
    let install = |test: &mut Test, at, arguments| test.services.install_multiple(&mut test.machine, at, arguments);
    assert_eq!(install(&mut test, at, both), Ok(()));
    let handle = test.number(at);
    assert_ne!(handle, 0);
    // Another handle with the same device path.
    let other = test.put_number(0);
    assert_eq!(install(&mut test, other, both), Err(Status::ALREADY_STARTED));
    // The second is there: the first is taken away again.
    let roll_back = list(&mut test, &[two, 0x2000, one, 0x1000, 0]);
    assert_eq!(install(&mut test, at, roll_back), Err(Status::INVALID_PARAMETER));
    let interface = test.put_number(0);
    let (machine, services) = (&mut test.machine, &mut test.services);
    assert_eq!(services.handle_protocol(machine, handle, two, interface), Err(Status::UNSUPPORTED));
    assert_eq!(install(&mut test, 0, both), Err(Status::INVALID_PARAMETER));
    // One of two cannot be taken away: both stay.
    let wrong = list(&mut test, &[one, 0x1000, device_path, 0, 0]);
    let take = |test: &mut Test, arguments| test.services.uninstall_multiple(&mut test.machine, handle, arguments);
    assert_eq!(take(&mut test, wrong), Err(Status::INVALID_PARAMETER));
    assert_eq!(take(&mut test, both), Ok(()));
    assert!(!test.services.handles.exists(crate::efi::handles::Handle::from_raw(handle).unwrap()));
    assert_eq!(take(&mut test, both), Err(Status::INVALID_PARAMETER));
}

#[test]
fn an_interface_is_replaced_and_taken_away() {
    let mut test = Test::new();
    let handle = test.install(ONE, 0x1000);
    let one = test.put_guid(ONE);
    let (machine, services) = (&mut test.machine, &mut test.services);
    let mut replace = |on, guid, old| services.reinstall_protocol_interface(machine, on, guid, old, 0x2000);
    assert_eq!(replace(handle, one, 0x3000), Err(Status::NOT_FOUND));
    assert_eq!(replace(0, one, 0x1000), Err(Status::INVALID_PARAMETER));
    assert_eq!(replace(handle, 0, 0x1000), Err(Status::INVALID_PARAMETER));
    assert_eq!(replace(handle, one, 0x1000), Ok(()));
    let mut take = |on, guid, old| services.uninstall_protocol_interface(machine, on, guid, old);
    assert_eq!(take(handle, one, 0x1000), Err(Status::NOT_FOUND));
    assert_eq!(take(handle, 0, 0x2000), Err(Status::INVALID_PARAMETER));
    assert_eq!(take(0, one, 0x2000), Err(Status::INVALID_PARAMETER));
    assert_eq!(take(handle, one, 0x2000), Ok(()));
    assert_eq!(take(handle, one, 0x2000), Err(Status::INVALID_PARAMETER), "the handle is gone");
}

#[test]
fn there_are_no_drivers_to_connect() {
    let mut test = Test::new();
    let handle = test.install(ONE, 0);
    let driver = test.install(DriverBindingProtocol::GUID, 0);
    let path = PathBuilder::new().vendor_media(ONE).unwrap().end().unwrap();
    let path = test.put(&path);
    let mut connect = |on, rest| test.services.connect_controller(&mut test.machine, on, rest);
    for rest in [0, path] {
        assert_eq!(connect(handle, rest), Err(Status::NOT_FOUND));
    }
    assert_eq!(connect(handle, path + 20), Ok(()), "the end of a path");
    for (on, rest) in [(0, 0), (77, 0), (0, path + 20), (handle, 8)] {
        assert_eq!(connect(on, rest), Err(Status::INVALID_PARAMETER), "{on} {rest:#x}");
    }
    let disconnect = |on, driver, child| test.services.disconnect_controller(on, driver, child);
    for (driver, child) in [(0, 0), (driver, 0), (driver, handle), (0, handle)] {
        assert_eq!(disconnect(handle, driver, child), Ok(()));
    }
    for (on, driver, child) in [(0, 0, 0), (77, 0, 0), (handle, 77, 0), (handle, handle, 0), (handle, 0, 77)] {
        assert_eq!(disconnect(on, driver, child), Err(Status::INVALID_PARAMETER), "{on} {driver} {child}");
    }
}
