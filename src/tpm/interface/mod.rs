//! The TPM's registers, through which commands are sent and responses received.
//!
//! QEMU's two interfaces, [`fifo`] (`tpm-tis`) and [`crb`] (`tpm-crb`), are at the same address. The firmware uses
//! locality 0, which it shares with the operating system. Every wait has a deadline.
//!
//! Source: TCG PC Client Platform TPM Profile Specification (PTP) for TPM 2.0, 1.05, section 6; QEMU
//! `docs/specs/tpm.rst`.

mod crb;
mod fifo;
mod registers;

pub use self::registers::Host;
use self::registers::read32;
use super::command::HEADER_LEN;
use super::error::Error;
use crate::hal::Deadline;

/// `TPM_INTERFACE_ID`, 32 bits: the interface's type in bits 3:0 (PTP 6.4.2.4 and 6.5.2.7).
const INTERFACE_ID: u64 = 0x30;
/// The type of the command response buffer interface. The types 0 and 15 are the FIFO.
const TYPE_CRB: u32 = 1;
/// `TPM_DID_VID`, 32 bits. It is at different offsets in the two interfaces; this is the FIFO's (PTP, table 17). A FIFO
/// from before TPM 2.0 has all ones in [`INTERFACE_ID`], but not there.
const FIFO_VENDOR: u64 = 0xf00;

/// Whether there is a TPM, by one read, on a machine without any description of one. Without a device, the register
/// reads as zeros or as ones. With a TPM 2.0 it reads as neither, because it has the interface's version and
/// capabilities (PTP 6.4.2.4 and 6.5.2.7).
pub fn is_present(host: &mut dyn Host) -> bool {
    !matches!(read32(host, INTERFACE_ID), Ok(0 | u32::MAX) | Err(_))
}

/// The interface of the machine's TPM.
#[derive(Clone, Copy, Debug)]
pub enum Interface {
    /// Registers for commands and responses, byte by byte.
    Fifo,
    /// A buffer for commands and responses.
    Crb(crb::Buffer),
}

impl Interface {
    /// Finds the interface and requests locality 0.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Timeout`], [`Error::Buffer`].
    pub fn open(host: &mut dyn Host) -> Result<Self, Error> {
        match read32(host, INTERFACE_ID)? {
            u32::MAX if read32(host, FIFO_VENDOR)? == u32::MAX => Err(Error::NoDevice),
            type_and_more if type_and_more & 0xf == TYPE_CRB => crb::open(host).map(Self::Crb),
            _ => fifo::open(host).map(|()| Self::Fifo),
        }
    }

    /// Sends a command, waits for its response and returns it, in `buffer`. All waits together end at `deadline`, even
    /// if the TPM makes the firmware wait for each byte.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Failed`]; [`Error::TooLong`] if the command or the response does not fit the
    /// interface or `buffer`.
    pub fn transmit<'b>(
        self,
        host: &mut dyn Host,
        deadline: Deadline,
        command: &[u8],
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8], Error> {
        match self {
            Self::Fifo => fifo::send(host, deadline, command)?,
            Self::Crb(place) => place.send(host, deadline, command)?,
        }
        // The header first: it has the length of the response.
        let (header, _) = buffer.split_first_chunk_mut::<HEADER_LEN>().ok_or(Error::TooLong)?;
        self.receive(host, deadline, 0, header)?;
        let [_, _, size @ .., _, _, _, _] = *header;
        let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
        // The parser of the response detects a size that is too small.
        let response = buffer.get_mut(..size.max(HEADER_LEN)).ok_or(Error::TooLong)?;
        self.receive(host, deadline, HEADER_LEN, response.get_mut(HEADER_LEN..).unwrap_or_default())?;
        match self {
            Self::Fifo => fifo::make_ready(host, deadline)?,
            Self::Crb(place) => {
                place.clear(host, command.len())?;
                crb::make_idle(host)?;
            }
        }
        Ok(response)
    }

    /// Reads the rest of the response after the first `offset` bytes, which were read before.
    fn receive(self, host: &mut dyn Host, deadline: Deadline, offset: usize, into: &mut [u8]) -> Result<(), Error> {
        match self {
            Self::Fifo => fifo::receive(host, deadline, into),
            Self::Crb(place) => place.receive(host, offset, into),
        }
    }

    /// Releases locality 0.
    ///
    /// # Errors
    /// None on a real machine: without the registers, opening would have failed.
    pub fn close(self, host: &mut dyn Host) -> Result<(), Error> {
        match self {
            Self::Fifo => fifo::close(host),
            Self::Crb(_) => crb::close(host),
        }
    }
}
