//! A display whose framebuffer is in the guest's RAM. The firmware writes its address to a fw_cfg item.
//!
//! QEMU's `ramfb`, also part of `vfio-pci`'s displays. Source: QEMU `hw/display/ramfb.c`, `struct RAMFBCfg`.

use uefi_raw::table::boot::MemoryType;
use zerocopy::big_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

use super::error::Error;
use super::mode::{Framebuffer, Mode};
use crate::addr::{Alignment, PhysRange};
use crate::fw_cfg::{FwCfg, Item};
use crate::hal::HostAccess;
use crate::memory_map::Placement;
use crate::state::Boot;

/// The item that takes a [`Config`].
pub const ITEM: &str = "etc/ramfb";
/// The item's length in bytes.
const ITEM_SIZE: usize = size_of::<Config>();

/// XRGB8888 (Linux `include/uapi/drm/drm_fourcc.h`, `DRM_FORMAT_XRGB8888`).
const FORMAT_XRGB8888: u32 = u32::from_le_bytes(*b"XR24");

/// The configuration written to the host, 28 bytes, big-endian.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Config {
    address: U64,
    format: U32,
    flags: U32,
    width: U32,
    height: U32,
    line_bytes: U32,
}

/// Reserves memory for the framebuffer, clears it, and makes the host show it.
pub fn set_up<M: HostAccess>(boot: &mut Boot<'_, M>, item: Item) -> Result<Framebuffer, Error> {
    if item.len() as usize != ITEM_SIZE {
        return Err(Error::ItemSize { seen: item.len(), expected: ITEM_SIZE });
    }
    let mode = Mode::DEFAULT;
    let (len, within) = (mode.bytes(), PhysRange::LOW_4_GIB);
    // The kernel's driver treats the framebuffer as memory of a device.
    let memory = boot.map.allocate(len.into(), Alignment::PAGE, within, Placement::Top, MemoryType::RESERVED);
    let framebuffer = Framebuffer { memory: memory.ok_or(Error::NoRoom(len))?, mode, function: None };
    let shown = show(boot.machine, boot.fw_cfg, item, &framebuffer);
    if shown.is_err() {
        // It was just allocated, so the map has room for the region that was there before.
        let _ = boot.map.release(framebuffer.memory);
    }
    shown.map(|()| framebuffer)
}

fn show<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, item: Item, framebuffer: &Framebuffer) -> Result<(), Error> {
    let mode = framebuffer.mode;
    let config = Config {
        address: framebuffer.memory.start().get().into(),
        format: FORMAT_XRGB8888.into(),
        flags: 0.into(),
        width: u32::from(mode.width()).into(),
        height: u32::from(mode.height()).into(),
        line_bytes: u32::from(mode.line_bytes()).into(),
    };
    machine.fill(framebuffer.memory, 0)?;
    fw_cfg.write(machine, item, 0, config.as_bytes())?;
    Ok(())
}
