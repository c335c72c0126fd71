//! The default guest: Debian's cloud kernel, or one installed on this machine, and an initramfs made here. Also Debian's ordinary
//! kernel, for tests that need drivers which the cloud kernel lacks.
//!
//! A kernel is downloaded and unpacked once, without installing it, and then used without further downloads. Remove
//! `target/guest` to get the newest one.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};

use crate::progress::{run_quietly, run_step, say};
use crate::{initramfs, modules, packages, paths};

/// Debian's package that depends on the newest kernel for virtual machines.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// Debian's package that depends on the newest kernel with all drivers: a console on a framebuffer is among them.
const CONSOLE_KERNEL_PACKAGE: &str = "linux-image-amd64";

/// Where a distribution installs its kernels.
const INSTALLED_KERNELS: &str = "/boot";

/// A kernel image for QEMU, and its modules.
#[derive(Debug)]
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// The folder of its modules. May not exist.
    modules: PathBuf,
    /// Its release, as `uname -r` prints it.
    pub release: String,
}

/// What QEMU needs to boot the default guest.
pub struct Guest {
    /// The kernel.
    pub kernel: Kernel,
    /// The initramfs.
    pub initrd: PathBuf,
}

impl Guest {
    /// The guest with the kernel in an unpacked system, whose programs are `busybox`'s. Its initramfs is put into
    /// `folder`.
    ///
    /// # Errors
    /// If there is no kernel, or a file cannot be read or written.
    pub fn of_system(system: &Path, busybox: &Path, folder: &Path) -> anyhow::Result<Self> {
        let image = newest_kernel(&system.join("boot"))
            .with_context(|| format!("there is no boot/vmlinuz-* below {}", system.display()))?;
        Self::new(Kernel::new(image, system), busybox, folder)
    }

    fn new(kernel: Kernel, busybox: &Path, folder: &Path) -> anyhow::Result<Self> {
        let busybox = fs::read(busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
        let archive = initramfs::pack(&busybox, &modules::load(&kernel.modules)?)?;
        let initrd = folder.join(format!("initrd-{}.cpio", kernel.release));
        write_if_changed(&initrd, &archive)?;
        Ok(Self { kernel, initrd })
    }

    /// The initramfs with an additional archive of programs, and modules that scripts load.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn initrd_with(&self, programs: &Path) -> anyhow::Result<PathBuf> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let modules = modules::load_for_scripts(&self.kernel.modules)?;
        let modules = modules.into_iter().map(|module| (format!("modules/{}.ko", module.name), module.bytes)).collect();
        let mut archive = read(&self.initrd)?;
        for more in [read(programs)?, initramfs::pack_programs(&modules)?] {
            // An archive begins at a multiple of 4 bytes (Linux,
            // Documentation/driver-api/early-userspace/buffer-format.rst).
            archive.resize(archive.len().next_multiple_of(4), 0);
            archive.extend(more);
        }
        let path = paths::guest_folder().join(format!("initrd-tools-{}.cpio", self.kernel.release));
        write_if_changed(&path, &archive)?;
        Ok(path)
    }
}

/// Gets the default guest ready. busybox must be installed.
///
/// # Errors
/// If no kernel is available, or a file cannot be read or written.
pub fn prepare() -> anyhow::Result<Guest> {
    let kernel = kernel()?;
    let busybox =
        paths::find_program("busybox").context("busybox is not installed; `cargo xtask setup` installs it")?;
    Guest::new(kernel, &busybox, &paths::guest_folder())
}

/// Gets the default guest's kernel.
///
/// # Errors
/// If none is available, with what was tried.
pub fn kernel() -> anyhow::Result<Kernel> {
    obtain(&paths::guest_folder(), KERNEL_PACKAGE)
}

/// Gets a distribution's ordinary kernel, which shows its console on a framebuffer.
///
/// # Errors
/// As for [`kernel`].
pub fn console_kernel() -> anyhow::Result<Kernel> {
    obtain(&paths::guest_folder().join("console"), CONSOLE_KERNEL_PACKAGE)
}

/// The kernel that was unpacked into `folder`, else that of `package`, else this machine's.
fn obtain(folder: &Path, package: &'static str) -> anyhow::Result<Kernel> {
    let _lock = lock(folder)?;
    if let Some(kernel) = newest_unpacked(folder) {
        return Ok(kernel);
    }
    let why_not_apt = match from_apt(folder, package) {
        Ok(kernel) => return Ok(kernel),
        Err(error) if packages::is_disk_full(&error) => return Err(error),
        Err(error) => format!("{error:#}"),
    };
    match newest_kernel(Path::new(INSTALLED_KERNELS)) {
        Some(image) => {
            say(&format!("No kernel from apt: {why_not_apt}"));
            say(&format!("Using this machine's kernel, {}", image.display()));
            Ok(Kernel::new(image, Path::new("/")))
        }
        None => Err(anyhow!(
            "there is no kernel to boot: {why_not_apt}; and there is no {INSTALLED_KERNELS}/vmlinuz-* that can be read. \
             Name one with --kernel (and an initramfs with --initrd)"
        )),
    }
}

/// Makes the guest's folder, and keeps other runs from unpacking into it for as long as the file is open.
pub(crate) fn lock(folder: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let lock = File::create(folder.join("lock")).and_then(|file| file.lock().map(|()| file));
    lock.with_context(|| format!("cannot lock {}", folder.display()))
}

