//! Debian's kernels that only tests boot: Xen and GNU Mach, for Multiboot; Memtest86+; Linux for i386, with the guest's
//! initramfs; and a file with a setup header that needs a BIOS.
//!
//! Each is downloaded and unpacked once below `target/guest`, without installing it, like the default guest's kernel. One for
//! another architecture uses separate lists and sources for apt, so that the machine's are unchanged. Remove the folder to get
//! the newest ones. If one is not available, its tests are skipped and say why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::apt::{self, Apart, compare_versions};
use crate::guest::Guest;
use crate::paths;
use crate::progress::{run, run_quietly};

/// A kernel in a package.
struct Packaged {
    name: &'static str,
    /// Its variables for the tests (`tests/qemu/environment.rs`) are `FIRSTLIGHT_` and this for the file, or `FIRSTLIGHT_NO_` and
    /// this for why there is none. Its folder below `target/guest` is the same in small letters.
    variable: &'static str,
    /// The start and the end of the package's name, with a version between them. If the end is empty, the start is the name.
    package: [&'static str; 2],
    /// The folder of the file, and the start and the end of its name. A file that ends with `.gz` is unpacked.
    file: [&'static str; 3],
    /// Debian's name of its architecture, if it is not the machine's.
    architecture: Option<&'static str>,
}

const fn packaged(
    name: &'static str,
    variable: &'static str,
    package: [&'static str; 2],
    file: [&'static str; 3],
) -> Packaged {
    Packaged { name, variable, package, file, architecture: None }
}

const ALL: [Packaged; 6] = [
    packaged("Xen", "XEN", ["xen-hypervisor-", "-amd64"], ["boot", "xen-", ".gz"]),
    // QEMU does not load the 64-bit file in the package for amd64.
    Packaged {
        architecture: Some("i386"),
        ..packaged("GNU Mach", "GNU_MACH", ["gnumach-image-", "-486"], ["boot", "gnumach-", ".gz"])
    },
    packaged("Memtest86+ for 32 bits", "MEMTEST86_32", ["memtest86+", ""], ["boot", "memtest86+ia32.bin", ""]),
    packaged("Memtest86+ for 64 bits", "MEMTEST86_64", ["memtest86+", ""], ["boot", "memtest86+x64.bin", ""]),
    packaged("iPXE", "IPXE", ["ipxe", ""], ["boot", "ipxe.lkrn", ""]),
    packaged("memdisk", "MEMDISK", ["syslinux-common", ""], ["usr/lib/syslinux", "memdisk", ""]),
];

/// Linux for i386 in two forms: the end of the package's name, and the variable.
const I386: [(&str, &str); 2] = [("-686", "I386"), ("-686-pae", "I386_PAE")];

/// The name for messages, the variable, and the files: the ends of their variables, and their paths.
type Prepared = (String, &'static str, anyhow::Result<Vec<(&'static str, PathBuf)>>);

/// Prepares the kernels for the tests.
pub fn prepare() -> Vec<Prepared> {
    let kernel =
        |kernel: &Packaged| (kernel.name.to_owned(), kernel.variable, kernel.prepare().map(|path| vec![("", path)]));
    let i386 = I386.map(|(end, variable)| {
        let files =
            prepare_i386(end, variable).map(|guest| vec![("_KERNEL", guest.kernel.image), ("_INITRD", guest.initrd)]);
        (format!("Linux for i386 ({variable})"), variable, files)
    });
    ALL.iter().map(kernel).chain(i386).collect()
}

/// The folder for the kernel with this variable.
fn folder(variable: &str) -> PathBuf {
    paths::guest_folder().join(variable.to_lowercase().replace('_', "-"))
}

/// Prepares the guest with Linux for i386 from the package whose name ends with `end`, in its own folder.
fn prepare_i386(end: &str, variable: &str) -> anyhow::Result<Guest> {
    let folder = folder(variable);
    let system = folder.join("system");
    apt::kept(&system, |partial| {
        let apt = Apart::foreign(partial, "i386")?;
        let names = known_packages(&apt, "linux-image-")?;
        let kernel = newest(&names, "linux-image-", end).context("apt knows no kernel for i386")?;
        apt.download(&format!("Linux for i386, {kernel}"), &[kernel, "busybox-static"])
    })?;
    let busybox = find(&system.join("bin"), |name| name == "busybox")
        .or_else(|| find(&system.join("usr/bin"), |name| name == "busybox"))
        .context("the package busybox-static has no busybox")?;
    Guest::of_system(&system, &busybox, &folder)
}

impl Packaged {
    fn prepare(&self) -> anyhow::Result<PathBuf> {
        let kernel = folder(self.variable).join("kernel");
        apt::kept(&kernel, |partial| {
            let file = self.download(partial)?;
            if file.extension().is_none_or(|extension| extension != "gz") {
                return Ok(file);
            }
            let unpacked = partial.join("kernel");
            let bytes = run(Command::new("gzip").arg("-dc").arg(&file))?;
            fs::write(&unpacked, bytes).with_context(|| format!("cannot write {}", unpacked.display()))?;
            Ok(unpacked)
        })?;
        Ok(kernel)
    }

    /// Downloads the package to `folder`, and returns the path of the kernel in it.
    fn download(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let [start, end] = self.package;
        let apt = self.architecture.map_or_else(Apart::here, |architecture| Apart::foreign(folder, architecture))?;
        let names = known_packages(&apt, start)?;
        let name = newest(&names, start, end).with_context(|| format!("apt knows no package {start}*{end}"))?;
        let system = apt.download_to(folder, &format!("{}, which tests boot", self.name), &[name])?;
        let [place, start, end] = self.file;
        find(&system.join(place), |name| name.starts_with(start) && name.ends_with(end))
            .with_context(|| format!("the package for {} has no {place}/{start}*{end}", self.name))
    }
}

/// The names of the packages that apt knows and that begin with `start`, one per line.
fn known_packages(apt: &Apart, start: &str) -> anyhow::Result<String> {
    run_quietly(apt.command("apt-cache").args(["pkgnames", start]))
}

/// The package with the newest version among the names, one per line. The version is between `start` and `end`. If `end` is empty,
/// `start` is the name.
fn newest<'a>(names: &'a str, start: &str, end: &str) -> Option<&'a str> {
    let is_version = |text: &str| {
        text.contains('.') && text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-')) && !text.ends_with('-')
    };
    let fits = |name: &&str| match name.strip_prefix(start) {
        Some(rest) if end.is_empty() => rest.is_empty(),
        Some(rest) => rest.strip_suffix(end).is_some_and(is_version),
        None => false,
    };
    names.lines().filter(fits).max_by(|a, b| compare_versions(a, b))
}

/// The first file in a folder with a name that fits.
fn find(folder: &Path, is_it: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.map(|entry| entry.path()).find(|path| path.file_name().is_some_and(|name| is_it(&name.to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_chosen_and_no_variant_of_a_package() {
        let names = "xen-hypervisor-4.9-amd64\nxen-hypervisor-4.17-amd64\nxen-hypervisor-4.17-amd64-dbg\n\
            xen-hypervisor-common\nxen-hypervisor-4.20-arm64\n";
        assert_eq!(newest(names, "xen-hypervisor-", "-amd64"), Some("xen-hypervisor-4.17-amd64"));
        let names =
            "gnumach-image-1-486\ngnumach-image-1.8-xen-486\ngnumach-image-1.8-486\ngnumach-image-1.8-486-dbg\n";
        assert_eq!(newest(names, "gnumach-image-", "-486"), Some("gnumach-image-1.8-486"));
        assert_eq!(newest("", "gnumach-image-", "-486"), None);
        let names = "linux-image-6.1.0-9-686\nlinux-image-6.1.0-50-686\nlinux-image-6.1.0-50-686-pae\nlinux-image-686\n\
            linux-image-6.1.0-50-rt-686-pae\nlinux-image-6.1.0-50-686-unsigned\n";
        assert_eq!(newest(names, "linux-image-", "-686"), Some("linux-image-6.1.0-50-686"));
        assert_eq!(newest(names, "linux-image-", "-686-pae"), Some("linux-image-6.1.0-50-686-pae"));
        assert_eq!(newest("memtest86+\nmemtest86\n", "memtest86+", ""), Some("memtest86+"));
    }
}
