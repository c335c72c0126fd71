//! The fw_cfg device: the numbered and named items that the host provides to firmware.
//!
//! [`FwCfg::probe`] finds the device, chooses a [`Transport`], reads the directory of named items and identifies the
//! host by it ([`HostKind`]), once. Then an [`Item`] is read to a buffer, or loaded to its final address in guest
//! memory, in one transfer and never past its end.
//!
//! Three transports, the cheapest first:
//! - QEMU's DMA: the descriptor selects the item, and one register write starts the transfer.
//! - DMA on other hosts: a register write selects the item, and both halves of the descriptor's address are written.
//!   These hosts differ in which bits of the descriptor they honor and in when they start.
//! - Ports: one byte at a time from the data register, through `rep insb`, which hosts batch.
//!
//! The registers are ports on a PC and in memory on other machines. The machine hides the difference
//! ([`FwCfgRegisters`]).
//!
//! If a host refuses a DMA read, the item is read through the data register. If a transfer does not end, everything
//! after it is read that way, because the machine's DMA is stuck ([`Dma::is_stuck`]). Only writes need DMA. The caller
//! must read a named item only if the directory has it: on some hosts selecting an absent item does not do what QEMU
//! does.
//!
//! Functions with many callers in a boot are not inlined: nearly all calls run once, and a host that translates code is
//! slower with a dozen copies than with a dozen calls.
//!
//! Assumed: items do not change their size while the firmware runs.
//!
//! Sources: QEMU `docs/specs/fw_cfg.rst`, `include/standard-headers/linux/qemu_fw_cfg.h`.

mod directory;
mod dma;
mod error;
mod host_kind;
mod key;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;

pub use directory::Directory;
pub use error::Error;
pub use host_kind::HostKind;
pub use key::Key;

use zerocopy::FromZeros;

use crate::addr::{PhysAddr, PhysRange};
use crate::hal::dma::{AddressWrite, Fault, MOST_BYTES, Transfer};
use crate::hal::{Dma, FwCfgRegisters, HostAccess};

/// How bytes get from the host to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// DMA with the item selected in the descriptor.
    QemuDma,
    /// DMA with the item selected by a register write.
    PortableDma,
    /// Byte reads of the data register.
    Ports,
    /// There is no device, as on hosts that start the firmware by the PVH entry point. Every item is absent.
    Absent,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::QemuDma => "DMA",
            Self::PortableDma => "DMA, selected by port",
            Self::Ports => "ports",
            Self::Absent => "the host",
        })
    }
}

/// An item: its key and its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    key: Key,
    len: u32,
}

impl Item {
    /// The item of `key` with `len` bytes, for items that are not in the directory.
    #[must_use]
    pub const fn new(key: Key, len: u32) -> Self {
        Self { key, len }
    }

    /// The key.
    #[must_use]
    pub const fn key(self) -> Key {
        self.key
    }

    /// The length in bytes.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.len
    }

    /// Whether the item is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// Where a transfer begins in an item.
#[derive(Clone, Copy)]
enum Start {
    /// At this offset of an item that has to be selected first.
    Select(u32),
    /// At this offset, which is the position in the selected item.
    Continue(u32),
}

impl Start {
    const fn offset(self) -> u32 {
        match self {
            Self::Select(offset) | Self::Continue(offset) => offset,
        }
    }
}

/// The longest write in one transfer. The longest item that hosts accept is `etc/ramfb` with 28 bytes.
pub const MOST_WRITTEN: usize = 32;

/// The device, with its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FwCfg {
    /// The transport that was found. See [`Self::transport`].
    transport: Transport,
    host_kind: HostKind,
    directory: Directory,
}

impl FwCfg {
    /// Finds the device and reads its directory.
    ///
    /// # Errors
    /// [`Error::NoDevice`] if the signature is missing; [`Error::TooManyFiles`] and [`Error::HeapFull`] for the
    /// directory.
    pub fn probe(machine: &mut impl HostAccess) -> Result<Self, Error> {
        let (transport, identification) = probe_transport(machine)?;
        let mut this = Self { transport, ..Self::absent() };
        this.directory = this.read_directory(machine)?;
        this.host_kind = HostKind::of(transport, identification, &this.directory);
        Ok(this)
    }

    /// A host without the device: no file is found, and numbered items are empty.
    #[must_use]
    pub fn absent() -> Self {
        Self { transport: Transport::Absent, host_kind: HostKind::WithoutDevice, directory: Directory::default() }
    }

    /// The transport in use: the one that was found, or [`Transport::Ports`] if DMA is stuck.
    #[must_use]
    #[inline]
    pub fn transport(&self, dma: &impl Dma) -> Transport {
        match self.transport {
            Transport::QemuDma | Transport::PortableDma if dma.is_stuck() => Transport::Ports,
            found => found,
        }
    }

