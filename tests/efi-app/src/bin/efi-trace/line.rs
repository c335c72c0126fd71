//! A line for a call, without addresses.

use core::arch::asm;
use core::ffi::c_void;
use core::fmt::{self, Write};

use uefi_raw::protocol::device_path::DevicePathProtocol;
use uefi_raw::protocol::loaded_image::LoadedImageProtocol;
use uefi_raw::{Guid, Handle};

use crate::Firmware;
use crate::calls::{NAMES, TABLES};
use crate::hook;

/// The port of the debug console (`tools/measure/src/efi_diff`).
const PORT: u16 = 0x4e9;
/// The longest line, and how much of it only the result may take. What is longer is cut off.
const MOST: usize = 512;
const MOST_RESULT: usize = 128;
/// The longest text of an argument, in units of UTF-16, and the most nodes of a device path.
const MOST_TEXT: usize = 64;
const MOST_NODES: usize = 16;

/// The console.
pub struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the port has a device that takes bytes, or none; neither accesses memory.
            unsafe { asm!("out dx, al", in("dx") PORT, in("al") byte, options(nomem, nostack, preserves_flags)) };
        }
        Ok(())
    }
}

/// A line that grows. It is printed at once: notification functions make calls within calls.
pub struct Line {
    bytes: [u8; MOST],
    len: usize,
    most: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().take(self.most - self.len) {
            self.bytes[self.len] = if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'?' };
            self.len += 1;
        }
        Ok(())
    }
}

/// The nodes of a device path, without its end.
pub fn nodes(path: *const DevicePathProtocol) -> impl Iterator<Item = &'static [u8]> {
    let mut at: *const u8 = path.cast();
    core::iter::from_fn(move || {
        // SAFETY: a path ends with a node of the type 0x7f, and each node has its length in bytes 2 and 3.
        let node = unsafe { core::slice::from_raw_parts(at, u16::from_le_bytes([*at.add(2), *at.add(3)]).into()) };
        at = at.wrapping_add(node.len());
        (node.len() >= 4 && node[0] != 0x7f).then_some(node)
    })
}

impl Line {
    pub const fn new() -> Self {
        Self { bytes: [0; MOST], len: 0, most: MOST - MOST_RESULT }
    }

    /// What follows is the result of the call.
    pub fn begin_result(&mut self) {
        self.most = MOST;
        let _ = self.write_str(" = ");
    }

    pub fn print(&self) {
        let _ = writeln!(Port, "{}", core::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default());
    }

    fn guid(&mut self, guid: *const Guid) -> fmt::Result {
        if guid.is_null() {
            return self.write_str("null");
        }
        // SAFETY: images pass the addresses of GUIDs. They need not be aligned.
        let guid = unsafe { guid.read_unaligned() };
        let tables = TABLES.iter().map(|table| (table.name, table.guid));
        match tables.chain(NAMES.iter().copied()).find(|(_, known)| *known == guid) {
            Some((name, _)) => self.write_str(name),
            None => write!(self, "{guid}"),
        }
    }

    fn text(&mut self, text: *const u16) -> fmt::Result {
        if text.is_null() {
            return self.write_str("null");
        }
        // SAFETY: text ends with zero.
        let units = (0..MOST_TEXT).map(|index| unsafe { text.add(index).read_unaligned() });
        char::decode_utf16(units.take_while(|unit| *unit != 0)).try_for_each(|c| self.write_char(c.unwrap_or('?')))
    }

    /// A device path. Of some nodes, only a number is shown, and of others all bytes.
    fn path(&mut self, path: *const DevicePathProtocol) -> fmt::Result {
        if path.is_null() {
            return self.write_str("null");
        }
        let mut between = "";
        for node in nodes(path).take(MOST_NODES) {
            self.write_str(between)?;
            between = "/";
            match node {
                [2, 1, ..] => self.write_str("Acpi")?,
                [1, 1, _, _, function, device] => write!(self, "Pci({device:x},{function:x})")?,
                [3, 18, _, _, port, ..] => write!(self, "Sata({port})")?,
                [4, 1, _, _, number, ..] => write!(self, "HD({number})")?,
                [4, 2, _, _, entry, ..] => write!(self, "CDROM({entry})")?,
                [4, 4, _, _, name @ ..] => self.text(name.as_ptr().cast())?,
                _ => {
                    write!(self, "{}.{}:", node[0], node[1])?;
                    node[4..].iter().try_for_each(|byte| write!(self, "{byte:02x}"))?;
                }
            }
        }
        if between.is_empty() { self.write_str("end") } else { Ok(()) }
    }

    /// A handle: its device path. Without one, the number of an image, or just that it is a handle.
    pub(crate) fn handle(&mut self, firmware: &Firmware, handle: Handle) -> fmt::Result {
        if handle.is_null() {
            return self.write_str("null");
        }
        let path: *const DevicePathProtocol = firmware.interface(handle, &DevicePathProtocol::GUID);
        if !path.is_null() {
            return self.path(path);
        }
        let image: *const LoadedImageProtocol = firmware.interface(handle, &LoadedImageProtocol::GUID);
        if image.is_null() { self.write_str("a handle") } else { write!(self, "image {}", hook::number(handle)) }
    }

    /// An argument of this kind. The others are for the firmware's own, such as addresses of what it returns, and not shown.
    pub fn argument(&mut self, firmware: &Firmware, kind: char, argument: u64) -> fmt::Result {
        let pointer = argument as *const c_void;
        match kind {
            // Numbers of 64, 32 and 8 bits.
            'u' => write!(self, "{argument:#x}"),
            'd' => write!(self, "{:#x}", argument as u32),
            'b' => write!(self, "{}", argument as u8),
            // Whether there is an address.
            'o' => self.write_str(if pointer.is_null() { "null" } else { "&" }),
            'g' => self.guid(pointer.cast()),
            's' => self.text(pointer.cast()),
            'h' => self.handle(firmware, pointer.cast_mut()),
            'p' => self.path(pointer.cast()),
            // The address of one, and of a length.
            'H' | 'P' | 'z' if pointer.is_null() => self.write_str("null"),
            // SAFETY: images pass the addresses of handles, of addresses and of lengths.
            'H' => self.handle(firmware, unsafe { *pointer.cast() }),
            // SAFETY: the same.
            'P' => self.path(unsafe { *pointer.cast() }),
            // SAFETY: the same.
            'z' => write!(self, "{:#x}", unsafe { *pointer.cast::<u64>() }),
            _ => Ok(()),
        }
    }
}
