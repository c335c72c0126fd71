//! The table-loader script: parsed, planned, and run on a host with its own files and memory.
//!
//! Input: a byte with the form of the script and the host's limits, the files, each with its name and contents, and the script:
//! either in the host's form, or as short commands that are mostly valid.

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use firstlight::acpi::{self, Host, Zone};
use firstlight::addr::{Alignment, PhysAddr, PhysRange};

use crate::input::Input;

/// The files that a script can name.
const NAMES: [&str; 8] = [
    "etc/acpi/tables",
    "etc/acpi/rsdp",
    "etc/acpi/nvdimm-mem",
    "etc/vmgenid_guid",
    "etc/vmgenid_addr",
    "etc/tpm/log",
    "etc/hardware_errors",
    "etc/hardware_errors_addr",
];

/// The memory for files: address and size.
const HIGH: (u64, u64) = (0x7f00_0000, 0x40_0000);
const F_SEGMENT: (u64, u64) = (0xf_0000, 0x1_0000);

/// A short command.
#[derive(Arbitrary, Default)]
struct Command {
    kind: u8,
    file: u8,
    other: u8,
    size: u8,
    numbers: [u32; 3],
}

impl Command {
    fn bytes(&self) -> [u8; 128] {
        let mut bytes = [0; 128];
        let name = |number: u8| NAMES[usize::from(number) % NAMES.len()].as_bytes();
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        let [a, b, c] = self.numbers.map(u32::to_le_bytes);
        put(0, &u32::from(self.kind % 6).to_le_bytes());
        put(4, name(self.file));
        match self.kind % 6 {
            1 => {
                put(60, &a);
                put(64, &[self.size]);
            }
            2 => {
                put(60, name(self.other));
                put(116, &a);
                put(120, &[self.size]);
            }
            3 => [a, b, c].iter().zip([60, 64, 68]).for_each(|(part, at)| put(at, part)),
            4 => {
                put(60, name(self.other));
                put(116, &a);
                put(120, &b);
                put(124, &[self.size]);
            }
            _ => {}
        }
        bytes
    }
}

/// The host: its files, those that are loaded, and the addresses written to it.
struct FakeHost<'f> {
    files: BTreeMap<&'f str, &'f [u8]>,
    /// Ranges with their contents.
    places: Vec<(PhysRange, Vec<u8>)>,
    next: [u64; 2],
    written: usize,
    /// The name of a file of which only the first half is loaded.
    breaks: Option<&'f str>,
    takes_addresses: bool,
}

impl FakeHost<'_> {
    /// The bytes of `range`, which are all of one file that was loaded.
    fn bytes(&mut self, range: PhysRange) -> &mut [u8] {
        let place = self.places.iter_mut().find(|(place, _)| place.contains(range));
        let (place, bytes) = place.unwrap_or_else(|| panic!("{range} is outside all files"));
        &mut bytes[(range.start().get() - place.start().get()) as usize..][..range.len() as usize]
    }
}

impl Host for FakeHost<'_> {
    type Error = &'static str;

    fn len_of(&self, file: &[u8]) -> Option<u32> {
        let file = str::from_utf8(file).ok()?;
        self.files.get(file).map(|bytes| bytes.len() as u32)
    }

    fn allocate(&mut self, len: u64, alignment: Alignment, zone: Zone) -> Option<PhysRange> {
        assert!(alignment >= Alignment::PARAGRAPH && len != 0);
        let (next, (start, room)) = match zone {
            Zone::High => (&mut self.next[0], HIGH),
            Zone::FSegment => (&mut self.next[1], F_SEGMENT),
        };
        let at = PhysAddr::new(start.checked_add(*next)?).align_up(alignment)?;
        let place = PhysRange::new(at, len).filter(|place| place.end().get() <= start + room)?;
        *next = place.end().get() - start;
        self.places.push((place, vec![0; len as usize]));
        Some(place)
    }

    fn load(&mut self, file: &[u8], to: PhysRange) -> Result<(), Self::Error> {
        let file = str::from_utf8(file).unwrap();
        let bytes = self.files[file];
        assert_eq!(to.len(), bytes.len() as u64, "{file}");
        let breaks = self.breaks == Some(file);
        let len = if breaks { bytes.len() / 2 } else { bytes.len() };
        self.bytes(to)[..len].copy_from_slice(&bytes[..len]);
        if breaks { Err("half of it") } else { Ok(()) }
    }

    fn read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), Self::Error> {
        let range = PhysRange::new(from, into.len() as u64).unwrap();
        into.copy_from_slice(self.bytes(range));
        Ok(())
    }

    fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), Self::Error> {
        self.bytes(range).chunks(1021).for_each(show);
        Ok(())
    }

    fn write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), Self::Error> {
        let range = PhysRange::new(to, bytes.len() as u64).unwrap();
        self.bytes(range).copy_from_slice(bytes);
        Ok(())
    }

    fn write_file(&mut self, file: &[u8], offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        let file = str::from_utf8(file).unwrap();
        assert!(offset as usize + bytes.len() <= self.files[file].len(), "{} bytes at {offset} of {file}", bytes.len());
        self.written += 1;
        if self.takes_addresses { Ok(()) } else { Err("no") }
    }
}

