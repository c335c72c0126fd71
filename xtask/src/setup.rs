//! `cargo xtask setup`: installs only what the other commands need.

use crate::packages;
use crate::progress::say;

/// Install the programs that `run` and `test` need
///
/// Lists the missing programs with what they are for, and installs them with apt-get (through sudo if not root).
/// Downloads no kernel and builds nothing.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    if packages::ensure(&packages::ALL)? {
        say("All needed programs are installed now.");
    } else {
        say("All needed programs are already installed.");
    }
    Ok(())
}
