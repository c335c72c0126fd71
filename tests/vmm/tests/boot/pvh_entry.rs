//! The ELF file on every known host by the PVH entry point, and on one without fw_cfg.

use std::ops::Range;
use std::{env, fs};

use firstlight::fakes::known_hosts::{E820Record, KnownHost, known_hosts};
use firstlight::fakes::machine::GuestMemory;
use vmm::pvh::{MEMORY_MAP, START_INFO, Start, StartInfo};
use vmm::{End, Outcome, Setup, elf};

use super::{
    COMMAND_LINE, KERNEL, LIMIT, RAM, bytes, can_run, check_kernel, check_tables, e820, kernel, rsdp, setup,
    setup_code, size, u32_at,
};

const PAGE: usize = 4096;
/// Low memory that is the firmware's until the kernel runs (`BOOT_RAM` in `src/layout.rs`), and what of it is used on a
/// machine that cannot sleep (`FIRMWARE_RAM`, `STARTUP_CODE`).
const BOOT_RAM: Range<u64> = 0x4_0000..0x9_fc00;
const USED: Range<u64> = 0x4_0000..0x9_e800;
/// What the test kernel asks for (`init_size`).
const KERNEL_SIZE: u64 = 0x1_0000;
/// The addresses of the bzImage and, after it, of the initrd, at the top of RAM.
const BZIMAGE: u64 = RAM as u64 - 0x2_0000;
const INITRD: u64 = RAM as u64 - 0x1_0000;
/// Where Firecracker has the RSDP, and the end of its RAM below 640 KiB.
const RSDP: u64 = 0xe_0000;
const LOW_RAM_END: u64 = 0x9_fc00;
/// No memory is there.
const NOWHERE: u64 = 0x5000_0000;

fn elf() -> Vec<u8> {
    let path = env::var_os("FIRSTLIGHT_ELF").expect("FIRSTLIGHT_ELF: run these tests with `cargo xtask test`");
    fs::read(path).expect("the ELF file")
}

/// What each of these starts hands over: the map, as in the host's fw_cfg, else as on Firecracker.
fn start_info(host: &KnownHost) -> StartInfo {
    let ram = RAM as u64;
    let map: fn(u64) -> Vec<E820Record> = host.e820.unwrap_or(|ram| {
        vec![(0, LOW_RAM_END, 1), (LOW_RAM_END, RSDP - LOW_RAM_END, 2), (1 << 20, ram - (1 << 20), 1)]
    });
    StartInfo { memory_map: map(ram), ..StartInfo::default() }
}

/// The same with kernel, initrd and command line.
fn whole_start_info(host: &KnownHost) -> StartInfo {
    StartInfo {
        modules: vec![(BZIMAGE, [setup_code(), kernel()].concat()), (INITRD, bytes(7003, 2))],
        command_line: Some(COMMAND_LINE[..COMMAND_LINE.len() - 1].to_vec()),
        ..start_info(host)
    }
}

/// A machine of this host with that in memory, in addition to the rest. Where the firmware will run, there is garbage.
fn pvh_setup(host: KnownHost, info: &StartInfo) -> Setup {
    let setup = setup(host);
    let rubbish = vec![0xa5; (BOOT_RAM.end - BOOT_RAM.start) as usize];
    let memory = [vec![(BOOT_RAM.start, rubbish)], setup.memory, info.pieces()].concat();
    Setup { image: elf(), memory, ..setup }
}

/// A host like Firecracker: without fw_cfg and without other hosts' peculiarities.
fn host_without_fw_cfg() -> KnownHost {
    let crosvm = known_hosts().into_iter().find(|host| host.name == "crosvm").unwrap();
    KnownHost { name: "a host without fw_cfg", in_memory: Vec::new, functions: &[], ..crosvm }
}

fn boot(setup: Setup, has_fw_cfg: bool) -> Outcome {
    setup.boot_by_pvh(Start { start_info: START_INFO, has_fw_cfg }, LIMIT).unwrap()
}

/// Boots, and checks what the kernel got and all of memory; also returns the address of `boot_params`.
fn check(setup: Setup, has_fw_cfg: bool) -> (Outcome, u64) {
    let (host, before) = (setup.host, setup.clone());
    let name = host.name;
    let outcome = boot(setup, has_fw_cfg);
    let params = check_kernel(name, &outcome, RAM as u64);
    assert_eq!(outcome.serial, "", "{name}: a successful boot prints nothing");
    assert_eq!(outcome.fw_cfg.fatal, Vec::<&str>::new(), "{name}");
    assert_eq!(outcome.fw_cfg.transfers > 0, has_fw_cfg && host.dma, "{name}");
    check_memory(name, &before, &outcome, params);
    (outcome, params)
}

