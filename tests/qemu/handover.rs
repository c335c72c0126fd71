//! What a kernel finds at its first instruction: the CPU, `boot_params`, and every byte of the files.

use crate::bzimage::BzImage;
use crate::machine::{Accelerator, Kind, Machine, Transport};
use crate::probe::{E820, E820_RAM, E820_RESERVED, Probe, State};
use crate::pvh::MICROVM;
use crate::random;

const COMMAND_LINE: &str = "console=ttyS0 root=/dev/null quiet -- \"two words\" ~";

/// Bits of CR0, CR4, EFER and the flags (Intel SDM volume 3, 2.2.1, 2.3 and 2.5).
const CR0_PE: u64 = 1 << 0;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const FLAG_INTERRUPTS: u64 = 1 << 9;
const FLAG_DIRECTION: u64 = 1 << 10;

/// What boot.rst requires at both entry points ("32-bit Boot Protocol", "64-bit Boot Protocol").
pub fn check_cpu(state: &State, word: usize) {
    assert_eq!(state.word, word, "the entry");
    assert_eq!([state.cs, state.ds, state.es, state.ss], [0x10, 0x18, 0x18, 0x18], "segments");
    assert_eq!(state.flags & (FLAG_INTERRUPTS | FLAG_DIRECTION), 0, "flags {:#x}", state.flags);
    assert_eq!(state.cr0 & (CR0_PE | CR0_CD | CR0_NW), CR0_PE, "CR0 {:#x}", state.cr0);
    if word == 8 {
        assert_ne!(state.cr0 & CR0_PG, 0, "CR0 {:#x}", state.cr0);
        assert_eq!(state.cr4, CR4_PAE, "CR4 {:#x}", state.cr4);
        assert_eq!(state.efer & (EFER_LME | EFER_LMA), EFER_LME | EFER_LMA, "EFER {:#x}", state.efer);
    } else {
        assert_eq!(state.cr0 & CR0_PG, 0, "CR0 {:#x}", state.cr0);
        assert_eq!([state.cr4, state.efer & EFER_LMA], [0; 2], "CR4, EFER");
        assert_eq!([state.ebx, state.ebp, state.edi], [0; 3]);
    }
}

/// The header in `boot_params` is the file's, with what a loader fills in; all else that no loader fills in is zero.
fn check_boot_params(probe: &mut Probe, kernel: &BzImage, initrd: &[u8]) {
    let page = probe.boot_params();
    let file = kernel.setup();
    assert_eq!(page.kernel(), probe.state.base, "code32_start");
    assert_eq!(page.initrd().end - page.initrd().start, initrd.len() as u64, "ramdisk_size");
    assert_eq!(page.0[0x210], 0xb0, "type_of_loader: QEMU");
    let loaders = [0x210..0x212, 0x214..0x220, 0x224..0x226, 0x228..0x22c];
    for at in (0x1f1..0x26c).filter(|at| !loaders.iter().any(|range| range.contains(at))) {
        assert_eq!(page.0[at], file[at], "header byte {at:#x}");
    }
    // From 0x1e4 on are four bytes for the kernel itself, which the probe used.
    for at in (0..0x70).chain(0x78..0xc0).chain(0xcc..0x1e0).chain(0x1e9..0x1f1).chain(0x26c..0x2d0) {
        assert_eq!(page.0[at], 0, "byte {at:#x}");
    }
}

#[test]
fn every_linux_kernel_finds_the_bios_data_area() {
    let microvm = Machine::new(Kind::Pc).with("-machine microvm");
    let without_acpi = Machine::new(Kind::Pc).with("-machine microvm,acpi=off");
    let isapc = Machine::new(Kind::Pc).with("-machine isapc -cpu qemu64");
    for machine in Kind::ALL.map(Machine::new).into_iter().chain([microvm, without_acpi, isapc]) {
        eprintln!("{:?}, {:?}", machine.kind, machine.arguments);
        let old = BzImage { len: 5008, ..BzImage::old(0x201) };
        for kernel in [BzImage::new(), BzImage::new().entered_in_32_bit_mode(), old.clone(), old.low()] {
            let mut probe = Probe::boot(&machine, &kernel, None, None);
            let map = probe.boot_params().e820();
            check_bios_data(&mut probe, &map);
        }
    }
}

