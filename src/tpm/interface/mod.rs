//! The TPM's registers: how a command gets in and its response out.
//!
//! Both interfaces that QEMU has, [`fifo`] (`tpm-tis`) and [`crb`] (`tpm-crb`), are at the same address and used from
//! locality 0, which firmware and operating system share. Every wait has a deadline.
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
/// The type of the command response buffer interface. The other two, 0 and 15, are the FIFO.
const TYPE_CRB: u32 = 1;
/// `TPM_DID_VID`, 32 bits, in both interfaces at different places; this is the FIFO's (PTP, table 17). A FIFO of the
/// time before TPM 2.0 has all ones in [`INTERFACE_ID`], but not there.
const FIFO_VENDOR: u64 = 0xf00;

/// Whether there is a TPM, on a machine of which nothing says so: one read. Where nothing answers the register reads as zeros
/// or as ones; it has the interface's version and what it can do (PTP 6.4.2.4 and 6.5.2.7), so a TPM 2.0's is neither.
pub fn is_present(host: &mut impl Host) -> bool {
    !matches!(read32(host, INTERFACE_ID), Ok(0 | u32::MAX) | Err(_))
}

/// The interface of the machine's TPM.
#[derive(Clone, Copy, Debug)]
pub enum Interface {
    /// Registers that take commands and give responses byte by byte.
    Fifo,
    /// A buffer for commands and responses.
    Crb(crb::Buffer),
}

impl Interface {
    /// Finds the interface and takes locality 0.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::Timeout`], [`Error::Buffer`].
    pub fn open(host: &mut impl Host) -> Result<Self, Error> {
        match read32(host, INTERFACE_ID)? {
            u32::MAX if read32(host, FIFO_VENDOR)? == u32::MAX => Err(Error::NoDevice),
            type_and_more if type_and_more & 0xf == TYPE_CRB => crb::open(host).map(Self::Crb),
            _ => fifo::open(host).map(|()| Self::Fifo),
        }
    }

    /// Sends a command, waits for its response and gives that, in `buffer`. All the waits together are no longer than until
    /// `deadline`: a TPM that lets each byte be waited for is not waited for longer.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Failed`]; [`Error::TooLong`] when the command or the response does not fit the
    /// interface or `buffer`.
    #[inline(never)]
    pub fn transmit<'b>(
        self,
        host: &mut impl Host,
        deadline: Deadline,
        command: &[u8],
        buffer: &'b mut [u8],
    ) -> Result<&'b [u8], Error> {
        match self {
            Self::Fifo => fifo::send(host, deadline, command)?,
            Self::Crb(place) => place.send(host, deadline, command)?,
        }
        // The header first, which says how long the response is.
        let (header, _) = buffer.split_first_chunk_mut::<HEADER_LEN>().ok_or(Error::TooLong)?;
        self.receive(host, deadline, 0, header)?;
        let [_, _, size @ .., _, _, _, _] = *header;
        let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
        // A size that is too small is found by who parses the response.
        let response = buffer.get_mut(..size.max(HEADER_LEN)).ok_or(Error::TooLong)?;
        self.receive(host, deadline, HEADER_LEN, response.get_mut(HEADER_LEN..).unwrap_or_default())?;
        match self {
            Self::Fifo => fifo::make_ready(host, deadline)?,
            Self::Crb(_) => crb::make_idle(host)?,
        }
        Ok(response)
    }

    /// Reads the bytes of the response that come after the first `offset`, which were read before.
    fn receive(self, host: &mut impl Host, deadline: Deadline, offset: usize, into: &mut [u8]) -> Result<(), Error> {
        match self {
            Self::Fifo => fifo::receive(host, deadline, into),
            Self::Crb(place) => place.receive(host, offset, into),
        }
    }

    /// Gives locality 0 back.
    ///
    /// # Errors
    /// None that a machine gives: the registers are there, or opening would have failed.
    pub fn close(self, host: &mut impl Host) -> Result<(), Error> {
        match self {
            Self::Fifo => fifo::close(host),
            Self::Crb(_) => crb::close(host),
        }
    }
}
