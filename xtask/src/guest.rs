//! The default guest: Debian's cloud kernel, or one installed on this machine, and an initramfs made here. Also Debian's ordinary
//! kernel, for tests that need drivers which the cloud kernel lacks.
//!
//! A kernel is downloaded and unpacked once, without installing it, and then used without further downloads. Remove
//! `target/guest` to get the newest one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};

use crate::apt::{self, Apart};
use crate::progress::{run_quietly, say};
use crate::{initramfs, modules, paths};

/// Debian's package that depends on the newest kernel for virtual machines.
const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// Debian's package that depends on the newest kernel with all drivers, such as a console on a framebuffer.
const CONSOLE_KERNEL_PACKAGE: &str = "linux-image-amd64";

/// Where a distribution installs its kernels.
const INSTALLED_KERNELS: &str = "/boot";

/// A kernel image for QEMU, and its modules.
#[derive(Debug)]
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// The folder of its modules. May not exist.
    pub modules: PathBuf,
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
    /// The guest with the kernel of an unpacked system and the programs of `busybox`. Its initramfs is written to `folder`.
    pub fn of_system(system: &Path, busybox: &Path, folder: &Path) -> anyhow::Result<Self> {
        let image = newest_kernel(&system.join("boot"))
            .with_context(|| format!("there is no boot/vmlinuz-* below {}", system.display()))?;
        Self::new(Kernel::new(image, system), busybox, folder)
    }

    fn new(kernel: Kernel, busybox: &Path, folder: &Path) -> anyhow::Result<Self> {
        let busybox = fs::read(busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
        let archive = initramfs::pack(&busybox, &modules::load(&kernel.modules, &modules::WANTED)?)?;
        let initrd = folder.join(format!("initrd-{}.cpio", kernel.release));
        paths::write_if_changed(&initrd, &archive)?;
        Ok(Self { kernel, initrd })
    }

    /// Makes an initramfs that also has an archive of programs, and modules for scripts to load. Returns its path.
    pub fn initrd_with(&self, programs: &Path) -> anyhow::Result<PathBuf> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let modules = modules::load(&self.kernel.modules, &modules::FOR_SCRIPTS)?;
        let modules = modules.into_iter().map(|module| (format!("modules/{}.ko", module.name), module.bytes)).collect();
        let mut archive = read(&self.initrd)?;
        for more in [read(programs)?, initramfs::pack_programs(&modules)?] {
            // An archive starts at a multiple of 4 bytes (Linux,
            // Documentation/driver-api/early-userspace/buffer-format.rst).
            archive.resize(archive.len().next_multiple_of(4), 0);
            archive.extend(more);
        }
        let path = paths::guest_folder().join(format!("initrd-tools-{}.cpio", self.kernel.release));
        paths::write_if_changed(&path, &archive)?;
        Ok(path)
    }
}

/// Prepares the default guest. busybox must be installed.
pub fn prepare() -> anyhow::Result<Guest> {
    let kernel = kernel()?;
    let busybox =
        paths::find_program("busybox").context("busybox is not installed; `cargo xtask setup` installs it")?;
    Guest::new(kernel, &busybox, &paths::guest_folder())
}

/// Prepares the default guest's kernel.
pub fn kernel() -> anyhow::Result<Kernel> {
    obtain(&paths::guest_folder(), KERNEL_PACKAGE)
}

/// Prepares a distribution's ordinary kernel, which shows its console on a framebuffer.
pub fn console_kernel() -> anyhow::Result<Kernel> {
    obtain(&paths::guest_folder().join("console"), CONSOLE_KERNEL_PACKAGE)
}

/// Returns the kernel that was unpacked into `folder`, else the one of `package`, else this machine's.
fn obtain(folder: &Path, package: &str) -> anyhow::Result<Kernel> {
    let _lock = paths::lock(folder)?;
    if let Some(kernel) = newest_unpacked(folder) {
        return Ok(kernel);
    }
    let why_not_apt = match from_apt(folder, package) {
        Ok(kernel) => return Ok(kernel),
        Err(error) if apt::is_disk_full(&error) => return Err(error),
        Err(error) => format!("{error:#}"),
    };
    match newest_kernel(Path::new(INSTALLED_KERNELS)) {
        Some(image) => {
            say(&format!("There is no kernel from apt: {why_not_apt}"));
            say(&format!("This machine's kernel is used instead: {}", image.display()));
            Ok(Kernel::new(image, Path::new("/")))
        }
        None => Err(anyhow!(
            "there is no kernel to boot. From apt: {why_not_apt}. On this machine: no readable {INSTALLED_KERNELS}/vmlinuz-*. \
             Name a kernel with --kernel, and an initramfs with --initrd"
        )),
    }
}

impl Kernel {
    /// The kernel `image`, with the name `vmlinuz-RELEASE`, of the system with the top folder `system`.
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

/// The newest kernel that an earlier run has unpacked. An incomplete folder has another name.
fn newest_unpacked(folder: &Path) -> Option<Kernel> {
    let packages = newest_first(folder, "linux-image-");
    packages.iter().find_map(|package| {
        let system = folder.join(package);
        Some(Kernel::new(newest_kernel(&system.join("boot"))?, &system))
    })
}

/// Downloads the kernel that Debian's `package` depends on, and unpacks it below `folder` without installing it.
fn from_apt(folder: &Path, package: &str) -> anyhow::Result<Kernel> {
    let apt = Apart::here()?;
    // apt-cache fails for a package that it does not know.
    let description = run_quietly(apt.command("apt-cache").args(["show", "--no-all-versions", package]));
    let kernel = description.ok().and_then(|description| kernel_dependency(&description));
    let Package { name, version } = kernel.with_context(|| format!("apt knows no package {package}"))?;
    let partial = folder.join("partial");
    paths::remake(&partial)?;
    let system = apt.download_to(&partial, "the guest's kernel", &[&format!("{name}={version}")])?;
    let place = folder.join(format!("{name}_{}", version.replace([':', '/'], "_")));
    fs::rename(&system, &place).with_context(|| format!("cannot make {}", place.display()))?;
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    let image =
        newest_kernel(&place.join("boot")).with_context(|| format!("the package {name} has no boot/vmlinuz-*"))?;
    Ok(Kernel::new(image, &place))
}

/// A package with a version.
#[derive(Debug, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
}

/// The names of the kernels' packages in the descriptions of a package's versions.
pub(crate) fn kernel_dependencies(descriptions: &str) -> Vec<String> {
    descriptions.split("\n\n").filter_map(kernel_dependency).map(|package| package.name).collect()
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

/// The newest `vmlinuz-*` in a folder that this user can read. On Ubuntu, only root can.
fn newest_kernel(folder: &Path) -> Option<PathBuf> {
    let mut paths = newest_first(folder, "vmlinuz-").into_iter().map(|name| folder.join(name));
    paths.find(|path| File::open(path).is_ok())
}

/// The names in a folder that begin with `start`, the newest version first.
fn newest_first(folder: &Path, start: &str) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| name.starts_with(start)).collect();
    names.sort_by(|a, b| apt::compare_versions(b, a));
    names
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
        let newer = "Package: x\nDepends: linux-base (= 7), linux-image-7.3.4+deb13-cloud-amd64 (= 7.3.4-1~bpo13+1)\n";
        let names = ["linux-image-7.3.4+deb13-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64"];
        assert_eq!(kernel_dependencies(&format!("{newer}\n{description}\n")), names);
    }
}
