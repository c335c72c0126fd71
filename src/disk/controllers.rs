//! The controllers of disks: which devices are, and one type for all of their drivers.
//!
//! A [`Candidate`] is a device that may have disks. [`find`] makes a list of them from what the scan of buses found, in the order of
//! discovery, which is the order in which a PC's firmware tries them. A candidate becomes [`Started`] when somebody wants its disks.
//! Until then it is not accessed.
//!
//! A controller that is stopped, could not be started, or did not answer is no bus master: so even one that ignores its reset writes no
//! memory.
//!
//! Left out: IDE, USB, SD cards, `pvscsi`; functions behind more than seven bridges; devices in slots without PCI on
//! machines other than QEMU's `microvm`.

use alloc::vec::Vec;
use core::fmt;

use arrayvec::ArrayVec;

use super::ahci::Ahci;
use super::nvme::Nvme;
use super::virtio::{self, Block, ScsiHost, mmio};
use super::{Controller, Error, Unit};
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::{BusMaster, Clock, Memory, Ports};
use crate::heap;
use crate::pci::register::{COMMAND, COMMAND_MEMORY};
use crate::pci::{self, Address, ConfigAccess, Device, Devices, Route};

/// The most candidates.
pub const MOST: usize = 64;

/// The BARs with the registers (NVM Express 1.4, 2.1; AHCI 1.3.1, 2.1.11).
const NVME_REGISTERS: u8 = 0;
const AHCI_REGISTERS: u8 = 5;

/// The function has no registers that the firmware can access.
const NO_REGISTERS: Error = Error::Broken("its registers have no address below 4 GiB");

/// A kind of controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A virtio device.
    Virtio(VirtioKind),
    /// A controller of NVMe disks.
    Nvme,
    /// A controller of SATA disks and CD drives.
    Ahci,
}

/// A kind of virtio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtioKind {
    /// A block device, which is one disk.
    Block,
    /// A host of SCSI disks and CD drives.
    Scsi,
}

impl Kind {
    /// The kind of a PCI function with these IDs ([`Function::id`]) and this class ([`Function::class`]).
    ///
    /// [`Function::id`]: crate::pci::topology::Function::id
    /// [`Function::class`]: crate::pci::topology::Function::class
    #[must_use]
    pub const fn of_function(id: u32, class: u32) -> Option<Self> {
        match (id, class) {
            // Transitional and not (VIRTIO 1.2, 4.1.2).
            (0x1001_1af4 | 0x1042_1af4, _) => Some(Self::Virtio(VirtioKind::Block)),
            (0x1004_1af4 | 0x1048_1af4, _) => Some(Self::Virtio(VirtioKind::Scsi)),
            // PCI Code and ID Assignment 1.11, section 1.2: non-volatile memory, and SATA.
            (_, 0x01_0802) => Some(Self::Nvme),
            (_, 0x01_0601) => Some(Self::Ahci),
            _ => None,
        }
    }

    /// The memory in bytes that the driver takes, from a page on.
    const fn room(self) -> u64 {
        match self {
            Self::Virtio(VirtioKind::Block) => Block::ROOM,
            Self::Virtio(VirtioKind::Scsi) => ScsiHost::ROOM,
            Self::Nvme => Nvme::ROOM,
            Self::Ahci => Ahci::ROOM,
        }
    }
}

impl VirtioKind {
    /// By the type of device (VIRTIO 1.2, 5).
    const fn of_device(device: u32) -> Option<Self> {
        match device {
            2 => Some(Self::Block),
            8 => Some(Self::Scsi),
            _ => None,
        }
    }
}

/// A device that may have disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub place: Place,
}

/// Where a controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A PCI function.
    Pci(Function),
    /// A virtio device in a slot of a machine without PCI, with these registers.
    Slot(PhysRange),
}

/// A PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// The function's address.
    pub address: Address,
    /// The way to it.
    pub route: Route,
    access: ConfigAccess,
    /// Its memory BARs below 4 GiB: first byte and length; zeros for none.
    memory: [(u32, u32); 6],
    may_decode: bool,
}

impl Function {
    fn of(devices: &Devices, device: &Device<'_>) -> Option<Self> {
        let mut memory = [(0, 0); 6];
        for (register, place) in (0..).zip(&mut memory) {
            let range = device.memory(register).filter(|&range| PhysRange::LOW_4_GIB.contains(range));
            // A length of 4 GiB is none of a device with disks.
            *place = range.map_or((0, 0), |range| (range.start().get() as u32, range.len() as u32));
        }
        let (route, may_decode) = (devices.route(device)?, device.may_decode(COMMAND_MEMORY));
        Some(Self { address: device.function.address, route, access: devices.access(), memory, may_decode })
    }

    /// One without registers at the end of a way.
    #[cfg(test)]
    pub fn at_end_of(route: Route) -> Self {
        let address = route.steps().last().expect("a step");
        Self { address, route, access: ConfigAccess::Ports, memory: [(0, 0); 6], may_decode: false }
    }

