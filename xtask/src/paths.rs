//! Paths: the repository, its build folder, and the programs of the host.

use std::env;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::progress::say;

/// Folders to search after those in `PATH`. Debian's administration programs are in some that are not in a user's `PATH`.
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

/// Cargo's build folder: `CARGO_TARGET_DIR` if it is set, else `target` in the repository.
pub fn target() -> PathBuf {
    env::var_os(TARGET_VARIABLE)
        .map_or_else(|| root().join("target"), |folder| std::path::absolute(&folder).unwrap_or_else(|_| folder.into()))
}

/// The folder of the image: `firstlight.bin`, `firstlight-stripped.elf` and `firstlight.elf`.
pub fn image_folder() -> PathBuf {
    target().join("firstlight")
}

/// The folder of the default guest: downloads, unpacked packages and initramfs.
pub fn guest_folder() -> PathBuf {
    target().join("guest")
}

/// The folder of the disks that tests boot.
pub fn disks_folder() -> PathBuf {
    guest_folder().join("disks")
}

/// The folder of a release's files.
pub fn release_folder() -> PathBuf {
    target().join("dist")
}

/// A command for the cargo that started this program, in the repository's top folder and with the same build folder.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    if env::var_os(TARGET_VARIABLE).is_some() {
        cargo.env(TARGET_VARIABLE, target());
    }
    cargo
}

/// A command that compiles another member of the workspace beside this program, and runs it in the current folder. The caller adds
/// the member's arguments.
pub fn member(package: &str) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["run", "--locked", "--package", package, "--manifest-path"]).arg(root().join("Cargo.toml"));
    // This program is `debug/xtask` in the folder that cargo was told to build it in.
    if let Some(folder) = env::current_exe().ok().as_deref().and_then(|path| path.parent()?.parent()) {
        cargo.arg("--target-dir").arg(folder);
    }
    cargo.arg("--");
    cargo
}

/// The program `name` that a shell would start.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let search = env::var_os("PATH").unwrap_or_default();
    let more = MORE_PROGRAM_FOLDERS.iter().map(PathBuf::from);
    env::split_paths(&search)
        .chain(more)
        .map(|folder| folder.join(name))
        .find(|path| path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0))
}

/// `path` for a message: relative to the current folder if it is inside it.
pub fn shown(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

/// Makes a folder and locks it. No other run changes what is in it while the returned file is open. Says it if that must be waited
/// for.
pub fn lock(folder: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    lock_file(&folder.join("lock"), || say(&format!("Waiting for another run, which uses {}", shown(folder))))
}

/// Locks the folder of a release's files. The lock is beside it, as the folder has these files only.
pub fn lock_release() -> anyhow::Result<File> {
    lock_file(&release_folder().with_extension("lock"), || {
        say(&format!("Waiting for another run, which uses {}", shown(&release_folder())));
    })
}

/// Locks this file. Calls `waits` if another run has it.
fn lock_file(path: &Path, waits: impl FnOnce()) -> anyhow::Result<File> {
    let lock = || {
        let file = File::create(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waits();
                file.lock()?;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(file)
    };
    lock().with_context(|| format!("cannot lock {}", path.display()))
}

/// Makes an empty folder at `path`. Removes what was there.
pub fn remake(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Writes a file in one step, or leaves it if it has these bytes already: a running QEMU may read it.
pub fn write_if_changed(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_another_run_has_is_said_and_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = lock_file(&path, || panic!("nobody has it")).unwrap();
        let mut first = Some(first);
        let second = lock_file(&path, || drop(first.take())).unwrap();
        assert!(first.is_none(), "it was not waited for");
        drop(second);
        lock_file(&path, || panic!("it is free again")).unwrap();
    }
}
