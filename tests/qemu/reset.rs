//! Warm resets: whatever causes one, the machine comes up again in the same state.

use crate::bzimage::BzImage;
use crate::environment;
use crate::linux::{self, LATE_TIMERS};
use crate::machine::{Accelerator, Kind, Machine};
use crate::probe::Probe;
use crate::random;
use crate::sleep;
use crate::tables;

/// How often each kind of reset is done.
const ROUNDS: usize = 50;

/// A way to reset the machine.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// Writing this byte to this port.
    Port(u16, u8),
    TripleFault,
    /// A jump to f000:fff0 in real mode.
    Jump,
}

impl Way {
    /// Resets the machine, and waits until the kernel runs once more.
    pub fn take(self, probe: &mut Probe) {
        match self {
            Self::Port(port, value) => probe.reset_by_port(port, value),
            Self::TripleFault => probe.reset_by_triple_fault(),
            Self::Jump => probe.reset_by_jump(),
        }
        probe.wait_for_restart();
    }
}

/// What `reboot=` of Linux makes of them: `acpi` writes what QEMU's FADT says, 0xf to 0xcf9, `pci` 6 to the same port,
/// `kbd` 0xfe to 0x64, `bios` jumps.
pub const WAYS: [Way; 5] =
    [Way::Port(0xcf9, 0x0f), Way::Port(0xcf9, 6), Way::Port(0x64, 0xfe), Way::TripleFault, Way::Jump];

/// Everything that a kernel gets: memory map and other parameters, the host's tables, the bytes of its files.
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
    assert_eq!(probe.qemu.com1(), "", "a successful boot is silent");
    assert_eq!(probe.qemu.debug_console(), "", "a successful boot is silent");
}

#[test]
fn q35_comes_up_again_fifty_times_each_way() {
    fifty_times_each_way(Kind::Q35);
}

#[test]
fn pc_comes_up_again_fifty_times_each_way() {
    fifty_times_each_way(Kind::Pc);
}

/// Otherwise the other tests would show nothing: a fault on the way there resets the machine as well.
#[test]
fn the_probes_jump_in_real_mode_reaches_its_target() {
    // mov al, 0x55; out 0xe9, al; hlt
    const CODE: [u8; 5] = [0xb0, 0x55, 0xe6, 0xe9, 0xf4];
    for kernel in [BzImage::new(), BzImage::new().entered_in_32_bit_mode()] {
        for (segment, offset) in [(0xf000, 0xfff0), (0xffff, 0), (0x7000, 0x10)] {
            let mut probe = Probe::boot(&Machine::new(Kind::Q35), &kernel, None, None);
            probe.write(u64::from(segment) * 16 + u64::from(offset), &CODE);
            probe.jump_in_real_mode(segment, offset);
            assert_eq!(probe.next_byte(), 0x55, "{segment:x}:{offset:x}");
        }
    }
}

/// The end of the image is there, or code that the firmware has put into RAM.
#[test]
fn a_jump_to_f000_fff0_restarts_every_machine() {
    let microvm = Machine::new(Kind::Pc).with("-machine microvm");
    let isapc = Machine::new(Kind::Pc).with("-machine isapc -cpu qemu64");
    // Without tables for it the F-segment is no RAM.
    let without_smbios = Machine { version: Some("2.0"), properties: ",acpi=off", ..Machine::new(Kind::Pc) };
    let without_acpi = Machine { properties: ",acpi=off", ..Machine::new(Kind::Q35) };
    let machines = Kind::ALL.map(Machine::new).into_iter().chain([microvm, isapc, without_smbios, without_acpi]);
    let accelerators: Vec<_> = [Accelerator::Tcg].into_iter().chain(Accelerator::kvm()).collect();
    for machine in machines {
        for &accelerator in &accelerators {
            eprintln!("{:?}, {:?}, {accelerator:?}", machine.kind, machine.arguments);
            // From either entry, with paging and without.
            for kernel in [BzImage::new(), BzImage::new().entered_in_32_bit_mode()] {
                let machine = Machine { accelerator, reboots: true, ..machine.clone() };
                let mut probe = Probe::boot(&machine, &kernel, None, None);
                let last = probe.read(0xf_fff0, 16);
                assert!(matches!(last[0], 0xe9 | 0xea), "a jump: {last:x?}");
                assert_eq!((last[7], last[10], last[14]), (b'/', b'/', 0xfc), "a date and a model: {last:x?}");
                for _ in 0..2 {
                    probe.reset_by_jump();
                    probe.wait_for_restart();
                }
                assert_eq!((probe.qemu.com1(), probe.qemu.debug_console()), Default::default());
            }
        }
    }
}

