//! Files that measurements end in, all made here: the probe kernel, the base line image, and the first program in user
//! space.
//!
//! They lie in the build folder under names that say what they are, so that a reported command line can be repeated.

mod bzimage;
mod code;
mod elf;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub use code::{CLOCK_PORT, EXIT_PORT, End};

use crate::paths::shown;

/// The path of the program in the initramfs. It is started by the kernel's option `rdinit=`.
pub const USER_PROGRAM: &str = "/firstlight-compare";

/// The base line image's size: the smallest that QEMU takes.
const BASE_LINE_SIZE: usize = 64 << 10;

/// From the reset vector to the end of the image (Intel SDM volume 3, 10.1.4).
const RESET_VECTOR: usize = 16;

/// File types and permissions in a cpio archive, as in `st_mode` (POSIX, `<sys/stat.h>`).
const PROGRAM: u32 = 0o100_755;

/// The form of the probe kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// a bzImage with 16-bit, 32-bit, 64-bit and EFI entry
    Bzimage,
    /// an ELF kernel with a PVH entry
    Pvh,
}

/// Makes the files, below one folder.
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// The files below `folder`, which is made.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", shown(folder)))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The probe kernel, `size` bytes long.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn kernel(&self, format: Format, size: u64) -> anyhow::Result<PathBuf> {
        let (head, size, name) = match format {
            Format::Bzimage => {
                let size = bzimage::rounded(size);
                (bzimage::head(size), size, format!("probe-{size}.bzimage"))
            }
            Format::Pvh => {
                let head = elf::pvh_head(size);
                let size = size.max(head.len() as u64);
                (elf::pvh_head(size), size, format!("probe-{size}.elf"))
            }
        };
        self.write(&name, &head, size)
    }

    /// An initrd of `size` bytes, which nothing looks into: the probe ends before.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn initrd(&self, size: u64) -> anyhow::Result<PathBuf> {
        self.write(&format!("initrd-{size}"), &[], size)
    }

    /// The base line image: it ends at the reset vector.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn base_line(&self) -> anyhow::Result<PathBuf> {
        let image = base_line();
        self.write("base-line.bin", &image, image.len() as u64)
    }

    /// `initrd` with the user program behind it, or an archive with that alone.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn user_initrd(&self, initrd: Option<&Path>) -> anyhow::Result<PathBuf> {
        let mut bytes = match initrd {
            Some(path) => fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => Vec::new(),
        };
        // Linux takes archives one after the other, each at a multiple of four bytes.
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(user_archive()?);
        let name = if initrd.is_some() { "user-initrd-with-program" } else { "user-initrd" };
        self.write(name, &bytes, bytes.len() as u64)
    }

    /// Where QEMU's trace of a run that is timed goes.
    pub fn log(&self) -> PathBuf {
        self.folder.join("trace.log")
    }

    /// Writes `head` and zeros up to `size`, as a file with a hole.
    fn write(&self, name: &str, head: &[u8], size: u64) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(head)?;
            file.set_len(size)
        };
        write().with_context(|| format!("cannot write {}", shown(&path)))?;
        Ok(path)
    }
}

fn base_line() -> Vec<u8> {
    let code = code::finish(code::Mode::Bits16, End::Reset);
    let mut image = vec![0xff; BASE_LINE_SIZE];
    // The reset vector has room for a jump; the code stands before it.
    let start = BASE_LINE_SIZE - RESET_VECTOR - code.len();
    let jump = i16::try_from(code.len() + 3).unwrap_or(i16::MAX);
    let [low, high] = (-jump).to_le_bytes();
    image[start..start + code.len()].copy_from_slice(&code);
    image[BASE_LINE_SIZE - RESET_VECTOR..][..3].copy_from_slice(&[0xe9, low, high]); // jmp start
    image
}

/// A cpio archive with the user program alone.
fn user_archive() -> anyhow::Result<Vec<u8>> {
    let program = elf::user();
    let mut archive = Vec::new();
    let name = USER_PROGRAM.trim_start_matches('/');
    let header = cpio::NewcBuilder::new(name).ino(1).mode(PROGRAM);
    let mut writer = header.write(&mut archive, u32::try_from(program.len())?);
    writer.write_all(&program)?;
    writer.finish()?;
    cpio::newc::trailer(&mut archive)?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reset_vector_jumps_to_the_code() {
        let image = base_line();
        let vector = BASE_LINE_SIZE - RESET_VECTOR;
        assert_eq!(image[vector], 0xe9);
        let jump = i16::from_le_bytes([image[vector + 1], image[vector + 2]]);
        let target = (vector + 3).strict_add_signed(isize::from(jump));
        let code = code::finish(code::Mode::Bits16, End::Reset);
        assert_eq!(image[target..target + code.len()], code);
    }
}
