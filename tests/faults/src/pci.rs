//! Configuration space that misbehaves: a board of a known chipset, and one behaviour for everything else on it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use vmm::devices::{At, Extra};

use crate::disks::FUNCTIONS;

/// Where the firmware puts q35's configuration space in memory, and the local APIC.
pub const ECAM: std::ops::Range<u64> = 0xb000_0000..0xc000_0000;
const LOCAL_APIC: std::ops::Range<u64> = 0xfee0_0000..0xfee0_1000;

/// What a function that is no part of the board reads as: by the number of its bus, device and function (8, 5 and 3 bits),
/// and the offset of the dword. `None` where nothing is.
pub type Behaviour = fn(&mut Functions, u16, u8) -> Option<u32>;

/// Configuration space.
pub struct Functions {
    /// What was written, by function and offset.
    written: BTreeMap<(u16, u8), u32>,
    /// Accesses so far.
    pub accesses: u32,
    noise: u32,
}

impl Functions {
    /// What was written last.
    pub fn written(&self, function: u16, offset: u8) -> u32 {
        self.written.get(&(function, offset)).copied().unwrap_or(0)
    }

    /// Another number each time.
    pub fn noise(&mut self) -> u32 {
        // Numerical Recipes' generator, whose lower half repeats soon.
        self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.noise.rotate_left(16)
    }
}

/// The board.
pub struct Board {
    own: &'static [(u16, u32)],
    has_ecam: bool,
    functions: Functions,
    behaviour: Behaviour,
    latched: u32,
}

impl Board {
    /// No chipset: configuration ports without a device.
    pub fn none() -> Box<dyn Extra> {
        Self::boxed(&[], false, |_, _, _| None)
    }

    /// QEMU's pc.
    pub fn pc(behaviour: Behaviour) -> Box<dyn Extra> {
        Self::boxed(&[(0, 0x1237_8086), (8, 0x7000_8086), (9, 0x7010_8086), (11, 0x7113_8086)], false, behaviour)
    }

    /// QEMU's q35.
    pub fn q35(behaviour: Behaviour) -> Box<dyn Extra> {
        Self::boxed(&[(0, 0x29c0_8086), (0xf8, 0x2918_8086), (0xfa, 0x2922_8086), (0xfb, 0x2930_8086)], true, behaviour)
    }

    fn boxed(own: &'static [(u16, u32)], has_ecam: bool, behaviour: Behaviour) -> Box<dyn Extra> {
        let functions = Functions { written: BTreeMap::new(), accesses: 0, noise: 1 };
        Box::new(Self { own, has_ecam, functions, behaviour, latched: 0 })
    }

    fn dword(&mut self, function: u16, offset: u8) -> u32 {
        self.functions.accesses += 1;
        match self.own.iter().find(|(own, _)| *own == function) {
            Some((_, id)) if offset == 0 => *id,
            Some(_) if is_bar(offset) => 0,
            Some(_) => self.functions.written(function, offset),
            None => (self.behaviour)(&mut self.functions, function, offset).unwrap_or(u32::MAX),
        }
    }

    /// The function and byte offset that an access is to, or none.
    fn place(&self, at: At) -> Option<(u16, u8)> {
        match at {
            At::Port(port @ 0xcfc..0xd00) if self.latched >> 31 != 0 => {
                Some(((self.latched >> 8) as u16, self.latched as u8 & !3 | port as u8 & 3))
            }
            // There is nothing after the first 256 bytes.
            At::Memory(at) if ECAM.contains(&at) && at & 0xf00 == 0 => Some(((at >> 12) as u16, at as u8)),
            _ => None,
        }
    }
}

impl Extra for Board {
    fn claims(&self, at: At) -> bool {
        match at {
            At::Port(port) => (0xcf8..0xd00).contains(&port),
            At::Memory(at) => self.has_ecam && ECAM.contains(&at) || !self.own.is_empty() && LOCAL_APIC.contains(&at),
        }
    }

    fn read(&mut self, at: At, size: u8) -> u64 {
        if at == At::Port(0xcf8) {
            return self.latched.into();
        }
        let Some((function, offset)) = self.place(at) else {
            return if matches!(at, At::Memory(at) if LOCAL_APIC.contains(&at)) { 0 } else { u64::MAX };
        };
        let mut value = u64::from(self.dword(function, offset & !3)) >> (u32::from(offset & 3) * 8);
        if size == 8 {
            value |= u64::from(self.dword(function, offset | 4)) << 32;
        }
        value
    }

