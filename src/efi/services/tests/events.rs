//! Event services.

use super::*;
use crate::efi::events::TICK;

const TIMER: u32 = 0x8000_0000;
const NOTIFY_SIGNAL: u32 = 0x200;

fn create(test: &mut Test, kind: u32, function: u64) -> Result<u64, Status> {
    let at = test.put_number(0);
    test.services.create_event(&mut test.machine, kind, 8, function, 0, 0, at)?;
    Ok(test.number(at))
}

#[test]
fn events_are_made_with_the_types_that_there_are() {
    let mut test = Test::new();
    assert!(create(&mut test, 0, 0).is_ok());
    assert_eq!(create(&mut test, NOTIFY_SIGNAL, 0), Err(Status::INVALID_PARAMETER), "no function");
    assert_eq!(create(&mut test, 0x300, 1), Err(Status::INVALID_PARAMETER));
    let (machine, services) = (&mut test.machine, &mut test.services);
    assert_eq!(services.create_event(machine, 0, 8, 0, 0, 0, 0), Err(Status::INVALID_PARAMETER), "no place");
    assert_eq!(services.create_event(machine, 0, 8, 0, 0, 8, OWN), Err(Status::INVALID_PARAMETER), "no GUID there");
}

#[test]
fn an_event_is_signalled_checked_and_closed() {
    let mut test = Test::new();
    let event = create(&mut test, 0, 0).unwrap();
    let services = &mut test.services;
    assert_eq!(services.check_event(event), Ok(Waited::Pending));
    assert_eq!(services.signal_event(event), Ok(()));
    assert_eq!(services.check_event(event), Ok(Waited::Done));
    assert_eq!(services.check_event(event), Ok(Waited::Pending));
    assert_eq!(services.close_event(event), Ok(()));
    for wrong in [0, event, 77] {
        assert_eq!(services.signal_event(wrong), Err(Status::INVALID_PARAMETER));
        assert_eq!(services.check_event(wrong), Err(Status::INVALID_PARAMETER));
        assert_eq!(services.close_event(wrong), Err(Status::INVALID_PARAMETER));
        assert_eq!(services.set_timer(0, wrong, 0, 0), Err(Status::INVALID_PARAMETER));
    }
}

#[test]
fn the_first_of_several_events_that_is_signalled_ends_the_wait() {
    let mut test = Test::new();
    let events: Vec<u64> = (0..3).map(|_| create(&mut test, 0, 0).unwrap()).collect();
    let list = test.put(events.as_bytes());
    let at = test.put_number(9);
    test.services.signal_event(events[1]).unwrap();
    test.services.signal_event(events[2]).unwrap();
    let wait = |test: &mut Test, count, list, at| test.services.wait_for_event(&mut test.machine, count, list, at);
    assert_eq!(wait(&mut test, 0, list, at), Err(Status::INVALID_PARAMETER));
    assert_eq!(wait(&mut test, 3, list, 0), Err(Status::INVALID_PARAMETER));
    assert_eq!(wait(&mut test, 3, 0, at), Err(Status::INVALID_PARAMETER));
    assert_eq!(wait(&mut test, 3, list, at), Ok(Waited::Done));
    assert_eq!(test.number(at), 1);
    assert_eq!(wait(&mut test, 3, list, at), Ok(Waited::Done));
    assert_eq!(test.number(at), 2);
    assert_eq!(wait(&mut test, 3, list, at), Ok(Waited::Pending));
    let before = test.services.raise_level(8);
    assert_eq!(wait(&mut test, 3, list, at), Err(Status::UNSUPPORTED));
    test.services.restore_level(before);
    // One that notifies when it is signalled cannot be waited for or checked.
    let notifies = create(&mut test, NOTIFY_SIGNAL, 1).unwrap();
    assert_eq!(test.services.check_event(notifies), Err(Status::INVALID_PARAMETER));
    let events = [events[0], notifies];
    let list = test.put(events.as_bytes());
    assert_eq!(wait(&mut test, 2, list, at), Err(Status::INVALID_PARAMETER));
    assert_eq!(test.number(at), 1, "its number is told");
}

#[test]
fn a_timer_is_set_and_cancelled() {
    let mut test = Test::new();
    let event = create(&mut test, TIMER, 0).unwrap();
    let plain = create(&mut test, 0, 0).unwrap();
    let services = &mut test.services;
    assert_eq!(services.set_timer(100, plain, 2, 1), Err(Status::INVALID_PARAMETER));
    assert_eq!(services.set_timer(100, event, 3, 1), Err(Status::INVALID_PARAMETER));
    assert_eq!(services.set_timer(100, event, 2, TICK), Ok(()));
    services.events.advance(99 + TICK);
    assert_eq!(services.check_event(event), Ok(Waited::Pending));
    services.events.advance(100 + TICK);
    assert_eq!(services.check_event(event), Ok(Waited::Done));
    assert!(!services.events.has_timers());
    assert_eq!(services.set_timer(100, event, 1, TICK), Ok(()));
    assert!(services.events.has_timers());
    assert_eq!(services.set_timer(100, event, 0, 0), Ok(()));
    assert!(!services.events.has_timers());
}