/// Boots `kernel`, and compares everything with what QEMU was given.
pub fn check(machine: &Machine, kernel: &BzImage, word: usize, initrd_len: usize) {
    let initrd = random::bytes(2, initrd_len);
    let mut probe = Probe::boot(machine, kernel, Some(&initrd), Some(COMMAND_LINE));
    check_cpu(&probe.state, word);
    check_boot_params(&mut probe, kernel, &initrd);
    let page = probe.boot_params();
    // Not with assert_eq, which would print them.
    assert!(probe.read(page.kernel(), kernel.len) == kernel.code(), "the kernel differs from its file");
    assert!(probe.read(page.initrd().start, initrd.len()) == initrd, "the initrd is not as it was in the file");
    let expected = format!("{COMMAND_LINE}\0");
    let seen = probe.read(page.command_line(), expected.len());
    assert_eq!(String::from_utf8_lossy(&seen), expected);
}

/// Two words of the BIOS data area (IBM PC/AT technical reference): the segment of the extended one, and KiB of memory.
const EBDA_SEGMENT: u64 = 0x40e;
const MEMORY_SIZE: u64 = 0x413;

/// The BIOS data area agrees with the memory map, as Linux and firmware test suites want it: all is reserved from where it says
/// that memory ends, and the extended area is there and says how long it is.
pub fn check_bios_data(probe: &mut Probe, map: &[E820]) {
    let mut word = |at| u64::from(u16::from_le_bytes(probe.read(at, 2).try_into().unwrap()));
    let (ebda, memory) = (word(EBDA_SEGMENT) << 4, word(MEMORY_SIZE) << 10);
    let end = |kind, start| map.iter().find(|e| e.kind == kind && e.start <= start && start < e.end).map(|e| e.end);
    assert_eq!(end(E820_RAM, 0), Some(memory), "{map:x?}");
    assert!(end(E820_RESERVED, memory).is_some_and(|end| end >= 0xa_0000), "{memory:#x} in {map:x?}");
    assert!(memory <= ebda && ebda < 0xa_0000, "{memory:#x}, {ebda:#x}");
    let kib = u64::from(probe.read(ebda, 1)[0]);
    assert_eq!(ebda + (kib << 10), 0xa_0000);
}

pub fn every_machine_and_transport() -> impl Iterator<Item = Machine> {
    Kind::ALL.into_iter().flat_map(|kind| {
        Transport::ALL.into_iter().map(move |transport| {
            eprintln!("{kind:?}, {transport:?}");
            Machine { transport, ..Machine::new(kind) }
        })
    })
}

/// No multiple of a page, a sector or a word.
const INITRD_LEN: usize = 150_001;

#[test]
fn a_kernel_with_a_64_bit_entry_point_is_loaded_intact() {
    let kernel = BzImage { len: 300_007, ..BzImage::new() };
    for machine in every_machine_and_transport() {
        check(&machine, &kernel, 8, INITRD_LEN);
    }
}

#[test]
fn a_kernel_with_only_a_32_bit_entry_point_is_loaded_intact() {
    let kernel = BzImage { len: 300_007, ..BzImage::new() }.entered_in_32_bit_mode();
    for machine in every_machine_and_transport() {
        check(&machine, &kernel, 4, INITRD_LEN);
    }
}

#[test]
fn kernels_are_loaded_intact_under_kvm() {
    let Some(accelerator) = Accelerator::kvm() else { return };
    for machine in every_machine_and_transport() {
        let machine = Machine { accelerator, ..machine };
        check(&machine, &BzImage::new(), 8, 5001);
        check(&machine, &BzImage::new().entered_in_32_bit_mode(), 4, 5001);
    }
}

#[test]
fn the_firmware_uses_the_transport_that_qemu_offers() {
    for (transport, name) in [(Transport::Dma, "DMA"), (Transport::Ports, "ports")] {
        let machine = Machine { transport, ..Machine::new(Kind::Q35) };
        let machine = machine.with("-fw_cfg name=opt/org.firstlight/log,string=debug");
        let probe = Probe::boot_noisily(&machine, &BzImage::new(), None, None);
        let log = probe.qemu.debug_console();
        assert!(log.lines().any(|line| line.contains("loaded by") && line.contains(name)), "{log}");
    }
}

