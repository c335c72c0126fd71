//! What happens when the boot fails: the message on the display, how long it stands there, and the restart.
//!
//! Left out: the consoles, which the binary has (`src/firmware/main.rs`) and which come first; panics and exceptions, which are on the
//! consoles only.

use log::Level;

use crate::addr::PhysAddr;
use crate::error::Error;
use crate::fw_cfg::FwCfg;
use crate::hal::Machine;
use crate::logging::Line;
use crate::memory_map::MemoryMap;
use crate::{framebuffer, platform};

/// How long a failed boot waits, in milliseconds, little-endian (QEMU `-boot reboot-timeout=`); -1 for ever.
const BOOT_FAIL_WAIT: &str = "etc/boot-fail-wait";
/// The item's value for a machine that is not to start again.
const FOR_EVER: u32 = u32::MAX;

/// A failed boot.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// After how many milliseconds the host wants the machine to start again; `None` to stop for good, as when the host
    /// says nothing.
    pub restart_after: Option<u32>,
}

impl Failure {
    /// A failure before the host could be asked.
    #[must_use]
    pub const fn final_stop(error: Error) -> Self {
        Self { error, restart_after: None }
    }

    /// A failure after which the machine starts again at once.
    #[must_use]
    pub const fn restart(error: Error) -> Self {
        Self { error, restart_after: Some(0) }
    }

    /// A failure, with what the host wants done then.
    pub fn new<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, error: Error) -> Self {
        let wait = fw_cfg.find(BOOT_FAIL_WAIT).filter(|item| item.len() == 4).map(|item| {
            let mut bytes = [0; 4];
            fw_cfg.read(machine, item, &mut bytes);
            u32::from_le_bytes(bytes)
        });
        Self { error, restart_after: wait.filter(|&wait| wait != FOR_EVER) }
    }
}

/// Shows `error` on the display, in the words that the consoles have. Does nothing where no display can be set up.
/// `start_info` is as for [`crate::run`].
///
/// The boot may have failed anywhere, so nothing of it is used: the host is asked again, and PCI is set up anew for the
/// display alone. No kernel can be started after that.
#[cold]
pub fn show<M: Machine>(machine: &mut M, start_info: Option<PhysAddr>, error: &Error) {
    let fw_cfg = FwCfg::probe(machine).unwrap_or_else(|_| FwCfg::absent());
    let mut map = match start_info {
        None => MemoryMap::of_host(machine, &fw_cfg, None).unwrap_or_default(),
        // What the host handed over may be overwritten, and with it what it reserves. So no memory is known to be free.
        Some(_) => MemoryMap::new(),
    };
    let display = platform::set_up_display(machine, &fw_cfg, &map);
    if let Some(framebuffer) = framebuffer::set_up(machine, &fw_cfg, &mut map, display.as_ref()) {
        // What cannot be drawn was printed.
        let _ = framebuffer.show(machine, &Line { level: Level::Error, message: error });
    }
}

/// Channel 2 of the timer: count, command, and the port with its gate and output (Intel 8254 data sheet; ICH9 data
/// sheet, 13.4 and 13.7.1).
const TIMER_COUNT: u16 = 0x42;
const TIMER_COMMAND: u16 = 0x43;
const TIMER_GATE: u16 = 0x61;
/// Channel 2, low byte then high byte, mode 0: the output goes high when the count is down.
const TIMER_ONE_SHOT: u8 = 0xb0;
const GATE_ON: u8 = 1 << 0;
const GATE_OUTPUT: u8 = 1 << 5;
/// Ticks of the timer in ten milliseconds, at 1,193,182 Hz.
const TICKS_10_MS: u16 = 11_932;
/// Time stamp counter ticks taken for ten milliseconds where the timer does not answer.
const TSC_10_MS: u64 = 40_000_000;

