//! A machine for host tests: memory, scripted port devices, CPUID and model-specific registers.
//!
//! It records all accesses, so that a test can count them. Its devices can misbehave on purpose.

extern crate std;

use std::boxed::Box;
use std::collections::BTreeMap;
use std::ops::Range;
use std::vec;
use std::vec::Vec;

use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::hal::dma::{self, AddressWrite, Fault, MOST_BYTES, Transfer};
use crate::hal::registers::{DATA, MemoryRegisters, SELECTOR};
use crate::hal::startup::{LocalApic, Mailbox, X2APIC_COMMAND};
use crate::hal::{
    BusMaster, Clock, Cpu, Cpuid, DeviceRange, Dma, FwCfgRegisters, Memory, MemoryError, Ports, Protect, paging,
    startup,
};
use crate::layout;

const PAGE: u64 = 4096;

/// Sparse guest memory. It is zero unless written.
#[derive(Default, Clone)]
pub struct FakeMemory {
    pages: BTreeMap<u64, Vec<u8>>,
    /// The ranges of all stores, in order, if they are recorded.
    stores: Option<Vec<Range<u64>>>,
}

impl FakeMemory {
    /// The `len` bytes from `from` on.
    #[must_use]
    pub fn bytes(&self, from: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read(from, &mut bytes);
        bytes
    }

    /// Copies the bytes from `from` on to `into`.
    pub fn read(&self, from: u64, into: &mut [u8]) {
        let (mut at, mut rest) = (from, into);
        while !rest.is_empty() {
            let offset = (at % PAGE) as usize;
            let (part, next) = rest.split_at_mut((PAGE as usize - offset).min(rest.len()));
            match self.pages.get(&(at / PAGE)) {
                Some(page) => part.copy_from_slice(&page[offset..][..part.len()]),
                None => part.fill(0),
            }
            (at, rest) = (at + part.len() as u64, next);
        }
    }

    /// Stores `bytes` from `to` on. Zeros that are stored over nothing take no memory.
    pub fn store(&mut self, to: u64, bytes: &[u8]) {
        self.keep_store(to, bytes.len() as u64);
        let (mut at, mut rest) = (to, bytes);
        while !rest.is_empty() {
            let offset = (at % PAGE) as usize;
            let (part, next) = rest.split_at(rest.len().min(PAGE as usize - offset));
            if self.pages.contains_key(&(at / PAGE)) || *part != [0; PAGE as usize][..part.len()] {
                let page = self.pages.entry(at / PAGE).or_insert_with(|| vec![0; PAGE as usize]);
                page[offset..][..part.len()].copy_from_slice(part);
            }
            (at, rest) = (at + part.len() as u64, next);
        }
    }

    /// Stores `len` zeros from `to` on. They take no memory.
    pub fn clear(&mut self, to: u64, len: u64) {
        self.keep_store(to, len);
        let end = to + len;
        let pages: Vec<_> = self.pages.range(to / PAGE..end.div_ceil(PAGE)).map(|(&page, _)| page).collect();
        for page in pages {
            let start = page * PAGE;
            if to <= start && start + PAGE <= end {
                self.pages.remove(&page);
            } else if let Some(bytes) = self.pages.get_mut(&page) {
                bytes[(to.max(start) - start) as usize..(end.min(start + PAGE) - start) as usize].fill(0);
            }
        }
    }

    /// Starts recording the ranges of stores.
    pub fn keep_stores(&mut self) {
        self.stores = Some(Vec::new());
    }

    /// The ranges of stores since [`Self::keep_stores`], in order. Adjacent stores are joined.
    #[must_use]
    pub fn stores(&self) -> &[Range<u64>] {
        self.stores.as_deref().unwrap_or_default()
    }

    fn keep_store(&mut self, to: u64, len: u64) {
        let Some(stores) = self.stores.as_mut().filter(|_| len != 0) else { return };
        match stores.last_mut() {
            Some(last) if last.end == to => last.end += len,
            _ => stores.push(to..to + len),
        }
    }
}

