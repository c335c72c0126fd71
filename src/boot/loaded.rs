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
    /// The kernel file's setup code, which is not loaded, if the file has some.
    pub setup: Option<Blob<'static>>,
    /// The bytes of a bzImage behind its setup code, or of an ELF file's segments with what is between them. Of a kernel for
    /// Multiboot, all that the host gives before the list of modules.
    pub kernel: PhysRange,
    /// The bytes of the initrd, if there is one.
    pub initrd: Option<PhysRange>,
    /// The modules of a kernel for Multiboot, in its list's order.
    pub modules: Vec<BootModule>,
    /// The bytes of the command line as the host counts them, and one more for a NUL in any case.
    pub command_line: PhysRange,
}

/// A boot module of a kernel for Multiboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootModule {
    /// Its bytes.
    pub bytes: PhysRange,
    /// Its command line, with the NUL at the end.
    pub command_line: PhysRange,
}
