//! What the guest printed, cut into sections.

use std::collections::BTreeMap;

use anyhow::{Context, bail};

/// What a line begins with that begins a section.
const MARK: &str = "firstlight-parity: ";

/// The name of the last section, which is empty.
const END: &str = "end";

/// What this firmware's messages begin with.
const FIRMWARE: &str = "firstlight: ";

/// The sections of one boot.
pub struct Transcript<'a> {
    before: &'a str,
    sections: BTreeMap<&'a str, &'a str>,
}

/// Whether the guest got to its last section.
pub fn is_complete(printed: &str) -> bool {
    printed.lines().any(|line| line.strip_prefix(MARK) == Some(END))
}

impl<'a> Transcript<'a> {
    /// Cuts what came out of the serial port.
    pub fn parse(printed: &'a str) -> anyhow::Result<Self> {
        if !is_complete(printed) {
            bail!("what the guest printed has no end");
        }
        let mut pieces = printed.split(MARK);
        let before = pieces.next().unwrap_or_default();
        let mut sections = BTreeMap::new();
        for piece in pieces {
            let (name, content) = piece.split_once('\n').unwrap_or((piece, ""));
            if name == END {
                break;
            }
            if sections.insert(name, content).is_some() {
                bail!("the guest printed the section {name} twice");
            }
        }
        Ok(Self { before, sections })
    }

    /// The content of a section.
    pub fn section(&self, name: &str) -> anyhow::Result<&'a str> {
        self.sections.get(name).copied().with_context(|| format!("the guest printed no section {name}"))
    }

    /// The sections whose name begins with `prefix`: what follows it, and the content.
    pub fn sections(&self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.sections.iter().filter_map(move |(name, content)| Some((name.strip_prefix(prefix)?, *content)))
    }

    /// What this firmware printed: nothing in a good boot.
    pub fn firmware_lines(&self) -> String {
        self.before.lines().filter(|line| line.starts_with(FIRMWARE)).map(|line| format!("{line}\n")).collect()
    }
}
