//! The packages that the host needs, and their installation.
//!
//! A program counts as installed if it is found and usable, wherever it came from; the package manager only installs what is
//! missing. Supports apt (Debian, Ubuntu); elsewhere the user gets the names.

use std::collections::BTreeSet;
use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail};
use object::{Object, ObjectSegment};

use crate::paths::find_program;
use crate::progress::{run_quietly, run_step, say};

/// The oldest QEMU that is supported: Debian 12's.
const OLDEST_QEMU: (u32, u32) = (7, 2);

/// Where apt keeps the lists of packages it knows.
const APT_LISTS: &str = "/var/lib/apt/lists";

/// The QEMU program.
pub const QEMU_PROGRAM: &str = "qemu-system-x86_64";

/// A program of the host that some command needs, or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The name of the program, or the file's absolute path.
    program: &'static str,
    /// The Debian packages that bring it.
    packages: &'static [&'static str],
    /// What it is for, to follow "needed to".
    purpose: &'static str,
}

/// QEMU, which runs the image.
pub const QEMU: Need = Need { program: QEMU_PROGRAM, packages: &["qemu-system-x86"], purpose: "run the image" };

/// busybox, linked statically: the default guest has no library.
pub const BUSYBOX: Need =
    Need { program: "busybox", packages: &["busybox-static"], purpose: "give the default guest its programs" };

/// kmod, which knows what a kernel module depends on.
pub const KMOD: Need = Need { program: "depmod", packages: &["kmod"], purpose: "find the default guest's drivers" };

/// SeaBIOS, a firmware to compare with.
pub const SEABIOS: Need = firmware("/usr/share/seabios/bios-256k.bin", &["seabios"]);

/// SeaBIOS's build for the machine microvm.
pub const SEABIOS_MICROVM: Need = firmware("/usr/share/seabios/bios-microvm.bin", &["seabios"]);

/// qboot, a firmware to compare with.
pub const QBOOT: Need = firmware("/usr/share/qemu/qboot.rom", &["qemu-system-data"]);

/// OVMF, a firmware to compare with.
pub const OVMF: Need = firmware("/usr/share/ovmf/OVMF.fd", &["ovmf"]);

const fn firmware(path: &'static str, packages: &'static [&'static str]) -> Need {
    Need { program: path, packages, purpose: "compare with" }
}

/// The program that counts the host's instructions.
pub const VALGRIND_PROGRAM: &str = "valgrind";

/// valgrind, which counts the instructions that QEMU executes.
pub const VALGRIND: Need =
    Need { program: VALGRIND_PROGRAM, packages: &["valgrind"], purpose: "count the host's instructions" };

/// ACPICA's compiler, which makes text of the code in ACPI tables.
pub const IASL: Need =
    Need { program: "iasl", packages: &["acpica-tools"], purpose: "compare the code in ACPI tables" };

/// The assembler and its kin, which make kernels that measure (`compare`) and test (`tests/kernels`).
pub const ASSEMBLER: [Need; 2] = [
    Need { program: "as", packages: &["binutils"], purpose: "assemble kernels that measure and test" },
    Need { program: "objcopy", packages: &["binutils"], purpose: "make flat files of them" },
];

/// Everything any command needs.
pub const ALL: [Need; 13] = [
    QEMU,
    BUSYBOX,
    KMOD,
    SEABIOS,
    Need {
        program: "qemu-system-aarch64",
        packages: &["qemu-system-arm"],
        purpose: "test the device with registers in memory",
    },
    ASSEMBLER[0],
    ASSEMBLER[1],
    Need { program: "cc", packages: &["gcc", "libc6-dev"], purpose: "link the programs that run on the host" },
    Need { program: "lz4", packages: &["lz4"], purpose: "unpack the kernel of the default guest" },
    Need { program: "swtpm", packages: &["swtpm"], purpose: "give the tests' guests a TPM" },
    Need { program: "swtpm_setup", packages: &["swtpm-tools"], purpose: "choose the banks of that TPM" },
    VALGRIND,
    IASL,
];

/// What fuzzing needs beside that.
pub const FUZZING: [Need; 1] = [Need { program: "c++", packages: &["g++"], purpose: "build libFuzzer" }];

impl Need {
    /// The program or the file, where it is there.
    pub fn found(&self) -> Option<PathBuf> {
        if self.program.starts_with('/') {
            Some(PathBuf::from(self.program)).filter(|path| path.is_file())
        } else {
            find_program(self.program)
        }
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of package {}", self.program, self.packages.join(", "))
    }
}

/// Why a need is not met.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Lack {
    /// The program is nowhere.
    Absent,
    /// It is there, but not fit; the text says why.
    Unfit(String),
}

