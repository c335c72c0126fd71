//! The apertures of the host bridges: the I/O ports and the memory that PCI functions can have.

use core::fmt;
use core::ops::Range;

use arrayvec::ArrayVec;

use crate::addr::{PhysAddr, PhysRange};

/// A range of I/O ports, `start` to `end` exclusive, within the 65,536 that exist. It may be empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortRange {
    start: u32,
    end: u32,
}

impl PortRange {
    /// No ports.
    pub const NONE: Self = Self { start: 0, end: 0 };

    /// All ports.
    pub const ALL: Self = Self { start: 0, end: 1 << 16 };

    /// The ports from `start` to `end` exclusive, or `None` if `end` is below `start` or above 65,536.
    ///
    /// ```
    /// use firstlight::pci::PortRange;
    /// assert!(PortRange::new(0x1000, 0x1_0000).is_some());
    /// assert!(PortRange::new(0x1000, 0x1_0001).is_none());
    /// assert!(PortRange::new(0x1000, 0xfff).is_none());
    /// ```
    #[must_use]
    pub const fn new(start: u32, end: u32) -> Option<Self> {
        if start <= end && end <= 1 << 16 { Some(Self { start, end }) } else { None }
    }

    /// `size` ports from `start` on, or `None` if they reach beyond 65,536.
    pub(super) fn of_size(start: u64, size: u64) -> Option<Self> {
        let end = start.checked_add(size)?;
        Self::new(u32::try_from(start).ok()?, u32::try_from(end).ok()?)
    }

    /// The first port.
    #[must_use]
    pub const fn start(self) -> u32 {
        self.start
    }

    /// One past the last port.
    #[must_use]
    pub const fn end(self) -> u32 {
        self.end
    }

    /// The last port, if there is one.
    pub(super) const fn last(self) -> u32 {
        self.end.saturating_sub(1)
    }

    /// The ports that can be assigned.
    fn usable(self) -> Self {
        Self::new(self.start.max(FIRST_PORT), self.end).unwrap_or_default()
    }

    /// Whether the range has no ports.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

impl fmt::Display for PortRange {
    /// Inclusive bounds: `0x1000-0xffff`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() { f.write_str("none") } else { write!(f, "{:#x}-{:#x}", self.start, self.last()) }
    }
}

/// The first port that is assigned. Lower ports belong to the mainboard, and a bridge forwards blocks of 4 KiB.
const FIRST_PORT: u32 = 0x1000;

/// The most ranges above 4 GiB.
const MOST_HIGH: usize = 4;

/// The apertures that are tried first: ports, and memory below 4 GiB. They suffice on most machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LowApertures {
    io: PortRange,
    memory: PhysRange,
}

impl LowApertures {
    /// The usable part of what a host offers: ports from 0x1000 on, and memory from 1 MiB to 4 GiB.
    #[must_use]
    pub fn new(io: PortRange, memory: PhysRange) -> Self {
        Self { io: io.usable(), memory: reach(1 << 20..1 << 32).intersection(memory).unwrap_or_default() }
    }

    /// The ports; may be empty.
    #[must_use]
    pub const fn io(&self) -> PortRange {
        self.io
    }

    /// The memory below 4 GiB; may be empty.
    #[must_use]
    pub const fn memory(&self) -> PhysRange {
        self.memory
    }
}

/// The addresses within these bounds; empty if the end is below the start.
fn reach(bounds: Range<u64>) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(bounds.start), PhysAddr::new(bounds.end)).unwrap_or_default()
}

/// All apertures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Apertures {
    low: LowApertures,
    more_io: PortRange,
    high: ArrayVec<PhysRange, MOST_HIGH>,
}

