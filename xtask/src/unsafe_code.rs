//! Where the program's source is `unsafe`.
//!
//! The compiler cannot check what is in such a place, so there are few, in the files that touch the machine. They are
//! counted from the parsed source; every other file is under `#![forbid(unsafe_code)]`, its own or that of a module above
//! it. That each block has one operation and a comment on why it is sound are lints' to see (`Cargo.toml`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use syn::visit::{self, Visit};

use crate::paths;

/// The files that may have such places, from `src/`, and how many each has: blocks, functions, implementations, foreign
/// items and attributes. Never raised without a reason; lowered when it can be. ARCHITECTURE.md names them.
const ALLOWED: [(&str, usize); 7] = [
    ("hal/x86.rs", 38),
    ("main.rs", 5),
    ("memory/functions.rs", 16),
    ("memory/heap.rs", 6),
    ("memory/mod.rs", 3),
    ("start/handover.rs", 14),
    ("start/mod.rs", 4),
];
/// Files without such places that cannot forbid them, as they have one of those below them. They deny them.
const ABOVE: [&str; 2] = ["hal/mod.rs", "lib.rs"];

/// What one file has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// The places that are `unsafe`.
    places: usize,
    /// Whether it begins with `#![forbid(unsafe_code)]`.
    forbids: bool,
    /// Whether it begins with `#![deny(unsafe_code)]`.
    denies: bool,
}

/// Says how many places there are.
///
/// # Errors
/// When a source file does not parse, one has such places that may have none, or more than are recorded, or one forgets to
/// forbid them.
pub fn check() -> Result<String> {
    let mut sources = BTreeMap::new();
    read(&paths::root().join("src"), "", &mut sources)?;
    check_files(&files(&sources)?, &ALLOWED)
}

/// The Rust files of a folder, by their paths from the first one.
fn read(folder: &Path, from: &str, sources: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", paths::shown(folder)))? {
        let entry = entry?;
        let name = format!("{from}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read(&entry.path(), &format!("{name}/"), sources)?;
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("cannot read src/{name}"))?;
            sources.insert(name, text);
        }
    }
    Ok(())
}

fn files(sources: &BTreeMap<String, String>) -> Result<BTreeMap<String, Found>> {
    sources
        .iter()
        .map(|(name, text)| Ok((name.clone(), parse(text).with_context(|| format!("src/{name} is not Rust"))?)))
        .collect()
}

/// What is in a file's text.
fn parse(text: &str) -> Result<Found> {
    let file = syn::parse_file(text)?;
    let has = |level: &str| {
        file.attrs.iter().any(|attribute| {
            attribute.path().is_ident(level)
                && attribute.parse_args::<syn::Path>().is_ok_and(|lint| lint.is_ident("unsafe_code"))
        })
    };
    let mut counter = Counter(0);
    counter.visit_file(&file);
    Ok(Found { places: counter.0, forbids: has("forbid"), denies: has("deny") })
}

/// Counts what the keyword stands before, but for types of functions, which do nothing.
struct Counter(usize);

impl Visit<'_> for Counter {
    fn visit_expr_unsafe(&mut self, block: &syn::ExprUnsafe) {
        self.0 += 1;
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_signature(&mut self, function: &syn::Signature) {
        self.0 += usize::from(function.unsafety.is_some());
        visit::visit_signature(self, function);
    }

    fn visit_item_impl(&mut self, item: &syn::ItemImpl) {
        self.0 += usize::from(item.unsafety.is_some());
        visit::visit_item_impl(self, item);
    }

    fn visit_item_trait(&mut self, item: &syn::ItemTrait) {
        self.0 += usize::from(item.unsafety.is_some());
        visit::visit_item_trait(self, item);
    }

    fn visit_item_foreign_mod(&mut self, item: &syn::ItemForeignMod) {
        self.0 += 1;
        visit::visit_item_foreign_mod(self, item);
    }

    fn visit_attribute(&mut self, attribute: &syn::Attribute) {
        let is_unsafe = attribute.path().is_ident("unsafe");
        let inside = match &attribute.meta {
            syn::Meta::List(list) => words(list.tokens.clone()),
            _ => 0,
        };
        // `#[unsafe(no_mangle)]`, also within `cfg_attr`.
        self.0 += usize::from(is_unsafe) + inside;
    }

    fn visit_macro(&mut self, call: &syn::Macro) {
        // What a macro makes of it is not known, so every word counts.
        self.0 += words(call.tokens.clone());
        visit::visit_macro(self, call);
    }
}

