//! `cargo xtask test`: everything that must pass, the quick steps first.

use std::num::NonZero;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::progress::{command_line, say, shell_word};
use crate::{budget, child, faults, guest, image, newer_qemu, packages, parity, paths, support, test_kernels, tools};

/// More QEMU tests at a time than this do not help: each has up to two busy CPUs.
const MOST_QEMU_TESTS_AT_ONCE: usize = 8;

/// The variable with the program through which cargo starts tests (The Cargo Book, "Configuration",
/// `target.<triple>.runner`), and one that ends them with cargo.
const RUNNER: (&str, &str) = ("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", "setpriv --pdeathsig KILL --");

/// The toolchain that has sanitizers.
const NIGHTLY: &str = "nightly";
/// What the names of the tests contain that run with one: parsers and their memory, `tests/memory.rs` and `tests/heap.rs`.
const SANITIZED: [&str; 8] =
    ["acpi::", "boot::", "fw_cfg::", "heap::", "mem", "smbios::", "tables::", "the_machine_touches"];

/// Run everything that must pass: format, clippy, host tests, fuzz targets, documentation, tests under AddressSanitizer,
/// table of what is supported, crates, image checks, KVM tests, faults, budget, QEMU tests, parity
///
/// Installs what is missing first, and stops at the first step that fails, with the command that repeats that step.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the QEMU tests and what else needs QEMU (and the default guest they boot)
    #[arg(long)]
    no_qemu: bool,

    /// Run only tests whose name contains this; format, clippy, documentation, table of what is supported, crates,
    /// faults, budget and parity are left out
    filter: Option<String>,
}

/// One command that must succeed.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    name: &'static str,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Step {
    fn new(name: &'static str, arguments: &str) -> Self {
        let arguments = arguments.split(' ').map(str::to_owned).collect();
        Self { name, arguments, environment: Vec::new() }
    }

    fn with(mut self, variable: &'static str, value: String) -> Self {
        self.environment.push((variable, value));
        self
    }

    /// The step as a user could type it.
    fn typed(&self) -> String {
        let mut words: Vec<_> =
            self.environment.iter().map(|(variable, value)| format!("{variable}={}", shell_word(value))).collect();
        words.push(command_line(Command::new("cargo").args(&self.arguments)));
        words.join(" ")
    }

    fn run(&self) -> anyhow::Result<()> {
        self.run_as(paths::cargo(), &self.typed())
    }

    /// The step as a command that ends with this program, and so do the tests that it starts.
    fn tied(&self, mut command: Command) -> Command {
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env(RUNNER.0, RUNNER.1);
        child::tied(&command)
    }

    /// Runs it with the nightly compiler, which has what the stable one has not. Says so where there is none.
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

/// Runs the command.
///
/// # Errors
/// When a step fails, or what it needs cannot be had.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut times = Vec::new();
    let result = run_all(args, &mut times);
    say("");
    for (name, taken) in &times {
        say(&format!("{name:<14} {:>7.1} s", taken.as_secs_f64()));
    }
    let total: Duration = times.iter().map(|(_, taken)| *taken).sum();
    match &result {
        Ok(()) => say(&format!("All steps passed in {:.1} s.", total.as_secs_f64())),
        Err(_) => say(&format!("Stopped after {:.1} s.", total.as_secs_f64())),
    }
    result
}

