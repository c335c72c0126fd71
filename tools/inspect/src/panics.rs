//! Finds the panic sites of the linked image.
//!
//! A panic stops the guest, so the project's own code must have no panic site, and the crates as few as possible. This module
//! reads the machine code, after all optimizations: a site is a call of, or jump to, a function that only panics.
//!
//! Such functions are found by what they do: the panic handler is one, and so is every function of a crate or the standard
//! library that never returns and calls one. A site belongs to the author of the line that the panic names. The line is passed in
//! a register as a `core::panic::Location`: `a[i]` in the project is the project's, though the check is in `core`. If a failed
//! allocation names no line, the site belongs to the function that contains the call.
//!
//! The list also shows whether the image has overflow checks: some of the sites in crates are such checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context as _, Result, ensure};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

/// The number of panic sites in crates and the standard library, for each target. To raise it needs a reason; the check says
/// when it can be lowered.
const MOST_IN_CRATES: [(&str, usize); 2] = [("x86_64-unknown-none", 26), ("x86_64-unknown-linux-gnu", 26)];

/// The panic handler's symbol.
const HANDLER: &str = "rust_begin_unwind";
/// The project's own crates in the image: the start of their functions' demangled names. In the name of a trait's function, `<` is
/// before it.
const OWN: [&str; 3] = ["firstlight::", "firstlight_efi::", "firstlight_machine::"];
/// The functions of `core` that only overflow checks call.
const OVERFLOWS: [&str; 3] = ["panic_const_add_overflow", "panic_const_mul_overflow", "panic_const_sub_overflow"];
/// The start of the project's file names in a `Location`.
const OWN_FILES: &str = "src/";

/// One place that can panic.
#[derive(Debug)]
pub struct Site {
    /// The linked address of the call or jump.
    at: u64,
    target: String,
    /// The function and the line that it belongs to.
    place: String,
    /// Whether it is the project's own.
    own: bool,
}

impl Site {
    /// `location` is the file and the line that the panic names, if it names one.
    fn new(at: u64, target: String, function: &str, location: Option<String>) -> Self {
        let own = location.as_ref().map_or(is_own(function), |place| place.starts_with(OWN_FILES));
        let place = location.map_or_else(|| function.to_owned(), |place| format!("{place} in {function}"));
        Self { at, target, place, own }
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:#x} {}: {}", self.at, self.place, self.target)
    }
}

/// All panic sites of a program.
pub fn sites(elf: &ElfFile64<'_, LittleEndian>) -> Result<Vec<Site>> {
    let functions = functions(elf)?;
    let machinery = machinery(&functions)?;
    let mut sites = Vec::new();
    for (start, function) in &functions {
        if machinery.contains(start) {
            continue;
        }
        for branch in function.branches.iter().filter(|branch| machinery.contains(&branch.to)) {
            let location = branch.constants.iter().find_map(|&at| location(elf, at));
            let target = functions.get(&branch.to).map(|function| function.name.clone()).unwrap_or_default();
            sites.push(Site::new(branch.at, target, &function.name, location));
        }
    }
    Ok(sites)
}

/// Checks that a program has no code that panics.
///
/// # Errors
/// With the functions, if there are some.
pub fn check_absent(elf: &ElfFile64<'_, LittleEndian>) -> Result<()> {
    let symbols = elf.symbols().filter_map(|symbol| symbol.name().ok());
    let found: Vec<_> = symbols.filter(|name| *name == HANDLER || name.contains("panicking")).collect();
    ensure!(found.is_empty(), "the EFI runtime services can panic: {}", found.join(" "));
    Ok(())
}

/// How many there are, in a sentence.
pub fn count(sites: &[Site]) -> String {
    let own = sites.iter().filter(|site| site.own).count();
    format!("Panic sites: {own} in the project's code, {} in crates", sites.len() - own)
}