impl Kernel {
    /// The kernel `image`, named `vmlinuz-RELEASE`, of the system whose top folder is `system`.
    fn new(image: PathBuf, system: &Path) -> Self {
        let name = image.file_name().unwrap_or_default().to_string_lossy();
        let release = name.strip_prefix("vmlinuz-").unwrap_or(&name).to_owned();
        // Debian 13 packages have their modules below /usr.
        let places = ["lib/modules", "usr/lib/modules"].map(|place| system.join(place).join(&release));
        let [first, second] = places;
        let modules = if first.is_dir() { first } else { second };
        Self { image, modules, release }
    }
}

/// The newest kernel unpacked by an earlier run. Folders still being unpacked have another name.
fn newest_unpacked(folder: &Path) -> Option<Kernel> {
    let mut packages: Vec<_> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("linux-image-"))
        .collect();
    packages.sort_by(|a, b| compare_versions(b, a));
    packages.iter().find_map(|package| {
        let system = folder.join(package);
        Some(Kernel::new(newest_kernel(&system.join("boot"))?, &system))
    })
}

/// Downloads the kernel that Debian's `package` depends on with apt and unpacks it below `folder`, without installing it.
fn from_apt(folder: &Path, package: &'static str) -> anyhow::Result<Kernel> {
    if !packages::apt_usable() {
        bail!("apt is not there to download Debian's kernel with");
    }
    if !packages::has_lists() {
        packages::update_lists("there are none yet, and the default guest's kernel is looked up there")?;
    }
    let partial = folder.join("partial");
    let download = || -> anyhow::Result<Package> {
        let package = look_up(package)?;
        remake(&partial)?;
        let mut command = packages::apt("apt-get");
        command.arg("download").arg(format!("{}={}", package.name, package.version)).current_dir(&partial);
        run_step(&format!("Downloading the guest's kernel, {}", package.name), &mut command)?;
        Ok(package)
    };
    let package = packages::download(download)?;
    let archive = fs::read_dir(&partial)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package behind")?;
    let unpacked = partial.join("system");
    run_step("Unpacking it", Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&unpacked))?;
    let system = folder.join(format!("{}_{}", package.name, package.version.replace([':', '/'], "_")));
    fs::rename(&unpacked, &system).with_context(|| format!("cannot make {}", system.display()))?;
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    let image = newest_kernel(&system.join("boot"))
        .with_context(|| format!("the package {} has no boot/vmlinuz-*", package.name))?;
    Ok(Kernel::new(image, &system))
}

/// A package in a certain version.
#[derive(Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
}

/// The package with the kernel itself, which the package `name` depends on.
fn look_up(name: &'static str) -> anyhow::Result<Package> {
    // apt-cache fails for a package it does not know.
    let printed = run_quietly(packages::apt("apt-cache").args(["show", "--no-all-versions", name]))
        .map_err(|_| packages::NotInLists(name))?;
    Ok(kernel_dependency(&String::from_utf8_lossy(&printed)).ok_or(packages::NotInLists(name))?)
}

/// The kernel in a package's description: "Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), …".
fn kernel_dependency(description: &str) -> Option<Package> {
    let depends = description.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    depends.split(',').find_map(|dependency| {
        let (name, version) = dependency.trim().split_once(" (= ")?;
        let version = version.strip_suffix(')')?;
        name.starts_with("linux-image-").then(|| Package { name: name.to_owned(), version: version.to_owned() })
    })
}

/// The newest `vmlinuz-*` in a folder that can be read; Ubuntu's can be read by root alone.
fn newest_kernel(folder: &Path) -> Option<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("vmlinuz-"))
        .collect();
    names.sort_by(|a, b| compare_versions(b, a));
    names.iter().map(|name| folder.join(name)).find(|path| File::open(path).is_ok())
}

/// Compares two names with versions in them, runs of digits as numbers: 6.9 comes before 6.10.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| -> Vec<(u64, String)> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let other = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |length| digits + length);
            parts.push((rest[..digits].parse().unwrap_or(0), rest[digits..other].to_owned()));
            rest = &rest[other..];
        }
        parts
    };
    parts(a).cmp(&parts(b))
}

/// An empty folder at `path`, whatever was there.
pub(crate) fn remake(path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Writes a file in one step, and not at all when it has these bytes already, so that a running QEMU is not disturbed.
pub(crate) fn write_if_changed(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes)
        .and_then(|()| fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_package_is_found_in_the_description() {
        let description = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\
            Depends: linux-base, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\nSection: kernel\n";
        let package = kernel_dependency(description).unwrap();
        assert_eq!(package.name, "linux-image-6.1.0-56-cloud-amd64");
        assert_eq!(package.version, "6.1.192-2");
        assert_eq!(kernel_dependency("Package: other\nDepends: libc6 (= 2)\n"), None);
        assert_eq!(kernel_dependency(""), None);
    }

    #[test]
    fn the_newest_kernel_is_chosen_by_number() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["vmlinuz-6.9.1", "vmlinuz-6.10.0-3", "vmlinuz-6.10.0-12", "System.map-7.0", "initrd.img-7.0"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(newest_kernel(folder.path()), Some(folder.path().join("vmlinuz-6.10.0-12")));
        assert_eq!(newest_kernel(Path::new("/nonexistent")), None);
    }
}
