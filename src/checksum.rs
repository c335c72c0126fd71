//! The one checksum that ACPI and SMBIOS use: all bytes of a table add up to zero, modulo 256.
#![forbid(unsafe_code)]

/// The sum of `bytes`, modulo 256.
///
/// The tables of a machine are some 10 KiB and every byte is summed on the way to the kernel, so this adds eight bytes
/// at a time where it can.
///
/// ```
/// assert_eq!(firstlight::checksum::sum(&[0x80, 0x7f, 2]), 1);
/// ```
#[must_use]
pub fn sum(bytes: &[u8]) -> u8 {
    /// Every other byte of a word: four 16-bit lanes with room for carries.
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    /// A word adds at most 255 to a lane; 257 words stay below 2^16.
    const WORDS: usize = 257;

    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum = rest.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    for group in words.chunks(WORDS) {
        let (mut all, mut even) = (0_u64, 0_u64);
        for word in group {
            let word = u64::from_le_bytes(*word);
            all = all.wrapping_add(word);
            even = even.wrapping_add(word & EVEN);
        }
        // What the even bytes did not add came from the odd ones, 256 times as much.
        let odd = all.wrapping_sub(even) >> 8;
        // Modulo 256 only the low byte of each lane counts.
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
        for len in [0, 1, 7, 8, 9, 2055, 2056, 2057, 8192] {
            let expected = (len as u64 * 0xff) as u8;
            assert_eq!(sum(&vec![0xff; len]), expected, "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn equals_the_plain_sum(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
            prop_assert_eq!(sum(&bytes), bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)));
        }
    }
}
