//! Events, timers and task priority levels.

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use uefi::boot::{self, EventType, TimerTrigger, Tpl};
use uefi::{Event, Guid, guid};

use crate::report::{line, result, status};
use crate::system;

const GROUP: Guid = guid!("0f5c7b4e-2a7a-4c55-9d3e-7e6f5a4b0001");

/// The notifications since it was cleared, a decimal digit each.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// Adds the digit that its context is.
unsafe extern "efiapi" fn notify(_: Event, context: Option<NonNull<c_void>>) {
    let digit = context.map_or(0, |context| context.as_ptr().addr() as u64);
    CALLS.store(CALLS.load(Ordering::Relaxed) * 10 + digit, Ordering::Relaxed);
}

/// The notifications, which are then cleared.
fn calls() -> u64 {
    CALLS.swap(0, Ordering::Relaxed)
}

fn event(kind: EventType, level: Tpl, digit: usize) -> uefi::Result<Event> {
    let is_notified = kind.intersects(EventType::NOTIFY_SIGNAL | EventType::NOTIFY_WAIT);
    let context = NonNull::new(ptr::without_provenance_mut(digit));
    // SAFETY: the function only counts.
    unsafe { boot::create_event(kind, level, is_notified.then_some(notify as _), context) }
}

/// Prints what the services do with events of the program's own.
pub fn check() {
    if let Ok(plain) = event(EventType::empty(), Tpl::APPLICATION, 0) {
        line("CheckEvent: not signaled", boot::check_event(&plain).unwrap_or(true));
        result("SignalEvent", boot::signal_event(&plain));
        line("CheckEvent: signaled", boot::check_event(&plain).unwrap_or(false));
        line("CheckEvent: cleared", boot::check_event(&plain).unwrap_or(true));
        result("SetTimer: no timer", boot::set_timer(&plain, TimerTrigger::Cancel));
        result("CloseEvent", boot::close_event(plain));
    }
    let both = EventType::NOTIFY_SIGNAL | EventType::NOTIFY_WAIT;
    result("CreateEvent: notified in both ways", event(both, Tpl::CALLBACK, 1));
    let level = Tpl(3);
    result("CreateEvent: at no level", event(EventType::NOTIFY_SIGNAL, level, 1));
    // SAFETY: there is no function to call, which the service has to find.
    result("CreateEvent: no function", unsafe {
        boot::create_event(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, None, None)
    });
    check_notifications();
    check_timers();
    check_group();
    check_wait();
}

fn check_notifications() {
    let (Ok(low), Ok(high)) =
        (event(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, 1), event(EventType::NOTIFY_SIGNAL, Tpl::NOTIFY, 2))
    else {
        return;
    };
    result("CheckEvent: of a signal", boot::check_event(&low));
    let _ = (boot::signal_event(&low), boot::signal_event(&high));
    line("SignalEvent: notifications", calls());
    {
        // SAFETY: the level is restored at the end of the block.
        let _guard = unsafe { boot::raise_tpl(Tpl::NOTIFY) };
        let _ = (boot::signal_event(&low), boot::signal_event(&high), boot::signal_event(&low));
        line("RaiseTPL: notifications at the same level", calls());
    }
    line("RestoreTPL: notifications by their level", calls());
    {
        // SAFETY: the same.
        let guard = unsafe { boot::raise_tpl(Tpl::CALLBACK) };
        line("RaiseTPL: from the level of applications", guard.old_tpl() == Tpl::APPLICATION);
        let _ = (boot::signal_event(&low), boot::signal_event(&high));
        line("RaiseTPL: notifications above the level", calls());
    }
    line("RestoreTPL: the others", calls());
    let _ = (boot::close_event(low), boot::close_event(high));
}