/// Guest memory as a device sees it: that of this machine, or of a virtual machine.
pub trait GuestMemory {
    /// The `len` bytes from `from` on; zeros where there is no memory.
    fn bytes(&self, from: u64, len: usize) -> Vec<u8>;
    /// Stores `bytes` from `to` on, where there is memory.
    fn store(&mut self, to: u64, bytes: &[u8]);
    /// Stores `len` zeros from `to` on, where there is memory.
    fn clear(&mut self, to: u64, len: u64) {
        let mut at = to;
        while at < to + len {
            let step = (to + len - at).min(PAGE);
            self.store(at, &[0; PAGE as usize][..step as usize]);
            at += step;
        }
    }
}

impl GuestMemory for FakeMemory {
    fn bytes(&self, from: u64, len: usize) -> Vec<u8> {
        self.bytes(from, len)
    }
    fn store(&mut self, to: u64, bytes: &[u8]) {
        self.store(to, bytes);
    }
    fn clear(&mut self, to: u64, len: u64) {
        self.clear(to, len);
    }
}

/// A device behind ports. Only the ports it claims reach it.
pub trait FakeDevice {
    /// Whether `port` is one of the device's.
    fn claims(&self, port: u16) -> bool;
    /// A read of `size` bytes (1, 2 or 4).
    fn read(&mut self, port: u16, size: u8, memory: &mut FakeMemory) -> u32;
    /// A write of `size` bytes (1, 2 or 4).
    fn write(&mut self, port: u16, size: u8, value: u32, memory: &mut FakeMemory);
    /// Successive byte reads of one port (`rep insb`), which a host may see as one access.
    fn read_string(&mut self, port: u16, into: &mut [u8], memory: &mut FakeMemory) {
        for byte in into {
            *byte = self.read(port, 1, memory) as u8;
        }
    }
    /// The same, directly to the `len` bytes of memory from `to` on.
    fn read_string_to(&mut self, port: u16, to: u64, len: u64, memory: &mut FakeMemory) {
        let mut bytes = vec![0; len as usize];
        self.read_string(port, &mut bytes, memory);
        memory.store(to, &bytes);
    }
}

/// A device behind memory-mapped registers. Only accesses to addresses that it claims reach it, and only by the
/// register functions of [`Memory`].
pub trait FakeRegisters {
    /// Whether `at` is one of the device's.
    fn claims(&self, at: u64) -> bool;
    /// A read of `size` bytes (1, 2, 4 or 8).
    fn read(&mut self, at: u64, size: u8) -> u64;
    /// A write of `size` bytes (1, 2, 4 or 8).
    fn write(&mut self, at: u64, size: u8, value: u64, memory: &mut FakeMemory);
}

/// A port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `port`, bytes, value read.
    In(u16, u8, u32),
    /// `port`, bytes, value written.
    Out(u16, u8, u32),
}

/// See [`FakeMachine::on_message`].
pub type OnMessage = Box<dyn FnMut(u64, u32, &mut FakeMemory)>;

/// The code of started CPUs: they halt.
pub const STARTUP_CODE: [u8; startup::CODE_LEN] = [0xf4; startup::CODE_LEN];

const MTRRCAP: u32 = 0xfe;

/// Panics if a CPU raises a fault for this write, as KVM does (Intel SDM volume 3, 12.11): for an invalid memory type,
/// and for reserved bits of a memory type range register. `capabilities` have the number of ranges.
pub fn check_memory_type(register: u32, value: u64, capabilities: u64) {
    let is_type = |kind: u64| matches!(kind, 0 | 1 | 4 | 5 | 6);
    let ranges = 0x200..0x200 + 2 * (capabilities as u32 & 0xff);
    let is_valid = match register {
        0x200..=0x24f if !ranges.contains(&register) => false,
        0x200..=0x24f if register.is_multiple_of(2) => is_type(value & 0xff) && value & 0xf00 == 0 && value >> 52 == 0,
        0x200..=0x24f => value & 0x7ff == 0 && value >> 52 == 0,
        0x250..=0x26f => value.to_le_bytes().into_iter().all(|kind| is_type(kind.into())),
        0x2ff => is_type(value & 0xff) && value & !0xcff == 0,
        _ => true,
    };
    assert!(is_valid, "a fault: MSR {register:#x} cannot be {value:#x}");
}

