//! The end of the F-segment, as in a PC's BIOS: code at f000:fff0, the date and the model.
//!
//! Operating systems jump there, in real mode, to restart a PC (Linux with `reboot=bios`). If the F-segment maps the end of the
//! image, the jump reaches the image's reset vector. If the firmware has made it RAM, there would be zeros. So it gets code that
//! resets the machine: through the chipset, the keyboard controller, and at last a triple fault.
//!
//! Others jump to ffff:0000, the same address: Linux up to 2.6.38, DOS. So the code there is a far jump.
//!
//! Assumed: the jump is made in real mode. Left out: everything else that software finds at fixed addresses of a BIOS.
//!
//! Source: IBM PC/AT technical reference, BIOS listing (the vector at f000:fff0, the date at f000:fff5, the model at
//! f000:fffe); the ports are those of [`crate::platform::reset`].

use crate::hal::{Memory, MemoryError};
use crate::layout::{BIOS_END, F_SEGMENT};
use crate::smbios;

/// The model byte of a PC/AT, which every later PC has.
const MODEL_AT: u8 = 0xfc;

/// The first byte's offset in the segment, the segment, and the offset of the table without vectors.
const OFFSET: u16 = (BIOS_END.start().get() - F_SEGMENT.start().get()) as u16;
const START: [u8; 2] = OFFSET.to_le_bytes();
const SEGMENT: [u8; 2] = ((F_SEGMENT.start().get() >> 4) as u16).to_le_bytes();
const NO_VECTORS: [u8; 2] = OFFSET.wrapping_add(31).to_le_bytes();

const DATE: [u8; 8] = smbios::SHORT_RELEASE_DATE;

/// All bytes. Each line is an instruction or a field.
#[rustfmt::skip]
const BYTES: [u8; BIOS_END.len() as usize] = [
    0xba, 0xf9, 0x0c,                   // mov dx, 0xcf9: the chipset's reset control
    0xb0, 0x02,                         // mov al, 2: a hard reset
    0xee,                               // out dx, al
    0xb0, 0x06,                         // mov al, 6: now
    0xee,                               // out dx, al
    0x31, 0xc9,                         // xor cx, cx: time for it, as long as 65,536 reads of a port take
    0xe4, 0x64,                         // in al, 0x64
    0xe2, 0xfc,                         // loop to the read
    0xb0, 0xfe,                         // mov al, 0xfe: the keyboard controller's pulse of the reset line
    0xe6, 0x64,                         // out 0x64, al
    0xe4, 0x64,                         // in al, 0x64: as much time again
    0xe2, 0xfc,                         // loop to the read
    0x2e, 0x0f, 0x01, 0x1e, NO_VECTORS[0], NO_VECTORS[1], // lidt cs:[NO_VECTORS]
    0x0f, 0x0b,                         // ud2: an exception without a handler, and so is the double fault that follows
    0, 0, 0, 0, 0, 0,                   // NO_VECTORS: limit and address
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0xea, START[0], START[1], SEGMENT[0], SEGMENT[1], // f000:fff0: jmp SEGMENT:START
    DATE[0], DATE[1], DATE[2], DATE[3], DATE[4], DATE[5], DATE[6], DATE[7], 0,
    MODEL_AT, 0,
];

/// Writes it. Nothing else of the firmware uses this memory.
///
/// # Errors
/// [`MemoryError`] if the firmware must not write there; it may.
pub fn write(memory: &mut impl Memory) -> Result<(), MemoryError> {
    memory.write(BIOS_END.start(), &BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::machine::FakeMachine;

    #[test]
    fn the_last_paragraph_has_a_far_jump_the_date_and_the_model() {
        let mut machine = FakeMachine::new();
        write(&mut machine).unwrap();
        let last = machine.memory.bytes(0xf_fff0, 16);
        // The jump works from any segment.
        assert_eq!(&last[..5], [0xea, 0xc0, 0xff, 0x00, 0xf0]);
        assert_eq!(last[5..13], DATE);
        assert_eq!(last[14], 0xfc);
        // The operand of LIDT: no vectors.
        assert_eq!(machine.memory.bytes(0xf_ffd7, 6), [0x2e, 0x0f, 0x01, 0x1e, 0xdf, 0xff]);
        assert_eq!(machine.memory.bytes(0xf_ffdf, 6), [0; 6]);
    }
}
