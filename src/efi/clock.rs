//! The real-time clock for `GetTime` and `SetTime` (UEFI 8.3).
//!
//! The clock has no time zone and no daylight saving time. `SetTime` gets both, and they are kept beside the clock ([`Zone`]) for
//! as long as the system runs.
//!
//! A running operating system calls this too: the bit that masks NMIs stays clear.
//!
//! Left out: alarms. They are `UNSUPPORTED`.
//!
//! Sources: Motorola MC146818 data sheet; ICH9 data sheet, 13.6; QEMU `hw/rtc/mc146818rtc.c`, for the century.

use uefi_raw::Status;
use uefi_raw::time::{Daylight, Time};

use crate::hal::Ports;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

/// Seconds, minutes, hours, day, month, year and century.
const REGISTERS: [u8; 7] = [0x00, 0x02, 0x04, 0x07, 0x08, 0x09, 0x32];
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
/// Status A: the registers are about to change.
const UPDATING: u8 = 1 << 7;
/// Status B: the registers do not change, because they are being set.
const SETTING: u8 = 1 << 7;
/// Status B: numbers are binary, not decimal digits of four bits.
const BINARY: u8 = 1 << 2;
/// Status B: hours are from 0 to 23, not from 1 to 12 with bit 7 for the afternoon.
const HOURS_24: u8 = 1 << 1;
const AFTERNOON: u8 = 1 << 7;

/// How many times to read whether the clock is updating: an update takes at most 2 ms, and a read of a port at least 100 ns.
const MOST_WAITS: u32 = 100_000;
/// How many times to read the time until two reads agree.
const MOST_READS: u32 = 10;

/// What the clock itself does not store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Minutes from UTC, or [`Time::UNSPECIFIED_TIMEZONE`].
    pub minutes: i16,
    /// Whether daylight saving time matters, and is in effect.
    pub daylight: Daylight,
}

impl Zone {
    /// Nothing was set.
    pub const UNSPECIFIED: Self = Self { minutes: Time::UNSPECIFIED_TIMEZONE, daylight: Daylight::empty() };
}

/// Reads the time.
///
/// # Errors
/// `DEVICE_ERROR` if the clock has no valid time, or changes at every read.
pub fn time(ports: &mut impl Ports, zone: Zone) -> Result<Time, Status> {
    let mut last = None;
    for _ in 0..MOST_READS {
        wait(ports)?;
        let mode = read(ports, STATUS_B);
        let registers = REGISTERS.map(|register| read(ports, register));
        if last == Some((mode, registers)) {
            return decode(mode, registers, zone).filter(is_valid).ok_or(Status::DEVICE_ERROR);
        }
        last = Some((mode, registers));
    }
    Err(Status::DEVICE_ERROR)
}

/// Sets the clock. Returns the zone, to be kept.
///
/// # Errors
/// `INVALID_PARAMETER` for a time that does not exist or that the clock cannot store; `DEVICE_ERROR` if the clock never stops
/// updating.
pub fn set_time(ports: &mut impl Ports, time: &Time) -> Result<Zone, Status> {
    if !is_valid(time) || !(Daylight::ADJUST_DAYLIGHT | Daylight::IN_DAYLIGHT).contains(time.daylight) {
        return Err(Status::INVALID_PARAMETER);
    }
    wait(ports)?;
    let mode = read(ports, STATUS_B);
    write(ports, STATUS_B, mode | SETTING);
    let values = encode(mode, time);
    for (register, value) in REGISTERS.into_iter().zip(values) {
        write(ports, register, value);
    }
    write(ports, STATUS_B, mode & !SETTING);
    Ok(Zone { minutes: time.time_zone, daylight: time.daylight })
}

fn read(ports: &mut impl Ports, register: u8) -> u8 {
    ports.out8(INDEX, register);
    ports.in8(DATA)
}

fn write(ports: &mut impl Ports, register: u8, value: u8) {
    ports.out8(INDEX, register);
    ports.out8(DATA, value);
}

fn wait(ports: &mut impl Ports) -> Result<(), Status> {
    for _ in 0..MOST_WAITS {
        if read(ports, STATUS_A) & UPDATING == 0 {
            return Ok(());
        }
    }
    Err(Status::DEVICE_ERROR)
}

