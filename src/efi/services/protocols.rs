//! Protocol handler services (UEFI 7.3).

use alloc::vec::Vec;

use uefi_raw::protocol::driver::DriverBindingProtocol;
use uefi_raw::table::boot::MemoryType;
use uefi_raw::{Guid, Status, guid};

use super::pointers::{Pointers, rest_address};
use super::{Services, no_room};
use crate::efi::device_path::{self, DevicePath};
use crate::efi::handles::{Agent, Handle, Interface, OpenMode, Search};
use crate::efi::services::pointers::bytes;
use crate::hal::Memory;
use crate::heap;

/// The protocol whose interface is the path of a device.
pub const DEVICE_PATH: Guid = guid!("09576e91-6d3f-11d2-8e39-00a0c969723b");

/// The only type of interfaces (UEFI 7.3, `EFI_NATIVE_INTERFACE`).
const NATIVE: u32 = 0;

/// The most protocols of one `InstallMultipleProtocolInterfaces`: a bound for what is read.
const MOST_PROTOCOLS: usize = 256;

/// The handle of this number, which need not exist.
pub(super) fn handle(number: u64) -> Result<Handle, Status> {
    Handle::from_raw(number).ok_or(Status::INVALID_PARAMETER)
}

/// The kinds of `LocateHandle` (UEFI 7.3, `EFI_LOCATE_SEARCH_TYPE`).
const ALL_HANDLES: u32 = 0;
const BY_REGISTRATION: u32 = 1;
const BY_PROTOCOL: u32 = 2;

impl Services {
    /// Installs a protocol, and signals those who want to know.
    ///
    /// # Errors
    /// Those of [`crate::efi::handles::Handles::install`].
    pub fn install(&mut self, on: Option<Handle>, guid: Guid, interface: Interface) -> Result<Handle, Status> {
        let handle = self.handles.install(on, guid, interface)?;
        self.signal_installed(guid);
        Ok(handle)
    }

    fn signal_installed(&mut self, guid: Guid) {
        for event in self.handles.notified(guid) {
            // An event that was closed is not registered any more.
            let _ = self.events.signal(event);
        }
    }

    /// `InstallProtocolInterface`. The handle is at `at`; a new one is written there if it is null.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for null pointers and an unknown type of interface; those of
    /// [`crate::efi::handles::Handles::install`].
    pub fn install_protocol_interface(
        &mut self,
        machine: &mut impl Memory,
        at: u64,
        guid: u64,
        kind: u32,
        interface: Interface,
    ) -> Result<(), Status> {
        let on = Handle::from_raw(machine.number(at)?);
        if on.is_none() {
            machine.check_number(at)?;
        }
        let guid = machine.guid(guid)?;
        if kind != NATIVE {
            return Err(Status::INVALID_PARAMETER);
        }
        let handle = self.install(on, guid, interface)?;
        if on.is_none() { machine.set_number(at, handle.raw()) } else { Ok(()) }
    }

    /// `ReinstallProtocolInterface`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for null pointers; those of [`crate::efi::handles::Handles::reinstall`].
    pub fn reinstall_protocol_interface(
        &mut self,
        machine: &mut impl Memory,
        on: u64,
        guid: u64,
        old: Interface,
        new: Interface,
    ) -> Result<(), Status> {
        let guid = machine.guid(guid)?;
        self.handles.reinstall(handle(on)?, guid, old, new)?;
        self.signal_installed(guid);
        Ok(())
    }

    /// `UninstallProtocolInterface`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for null pointers; those of [`crate::efi::handles::Handles::uninstall`].
    pub fn uninstall_protocol_interface(
        &mut self,
        machine: &mut impl Memory,
        on: u64,
        guid: u64,
        interface: Interface,
    ) -> Result<(), Status> {
        let guid = machine.guid(guid)?;
        self.handles.uninstall(handle(on)?, guid, interface)
    }

