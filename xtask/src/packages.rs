//! The packages that the host needs, and their installation.
//!
//! A program counts as installed if it is found and usable, wherever it came from; the package manager only installs what is
//! missing. Supports apt (Debian, Ubuntu); elsewhere the user gets the names. Programs of crates are compiled below the build folder.

use std::collections::BTreeSet;
use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use object::read::elf::ElfFile64;
use object::{Architecture, Endianness, Object, elf};

use crate::paths::{self, find_program};
use crate::progress::{run_quietly, run_step, say};

/// The oldest QEMU that is supported: Debian 12's.
const OLDEST_QEMU: (u32, u32) = (7, 2);

/// The QEMU program.
pub const QEMU_PROGRAM: &str = "qemu-system-x86_64";

/// A program of the host that some command needs, or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The program's name, or a file's absolute path.
    pub program: &'static str,
    /// The Debian packages that contain it.
    packages: &'static [&'static str],
    /// Its purpose, in words that follow "needed to".
    purpose: &'static str,
}

/// QEMU, which runs the image.
pub const QEMU: Need = Need { program: QEMU_PROGRAM, packages: &["qemu-system-x86"], purpose: "run the image" };

/// busybox, linked statically, because the default guest has no libraries.
pub const BUSYBOX: Need =
    Need { program: "busybox", packages: &["busybox-static"], purpose: "give the default guest its programs" };

/// kmod, which finds the dependencies of a kernel module.
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

/// valgrind, which counts the instructions that QEMU executes.
pub const VALGRIND: Need =
    Need { program: "valgrind", packages: &["valgrind"], purpose: "count the host's instructions" };

/// ACPICA's compiler, which decompiles the code in ACPI tables.
pub const IASL: Need =
    Need { program: "iasl", packages: &["acpica-tools"], purpose: "compare the code in ACPI tables" };

/// The binary utilities, which make kernels for measurements (`tools/measure`) and tests (`tests/kernels`).
pub const ASSEMBLER: [Need; 2] = [
    Need { program: "as", packages: &["binutils"], purpose: "assemble kernels for measurements and tests" },
    Need { program: "objcopy", packages: &["binutils"], purpose: "make flat files of these kernels" },
];

/// A compiler for C.
pub const COMPILER: Need =
    Need { program: "cc", packages: &["gcc", "libc6-dev"], purpose: "link the programs that run on the host" };

/// The needs of all commands except `fuzz`.
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
    COMPILER,
    Need { program: "lz4", packages: &["lz4"], purpose: "unpack the kernel of the default guest" },
    Need { program: "swtpm", packages: &["swtpm"], purpose: "give the tests' guests a TPM" },
    Need { program: "swtpm_setup", packages: &["swtpm-tools"], purpose: "choose the banks of that TPM" },
    VALGRIND,
    IASL,
];

/// What fuzzing needs in addition.
pub const FUZZING: [Need; 1] = [Need { program: "c++", packages: &["g++"], purpose: "build libFuzzer" }];

