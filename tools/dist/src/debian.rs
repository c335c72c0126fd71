//! The Debian package: the image, and the descriptor by which libvirt finds it.
//!
//! It has no scripts and no dependencies, and is for every architecture, as QEMU emulates x86-64 everywhere. It is not for Debian's
//! own archive: there is no source package.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use xtask::paths;
use xtask::progress::{run_quietly, run_step};
use xtask::version::{self, Version};

use crate::{descriptor, files, notices};

/// The package's name.
const PACKAGE: &str = "firstlight";
/// The folder of its documentation.
const DOCUMENTATION: &str = "usr/share/doc/firstlight";

/// Makes the package of the files in `folder`, there, and returns its path.
pub fn make(folder: &Path, version: &Version) -> anyhow::Result<PathBuf> {
    let tree = TempDir::new().context("cannot make a temporary folder")?;
    let tree = tree.path();
    let read = |name: &str| fs::read(folder.join(name)).with_context(|| format!("cannot read {name}"));
    let documentation = |name: &str| format!("{DOCUMENTATION}/{name}");
    put(tree, descriptor::IMAGE, &read("firstlight.bin")?)?;
    put(tree, &format!("{}/{}", descriptor::FOLDER, descriptor::NAME), &read(descriptor::NAME)?)?;
    put(tree, &documentation("copyright"), template("copyright")?.as_bytes())?;
    put(tree, &documentation("changelog.gz"), &compressed(changes(version)?.as_bytes())?)?;
    put(tree, &documentation("CHANGELOG.md.gz"), &compressed(&read("CHANGELOG.md")?)?)?;
    put(tree, &documentation(&format!("{}.gz", notices::NAME)), &compressed(&read(notices::NAME)?)?)?;

    let installed = listed(tree, "usr")?;
    let sums = run_quietly(Command::new("md5sum").current_dir(tree).args(&installed))?;
    let mut bytes = 0;
    for name in &installed {
        bytes += fs::metadata(tree.join(name))?.len().next_multiple_of(1024);
    }
    let control = template("control")?.replace("@SIZE@", &(bytes / 1024).to_string());
    put(tree, "DEBIAN/control", control.as_bytes())?;
    put(tree, "DEBIAN/md5sums", sums.as_bytes())?;
    files::settle(tree, version.seconds)?;

    let package = folder.join(format!("{PACKAGE}_{}_all.deb", version::NUMBER));
    let mut build = Command::new("dpkg-deb");
    // One thread: the number of threads changes what xz writes.
    build.args(["--root-owner-group", "-Zxz", "--threads-max=1", "--build"]).arg(tree).arg(&package);
    build.env("SOURCE_DATE_EPOCH", version.seconds.to_string());
    run_step("Making the Debian package", &mut build)?;
    Ok(package)
}

/// Checks the package with lintian, which has nothing to say about it.
pub fn check(package: &Path) -> anyhow::Result<()> {
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"]).arg(package);
    run_step("Checking the Debian package with lintian", &mut lintian)
}

/// Writes a file below `tree`, with its folders.
fn put(tree: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = tree.join(name);
    let write = |folder: &Path| fs::create_dir_all(folder).and_then(|()| fs::write(&path, bytes));
    path.parent().map_or(Ok(()), write).with_context(|| format!("cannot write {name}"))
}

/// The files below a folder of `tree`, by their paths from `tree`.
fn listed(tree: &Path, folder: &str) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for name in files::names(&tree.join(folder))? {
        let name = format!("{folder}/{name}");
        if tree.join(&name).is_dir() { found.extend(listed(tree, &name)?) } else { found.push(name) }
    }
    Ok(found)
}

/// A file of `packaging`, with the version and the project's licence in their places.
fn template(name: &str) -> anyhow::Result<String> {
    let read = |name: &str| fs::read_to_string(paths::root().join(name)).with_context(|| format!("cannot read {name}"));
    Ok(read(&format!("packaging/{name}"))?
        .replace("@VERSION@", version::NUMBER)
        .replace("@MIT@", &read("LICENSE-MIT")?))
}

