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
//! The registers are ports on a PC. They are in memory on other machines, whose firmware wraps its machine in [`Mapped`];
//! everything else is the same there.
//!
//! Where a host refuses a DMA read, that item is read through ports; where a transfer does not end, everything after it
//! is too. Only a write needs DMA. Left to the caller: a named item is only read when the directory has it, because there
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
mod mapped;
mod ports;
mod registers;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;

pub use directory::Directory;
pub use error::Error;
pub use host_kind::HostKind;
pub use key::Key;
pub use mapped::Mapped;
pub use registers::Registers;

use zerocopy::FromZeros;

use crate::addr::{PhysAddr, PhysRange};
use crate::hal::dma::{AddressWrite, Fault, MOST_BYTES, Transfer};
use crate::hal::{Clock, Dma};

/// What fw_cfg needs of the machine.
pub trait Host: Registers + Dma + Clock {}
impl<T: Registers + Dma + Clock> Host for T {}

/// How bytes get from the host to the guest. A transfer that does not end makes it [`Self::Ports`].
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
    transport: Cell<Transport>,
    host_kind: HostKind,
    identification: Option<u32>,
    directory: Directory,
}

impl FwCfg {
    /// Finds the device and reads its directory.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when the signature is not there; [`Error::TooManyFiles`] and [`Error::HeapFull`] for the directory.
    pub fn probe(host: &mut impl Host) -> Result<Self, Error> {
        let (transport, identification) = probe_transport(host)?;
        let mut this = Self { transport: Cell::new(transport), identification, ..Self::absent() };
        this.directory = this.read_directory(host)?;
        this.host_kind = HostKind::of(transport, &this.directory);
        Ok(this)
    }

    /// No device: nothing is found, and numbered items are empty.
    #[must_use]
    pub fn absent() -> Self {
        Self {
            transport: Cell::new(Transport::Absent),
            host_kind: HostKind::Other,
            identification: None,
            directory: Directory::default(),
        }
    }

