//! A host to run scripts on, and a builder of scripts.

extern crate std;

mod golden;
mod hostile;
mod language;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use super::{Error, Host, Zone, load};
use crate::addr::{Alignment, PhysAddr, PhysRange};

/// A host whose memory is only what the interpreter has allocated: any other access fails the test.
pub(super) struct FakeHost {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    /// The start of the next allocation in each zone, and the end of the zone.
    pub(super) high: PhysRange,
    pub(super) f_segment: PhysRange,
    pub(super) allocations: Vec<(PhysRange, Vec<u8>)>,
    /// What was written to the host: file, offset, bytes.
    pub(super) told: Vec<(String, u32, Vec<u8>)>,
    /// The file that fails to load.
    pub(super) broken: Option<&'static str>,
    /// Whether files can be written.
    pub(super) writable: bool,
}

impl FakeHost {
    pub(super) fn new(files: &[(&str, &[u8])]) -> Self {
        Self {
            files: files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect(),
            high: range(0x7ff0_0010, 0x8000_0000),
            f_segment: range(0xf_0004, 0x10_0000),
            allocations: Vec::new(),
            told: Vec::new(),
            broken: None,
            writable: true,
        }
    }

    /// The start of the `index`th allocation.
    pub(super) fn start(&self, index: usize) -> u64 {
        self.allocations[index].0.start().get()
    }

    /// The contents of the `index`th allocation.
    pub(super) fn contents(&self, index: usize) -> &[u8] {
        &self.allocations[index].1
    }

    /// The `len` bytes at `address`.
    pub(super) fn bytes(&mut self, address: u64, len: usize) -> Vec<u8> {
        self.slice(PhysAddr::new(address), len).to_vec()
    }

    fn slice(&mut self, at: PhysAddr, len: usize) -> &mut [u8] {
        let access = PhysRange::new(at, len as u64).expect("an access that wraps");
        let (range, bytes) =
            self.allocations.iter_mut().find(|(range, _)| range.contains(access)).expect("an access to other memory");
        let start = (at.get() - range.start().get()) as usize;
        &mut bytes[start..start + len]
    }
}

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

impl Host for FakeHost {
    type Error = &'static str;

    fn len_of(&self, file: &[u8]) -> Option<u32> {
        let file = str::from_utf8(file).ok()?;
        self.files.get(file).map(|bytes| bytes.len() as u32)
    }

    fn allocate(&mut self, len: u64, alignment: Alignment, zone: Zone) -> Option<PhysRange> {
        let room = match zone {
            Zone::High => &mut self.high,
            Zone::FSegment => &mut self.f_segment,
        };
        let place = PhysRange::new(room.start().align_up(alignment)?, len).filter(|&place| room.contains(place))?;
        *room = PhysRange::from_bounds(place.end(), room.end())?;
        self.allocations.push((place, vec![0xa5; len as usize]));
        Some(place)
    }

    fn load(&mut self, file: &[u8], to: PhysRange) -> Result<(), Self::Error> {
        let file = str::from_utf8(file).unwrap();
        let bytes = self.files[file].clone();
        self.slice(to.start(), to.len() as usize).copy_from_slice(&bytes);
        if self.broken == Some(file) { Err("broken") } else { Ok(()) }
    }

    fn read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), Self::Error> {
        into.copy_from_slice(self.slice(from, into.len()));
        Ok(())
    }

    fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), Self::Error> {
        if range.is_empty() {
            return Ok(());
        }
        self.slice(range.start(), range.len() as usize).chunks(13).for_each(show);
        Ok(())
    }

    fn write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), Self::Error> {
        self.slice(to, bytes.len()).copy_from_slice(bytes);
        Ok(())
    }

    fn write_file(&mut self, file: &[u8], offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        if !self.writable {
            return Err("read-only");
        }
        let file = str::from_utf8(file).unwrap();
        assert!(offset as usize + bytes.len() <= self.files[file].len(), "a write past the end of {file}");
        self.told.push((file.to_string(), offset, bytes.to_vec()));
        Ok(())
    }
}

/// A script being built.
#[derive(Default, Clone, Debug)]
pub(super) struct Script(pub(super) Vec<u8>);

impl Script {
    pub(super) fn command(mut self, number: u32, arguments: &[&[u8]]) -> Self {
        let start = self.0.len();
        self.0.extend(number.to_le_bytes());
        self.0.extend(arguments.concat());
        assert!(self.0.len() - start <= 128);
        self.0.resize(start + 128, 0);
        self
    }

    pub(super) fn allocate(self, file: &str, alignment: u32, zone: u8) -> Self {
        self.command(1, &[&name(file), &alignment.to_le_bytes(), &[zone]])
    }

    pub(super) fn add_pointer(self, dest: &str, source: &str, offset: u32, size: u8) -> Self {
        self.command(2, &[&name(dest), &name(source), &offset.to_le_bytes(), &[size]])
    }

    pub(super) fn add_checksum(self, file: &str, offset: u32, start: u32, len: u32) -> Self {
        self.command(3, &[&name(file), &offset.to_le_bytes(), &start.to_le_bytes(), &len.to_le_bytes()])
    }

    pub(super) fn write_pointer(self, dest: &str, source: &str, offsets: [u32; 2], size: u8) -> Self {
        let [dest_offset, source_offset] = offsets.map(u32::to_le_bytes);
        self.command(4, &[&name(dest), &name(source), &dest_offset, &source_offset, &[size]])
    }

    pub(super) fn load(&self, host: &mut FakeHost) -> Result<PhysAddr, Error<&'static str>> {
        load(host, &self.0)
    }
}

fn name(file: &str) -> [u8; 56] {
    let mut field = [0; 56];
    field[..file.len()].copy_from_slice(file.as_bytes());
    field
}

/// An RSDP of ACPI 1.0 whose RSDT is at offset 0 of some file, before the checksum is added.
pub(super) fn rsdp() -> Vec<u8> {
    b"RSD PTR \0FIRST \0\0\0\0\0".to_vec()
}

/// A host with an RSDP and 64 bytes of tables, and a script that places and links them.
pub(super) fn minimal() -> (FakeHost, Script) {
    let host = FakeHost::new(&[("rsdp", &rsdp()), ("tables", &[0; 64]), ("empty", &[]), ("told", &[0; 8])]);
    let script = Script::default()
        .allocate("rsdp", 16, 2)
        .allocate("tables", 64, 1)
        .add_pointer("rsdp", "tables", 16, 4)
        .add_checksum("rsdp", 8, 0, 20);
    (host, script)
}
