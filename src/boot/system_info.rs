//! What every kernel is told about the machine, besides its memory map.

use crate::addr::PhysAddr;
use crate::disk::controllers::Candidate;
use crate::efi::information::Sources;
use crate::framebuffer::Framebuffer;

/// What the firmware has set up for the kernel.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemInfo<'a> {
    /// The address of the ACPI root pointer, if there are ACPI tables.
    pub rsdp: Option<PhysAddr>,
    /// The display's framebuffer, if there is one.
    pub framebuffer: Option<&'a Framebuffer>,
    /// What EFI tables are made of, if the host asks for these.
    pub efi: Option<&'a Sources>,
    /// What may have disks, if the host offers no kernel.
    pub disks: &'a [Candidate],
}
