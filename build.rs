//! Passes the target's name, the version and its date to the library, the linker scripts to the firmware and to the EFI runtime
//! services, and the image of these services to the firmware, which includes it.

use std::path::PathBuf;
use std::{env, fs};

#[path = "src/image_size.rs"]
mod image_size;

/// The variable with the path of the runtime services' image.
const RUNTIME: &str = "FIRSTLIGHT_RUNTIME";
/// The variables with the commit of the sources and with its date, such as 2026-11-30. `cargo xtask` sets them for the image.
/// Without them, as in tests, the date is that of the version in [`CHANGELOG`].
const COMMIT: &str = "FIRSTLIGHT_COMMIT";
const DATE: &str = "FIRSTLIGHT_DATE";
/// The file whose newest heading has the version and its date: `## [0.2.0] - 2026-11-30`.
const CHANGELOG: &str = "CHANGELOG.md";

fn main() {
    // This script is that of two packages: the library's, with the runtime services, and the binary's, two folders below.
    let is_binary = variable("CARGO_PKG_NAME") == "firstlight-firmware";
    let folder = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let root =
        folder.ancestors().nth(if is_binary { 2 } else { 0 }).expect("the repository's folder").display().to_string();
    for file in ["build.rs", "linker.ld", "order.ld", "src/image_size.rs", "src/firmware/runtime/runtime.ld"] {
        println!("cargo::rerun-if-changed={root}/{file}");
    }
    println!("cargo::rustc-env=FIRSTLIGHT_TARGET={}", variable("TARGET"));
    if is_binary {
        include_runtime_services(&variable("OUT_DIR"));
    } else {
        pass_version(&root);
    }
    if is_binary && env::var_os("CARGO_FEATURE_FIRMWARE").is_some() {
        let program = Program::new("firstlight");
        if !program.is_direct {
            program.pass("-no-pie");
        }
        // The directory of the files that linker.ld includes.
        program.pass(&format!("-L{root}"));
        program.pass("-static");
        program.pass_to_linker(&format!("--defsym=IMAGE_SIZE={}", image_size::IMAGE_SIZE));
        program.link(&format!("{root}/linker.ld"));
    }
    if env::var_os("CARGO_FEATURE_RUNTIME_SERVICES").is_some() {
        let program = Program::new("firstlight-runtime");
        if !program.is_direct {
            program.pass("-static-pie");
        }
        program.link(&format!("{root}/src/firmware/runtime/runtime.ld"));
    }
}

fn variable(name: &str) -> String {
    env::var(name).expect("cargo sets the variables of build scripts")
}

/// Passes the version with its commit, and the date in the form of SMBIOS.
fn pass_version(root: &str) {
    println!("cargo::rerun-if-env-changed={COMMIT}");
    println!("cargo::rerun-if-env-changed={DATE}");
    println!("cargo::rerun-if-changed={CHANGELOG}");
    let version = variable("CARGO_PKG_VERSION");
    let commit = env::var(COMMIT).unwrap_or_else(|_| "unknown commit".to_owned());
    println!("cargo::rustc-env=FIRSTLIGHT_VERSION={version} ({commit})");
    let date = env::var(DATE).unwrap_or_else(|_| {
        let changes = fs::read_to_string(format!("{root}/{CHANGELOG}")).expect("the changelog");
        let heading = format!("## [{version}] - ");
        let date = changes.lines().find_map(|line| line.strip_prefix(&heading));
        date.unwrap_or_else(|| panic!("{CHANGELOG} has no line that begins with `{heading}`")).to_owned()
    });
    let parts: Vec<_> = date.split('-').collect();
    let &[year, month, day] = parts.as_slice() else { panic!("{date} is no date like 2026-11-30") };
    println!("cargo::rustc-env=FIRSTLIGHT_RELEASE_DATE={month}/{day}/{year}");
}

/// A program that is linked by a script of its own.
struct Program {
    name: &'static str,
    /// For a target without an operating system, rustc calls the linker itself; otherwise it calls the C compiler to link.
    is_direct: bool,
}

impl Program {
    fn new(name: &'static str) -> Self {
        Self { name, is_direct: variable("CARGO_CFG_TARGET_OS") == "none" }
    }

    fn pass(&self, argument: &str) {
        println!("cargo::rustc-link-arg-bin={}={argument}", self.name);
    }

    fn pass_to_linker(&self, argument: &str) {
        self.pass(&if self.is_direct { argument.to_owned() } else { format!("-Wl,{argument}") });
    }

    /// Passes the script, and what both programs need.
    fn link(&self, script: &str) {
        if !self.is_direct {
            ["-nostdlib", "-nostartfiles"].into_iter().for_each(|argument| self.pass(argument));
        }
        self.pass(&format!("-T{script}"));
        for argument in ["--build-id=none", "--no-dynamic-linker", "-znorelro", "-zmax-page-size=4096"] {
            self.pass_to_linker(argument);
        }
    }
}

/// Writes what the firmware includes: the image of the runtime services, or nothing where it is only checked or tested.
fn include_runtime_services(out: &str) {
    println!("cargo::rerun-if-env-changed={RUNTIME}");
    let image = env::var_os(RUNTIME).map(|path| {
        println!("cargo::rerun-if-changed={}", path.display());
        fs::read(&path).unwrap_or_else(|error| panic!("{RUNTIME} names {}: {error}", path.display()))
    });
    fs::write(format!("{out}/runtime.bin"), image.unwrap_or_default())
        .expect("cargo makes the folder for build scripts");
}
