//! The version of the sources: its number, the commit and the date.
//!
//! The number is that of Cargo.toml. Commit and date come from git. Without it, in an archive made by `git archive`, as hosts of repositories
//! offer it, they come from `xtask/commit.txt`. In other folders without git, the commit is unknown, and the date is that of the
//! newest heading of CHANGELOG.md. `SOURCE_DATE_EPOCH` (reproducible-builds.org) takes the place of each of these dates, if it
//! is of 2008 or later.
//!
//! The image has them in its log and in SMBIOS (`build.rs`). The day of the build is in no file, so that the same sources give
//! the same bytes.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::paths;
use crate::progress::{run_quietly, say};

/// The number, such as "0.2.0".
pub const NUMBER: &str = env!("CARGO_PKG_VERSION");

/// The file that `git archive` fills in (`.gitattributes`).
const ARCHIVED: &str = "xtask/commit.txt";
/// What the image is built from. A change in one of these that is not committed makes it another image than the commit's.
const IMAGE_SOURCES: [&str; 9] = [
    ".cargo",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "build.rs",
    "linker.ld",
    "order.ld",
    "rust-toolchain.toml",
    "src",
];
/// The number of a commit's digits that are shown.
const DIGITS: usize = 12;
/// The options of `git status`: what a user's settings hide is said too.
const STATUS: [&str; 3] = ["status", "--porcelain", "--untracked-files=normal"];
/// The variables by which git takes another repository than that of its folder. Git sets some for hooks.
const ANOTHER_REPOSITORY: [&str; 11] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];
/// The start of 2008. Linux takes an older firmware for one with bugs of its time.
const OLDEST: u64 = 1_199_145_600;
/// The last second that an archive of `tar` can name, in the year 2242.
const NEWEST: u64 = 8_589_934_591;

/// Commit and date of the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The commit's first digits, with "-modified" if the image's sources differ from it; or "unknown commit".
    pub commit: String,
    /// The date, in seconds since 1970.
    pub seconds: u64,
}

impl Version {
    /// The version of the sources in the repository's folder.
    ///
    /// # Errors
    /// If nothing names a date, `SOURCE_DATE_EPOCH` is not a number, or the date is one that no archive can have.
    pub fn of_sources() -> anyhow::Result<Self> {
        Self::of_folder(&paths::root(), env::var("SOURCE_DATE_EPOCH").ok().as_deref())
    }

    /// The same of another folder, with the value of `SOURCE_DATE_EPOCH`.
    fn of_folder(root: &Path, asked: Option<&str>) -> anyhow::Result<Self> {
        let in_git = of_git(root).unwrap_or_else(|error| {
            say(&format!("The commit of the sources is unknown: {error:#}"));
            None
        });
        let found = in_git.or_else(|| of_archive(root));
        let asked = asked.map(|text| match text.parse() {
            Ok(seconds) if seconds <= NEWEST => Ok(seconds),
            _ => bail!("SOURCE_DATE_EPOCH: {text:?} is not a number of seconds from 1970 to {NEWEST}"),
        });
        let dates = [asked.transpose()?, found.as_ref().map(|found| found.seconds)];
        let seconds = match dates.into_iter().flatten().find(|&seconds| seconds >= OLDEST) {
            Some(seconds) => seconds,
            None => seconds_of(&date_of_number(root)?)?,
        };
        ensure!(
            seconds <= NEWEST,
            "the date of the sources is {seconds} seconds after 1970, and archives have dates up to {NEWEST}: set SOURCE_DATE_EPOCH"
        );
        let commit = found.map_or_else(|| "unknown commit".to_owned(), |found| found.commit);
        Ok(Self { commit, seconds })
    }

    /// What git says of files that are not as in the commit, of whatever kind; nothing without git.
    pub fn uncommitted() -> String {
        let root = paths::root();
        if root.join(".git").exists() {
            run_quietly(git(&root).args(STATUS)).unwrap_or_default()
        } else {
            String::new()
        }
    }

    /// The date in UTC, such as 2026-11-30.
    ///
    /// # Errors
    /// If there is no `date`.
    pub fn date(&self) -> anyhow::Result<String> {
        date(&["--date", &format!("@{}", self.seconds), "+%Y-%m-%d"])
    }

    /// The date in the form of mails and of Debian's changelogs (RFC 5322).
    ///
    /// # Errors
    /// If there is no `date`.
    pub fn date_of_mail(&self) -> anyhow::Result<String> {
        date(&["--date", &format!("@{}", self.seconds), "--rfc-email"])
    }

    /// The name, as it is in the image: `Firstlight 0.2.0 (5119d36f2a1b)`.
    pub fn name(&self) -> String {
        format!("Firstlight {NUMBER} ({})", self.commit)
    }

