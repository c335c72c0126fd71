//! Files of a release, with modes and times that do not depend on the machine that makes them.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Gives a folder and all that is in it this time in seconds since 1970, and the modes of files that everybody may read.
pub fn settle(path: &Path, seconds: u64) -> anyhow::Result<()> {
    let is_folder = path.is_dir();
    if is_folder {
        for name in names(path)? {
            settle(&path.join(name), seconds)?;
        }
    }
    let mode = if is_folder { 0o755 } else { 0o644 };
    fs::set_permissions(path, Permissions::from_mode(mode))
        .and_then(|()| File::open(path)?.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)))
        .with_context(|| format!("cannot set mode and time of {}", path.display()))
}