/// The machine. Absent ports read as `absent`, all ones unless changed.
pub struct FakeMachine {
    /// Guest memory.
    pub memory: FakeMemory,
    /// The CPU's random numbers, the last one first.
    pub random: Vec<u64>,
    /// The image of the EFI runtime services.
    pub runtime_services: &'static [u8],
    /// Whether page zero can be read, as after a start by the PVH entry point.
    pub has_page_zero: bool,
    /// Devices; the first that claims a port answers.
    pub devices: Vec<Box<dyn FakeDevice>>,
    /// Devices behind memory-mapped registers. The first that claims an address answers, else memory.
    pub registers: Vec<Box<dyn FakeRegisters>>,
    /// The addresses of fw_cfg's registers, if they are in memory. Then it has no ports: an access to them is a panic.
    pub fw_cfg: Option<MemoryRegisters>,
    /// The value of an absent port, truncated to the access size.
    pub absent: u32,
    /// Every port access so far, in order.
    pub accesses: Vec<Access>,
    /// Whether accesses are recorded.
    pub keeps_accesses: bool,
    /// The number of accesses to ports and registers and of reads of the clock. A string of bytes is one.
    pub steps: u64,
    /// The limit on these. One more is a panic, because a loop without end is assumed.
    pub most_steps: u64,
    /// The number of bytes that were read in place, to be summed or hashed.
    pub inspected: u64,
    /// CPUID answers by leaf and sub-leaf; absent ones read as zero.
    pub cpuid: BTreeMap<(u32, u32), Cpuid>,
    /// Model-specific registers; absent ones read as zero. An invalid memory type cannot be written.
    pub msrs: BTreeMap<u32, u64>,
    /// Receives the messages that the local APIC sends, if it is set: the register that was written (its address, or
    /// its number in x2APIC mode), the message, and memory.
    pub on_message: Option<OnMessage>,
    /// Ticks that pass at each read of the clock.
    pub ticks_per_look: u64,
    /// The clock's rate, if it is known.
    pub rate: Option<u64>,
    /// How often the rate was read.
    pub rate_looks: u64,
    ticks: u64,
    descriptor: [u8; 16],
    /// Whether a transfer has not ended, so that its memory is the device's.
    pub is_lent_for_good: bool,
    /// That memory, if it is a list.
    pub lent_for_good: Vec<u8>,
    added: paging::Added,
    /// The access to pages that were protected; all others are [`paging::Access::Any`].
    protected: BTreeMap<u64, paging::Access>,
}

/// The address where the fake shows lent buffers to devices: inside the firmware's own memory, as on the real machine.
const BUFFER: u64 = layout::FIRMWARE_RAM.start().get() + 0x1_0000;
/// The address of the DMA descriptor.
const DESCRIPTOR: u64 = layout::FIRMWARE_RAM.start().get() + 0x8000;

impl Default for FakeMachine {
    fn default() -> Self {
        Self {
            memory: FakeMemory::default(),
            random: Vec::new(),
            runtime_services: &[],
            has_page_zero: false,
            devices: Vec::new(),
            registers: Vec::new(),
            fw_cfg: None,
            absent: u32::MAX,
            accesses: Vec::new(),
            keeps_accesses: true,
            steps: 0,
            most_steps: u64::MAX,
            inspected: 0,
            cpuid: BTreeMap::new(),
            msrs: BTreeMap::new(),
            on_message: None,
            ticks_per_look: 1 << 20,
            rate: None,
            rate_looks: 0,
            ticks: 0,
            descriptor: [0; 16],
            is_lent_for_good: false,
            lent_for_good: Vec::new(),
            added: paging::Added::default(),
            protected: BTreeMap::new(),
        }
    }
}

impl FakeMachine {
    /// An empty machine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The machine with `device` added.
    #[must_use]
    pub fn with(mut self, device: impl FakeDevice + 'static) -> Self {
        self.devices.push(Box::new(device));
        self
    }

    fn step(&mut self) {
        self.steps += 1;
        assert!(self.steps <= self.most_steps, "after {} steps there is no end", self.most_steps);
    }

    fn keep(&mut self, access: Access) {
        if self.keeps_accesses {
            self.accesses.push(access);
        }
    }

    fn register_in(&mut self, at: PhysAddr, size: u8) -> Result<u64, MemoryError> {
        Self::check(at, size.into())?;
        self.step();
        if let Some(device) = self.registers.iter_mut().find(|device| device.claims(at.get())) {
            return Ok(device.read(at.get(), size));
        }
        let mut bytes = [0; 8];
        self.memory.read(at.get(), &mut bytes[..size.into()]);
        Ok(u64::from_le_bytes(bytes))
    }

