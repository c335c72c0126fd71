//! The old interrupt controllers and the local APIC's pins, as a kernel without a driver for the APIC finds them.

use crate::bzimage::BzImage;
use crate::machine::{Accelerator, Emulator, Kind, Machine};
use crate::probe::Probe;

/// The 8259s: command and data of the first, data of the second.
const MASTER_COMMAND: u16 = 0x20;
const MASTER_DATA: u16 = 0x21;
const SLAVE_DATA: u16 = 0xa1;
/// The 8254: its command, and the count of channel 0, which is interrupt 0.
const TIMER_COMMAND: u16 = 0x43;
const TIMER_COUNT: u16 = 0x40;

/// Reads of a port in which a timer of a thousand ticks a second ticks more than once, under each accelerator.
const LOOKS: u32 = 100_000;

/// The machines that have these controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Board {
    Q35,
    Pc,
    Isapc,
    Microvm,
}

impl Board {
    const ALL: [Self; 4] = [Self::Q35, Self::Pc, Self::Isapc, Self::Microvm];

    fn machine(self) -> Machine {
        match self {
            Self::Q35 => Machine::new(Kind::Q35),
            Self::Pc => Machine::new(Kind::Pc),
            Self::Isapc => Machine::new(Kind::Pc).with("-machine isapc -cpu qemu64"),
            Self::Microvm => Machine::new(Kind::Pc).with("-machine microvm"),
        }
    }
}

/// Every board under every accelerator and emulator there is.
fn machines() -> impl Iterator<Item = (Board, Machine)> {
    let tcg = Emulator::all().map(|emulator| (emulator, Accelerator::Tcg));
    let kvm = Accelerator::kvm().map(|accelerator| (Emulator::Installed, accelerator));
    let all: Vec<_> = tcg.chain(kvm).collect();
    Board::ALL.into_iter().flat_map(move |board| {
        all.clone().into_iter().map(move |(emulator, accelerator)| {
            eprintln!("{board:?}, {emulator:?}, {accelerator:?}");
            (board, Machine { emulator, accelerator, ..board.machine() })
        })
    })
}

/// Has the timer tick a thousand times a second.
fn start_timer(probe: &mut Probe) {
    // Channel 0, low byte then high byte, mode 2.
    probe.out8(TIMER_COMMAND, 0x34);
    for byte in 1193_u16.to_le_bytes() {
        probe.out8(TIMER_COUNT, byte);
    }
}

#[test]
fn no_interrupt_comes_before_a_kernel_unmasks_one() {
    for (_, machine) in machines() {
        let mut probe = Probe::boot(&machine, &BzImage::new(), None, None);
        start_timer(&mut probe);
        assert_eq!(probe.take_interrupt(LOOKS), None);
    }
}

#[test]
fn the_controllers_have_the_vectors_and_masks_of_a_pc() {
    for (board, machine) in machines() {
        let mut probe = Probe::boot(&machine, &BzImage::new(), None, None);
        // On a microvm, where each write to them is an exit, they are only masked.
        let masks = if board == Board::Microvm { [0xff, 0] } else { [0xfb, 0xff] };
        assert_eq!([MASTER_DATA, SLAVE_DATA].map(|port| probe.in8(port)), masks);
        if board != Board::Microvm {
            start_timer(&mut probe);
            probe.out8(MASTER_DATA, 0xfe);
            assert_eq!(probe.take_interrupt(LOOKS), Some(0x08));
        }
    }
}

#[test]
fn the_timer_s_interrupt_reaches_a_kernel_without_a_driver_for_the_apic() {
    for (_, machine) in machines() {
        // From either entry, as each has its own interrupt table in the probe.
        for kernel in [BzImage::new(), BzImage::new().entered_in_32_bit_mode()] {
            let mut probe = Probe::boot(&machine, &kernel, None, None);
            start_timer(&mut probe);
            // As such a kernel programs the first controller: vectors from 0x10 on.
            for (port, value) in
                [(MASTER_COMMAND, 0x11), (MASTER_DATA, 0x10), (MASTER_DATA, 4), (MASTER_DATA, 1), (MASTER_DATA, 0xfe)]
            {
                probe.out8(port, value);
            }
            for _ in 0..3 {
                assert_eq!(probe.take_interrupt(LOOKS), Some(0x10));
            }
        }
    }
}

/// Small kernels take scan codes of set 1 for granted.
#[test]
fn the_keyboard_controller_of_an_isapc_translates() {
    for emulator in Emulator::all() {
        let machine = Machine { emulator, ..Board::Isapc.machine() };
        let mut probe = Probe::boot(&machine, &BzImage::new(), None, None);
        // Reads the command byte.
        probe.out8(0x64, 0x20);
        assert_eq!(probe.in8(0x60), 0x43);
    }
}
