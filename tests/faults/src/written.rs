//! Which memory may be written, and whether anything else was written.
#![forbid(unsafe_code)]

use std::ops::Range;

use firstlight::fakes::machine::GuestMemory;
use vmm::devices::number;

use crate::host::{Host, key};

/// The firmware's own memory, whatever the host says: heap, page tables, data, stack, and up to 640 KiB what other CPUs, a
/// wake and scans for tables need (`src/layout.rs`, ARCHITECTURE.md); then the F-segment.
const OWN: [Range<u64>; 2] = [0x4_0000..0xa_0000, 0xf_0000..0x10_0000];
/// What is never written, whatever the host says: page zero after the BIOS data area, and what is not RAM on a PC.
const NEVER: [Range<u64>; 2] = [0x500..0x1000, 0xa_0000..0xf_0000];
/// The real-mode vectors and the BIOS data area, which are written when a kernel is started.
const BIOS_DATA: Range<u64> = 0..0x500;
/// The length of `boot_params`.
const PARAMETERS: u64 = 4096;

/// What a kernel got.
#[derive(Debug)]
pub struct Handed {
    /// `boot_params`.
    pub parameters: Range<u64>,
    /// The kernel, as long as the host says it is.
    pub kernel: Range<u64>,
    /// The initrd.
    pub initrd: Range<u64>,
    /// The command line, as long as the host says it is.
    pub command_line: Range<u64>,
    /// The ranges that the kernel is told are not RAM.
    reserved: Vec<Range<u64>>,
    /// More of that, where `boot_params` have no room for all.
    extension: Range<u64>,
}

impl Handed {
    /// As `boot_params` at `parameters` say (Linux `Documentation/arch/x86/zero-page.rst`).
    pub fn of(host: &Host, memory: &dyn GuestMemory, parameters: u64) -> Self {
        let page = memory.bytes(parameters, PARAMETERS as usize);
        let at = |offset: usize, len: usize| number(&page[offset..offset + len]);
        let size = |key| host.items.get(&key).map_or(0, |bytes| number(bytes));
        let range = |start: u64, len: u64| start..start + len;
        // A list of pieces of memory: the next one, its kind (1 for more of the map), its length, and so many bytes.
        let node = at(0x250, 8);
        let head = memory.bytes(node, 16);
        let len = if node != 0 && head[8..12] == [1, 0, 0, 0] { number(&head[12..16]) } else { 0 };
        let extension = memory.bytes(node + 16, len as usize);
        let entries = page[0x2d0..].chunks(20).take(page[0x1e8].into()).chain(extension.chunks_exact(20));
        let kernel = at(0x214, 4);
        Self {
            parameters: range(parameters, PARAMETERS),
            kernel: range(kernel, size(key::KERNEL_SIZE)),
            initrd: range(at(0x218, 4) | at(0x0c0, 4) << 32, at(0x21c, 4) | at(0x0c4, 4) << 32),
            command_line: range(at(0x228, 4) | at(0x0c8, 4) << 32, size(key::CMDLINE_SIZE)),
            reserved: entries
                .filter(|entry| entry[16..20] != [1, 0, 0, 0])
                .map(|entry| range(number(&entry[..8]), number(&entry[8..16])))
                .collect(),
            extension: range(node, if len == 0 { 0 } else { len + 16 }),
        }
    }

    /// What differs from what the host has.
    pub fn differences(&self, host: &Host, memory: &dyn GuestMemory) -> Vec<String> {
        let item = |key| host.items.get(&key).map_or(&[][..], Vec::as_slice);
        let parts = [
            ("kernel", &self.kernel, item(key::KERNEL_DATA)),
            ("initrd", &self.initrd, item(key::INITRD_DATA)),
            ("command line", &self.command_line, item(key::CMDLINE_DATA)),
        ];
        let differs = parts.into_iter().filter(|(_, range, bytes)| {
            range.end - range.start != bytes.len() as u64 || memory.bytes(range.start, bytes.len()) != *bytes
        });
        differs.map(|(name, range, _)| format!("the {name} at {range:x?} is not the host's")).collect()
    }
}

/// The bytes of `changed` that must not be changed, at most a few.
///
/// Apart from the firmware's own memory, memory that the host does not list as RAM, or lists as something else too, must
/// never be written. If a kernel was started, only `handed` and what is reserved to the kernel may be changed. If none was,
/// other RAM may be changed too.
pub fn strays(host: &Host, handed: Option<&Handed>, changed: &[Range<u64>]) -> Vec<String> {
    let (ram, reserved) = host.ram();
    let touches = |list: &[Range<u64>], range: &Range<u64>| {
        list.iter().any(|other| other.start < range.end && range.start < other.end)
    };
    let is_meant = |range: &Range<u64>| {
        let Some(handed) = handed else { return true };
        // Behind the command line is a NUL of the firmware's own.
        let command_line = handed.command_line.start..handed.command_line.end + 1;
        let parts = [
            handed.parameters.clone(),
            handed.kernel.clone(),
            handed.initrd.clone(),
            command_line,
            handed.extension.clone(),
        ];
        covers(&[&parts[..], &handed.reserved, &[BIOS_DATA]].concat(), range)
    };
    let may_change = |range: &Range<u64>| {
        covers(&OWN, range)
            || covers(&ram, range) && !touches(&reserved, range) && !touches(&NEVER, range) && is_meant(range)
    };
    let stray = changed.iter().filter(|range| !may_change(range));
    stray.take(4).map(|range| format!("memory {range:#x?} was written")).collect()
}

/// Whether every byte of `range` is in one of `list`.
fn covers(list: &[Range<u64>], range: &Range<u64>) -> bool {
    let mut at = range.start;
    while at < range.end {
        match list.iter().filter(|part| part.contains(&at)).map(|part| part.end).max() {
            Some(end) => at = end,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::RAM;

    #[test]
    fn a_write_elsewhere_is_detected() {
        let host = Host::sound();
        let stray = |range: Range<u64>| !strays(&host, None, &[range]).is_empty();
        // Page zero, video memory, what the host keeps in the middle and at the end, what there is not.
        for range in [
            0x4ff..0x501,
            0xfff..0x1001,
            0x9_ffff..0xa_0001,
            0x80_0000..0x80_0001,
            0x1ef_ffff..0x1f0_0001,
            RAM..RAM + 1,
        ] {
            assert!(stray(range.clone()), "{range:x?}");
        }
        for range in [0..0x500, 0x1000..0x4_0000, 0x4_0000..0xa_0000, 0xf_0000..0x10_0000, 0x100_0000..0x1f0_0000] {
            assert!(!stray(range.clone()), "{range:x?}");
        }
    }

    #[test]
    fn a_boot_may_write_only_what_its_kernel_is_passed() {
        let host = Host::sound();
        let memory = firstlight::fakes::machine::FakeMemory::default();
        let handed = Handed { kernel: 0x100_0000..0x100_1000, ..Handed::of(&host, &memory, 0x1_0000) };
        let stray = |range: Range<u64>| !strays(&host, Some(&handed), &[range]).is_empty();
        assert!(!stray(0x100_0000..0x100_1000) && !stray(0x1_0000..0x1_1000) && !stray(0x4_0000..0x4_0001));
        assert!(stray(0x100_0000..0x100_1001) && stray(0x2_0000..0x2_0001) && stray(0x1e0_0000..0x1e0_0001));
    }
}