    /// The transport in use.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.transport.get()
    }

    /// What the host is.
    #[must_use]
    pub const fn host_kind(&self) -> HostKind {
        self.host_kind
    }

    /// The interface's identification (the item [`Key::ID`]) as it was when the device was found. `None` where it was not
    /// read: without a device, and where the DMA register reads as QEMU's.
    #[must_use]
    pub const fn identification(&self) -> Option<u32> {
        self.identification
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
    pub fn read(&self, host: &mut impl Host, item: Item, into: &mut [u8]) {
        self.read_at(host, item, 0, into);
    }

    /// Reads bytes of `item` from `offset` on to `into`: as many as both hold. The rest of `into` is set to zero.
    ///
    /// This cannot fail: where DMA does, ports take over, and these always give a byte.
    pub fn read_at(&self, host: &mut impl Host, item: Item, offset: u32, into: &mut [u8]) {
        let left = item.len.saturating_sub(offset) as usize;
        let (target, rest) = into.split_at_mut(left.min(into.len()));
        rest.fill(0);
        if !target.is_empty() {
            self.read_from(host, item.key, Start::Select(offset), target);
        }
    }

    /// Reads a whole item of at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it is longer than `limit`, [`Error::HeapFull`].
    pub fn read_all(&self, host: &mut impl Host, item: Item, limit: u32) -> Result<Vec<u8>, Error> {
        let Item { key, len } = item;
        if len > limit {
            return Err(Error::TooLarge { key, len, limit });
        }
        self.read_list(host, key, Start::Select(0), len)
    }

    /// Reads `len` bytes of the item of `key`.
    fn read_list(&self, host: &mut impl Host, key: Key, start: Start, len: u32) -> Result<Vec<u8>, Error> {
        let room = || u8::new_vec_zeroed(len as usize).map_err(|_| Error::HeapFull { key, len });
        let mut bytes = room()?;
        match self.transport() {
            Transport::QemuDma | Transport::PortableDma if len > 0 => {}
            _ => {
                self.read_from(host, key, start, &mut bytes);
                return Ok(bytes);
            }
        }
        let transfer = self.transfer_of(host, key, start, dma::Operation::Read);
        if let Err(fault) = transfer.and_then(|transfer| Dma::read_list(host, transfer, &mut bytes)) {
            self.give_up_dma(host, key, start.offset(), fault);
            // The device may have kept the list's memory.
            if bytes.is_empty() {
                bytes = room()?;
            }
            host.read_data(&mut bytes);
        }
        Ok(bytes)
    }

    /// Reads a little-endian 32-bit item that is in no directory. Zero when the host does not have it.
    #[inline(never)]
    pub fn read_u32(&self, host: &mut impl Host, key: Key) -> u32 {
        let mut bytes = [0; 4];
        self.read(host, Item::new(key, 4), &mut bytes);
        if self.is_directory(host, key, bytes) { 0 } else { u32::from_le_bytes(bytes) }
    }

    /// Loads the whole of `item` straight to guest memory at `to` and gives the range it fills.
    ///
    /// # Errors
    /// [`Error::Memory`] when the firmware may not write there, [`Error::Absent`] without a device.
    #[inline(never)]
    pub fn load(&self, host: &mut impl Host, item: Item, to: PhysAddr) -> Result<PhysRange, Error> {
        let range = place(host, to, item.len)?;
        self.load_piece(host, item.key, Start::Select(0), range)?;
        Ok(range)
    }

    /// Loads the bytes of `item` from `offset` on straight to guest memory at `to` and gives the range they fill.
    ///
    /// There are hosts that refuse to skip bytes, and others that do not skip them and do not say so. So what comes before
    /// `offset` is loaded to the same place first, and what was asked for over it; where that is a small place, to the stack.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn load_from(&self, host: &mut impl Host, item: Item, offset: u32, to: PhysAddr) -> Result<PhysRange, Error> {
        let len = item.len.saturating_sub(offset);
        let range = place(host, to, len)?;
        let mut start = Start::Select(0);
        // Each step is at least `LEAST_STEP` bytes, or the last: without any, nothing is asked for.
        while !range.is_empty() && start.offset() < offset {
            let left = offset.saturating_sub(start.offset());
            let step = left.min(len.max(LEAST_STEP));
            match PhysRange::new(to, step.into()).filter(|&piece| range.contains(piece)) {
                Some(piece) => self.load_piece(host, item.key, start, piece)?,
                None => {
                    let mut bytes = [0; LEAST_STEP as usize];
                    self.read_from(host, item.key, start, bytes.get_mut(..step as usize).unwrap_or_default());
                }
            }
            start = Start::Continue(start.offset().saturating_add(step));
        }
        self.load_piece(host, item.key, start, range)?;
        Ok(range)
    }

    /// One transfer to guest memory, of a range that a device may write.
    fn load_piece(&self, host: &mut impl Host, key: Key, start: Start, range: PhysRange) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        match self.transport() {
            Transport::Ports => {
                if let Start::Select(_) = start {
                    host.select(key);
                }
                host.load_data(range)?;
                return Ok(());
            }
            Transport::Absent => return Err(Error::Absent),
            Transport::QemuDma | Transport::PortableDma => {}
        }
        let transfer = self.transfer_of(host, key, start, dma::Operation::Read);
        if let Err(fault) = transfer.and_then(|transfer| Dma::load(host, transfer, range)) {
            self.give_up_dma(host, key, start.offset(), fault);
            host.load_data(range)?;
        }
        Ok(())
    }

    /// Writes `bytes`, [`MOST_WRITTEN`] at most, to `item` from `offset` on. Hosts take that for few items and with QEMU's
    /// DMA only.
    ///
    /// # Errors
    /// [`Error::NotWritable`] without QEMU's DMA, for more bytes or when they do not fit the item; [`Error::Refused`] when
    /// the host does not let the item be written; [`Error::Timeout`].
    pub fn write(&self, host: &mut impl Host, item: Item, offset: u32, bytes: &[u8]) -> Result<(), Error> {
        let fits =
            bytes.len() <= MOST_WRITTEN && offset.checked_add(bytes.len() as u32).is_some_and(|end| end <= item.len);
        if !fits || self.transport() != Transport::QemuDma {
            return Err(Error::NotWritable { key: item.key, offset, len: bytes.len() });
        }
        let start = Start::Select(offset);
        let transfer = self.transfer_of(host, item.key, start, dma::Operation::Write);
        let result = transfer.and_then(|transfer| host.write_bytes(transfer, bytes));
        if let Err(Fault::Timeout(_)) = result {
            // As for reads. Of what follows none waits for the same deadline again.
            self.transport.set(Transport::Ports);
        }
        result.map_err(|fault| dma::error(fault, item.key))
    }

    /// Selects the item of `key`, unless the descriptor does, and gives the transfer.
    fn transfer_of(
        &self,
        host: &mut impl Host,
        key: Key,
        start: Start,
        operation: dma::Operation,
    ) -> Result<Transfer, Fault> {
        let doorbell = host.doorbell();
        let once = |control| Transfer { doorbell, address_write: AddressWrite::Once, control };
        match (self.transport(), start) {
            (Transport::QemuDma, Start::Select(0)) => Ok(once(operation.selecting(key))),
            (Transport::QemuDma, Start::Select(offset)) => {
                host.pass(once(dma::Operation::Skip.selecting(key)), offset)?;
                Ok(once(operation.continuing()))
            }
            (Transport::QemuDma, Start::Continue(_)) => Ok(once(operation.continuing())),
            (_, start) => {
                if let Start::Select(offset) = start {
                    host.select(key);
                    host.skip_data(offset);
                }
                Ok(Transfer { doorbell, address_write: AddressWrite::Halves, control: operation.continuing() })
            }
        }
    }

    /// After a DMA read that failed: selects the item by port, for its bytes to be read there.
    #[cold]
    #[inline(never)]
    fn give_up_dma(&self, host: &mut impl Host, key: Key, offset: u32, fault: Fault) {
        match fault {
            // So hosts answer for items they do not have, too.
            Fault::Refused(_) | Fault::Memory(_) => {
                log::debug!("{}; it is read through ports", dma::error(fault, key));
            }
            Fault::Timeout(_) => {
                log::warn!("{}; everything is read through ports from now on", dma::error(fault, key));
                self.transport.set(Transport::Ports);
            }
        }
        host.select(key);
        host.skip_data(offset);
    }

    /// Fills `target` with the item's bytes.
    #[inline(never)]
    fn read_from(&self, host: &mut impl Host, key: Key, start: Start, target: &mut [u8]) {
        match self.transport() {
            Transport::Ports => {
                if let Start::Select(offset) = start {
                    host.select(key);
                    host.skip_data(offset);
                }
                host.read_data(target);
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
            && let Ok(bytes) = self.read_list(host, key, start, target.len() as u32)
            && let Some(bytes) = bytes.get(..target.len())
        {
            target.copy_from_slice(bytes);
            return;
        }
        let mut start = start;
        let mut left = target;
        while !left.is_empty() {
            let (piece, rest) = left.split_at_mut(left.len().min(MOST_BYTES));
            let transfer = self.transfer_of(host, key, start, dma::Operation::Read);
            let result = transfer.and_then(|transfer| host.read_bytes(transfer, piece));
            // An item's length is 32 bits, and no buffer is longer than the item.
            let offset = start.offset().saturating_add(piece.len() as u32);
            if let Err(fault) = result {
                self.give_up_dma(host, key, start.offset(), fault);
                host.read_data(piece);
                host.read_data(rest);
                return;
            }
            start = Start::Continue(offset);
            left = rest;
        }
    }

    /// Whether what was read as the numbered item of `key` is the beginning of the directory, which VirtualBox gives for
    /// numbered items that it does not have. A number that just equals the count of files is not followed by a file.
    fn is_directory(&self, host: &mut impl Host, key: Key, bytes: [u8; 4]) -> bool {
        if self.transport() == Transport::QemuDma || bytes == [0; 4] {
            return false;
        }
        let first = self.directory.first_bytes();
        if first.first_chunk() != Some(&bytes) {
            return false;
        }
        let mut more = [0; directory::FIRST_BYTES];
        self.read(host, Item::new(key, more.len() as u32), &mut more);
        more == first
    }

    /// The count, then just the records that it counts: the item's own length is nowhere to be read. QEMU gives zeros for
    /// what is behind the end, so there both are one transfer, unless there are unusually many files.
    fn read_directory(&self, host: &mut impl Host) -> Result<Directory, Error> {
        let room = if self.transport() == Transport::QemuDma { directory::USUAL_FILES } else { 0 };
        let mut bytes = self.read_list(host, Key::FILE_DIR, Start::Select(0), Directory::len_of(room)?)?;
        let files = Directory::count(&bytes);
        if files > room {
            bytes = self.read_list(host, Key::FILE_DIR, Start::Select(0), Directory::len_of(files)?)?;
        }
        Ok(Directory::new(bytes))
    }
}

/// How much [`FwCfg::load_from`] passes over at a time, however little it is to load: a sector, 256 of which are the longest
/// setup code of a kernel.
const LEAST_STEP: u32 = 512;

/// The `len` bytes from `to` on, if a device may write them.
fn place(host: &impl Host, to: PhysAddr, len: u32) -> Result<PhysRange, Error> {
    let range = PhysRange::new(to, len.into())
        .ok_or(Error::Memory(crate::hal::MemoryError { range: PhysRange::empty_at(to) }))?;
    if !range.is_empty() {
        host.check_device_range(range).map_err(Error::Memory)?;
    }
    Ok(range)
}

/// The signature item's contents.
pub(crate) const SIGNATURE: [u8; 4] = *b"QEMU";
/// Bit 1 of the interface's identification: there is a DMA interface.
const ID_DMA: u32 = 1 << 1;

/// The transport, and the interface's identification if it was read.
fn probe_transport(host: &mut impl Host) -> Result<(Transport, Option<u32>), Error> {
    // QEMU's DMA register reads as the signature "QEMU CFG", and nothing else does: one access, not ten. VirtualBox calls
    // its debugger for the read, which does nothing unless one is attached.
    if dma::has_qemu_signature(host) {
        host.forget_address();
        return Ok((Transport::QemuDma, None));
    }
    host.select(Key::SIGNATURE);
    let mut seen = [0; 4];
    host.read_data(&mut seen);
    if seen != SIGNATURE {
        return Err(Error::NoDevice { seen });
    }
    host.select(Key::ID);
    let mut id = [0; 4];
    host.read_data(&mut id);
    let id = u32::from_le_bytes(id);
    Ok((if id & ID_DMA != 0 { Transport::PortableDma } else { Transport::Ports }, Some(id)))
}
