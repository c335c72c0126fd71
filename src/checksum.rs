//! The checksum of ACPI and SMBIOS tables: all bytes of a table add up to zero, modulo 256.

use zerocopy::little_endian::U64;

/// The sum of `bytes`, modulo 256.
///
/// A machine's tables have about 10 KiB, and every boot sums each byte, so this adds 64 bytes at a time if possible.
///
/// ```
/// assert_eq!(firstlight::checksum::sum(&[0x80, 0x7f, 2]), 1);
/// ```
#[must_use]
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

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::sum;

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
