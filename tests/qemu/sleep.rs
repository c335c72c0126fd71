//! Suspend to RAM and wake: with the probe, what the firmware does; with Linux, what a guest sees.

use std::ops::Range;

use crate::bzimage::{BzImage, wake_code};
use crate::machine::{Accelerator, Kind, Machine, Qemu, Transport};
use crate::probe::{Awake, BootParams, E820, E820_RAM, E820_RESERVED, Probe};
use crate::tables::{self, u32_at};

/// The control register of power management, and what suspends to RAM when it is written there: bit 13, and type 1, as
/// QEMU's tables have it (`hw/acpi/core.c`, `acpi_pm1_cnt_write`).
pub const PM1A_CONTROL: u16 = 0x604;
pub const SLEEP_S3: u16 = 1 << 13 | 1 << 10;

/// CMOS: why the machine was reset; for a wake.
const SHUTDOWN_STATUS: u8 = 0x0f;
pub const STATUS_WAKE: u8 = 0xfe;

/// The memory that the firmware reserves for a wake, and where in it the record is.
const KEPT: Range<u64> = 0x8_3000..0xa_0000;
pub const RECORD: u64 = 0x9_f000;

/// An address to wake up at, with something in each part of it.
pub const VECTOR: u64 = 0x3_123c;

/// Where the code there has its stack: 8 KiB from its segment's start (`tests/kernels/probe.s`).
const WAKE_STACK: Range<u64> = 0x3_3000..0x3_4000;

/// Boots the probe.
pub fn boot(machine: &Machine) -> (Probe, BootParams) {
    let mut probe = Probe::boot(machine, &BzImage::new(), None, None);
    let page = probe.boot_params();
    (probe, page)
}

/// The address of the FACS: from the FADT, which the RSDT lists.
fn facs(probe: &mut Probe, page: &BootParams) -> u64 {
    let tables = tables::tables(probe, page);
    let (_, fadt) = tables.iter().find(|(signature, _)| signature == "FACP").expect("a FADT");
    u32_at(fadt, 36).into()
}

/// Prepares to wake up as an operating system does: code below 1 MiB, and its address in the FACS.
pub fn prepare(probe: &mut Probe, page: &BootParams) {
    let facs = facs(probe, page);
    prepare_with(probe, facs);
}

/// The same with the address of the FACS.
pub fn prepare_with(probe: &mut Probe, facs: u64) {
    probe.write(VECTOR, &wake_code(probe.state.base));
    probe.write(facs + 12, &(VECTOR as u32).to_le_bytes());
}

/// Suspends, and wakes the machine by a command to QEMU.
pub fn sleep(probe: &mut Probe) {
    probe.suspend_by_port(PM1A_CONTROL, SLEEP_S3);
    wake_when_asleep(&mut probe.qemu);
}

/// Waits until the machine is suspended, and wakes it.
pub fn wake_when_asleep(qemu: &mut Qemu) {
    qemu.wait_for("suspension", |qemu| qemu.qmp().run("query-status", "{}").contains("suspended"));
    qemu.qmp().run("system_wakeup", "{}");
}

/// The current values of the registers that firmware sets: of the chipset, of the interrupt controllers, and memory types.
pub fn registers(probe: &mut Probe, kind: Kind) -> Vec<u64> {
    let functions: &[([u8; 3], &[u8])] = match kind {
        Kind::Q35 => &[([0, 0, 0], &[0x60, 0x64, 0x90]), ([0, 0x1f, 0], &[0x40, 0x44, 0x60, 0x68])],
        Kind::Pc => &[([0, 0, 0], &[0x58]), ([0, 1, 0], &[0x60]), ([0, 1, 1], &[0x40]), ([0, 1, 3], &[0x40, 0x80])],
    };
    let mut values = Vec::new();
    for (function, offsets) in functions {
        values.extend(offsets.iter().map(|&offset| u64::from(probe.pci(*function, offset))));
    }
    values.extend([0x4d0, 0x4d1, 0x21, 0xa1].map(|port| u64::from(probe.in8(port))));
    values.extend([0xf0, 0x350, 0x360].map(|register| u64::from(probe.read32(0xfee0_0000 + register))));
    let memory_types = [0x200, 0x201, 0x202, 0x203, 0x250, 0x258, 0x259, 0x268, 0x26f, 0x2ff];
    values.extend(memory_types.map(|register| probe.read_msr(register)));
    values
}

/// Checks that the CPU is as an operating system may expect it (ACPI 6.5, 16.3; Intel SDM volume 3, 21.1).
pub fn check_cpu(awake: &Awake) {
    const IF: u32 = 1 << 9;
    const DF: u32 = 1 << 10;
    const CR0_PE_PG_CD_NW: u32 = 1 | 1 << 31 | 1 << 30 | 1 << 29;
    assert_eq!(u64::from(awake.cs << 4 | awake.ip), VECTOR, "{awake:x?}");
    assert_eq!([awake.cs, awake.ip], [0x3123, 0xc], "{awake:x?}");
    assert_eq!(awake.flags & (IF | DF), 0, "{awake:x?}");
    assert_eq!(awake.cr0 & CR0_PE_PG_CD_NW, 0, "{awake:x?}");
    assert_eq!([awake.cr4, awake.efer], [0; 2], "{awake:x?}");
    assert_eq!([awake.ds, awake.es], [0; 2], "{awake:x?}");
    assert_eq!([awake.idt_base, awake.idt_limit], [0, 0x3ff], "{awake:x?}");
    let stack = u64::from(awake.ss << 4) + u64::from(awake.esp & 0xffff);
    assert!(KEPT.contains(&stack), "a stack in the guest's memory: {awake:x?}");
}

