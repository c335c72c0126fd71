//! The TPM commands that the firmware uses, as bytes, and the parser of responses. All numbers are big-endian.
//!
//! Sources: TCG TPM 2.0 Library, part 2 (structures and constants) and part 3 (commands).

use arrayvec::ArrayVec;

use super::bytes::Bytes;
use super::code::{Code, Refusal};
use super::error::Error;
use super::hash::{ALGORITHMS, Algorithm, Digest};

/// The length of the header of a command and of a response: tag, total size, command or response code.
pub const HEADER_LEN: usize = 10;
/// Room for a response. The longest lists [`MAX_BANKS`] PCR banks.
pub const MAX_RESPONSE: usize = 256;

/// `TPM_ST_NO_SESSIONS`, the tag of commands without an authorization.
const NO_SESSIONS: u16 = 0x8001;
/// `TPM_ST_SESSIONS`, the tag of commands with an authorization.
const SESSIONS: u16 = 0x8002;
/// `TPM_ST_RSP_COMMAND`, the tag of a response of a TPM 1.2. (QEMU sends it with the code 9 if swtpm is gone.)
const OLD_RESPONSE: u16 = 0x00c4;
/// `TPM_BAD_ORDINAL` and `TPM_BADTAG`: a TPM 1.2 refuses commands of TPM 2.0 with these (TPM Main 1.2, part 2, 16).
const OLD_REFUSALS: [u32; 2] = [0x0a, 0x1e];

/// An authorization with the empty password: the handle `TPM_RS_PW`, an empty nonce, `continueSession`, the password.
const AUTHORIZATION: [u8; 9] = [0x40, 0x00, 0x00, 0x09, 0, 0, 1, 0, 0];
/// `TPM_CAP_PCRS`.
const CAPABILITY_PCRS: u32 = 5;
/// The most banks that a TPM may list (part 2, `HASH_COUNT` of `TPML_PCR_SELECTION`).
const MAX_BANKS: usize = 16;
/// The most bytes of one bank's bit map of PCRs (part 2, `PCR_SELECT_MAX`; PC Client TPMs have 3).
const MAX_SELECT: u8 = 4;

/// `TPM_RH_OWNER`, the owner's hierarchy.
pub const OWNER: u32 = 0x4000_0001;
/// `TPM_RH_ENDORSEMENT`, the hierarchy of the TPM's identity.
pub const ENDORSEMENT: u32 = 0x4000_000b;
/// `TPM_RH_PLATFORM`, the firmware's hierarchy.
const PLATFORM: u32 = 0x4000_000c;

/// The length of the platform hierarchy's password in bytes. It is that of a SHA-1 digest, because a TPM does not
/// accept a password longer than its digests.
pub const PASSWORD_LEN: usize = 20;

/// The state with which a TPM starts, `TPM_SU`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Startup {
    /// None: PCRs are reset.
    Clear = 0,
    /// The state that was saved before the suspend.
    State = 1,
}

/// A command, ready to be sent.
#[derive(Clone, Debug)]
pub struct Command {
    code: Code,
    bytes: Bytes,
}

impl Command {
    /// Builds a command from the parts that follow its header. Fails if they exceed the buffer.
    fn new(tag: u16, code: Code, parts: &[&[u8]]) -> Result<Self, Error> {
        let len = parts.iter().fold(HEADER_LEN, |len, part| len.saturating_add(part.len())) as u32;
        let mut bytes = Bytes::default();
        bytes.put(&tag.to_be_bytes())?;
        bytes.put(&len.to_be_bytes())?;
        bytes.put(&(code as u32).to_be_bytes())?;
        for part in parts {
            bytes.put(part)?;
        }
        Ok(Self { code, bytes })
    }

    /// A command authorized by the empty password of the object `handle`.
    fn authorized(code: Code, handle: u32, parameters: &[u8]) -> Result<Self, Error> {
        let authorization_len = AUTHORIZATION.len() as u32;
        Self::new(
            SESSIONS,
            code,
            &[&handle.to_be_bytes(), &authorization_len.to_be_bytes(), &AUTHORIZATION, parameters],
        )
    }

    /// Starts the TPM.
    pub fn startup(kind: Startup) -> Result<Self, Error> {
        Self::new(NO_SESSIONS, Code::Startup, &[&(kind as u16).to_be_bytes()])
    }

    /// Tests what was not tested since the TPM's reset.
    pub fn self_test() -> Result<Self, Error> {
        Self::new(NO_SESSIONS, Code::SelfTest, &[&[0]])
    }

    /// Lists the PCR banks.
    pub fn list_banks() -> Result<Self, Error> {
        let [capability, first, count] = [CAPABILITY_PCRS, 0, MAX_BANKS as u32].map(u32::to_be_bytes);
        Self::new(NO_SESSIONS, Code::GetCapability, &[&capability, &first, &count])
    }

    /// Extends a PCR in the banks of `digests`.
    pub fn extend(pcr: u32, digests: &[Digest]) -> Result<Self, Error> {
        let mut list = Bytes::default();
        list.put(&(digests.len() as u32).to_be_bytes())?;
        for digest in digests {
            list.put(&digest.id.to_be_bytes())?;
            list.put(digest.bytes())?;
        }
        Self::authorized(Code::PcrExtend, pcr, &list)
    }

