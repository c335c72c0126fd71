//! Paths: the repository, its build folder, and the programs of the host.

use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// `path` as it reads best in a message: relative to the current folder where it lies inside it.
pub fn shown(path: &Path) -> String {
    let here = env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}
