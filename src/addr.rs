//! Guest-physical addresses, alignments and ranges.
//!
//! Every address that the firmware uses for placement or passes to a device has one of these types. So an address
//! cannot be confused with a length, and arithmetic cannot wrap: every operation that could leave the 64-bit space
//! returns an [`Option`].
//!
//! Left out: virtual addresses. The firmware runs with an identity map of the low 4 GiB and does not need a type for
//! them.

use core::fmt;

/// The value of a constant that is checked at compile time. `None` is a compile error.
///
/// Only for constants: in code that runs it would panic.
pub(crate) const fn constant<T: Copy>(value: Option<T>) -> T {
    match value {
        Some(value) => value,
        #[allow(clippy::panic, reason = "evaluated by the compiler")]
        None => panic!("this constant is none of its type"),
    }
}

/// A constant range, from `start` to `end` exclusive.
pub(crate) const fn constant_range(start: u64, end: u64) -> PhysRange {
    constant(PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)))
}

/// A guest-physical byte address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PhysAddr(u64);

impl PhysAddr {
    /// The address `value` bytes above physical zero.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The address as a number of bytes above physical zero.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The address as 32 bits, or `None` if it is at or above 4 GiB.
    #[must_use]
    pub const fn get32(self) -> Option<u32> {
        if self.0 <= u32::MAX as u64 { Some(self.0 as u32) } else { None }
    }

    /// The address `len` bytes higher, or `None` if that wraps.
    ///
    /// ```
    /// use firstlight::addr::PhysAddr;
    /// assert_eq!(PhysAddr::new(0x1000).checked_add(0x10), Some(PhysAddr::new(0x1010)));
    /// assert_eq!(PhysAddr::new(u64::MAX).checked_add(1), None);
    /// ```
    #[must_use]
    pub const fn checked_add(self, len: u64) -> Option<Self> {
        match self.0.checked_add(len) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The address `len` bytes lower, or `None` if that wraps.
    #[must_use]
    pub fn checked_sub(self, len: u64) -> Option<Self> {
        self.0.checked_sub(len).map(Self)
    }

    /// The lowest aligned address at or above this one, or `None` if that wraps.
    ///
    /// ```
    /// use firstlight::addr::{Alignment, PhysAddr};
    /// assert_eq!(PhysAddr::new(0x1001).align_up(Alignment::PAGE), Some(PhysAddr::new(0x2000)));
    /// assert_eq!(PhysAddr::new(u64::MAX).align_up(Alignment::PAGE), None);
    /// ```
    #[must_use]
    pub fn align_up(self, alignment: Alignment) -> Option<Self> {
        self.0.checked_add(alignment.mask()).map(|value| Self(value & !alignment.mask()))
    }

    /// The highest aligned address at or below this one.
    #[must_use]
    pub const fn align_down(self, alignment: Alignment) -> Self {
        Self(self.0 & !alignment.mask())
    }

    /// Whether the address is a multiple of `alignment`.
    #[must_use]
    pub const fn is_aligned(self, alignment: Alignment) -> bool {
        self.0 & alignment.mask() == 0
    }
}

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A power of two in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Alignment(u64);

impl Alignment {
    /// Any byte address.
    pub const BYTE: Self = Self(1);
    /// 2 bytes: a 16-bit register.
    pub const WORD: Self = Self(2);
    /// 4 bytes: a 32-bit register.
    pub const DWORD: Self = Self(4);
    /// 8 bytes: a 64-bit register.
    pub const QWORD: Self = Self(8);
    /// 16 bytes: a paragraph, the step in which an OS scans for RSDP and SMBIOS entry points.
    pub const PARAGRAPH: Self = Self(16);
    /// 4 KiB: a page.
    pub const PAGE: Self = Self(4096);
    /// 2 MiB: a large page.
    pub const LARGE_PAGE: Self = Self(2 << 20);

    /// `bytes` as an alignment, or `None` if it is not a power of two.
    ///
    /// ```
    /// use firstlight::addr::Alignment;
    /// assert!(Alignment::new(64).is_some());
    /// assert!(Alignment::new(0).is_none());
    /// assert!(Alignment::new(24).is_none());
    /// ```
    #[must_use]
    pub const fn new(bytes: u64) -> Option<Self> {
        if bytes.is_power_of_two() { Some(Self(bytes)) } else { None }
    }

