//! What every kernel is told of the machine beside its memory map.

use crate::addr::PhysAddr;
use crate::framebuffer::Framebuffer;

/// What the firmware has set up that a kernel is told of.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemInfo<'a> {
    /// The address of the ACPI root pointer, if there are ACPI tables.
    pub rsdp: Option<PhysAddr>,
    /// What the display shows, if there is one.
    pub framebuffer: Option<&'a Framebuffer>,
}