/// A hash of each piece of the memory that is the guest's, the tables, and the F-segment, but for the pages in which the
/// probe keeps the conversation and its stacks.
fn memory(probe: &mut Probe) -> Vec<(Range<u64>, u32)> {
    const PIECE: usize = 64 << 10;
    let own = probe.state.base + 0x8_0000..probe.state.base + 0x8_4000;
    let parts = [0x1000..WAKE_STACK.start, WAKE_STACK.end..KEPT.start, 0xf_0000..own.start, own.end..32 << 20];
    let pieces = parts
        .into_iter()
        .flat_map(|part| part.clone().step_by(PIECE).map(move |start| start..part.end.min(start + PIECE as u64)));
    pieces.map(|piece| (piece.clone(), probe.hash(piece))).collect()
}

#[test]
fn a_machine_wakes_twice_with_its_state_unchanged() {
    for kind in Kind::ALL {
        eprintln!("{kind:?}");
        let (mut probe, page) = boot(&Machine { memory: "32M", ..Machine::new(kind) });
        // Memory in which a stray write would show.
        probe.fill(0x2_0000..0x3_0000, 0x5a);
        probe.fill(0x3_8000..KEPT.start, 0xa5);
        // And what the firmware has left in page zero, which now belongs to the guest.
        probe.fill(0x40e..0x415, 0x5a);
        prepare(&mut probe, &page);
        let before = registers(&mut probe, kind);
        let memory_before = memory(&mut probe);
        for _ in 0..2 {
            sleep(&mut probe);
            let awake = probe.wait_for_wake();
            check_cpu(&awake);
            assert_eq!(registers(&mut probe, kind), before, "registers");
            assert_eq!(probe.read(0x40e, 7), [0x5a; 7], "the BIOS data area");
            for (before, after) in memory_before.iter().zip(memory(&mut probe)) {
                assert!(*before == after, "memory at {:x?} is not as it was", before.0);
            }
        }
        assert_eq!(probe.qemu.com1(), "", "a successful wake is silent");
        assert_eq!(probe.qemu.debug_console(), "", "a successful wake is silent");
    }
}

#[test]
fn a_machine_wakes_under_kvm() {
    let Some(accelerator) = Accelerator::kvm() else { return };
    for kind in Kind::ALL {
        let (mut probe, page) = boot(&Machine { accelerator, ..Machine::new(kind) });
        prepare(&mut probe, &page);
        let before = registers(&mut probe, kind);
        sleep(&mut probe);
        check_cpu(&probe.wait_for_wake());
        assert_eq!(registers(&mut probe, kind), before, "registers");
    }
}

#[test]
fn the_memory_that_a_wake_runs_in_is_reserved() {
    for kind in Kind::ALL {
        let (_, page) = boot(&Machine::new(kind));
        let map = page.e820();
        let kept = |entry: &E820| (entry.start, entry.end, entry.kind) == (KEPT.start, KEPT.end, E820_RESERVED);
        assert!(map.iter().any(kept), "{map:x?}");
        let below = |entry: &E820| entry.kind == E820_RAM && entry.end == KEPT.start;
        assert!(map.iter().any(below), "{map:x?}");
    }
}

#[test]
fn the_cpus_have_their_features_again_after_a_wake() {
    for kind in Kind::ALL {
        let machine = Machine { cpus: 4, ..Machine::new(kind) }
            .with("-cpu max,lmce=on")
            .with("-fw_cfg name=opt/org.firstlight/log,string=debug");
        let mut probe = Probe::boot_noisily(&machine, &BzImage::new(), None, None);
        let page = probe.boot_params();
        prepare(&mut probe, &page);
        sleep(&mut probe);
        probe.wait_for_wake();
        // TCG does not let the register be read; each CPU reports to the firmware that it has written it.
        let log = probe.qemu.debug_console();
        assert_eq!(log.matches("3 others have the memory types and features").count(), 2, "{log}");
    }
}