    /// A memory BAR by its number.
    fn memory(&self, register: u8) -> Option<PhysRange> {
        let &(start, len) = self.memory.get(usize::from(register)).filter(|&&(_, len)| len != 0)?;
        PhysRange::new(PhysAddr::new(start.into()), len.into())
    }
}

impl Candidate {
    /// The memory in bytes that it takes when it is started, from a page on.
    #[must_use]
    pub const fn room(&self) -> u64 {
        self.kind.room()
    }
}

impl fmt::Display for Candidate {
    /// As in `virtio disk at 00:02.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Virtio(VirtioKind::Block) => "virtio disk",
            Kind::Virtio(VirtioKind::Scsi) => "virtio SCSI",
            Kind::Nvme => "NVMe",
            Kind::Ahci => "AHCI",
        })?;
        match self.place {
            Place::Pci(function) => write!(f, " at {}", function.address),
            Place::Slot(registers) => write!(f, " at {}", registers.start()),
        }
    }
}

/// The candidates among `devices`. If these are none, because the host has set up PCI, its functions are read. On QEMU's `microvm`,
/// the slots are before `devices`, which takes a read each; the one with the highest address comes first, because QEMU puts its first
/// device there.
#[cold]
pub fn find(machine: &mut (impl Memory + Ports), devices: &Devices, is_microvm: bool) -> Vec<Candidate> {
    let mut found = List::default();
    if is_microvm {
        mmio::microvm_slots().rev().for_each(|range| {
            let device = mmio::Slot::find(machine, range).ok().flatten();
            let kind = device.and_then(|(_, device)| VirtioKind::of_device(device));
            found.add(kind.map(|kind| Candidate { kind: Kind::Virtio(kind), place: Place::Slot(range) }));
        });
        found.add_functions(devices);
    } else if devices.iter().next().is_none() {
        // Every such host has the ports.
        let access = ConfigAccess::Ports;
        let is_wanted = |id, class| Kind::of_function(id, class).is_some();
        let devices = access.with(machine, |config| pci::existing(config, access, is_wanted));
        found.add_functions(&devices);
    } else {
        found.add_functions(devices);
    }
    if found.left_out != 0 {
        crate::warn!(
            "{} more controllers of disks are left alone: the limit is {MOST}, or memory is full",
            found.left_out
        );
    }
    found.candidates
}

#[derive(Default)]
struct List {
    candidates: Vec<Candidate>,
    left_out: u16,
}

impl List {
    fn add(&mut self, candidate: Option<Candidate>) {
        let Some(candidate) = candidate else { return };
        if self.candidates.len() >= MOST || heap::push(&mut self.candidates, candidate).is_err() {
            self.left_out = self.left_out.saturating_add(1);
        }
    }

    fn add_functions(&mut self, devices: &Devices) {
        for device in devices.iter() {
            if let Some(kind) = Kind::of_function(device.function.id, device.function.class) {
                let function = Function::of(devices, &device);
                self.add(function.map(|function| Candidate { kind, place: Place::Pci(function) }));
            }
        }
    }
}

/// A controller that was started.
#[derive(Debug)]
pub struct Started {
    driver: Driver,
    switch: Option<Switch>,
    /// Whether it was stopped, by [`Controller::stop`] or because it did not answer.
    is_stopped: bool,
    /// The memory of its driver.
    room: PhysRange,
    /// Memory that it may still write, because it did not answer and does not acknowledge its stop.
    lost: ArrayVec<PhysRange, 2>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "few controllers are started, and a box's room cannot be refused")]
enum Driver {
    VirtioBlock(Block),
    VirtioScsi(ScsiHost),
    Nvme(Nvme),
    Ahci(Ahci),
}

/// What turns a function off as a bus master.
#[derive(Clone, Copy, Debug)]
struct Switch {
    access: ConfigAccess,
    address: Address,
    /// COMMAND as it was found.
    command: u16,
}

impl Switch {
    fn turn_on<M: Memory + Ports>(machine: &mut M, function: &Function) -> Result<Self, Error> {
        if !function.may_decode {
            return Err(Error::Broken("it has no address for all of its registers"));
        }
        let (access, address) = (function.access, function.address);
        let command = access.with(machine, |config| pci::turn_on(config, address, COMMAND_MEMORY));
        Ok(Self { access, address, command })
    }

    fn turn_off<M: Memory + Ports>(self, machine: &mut M) {
        let Self { access, address, command } = self;
        access.with(machine, |config| config.write32(address, COMMAND, command.into()));
    }
}

impl Started {
    fn new(driver: Driver, switch: Option<Switch>, room: PhysRange) -> Self {
        Self { driver, switch, is_stopped: false, room, lost: ArrayVec::new() }
    }