/// Only what belongs to the kernel or is reserved from it is written.
fn check_memory(name: &str, setup: &Setup, outcome: &Outcome, params: u64) {
    let ram = vmm::ram::Ram::new(RAM, &[]).unwrap();
    elf::load(&setup.image, &ram).unwrap();
    setup.memory.iter().for_each(|(at, bytes)| ram.write(*at, bytes).unwrap());
    let page = |at: u64| at..(at + 1).next_multiple_of(PAGE as u64);
    let initrd = u32_at(outcome, params + 0x218);
    let mut allowed = vec![USED, KERNEL..KERNEL + KERNEL_SIZE, page(params), page(u32_at(outcome, params + 0x228))];
    if !setup.memory.iter().any(|&(at, _)| at == initrd) {
        allowed.push(initrd..initrd + 7003);
    }
    // The firmware's memory is reserved, and does not contain anything that the host has put there.
    allowed
        .extend(e820(outcome, params).into_iter().filter_map(|(start, end, kind)| (kind != 1).then_some(start..end)));
    let (before, after) = (ram.bytes(0, RAM), outcome.ram.bytes(0, RAM));
    let mut at = 0;
    while let Some(page) = before.get(at..at + PAGE) {
        if page != &after[at..at + PAGE] {
            for (at, _) in (at as u64..).zip(page).filter(|&(at, was)| after[at as usize] != *was) {
                assert!(allowed.iter().any(|range| range.contains(&at)), "{name}: {at:#x} was written");
            }
        }
        at += PAGE;
    }
    for (at, bytes) in
        setup.memory.iter().filter(|(at, bytes)| at + bytes.len() as u64 <= USED.start || *at >= USED.end)
    {
        assert!(outcome.ram.bytes(*at, bytes.len()) == *bytes, "{name}: what the host has at {at:#x}");
    }
}

#[test]
fn every_known_host_boots_a_kernel_from_fw_cfg() {
    if !can_run("every_known_host_boots_a_kernel_from_fw_cfg") {
        return;
    }
    for host in known_hosts() {
        let (outcome, params) = check(pvh_setup(host, &start_info(&host)), true);
        let tables = host.acpi.is_some() || !(host.in_memory)().is_empty();
        let rsdp = rsdp(&outcome, params);
        assert_eq!(rsdp != 0, tables, "{}", host.name);
        if tables {
            check_tables(host.name, &outcome, rsdp);
        }
        assert_eq!(outcome.pci_writes.is_empty(), !host.has_chipset(), "{}", host.name);
    }
}

/// As Cloud Hypervisor starts a firmware: it has set up the machine, and the same tables are in fw_cfg.
#[test]
fn tables_that_the_host_hands_over_are_passed_on_unchanged() {
    if !can_run("tables_that_the_host_hands_over_are_passed_on_unchanged") {
        return;
    }
    // alioth has tables only where the firmware runs.
    for host in known_hosts().into_iter().filter(|host| !(host.in_memory)().is_empty() && host.name != "alioth") {
        let tables = (host.in_memory)();
        let (handed_over, _) = tables[0];
        let info = StartInfo { rsdp: handed_over, ..start_info(&host) };
        let (outcome, params) = check(pvh_setup(host, &info), true);
        assert_eq!(rsdp(&outcome, params), handed_over, "{}", host.name);
        check_tables(host.name, &outcome, handed_over);
        assert_eq!((outcome.pci_writes, outcome.mmio_writes), (vec![], vec![]), "{}", host.name);
    }
}

