//! The image on every known host, under KVM: from the reset vector, and in [`pvh_entry`] by the PVH entry point.

mod pvh_entry;

use std::time::{Duration, Instant};
use std::{env, fs};

use firstlight::fakes::fw_cfg::{AddressReads, Quirks};
use firstlight::fakes::known_hosts::{KnownHost, known_hosts};
use firstlight::fakes::machine::GuestMemory;
use vmm::{End, Outcome, Setup, machine};

/// Far more than a run takes: tens of milliseconds, or a few hundred where KVM emulates the guest's ring 0.
const LIMIT: Duration = Duration::from_secs(20);
const RAM: usize = 64 << 20;

const COMMAND_LINE: &[u8] = b"console=ttyS0 quiet\0";
/// Where the test kernel is loaded (`pref_address`).
const KERNEL: u64 = 0x100_0000;
/// `mov eax, esi; mov dx, 0xf4; out dx, eax; hlt`: where `boot_params` is.
const ENTRY: [u8; 8] = [0x89, 0xf0, 0x66, 0xba, 0xf4, 0x00, 0xef, 0xf4];

/// Whether KVM can run this; if not, says so.
fn can_run(test: &str) -> bool {
    let why_not = machine::why_not();
    if let Some(why) = &why_not {
        eprintln!("{test} skipped: {why}");
    }
    why_not.is_none()
}

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i / 256) as u8 ^ (i as u8).wrapping_mul(13) ^ seed).collect()
}

/// The protected-mode part: the 64-bit entry at 0x200, and more than one string read's worth of bytes.
fn kernel() -> Vec<u8> {
    let mut code = bytes(9001, 1);
    code[0x200..][..ENTRY.len()].copy_from_slice(&ENTRY);
    code
}

/// The real-mode part: nothing but the header (Linux `Documentation/arch/x86/boot.rst`).
fn setup_code() -> Vec<u8> {
    let mut setup = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| setup[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &0xaa55_u16.to_le_bytes());
    put(0x200, &[0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x230, &0x20_0000_u32.to_le_bytes());
    put(0x234, &[1, 12]);
    put(0x236, &1_u16.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x258, &KERNEL.to_le_bytes());
    put(0x260, &0x1_0000_u32.to_le_bytes());
    setup
}

fn size(len: usize) -> Vec<u8> {
    u32::try_from(len).unwrap().to_le_bytes().to_vec()
}

/// A machine of this host, with a kernel.
fn setup(host: KnownHost) -> Setup {
    let path = env::var_os("FIRSTLIGHT_IMAGE").expect("FIRSTLIGHT_IMAGE: run these tests with `cargo xtask test`");
    let image = fs::read(path).expect("the image");
    let initrd = bytes(7003, 2);
    let items = vec![
        (0x18, setup_code()),
        (0x08, size(kernel().len())),
        (0x11, kernel()),
        (0x0b, size(initrd.len())),
        (0x12, initrd),
        (0x14, size(COMMAND_LINE.len())),
        (0x15, COMMAND_LINE.to_vec()),
    ];
    let other = ("opt/other".to_owned(), vec![1]);
    let files = std::iter::once(other).chain(host.files(RAM as u64)).collect();
    Setup { host, image, ram: RAM, items, files, memory: (host.in_memory)(), serial: true, extra: None }
}

fn u32_at(outcome: &Outcome, at: u64) -> u64 {
    u32::from_le_bytes(outcome.ram.bytes(at, 4).try_into().unwrap()).into()
}

/// What `boot_params` say of the RSDP.
fn rsdp(outcome: &Outcome, params: u64) -> u64 {
    u64::from_le_bytes(outcome.ram.bytes(params + 0x70, 8).try_into().unwrap())
}

/// The RSDP and what it leads to.
fn check_tables(name: &str, outcome: &Outcome, rsdp: u64) {
    let root = outcome.ram.bytes(rsdp, 36);
    assert_eq!(&root[..8], b"RSD PTR ", "{name}: RSDP at {rsdp:#x}");
    assert_eq!(root.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)), 0, "{name}: checksum");
    let xsdt = u64::from_le_bytes(root[24..32].try_into().unwrap());
    assert_eq!(outcome.ram.bytes(xsdt, 4), b"XSDT", "{name}");
}

