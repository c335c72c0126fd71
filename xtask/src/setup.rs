//! `cargo xtask setup`: installs only what the other commands need.

use crate::packages;
use crate::progress::say;

/// Install the programs that `run` and `test` need
///
/// Looks for each program first, says what is missing and why, and installs that with apt-get (through sudo when not
/// root). Downloads no kernel and builds nothing.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
///
/// # Errors
/// When something is missing that cannot be installed from here; the error says what to do by hand.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    if packages::ensure(&packages::ALL)? {
        say("Everything that is needed is installed now.");
    } else {
        say("Nothing is missing: everything that is needed is installed.");
    }
    Ok(())
}
