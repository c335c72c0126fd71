//! The EFI programs of Debian's packages: kernels, stubs, boot loaders and tools, of two releases and their backports.
//!
//! Tests place each of them in memory (`tests/efi_programs.rs`), and boot some. The packages are downloaded once, and only the
//! programs in them are kept, below `target/guest/efi`, in a folder for each suite and package. They are downloaded anew
//! if the list of packages has changed. Remove the folder to get the newest ones. apt gets its own lists and sources for that, so
//! the machine's are unchanged, and it does not matter which release that runs. A package that cannot be downloaded is left out with a message.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::apt::{self, Apart};
use crate::guest::kernel_dependencies;
use crate::paths;
use crate::progress::{run_quietly, run_step, say};

/// The packages of each suite. Stubs of systemd 252 are linked at address zero and relocate themselves, later ones do not.
const PACKAGES: [(&str, &str); 3] = [
    (
        "bookworm",
        "systemd-boot-efi grub-efi-amd64-bin grub-efi-amd64-signed shim-unsigned shim-signed shim-helpers-amd64-signed \
         memtest86+ ipxe efitools refind syslinux-efi fwupd-unsigned fwupd-amd64-signed",
    ),
    ("bookworm-backports", "systemd-boot-efi grub-efi-amd64-bin memtest86+"),
    // The shell's sections are aligned to 64 bytes.
    ("trixie", "systemd-boot-efi grub-efi-amd64-bin grub-efi-amd64-signed shim-signed efi-shell-x64"),
];
/// The releases, whose sources have their backports too.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];
/// The package that depends on a kernel, in each suite another one.
const KERNEL: &str = "linux-image-cloud-amd64";
/// The folder of kernels, instead of a suite's.
const KERNELS: &str = "kernels";

/// The first bytes of an EFI program.
const MAGIC: &[u8] = b"MZ";

/// Returns the folder with the programs. Downloads them if there are none, or if they are of another list of packages.
pub fn prepare() -> anyhow::Result<PathBuf> {
    let folder = paths::guest_folder().join("efi");
    let (programs, packages) = (folder.join("programs"), folder.join("packages"));
    let wanted = format!("{PACKAGES:?}");
    if programs.is_dir() && fs::read_to_string(&packages).ok().as_ref() != Some(&wanted) {
        fs::remove_dir_all(&programs).with_context(|| format!("cannot remove {}", programs.display()))?;
    }
    apt::kept(&programs, download)?;
    paths::write_if_changed(&packages, wanted.as_bytes())?;
    Ok(programs)
}

/// Downloads all packages to `folder`, and returns where their programs are.
fn download(folder: &Path) -> anyhow::Result<PathBuf> {
    let sources: String = RELEASES.iter().map(|release| apt::sources_of(release)).collect();
    let apt = Apart::without_installed(folder, &sources)?;
    apt.update("Debian's EFI programs")?;

    let programs = folder.join("programs");
    let in_suite = |(suite, names): (&'static str, &str)| {
        (suite, names.split(' ').map(|name| format!("{name}/{suite}")).collect::<Vec<_>>())
    };
    let kernels = (KERNELS, kernels(&apt)?);
    for (suite, names) in PACKAGES.into_iter().map(in_suite).chain([kernels]) {
        let partial = folder.join("packages");
        paths::remake(&partial)?;
        let fetch = |names: &[String], what: &str| {
            let mut command = apt.command("apt-get");
            run_step(&format!("Downloading {what}"), command.arg("download").args(names).current_dir(&partial))
        };
        if fetch(&names, &format!("EFI programs, {suite}")).is_err() {
            // apt downloads nothing if one package cannot be downloaded.
            for name in &names {
                match fetch(std::slice::from_ref(name), name) {
                    Err(error) if apt::is_disk_full(&error) => return Err(error),
                    Err(error) => say(&format!("The tests with EFI programs are without {name}: {error:#}")),
                    Ok(_) => {}
                }
            }
        }
        unpack(&partial, &programs.join(suite))?;
    }
    ensure!(programs.is_dir(), "no package could be downloaded");
    Ok(programs)
}

/// Unpacks the packages in `packages`, and puts the programs of each into a folder of its name below `folder`.
fn unpack(packages: &Path, folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(packages)?.flatten() {
        let (path, file) = (entry.path(), entry.file_name());
        if path.extension().is_some_and(|extension| extension == "deb") {
            let file = file.to_string_lossy();
            let name = file.split('_').next().unwrap_or(&file);
            let system = packages.join("system");
            run_quietly(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&system))?;
            keep_programs(&system, &folder.join(name))?;
            fs::remove_dir_all(&system).with_context(|| format!("cannot remove {}", system.display()))?;
        }
    }
    Ok(())
}

/// The packages with the kernels that the package in any suite depends on. From 7.3 on, the kernel is in a separate package. The oldest kernel is downloaded without a signature too.
fn kernels(apt: &Apart) -> anyhow::Result<Vec<String>> {
    let run = |arguments: &[&str]| run_quietly(apt.command("apt-cache").args(arguments));
    let binaries = run(&["pkgnames", "linux-binary-"])?;
    let mut kernels = kernel_dependencies(&run(&["show", KERNEL])?);
    kernels.sort_by(|a, b| apt::compare_versions(a, b));
    let unsigned = kernels.first().map(|oldest| format!("{oldest}-unsigned"));
    let with_file = |name: String| {
        let binary = name.replacen("linux-image-", "linux-binary-", 1);
        if binaries.lines().any(|known| known == binary) { binary } else { name }
    };
    Ok(kernels.into_iter().map(with_file).chain(unsigned).collect())
}

/// Moves the programs below `system` to the same places below `folder`.
fn keep_programs(system: &Path, folder: &Path) -> anyhow::Result<()> {
    for path in run_quietly(Command::new("find").arg(system).args(["-type", "f"]))?.lines().map(Path::new) {
        if fs::read(path).is_ok_and(|bytes| bytes.starts_with(MAGIC)) {
            let to = folder.join(path.strip_prefix(system)?);
            let parent = to.parent().unwrap_or(folder);
            fs::create_dir_all(parent).with_context(|| format!("cannot make the folder {}", parent.display()))?;
            fs::rename(path, &to).with_context(|| format!("cannot make {}", to.display()))?;
        }
    }
    Ok(())
}