/// Cloud Hypervisor, as its `--fw-cfg-config` is by default: the file that it starts is in the items of a kernel too, cut
/// where it would cut a bzImage.
#[test]
fn the_firmware_in_the_kernels_items_is_not_taken_for_the_kernel() {
    if !can_run("the_firmware_in_the_kernels_items_is_not_taken_for_the_kernel") {
        return;
    }
    let host = known_hosts().into_iter().find(|host| host.name == "Cloud Hypervisor").unwrap();
    let rsdp = (host.in_memory)()[0].0;
    let bzimage = [setup_code(), kernel()].concat();
    let (mut start, sectors) = (elf()[..4096].to_vec(), usize::from(elf()[0x1f1]));
    let sectors = if sectors == 0 { 4 } else { sectors };
    (start[0x1f1], start[0x210]) = (sectors as u8, 0xff);
    let rest = elf().split_off((sectors + 1) * 512);
    // A named file, with the initrd as a module, and both as modules.
    for named in [true, false] {
        let mut info = StartInfo { rsdp, ..whole_start_info(&host) };
        info.modules.drain(..usize::from(named));
        let mut setup = pvh_setup(host, &info);
        setup.items = vec![(0x17, size(4096)), (0x18, start.clone()), (0x08, size(rest.len())), (0x11, rest.clone())];
        if named {
            setup.files.push(("opt/org.firstlight/kernel".to_owned(), bzimage.clone()));
        }
        check(setup, true);
    }
}

#[test]
fn a_host_without_fw_cfg_boots_a_kernel_from_its_modules() {
    if !can_run("a_host_without_fw_cfg_boots_a_kernel_from_its_modules") {
        return;
    }
    let host = host_without_fw_cfg();
    for absent_port in [0, u32::MAX] {
        for serial in [false, true] {
            let host = KnownHost { absent_port, ..host };
            let setup = Setup { serial, ..pvh_setup(host, &whole_start_info(&host)) };
            let (outcome, params) = check(setup, false);
            assert_eq!(rsdp(&outcome, params), 0);
            assert_eq!(u32_at(&outcome, params + 0x218), INITRD, "it stays where it is");
            assert!(outcome.exits < 150, "{} exits", outcome.exits);
        }
    }
}

#[test]
fn tables_of_a_host_without_fw_cfg_are_passed_on() {
    if can_run("tables_of_a_host_without_fw_cfg_are_passed_on") {
        let host = KnownHost {
            in_memory: || firstlight::fakes::tables::acpi(RSDP, 0xa_0000, 0xeec0_0000),
            ..host_without_fw_cfg()
        };
        let info = StartInfo { rsdp: RSDP, ..whole_start_info(&host) };
        let (outcome, params) = check(pvh_setup(host, &info), false);
        assert_eq!(rsdp(&outcome, params), RSDP);
        check_tables(host.name, &outcome, RSDP);
        let holds = |&(start, end, _): &(u64, u64, u8)| (start..end).contains(&0xa_0000);
        assert_ne!(e820(&outcome, params).into_iter().find(holds).map(|entry| entry.2), Some(1));
        assert_eq!((outcome.pci_writes, outcome.mmio_writes), (vec![], vec![]));
    }
}

/// Modules in any order: the kernel is the first that is a kernel, the initrd the first other one.
#[test]
fn modules_may_come_in_any_order() {
    if can_run("modules_may_come_in_any_order") {
        let host = host_without_fw_cfg();
        let mut info = whole_start_info(&host);
        info.modules.reverse();
        info.modules.push((0x200_0000, b"neither".to_vec()));
        let (outcome, params) = check(pvh_setup(host, &info), false);
        assert_eq!(u32_at(&outcome, params + 0x218), INITRD);
    }
}

