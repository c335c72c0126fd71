//! Each status that the specification has for a call.

extern crate std;

use std::vec::Vec;

use uefi_raw::guid;
use uefi_raw::table::boot::{EventType, Tpl};

use super::super::events::{Events, Function};
use super::*;

const A: Guid = guid!("00000000-0000-0000-0000-00000000000a");
const B: Guid = guid!("00000000-0000-0000-0000-00000000000b");

fn nobody() -> Handle {
    Handle::from_raw(0xdead).unwrap()
}

fn event() -> Event {
    let function = Function { address: NonZeroU64::MIN, context: 0, level: Tpl::CALLBACK };
    Events::new().create(EventType::NOTIFY_SIGNAL, Some(function), None).unwrap()
}

/// A list with an image, a controller, and a handle with protocol A at 0x1000.
fn some() -> (Handles, Agent, Handle) {
    let mut handles = Handles::new();
    let [image, controller] = [1, 2].map(|interface| handles.install(None, B, interface).unwrap());
    let handle = handles.install(None, A, 0x1000).unwrap();
    (handles, Agent { image: Some(image), controller: Some(controller) }, handle)
}

fn all(handles: &Handles, search: Search) -> Vec<Handle> {
    handles.locate(search).collect()
}

#[test]
fn a_protocol_is_installed_once_on_a_handle() {
    let mut handles = Handles::new();
    let handle = handles.install(None, A, 0x1000).unwrap();
    assert_eq!(handles.install(Some(handle), B, 0), Ok(handle));
    assert_eq!(handles.install(Some(handle), A, 0x2000), Err(Status::INVALID_PARAMETER));
    assert_eq!(handles.install(Some(nobody()), A, 0x2000), Err(Status::INVALID_PARAMETER));
    assert_eq!(handles.interface(handle, A), Ok(0x1000));
    assert_eq!(handles.interface(handle, B), Ok(0));
    assert_ne!(handles.install(None, A, 0x1000), Ok(handle));
}

#[test]
fn an_interface_is_found_on_a_handle_that_has_it() {
    let (handles, _, handle) = some();
    assert_eq!(handles.interface(handle, B), Err(Status::UNSUPPORTED));
    assert_eq!(handles.interface(nobody(), A), Err(Status::INVALID_PARAMETER));
    assert_eq!(handles.first(A), Ok(0x1000));
    assert_eq!(handles.first(guid!("00000000-0000-0000-0000-00000000000c")), Err(Status::NOT_FOUND));
}

#[test]
fn interfaces_in_memory_that_is_used_for_something_else_are_removed() {
    let (mut handles, agent, handle) = some();
    let key = handles.register(A, event()).unwrap();
    handles.install(Some(handle), B, 0x5000).unwrap();
    let inside = handles.install(None, A, 0x1fff).unwrap();
    let outside = handles.install(None, A, 0x2000).unwrap();
    handles.open(handle, A, agent, OpenMode::Exclusive).unwrap();
    handles.remove_within(PhysRange::new(PhysAddr::new(0x1000), 0x1000).unwrap());
    assert_eq!(handles.interface(handle, A), Err(Status::UNSUPPORTED), "whoever has it open");
    assert_eq!(handles.interface(handle, B), Ok(0x5000));
    assert!(!handles.exists(inside));
    assert_eq!(handles.first(A), Ok(0x2000));
    assert_eq!(all(&handles, Search::Registration(key)), [outside]);
}

#[test]
fn a_handle_goes_with_its_last_protocol_and_its_number_is_not_used_again() {
    let (mut handles, _, handle) = some();
    handles.install(Some(handle), B, 5).unwrap();
    assert_eq!(handles.uninstall(handle, A, 0x2000), Err(Status::NOT_FOUND));
    assert_eq!(handles.uninstall(nobody(), A, 0x1000), Err(Status::INVALID_PARAMETER));
    assert_eq!(handles.uninstall(handle, A, 0x1000), Ok(()));
    assert_eq!(handles.uninstall(handle, A, 0x1000), Err(Status::NOT_FOUND));
    assert!(handles.exists(handle));
    assert_eq!(handles.uninstall(handle, B, 5), Ok(()));
    assert!(!handles.exists(handle));
    assert_ne!(handles.install(None, A, 0x1000), Ok(handle));
}

