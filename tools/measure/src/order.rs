//! `cargo xtask order`: places the functions that every boot runs next to each other in the image.
//!
//! A host with hardware virtualization maps the image page by page, each at its first use, with an exit inside KVM. In the order
//! of their first use, functions are on fewer pages. The order is in a separate file, which `linker.ld` includes: a line for each
//! function that a boot on q35, pc or microvm runs. The names there have no compiler and crate versions, so the file stays valid
//! for changed sources. A function that no longer exists is skipped, and one that is not in the file comes after the others.
//! `cargo xtask budget` counts the pages and fails if they grow.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, anyhow};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object as _, ObjectSymbol as _, SymbolKind};
use xtask::progress::{say, step};
use xtask::{image, packages, paths};

use crate::boot::probe::Files;
use crate::boot::scenario::{LARGE, MACHINES};
use crate::boot::translation;
use crate::budget::scenario;

/// The file, from the repository's top folder.
const FILE: &str = "order.ld";

/// Its first lines, up to the target's name. [`HEAD_END`] is behind the name.
const HEAD: &str = "\
/* The functions that a boot runs, by their first use: made by `cargo xtask order`, included by linker.ld.
   The firmware was built for ";
const HEAD_END: &str = ". */\n";

/// Order the image's functions by their first use
///
/// Boots a probe kernel on q35, pc and microvm under TCG, and writes the executed functions to order.ld. In that order they
/// are on fewer pages, each of which a host with hardware virtualisation maps with an exit. To be run if `cargo xtask
/// budget` counts more code pages after a change.
#[derive(clap::Args)]
pub struct Args {}

pub fn run(Args {}: &Args) -> anyhow::Result<()> {
    packages::ensure(&[packages::QEMU])?;
    let image = image::build()?;
    let files = Files::new(&paths::target().join("compare"))?;
    let file = fs::read(&image.elf).with_context(|| format!("cannot read {}", paths::shown(&image.elf)))?;
    let functions = Functions::of(&ElfFile64::parse(&*file)?);
    let mut names = Vec::new();
    for machine in MACHINES {
        let scenario = scenario(machine, LARGE);
        let payload = scenario.payload.files(&files)?;
        let step = step(&format!("Finding the functions that run on {machine}"));
        let log = translation::log(&scenario, &image.bin, &payload)?;
        let log = log.map_err(|failure| anyhow!("{machine}: the firmware {failure}"))?;
        step.done();
        functions.add_new(&log.addresses, &mut names);
    }
    let path = paths::root().join(FILE);
    fs::write(&path, script(image.target, &names)).with_context(|| format!("cannot write {}", paths::shown(&path)))?;
    say(&format!("Written: {}, {} functions", paths::shown(&path), names.len()));
    Ok(())
}

/// The functions, sorted by address: address, size, name.
struct Functions(Vec<(u64, u64, String)>);

impl Functions {
    fn of(file: &ElfFile64<'_, LittleEndian>) -> Self {
        let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0);
        let named =
            functions.filter_map(|symbol| Some((symbol.address(), symbol.size(), symbol.name().ok()?.to_owned())));
        let mut all: Vec<_> = named.collect();
        all.sort();
        Self(all)
    }

    /// Appends the patterns of the functions at these addresses to `names`, each once.
    fn add_new(&self, addresses: &[u64], names: &mut Vec<String>) {
        for address in addresses {
            let after = self.0.partition_point(|(start, ..)| start <= address);
            let function = after.checked_sub(1).and_then(|at| self.0.get(at));
            let function = function.filter(|(start, size, _)| address - start < *size);
            let Some(name) = function.map(|(.., name)| pattern(name)) else { continue };
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
}

/// A pattern for a symbol's name without the parts that depend on the versions of compiler and crates. They are the hash at the
/// end of a legacy name, "17h", 16 hexadecimal digits and "E", and the crates' disambiguators in a v0 name, "s", digits and "_"
/// behind a "C" (Rust, `src/doc/rustc/src/symbol-mangling/v0.md`).
fn pattern(name: &str) -> String {
    const HASH: usize = "17h0123456789abcdefE".len();
    if let Some(at) =
        name.len().checked_sub(HASH).filter(|at| name.starts_with("_ZN") && name[*at..].starts_with("17h"))
    {
        return format!("{}17h*", &name[..at]);
    }
    if !name.starts_with("_R") {
        return name.to_owned();
    }
    let mut parts = name.split("Cs");
    let mut pattern = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.split_once('_').map_or(part, |(_, rest)| rest);
        pattern.push_str("Cs*_");
        pattern.push_str(rest);
    }
    pattern
}

/// The file's contents: the sections of the functions, one per line.
fn script(target: &str, names: &[String]) -> String {
    names.iter().fold(format!("{HEAD}{target}{HEAD_END}"), |mut text, name| {
        let _ = writeln!(text, "*(.text.{name})");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_holds_for_other_versions_of_compiler_and_crates() {
        for (name, wanted) in [
            ("_ZN10firstlight10rust_start17h92ef83f3bcdffbc9E", "_ZN10firstlight10rust_start17h*"),
            (
                "_ZN5alloc7raw_vec20RawVecInner$LT$A$GT$11finish_grow17h6554bfb848d45bbcE",
                "_ZN5alloc7raw_vec20RawVecInner$LT$A$GT$11finish_grow17h*",
            ),
            ("_RNvNtNtCsgEmfK2I1SDS_4core3str8converts9from_utf8", "_RNvNtNtCs*_4core3str8converts9from_utf8"),
            ("_RNvXCsa_1aNtCsb_1bC", "_RNvXCs*_1aNtCs*_1bC"),
            ("memcpy", "memcpy"),
            ("_ZN", "_ZN"),
        ] {
            assert_eq!(pattern(name), wanted);
        }
    }

    #[test]
    fn the_linker_script_includes_the_file_in_front_of_all_other_code() {
        let read = |name: &str| fs::read_to_string(paths::root().join(name)).unwrap();
        assert!(read("linker.ld").contains(&format!("INCLUDE {FILE} *(.text .text.*)")));
        let order = read(FILE);
        let (_, lines) = order.strip_prefix(HEAD).unwrap().split_once(HEAD_END).unwrap();
        let lines: Vec<_> = lines.lines().collect();
        assert!(lines.len() > 20 && lines.iter().all(|line| line.starts_with("*(.text.") && line.ends_with(')')));
    }
}
