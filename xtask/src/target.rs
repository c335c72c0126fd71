//! The target that the firmware is built for.
//!
//! It is `x86_64-unknown-none`: no vector registers, no red zone, no operating system. The compiler needs `core` and `alloc`
//! for it, and not every machine has them. There are three ways, and the first that works is taken:
//!
//! 1. rustup has the target, or downloads it.
//! 2. `core` and `alloc` are built from their sources. The sources have to be those of the compiler: the toolchain's
//!    component `rust-src`, or Debian's package of the same version, unpacked below `target/` without being installed.
//! 3. The host's own target is used, with vector registers turned off by flags. The compiler warns that these flags will be an
//!    error one day (rust-lang/rust, issue 116344).
//!
//! The EFI program of the tests (`tests/efi-app`) is for `x86_64-unknown-uefi`, by the first two ways.
//!
//! The result of ways 2 and 3 is kept in `target/rust-src`. Removing that folder starts over. After way 3, all are tried again after
//! a day. The path of the sources goes into the hashes of symbol names, so in way 2 the same bytes take the same folder of sources.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};

use crate::apt::{self, Apart};
use crate::paths::{self, shown};
use crate::progress::{run_quietly, run_step};

/// Rust's name of UEFI's target.
pub const EFI: &str = "x86_64-unknown-uefi";

/// Rust's names of the two targets of the firmware.
const BARE: &str = "x86_64-unknown-none";
const HOST: &str = "x86_64-unknown-linux-gnu";

/// The Debian package with the sources of the standard library, and the release whose backports have it.
const PACKAGE: &str = "rust-src";
const RELEASE: &str = "trixie";

/// The file in `target/rust-src/VERSION` with the reason why there are no sources, and how long it is valid.
const REASON: &str = "none";
const VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// A target, and where its `core` and `alloc` come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `x86_64-unknown-none`, as rustup installs it.
    Bare,
    /// `x86_64-unknown-none`, with the standard library's sources in this folder.
    BareFromSources(PathBuf),
    /// The host's own target, and why it is not `x86_64-unknown-none`.
    Host(String),
}

impl Target {
    /// Tries the three ways, and returns the first that works here.
    pub fn choose() -> anyhow::Result<Self> {
        let compiler = Compiler::installed()?;
        if compiler.has(BARE) {
            return Ok(Self::Bare);
        }
        let folder = paths::target().join("rust-src");
        let _lock = paths::lock(&folder)?;
        let folder = folder.join(&compiler.version);
        if let Some(known) = Self::known(&folder) {
            return Ok(known);
        }
        let by_rustup = match add_by_rustup(&compiler, BARE) {
            Ok(()) => return Ok(Self::Bare),
            Err(error) => error,
        };
        paths::remake(&folder)?;
        let by_sources = match find_sources(&compiler, &folder) {
            Ok(library) => return Ok(Self::BareFromSources(library)),
            Err(error) => error,
        };
        let why = format!("no {BARE} by rustup: {by_rustup:#}; no {PACKAGE} {}: {by_sources:#}", compiler.version);
        paths::remake(&folder)?;
        fs::write(folder.join(REASON), &why).with_context(|| format!("cannot write to {}", shown(&folder)))?;
        Ok(Self::Host(why))
    }

    /// The result of an earlier run.
    fn known(folder: &Path) -> Option<Self> {
        let library = folder.join("library");
        if library.join("core").is_dir() {
            return fs::canonicalize(library).ok().map(Self::BareFromSources);
        }
        let reason = folder.join(REASON);
        let age = fs::metadata(&reason).ok()?.modified().ok()?.elapsed().ok()?;
        (age < VALID).then(|| fs::read_to_string(&reason).ok().map(Self::Host)).flatten()
    }

    /// Rust's name of the target.
    pub fn triple(&self) -> &'static str {
        match self {
            Self::Bare | Self::BareFromSources(_) => BARE,
            Self::Host(_) => HOST,
        }
    }

    /// The compiler flags that only this target needs.
    pub fn flags(&self) -> Vec<String> {
        match self {
            Self::Bare => Vec::new(),
            // The same bytes in whatever folder the sources are. Cargo shortens paths inside the repository.
            Self::BareFromSources(library) => [library, library.strip_prefix(paths::root()).unwrap_or(library)]
                .map(|path| format!("--remap-path-prefix={}=library", path.display()))
                .into_iter()
                // `RUSTC_BOOTSTRAP` also changes the symbols' names, which are in order.ld.
                .chain(["-Zunstable-options", "-Csymbol-mangling-version=legacy"].map(str::to_owned))
                .collect(),
            Self::Host(_) => [
                // The program is linked into the top 2 GiB of the address space (linker.ld).
                "-Ccode-model=kernel",
                // No vector registers: the firmware does not enable them, and hosts that emulate ring 0 lack them.
                "-Ctarget-feature=-sse,-sse2",
                // An exception handler runs on the interrupted stack.
                "-Cno-redzone=yes",
            ]
            .map(str::to_owned)
            .into(),
        }
    }

    /// Makes `cargo` build for this target.
    pub fn apply(&self, cargo: &mut Command) {
        cargo.args(["--target", self.triple()]);
        if let Self::BareFromSources(library) = self {
            // With the first variable, which is for cargo's own tests, cargo takes other sources than the toolchain's. The
            // second one lets the stable compiler build them.
            cargo.arg("-Zbuild-std=core,alloc");
            cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library).env("RUSTC_BOOTSTRAP", "1");
            // As in rustup's files, code of `core` that is not inlined has no overflow checks.
            for package in ["core", "alloc", "compiler_builtins"] {
                cargo.args(["--config", &format!("profile.firmware.package.{package}.overflow-checks=false")]);
            }
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bare => write!(f, "{BARE}"),
            Self::BareFromSources(library) => write!(f, "{BARE}, with core and alloc from {}", shown(library)),
            Self::Host(why) => write!(f, "{HOST} ({why})"),
        }
    }
}

