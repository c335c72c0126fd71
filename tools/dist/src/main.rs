//! `cargo xtask dist`: the files of a release, in `target/dist`.
//!
//! `xtask` starts this program. The image and the licences of its crates come from the sources, the list of crates (SBOM) from
//! cargo-cyclonedx, the archive from tar, and the Debian package from dpkg-deb. All dates are that of the commit, so the same
//! sources and the same tools make the same bytes.
#![forbid(unsafe_code)]

mod archive;
mod debian;
mod descriptor;
mod files;
mod notices;
mod sbom;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use clap::Parser;
use xtask::packages::{self, Need};
use xtask::progress::{self, run_quietly, say};
use xtask::version::Version;
use xtask::{image, paths, version};

/// The file with the checksums.
const SUMS: &str = "SHA256SUMS";

const TOOLS: [Need; 4] = [
    Need::tool("dpkg-deb", &["dpkg"], "make the Debian package"),
    Need::tool("tar", &["tar"], "make the archive"),
    Need::tool("gzip", &["gzip"], "make the archive"),
    Need::tool("sha256sum", &["coreutils"], "make the checksums"),
];
const LINTIAN: Need = Need::tool("lintian", &["lintian"], "check the Debian package");

/// Make the files of a release
///
/// Builds the image, and writes to target/dist: the image, its ELF file without and with symbols, the descriptor for libvirt and
/// QEMU, the licences of all crates in the image, a list of these crates (SBOM, in CycloneDX's form), an archive of all these, a
/// Debian package, and SHA256SUMS. The same sources make the same bytes. The tool that lists the crates, cargo-cyclonedx, is
/// compiled at the first use, which takes minutes.
#[derive(Parser)]
#[command(name = "dist", bin_name = "cargo xtask dist", max_term_width = 100)]
struct Args {
    /// Leave out the list of crates, so that its tool is not needed; the archive is then not that of a release
    #[arg(long)]
    no_sbom: bool,
}

fn main() -> ExitCode {
    progress::exit_code(run(&Args::parse()).map(|()| ExitCode::SUCCESS))
}

fn run(args: &Args) -> anyhow::Result<()> {
    packages::ensure(&TOOLS)?;
    let image = image::build()?;
    image::inspect(&image, false)?;
    let _lock = paths::lock_release()?;
    let folder = paths::release_folder();
    paths::remake(&folder)?;
    collect(args, &image, &folder)?;
    files::settle(&folder, image.version.seconds)?;
    archive::make(&folder, &format!("firstlight-{}", version::NUMBER), image.version.seconds)?;
    let package = debian::make(&folder, &image.version)?;
    // lintian needs many packages, and the files are complete without its opinion.
    match packages::ensure(&[LINTIAN]) {
        Ok(_) => debian::check(&package)?,
        Err(error) => say(&format!("The Debian package is not checked with lintian: {error:#}")),
    }
    sum(&folder)?;
    files::settle(&folder, image.version.seconds)?;
    let uncommitted = Version::uncommitted();
    if !uncommitted.is_empty() {
        say(&format!("These files are of no commit, because the sources are modified:\n{}", uncommitted.trim_end()));
    }
    say(&format!("{}: written to {}", image.version.name(), paths::shown(&folder)));
    print!("{}", fs::read_to_string(folder.join(SUMS))?);
    Ok(())
}

/// Puts the files of a release into `folder`.
fn collect(args: &Args, image: &image::Image, folder: &Path) -> anyhow::Result<()> {
    let root = paths::root();
    let files = [
        (image.bin.clone(), "firstlight.bin"),
        (image.stripped.clone(), "firstlight.elf"),
        (image.elf.clone(), "firstlight-with-symbols.elf"),
        (root.join("packaging").join(descriptor::NAME), descriptor::NAME),
        (root.join("CHANGELOG.md"), "CHANGELOG.md"),
    ];
    for (from, name) in files {
        fs::copy(&from, folder.join(name)).with_context(|| format!("cannot copy {}", paths::shown(&from)))?;
    }
    let crates = notices::crates(image.target)?;
    let text = notices::text(&image.version, &crates)?;
    fs::write(folder.join(notices::NAME), text).context("cannot write the licences")?;
    if args.no_sbom {
        say("There is no list of crates (SBOM), because of --no-sbom");
        return Ok(());
    }
    let list = sbom::make(image.target, &image.version, &crates)?;
    fs::write(folder.join(sbom::NAME), list).context("cannot write the list of crates")
}

/// Writes the checksums of all files in `folder`.
fn sum(folder: &Path) -> anyhow::Result<()> {
    let sums = run_quietly(Command::new("sha256sum").current_dir(folder).args(files::names(folder)?))?;
    fs::write(folder.join(SUMS), sums).context("cannot write the checksums")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_definition_is_consistent() {
        Args::command().debug_assert();
    }

    /// Makes archive and package of small files in `folder`, and returns the checksums of all.
    fn release(folder: &Path, seconds: u64) -> String {
        let version = Version { commit: "5119d36f2a1b".to_owned(), seconds };
        for name in ["firstlight.bin", descriptor::NAME, notices::NAME, "CHANGELOG.md"] {
            fs::write(folder.join(name), format!("text of {name}")).unwrap();
        }
        files::settle(folder, version.seconds).unwrap();
        archive::make(folder, "firstlight-0", version.seconds).unwrap();
        debian::make(folder, &version).unwrap();
        sum(folder).unwrap();
        fs::read_to_string(folder.join(SUMS)).unwrap()
    }

    #[test]
    fn the_same_files_make_the_same_archive_and_package_at_another_time_in_another_folder() {
        let [a, b, c] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let first = release(a.path(), 1_796_040_000);
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(first, release(b.path(), 1_796_040_000));
        assert_eq!(first.lines().count(), 6, "{first}");
        assert_ne!(first, release(c.path(), 1_796_040_001), "the date of the commit is in them");
    }
}
