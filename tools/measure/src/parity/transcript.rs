//! The guest's output, split into sections.

use std::collections::BTreeMap;

use anyhow::{Context, bail};

/// The start of a line that begins a section.
const MARK: &str = "firstlight-parity: ";

/// The name of the last section. It is empty.
const END: &str = "end";

/// The start of this firmware's messages.
const FIRMWARE: &str = "firstlight: ";

/// The sections of one boot.
pub struct Transcript<'a> {
    before: &'a str,
    sections: BTreeMap<&'a str, &'a str>,
}

/// Whether the guest has printed its last section.
pub fn is_complete(printed: &str) -> bool {
    printed.lines().any(|line| line.strip_prefix(MARK) == Some(END))
}

impl<'a> Transcript<'a> {
    /// Splits the output of the serial port.
    pub fn parse(printed: &'a str) -> anyhow::Result<Self> {
        if !is_complete(printed) {
            bail!("the guest's output is incomplete");
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

    pub fn section(&self, name: &str) -> anyhow::Result<&'a str> {
        self.sections.get(name).copied().with_context(|| format!("the guest printed no section {name}"))
    }

    /// The sections whose name begins with `prefix`: the rest of the name, and the content.
    pub fn sections(&self, prefix: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.sections.iter().filter_map(move |(name, content)| Some((name.strip_prefix(prefix)?, *content)))
    }

    /// This firmware's messages. A successful boot has none.
    pub fn firmware_lines(&self) -> String {
        self.before.lines().filter(|line| line.starts_with(FIRMWARE)).map(|line| format!("{line}\n")).collect()
    }
}
