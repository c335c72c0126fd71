//! The measurements of `cargo xtask`: what a boot costs, and what a guest sees, here and under other firmware.
//!
//! `xtask` starts this program for the commands `compare`, `budget`, `order`, `parity`, `efi-diff` and `support`. It is a separate
//! workspace member because most of its crates are for these commands alone: they are compiled when a command is used for the first
//! time.
//! `boot` runs QEMU and counts; each command has a module; what `xtask` itself needs too is in its library.
#![forbid(unsafe_code)]

mod boot;
mod budget;
mod compare;
mod efi_diff;
mod intended;
mod numbers;
mod order;
mod parity;
mod support;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Compare(Box<compare::Args>),
    Budget(budget::Args),
    Order(order::Args),
    Parity(parity::Args),
    EfiDiff(efi_diff::Args),
    Support(support::Args),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Compare(args) => compare::run(&args),
        Command::Budget(args) => budget::run(&args),
        Command::Order(args) => order::run(&args),
        Command::Parity(args) => parity::run(&args),
        Command::EfiDiff(args) => efi_diff::run(&args),
        Command::Support(args) => support::run(&args),
    };
    xtask::progress::exit_code(result.map(|()| ExitCode::SUCCESS))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_definition_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
