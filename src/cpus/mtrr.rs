//! Memory type range registers.
//!
//! With MTRRs off, Linux up to 6.1 disables PAT, and with it write-combining, and KVM before 6.11 maps RAM uncached for guests
//! with assigned devices. So the MTRRs are set as a PC's firmware sets them: RAM write-back, video memory uncached, the ROM
//! segments write-protected, the device space below 4 GiB uncached. The device space begins where a few ranges can cover all of
//! it ([`devices_from`]): at the end of RAM or slightly above. The gap between the two stays write-back, and is empty.
//!
//! Source: Intel SDM volume 3, 12.11 (registers in 12.11.2, fixed ranges in table 12-9).

use arrayvec::ArrayVec;

use super::features::Features;
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::hal::Cpu;

const MTRRCAP: u32 = 0xfe;
/// MTRRCAP: the number of variable ranges in the low byte, and whether fixed ranges exist.
const MTRRCAP_FIXED: u64 = 1 << 8;
const DEF_TYPE: u32 = 0x2ff;
/// DEF_TYPE: MTRRs enabled, fixed ranges enabled. The low byte is the type of all other memory.
const DEF_TYPE_ENABLE: u64 = 1 << 11;
const DEF_TYPE_FIXED: u64 = 1 << 10;
/// The base of the first variable range. The next register is its mask; further pairs follow.
const FIRST_BASE: u32 = 0x200;
const MASK_VALID: u64 = 1 << 11;

const UNCACHED: u64 = 0;
const WRITE_PROTECTED: u64 = 5;
const WRITE_BACK: u64 = 6;

/// A fixed register whose eight ranges have one type.
const fn all(kind: u64) -> u64 {
    kind.wrapping_mul(0x0101_0101_0101_0101)
}

/// A register and its new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The register's number.
    pub register: u32,
    /// Its value.
    pub value: u64,
}

const fn write(register: u32, value: u64) -> Write {
    Write { register, value }
}

/// The fixed registers, with the type of their eight ranges.
static FIXED: [Write; 11] = [
    write(0x250, all(WRITE_BACK)),      // 0x00000-0x7ffff
    write(0x258, all(WRITE_BACK)),      // 0x80000-0x9ffff
    write(0x259, all(UNCACHED)),        // 0xa0000-0xbffff, video memory
    write(0x268, all(WRITE_PROTECTED)), // 0xc0000-0xfffff, eight registers of 32 KiB
    write(0x269, all(WRITE_PROTECTED)),
    write(0x26a, all(WRITE_PROTECTED)),
    write(0x26b, all(WRITE_PROTECTED)),
    write(0x26c, all(WRITE_PROTECTED)),
    write(0x26d, all(WRITE_PROTECTED)),
    write(0x26e, all(WRITE_PROTECTED)),
    write(0x26f, all(WRITE_PROTECTED)),
];

/// The most variable ranges that the device space is divided into.
const MOST_RANGES: u32 = 4;

/// The most registers that are written.
pub const MOST_WRITES: usize = FIXED.len() + MOST_RANGE_WRITES;
/// Two for each range, and the one that enables all of them.
const MOST_RANGE_WRITES: usize = 2 * MOST_RANGES as usize + 1;

/// The end of the device space.
const END: u64 = PhysRange::LOW_4_GIB.end().get();

/// Where the device space begins if RAM below 4 GiB ends at `ram_end`: the lowest address from `ram_end` on from which four
/// ranges reach up to 4 GiB. This loses less than a fifteenth of the space.
#[must_use]
pub const fn devices_from(ram_end: PhysAddr) -> PhysAddr {
    // Whole pages. The length is a sum of powers of two, of which the smallest are left out.
    let mut len = END.saturating_sub(ram_end.get()) & !(Alignment::PAGE.bytes().wrapping_sub(1));
    while len.count_ones() > MOST_RANGES {
        len ^= lowest_bit(len);
    }
    PhysAddr::new(END.wrapping_sub(len))
}

const fn lowest_bit(value: u64) -> u64 {
    value & value.wrapping_neg()
}

/// The values of the registers.
#[derive(Debug, Default)]
pub struct MemoryTypes {
    fixed: &'static [Write],
    ranges: ArrayVec<Write, MOST_RANGE_WRITES>,
}

impl MemoryTypes {
    /// The memory types of a PC, as far as the CPU has registers for them. The CPU has these `features`. The device space begins
    /// at `devices` or, if that takes too many ranges, at [`devices_from`].
    pub fn plan(cpu: &mut impl Cpu, features: Features, devices: PhysAddr, physical_bits: u8) -> Self {
        if !features.has_mtrrs() {
            return Self::default();
        }
        let capabilities = cpu.read_msr(MTRRCAP);
        let [count, ..] = capabilities.to_le_bytes();
        let count = u32::from(count).min(MOST_RANGES);
        let (fixed, fixed_enable): (&[_], _) =
            if capabilities & MTRRCAP_FIXED != 0 { (&FIXED, DEF_TYPE_FIXED) } else { (&[], 0) };
        let address_mask = 1u64.checked_shl(physical_bits.into()).unwrap_or(0).wrapping_sub(1) & !0xfff;
        // Filled in place, because each copy would cost instructions.
        let mut types = Self { fixed, ranges: ArrayVec::new_const() };
        if !types.add_uncached(devices_from(devices).get(), count, address_mask) {
            crate::warn!(
                "the memory types stay as they are: the CPU has {count} MTRRs, too few for the devices below 4 GiB"
            );
            return Self::default();
        }
        types.add(DEF_TYPE, DEF_TYPE_ENABLE | fixed_enable | WRITE_BACK);
        types
    }

    /// Adds uncached ranges from `start` up to 4 GiB, at most `count`. Returns whether they reach 4 GiB.
    fn add_uncached(&mut self, mut start: u64, count: u32, address_mask: u64) -> bool {
        let mut register = FIRST_BASE;
        for _ in 0..count {
            if start >= END || start == 0 {
                break;
            }
            // A range's length is a power of two, and its start a multiple of the length.
            let len = lowest_bit(start);
            self.add(register, start | UNCACHED);
            self.add(register.wrapping_add(1), len.wrapping_neg() & address_mask | MASK_VALID);
            start = start.wrapping_add(len);
            register = register.wrapping_add(2);
        }
        start >= END || start == 0
    }

    /// Adds a register after the fixed ones. There is room for [`MOST_RANGES`] ranges and the register that enables all.
    fn add(&mut self, register: u32, value: u64) {
        let _ = self.ranges.try_push(write(register, value));
    }

    /// Whether the host has already enabled the registers of this CPU. The CPU has these `features`.
    pub fn are_on(cpu: &mut impl Cpu, features: Features) -> bool {
        features.has_mtrrs() && cpu.read_msr(DEF_TYPE) & DEF_TYPE_ENABLE != 0
    }

    /// The writes, in order.
    pub fn writes(&self) -> impl Iterator<Item = &Write> {
        self.fixed.iter().chain(&self.ranges)
    }

    /// Sets the registers of this CPU.
    pub fn set(&self, cpu: &mut impl Cpu) {
        for list in [self.fixed, &self.ranges] {
            for write in list {
                cpu.write_msr(write.register, write.value);
            }
        }
    }
}