/// Every case changes `hvm_start_info` in one place, or EBX.
#[test]
fn a_faulty_start_info_ends_the_boot_with_an_error() {
    if !can_run("a_faulty_start_info_ends_the_boot_with_an_error") {
        return;
    }
    let past_ram = RAM as u64 - 0x1000;
    let wide = |at: u64| at.to_le_bytes().to_vec();
    let module = |start: u64, len: u64| [wide(start), wide(len)].concat();
    let cases = [
        (NOWHERE, (0, vec![]), "EBX is 0x50000000, where there is 0xffffffff and not hvm_start_info"),
        (BOOT_RAM.start, (0, vec![]), "hvm_start_info is at 0x40000-0x40037, where the firmware itself is"),
        (START_INFO, (START_INFO, vec![0]), "and not hvm_start_info"),
        (START_INFO, (START_INFO + 0x30, vec![0xff; 4]), "the memory map has 4294967295 entries, 1024 are accepted"),
        (START_INFO, (START_INFO + 0x28, wide(1 << 40)), "the memory map is at 0x10000000000-"),
        (START_INFO, (START_INFO + 0x28, wide(NOWHERE)), "lists no RAM"),
        (START_INFO, (MEMORY_MAP + 0x10, vec![2; 0x40]), "lists no RAM"),
        (START_INFO, (START_INFO + 0x10, wide(1 << 40)), "the list of modules is at 0x10000000000-"),
        (START_INFO, (START_INFO + 0x10, wide(NOWHERE)), "reaches past the last address"),
        (START_INFO, (START_INFO + 0x18, wide(0xffff_fff0)), "the command line is at 0xfffffff0-"),
        (
            START_INFO,
            (START_INFO + 0x18, wide(NOWHERE)),
            "the command line at 0x50000000 has no end within 65536 bytes",
        ),
        (START_INFO, (0x6040, module(past_ram, 0x1001)), "a module at 0x3fff000-0x4000000, which is not all RAM"),
        (START_INFO, (0x6040, module(1 << 40, 0x1000)), "which is not all RAM"),
        (START_INFO, (0x6060, module(past_ram, 0x1001)), "a module at 0x3fff000-0x4000000, which is not all RAM"),
        (START_INFO, (0x6060, module(NOWHERE, 7003)), "a module at 0x50000000-"),
        (START_INFO, (0x6060, module(0xff_fff0, 7003)), "over the firmware"),
        (START_INFO, (0x6060, module(u64::MAX, 2)), "reaches past the last address"),
    ];
    for (start_info, change, expected) in cases {
        let host = KnownHost { absent_port: u32::MAX, ..host_without_fw_cfg() };
        let mut setup = pvh_setup(host, &whole_start_info(&host));
        let what = format!("{:#x?} {:#x} {:x?}", start_info, change.0, change.1);
        setup.memory.push(change);
        let outcome = setup.boot_by_pvh(Start { start_info, has_fw_cfg: false }, LIMIT).unwrap();
        assert_eq!(outcome.end, End::Halt, "{what}: {}", outcome.serial);
        let line = &outcome.serial;
        assert!(line.starts_with("firstlight: error: ") && line.contains(expected), "{what}: {line}");
        assert_eq!(line.lines().count(), 1, "{what}: {line}");
        assert_eq!(outcome.mmio_writes, Vec::<u64>::new(), "{what}");
    }
}

/// After a reset EBX is zero too. But this is not a reset, even if fw_cfg has a kernel: the image is in RAM, and would not be
/// reserved.
#[test]
fn a_pvh_start_with_ebx_zero_is_not_taken_for_a_reset() {
    if !can_run("a_pvh_start_with_ebx_zero_is_not_taken_for_a_reset") {
        return;
    }
    for has_fw_cfg in [true, false] {
        let host = known_hosts()[0];
        let outcome =
            pvh_setup(host, &start_info(&host)).boot_by_pvh(Start { start_info: 0, has_fw_cfg }, LIMIT).unwrap();
        assert_eq!(outcome.end, End::Halt, "{}", outcome.serial);
        let expected = "firstlight: error: PVH start: hvm_start_info is at 0x0-0x37, where the firmware itself is";
        assert!(outcome.serial.starts_with(expected), "{}", outcome.serial);
        assert_eq!(outcome.serial.lines().count(), 1, "{}", outcome.serial);
        // The directory alone, by what looks for a display afterwards.
        assert_eq!(outcome.fw_cfg.transfers, u32::from(has_fw_cfg));
    }
}

#[test]
fn only_the_first_eight_modules_are_used() {
    if can_run("only_the_first_eight_modules_are_used") {
        let host = host_without_fw_cfg();
        let mut setup = pvh_setup(host, &whole_start_info(&host));
        setup.memory.push((START_INFO + 12, size(u32::MAX as usize)));
        let outcome = boot(setup, false);
        check_kernel(host.name, &outcome, RAM as u64);
        assert_eq!(
            outcome.serial,
            "firstlight: warning: the host gives 4294967295 modules, the first 8 are looked at\r\n"
        );
    }
}

#[test]
fn a_host_without_fw_cfg_and_without_a_kernel_gets_an_error() {
    if can_run("a_host_without_fw_cfg_and_without_a_kernel_gets_an_error") {
        let host = host_without_fw_cfg();
        let outcome = boot(pvh_setup(host, &start_info(&host)), false);
        assert_eq!(outcome.end, End::Halt, "{}", outcome.serial);
        assert!(outcome.serial.starts_with("firstlight: error: no kernel: "), "{}", outcome.serial);
    }
}
