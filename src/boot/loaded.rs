//! What is in memory once a kernel is loaded.

use alloc::vec::Vec;

use super::blob::Blob;
use super::handover::Handover;
use crate::addr::PhysRange;

/// A kernel that is ready to be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What is in memory.
    pub images: Images,
    /// How the kernel is entered.
    pub handover: Handover,
}

/// The bytes of what is booted, as they are measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// The kernel file's setup code, if there is any. It is not loaded.
    pub setup: Option<Blob<'static>>,
    /// A bzImage without its setup code; an ELF file's segments with the gaps between them; for Multiboot, all bytes of
    /// the host's item before the list of modules.
    pub kernel: PhysRange,
    /// The bytes of the initrd, if there is one.
    pub initrd: Option<PhysRange>,
    /// The modules of a Multiboot kernel, in the order of its list.
    pub modules: Vec<BootModule>,
    /// The command line as the host counts it, and one more byte for a NUL.
    pub command_line: PhysRange,
}

/// A boot module of a Multiboot kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootModule {
    /// Its bytes.
    pub bytes: PhysRange,
    /// Its command line, with the NUL at the end.
    pub command_line: PhysRange,
}