/// The error that a wake ends with. Afterwards the kernel has been started again.
fn failure(change: impl Fn(&mut Probe, &BootParams)) -> String {
    let machine = Machine { reboots: true, ..Machine::new(Kind::Q35) };
    let (mut probe, page) = boot(&machine);
    prepare(&mut probe, &page);
    change(&mut probe, &page);
    sleep(&mut probe);
    probe.wait_for_error_and_restart();
    assert_eq!(probe.state.word, 8);
    let error = probe.qemu.com1();
    let line = error.strip_prefix("firstlight: error: the guest cannot wake up from suspend and boots again: ");
    let line = line.unwrap_or_else(|| panic!("{error}"));
    assert_eq!(line.matches('\n').count(), 1, "one line: {error}");
    // And the machine can sleep and wake again.
    let page = probe.boot_params();
    prepare(&mut probe, &page);
    sleep(&mut probe);
    check_cpu(&probe.wait_for_wake());
    line.trim_end().to_owned()
}

#[test]
fn a_failed_wake_prints_an_error_and_becomes_a_boot() {
    let damaged = failure(|probe, _| probe.fill(RECORD + 20..RECORD + 21, 0xff));
    assert!(damaged.starts_with("the firmware's record at 0x9f000 was overwritten"), "{damaged}");
    let without = failure(|probe, page| {
        let facs = facs(probe, page);
        probe.fill(facs + 12..facs + 16, 0);
    });
    assert_eq!(without, "it left no address to wake up at in the FACS");
    let high = failure(|probe, page| {
        let facs = facs(probe, page);
        probe.write(facs + 12, &0x10_0000_u32.to_le_bytes());
    });
    assert!(high.starts_with("0x100000, where it wants to wake up"), "{high}");
    let broken = failure(|probe, page| probe.fill(page.rsdp()..page.rsdp() + 1, 0));
    assert!(broken.starts_with("no valid RSDP at "), "{broken}");
    // Page zero is RAM to a guest, and not mapped in a wake.
    let in_page_zero = failure(|probe, page| {
        let at = page.rsdp();
        let mut rsdp = probe.read(at, 20);
        rsdp[16..20].copy_from_slice(&0x500_u32.to_le_bytes());
        rsdp[8] = 0;
        rsdp[8] = rsdp.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        probe.write(at, &rsdp);
    });
    assert!(in_page_zero.starts_with("no valid RSDT at 0x500"), "{in_page_zero}");
}

#[test]
fn a_wake_requires_its_record_cmos_and_the_host() {
    for (kind, transport) in Kind::ALL.into_iter().zip([Transport::Ports, Transport::Dma]) {
        // CMOS says wake, and there is no record: a boot.
        let machine = Machine { reboots: true, transport, ..Machine::new(kind) };
        let (mut probe, page) = boot(&machine);
        prepare(&mut probe, &page);
        probe.fill(RECORD..RECORD + 8, 0);
        set_status(&mut probe, STATUS_WAKE);
        probe.reset_by_port(0xcf9, 6);
        probe.wait_for_restart();
        // The other way round.
        prepare(&mut probe, &page);
        set_status(&mut probe, 0);
        probe.reset_by_port(0xcf9, 6);
        probe.wait_for_restart();
        // Both, as after a suspend, but without one: `left_behind` tests more of it.
        prepare(&mut probe, &page);
        set_status(&mut probe, STATUS_WAKE);
        probe.reset_by_port(0xcf9, 6);
        probe.wait_for_restart();
        // And the machine can still sleep.
        prepare(&mut probe, &page);
        sleep(&mut probe);
        check_cpu(&probe.wait_for_wake());
        assert_eq!(probe.qemu.com1(), "");
    }
}

/// Sets why the machine was reset, in CMOS.
pub fn set_status(probe: &mut Probe, status: u8) {
    probe.out8(0x70, SHUTDOWN_STATUS);
    probe.out8(0x71, status);
}

#[test]
fn the_host_gets_the_address_of_the_generation_id_again_after_a_wake() {
    for kind in Kind::ALL {
        let machine = Machine::new(kind).with("-device vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87");
        let (mut probe, page) = boot(&machine);
        prepare(&mut probe, &page);
        // The item now contains what the firmware wrote: QEMU keeps it there, and clears it at each reset.
        let address = tables::file(&mut probe, "etc/vmgenid_addr", 8);
        let at = u64::from_le_bytes(address[..].try_into().unwrap());
        let guid = [0xaf, 0x6e, 0x4e, 0x32, 0xd1, 0xd1, 0xf6, 0x4b, 0xbf, 0x41, 0xb9, 0xbb, 0x6c, 0x91, 0xfb, 0x87];
        assert_eq!(probe.read(at, 16), guid, "at {at:#x}");
        // The table gives a driver the same address, as that of the file and 40 (QEMU `hw/acpi/vmgenid.c`).
        let tables = tables::tables(&mut probe, &page);
        let in_table = |(_, table): &(String, Vec<u8>)| {
            // Name, "VGIA", a dword.
            let name = table.windows(6).position(|bytes| bytes == b"\x08VGIA\x0c")?;
            Some(u64::from(u32_at(table, name + 6)) + 40)
        };
        assert_eq!(tables.iter().find_map(in_table), Some(at));
        sleep(&mut probe);
        probe.wait_for_wake();
        assert_eq!(tables::file(&mut probe, "etc/vmgenid_addr", 8), address, "{kind:?}");
        assert_eq!(probe.read(at, 16), guid, "at {at:#x}");
    }
}
