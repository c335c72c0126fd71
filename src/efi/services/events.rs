//! Event, timer and task priority services (UEFI 7.1).

use uefi_raw::table::boot::{EventType, Tpl};
use uefi_raw::{Guid, Status};

use super::Services;
use super::pointers::Pointers;
use crate::efi::events::{Event, Function, Time};
use crate::hal::Memory;

/// The most events of one `WaitForEvent`: a bound for what is read.
const MOST_EVENTS: u64 = 1 << 12;

/// What `WaitForEvent` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// One is signalled, and its number is written.
    Done,
    /// None is. Notifications may have been queued; ask again after them.
    Pending,
}

/// The kinds of `SetTimer` (UEFI 7.1, `EFI_TIMER_DELAY`).
const TIMER_CANCEL: u32 = 0;
const TIMER_PERIODIC: u32 = 1;
const TIMER_RELATIVE: u32 = 2;

/// The event of this number.
fn event(number: u64) -> Result<Event, Status> {
    Event::from_raw(number).ok_or(Status::INVALID_PARAMETER)
}

impl Services {
    /// `CreateEvent` and `CreateEventEx`, with the address of the group or null. The event is written to `at`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a null pointer; those of [`crate::efi::events::Events::create`].
    #[allow(clippy::too_many_arguments, reason = "the service has so many")]
    pub fn create_event(
        &mut self,
        machine: &mut impl Memory,
        kind: u32,
        level: u64,
        function: u64,
        context: u64,
        group: u64,
        at: u64,
    ) -> Result<(), Status> {
        machine.check_number(at)?;
        let group: Option<Guid> = if group == 0 { None } else { Some(machine.guid(group)?) };
        let level = usize::try_from(level).map_err(|_| Status::INVALID_PARAMETER)?;
        let function =
            core::num::NonZeroU64::new(function).map(|address| Function { address, context, level: Tpl(level) });
        let event = self.events.create(EventType::from_bits_retain(kind), function, group)?;
        machine.set_number(at, event.raw())
    }

    /// `CloseEvent`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the event.
    pub fn close_event(&mut self, number: u64) -> Result<(), Status> {
        let event = event(number)?;
        self.events.close(event)?;
        self.handles.forget(event);
        Ok(())
    }

    /// `SignalEvent`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the event.
    pub fn signal_event(&mut self, number: u64) -> Result<(), Status> {
        self.events.signal(event(number)?)
    }

    /// `CheckEvent`. If it is [`Waited::Pending`], it is `NOT_READY` once the notifications have run and it is so again.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the event, and for one that notifies when it is signalled.
    pub fn check_event(&mut self, number: u64) -> Result<Waited, Status> {
        match self.events.check(event(number)?) {
            Err(Status::NOT_READY) => Ok(Waited::Pending),
            result => result.map(|()| Waited::Done),
        }
    }

    /// `WaitForEvent`, once: the number of the first of `count` events at `events` that is signalled is written to `at`. That of one
    /// that cannot be waited for is written too.
    ///
    /// # Errors
    /// `UNSUPPORTED` at another level than that of applications; `INVALID_PARAMETER` for null pointers, no events, and for one
    /// that does not exist or notifies when it is signalled.
    pub fn wait_for_event(
        &mut self,
        machine: &mut impl Memory,
        count: u64,
        events: u64,
        at: u64,
    ) -> Result<Waited, Status> {
        if count == 0 || count > MOST_EVENTS {
            return Err(Status::INVALID_PARAMETER);
        }
        machine.check_number(at)?;
        if self.events.level() != Tpl::APPLICATION {
            return Err(Status::UNSUPPORTED);
        }
        for index in 0..count {
            let number = machine.number(events.saturating_add(index.saturating_mul(8)))?;
            match self.check_event(number) {
                Ok(Waited::Pending) => {}
                result => {
                    machine.set_number(at, index)?;
                    return result;
                }
            }
        }
        Ok(Waited::Pending)
    }

    /// `SetTimer`, `now`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for an unknown kind, without the event, and for one without a timer.
    pub fn set_timer(&mut self, now: Time, number: u64, kind: u32, after: Time) -> Result<(), Status> {
        let event = event(number)?;
        match kind {
            TIMER_CANCEL => self.events.stop_timer(event),
            TIMER_PERIODIC | TIMER_RELATIVE => self.events.set_timer(event, now, after, kind == TIMER_PERIODIC),
            _ => Err(Status::INVALID_PARAMETER),
        }
    }

    /// `RaiseTPL`.
    pub fn raise_level(&mut self, level: usize) -> usize {
        self.events.raise(Tpl(level)).0
    }

    /// `RestoreTPL`.
    pub fn restore_level(&mut self, level: usize) {
        self.events.restore(Tpl(level));
    }
}