    /// Requests [`PASSWORD_LEN`] random bytes.
    pub fn random() -> Result<Self, Error> {
        Self::new(NO_SESSIONS, Code::GetRandom, &[&(PASSWORD_LEN as u16).to_be_bytes()])
    }

    /// Sets the password of the platform hierarchy, which is empty after a reset. `password` begins with its length in
    /// 16 bits, as in the response to [`Self::random`].
    pub fn set_platform_password(password: &[u8]) -> Result<Self, Error> {
        Self::authorized(Code::HierarchyChangeAuth, PLATFORM, password)
    }

    /// Disables a hierarchy until the TPM is reset.
    pub fn turn_off(hierarchy: u32) -> Result<Self, Error> {
        let [a, b, c, d] = hierarchy.to_be_bytes();
        Self::authorized(Code::HierarchyControl, PLATFORM, &[a, b, c, d, 0])
    }

    /// The bytes to send.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The parameters in the response to this command.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::OldFamily`], [`Error::Response`].
    pub fn parse<'r>(&self, response: &'r [u8]) -> Result<&'r [u8], Error> {
        let broken = Error::Response(self.code);
        let mut reader = Reader { bytes: response, broken };
        let (tag, size, code) = (reader.u16()?, reader.u32()?, reader.u32()?);
        if tag == OLD_RESPONSE && OLD_REFUSALS.contains(&code) {
            return Err(Error::OldFamily);
        }
        if usize::try_from(size) != Ok(response.len()) {
            return Err(broken);
        }
        if code != 0 {
            return Err(Error::Refused(Refusal::new(self.code, code)));
        }
        // The tag of a response is that of its command.
        if self.bytes.get(..2) != Some(&tag.to_be_bytes()) {
            return Err(broken);
        }
        Ok(reader.bytes)
    }
}

/// Reads numbers from the start of a response.
struct Reader<'r> {
    bytes: &'r [u8],
    broken: Error,
}

impl<'r> Reader<'r> {
    fn take<const N: usize>(&mut self) -> Result<&'r [u8; N], Error> {
        let (first, rest) = self.bytes.split_first_chunk().ok_or(self.broken)?;
        self.bytes = rest;
        Ok(first)
    }
    fn u8(&mut self) -> Result<u8, Error> {
        self.take::<1>().map(|&[byte]| byte)
    }
    fn u16(&mut self) -> Result<u16, Error> {
        self.take().copied().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Result<u32, Error> {
        self.take().copied().map(u32::from_be_bytes)
    }
    fn slice(&mut self, len: usize) -> Result<&'r [u8], Error> {
        let (first, rest) = self.bytes.split_at_checked(len).ok_or(self.broken)?;
        self.bytes = rest;
        Ok(first)
    }
    fn end(self) -> Result<(), Error> {
        if self.bytes.is_empty() { Ok(()) } else { Err(self.broken) }
    }
}

/// The active PCR banks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Banks {
    /// The banks with an algorithm that the firmware computes.
    pub known: ArrayVec<Algorithm, ALGORITHMS>,
    /// The `TPM_ALG_ID`s of the others.
    pub others: ArrayVec<u16, MAX_BANKS>,
}

impl Banks {
    /// Parses the banks in the parameters of the response to [`Command::list_banks`].
    ///
    /// # Errors
    /// [`Error::Response`].
    pub fn parse(parameters: &[u8]) -> Result<Self, Error> {
        let broken = Error::Response(Code::GetCapability);
        let mut reader = Reader { bytes: parameters, broken };
        let (more, capability, count) = (reader.u8()?, reader.u32()?, reader.u32()?);
        if more != 0 || capability != CAPABILITY_PCRS || !usize::try_from(count).is_ok_and(|count| count <= MAX_BANKS) {
            return Err(broken);
        }
        let mut banks = Self::default();
        for _ in 0..count {
            let (id, select_len) = (reader.u16()?, reader.u8()?);
            if select_len > MAX_SELECT {
                return Err(broken);
            }
            // A bank without a PCR is not active.
            if reader.slice(select_len.into())?.iter().all(|&byte| byte == 0) {
                continue;
            }
            let twice = match Algorithm::from_id(id) {
                Some(known) if !banks.known.contains(&known) => banks.known.try_push(known).is_err(),
                None if !banks.others.contains(&id) => banks.others.try_push(id).is_err(),
                _ => true,
            };
            if twice {
                return Err(broken);
            }
        }
        reader.end()?;
        Ok(banks)
    }
}

/// Checks the parameters of the response to [`Command::random`]: a length in 16 bits, and the requested number of
/// bytes.
///
/// # Errors
/// [`Error::Response`].
pub fn check_random(parameters: &[u8]) -> Result<(), Error> {
    let mut reader = Reader { bytes: parameters, broken: Error::Response(Code::GetRandom) };
    if usize::from(reader.u16()?) != PASSWORD_LEN || reader.bytes.len() != PASSWORD_LEN {
        return Err(reader.broken);
    }
    Ok(())
}
