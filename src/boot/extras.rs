//! What goes with a kernel: an initrd and a command line.

use super::blob::Blob;
use super::error::Error;
use crate::addr::PhysRange;
use crate::fw_cfg::FwCfg;
use crate::hal::HostAccess;

/// The initrd and the command line. Each is empty if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extras<'a> {
    /// The initrd.
    pub initrd: Blob<'a>,
    /// The command line.
    pub command_line: CommandLine<'a>,
}

/// A command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLine<'a> {
    /// Its bytes.
    pub text: Blob<'a>,
    /// Whether the text ends with a NUL, which counts as part of it. If not, the text is as a user wrote it.
    pub has_nul: bool,
}

impl Default for CommandLine<'_> {
    fn default() -> Self {
        Self { text: Blob::default(), has_nul: true }
    }
}

impl CommandLine<'_> {
    /// The length of the text in bytes, with a NUL at its end.
    #[must_use]
    pub const fn len(&self) -> u64 {
        if self.has_nul { self.text.len() } else { self.text.len().saturating_add(1) }
    }

    /// Whether the command line is empty. A host without a command line may offer a lone NUL.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() <= 1
    }

    /// Loads the text to the start of `place`, which has room for the text and one more NUL.
    fn load<M: HostAccess>(&self, machine: &mut M, fw_cfg: &FwCfg, place: PhysRange) -> Result<(), Error> {
        let text = self.text.load(machine, fw_cfg, place.start())?;
        // The host's own text may lack the NUL.
        machine.write(text.end(), &[0])?;
        // Editors end a file with a newline, which is not part of the command line.
        let mut last = [0];
        if !self.has_nul
            && let Some(at) = text.end().checked_sub(1).filter(|_| !text.is_empty())
        {
            machine.read(at, &mut last)?;
            if last == *b"\n" {
                machine.write(at, &[0])?;
            }
        }
        Ok(())
    }
}

impl Extras<'_> {
    /// The room needed, with a kernel of which `kernel` bytes are to be transferred.
    #[must_use]
    pub const fn needs(&self, kernel: u64) -> Needs {
        Needs {
            kernel,
            initrd: self.initrd.len(),
            initrd_at: self.initrd.place(),
            command_line: self.command_line.len(),
        }
    }

    /// Loads both to their places.
    ///
    /// # Errors
    /// [`Error::FwCfg`].
    pub fn load<M: HostAccess>(
        &self,
        machine: &mut M,
        fw_cfg: &FwCfg,
        initrd: Option<PhysRange>,
        command_line: PhysRange,
    ) -> Result<(), Error> {
        if let Some(initrd) = initrd {
            self.initrd.load(machine, fw_cfg, initrd.start())?;
        }
        self.command_line.load(machine, fw_cfg, command_line)
    }
}

/// The room that a plan has to find, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The bytes of the kernel to be transferred, with what the host has appended to it. Zero for a kernel that is in
    /// its place.
    pub kernel: u64,
    /// The initrd, if there is one.
    pub initrd: u64,
    /// Where the initrd is, if it is in memory. It stays there if the kernel accepts it there.
    pub initrd_at: Option<PhysRange>,
    /// The command line with the NUL at its end.
    pub command_line: u64,
}
