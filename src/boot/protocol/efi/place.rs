//! Transfers of the parts of a program from its file to their places in memory.

use crate::addr::PhysRange;
use crate::boot::blob::Blob;
use crate::boot::error::Error;
use crate::efi::pe::{Contents, Image};
use crate::fw_cfg::FwCfg;
use crate::hal::HostAccess;

/// The length of a file in parts.
pub fn len(parts: &[Blob<'_>; 2]) -> u64 {
    let [first, second] = parts;
    first.len().saturating_add(second.len())
}

/// `len` bytes of the file from `offset` on, or as many as there are.
pub fn piece(parts: &[Blob<'static>; 2], offset: u32, len: u32) -> [Blob<'static>; 2] {
    let [first, second] = *parts;
    let first_len = u32::try_from(first.len()).unwrap_or(u32::MAX);
    let (_, in_first) = first.split_at(offset);
    let (in_first, _) = in_first.split_at(len);
    let taken = u32::try_from(in_first.len()).unwrap_or(u32::MAX);
    let (_, in_second) = second.split_at(offset.saturating_sub(first_len));
    let (in_second, _) = in_second.split_at(len.saturating_sub(taken));
    [in_first, in_second]
}

/// Puts the contents of `image` to `place`, and zeros behind them in their pages.
///
/// The CPU writes the zeros. A transfer from behind an item's end writes them too, but each is an exit to the host. The gap in
/// Debian's kernel 6.1 for clouds has 276 KiB.
///
/// # Errors
/// [`Error::FwCfg`].
pub fn load<M: HostAccess>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    parts: &[Blob<'static>; 2],
    image: &Image,
    place: PhysRange,
) -> Result<(), Error> {
    let start = place.start();
    let at = |offset: u32| start.checked_add(offset.into()).unwrap_or(start);
    for Contents { offset, address, len } in image.contents() {
        let mut to = at(address);
        for part in piece(parts, offset, len) {
            part.load(machine, fw_cfg, to)?;
            to = to.checked_add(part.len()).unwrap_or(to);
        }
    }
    for gap in image.zeros() {
        let gap = PhysRange::new(at(gap.start), gap.len().into()).unwrap_or_default();
        machine.fill(gap, 0)?;
    }
    let (_, rest) = place.split_at(image.len().into());
    machine.fill(rest, 0)?;
    Ok(())
}
