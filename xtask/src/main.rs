//! `cargo xtask`: builds, boots and tests Firstlight.
//!
//! The alias in `.cargo/config.toml` starts it. The commands are modules of this crate's library, except those that measure:
//! they are the program `tools/measure`, compiled when it is first used, as are `tools/disks` and `tools/dist`. The tool's own
//! messages go to the standard error; the standard output has the guest's serial console and the tests' output.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use xtask::version::Version;
use xtask::{clients, faults, fuzz, image, paths, progress, run, setup, test};

/// Build, boot and test Firstlight, minimal firmware for virtual machines that boots Linux directly
///
/// `cargo xtask run` is the place to start: it installs what is missing, builds the image, fetches a kernel, and boots
/// it in QEMU with the serial console on the terminal.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Image(image::Args),
    Test(test::Args),
    Setup(setup::Args),
    /// Make the disks that the tests boot
    Disks(Others),
    /// Make the files of a release: image, licences, archive and Debian package
    Dist(Others),
    /// Compare boot times and costs with other firmware
    Compare(Others),
    /// Count what a boot costs, and compare with the recorded budget
    Budget(Others),
    /// Order the image's functions by their first use
    Order(Others),
    /// Compare what a guest sees under SeaBIOS and under this firmware
    Parity(Others),
    /// Compare the calls of boot loaders, and their results, under OVMF and under this firmware
    EfiDiff(Others),
    /// Write the tables of supported kernels, hosts and disks in docs/support.md
    Support(Others),
    Faults(faults::Args),
    Clients(clients::Args),
    Fuzz(fuzz::Args),
}

/// The arguments of a command of another program, which parses them itself.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
struct Others {
    /// The command's options; --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    progress::exit_code(run_command())
}

fn run_command() -> anyhow::Result<ExitCode> {
    if env::args_os().nth(1).is_some_and(|first| first == "--version" || first == "-V") {
        let version = Version::of_sources()?;
        println!("{}, {}", version.name(), version.date()?);
        return Ok(ExitCode::SUCCESS);
    }
    let success = |()| ExitCode::SUCCESS;
    match Arguments::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Image(args) => image::run(&args).map(success),
        Command::Test(args) => test::run(&args).map(success),
        Command::Setup(args) => setup::run(&args).map(success),
        Command::Disks(args) => become_member("disks", None, &args),
        Command::Dist(args) => become_member("dist", None, &args),
        Command::Compare(args) => measure("compare", &args),
        Command::Budget(args) => measure("budget", &args),
        Command::Order(args) => measure("order", &args),
        Command::Parity(args) => measure("parity", &args),
        Command::EfiDiff(args) => measure("efi-diff", &args),
        Command::Support(args) => measure("support", &args),
        Command::Faults(args) => faults::run(&args).map(success),
        Command::Clients(args) => clients::run(&args).map(success),
        Command::Fuzz(args) => fuzz::run(&args),
    }
}

fn measure(command: &str, args: &Others) -> anyhow::Result<ExitCode> {
    become_member("measure", Some(command), args)
}

/// Becomes another member of the workspace, in the same process and folder. Returns only if that fails.
fn become_member(package: &str, command: Option<&str>, args: &Others) -> anyhow::Result<ExitCode> {
    Err(paths::member(package).args(command).args(&args.arguments).exec()).context("cannot start cargo")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_definition_is_consistent() {
        super::Arguments::command().debug_assert();
    }

    /// A first `cargo xtask run` compiles it. What only other commands need is in another member of the workspace.
    #[test]
    fn the_tool_that_every_command_compiles_has_few_crates() {
        let mut tree = xtask::paths::cargo();
        tree.args(["tree", "--locked", "--package", "xtask", "--edges", "normal,build", "--prefix", "none"]);
        let tree = xtask::progress::run_quietly(&mut tree).unwrap();
        let crates: std::collections::BTreeSet<_> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
        assert!(crates.len() <= 32, "{crates:#?}");
    }
}
