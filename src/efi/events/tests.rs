//! Each status of a call, the order of notifications, timers.

extern crate std;

use std::vec::Vec;

use super::*;

const SIGNAL: EventType = EventType::NOTIFY_SIGNAL;
const WAIT: EventType = EventType::NOTIFY_WAIT;
const TIMER: EventType = EventType::TIMER;

fn at(level: Tpl) -> Option<Function> {
    Some(Function { address: NonZeroU64::MIN, context: 7, level })
}

fn made(events: &mut Events, kind: EventType, level: Tpl) -> Event {
    events.create(kind, at(level), None).unwrap()
}

/// Runs what may run, and returns it in order.
fn run(events: &mut Events) -> Vec<Event> {
    let mut ran = Vec::new();
    while let Some(notification) = events.begin() {
        assert_eq!(events.level(), notification.function.level);
        ran.push(notification.event);
        events.end(notification);
    }
    ran
}

#[test]
fn an_event_that_notifies_has_a_function_at_a_level_between_applications_and_the_highest() {
    let mut events = Events::new();
    for kind in [SIGNAL, WAIT, TIMER | SIGNAL, TIMER | WAIT, EventType::SIGNAL_EXIT_BOOT_SERVICES] {
        assert_eq!(events.create(kind, None, None), Err(Status::INVALID_PARAMETER), "{kind:?}");
        for level in [Tpl::APPLICATION, Tpl::HIGH_LEVEL, Tpl(0), Tpl(32)] {
            assert_eq!(events.create(kind, at(level), None), Err(Status::INVALID_PARAMETER), "{kind:?} {level:?}");
        }
        for level in [Tpl(5), Tpl::CALLBACK, Tpl::NOTIFY, Tpl(30)] {
            assert!(events.create(kind, at(level), None).is_ok(), "{kind:?} {level:?}");
        }
    }
    // The others have none, whatever is given.
    for kind in [EventType::empty(), TIMER] {
        assert!(events.create(kind, None, None).is_ok());
        assert!(events.create(kind, at(Tpl::HIGH_LEVEL), None).is_ok());
    }
}

#[test]
fn a_type_that_cannot_be_is_refused() {
    let mut events = Events::new();
    let kinds =
        [SIGNAL | WAIT, TIMER | SIGNAL | WAIT, EventType::from_bits_retain(1), EventType::from_bits_retain(0x202)];
    for kind in kinds {
        assert_eq!(events.create(kind, at(Tpl::CALLBACK), None), Err(Status::INVALID_PARAMETER), "{kind:?}");
    }
    for kind in [EventType::SIGNAL_EXIT_BOOT_SERVICES, EventType::SIGNAL_VIRTUAL_ADDRESS_CHANGE] {
        assert_eq!(events.create(kind, at(Tpl::CALLBACK), Some(READY_TO_BOOT)), Err(Status::INVALID_PARAMETER));
    }
    assert!(events.create(SIGNAL | EventType::RUNTIME, at(Tpl::CALLBACK), None).is_ok());
}

#[test]
fn an_event_is_signalled_until_it_is_looked_at() {
    let mut events = Events::new();
    let event = events.create(EventType::empty(), None, None).unwrap();
    assert_eq!(events.check(event), Err(Status::NOT_READY));
    assert_eq!(events.signal(event), Ok(()));
    assert_eq!(events.signal(event), Ok(()));
    assert_eq!(events.check(event), Ok(()));
    assert_eq!(events.check(event), Err(Status::NOT_READY));
}

#[test]
fn a_function_runs_once_for_a_signal_and_again_for_the_next() {
    let mut events = Events::new();
    let event = made(&mut events, SIGNAL, Tpl::CALLBACK);
    assert_eq!(events.check(event), Err(Status::INVALID_PARAMETER));
    for _ in 0..2 {
        events.signal(event).unwrap();
        events.signal(event).unwrap();
        assert_eq!(run(&mut events), [event]);
    }
    assert_eq!(run(&mut events), []);
}

