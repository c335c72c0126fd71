//! Handles and the protocols on them (UEFI 7.3).
//!
//! A handle is an opaque number, and no number is used twice. An interface is an address, which is not read here. After an
//! interface was installed, [`Handles::notified`] returns the events to signal. The caller signals them once it no longer
//! borrows this list.
//!
//! Left out: drivers. The firmware installs no driver binding, and asks none of an image's to manage a controller:
//! `ConnectController` finds none. So nobody has to close an interface that was opened exclusively or by a driver.

mod opens;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::num::NonZeroU64;

use uefi_raw::{Guid, Status};

pub use self::opens::{Agent, Open, OpenMode};
use super::events::Event;
use crate::addr::{PhysAddr, PhysRange};
use crate::heap::{self, HeapFull};

/// A handle: `EFI_HANDLE`, which is never null.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handle(NonZeroU64);

impl Handle {
    /// The handle of this number, if it is not null. It need not exist.
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

/// The address of an interface; may be null.
pub type Interface = u64;

/// Which handles to find (UEFI 7.3, `EFI_LOCATE_SEARCH_TYPE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// All.
    All,
    /// Those with this protocol.
    Protocol(Guid),
    /// The next one on which the protocol was installed since [`Handles::register`] returned this key.
    Registration(u64),
}

#[derive(Debug)]
struct Protocol {
    guid: Guid,
    interface: Interface,
    opens: Vec<Open>,
}

#[derive(Debug)]
struct Entry {
    handle: Handle,
    protocols: Vec<Protocol>,
}

impl Entry {
    fn protocol(&self, guid: Guid) -> Option<&Protocol> {
        self.protocols.iter().find(|protocol| protocol.guid == guid)
    }
}

/// A request to be notified of a protocol.
#[derive(Debug)]
struct Registration {
    key: u64,
    guid: Guid,
    event: Event,
    /// The handles that were not returned so far.
    new: Vec<Handle>,
}

/// All handles, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Handles {
    entries: Vec<Entry>,
    registrations: Vec<Registration>,
    /// The last number that was used.
    last: u64,
    /// Whether a full heap was reported.
    has_warned: bool,
}

impl From<HeapFull> for NoRoom {
    fn from(_: HeapFull) -> Self {
        Self
    }
}

/// There is no room: `OUT_OF_RESOURCES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NoRoom;

impl From<NoRoom> for Status {
    fn from(NoRoom: NoRoom) -> Self {
        Self::OUT_OF_RESOURCES
    }
}