/// A page table entry (Intel SDM volume 3, table 4-18): present, writable, and the address.
const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

#[test]
fn the_low_4_gib_are_identity_mapped() {
    let mut probe = Probe::boot(&Machine::new(Kind::Q35), &BzImage::new(), None, None);
    let tables = page_tables(&mut probe);
    assert_eq!(tables.len(), 7, "a PML4, a PDPT, four page directories and a page table");
    for (i, entry) in (0..).zip(table(&mut probe, tables[6])) {
        assert_eq!(entry & (PRESENT_WRITABLE | NO_EXECUTE), PRESENT_WRITABLE, "page {i}: {entry:#x}");
        assert_eq!(entry & ADDRESS, i << 12, "{entry:#x}");
    }
    for (gib, &directory) in (0..).zip(&tables[2..6]) {
        for (i, entry) in (0..).zip(table(&mut probe, directory)).skip(usize::from(gib == 0)) {
            let address = gib << 30 | i << 21;
            assert_eq!(entry & NO_EXECUTE, 0, "{address:#x}: {entry:#x}");
            assert_eq!(entry & (PRESENT_WRITABLE | LARGE), PRESENT_WRITABLE | LARGE, "{address:#x}: {entry:#x}");
            // Bits 12 to 20 of a large page's entry are no address, and zero here.
            assert_eq!(entry & ADDRESS, address, "{entry:#x}");
        }
    }
    // And they are in use: page zero, the page under the firmware's stack, the end of RAM, and the firmware's last 16 bytes,
    // which begin with a jump.
    for start in [0x400, 0x8_c000, 0x7f0_0000] {
        probe.fill(start..start + 16, 0x5a);
        assert_eq!(probe.read(start, 16), [0x5a; 16]);
    }
    assert_eq!(probe.read(0xffff_fff0, 1), [0xe9]);
}

#[test]
fn what_the_kernel_gets_is_in_ram_and_disjoint() {
    let command_line = "x".repeat(2000);
    let initrd = random::bytes(2, INITRD_LEN);
    for machine in every_machine_and_transport() {
        let kernel = BzImage { init_size: 0x100_0000, ..BzImage::new() };
        let mut probe = Probe::boot(&machine, &kernel, Some(&initrd), Some(&command_line));
        let page = probe.boot_params();
        let mut parts = vec![
            page.kernel()..page.kernel() + 0x100_0000,
            page.initrd(),
            page.command_line()..page.command_line() + 2001,
            probe.state.esi..probe.state.esi + 4096,
        ];
        let map = page.e820();
        let kind = |part: &std::ops::Range<u64>| {
            map.iter().find(|entry| entry.start <= part.start && part.end <= entry.end).map(|entry| entry.kind)
        };
        for part in &parts {
            assert_eq!(kind(part), Some(E820_RAM), "{part:x?} in {map:x?}");
        }
        // The page tables are in the memory that stays reserved for a wake from suspend.
        let tables: Vec<_> = page_tables(&mut probe).into_iter().map(|table| table..table + 4096).collect();
        for table in &tables {
            assert!(kind(table) == Some(E820_RESERVED) && table.end <= 0xa_0000, "{table:x?} in {map:x?}");
        }
        parts.extend(tables);
        parts.sort_by_key(|part| part.start);
        assert!(parts.is_sorted_by(|a, b| a.end <= b.start), "{parts:x?}");
    }
}

/// The tables for the low 4 GiB: PML4, PDPT, the page directories, and a table for the first 2 MiB.
fn page_tables(probe: &mut Probe) -> Vec<u64> {
    let pml4 = probe.state.cr3 & ADDRESS;
    let pdpt = table(probe, pml4)[0];
    let directories: Vec<_> = table(probe, pdpt & ADDRESS)[..4].to_vec();
    let pages = table(probe, directories[0] & ADDRESS)[0];
    for entry in [&[pdpt], directories.as_slice(), &[pages]].concat() {
        assert_eq!(entry & (PRESENT_WRITABLE | LARGE | NO_EXECUTE), PRESENT_WRITABLE, "{entry:#x}");
    }
    let addresses = directories.into_iter().chain([pages]).map(|entry| entry & ADDRESS);
    [pml4, pdpt & ADDRESS].into_iter().chain(addresses).collect()
}