#[test]
fn who_waits_has_the_function_run_which_may_signal_the_event() {
    let mut events = Events::new();
    let event = made(&mut events, WAIT, Tpl::NOTIFY);
    events.signal(event).unwrap();
    assert_eq!(run(&mut events), []);
    assert_eq!(events.check(event), Ok(()));
    assert_eq!(events.check(event), Err(Status::NOT_READY));
    let notification = events.begin().unwrap();
    events.signal(event).unwrap();
    events.end(notification);
    assert_eq!(events.check(event), Ok(()));
}

#[test]
fn functions_run_by_level_and_then_in_the_order_of_their_signals() {
    let mut events = Events::new();
    let [first, second] = [(); 2].map(|()| made(&mut events, SIGNAL, Tpl::CALLBACK));
    let high = made(&mut events, SIGNAL, Tpl::NOTIFY);
    for event in [second, first, high] {
        events.signal(event).unwrap();
    }
    assert_eq!(run(&mut events), [high, second, first]);
}

#[test]
fn a_function_waits_for_a_level_below_its_own() {
    let mut events = Events::new();
    let [low, high] = [Tpl::CALLBACK, Tpl::NOTIFY].map(|level| made(&mut events, SIGNAL, level));
    assert_eq!(events.raise(Tpl::CALLBACK), Tpl::APPLICATION);
    assert_eq!(events.raise(Tpl::APPLICATION), Tpl::CALLBACK);
    assert_eq!(events.level(), Tpl::CALLBACK);
    events.signal(low).unwrap();
    events.signal(high).unwrap();
    assert_eq!(run(&mut events), [high]);
    events.restore(Tpl::APPLICATION);
    assert_eq!(run(&mut events), [low]);
    assert_eq!(events.level(), Tpl::APPLICATION);
}

#[test]
fn a_function_is_interrupted_by_those_of_a_higher_level_only() {
    let mut events = Events::new();
    let [low, other, high] = [Tpl::CALLBACK, Tpl::CALLBACK, Tpl::NOTIFY].map(|level| made(&mut events, SIGNAL, level));
    events.signal(low).unwrap();
    let running = events.begin().unwrap();
    events.signal(other).unwrap();
    events.signal(high).unwrap();
    events.signal(low).unwrap();
    assert_eq!(run(&mut events), [high]);
    events.end(running);
    assert_eq!(run(&mut events), [other, low]);
}

#[test]
fn a_group_is_signalled_as_one() {
    let mut events = Events::new();
    let grouped = [(); 2].map(|()| events.create(SIGNAL, at(Tpl::CALLBACK), Some(READY_TO_BOOT)).unwrap());
    let other = made(&mut events, EventType::SIGNAL_EXIT_BOOT_SERVICES, Tpl::CALLBACK);
    events.signal(grouped[1]).unwrap();
    assert_eq!(run(&mut events), grouped);
    events.signal_group(EXIT_BOOT_SERVICES);
    assert_eq!(run(&mut events), [other]);
}

#[test]
fn what_is_closed_is_not_run_and_not_there() {
    let mut events = Events::new();
    let event = made(&mut events, TIMER | SIGNAL, Tpl::CALLBACK);
    events.signal(event).unwrap();
    assert_eq!(events.close(event), Ok(()));
    assert_eq!(run(&mut events), []);
    assert_eq!(events.close(event), Err(Status::INVALID_PARAMETER));
    assert_eq!(events.signal(event), Err(Status::INVALID_PARAMETER));
    assert_eq!(events.check(event), Err(Status::INVALID_PARAMETER));
    assert_eq!(events.set_timer(event, 0, TICK, false), Err(Status::INVALID_PARAMETER));
    assert_eq!(events.stop_timer(event), Err(Status::INVALID_PARAMETER));
    let next = made(&mut events, SIGNAL, Tpl::CALLBACK);
    assert_ne!(next, event);
}