    fn register_out(&mut self, at: PhysAddr, size: u8, value: u64) -> Result<(), MemoryError> {
        Self::check(at, size.into())?;
        self.step();
        self.show_descriptor();
        match self.registers.iter_mut().find(|device| device.claims(at.get())) {
            Some(device) => device.write(at.get(), size, value, &mut self.memory),
            None => self.memory.store(at.get(), &value.to_le_bytes()[..size.into()]),
        }
        self.take_descriptor();
        Ok(())
    }

    /// A register write by the firmware, which must not reach the doorbell ([`Dma`] writes that).
    fn register_write(&mut self, at: PhysAddr, size: u8, value: u64) -> Result<(), MemoryError> {
        let doorbell = self.fw_cfg.map(|registers| registers.doorbell().0.get());
        assert!(doorbell.is_none_or(|at_doorbell| !(at_doorbell..at_doorbell + 8).contains(&at.get())));
        self.register_out(at, size, value)
    }

    /// On a machine without ports for fw_cfg, checks that none is accessed.
    fn check_port(&self, port: u16) {
        assert!(self.fw_cfg.is_none() || !(SELECTOR..SELECTOR + 12).contains(&port), "no port {port:#x}");
    }

    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        self.check_port(port);
        self.step();
        let mask = u32::MAX >> (32 - u32::from(size) * 8);
        let value = match self.devices.iter_mut().find(|device| device.claims(port)) {
            Some(device) => device.read(port, size, &mut self.memory),
            None => self.absent,
        } & mask;
        self.keep(Access::In(port, size, value));
        value
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        self.check_port(port);
        self.step();
        self.keep(Access::Out(port, size, value));
        self.show_descriptor();
        if let Some(device) = self.devices.iter_mut().find(|device| device.claims(port)) {
            device.write(port, size, value, &mut self.memory);
        }
        self.take_descriptor();
    }

    /// Puts the descriptor into memory, where a device reads it like other bytes.
    fn show_descriptor(&mut self) {
        self.memory.store(DESCRIPTOR, &self.descriptor);
    }

    /// Reads the descriptor back from memory, where a device may have changed it.
    fn take_descriptor(&mut self) {
        self.memory.read(DESCRIPTOR, &mut self.descriptor);
    }

    fn access_to(&self, page: u64) -> paging::Access {
        self.protected.get(&page).copied().unwrap_or(paging::Access::Any)
    }

    /// The bytes from `start` on, for an access that writes.
    fn check_writable(&self, start: PhysAddr, len: usize) -> Result<PhysRange, MemoryError> {
        let range = Self::check(start, len)?;
        self.check_not_read_only(range)?;
        Ok(range)
    }

    fn check_not_read_only(&self, range: PhysRange) -> Result<(), MemoryError> {
        let first = range.start().align_down(Alignment::PAGE).get();
        let is_writable = |(_, access): (&u64, &paging::Access)| access.is_writable();
        let is_refused = first < range.end().get() && !self.protected.range(first..range.end().get()).all(is_writable);
        if is_refused { Err(MemoryError { range }) } else { Ok(()) }
    }

    fn check(start: PhysAddr, len: usize) -> Result<PhysRange, MemoryError> {
        let whole = PhysRange::new(start, len as u64).ok_or(MemoryError { range: PhysRange::empty_at(start) })?;
        if layout::may_access(whole) { Ok(whole) } else { Err(MemoryError { range: whole }) }
    }

    fn check_mapped(&self, range: PhysRange) -> Result<(), MemoryError> {
        let mapped = self.added.mapped.iter().any(|mapped| mapped.contains(range));
        if layout::may_access(range) || mapped { Ok(()) } else { Err(MemoryError { range }) }
    }
}