#[test]
fn an_interface_is_replaced_by_another() {
    let (mut handles, _, handle) = some();
    assert_eq!(handles.reinstall(handle, A, 0x2000, 0x3000), Err(Status::NOT_FOUND));
    assert_eq!(handles.reinstall(handle, B, 0x1000, 0x3000), Err(Status::NOT_FOUND));
    assert_eq!(handles.reinstall(nobody(), A, 0x1000, 0x3000), Err(Status::INVALID_PARAMETER));
    assert_eq!(handles.reinstall(handle, A, 0x1000, 0x3000), Ok(()));
    assert_eq!(handles.interface(handle, A), Ok(0x3000));
}

#[test]
fn an_interface_that_is_held_is_neither_taken_away_nor_replaced() {
    for mode in [OpenMode::ChildController, OpenMode::Driver, OpenMode::Exclusive, OpenMode::ExclusiveDriver] {
        let (mut handles, agent, handle) = some();
        assert_eq!(handles.open(handle, A, agent, mode), Ok(0x1000));
        assert_eq!(handles.uninstall(handle, A, 0x1000), Err(Status::ACCESS_DENIED), "{mode:?}");
        assert_eq!(handles.reinstall(handle, A, 0x1000, 0x2000), Err(Status::ACCESS_DENIED), "{mode:?}");
        assert_eq!(handles.close(handle, A, agent), Ok(()));
        assert_eq!(handles.uninstall(handle, A, 0x1000), Ok(()));
    }
    for mode in [OpenMode::Handle, OpenMode::Get, OpenMode::Test] {
        let (mut handles, agent, handle) = some();
        assert_eq!(handles.open(handle, A, agent, mode), Ok(0x1000));
        assert_eq!(handles.uninstall(handle, A, 0x1000), Ok(()), "{mode:?}");
    }
}

#[test]
fn the_attributes_of_an_open_are_those_of_the_specification() {
    let valid = [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x30];
    for attributes in 0..0x100 {
        let mode = OpenMode::from_attributes(attributes);
        assert_eq!(mode.is_some(), valid.contains(&attributes), "{attributes:#x}");
        assert!(mode.is_none_or(|mode| mode.attributes() == attributes));
    }
}

#[test]
fn an_open_needs_the_handles_of_its_mode() {
    let (mut handles, agent, handle) = some();
    let none = Agent { image: None, controller: None };
    let open = |handles: &mut Handles, agent, mode| handles.open(handle, A, agent, mode).err();
    let bad = Some(Status::INVALID_PARAMETER);
    for mode in [OpenMode::Handle, OpenMode::Get, OpenMode::Test] {
        assert_eq!(open(&mut handles, none, mode), None);
    }
    for mode in [OpenMode::ChildController, OpenMode::Driver, OpenMode::ExclusiveDriver] {
        for agent in [
            none,
            Agent { image: None, ..agent },
            Agent { controller: None, ..agent },
            Agent { image: Some(nobody()), ..agent },
            Agent { controller: Some(nobody()), ..agent },
        ] {
            assert_eq!(open(&mut handles, agent, mode), bad, "{mode:?} {agent:?}");
        }
    }
    assert_eq!(open(&mut handles, none, OpenMode::Exclusive), bad);
    assert_eq!(open(&mut handles, Agent { controller: Some(handle), ..agent }, OpenMode::ChildController), bad);
    assert_eq!(handles.open(nobody(), A, agent, OpenMode::Get), Err(Status::INVALID_PARAMETER));
    assert_eq!(handles.open(handle, B, agent, OpenMode::Get), Err(Status::UNSUPPORTED));
}

#[test]
fn drivers_exclude_each_other_and_readers_do_not() {
    let driving = [OpenMode::Driver, OpenMode::Exclusive, OpenMode::ExclusiveDriver];
    for first in driving {
        for second in driving {
            let (mut handles, agent, handle) = some();
            let other = handles.install(None, B, 3).unwrap();
            handles.open(handle, A, agent, first).unwrap();
            let same = if first == second && first != OpenMode::Exclusive {
                Status::ALREADY_STARTED
            } else {
                Status::ACCESS_DENIED
            };
            assert_eq!(handles.open(handle, A, agent, second), Err(same), "{first:?} {second:?}");
            let other = Agent { image: Some(other), ..agent };
            assert_eq!(handles.open(handle, A, other, second), Err(Status::ACCESS_DENIED), "{first:?} {second:?}");
            for mode in [OpenMode::Handle, OpenMode::Get, OpenMode::Test, OpenMode::ChildController] {
                assert_eq!(handles.open(handle, A, other, mode), Ok(0x1000));
            }
        }
    }
}

