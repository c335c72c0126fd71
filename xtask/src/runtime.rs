//! The image of the EFI runtime services (`src/firmware/runtime`), which the firmware includes.
//!
//! It runs at any address: the file has no relocations, and no initial data but zeros. What remains is code and constants, in one
//! run of bytes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object as _, ObjectSection as _};

use crate::elf_file;
use crate::paths::{self, shown};

/// The program's name, and the feature of the package that enables it.
pub const PROGRAM: &str = "firstlight-runtime";
pub const FEATURE: &str = "runtime-services";
/// The first bytes of the image (`src/firmware/runtime/header.s`).
const MAGIC: &[u8] = b"FLRT";

/// The files of the runtime services.
pub struct Runtime {
    /// The image.
    pub bin: PathBuf,
    /// The program that it is made from, with symbols.
    pub elf: PathBuf,
}

/// Makes the image from the program `built`.
///
/// # Errors
/// If it depends on its address, or a file cannot be read or written.
pub fn image(built: &Path) -> Result<Runtime> {
    let file = fs::read(built).with_context(|| format!("{} is missing", shown(built)))?;
    let bytes = flatten(&file).with_context(|| format!("{} failed a check", shown(built)))?;
    let folder = paths::image_folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", shown(&folder)))?;
    let [bin, elf] = ["runtime.bin", "runtime.elf"].map(|name| folder.join(name));
    for (path, contents) in [(&bin, &bytes), (&elf, &file)] {
        // An unchanged image does not build the firmware anew.
        paths::write_if_changed(path, contents)?;
    }
    Ok(Runtime { bin, elf })
}

/// The bytes of the file's segments, from address zero on.
fn flatten(file: &[u8]) -> Result<Vec<u8>> {
    let elf = ElfFile64::<LittleEndian>::parse(file)?;
    let relocations = elf.dynamic_relocations().into_iter().flatten().count();
    ensure!(relocations == 0, "{relocations} addresses in it depend on where it runs");
    let initial = elf.sections().find(|section| section.name() == Ok(".data")).map_or(0, |section| section.size());
    ensure!(initial == 0, "it has {initial} bytes of initial data");
    let mut bytes = Vec::new();
    for (start, data) in elf_file::loaded(file)? {
        let start = usize::try_from(start)?;
        bytes.resize(bytes.len().max(start + data.len()), 0);
        bytes[start..start + data.len()].copy_from_slice(data);
    }
    ensure!(bytes.starts_with(MAGIC), "it does not begin with its header");
    Ok(bytes)
}
