//! Kernels for Multiboot: the probe with such a header, as an ELF file and as one that is none, and Debian's packages of
//! kernels for it.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::bzimage::{MULTIBOOT_ENTRY, MULTIBOOT_SIZE, PVH_BASE, multiboot_image};
use crate::failure::stops_for_kernel;
use crate::machine::{Kind, Machine, Transport};
use crate::probe::{E820_RAM, Probe};
use crate::pvh::MICROVM;
use crate::random;

const COMMAND_LINE: &str = "words \"of a\" kernel ~";

/// Flags of the header (section 3.1): modules on pages, memory sizes wanted, the screen's mode wanted, addresses in the
/// header.
const ALIGNED: u32 = 1 << 0;
const MEMORY: u32 = 1 << 1;
const VIDEO: u32 = 1 << 2;
const ADDRESSES: u32 = 1 << 16;

/// Where the second segment of the ELF file begins, from the first one's start.
const DATA: u32 = 0x9_0000;
/// How much of it is in the file; as much again is to be zero.
const DATA_LEN: u32 = 5003;

/// A file, and how much memory its kernel takes.
struct File {
    bytes: Vec<u8>,
    size: u32,
}

/// The probe as a file with addresses in the header, linked at `base`. The header is not the first thing in the file.
fn flat(base: u64) -> File {
    let base = u32::try_from(base).unwrap();
    let fields = [base, base, 0, base + MULTIBOOT_SIZE, base + MULTIBOOT_ENTRY];
    let image = multiboot_image(ALIGNED | MEMORY | ADDRESSES, fields);
    File { bytes: [vec![0xee; 200], image].concat(), size: MULTIBOOT_SIZE }
}

