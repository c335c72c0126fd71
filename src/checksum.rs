//! Checksums: that of ACPI and SMBIOS tables, whose bytes add up to zero, modulo 256, and [`crc32`], that of EFI and GPT.

use zerocopy::little_endian::U64;

/// The sum of `bytes`, modulo 256.
///
/// A machine's tables have about 10 KiB, and every boot sums each byte, so this adds 64 bytes at a time if possible.
///
/// ```
/// assert_eq!(firstlight::checksum::sum(&[0x80, 0x7f, 2]), 1);
/// ```
#[must_use]
#[inline]
pub fn sum(bytes: &[u8]) -> u8 {
    /// Every second byte of a word: four 16-bit lanes with room for carries.
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    /// A word adds at most 255 to a lane; 32 times eight words stay below 2^16.
    const BLOCKS: usize = 32;

    let (blocks, rest) = bytes.as_chunks::<64>();
    let mut sum = rest.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    for group in blocks.chunks(BLOCKS) {
        let (mut all, mut even) = (0_u64, 0_u64);
        for block in group {
            let words: &[U64; 8] = zerocopy::transmute_ref!(block);
            for word in words {
                all = all.wrapping_add(word.get());
                even = even.wrapping_add(word.get() & EVEN);
            }
        }
        // The rest of the sum is that of the odd bytes, times 256.
        let odd = all.wrapping_sub(even) >> 8;
        // Modulo 256, only the low byte of each lane counts.
        for lanes in [even, odd] {
            let [a, _, b, _, c, _, d, _] = lanes.to_le_bytes();
            sum = sum.wrapping_add(a).wrapping_add(b).wrapping_add(c).wrapping_add(d);
        }
    }
    sum
}

/// The checksum of EFI tables, of `CalculateCrc32` and of GPT (UEFI 2.10, 4.2): that of Ethernet.
///
/// Not a crate's: those at hand keep addresses in their tables, which the image of the EFI runtime services cannot.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc32::default();
    crc.add(bytes);
    crc.value()
}

/// Four steps of the division by the polynomial, for each value of four bits.
#[rustfmt::skip]
const HALF_BYTES: [u32; 16] = [
    half_byte(0), half_byte(1), half_byte(2), half_byte(3), half_byte(4), half_byte(5), half_byte(6), half_byte(7),
    half_byte(8), half_byte(9), half_byte(10), half_byte(11), half_byte(12), half_byte(13), half_byte(14), half_byte(15),
];

const fn half_byte(value: u32) -> u32 {
    step(step(step(step(value))))
}

const fn step(rest: u32) -> u32 {
    rest >> 1 ^ if rest & 1 == 0 { 0 } else { POLYNOMIAL }
}

/// [`crc32`] of bytes in pieces.
#[derive(Clone, Copy, Debug)]
pub struct Crc32(u32);

impl Default for Crc32 {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc32 {
    /// Adds the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        let half = |crc: u32| crc >> 4 ^ HALF_BYTES.get((crc & 0xf) as usize).copied().unwrap_or_default();
        self.0 = bytes.iter().fold(self.0, |crc, byte| half(half(crc ^ u32::from(*byte))));
    }

    /// The checksum of the bytes until now.
    #[must_use]
    pub const fn value(self) -> u32 {
        !self.0
    }
}

/// The polynomial 0x04c11db7, the lowest bit first.
const POLYNOMIAL: u32 = 0xedb8_8320;

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::{crc32, sum};

    #[test]
    fn the_crc_is_that_of_the_specification() {
        // The check value of the catalogue of parametrised CRC algorithms, "CRC-32/ISO-HDLC".
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn no_lane_overflows() {
        for len in [0, 1, 31, 32, 33, 2047, 2048, 2049, 8192] {
            let expected = (len as u64 * 0xff) as u8;
            assert_eq!(sum(&vec![0xff; len]), expected, "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn the_result_equals_the_plain_sum(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
            prop_assert_eq!(sum(&bytes), bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)));
        }
    }
}