    /// The alignment in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    const fn mask(self) -> u64 {
        // A power of two is at least 1.
        self.0.wrapping_sub(1)
    }
}

/// A range of guest-physical bytes, `start` to `end` exclusive, that does not wrap. It may be empty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PhysRange {
    start: PhysAddr,
    end: PhysAddr,
}

impl PhysRange {
    /// The low 4 GiB, which the firmware's page tables map.
    pub const LOW_4_GIB: Self = Self { start: PhysAddr(0), end: PhysAddr(1 << 32) };
    /// The first mebibyte, which has a traditional layout on a PC.
    pub const LOW_1_MIB: Self = Self { start: PhysAddr(0), end: PhysAddr(1 << 20) };

    /// The `len` bytes from `start` on, or `None` if they wrap.
    ///
    /// ```
    /// use firstlight::addr::{PhysAddr, PhysRange};
    /// assert_eq!(PhysRange::new(PhysAddr::new(0x1000), 0x10).map(|r| r.end()), Some(PhysAddr::new(0x1010)));
    /// assert_eq!(PhysRange::new(PhysAddr::new(u64::MAX), 2), None);
    /// ```
    #[must_use]
    pub const fn new(start: PhysAddr, len: u64) -> Option<Self> {
        match start.checked_add(len) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// The bytes from `start` to `end` exclusive, or `None` if `end` is below `start`.
    #[must_use]
    pub const fn from_bounds(start: PhysAddr, end: PhysAddr) -> Option<Self> {
        if start.0 <= end.0 { Some(Self { start, end }) } else { None }
    }

    /// An empty range at `position`.
    #[must_use]
    pub const fn empty_at(position: PhysAddr) -> Self {
        Self { start: position, end: position }
    }

    /// The first byte.
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        self.start
    }

    /// One past the last byte.
    #[must_use]
    pub const fn end(self) -> PhysAddr {
        self.end
    }

    /// The length in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        // The constructors ensure `start <= end`.
        self.end.0.wrapping_sub(self.start.0)
    }

    /// Whether the range is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start.0 == self.end.0
    }

    /// Whether every byte of `other` is in this range. An empty `other` is contained if its position is.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.start.0 <= other.start.0 && other.end.0 <= self.end.0
    }

    /// Whether `address` is one of the bytes.
    #[must_use]
    pub const fn contains_addr(self, address: PhysAddr) -> bool {
        self.start.0 <= address.0 && address.0 < self.end.0
    }

    /// Whether the two share a byte.
    ///
    /// ```
    /// use firstlight::addr::{PhysAddr, PhysRange};
    /// let range = |start, len| PhysRange::new(PhysAddr::new(start), len).unwrap();
    /// assert!(range(0, 0x11).overlaps(range(0x10, 0x10)));
    /// assert!(!range(0, 0x10).overlaps(range(0x10, 0x10)));
    /// assert!(!range(0x18, 0).overlaps(range(0x10, 0x10)));
    /// ```
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.start.0 < other.end.0 && other.start.0 < self.end.0
    }

    /// The first `len` bytes, or all if there are fewer, and the rest.
    #[must_use]
    pub fn split_at(self, len: u64) -> (Self, Self) {
        let at = self.start.checked_add(len).unwrap_or(self.end).min(self.end);
        (Self { start: self.start, end: at }, Self { start: at, end: self.end })
    }

    /// The whole pages that contain the range. The last page is left out if it would wrap.
    #[must_use]
    pub fn pages(self) -> Self {
        let start = self.start.align_down(Alignment::PAGE);
        Self { start, end: self.end.align_up(Alignment::PAGE).unwrap_or(self.end) }
    }

    /// The bytes in both ranges, or `None` if there are none.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        if start < end { Some(Self { start, end }) } else { None }
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:#x}, {:#x})", self.start.0, self.end.0)
    }
}

impl fmt::Display for PhysRange {
    /// Inclusive bounds, as Linux prints them: `0x1000-0x1fff`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            write!(f, "{:#x} (empty)", self.start.0)
        } else {
            write!(f, "{:#x}-{:#x}", self.start.0, self.end.0.wrapping_sub(1))
        }
    }
}
