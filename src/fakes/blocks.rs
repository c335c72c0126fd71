//! A disk for code that reads what is on it: sparse, with a list of all requests, and with blocks that cannot be read.

extern crate std;

use std::boxed::Box;
use std::ops::Range;
use std::vec::Vec;

use crate::addr::PhysRange;
use crate::disk::{BlockLen, Blocks, Error};
use crate::efi::protocols::block_io::BlockId;
use crate::efi::protocols::file_system::Source;
use crate::fakes::machine::FakeMemory;

/// A request to a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// [`Blocks::read`]: where, and how many.
    Read(u64, u64),
    /// [`Blocks::load`].
    Load(u64, u64),
}

impl Request {
    /// The bytes.
    #[must_use]
    pub const fn range(self) -> Range<u64> {
        match self {
            Self::Read(at, len) | Self::Load(at, len) => at..at + len,
        }
    }
}

/// What a medium has, where a test wants more than numbers: the bytes from one on, and how many.
pub type Contents = Box<dyn FnMut(u64, usize) -> Vec<u8>>;

/// `len` bytes of blocks, from the block `first` on.
#[must_use]
pub fn join(first: u64, len: usize, block: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len);
    let mut number = first;
    while bytes.len() < len {
        bytes.extend(block(number));
        number += 1;
    }
    bytes.truncate(len);
    bytes
}

/// A disk.
#[derive(Clone)]
pub struct FakeBlocks {
    /// What is on it.
    pub disk: FakeMemory,
    /// The guest's memory, which bytes are loaded into.
    pub memory: FakeMemory,
    /// Every request, in order.
    pub requests: Vec<Request>,
    /// A request for one of these bytes is refused.
    pub defect: Range<u64>,
    block_len: BlockLen,
    blocks: u64,
}

impl FakeBlocks {
    /// A disk of 512-byte blocks with these bytes, which are filled up to a whole block.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut blocks = Self::empty(BlockLen::DISK, (bytes.len() as u64).div_ceil(512));
        blocks.disk.store(0, bytes);
        blocks
    }

    /// A disk of zeros.
    #[must_use]
    pub fn empty(block_len: BlockLen, blocks: u64) -> Self {
        Self {
            disk: FakeMemory::default(),
            memory: FakeMemory::default(),
            requests: Vec::new(),
            defect: 0..0,
            block_len,
            blocks,
        }
    }

    /// The same in blocks of another length.
    #[must_use]
    pub fn in_blocks(self, block_len: BlockLen) -> Self {
        let blocks = (self.blocks * 512).div_ceil(block_len.get() as u64);
        Self { block_len, blocks, ..self }
    }

    fn check(&mut self, request: Request) -> Result<(), Error> {
        self.requests.push(request);
        let Range { start, end } = request.range();
        if end > self.blocks * u64::from(self.block_len.get()) {
            return Err(Error::OutOfRange);
        }
        if start < self.defect.end && self.defect.start < end {
            return Err(Error::Refused(0xd));
        }
        Ok(())
    }
}

impl Blocks for FakeBlocks {
    fn block_len(&self) -> BlockLen {
        self.block_len
    }

    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Error> {
        self.check(Request::Read(at, into.len() as u64))?;
        self.disk.read(at, into);
        Ok(())
    }

    fn load(&mut self, at: u64, into: PhysRange) -> Result<(), Error> {
        self.check(Request::Load(at, into.len()))?;
        let bytes = self.disk.bytes(at, usize::try_from(into.len()).expect("a length that a test can have"));
        self.memory.store(into.start().get(), &bytes);
        Ok(())
    }
}

impl Blocks for &mut FakeBlocks {
    fn block_len(&self) -> BlockLen {
        FakeBlocks::block_len(self)
    }

    fn blocks(&self) -> u64 {
        FakeBlocks::blocks(self)
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Error> {
        FakeBlocks::read(self, at, into)
    }

    fn load(&mut self, at: u64, into: PhysRange) -> Result<(), Error> {
        FakeBlocks::load(self, at, into)
    }
}

/// The disks of an EFI program: numbers from zero on.
#[derive(Clone, Default)]
pub struct FakeDisks(pub Vec<FakeBlocks>);

impl Source for FakeDisks {
    fn blocks(&mut self, block: BlockId) -> Option<impl Blocks> {
        self.0.get_mut(usize::try_from(block.raw()).ok()?)
    }
}
