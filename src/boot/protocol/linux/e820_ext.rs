//! A `setup_data` node with the e820 entries that `boot_params` has no room for. It comes first in the list.

use zerocopy::IntoBytes;

use super::boot_params::{BootParams, E820_ENTRIES};
use super::setup_data::{Node, SETUP_E820_EXT, allocate};
use super::setup_header::SetupHeader;
use crate::boot::error::Error;
use crate::hal::Memory;
use crate::memory_map::{E820Entry, MemoryMap};

/// Adds a node with the e820 entries that `params` has no room for, in front of the other nodes.
///
/// # Errors
/// [`Error::FwCfg`] if memory cannot be accessed.
pub fn add(
    machine: &mut impl Memory,
    map: &mut MemoryMap,
    header: &SetupHeader,
    params: &mut BootParams,
) -> Result<(), Error> {
    let count = map.e820().skip(E820_ENTRIES).fold(0_usize, |count, _| count.saturating_add(1));
    if count == 0 {
        return Ok(());
    }
    let len = count.saturating_mul(size_of::<E820Entry>());
    let node_len = size_of::<Node>();
    let place = allocate(map, node_len.saturating_add(len) as u64).filter(|_| header.has_setup_data());
    let Some(place) = place else {
        crate::warn!("the last {count} memory ranges are left out: the kernel accepts {E820_ENTRIES} at most");
        return Ok(());
    };
    let node = Node { next: params.setup_data().into(), kind: SETUP_E820_EXT.into(), len: (len as u32).into() };
    machine.write(place.start(), node.as_bytes())?;
    let (_, mut rest) = place.split_at(node_len as u64);
    for entry in map.e820().skip(E820_ENTRIES) {
        machine.write(rest.start(), entry.as_bytes())?;
        (_, rest) = rest.split_at(size_of::<E820Entry>() as u64);
    }
    params.set_setup_data(place.start().get());
    Ok(())
}