impl Ports for FakeMachine {
    fn in8(&mut self, port: u16) -> u8 {
        self.port_in(port, 1) as u8
    }
    fn in16(&mut self, port: u16) -> u16 {
        self.port_in(port, 2) as u16
    }
    fn in32(&mut self, port: u16) -> u32 {
        self.port_in(port, 4)
    }
    fn out8(&mut self, port: u16, value: u8) {
        assert!(!dma::is_doorbell(port, 1));
        self.port_out(port, 1, value.into());
    }
    fn out16(&mut self, port: u16, value: u16) {
        assert!(!dma::is_doorbell(port, 2));
        self.port_out(port, 2, value.into());
    }
    fn out32(&mut self, port: u16, value: u32) {
        assert!(!dma::is_doorbell(port, 4));
        self.port_out(port, 4, value);
    }
}

impl FwCfgRegisters for FakeMachine {
    fn select(&mut self, key: u16) {
        match self.fw_cfg {
            Some(registers) => registers.select(self, key),
            None => self.out16(SELECTOR, key),
        }
    }

    fn read_data(&mut self, into: &mut [u8]) {
        if let Some(registers) = self.fw_cfg {
            return registers.read_data(self, into);
        }
        self.step();
        match self.devices.iter_mut().find(|device| device.claims(DATA)) {
            Some(device) => device.read_string(DATA, into, &mut self.memory),
            None => into.fill(self.absent as u8),
        }
        if self.keeps_accesses {
            self.accesses.extend(into.iter().map(|&byte| Access::In(DATA, 1, byte.into())));
        }
    }

    fn load_data(&mut self, to: PhysRange) -> Result<(), MemoryError> {
        if let Some(registers) = self.fw_cfg {
            return registers.load_data(self, to);
        }
        self.check_mapped(to)?;
        self.check_not_read_only(to)?;
        self.step();
        let (start, len) = (to.start().get(), to.len());
        match self.devices.iter_mut().find(|device| device.claims(DATA)) {
            Some(device) => device.read_string_to(DATA, start, len, &mut self.memory),
            None => self.memory.store(start, &vec![self.absent as u8; len as usize]),
        }
        if self.keeps_accesses {
            let bytes = self.memory.bytes(start, len as usize);
            self.accesses.extend(bytes.into_iter().map(|byte| Access::In(DATA, 1, byte.into())));
        }
        Ok(())
    }

    fn read_dma_address_high(&mut self) -> [u8; 4] {
        match self.fw_cfg {
            Some(registers) => registers.read_dma_address_high(self),
            None => self.in32(dma::ADDRESS_HIGH).to_le_bytes(),
        }
    }
}

impl paging::Entries for FakeMemory {
    fn get(&mut self, at: PhysAddr) -> u64 {
        u64::from_le_bytes(self.bytes(at.get(), 8).try_into().unwrap_or_default())
    }
    fn set(&mut self, at: PhysAddr, entry: u64) {
        self.store(at.get(), &entry.to_le_bytes());
    }
}

/// Each protection takes as much room as the first one of a place takes on the real machine.
impl Protect for FakeMachine {
    fn protect(&mut self, range: PhysRange, access: paging::Access, room: PhysRange) -> Result<PhysRange, MemoryError> {
        let error = MemoryError { range };
        self.check_mapped(range)?;
        self.check_writable(room.start(), room.len() as usize)?;
        assert!([range.start(), range.end(), room.start()].iter().all(|at| at.is_aligned(Alignment::PAGE)));
        assert!(!range.overlaps(room), "tables at {room} for {range}");
        let needed = paging::room_to_protect(range);
        if needed > room.len() {
            return Err(error);
        }
        let (tables, rest) = room.split_at(needed);
        self.memory.store(tables.start().get(), &vec![0x55; tables.len() as usize]);
        self.protected.extend((range.start().get()..range.end().get()).step_by(0x1000).map(|page| (page, access)));
        Ok(rest)
    }
    fn access(&mut self, range: PhysRange) -> Result<Option<paging::Access>, MemoryError> {
        self.check_mapped(range)?;
        let pages = range.pages();
        let first = self.access_to(pages.start().get());
        let is_same =
            (pages.start().get()..pages.end().get()).step_by(0x1000).all(|page| self.access_to(page) == first);
        Ok(Some(first).filter(|_| is_same))
    }
}

