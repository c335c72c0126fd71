//! The archive of a release: `NAME.tar.gz`, with one folder NAME.

use std::path::Path;
use std::process::Command;

use xtask::progress::run_step;

use crate::files;

/// Makes the archive of all files in `folder`, there. Owners, order and times are fixed; gzip's header has neither name nor time.
pub fn make(folder: &Path, name: &str, seconds: u64) -> anyhow::Result<()> {
    let names = files::names(folder)?;
    let mut tar = Command::new("tar");
    tar.current_dir(folder)
        .args(["--create", "--format=ustar", "--sort=name", "--owner=root:0", "--group=root:0", "--numeric-owner"])
        .arg(format!("--mtime=@{seconds}"))
        .arg(format!("--transform=s,^,{name}/,"))
        .arg("--use-compress-program=gzip --no-name --best")
        .arg(format!("--file={name}.tar.gz"))
        .args(names);
    run_step("Making the archive", &mut tar)
}