#[test]
fn who_has_an_interface_open_is_told() {
    let (mut handles, agent, handle) = some();
    assert_eq!(handles.opens(handle, A), Ok(&[][..]));
    for _ in 0..2 {
        handles.open(handle, A, agent, OpenMode::Get).unwrap();
    }
    handles.open(handle, A, agent, OpenMode::Driver).unwrap();
    let open = |mode, count| Open { agent, mode, count };
    assert_eq!(handles.opens(handle, A), Ok(&[open(OpenMode::Get, 2), open(OpenMode::Driver, 1)][..]));
    assert_eq!(handles.opens(handle, B), Err(Status::NOT_FOUND));
    assert_eq!(handles.opens(nobody(), A), Err(Status::NOT_FOUND));
    handles.close_all(agent.image.unwrap());
    assert_eq!(handles.opens(handle, A), Ok(&[][..]));
}

#[test]
fn what_was_opened_is_closed_by_the_same_agent() {
    let (mut handles, agent, handle) = some();
    handles.open(handle, A, agent, OpenMode::Driver).unwrap();
    let without = Agent { controller: None, ..agent };
    assert_eq!(handles.close(handle, A, without), Err(Status::NOT_FOUND));
    assert_eq!(handles.close(handle, B, agent), Err(Status::NOT_FOUND));
    assert_eq!(handles.close(nobody(), A, agent), Err(Status::INVALID_PARAMETER));
    assert_eq!(handles.close(handle, A, Agent { image: None, ..agent }), Err(Status::INVALID_PARAMETER));
    assert_eq!(handles.close(handle, A, Agent { controller: Some(nobody()), ..agent }), Err(Status::INVALID_PARAMETER));
    assert_eq!(handles.close(handle, A, agent), Ok(()));
    assert_eq!(handles.close(handle, A, agent), Err(Status::NOT_FOUND));
}

#[test]
fn handles_are_located_in_the_order_in_which_they_were_made() {
    let (mut handles, agent, handle) = some();
    let [image, controller] = [agent.image, agent.controller].map(Option::unwrap);
    assert_eq!(all(&handles, Search::All), [image, controller, handle]);
    assert_eq!(all(&handles, Search::Protocol(A)), [handle]);
    handles.install(Some(image), A, 0x2000).unwrap();
    assert_eq!(all(&handles, Search::Protocol(A)), [image, handle]);
    assert_eq!(handles.protocols(image).map(Iterator::collect::<Vec<_>>), Ok([B, A].to_vec()));
    assert_eq!(handles.protocols(nobody()).err(), Some(Status::INVALID_PARAMETER));
}

#[test]
fn a_registration_returns_each_new_handle_once() {
    let (mut handles, _, old) = some();
    let key = handles.register(A, event()).unwrap();
    let search = Search::Registration(key);
    assert_eq!(all(&handles, search), []);
    let [first, second] = [(); 2].map(|()| handles.install(None, A, 0x3000).unwrap());
    handles.install(None, B, 0x3000).unwrap();
    for handle in [first, second] {
        assert_eq!(all(&handles, search), [handle]);
        assert_eq!(all(&handles, search), [handle]);
        handles.took(key, handle);
    }
    assert_eq!(all(&handles, search), []);
    handles.reinstall(old, A, 0x1000, 0x4000).unwrap();
    assert_eq!(all(&handles, search), [old]);
    handles.uninstall(old, A, 0x4000).unwrap();
    assert_eq!(all(&handles, search), []);
    assert_eq!(handles.notified(A).collect::<Vec<_>>(), [event()]);
    assert_eq!(handles.notified(B).count(), 0);
    handles.forget(event());
    assert_eq!(handles.notified(A).count(), 0);
}
