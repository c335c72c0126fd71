//! What the targets of devices share: registers that read as something else, and the memory of a controller of disks.

use arbitrary::Arbitrary;
use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::disk::Media;
use firstlight::fakes::machine::FakeMachine;

use crate::input::Input;

/// A register that reads as something else, from the `from`th read on.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub struct Override<R> {
    /// Which register, for the target to interpret.
    pub register: R,
    from: u8,
    mask: u32,
    value: u32,
}

impl<R> Override<R> {
    /// What the `reads`th read returns where `value` is in the register.
    pub fn apply(&self, reads: u32, value: u64) -> u64 {
        let mask = u64::from(if reads >= self.from.into() { self.mask } else { 0 });
        value & !mask | u64::from(self.value) & mask
    }
}

/// The registers of a controller, the memory of its driver, and that of the caller.
pub const BASE: u64 = 0xfe00_0000;
pub const ROOM: u64 = 0x100_0000;
pub const BUFFER: u64 = 0x200_0000;
/// The most bytes that are read at a time.
pub const MOST: u64 = 64 << 10;

/// The `len` bytes at `start`.
pub fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

/// What to read: the first block, and where to. It may be more than the medium has, or not a number of blocks.
pub fn reading(input: &mut Input<'_>, media: &Media) -> (u64, PhysRange) {
    let (first, offset, len): (u64, u16, u16) = (input.take(), input.take(), input.take());
    let len = match len >> 14 {
        3 => u64::from(len & 0x3fff),
        _ => (u64::from(len & 0x3fff) * u64::from(media.block_len.get())).min(MOST),
    };
    let first = if first >> 63 == 0 { first.checked_rem(media.blocks).unwrap_or(0) } else { first };
    (first, range(BUFFER + u64::from(offset & 0xfff), len))
}

/// Checks that only the driver's memory, of `room` bytes, and the caller's were written.
///
/// # Panics
/// If that does not hold.
pub fn check_stores(machine: &FakeMachine, room: u64) {
    // The fake machine's descriptor is in the firmware's own memory.
    let known = [range(ROOM, room), range(BUFFER, MOST + 4096), firstlight::layout::FIRMWARE_RAM];
    for store in machine.memory.stores() {
        let inside = |range: PhysRange| range.start().get() <= store.start && store.end <= range.end().get();
        assert!(known.into_iter().any(inside), "{store:x?} is written");
    }
}