    /// `HandleProtocol`: [`Self::open_protocol`] by the firmware. The interface is written to `at`, and null if there is none.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for null pointers and without the handle, `UNSUPPORTED` without the protocol.
    pub fn handle_protocol(&mut self, machine: &mut impl Memory, on: u64, guid: u64, at: u64) -> Result<(), Status> {
        machine.set_number(at, 0)?;
        let guid = machine.guid(guid)?;
        let interface = self.handles.interface(handle(on)?, guid)?;
        machine.set_number(at, interface)
    }

    /// `OpenProtocol`. The interface is written to `at`, which may be null for [`OpenMode::Test`].
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for null pointers and unknown attributes; those of [`crate::efi::handles::Handles::open`].
    pub fn open_protocol(
        &mut self,
        machine: &mut impl Memory,
        on: u64,
        guid: u64,
        at: u64,
        agent: (u64, u64),
        attributes: u32,
    ) -> Result<(), Status> {
        let mode = OpenMode::from_attributes(attributes).ok_or(Status::INVALID_PARAMETER)?;
        let guid = machine.guid(guid)?;
        let (image, controller) = agent;
        let agent = Agent { image: Handle::from_raw(image), controller: Handle::from_raw(controller) };
        if mode == OpenMode::Test {
            return self.handles.open(handle(on)?, guid, agent, mode).map(|_| ());
        }
        machine.check_number(at)?;
        match self.handles.open(handle(on)?, guid, agent, mode) {
            Ok(interface) => machine.set_number(at, interface),
            Err(Status::ALREADY_STARTED) => {
                // The interface is returned all the same.
                machine.set_number(at, self.handles.interface(handle(on)?, guid)?)?;
                Err(Status::ALREADY_STARTED)
            }
            Err(status) => {
                if status == Status::UNSUPPORTED {
                    machine.set_number(at, 0)?;
                }
                Err(status)
            }
        }
    }

    /// `CloseProtocol`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for null pointers; those of [`crate::efi::handles::Handles::close`].
    pub fn close_protocol(
        &mut self,
        machine: &mut impl Memory,
        on: u64,
        guid: u64,
        agent: (u64, u64),
    ) -> Result<(), Status> {
        let guid = machine.guid(guid)?;
        let (image, controller) = agent;
        let agent = Agent { image: Handle::from_raw(image), controller: Handle::from_raw(controller) };
        self.handles.close(handle(on)?, guid, agent)
    }

    /// `OpenProtocolInformation`. The address of a pool with the list is written to `list`, as many as they are to `count`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for null pointers, `NOT_FOUND` without the handle or the protocol, `OUT_OF_RESOURCES`.
    pub fn open_protocol_information(
        &mut self,
        machine: &mut impl Memory,
        on: u64,
        guid: u64,
        list: u64,
        count: u64,
    ) -> Result<(), Status> {
        let guid = machine.guid(guid)?;
        machine.check_number(list)?;
        machine.check_number(count)?;
        let opens = Handle::from_raw(on).ok_or(Status::NOT_FOUND).and_then(|on| self.handles.opens(on, guid))?;
        let raw = |handle: Option<Handle>| handle.map_or(0, Handle::raw).to_le_bytes();
        let (mut bytes, number) = (Vec::new(), opens.len() as u64);
        for open in opens {
            let [a, b, c, d] = open.mode.attributes().to_le_bytes();
            let [e, f, g, h] = open.count.to_le_bytes();
            let entry = [raw(open.agent.image), raw(open.agent.controller), [a, b, c, d, e, f, g, h]];
            heap::extend(&mut bytes, entry.as_flattened()).map_err(no_room)?;
        }
        let at = self.pool_of(machine, &bytes)?;
        machine.set_number(list, at)?;
        machine.set_number(count, number)
    }