/// The memory map in `boot_params`: start, end and type.
fn e820(outcome: &Outcome, params: u64) -> Vec<(u64, u64, u8)> {
    let entries = usize::from(outcome.ram.bytes(params + 0x1e8, 1)[0]);
    let list = outcome.ram.bytes(params + 0x2d0, entries * 20);
    let entry = |entry: &[u8]| {
        let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
        (number(0), number(0) + number(8), entry[16])
    };
    list.chunks(20).map(entry).collect()
}

/// Checks what a kernel got whose RAM ends at `ram_end`; returns the address of its `boot_params`.
fn check_kernel(name: &str, outcome: &Outcome, ram_end: u64) -> u64 {
    let End::Exit(params) = outcome.end else { panic!("{name}: {:?}\n{}", outcome.end, outcome.serial) };
    let params = u64::from(params);
    let ram = &outcome.ram;
    assert_eq!(ram.bytes(KERNEL, kernel().len()), kernel(), "{name}: kernel");
    assert_eq!(ram.bytes(params + 0x202, 4), b"HdrS", "{name}: boot_params");
    assert_eq!(u32_at(outcome, params + 0x21c), 7003, "{name}");
    assert_eq!(ram.bytes(u32_at(outcome, params + 0x218), 7003), bytes(7003, 2), "{name}: initrd");
    let command_line = ram.bytes(u32_at(outcome, params + 0x228), COMMAND_LINE.len());
    assert_eq!(command_line, COMMAND_LINE, "{name}: command line");
    let map = e820(outcome, params);
    // Tables may be at the end of RAM, in whole pages. The map covers RAM to its end.
    assert!(map.iter().any(|&(_, end, _)| end == ram_end), "{name}: end of RAM: {map:x?}");
    let is_last = |&(_, end, kind): &(u64, u64, u8)| kind == 1 && (ram_end - 0x4_0000..=ram_end).contains(&end);
    assert!(map.iter().any(is_last), "{name}: RAM below the tables: {map:x?}");
    let is_whole = |at: u64| at.is_multiple_of(4096) || at == 0x9_fc00;
    assert!(map.iter().all(|&(start, end, _)| is_whole(start) && is_whole(end)), "{name}: {map:x?}");
    params
}

/// Boots, and checks what the kernel got.
fn check(setup: Setup) -> Outcome {
    check_below(setup, RAM as u64)
}

