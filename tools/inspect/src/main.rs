//! Checks the machine code of the linked image: every host can run its instructions, and it has no more panic sites than recorded.
//!
//! `cargo xtask image` and `cargo xtask test` start it. It is a separate workspace member because of its disassembler, which a
//! first boot does not need.
#![forbid(unsafe_code)]

mod instructions;
mod panics;

use std::ffi::OsStr;
use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use object::read::elf::ElfFile64;

fn main() -> ExitCode {
    match inspect() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Checks the ELF file that the first argument names, built for the target that the second one names. With `--panics`, lists all
/// panic sites instead. With `--no-panics`, the file may have no code that panics.
fn inspect() -> Result<()> {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let (path, target, option) = match arguments.as_slice() {
        [path, target] => (path, target, None),
        [path, target, option] => (path, target, Some(option.as_os_str())),
        _ => bail!("usage: inspect ELF-FILE TARGET [--panics | --no-panics]"),
    };
    let file = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let elf = ElfFile64::parse(&*file)?;
    if option == Some(OsStr::new("--no-panics")) {
        panics::check_absent(&elf)?;
        return instructions::check(&elf);
    }
    let sites = panics::sites(&elf)?;
    if option == Some(OsStr::new("--panics")) {
        println!("{}", panics::list(&sites));
        eprintln!("{}", panics::count(&sites));
        return Ok(());
    }
    instructions::check(&elf)?;
    panics::check(&sites, &target.to_string_lossy())?;
    eprintln!("{}", panics::count(&sites));
    Ok(())
}
