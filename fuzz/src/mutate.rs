//! Makes inputs from seeds by a fixed rule: the same numbers make the same inputs on every machine.

/// A pseudo-random sequence of numbers (xorshift64*).
pub struct Sequence(u64);

impl Sequence {
    /// The sequence of this number, which is not zero.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `end`, zero where that is zero.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.number() % end as u64) as usize }
    }
}

/// Numbers that often reveal errors.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0x80,
    0xff,
    0x100,
    0x1000,
    0x7fff,
    0xffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX >> 1,
    u64::MAX - 0xfff,
    u64::MAX,
];

/// One of `seeds`, changed in one to eight ways.
///
/// # Panics
/// Without any seed.
#[must_use]
pub fn mutated(seeds: &[Vec<u8>], sequence: &mut Sequence) -> Vec<u8> {
    let mut bytes = seeds[sequence.below(seeds.len())].clone();
    for _ in 0..=sequence.below(8) {
        let at = sequence.below(bytes.len());
        match sequence.below(7) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << sequence.below(8)),
            1 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = sequence.number() as u8),
            2 => {
                let len = 1 << sequence.below(4);
                let mut number = NUMBERS[sequence.below(NUMBERS.len())].to_le_bytes();
                number[..len].rotate_left(sequence.below(2) * (len - 1));
                bytes.iter_mut().skip(at).zip(&number[..len]).for_each(|(to, from)| *to = *from);
            }
            3 => bytes.truncate(at),
            4 => {
                let end = at + sequence.below((bytes.len() - at).min(64));
                let part = bytes[at..end].to_vec();
                let to = sequence.below(bytes.len());
                bytes.splice(to..to, part);
            }
            5 => {
                let end = at + sequence.below((bytes.len() - at).min(64));
                bytes.drain(at..end);
            }
            _ => {
                let other = &seeds[sequence.below(seeds.len())];
                let from = sequence.below(other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
        }
    }
    bytes
}
