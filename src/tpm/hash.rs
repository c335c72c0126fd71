//! The hash algorithms of PCR banks. All banks of a TPM are hashed in one pass.
//!
//! The functions of [`Hashes`] are not inlined: a copy for each thing that is measured would be 1.5 KiB of code in all.

use arrayvec::ArrayVec;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// An algorithm that the firmware computes. Identifiers and sizes are those of the TCG Algorithm Registry,
/// `TPM_ALG_ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// The number of algorithms.
pub const ALGORITHMS: usize = 4;
/// The longest digest in bytes.
pub const MAX_DIGEST: usize = 64;

impl Algorithm {
    /// The algorithm with a `TPM_ALG_ID`.
    #[must_use]
    pub const fn from_id(id: u16) -> Option<Self> {
        match id {
            0x0004 => Some(Self::Sha1),
            0x000b => Some(Self::Sha256),
            0x000c => Some(Self::Sha384),
            0x000d => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Its `TPM_ALG_ID`.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::Sha1 => 0x0004,
            Self::Sha256 => 0x000b,
            Self::Sha384 => 0x000c,
            Self::Sha512 => 0x000d,
        }
    }

    /// The length of a digest in bytes.
    #[must_use]
    pub const fn digest_len(self) -> u16 {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// A digest for the bank of one algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The bank's `TPM_ALG_ID`.
    pub id: u16,
    len: u16,
    bytes: [u8; MAX_DIGEST],
}

impl Digest {
    /// The digest of `algorithm`, which has its digest length.
    fn new(algorithm: Algorithm, digest: &[u8]) -> Self {
        let mut this = Self { id: algorithm.id(), len: algorithm.digest_len(), bytes: [0; MAX_DIGEST] };
        this.bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = *from);
        this
    }

    /// A digest for a bank that is not measured: `len` bytes with all bits set, for the algorithm `id`.
    #[must_use]
    pub const fn ones(id: u16, len: u16) -> Self {
        Self { id, len, bytes: [0xff; MAX_DIGEST] }
    }

    /// The digest itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.into()).unwrap_or(&self.bytes)
    }
}

/// One digest of the same bytes for each bank.
pub type Digests = ArrayVec<Digest, ALGORITHMS>;

/// A hash for each of several algorithms, over the same bytes.
pub struct Hashes(ArrayVec<Hash, ALGORITHMS>);

enum Hash {
    Sha1(Sha1),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hashes {
    /// Hashes of no bytes.
    #[must_use]
    #[inline(never)]
    pub fn new(algorithms: &ArrayVec<Algorithm, ALGORITHMS>) -> Self {
        let mut hashes = ArrayVec::new();
        for algorithm in algorithms {
            // There is room for every algorithm.
            let _ = hashes.try_push(match algorithm {
                Algorithm::Sha1 => Hash::Sha1(Sha1::new()),
                Algorithm::Sha256 => Hash::Sha256(Sha256::new()),
                Algorithm::Sha384 => Hash::Sha384(Sha384::new()),
                Algorithm::Sha512 => Hash::Sha512(Sha512::new()),
            });
        }
        Self(hashes)
    }

    /// Hashes `bytes` after the earlier ones.
    #[inline(never)]
    pub fn update(&mut self, bytes: &[u8]) {
        for hash in &mut self.0 {
            match hash {
                Hash::Sha1(hash) => hash.update(bytes),
                Hash::Sha256(hash) => hash.update(bytes),
                Hash::Sha384(hash) => hash.update(bytes),
                Hash::Sha512(hash) => hash.update(bytes),
            }
        }
    }

    /// The digests.
    #[must_use]
    #[inline(never)]
    pub fn finish(&self) -> Digests {
        let mut digests = Digests::new();
        for hash in &self.0 {
            // As above.
            let _ = digests.try_push(match hash {
                Hash::Sha1(hash) => Digest::new(Algorithm::Sha1, &hash.clone().finalize()),
                Hash::Sha256(hash) => Digest::new(Algorithm::Sha256, &hash.clone().finalize()),
                Hash::Sha384(hash) => Digest::new(Algorithm::Sha384, &hash.clone().finalize()),
                Hash::Sha512(hash) => Digest::new(Algorithm::Sha512, &hash.clone().finalize()),
            });
        }
        digests
    }
}
