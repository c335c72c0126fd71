//! `cargo xtask test`: everything that must pass, the quick steps first.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::progress::{command_line, say, shell_word};
use crate::{
    child, clients, efi_app, efi_programs, faults, guest, guest_programs, image, newer_qemu, packages, paths,
    test_kernels,
};

/// The most QEMU tests at a time. More do not help, because each has up to two busy CPUs.
const MOST_QEMU_TESTS_AT_ONCE: usize = 8;

/// The variable with the program through which cargo starts tests (The Cargo Book, "Configuration",
/// `target.<triple>.runner`), and a program that ends them with cargo.
const RUNNER: (&str, &str) = ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "setpriv --pdeathsig KILL --");

/// The boots whose calls are compared with those under OVMF. `cargo xtask efi-diff` compares more.
const COMPARED: &str = "c-uki257 a-sdboot257";

/// The toolchain that has sanitizers.
const NIGHTLY: &str = "nightly";
/// The tests that run with one have a name that contains one of these: parsers, `tests/memory.rs` and `tests/heap.rs`.
const SANITIZED: [&str; 8] =
    ["acpi::", "boot::", "fw_cfg::", "heap::", "mem", "smbios::", "tables::", "the_machine_touches"];

/// Run all checks and tests
///
/// The steps are format, clippy, host tests, fuzz targets, documentation, tests under AddressSanitizer, table of supported
/// kernels, crates, image, KVM tests, faults, files of a release, budget, QEMU tests, the quick recipes of docs/clients.md, parity
/// and the calls of boot loaders. Installs missing programs first. Stops at the first step that fails, and prints the command that
/// repeats it.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out all steps that need QEMU or the default guest
    #[arg(long)]
    no_qemu: bool,

    /// Boot every disk from every bus and on every machine, which takes an hour; by default, a choice is booted
    #[arg(long)]
    all_disks: bool,

    /// Run only the tests whose name contains this, and no other steps
    filter: Option<String>,
}

