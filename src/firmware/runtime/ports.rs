//! The ports that the services use: of the clock, and those that reset or turn off the machine.

use core::arch::asm;

use firstlight::hal::Ports;

/// The machine's ports.
pub struct RuntimePorts;

impl Ports for RuntimePorts {
    fn in8(&mut self, port: u16) -> u8 {
        let value;
        // SAFETY: only the services' ports are read, which no memory depends on.
        unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) };
        value
    }

    fn in16(&mut self, _: u16) -> u16 {
        u16::MAX
    }

    fn in32(&mut self, _: u16) -> u32 {
        u32::MAX
    }

    fn out8(&mut self, port: u16, value: u8) {
        // SAFETY: only the services' ports are written, which no memory depends on.
        unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) };
    }

    fn out16(&mut self, port: u16, value: u16) {
        // SAFETY: as above.
        unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nomem, nostack, preserves_flags)) };
    }

    fn out32(&mut self, _: u16, _: u32) {}
}

/// A port for diagnostics. A read takes about a microsecond on a PC's bus, and has no effect.
const POST_PORT: u16 = 0x80;
/// How often it is read in [`wait`]: 50 ms on a PC's bus.
const READS: u32 = 50_000;

/// Gives the host time to do what a port was written for. The CPU continues for a moment, and a second request would reset the
/// machine again, during the next boot.
pub fn wait() {
    for _ in 0..READS {
        RuntimePorts.in8(POST_PORT);
    }
}

/// Resets the machine by each way in turn (see `platform::reset`). Comes back where none is there.
pub fn reset() {
    RuntimePorts.out8(0xcf9, 0x02);
    RuntimePorts.out8(0xcf9, 0x06);
    wait();
    RuntimePorts.out8(0x64, 0xfe);
    wait();
    let no_table = [0_u8; 10];
    // SAFETY: this ends the system: without a table of interrupts the breakpoint shuts the CPU down, which resets the machine.
    unsafe { asm!("cli", "lidt [{0}]", "int3", in(reg) &no_table) };
}