fn decode(mode: u8, registers: [u8; 7], zone: Zone) -> Option<Time> {
    let number = |byte: u8| match mode & BINARY {
        0 => from_digits(byte),
        _ => Some(byte),
    };
    let [second, minute, hour, day, month, year, century] = registers;
    let hour = match mode & HOURS_24 {
        0 => {
            let twelve = number(hour & !AFTERNOON)?;
            let half = if hour & AFTERNOON == 0 { 0 } else { 12 };
            // 1 to 12, where 12 comes before 1.
            if twelve == 0 || twelve > 12 {
                return None;
            }
            (twelve % 12).checked_add(half)?
        }
        _ => number(hour)?,
    };
    // The century has the format of the other registers, decimal digits or binary.
    let year = u16::from(number(century)?).checked_mul(100)?.checked_add(number(year)?.into())?;
    Some(Time {
        year,
        month: number(month)?,
        day: number(day)?,
        hour,
        minute: number(minute)?,
        second: number(second)?,
        time_zone: zone.minutes,
        daylight: zone.daylight,
        ..Time::invalid()
    })
}

fn encode(mode: u8, time: &Time) -> [u8; 7] {
    let number = |value: u8| if mode & BINARY == 0 { to_digits(value) } else { value };
    let hour = match mode & HOURS_24 {
        0 => {
            let twelve = match time.hour % 12 {
                0 => 12,
                hour => hour,
            };
            let half = if time.hour < 12 { 0 } else { AFTERNOON };
            number(twelve) | half
        }
        _ => number(time.hour),
    };
    let (century, year) = ((time.year / 100) as u8, (time.year % 100) as u8);
    let [second, minute, day, month] = [time.second, time.minute, time.day, time.month].map(number);
    [second, minute, hour, day, month, number(year), number(century)]
}

/// The number of two decimal digits of four bits.
fn from_digits(byte: u8) -> Option<u8> {
    let (tens, ones) = (byte >> 4, byte & 0xf);
    if tens > 9 || ones > 9 { None } else { tens.checked_mul(10)?.checked_add(ones) }
}

/// The two decimal digits of a number below 100.
const fn to_digits(number: u8) -> u8 {
    ((number / 10) << 4) | (number % 10)
}

