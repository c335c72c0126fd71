//! Waits some milliseconds, with channel 2 of a PC's timer.
//!
//! Assumed: nothing else uses that channel. Left out: the other channels, and any interrupt.

use crate::hal::{Clock, Ports};

/// Channel 2 of the timer: count, command, and the port with its gate and output (Intel 8254 data sheet; ICH9 data
/// sheet, 13.4 and 13.7.1).
const TIMER_COUNT: u16 = 0x42;
const TIMER_COMMAND: u16 = 0x43;
const TIMER_GATE: u16 = 0x61;
/// Channel 2, low byte then high byte, mode 0: the output goes high when the count reaches zero.
const TIMER_ONE_SHOT: u8 = 0xb0;
const GATE_ON: u8 = 1 << 0;
const GATE_OUTPUT: u8 = 1 << 5;
/// Ticks of the timer in ten milliseconds, at 1,193,182 Hz.
const TICKS_10_MS: u16 = 11_932;
/// Time stamp counter ticks that count as ten milliseconds if the timer does not respond.
pub const TSC_10_MS: u64 = 40_000_000;

/// Waits `milliseconds`, rounded up to tens.
pub fn wait<M: Ports + Clock>(machine: &mut M, milliseconds: u32) {
    for _ in 0..milliseconds.div_ceil(10) {
        let start = machine.ticks();
        if ticks_in_10_ms(machine).is_none() {
            while machine.ticks().wrapping_sub(start) < TSC_10_MS {}
        }
    }
}

/// The ticks of the time stamp counter in ten milliseconds of the timer, and not many more than [`TSC_10_MS`]. `None`, without a wait, if
/// there is no timer.
pub fn ticks_in_10_ms<M: Ports + Clock>(machine: &mut M) -> Option<u64> {
    let start = machine.ticks();
    machine.out8(TIMER_GATE, GATE_ON);
    machine.out8(TIMER_COMMAND, TIMER_ONE_SHOT);
    let [low, high] = TICKS_10_MS.to_le_bytes();
    machine.out8(TIMER_COUNT, low);
    machine.out8(TIMER_COUNT, high);
    // An output that is high at once means an absent port.
    if machine.in8(TIMER_GATE) & GATE_OUTPUT != 0 {
        return None;
    }
    loop {
        let done = machine.in8(TIMER_GATE) & GATE_OUTPUT != 0;
        let elapsed = machine.ticks().wrapping_sub(start);
        // The time stamp counter ends a wait for a timer that never ends.
        if done || elapsed >= TSC_10_MS {
            return Some(elapsed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::machine::{Access, FakeDevice, FakeMachine, FakeMemory};

    /// A timer whose output goes high at the third read.
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
    fn the_wait_is_a_whole_number_of_timer_periods() {
        let mut machine = FakeMachine::new().with(Timer(0));
        machine.ticks_per_look = 1;
        wait(&mut machine, 0);
        assert_eq!(programmed(&machine), 0);
        wait(&mut machine, 95);
        assert_eq!(programmed(&machine), 10);
    }

    #[test]
    fn without_a_timer_the_wait_uses_the_clock() {
        for absent in [0, u32::MAX] {
            let mut machine = FakeMachine::new();
            machine.absent = absent;
            let start = machine.ticks();
            wait(&mut machine, 20);
            assert!(machine.ticks() - start >= 2 * TSC_10_MS);
        }
    }

    #[test]
    fn the_ticks_of_a_timer_that_is_absent_are_not_waited_for() {
        let mut machine = FakeMachine::new();
        machine.absent = u32::MAX;
        let start = machine.ticks();
        assert_eq!(ticks_in_10_ms(&mut machine), None);
        assert!(machine.ticks() - start < TSC_10_MS / 10);
        let mut machine = FakeMachine::new().with(Timer(0));
        machine.ticks_per_look = 1_000;
        assert!(ticks_in_10_ms(&mut machine).is_some_and(|ticks| (1_000..10_000).contains(&ticks)));
    }
}