fn check_timers() {
    let Ok(timer) = event(EventType::TIMER, Tpl::APPLICATION, 0) else { return };
    result("SetTimer: in 2 ms", boot::set_timer(&timer, TimerTrigger::Relative(Duration::from_millis(2))));
    // SAFETY: the event is closed below.
    let copy = unsafe { timer.unsafe_clone() };
    line("WaitForEvent: a timer", boot::wait_for_event(&[copy]).is_ok_and(|index| index == 0));
    line("CheckEvent: a timer expires once", boot::check_event(&timer).unwrap_or(true));
    result("SetTimer: each 2 ms", boot::set_timer(&timer, TimerTrigger::Periodic(Duration::from_millis(2))));
    // SAFETY: the same.
    let copy = unsafe { timer.unsafe_clone() };
    let waits = [copy];
    line("WaitForEvent: three times", (0..3).all(|_| boot::wait_for_event(&waits).is_ok()));
    result("SetTimer: cancel", boot::set_timer(&timer, TimerTrigger::Cancel));
    let _ = boot::check_event(&timer);
    boot::stall(Duration::from_millis(5));
    line("CheckEvent: a cancelled timer", boot::check_event(&timer).unwrap_or(true));
    let services = system::table().boot_services;
    let unknown = uefi_raw::table::boot::TimerDelay(7);
    // SAFETY: the event is one.
    status("SetTimer: unknown kind", unsafe { ((*services).set_timer)(timer.as_ptr(), unknown, 0) });
    result("SetTimer: pending", boot::set_timer(&timer, TimerTrigger::Relative(Duration::from_secs(100))));
    result("CloseEvent: a pending timer", boot::close_event(timer));

    let Ok(timer) = event(EventType::TIMER | EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, 3) else { return };
    let _ = boot::set_timer(&timer, TimerTrigger::Relative(Duration::from_millis(1)));
    boot::stall(Duration::from_millis(30));
    // A firmware without interrupts finds at a call that time has passed.
    let _ = boot::check_event(&timer);
    line("SetTimer: notification", calls());
    let _ = boot::close_event(timer);
}

fn check_group() {
    let member = |digit, level| {
        let context = NonNull::new(ptr::without_provenance_mut(digit));
        // SAFETY: the function only counts.
        unsafe { boot::create_event_ex(EventType::NOTIFY_SIGNAL, level, Some(notify), context, Some(&GROUP)) }
    };
    let (Some(first), Some(second)) = (
        result("CreateEventEx: in a group", member(1, Tpl::CALLBACK)),
        result("CreateEventEx: in the same group", member(2, Tpl::NOTIFY)),
    ) else {
        return;
    };
    let _ = boot::signal_event(&first);
    line("SignalEvent: a group's notifications", calls());
    let _ = boot::close_event(second);
    let _ = boot::signal_event(&first);
    line("SignalEvent: after one was closed", calls());
    let _ = boot::close_event(first);
    // SAFETY: the function only counts.
    result("CreateEventEx: a kind that is a group", unsafe {
        boot::create_event_ex(EventType::SIGNAL_EXIT_BOOT_SERVICES, Tpl::CALLBACK, Some(notify), None, Some(&GROUP))
    });
}

fn check_wait() {
    line("WaitForEvent: none", status_of_wait(&[]));
    let Ok(signal) = event(EventType::NOTIFY_SIGNAL, Tpl::CALLBACK, 1) else { return };
    // SAFETY: the event is closed below.
    let copy = unsafe { signal.unsafe_clone() };
    line("WaitForEvent: of a signal", status_of_wait(&[copy]));
    let _ = boot::close_event(signal);
    let Ok(plain) = event(EventType::empty(), Tpl::APPLICATION, 0) else { return };
    let _ = boot::signal_event(&plain);
    // SAFETY: the same.
    let copy = unsafe { plain.unsafe_clone() };
    {
        // SAFETY: the level is restored at the end of the block.
        let _guard = unsafe { boot::raise_tpl(Tpl::CALLBACK) };
        line("WaitForEvent: not at the level of applications", status_of_wait(core::slice::from_ref(&copy)));
    }
    line("WaitForEvent: signaled", status_of_wait(&[copy]));
    let _ = boot::close_event(plain);
    let Ok(asked) = event(EventType::NOTIFY_WAIT, Tpl::CALLBACK, 5) else { return };
    let _ = boot::check_event(&asked);
    line("CheckEvent: asks the notification", calls());
    let _ = boot::close_event(asked);
}

fn status_of_wait(events: &[Event]) -> alloc::string::String {
    match boot::wait_for_event(events) {
        Ok(index) => alloc::format!("SUCCESS {index}"),
        Err(error) => alloc::format!("{:?}", error.status()),
    }
}
