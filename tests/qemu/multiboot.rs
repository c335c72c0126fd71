//! Multiboot kernels: the probe with such a header, as an ELF file and as another file, and Debian's packages of Multiboot
//! kernels.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::bzimage::{MULTIBOOT_ENTRY, MULTIBOOT_SIZE, PVH_BASE, multiboot_image, pvh_file};
use crate::environment;
use crate::failure::stops_for_kernel;
use crate::handover::check_bios_data;
use crate::linux::{self, LATE_TIMERS, Report};
use crate::machine::{Emulator, Kind, Machine, Qemu, Transport};
use crate::probe::{E820, E820_RAM, Probe};
use crate::pvh::MICROVM;
use crate::random;
use crate::sleep;

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
pub struct File {
    bytes: Vec<u8>,
    size: u32,
}

/// The probe as a file with addresses in the header, linked at `base`. The header is not the first thing in the file.
pub fn flat(base: u64) -> File {
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
    // An executable for the 80386, version 1; two headers of 32 bytes follow.
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

pub fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The modules' contents, the first `count` of them.
fn modules(count: usize) -> Vec<Vec<u8>> {
    [4096, 70_001].iter().take(count).enumerate().map(|(i, len)| random::bytes(20 + i as u64, *len)).collect()
}

/// The modules' command lines: the name of the file comes first.
pub fn module_lines(folder: &TempDir, count: usize) -> Vec<String> {
    let path = |name: &str| folder.path().join(name).display().to_string();
    [format!("{} arguments of=one", path("one")), path("two")].into_iter().take(count).collect()
}

/// Boots a file with this many modules.
pub fn boot(machine: &Machine, file: &File, count: usize) -> (Probe, TempDir) {
    let folder = TempDir::new().expect("a temporary folder");
    for (name, bytes) in ["one", "two"].iter().zip(modules(count)) {
        fs::write(folder.path().join(name), bytes).expect("a file in the temporary folder");
    }
    let lines = module_lines(&folder, count);
    let initrd = (count > 0).then(|| PathBuf::from(lines.join(",")));
    let machine = Machine { initrd, ..machine.clone() };
    (Probe::boot_file(&machine, &file.bytes, None, Some(COMMAND_LINE)), folder)
}

/// Boots the probe, and checks everything that it gets.
fn check(machine: &Machine, file: &File, count: usize) {
    let (mut probe, folder) = boot(machine, file, count);
    assert_eq!((probe.qemu.com1(), probe.qemu.debug_console()), Default::default(), "a successful boot is silent");
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

    // What Xen reads of a PC firmware's data: sizes of low memory, and ACPI.
    assert_eq!(number(&probe.read(0x413, 2), 0, 2), field(4));
    let entries = map.iter().map(|&(start, end, kind)| E820 { start, end, kind: kind as u32 });
    check_bios_data(&mut probe, &entries.collect::<Vec<_>>());
    find_rsdp(&mut probe);

    if file.size > DATA {
        let data = PVH_BASE + u64::from(DATA);
        assert!(probe.read(data, DATA_LEN as usize) == random::bytes(7, DATA_LEN as usize));
        assert!(probe.read(data + u64::from(DATA_LEN), DATA_LEN as usize).iter().all(|&byte| byte == 0));
    }
}

/// The RSDP, as an operating system finds it (ACPI 6.5, 5.2.5.1): at the beginning of the extended BIOS data area, or below
/// 1 MiB. Its first 20 bytes have a sum of zero, which a mere signature in the firmware's own bytes has not.
pub fn find_rsdp(probe: &mut Probe) -> Vec<u8> {
    let ebda = number(&probe.read(0x40e, 2), 0, 2) << 4;
    let parts = [probe.read(ebda, 1024), probe.read(0xe_0000, 0x2_0000)];
    let sum = |bytes: &[u8]| bytes[..20].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let is_it = |bytes: &[u8]| bytes.starts_with(b"RSD PTR ") && sum(bytes) == 0;
    let found = parts.iter().flat_map(|part| part.windows(20).step_by(16)).find(|bytes| is_it(bytes));
    found.expect("the RSDP").to_vec()
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
fn every_field_is_right_on_q35_and_pc() {
    for (kind, file, count) in [(Kind::Q35, elf(ALIGNED | MEMORY), 2), (Kind::Pc, flat(PVH_BASE), 1)] {
        for transport in Transport::ALL {
            check(&Machine { transport, ..Machine::new(kind) }, &file, count);
        }
    }
}

#[test]
fn every_field_is_right_on_a_newer_qemu() {
    let Some(emulator) = Emulator::newer() else { return };
    check(&Machine { emulator, ..Machine::new(Kind::Q35) }, &elf(ALIGNED | MEMORY), 2);
}

#[test]
fn every_field_is_right_on_microvm() {
    for transport in Transport::ALL {
        check(&Machine { transport, ..Machine::new(Kind::Pc) }.with(MICROVM), &flat(PVH_BASE), 2);
    }
}

#[test]
fn a_kernel_boots_without_modules_and_with_memory_above_4_gib() {
    let machine = Machine { memory: "6G", ..Machine::new(Kind::Q35) };
    check(&machine, &elf(MEMORY), 0);
}

#[test]
fn the_information_describes_the_screen() {
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
fn a_kernel_is_loaded_again_after_a_reset() {
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
fn a_kernel_that_overlaps_the_firmware_is_refused() {
    let parts = ["0x50000-", "over the firmware's own memory 0x40000-0x9fbff", "from 1 MiB on"];
    stops_for_kernel(&flat(0x5_0000).bytes, "", &parts);
}

#[test]
fn a_kernel_outside_memory_is_refused() {
    stops_for_kernel(&flat(200 << 20).bytes, "", &["at 0xc800000-", "not all free RAM", "more memory"]);
}

#[test]
fn the_error_for_an_entry_point_of_zero_says_so() {
    let mut elf = elf(ALIGNED).bytes;
    elf[24..28].fill(0);
    let base = u32::try_from(PVH_BASE).unwrap();
    let flat = multiboot_image(ALIGNED | ADDRESSES, [base, base, 0, base + MULTIBOOT_SIZE, 0]);
    for file in [elf, flat] {
        stops_for_kernel(
            &file,
            "",
            &["the kernel's entry point 0x0 is not in the", "from 0x200000", "linked without an entry"],
        );
    }
    // One that is linked at address zero.
    let low = multiboot_image(ALIGNED | ADDRESSES, [0; 5]);
    stops_for_kernel(&low, "", &["the host puts the kernel at 0x0-", "not all free RAM", "from 1 MiB on"]);
}

/// Whether bytes in the second segment, which the kernel has changed, are as it left them after a wake from suspend.
fn survives_a_wake(file: &[u8]) -> bool {
    let mut probe = Probe::boot_file(&Machine::new(Kind::Q35), file, None, None);
    // ACPI 6.5, 5.2.5.3, 5.2.7 and 5.2.9: the RSDT, whose first entry is the FADT, which has the address of the FACS.
    let rsdt = number(&find_rsdp(&mut probe), 16, 4);
    let fadt = probe.read32(rsdt + 36).into();
    assert_eq!(probe.read(fadt, 4), b"FACP");
    let facs = probe.read32(fadt + 36).into();
    let changed = PVH_BASE + u64::from(DATA)..PVH_BASE + u64::from(DATA) + 64;
    probe.fill(changed.clone(), 0x55);
    sleep::prepare_with(&mut probe, facs);
    sleep::sleep(&mut probe);
    probe.wait_for_wake();
    probe.read(changed.start, 64) == [0x55; 64]
}

/// QEMU loads ELF files again at every reset, including a wake (docs/sleep.md).
#[test]
fn only_a_kernel_that_is_no_elf_file_survives_a_wake() {
    // Longer, so that there is something where the others have their second segment.
    let base = u32::try_from(PVH_BASE).unwrap();
    let mut image = multiboot_image(ALIGNED | ADDRESSES, [base, base, 0, base + 0xa_0000, base + MULTIBOOT_ENTRY]);
    image.resize(0x9_8000, 0);
    assert!(survives_a_wake(&image), "addresses in the header");
    assert!(!survives_a_wake(&elf(ALIGNED).bytes), "an ELF file for Multiboot");
    assert!(!survives_a_wake(&pvh_file(PVH_BASE).0), "an ELF file with a PVH note");
}

/// Boots GNU Mach with two arbitrary files as modules, and checks what it prints about them and about memory.
fn boot_gnu_mach(machine: &Machine) {
    let Some(kernel) = environment::gnu_mach() else { return };
    let folder = TempDir::new().expect("a temporary folder");
    let [one, two] = ["one", "two"].map(|name| folder.path().join(name).display().to_string());
    fs::write(&one, "first").and_then(|()| fs::write(&two, "second")).expect("files in the temporary folder");
    let machine = Machine {
        kernel: Some(kernel),
        append: Some("console=com0".to_owned()),
        initrd: Some(PathBuf::from(format!("{one} with words,{two}"))),
        ..machine.clone()
    };
    let mut qemu = machine.start();
    qemu.wait_for("the list of modules", |qemu| qemu.com1().contains("2 multiboot modules"));
    let com1 = qemu.com1();
    assert!(com1.starts_with("GNU Mach "), "{com1}");
    for line in [format!("module 0: {one} with words\n"), format!("module 1: {two}\n")] {
        assert!(com1.replace('\r', "").contains(&line), "no {line:?}");
    }
    // Low memory up to what is kept for a wake, and from 1 MiB to the tables.
    assert!(com1.contains("biosmem: 000000000000000000:000000000000083000, available"), "{com1}");
    assert!(com1.contains("biosmem: 000000000000100000:000000000007fe0000, available"), "{com1}");
}

#[test]
fn q35_boots_gnu_mach() {
    boot_gnu_mach(&Machine::new(Kind::Q35));
}

#[test]
fn pc_with_ports_boots_gnu_mach() {
    boot_gnu_mach(&Machine { transport: Transport::Ports, ..Machine::new(Kind::Pc) });
}

/// Boots Xen, and under it Debian's kernel to user space.
#[test]
fn q35_boots_xen_with_linux() {
    let Some(xen) = environment::xen() else { return };
    let [linux, initrd] = [environment::console_kernel(), environment::initrd()].map(|path| path.display().to_string());
    let words = format!("console=hvc0 quiet panic=-1 {LATE_TIMERS}");
    let machine = Machine {
        memory: "768M",
        kernel: Some(xen),
        append: Some("no-real-mode console=com1 com1=115200 dom0_mem=384M noreboot".to_owned()),
        initrd: Some(PathBuf::from(format!("{linux} {words},{initrd}"))),
        ..Machine::new(Kind::Q35)
    };
    let mut qemu = machine.start();
    // Xen ends lines in another way.
    let text = |qemu: &Qemu| qemu.com1().replace('\r', "");
    qemu.wait_for("the guest's report", |qemu| text(qemu).contains(&linux::END.replace('\r', "")));
    let com1 = text(&qemu);
    assert!(com1.contains("(XEN) Bootloader: qemu"), "the loader's name");
    assert!(com1.contains("(XEN) Multiboot-e820 RAM map:"), "the memory map");
    let report = Report::parse(&com1);
    assert_eq!(report.one("command-line"), words);
    assert!(report.one("initrd").starts_with("ok "), "the second module");
    assert!(report.one("acpi-tables").contains("APIC"));
}
