//! Programs for the guest that are not in busybox: `dmidecode` and `lspci`, with the libraries they load.
//!
//! They come from Debian's packages, downloaded and unpacked once without installing them, like the kernel. Without apt, the
//! programs installed on this machine are used. A program's dynamic section names its libraries. A library is put at the path
//! where it was found, because the dynamic loader that comes with it searches there. The archive is `target/guest/tools-….cpio`;
//! remove it to get the newest packages.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use object::elf;
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader};

use crate::progress::{run_quietly, run_step};
use crate::{guest, initramfs, packages, paths};

/// Each program, and the Debian package that brings it.
const PROGRAMS: [(&str, &str); 2] = [("dmidecode", "dmidecode"), ("lspci", "pciutils")];

/// Where a system has its programs, below its top folder.
const PROGRAM_FOLDERS: [&str; 4] = ["usr/sbin", "usr/bin", "sbin", "bin"];

/// Where a dynamic loader looks without being told, Debian's first.
const LIBRARY_FOLDERS: [&str; 6] =
    ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"];

/// More libraries than this no program of these has.
const MOST_FILES: usize = 100;

/// Gets the archive of the programs ready.
///
/// # Errors
/// When they are not to be had, or a file cannot be read or written.
pub fn prepare() -> anyhow::Result<PathBuf> {
    let folder = paths::guest_folder();
    let _lock = guest::lock(&folder)?;
    let names: Vec<_> = PROGRAMS.iter().map(|(program, _)| *program).collect();
    let archive = folder.join(format!("tools-{}.cpio", names.join("-")));
    if archive.is_file() {
        return Ok(archive);
    }
    let partial = folder.join("partial-tools");
    guest::remake(&partial)?;
    let files = match download(&partial) {
        Ok(system) => collect(&system, &names)?,
        Err(error) if packages::is_disk_full(&error) => return Err(error),
        Err(why_not_apt) => collect(Path::new("/"), &names).map_err(|error| {
            anyhow!("the guest's programs are not to be had: by apt: {why_not_apt:#}; from this machine: {error:#}")
        })?,
    };
    guest::write_if_changed(&archive, &initramfs::pack_programs(&files)?)?;
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    Ok(archive)
}

/// Downloads the packages and all they depend on into `folder`, and unpacks them. Returns the top folder of what was
/// unpacked.
fn download(folder: &Path) -> anyhow::Result<PathBuf> {
    if !packages::apt_usable() {
        bail!("apt is not there to download with");
    }
    if !packages::has_lists() {
        packages::update_lists("there are none yet, and the guest's programs are looked up there")?;
    }
    let fetch = || -> anyhow::Result<()> {
        let mut command = packages::apt("apt-get");
        command.arg("download").args(closure()?).current_dir(folder);
        run_step("Downloading the guest's programs, dmidecode and lspci", &mut command).map(drop)
    };
    packages::download(fetch)?;
    packages::unpack_all(folder, &folder.join("system"))
}

/// The packages of the programs, and those they depend on.
fn closure() -> anyhow::Result<Vec<String>> {
    let mut command = packages::apt("apt-cache");
    command.args(["depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts"]);
    command.args(["--no-breaks", "--no-replaces", "--no-enhances"]);
    command.args(PROGRAMS.map(|(_, package)| package));
    let printed = run_quietly(&mut command)?;
    let packages = packages_in(&String::from_utf8_lossy(&printed));
    ensure!(!packages.is_empty(), "apt knows no packages dmidecode and pciutils");
    Ok(packages)
}

/// The packages in what `apt-cache depends --recurse` prints: each on a line of its own, then its dependencies,
/// indented. Virtual ones stand in angle brackets.
fn packages_in(printed: &str) -> Vec<String> {
    let lines = printed.lines().filter(|line| !line.is_empty() && !line.starts_with([' ', '<']));
    lines.map(|line| line.split(':').next().unwrap_or(line).to_owned()).collect()
}

/// The programs `names` of the system with the top folder `system`, and what they load: each file's path in the guest
/// and its bytes.
fn collect(system: &Path, names: &[&str]) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut wanted: Vec<_> = names.iter().map(|name| (PROGRAM_FOLDERS.as_slice(), (*name).to_owned())).collect();
    while let Some((folders, name)) = wanted.pop() {
        let place = folders.iter().map(|folder| format!("{folder}/{name}")).find(|path| system.join(path).is_file());
        let place = place.with_context(|| format!("there is no {name} below {}", system.display()))?;
        if files.contains_key(&place) {
            continue;
        }
        ensure!(files.len() < MOST_FILES, "{} need more than {MOST_FILES} files", names.join(", "));
        let path = system.join(&place);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let loads = loads(&bytes).with_context(|| format!("{} is no program or library", path.display()))?;
        wanted.extend(loads.libraries.into_iter().map(|library| (LIBRARY_FOLDERS.as_slice(), library)));
        if let Some(interpreter) = loads.interpreter {
            let interpreter = interpreter.trim_start_matches('/').to_owned();
            let path = [system.join(&interpreter), Path::new("/").join(&interpreter)].into_iter().find(|p| p.is_file());
            let path = path.with_context(|| format!("there is no /{interpreter}"))?;
            files.insert(interpreter, fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
        files.insert(place, bytes);
    }
    Ok(files)
}

/// What a program or library needs to be loaded.
#[derive(Debug, Default)]
struct Loads {
    /// The dynamic loader's path; a library names none.
    interpreter: Option<String>,
    /// The names of libraries.
    libraries: Vec<String>,
}

/// Reads the program headers and the dynamic section (System V ABI, chapter 5, "Program Loading and Dynamic Linking").
fn loads(bytes: &[u8]) -> anyhow::Result<Loads> {
    let file = ElfFile64::<object::Endianness>::parse(bytes)?;
    let (endian, header) = (file.endian(), file.elf_header());
    let mut loads = Loads::default();
    for segment in header.program_headers(endian, bytes)? {
        if let Some(path) = segment.interpreter(endian, bytes)? {
            loads.interpreter = Some(String::from_utf8_lossy(path).into_owned());
        }
    }
    let sections = header.sections(endian, bytes)?;
    if let Some((entries, strings)) = sections.dynamic(endian, bytes)? {
        let strings = sections.strings(endian, bytes, strings)?;
        for entry in entries.iter().filter(|entry| entry.tag(endian) == elf::DT_NEEDED) {
            loads.libraries.push(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned());
        }
    }
    Ok(loads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_comes_with_its_loader_and_its_libraries() {
        // This test is itself a program with a dynamic loader and the C library.
        let loads = loads(&fs::read("/proc/self/exe").unwrap()).unwrap();
        assert!(loads.interpreter.unwrap().contains("ld-linux"));
        assert!(loads.libraries.iter().any(|name| name == "libc.so.6"), "{:?}", loads.libraries);
    }
}
