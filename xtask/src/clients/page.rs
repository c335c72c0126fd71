//! The recipes in docs/clients.md.
//!
//! A section with a block of shell commands is a recipe. Its blocks of other languages are files, if a name follows the language.
//! From the heading [`END`] on, nothing is run.

/// The page.
pub const PAGE: &str = include_str!("../../../docs/clients.md");

/// The heading of the part that no test runs.
pub const END: &str = "## Not run here";

/// A section of the page with its blocks of code.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Its name in links.
    pub name: String,
    /// The files to write: name and contents.
    pub files: Vec<(String, String)>,
    /// The commands of all blocks, in order.
    pub script: String,
}

/// The recipes of a page, in order.
pub fn sections(page: &str) -> Vec<Section> {
    let mut sections = vec![Section::default()];
    let mut lines = page.lines().take_while(|line| *line != END);
    while let Some(line) = lines.next() {
        if line.starts_with('#') {
            sections.push(Section { name: name(line), ..Section::default() });
        }
        let Some(language) = line.strip_prefix("```") else { continue };
        let code: String = lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
        let Some(section) = sections.last_mut() else { continue };
        match language.split_once(' ') {
            Some((_, file)) => section.files.push((file.to_owned(), code)),
            None if language == "sh" => section.script.push_str(&code),
            None => {}
        }
    }
    sections.retain(|section| !section.script.is_empty());
    sections
}

/// The name of a heading in links, as GitHub makes it.
fn name(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
    kept.map(|character| if character == ' ' { '-' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_has_its_files_and_its_commands() {
        let page = "# Page\n```sh\nfirst\n```\n## A b\ntext\n```xml a.xml\n<a>\n#b\n```\n```sh\nc\n```\n```sh\nd\n```\n\
            ## None\n```text\nno\n```\n## Not run here\n```sh\nnever\n```\n";
        let section = |name: &str, files: &[(&str, &str)], script: &str| Section {
            name: name.to_owned(),
            files: files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
            script: script.to_owned(),
        };
        let expected = [section("page", &[], "first\n"), section("a-b", &[("a.xml", "<a>\n#b\n")], "c\nd\n")];
        assert_eq!(sections(page), expected);
    }
}
