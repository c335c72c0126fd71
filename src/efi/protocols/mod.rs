//! The protocols that the firmware installs on handles of its own, as values: what an image asks for, and with which status it
//! is refused. The firmware binary has the functions that images call, which turn pointers into values.

pub mod block_io;
pub mod file_system;
pub mod graphics;
pub mod load_file;
pub mod memory_attribute;
pub mod random;
pub mod tcg2;
pub mod text_input;
pub mod text_output;

use uefi_raw::Status;

/// Why a call that fills a buffer does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferError {
    /// The buffer is too small: `BUFFER_TOO_SMALL`, and the caller is told how many bytes it takes.
    TooSmall {
        /// The bytes.
        needed: u64,
    },
    /// Another status.
    Status(Status),
}

impl BufferError {
    /// The status that the caller gets.
    pub const fn status(self) -> Status {
        match self {
            Self::TooSmall { .. } => Status::BUFFER_TOO_SMALL,
            Self::Status(status) => status,
        }
    }
}

impl From<Status> for BufferError {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Refuses a buffer of `room` bytes for something that takes `needed`.
fn check_room(needed: u64, room: u64) -> Result<(), BufferError> {
    if needed <= room { Ok(()) } else { Err(BufferError::TooSmall { needed }) }
}
