//! `cargo xtask`: builds, boots and tests Firstlight.
//!
//! The alias in `.cargo/config.toml` starts it. The commands are modules of this crate's library, except those that measure:
//! they are the program `tools/measure`, compiled when it is first used. The tool's own messages go to the standard error; the
//! standard output has the guest's serial console and the tests' output.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use xtask::{faults, fuzz, image, paths, progress, run, setup, test};

/// Build, boot and test Firstlight, minimal firmware for virtual machines that boots Linux directly
///
/// `cargo xtask run` is the place to start: it installs what is missing, builds the image, fetches a kernel, and boots
/// it in QEMU with the serial console on the terminal.
#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", max_term_width = 100)]
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
    /// Compare boot times and costs with other firmware
    Compare(Measure),
    /// Count what a boot costs, and compare with the recorded budget
    Budget(Measure),
    /// Order the image's functions by their first use
    Order(Measure),
    /// Compare what a guest sees under SeaBIOS and under this firmware
    Parity(Measure),
    /// Write the README's table of supported kernels and hosts
    Support(Measure),
    Faults(faults::Args),
    Fuzz(fuzz::Args),
}

/// The arguments of a command of `tools/measure`, which parses them itself.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
struct Measure {
    /// The command's options; --help lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    let success = |()| ExitCode::SUCCESS;
    progress::exit_code(match Arguments::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Image(args) => image::run(&args).map(success),
        Command::Test(args) => test::run(&args).map(success),
        Command::Setup(args) => setup::run(&args).map(success),
        Command::Compare(args) => measure("compare", &args),
        Command::Budget(args) => measure("budget", &args),
        Command::Order(args) => measure("order", &args),
        Command::Parity(args) => measure("parity", &args),
        Command::Support(args) => measure("support", &args),
        Command::Faults(args) => faults::run(&args).map(success),
        Command::Fuzz(args) => fuzz::run(&args),
    })
}

/// Becomes `tools/measure`, in the same process and folder. Returns only if that fails.
fn measure(command: &str, args: &Measure) -> anyhow::Result<ExitCode> {
    let mut cargo = paths::member("measure");
    Err(cargo.arg(command).args(&args.arguments).exec()).context("cannot start cargo")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_definition_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