impl Handles {
    /// No handles.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: Vec::new(), registrations: Vec::new(), last: 0, has_warned: false }
    }

    /// Whether there is such a handle.
    #[must_use]
    pub fn exists(&self, handle: Handle) -> bool {
        self.entry(handle).is_some()
    }

    /// Installs a protocol on `handle`, or on a new handle if there is none. Returns the handle. [`Self::notified`] then has the
    /// events to signal.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if the handle does not exist or has the protocol already; `OUT_OF_RESOURCES`.
    pub fn install(&mut self, handle: Option<Handle>, guid: Guid, interface: Interface) -> Result<Handle, Status> {
        let protocol = Protocol { guid, interface, opens: Vec::new() };
        let handle = match handle {
            Some(handle) => {
                let entry = self.entry_mut(handle).ok_or(Status::INVALID_PARAMETER)?;
                if entry.protocol(guid).is_some() {
                    return Err(Status::INVALID_PARAMETER);
                }
                heap::push(&mut entry.protocols, protocol).map_err(NoRoom::from)?;
                handle
            }
            None => {
                let number = self.last.checked_add(1).ok_or(Status::OUT_OF_RESOURCES)?;
                let handle = Handle::from_raw(number).ok_or(Status::OUT_OF_RESOURCES)?;
                let mut protocols = Vec::new();
                heap::push(&mut protocols, protocol).map_err(NoRoom::from)?;
                heap::push(&mut self.entries, Entry { handle, protocols }).map_err(NoRoom::from)?;
                self.last = number;
                handle
            }
        };
        self.tell(handle, guid);
        Ok(handle)
    }

    /// Replaces the interface `old` with `new`. [`Self::notified`] then has the events to signal.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the handle, `NOT_FOUND` without that interface, `ACCESS_DENIED` if a driver, a child or an
    /// exclusive user has it open.
    pub fn reinstall(&mut self, handle: Handle, guid: Guid, old: Interface, new: Interface) -> Result<(), Status> {
        let protocol = self.removable(handle, guid, old)?;
        protocol.interface = new;
        protocol.opens.clear();
        self.tell(handle, guid);
        Ok(())
    }

    /// Removes an interface from a handle, and removes the handle with its last interface.
    ///
    /// # Errors
    /// As for [`Self::reinstall`].
    pub fn uninstall(&mut self, handle: Handle, guid: Guid, interface: Interface) -> Result<(), Status> {
        self.removable(handle, guid, interface)?;
        if let Some(entry) = self.entry_mut(handle) {
            entry.protocols.retain(|protocol| protocol.guid != guid);
        }
        self.entries.retain(|entry| !entry.protocols.is_empty());
        let exists = self.exists(handle);
        for registration in self.registrations.iter_mut().filter(|registration| registration.guid == guid || !exists) {
            registration.new.retain(|&new| new != handle);
        }
        Ok(())
    }

    /// Removes all interfaces that are in `memory`, whoever has them open: it is about to be used for something else.
    pub fn remove_within(&mut self, memory: PhysRange) {
        for entry in &mut self.entries {
            entry.protocols.retain(|protocol| !memory.contains_addr(PhysAddr::new(protocol.interface)));
        }
        self.entries.retain(|entry| !entry.protocols.is_empty());
        for registration in &mut self.registrations {
            let has_it = |entry: &Entry| entry.protocol(registration.guid).is_some();
            registration.new.retain(|&new| self.entries.iter().any(|entry| entry.handle == new && has_it(entry)));
        }
    }

    /// Whether [`Self::uninstall`] would take an interface from a handle.
    ///
    /// # Errors
    /// As for [`Self::reinstall`].
    pub fn check_removable(&mut self, handle: Handle, guid: Guid, interface: Interface) -> Result<(), Status> {
        self.removable(handle, guid, interface).map(|_| ())
    }

    /// The events to signal when the protocol was installed.
    pub fn notified(&self, guid: Guid) -> impl Iterator<Item = Event> + '_ {
        self.registrations.iter().filter(move |registration| registration.guid == guid).map(|known| known.event)
    }

    /// Registers `event`, to be signalled whenever the protocol is installed. Returns the key for [`Search::Registration`].
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`.
    pub fn register(&mut self, guid: Guid, event: Event) -> Result<u64, Status> {
        let key = self.last.checked_add(1).ok_or(Status::OUT_OF_RESOURCES)?;
        let registration = Registration { key, guid, event, new: Vec::new() };
        heap::push(&mut self.registrations, registration).map_err(NoRoom::from)?;
        self.last = key;
        Ok(key)
    }

    /// Removes all registrations of `event`.
    pub fn forget(&mut self, event: Event) {
        self.registrations.retain(|registration| registration.event != event);
    }

    /// The interface of a protocol.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the handle, `UNSUPPORTED` without the protocol.
    pub fn interface(&self, handle: Handle, guid: Guid) -> Result<Interface, Status> {
        let entry = self.entry(handle).ok_or(Status::INVALID_PARAMETER)?;
        entry.protocol(guid).map(|protocol| protocol.interface).ok_or(Status::UNSUPPORTED)
    }

    /// Opens a protocol: returns [`Self::interface`], and records who uses it.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if a handle that `mode` needs does not exist, `UNSUPPORTED` without the protocol, `ALREADY_STARTED`
    /// and `ACCESS_DENIED` if another use excludes this one; `OUT_OF_RESOURCES`.
    pub fn open(&mut self, handle: Handle, guid: Guid, agent: Agent, mode: OpenMode) -> Result<Interface, Status> {
        let exists = |handle: Option<Handle>| handle.is_some_and(|handle| self.exists(handle));
        let is_valid = match mode {
            OpenMode::Handle | OpenMode::Get | OpenMode::Test => true,
            OpenMode::ChildController => {
                exists(agent.image) && exists(agent.controller) && agent.controller != Some(handle)
            }
            OpenMode::Driver | OpenMode::ExclusiveDriver => exists(agent.image) && exists(agent.controller),
            OpenMode::Exclusive => exists(agent.image),
        };
        let entry = self.entry_mut(handle).filter(|_| is_valid).ok_or(Status::INVALID_PARAMETER)?;
        let protocol = entry.protocols.iter_mut().find(|protocol| protocol.guid == guid).ok_or(Status::UNSUPPORTED)?;
        opens::add(&mut protocol.opens, agent, mode)?;
        Ok(protocol.interface)
    }

    /// Removes what [`Self::open`] recorded.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if a handle does not exist, `NOT_FOUND` if `agent` has not opened the protocol.
    pub fn close(&mut self, handle: Handle, guid: Guid, agent: Agent) -> Result<(), Status> {
        let exists = |handle| self.exists(handle);
        let is_valid = agent.image.is_some_and(exists) && agent.controller.is_none_or(exists);
        let entry = self.entry_mut(handle).filter(|_| is_valid).ok_or(Status::INVALID_PARAMETER)?;
        let protocol = entry.protocols.iter_mut().find(|protocol| protocol.guid == guid).ok_or(Status::NOT_FOUND)?;
        let before = protocol.opens.len();
        protocol.opens.retain(|open| open.agent != agent);
        if protocol.opens.len() == before { Err(Status::NOT_FOUND) } else { Ok(()) }
    }

    /// Closes everything that `image` has opened.
    pub fn close_all(&mut self, image: Handle) {
        let protocols = self.entries.iter_mut().flat_map(|entry| entry.protocols.iter_mut());
        protocols.for_each(|protocol| protocol.opens.retain(|open| open.agent.image != Some(image)));
    }

    /// Who has a protocol open.
    ///
    /// # Errors
    /// `NOT_FOUND` without the handle or the protocol.
    pub fn opens(&self, handle: Handle, guid: Guid) -> Result<&[Open], Status> {
        let protocol = self.entry(handle).and_then(|entry| entry.protocol(guid)).ok_or(Status::NOT_FOUND)?;
        Ok(&protocol.opens)
    }

    /// The protocols on a handle.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the handle.
    pub fn protocols(&self, handle: Handle) -> Result<impl ExactSizeIterator<Item = Guid> + '_, Status> {
        let entry = self.entry(handle).ok_or(Status::INVALID_PARAMETER)?;
        Ok(entry.protocols.iter().map(|protocol| protocol.guid))
    }

    /// The handles of a search, in the order in which they were made. For a registration this is one handle. It is returned again
    /// until the caller reports it with [`Self::took`].
    pub fn locate(&self, search: Search) -> impl Iterator<Item = Handle> + '_ {
        let next = match search {
            Search::Registration(key) => {
                let registration = self.registrations.iter().find(|registration| registration.key == key);
                registration.and_then(|registration| registration.new.first()).copied()
            }
            Search::All | Search::Protocol(_) => None,
        };
        let is_meant = move |entry: &&Entry| match search {
            Search::All => true,
            Search::Protocol(guid) => entry.protocol(guid).is_some(),
            Search::Registration(_) => Some(entry.handle) == next,
        };
        self.entries.iter().filter(is_meant).map(|entry| entry.handle)
    }

    /// Reports that the handle which [`Self::locate`] returned for a registration was used.
    pub fn took(&mut self, key: u64, handle: Handle) {
        for registration in self.registrations.iter_mut().filter(|registration| registration.key == key) {
            registration.new.retain(|&new| new != handle);
        }
    }

    /// The first interface of a protocol, in the order of the handles.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn first(&self, guid: Guid) -> Result<Interface, Status> {
        let protocol = self.entries.iter().find_map(|entry| entry.protocol(guid)).ok_or(Status::NOT_FOUND)?;
        Ok(protocol.interface)
    }

    fn entry(&self, handle: Handle) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.handle == handle)
    }

    fn entry_mut(&mut self, handle: Handle) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.handle == handle)
    }

    /// The interface, if it may be removed.
    fn removable(&mut self, handle: Handle, guid: Guid, interface: Interface) -> Result<&mut Protocol, Status> {
        let entry = self.entry_mut(handle).ok_or(Status::INVALID_PARAMETER)?;
        let is_meant = |protocol: &&mut Protocol| protocol.guid == guid && protocol.interface == interface;
        let protocol = entry.protocols.iter_mut().find(is_meant).ok_or(Status::NOT_FOUND)?;
        if protocol.opens.iter().any(|open| open.mode.is_held()) {
            return Err(Status::ACCESS_DENIED);
        }
        Ok(protocol)
    }

    /// Records the handle in the protocol's registrations. If the heap is full, the event is signalled without it.
    fn tell(&mut self, handle: Handle, guid: Guid) {
        for registration in self.registrations.iter_mut().filter(|registration| registration.guid == guid) {
            registration.new.retain(|&new| new != handle);
            let is_lost = heap::push(&mut registration.new, handle).is_err();
            if is_lost && !core::mem::replace(&mut self.has_warned, true) {
                crate::warn!(
                    "the firmware's heap is full: from now on, an EFI program may be told of a protocol, but not on which \
                     handle; let it load fewer drivers"
                );
            }
        }
    }
}