/// The same place by another segment, as Linux up to 2.6.38 and DOS have it. A jump relative to that would end above 1 MiB, where
/// this has one to itself. QEMU's TCG does not wrap the offset, so this shows under KVM alone. The end of the image cannot serve
/// it: the CPU begins there too, and has to keep its CS.
#[test]
fn a_jump_to_ffff_0_restarts_a_machine_whose_f_segment_is_ram() {
    for accelerator in [Accelerator::Tcg].into_iter().chain(Accelerator::kvm()) {
        for kind in Kind::ALL {
            eprintln!("{kind:?}, {accelerator:?}");
            let machine = Machine { accelerator, reboots: true, ..Machine::new(kind) };
            let mut probe = Probe::boot(&machine, &BzImage::new(), None, None);
            probe.write(0x10_ffc0, &[0xeb, 0xfe]);
            probe.jump_in_real_mode(0xffff, 0);
            probe.wait_for_restart();
            assert_eq!((probe.qemu.com1(), probe.qemu.debug_console()), Default::default());
        }
    }
}

/// What is tried after the chipset: the keyboard controller, which an isapc has, and a triple fault. On both machines the place
/// can be written, so they get the code that the firmware has for others.
#[test]
fn the_code_at_f000_fff0_resets_machines_without_a_chipset() {
    let code = Probe::boot(&Machine::new(Kind::Q35), &BzImage::new(), None, None).read(0xf_ffc0, 64);
    for arguments in ["-machine isapc -cpu qemu64", "-machine microvm"] {
        let machine = Machine { reboots: true, ..Machine::new(Kind::Pc) }.with(arguments);
        let mut probe = Probe::boot(&machine, &BzImage::new(), None, None);
        let image = probe.read(0xf_ffc0, 64);
        assert_ne!(image, code);
        probe.write(0xf_ffc0, &code);
        assert_eq!(probe.read(0xf_ffc0, 64), code);
        probe.reset_by_jump();
        probe.wait_for_restart();
        assert_eq!(probe.read(0xf_ffc0, 64), image, "QEMU has loaded the image again");
    }
}

#[test]
fn a_jump_to_f000_fff0_restarts_a_machine_that_has_woken() {
    for kind in Kind::ALL {
        let (mut probe, page) = sleep::boot(&Machine { reboots: true, ..Machine::new(kind) });
        sleep::prepare(&mut probe, &page);
        let before = probe.read(0xf_ffc0, 64);
        sleep::sleep(&mut probe);
        probe.wait_for_wake();
        assert_eq!((probe.read(0xf_ffc0, 64), before[0x30]), (before, 0xea));
        probe.reset_by_jump();
        probe.wait_for_restart();
        assert_eq!((probe.state.word, probe.qemu.com1()), (8, String::new()));
    }
}

#[test]
fn linux_reboots_by_a_jump_to_f000_fff0() {
    for kind in Kind::ALL {
        let machine = Machine { reboots: true, ..Machine::new(kind) };
        let mut qemu = linux::guest(&machine, "reboot=bios firstlight.mode=reboot ").start();
        qemu.wait_for("a second report", |qemu| qemu.com1().matches(linux::END).count() >= 2);
        assert!(!qemu.com1().contains("firstlight: "), "the firmware printed something");
    }
}

/// Starts Linux so that it reboots as soon as it is up, by ACPI, the keyboard controller, PCI's port and a triple fault in
/// turn (`/sys/kernel/reboot/type`), and looks at what it says each time. At one address, Linux's code is translated by
/// QEMU three times as fast as at changing ones.
fn linux_reboots(kind: Kind, times: usize) {
    let machine = Machine {
        kernel: Some(environment::kernel()),
        initrd: Some(environment::initrd()),
        append: Some(format!(
            "console=ttyS0 quiet nokaslr {LATE_TIMERS} panic=-1 firstlight.mode=reboots memmap=4K$0x5000000"
        )),
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
    assert!(!qemu.com1().contains("firstlight: "), "the firmware printed something");
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