/// Sees to it that every need is met, installing what is missing. Returns whether anything was installed.
///
/// # Errors
/// When something is missing and cannot be installed from here, or is still missing after that.
pub fn ensure(needs: &[Need]) -> anyhow::Result<bool> {
    let missing = missing(needs, look_for);
    if missing.is_empty() {
        return Ok(false);
    }
    say("Missing on this machine:");
    for (need, lack) in &missing {
        say(&format!("  {}", describe(need, lack)));
    }
    install(&packages(&missing))?;
    let still: Vec<_> = self::missing(needs, look_for).iter().map(|(need, lack)| describe(need, lack)).collect();
    if !still.is_empty() {
        bail!("still missing after the installation: {}", still.join("; "));
    }
    Ok(true)
}

/// Runs `apt-get update`, and says why.
///
/// # Errors
/// When there is no way to become root, or apt-get fails.
pub fn update_lists(why: &str) -> anyhow::Result<()> {
    let privilege = Privilege::obtain("apt-get update")?;
    run_step(&format!("Updating apt's package lists ({why})"), privilege.apt_get().arg("update"))?;
    Ok(())
}

/// apt's lists have no package of this name.
#[derive(Debug)]
pub struct NotInLists(pub &'static str);

impl std::fmt::Display for NotInLists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "apt knows no package {}", self.0)
    }
}

impl std::error::Error for NotInLists {}

/// Downloads something with `fetch`, and once more with new package lists where that failed: an old list names versions
/// that the archive no longer has.
///
/// # Errors
/// Those of `fetch`. With a full disk there is no second attempt ([`is_disk_full`]).
pub fn download<T>(fetch: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    download_with(fetch, || update_lists("the download failed, and they may be old"))
}

fn download_with<T>(
    mut fetch: impl FnMut() -> anyhow::Result<T>,
    update: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<T> {
    let result = match fetch() {
        Err(error) if !is_disk_full(&error) && !error.is::<NotInLists>() => update().and_then(|()| fetch()),
        result => result,
    };
    result.map_err(|error| if is_disk_full(&error) { error.context(DISK_FULL) } else { error })
}

/// What is said first of a download that found no room.
const DISK_FULL: &str = "the disk is full; make room below the build folder and try again";

/// Whether a step failed as there was no room on the disk. apt and dpkg-deb have two ways to say so; the third is a quota's.
pub fn is_disk_full(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    ["No space left on device", "enough free space", "Disk quota exceeded"].iter().any(|sign| text.contains(sign))
}

/// Whether apt knows of any package at all; a fresh container has no lists.
pub fn has_lists() -> bool {
    let Ok(entries) = fs::read_dir(APT_LISTS) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // The owner of a process's folder in /proc is its effective user.
    fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0)
}

fn missing(needs: &[Need], look_for: impl Fn(&Need) -> Option<Lack>) -> Vec<(Need, Lack)> {
    needs.iter().filter_map(|need| look_for(need).map(|lack| (*need, lack))).collect()
}

fn packages(missing: &[(Need, Lack)]) -> BTreeSet<&'static str> {
    missing.iter().flat_map(|(need, _)| need.packages).copied().collect()
}

fn describe(need: &Need, lack: &Lack) -> String {
    let found = match lack {
        Lack::Absent => String::new(),
        Lack::Unfit(why) => format!(" ({why})"),
    };
    format!("{}, needed to {}{found}: package {}", need.program, need.purpose, need.packages.join(", "))
}

fn look_for(need: &Need) -> Option<Lack> {
    let Some(path) = need.found() else { return Some(Lack::Absent) };
    let unfit = match need.program {
        QEMU_PROGRAM => qemu_unfit(&path),
        "busybox" => busybox_unfit(&path),
        _ => None,
    };
    unfit.map(Lack::Unfit)
}