/// Debian's changelog: the entry of this version.
fn changes(version: &Version) -> anyhow::Result<String> {
    let control = template("control")?;
    let maintainer = control.lines().find_map(|line| line.strip_prefix("Maintainer: ")).context("no maintainer")?;
    Ok(format!(
        "{PACKAGE} ({}) unstable; urgency=medium\n\n  * Made from the commit {}. CHANGELOG.md.gz has what is new.\n\n \
         -- {maintainer}  {}\n",
        version::NUMBER,
        version.commit,
        version.date_of_mail()?
    ))
}

/// `bytes`, compressed by gzip without a name and a time.
fn compressed(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut gzip = Command::new("gzip");
    let mut gzip = gzip.args(["--no-name", "--best"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = gzip.stdin.take().context("gzip has no input")?;
    let output = std::thread::scope(|scope| {
        let writer = scope.spawn(move || input.write_all(bytes));
        let output = gzip.wait_with_output()?;
        writer.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
        anyhow::Ok(output)
    })?;
    ensure!(output.status.success(), "gzip failed ({})", output.status);
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use xtask::packages;

    use super::*;

    /// A folder with small files of a release.
    fn release() -> TempDir {
        let folder = TempDir::new().unwrap();
        for name in ["firstlight.bin", notices::NAME, "CHANGELOG.md"] {
            fs::write(folder.path().join(name), format!("text of {name}")).unwrap();
        }
        let descriptor = paths::root().join("packaging").join(descriptor::NAME);
        fs::copy(descriptor, folder.path().join(descriptor::NAME)).unwrap();
        folder
    }

    fn package(folder: &TempDir) -> PathBuf {
        make(folder.path(), &Version { commit: "5119d36f2a1b".to_owned(), seconds: 1_796_040_000 }).unwrap()
    }

    #[test]
    fn the_package_has_the_image_and_the_descriptor_of_root_with_the_commits_time_and_no_scripts() {
        let folder = release();
        let package = package(&folder);
        let listed = run_quietly(Command::new("dpkg-deb").env("TZ", "UTC").arg("--contents").arg(&package)).unwrap();
        for name in
            [descriptor::IMAGE, "usr/share/qemu/firmware/90-firstlight.json", "usr/share/doc/firstlight/copyright"]
        {
            let line = listed.lines().find(|line| line.ends_with(&format!(" ./{name}"))).expect(name);
            assert!(line.starts_with("-rw-r--r-- root/root ") && line.contains(" 2026-11-30 "), "{line}");
        }
        let control = folder.path().join("control");
        run_quietly(Command::new("dpkg-deb").arg("--control").arg(&package).arg(&control)).unwrap();
        assert_eq!(files::names(&control).unwrap(), ["control", "md5sums"]);
        let control = fs::read_to_string(control.join("control")).unwrap();
        let size = control.lines().find_map(|line| line.strip_prefix("Installed-Size: "));
        assert!(size.unwrap().parse::<u32>().is_ok() && control.contains(&format!("Version: {}\n", version::NUMBER)));
    }

    #[test]
    fn the_package_installs_and_leaves_nothing_behind_when_it_is_removed() {
        if !packages::is_root() {
            println!("skipped: only root can install a package");
            return;
        }
        let folder = release();
        let package = package(&folder);
        let system = TempDir::new().unwrap();
        fs::create_dir_all(system.path().join("var/lib/dpkg/info")).unwrap();
        fs::create_dir_all(system.path().join("var/lib/dpkg/updates")).unwrap();
        fs::write(system.path().join("var/lib/dpkg/status"), "").unwrap();
        let dpkg = |arguments: &[&str], last: &Path| {
            let mut dpkg = Command::new("dpkg");
            dpkg.arg("--root").arg(system.path()).args(arguments).arg(last);
            run_quietly(&mut dpkg).unwrap()
        };
        dpkg(&["--install"], &package);
        assert_eq!(fs::read(system.path().join(descriptor::IMAGE)).unwrap(), b"text of firstlight.bin");
        assert!(system.path().join(descriptor::FOLDER).join(descriptor::NAME).is_file());
        assert_eq!(dpkg(&["--verify"], Path::new(PACKAGE)), "", "files that differ from their checksums");
        dpkg(&["--purge"], Path::new(PACKAGE));
        assert!(!system.path().join("usr").exists());
    }

    #[test]
    fn lintian_has_nothing_to_say_about_the_package() {
        if paths::find_program("lintian").is_none() {
            println!("skipped: lintian is not installed (apt-get install lintian)");
            return;
        }
        check(&package(&release())).unwrap();
    }
}
