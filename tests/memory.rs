//! The image's memory functions, and its access to guest memory, on the host: they read and write only the bytes that they
//! were passed.
//!
//! Their memory ends, or begins, at an inaccessible page, so that one byte too many ends the test.
#![cfg(target_arch = "x86_64")]

extern crate alloc;

#[path = "../src/firmware/memory/functions.rs"]
#[allow(dead_code, reason = "in the image they are called by the compiler")]
mod functions;

use std::ops::Range;
use std::{ptr, slice};

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::hal::dma::{ADDRESS_HIGH, ADDRESS_LOW, AddressWrite, Fault, MOST_BYTES, PASSING, Transfer};
use firstlight::hal::startup::X2APIC_COMMAND;
use firstlight::hal::{Clock as _, Cpu as _, Dma as _, Memory as _, MemoryError, Ports as _};
use firstlight::layout;
use firstlight_machine::PcMachine;

const PAGE: usize = 4096;

/// Readable and writable pages between two inaccessible ones.
struct Guarded {
    start: *mut u8,
    len: usize,
}

impl Guarded {
    /// `pages` of them, anywhere.
    fn new(pages: usize) -> Self {
        Self::at(None, pages)
    }

    /// `pages` pages, after the page at `address` if there is one.
    fn at(address: Option<usize>, pages: usize) -> Self {
        let len = pages * PAGE;
        let fixed = if address.is_some() { libc::MAP_FIXED_NOREPLACE } else { 0 };
        let wanted = ptr::without_provenance_mut(address.unwrap_or(0));
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed;
        // SAFETY: new memory, in the place of none that there is.
        let whole = unsafe { libc::mmap(wanted, len + 2 * PAGE, libc::PROT_NONE, flags, -1, 0) };
        assert!(whole != libc::MAP_FAILED && address.is_none_or(|at| at == whole.addr()), "no memory at {address:x?}");
        let start = whole.wrapping_byte_add(PAGE).cast();
        // SAFETY: the pages between the first and the last of those.
        let result = unsafe { libc::mprotect(whole.wrapping_byte_add(PAGE), len, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(result, 0);
        Self { start, len }
    }

    /// The first `len` bytes, or the last ones.
    fn range(&self, len: usize, at_end: bool) -> Range<usize> {
        let start = if at_end { self.len - len } else { 0 };
        start..start + len
    }

    fn pointer(&self, at: usize) -> *mut u8 {
        assert!(at <= self.len);
        self.start.wrapping_add(at)
    }

    /// All of it.
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the memory is this object's, readable and writable, and borrowed with it.
        unsafe { slice::from_raw_parts_mut(self.start, self.len) }
    }

    /// All of it, filled with a pattern that distinguishes its bytes.
    fn fill(&mut self, seed: u8) -> Vec<u8> {
        for (i, byte) in self.bytes().iter_mut().enumerate() {
            *byte = (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed;
        }
        self.bytes().to_vec()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the memory that `at` has made, which nothing borrows any more.
        unsafe { libc::munmap(self.start.wrapping_sub(PAGE).cast(), self.len + 2 * PAGE) };
    }
}

/// Every number of whole words and odd bytes, and some that are longer than a page.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=80).chain([255, 1000, 4095, 4096, 4097, 2 * PAGE - 1])
}

#[test]
fn memcpy_copies_all_and_touches_nothing_else() {
    let (mut from, mut to) = (Guarded::new(2), Guarded::new(2));
    let source = from.fill(1);
    for len in lengths() {
        for (from_end, to_end) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut expected = to.fill(2);
            let (read, written) = (from.range(len, from_end), to.range(len, to_end));
            expected[written.clone()].copy_from_slice(&source[read.clone()]);
            // SAFETY: the ranges are in memory of their own.
            let result = unsafe { functions::memcpy(to.pointer(written.start), from.pointer(read.start), len) };
            assert_eq!(result, to.pointer(written.start));
            assert!(to.bytes() == expected, "{len} bytes");
        }
    }
}

#[test]
fn memmove_copies_overlapping_ranges_correctly() {
    let mut memory = Guarded::new(2);
    for len in lengths() {
        let last = 2 * PAGE - len;
        let places = [0, 1, 2, 7, 8, 9, 40, last / 2, last.saturating_sub(8), last.saturating_sub(1), last];
        for from in places.into_iter().filter(|&from| from <= last) {
            for to in places.into_iter().filter(|&to| to <= last) {
                let mut expected = memory.fill(3);
                expected.copy_within(from..from + len, to);
                // SAFETY: both ranges are in the memory.
                let result = unsafe { functions::memmove(memory.pointer(to), memory.pointer(from), len) };
                assert_eq!(result, memory.pointer(to));
                assert!(memory.bytes() == expected, "{len} bytes from {from} to {to}");
            }
        }
    }
}