#[test]
fn a_timer_expires_once_or_again_and_again() {
    let mut events = Events::new();
    let [once, again] = [(); 2].map(|()| events.create(TIMER, None, None).unwrap());
    events.set_timer(once, 10 * TICK, TICK, false).unwrap();
    events.set_timer(again, 10 * TICK, TICK, true).unwrap();
    let expired = |events: &mut Events, now| {
        events.advance(now);
        [once, again].map(|event| events.check(event).is_ok())
    };
    assert_eq!(expired(&mut events, 11 * TICK - 1), [false, false]);
    assert_eq!(expired(&mut events, 11 * TICK), [true, true]);
    assert_eq!(expired(&mut events, 12 * TICK - 1), [false, false]);
    assert_eq!(expired(&mut events, 15 * TICK), [false, true]);
    assert_eq!(expired(&mut events, 16 * TICK), [false, true]);
    events.stop_timer(again).unwrap();
    assert_eq!(expired(&mut events, 100 * TICK), [false, false]);
    events.set_timer(once, 100 * TICK, Time::MAX, false).unwrap();
    assert_eq!(expired(&mut events, 200 * TICK), [false, false]);
    events.stop_timers();
    assert_eq!(expired(&mut events, Time::MAX), [false, false]);
}

#[test]
fn a_time_of_zero_is_the_next_tick() {
    let mut events = Events::new();
    for is_periodic in [false, true] {
        let event = events.create(TIMER, None, None).unwrap();
        events.set_timer(event, 5, 0, is_periodic).unwrap();
        events.advance(5 + TICK - 1);
        assert_eq!(events.check(event), Err(Status::NOT_READY));
        events.advance(5 + TICK);
        assert_eq!(events.check(event), Ok(()));
        // The same time again: a periodic timer has been set anew, and does not expire twice.
        events.advance(5 + TICK);
        assert_eq!(events.check(event), Err(Status::NOT_READY));
    }
}

#[test]
fn a_timer_waits_while_its_function_runs() {
    let mut events = Events::new();
    let event = made(&mut events, TIMER | SIGNAL, Tpl::CALLBACK);
    let polled = events.create(TIMER, None, None).unwrap();
    for event in [event, polled] {
        events.set_timer(event, 0, 0, true).unwrap();
    }
    events.advance(TICK);
    let running = events.begin().unwrap();
    // The function calls services, for longer than the period. An event without a function is signalled meanwhile.
    events.advance(2 * TICK);
    events.advance(3 * TICK);
    assert_eq!(events.check(polled), Ok(()));
    events.end(running);
    assert_eq!(events.begin(), None);
    events.advance(3 * TICK);
    assert_eq!(run(&mut events), [event], "the next call runs it");
}

#[test]
fn the_groups_have_the_numbers_of_the_specification() {
    // UEFI 7.1, `CreateEventEx`; the last part of each.
    let ends = [
        (BEFORE_EXIT_BOOT_SERVICES, "1ab9502f3bfc"),
        (EXIT_BOOT_SERVICES, "8748f37baa2df"),
        (MEMORY_MAP_CHANGE, "01422ef0d7ab"),
        (READY_TO_BOOT, "a8d8dee50d2b"),
        (VIRTUAL_ADDRESS_CHANGE, "43fcc25196"),
    ];
    for (group, end) in ends {
        assert!(std::format!("{group}").replace('-', "").ends_with(end), "{group}");
    }
}

#[test]
fn only_an_event_with_a_timer_has_one() {
    let mut events = Events::new();
    let event = made(&mut events, SIGNAL, Tpl::CALLBACK);
    assert_eq!(events.set_timer(event, 0, TICK, false), Err(Status::INVALID_PARAMETER));
    assert_eq!(events.stop_timer(event), Err(Status::INVALID_PARAMETER));
}
