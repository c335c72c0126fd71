//! `EFI_RNG_PROTOCOL` over the CPU's generator (UEFI 37.5).
//!
//! An algorithm is a promise about the numbers. RDRAND is a generator that the CPU seeds, and RDSEED is what it is seeded with
//! (Intel SDM volume 1, 7.3.17). So `RAW` is there with RDSEED only. RDRAND has the name that EDK II gives it.
//!
//! Assumed: the CPU has RDRAND; without it there is no protocol. Left out: other sources, such as virtio-rng and a TPM.

use arrayvec::ArrayVec;
use uefi_raw::protocol::rng::RngAlgorithmType;
use uefi_raw::{Guid, Status};

use super::{BufferError, check_room};
use crate::hal::Cpu;

/// What RDRAND is: a generator by NIST SP 800-90A (edk2 `SecurityPkg/RandomNumberGenerator/RngDxe`).
const RDRAND: Guid = RngAlgorithmType::ALGORITHM_SP800_90_CTR_256.0;
/// What RDSEED is.
const RDSEED: Guid = RngAlgorithmType::ALGORITHM_RAW.0;
/// The bytes of a GUID.
const GUID_LEN: usize = 16;

/// As many times RDRAND is asked (Intel SDM volume 1, 7.3.17.1). RDSEED may have nothing for longer.
const TRIES: u32 = 10;
const SEED_TRIES: u32 = 1000;

/// CPUID's leaf of further features, and RDSEED in its EBX (Intel SDM volume 2, CPUID, leaf 07H).
const FEATURES_LEAF: u32 = 7;
const HAS_RDSEED: u32 = 1 << 18;

/// An instruction of the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// RDRAND.
    Rdrand,
    /// RDSEED.
    Rdseed,
}

/// The generators of this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random {
    has_seed: bool,
}

impl Random {
    /// Those of a CPU with RDRAND, and with RDSEED if `has_seed`.
    const fn new(has_seed: bool) -> Self {
        Self { has_seed }
    }

    /// Those of this CPU, which has RDRAND. This executes CPUID twice, so it is for calls of the protocol only.
    pub fn of_cpu(cpu: &mut impl Cpu) -> Self {
        let has_leaf = cpu.cpuid(0, 0).eax >= FEATURES_LEAF;
        Self::new(has_leaf && cpu.cpuid(FEATURES_LEAF, 0).ebx & HAS_RDSEED != 0)
    }

    /// `GetInfo`: the GUIDs of the algorithms, the default first, if they have room in `room` bytes.
    ///
    /// # Errors
    /// [`BufferError::TooSmall`].
    pub fn info(self, room: u64) -> Result<ArrayVec<u8, { 2 * GUID_LEN }>, BufferError> {
        let mut list = ArrayVec::new();
        for guid in [Some(RDRAND), Some(RDSEED).filter(|_| self.has_seed)].into_iter().flatten() {
            // There is room for both.
            let _ = list.try_extend_from_slice(&guid.to_bytes());
        }
        check_room(list.len() as u64, room)?;
        Ok(list)
    }