/// The probe as an ELF file of two segments with a gap between them.
fn elf(flags: u32) -> File {
    let base = u32::try_from(PVH_BASE).unwrap();
    let image = multiboot_image(flags, [0; 5]);
    let data = random::bytes(7, DATA_LEN as usize);
    let mut bytes = b"\x7fELF\x01\x01\x01".to_vec();
    bytes.resize(16, 0);
    // An executable for the 80386, version 1; behind this header two of 32 bytes.
    bytes.extend([2, 0, 3, 0, 1, 0, 0, 0]);
    for word in [base + MULTIBOOT_ENTRY, 52, 0, 0] {
        bytes.extend(u32::to_le_bytes(word));
    }
    for half in [52_u16, 32, 2, 40, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    let (first, second) = (52 + 2 * 32, 52 + 2 * 32 + image.len().next_multiple_of(4) as u32);
    for (offset, at, len, size) in
        [(first, base, image.len() as u32, MULTIBOOT_SIZE), (second, base + DATA, DATA_LEN, 2 * DATA_LEN)]
    {
        for word in [1, offset, at, at, len, size, 7, 4] {
            bytes.extend(u32::to_le_bytes(word));
        }
    }
    bytes.extend(&image);
    bytes.resize(second as usize, 0);
    bytes.extend(&data);
    File { bytes, size: DATA + 2 * DATA_LEN }
}

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The modules' contents, the first `count` of them.
fn modules(count: usize) -> Vec<Vec<u8>> {
    [4096, 70_001].iter().take(count).enumerate().map(|(i, len)| random::bytes(20 + i as u64, *len)).collect()
}

/// The modules' command lines: the name of the file comes first.
fn module_lines(folder: &TempDir, count: usize) -> Vec<String> {
    let path = |name: &str| folder.path().join(name).display().to_string();
    [format!("{} arguments of=one", path("one")), path("two")].into_iter().take(count).collect()
}

/// Boots a file with this many modules.
fn boot(machine: &Machine, file: &File, count: usize) -> (Probe, TempDir) {
    let folder = TempDir::new().expect("a temporary folder");
    for (name, bytes) in ["one", "two"].iter().zip(modules(count)) {
        fs::write(folder.path().join(name), bytes).expect("a file in the temporary folder");
    }
    let lines = module_lines(&folder, count);
    let initrd = (count > 0).then(|| PathBuf::from(lines.join(",")));
    let machine = Machine { initrd, ..machine.clone() };
    (Probe::boot_file(&machine, &file.bytes, None, Some(COMMAND_LINE)), folder)
}

/// Boots the probe, and checks all that it is handed.
fn check(machine: &Machine, file: &File, count: usize) {
    let (mut probe, folder) = boot(machine, file, count);
    assert_eq!((probe.qemu.com1(), probe.qemu.debug_console()), Default::default(), "a good boot is silent");
    check_cpu(&mut probe);

    let at = probe.state.ebx;
    let info = probe.read(at, 116);
    let field = |at: usize| number(&info, at, 4);
    // Sizes of memory, a boot device, command line, modules, memory map and loader's name; nothing else.
    assert_eq!(field(0), 0x24f);
    assert!(info[28..44].iter().chain(&info[52..64]).chain(&info[68..]).all(|&byte| byte == 0), "{info:x?}");
    assert_eq!(field(12), 0x8000_ffff, "the boot device is the host's");

    // Strings and modules.
    let mut parts = vec![PVH_BASE..PVH_BASE + u64::from(file.size), at..at + 116];
    let text = |probe: &mut Probe, at: u64, expected: &str| {
        let bytes = probe.read(at, expected.len() + 1);
        assert_eq!(String::from_utf8_lossy(&bytes), format!("{expected}\0"));
        at..at + bytes.len() as u64
    };
    // QEMU puts the name of the file before it, which is the test's.
    let whole = probe.read(field(16), 512);
    let end = whole.iter().position(|&byte| byte == 0).expect("a NUL");
    let whole = String::from_utf8_lossy(&whole[..end]).into_owned();
    assert!(whole.ends_with(&format!("/kernel {COMMAND_LINE}")), "{whole}");
    parts.push(text(&mut probe, field(16), &whole));
    parts.push(text(&mut probe, field(64), "qemu"));
    assert_eq!(field(20), count as u64);
    let list = probe.read(field(24), 16 * count);
    for ((entry, line), contents) in list.chunks(16).zip(module_lines(&folder, count)).zip(modules(count)) {
        let [start, end, command_line, reserved] = [0, 4, 8, 12].map(|at| number(entry, at, 4));
        assert_eq!((end - start, start % 4096, reserved), (contents.len() as u64, 0, 0));
        assert!(probe.read(start, contents.len()) == contents, "a module is not as it was in the file");
        parts.extend([text(&mut probe, command_line, &line), start..end]);
    }
    parts.push(field(24)..field(24) + list.len() as u64);

    // Memory.
    let list = probe.read(field(48), field(44) as usize);
    parts.push(field(48)..field(48) + field(44));
    let map: Vec<_> = list
        .chunks(24)
        .map(|entry| (number(entry, 4, 8), number(entry, 4, 8) + number(entry, 12, 8), number(entry, 20, 4)))
        .collect();
    assert!(list.chunks(24).all(|entry| number(entry, 0, 4) == 20));
    assert!(map.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{map:x?}");
    let ram = u64::from(E820_RAM);
    let end = |start| map.iter().find(|entry| (entry.0, entry.2) == (start, ram)).expect("RAM").1;
    assert_eq!([4, 8].map(field), [end(0) >> 10, (end(1 << 20) - (1 << 20)) >> 10]);
    assert!(map.iter().any(|entry| entry.2 != ram), "the tables' memory");
    parts.retain(|part| !part.is_empty());
    for (i, part) in parts.iter().enumerate() {
        let entry = map.iter().find(|(start, end, _)| *start <= part.start && part.end <= *end);
        assert!(entry.is_some_and(|(_, _, kind)| *kind == ram), "{part:x?} in {map:x?}");
        assert!(parts[..i].iter().all(|other| other.end <= part.start || part.end <= other.start), "{parts:x?}");
    }

    // What a PC's firmware leaves behind, which Xen looks at: sizes of low memory, and ACPI.
    assert_eq!(number(&probe.read(0x413, 2), 0, 2), field(4));
    assert_eq!(number(&probe.read(0x40e, 2), 0, 2) << 4, field(4) << 10);
    // On microvm this is the end of the image, whatever that contains.
    if !machine.arguments.iter().any(|argument| argument.starts_with("microvm")) {
        let segment = probe.read(0xf_0000, 0x1_0000);
        assert!(segment.chunks(16).any(|bytes| bytes.starts_with(b"RSD PTR ")), "no RSDP");
    }

    if file.size > DATA {
        let data = PVH_BASE + u64::from(DATA);
        assert!(probe.read(data, DATA_LEN as usize) == random::bytes(7, DATA_LEN as usize));
        assert!(probe.read(data + u64::from(DATA_LEN), DATA_LEN as usize).iter().all(|&byte| byte == 0));
    }
}

/// Checks the state of the machine (section 3.2).
fn check_cpu(probe: &mut Probe) {
    let state = probe.state.clone();
    assert_eq!((state.word, state.base), (4, PVH_BASE + 0x1000));
    // PE, and ET, which is always set; PG is not.
    assert_eq!([state.cr0 & !(1 << 4), state.cr4, state.efer], [1, 0, 0]);
    // VM and IF.
    assert_eq!(state.flags & (1 << 17 | 1 << 9), 0, "flags {:#x}", state.flags);
    let saved = probe.read(PVH_BASE + 0x108, 0x20);
    let [eax, fs, gs, esp, by_fs, by_gs] = [8, 12, 16, 20, 24, 28].map(|at| number(&saved, at, 4));
    assert_eq!(eax, 0x2bad_b002);
    // Flat, present, used before; read and executed, read and written.
    let (limit, gdt) = (number(&saved, 0, 2), number(&saved, 2, 4));
    let data = [state.ds, state.es, state.ss, fs, gs].map(|selector| (selector, 0x00cf_9300_0000_ffff));
    for (selector, descriptor) in [(state.cs, 0x00cf_9b00_0000_ffff)].into_iter().chain(data) {
        assert!(selector != 0 && selector + 7 <= limit, "selector {selector:#x}");
        assert_eq!(number(&probe.read(gdt + selector, 8), 0, 8), descriptor, "selector {selector:#x}");
    }
    assert_eq!([by_fs, by_gs], [0x1bad_b002; 2], "the header, through FS and GS");
    assert!((0x1000..0x9_fc00).contains(&esp) && esp % 4 == 0, "ESP {esp:#x}");
}

#[test]
fn every_field_on_q35_and_pc() {
    for (kind, file, count) in [(Kind::Q35, elf(ALIGNED | MEMORY), 2), (Kind::Pc, flat(PVH_BASE), 1)] {
        for transport in Transport::ALL {
            check(&Machine { transport, ..Machine::new(kind) }, &file, count);
        }
    }
}

#[test]
fn every_field_on_microvm() {
    check(&Machine::new(Kind::Pc).with(MICROVM), &flat(PVH_BASE), 2);
}

#[test]
fn a_kernel_without_modules_and_with_memory_above_4_gib() {
    let machine = Machine { memory: "6G", ..Machine::new(Kind::Q35) };
    check(&machine, &elf(MEMORY), 0);
}

#[test]
fn the_kernel_is_told_of_the_screen() {
    for flags in [ALIGNED, ALIGNED | VIDEO] {
        let (mut probe, _folder) = boot(&Machine::new(Kind::Pc).with("-device VGA"), &elf(flags), 0);
        let info = probe.read(probe.state.ebx, 116);
        assert_eq!(number(&info, 0, 4), 0x24f | 1 << 12);
        let video = (0..32).map(|device| [0, device, 0]).find(|at| probe.pci(*at, 0) == 0x1111_1234).expect("a VGA");
        assert_eq!(number(&info, 88, 8), u64::from(probe.pci(video, 0x10) & !0xf));
        assert_eq!([96, 100, 104].map(|at| number(&info, at, 4)), [4096, 1024, 768]);
        assert_eq!(info[108..116], [32, 1, 16, 8, 8, 8, 0, 8]);
    }
}

#[test]
fn a_kernel_is_there_again_after_a_reset() {
    let machine = Machine { reboots: true, ..Machine::new(Kind::Q35) };
    let (mut probe, _folder) = boot(&machine, &flat(PVH_BASE), 1);
    let module = |probe: &mut Probe| {
        let info = probe.read(probe.state.ebx, 116);
        let entry = probe.read(number(&info, 24, 4), 16);
        number(&entry, 0, 4)..number(&entry, 4, 4)
    };
    let range = module(&mut probe);
    probe.fill(range.clone(), 0x55);
    probe.reset();
    assert_eq!(module(&mut probe), range);
    assert!(probe.read(range.start, 4096) == modules(1)[0]);
}

#[test]
fn a_kernel_over_the_firmware_is_not_run() {
    let parts = ["0x50000-", "over the firmware's own memory 0x40000-0x9fbff", "from 1 MiB on"];
    stops_for_kernel(&flat(0x5_0000).bytes, "", &parts);
}

#[test]
fn a_kernel_beyond_the_memory_is_not_run() {
    stops_for_kernel(&flat(200 << 20).bytes, "", &["at 0xc800000-", "not all RAM", "-m"]);
}
