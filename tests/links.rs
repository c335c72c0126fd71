//! Every link of the pages to a file of the repository, or to a heading of a page, leads somewhere. Links to other places are not
//! followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The pages, by their paths from the repository's top folder.
fn pages() -> BTreeMap<PathBuf, String> {
    let folders = ["", "docs", "tests/data"].map(|folder| Path::new(ROOT).join(folder));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder of pages"));
    let paths =
        files.map(|file| file.expect("a file").path()).filter(|path| path.extension().is_some_and(|end| end == "md"));
    let page = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a page");
        (path.strip_prefix(ROOT).expect("below the top folder").to_owned(), text)
    };
    paths.map(page).collect()
}

/// `page` without blocks of code.
fn prose(page: &str) -> String {
    page.split("```").step_by(2).collect()
}

/// The names of the headings, as GitHub makes them: small letters, no punctuation, hyphens for spaces.
fn headings(page: &str) -> BTreeSet<String> {
    let name = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
        kept.map(|character| if character == ' ' { '-' } else { character }).collect()
    };
    prose(page).lines().filter(|line| line.starts_with('#')).map(name).collect()
}

/// What the links of `page` lead to.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).filter(|target| !target.contains([' ', '\n'])).collect()
}

/// `path` without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[test]
fn every_link_leads_to_a_file_or_a_heading() {
    let pages = pages();
    let (mut wrong, mut followed) = (Vec::new(), 0);
    for (path, page) in &pages {
        for link in links(page).into_iter().filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let beside = path.parent().expect("a folder").join(file);
            let target = if file.is_empty() { path.clone() } else { normal(&beside) };
            let is_there = match pages.get(&target) {
                Some(page) => heading.is_empty() || headings(page).contains(heading),
                None => Path::new(ROOT).join(&target).exists(),
            };
            if !is_there {
                wrong.push(format!("{}: {link}", path.display()));
            }
            followed += 1;
        }
    }
    assert!(wrong.is_empty(), "links that lead nowhere: {wrong:#?}");
    assert!(followed > 100, "only {followed} links: are the pages read?");
}

#[test]
fn headings_have_the_names_that_github_gives_them() {
    let page = "# One, two\n```sh\n# no heading\n```\n## `cargo xtask run`'s third_part: q35-x\n";
    assert_eq!(headings(page), BTreeSet::from(["one-two", "cargo-xtask-runs-third_part-q35-x"].map(str::to_owned)));
    assert_eq!(links("[a](b.md#c) `x](y z)` [d](https://e)"), ["b.md#c", "https://e"]);
    assert_eq!(normal(Path::new("docs/../tests/./data")), Path::new("tests/data"));
}