    fn write(&mut self, at: At, size: u8, value: u64) {
        if at == At::Port(0xcf8) && size == 4 {
            self.latched = value as u32;
        }
        let Some((function, offset)) = self.place(at) else { return };
        self.functions.accesses += 1;
        for (byte, number) in value.to_le_bytes().into_iter().take(size.into()).zip(u32::from(offset)..) {
            let dword = self.functions.written.entry((function, number as u8 & !3)).or_default();
            let shift = number % 4 * 8;
            *dword = *dword & !(0xff << shift) | u32::from(byte) << shift;
        }
    }
}

/// What an ordinary function has beside base address registers: numbers, and a class (a network card's).
fn ordinary(functions: &Functions, function: u16, offset: u8) -> u32 {
    match offset {
        0 => 0x1000_1af4,
        4 => functions.written(function, 4) & 0xffff,
        8 => 0x0200_0000,
        0x3c => 0x100 | functions.written(function, offset) & 0xff,
        _ => 0,
    }
}

/// Whether it is function 0 of one of four devices on bus 0.
const fn is_of_four(function: u16) -> bool {
    matches!(function, 0x10 | 0x18 | 0x20 | 0x28)
}

const fn is_bar(offset: u8) -> bool {
    matches!(offset, 0x10..0x28 | 0x30)
}

/// Four devices whose base address registers read as something else each time: as any bits, or as another size.
pub fn bars_never_settle(functions: &mut Functions, function: u16, offset: u8) -> Option<u32> {
    match offset {
        _ if !is_of_four(function) => None,
        _ if is_bar(offset) => Some(match functions.noise() {
            noise if noise % 3 == 0 => noise,
            noise => u32::MAX << (4 + noise % 24) | [0, 1, 4, 8, 12][noise as usize / 32 % 5],
        }),
        _ => Some(ordinary(functions, function, offset)),
    }
}

/// Four devices that want more than there is: registers of 2 GiB, of 2^63 bytes, and every port.
pub fn bars_ask_for_everything(functions: &mut Functions, function: u16, offset: u8) -> Option<u32> {
    let written = functions.written(function, offset);
    match offset {
        _ if !is_of_four(function) => None,
        0x10 | 0x30 => Some(written & 0x8000_0000),
        0x14 => Some(4),
        0x18 => Some(written & 0x8000_0000),
        0x1c => Some(written & 0x8000_0000 | 8),
        0x20 => Some(written & 0xffff_8000 | 1),
        _ => Some(ordinary(functions, function, offset)),
    }
}

/// Every function of every bus is there, with a register of 4 KiB.
pub fn every_function_answers(functions: &mut Functions, function: u16, offset: u8) -> Option<u32> {
    Some(match offset {
        0x0c => 0x80 << 16,
        0x10 => functions.written(function, offset) & 0xffff_f000,
        _ => ordinary(functions, function, offset),
    })
}

/// Every function of every bus is a bridge, whose two registers have a hole in their address bits.
pub fn every_function_is_a_bridge(functions: &mut Functions, function: u16, offset: u8) -> Option<u32> {
    Some(match offset {
        0 => 0x0001_1b36,
        4 => functions.written(function, 4) & 0xffff,
        8 => 0x0604_0000,
        0x0c => 0x81 << 16,
        0x10 | 0x14 => functions.written(function, offset) & 0x0fff_fff0,
        _ => functions.written(function, offset),
    })
}

/// A bridge whose list of capabilities leads back to its beginning.
pub fn capabilities_in_a_circle(functions: &mut Functions, function: u16, offset: u8) -> Option<u32> {
    match offset {
        _ if function != 0x10 => None,
        0x0c => Some(1 << 16),
        4 => Some(0x10 << 16 | functions.written(function, 4) & 0xffff),
        0x34 => Some(0x40),
        0x40 => Some(0x4000 | 0x05),
        _ => every_function_is_a_bridge(functions, function, offset),
    }
}

/// Every read returns something else.
pub fn nothing_but_noise(functions: &mut Functions, _: u16, _: u8) -> Option<u32> {
    Some(functions.noise())
}

/// Four devices that are gone after a few accesses.
pub fn devices_go_away(functions: &mut Functions, function: u16, offset: u8) -> Option<u32> {
    if functions.accesses > 150 { None } else { four_devices(functions, function, offset) }
}

