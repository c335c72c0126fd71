//! Programs for the guest that are not in busybox: `dmidecode`, `lspci` and `kexec`, with the libraries they load.
//!
//! They come from Debian's packages. Without apt, the programs installed on this machine are used. The dynamic loader lists the
//! libraries of a program. A library has the same path in the guest. The archive is `target/guest/tools-….cpio`; remove it to get
//! the newest packages.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, ensure};

use crate::apt::{self, Apart};
use crate::progress::run_quietly;
use crate::{initramfs, paths};

/// Each program, and its Debian package.
const PROGRAMS: [(&str, &str); 3] = [("dmidecode", "dmidecode"), ("lspci", "pciutils"), ("kexec", "kexec-tools")];

/// Where a system has its programs, below its top folder.
const PROGRAM_FOLDERS: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

/// Where Debian's dynamic loader finds libraries by itself.
const LIBRARY_FOLDERS: [&str; 2] = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"];

/// The dynamic loader's path (System V ABI, AMD64 supplement, "Program Interpreter").
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// Returns the path of the archive with the programs. Makes it if necessary.
pub fn prepare() -> anyhow::Result<PathBuf> {
    let names: Vec<_> = PROGRAMS.iter().map(|(program, _)| *program).collect();
    let archive = paths::guest_folder().join(format!("tools-{}.cpio", names.join("-")));
    apt::kept(&archive, |partial| {
        let files = match download(partial) {
            Ok(system) => collect(&system)?,
            Err(error) if apt::is_disk_full(&error) => return Err(error),
            Err(why_not_apt) => collect(Path::new("/")).map_err(|error| {
                anyhow!("the guest's programs are missing: from apt: {why_not_apt:#}; from this machine: {error:#}")
            })?,
        };
        let packed = partial.join("archive");
        fs::write(&packed, initramfs::pack_programs(&files)?).context("cannot write the guest's programs")?;
        Ok(packed)
    })?;
    Ok(archive)
}

/// Downloads the packages of the programs, and those they depend on, into `folder`. Returns the top folder of their files.
fn download(folder: &Path) -> anyhow::Result<PathBuf> {
    let apt = Apart::here()?;
    let mut command = apt.command("apt-cache");
    command.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts"]);
    command.args(["--no-breaks", "--no-replaces", "--no-enhances"]);
    command.args(PROGRAMS.map(|(_, package)| package));
    let printed = run_quietly(&mut command)?;
    // Each package has a line, followed by its dependencies, indented. Virtual packages are in angle brackets.
    let lines = printed.lines().filter(|line| !line.is_empty() && !line.starts_with([' ', '<']));
    let packages: Vec<_> = lines.map(|line| line.split(':').next().unwrap_or(line)).collect();
    ensure!(!packages.is_empty(), "apt knows no package dmidecode, pciutils or kexec-tools");
    apt.download_to(folder, "the guest's programs, dmidecode, lspci and kexec", &packages)
}

/// The programs of the system with the top folder `system`, their libraries and their loader: the path in the guest and the bytes.
fn collect(system: &Path) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let loader = [system.join(LOADER), Path::new("/").join(LOADER)].into_iter().find(|path| path.is_file());
    let loader = loader.with_context(|| format!("there is no /{LOADER}"))?;
    let libraries = LIBRARY_FOLDERS.map(|folder| system.join(folder).display().to_string()).join(":");
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let mut files = BTreeMap::from([(LOADER.to_owned(), read(&loader)?)]);
    let mut add = |path: &Path| -> anyhow::Result<()> {
        let place = path.strip_prefix(system).with_context(|| format!("{} is not a guest's file", path.display()))?;
        files.insert(place.display().to_string(), read(path)?);
        Ok(())
    };
    for (name, _) in PROGRAMS {
        let program =
            PROGRAM_FOLDERS.map(|folder| system.join(folder).join(name)).into_iter().find(|path| path.is_file());
        let program = program.with_context(|| format!("there is no {name} below {}", system.display()))?;
        add(&program)?;
        let printed = run_quietly(Command::new(&loader).args(["--library-path", &libraries, "--list"]).arg(&program))?;
        // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0c2a000000)`
        for line in printed.lines() {
            let found = line.split_once(" => ").and_then(|(_, rest)| Some(rest.rsplit_once(" (0x")?.0));
            if let Some(library) = found.filter(|path| !path.ends_with(LOADER)) {
                add(Path::new(library))?;
            }
        }
    }
    Ok(files)
}
