//! The FIFO interface: commands and responses pass byte by byte through one register. `tpm-tis` in QEMU (PTP 6.5).

use super::registers::{Host, read8, read32, wait, write8, write32};
use crate::hal::Deadline;
use crate::tpm::error::{Error, Wait};

/// `TPM_ACCESS`, 8 bits.
const ACCESS: u64 = 0x00;
/// The other bits are valid.
const ACCESS_VALID: u8 = 1 << 7;
/// The locality is active. Writing the bit releases it.
const ACCESS_ACTIVE: u8 = 1 << 5;
/// Requests the locality.
const ACCESS_REQUEST: u8 = 1 << 1;

/// `TPM_STS`, 32 bits. The writable bits are in the lowest byte.
const STATUS: u64 = 0x18;
/// `EXPECT` and `DATA_AVAILABLE` are valid.
const STATUS_VALID: u32 = 1 << 7;
/// The TPM is ready for a command. Writing the bit makes it drop the previous one.
const STATUS_READY: u8 = 1 << 6;
/// Writing the bit executes the command.
const STATUS_GO: u8 = 1 << 5;
/// The TPM has bytes of a response.
const STATUS_DATA: u32 = 1 << 4;
/// The command is incomplete.
const STATUS_EXPECT: u32 = 1 << 3;
/// The position of the burst count, 16 bits: the number of bytes that the FIFO accepts or provides at once.
const BURST_SHIFT: u32 = 8;

/// `TPM_DATA_FIFO`: 1 to 4 bytes per access. The first byte is the lowest.
const DATA: u64 = 0x24;

/// Requests locality 0.
pub fn open(host: &mut dyn Host) -> Result<(), Error> {
    write8(host, ACCESS, ACCESS_REQUEST)?;
    let wanted = ACCESS_VALID | ACCESS_ACTIVE;
    let deadline = Deadline::start(host);
    while read8(host, ACCESS)? & wanted != wanted {
        if deadline.has_passed(host) {
            return Err(Error::Timeout(Wait::Locality));
        }
    }
    Ok(())
}

/// Releases locality 0.
pub fn close(host: &mut dyn Host) -> Result<(), Error> {
    write8(host, ACCESS, ACCESS_ACTIVE)
}

/// Sends a command and waits for its response.
pub fn send(host: &mut dyn Host, deadline: Deadline, command: &[u8]) -> Result<(), Error> {
    make_ready(host, deadline)?;
    let mut rest = command;
    while !rest.is_empty() {
        let burst = burst(host, deadline, Wait::Room)?;
        let (now, later) = rest.split_at(burst.min(rest.len()));
        let (words, bytes) = now.as_chunks();
        for word in words {
            write32(host, DATA, u32::from_le_bytes(*word))?;
        }
        for &byte in bytes {
            write8(host, DATA, byte)?;
        }
        rest = later;
    }
    wait(host, deadline, Wait::EndOfCommand, STATUS, STATUS_VALID | STATUS_EXPECT, STATUS_VALID)?;
    write8(host, STATUS, STATUS_GO)?;
    let there = STATUS_VALID | STATUS_DATA;
    wait(host, deadline, Wait::Response, STATUS, there, there)
}

/// Reads the next bytes of a response.
pub fn receive(host: &mut dyn Host, deadline: Deadline, into: &mut [u8]) -> Result<(), Error> {
    let mut rest = into;
    while !rest.is_empty() {
        let burst = burst(host, deadline, Wait::RestOfResponse)?;
        let (now, later) = rest.split_at_mut(burst.min(rest.len()));
        let (words, bytes) = now.as_chunks_mut();
        for word in words {
            *word = read32(host, DATA)?.to_le_bytes();
        }
        for byte in bytes {
            *byte = read8(host, DATA)?;
        }
        rest = later;
    }
    Ok(())
}

/// Makes the TPM ready for a command, and drop the previous one.
pub fn make_ready(host: &mut dyn Host, deadline: Deadline) -> Result<(), Error> {
    write8(host, STATUS, STATUS_READY)?;
    wait(host, deadline, Wait::Readiness, STATUS, STATUS_READY.into(), STATUS_READY.into())
}

/// The number of bytes that the FIFO accepts or provides now, at least one.
fn burst(host: &mut dyn Host, deadline: Deadline, what: Wait) -> Result<usize, Error> {
    loop {
        match read32(host, STATUS)? >> BURST_SHIFT & 0xffff {
            0 if deadline.has_passed(host) => return Err(Error::Timeout(what)),
            0 => core::hint::spin_loop(),
            burst => return Ok(burst as usize),
        }
    }
}
