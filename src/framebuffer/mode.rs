//! The framebuffer: its address, its size, and the layout of its pixels.

use crate::addr::PhysRange;
use crate::pci::Route;

/// A framebuffer that the display shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framebuffer {
    /// The video memory. The framebuffer is at its start.
    pub memory: PhysRange,
    /// The mode of the framebuffer.
    pub mode: Mode,
    /// The PCI function that shows it; `None` if the framebuffer is in RAM.
    pub function: Option<DisplayFunction>,
}

/// The PCI function of a display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisplayFunction {
    /// Where it is.
    pub route: Route,
    /// Its registers.
    pub registers: PhysRange,
}

/// Bytes per pixel.
const PIXEL_BYTES: u16 = 4;

/// A mode of `width` by `height` pixels of 32 bits, without gaps between lines. A pixel is XRGB8888: blue in the lowest
/// byte, then green and red; the highest byte is unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    width: u16,
    height: u16,
}

impl Mode {
    /// The mode of every display with enough memory, 3 MiB.
    pub const DEFAULT: Self = Self { width: 1024, height: 768 };
    /// The modes, the largest first. The others are for displays with 2 MiB and with 1 MiB of memory.
    const ALL: [Self; 3] = [Self::DEFAULT, Self { width: 800, height: 600 }, Self { width: 640, height: 400 }];

    /// Bits per pixel.
    pub const BITS_PER_PIXEL: u16 = PIXEL_BYTES * 8;

    /// The largest mode that fits into `memory` bytes.
    #[must_use]
    pub fn largest_in(memory: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| u64::from(mode.bytes()) <= memory)
    }

    /// Pixels in a line.
    #[must_use]
    pub const fn width(self) -> u16 {
        self.width
    }

    /// Lines.
    #[must_use]
    pub const fn height(self) -> u16 {
        self.height
    }

    /// Bytes from the start of a line to the start of the next.
    #[must_use]
    pub const fn line_bytes(self) -> u16 {
        self.width.wrapping_mul(PIXEL_BYTES)
    }

    /// Bytes from the start of the framebuffer to the pixel in column `x` of line `y`.
    #[must_use]
    pub const fn offset(self, x: u16, y: u16) -> u32 {
        (self.line_bytes() as u32).wrapping_mul(y as u32).wrapping_add((x as u32).wrapping_mul(PIXEL_BYTES as u32))
    }

    /// Bytes of the whole framebuffer.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        (self.line_bytes() as u32).wrapping_mul(self.height as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_mode_that_fits_is_chosen() {
        let size = |memory| Mode::largest_in(memory).map(|mode| (mode.width(), mode.height()));
        for memory in [4 << 20, 16 << 20, 512 << 20, u64::MAX] {
            assert_eq!(size(memory), Some((1024, 768)));
        }
        assert_eq!(size(2 << 20), Some((800, 600)));
        assert_eq!(size(1 << 20), Some((640, 400)));
        assert_eq!(size(3 << 20), Some((1024, 768)));
        assert_eq!(size((3 << 20) - 1), Some((800, 600)));
        assert_eq!(size(64 << 10), None);
        assert_eq!(size(0), None);
    }

    #[test]
    fn lines_follow_each_other_without_gaps() {
        assert_eq!((Mode::DEFAULT.line_bytes(), Mode::DEFAULT.bytes()), (4096, 3 << 20));
        for mode in Mode::ALL {
            assert_eq!(mode.bytes(), u32::from(mode.width()) * u32::from(mode.height()) * 4);
            assert_eq!((mode.offset(0, 0), mode.offset(3, 2)), (0, u32::from(mode.width()) * 8 + 12));
            assert_eq!(mode.offset(mode.width() - 1, mode.height() - 1), mode.bytes() - 4);
        }
    }
}