    /// Stops a controller that did not answer, before anybody uses again the memory that it was given: an answer may come at any time.
    /// If it does not acknowledge that, the memory is lost: `into`, where it was to read to, and the driver's own.
    fn checked<M: BusMaster + Clock + Ports>(
        &mut self,
        machine: &mut M,
        result: Result<(), Error>,
        into: PhysRange,
    ) -> Result<(), Error> {
        if result == Err(Error::Timeout) && self.stop(machine).is_err() {
            self.lost = ArrayVec::from([into, self.room]);
            self.lost.retain(|range| !range.is_empty());
        }
        result
    }

    /// Takes a range of memory that the controller may write at any time. Whoever has the memory map keeps it from everybody else.
    pub fn take_lost(&mut self) -> Option<PhysRange> {
        self.lost.pop()
    }

    /// Starts a candidate. `room` has [`Candidate::room`] bytes and begins on a page.
    ///
    /// # Errors
    /// [`Error`] if it is not what it seems to be, or does not answer. Then it is no bus master, but `room` is not used again: it may
    /// have ignored that.
    #[cold]
    pub fn start<M: BusMaster + Clock + Ports>(
        machine: &mut M,
        candidate: &Candidate,
        room: PhysRange,
    ) -> Result<Self, Error> {
        match &candidate.place {
            Place::Pci(function) => {
                let switch = Switch::turn_on(machine, function)?;
                match Driver::of_function(machine, candidate.kind, function, room) {
                    Ok(driver) => Ok(Self::new(driver, Some(switch), room)),
                    Err(error) => {
                        switch.turn_off(machine);
                        Err(error)
                    }
                }
            }
            &Place::Slot(range) => {
                let found = mmio::Slot::find(machine, range)?;
                let (slot, device) = found.ok_or(Error::Broken("its slot is empty now"))?;
                let kind = VirtioKind::of_device(device).filter(|&kind| Kind::Virtio(kind) == candidate.kind);
                let kind = kind.ok_or(Error::Broken("it is another kind of device now"))?;
                let driver = Driver::of_virtio(machine, kind, virtio::Place::Mmio(slot), room)?;
                Ok(Self::new(driver, None, room))
            }
        }
    }
}

impl Driver {
    fn of_function<M: BusMaster + Clock + Ports>(
        machine: &mut M,
        kind: Kind,
        function: &Function,
        room: PhysRange,
    ) -> Result<Self, Error> {
        match kind {
            Kind::Virtio(kind) => {
                let registers = function.access.with(machine, |config| {
                    virtio::pci::Function::find(config, function.address, &|register| function.memory(register))
                })?;
                Self::of_virtio(machine, kind, virtio::Place::Pci(registers), room)
            }
            Kind::Nvme => {
                let registers = function.memory(NVME_REGISTERS).ok_or(NO_REGISTERS)?;
                Nvme::start(machine, registers, room).map(Self::Nvme)
            }
            Kind::Ahci => {
                let registers = function.memory(AHCI_REGISTERS).ok_or(NO_REGISTERS)?;
                Ahci::start(machine, registers, room).map(Self::Ahci)
            }
        }
    }

    fn of_virtio<M: BusMaster + Clock>(
        machine: &mut M,
        kind: VirtioKind,
        place: virtio::Place,
        room: PhysRange,
    ) -> Result<Self, Error> {
        match kind {
            VirtioKind::Block => Block::start(machine, place, room).map(Self::VirtioBlock),
            VirtioKind::Scsi => ScsiHost::start(machine, place, room).map(Self::VirtioScsi),
        }
    }

    fn controller<M: BusMaster + Clock>(&mut self) -> &mut dyn Controller<M> {
        match self {
            Self::VirtioBlock(driver) => driver,
            Self::VirtioScsi(driver) => driver,
            Self::Nvme(driver) => driver,
            Self::Ahci(driver) => driver,
        }
    }
}

impl<M: BusMaster + Clock + Ports> Controller<M> for Started {
    #[cold]
    fn units(&mut self, machine: &mut M, found: &mut dyn FnMut(Unit)) -> Result<(), Error> {
        let result = self.driver.controller().units(machine, found);
        self.checked(machine, result, PhysRange::default())
    }

    fn read(&mut self, machine: &mut M, unit: &Unit, first: u64, into: PhysRange) -> Result<(), Error> {
        if self.is_stopped {
            return Err(Error::Timeout);
        }
        let result = self.driver.controller().read(machine, unit, first, into);
        self.checked(machine, result, into)
    }

    /// A second time, nothing happens: it is known whether the first was acknowledged.
    fn stop(&mut self, machine: &mut M) -> Result<(), Error> {
        if core::mem::replace(&mut self.is_stopped, true) {
            return Ok(());
        }
        let result = self.driver.controller().stop(machine);
        if let Some(switch) = self.switch {
            switch.turn_off(machine);
        }
        result
    }
}

#[cfg(test)]
mod tests;