/// The same on a machine whose RAM is the kernel's up to `ram_end`.
fn check_below(setup: Setup, ram_end: u64) -> Outcome {
    let name = setup.host.name;
    let (image, memory, host) = (setup.image.clone(), setup.memory.clone(), setup.host);
    let outcome = setup.boot(LIMIT).unwrap();
    let params = check_kernel(name, &outcome, ram_end);
    let ram = &outcome.ram;

    // The BIOS data area has the segment of the extended one, and the end of memory below what is reserved.
    let word = |at| u16::from_le_bytes(ram.bytes(at, 2).try_into().unwrap());
    let entries = e820(&outcome, params);
    let low =
        entries.iter().find(|entry| entry.0 <= 0x1000 && entry.1 > 0x1000 && entry.2 == 1).map(|entry| entry.1 >> 10);
    assert_eq!((word(0x40e), Some(u64::from(word(0x413)))), (0x9fc0, low), "{name}");

    // Tables in fw_cfg, else in memory, where they stay.
    let rsdp = rsdp(&outcome, params);
    let tables = host.acpi.is_some() || !memory.is_empty();
    if tables {
        assert_eq!(memory.iter().any(|&(at, _)| at == rsdp), host.acpi.is_none(), "{name}");
        check_tables(name, &outcome, rsdp);
    } else {
        assert_eq!(rsdp, 0, "{name}");
    }
    for (at, bytes) in memory {
        // alioth's are where the firmware runs. It has them in fw_cfg as well.
        let lost = (0x4_0000..0x9_e800).contains(&at);
        assert!(lost || ram.bytes(at, bytes.len()) == bytes, "{name}: the table at {at:#x}");
    }

    assert_eq!(outcome.serial, "", "{name}: a successful boot prints nothing");
    assert_eq!(outcome.fw_cfg.fatal, Vec::<&str>::new(), "{name}");
    assert_eq!(outcome.fw_cfg.transfers > 0, host.dma, "{name}");
    // QEMU returns zeros behind an item's end, and the firmware uses this. Without ACPI tables, the firmware reads the number
    // of CPUs, for which there is no item here.
    let is_qemu = host.dma && host.quirks.address_reads == AddressReads::AsQemu;
    assert!(is_qemu || outcome.fw_cfg.past_end == if tables { 0 } else { 4 }, "{name}: {}", outcome.fw_cfg.past_end);
    assert_eq!(ram.bytes((1 << 32) - image.len() as u64, image.len()), image, "{name}: the image");
    // Where the tables of every q35 have it.
    let has_window = host.functions.contains(&(0x1f, 0, 0x2918_8086));
    assert_eq!(outcome.pm_timer, has_window.then_some(0x608), "{name}: the power management timer");
    if host.has_chipset() {
        // The local APIC, and on q35 the configuration space.
        let registers = |at: &u64| *at >> 12 == 0xf_ee00 || (0xb000_0000..0xc000_0000).contains(at);
        assert!(outcome.mmio_writes.iter().all(registers), "{name}: {:x?}", outcome.mmio_writes);
        assert!(!outcome.pci_writes.is_empty(), "{name}");
    } else {
        // Bytes are read from ports in strings.
        assert!(outcome.exits < 150, "{name}: {} exits", outcome.exits);
        assert_eq!(outcome.mmio_writes, Vec::<u64>::new(), "{name}: nothing is written where there is no RAM");
        assert_eq!(outcome.pci_writes, Vec::<u32>::new(), "{name}: PCI is the host's");
    }
    outcome
}

#[test]
fn every_known_host_boots_a_kernel() {
    if can_run("every_known_host_boots_a_kernel") {
        for host in known_hosts().into_iter().filter(|host| host.reset_vector) {
            check(setup(host));
        }
    }
}