/// Runs the script. No byte outside the files that it loads is accessed. If it fails, no address is written to the host, and
/// nothing in the F-segment looks like an RSDP. The RSDP that it returns is valid.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let flags: u8 = input.take();
    let count = input.take::<u8>() % 9;
    let mut files = BTreeMap::new();
    for _ in 0..count {
        let name = input.pick(&NAMES);
        files.insert(name, input.long());
    }
    let breaks = (flags & 4 != 0).then(|| input.pick(&NAMES));
    let mut script = Vec::new();
    if flags & 1 != 0 {
        script.extend(input.rest());
    } else {
        while !input.is_empty() && script.len() < 64 * 128 {
            script.extend(input.take::<Command>().bytes());
        }
    }
    let takes_addresses = flags & 2 == 0;
    let mut host = FakeHost { files, places: Vec::new(), next: [0; 2], written: 0, breaks, takes_addresses };
    match acpi::load(&mut host, &script) {
        Ok(rsdp) => {
            let (_, bytes) =
                host.places.iter().find(|(place, _)| place.start() == rsdp).expect("a file that was loaded");
            assert!(is_rsdp(bytes), "what is at {rsdp} is no RSDP");
        }
        Err(error) => {
            crate::one_line(&error.to_string());
            assert_eq!(host.written, 0, "the host holds an address: {error}");
            for (place, bytes) in
                host.places.iter().filter(|(place, _)| place.start().get() < F_SEGMENT.0 + F_SEGMENT.1)
            {
                for at in (0..bytes.len()).step_by(16) {
                    assert!(!is_rsdp(&bytes[at..]), "{place} has an RSDP at {at} after: {error}");
                }
            }
        }
    }
}

/// Whether an operating system would accept an RSDP here (ACPI 6.5, 5.2.5.1).
fn is_rsdp(bytes: &[u8]) -> bool {
    let sum = |len| bytes.get(..len).map(|bytes| bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
    bytes.starts_with(b"RSD PTR ") && sum(20) == Some(0)
}

/// Scripts and tables of real machines, and a short one.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for machine in crate::machines() {
        let files: Vec<_> =
            NAMES.iter().zip(0_u8..).filter_map(|(name, number)| Some((number, machine.get(*name)?))).collect();
        let mut seed = vec![1, files.len() as u8];
        for (number, bytes) in files {
            // Zeros follow the tables.
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(1, |last| last + 1).min(0xffff);
            seed.push(number);
            seed.extend((used as u16).to_le_bytes());
            seed.extend(&bytes[..used]);
        }
        let script = &machine["etc/table-loader"];
        let used = script.chunks(128).rposition(|command| command[0] != 0).map_or(0, |last| last + 1);
        seed.extend(&script[..used * 128]);
        seeds.push(seed);
    }
    let command = |kind, file, other, size, numbers: [u32; 3]| {
        let numbers = numbers.map(u32::to_le_bytes).concat();
        [&[kind, file, other, size][..], &numbers].concat()
    };
    let mut rsdp = [0; 20];
    rsdp[..8].copy_from_slice(b"RSD PTR ");
    let seed = |flags: u8, rsdp: &[u8], breaks: &[u8], script: &[Vec<u8>]| {
        let tables = [&[0, 64, 0][..], &[7; 64]].concat();
        [&[flags, 2][..], &tables, &[1, rsdp.len() as u8, 0], rsdp, breaks, &script.concat()].concat()
    };
    let allocate = [command(1, 0, 0, 1, [64, 0, 0]), command(1, 1, 0, 2, [16, 0, 0])];
    let link = [command(2, 1, 0, 4, [16, 0, 0]), command(3, 1, 0, 0, [8, 0, 20])];
    seeds.push(seed(0, &rsdp, &[], &[allocate.clone(), link.clone()].concat()));
    // One that is right from the start, but not where the file begins; and one of which nothing more arrives.
    rsdp[8] = rsdp.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
    let second = [&[0; 16][..], &rsdp].concat();
    seeds.push(seed(0, &second, &[], &allocate));
    seeds.push(seed(4, &[&rsdp[..], &[0; 20]].concat(), &[1], &allocate));
    seeds
}