/// How often `unsafe` is among these words.
fn words(tokens: proc_macro2::TokenStream) -> usize {
    tokens
        .into_iter()
        .map(|token| match token {
            proc_macro2::TokenTree::Ident(word) => usize::from(word == "unsafe"),
            proc_macro2::TokenTree::Group(group) => words(group.stream()),
            _ => 0,
        })
        .sum()
}

fn check_files(files: &BTreeMap<String, Found>, allowed: &[(&str, usize)]) -> Result<String> {
    let mut problems = Vec::new();
    let mut total = 0;
    for (name, found) in files {
        total += found.places;
        match allowed.iter().find(|(file, _)| file == name) {
            Some((_, most)) if found.places > *most => {
                problems.push(format!("src/{name} has {} unsafe places, {most} are recorded", found.places));
            }
            Some(_) => {}
            None if found.places > 0 => {
                problems.push(format!("src/{name} has {} unsafe places and may have none", found.places));
            }
            None if ABOVE.contains(&name.as_str()) && !found.denies => {
                problems.push(format!("src/{name} has no #![deny(unsafe_code)]"));
            }
            None if !ABOVE.contains(&name.as_str()) && !is_forbidden(name, files) => {
                problems.push(format!("src/{name} has no #![forbid(unsafe_code)], nor has a module above it"));
            }
            None => {}
        }
    }
    ensure!(problems.is_empty(), "unsafe code (xtask/src/unsafe_code.rs):\n  {}", problems.join("\n  "));
    let most: usize = allowed.iter().map(|(_, most)| most).sum();
    Ok(format!("Unsafe: {total} places in {} files (of {most})", files.values().filter(|file| file.places > 0).count()))
}