fn run_all(args: &Args, times: &mut Vec<(&'static str, Duration)>) -> anyhow::Result<()> {
    let mut timed = |name, work: &mut dyn FnMut() -> anyhow::Result<()>| {
        let start = Instant::now();
        let result = work();
        times.push((name, start.elapsed()));
        result
    };

    if !args.no_qemu {
        timed("installation", &mut || packages::ensure(&packages::ALL).map(drop))?;
    }
    for step in host_steps(args.filter.as_deref()) {
        timed(step.name, &mut || step.run())?;
    }
    timed("sanitizer", &mut || sanitizer_step(args.filter.as_deref()).run_with_nightly())?;
    if args.filter.is_none() {
        timed("support", &mut || {
            say("\n==> support: cargo xtask support");
            support::check()
                .context("the step `support` failed; to repeat it and correct the README: cargo xtask support")
        })?;
    }
    if args.filter.is_none() {
        timed("crates", &mut check_crates)?;
    }
    let mut image = None;
    timed("image", &mut || {
        say("\n==> image: cargo xtask image");
        image = Some(image::build().context("the step `image` failed; to repeat it: cargo xtask image")?);
        Ok(())
    })?;
    if let Some(image) = &image {
        let step = kvm_step(args.filter.as_deref())
            .with("FIRSTLIGHT_IMAGE", image.bin.display().to_string())
            .with("FIRSTLIGHT_ELF", image.stripped.display().to_string());
        timed(step.name, &mut || step.run())?;
    }
    if let Some(image) = image.as_ref().filter(|_| args.filter.is_none()) {
        timed("faults", &mut || {
            say("\n==> faults: cargo xtask faults");
            faults::check(&image.bin, None).context("the step `faults` failed; to repeat it: cargo xtask faults")
        })?;
    }
    if args.no_qemu {
        return Ok(());
    }
    if let Some(image) = image.as_ref().filter(|_| args.filter.is_none()) {
        timed("budget", &mut || {
            say("\n==> budget: cargo xtask budget");
            budget::check(&image.bin).context("the step `budget` failed; to repeat it: cargo xtask budget")
        })?;
    }
    let mut guest = None;
    timed("default guest", &mut || {
        let made = guest::prepare()
            .and_then(|guest| Ok((guest.initrd_with(&tools::prepare()?)?, guest::console_kernel()?.image, guest)));
        guest = Some(made.context("the default guest cannot be made")?);
        Ok(())
    })?;
    let mut newer_qemu = None;
    timed("newer QEMU", &mut || {
        newer_qemu = Some(newer_qemu::for_tests());
        Ok(())
    })?;
    let mut kernels = Vec::new();
    timed("test kernels", &mut || {
        kernels = test_kernels::for_tests();
        Ok(())
    })?;
    if let (Some(image), Some((tools, console_kernel, guest)), Some((name, value))) = (image, guest, newer_qemu) {
        let step =
            kernels.into_iter().fold(qemu_step(args.filter.as_deref()), |step, (name, value)| step.with(name, value));
        let step = step
            .with(name, value)
            .with("FIRSTLIGHT_IMAGE", image.bin.display().to_string())
            .with("FIRSTLIGHT_ELF", image.elf.display().to_string())
            .with("FIRSTLIGHT_KERNEL", guest.kernel.image.display().to_string())
            .with("FIRSTLIGHT_CONSOLE_KERNEL", console_kernel.display().to_string())
            .with("FIRSTLIGHT_INITRD", guest.initrd.display().to_string())
            .with("FIRSTLIGHT_TOOLS_INITRD", tools.display().to_string());
        timed(step.name, &mut || step.run())?;
        if args.filter.is_none() {
            timed("parity", &mut || {
                say("\n==> parity: cargo xtask parity");
                parity::check_all(&image.bin, &guest.kernel, &tools)
                    .context("the step `parity` failed; to repeat it: cargo xtask parity")
            })?;
        }
    }
    Ok(())
}

/// Holds the crates of both workspaces to `deny.toml`. Says so where there is no cargo-deny, which takes minutes to build.
fn check_crates() -> anyhow::Result<()> {
    if paths::cargo().args(["deny", "--version"]).output().is_ok_and(|output| !output.status.success()) {
        say("\n==> crates: skipped: there is no cargo-deny (cargo install cargo-deny --locked)");
        return Ok(());
    }
    let check = |manifest| {
        format!(
            "deny --workspace --manifest-path {manifest} --config deny.toml check -A unmatched-skip bans licenses sources"
        )
    };
    ["Cargo.toml", "fuzz/Cargo.toml"].iter().try_for_each(|manifest| Step::new("crates", &check(manifest)).run())
}

/// The steps that need neither the image nor QEMU.
fn host_steps(filter: Option<&str>) -> Vec<Step> {
    let mut tests = Step::new("host tests", "test --workspace");
    // A workspace of its own.
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
        Step::new(
            "clippy",
            "clippy --workspace --all-targets --features firstlight/qemu-tests,vmm/kvm-tests -- -D warnings",
        ),
        Step::new(
            "clippy image",
            "clippy --package firstlight --bin firstlight --features firmware --profile firmware -- -D warnings",
        ),
        clippy_fuzz,
        tests,
        fuzz_tests,
        Step::new("documentation", "doc --workspace --no-deps").with("RUSTDOCFLAGS", "-D warnings".to_owned()),
    ]
}

/// Tests of what is read from outside, and those of the code that the compiler cannot check, with every access to memory
/// checked. They take several times as long so, and have fewer random cases.
fn sanitizer_step(filter: Option<&str>) -> Step {
    let mut step = Step::new(
        "sanitizer",
        "test --package firstlight --lib --test memory --test heap --target x86_64-unknown-linux-gnu --target-dir",
    )
    .with("RUSTFLAGS", "-Zsanitizer=address".to_owned())
    // Some tests ask for more memory than there is.
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

/// The tests that start the image in the test VMM. They say so when there is no KVM for them.
fn kvm_step(filter: Option<&str>) -> Step {
    let mut step = Step::new("KVM tests", "test --package vmm --features kvm-tests --test boot");
    step.arguments.extend(filter.map(str::to_owned));
    // What a test says when it is skipped is to be seen.
    step.arguments.extend(["--", "--nocapture"].map(str::to_owned));
    step
}

/// The tests that boot the image in QEMU.
fn qemu_step(filter: Option<&str>) -> Step {
    let mut step = Step::new("QEMU tests", "test --package firstlight --features qemu-tests --test *");
    step.arguments.extend(filter.map(str::to_owned));
    let at_once = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_QEMU_TESTS_AT_ONCE);
    step.arguments.extend(["--".to_owned(), format!("--test-threads={at_once}")]);
    step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_end_with_cargo_and_cargo_with_this_program() {
        let tied = qemu_step(None).tied(Command::new("cargo"));
        assert_eq!(tied.get_program(), child::tied(&Command::new("cargo")).get_program());
        let runner = tied.get_envs().find(|(name, _)| *name == RUNNER.0).and_then(|(_, value)| value);
        assert!(runner.is_some_and(|runner| runner.to_string_lossy().contains("pdeathsig")));
    }

    /// Cargo completes a lock file wherever it is not told to leave it, and then nothing is left for a check to find.
    #[test]
    fn a_lock_file_that_lacked_a_line_was_completed_before_it_was_checked() {
        let configuration = std::fs::read_to_string(paths::root().join(".cargo/config.toml")).unwrap();
        assert!(configuration.contains("xtask = \"run --locked "), "all else of this workspace comes after it");
        let fuzz = |step: &Step| step.typed().contains("fuzz/Cargo.toml") && !step.typed().contains("cargo fmt");
        for steps in [host_steps(None), host_steps(Some("e820"))] {
            assert!(steps.iter().any(fuzz));
            for step in steps.iter().filter(|step| fuzz(step)) {
                assert!(step.arguments.iter().any(|argument| argument == "--locked"), "{}", step.typed());
            }
        }
    }
}
