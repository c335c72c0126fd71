//! The command response buffer interface: commands and responses are in a buffer in memory. `tpm-crb` in QEMU (PTP
//! 6.4).

use super::registers::{Host, REGISTERS, read32, wait, write32};
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::hal::Deadline;
use crate::tpm::error::{Error, Wait};

/// `TPM_LOC_CTRL_x`.
const LOCALITY_CONTROL: u64 = 0x08;
/// Requests the locality.
const REQUEST: u32 = 1 << 0;
/// Releases the locality.
const RELINQUISH: u32 = 1 << 1;
/// `TPM_LOC_STS_x`.
const LOCALITY_STATUS: u64 = 0x0c;
/// The locality is granted.
const GRANTED: u32 = 1 << 0;

/// `TPM_CRB_CTRL_REQ_x`. The TPM clears a bit when the request is done.
const CONTROL_REQUEST: u64 = 0x40;
/// Requests readiness for a command.
const BE_READY: u32 = 1 << 0;
/// Requests sleep.
const GO_IDLE: u32 = 1 << 1;
/// `TPM_CRB_CTRL_STS_x`.
const CONTROL_STATUS: u64 = 0x44;
/// The TPM has failed permanently.
const STATUS_ERROR: u32 = 1 << 0;
/// The TPM sleeps.
const STATUS_IDLE: u32 = 1 << 1;
/// `TPM_CRB_CTRL_START_x`. Writing 1 executes the command; it reads as 0 when the response is there.
const START: u64 = 0x4c;

/// `TPM_CRB_CTRL_CMD_SIZE_x`, then the low and the high half of the command's address.
const COMMAND_SIZE: u64 = 0x58;
const COMMAND_ADDRESS: u64 = 0x5c;
const COMMAND_ADDRESS_HIGH: u64 = 0x60;
/// `TPM_CRB_CTRL_RSP_SIZE_x`, then the low and the high half of the response's address.
const RESPONSE_SIZE: u64 = 0x64;
const RESPONSE_ADDRESS: u64 = 0x68;
const RESPONSE_ADDRESS_HIGH: u64 = 0x6c;

/// The addresses of commands and responses: inside the interface's page, multiples of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    command: PhysRange,
    response: PhysRange,
}

/// Requests locality 0 and reads the buffer's address.
pub fn open(host: &mut dyn Host) -> Result<Buffer, Error> {
    write32(host, LOCALITY_CONTROL, REQUEST)?;
    let deadline = Deadline::start(host);
    wait(host, deadline, Wait::Locality, LOCALITY_STATUS, GRANTED, GRANTED)?;
    let command = buffer(host, COMMAND_SIZE, COMMAND_ADDRESS, COMMAND_ADDRESS_HIGH)?;
    let response = buffer(host, RESPONSE_SIZE, RESPONSE_ADDRESS, RESPONSE_ADDRESS_HIGH)?;
    Ok(Buffer { command, response })
}

/// Releases locality 0.
pub fn close(host: &mut dyn Host) -> Result<(), Error> {
    write32(host, LOCALITY_CONTROL, RELINQUISH)
}

/// Ends a command after its response was read.
pub fn make_idle(host: &mut dyn Host) -> Result<(), Error> {
    write32(host, CONTROL_REQUEST, GO_IDLE)
}

fn buffer(host: &mut dyn Host, size: u64, low: u64, high: u64) -> Result<PhysRange, Error> {
    let (size, low, high) = (read32(host, size)?, read32(host, low)?, read32(host, high)?);
    let start = PhysAddr::new(u64::from(high) << 32 | u64::from(low));
    PhysRange::new(start, size.into())
        .filter(|&range| REGISTERS.contains(range) && start.is_aligned(Alignment::DWORD))
        .ok_or(Error::Buffer)
}

/// The offset of the register at `at`, which is in a checked buffer.
fn offset(at: PhysAddr) -> u64 {
    at.get().wrapping_sub(REGISTERS.start().get())
}

impl Buffer {
    /// Sends a command and waits for its response.
    pub fn send(self, host: &mut dyn Host, deadline: Deadline, command: &[u8]) -> Result<(), Error> {
        write32(host, CONTROL_REQUEST, BE_READY)?;
        wait(host, deadline, Wait::Readiness, CONTROL_REQUEST, BE_READY, 0)?;
        wait(host, deadline, Wait::Readiness, CONTROL_STATUS, STATUS_IDLE, 0)?;
        if command.len() as u64 > self.command.len() {
            return Err(Error::TooLong);
        }
        for (word, at) in command.chunks(4).zip((offset(self.command.start())..u64::MAX).step_by(4)) {
            let mut bytes = [0; 4];
            bytes.iter_mut().zip(word).for_each(|(to, from)| *to = *from);
            write32(host, at, u32::from_le_bytes(bytes))?;
        }
        write32(host, START, 1)?;
        wait(host, deadline, Wait::Response, START, 1, 0)?;
        if read32(host, CONTROL_STATUS)? & STATUS_ERROR == 0 { Ok(()) } else { Err(Error::Failed) }
    }

    /// Clears the `len` bytes of a command after its response was read. The operating system can read the buffer, and a
    /// command can have a password.
    pub fn clear(self, host: &mut dyn Host, len: usize) -> Result<(), Error> {
        // `send` has checked that the command fits.
        for at in (offset(self.command.start())..u64::MAX).step_by(4).take(len.div_ceil(4)) {
            write32(host, at, 0)?;
        }
        Ok(())
    }

    /// Reads bytes of the response from `from` on, four at a time.
    pub fn receive(self, host: &mut dyn Host, from: usize, into: &mut [u8]) -> Result<(), Error> {
        let start = self.response.start().checked_add(from as u64).ok_or(Error::TooLong)?;
        if !PhysRange::new(start, into.len() as u64).is_some_and(|bytes| self.response.contains(bytes)) {
            return Err(Error::TooLong);
        }
        let mut word = None;
        for (byte, at) in into.iter_mut().zip(offset(start)..u64::MAX) {
            let shift = ((at & 3) as u32) << 3;
            let value = match word {
                Some(value) if shift != 0 => value,
                _ => read32(host, at & !3)?,
            };
            word = Some(value);
            *byte = (value >> shift) as u8;
        }
        Ok(())
    }
}