    /// The kind of host.
    #[must_use]
    pub const fn host_kind(&self) -> HostKind {
        self.host_kind
    }

    /// The named item, if the host offers it.
    #[must_use]
    #[inline]
    pub fn find(&self, name: impl AsRef<[u8]>) -> Option<Item> {
        self.directory.find(name.as_ref())
    }

    /// Reads the first bytes of `item` to `into`, as many as fit. The rest of `into` is set to zero.
    pub fn read(&self, machine: &mut impl HostAccess, item: Item, into: &mut [u8]) {
        self.read_at(machine, item, 0, into);
    }

    /// Reads the first bytes of the named item, followed by zeros if it has less. `None` if the host does not offer it.
    pub fn read_file<const N: usize>(&self, machine: &mut impl HostAccess, name: &str) -> Option<[u8; N]> {
        let item = self.find(name)?;
        let mut bytes = [0; N];
        self.read(machine, item, &mut bytes);
        Some(bytes)
    }

    /// Reads bytes of `item` from `offset` on to `into`, as many as fit. The rest of `into` is set to zero.
    ///
    /// This cannot fail: if DMA fails, the data register is read, which always returns a byte.
    pub fn read_at(&self, machine: &mut impl HostAccess, item: Item, offset: u32, into: &mut [u8]) {
        let left = item.len.saturating_sub(offset) as usize;
        let (target, rest) = into.split_at_mut(left.min(into.len()));
        rest.fill(0);
        if !target.is_empty() {
            self.read_from(machine, item.key, Start::Select(offset), target);
        }
    }

    /// Reads a whole item of at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it is longer than `limit`; [`Error::HeapFull`].
    pub fn read_all(&self, machine: &mut impl HostAccess, item: Item, limit: u32) -> Result<Vec<u8>, Error> {
        let Item { key, len } = item;
        if len > limit {
            return Err(Error::TooLarge { key, len, limit });
        }
        self.read_list(machine, key, Start::Select(0), len)
    }

    /// Reads `len` bytes of the item of `key`.
    fn read_list(&self, machine: &mut impl HostAccess, key: Key, start: Start, len: u32) -> Result<Vec<u8>, Error> {
        let room = || u8::new_vec_zeroed(len as usize).map_err(|_| Error::HeapFull { key, len });
        let mut bytes = room()?;
        match self.transport(machine) {
            Transport::QemuDma | Transport::PortableDma if len > 0 => {}
            _ => {
                self.read_from(machine, key, start, &mut bytes);
                return Ok(bytes);
            }
        }
        let transfer = self.transfer_of(machine, key, start, dma::Operation::Read);
        if let Err(fault) = transfer.and_then(|transfer| Dma::read_list(machine, transfer, &mut bytes)) {
            self.give_up_dma(machine, key, start.offset(), fault);
            // If the device has kept the list's memory, the list is empty.
            if bytes.is_empty() {
                bytes = room()?;
            }
            machine.read_data(&mut bytes);
        }
        Ok(bytes)
    }

    /// Reads a little-endian 32-bit item that is not in the directory. Zero if the host does not have it.
    pub fn read_u32(&self, machine: &mut impl HostAccess, key: Key) -> u32 {
        let mut bytes = [0; 4];
        self.read(machine, Item::new(key, 4), &mut bytes);
        if self.is_directory(machine, key, bytes) { 0 } else { u32::from_le_bytes(bytes) }
    }

    /// Loads all of `item` to guest memory at `to`, and returns the range that it fills.
    ///
    /// # Errors
    /// [`Error::Memory`] if the firmware may not write there; [`Error::Absent`] without a device.
    pub fn load(&self, machine: &mut impl HostAccess, item: Item, to: PhysAddr) -> Result<PhysRange, Error> {
        let range = place(machine, to, item.len)?;
        self.load_piece(machine, item.key, Start::Select(0), range)?;
        Ok(range)
    }

