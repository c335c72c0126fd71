//! Events, timers and task priority levels (UEFI 7.1).
//!
//! Nothing here calls a notification function. [`Events::signal`] and the others put notifications into a queue;
//! [`Events::begin`] takes the next one that may run at the present level out of it, and raises the level. Whoever drives the
//! queue calls the function, with nothing of the firmware locked, and then [`Events::end`]s it. A function may call any
//! service, so all of this can happen again while it runs.
//!
//! Assumed: no interrupt happens, so timers expire when somebody looks ([`Events::advance`]).

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::num::NonZeroU64;

use uefi_raw::table::boot::{EventType, Tpl};
use uefi_raw::{Guid, Status, guid};

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
pub const MEMORY_MAP_CHANGE: Guid = guid!("78bee926-692f-48fd-9edb-01422ef0f0ab");
/// The group of the events that are signalled before a boot option is started.
pub const READY_TO_BOOT: Guid = guid!("7ce88fb3-4bd7-4679-87a8-a8d8dee50d2b");
/// The group of the events that are signalled by `SetVirtualAddressMap`.
pub const VIRTUAL_ADDRESS_CHANGE: Guid = guid!("13fa7698-c831-49c7-87ea-8f43fcc25196");

/// A moment or a time, in units of 100 ns.
pub type Time = u64;

/// A function to be called when something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// The address of the function.
    pub address: NonZeroU64,
    /// What it is passed.
    pub context: u64,
    /// The level that it runs at.
    pub level: Tpl,
}

/// A notification that is running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The event.
    pub event: Event,
    /// What is to be called.
    pub function: Function,
    /// The level to go back to.
    pub previous: Tpl,
}

/// When a timer expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Timer {
    at: Time,
    /// How much later it expires again, if it does.
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

/// All events, and the present level.
#[derive(Debug)]
pub struct Events {
    entries: Vec<Entry>,
    /// The events whose functions are to be called, in the order in which they were signalled.
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

    /// The present level.
    #[must_use]
    pub const fn level(&self) -> Tpl {
        self.level
    }

    /// Raises the level, and returns the one before. To a lower one it does nothing.
    pub fn raise(&mut self, to: Tpl) -> Tpl {
        let before = self.level;
        self.level = before.max(to);
        before
    }

    /// Goes back to a level. What waited for it is to be run then: [`Self::begin`].
    pub fn restore(&mut self, to: Tpl) {
        self.level = self.level.min(to);
    }

    /// Makes an event of a type, with the function that those types have that notify, and in a group, if there is one.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a type that cannot be, or one that notifies without a function or at a level that no function
    /// runs at; `OUT_OF_RESOURCES`.
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
        // An event of a group has no group of its type as well.
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
        // An event is in the queue once at most: so there is room for it when it is signalled.
        let waiting = self.entries.len().saturating_add(1).saturating_sub(self.queue.len());
        self.queue.try_reserve(waiting).map_err(|_| Status::OUT_OF_RESOURCES)?;
        let group = group.or(own_group);
        let function = function.filter(|_| notifies);
        let entry = Entry { event, kind, function, group, is_signalled: false, timer: None };
        heap::push(&mut self.entries, entry).map_err(|_| Status::OUT_OF_RESOURCES)?;
        self.last = number;
        Ok(event)
    }

    /// Takes an event away.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the event.
    pub fn close(&mut self, event: Event) -> Result<(), Status> {
        self.entry(event)?;
        self.entries.retain(|entry| entry.event != event);
        self.queue.retain(|&queued| queued != event);
        Ok(())
    }

    /// Signals an event, and with it all of its group.
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

    /// Whether an event is signalled, which it is not any more after that. Of one that notifies those who wait the function is
    /// to be run first ([`Self::begin`]), and then this asked once more.
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

    /// Sets a timer to expire `after` a time from `now`, and again and again if `is_periodic`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the event, and for one that has no timer.
    pub fn set_timer(&mut self, event: Event, now: Time, after: Time, is_periodic: bool) -> Result<(), Status> {
        let entry = self.timer(event)?;
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

    /// Stops all timers, as boot services end.
    pub fn stop_timers(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.timer = None);
    }

    /// It is `now`: signals the events whose timers have expired.
    pub fn advance(&mut self, now: Time) {
        let mut at = 0;
        while let Some(entry) = self.entries.get_mut(at) {
            if let Some(timer) = entry.timer.filter(|timer| timer.at <= now) {
                // One that was due several times is signalled once.
                entry.timer = timer.period.map(|period| Timer { at: now.saturating_add(period), ..timer });
                let event = entry.event;
                self.signal_one(event);
            }
            at = at.saturating_add(1);
        }
    }

    /// Takes the next notification that may run at the present level, and raises the level to its own: the one of the highest
    /// level, and of these the first that was signalled.
    pub fn begin(&mut self) -> Option<Notification> {
        let level_of = |event: Event| {
            let entry = self.entries.iter().find(|entry| entry.event == event)?;
            entry.function.map(|function| function.level)
        };
        let mut best: Option<(usize, Tpl)> = None;
        for (at, &event) in self.queue.iter().enumerate() {
            let Some(level) = level_of(event).filter(|&level| level > self.level) else { continue };
            if best.is_none_or(|(_, highest)| level > highest) {
                best = Some((at, level));
            }
        }
        let (at, level) = best?;
        let event = *self.queue.get(at)?;
        self.queue.retain(|&queued| queued != event);
        let entry = self.entry_mut(event).ok()?;
        let function = entry.function?;
        if entry.kind.contains(EventType::NOTIFY_SIGNAL) {
            entry.is_signalled = false;
        }
        let previous = core::mem::replace(&mut self.level, level);
        Some(Notification { event, function, previous })
    }

    /// A notification has run.
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

    /// There is room: [`Self::create`] took it.
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

/// The types with a function.
const NOTIFIES: EventType = EventType::NOTIFY_WAIT.union(EventType::NOTIFY_SIGNAL);
/// The types that events may have, besides those with a group of their own and without `RUNTIME`.
const TYPES: [EventType; 6] = [
    EventType::empty(),
    EventType::TIMER,
    EventType::NOTIFY_WAIT,
    EventType::NOTIFY_SIGNAL,
    EventType::TIMER.union(EventType::NOTIFY_WAIT),
    EventType::TIMER.union(EventType::NOTIFY_SIGNAL),
];