/// Checks the number of sites. `target` is the target that the program was built for.
pub fn check(sites: &[Site], target: &str) -> Result<()> {
    let (own, crates): (Vec<_>, Vec<_>) = sites.iter().partition(|site| site.own);
    let checks_overflow = |site: &Site| OVERFLOWS.iter().any(|check| site.target.ends_with(check));
    ensure!(
        sites.iter().any(checks_overflow),
        "the image has no overflow checks; its profile in Cargo.toml needs overflow-checks = true"
    );
    ensure!(
        own.is_empty(),
        "{} panic sites are in the project's own code, and none is allowed:\n{}",
        own.len(),
        list(&own)
    );
    let count = crates.len();
    if let Some((_, most)) = MOST_IN_CRATES.iter().find(|(name, _)| *name == target) {
        ensure!(
            count <= *most,
            "{count} panic sites are in crates, and {most} are allowed (MOST_IN_CRATES in tools/inspect/src/panics.rs):\n{}",
            list(&crates)
        );
        ensure!(
            count == *most,
            "only {count} panic sites are in crates; lower MOST_IN_CRATES in tools/inspect/src/panics.rs to that"
        );
    }
    Ok(())
}

/// The sites, one per line.
pub fn list<S: std::borrow::Borrow<Site>>(sites: &[S]) -> String {
    sites.iter().map(|site| site.borrow().to_string()).collect::<Vec<_>>().join("\n")
}

/// Whether a function with this demangled name is the project's own.
fn is_own(name: &str) -> bool {
    OWN.iter().any(|own| name.trim_start_matches('<').starts_with(own))
}

/// A function: its demangled name, its calls of and jumps to others, and whether it returns.
#[derive(Debug, Default)]
struct Function {
    name: String,
    branches: Vec<Branch>,
    returns: bool,
}

/// A call or a jump to another function.
#[derive(Debug)]
struct Branch {
    at: u64,
    to: u64,
    /// The constants that were put into registers since the previous branch, the last one first.
    constants: Vec<u64>,
}

/// All functions by their addresses.
fn functions(elf: &ElfFile64<'_, LittleEndian>) -> Result<BTreeMap<u64, Function>> {
    let mut functions = BTreeMap::new();
    for symbol in elf.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() != 0) {
        let Some(section) = symbol.section_index() else { continue };
        let code = elf.section_by_index(section)?.data_range(symbol.address(), symbol.size())?;
        let code = code.with_context(|| format!("no code at {:#x}", symbol.address()))?;
        let name = format!("{:#}", rustc_demangle::demangle(symbol.name()?));
        functions.insert(symbol.address(), read(name, symbol.address(), code));
    }
    Ok(functions)
}

fn read(name: String, start: u64, code: &[u8]) -> Function {
    let mut function = Function { name, ..Function::default() };
    let inside = start..start + code.len() as u64;
    let mut constants = Vec::new();
    for instruction in &mut Decoder::with_ip(64, code, start, DecoderOptions::NONE) {
        constants.extend(constant(&instruction));
        match instruction.flow_control() {
            FlowControl::Next => {}
            FlowControl::Return => function.returns = true,
            _ => {
                let to = instruction.near_branch_target();
                let constants = constants.drain(..).rev().collect();
                if to != 0 && !inside.contains(&to) {
                    function.branches.push(Branch { at: instruction.ip(), to, constants });
                }
            }
        }
    }
    function
}

/// The constant of 64 bits that `instruction` puts into a register, if it does that.
fn constant(instruction: &Instruction) -> Option<u64> {
    match (instruction.mnemonic(), instruction.op1_kind()) {
        (Mnemonic::Mov, OpKind::Immediate32to64 | OpKind::Immediate64) => Some(instruction.immediate(1)),
        (Mnemonic::Lea, OpKind::Memory) if instruction.memory_base() == Register::RIP => {
            Some(instruction.memory_displacement64())
        }
        _ => None,
    }
}

