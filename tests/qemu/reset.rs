//! Warm resets: whatever asks for one, the machine comes up again, and as it was before.

use crate::bzimage::BzImage;
use crate::machine::{Kind, Machine};
use crate::probe::Probe;
use crate::random;
use crate::tables;

/// How often each way is taken.
const ROUNDS: usize = 50;

/// A way to reset the machine.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Writing this byte to this port.
    Port(u16, u8),
    TripleFault,
}

/// What `reboot=` of Linux makes of them: `acpi` writes what QEMU's FADT says, 0xf to 0xcf9, `pci` 6 to the same port,
/// `kbd` 0xfe to 0x64.
const WAYS: [Way; 4] = [Way::Port(0xcf9, 0x0f), Way::Port(0xcf9, 6), Way::Port(0x64, 0xfe), Way::TripleFault];

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
            match way {
                Way::Port(port, value) => probe.reset_by_port(port, value),
                Way::TripleFault => probe.reset_by_triple_fault(),
            }
            probe.wait_for_restart();
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