    /// Passes commit and date to the build script.
    ///
    /// # Errors
    /// If there is no `date`.
    pub fn apply(&self, cargo: &mut Command) -> anyhow::Result<()> {
        cargo.env("FIRSTLIGHT_COMMIT", &self.commit).env("FIRSTLIGHT_DATE", self.date()?);
        Ok(())
    }
}

/// Commit and date in an archive that `git archive` made.
fn of_archive(root: &Path) -> Option<Version> {
    parse(fs::read_to_string(root.join(ARCHIVED)).ok()?.trim())
}

/// Commit and date of a repository. None if `root` is not the top of one.
///
/// # Errors
/// What git says, and that there is no git.
fn of_git(root: &Path) -> anyhow::Result<Option<Version>> {
    if !root.join(".git").exists() {
        return Ok(None);
    }
    let show = ["show", "--no-patch", "--no-show-signature", "--format=%H %ct", "HEAD", "--"];
    let shown = run_quietly(git(root).args(show))?;
    let mut version = parse(shown.trim()).with_context(|| format!("git names no commit and date: {shown:?}"))?;
    let changed = run_quietly(git(root).args(STATUS).arg("--").args(IMAGE_SOURCES))?;
    if !changed.is_empty() {
        version.commit.push_str("-modified");
    }
    Ok(Some(version))
}

/// Git in a repository's folder.
fn git(root: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(root);
    for variable in ANOTHER_REPOSITORY {
        git.env_remove(variable);
    }
    git
}