impl Apertures {
    /// The apertures that a host offers: the low ones, and those of `high`, from 4 GiB up to the limit of `physical_bits` address
    /// bits.
    ///
    /// `high` is in order of preference, and only one of its ranges will be used. So a range that is not larger than all before
    /// it is left out. Of more than four, the largest replaces the last.
    ///
    /// ```
    /// use firstlight::addr::{PhysAddr, PhysRange};
    /// use firstlight::pci::{LowApertures, PortRange, Apertures};
    /// let low = PhysRange::new(PhysAddr::new(0xc000_0000), 0x3ec0_0000).unwrap();
    /// let high = PhysRange::new(PhysAddr::new(32 << 30), 64 << 30).unwrap();
    /// let windows = Apertures::new(LowApertures::new(PortRange::ALL, low), Some(high), 36);
    /// assert_eq!(windows.high()[0].end(), PhysAddr::new(64 << 30));
    /// ```
    #[must_use]
    pub fn new(low: LowApertures, high: impl IntoIterator<Item = PhysRange>, physical_bits: u8) -> Self {
        let top = 1u64.checked_shl(physical_bits.into()).unwrap_or(u64::MAX);
        let mut kept = ArrayVec::<PhysRange, MOST_HIGH>::new();
        for room in high.into_iter().filter_map(|room| room.intersection(reach(1 << 32..top))) {
            if kept.last().is_none_or(|largest| largest.len() < room.len()) {
                if kept.is_full() {
                    kept.pop();
                }
                kept.push(room);
            }
        }
        Self { low, more_io: PortRange::default(), high: kept }
    }

    /// Adds alternative ports. They are used if the first ones do not suffice and these are more.
    #[must_use]
    pub fn or_ports(self, more_io: PortRange) -> Self {
        Self { more_io: more_io.usable(), ..self }
    }

    /// The apertures that are tried first.
    #[must_use]
    pub const fn low(&self) -> LowApertures {
        self.low
    }

    /// The ports that are used if the first do not suffice; may be empty.
    #[must_use]
    pub const fn more_io(&self) -> PortRange {
        self.more_io
    }

    /// The ranges above 4 GiB, of which one is used. Each is larger than the previous one.
    #[must_use]
    pub fn high(&self) -> &[PhysRange] {
        &self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> PhysRange {
        PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
    }

    #[test]
    fn no_aperture_reaches_beyond_the_physical_address_bits() {
        let low = range(0xc000_0000, 0xfec0_0000);
        let high = range(1 << 35, 1 << 41);
        for bits in [0, 32, 35] {
            assert_eq!(
                Apertures::new(LowApertures::new(PortRange::ALL, low), Some(high), bits).high(),
                [],
                "{bits} bits"
            );
        }
        for (bits, end) in [(36, 1 << 36), (40, 1 << 40), (52, 1 << 41), (64, 1 << 41), (200, 1 << 41)] {
            let windows = Apertures::new(LowApertures::new(PortRange::ALL, low), Some(high), bits);
            assert_eq!(windows.high(), [range(1 << 35, end)], "{bits} bits");
        }
    }

    #[test]
    fn each_aperture_is_cut_to_its_own_range() {
        let windows = Apertures::new(LowApertures::new(PortRange::ALL, range(0, 1 << 33)), Some(range(0, 1 << 33)), 36);
        assert_eq!(windows.low().io(), PortRange::new(0x1000, 0x1_0000).unwrap());
        assert_eq!(windows.low().memory(), range(1 << 20, 1 << 32));
        assert_eq!(windows.high(), [range(1 << 32, 1 << 33)]);
    }

    #[test]
    fn an_aperture_above_4_gib_is_kept_if_it_is_larger_than_those_before_it() {
        let gib = |start: u64, len: u64| range(start << 30, (start + len) << 30);
        let kept = |rooms: &[PhysRange], bits| {
            Apertures::new(LowApertures::new(PortRange::ALL, range(0, 0)), rooms.iter().copied(), bits).high().to_vec()
        };
        let rooms = [gib(0, 8), gib(10, 4), gib(20, 2), gib(30, 5)];
        assert_eq!(kept(&rooms, 52), [gib(4, 4), gib(30, 5)], "cut to the part above 4 GiB first");
        assert_eq!(kept(&rooms, 35), [gib(4, 4)], "and to the address bits");
        // The first ones, and the largest.
        let many: [_; 8] = core::array::from_fn(|i| gib(10 << i, i as u64 + 1));
        assert_eq!(kept(&many, 52), [many[0], many[1], many[2], many[7]]);
    }

    #[test]
    fn an_aperture_without_usable_addresses_is_empty() {
        let windows = Apertures::new(LowApertures::new(PortRange::new(0, 0x800).unwrap(), range(0, 0x1000)), None, 36);
        assert!(windows.low().io().is_empty() && windows.low().memory().is_empty() && windows.high().is_empty());
    }
}
