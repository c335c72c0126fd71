//! A clock, and the deadlines of waits.
//!
//! A PC's clock is the time stamp counter. CPUID returns its rate on some CPUs and on some hosts ([`time_stamp_rate`]).
//! Measuring the rate would take another clock and some milliseconds, so this is left out. CPUID is an exit to the
//! host. So the rate is read only after a wait has lasted for a while: a boot without waits does not read it.

use core::ops::RangeInclusive;

use super::Cpu;

/// A clock that only counts up.
pub trait Clock {
    /// The ticks since an unspecified start.
    fn ticks(&mut self) -> u64;

    /// Ticks per second, if the CPU or the host provides the rate. It does not change.
    fn rate(&mut self) -> Option<u64>;
}

/// The time when a wait gives up: [`Self::SECONDS`] after its start if the clock's rate is known, else [`Self::TICKS`].
///
/// Every device that the firmware waits for answers within microseconds, or never.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: u64,
}

impl Deadline {
    /// Seconds until the deadline passes.
    pub const SECONDS: u64 = 4;
    /// Ticks until the deadline passes if the clock's rate is unknown: 4 seconds at 4 GHz, 17 at 1 GHz.
    pub const TICKS: u64 = 1 << 34;
    /// The ticks before the rate is read, 4 ms at 4 GHz. Every deadline is longer.
    const PATIENCE: u64 = 1 << 24;

    /// A deadline that begins now.
    pub fn start(clock: &mut (impl Clock + ?Sized)) -> Self {
        Self { start: clock.ticks() }
    }

    /// Whether it has passed.
    pub fn has_passed(self, clock: &mut (impl Clock + ?Sized)) -> bool {
        let waited = clock.ticks().wrapping_sub(self.start);
        waited >= Self::PATIENCE && waited >= Self::limit(clock)
    }

    /// The length of the deadline in ticks.
    fn limit(clock: &mut (impl Clock + ?Sized)) -> u64 {
        clock.rate().map_or(Self::TICKS, |rate| rate.saturating_mul(Self::SECONDS))
    }
}

/// Pauses between two looks at what a program or a disk waits for, on a real CPU for one or two microseconds at most. QEMU's emulated CPU
/// lets other threads run at each pause, so with several of them a wait takes fewer instructions.
pub fn pause() {
    for _ in 0..32 {
        core::hint::spin_loop();
    }
}

/// Plausible rates in ticks per second: 100 MHz to 16 GHz.
const PLAUSIBLE: RangeInclusive<u64> = 100_000_000..=16_000_000_000;

/// CPUID leaves: the highest leaf; the hypervisor bit (ECX); the ratio of the time stamp counter to a crystal, and the
/// crystal's rate; the CPU's base frequency (Intel SDM volume 2, CPUID, table 3-8).
const HIGHEST: u32 = 0;
const FEATURES: u32 = 1;
const HYPERVISOR: u32 = 1 << 31;
const CRYSTAL: u32 = 0x15;
const BASE_FREQUENCY: u32 = 0x16;
/// A hypervisor's CPUID leaves: its highest leaf, and the rate of the time stamp counter in kHz (VMware's proposal of
/// 2008, <https://lwn.net/Articles/301888/>; QEMU `target/i386/kvm/kvm.c`, `vmware_cpuid_freq`).
const HYPERVISOR_HIGHEST: u32 = 0x4000_0000;
const HYPERVISOR_TIMING: u32 = 0x4000_0010;

/// Ticks of the time stamp counter per second: the first plausible rate in CPUID. The hypervisor's leaf comes first,
/// because a hypervisor can scale the counter.
pub fn time_stamp_rate(cpu: &mut impl Cpu) -> Option<u64> {
    let is_plausible = |rate: &u64| PLAUSIBLE.contains(rate);
    rate_by_hypervisor(cpu).filter(is_plausible).or_else(|| rate_by_crystal(cpu).filter(is_plausible))
}

fn rate_by_hypervisor(cpu: &mut impl Cpu) -> Option<u64> {
    let is_there = cpu.cpuid(FEATURES, 0).ecx & HYPERVISOR != 0;
    if !is_there || cpu.cpuid(HYPERVISOR_HIGHEST, 0).eax < HYPERVISOR_TIMING {
        return None;
    }
    let khz = cpu.cpuid(HYPERVISOR_TIMING, 0).eax;
    (khz != 0).then(|| u64::from(khz).saturating_mul(1000))
}

