//! Warm resets: whatever asks for one, the machine comes up again, and as it was before.

use crate::bzimage::BzImage;
use crate::environment;
use crate::linux::LATE_TIMERS;
use crate::machine::{Kind, Machine};
use crate::probe::Probe;
use crate::random;
use crate::tables;

/// How often each way is taken.
const ROUNDS: usize = 50;

/// A way to reset the machine.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Writing this byte to this port.
    Port(u16, u8),
    TripleFault,
}

impl Way {
    /// Resets the machine, and waits until the kernel runs once more.
    pub fn take(self, probe: &mut Probe) {
        match self {
            Self::Port(port, value) => probe.reset_by_port(port, value),
            Self::TripleFault => probe.reset_by_triple_fault(),
        }
        probe.wait_for_restart();
    }
}

/// What `reboot=` of Linux makes of them: `acpi` writes what QEMU's FADT says, 0xf to 0xcf9, `pci` 6 to the same port,
/// `kbd` 0xfe to 0x64.
pub const WAYS: [Way; 4] = [Way::Port(0xcf9, 0x0f), Way::Port(0xcf9, 6), Way::Port(0x64, 0xfe), Way::TripleFault];

/// All that a kernel is given: memory map and other parameters, the host's tables, the bytes of its files.
fn given(probe: &mut Probe) -> Vec<Vec<u8>> {
    let page = probe.boot_params();
    let initrd = page.initrd();
    let mut given = vec![
        page.0.clone(),
        probe.read(page.rsdp(), 36),
        probe.read(0xf_0000, 0x1000),
        probe.read(page.command_line(), 64),
        probe.read(initrd.start, (initrd.end - initrd.start) as usize),
    ];
    given.extend(tables::tables(probe, &page).into_iter().map(|(_, table)| table));
    given
}

fn fifty_times_each_way(kind: Kind) {
    let machine = Machine { reboots: true, ..Machine::new(kind) }.with("-device vmgenid");
    let initrd = random::bytes(7, 5001);
    let mut probe = Probe::boot(&machine, &BzImage::new(), Some(&initrd), Some("word"));
    let first = given(&mut probe);
    for round in 0..ROUNDS {
        for way in WAYS {
            way.take(&mut probe);
            assert_eq!(probe.state.word, 8, "{kind:?}, {way:?}, round {round}");
            // The tables take a while to read.
            if round % 10 == 9 {
                assert!(given(&mut probe) == first, "{kind:?}, {way:?}, round {round}: something is not as it was");
            }
        }
    }
    assert_eq!(probe.qemu.com1(), "", "a good boot is silent");
    assert_eq!(probe.qemu.debug_console(), "", "a good boot is silent");
}

#[test]
fn q35_comes_up_again_fifty_times_each_way() {
    fifty_times_each_way(Kind::Q35);
}

#[test]
fn pc_comes_up_again_fifty_times_each_way() {
    fifty_times_each_way(Kind::Pc);
}

/// Starts Linux so that it reboots as soon as it is up, by ACPI, the keyboard controller, PCI's port and a triple fault in
/// turn (`/sys/kernel/reboot/type`), and looks at what it says each time. At one address, Linux's code is translated by
/// QEMU three times as fast as at changing ones.
fn linux_reboots(kind: Kind, times: usize) {
    let machine = Machine {
        kernel: Some(environment::kernel()),
        initrd: Some(environment::initrd()),
        append: Some(format!("console=ttyS0 quiet nokaslr {LATE_TIMERS} panic=-1 firstlight.mode=reboots")),
        reboots: true,
        ..Machine::new(kind)
    };
    let mut qemu = machine.start();
    // The lines are `start 0: map HASH, tables HASH, reboots by acpi`.
    let line = |com1: &str, number: usize| {
        let prefix = format!("firstlight-guest: start {number}: ");
        com1.lines().find_map(|line| {
            line.strip_prefix(&prefix)?
                .rsplit_once(", reboots by ")
                .map(|(given, way)| (given.to_owned(), way.to_owned()))
        })
    };
    let mut first = None;
    for number in 0..=times {
        let whole = format!("firstlight-guest: start {number}: ");
        qemu.wait_for(&format!("start number {number}"), |qemu| {
            qemu.com1().split_once(&whole).is_some_and(|(_, rest)| rest.contains('\n'))
        });
        let (given, way) = line(&qemu.com1(), number).expect("a line with all of its parts");
        assert_eq!(way, ["acpi", "kbd", "pci", "triple"][number % 4]);
        assert_eq!(&given, first.get_or_insert_with(|| given.clone()), "memory map and tables at start {number}");
    }
    assert!(!qemu.com1().contains("firstlight: "), "the firmware has something to say");
    assert_eq!(qemu.debug_console(), "");
}

#[test]
fn linux_reboots_fifty_times_in_a_row_on_q35() {
    linux_reboots(Kind::Q35, 50);
}

#[test]
fn linux_reboots_in_every_way_on_pc() {
    linux_reboots(Kind::Pc, 8);
}