/// The 512 entries of the table at `address`.
fn table(probe: &mut Probe, address: u64) -> Vec<u64> {
    probe.read(address, 4096).chunks(8).map(|entry| u64::from_le_bytes(entry.try_into().unwrap())).collect()
}

#[test]
fn the_memory_map_has_all_the_memory() {
    for kind in Kind::ALL {
        for (memory, mib) in [("128M", 128), ("512M", 512), ("6G", 6144)] {
            let machine = Machine { memory, ..Machine::new(kind) };
            let map = Probe::boot(&machine, &BzImage::new(), None, None).boot_params().e820();
            assert!(map.is_sorted_by(|a, b| a.end <= b.start), "{kind:?} {memory}: {map:x?}");
            assert!(map.iter().all(|entry| entry.start < entry.end), "{kind:?} {memory}: {map:x?}");
            let ram: u64 = map.iter().filter(|e| e.kind == E820_RAM).map(|e| e.end - e.start).sum();
            // What is not RAM below 1 MiB on a PC, and the host's tables.
            let missing = (mib << 20) - ram;
            assert!((0x6_0000..2 << 20).contains(&missing), "{kind:?} {memory}: {missing:#x} bytes: {map:x?}");
            let is_ram = |at: u64| map.iter().any(|e| e.kind == E820_RAM && e.start <= at && at < e.end);
            assert!(is_ram(0x4_0000), "the firmware's own memory is handed back: {map:x?}");
            assert!(!is_ram(0xa_0000) && !is_ram(0xf_ffff), "video memory and ROM: {map:x?}");
            assert_eq!(is_ram(1 << 32), mib > 4096, "{kind:?} {memory}: {map:x?}");
        }
    }
}

/// The page in which the extended BIOS data area begins is the exception, as on any PC.
#[test]
fn no_page_is_partly_ram() {
    const ACPI_OFF: &str = "-machine acpi=off";
    for kind in Kind::ALL {
        for arguments in ["", ACPI_OFF] {
            has_whole_pages(&Machine::new(kind).with(arguments));
        }
    }
    for arguments in [MICROVM, "-machine microvm", "-machine microvm,acpi=off", "-machine isapc -cpu qemu64"] {
        has_whole_pages(&Machine::new(Kind::Pc).with(arguments));
    }
}

fn has_whole_pages(machine: &Machine) {
    let map = Probe::boot(machine, &BzImage::new(), None, None).boot_params().e820();
    let is_whole = |at: u64| at.is_multiple_of(4096) || at == 0x9_fc00;
    assert!(map.iter().all(|entry| is_whole(entry.start) && is_whole(entry.end)), "{:?}: {map:x?}", machine.arguments);
}

#[test]
fn an_exception_is_reported_with_its_address() {
    let probe = || Probe::boot(&Machine::new(Kind::Q35), &BzImage::new(), None, None);
    let report = |mut probe: Probe, expected: &[&str]| {
        probe.qemu.wait_for("the report of an exception", |qemu| qemu.com1().ends_with('\n'));
        let com1 = probe.qemu.com1();
        assert!(com1.starts_with("firstlight: error: CPU exception "), "{com1}");
        for part in expected {
            assert!(com1.contains(part), "{part} is missing in {com1}");
        }
        assert!(com1.contains("defect of the kernel") && !com1.contains("defect of the firmware"), "{com1}");
        assert_eq!(com1.replace('\r', ""), probe.qemu.debug_console());
        assert!(probe.qemu.is_running(), "QEMU ended");
    };
    // Without an error code, with one, and with one and an address.
    let mut undefined = probe();
    undefined.run_undefined_instruction();
    report(undefined, &["exception 6 at 0x1000", "error code 0x0,"]);
    let mut segment = probe();
    segment.load_segment(0x1230);
    report(segment, &["exception 13 at 0x1000", "error code 0x1230"]);
    let mut unmapped = probe();
    unmapped.read_unmapped(0x1234_5678_9abc);
    report(unmapped, &["exception 14 at 0x1000", "error code 0x0,", "CR2 0x123456789abc"]);
}
