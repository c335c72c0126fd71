//! Waits for disks.
//!
//! A device that is emulated answers within microseconds, but the disk behind it can be on a network, or its speed be limited. So
//! these waits are longer than all others: as long as those of operating systems.

use super::Error;
use crate::hal::{Clock, Deadline, clock};

/// How many deadlines one after the other a wait lasts: 32 seconds if the clock's rate is known.
const DEADLINES: u32 = 8;

/// Looks until there is an answer. `is_alive` is called after each deadline, and can give up early.
///
/// # Errors
/// [`Error::Timeout`] after [`DEADLINES`]; those of the functions.
pub fn until<M: Clock, T>(
    machine: &mut M,
    mut look: impl FnMut(&mut M) -> Result<Option<T>, Error>,
    mut is_alive: impl FnMut(&mut M) -> Result<(), Error>,
) -> Result<T, Error> {
    for _ in 0..DEADLINES {
        let deadline = Deadline::start(machine);
        while !deadline.has_passed(machine) {
            if let Some(answer) = look(machine)? {
                return Ok(answer);
            }
            clock::pause();
        }
        is_alive(machine)?;
    }
    Err(Error::Timeout)
}
