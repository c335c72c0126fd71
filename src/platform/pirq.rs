//! PCI interrupt routing on Intel's ISA bridges, PIIX3 and ICH9: four routing registers, PIRQA to PIRQD, and which interrupts are
//! level-triggered.
//!
//! Source: Intel 82371AB (PIIX4) data sheet, 4.1.10; Intel I/O Controller Hub 9 data sheet, 13.1.15.

use crate::hal::Ports;

/// Interrupts of the four routing registers, in a dword from the low byte up: 10, 10, 11, 11, as a PC's firmware has it.
pub const ROUTES: u32 = 0x0b0b_0a0a;

/// Edge/level control of interrupts 8 to 15 (PIIX3 data sheet, ELCR2): 10 and 11 are level-triggered. Interrupts 0 to 7 keep
/// their reset value, edge-triggered.
const ELCR2: u16 = 0x4d1;
const ELCR2_LEVEL_10_11: u8 = 1 << (10 - 8) | 1 << (11 - 8);

/// Marks interrupts 10 and 11 as level-triggered, as PCI interrupts are.
pub fn set_level_triggered(ports: &mut impl Ports) {
    ports.out8(ELCR2, ELCR2_LEVEL_10_11);
}

/// The interrupt of a pin, 0 for A, rotated by `steps`: pin A with 0 steps is PIRQA.
pub const fn rotated(steps: u8, pin: u8) -> u8 {
    let [a, b, c, d] = ROUTES.to_le_bytes();
    match steps.wrapping_add(pin) & 3 {
        0 => a,
        1 => b,
        2 => c,
        _ => d,
    }
}