    /// `GetRNG`: fills `into` by an algorithm, or by the default. `next` is one number of a generator, or `None` if it has none at
    /// the moment.
    ///
    /// # Errors
    /// `UNSUPPORTED` for another algorithm, `INVALID_PARAMETER` for no bytes, `NOT_READY` if the generator has no numbers.
    pub fn get(
        self,
        algorithm: Option<Guid>,
        into: &mut [u8],
        next: &mut dyn FnMut(Generator) -> Option<u64>,
    ) -> Result<(), Status> {
        let (generator, tries) = match algorithm {
            None | Some(RDRAND) => (Generator::Rdrand, TRIES),
            Some(RDSEED) if self.has_seed => (Generator::Rdseed, SEED_TRIES),
            Some(_) => return Err(Status::UNSUPPORTED),
        };
        if into.is_empty() {
            return Err(Status::INVALID_PARAMETER);
        }
        for piece in into.chunks_mut(size_of::<u64>()) {
            let number = (0..tries).find_map(|_| next(generator)).ok_or(Status::NOT_READY)?;
            piece.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::fakes::machine::FakeMachine;
    use crate::hal::Cpuid;

    /// Gets `len` bytes by an algorithm. Each number is the count of numbers before it, in all of its bytes.
    fn get(random: Random, algorithm: Option<Guid>, len: usize) -> (Result<(), Status>, Vec<u8>, Vec<Generator>) {
        let (mut bytes, mut asked) = (std::vec![0xee; len], Vec::new());
        let result = random.get(algorithm, &mut bytes, &mut |generator| {
            asked.push(generator);
            Some(u64::from_le_bytes([asked.len() as u8; 8]))
        });
        (result, bytes, asked)
    }

    #[test]
    fn the_default_is_the_generator_that_every_cpu_with_one_has() {
        for random in [Random::new(false), Random::new(true)] {
            for algorithm in [None, Some(RDRAND)] {
                let expected = (Ok(()), std::vec![1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2], std::vec![Generator::Rdrand; 2]);
                assert_eq!(get(random, algorithm, 11), expected);
            }
        }
    }

    #[test]
    fn raw_numbers_are_those_of_rdseed_or_not_supported() {
        let expected = (Ok(()), std::vec![1; 8], std::vec![Generator::Rdseed]);
        assert_eq!(get(Random::new(true), Some(RDSEED), 8), expected);
        let none = (Err(Status::UNSUPPORTED), std::vec![0xee; 8], Vec::new());
        assert_eq!(get(Random::new(false), Some(RDSEED), 8), none);
        assert_eq!(get(Random::new(true), Some(RngAlgorithmType::ALGORITHM_X9_31_AES.0), 8), none);
    }

    #[test]
    fn raw_numbers_are_there_if_cpuid_says_so_in_a_leaf_that_the_cpu_has() {
        for (highest, features, has_seed) in
            [(7, 1 << 18, true), (0x16, u32::MAX, true), (7, !(1 << 18), false), (6, u32::MAX, false)]
        {
            let mut machine = FakeMachine::new();
            machine.cpuid.insert((0, 0), Cpuid { eax: highest, ..Cpuid::default() });
            machine.cpuid.insert((7, 0), Cpuid { ebx: features, ..Cpuid::default() });
            assert_eq!(Random::of_cpu(&mut machine), Random::new(has_seed), "{highest} {features:#x}");
        }
    }

    #[test]
    fn no_bytes_are_no_request() {
        assert_eq!(get(Random::new(true), None, 0).0, Err(Status::INVALID_PARAMETER));
        assert_eq!(get(Random::new(false), Some(RDSEED), 0).0, Err(Status::UNSUPPORTED));
    }

    #[test]
    fn algorithms_are_listed_with_the_default_first() {
        let both = [RDRAND.to_bytes(), RDSEED.to_bytes()].concat();
        for (has_seed, len) in [(false, 16), (true, 32)] {
            let random = Random::new(has_seed);
            for room in [0, len - 1] {
                assert_eq!(random.info(room), Err(BufferError::TooSmall { needed: len }));
            }
            assert_eq!(random.info(len).unwrap().as_slice(), &both[..len as usize]);
        }
    }

    #[test]
    fn a_generator_without_a_number_is_asked_again_and_not_for_ever() {
        let (mut bytes, mut count) = ([0; 8], 0);
        let result = Random::new(true).get(None, &mut bytes, &mut |_| {
            count += 1;
            (count == 10).then_some(7)
        });
        assert_eq!((result, bytes, count), (Ok(()), 7_u64.to_le_bytes(), 10));
        for (algorithm, tries) in [(None, 10), (Some(RDSEED), 1000)] {
            let mut count = 0;
            let result = Random::new(true).get(algorithm, &mut bytes, &mut |_| {
                count += 1;
                None
            });
            assert_eq!((result, count), (Err(Status::NOT_READY), tries));
        }
    }
}
