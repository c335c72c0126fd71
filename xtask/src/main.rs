//! Firstlight's host tool: builds the image, boots it in QEMU, and tests it.
//!
//! Each command is one file (`run`, `image`, `test`, `compare`, `faults`, `fuzz`, `budget`, `order`, `parity`, `setup`,
//! `support`); the shared parts are next to them. The commands are started as `cargo xtask …` through the alias in
//! `.cargo/config.toml`. The tool's own messages go to the standard error; the standard output has the guest's serial console and
//! the tests' output.
#![forbid(unsafe_code)]

mod budget;
#[path = "../../tests/qemu/child.rs"]
mod child;
mod compare;
mod elf_file;
mod faults;
mod fuzz;
mod guest;
mod image;
#[path = "../../src/image_size.rs"]
mod image_size;
mod initramfs;
mod modules;
mod newer_qemu;
mod order;
mod packages;
mod panics;
mod parity;
mod paths;
mod progress;
mod qemu;
mod run;
mod setup;
mod support;
mod target;
mod test;
mod test_kernels;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Compare(compare::Args),
    Faults(faults::Args),
    Fuzz(fuzz::Args),
    Budget(budget::Args),
    Order(order::Args),
    Parity(parity::Args),
    Setup(setup::Args),
    Support(support::Args),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Image(args) => image::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Test(args) => test::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Compare(args) => compare::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Faults(args) => faults::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Budget(args) => budget::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Order(args) => order::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Parity(args) => parity::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Setup(args) => setup::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Support(args) => support::run(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_definition_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