/// One command that must succeed.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    name: &'static str,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Step {
    fn new(name: &'static str, arguments: &str) -> Self {
        let arguments = arguments.split(' ').map(str::to_owned).collect();
        Self { name, arguments, environment: Vec::new() }
    }

    fn with(mut self, variable: &str, value: String) -> Self {
        self.environment.push((variable.to_owned(), value));
        self
    }

    /// The step as a user can type it.
    fn typed(&self) -> String {
        let mut words: Vec<_> =
            self.environment.iter().map(|(variable, value)| format!("{variable}={}", shell_word(value))).collect();
        words.push(command_line(Command::new("cargo").args(&self.arguments)));
        words.join(" ")
    }

    fn run(&self) -> anyhow::Result<()> {
        self.run_as(paths::cargo(), &self.typed())
    }

    /// The step as a command that ends together with this program, as do the tests that it starts.
    fn tied(&self, mut command: Command) -> Command {
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env(RUNNER.0, RUNNER.1);
        child::tied(&command)
    }

    /// Runs the step with the nightly compiler, or says that there is none.
    fn run_with_nightly(&self) -> anyhow::Result<()> {
        let mut rustc = Command::new("rustup");
        rustc.args(["run", NIGHTLY, "rustc", "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
        if !rustc.status().is_ok_and(|status| status.success()) {
            say(&format!("\n==> {}: skipped: no {NIGHTLY} compiler (rustup toolchain install {NIGHTLY})", self.name));
            return Ok(());
        }
        let mut command = Command::new("rustup");
        command.current_dir(paths::root()).args(["run", NIGHTLY, "cargo"]);
        self.run_as(command, &self.typed().replacen(" cargo ", &format!(" cargo +{NIGHTLY} "), 1))
    }

    fn run_as(&self, command: Command, typed: &str) -> anyhow::Result<()> {
        say(&format!("\n==> {}: {typed}", self.name));
        let status = self.tied(command).status().context("cannot start cargo")?;
        if !status.success() {
            bail!("the step `{}` failed; to repeat it: {typed}", self.name);
        }
        Ok(())
    }
}

/// How long each step took.
struct Times(Vec<(&'static str, Duration)>);

impl Times {
    fn timed<T>(&mut self, name: &'static str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let start = Instant::now();
        let result = work();
        self.0.push((name, start.elapsed()));
        result
    }

    /// A step that is a command of `tools/measure`.
    fn xtask(&mut self, name: &'static str, command: &str) -> anyhow::Result<()> {
        self.timed(name, || Step::new(name, &format!("xtask {command}")).run())
    }

    /// A step that is a command of this tool.
    fn command<T>(&mut self, name: &'static str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        say(&format!("\n==> {name}: cargo xtask {name}"));
        let failed = || format!("the step `{name}` failed; to repeat it: cargo xtask {name}");
        self.timed(name, work).with_context(failed)
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut times = Times(Vec::new());
    let result = run_all(args, &mut times);
    say("");
    for (name, taken) in &times.0 {
        say(&format!("{name:<14} {:>7.1} s", taken.as_secs_f64()));
    }
    let total = times.0.iter().map(|(_, taken)| taken.as_secs_f64()).sum::<f64>();
    say(&if result.is_ok() {
        format!("All steps passed in {total:.1} s.")
    } else {
        format!("Stopped after {total:.1} s.")
    });
    result
}

fn run_all(args: &Args, times: &mut Times) -> anyhow::Result<()> {
    let filter = args.filter.as_deref();
    if !args.no_qemu {
        times.timed("installation", || packages::ensure(&packages::ALL))?;
    }
    for step in host_steps(filter) {
        times.timed(step.name, || step.run())?;
    }
    times.timed("sanitizer", || sanitizer_step(filter).run_with_nightly())?;
    if filter.is_none() {
        times.xtask("support", "support --check")?;
        times.timed("crates", check_crates)?;
    }
    let image = times.command("image", || {
        let image = image::build()?;
        image::inspect(&image, false).map(|()| image)
    })?;
    let with_image = |step: Step, elf: &Path| {
        step.with("FIRSTLIGHT_IMAGE", image.bin.display().to_string()).with("FIRSTLIGHT_ELF", elf.display().to_string())
    };
    let step = with_image(kvm_step(filter), &image.stripped);
    times.timed(step.name, || step.run())?;
    if filter.is_none() {
        times.command("faults", || faults::check(&image.bin, None))?;
    }
    if args.no_qemu {
        return Ok(());
    }
    if filter.is_none() {
        // Without the list of crates, whose tool takes minutes to compile.
        times.xtask("release files", "dist --no-sbom")?;
        times.xtask("budget", "budget")?;
    }
    let prepare = || -> anyhow::Result<_> {
        let guest = guest::prepare()?;
        Ok((guest.initrd_with(&guest_programs::prepare()?)?, guest::console_kernel()?.image, guest))
    };
    let guest = times.timed("default guest", || prepare().context("cannot prepare the default guest"))?;
    let (initrd_with_tools, console_kernel, guest) = guest;
    let newer_qemu = times.timed("newer QEMU", || Ok(newer_qemu::prepare()))?;
    let mut variables = optional("a newer QEMU", "NEWER_QEMU", newer_qemu.map(|program| vec![("", program)]));
    let kernels = times.timed("test kernels", || Ok(test_kernels::prepare()))?;
    variables.extend(kernels.into_iter().flat_map(|(what, name, files)| optional(&what, name, files)));
    let programs = times.timed("EFI programs", || Ok(efi_programs::prepare()))?;
    variables.extend(optional("EFI programs", "EFI_PROGRAMS", programs.map(|folder| vec![("", folder)])));
    let app = times.timed("EFI test program", || Ok(efi_app::prepare("efi-app")))?;
    variables.extend(optional("the EFI program of the tests", "EFI_APP", app.map(|file| vec![("", file)])));
    let command = if args.all_disks { "xtask disks --all" } else { "xtask disks" };
    let disks = times.timed("disks", || Ok(Step::new("disks", command).run()));
    let folder = disks?.map(|()| vec![("", paths::disks_folder())]);
    variables.extend(optional("disks", "DISKS", folder));
    let ovmf = packages::ensure(&[packages::OVMF]).and_then(|_| packages::OVMF.found().context("it is not there"));
    variables.extend(optional("OVMF", "OVMF", ovmf.map(|file| vec![("", file)])));
    let step =
        variables.into_iter().fold(qemu_step(filter, args.all_disks), |step, (name, value)| step.with(&name, value));
    let step = with_image(step, &image.elf)
        .with("FIRSTLIGHT_KERNEL", guest.kernel.image.display().to_string())
        .with("FIRSTLIGHT_CONSOLE_KERNEL", console_kernel.display().to_string())
        .with("FIRSTLIGHT_INITRD", guest.initrd.display().to_string())
        .with("FIRSTLIGHT_TOOLS_INITRD", initrd_with_tools.display().to_string());
    times.timed(step.name, || step.run())?;
    if filter.is_none() {
        match times.timed("installation", clients::prepare_quick) {
            Ok(()) => times.command("clients --quick", clients::check_quick)?,
            Err(why) => say(&format!("\n==> clients --quick: skipped: {why:#}")),
        }
        times.xtask("parity", "parity")?;
        if packages::OVMF.found().is_some() {
            times.xtask("calls", &format!("efi-diff {COMPARED}"))?;
        } else {
            say("\n==> calls: skipped: OVMF is not installed");
        }
    }
    Ok(())
}

/// The variables for tests (`tests/qemu/environment.rs`) with something that they can do without. For each file, the name is
/// `FIRSTLIGHT_`, `name` and the file's ending. If there are none, `FIRSTLIGHT_NO_` and `name` has the reason.
fn optional(what: &str, name: &str, files: anyhow::Result<Vec<(&str, PathBuf)>>) -> Vec<(String, String)> {
    match files {
        Ok(files) => {
            let variable =
                |(end, path): (&str, PathBuf)| (format!("FIRSTLIGHT_{name}{end}"), path.display().to_string());
            files.into_iter().map(variable).collect()
        }
        Err(error) => {
            say(&format!("The tests with {what} are skipped: {error:#}"));
            vec![(format!("FIRSTLIGHT_NO_{name}"), format!("{error:#}"))]
        }
    }
}

/// Checks the crates of all workspaces against `deny.toml`, or says that there is no cargo-deny. To build it takes minutes.
fn check_crates() -> anyhow::Result<()> {
    if paths::cargo().args(["deny", "--version"]).output().is_ok_and(|output| !output.status.success()) {
        say("\n==> crates: skipped: cargo-deny is not installed (cargo install cargo-deny --locked)");
        return Ok(());
    }
    let check = |manifest| {
        format!(
            "deny --workspace --manifest-path {manifest} --config deny.toml check -A unmatched-skip bans licenses sources"
        )
    };
    ["Cargo.toml", "fuzz/Cargo.toml", "tests/efi-app/Cargo.toml"]
        .iter()
        .try_for_each(|manifest| Step::new("crates", &check(manifest)).run())
}

/// The steps that need neither the image nor QEMU.
fn host_steps(filter: Option<&str>) -> Vec<Step> {
    let mut tests = Step::new("host tests", "test --workspace");
    // `fuzz` is a separate workspace.
    let mut fuzz_tests = Step::new("fuzz targets", "test --locked --manifest-path fuzz/Cargo.toml --target-dir");
    fuzz_tests.arguments.push(paths::target().join("fuzz").display().to_string());
    if let Some(filter) = filter {
        for step in [&mut tests, &mut fuzz_tests] {
            step.arguments.push(filter.to_owned());
        }
        return vec![tests, fuzz_tests];
    }
    let mut clippy_fuzz =
        Step::new("clippy fuzz", "clippy --locked --manifest-path fuzz/Cargo.toml --all-targets --target-dir");
    clippy_fuzz.arguments.push(paths::target().join("fuzz").display().to_string());
    clippy_fuzz.arguments.extend(["--", "-D", "warnings"].map(str::to_owned));
    vec![
        Step::new("format", "fmt --all --check"),
        Step::new("format fuzz", "fmt --manifest-path fuzz/Cargo.toml --check"),
        Step::new("format EFI program", "fmt --manifest-path tests/efi-app/Cargo.toml --check"),
        Step::new(
            "clippy",
            "clippy --workspace --all-targets --features firstlight/qemu-tests,vmm/kvm-tests -- -D warnings",
        ),
        Step::new(
            "clippy image",
            "clippy --package firstlight-firmware --bin firstlight --features firmware --profile firmware -- -D warnings",
        ),
        Step::new(
            "clippy runtime",
            "clippy --package firstlight --bin firstlight-runtime --features runtime-services --profile firmware -- -D warnings",
        ),
        clippy_fuzz,
        tests,
        fuzz_tests,
        Step::new("documentation", "doc --workspace --no-deps").with("RUSTDOCFLAGS", "-D warnings".to_owned()),
    ]
}

/// The tests of parsers and of unsafe code, with every memory access checked. They take several times as long, so they have fewer
/// random cases.
fn sanitizer_step(filter: Option<&str>) -> Step {
    let mut step = Step::new(
        "sanitizer",
        "test --package firstlight --lib --test memory --test heap --target x86_64-unknown-linux-gnu --target-dir",
    )
    .with("RUSTFLAGS", "-Zsanitizer=address".to_owned())
    // Some tests allocate more memory than there is.
    .with("ASAN_OPTIONS", "allocator_may_return_null=1".to_owned())
    .with("PROPTEST_CASES", "8".to_owned());
    step.arguments.push(paths::target().join("sanitizer").display().to_string());
    step.arguments.push("--".to_owned());
    match filter {
        Some(filter) => step.arguments.push(filter.to_owned()),
        None => step.arguments.extend(SANITIZED.map(str::to_owned)),
    }
    step
}

/// The tests that start the image in the test VMM. Without KVM, they say that they are skipped.
fn kvm_step(filter: Option<&str>) -> Step {
    let mut step = Step::new("KVM tests", "test --package vmm --features kvm-tests --test boot");
    step.arguments.extend(filter.map(str::to_owned));
    // Shows the messages of skipped tests.
    step.arguments.extend(["--", "--nocapture"].map(str::to_owned));
    step
}

/// The tests that boot the image in QEMU.
fn qemu_step(filter: Option<&str>, all: bool) -> Step {
    let mut step = Step::new("QEMU tests", "test --package firstlight --features qemu-tests --test *");
    step.arguments.extend(filter.map(str::to_owned));
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_QEMU_TESTS_AT_ONCE);
    step.arguments.extend(["--".to_owned(), format!("--test-threads={at_once}")]);
    step.arguments.extend(all.then(|| "--include-ignored".to_owned()));
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_end_with_cargo_and_cargo_ends_with_this_program() {
        let tied = qemu_step(None, false).tied(Command::new("cargo"));
        assert_eq!(tied.get_program(), child::tied(&Command::new("cargo")).get_program());
        let runner = tied.get_envs().find(|(name, _)| *name == RUNNER.0).and_then(|(_, value)| value);
        assert!(runner.is_some_and(|runner| runner.to_string_lossy().contains("pdeathsig")));
    }
}