impl Memory for FakeMachine {
    fn map(&mut self, range: PhysRange, room: PhysRange) -> Result<(), MemoryError> {
        Self::check(room.start(), room.len() as usize)?;
        let error = MemoryError { range };
        self.added.add_room(room).ok_or(error)?;
        paging::map(&mut self.memory, range, room).ok_or(error)?;
        self.added.mapped.try_push(range).map_err(|_| error)
    }
    fn read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryError> {
        let range = PhysRange::new(from, into.len() as u64).ok_or(MemoryError { range: PhysRange::empty_at(from) })?;
        let is_in_page_zero = self.has_page_zero && layout::may_read_page_zero(range);
        if !is_in_page_zero && !layout::may_access(range) {
            return Err(MemoryError { range });
        }
        self.memory.read(from.get(), into);
        Ok(())
    }
    fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), MemoryError> {
        self.check_mapped(range)?;
        self.inspected += range.len();
        // In pieces of an odd length, so that a test gets more than one.
        let mut piece = [0; 1021];
        let (mut at, end) = (range.start().get(), range.end().get());
        while at < end {
            let len = piece.len().min((end - at) as usize);
            self.memory.read(at, &mut piece[..len]);
            show(&piece[..len]);
            at += len as u64;
        }
        Ok(())
    }
    fn write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), MemoryError> {
        self.check_writable(to, bytes.len())?;
        self.memory.store(to.get(), bytes);
        Ok(())
    }
    fn copy(&mut self, from: PhysRange, to: PhysAddr) -> Result<(), MemoryError> {
        Self::check(from.start(), from.len() as usize)?;
        self.check_writable(to, from.len() as usize)?;
        let bytes = self.memory.bytes(from.start().get(), from.len() as usize);
        self.memory.store(to.get(), &bytes);
        Ok(())
    }
    fn fill(&mut self, range: PhysRange, byte: u8) -> Result<(), MemoryError> {
        self.check_writable(range.start(), range.len() as usize)?;
        match byte {
            0 => self.memory.clear(range.start().get(), range.len()),
            byte => self.memory.store(range.start().get(), &vec![byte; range.len() as usize]),
        }
        Ok(())
    }
    fn read_register8(&mut self, at: PhysAddr) -> Result<u8, MemoryError> {
        Ok(self.register_in(at, 1)? as u8)
    }
    fn read_register16(&mut self, at: PhysAddr) -> Result<u16, MemoryError> {
        Ok(self.register_in(at, 2)? as u16)
    }
    fn read_register32(&mut self, at: PhysAddr) -> Result<u32, MemoryError> {
        Ok(self.register_in(at, 4)? as u32)
    }
    fn read_register64(&mut self, at: PhysAddr) -> Result<u64, MemoryError> {
        self.register_in(at, 8)
    }
    fn write_register8(&mut self, at: PhysAddr, value: u8) -> Result<(), MemoryError> {
        self.register_write(at, 1, value.into())
    }
    fn write_register16(&mut self, at: PhysAddr, value: u16) -> Result<(), MemoryError> {
        self.register_write(at, 2, value.into())
    }
    fn write_register32(&mut self, at: PhysAddr, value: u32) -> Result<(), MemoryError> {
        self.register_write(at, 4, value.into())
    }
    fn write_register64(&mut self, at: PhysAddr, value: u64) -> Result<(), MemoryError> {
        self.register_write(at, 8, value)
    }
}

impl BusMaster for FakeMachine {
    fn lend(&mut self, range: PhysRange) -> Result<DeviceRange, MemoryError> {
        self.check_mapped(range)?;
        self.check_not_read_only(range)?;
        Ok(DeviceRange::checked(range))
    }
    fn order(&mut self) {}
}

impl FakeMachine {
    /// Makes the device execute a transfer with the `len` bytes of memory at `at`.
    fn transfer(&mut self, transfer: Transfer, at: u64, len: usize) -> Result<(), Fault> {
        if self.is_lent_for_good {
            return Err(Fault::Timeout(transfer.control));
        }
        self.descriptor = transfer.descriptor(PhysAddr::new(at), u32::try_from(len).expect("a length of 32 bits"));
        let halves = transfer.address_write == AddressWrite::Halves;
        let (high, low) = (((DESCRIPTOR >> 32) as u32).to_be(), (DESCRIPTOR as u32).to_be());
        match self.fw_cfg.map(MemoryRegisters::doorbell) {
            None => {
                if halves {
                    self.port_out(dma::ADDRESS_HIGH, 4, high);
                }
                self.port_out(dma::ADDRESS_LOW, 4, low);
            }
            Some((at_high, at_low)) if halves => {
                self.register_out(at_high, 4, high.into())?;
                self.register_out(at_low, 4, low.into())?;
            }
            Some((all, _)) => self.register_out(all, 8, DESCRIPTOR.to_be())?,
        }
        let result = dma::wait(self, |machine| {
            let [a, b, c, d, ..] = machine.descriptor;
            u32::from_be_bytes([a, b, c, d])
        });
        self.is_lent_for_good = matches!(result, Err(Fault::Timeout(_)));
        result
    }
}