/// If the crystal's rate is missing, the base frequency replaces it, as in Linux (`arch/x86/kernel/tsc.c`,
/// `native_calibrate_tsc`).
fn rate_by_crystal(cpu: &mut impl Cpu) -> Option<u64> {
    let highest = cpu.cpuid(HIGHEST, 0).eax;
    if highest < CRYSTAL {
        return None;
    }
    let ratio = cpu.cpuid(CRYSTAL, 0);
    if ratio.ebx == 0 {
        return None;
    }
    if ratio.ecx != 0 {
        return u64::from(ratio.ecx).saturating_mul(ratio.ebx.into()).checked_div(ratio.eax.into());
    }
    let mhz = if highest < BASE_FREQUENCY { 0 } else { cpu.cpuid(BASE_FREQUENCY, 0).eax & 0xffff };
    (mhz != 0).then(|| u64::from(mhz).saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::machine::FakeMachine;
    use crate::hal::Cpuid;

    /// The ticks until a deadline passes at this rate, to the millisecond at 1 GHz.
    fn passes_after(rate: Option<u64>) -> u64 {
        let mut machine = FakeMachine::new();
        (machine.rate, machine.ticks_per_look) = (rate, 1_000_000);
        let start = machine.ticks();
        let deadline = Deadline::start(&mut machine);
        while !deadline.has_passed(&mut machine) {}
        machine.ticks() - start
    }

    #[test]
    fn a_deadline_passes_after_four_seconds_at_any_known_rate() {
        for rate in [100_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000] {
            let ticks = passes_after(Some(rate));
            assert!((4 * rate..4 * rate + 4_000_000).contains(&ticks), "{rate}: {ticks}");
        }
    }

    #[test]
    fn a_deadline_passes_after_a_number_of_ticks_at_an_unknown_rate() {
        let ticks = passes_after(None);
        assert!((Deadline::TICKS..Deadline::TICKS + 4_000_000).contains(&ticks), "{ticks}");
    }

    #[test]
    fn the_rate_is_not_read_at_the_start_of_a_wait() {
        let mut machine = FakeMachine::new();
        machine.ticks_per_look = Deadline::PATIENCE / 4;
        let deadline = Deadline::start(&mut machine);
        for asked in [0, 0, 0, 1, 2] {
            assert!(!deadline.has_passed(&mut machine));
            assert_eq!(machine.rate_looks, asked);
        }
    }

    #[test]
    fn the_rate_is_read_from_cpuid() {
        let rate = |leaves: &[(u32, [u32; 3])]| {
            let mut machine = FakeMachine::new();
            for &(leaf, [eax, ebx, ecx]) in leaves {
                machine.cpuid.insert((leaf, 0), Cpuid { eax, ebx, ecx, edx: 0 });
            }
            time_stamp_rate(&mut machine)
        };
        let highest = |leaf| (HIGHEST, [leaf, 0, 0]);
        let (crystal, unnamed_crystal) = ((CRYSTAL, [2, 216, 24_000_000]), (CRYSTAL, [2, 216, 0]));
        let base = (BASE_FREQUENCY, [2600, 4000, 100]);
        assert_eq!(rate(&[highest(0x16), crystal, base]), Some(2_592_000_000));
        assert_eq!(rate(&[highest(0x16), unnamed_crystal, base]), Some(2_600_000_000));
        // A leaf above the highest does not count, a ratio may be missing or zero, and a rate may be implausible.
        assert_eq!(rate(&[highest(0x15), unnamed_crystal, base]), None);
        assert_eq!(rate(&[highest(0x14), crystal, base]), None);
        assert_eq!(rate(&[highest(0x16), base]), None);
        assert_eq!(rate(&[highest(0x16), (CRYSTAL, [0, 216, 24_000_000])]), None);
        assert_eq!(rate(&[highest(0x16), (CRYSTAL, [1, 1, 1])]), None);
        assert_eq!(rate(&[highest(0x16), (CRYSTAL, [1, u32::MAX, u32::MAX])]), None);
        assert_eq!(rate(&[]), None);

        let hypervisor = (FEATURES, [0, 0, HYPERVISOR]);
        let timing = (HYPERVISOR_TIMING, [2_100_000, 0, 0]);
        let leaves = |highest| (HYPERVISOR_HIGHEST, [highest, 0, 0]);
        assert_eq!(rate(&[hypervisor, leaves(HYPERVISOR_TIMING), timing]), Some(2_100_000_000));
        assert_eq!(rate(&[hypervisor, leaves(HYPERVISOR_TIMING), timing, highest(0x15), crystal]), Some(2_100_000_000));
        assert_eq!(rate(&[hypervisor, leaves(0x4000_0001), timing]), None);
        assert_eq!(rate(&[hypervisor, leaves(0x4000_0001), timing, highest(0x15), crystal]), Some(2_592_000_000));
        assert_eq!(rate(&[leaves(HYPERVISOR_TIMING), timing]), None);
        // An implausible rate does not hide a plausible one.
        let implausible = (HYPERVISOR_TIMING, [1, 0, 0]);
        let both = [hypervisor, leaves(HYPERVISOR_TIMING), implausible, highest(0x15), crystal];
        assert_eq!(rate(&both), Some(2_592_000_000));
    }
}