fn is_valid(time: &Time) -> bool {
    let year = time.year;
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match time.month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 31,
    };
    time.is_valid() && time.day <= days
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;

    /// A clock behind its two ports.
    #[derive(Clone)]
    struct Clock {
        registers: [u8; 128],
        index: u8,
        /// How many reads of status A return "updating".
        updates: u32,
        /// How many reads of the seconds return another second.
        ticks: u32,
        /// What was written while the clock could update.
        torn: bool,
    }

    impl Clock {
        fn new(mode: u8, registers: [u8; 7]) -> Self {
            let mut this = Self { registers: [0; 128], index: 0, updates: 0, ticks: 0, torn: false };
            this.registers[usize::from(STATUS_B)] = mode;
            REGISTERS.into_iter().zip(registers).for_each(|(at, value)| this.registers[usize::from(at)] = value);
            this
        }
    }

    impl Ports for Clock {
        fn in8(&mut self, port: u16) -> u8 {
            assert_eq!(port, DATA);
            match self.index {
                STATUS_A if self.updates > 0 => {
                    self.updates -= 1;
                    UPDATING
                }
                0 if self.ticks > 0 => {
                    self.ticks -= 1;
                    self.ticks as u8 & 0x7
                }
                index => self.registers[usize::from(index)],
            }
        }
        fn out8(&mut self, port: u16, value: u8) {
            match port {
                INDEX => {
                    assert_eq!(value & 0x80, 0, "NMIs stay as they are");
                    self.index = value;
                }
                _ => {
                    let is_set = self.registers[usize::from(STATUS_B)] & SETTING != 0;
                    self.torn |= REGISTERS.contains(&self.index) && !is_set;
                    self.registers[usize::from(self.index)] = value;
                }
            }
        }
        fn in16(&mut self, _: u16) -> u16 {
            unreachable!()
        }
        fn in32(&mut self, _: u16) -> u32 {
            unreachable!()
        }
        fn out16(&mut self, _: u16, _: u16) {
            unreachable!()
        }
        fn out32(&mut self, _: u16, _: u32) {
            unreachable!()
        }
    }

    fn at(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8) -> Time {
        let zone = Zone::UNSPECIFIED;
        let (time_zone, daylight) = (zone.minutes, zone.daylight);
        Time { year, month, day, hour, minute, second, time_zone, daylight, ..Time::invalid() }
    }

    const AS_QEMU: u8 = HOURS_24;

    #[test]
    fn the_time_is_read_in_each_format_of_the_clock() {
        let cases = [
            (HOURS_24, [0x59, 0x30, 0x23, 0x29, 0x11, 0x26, 0x20]),
            (HOURS_24 | BINARY, [59, 30, 23, 29, 11, 26, 20]),
            (0, [0x59, 0x30, 0x91, 0x29, 0x11, 0x26, 0x20]),
            (BINARY, [59, 30, 0x80 | 11, 29, 11, 26, 20]),
        ];
        for (mode, registers) in cases {
            let time = time(&mut Clock::new(mode, registers), Zone::UNSPECIFIED);
            assert_eq!(time, Ok(at(2026, 11, 29, 23, 30, 59)), "{mode:#x}");
        }
        for (hour, expected) in [(0x12, 0), (0x01, 1), (0x92, 12), (0x81, 13)] {
            let mut clock = Clock::new(0, [0, 0, hour, 1, 1, 0, 0x20]);
            assert_eq!(time(&mut clock, Zone::UNSPECIFIED).map(|time| time.hour), Ok(expected), "{hour:#x}");
        }
    }

    #[test]
    fn a_time_that_changes_while_it_is_read_is_read_again() {
        let mut clock = Clock::new(AS_QEMU, [0x59, 0x30, 0x23, 0x29, 0x11, 0x26, 0x20]);
        (clock.updates, clock.ticks) = (500, 3);
        assert_eq!(time(&mut clock, Zone::UNSPECIFIED), Ok(at(2026, 11, 29, 23, 30, 59)));
    }

    #[test]
    fn a_clock_that_always_updates_or_has_no_valid_time_is_an_error() {
        let registers = [0, 0, 0, 1, 1, 0, 0x20];
        let mut clock = Clock::new(AS_QEMU, registers);
        clock.updates = u32::MAX;
        assert_eq!(time(&mut clock.clone(), Zone::UNSPECIFIED), Err(Status::DEVICE_ERROR));
        assert_eq!(set_time(&mut clock, &at(2026, 1, 1, 0, 0, 0)), Err(Status::DEVICE_ERROR));
        let mut clock = Clock::new(AS_QEMU, registers);
        clock.ticks = u32::MAX;
        assert_eq!(time(&mut clock, Zone::UNSPECIFIED), Err(Status::DEVICE_ERROR));
        // No clock, an invalid digit, 30 February, hour 0 in 12-hour format.
        for (mode, registers) in [
            (0xff, [0xff; 7]),
            (0, [0; 7]),
            (AS_QEMU, [0x5a, 0, 0, 1, 1, 0, 0x20]),
            (AS_QEMU, [0, 0, 0, 0x30, 2, 0, 0x20]),
            (0, [0, 0, 0, 1, 1, 0, 0x20]),
        ] {
            let time = time(&mut Clock::new(mode, registers), Zone::UNSPECIFIED);
            assert_eq!(time, Err(Status::DEVICE_ERROR), "{registers:x?}");
        }
    }

    #[test]
    fn a_time_that_does_not_exist_is_not_set() {
        let good = at(2024, 2, 29, 23, 59, 59);
        let cases = [
            Time { year: 1899, ..good },
            Time { year: 10_000, ..good },
            Time { year: 2023, ..good },
            Time { year: 2100, ..good },
            Time { month: 0, ..good },
            Time { month: 13, ..good },
            Time { day: 0, ..good },
            Time { day: 30, ..good },
            Time { month: 4, day: 31, ..good },
            Time { hour: 24, ..good },
            Time { minute: 60, ..good },
            Time { second: 60, ..good },
            Time { nanosecond: 1_000_000_000, ..good },
            Time { time_zone: 1441, ..good },
            Time { daylight: Daylight::from_bits_retain(4), ..good },
        ];
        let mut clock = Clock::new(AS_QEMU, [0; 7]);
        for time in cases {
            assert_eq!(set_time(&mut clock, &time), Err(Status::INVALID_PARAMETER), "{time:?}");
        }
        assert!(set_time(&mut clock, &good).is_ok());
        assert!(set_time(&mut clock, &Time { year: 2000, ..good }).is_ok());
    }

    proptest! {
        #[test]
        fn a_time_that_is_set_is_read_back_in_each_form(
            mode in 0..4_u8, year in 1900..=9999_u16, month in 1..=12_u8, day in 1..=28_u8, hour in 0..24_u8,
            minute in 0..60_u8, second in 0..60_u8, zone in -1440..=1440_i16,
        ) {
            let mut clock = Clock::new(mode << 1, [0; 7]);
            let set = Time { time_zone: zone, ..at(year, month, day, hour, minute, second) };
            let kept = set_time(&mut clock, &set).unwrap();
            prop_assert!(!clock.torn);
            prop_assert_eq!(time(&mut clock, kept), Ok(set));
        }
    }
}
