//! Paths: the repository, its build folder, and the programs of the host. Also writes files atomically.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, io};

use anyhow::Context;
use tempfile::NamedTempFile;

/// Folders looked into after those on `PATH`: Debian keeps administrators' programs there, off a user's `PATH`.
const MORE_PROGRAM_FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The environment variable that moves cargo's build folder.
const TARGET_VARIABLE: &str = "CARGO_TARGET_DIR";

/// The repository's top folder.
pub fn root() -> PathBuf {
    // Cargo sets the variable at run time too. That value is right even if the repository was moved after the build.
    let package = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let root = package.ancestors().find(|folder| folder.join("Cargo.lock").is_file());
    root.map(Path::to_path_buf).unwrap_or(package)
}

/// Cargo's build folder: `CARGO_TARGET_DIR` where that is set, else `target` in the repository.
pub fn target() -> PathBuf {
    env::var_os(TARGET_VARIABLE).map_or_else(
        || root().join("target"),
        |folder| {
            // As cargo does, relative to the folder it was started in.
            std::path::absolute(&folder).unwrap_or_else(|_| folder.into())
        },
    )
}

/// The folder of the image: `firstlight.bin`, `firstlight-stripped.elf` and `firstlight.elf`.
pub fn image_folder() -> PathBuf {
    target().join("firstlight")
}

/// The folder of the default guest: what was downloaded, unpacked and packed for it.
pub fn guest_folder() -> PathBuf {
    target().join("guest")
}

/// The cargo that started this program, to be run in the repository's top folder with the same build folder.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    if env::var_os(TARGET_VARIABLE).is_some() {
        cargo.env(TARGET_VARIABLE, target());
    }
    cargo
}

/// The cargo that started this program, to compile and run another member of the workspace in the current folder. The member's
/// arguments are to be added.
pub fn member(package: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--locked", "--manifest-path"]).arg(root().join("Cargo.toml")).args([
        "--package",
        package,
        "--",
    ]);
    cargo
}

/// The first file named `name` that may be executed, in the order in which a shell looks for it.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let search = env::var_os("PATH").unwrap_or_default();
    let more = MORE_PROGRAM_FOLDERS.iter().map(PathBuf::from);
    find_in(name, env::split_paths(&search).chain(more))
}

fn find_in(name: &str, folders: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    folders
        .map(|folder| folder.join(name))
        .find(|path| path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0))
}

/// A new file whose contents are written, and which has yet to take its place.
pub struct Staged {
    /// The file, beside the place. `None` where it is not to be replaced, such as a device.
    file: Option<NamedTempFile>,
    place: PathBuf,
    contents: Vec<u8>,
}

/// Writes a new file beside the place for it.
///
/// # Errors
/// When it cannot be written.
pub fn stage(path: &Path, contents: &[u8]) -> anyhow::Result<Staged> {
    // A link stays one, and what is no file, such as /dev/stdout, is not replaced by one.
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let is_special = place.metadata().is_ok_and(|data| !data.is_file());
    let write = || -> io::Result<NamedTempFile> {
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // As readable as a file made without a detour.
        let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
        file.write_all(contents)?;
        Ok(file)
    };
    let file = (!is_special).then(write).transpose().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Staged { file, contents: if is_special { contents.to_vec() } else { Vec::new() }, place })
}

impl Staged {
    /// Puts the file where it belongs, in one step, and gives its path.
    ///
    /// # Errors
    /// When that cannot be done; what was there before is still there then.
    pub fn take_place(self) -> anyhow::Result<PathBuf> {
        let written = match self.file {
            Some(file) => file.persist(&self.place).map(drop).map_err(|error| error.error),
            None => fs::write(&self.place, &self.contents),
        };
        written.with_context(|| format!("cannot write {}", self.place.display()))?;
        Ok(self.place)
    }
}

/// `path` as it reads best in a message: relative to the current folder where it lies inside it.
pub fn shown(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_its_place_whole_and_a_link_and_a_device_stay() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let staged = stage(&link, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert_eq!(staged.take_place().unwrap(), fs::canonicalize(&file).unwrap());
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(link.symlink_metadata().unwrap().is_symlink());
        stage(Path::new("/dev/null"), b"new").unwrap().take_place().unwrap();
        assert!(!Path::new("/dev/null").metadata().unwrap().is_file());
        assert!(stage(&folder.path().join("absent/file"), b"").is_err());
    }
}
