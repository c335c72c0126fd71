//! The workflows in `.github` use pinned actions and have no more permissions than they need. If `actionlint` is installed, it
//! has nothing to say about them. Nothing here runs a workflow.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

const WORKFLOWS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.github/workflows");

/// Each workflow, with its text.
fn workflows() -> Vec<(PathBuf, String)> {
    let paths = fs::read_dir(WORKFLOWS).expect("a folder of workflows").map(|entry| entry.expect("a file").path());
    paths.map(|path| (path.clone(), fs::read_to_string(path).expect("a workflow"))).collect()
}

/// Whether `action` is a commit, with its version in a comment: `owner/name@COMMIT # v1.2.3`.
fn is_pinned(action: &str) -> bool {
    let commit = action.split_once('@').map(|(_, rest)| rest.split_once(" # v").unwrap_or_default().0);
    commit.is_some_and(|commit| commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[test]
fn every_action_is_pinned_to_a_commit() {
    let workflows = workflows();
    let actions: Vec<_> = workflows
        .iter()
        .flat_map(|(_, text)| {
            text.lines().filter_map(|line| line.trim_start_matches([' ', '-']).strip_prefix("uses: "))
        })
        .collect();
    assert!(!actions.is_empty(), "no workflow uses an action");
    assert!(actions.iter().all(|action| is_pinned(action)), "{actions:#?}");
    assert!(!is_pinned("actions/checkout@v5"));
    assert!(!is_pinned("actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8"));
}

/// The jobs of a workflow. Each begins with its name, two columns in.
fn jobs(text: &str) -> Vec<String> {
    let (_, lines) = text.split_once("\njobs:\n").expect("a workflow has jobs");
    let mut jobs = Vec::<String>::new();
    for line in lines.lines() {
        if line.strip_prefix("  ").is_some_and(|rest| !rest.starts_with([' ', '#'])) {
            jobs.push(String::new());
        }
        if let Some(job) = jobs.last_mut() {
            job.push_str(line);
            job.push('\n');
        }
    }
    jobs
}

/// It makes the draft of a release from the files of another job.
#[test]
fn one_job_may_write_and_it_runs_nothing_of_the_repository() {
    let workflows = workflows();
    for (path, text) in &workflows {
        assert!(text.contains("\npermissions:\n  contents: read\n\n"), "{} has other permissions", path.display());
    }
    let writers = workflows.iter().flat_map(|(_, text)| jobs(text)).filter(|job| job.contains(": write"));
    let writers: Vec<_> = writers.collect();
    let [writer] = writers.as_slice() else { panic!("not one job may write, but {}", writers.len()) };
    assert!(writer.starts_with("  release:\n") && writer.contains("contents: write\n"), "{writer}");
    assert_eq!(writer.matches(": write").count(), 1, "{writer}");
    assert!(!writer.contains("actions/checkout") && !writer.contains("cargo"), "{writer}");
}

#[test]
fn actionlint_accepts_the_workflows() {
    let paths: Vec<_> = workflows().into_iter().map(|(path, _)| path).collect();
    match Command::new("actionlint").args(&paths).current_dir(Path::new(WORKFLOWS)).output() {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!(
                "skipped: actionlint is not installed (go install github.com/rhysd/actionlint/cmd/actionlint@latest)"
            );
        }
        Err(error) => panic!("actionlint: {error}"),
    }
}
