//! Guest memory: RAM from zero on, and the image below 4 GiB.
#![forbid(unsafe_code)]

use anyhow::Context;
use firstlight::fakes::machine::GuestMemory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

const END_OF_ROM: u64 = 1 << 32;

/// The memory.
#[derive(Clone, Debug)]
pub struct Ram {
    mapped: GuestMemoryMmap<()>,
}

impl Ram {
    /// `len` bytes of RAM, and `image`, if there is one.
    ///
    /// # Errors
    /// If the host has not enough memory.
    pub fn new(len: usize, image: &[u8]) -> anyhow::Result<Self> {
        let rom = GuestAddress(END_OF_ROM - image.len() as u64);
        let ranges = [(GuestAddress(0), len), (rom, image.len())];
        let there = if image.is_empty() { &ranges[..1] } else { &ranges };
        let mapped = GuestMemoryMmap::from_ranges(there).context("no memory for a guest")?;
        let ram = Self { mapped };
        ram.write(rom.0, image).context("the image does not fit")?;
        Ok(ram)
    }

    /// Whether there is memory in all of the `len` bytes from `address` on.
    #[must_use]
    pub fn has(&self, address: u64, len: u64) -> bool {
        usize::try_from(len).is_ok_and(|len| self.mapped.check_range(GuestAddress(address), len))
    }

    /// Writes `bytes` to `address`.
    ///
    /// # Errors
    /// If some of it is not memory.
    pub fn write(&self, address: u64, bytes: &[u8]) -> anyhow::Result<()> {
        self.mapped.write_slice(bytes, GuestAddress(address)).with_context(|| format!("no memory at {address:#x}"))
    }

    /// The host's address of the memory at `address`.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn host_address(&self, address: u64) -> anyhow::Result<u64> {
        let pointer = self.mapped.get_host_address(GuestAddress(address)).context("no guest memory there")?;
        Ok(pointer.addr() as u64)
    }
}

impl GuestMemory for Ram {
    fn bytes(&self, from: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        // Absent memory reads as zero.
        let _ = self.mapped.read_slice(&mut bytes, GuestAddress(from));
        bytes
    }

    fn store(&mut self, to: u64, bytes: &[u8]) {
        // A device's write to absent memory is lost.
        let _ = self.mapped.write_slice(bytes, GuestAddress(to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_where_it_should_be_and_nowhere_else() {
        let mut ram = Ram::new(1 << 20, &[7; 4096]).unwrap();
        ram.store(0xf_ffff, &[1]);
        ram.store(1 << 20, &[2]);
        assert_eq!(ram.bytes(0xf_ffff, 1), [1]);
        assert_eq!(ram.bytes(1 << 20, 1), [0]);
        assert_eq!(ram.bytes(0xffff_f000, 2), [7, 7]);
        assert!(ram.host_address(0xffff_f000).is_ok() && ram.host_address(1 << 20).is_err());
    }
}