    /// Loads the bytes of `item` from `offset` on to guest memory at `to`, and returns the range that they fill.
    ///
    /// QEMU skips the bytes before `offset` in one transfer. Some other hosts refuse to skip bytes, and others silently do
    /// not skip them. There, the bytes before `offset` are loaded to the same place first, and then overwritten. If the
    /// place is small, they go to the stack.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn load_from(
        &self,
        machine: &mut impl HostAccess,
        item: Item,
        offset: u32,
        to: PhysAddr,
    ) -> Result<PhysRange, Error> {
        let len = item.len.saturating_sub(offset);
        let range = place(machine, to, len)?;
        if self.host_kind.is_qemu() && self.transport(machine) == Transport::QemuDma {
            self.load_piece(machine, item.key, Start::Select(offset), range)?;
            return Ok(range);
        }
        let mut start = Start::Select(0);
        // Each step is at least `LEAST_STEP` bytes, except the last. If the range is empty, nothing is read.
        while !range.is_empty() && start.offset() < offset {
            let left = offset.saturating_sub(start.offset());
            let step = left.min(len.max(LEAST_STEP));
            match PhysRange::new(to, step.into()).filter(|&piece| range.contains(piece)) {
                Some(piece) => self.load_piece(machine, item.key, start, piece)?,
                None => {
                    let mut bytes = [0; LEAST_STEP as usize];
                    self.read_from(machine, item.key, start, bytes.get_mut(..step as usize).unwrap_or_default());
                }
            }
            start = Start::Continue(start.offset().saturating_add(step));
        }
        self.load_piece(machine, item.key, start, range)?;
        Ok(range)
    }

    /// One transfer to a range of guest memory that a device may write.
    fn load_piece(&self, machine: &mut impl HostAccess, key: Key, start: Start, range: PhysRange) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        match self.transport(machine) {
            Transport::Ports => {
                if let Start::Select(_) = start {
                    machine.select(key.get());
                }
                machine.load_data(range)?;
                return Ok(());
            }
            Transport::Absent => return Err(Error::Absent),
            Transport::QemuDma | Transport::PortableDma => {}
        }
        let transfer = self.transfer_of(machine, key, start, dma::Operation::Read);
        if let Err(fault) = transfer.and_then(|transfer| Dma::load(machine, transfer, range)) {
            self.give_up_dma(machine, key, start.offset(), fault);
            machine.load_data(range)?;
        }
        Ok(())
    }

    /// Writes `bytes`, at most [`MOST_WRITTEN`], to `item` from `offset` on. Hosts accept this for few items, and only
    /// by QEMU's DMA.
    ///
    /// # Errors
    /// [`Error::NotWritable`] without QEMU's DMA, for too many bytes, or if they exceed the item; [`Error::Refused`] if
    /// the host refuses the write; [`Error::Timeout`].
    pub fn write(&self, machine: &mut impl HostAccess, item: Item, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let fits =
            bytes.len() <= MOST_WRITTEN && offset.checked_add(bytes.len() as u32).is_some_and(|end| end <= item.len);
        if !fits || self.transport(machine) != Transport::QemuDma {
            return Err(Error::NotWritable { key: item.key, offset, len: bytes.len() });
        }
        let start = Start::Select(offset);
        let transfer = self.transfer_of(machine, item.key, start, dma::Operation::Write);
        transfer.and_then(|transfer| machine.write_bytes(transfer, bytes)).map_err(|fault| dma::error(fault, item.key))
    }

    /// Selects the item of `key`, unless the descriptor does so, and returns the transfer.
    #[inline]
    fn transfer_of(
        &self,
        machine: &mut impl HostAccess,
        key: Key,
        start: Start,
        operation: dma::Operation,
    ) -> Result<Transfer, Fault> {
        let once = |control| Transfer { address_write: AddressWrite::Once, control };
        match (self.transport(machine), start) {
            (Transport::QemuDma, Start::Select(0)) => Ok(once(operation.selecting(key))),
            (Transport::QemuDma, Start::Select(offset)) => {
                machine.pass(once(dma::Operation::Skip.selecting(key)), offset)?;
                Ok(once(operation.continuing()))
            }
            (Transport::QemuDma, Start::Continue(_)) => Ok(once(operation.continuing())),
            (_, start) => {
                if let Start::Select(offset) = start {
                    machine.select(key.get());
                    skip_data(machine, offset);
                }
                Ok(Transfer { address_write: AddressWrite::Halves, control: operation.continuing() })
            }
        }
    }

    /// After a failed DMA read: selects the item by its register, to read it through the data register.
    #[cold]
    #[inline(never)]
    fn give_up_dma(&self, machine: &mut impl HostAccess, key: Key, offset: u32, fault: Fault) {
        match fault {
            // Hosts also refuse items that they do not have.
            Fault::Refused(_) | Fault::Memory(_) => {
                crate::debug!("{}; it is read through ports", dma::error(fault, key));
            }
            Fault::Timeout(_) => {
                crate::warn!("{}; everything is read through ports from now on", dma::error(fault, key));
            }
        }
        machine.select(key.get());
        skip_data(machine, offset);
    }

    /// Fills `target` with the item's bytes.
    fn read_from(&self, machine: &mut impl HostAccess, key: Key, start: Start, target: &mut [u8]) {
        match self.transport(machine) {
            Transport::Ports => {
                if let Start::Select(offset) = start {
                    machine.select(key.get());
                    skip_data(machine, offset);
                }
                machine.read_data(target);
                return;
            }
            Transport::Absent => {
                target.fill(0);
                return;
            }
            // Some hosts leave the bytes that they do not write unchanged.
            Transport::PortableDma => target.fill(0),
            Transport::QemuDma => {}
        }
        // A longer target is read to a list on the heap, if there is room.
        if target.len() > MOST_BYTES
            && let Ok(bytes) = self.read_list(machine, key, start, target.len() as u32)
            && let Some(bytes) = bytes.get(..target.len())
        {
            target.copy_from_slice(bytes);
            return;
        }
        let mut start = start;
        let mut left = target;
        while !left.is_empty() {
            let (piece, rest) = left.split_at_mut(left.len().min(MOST_BYTES));
            let transfer = self.transfer_of(machine, key, start, dma::Operation::Read);
            let result = transfer.and_then(|transfer| machine.read_bytes(transfer, piece));
            // An item's length has 32 bits, and no buffer is longer than the item.
            let offset = start.offset().saturating_add(piece.len() as u32);
            if let Err(fault) = result {
                self.give_up_dma(machine, key, start.offset(), fault);
                machine.read_data(piece);
                machine.read_data(rest);
                return;
            }
            start = Start::Continue(offset);
            left = rest;
        }
    }

    /// Whether the bytes read for the numbered item of `key` are the beginning of the directory. VirtualBox returns the
    /// directory for numbered items that it does not have. A number that happens to equal the count of files is not
    /// followed by a file.
    fn is_directory(&self, machine: &mut impl HostAccess, key: Key, bytes: [u8; 4]) -> bool {
        if self.transport(machine) == Transport::QemuDma || bytes == [0; 4] {
            return false;
        }
        let first = self.directory.first_bytes();
        if first.first_chunk() != Some(&bytes) {
            return false;
        }
        let mut more = [0; directory::FIRST_BYTES];
        self.read(machine, Item::new(key, more.len() as u32), &mut more);
        more == first
    }

    /// The count first, then exactly the records that it counts, because the item's own length is unknown. QEMU returns
    /// zeros beyond an item's end, so there one transfer reads both, unless there are unusually many files.
    fn read_directory(&self, machine: &mut impl HostAccess) -> Result<Directory, Error> {
        let room = if self.transport(machine) == Transport::QemuDma { directory::USUAL_FILES } else { 0 };
        let mut bytes = self.read_list(machine, Key::FILE_DIR, Start::Select(0), Directory::len_of(room)?)?;
        let files = Directory::count(&bytes);
        if files > room {
            bytes = self.read_list(machine, Key::FILE_DIR, Start::Select(0), Directory::len_of(files)?)?;
        }
        Ok(Directory::new(bytes))
    }
}

