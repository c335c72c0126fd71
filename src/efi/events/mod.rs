//! Events, timers and task priority levels (UEFI 7.1).
//!
//! Nothing here calls a notification function. [`Events::signal`] and others put notifications into a queue. [`Events::begin`]
//! takes out the next one that may run at the current level, and raises the level. The caller then calls the function, while it
//! borrows nothing of the firmware, and [`Events::end`]s the notification. The function may call any service, and so start other
//! notifications.
//!
//! Assumed: there are no interrupts, so timers expire only in [`Events::advance`].

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::num::NonZeroU64;

use uefi_raw::table::boot::{EventType, Tpl};
use uefi_raw::{Guid, Status, guid};

use crate::addr::{PhysAddr, PhysRange};
use crate::heap;

/// An event: `EFI_EVENT`, which is never null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event(NonZeroU64);

impl Event {
    /// The event of this number, if it is not null. It need not exist.
    #[must_use]
    pub const fn from_raw(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0.get()
    }
}

/// The group of the events that are signalled before the others of [`EXIT_BOOT_SERVICES`].
pub const BEFORE_EXIT_BOOT_SERVICES: Guid = guid!("8be0e274-3970-4b44-80c5-1ab9502f3bfc");
/// The group of the events that are signalled when boot services end.
pub const EXIT_BOOT_SERVICES: Guid = guid!("27abf055-b1b8-4c26-8048-748f37baa2df");
/// The group of the events that are signalled when the memory map has changed.
pub const MEMORY_MAP_CHANGE: Guid = guid!("78bee926-692f-48fd-9edb-01422ef0d7ab");
/// The group of the events that are signalled before a boot option is started.
pub const READY_TO_BOOT: Guid = guid!("7ce88fb3-4bd7-4679-87a8-a8d8dee50d2b");
/// The group of the events that are signalled by `SetVirtualAddressMap`.
pub const VIRTUAL_ADDRESS_CHANGE: Guid = guid!("13fa7698-c831-49c7-87ea-8f43fcc25196");

/// A point in time or a duration, in units of 100 ns.
pub type Time = u64;

/// The tick of the timers: 1 ms. A shorter time counts as a tick, as zero does in UEFI 7.1, `SetTimer`.
pub const TICK: Time = 10_000;

/// A notification function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// The address of the function.
    pub address: NonZeroU64,
    /// Its parameter.
    pub context: u64,
    /// The level that it runs at.
    pub level: Tpl,
}

/// A notification that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The event.
    pub event: Event,
    /// The function to call.
    pub function: Function,
    /// The level to restore.
    pub previous: Tpl,
}

/// When a timer expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timer {
    at: Time,
    /// After how long it expires again; `None` if it does not.
    period: Option<Time>,
}

#[derive(Debug)]
struct Entry {
    event: Event,
    kind: EventType,
    function: Option<Function>,
    group: Option<Guid>,
    is_signalled: bool,
    timer: Option<Timer>,
}