    /// `ProtocolsPerHandle`. The address of a pool with the addresses of the GUIDs is written to `list`, as many as they are to
    /// `count`. The GUIDs follow in the same pool.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for null pointers and without the handle, `OUT_OF_RESOURCES`.
    pub fn protocols_per_handle(
        &mut self,
        machine: &mut impl Memory,
        on: u64,
        list: u64,
        count: u64,
    ) -> Result<(), Status> {
        machine.check_number(list)?;
        machine.check_number(count)?;
        let protocols = self.handles.protocols(handle(on)?)?;
        let number = protocols.len() as u64;
        let mut guids = Vec::new();
        for guid in protocols {
            heap::extend(&mut guids, &guid.to_bytes()).map_err(no_room)?;
        }
        let pointers_len = number.saturating_mul(8);
        let len = pointers_len.saturating_add(guids.len() as u64);
        let pool = self.memory.allocate_pool(MemoryType::BOOT_SERVICES_DATA, len)?.get();
        let first = pool.saturating_add(pointers_len);
        for index in 0..number {
            let guid = first.saturating_add(index.saturating_mul(size_of::<Guid>() as u64));
            machine.set_number(pool.saturating_add(index.saturating_mul(8)), guid)?;
        }
        machine.put(first, &guids)?;
        machine.set_number(list, pool)?;
        machine.set_number(count, number)
    }

    /// `RegisterProtocolNotify`. The key is written to `at`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for null pointers and without the event; `OUT_OF_RESOURCES`.
    pub fn register_protocol_notify(
        &mut self,
        machine: &mut impl Memory,
        guid: u64,
        event: u64,
        at: u64,
    ) -> Result<(), Status> {
        let guid = machine.guid(guid)?;
        machine.check_number(at)?;
        let event = crate::efi::events::Event::from_raw(event).ok_or(Status::INVALID_PARAMETER)?;
        if !self.events.exists(event) {
            return Err(Status::INVALID_PARAMETER);
        }
        let key = self.handles.register(guid, event)?;
        machine.set_number(at, key)
    }

    /// What is searched for.
    fn search(machine: &mut impl Memory, kind: u32, guid: u64, key: u64) -> Result<Search, Status> {
        match kind {
            ALL_HANDLES => Ok(Search::All),
            BY_REGISTRATION if key != 0 => Ok(Search::Registration(key)),
            BY_PROTOCOL => Ok(Search::Protocol(machine.guid(guid)?)),
            _ => Err(Status::INVALID_PARAMETER),
        }
    }

    /// `LocateHandle`. The handles are written to `list`; `len_at` has the length of the list in bytes, and then that of the
    /// handles.
    ///
    /// # Errors
    /// `NOT_FOUND`; `BUFFER_TOO_SMALL` with the length; `INVALID_PARAMETER` for null pointers and an unknown kind.
    pub fn locate_handle(
        &mut self,
        machine: &mut impl Memory,
        kind: u32,
        guid: u64,
        key: u64,
        len_at: u64,
        list: u64,
    ) -> Result<(), Status> {
        let search = Self::search(machine, kind, guid, key)?;
        let room = machine.number(len_at)?;
        let len = (heap::count(self.handles.locate(search)) as u64).saturating_mul(8);
        if len == 0 {
            return Err(Status::NOT_FOUND);
        }
        machine.set_number(len_at, len)?;
        if room < len {
            return Err(Status::BUFFER_TOO_SMALL);
        }
        let mut at = bytes(list, len)?.start().get();
        let mut last = None;
        for handle in self.handles.locate(search) {
            machine.set_number(at, handle.raw())?;
            at = at.saturating_add(8);
            last = Some(handle);
        }
        if let (Search::Registration(key), Some(handle)) = (search, last) {
            self.handles.took(key, handle);
        }
        Ok(())
    }

    /// `LocateHandleBuffer`: as [`Self::locate_handle`], with a pool for the handles, whose address is written to `list`.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_PARAMETER` for null pointers and an unknown kind; `OUT_OF_RESOURCES`.
    pub fn locate_handle_buffer(
        &mut self,
        machine: &mut impl Memory,
        kind: u32,
        guid: u64,
        key: u64,
        count: u64,
        list: u64,
    ) -> Result<(), Status> {
        machine.check_number(count)?;
        machine.check_number(list)?;
        let search = Self::search(machine, kind, guid, key)?;
        let mut found = Vec::new();
        for handle in self.handles.locate(search) {
            heap::extend(&mut found, &handle.raw().to_le_bytes()).map_err(no_room)?;
            if let Search::Registration(_) = search {
                break;
            }
        }
        machine.set_number(count, 0)?;
        machine.set_number(list, 0)?;
        if found.is_empty() {
            return Err(Status::NOT_FOUND);
        }
        let at = self.pool_of(machine, &found)?;
        let first = self.handles.locate(search).next();
        if let (Search::Registration(key), Some(handle)) = (search, first) {
            self.handles.took(key, handle);
        }
        machine.set_number(count, (found.len() as u64) >> 3)?;
        machine.set_number(list, at)
    }