impl Need {
    /// A program, or a file with its absolute path, of a command that few use. `purpose` follows "needed to".
    pub const fn tool(program: &'static str, packages: &'static [&'static str], purpose: &'static str) -> Self {
        Self { program, packages, purpose }
    }

    /// The path of the program or the file, if it exists.
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

/// Installs what is missing. Returns whether anything was installed.
pub fn ensure(needs: &[Need]) -> anyhow::Result<bool> {
    let missing: Vec<_> = needs.iter().filter_map(|need| Some((need, lack(need)?))).collect();
    if missing.is_empty() {
        return Ok(false);
    }
    say("Missing on this machine:");
    for (_, lack) in &missing {
        say(&format!("  {lack}"));
    }
    let packages: BTreeSet<_> = missing.iter().flat_map(|(need, _)| need.packages).copied().collect();
    let names = packages.into_iter().collect::<Vec<_>>();
    if find_program("apt-get").is_none() {
        bail!(
            "this tool installs packages with apt-get only. Install your distribution's packages for these Debian \
             packages, then try again: {}",
            names.join(" ")
        );
    }
    run_step("Updating apt's package lists", apt_get_as_root("update")?.arg("update"))?;
    let mut install = apt_get_as_root(&format!("install {}", names.join(" ")))?;
    install.args(["install", "--yes", "--no-install-recommends"]).args(&names);
    run_step(&format!("Installing {}", names.join(" ")), &mut install)?;
    let still: Vec<_> = needs.iter().filter_map(lack).collect();
    ensure!(still.is_empty(), "the packages were installed, but these are still missing: {}", still.join("; "));
    Ok(true)
}

/// Whether this process is root.
pub fn is_root() -> bool {
    // The owner of a process's folder in /proc is its effective user.
    fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0)
}

/// If a program is missing or not suitable, a description of it for the user.
fn lack(need: &Need) -> Option<String> {
    let unfit = match need.found() {
        None => String::new(),
        Some(path) if need.program == QEMU_PROGRAM => {
            // A QEMU with an unknown version may be somebody's own build.
            let version = qemu_version(&path).filter(|version| *version < OLDEST_QEMU)?;
            format!(" ({} has version {version:?}, and {OLDEST_QEMU:?} is the oldest that works)", path.display())
        }
        Some(path) if need.program == BUSYBOX.program => {
            if fs::read(&path).is_ok_and(|bytes| is_static(&bytes)) {
                return None;
            }
            format!(" ({} is not a statically linked program)", path.display())
        }
        Some(_) => return None,
    };
    Some(format!("{}, needed to {}{unfit}: package {}", need.program, need.purpose, need.packages.join(", ")))
}

/// The version of a QEMU program, if it is known.
pub fn qemu_version(program: &Path) -> Option<(u32, u32)> {
    let printed = run_quietly(Command::new(program).arg("--version")).ok()?;
    // "QEMU emulator version 7.2.22 (Debian …)"
    let mut numbers = printed.split_once("version ")?.1.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether an x86-64 ELF program has no interpreter, so that it needs no dynamic linker.
fn is_static(bytes: &[u8]) -> bool {
    ElfFile64::<Endianness>::parse(bytes).is_ok_and(|program| {
        let mut headers = program.elf_program_headers().iter();
        program.architecture() == Architecture::X86_64
            && headers.all(|header| header.p_type.get(program.endian()) != elf::PT_INTERP)
    })
}

/// A command that runs apt-get as root. It asks no questions, and waits for another apt to end. sudo asks for its password now,
/// before a spinner is on the terminal. `wanted` has the arguments, for the user.
fn apt_get_as_root(wanted: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(if is_root() { "env" } else { "sudo" });
    if !is_root() {
        let by_hand = |why| format!("`apt-get {wanted}` needs root, and {why}; run it as root, then try again");
        ensure!(find_program("sudo").is_some(), by_hand("sudo is not installed"));
        let mut sudo = Command::new("sudo");
        if std::io::stdin().is_terminal() {
            say(&format!("Root is needed (sudo apt-get {wanted})."));
            sudo.arg("--validate");
        } else {
            sudo.args(["--non-interactive", "true"]).stdin(Stdio::null());
        }
        ensure!(sudo.status().context("cannot start sudo")?.success(), by_hand("sudo failed"));
        command.arg("env");
    }
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=120"]).stdin(Stdio::null());
    Ok(command)
}

/// The path of the program that a crate of this version has by its name. It is compiled at the first use, with more `options` of
/// `cargo install`.
///
/// # Errors
/// If it cannot be compiled.
pub fn of_crate(name: &str, version: &str, options: &[&str]) -> anyhow::Result<PathBuf> {
    let folder = paths::target().join("tools").join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    if !program.is_file() {
        let mut install = paths::cargo();
        install.args(["install", name, "--version", version, "--locked", "--root"]).arg(&folder).args(options);
        let what = format!("Installing {name} {version} into {}, which takes minutes", paths::shown(&folder));
        run_step(&what, &mut install)?;
    }
    Ok(program)
}