fn qemu_unfit(path: &Path) -> Option<String> {
    let printed = run_quietly(Command::new(path).arg("--version")).ok()?;
    // A version that cannot be read is no reason to refuse a QEMU someone built.
    let version = qemu_version(&String::from_utf8_lossy(&printed))?;
    (version < OLDEST_QEMU).then(|| {
        let ((major, minor), (least_major, least_minor)) = (version, OLDEST_QEMU);
        format!("{} is version {major}.{minor}, {least_major}.{least_minor} is the oldest that works", path.display())
    })
}

/// The installed QEMU's version, if it can be told.
pub fn installed_qemu() -> Option<(u32, u32)> {
    let printed = run_quietly(Command::new(QEMU_PROGRAM).arg("--version")).ok()?;
    qemu_version(&String::from_utf8_lossy(&printed))
}

/// The version in what `qemu-system-x86_64 --version` prints: "QEMU emulator version 7.2.22 (Debian …)".
pub fn qemu_version(printed: &str) -> Option<(u32, u32)> {
    let mut numbers = printed.split_once("version ")?.1.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn busybox_unfit(path: &Path) -> Option<String> {
    let unfit = match fs::read(path) {
        Ok(bytes) if is_static(&bytes) => return None,
        Ok(_) => "is not a statically linked program".to_owned(),
        Err(error) => format!("cannot be read: {error}"),
    };
    Some(format!("{} {unfit}", path.display()))
}

/// Whether an ELF program asks for no interpreter, that is, for no dynamic linker.
fn is_static(bytes: &[u8]) -> bool {
    let Ok(program) = object::read::elf::ElfFile64::<object::Endianness>::parse(bytes) else { return false };
    let interpreted = program
        .elf_program_headers()
        .iter()
        .any(|header| header.p_type.get(program.endian()) == object::elf::PT_INTERP);
    program.architecture() == object::Architecture::X86_64
        && program.segments().any(|segment| segment.size() > 0)
        && !interpreted
}

fn install(packages: &BTreeSet<&str>) -> anyhow::Result<()> {
    let names: Vec<_> = packages.iter().copied().collect();
    let names = names.join(" ");
    if find_program("apt-get").is_none() {
        bail!(
            "there is no apt-get here, so they cannot be installed by this tool. Install what your distribution has in \
             place of these Debian packages, then try again: {names}"
        );
    }
    let privilege = Privilege::obtain(&format!("apt-get install {names}"))?;
    update_lists("for the installation")?;
    let mut command = privilege.apt_get();
    command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    run_step(&format!("Installing {names}"), &mut command)?;
    Ok(())
}

/// How this process may run apt-get.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Privilege {
    Root,
    Sudo,
}

impl Privilege {
    /// Finds a way to be root, asking for sudo's password now, before a spinner is on the terminal. `wanted` is what
    /// root is needed for, as a command.
    fn obtain(wanted: &str) -> anyhow::Result<Self> {
        if is_root() {
            return Ok(Self::Root);
        }
        let by_hand = |sudo| anyhow!("`{wanted}` needs root, and {sudo}: run it as root, then try again");
        if find_program("sudo").is_none() {
            return Err(by_hand("there is no sudo here"));
        }
        let mut sudo = Command::new("sudo");
        if std::io::stdin().is_terminal() {
            say(&format!("Root is needed (sudo {wanted})."));
            sudo.arg("--validate");
        } else {
            sudo.args(["--non-interactive", "true"]).stdin(Stdio::null());
        }
        let status = sudo.status().context("cannot start sudo")?;
        if !status.success() {
            return Err(by_hand("sudo was refused"));
        }
        Ok(Self::Sudo)
    }

    /// apt-get as root, without questions, waiting for another apt to end.
    fn apt_get(self) -> Command {
        let words = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"];
        let mut command = match self {
            Self::Root => Command::new("env"),
            Self::Sudo => Command::new("sudo"),
        };
        command.args(if self == Self::Root { &words[1..] } else { &words[..] }).stdin(Stdio::null());
        command
    }
}