    /// `LocateProtocol`. The first interface is written to `at`, and null if there is none.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_PARAMETER` for null pointers.
    pub fn locate_protocol(&mut self, machine: &mut impl Memory, guid: u64, key: u64, at: u64) -> Result<(), Status> {
        machine.set_number(at, 0)?;
        let guid = machine.guid(guid)?;
        let interface = if key == 0 {
            self.handles.first(guid)?
        } else {
            let handle = self.handles.locate(Search::Registration(key)).next().ok_or(Status::NOT_FOUND)?;
            let interface = self.handles.interface(handle, guid).map_err(|_| Status::NOT_FOUND)?;
            self.handles.took(key, handle);
            interface
        };
        machine.set_number(at, interface)
    }

    /// `LocateDevicePath`: the handle with the protocol whose device path is the longest that the path at `path_at` begins with. The
    /// address of the rest of the path is written to `path_at`, and the handle to `at`.
    ///
    /// # Errors
    /// `NOT_FOUND`; `INVALID_PARAMETER` for null pointers, except for `at` if there is no such handle.
    pub fn locate_device_path(
        &mut self,
        machine: &mut impl Memory,
        guid: u64,
        path_at: u64,
        at: u64,
    ) -> Result<(), Status> {
        let guid = machine.guid(guid)?;
        let address = machine.number(path_at)?;
        let path = machine.path(address)?;
        let path = DevicePath::parse(&path).ok_or(Status::INVALID_PARAMETER)?;
        let (found, rest) = self.device_of(machine, guid, path)?.ok_or(Status::NOT_FOUND)?;
        machine.check_number(at)?;
        machine.set_number(path_at, rest_address(address, path, rest))?;
        machine.set_number(at, found.raw())
    }

