//! The firmware images that are compared: this one, its peers from Debian's packages, and files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, ensure};
use xtask::packages::{self, Need};
use xtask::qemu;

use crate::boot::scenario::EFI_ON;

/// Another firmware, from a Debian package: its name on the command line, its image, and its image for microvm.
type Peer = (&'static str, Need, Option<Need>);

/// All peers. Debian does not ship OVMF's build for microvm.
const PEERS: [Peer; 3] = [
    ("seabios", packages::SEABIOS, Some(packages::SEABIOS_MICROVM)),
    ("qboot", packages::QBOOT, Some(packages::QBOOT)),
    ("ovmf", packages::OVMF, None),
];

/// A firmware that the user chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This firmware, built from the sources.
    Firstlight,
    /// The same, asked to enter the kernel as an EFI program.
    FirstlightEfi,
    /// One from a Debian package.
    Peer(&'static Peer),
    File(PathBuf),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(own) = [Self::Firstlight, Self::FirstlightEfi].into_iter().find(|own| own.name() == text) {
            return Ok(own);
        }
        if let Some(peer) = PEERS.iter().find(|(name, ..)| *name == text) {
            return Ok(Self::Peer(peer));
        }
        // A word without these is a mistyped name, not a path.
        if text.contains(['/', '.']) {
            return Ok(Self::File(text.into()));
        }
        let names: Vec<_> = PEERS.iter().map(|(name, ..)| *name).collect();
        Err(format!(
            "unknown firmware; choose firstlight, firstlight-efi, {}, or the path of an image",
            names.join(", ")
        ))
    }
}

/// The firmware that is compared by default: the small ones, and, if OVMF is installed, that and this firmware with EFI.
pub fn default_choices() -> Vec<Choice> {
    let has_ovmf = packages::OVMF.found().is_some();
    let peers = PEERS.iter().filter(|(name, ..)| *name != "ovmf" || has_ovmf);
    let own = [Choice::Firstlight].into_iter().chain(has_ovmf.then_some(Choice::FirstlightEfi));
    own.chain(peers.map(Choice::Peer)).collect()
}

impl Choice {
    /// Its name in a report.
    pub fn name(&self) -> String {
        match self {
            Self::Firstlight => "firstlight".to_owned(),
            Self::FirstlightEfi => "firstlight-efi".to_owned(),
            Self::Peer((name, ..)) => (*name).to_owned(),
            Self::File(path) => path.file_name().unwrap_or_default().display().to_string(),
        }
    }

    /// What must be installed for it.
    pub fn need(&self) -> Option<Need> {
        match self {
            Self::Peer((_, need, _)) => Some(*need),
            _ => None,
        }
    }

    /// Whether it is this firmware.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Firstlight | Self::FirstlightEfi)
    }

    /// What QEMU gets for it besides the image, as a scenario has its devices.
    pub fn options(&self) -> &'static [&'static str] {
        if *self == Self::FirstlightEfi { &EFI_ON } else { &[] }
    }

    /// Checks that an image that the user names can be read.
    pub fn check(&self) -> anyhow::Result<()> {
        let Self::File(path) = self else { return Ok(()) };
        let data = File::open(path).and_then(|file| file.metadata()).with_context(|| path.display().to_string())?;
        ensure!(data.is_file(), "{}: not a regular file", path.display());
        Ok(())
    }

    /// The image for a machine, in the form of `-machine`, or why there is none. `built` is the image of this firmware.
    pub fn image(&self, machine: &str, built: Option<&Path>) -> Result<PathBuf, String> {
        match self {
            Self::Firstlight | Self::FirstlightEfi => {
                built.map(Path::to_owned).ok_or_else(|| "missing: it was not built".to_owned())
            }
            Self::Peer((_, need, microvm)) => {
                let need = if qemu::machine_type(machine) == "microvm" { microvm.as_ref() } else { Some(need) };
                let need = need.ok_or("has no image for this machine")?;
                need.found().ok_or_else(|| format!("missing: {need}"))
            }
            Self::File(path) => self
                .check()
                .and_then(|()| Ok(std::path::absolute(path)?))
                .map_err(|error| format!("missing: {error:#}")),
        }
    }
}
