//! The list of `setup_data` nodes, which begins in the setup header: what a kernel reads besides `boot_params`.
//!
//! QEMU appends such nodes to the kernel (a device tree, `-dtb`; a random seed in 7.2.0). Their pointers are for the
//! address where QEMU expects the kernel. At any other address they are wrong, and a kernel that unpacks itself would
//! overwrite the nodes. So the appended data is copied out of the kernel's way after loading, and the pointers are
//! adjusted to the new place ([`Appended`]).
//!
//! Sources: boot.rst, `setup_data`; Linux `arch/x86/include/uapi/asm/setup_data.h`.

use uefi_raw::table::boot::MemoryType;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::setup_header::SetupHeader;
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::boot::error::Error;
use crate::hal::{HostAccess, Memory};
use crate::layout::EXTENDED;
use crate::memory_map::{MemoryMap, Placement};

/// `SETUP_E820_EXT`: more e820 entries.
pub const SETUP_E820_EXT: u32 = 1;
/// `SETUP_DTB`: a device tree.
pub const SETUP_DTB: u32 = 2;

/// The limit on nodes. QEMU appends two at most.
pub const MOST_NODES: usize = 32;

/// `struct setup_data`, without the data that follows it.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Node {
    /// The address of the next node. Zero for none.
    pub next: U64,
    /// The type of the data.
    pub kind: U32,
    /// The length of the data in bytes.
    pub len: U32,
}

/// What the host has appended to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where it begins in the protected-mode part of the kernel, in bytes.
    offset: u64,
    /// The address of the protected-mode part that its pointers assume.
    host_address: PhysAddr,
    /// Where it is copied to. It ends at the end of the kernel item.
    pub place: PhysRange,
}

impl Appended {
    /// Finds a place for what the host has appended to the `kernel_len` bytes, and reserves it in `map`. Warns if the
    /// header points elsewhere.
    ///
    /// Such a pointer is not passed on. It may have come with the file, as no pointer is measured. The memory that it
    /// points to is neither measured nor reserved, or is a part of the kernel.
    pub fn plan(
        header: &SetupHeader,
        kernel_len: u64,
        host_address: Option<PhysAddr>,
        map: &mut MemoryMap,
    ) -> Option<Self> {
        let Some((host_address, offset, len)) = Self::find(header, kernel_len, host_address) else {
            warn_of_elsewhere(header.setup_data());
            return None;
        };
        let place = allocate(map, len);
        if place.is_none() {
            crate::warn!(
                "the setup_data that the host has appended to the kernel is left out: there is no room for it"
            );
        }
        Some(Self { offset, host_address, place: place.unwrap_or_default() })
    }

    /// The host's address of the kernel, and the offset and length of the appended data, if the header points there.
    fn find(header: &SetupHeader, kernel_len: u64, host_address: Option<PhysAddr>) -> Option<(PhysAddr, u64, u64)> {
        let host_address = host_address?;
        let first = header.setup_data().checked_sub(host_address.get())?;
        // The first in the list need not be the first in memory. For why the setup code can count, see
        // `counts_setup_code`.
        let offset = header.kernel_len();
        let end = kernel_len.saturating_add(header.setup_len().into());
        let len = kernel_len.checked_sub(offset).filter(|&len| len != 0 && (offset..end).contains(&first))?;
        Some((host_address, offset, len))
    }

    /// Copies it from the loaded `kernel`, and returns the address of the first node.
    ///
    /// # Errors
    /// [`Error::FwCfg`] if memory cannot be accessed.
    pub(super) fn copy<M: HostAccess>(
        &self,
        machine: &mut M,
        header: &SetupHeader,
        kernel: PhysRange,
    ) -> Result<u64, Error> {
        let (_, appended) = kernel.split_at(self.offset);
        if self.place.is_empty() {
            return Ok(0);
        }
        machine.copy(appended, self.place.start())?;
        let setup_len = u64::from(header.setup_len());
        let skew = if self.counts_setup_code(machine, header.setup_data(), setup_len)? { setup_len } else { 0 };

        let mut first = 0;
        // The previous node. Its first field is the pointer.
        let mut before = None;
        let mut next = header.setup_data();
        for _ in 0..MOST_NODES {
            let Some((at, node)) = self.node(machine, next, skew)? else { break };
            match before {
                None => first = at.get(),
                Some(before) => machine.write(before, &at.get().to_le_bytes())?,
            }
            before = Some(at);
            next = node.next.get();
            if next == 0 {
                return Ok(first);
            }
        }
        warn_of_elsewhere(next);
        if let Some(before) = before {
            machine.write(before, &[0; size_of::<u64>()])?;
        }
        Ok(first)
    }

    /// Whether the pointers are too high by the length of the setup code. QEMU 10 counts from the beginning of the file
    /// (`hw/i386/x86-common.c`, `x86_load_linux`). It appends one node, a device tree, which ends with the item.
    fn counts_setup_code(&self, machine: &mut impl Memory, pointer: u64, setup_len: u64) -> Result<bool, Error> {
        Ok(self.node(machine, pointer, setup_len)?.is_some_and(|(at, node)| {
            let end = at.get().saturating_add(size_of::<Node>() as u64).saturating_add(node.len.get().into());
            node.next.get() == 0 && node.kind.get() == SETUP_DTB && end == self.place.end().get()
        }))
    }

    /// The node at a pointer from the host, and its address, if the whole node is in the copied data.
    fn node(&self, machine: &mut impl Memory, pointer: u64, skew: u64) -> Result<Option<(PhysAddr, Node)>, Error> {
        let offset = pointer
            .checked_sub(self.host_address.get())
            .and_then(|offset| offset.checked_sub(skew)?.checked_sub(self.offset));
        let Some(at) = offset.and_then(|offset| self.place.start().checked_add(offset)) else { return Ok(None) };
        let is_inside = |len: u64| PhysRange::new(at, len).is_some_and(|range| self.place.contains(range));
        let len = size_of::<Node>() as u64;
        if !is_inside(len) {
            return Ok(None);
        }
        let mut node = Node::new_zeroed();
        machine.read(at, node.as_mut_bytes())?;
        Ok(is_inside(len.saturating_add(node.len.get().into())).then_some((at, node)))
    }
}

fn warn_of_elsewhere(pointer: u64) {
    crate::warn!("setup_data at {pointer:#x} is left out: it is not in what the host has appended to the kernel");
}

/// Allocates `len` bytes for the kernel, above the memory into which it grows.
pub fn allocate(map: &mut MemoryMap, len: u64) -> Option<PhysRange> {
    let pages = len.checked_next_multiple_of(Alignment::PAGE.bytes())?;
    let allocated = map.allocate(pages, Alignment::PAGE, EXTENDED, Placement::Top, MemoryType::LOADER_DATA)?;
    PhysRange::new(allocated.start(), len)
}
