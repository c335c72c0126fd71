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
    /// A word adds at most 2 * 255 to a lane; 128 words stay below 2^16.
    const WORDS: usize = 128;

    let (words, rest) = bytes.as_chunks::<8>();
    let mut sum = rest.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
    for group in words.chunks(WORDS) {
        let lanes = group.iter().fold(0_u64, |lanes, word| {
            let word = u64::from_le_bytes(*word);
            lanes.wrapping_add(word & EVEN).wrapping_add((word >> 8) & EVEN)
        });
        // Modulo 256 only the low byte of each lane counts.
        let [a, _, b, _, c, _, d, _] = lanes.to_le_bytes();
        sum = sum.wrapping_add(a).wrapping_add(b).wrapping_add(c).wrapping_add(d);
    }
    sum
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::prelude::*;

    use super::sum;

    #[test]
    fn no_lane_overflows() {
        for len in [0, 1, 7, 8, 9, 1023, 1024, 1025, 4096] {
            let expected = (len as u64 * 0xff) as u8;
            assert_eq!(sum(&vec![0xff; len]), expected, "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn equals_the_plain_sum(bytes: Vec<u8>) {
            prop_assert_eq!(sum(&bytes), bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)));
        }
    }
}
