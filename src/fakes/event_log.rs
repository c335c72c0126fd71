//! Parses an event log as a verifier does, and computes the PCR values by it.
//!
//! Only for tests, on the host and in QEMU: the firmware only writes logs. It is strict: a log that it does not accept
//! violates the PFP.

extern crate std;

use std::collections::BTreeMap;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use crate::tpm::hash::{Algorithm, Hashes};

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The PCR that was extended.
    pub pcr: u32,
    /// The type.
    pub kind: u32,
    /// The digests by their `TPM_ALG_ID`.
    pub digests: BTreeMap<u16, Vec<u8>>,
    /// The data.
    pub data: Vec<u8>,
}

/// A log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The `TPM_ALG_ID`s of the banks, and the lengths of their digests.
    pub algorithms: BTreeMap<u16, u16>,
    /// The events after the first one, which describes the log.
    pub events: Vec<Event>,
}

/// The digest of `bytes` by the algorithm with this `TPM_ALG_ID`.
///
/// # Panics
/// If the algorithm is unknown.
#[must_use]
pub fn digest(algorithm: u16, bytes: &[u8]) -> Vec<u8> {
    let algorithm = Algorithm::from_id(algorithm).expect("an algorithm that is known here");
    let mut hashes = Hashes::new(&[algorithm].into_iter().collect());
    hashes.update(bytes);
    hashes.finish()[0].bytes().to_vec()
}

/// A PCR's value after an extend (TPM 2.0 Library part 1, 17.2).
#[must_use]
pub fn extend(algorithm: u16, pcr: &[u8], by: &[u8]) -> Vec<u8> {
    digest(algorithm, &[pcr, by].concat())
}

impl Log {
    /// Parses a log that ends with its last event or with zeros.
    ///
    /// # Errors
    /// A description of the fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut reader = Reader(bytes);
        let first = (reader.u32()?, reader.u32()?, reader.take(20)?);
        if first != (0, 3, &[0; 20]) {
            return Err(format!("the first event is invalid: {first:?}"));
        }
        let len = reader.u32()? as usize;
        let mut header = Reader(reader.take(len)?);
        let fixed = header.take(24)?;
        if fixed != b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02" {
            return Err(format!("not a log for several banks: {fixed:?}"));
        }
        let mut algorithms = BTreeMap::new();
        for _ in 0..header.u32()? {
            algorithms.insert(header.u16()?, header.u16()?);
        }
        if header.0 != [0] {
            return Err(format!("vendor information: {:?}", header.0));
        }
        let mut events = Vec::new();
        while reader.0.iter().any(|&byte| byte != 0) {
            let (pcr, kind) = (reader.u32()?, reader.u32()?);
            let mut digests = BTreeMap::new();
            for _ in 0..reader.u32()? {
                let algorithm = reader.u16()?;
                let len = algorithms.get(&algorithm).ok_or(format!("algorithm {algorithm:#x} is not in the header"))?;
                digests.insert(algorithm, reader.take((*len).into())?.to_vec());
            }
            if !digests.keys().eq(algorithms.keys()) {
                return Err(format!("not a digest for each bank: {digests:?}"));
            }
            let len = reader.u32()? as usize;
            events.push(Event { pcr, kind, digests, data: reader.take(len)?.to_vec() });
        }
        Ok(Self { algorithms, events })
    }

    /// The value in the bank of this `TPM_ALG_ID` of each PCR that was extended.
    #[must_use]
    pub fn replay(&self, algorithm: u16) -> BTreeMap<u32, Vec<u8>> {
        let mut pcrs = BTreeMap::new();
        for event in &self.events {
            let by = &event.digests[&algorithm];
            let pcr = pcrs.entry(event.pcr).or_insert(vec![0; by.len()]);
            *pcr = extend(algorithm, pcr, by);
        }
        pcrs
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], String> {
        let missing = || format!("{len} bytes are wanted, {} are left", self.0.len());
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(missing)?;
        self.0 = rest;
        Ok(taken)
    }
    fn u16(&mut self) -> Result<u16, String> {
        self.take(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
    }
    fn u32(&mut self) -> Result<u32, String> {
        self.take(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}