/// Waits `milliseconds`, rounded up to tens.
pub fn wait<M: Machine>(machine: &mut M, milliseconds: u32) {
    for _ in 0..milliseconds.div_ceil(10) {
        let start = machine.ticks();
        machine.out8(TIMER_GATE, GATE_ON);
        machine.out8(TIMER_COMMAND, TIMER_ONE_SHOT);
        let [low, high] = TICKS_10_MS.to_le_bytes();
        machine.out8(TIMER_COUNT, low);
        machine.out8(TIMER_COUNT, high);
        // An output that is high at once is a port that nothing answers.
        let absent = machine.in8(TIMER_GATE) & GATE_OUTPUT != 0;
        loop {
            let done = !absent && machine.in8(TIMER_GATE) & GATE_OUTPUT != 0;
            let elapsed = machine.ticks().wrapping_sub(start);
            // A timer that never ends meets the clock.
            if done || elapsed >= TSC_10_MS {
                break;
            }
        }
    }
}

/// The reset control register (ICH9 data sheet, 13.7.5): a hard reset, and the bit that triggers it.
const RESET_CONTROL: u16 = 0xcf9;
const RESET_HARD: u8 = 0x02;
const RESET_NOW: u8 = 0x04;
/// The keyboard controller's command to pulse the reset line.
const KEYBOARD_COMMAND: u16 = 0x64;
const KEYBOARD_RESET: u8 = 0xfe;

/// How long each of the two has before the next is asked, in milliseconds. The CPU runs on for a moment after a host was
/// asked, and a second question would reset the machine a second time, in the next boot.
const RESET_LIMIT: u32 = 100;

/// Asks the machine to start again. Comes back where nothing answers, as on a microvm; then the CPU's shutdown is left.
pub fn restart<M: Machine>(machine: &mut M) {
    machine.out8(RESET_CONTROL, RESET_HARD);
    machine.out8(RESET_CONTROL, RESET_HARD | RESET_NOW);
    wait(machine, RESET_LIMIT);
    machine.out8(KEYBOARD_COMMAND, KEYBOARD_RESET);
    wait(machine, RESET_LIMIT);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hal::Clock;
    use crate::hal::fake::{Access, FakeDevice, FakeMachine, FakeMemory};

    /// A timer whose output goes high at the third look.
    struct Timer(u32);

    impl FakeDevice for Timer {
        fn claims(&self, port: u16) -> bool {
            matches!(port, 0x42 | 0x43 | 0x61)
        }
        fn read(&mut self, _port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
            self.0 += 1;
            if self.0 >= 3 { 0x20 } else { 0 }
        }
        fn write(&mut self, port: u16, _size: u8, _value: u32, _memory: &mut FakeMemory) {
            if port == 0x43 {
                self.0 = 0;
            }
        }
    }

    fn programmed(machine: &FakeMachine) -> usize {
        machine.accesses.iter().filter(|access| **access == Access::Out(0x43, 1, 0xb0)).count()
    }

    #[test]
    fn the_wait_is_as_many_periods_of_the_timer_as_it_takes() {
        let mut machine = FakeMachine::new().with(Timer(0));
        machine.ticks_per_look = 1;
        wait(&mut machine, 0);
        assert_eq!(programmed(&machine), 0);
        wait(&mut machine, 95);
        assert_eq!(programmed(&machine), 10);
    }

    #[test]
    fn without_a_timer_the_wait_goes_by_the_clock() {
        for absent in [0, u32::MAX] {
            let mut machine = FakeMachine::new();
            machine.absent = absent;
            let start = machine.ticks();
            wait(&mut machine, 20);
            assert!(machine.ticks() - start >= 2 * TSC_10_MS);
        }
    }

    #[test]
    fn a_restart_asks_the_chipset_and_then_the_keyboard_controller() {
        let mut machine = FakeMachine::new();
        let start = machine.ticks();
        restart(&mut machine);
        assert_eq!(machine.accesses[..2], [Access::Out(0xcf9, 1, 2), Access::Out(0xcf9, 1, 6)]);
        let keyboard = machine.accesses.iter().position(|access| *access == Access::Out(0x64, 1, 0xfe)).unwrap();
        let timers =
            |accesses: &[Access]| accesses.iter().filter(|access| **access == Access::Out(0x43, 1, 0xb0)).count();
        assert_eq!(timers(&machine.accesses[..keyboard]), 10, "there is time for the first to be answered");
        assert_eq!(timers(&machine.accesses[keyboard..]), 10, "and for the second");
        assert!(machine.ticks() - start >= 20 * TSC_10_MS);
    }
}
