//! A program's load options: the command line in UTF-16, which is how EFI has text.

use uefi_raw::table::boot::MemoryType;

use crate::addr::{Alignment, PhysRange};
use crate::boot::error::Error;
use crate::boot::extras::CommandLine;
use crate::fw_cfg::FwCfg;
use crate::hal::HostAccess;
use crate::heap;
use crate::memory_map::{MemoryMap, Placement};

/// As many characters are written at a time.
const PIECE: usize = 64;

/// Puts `first` and the command line into memory, with a NUL. It is an empty range if both are empty.
///
/// # Errors
/// [`Error::FwCfg`], [`Error::NoEfiMemory`].
pub fn load<M: HostAccess>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    map: &mut MemoryMap,
    first: &str,
    command_line: &CommandLine<'_>,
) -> Result<PhysRange, Error> {
    if first.is_empty() && command_line.is_empty() {
        return Ok(PhysRange::default());
    }
    let bytes = command_line.text.read(machine, fw_cfg)?;
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    // Editors end a file with a newline, which is not part of the command line.
    let text = if command_line.has_nul { text } else { text.strip_suffix(b"\n").unwrap_or(text) };
    let needed = (heap::count(characters(first, text)) as u64).saturating_add(1).saturating_mul(2);
    let none = Error::NoEfiMemory { needed };
    let kind = MemoryType::LOADER_DATA;
    let room = needed.checked_next_multiple_of(Alignment::PAGE.bytes()).ok_or(none)?;
    let place = map.allocate(room, Alignment::PAGE, PhysRange::LOW_4_GIB, Placement::Top, kind).ok_or(none)?;
    let mut at = place.start();
    let mut rest = characters(first, text).fuse();
    let mut is_done = false;
    while !is_done {
        let mut piece = [[0; 2]; PIECE];
        let mut len = 0_usize;
        for to in &mut piece {
            let character = rest.next();
            *to = character.unwrap_or_default().to_le_bytes();
            len = len.saturating_add(to.len());
            // That was the NUL.
            if character.is_none() {
                is_done = true;
                break;
            }
        }
        let bytes = piece.as_flattened().get(..len).unwrap_or_default();
        machine.write(at, bytes)?;
        at = at.checked_add(len as u64).ok_or(none)?;
    }
    Ok(place.split_at(needed).0)
}

/// Both texts in UTF-16. If `text` is not UTF-8, it is taken as Latin-1, so that no byte is lost.
fn characters<'a>(first: &'a str, text: &'a [u8]) -> impl Iterator<Item = u16> + 'a {
    let unicode = core::str::from_utf8(text);
    let mut latin = if unicode.is_ok() { [].iter() } else { text.iter() };
    let mut unicode = first.encode_utf16().chain(unicode.unwrap_or_default().encode_utf16());
    core::iter::from_fn(move || unicode.next().or_else(|| latin.next().map(|&byte| byte.into())))
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::addr::PhysAddr;
    use crate::boot::blob::Blob;
    use crate::fakes::machine::FakeMachine;
    use crate::memory_map::HostMap;

    fn loaded(first: &str, text: &[u8], has_nul: bool) -> Vec<u8> {
        let (mut machine, mut map) = (FakeMachine::new(), HostMap::default());
        let ram = PhysRange::new(PhysAddr::new(0x10_0000), 0x10_0000).unwrap();
        map.describe(ram, MemoryType::CONVENTIONAL).unwrap();
        machine.memory.store(0x10_0000, &[0xee; 0x10_0000]);
        let line = CommandLine { text: Blob::Bytes(text), has_nul };
        let place = load(&mut machine, &FwCfg::absent(), &mut MemoryMap::new(map), first, &line).unwrap();
        machine.memory.bytes(place.start().get(), place.len() as usize)
    }

    #[test]
    fn the_length_of_options_is_in_bytes_and_has_their_nul() {
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        assert_eq!(loaded("", b"quiet\0", true), utf16("quiet\0"));
        assert_eq!(loaded("", b"quiet\n", false), utf16("quiet\0"));
        assert_eq!(loaded("kernel ", b"quiet\0more", true), utf16("kernel quiet\0"));
        let long = "x".repeat(PIECE - 1);
        assert_eq!(loaded("", std::format!("{long}\0").as_bytes(), true), utf16(&std::format!("{long}\0")));
        assert_eq!(loaded("", std::format!("{long}x\0").as_bytes(), true), utf16(&std::format!("{long}x\0")));
        assert_eq!(loaded("", b"", true), []);
    }

    #[test]
    fn text_is_unicode_or_else_latin() {
        let of = |first, text: &[u8]| characters(first, text).collect::<Vec<_>>();
        assert_eq!(of("", "ä€𝄞".as_bytes()), [0xe4, 0x20ac, 0xd834, 0xdd1e]);
        assert_eq!(of("k ", b"\xe4b"), [0x6b, 0x20, 0xe4, 0x62]);
        assert_eq!(of("", b""), []);
    }
}
