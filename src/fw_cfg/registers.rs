//! The device's registers, as the machine reaches them: behind ports, or in memory.
//!
//! What differs between the two is here and nowhere else: where the registers are, how wide they are, and their byte
//! order. A machine with [`crate::hal::Ports`] has them without more; another one is wrapped in [`super::Mapped`].

use super::Key;
use crate::addr::PhysRange;
use crate::hal::MemoryError;
use crate::hal::dma::Doorbell;

/// The device's registers.
pub trait Registers {
    /// Makes the item of `key` the one that is read next, from its start.
    fn select(&mut self, key: Key);

    /// Reads the selected item's next bytes.
    fn read_data(&mut self, into: &mut [u8]);

    /// Reads the selected item's next bytes straight to guest memory.
    ///
    /// # Errors
    /// [`MemoryError`] when the range is not one the firmware may write; nothing is read then.
    fn load_data(&mut self, to: PhysRange) -> Result<(), MemoryError>;

    /// The high half of the DMA address register as it reads, in the order of its bytes.
    fn read_dma_address_high(&mut self) -> [u8; 4];

    /// What starts a transfer by DMA.
    fn doorbell(&self) -> Doorbell;

    /// Moves on by `len` bytes in the selected item.
    fn skip_data(&mut self, len: u32) {
        let mut scratch = [0; 64];
        let mut left = len as usize;
        while left > 0 {
            let step = left.min(scratch.len());
            let (target, _) = scratch.split_at_mut(step);
            self.read_data(target);
            left = left.saturating_sub(step);
        }
    }
}