#[test]
fn memset_fills_all_and_touches_nothing_else() {
    let mut memory = Guarded::new(2);
    for len in lengths() {
        for (at_end, value) in [(false, 0), (true, 0x5a), (true, -1), (false, 0x1_23)] {
            let mut expected = memory.fill(4);
            let range = memory.range(len, at_end);
            expected[range.clone()].fill(value as u8);
            // SAFETY: the range is in the memory.
            let result = unsafe { functions::memset(memory.pointer(range.start), value, len) };
            assert_eq!(result, memory.pointer(range.start));
            assert!(memory.bytes() == expected, "{len} bytes of {value}");
        }
    }
}

#[test]
fn memcmp_orders_as_slices_do_and_reads_nothing_else() {
    let (mut left, mut right) = (Guarded::new(2), Guarded::new(2));
    for len in lengths() {
        for (left_end, right_end) in [(false, false), (false, true), (true, true)] {
            let (a, b) = (left.range(len, left_end), right.range(len, right_end));
            let ordered = |left: &mut Guarded, right: &mut Guarded| {
                let expected = left.bytes()[a.clone()].cmp(&right.bytes()[b.clone()]);
                let pointers = (left.pointer(a.start), right.pointer(b.start));
                // SAFETY: the ranges are in the memory.
                let order = unsafe { functions::memcmp(pointers.0, pointers.1, len) };
                // SAFETY: the same.
                let different = unsafe { functions::bcmp(pointers.0, pointers.1, len) };
                assert_eq!(order.cmp(&0), expected, "{len} bytes");
                assert_eq!(different == 0, expected.is_eq(), "{len} bytes");
            };
            left.bytes().fill(0x80);
            right.bytes().fill(0x80);
            ordered(&mut left, &mut right);
            // The first byte that differs decides, whatever follows it.
            for at in [0, 1, 6, 7, 8, 9, len / 2, len.saturating_sub(9), len.saturating_sub(1)] {
                if at >= len {
                    continue;
                }
                for value in [0, 0x7f, 0x81, 0xff] {
                    right.bytes()[b.start + at] = value;
                    if at + 1 < len {
                        left.bytes()[a.start + at + 1] = 0xff - value;
                    }
                    ordered(&mut left, &mut right);
                    right.bytes()[b.start + at] = 0x80;
                    left.bytes()[a.clone()].fill(0x80);
                }
            }
        }
    }
}

/// Where the test has its guest memory: RAM to the firmware, and free in a process that is linked where it likes.
const GUEST: usize = 0x2000_0000;

fn range(start: usize, len: usize) -> PhysRange {
    PhysRange::new(PhysAddr::new(start as u64), len as u64).unwrap()
}

