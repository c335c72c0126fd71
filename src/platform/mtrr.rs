//! Memory type range registers of the boot CPU.
//!
//! Linux up to 6.1 gives up PAT, and with it write-combining, on a CPU whose MTRRs are off; KVM before 6.11 maps RAM
//! uncached for guests with assigned devices then. So they are set as a PC's firmware does: RAM write-back, video memory
//! uncached, the ROM segments write-protected, everything from the end of low RAM's 32-bit space up uncached.
//!
//! Left out: the other CPUs, which have not started; Linux copies the boot CPU's settings to them.
//!
//! Source: Intel SDM volume 3, 12.11 (registers in 12.11.2, fixed ranges in table 12-9).
#![forbid(unsafe_code)]

use crate::addr::PhysAddr;
use crate::hal::Cpu;

const CPUID_FEATURES: u32 = 1;
/// CPUID leaf 1, EDX.
const FEATURE_MTRR: u32 = 1 << 12;

const MTRRCAP: u32 = 0xfe;
/// MTRRCAP: number of variable ranges in the low byte, and whether there are fixed ones.
const MTRRCAP_FIXED: u64 = 1 << 8;
const DEF_TYPE: u32 = 0x2ff;
/// DEF_TYPE: ranges on, fixed ranges on; the low byte is the type of everything else.
const DEF_TYPE_ENABLE: u64 = 1 << 11;
const DEF_TYPE_FIXED: u64 = 1 << 10;
const FIRST_BASE: u32 = 0x200;
const FIRST_MASK: u32 = 0x201;
const MASK_VALID: u64 = 1 << 11;

const UNCACHED: u64 = 0;
const WRITE_BACK: u64 = 6;

/// Eight ranges of a fixed register, all of one type.
const fn all(kind: u64) -> u64 {
    kind * 0x0101_0101_0101_0101
}

/// The fixed registers, with the type of their eight ranges.
const FIXED: [(u32, u64); 11] = [
    (0x250, all(WRITE_BACK)),      // 0x00000-0x7ffff
    (0x258, all(WRITE_BACK)),      // 0x80000-0x9ffff
    (0x259, all(UNCACHED)),        // 0xa0000-0xbffff, video memory
    (0x268, all(WRITE_PROTECTED)), // 0xc0000-0xfffff, eight registers of 32 KiB
    (0x269, all(WRITE_PROTECTED)),
    (0x26a, all(WRITE_PROTECTED)),
    (0x26b, all(WRITE_PROTECTED)),
    (0x26c, all(WRITE_PROTECTED)),
    (0x26d, all(WRITE_PROTECTED)),
    (0x26e, all(WRITE_PROTECTED)),
    (0x26f, all(WRITE_PROTECTED)),
];
const WRITE_PROTECTED: u64 = 5;

/// Most variable ranges that the space for devices is cut into.
const MOST_RANGES: u32 = 4;

/// Sets the registers. `devices` is where the address space of devices begins below 4 GiB; it goes on to 4 GiB.
pub fn set(cpu: &mut impl Cpu, devices: PhysAddr, physical_bits: u8) {
    if cpu.cpuid(CPUID_FEATURES, 0).edx & FEATURE_MTRR == 0 {
        return;
    }
    let capabilities = cpu.read_msr(MTRRCAP);
    let fixed = capabilities & MTRRCAP_FIXED != 0;
    if fixed {
        for (register, types) in FIXED {
            cpu.write_msr(register, types);
        }
    }
    let [ranges, ..] = capabilities.to_le_bytes();
    let address_mask = 1u64.checked_shl(physical_bits.into()).unwrap_or(0).wrapping_sub(1) & !0xfff;
    let mut start = devices.get();
    let mut index = 0;
    while start < 1 << 32 && start != 0 && index < u32::from(ranges).min(MOST_RANGES) {
        // A range is a power of two long and begins at a multiple of its length.
        let len = start & start.wrapping_neg();
        cpu.write_msr(FIRST_BASE.wrapping_add(index * 2), start | UNCACHED);
        cpu.write_msr(FIRST_MASK.wrapping_add(index * 2), len.wrapping_neg() & address_mask | MASK_VALID);
        start = start.wrapping_add(len);
        index = index.wrapping_add(1);
    }
    let fixed_enable = if fixed { DEF_TYPE_FIXED } else { 0 };
    cpu.write_msr(DEF_TYPE, DEF_TYPE_ENABLE | fixed_enable | WRITE_BACK);
}
