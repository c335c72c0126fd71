//! The two ways to reset a PC through a port.
//!
//! Left out: the CPU's shutdown, which is in the binary, for machines on which neither port responds.

use super::timer::wait;
use crate::hal::{Clock, Ports};

/// The reset control register (ICH9 data sheet, 13.7.5): a hard reset, and the bit that triggers it.
const RESET_CONTROL: u16 = 0xcf9;
const RESET_HARD: u8 = 0x02;
const RESET_NOW: u8 = 0x04;
/// The keyboard controller's command to pulse the reset line.
const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;

/// How long to wait for each of the two before trying the next, in milliseconds. The CPU continues for a moment after the
/// request, and a second request would reset the machine again, during the next boot.
const RESET_LIMIT: u32 = 100;

/// Requests a reset. Returns if nothing responds, as on a microvm; then only the CPU's shutdown remains.
pub fn restart<M: Ports + Clock>(machine: &mut M) {
    machine.out8(RESET_CONTROL, RESET_HARD);
    machine.out8(RESET_CONTROL, RESET_HARD | RESET_NOW);
    wait(machine, RESET_LIMIT);
    machine.out8(KEYBOARD_COMMAND, KEYBOARD_RESET);
    wait(machine, RESET_LIMIT);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::machine::{Access, FakeMachine};
    use crate::platform::timer::TSC_10_MS;

    #[test]
    fn a_restart_asks_the_chipset_and_then_the_keyboard_controller() {
        let mut machine = FakeMachine::new();
        let start = machine.ticks();
        restart(&mut machine);
        assert_eq!(machine.accesses[..2], [Access::Out(0xcf9, 1, 2), Access::Out(0xcf9, 1, 6)]);
        let keyboard = machine.accesses.iter().position(|access| *access == Access::Out(0x64, 1, 0xfe)).unwrap();
        let timers =
            |accesses: &[Access]| accesses.iter().filter(|access| **access == Access::Out(0x43, 1, 0xb0)).count();
        assert_eq!(timers(&machine.accesses[..keyboard]), 10, "there is time for the first to respond");
        assert_eq!(timers(&machine.accesses[keyboard..]), 10, "and for the second");
        assert!(machine.ticks() - start >= 20 * TSC_10_MS);
    }
}
