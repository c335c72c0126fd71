//! The same sources make the same image and the same files of a release, in any folder.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// All that a release is made of, and what makes it.
const SOURCES: [&str; 16] = [
    ".cargo",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "build.rs",
    "docs",
    "linker.ld",
    "order.ld",
    "packaging",
    "rust-toolchain.toml",
    "src",
    "tests",
    "tools",
    "xtask",
];

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir(to).expect("a new folder");
        for entry in fs::read_dir(from).expect("a folder of the sources") {
            let name = entry.expect("an entry of the sources").file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    }
}

/// Makes the files of a release from a copy of the sources in `folder`, without the list of crates, whose tool takes minutes to
/// compile. Returns the checksums.
fn build(folder: &Path) -> String {
    fs::create_dir_all(folder).expect("a new folder");
    for source in SOURCES {
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join(source), &folder.join(source));
    }
    // Where `core` and `alloc` are built from their sources, these are not downloaded again for a copy.
    let own_target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a build folder");
    let library = own_target.join("rust-src");
    if library.is_dir() {
        fs::create_dir(folder.join("target")).expect("a new folder");
        symlink(library, folder.join("target/rust-src")).expect("a new link");
    }
    // What the image is linked from is compiled anew, in the copy's own build folder. The host tool is not part of the
    // image, so its dependencies are compiled once for all copies.
    let tool = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("host-tool");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(folder)
        .args(["run", "--quiet", "--package", "xtask", "--target-dir"])
        .arg(tool)
        .args(["--", "dist", "--no-sbom"])
        .env("CARGO_NET_OFFLINE", "true")
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "no release is made:\n{}", String::from_utf8_lossy(&output.stderr));
    fs::read_to_string(folder.join("target/dist/SHA256SUMS")).expect("what the host tool makes")
}

#[test]
fn two_builds_in_different_folders_give_the_same_bytes() {
    let folder = TempDir::new().expect("a temporary folder");
    let first = build(&folder.path().join("a"));
    let second = build(&folder.path().join("a folder with a longer name/and another in it"));
    assert_eq!(first, second);
    let names: Vec<_> = first.lines().filter_map(|line| Some(line.split_once("  ")?.1)).collect();
    for name in ["firstlight.bin", "firstlight.elf", "firstlight-with-symbols.elf"] {
        assert!(names.contains(&name), "{names:?}");
    }
    assert!(names.iter().any(|name| name.ends_with(".deb")) && names.iter().any(|name| name.ends_with(".tar.gz")));
}