impl Dma for FakeMachine {
    fn pass(&mut self, transfer: Transfer, len: u32) -> Result<(), Fault> {
        let control = transfer.control & dma::PASSING;
        self.transfer(Transfer { control, ..transfer }, 0, len as usize)
    }
    fn load(&mut self, transfer: Transfer, to: PhysRange) -> Result<(), Fault> {
        self.check_mapped(to)?;
        self.check_not_read_only(to)?;
        self.transfer(transfer, to.start().get(), to.len() as usize)
    }
    fn read_list(&mut self, transfer: Transfer, into: &mut Vec<u8>) -> Result<(), Fault> {
        self.memory.store(BUFFER, into);
        let result = self.transfer(transfer, BUFFER, into.len());
        if self.is_lent_for_good {
            self.lent_for_good = core::mem::take(into);
        } else {
            self.memory.read(BUFFER, into);
        }
        result
    }
    fn read_bytes(&mut self, transfer: Transfer, into: &mut [u8]) -> Result<(), Fault> {
        assert!(into.len() <= MOST_BYTES);
        self.memory.store(BUFFER, into);
        self.transfer(transfer, BUFFER, into.len())?;
        self.memory.read(BUFFER, into);
        Ok(())
    }
    fn write_bytes(&mut self, transfer: Transfer, bytes: &[u8]) -> Result<(), Fault> {
        assert!(bytes.len() <= MOST_BYTES);
        self.memory.store(BUFFER, bytes);
        self.transfer(transfer, BUFFER, bytes.len())
    }
    fn is_stuck(&self) -> bool {
        self.is_lent_for_good
    }
    fn forget_address(&mut self) {
        // In memory, the whole address is written each time.
        if self.fw_cfg.is_none() {
            self.port_out(dma::ADDRESS_HIGH, 4, 0);
        }
    }
    fn check_device_range(&self, range: PhysRange) -> Result<(), MemoryError> {
        self.check_mapped(range)?;
        self.check_not_read_only(range)
    }
}

impl Cpu for FakeMachine {
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Cpuid {
        self.cpuid.get(&(leaf, subleaf)).copied().unwrap_or_default()
    }
    fn read_msr(&mut self, register: u32) -> u64 {
        self.msrs.get(&register).copied().unwrap_or_default()
    }
    fn write_msr(&mut self, register: u32, value: u64) {
        assert_ne!(register, X2APIC_COMMAND, "only the machine starts CPUs");
        check_memory_type(register, value, self.read_msr(MTRRCAP));
        self.msrs.insert(register, value);
    }
    fn run_others(&mut self, apic: LocalApic, mailbox: &mut Mailbox, others: u32) -> Result<(), MemoryError> {
        let register = match apic {
            LocalApic::XApic => layout::INTERRUPT_COMMAND.start().get(),
            LocalApic::X2Apic => X2APIC_COMMAND.into(),
        };
        startup::run(self, &STARTUP_CODE, mailbox, others, |machine, message| {
            if let Some(on_message) = &mut machine.on_message {
                on_message(register, message, &mut machine.memory);
            }
        })
    }
    fn random(&mut self) -> Option<u64> {
        self.random.pop()
    }
    fn seed(&mut self) -> Option<u64> {
        self.random.pop()
    }
    fn runtime_services(&self) -> &'static [u8] {
        self.runtime_services
    }
}

impl Clock for FakeMachine {
    fn ticks(&mut self) -> u64 {
        self.step();
        self.ticks = self.ticks.wrapping_add(self.ticks_per_look);
        self.ticks
    }

    fn rate(&mut self) -> Option<u64> {
        self.rate_looks += 1;
        self.rate
    }
}
