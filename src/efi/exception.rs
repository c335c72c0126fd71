//! What a user reads when the CPU raises an exception in an EFI program.

use core::fmt::{self, Write};

use super::device_path::DevicePath;
use super::device_path::text::PathText;
use super::printable::Printable;

/// An exception, as the CPU reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its vector.
    pub vector: u64,
    /// Its error code, or zero.
    pub error_code: u64,
    /// The address of the instruction.
    pub rip: u64,
    /// The address of the last page fault.
    pub cr2: u64,
}

/// Where an exception has come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// From an image.
    Image {
        /// Its device path, if it has one.
        path: Option<DevicePath<'a>>,
        /// The instruction, in bytes from the image's start.
        offset: u64,
    },
    /// From no image, while this one runs.
    Outside {
        /// Its device path, if it has one.
        path: Option<DevicePath<'a>>,
    },
    /// From the page below the stack of images.
    Stack,
}

/// An exception in an EFI program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// The exception.
    pub exception: Exception,
    /// Where it has come from.
    pub origin: Origin<'a>,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exception { vector, error_code, rip, cr2 } = self.exception;
        write!(f, "CPU exception {vector} at {rip:#x}, error code {error_code:#x}, CR2 {cr2:#x}")?;
        match self.origin {
            Origin::Image { path, offset } => write!(f, ", {offset:#x} bytes into the EFI program {}", Name(path))?,
            Origin::Outside { path } => write!(f, ", outside of the EFI program {}, which runs", Name(path))?,
            Origin::Stack => {
                return f.write_str(
                    ": the EFI program has used more than its 128 KiB of stack, which is a defect of the program; try \
                     another version of it",
                );
            }
        }
        f.write_str(
            ": this is a defect of the program, or the machine lacks what it needs; try more memory (QEMU -m), another CPU \
             (-cpu), or another version of the program",
        )
    }
}

/// The path of an image, without characters that control a terminal.
struct Name<'a>(Option<DevicePath<'a>>);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(path) => write!(Printable(f), "{}", PathText(path)),
            None => f.write_str("that has no path"),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;
    use crate::efi::device_path::{MEDIA, MEDIA_FILE, PathBuilder};

    const EXCEPTION: Exception = Exception { vector: 14, error_code: 2, rip: 0x1234, cr2: 0x5678 };

    #[test]
    fn an_exception_of_a_program_names_it_without_control_characters() {
        let path = PathBuilder::new().node(MEDIA, MEDIA_FILE, &[b"a\0\x1b\0b\0\0\0"]).unwrap().end().unwrap();
        let path = DevicePath::parse(&path);
        let text = |origin| Report { exception: EXCEPTION, origin }.to_string();
        let inside = text(Origin::Image { path, offset: 0x234 });
        assert!(inside.starts_with(
            "CPU exception 14 at 0x1234, error code 0x2, CR2 0x5678, 0x234 bytes into the EFI program a?b: "
        ));
        assert!(
            text(Origin::Outside { path: None }).contains("outside of the EFI program that has no path, which runs")
        );
        assert!(text(Origin::Stack).contains("more than its 128 KiB of stack"));
    }
}