/// All events, and the current level.
#[derive(Debug)]
pub struct Events {
    entries: Vec<Entry>,
    /// The events whose functions will be called, in the order in which they were signalled.
    queue: Vec<Event>,
    level: Tpl,
    last: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// No events, at the level of applications.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new(), queue: Vec::new(), level: Tpl::APPLICATION, last: 0 }
    }

    /// Closes the events whose functions are in `code`, which is about to be used for something else.
    pub fn close_within(&mut self, code: PhysRange) {
        let is_within = |function: Function| code.contains_addr(PhysAddr::new(function.address.get()));
        self.entries.retain(|entry| !entry.function.is_some_and(is_within));
        let Self { entries, queue, .. } = self;
        queue.retain(|&queued| entries.iter().any(|entry| entry.event == queued));
    }

    /// Whether there is such an event.
    #[must_use]
    pub fn exists(&self, event: Event) -> bool {
        self.entry(event).is_ok()
    }

    /// The current level.
    #[must_use]
    pub const fn level(&self) -> Tpl {
        self.level
    }

    /// Raises the level, and returns the previous one. Never lowers it.
    pub fn raise(&mut self, to: Tpl) -> Tpl {
        let before = self.level;
        self.level = before.max(to);
        before
    }

    /// Restores a level. The caller then runs what may run at it, by [`Self::begin`].
    pub fn restore(&mut self, to: Tpl) {
        self.level = self.level.min(to);
    }

    /// Sets the level to what it was when an image was started that has ended.
    pub const fn set_level(&mut self, to: Tpl) {
        self.level = to;
    }

    /// Makes an event, in `group` if there is one. Types that notify need a function; others ignore it.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for an invalid type, and for one that notifies if the function is missing or its level is invalid;
    /// `OUT_OF_RESOURCES`.
    pub fn create(
        &mut self,
        kind: EventType,
        function: Option<Function>,
        group: Option<Guid>,
    ) -> Result<Event, Status> {
        let own_group = match kind {
            EventType::SIGNAL_EXIT_BOOT_SERVICES => Some(EXIT_BOOT_SERVICES),
            EventType::SIGNAL_VIRTUAL_ADDRESS_CHANGE => Some(VIRTUAL_ADDRESS_CHANGE),
            _ => None,
        };
        // An event of a type that has its own group cannot be in another one.
        if own_group.is_some() && group.is_some() {
            return Err(Status::INVALID_PARAMETER);
        }
        let notifies = kind.intersects(NOTIFIES);
        let is_known = own_group.is_some() || TYPES.contains(&kind.difference(EventType::RUNTIME));
        let runs = |function: &Function| Tpl::APPLICATION < function.level && function.level < Tpl::HIGH_LEVEL;
        if !is_known || notifies && !function.as_ref().is_some_and(runs) {
            return Err(Status::INVALID_PARAMETER);
        }
        let number = self.last.checked_add(1).ok_or(Status::OUT_OF_RESOURCES)?;
        let event = Event::from_raw(number).ok_or(Status::OUT_OF_RESOURCES)?;
        // An event is in the queue at most once, so this is room for every signal.
        let waiting = self.entries.len().saturating_add(1).saturating_sub(self.queue.len());
        self.queue.try_reserve(waiting).map_err(|_| Status::OUT_OF_RESOURCES)?;
        let group = group.or(own_group);
        let function = function.filter(|_| notifies);
        let entry = Entry { event, kind, function, group, is_signalled: false, timer: None };
        heap::push(&mut self.entries, entry).map_err(|_| Status::OUT_OF_RESOURCES)?;
        self.last = number;
        Ok(event)
    }

    /// Removes an event.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the event.
    pub fn close(&mut self, event: Event) -> Result<(), Status> {
        self.entry(event)?;
        self.entries.retain(|entry| entry.event != event);
        self.queue.retain(|&queued| queued != event);
        Ok(())
    }

    /// Signals an event and all others of its group.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the event.
    pub fn signal(&mut self, event: Event) -> Result<(), Status> {
        match self.entry(event)?.group {
            Some(group) => self.signal_group(group),
            None => self.signal_one(event),
        }
        Ok(())
    }

    /// Signals the events of a group, in the order in which they were made.
    pub fn signal_group(&mut self, group: Guid) {
        let mut at = 0;
        while let Some(entry) = self.entries.get(at) {
            if entry.group == Some(group) {
                self.signal_one(entry.event);
            }
            at = at.saturating_add(1);
        }
    }

    /// Succeeds if an event is signalled, and resets it. If it is not, and it is of a type that notifies on a wait, this queues
    /// its function. The caller runs that by [`Self::begin`] and then checks once more.
    ///
    /// # Errors
    /// `NOT_READY`; `INVALID_PARAMETER` without the event, and for one that notifies when it is signalled.
    pub fn check(&mut self, event: Event) -> Result<(), Status> {
        let entry = self.entry_mut(event)?;
        if entry.kind.contains(EventType::NOTIFY_SIGNAL) {
            return Err(Status::INVALID_PARAMETER);
        }
        if entry.is_signalled {
            entry.is_signalled = false;
            return Ok(());
        }
        if entry.kind.contains(EventType::NOTIFY_WAIT) {
            self.queue(event);
        }
        Err(Status::NOT_READY)
    }

    /// Sets a timer to expire `after` this time from `now`, at least a [`TICK`], and periodically if `is_periodic`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the event, and for one that has no timer.
    pub fn set_timer(&mut self, event: Event, now: Time, after: Time, is_periodic: bool) -> Result<(), Status> {
        let entry = self.timer(event)?;
        let after = after.max(TICK);
        entry.timer = Some(Timer { at: now.saturating_add(after), period: is_periodic.then_some(after) });
        Ok(())
    }

    /// Stops a timer.
    ///
    /// # Errors
    /// As for [`Self::set_timer`].
    pub fn stop_timer(&mut self, event: Event) -> Result<(), Status> {
        self.timer(event)?.timer = None;
        Ok(())
    }

    /// Whether a timer runs.
    #[must_use]
    pub fn has_timers(&self) -> bool {
        self.entries.iter().any(|entry| entry.timer.is_some())
    }

    /// Stops all timers, at the end of boot services.
    pub fn stop_timers(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.timer = None);
    }

    /// Signals the events whose timers have expired by `now`. One whose function cannot run at the current level waits until it can,
    /// so that a function that takes longer than a period is not called without end.
    pub fn advance(&mut self, now: Time) {
        let level = self.level;
        let mut at = 0;
        while let Some(entry) = self.entries.get_mut(at) {
            let is_called = entry.kind.contains(EventType::NOTIFY_SIGNAL);
            let runs = !is_called || entry.function.is_none_or(|function| function.level > level);
            if let Some(timer) = entry.timer.filter(|timer| runs && timer.at <= now) {
                // A timer that has expired several times signals once.
                entry.timer = timer.period.map(|period| Timer { at: now.saturating_add(period), ..timer });
                let event = entry.event;
                self.signal_one(event);
            }
            at = at.saturating_add(1);
        }
    }

    /// Takes the next notification that may run at the current level, and raises the level to its own. The highest level comes
    /// first, and at one level the first that was signalled.
    pub fn begin(&mut self) -> Option<Notification> {
        let level_of = |event: Event| {
            let entry = self.entries.iter().find(|entry| entry.event == event)?;
            entry.function.map(|function| function.level)
        };
        let mut best: Option<(Event, Tpl)> = None;
        for &event in &self.queue {
            let Some(level) = level_of(event).filter(|&level| level > self.level) else { continue };
            if best.is_none_or(|(_, highest)| level > highest) {
                best = Some((event, level));
            }
        }
        let (event, level) = best?;
        self.queue.retain(|&queued| queued != event);
        let entry = self.entry_mut(event).ok()?;
        let function = entry.function?;
        if entry.kind.contains(EventType::NOTIFY_SIGNAL) {
            entry.is_signalled = false;
        }
        let previous = core::mem::replace(&mut self.level, level);
        Some(Notification { event, function, previous })
    }

    /// Restores the level after a notification has run.
    pub fn end(&mut self, notification: Notification) {
        self.level = notification.previous;
    }

    fn signal_one(&mut self, event: Event) {
        let Ok(entry) = self.entry_mut(event) else { return };
        let was_signalled = core::mem::replace(&mut entry.is_signalled, true);
        if !was_signalled && entry.kind.contains(EventType::NOTIFY_SIGNAL) {
            self.queue(event);
        }
    }

    /// There is room: [`Self::create`] reserved it.
    fn queue(&mut self, event: Event) {
        if !self.queue.contains(&event) {
            let _ = heap::push_within_capacity(&mut self.queue, event);
        }
    }

    fn entry(&self, event: Event) -> Result<&Entry, Status> {
        self.entries.iter().find(|entry| entry.event == event).ok_or(Status::INVALID_PARAMETER)
    }

    fn entry_mut(&mut self, event: Event) -> Result<&mut Entry, Status> {
        self.entries.iter_mut().find(|entry| entry.event == event).ok_or(Status::INVALID_PARAMETER)
    }

    fn timer(&mut self, event: Event) -> Result<&mut Entry, Status> {
        let entry = self.entry_mut(event)?;
        if entry.kind.contains(EventType::TIMER) { Ok(entry) } else { Err(Status::INVALID_PARAMETER) }
    }
}

/// The types that have a function.
const NOTIFIES: EventType = EventType::NOTIFY_WAIT.union(EventType::NOTIFY_SIGNAL);
/// The valid types, besides those that have their own group. `RUNTIME` may be added to each.
const TYPES: [EventType; 6] = [
    EventType::empty(),
    EventType::TIMER,
    EventType::NOTIFY_WAIT,
    EventType::NOTIFY_SIGNAL,
    EventType::TIMER.union(EventType::NOTIFY_WAIT),
    EventType::TIMER.union(EventType::NOTIFY_SIGNAL),
];