/// One test, because there is only one such machine and one such address.
#[test]
fn the_machine_accesses_only_the_memory_that_it_is_asked_to() {
    let mut guest = Guarded::at(Some(GUEST - PAGE), 2);
    // SAFETY: nothing of what is called here executes a privileged instruction, the memory is what `guest` has mapped, and
    // this is the only machine. No descriptor is given to a device.
    let mut machine = unsafe { PcMachine::take(layout::LOADED_IMAGE, &[]) };
    let at = |offset: usize| PhysAddr::new((GUEST + offset) as u64);
    for len in [0, 1, 7, 8, 9, 4096, 2 * PAGE] {
        for at_end in [false, true] {
            let before = guest.fill(5);
            let place = guest.range(len, at_end);
            let mut read = vec![0xcc; len];
            machine.read(at(place.start), &mut read).unwrap();
            assert!(read == before[place.clone()]);
            let mut seen = Vec::new();
            machine.inspect(range(GUEST + place.start, len), &mut |bytes| seen.extend_from_slice(bytes)).unwrap();
            assert!(seen == before[place.clone()]);

            let mut expected = before.clone();
            expected[place.clone()].iter_mut().for_each(|byte| *byte ^= 0xff);
            machine.write(at(place.start), &expected[place.clone()]).unwrap();
            assert!(guest.bytes() == expected, "{len} bytes written");
            expected[place.clone()].fill(0x77);
            machine.fill(range(GUEST + place.start, len), 0x77).unwrap();
            assert!(guest.bytes() == expected, "{len} bytes filled");
        }
    }

    // Registers, at both ends.
    for place in [0, 2 * PAGE - 8] {
        let mut expected = guest.fill(6);
        let word = u64::from_le_bytes(expected[place..place + 8].try_into().unwrap());
        assert_eq!(machine.read_register8(at(place)).unwrap(), word as u8);
        assert_eq!(machine.read_register32(at(place)).unwrap(), word as u32);
        assert_eq!(machine.read_register64(at(place)).unwrap(), word);
        machine.write_register64(at(place), 0x1122_3344_5566_7788).unwrap();
        machine.write_register32(at(place + 4), 0xaabb_ccdd).unwrap();
        machine.write_register16(at(place + 2), 0xeeff).unwrap();
        machine.write_register8(at(place), 0x99).unwrap();
        expected[place..place + 8].copy_from_slice(&0xaabb_ccdd_eeff_7799_u64.to_le_bytes());
        assert!(guest.bytes() == expected);
    }

    // What it must not access: page zero, its own memory, ranges that wrap, addresses that are no register. None is mapped here.
    let before = guest.fill(7);
    let image = layout::LOADED_IMAGE;
    let own = [layout::FIRMWARE_RAM, layout::WAKE_RAM, image, image.split_at(image.len() - 8).1, layout::FIRMWARE_ROM];
    for place in [PhysAddr::new(0), PhysAddr::new(8), PhysAddr::new(u64::MAX - 3), PhysAddr::new(1 << 32)]
        .into_iter()
        .chain(own.map(PhysRange::start))
    {
        let what = format!("{place}");
        assert!(machine.read(place, &mut [0; 8]).is_err(), "{what}");
        assert!(machine.write(place, &[0; 8]).is_err(), "{what}");
        let eight = PhysRange::new(place, 8).unwrap_or_else(|| PhysRange::empty_at(place));
        if !eight.is_empty() {
            assert!(machine.fill(eight, 0).is_err(), "{what}");
            assert!(machine.inspect(eight, &mut |_| panic!("{what}")).is_err(), "{what}");
        }
        assert!(machine.write_register64(place, 0).is_err(), "{what}");
    }
    for odd in 1..8 {
        assert!(machine.read_register64(at(odd)).is_err() && machine.write_register64(at(odd), 0).is_err());
        assert!(odd % 4 == 0 || machine.read_register32(at(odd)).is_err());
        assert!(odd % 2 == 0 || machine.write_register16(at(odd), 0).is_err());
    }
    assert!(guest.bytes() == before);

    // A descriptor for memory that a device must not write is refused before the doorbell, which a program here cannot ring.
    let transfer = Transfer { address_write: AddressWrite::Once, control: 2 };
    for range in [layout::FIRMWARE_RAM, layout::LOADED_IMAGE, layout::PAGE_ZERO, range(1 << 32, 1)] {
        let refused = machine.load(transfer, range);
        assert_eq!(refused, Err(Fault::Memory(MemoryError { range })), "{range}");
    }
    let refused = machine.read_bytes(transfer, &mut [0; MOST_BYTES + 1]);
    assert!(matches!(refused, Err(Fault::Memory(_))), "{refused:?}");
    // Skipping bytes neither reads nor writes memory.
    assert_eq!(PASSING & (1 << 1 | 1 << 4), 0);
    // Nor does a write to its ports reach it.
    for port in ADDRESS_HIGH - 3..=ADDRESS_LOW + 3 {
        machine.out32(port, 0);
    }
    machine.out16(ADDRESS_HIGH - 1, 0);
    machine.out8(ADDRESS_LOW + 3, 0);

    // The register that starts CPUs is refused, in memory and as a model-specific register.
    let command = layout::INTERRUPT_COMMAND;
    for at in [command.start().get() - 3, command.start().get(), command.end().get() - 1].map(PhysAddr::new) {
        assert!(machine.write(at, &[0; 4]).is_err() && machine.read(at, &mut [0; 4]).is_err());
        assert!(machine.check_device_range(PhysRange::new(at, 4).unwrap()).is_err());
    }
    assert!(machine.write_register32(command.start(), 0).is_err());
    assert!(machine.copy(range(GUEST, 4), command.start()).is_err() && machine.fill(command, 0).is_err());
    machine.write_msr(X2APIC_COMMAND, 0);

    assert_ne!(machine.cpuid(0, 0).eax, 0);
    assert!(machine.ticks() <= machine.ticks());
}