/// Runs `apt-cache` or `apt-get` as this user, in English.
pub fn apt(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    if is_root() {
        // Without this, apt warns that its sandbox user cannot write where we download to.
        command.args(["-o", "APT::Sandbox::User=root"]);
    }
    command
}

/// Whether apt can look up, download and unpack a package here.
pub fn apt_usable() -> bool {
    ["apt-cache", "apt-get", "dpkg-deb"].iter().all(|program| find_program(program).is_some())
}

/// apt with sources, lists and a cache of its own, so that the machine's stay as they are. It still knows what is installed.
pub struct AptApart {
    folder: PathBuf,
}

impl AptApart {
    /// All of it in `folder`, with these sources (sources.list(5)).
    ///
    /// # Errors
    /// When it cannot be written there.
    pub fn new(folder: &Path, sources: &str) -> anyhow::Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make the folder {}", part.display()))?;
        }
        let file = folder.join("sources.list");
        fs::write(&file, sources).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// An `apt-get` command.
    pub fn get(&self) -> Command {
        let mut command = apt("apt-get");
        command.args(self.options());
        command
    }

    /// The options of apt's programs.
    pub fn options(&self) -> Vec<String> {
        let place = |name: &str| self.folder.join(name).display().to_string();
        let options = [
            ("Dir::Etc::SourceList", place("sources.list")),
            ("Dir::Etc::SourceParts", place("no-more-sources")),
            ("Dir::State::Lists", place("lists")),
            ("Dir::Cache", place("cache")),
            // Descriptions of applications and translations are of no use here.
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            // Nothing of the machine's is written, and only root could lock it.
            ("Debug::NoLocking", "true".to_owned()),
        ];
        options.into_iter().flat_map(|(option, value)| ["-o".to_owned(), format!("{option}={value}")]).collect()
    }
}

/// Unpacks the packages in `folder` into `system`, and returns that.
///
/// # Errors
/// When one cannot be unpacked.
pub fn unpack_all(folder: &Path, system: &Path) -> anyhow::Result<PathBuf> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            run_quietly(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(system))?;
        }
    }
    Ok(system.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Downloads what cannot be had, and gives the error and the numbers of attempts and of updates of the lists.
    fn failed_download(why: impl Fn() -> anyhow::Error) -> (String, u32, u32) {
        let (mut attempts, mut updates) = (0, 0);
        let fetch = || -> anyhow::Result<()> {
            attempts += 1;
            Err(why())
        };
        let update = || {
            updates += 1;
            Ok(())
        };
        let error = download_with(fetch, update).unwrap_err();
        (format!("{error:#}"), attempts, updates)
    }

    #[test]
    fn a_full_disk_is_said_and_nothing_is_downloaded_again() {
        for why in [
            "`apt-get download x` failed (exit status: 100):\nE: You don't have enough free space in /x.",
            "dpkg-deb: error: failed to write: No space left on device",
        ] {
            let (error, attempts, updates) = failed_download(|| anyhow!(why));
            assert_eq!((attempts, updates), (1, 0));
            assert!(error.starts_with("the disk is full") && error.ends_with(why), "{error}");
        }
        // ENOSPC, as the tool itself gets it.
        let (error, ..) = failed_download(|| std::io::Error::from_raw_os_error(28).into());
        assert!(error.starts_with("the disk is full"), "{error}");
    }

    #[test]
    fn an_old_list_is_renewed_once_and_a_package_that_is_in_none_is_not_looked_up_again() {
        let (_, attempts, updates) = failed_download(|| anyhow!("404  Not Found"));
        assert_eq!((attempts, updates), (2, 1));
        let (error, attempts, _) = failed_download(|| NotInLists("x").into());
        assert_eq!((error.as_str(), attempts), ("apt knows no package x", 1));
    }

    #[test]
    fn qemu_versions_are_read_and_compared_as_numbers() {
        assert_eq!(qemu_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright"), Some((7, 2)));
        assert_eq!(qemu_version("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(qemu_version("something else"), None);
        assert!((10, 0) > OLDEST_QEMU);
    }

    #[test]
    fn a_program_with_an_interpreter_is_not_static() {
        let this_test = fs::read("/proc/self/exe").unwrap();
        assert!(!is_static(&this_test));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(b""));
    }
}