/// More ranges than `boot_params` has room for, and a list of the host's own behind the kernel (Linux
/// `arch/x86/include/uapi/asm/setup_data.h`).
#[test]
fn a_kernel_gets_200_ranges_of_memory_and_the_hosts_setup_data() {
    const HOST: u64 = 0x10_0000;
    const SETUP_E820_EXT: u32 = 1;
    const SETUP_DTB: u32 = 2;
    const SETUP_RNG_SEED: u32 = 9;
    if !can_run("a_kernel_gets_200_ranges_of_memory_and_the_hosts_setup_data") {
        return;
    }
    let node = |next: u64, kind: u32, data: &[u8]| {
        [&next.to_le_bytes()[..], &kind.to_le_bytes(), &size(data.len()), data].concat()
    };
    let entry = |start: u64, end: u64, kind: u32| {
        [&start.to_le_bytes()[..], &(end - start).to_le_bytes(), &kind.to_le_bytes()].concat()
    };
    let tree = bytes(3000, 9);
    let seed = bytes(32, 10);
    for host in known_hosts().into_iter().filter(|host| host.reset_vector && host.e820.is_some()) {
        let mut setup = setup(host);
        let mut kernel = kernel();
        kernel.resize(kernel.len().next_multiple_of(16), 0);
        let first = HOST + kernel.len() as u64;
        kernel.extend(node(0, SETUP_DTB, &tree));
        let second = HOST + kernel.len() as u64;
        kernel.extend(node(first, SETUP_RNG_SEED, &seed));
        let mut header = setup_code();
        header[0x1f4..0x1f8].copy_from_slice(&size(9001 / 16));
        header[0x250..0x258].copy_from_slice(&second.to_le_bytes());
        let changed = [(0x07, size(HOST as usize)), (0x08, size(kernel.len())), (0x11, kernel), (0x18, header)];
        setup.items.retain(|(key, _)| changed.iter().all(|(other, _)| key != other));
        setup.items.extend(changed);
        let mut ranges: Vec<_> =
            (0..198).map(|i| ((5 << 30) + i * 0x2000, (5 << 30) + i * 0x2000 + 0x1000, 2)).collect();
        ranges.splice(0..0, [(0, 0xa_0000, 1), (0x10_0000, RAM as u64, 1)]);
        for (name, file) in &mut setup.files {
            if name == "etc/e820" {
                *file = ranges.iter().flat_map(|&(start, end, kind)| entry(start, end, kind)).collect();
            }
        }
        let name = setup.host.name;
        let outcome = setup.boot(LIMIT).unwrap();
        let End::Exit(params) = outcome.end else { panic!("{name}: {:?}\n{}", outcome.end, outcome.serial) };
        let params = u64::from(params);
        assert_eq!(outcome.serial, "", "{name}");
        let ram = &outcome.ram;
        let mut next = u32_at(&outcome, params + 0x250);
        let mut nodes = Vec::new();
        while next != 0 {
            assert!(nodes.len() < 4, "{name}: the list does not end");
            let len = u32_at(&outcome, next + 12) as usize;
            nodes.push((u32_at(&outcome, next + 8) as u32, ram.bytes(next + 16, len)));
            next = u32_at(&outcome, next);
        }
        assert_eq!(ram.bytes(params + 0x1e8, 1), [128], "{name}");
        let [(SETUP_E820_EXT, more), (SETUP_RNG_SEED, seen), (SETUP_DTB, tree_seen)] = &nodes[..] else {
            panic!("{name}: {nodes:?}")
        };
        assert!(*seen == seed && *tree_seen == tree, "{name}");
        let told = [ram.bytes(params + 0x2d0, 128 * 20), more.clone()].concat();
        for (start, end, kind) in ranges.into_iter().filter(|range| range.2 == 2) {
            let entry = entry(start, end, kind);
            assert!(told.chunks(20).any(|other| other == entry), "{name}: {start:#x}");
        }
    }
}

/// crosvm's MP table is in the page to which the firmware copies its hand-over code; with many CPUs it extends beyond.
#[test]
fn an_mp_table_beside_the_hand_over_code_is_kept_by_either_entry_point() {
    if !can_run("an_mp_table_beside_the_hand_over_code_is_kept_by_either_entry_point") {
        return;
    }
    let host = known_hosts().into_iter().find(|host| host.name == "crosvm").unwrap();
    for is_64_bit in [true, false] {
        for len in [284, 0x17f0] {
            let mut setup = setup(host);
            let mp_table = firstlight::fakes::tables::long_mp_table(0x9_fff0, 0x9_e800, len);
            setup.memory.retain(|(at, _)| *at >= 0xa_0000);
            setup.memory.extend(mp_table.clone());
            if !is_64_bit {
                setup.items = thirty_two_bit(setup.items);
            }
            let outcome = setup.boot(LIMIT).unwrap();
            let End::Exit(params) = outcome.end else { panic!("{:?}\n{}", outcome.end, outcome.serial) };
            assert_eq!(outcome.serial, "", "a successful boot prints nothing");
            for (at, bytes) in mp_table {
                let last = at + bytes.len() as u64 - 1;
                assert!(outcome.ram.bytes(at, bytes.len()) == bytes, "the table at {at:#x} of {len:#x} bytes");
                let is_ram = e820(&outcome, params.into())
                    .into_iter()
                    .any(|(start, end, kind)| kind == 1 && start <= last && at < end);
                assert!(!is_ram, "the table at {at:#x} is the kernel's to write over");
            }
        }
    }
}

