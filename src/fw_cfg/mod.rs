//! The fw_cfg device: what the host hands to firmware, as numbered and as named items.
//!
//! [`FwCfg::probe`] finds the device, chooses a [`Transport`], reads the directory of named items and tells from it which
//! host this is ([`HostKind`]), once. After that an [`Item`] is read to a buffer or loaded straight to its place in guest
//! memory, in one transfer, and never past its end.
//!
//! Three transports, from the cheapest:
//! - QEMU's DMA: the descriptor selects the item, and one register write starts the transfer;
//! - DMA on other hosts: the item is selected by a register write, and both halves of the descriptor's address are written,
//!   because hosts differ in what they take from the descriptor and in when they start;
//! - ports: a byte at a time from the data register, through `rep insb`, which hosts batch.
//!
//! The registers are ports on a PC, and in memory on other machines, which know that themselves ([`FwCfgRegisters`]).
//! Everything else is the same there.
//!
//! Where a host refuses a DMA read, that item is read through the data register; where a transfer does not end, everything
//! after it is too, as the machine's DMA takes no more ([`Dma::is_stuck`]). Only a write needs DMA. Left to the caller: a named item is only read when the directory has it, because there
//! are hosts on which the selection of an absent one does not do what QEMU does.
//!
//! What a boot calls from many places is not inlined there: nearly all of these places are passed once, and a host that
//! translates code takes longer for a dozen copies than for a dozen calls.
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
    /// There is no device, as on hosts that start the firmware by the PVH entry: every item is absent.
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
    /// The item of `key`, `len` bytes long, for an item that is in no directory.
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

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// Where in an item a transfer begins.
#[derive(Clone, Copy)]
enum Start {
    /// At this offset of an item that is yet to be selected.
    Select(u32),
    /// At this offset, where the selected item stands.
    Continue(u32),
}

impl Start {
    const fn offset(self) -> u32 {
        match self {
            Self::Select(offset) | Self::Continue(offset) => offset,
        }
    }
}

/// As many bytes as are written in one transfer: the longest item that hosts take is `etc/ramfb`, with 28.
pub const MOST_WRITTEN: usize = 32;

/// The device, with its directory.
#[derive(Debug)]
pub struct FwCfg {
    /// As it was found. See [`Self::transport`].
    transport: Transport,
    host_kind: HostKind,
    directory: Directory,
}

impl FwCfg {
    /// Finds the device and reads its directory.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when the signature is not there; [`Error::TooManyFiles`] and [`Error::HeapFull`] for the directory.
    pub fn probe(machine: &mut impl HostAccess) -> Result<Self, Error> {
        let (transport, identification) = probe_transport(machine)?;
        let mut this = Self { transport, ..Self::absent() };
        this.directory = this.read_directory(machine)?;
        this.host_kind = HostKind::of(transport, identification, &this.directory);
        Ok(this)
    }

    /// No device: nothing is found, and numbered items are empty.
    #[must_use]
    pub fn absent() -> Self {
        Self { transport: Transport::Absent, host_kind: HostKind::WithoutDevice, directory: Directory::default() }
    }

    /// The transport in use: the one that was found, or [`Transport::Ports`] where DMA is stuck.
    #[must_use]
    pub fn transport(&self, dma: &impl Dma) -> Transport {
        match self.transport {
            Transport::QemuDma | Transport::PortableDma if dma.is_stuck() => Transport::Ports,
            found => found,
        }
    }

    /// What the host is.
    #[must_use]
    pub const fn host_kind(&self) -> HostKind {
        self.host_kind
    }