/// The file and the line of the `core::panic::Location` at this address, if there is one. It has the address and the length of
/// the file's name, then line and column with 32 bits each.
fn location(elf: &ElfFile64<'_, LittleEndian>, at: u64) -> Option<String> {
    let bytes = |at: u64, len: u64| {
        let mut sections = elf.sections();
        sections.find_map(|section| section.data_range(at, len).ok()?).map(<[u8]>::to_vec)
    };
    let number = |at: u64, len: u64| {
        Some(bytes(at, len)?.iter().rev().fold(0, |number: u64, byte| number << 8 | u64::from(*byte)))
    };
    let file = String::from_utf8(bytes(number(at, 8)?, number(at + 8, 8).filter(|&len| len < 1024)?)?).ok()?;
    let line = number(at + 16, 4)?;
    file.ends_with(".rs").then(|| format!("{file}:{line}"))
}

/// The addresses of the functions that only panic.
fn machinery(functions: &BTreeMap<u64, Function>) -> Result<BTreeSet<u64>> {
    let handlers = functions.iter().filter(|(_, function)| function.name.ends_with(HANDLER));
    let mut found: BTreeSet<_> = handlers.map(|(start, _)| *start).collect();
    ensure!(!found.is_empty(), "the image has no panic handler ({HANDLER})");
    loop {
        let before = found.len();
        for (start, function) in functions {
            let goes_on = function.branches.iter().any(|branch| found.contains(&branch.to));
            if goes_on && !function.returns && !is_own(&function.name) {
                found.insert(*start);
            }
        }
        if found.len() == before {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_allocation_in_a_trait_of_an_own_type_is_the_projects_own() {
        let own = |function: &str, location: Option<&str>| {
            Site::new(0, "panic".to_owned(), function, location.map(str::to_owned)).own
        };
        assert!(own("<firstlight::a::B as core::fmt::Display>::fmt", None));
        assert!(own("firstlight::a::b", None));
        assert!(own("<a::B as core::fmt::Display>::fmt", Some("src/a.rs:1")), "a closure of the project's");
        assert!(!own("<a::B as core::fmt::Display>::fmt", None));
        assert!(!own("core::ptr::drop_in_place<firstlight::a::B>", None));
        assert!(!own("<firstlight::a::B as core::fmt::Display>::fmt", Some("crates/a/src/b.rs:1")));
    }

    /// Panic sites in crates, with overflow checks among them.
    fn in_crates(count: usize) -> Vec<Site> {
        let target = |at: usize| format!("core::panicking::panic_const::{}", OVERFLOWS[at % OVERFLOWS.len()]);
        (0..count).map(|at| Site::new(at as u64, target(at), "a::b", None)).collect()
    }

    #[test]
    fn sites_of_the_projects_own_more_in_crates_and_missing_overflow_checks_are_refused() {
        let (target, most) = MOST_IN_CRATES[0];
        let error = |sites: &[Site], target| check(sites, target).unwrap_err().to_string();
        assert!(check(&in_crates(most), target).is_ok() && check(&in_crates(100), "another target").is_ok());
        assert!(error(&in_crates(most + 1), target).contains("a::b"));
        assert!(error(&in_crates(most - 1), target).contains("lower MOST_IN_CRATES"));
        let mut sites = in_crates(100);
        sites.push(Site::new(0, "panic".to_owned(), "firstlight::a", None));
        assert!(error(&sites, "another target").contains("the project's own"));
        // A division is checked without overflow checks too.
        sites
            .iter_mut()
            .for_each(|site| site.target = "core::panicking::panic_const::panic_const_div_overflow".to_owned());
        assert!(error(&sites, "another target").contains("overflow-checks = true"));
    }

    #[test]
    fn the_firmware_is_built_with_overflow_checks_in_every_crate() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml")).unwrap();
        let (_, profile) = text.split_once("[profile.firmware]").unwrap();
        assert!(profile.contains("\noverflow-checks = true\n"));
        assert_eq!(profile.matches("overflow-checks").count(), 1, "a package may have others");
    }
}
