//! Lints are the wall around `unsafe`, and keep panics out of the image. These tests check that the lints are on.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of the project")
}

/// The compiler then refuses `unsafe` and every exception from that, in every module.
#[test]
fn the_library_forbids_unsafe_code_at_its_root() {
    let library = read("src/lib.rs");
    assert!(library.lines().any(|line| line == "#![forbid(unsafe_code)]"));
}

/// The library and the binary are both what the image is made of.
#[test]
fn the_library_and_the_binary_deny_the_same_panics() {
    let denied = |path: &str| {
        let text = read(path);
        let (_, list) = text.split_once("#![cfg_attr(\n    feature = \"firmware\",\n    deny(").expect("the list");
        let (list, _) = list.split_once(')').expect("its end");
        list.split(',').map(|lint| lint.trim().to_owned()).filter(|lint| !lint.is_empty()).collect::<Vec<_>>()
    };
    let library = denied("src/lib.rs");
    assert_eq!(denied("src/firmware/main.rs"), library);
    for lint in ["arithmetic_side_effects", "expect_used", "indexing_slicing", "panic", "unwrap_used"] {
        assert!(library.contains(&format!("clippy::{lint}")), "{lint}");
    }
}

/// The lints for SAFETY comments and for one operation a block apply in every crate.
#[test]
fn every_crate_inherits_the_lints() {
    let workspace = read("Cargo.toml");
    for lint in
        ["unsafe_op_in_unsafe_fn", "missing_safety_doc", "multiple_unsafe_ops_per_block", "undocumented_unsafe_blocks"]
    {
        assert!(workspace.contains(&format!("\n{lint} = \"deny\"\n")), "{lint}");
    }
    let (_, members) = workspace.split_once("\nmembers = [").expect("the members");
    let (members, _) = members.split_once(']').expect("their end");
    let members = members.split('"').skip(1).step_by(2).map(|member| format!("{member}/Cargo.toml"));
    for manifest in members.chain(["Cargo.toml".to_owned()]) {
        assert!(read(&manifest).contains("\n[lints]\nworkspace = true\n"), "{manifest}");
    }
}