/// Whether a file or a module above it forbids it.
fn is_forbidden(name: &str, files: &BTreeMap<String, Found>) -> bool {
    let forbids = |name: &str| files.get(name).is_some_and(|file| file.forbids);
    let folders = name.match_indices('/').map(|(at, _)| &name[..at]);
    forbids(name)
        || folders.into_iter().any(|folder| forbids(&format!("{folder}/mod.rs")) || forbids(&format!("{folder}.rs")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str) -> usize {
        parse(text).unwrap().places
    }

    #[test]
    fn every_form_of_it_is_counted() {
        for one in [
            "fn f() { unsafe { g() } }",
            "static A: u8 = h(unsafe { g() });",
            "unsafe fn f() {}",
            "impl A { unsafe fn f(&self) {} }",
            "trait A { unsafe fn f(&self); }",
            "unsafe impl Sync for A {}",
            "unsafe trait A {}",
            "unsafe extern \"C\" { static a: u8; }",
            "#[unsafe(no_mangle)] fn f() {}",
            "#[cfg_attr(feature = \"a\", unsafe(no_mangle))] fn f() {}",
            "fn f() { m!(a, { unsafe { g() } }) }",
            "m! { unsafe { g() } }",
        ] {
            assert_eq!(places(one), 1, "{one}");
        }
        assert_eq!(places("#[unsafe(no_mangle)] unsafe fn f() { unsafe { g(unsafe { h() }) } }"), 4);
        for none in ["//! unsafe\nfn f() {}", "#![forbid(unsafe_code)]", "fn f() { g(\"unsafe { }\") }"] {
            assert_eq!(places(none), 0, "{none}");
        }
    }

    #[test]
    fn one_place_more_one_elsewhere_and_a_module_that_forgets_to_forbid_are_refused() {
        let check = |sources: &[(&str, &str)]| {
            let sources = sources.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
            check_files(&files(&sources).unwrap(), &[("start/mod.rs", 1)]).map_err(|error| error.to_string())
        };
        let lib = ("lib.rs", "#![deny(unsafe_code)]");
        let start = ("start/mod.rs", "fn f() { unsafe { g() } }");
        let good = [lib, start, ("a.rs", "#![forbid(unsafe_code)]"), ("a/b.rs", ""), ("a/b/c.rs", "")];
        assert_eq!(check(&good).unwrap(), "Unsafe: 1 places in 1 files (of 1)");
        assert!(check(&[lib, ("a/mod.rs", "#![forbid(unsafe_code)]"), ("a/b/c.rs", "")]).is_ok());

        let more = check(&[lib, ("start/mod.rs", "unsafe fn f() { unsafe { g() } }")]).unwrap_err();
        assert!(more.contains("src/start/mod.rs has 2 unsafe places, 1 are recorded"), "{more}");
        let elsewhere = check(&[lib, ("a.rs", "unsafe fn f() {}")]).unwrap_err();
        assert!(elsewhere.contains("src/a.rs has 1 unsafe places and may have none"), "{elsewhere}");
        let forgets = check(&[lib, ("a.rs", ""), ("a/b.rs", "")]).unwrap_err();
        assert!(forgets.contains("src/a.rs has no #![forbid") && forgets.contains("src/a/b.rs has no"), "{forgets}");
        assert!(check(&[("lib.rs", "#![allow(unsafe_code)]")]).unwrap_err().contains("src/lib.rs has no #![deny"));
        assert!(files(&BTreeMap::from([("a.rs".to_owned(), "fn".to_owned())])).is_err());
    }

    #[test]
    fn architecture_names_the_same_files() {
        let text = fs::read_to_string(paths::root().join("ARCHITECTURE.md")).unwrap();
        let (_, sentence) = text.split_once("`unsafe` is in ").expect("the sentence");
        let (sentence, _) = sentence.split_once(". ").expect("its end");
        let named: Vec<_> = sentence.split('`').skip(1).step_by(2).collect();
        let is_named =
            |file: &str| named.iter().any(|name| file == *name || name.ends_with('/') && file.starts_with(name));
        for (file, _) in ALLOWED {
            assert!(is_named(file), "{file} is not in: {sentence}");
        }
        for name in &named {
            assert!(ALLOWED.iter().any(|(file, _)| file.starts_with(name)), "{name} is not allowed");
        }
    }

    /// The lints that see to comments and to one operation a block hold in every crate.
    #[test]
    fn every_crate_is_under_the_lints() {
        let read = |path: &str| {
            let text = fs::read_to_string(paths::root().join(path)).unwrap();
            toml::from_str::<toml::Table>(&text).unwrap()
        };
        let workspace = read("Cargo.toml");
        for (tool, lint) in [
            ("rust", "unsafe_op_in_unsafe_fn"),
            ("clippy", "missing_safety_doc"),
            ("clippy", "multiple_unsafe_ops_per_block"),
            ("clippy", "undocumented_unsafe_blocks"),
        ] {
            assert_eq!(workspace["workspace"]["lints"][tool][lint].as_str(), Some("deny"), "{lint}");
        }
        let members = workspace["workspace"]["members"].as_array().unwrap();
        let members = members.iter().map(|member| format!("{}/Cargo.toml", member.as_str().unwrap()));
        for manifest in members.chain(["Cargo.toml".to_owned()]) {
            assert_eq!(read(&manifest)["lints"]["workspace"].as_bool(), Some(true), "{manifest}");
        }
    }

    /// The library and the binary, `start/` and `memory/` with it, are both what the image is made of.
    #[test]
    fn the_binary_was_not_under_the_lints_that_keep_panics_out_of_the_library() {
        for root in ["lib.rs", "main.rs"] {
            let text = fs::read_to_string(paths::root().join("src").join(root)).unwrap();
            let attributes = syn::parse_file(&text).unwrap().attrs;
            let levels = attributes.iter().filter(|attribute| attribute.path().is_ident("cfg_attr"));
            let denied: String = levels
                .filter_map(|attribute| attribute.meta.require_list().ok())
                .map(|list| list.tokens.to_string().replace(' ', ""))
                .filter(|list| list.starts_with("feature=\"firmware\",deny("))
                .collect();
            for lint in [
                "arithmetic_side_effects",
                "expect_used",
                "get_unwrap",
                "indexing_slicing",
                "panic",
                "string_slice",
                "todo",
                "unimplemented",
                "unreachable",
                "unwrap_used",
            ] {
                let is_denied = denied.split(['(', ',', ')', '\n']).any(|word| word == format!("clippy::{lint}"));
                assert!(is_denied, "src/{root} does not deny clippy::{lint}");
            }
        }
    }
}
