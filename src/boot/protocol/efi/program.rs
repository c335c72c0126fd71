//! What boot services start with: a program that is in its place, or the disks that may have one.

use alloc::vec::Vec;

use crate::addr::PhysRange;
use crate::boot::blob::Blob;
use crate::boot::error::Error;
use crate::disk::controllers::Candidate;
use crate::efi::information::Sources;
use crate::efi::services::Placed;
use crate::framebuffer::Framebuffer;
use crate::fw_cfg::FwCfg;
use crate::hal::paging::Access;
use crate::heap;
use crate::memory_map::MemoryMap;
use crate::tpm::Presence;

/// A program of the host's that is ready to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EfiProgram {
    /// Where it is.
    pub placed: Placed,
    /// The access to its pages, if its headers allow it.
    pub protection: Vec<(PhysRange, Access)>,
    /// Its load options: the command line in UTF-16 with a NUL; empty without one.
    pub options: PhysRange,
    /// The kernel file, in one or two parts. It is the program's, unless the program is a shim.
    pub file: [Blob<'static>; 2],
    /// The file of the shim that loads the kernel, if the program is one.
    pub shim: Option<Blob<'static>>,
    /// The initrd, if there is one.
    pub initrd: Option<Blob<'static>>,
    /// The command line as the host has it; empty without one.
    pub command_line: Blob<'static>,
}

impl EfiProgram {
    /// The file of the program: the shim's, or else the kernel's.
    #[must_use]
    pub fn started(&self) -> [Blob<'static>; 2] {
        self.shim.map_or(self.file, |shim| [shim, Blob::default()])
    }
}

/// What the firmware starts first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// The host's program.
    Program(EfiProgram),
    /// What the boot manager finds on the disks of these.
    Disks(Vec<Candidate>),
}

/// Boot services that are ready to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EfiBoot {
    /// What they are for.
    pub first: First,
    /// The stack of programs. The first page is a guard below it.
    pub stack: PhysRange,
    /// The display's framebuffer, if there is one.
    pub framebuffer: Option<Framebuffer>,
    /// The TPM that programs measure with.
    pub tpm: Presence,
    /// What configuration tables and runtime services are made of.
    pub sources: Sources,
    /// The memory map, with all of this in it.
    pub map: MemoryMap,
    /// The host's fw_cfg device.
    pub fw_cfg: FwCfg,
}

impl EfiBoot {
    /// The host's program, if there is one.
    #[must_use]
    pub const fn program(&self) -> Option<&EfiProgram> {
        match &self.first {
            First::Program(program) => Some(program),
            First::Disks(_) => None,
        }
    }
}

/// Boot services on the heap, or none. A list, because a list's room can be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EfiStart(Vec<EfiBoot>);

impl EfiStart {
    /// Puts `boot` on the heap.
    ///
    /// # Errors
    /// [`Error::HeapFull`].
    pub fn new(boot: EfiBoot) -> Result<Self, Error> {
        let mut list = Vec::new();
        heap::push(&mut list, boot).map_err(|_| Error::HeapFull)?;
        Ok(Self(list))
    }

    /// None.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Passes on what the boot has no more use for.
    pub fn give(&mut self, map: MemoryMap, fw_cfg: FwCfg) {
        if let Some(boot) = self.0.first_mut() {
            (boot.map, boot.fw_cfg) = (map, fw_cfg);
        }
    }

    /// Leaves the TPM to boot services, if they are started.
    pub fn give_tpm(&mut self, tpm: Presence) -> bool {
        match self.0.first_mut() {
            Some(boot) => {
                boot.tpm = tpm;
                true
            }
            None => false,
        }
    }

    /// Takes it from the heap.
    pub fn take(&mut self) -> Option<EfiBoot> {
        self.0.pop()
    }
}
