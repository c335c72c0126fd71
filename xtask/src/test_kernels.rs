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
use crate::progress::{run_quietly, say};

/// A kernel in a package.
struct Packaged {
    /// Its name in messages.
    name: &'static str,
    /// The folder below `target/guest` for it.
    folder: &'static str,
    /// The start and the end of the package's name, with a version between them. If the end is empty, the start is the name.
    package: [&'static str; 2],
    /// Debian's name of its architecture, if it is not the machine's.
    architecture: Option<&'static str>,
    /// The folder of the file, and the start and the end of its name. A file that ends with `.gz` is unpacked.
    file: [&'static str; 3],
    /// The variables for the tests (`tests/qemu/environment.rs`): the file, or why there is none.
    variables: [&'static str; 2],
}

const ALL: [Packaged; 6] = [
    Packaged {
        name: "Xen",
        folder: "xen",
        package: ["xen-hypervisor-", "-amd64"],
        architecture: None,
        file: ["boot", "xen-", ".gz"],
        variables: ["FIRSTLIGHT_XEN", "FIRSTLIGHT_NO_XEN"],
    },
    // QEMU does not load the 64-bit file in the package for amd64.
    Packaged {
        name: "GNU Mach",
        folder: "gnumach",
        package: ["gnumach-image-", "-486"],
        architecture: Some("i386"),
        file: ["boot", "gnumach-", ".gz"],
        variables: ["FIRSTLIGHT_GNU_MACH", "FIRSTLIGHT_NO_GNU_MACH"],
    },
    Packaged {
        name: "Memtest86+ for 32 bits",
        folder: "memtest86-32",
        package: ["memtest86+", ""],
        architecture: None,
        file: ["boot", "memtest86+ia32.bin", ""],
        variables: ["FIRSTLIGHT_MEMTEST86_32", "FIRSTLIGHT_NO_MEMTEST86_32"],
    },
    Packaged {
        name: "Memtest86+ for 64 bits",
        folder: "memtest86-64",
        package: ["memtest86+", ""],
        architecture: None,
        file: ["boot", "memtest86+x64.bin", ""],
        variables: ["FIRSTLIGHT_MEMTEST86_64", "FIRSTLIGHT_NO_MEMTEST86_64"],
    },
    Packaged {
        name: "iPXE",
        folder: "ipxe",
        package: ["ipxe", ""],
        architecture: None,
        file: ["boot", "ipxe.lkrn", ""],
        variables: ["FIRSTLIGHT_IPXE", "FIRSTLIGHT_NO_IPXE"],
    },
    Packaged {
        name: "memdisk",
        folder: "memdisk",
        package: ["syslinux-common", ""],
        architecture: None,
        file: ["usr/lib/syslinux", "memdisk", ""],
        variables: ["FIRSTLIGHT_MEMDISK", "FIRSTLIGHT_NO_MEMDISK"],
    },
];

/// Linux for i386 in two forms: for each the end of the package's name, the folder, and the variables for the kernel, for the
/// initramfs, and for why there is none.
const I386: [(&str, &str, [&str; 3]); 2] = [
    ("-686", "i386", ["FIRSTLIGHT_I386_KERNEL", "FIRSTLIGHT_I386_INITRD", "FIRSTLIGHT_NO_I386"]),
    ("-686-pae", "i386-pae", ["FIRSTLIGHT_I386_PAE_KERNEL", "FIRSTLIGHT_I386_PAE_INITRD", "FIRSTLIGHT_NO_I386_PAE"]),
];

/// Prepares the kernels for the tests. Returns the variables that tell them, with their values.
pub fn for_tests() -> Vec<(&'static str, String)> {
    let variable = |kernel: &Packaged| {
        let [found, absent] = kernel.variables;
        match kernel.prepare() {
            Ok(path) => (found, path.display().to_string()),
            Err(error) => {
                say(&format!("The tests with {} are skipped: {error:#}", kernel.name));
                (absent, format!("{error:#}"))
            }
        }
    };
    let i386 = I386.iter().flat_map(|&(end, folder, [kernel, initrd, absent])| match prepare_i386(end, folder) {
        Ok(guest) => vec![(kernel, shown(&guest.kernel.image)), (initrd, shown(&guest.initrd))],
        Err(error) => {
            say(&format!("The tests with Linux for i386 ({folder}) are skipped: {error:#}"));
            vec![(absent, format!("{error:#}"))]
        }
    });
    ALL.iter().map(variable).chain(i386).collect()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Prepares the guest with Linux for i386 from the package whose name ends with `end`, in its own folder.
fn prepare_i386(end: &str, folder: &str) -> anyhow::Result<Guest> {
    let folder = paths::guest_folder().join(folder);
    let system = folder.join("system");
    apt::kept(&system, |partial| {
        let apt = Apart::foreign(partial, "i386")?;
        let names = known_packages(apt.command("apt-cache"), "linux-image-")?;
        let kernel = newest(&names, "linux-image-", end).context("apt knows no kernel for i386")?;
        apt.download(&format!("Linux for i386, {kernel}"), &[kernel, "busybox-static"])
    })?;
    let busybox = find(&system.join("bin"), |name| name == "busybox")
        .or_else(|| find(&system.join("usr/bin"), |name| name == "busybox"))
        .context("the package busybox-static has no busybox")?;
    Guest::of_system(&system, &busybox, &folder)
}

impl Packaged {
    /// The path of the kernel.
    fn prepare(&self) -> anyhow::Result<PathBuf> {
        let kernel = paths::guest_folder().join(self.folder).join("kernel");
        apt::kept(&kernel, |partial| {
            let file = self.download(partial)?;
            if file.extension().is_none_or(|extension| extension != "gz") {
                return Ok(file);
            }
            let unpacked = partial.join("kernel");
            let bytes = run_quietly(Command::new("gzip").arg("-dc").arg(&file))?;
            fs::write(&unpacked, bytes).with_context(|| format!("cannot write {}", unpacked.display()))?;
            Ok(unpacked)
        })?;
        Ok(kernel)
    }

    /// Downloads the package to `folder`, and returns the path of the kernel in it.
    fn download(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let [start, end] = self.package;
        let what = format!("{}, which tests boot", self.name);
        let unknown = || apt::NotInLists(format!("{start}*{end}"));
        let system = match self.architecture {
            Some(architecture) => {
                let apt = Apart::foreign(folder, architecture)?;
                let names = known_packages(apt.command("apt-cache"), start)?;
                apt.download(&what, &[newest(&names, start, end).with_context(unknown)?])?
            }
            None => apt::download(folder, &what, || {
                let names = known_packages(apt::apt("apt-cache"), start)?;
                Ok(vec![newest(&names, start, end).ok_or_else(unknown)?.to_owned()])
            })?,
        };
        let [place, start, end] = self.file;
        find(&system.join(place), |name| name.starts_with(start) && name.ends_with(end))
            .with_context(|| format!("the package for {} has no {place}/{start}*{end}", self.name))
    }
}

/// The names of the packages that apt knows and that begin with `start`, one per line.
fn known_packages(mut apt_cache: Command, start: &str) -> anyhow::Result<String> {
    let names = run_quietly(apt_cache.args(["pkgnames", start]))?;
    Ok(String::from_utf8_lossy(&names).into_owned())
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