/// The compiler that builds the firmware.
struct Compiler {
    /// Its version, such as "1.95.0".
    version: String,
    /// The folder of its toolchain.
    sysroot: PathBuf,
}

impl Compiler {
    fn installed() -> anyhow::Result<Self> {
        let ask = |argument: &[&str]| -> anyhow::Result<String> {
            // In the repository, where rustup follows rust-toolchain.toml.
            Ok(run_quietly(Command::new("rustc").current_dir(paths::root()).args(argument))?.trim().to_owned())
        };
        // "rustc 1.95.0 (59807616e 2026-04-14)"
        let printed = ask(&["--version"])?;
        let version = printed.split(' ').nth(1).context("`rustc --version` prints no version")?.to_owned();
        Ok(Self { version, sysroot: ask(&["--print", "sysroot"])?.into() })
    }

    fn has(&self, triple: &str) -> bool {
        self.sysroot.join("lib/rustlib").join(triple).join("lib").is_dir()
    }

    /// The path of the component `rust-src`. May not exist.
    fn library(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust/library")
    }
}

/// Makes rustup download a target.
fn add_by_rustup(compiler: &Compiler, triple: &str) -> anyhow::Result<()> {
    ensure!(paths::find_program("rustup").is_some(), "rustup is not installed");
    let mut command = Command::new("rustup");
    command.current_dir(paths::root()).args(["target", "add", triple]);
    run_step(&format!("Adding the target {triple} with rustup, to build for it"), &mut command)
        .map_err(|error| anyhow!("{}", last_line(&error)))?;
    ensure!(compiler.has(triple), "rustup added the target, but not to this rustc");
    Ok(())
}

/// Makes `cargo` build for UEFI's target.
///
/// # Errors
/// If rustup does not have the target, and the standard library's sources are not there.
pub fn apply_efi(cargo: &mut Command) -> anyhow::Result<()> {
    cargo.args(["--target", EFI]);
    let compiler = Compiler::installed()?;
    if compiler.has(EFI) {
        return Ok(());
    }
    let folder = paths::target().join("rust-src");
    let _lock = paths::lock(&folder)?;
    let Err(by_rustup) = add_by_rustup(&compiler, EFI) else { return Ok(()) };
    let folder = folder.join(&compiler.version);
    let library = match Target::known(&folder) {
        Some(Target::BareFromSources(library)) => library,
        Some(Target::Host(why)) => bail!("no {EFI} by rustup: {by_rustup:#}; {why}"),
        _ => {
            paths::remake(&folder)?;
            find_sources(&compiler, &folder).with_context(|| format!("no {EFI} by rustup: {by_rustup:#}"))?
        }
    };
    cargo.args(["-Zbuild-std=core,alloc,compiler_builtins", "-Zbuild-std-features=compiler-builtins-mem"]);
    cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library).env("RUSTC_BOOTSTRAP", "1");
    Ok(())
}

/// The last line of an error, which is the last line that the failed command printed.
fn last_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

/// Makes `folder/library` a link to the sources of this compiler's standard library. Returns their path.
fn find_sources(compiler: &Compiler, folder: &Path) -> anyhow::Result<PathBuf> {
    let library = folder.join("library");
    let own = compiler.library();
    let found = if own.join("core").is_dir() { own } else { download(&compiler.version, folder)? };
    symlink(&found, &library).with_context(|| format!("cannot make {}", shown(&library)))?;
    // Without links, so that the same sources have one path.
    fs::canonicalize(&library).with_context(|| format!("cannot find {}", shown(&library)))
}

/// Downloads the sources from Debian's backports, and unpacks them.
fn download(version: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    let apt = Apart::new(folder, &apt::backports_of(RELEASE))?;
    let fetch = || {
        apt.update(&format!("{PACKAGE} in Debian's {RELEASE}-backports"))?;
        apt.download(&format!("{PACKAGE} {version}, to build core and alloc"), &[&format!("{PACKAGE}={version}+*")])
    };
    let system = fetch().map_err(|error| anyhow!("{}", last_line(&error)))?;
    let library = system.join(format!("usr/src/rustc-{version}/library"));
    ensure!(library.join("core").is_dir(), "Debian's package has no {}", library.display());
    Ok(library)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_reused_and_a_reason_for_none_is_valid_for_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(Target::known(folder), None);
        let reason = folder.join(REASON);
        fs::write(&reason, "no network").unwrap();
        assert_eq!(Target::known(folder), Some(Target::Host("no network".to_owned())));
        let before = std::time::SystemTime::now() - VALID;
        fs::File::options().write(true).open(&reason).unwrap().set_modified(before).unwrap();
        assert_eq!(Target::known(folder), None);
        fs::create_dir_all(folder.join("elsewhere/core")).unwrap();
        symlink(folder.join("elsewhere"), folder.join("library")).unwrap();
        let library = fs::canonicalize(folder.join("elsewhere")).unwrap();
        assert_eq!(Target::known(folder), Some(Target::BareFromSources(library)));
    }

    #[test]
    fn the_toolchains_sources_are_used_before_others_are_downloaded() {
        let folder = tempfile::tempdir().unwrap();
        let compiler = Compiler { version: "1.95.0".to_owned(), sysroot: folder.path().join("toolchain") };
        assert!(!compiler.has(BARE));
        fs::create_dir_all(compiler.library().join("core")).unwrap();
        let library = find_sources(&compiler, folder.path()).unwrap();
        assert_eq!(fs::canonicalize(library).unwrap(), fs::canonicalize(compiler.library()).unwrap());
    }
}