    /// The named item, if the host offers it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Item> {
        self.find_bytes(name.as_bytes())
    }

    /// As [`Self::find`], for a name that need not be text.
    #[must_use]
    #[inline(never)]
    pub fn find_bytes(&self, name: &[u8]) -> Option<Item> {
        self.directory.find(name)
    }

    /// Reads the first bytes of `item` to `into`: as many as both hold. The rest of `into` is set to zero.
    pub fn read(&self, machine: &mut impl HostAccess, item: Item, into: &mut [u8]) {
        self.read_at(machine, item, 0, into);
    }

    /// Reads bytes of `item` from `offset` on to `into`: as many as both hold. The rest of `into` is set to zero.
    ///
    /// This cannot fail: where DMA does, ports take over, and these always give a byte.
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
    /// [`Error::TooLarge`] when it is longer than `limit`, [`Error::HeapFull`].
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
            // The device may have kept the list's memory.
            if bytes.is_empty() {
                bytes = room()?;
            }
            machine.read_data(&mut bytes);
        }
        Ok(bytes)
    }

    /// Reads a little-endian 32-bit item that is in no directory. Zero when the host does not have it.
    #[inline(never)]
    pub fn read_u32(&self, machine: &mut impl HostAccess, key: Key) -> u32 {
        let mut bytes = [0; 4];
        self.read(machine, Item::new(key, 4), &mut bytes);
        if self.is_directory(machine, key, bytes) { 0 } else { u32::from_le_bytes(bytes) }
    }

    /// Loads the whole of `item` straight to guest memory at `to` and gives the range it fills.
    ///
    /// # Errors
    /// [`Error::Memory`] when the firmware may not write there, [`Error::Absent`] without a device.
    #[inline(never)]
    pub fn load(&self, machine: &mut impl HostAccess, item: Item, to: PhysAddr) -> Result<PhysRange, Error> {
        let range = place(machine, to, item.len)?;
        self.load_piece(machine, item.key, Start::Select(0), range)?;
        Ok(range)
    }

    /// Loads the bytes of `item` from `offset` on straight to guest memory at `to` and gives the range they fill.
    ///
    /// There are hosts that refuse to skip bytes, and others that do not skip them and do not say so. So what comes before
    /// `offset` is loaded to the same place first, and what was asked for over it; where that is a small place, to the stack.
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
        let mut start = Start::Select(0);
        // Each step is at least `LEAST_STEP` bytes, or the last: without any, nothing is asked for.
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

    /// One transfer to guest memory, of a range that a device may write.
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

    /// Writes `bytes`, [`MOST_WRITTEN`] at most, to `item` from `offset` on. Hosts take that for few items and with QEMU's
    /// DMA only.
    ///
    /// # Errors
    /// [`Error::NotWritable`] without QEMU's DMA, for more bytes or when they do not fit the item; [`Error::Refused`] when
    /// the host does not let the item be written; [`Error::Timeout`].
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

    /// Selects the item of `key`, unless the descriptor does, and gives the transfer.
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

    /// After a DMA read that failed: selects the item by port, for its bytes to be read there.
    #[cold]
    #[inline(never)]
    fn give_up_dma(&self, machine: &mut impl HostAccess, key: Key, offset: u32, fault: Fault) {
        match fault {
            // So hosts answer for items they do not have, too.
            Fault::Refused(_) | Fault::Memory(_) => {
                log::debug!("{}; it is read through ports", dma::error(fault, key));
            }
            Fault::Timeout(_) => {
                log::warn!("{}; everything is read through ports from now on", dma::error(fault, key));
            }
        }
        machine.select(key.get());
        skip_data(machine, offset);
    }

    /// Fills `target` with the item's bytes.
    #[inline(never)]
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
            // Some hosts leave what they do not write as it was.
            Transport::PortableDma => target.fill(0),
            Transport::QemuDma => {}
        }
        // A longer one is a list on the heap for the device, if there is room.
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
            // An item's length is 32 bits, and no buffer is longer than the item.
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

    /// Whether what was read as the numbered item of `key` is the beginning of the directory, which VirtualBox gives for
    /// numbered items that it does not have. A number that just equals the count of files is not followed by a file.
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

    /// The count, then just the records that it counts: the item's own length is nowhere to be read. QEMU gives zeros for
    /// what is behind the end, so there both are one transfer, unless there are unusually many files.
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

/// How much [`FwCfg::load_from`] passes over at a time, however little it is to load: a sector, 256 of which are the longest
/// setup code of a kernel.
const LEAST_STEP: u32 = 512;

/// The `len` bytes from `to` on, if a device may write them.
fn place(machine: &impl HostAccess, to: PhysAddr, len: u32) -> Result<PhysRange, Error> {
    let range = PhysRange::new(to, len.into())
        .ok_or(Error::Memory(crate::hal::MemoryError { range: PhysRange::empty_at(to) }))?;
    if !range.is_empty() {
        machine.check_device_range(range).map_err(Error::Memory)?;
    }
    Ok(range)
}

/// Moves on by `len` bytes in the selected item.
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

/// The transport, and the interface's identification if it was read.
fn probe_transport(machine: &mut impl HostAccess) -> Result<(Transport, Option<u32>), Error> {
    // QEMU's DMA register reads as the signature "QEMU CFG", and nothing else does: one access, not ten. VirtualBox calls
    // its debugger for the read, which does nothing unless one is attached.
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