/// Commit and date in the form of both: all of the commit's digits, and seconds.
fn parse(text: &str) -> Option<Version> {
    let (commit, seconds) = text.split_once(' ')?;
    let commit = commit.get(..DIGITS).filter(|commit| commit.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    Some(Version { commit: commit.to_owned(), seconds: seconds.parse().ok()? })
}

/// The date of this number in CHANGELOG.md.
fn date_of_number(root: &Path) -> anyhow::Result<String> {
    let changes = fs::read_to_string(root.join("CHANGELOG.md")).context("cannot read CHANGELOG.md")?;
    let heading = format!("## [{NUMBER}] - ");
    let date = changes.lines().find_map(|line| line.strip_prefix(&heading));
    date.map(str::to_owned).with_context(|| format!("CHANGELOG.md has no line that begins with `{heading}`"))
}

/// The seconds of midnight, in UTC.
fn seconds_of(day: &str) -> anyhow::Result<u64> {
    let seconds = date(&["--date", day, "+%s"])?;
    seconds.parse().with_context(|| format!("{day} is before 1970"))
}

fn date(arguments: &[&str]) -> anyhow::Result<String> {
    let printed = run_quietly(Command::new("date").env("LC_ALL", "C").arg("--utc").args(arguments))?.trim().to_owned();
    ensure!(!printed.is_empty(), "date prints nothing");
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_archive_has_the_commit_and_its_date_and_a_repository_has_the_pattern_of_both() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(of_archive(folder.path()), None);
        fs::create_dir(folder.path().join("xtask")).unwrap();
        let file = folder.path().join(ARCHIVED);
        let pattern = fs::read_to_string(paths::root().join(ARCHIVED)).unwrap();
        if pattern.starts_with('$') {
            assert_eq!(pattern, "$Format:%H %ct$\n");
            fs::write(&file, pattern).unwrap();
            assert_eq!(of_archive(folder.path()), None);
        }
        fs::write(&file, "5119d36f2a1bc0d89f07f0c6a3a1f9a0f6a7a1b2 1796040000\n").unwrap();
        let version = of_archive(folder.path()).unwrap();
        assert_eq!(version, Version { commit: "5119d36f2a1b".to_owned(), seconds: 1_796_040_000 });
        assert_eq!(version.name(), format!("Firstlight {NUMBER} (5119d36f2a1b)"));
        assert_eq!(version.date().unwrap(), "2026-11-30");
    }

    #[test]
    fn the_date_is_the_asked_one_else_the_commits_else_the_changelogs() {
        let folder = tempfile::tempdir().unwrap();
        let date = |asked| Version::of_folder(folder.path(), asked)?.date();
        fs::write(folder.path().join("CHANGELOG.md"), format!("## [Unreleased]\n\n## [{NUMBER}] - 2026-01-02\n"))
            .unwrap();
        assert_eq!(Version::of_folder(folder.path(), None).unwrap().commit, "unknown commit");
        assert_eq!(date(None).unwrap(), "2026-01-02");
        assert_eq!(date(Some("1700000000")).unwrap(), "2023-11-14");
        fs::create_dir(folder.path().join("xtask")).unwrap();
        let commit = "5119d36f2a1bc0d89f07f0c6a3a1f9a0f6a7a1b2 1796040000";
        fs::write(folder.path().join(ARCHIVED), commit).unwrap();
        assert_eq!(date(None).unwrap(), "2026-11-30");
        assert_eq!(date(Some("1700000000")).unwrap(), "2023-11-14");
        // Before 2008, which is what some build systems set.
        assert_eq!(date(Some("315532800")).unwrap(), "2026-11-30");
        assert_eq!(date(Some("8589934591")).unwrap(), "2242-03-16");
        for wrong in ["yesterday", "-1", "8589934592", "18446744073709551616"] {
            assert!(date(Some(wrong)).is_err(), "{wrong}");
        }
        fs::write(folder.path().join(ARCHIVED), commit.replace("1796040000", "8589934592")).unwrap();
        assert!(date(None).unwrap_err().to_string().contains("SOURCE_DATE_EPOCH"));
        assert_eq!(date(Some("1700000000")).unwrap(), "2023-11-14");
    }

    #[test]
    fn a_change_that_is_not_committed_is_said_and_a_folder_in_another_repository_has_no_commit() {
        let folder = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let author = ["-c", "user.name=a", "-c", "user.email=a", "-c", "commit.gpgsign=false"];
            run_quietly(super::git(folder.path()).args(author).args(arguments)).unwrap()
        };
        git(&["init", "--quiet"]);
        fs::create_dir_all(folder.path().join("src")).unwrap();
        fs::write(folder.path().join("src/a"), "").unwrap();
        git(&["add", "."]);
        git(&["commit", "--quiet", "--message", "a"]);
        let commit = git(&["rev-parse", "HEAD"])[..DIGITS].to_owned();
        let commit_of = || of_git(folder.path()).unwrap().unwrap().commit;
        assert_eq!(commit_of(), commit);
        fs::write(folder.path().join("README.md"), "").unwrap();
        assert_eq!(commit_of(), commit, "the image is not made of that");
        fs::write(folder.path().join("HEAD"), "").unwrap();
        assert_eq!(commit_of(), commit, "the name of a file too");
        // A program in place of gpg, whose answers git shows before a signed commit if a user wants that.
        let gpg = folder.path().join(".git/gpg");
        let script = r"#!/bin/sh
cat >/dev/null
printf '\n[GNUPG:] SIG_CREATED \n' >&2
printf '%s\n' '-----BEGIN PGP SIGNATURE-----' '' a '-----END PGP SIGNATURE-----'
";
        fs::write(&gpg, script).unwrap();
        fs::set_permissions(&gpg, fs::Permissions::from_mode(0o755)).unwrap();
        git(&["config", "gpg.program", &gpg.display().to_string()]);
        git(&["config", "log.showSignature", "true"]);
        git(&["commit", "--quiet", "--amend", "--no-edit", "-S"]);
        let commit = git(&["rev-parse", "HEAD"])[..DIGITS].to_owned();
        assert!(git(&["show", "--no-patch", "--format=%H"]).lines().count() > 1, "no answer of gpg");
        assert_eq!(commit_of(), commit, "not what gpg says");
        git(&["config", "status.showUntrackedFiles", "no"]);
        fs::write(folder.path().join("src/b"), "").unwrap();
        assert_eq!(commit_of(), format!("{commit}-modified"));
        assert_eq!(of_git(&folder.path().join("src")).unwrap(), None);
        fs::remove_file(folder.path().join(".git/HEAD")).unwrap();
        assert!(of_git(folder.path()).unwrap_err().to_string().contains("git"), "what git says");
    }

    #[test]
    fn the_repository_is_that_of_the_sources_in_a_hook_of_another_one_too() {
        let test =
            "version::tests::a_change_that_is_not_committed_is_said_and_a_folder_in_another_repository_has_no_commit";
        let mut hook = Command::new(env::current_exe().unwrap());
        hook.args(["--exact", test])
            .env("GIT_DIR", "/nowhere")
            .env("GIT_WORK_TREE", "/")
            .env("GIT_INDEX_FILE", "/nowhere");
        assert!(run_quietly(&mut hook).unwrap().contains("1 passed"));
    }

    #[test]
    fn the_newest_heading_of_the_changelog_has_the_version_and_a_date_that_linux_accepts() {
        let changes = fs::read_to_string(paths::root().join("CHANGELOG.md")).unwrap();
        let released = changes.lines().find(|line| line.starts_with("## [") && !line.contains("[Unreleased]")).unwrap();
        let date = date_of_number(&paths::root()).unwrap();
        assert_eq!(released, format!("## [{NUMBER}] - {date}"));
        assert!(seconds_of(&date).unwrap() > OLDEST);
    }
}