/// Four devices and a bridge with nothing behind it, without faults.
pub fn four_devices_and_a_bridge(functions: &mut Functions, function: u16, offset: u8) -> Option<u32> {
    const BRIDGE: u16 = 0x48;
    match offset {
        _ if function != BRIDGE => four_devices(functions, function, offset),
        0x10 | 0x14 => Some(0),
        _ => every_function_is_a_bridge(functions, function, offset),
    }
}

/// Four devices without faults.
pub fn four_devices(functions: &mut Functions, function: u16, offset: u8) -> Option<u32> {
    match offset {
        _ if !is_of_four(function) => None,
        0x10 => Some(functions.written(function, offset) & 0xffff_f000),
        _ => Some(ordinary(functions, function, offset)),
    }
}

/// The base address register of a virtio function.
pub const VIRTIO_BAR: u8 = 0x20;

/// The dword of one of the two controllers of disks: its numbers, its class, its one base address register with that many bytes, and
/// capabilities.
fn controller(
    functions: &Functions,
    function: u16,
    offset: u8,
    (id, class): (u32, u32),
    (register, len): (u8, u32),
    capabilities: &[(u8, u32)],
) -> u32 {
    match offset {
        0 => id,
        4 => functions.written(function, 4) & 0xffff | if capabilities.is_empty() { 0 } else { 0x10 << 16 },
        8 => class << 8,
        0x34 => capabilities.first().map_or(0, |&(at, _)| at.into()),
        _ if offset == register => functions.written(function, offset) & len.wrapping_neg(),
        _ => capabilities.iter().find(|&&(at, _)| at == offset).map_or(0, |&(_, dword)| dword),
    }
}

/// QEMU's capabilities of a virtio function, whose registers are those of the fake (VIRTIO 1.2, 4.1.4).
const CAPABILITIES: &[(u8, u32)] = &[
    (0x40, 0x0110_5009),
    (0x44, 4),
    (0x48, 0),
    (0x4c, 0x1000),
    (0x50, 0x0310_6009),
    (0x54, 4),
    (0x58, 0x1000),
    (0x5c, 0x1000),
    (0x60, 0x0410_7009),
    (0x64, 4),
    (0x68, 0x2000),
    (0x6c, 0x1000),
    (0x70, 0x0214_0009),
    (0x74, 4),
    (0x78, 0x3000),
    (0x7c, 0x1000),
    (0x80, 4),
];

fn virtio(functions: &Functions, function: u16, offset: u8, id: u32) -> u32 {
    controller(functions, function, offset, (id, 0x01_0000), (VIRTIO_BAR, 0x4000), CAPABILITIES)
}

/// The second controller, and the first by `first`.
fn controllers(
    functions: &mut Functions,
    function: u16,
    offset: u8,
    first: fn(&Functions, u16, u8) -> u32,
) -> Option<u32> {
    match FUNCTIONS.iter().position(|&of_controller| of_controller == function)? {
        0 => Some(first(functions, function, offset)),
        _ => Some(virtio(functions, function, offset, 0x1042_1af4)),
    }
}

/// Two virtio disks: the first is a transitional one.
pub fn virtio_disks(functions: &mut Functions, function: u16, offset: u8) -> Option<u32> {
    controllers(functions, function, offset, |functions, function, offset| {
        virtio(functions, function, offset, 0x1001_1af4)
    })
}

/// A virtio SCSI host and a virtio disk.
pub fn virtio_scsi(functions: &mut Functions, function: u16, offset: u8) -> Option<u32> {
    controllers(functions, function, offset, |functions, function, offset| {
        virtio(functions, function, offset, 0x1048_1af4)
    })
}

/// An NVMe controller and a virtio disk.
pub fn nvme(functions: &mut Functions, function: u16, offset: u8) -> Option<u32> {
    controllers(functions, function, offset, |functions, function, offset| {
        controller(functions, function, offset, (0x0010_1b36, 0x01_0802), (0x10, 0x4000), &[])
    })
}

/// An AHCI controller and a virtio disk.
pub fn ahci(functions: &mut Functions, function: u16, offset: u8) -> Option<u32> {
    controllers(functions, function, offset, |functions, function, offset| {
        controller(functions, function, offset, (0x2922_8086, 0x01_0601), (0x24, 0x2000), &[])
    })
}