/// The step in which [`FwCfg::load_from`] skips bytes: one sector at least. The longest setup code of a kernel has 256
/// sectors.
const LEAST_STEP: u32 = 512;

/// The `len` bytes from `to` on, if a device may write them.
#[inline]
fn place(machine: &impl HostAccess, to: PhysAddr, len: u32) -> Result<PhysRange, Error> {
    let range = PhysRange::new(to, len.into())
        .ok_or(Error::Memory(crate::hal::MemoryError { range: PhysRange::empty_at(to) }))?;
    if !range.is_empty() {
        machine.check_device_range(range).map_err(Error::Memory)?;
    }
    Ok(range)
}

/// Skips `len` bytes in the selected item.
fn skip_data(machine: &mut impl FwCfgRegisters, len: u32) {
    let mut scratch = [0; 64];
    let mut left = len as usize;
    while left > 0 {
        let step = left.min(scratch.len());
        let (target, _) = scratch.split_at_mut(step);
        machine.read_data(target);
        left = left.saturating_sub(step);
    }
}

/// The signature item's contents.
pub(crate) const SIGNATURE: [u8; 4] = *b"QEMU";
/// Bit 1 of the interface's identification: there is a DMA interface.
const ID_DMA: u32 = 1 << 1;

/// The transport, and the device's identification if it was read.
fn probe_transport(machine: &mut impl HostAccess) -> Result<(Transport, Option<u32>), Error> {
    // Only QEMU's DMA register reads as the signature "QEMU CFG". This takes one access, not ten. VirtualBox calls its
    // debugger for the read, which does nothing unless one is attached.
    if dma::has_qemu_signature(machine) {
        machine.forget_address();
        return Ok((Transport::QemuDma, None));
    }
    machine.select(Key::SIGNATURE.get());
    let mut seen = [0; 4];
    machine.read_data(&mut seen);
    if seen != SIGNATURE {
        return Err(Error::NoDevice { seen });
    }
    machine.select(Key::ID.get());
    let mut id = [0; 4];
    machine.read_data(&mut id);
    let id = u32::from_le_bytes(id);
    Ok((if id & ID_DMA != 0 { Transport::PortableDma } else { Transport::Ports }, Some(id)))
}