/// The items with a kernel that has no 64-bit entry: `xloadflags` is zero, and the code is at its first byte.
fn thirty_two_bit(items: Vec<(u16, Vec<u8>)>) -> Vec<(u16, Vec<u8>)> {
    let change = |(key, mut bytes): (u16, Vec<u8>)| {
        match key {
            0x18 => bytes[0x236..0x238].fill(0),
            0x11 => bytes[..ENTRY.len()].copy_from_slice(&ENTRY),
            _ => {}
        }
        (key, bytes)
    };
    items.into_iter().map(change).collect()
}

#[test]
fn tables_at_the_top_of_ram_are_kept_and_passed_on() {
    if can_run("tables_at_the_top_of_ram_are_kept_and_passed_on") {
        let host = known_hosts().into_iter().find(|host| host.name == "crosvm").unwrap();
        let memory = firstlight::fakes::tables::acpi(0xf_2400, RAM as u64 - 0x1000, 0xd000_0000);
        let outcome = check_below(Setup { memory, ..setup(host) }, RAM as u64 - 0x1000);
        assert!(outcome.exits < 150);
    }
}

#[test]
fn a_host_without_a_kernel_gets_an_error_and_not_a_hang() {
    if !can_run("a_host_without_a_kernel_gets_an_error_and_not_a_hang") {
        return;
    }
    for host in known_hosts().into_iter().filter(|host| host.reset_vector) {
        let mut setup = setup(host);
        setup.items.clear();
        let outcome = setup.boot(LIMIT).unwrap();
        assert_eq!(outcome.end, End::Halt, "{}: {}", host.name, outcome.serial);
        // crosvm has a virtio disk, which is a model without registers here.
        let expected = if host.name == "crosvm" { "nothing boots: virtio disk at " } else { "no kernel" };
        let line = format!("firstlight: error: {expected}");
        assert!(outcome.serial.starts_with(&line), "{}: {}", host.name, outcome.serial);
        assert_eq!(outcome.fw_cfg.fatal, Vec::<&str>::new(), "{}", host.name);
    }
}

#[test]
fn neither_a_serial_port_nor_an_alias_below_1_mib_is_needed() {
    if !can_run("neither_a_serial_port_nor_an_alias_below_1_mib_is_needed") {
        return;
    }
    for absent_port in [0, u32::MAX] {
        for alias in [false, true] {
            let host = KnownHost { absent_port, alias, ..known_hosts()[0] };
            check(Setup { serial: false, ..setup(host) });
        }
    }
}

#[test]
fn a_host_whose_dma_fails_is_read_through_ports() {
    if can_run("a_host_whose_dma_fails_is_read_through_ports") {
        let quirks = Quirks { always_fails: true, ..Quirks::default() };
        let outcome = check(setup(KnownHost { name: "a host that refuses DMA", quirks, ..known_hosts()[0] }));
        assert!(outcome.fw_cfg.transfers > 1);
    }
}

#[test]
fn a_guest_that_never_ends_is_stopped_at_the_limit() {
    if can_run("a_guest_that_never_ends_is_stopped_at_the_limit") {
        let mut setup = setup(known_hosts()[0]);
        let end = setup.image.len();
        // `jmp $` at the reset vector.
        setup.image[end - 16..end - 14].copy_from_slice(&[0xeb, 0xfe]);
        let started = Instant::now();
        assert_eq!(setup.boot(Duration::from_millis(300)).unwrap().end, End::Limit);
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