    /// The handle with the protocol whose device path is the longest that `path` begins with, and the rest of the path.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`.
    pub fn device_of<'p>(
        &self,
        machine: &mut impl Memory,
        guid: Guid,
        path: DevicePath<'p>,
    ) -> Result<Option<(Handle, DevicePath<'p>)>, Status> {
        let mut best: Option<(Handle, DevicePath<'p>)> = None;
        for handle in self.handles.locate(Search::Protocol(guid)) {
            let Ok(own) = self.handles.interface(handle, DEVICE_PATH) else { continue };
            // Another image's path may be broken.
            let own = match machine.path(own) {
                Err(Status::OUT_OF_RESOURCES) => return Err(Status::OUT_OF_RESOURCES),
                Err(_) => continue,
                Ok(own) => own,
            };
            let Some(rest) = DevicePath::parse(&own).and_then(|own| path.strip_prefix(own)) else { continue };
            if best.is_none_or(|(_, shortest)| rest.bytes().len() < shortest.bytes().len()) {
                best = Some((handle, rest));
            }
        }
        Ok(best)
    }

    /// The pairs of addresses of GUID and interface in the arguments of a function with any number of them.
    fn pairs(machine: &mut impl Memory, arguments: u64) -> Result<Vec<(Guid, Interface)>, Status> {
        let mut pairs = Vec::new();
        let mut at = arguments;
        for _ in 0..MOST_PROTOCOLS {
            let guid = machine.number(at)?;
            if guid == 0 {
                return Ok(pairs);
            }
            let guid = machine.guid(guid)?;
            let interface = machine.number(at.saturating_add(8))?;
            heap::push(&mut pairs, (guid, interface)).map_err(no_room)?;
            at = at.saturating_add(16);
        }
        Err(Status::INVALID_PARAMETER)
    }

    /// `InstallMultipleProtocolInterfaces`, with the address of the arguments after the handle's: all or none is installed.
    ///
    /// # Errors
    /// `ALREADY_STARTED` for a device path that some handle has; those of [`Self::install_protocol_interface`].
    pub fn install_multiple(&mut self, machine: &mut impl Memory, at: u64, arguments: u64) -> Result<(), Status> {
        let given = Handle::from_raw(machine.number(at)?);
        if given.is_none() {
            machine.check_number(at)?;
        }
        let mut on = given;
        let pairs = Self::pairs(machine, arguments)?;
        for &(guid, interface) in &pairs {
            if guid == DEVICE_PATH && self.has_device_path(machine, interface)? {
                return Err(Status::ALREADY_STARTED);
            }
        }
        let mut done = 0_usize;
        for &(guid, interface) in &pairs {
            match self.handles.install(on, guid, interface) {
                Ok(handle) => on = Some(handle),
                Err(status) => {
                    for &(guid, interface) in pairs.iter().take(done) {
                        if let Some(handle) = on {
                            // Nobody has opened what was just installed.
                            let _ = self.handles.uninstall(handle, guid, interface);
                        }
                    }
                    return Err(status);
                }
            }
            done = done.saturating_add(1);
        }
        pairs.iter().for_each(|&(guid, _)| self.signal_installed(guid));
        if given.is_none() { machine.set_number(at, on.map_or(0, Handle::raw)) } else { Ok(()) }
    }

    /// Whether a handle has the device path at `interface`.
    fn has_device_path(&self, machine: &mut impl Memory, interface: u64) -> Result<bool, Status> {
        let path = machine.path(interface)?;
        for handle in self.handles.locate(Search::Protocol(DEVICE_PATH)) {
            let own = self.handles.interface(handle, DEVICE_PATH).and_then(|own| machine.path(own));
            if own.is_ok_and(|own| own == path) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `UninstallMultipleProtocolInterfaces`, with the address of the arguments after the handle: all or none is taken away.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if one of them cannot be taken away.
    pub fn uninstall_multiple(&mut self, machine: &mut impl Memory, on: u64, arguments: u64) -> Result<(), Status> {
        let on = handle(on)?;
        let pairs = Self::pairs(machine, arguments)?;
        for &(guid, interface) in &pairs {
            self.handles.check_removable(on, guid, interface).map_err(|_| Status::INVALID_PARAMETER)?;
        }
        for (guid, interface) in pairs {
            // One that is named twice is gone the second time.
            self.handles.uninstall(on, guid, interface).map_err(|_| Status::INVALID_PARAMETER)?;
        }
        Ok(())
    }

    /// `ConnectController`: there are no drivers. `rest` is the rest of a device path or null.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the handle, else `NOT_FOUND`, unless the rest of the path is its end.
    pub fn connect_controller(&self, machine: &mut impl Memory, on: u64, rest: u64) -> Result<(), Status> {
        if !self.handles.exists(handle(on)?) {
            return Err(Status::INVALID_PARAMETER);
        }
        let is_end = rest != 0 && device_path::ends(&machine.get::<{ device_path::HEADER_LEN }>(rest)?);
        if is_end { Ok(()) } else { Err(Status::NOT_FOUND) }
    }

    /// `DisconnectController`: no driver manages a controller. `driver` and `child` are handles or null.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a handle that does not exist, and for a driver without a driver binding.
    pub fn disconnect_controller(&self, on: u64, driver: u64, child: u64) -> Result<(), Status> {
        let exists = |number| Handle::from_raw(number).is_none_or(|handle| self.handles.exists(handle));
        let binds = |driver| self.handles.interface(driver, DriverBindingProtocol::GUID).is_ok();
        let is_valid = exists(handle(on)?.raw()) && exists(child) && Handle::from_raw(driver).is_none_or(binds);
        if is_valid { Ok(()) } else { Err(Status::INVALID_PARAMETER) }
    }
}
