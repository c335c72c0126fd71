//! What a scan found: buses, functions and their base address registers, checked and owned.
//!
//! Everything is a flat list in the order of discovery: a bus comes after the bus its bridge sits on, and the functions
//! of one bus stand together. So a walk towards the root follows [`Bus::parent`], one from the leaves is the list
//! backwards, and nothing recurses.

use alloc::vec::Vec;

use arrayvec::ArrayVec;

use super::address::Address;

/// What was found behind the root buses.
#[derive(Default, Debug)]
pub struct Topology {
    pub(super) buses: Vec<Bus>,
    pub(super) functions: Vec<Function>,
}

impl Topology {
    /// The buses, each after the one its bridge sits on.
    #[must_use]
    pub fn buses(&self) -> &[Bus] {
        &self.buses
    }

    /// The functions, those of one bus together.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// Whether there is a bridge to another bus.
    #[inline(never)]
    pub(super) fn has_bridges(&self) -> bool {
        self.functions.iter().any(|function| function.bridge.is_some())
    }

    /// How many base address registers all functions have.
    pub(super) fn bars(&self) -> usize {
        self.functions.iter().fold(0, |count, function| count.saturating_add(function.bars.len()))
    }

    /// The functions on `bus`, each with its index in [`Topology::functions`].
    pub fn on_bus(&self, bus: &Bus) -> impl Iterator<Item = (u16, &Function)> {
        let first = bus.first;
        let functions = self.functions.get(usize::from(first)..usize::from(bus.end)).unwrap_or_default();
        (first..bus.end).zip(functions)
    }

    /// The device number on the root bus and the interrupt pin there that `pin` of `function`, which sits on `bus`,
    /// arrives at: each bridge turns the pins by the device number (PCI-to-PCI Bridge 1.2, section 9.1, table 9-1).
    #[must_use]
    pub fn interrupt_at_root(&self, bus: &Bus, function: &Function, pin: Pin) -> (u8, Pin) {
        let mut device = function.address.device();
        let mut pin = pin;
        let mut parent = bus.parent;
        // A parent comes earlier in the list, so this ends; the bound says so to a reader.
        for _ in 0..self.buses.len() {
            let Some(above) = parent else { break };
            let Some(bridge) = self.functions.get(usize::from(above.bridge)) else { break };
            pin = pin.turned(device);
            device = bridge.address.device();
            parent = self.buses.get(usize::from(above.bus)).and_then(|bus| bus.parent);
        }
        (device, pin)
    }
}

/// A bus that has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bus {
    /// The bus number.
    pub number: u8,
    /// What leads to it; `None` for a root bus.
    pub parent: Option<Parent>,
    /// Index of its first function.
    pub(super) first: u16,
    /// Index one past its last function.
    pub(super) end: u16,
}

impl Bus {
    /// Whether no function was found on it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first == self.end
    }
}

/// The way up from a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Index of the bus that the bridge sits on, in [`Topology::buses`].
    pub bus: u8,
    /// Index of the bridge, in [`Topology::functions`].
    pub bridge: u16,
}

/// A function of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// Vendor ID in the low half, device ID in the high half.
    pub id: u32,
    /// Class, sub-class and programming interface in bits 23:16, 15:8 and 7:0.
    pub class: u32,
    /// COMMAND as it was found. While this module works, I/O and memory decoding are off.
    pub command: u16,
    /// The interrupt pin it uses, if any.
    pub pin: Option<Pin>,
    /// The interrupt line register as it was found.
    pub line: u8,
    /// What its base address registers ask for, and its expansion ROM.
    pub bars: ArrayVec<Bar, 7>,
    /// Whether each base address register asks for something that can be. If not, the function must not decode.
    pub sound: bool,
    /// Whether it is one of the chipset's own, which is left to its driver.
    pub in_chipset: bool,
    /// What else there is to know if it is a bridge.
    pub bridge: Option<Bridge>,
}

/// A PCI-to-PCI bridge. Its memory window always exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Index in [`Topology::buses`] of the bus behind it; `None` when that got no number.
    pub bus: Option<u8>,
    /// Its I/O window. Only looked at when something behind the bridge asks for ports.
    pub io: IoWindow,
    /// Its prefetchable window. Only looked at when something behind the bridge can use it.
    pub prefetchable: PrefetchableWindow,
    /// Whether there can only be a device 0 behind it, as it is a PCI Express root or downstream port.
    pub single_device: bool,
    /// The secondary latency timer, which shares a register with the bus numbers.
    pub latency: u8,
    /// What is to be kept for functions that are plugged in later.
    pub reserve: Reserve,
}

/// The prefetchable window of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefetchableWindow {
    /// There is none, or nothing needs it.
    Absent,
    /// It takes 32-bit addresses.
    Bits32,
    /// It takes 64-bit addresses.
    Bits64,
}

/// Room that a bridge keeps for functions that are plugged in later: what the host asks for, in the units of the windows,
/// and zero where it asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Where functions can be plugged in, if they can. Such a slot gets room without being asked for.
    pub slot: Option<Slot>,
    /// Bus numbers beyond the one behind the bridge.
    pub buses: u8,
    /// Ports, in blocks of 4 KiB.
    pub io: u8,
    /// Memory, in MiB.
    pub memory: u32,
    /// Prefetchable memory, in MiB.
    pub prefetchable: u32,
    /// Whether the prefetchable memory has to be below 4 GiB.
    pub below_4_gib: bool,
}

impl Reserve {
    /// Whether any ports are kept.
    #[must_use]
    pub fn wants_io(&self) -> bool {
        self.io != 0 || self.slot == Some(Slot::Conventional)
    }

    /// Whether any prefetchable memory is kept.
    #[must_use]
    pub const fn wants_prefetchable(&self) -> bool {
        self.prefetchable != 0 || self.slot.is_some()
    }
}

/// A place where functions can be plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// At a PCI Express port. Functions there can do without ports.
    Express,
    /// Behind a conventional bridge with a hot-plug controller.
    Conventional,
}

/// The I/O window of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoWindow {
    /// There is none, or nothing needs it.
    Absent,
    /// It takes 16-bit addresses.
    Bits16,
    /// It takes 32-bit addresses, so the upper halves have to be zero.
    Bits32,
}

/// An interrupt pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// INTA#.
    A,
    /// INTB#.
    B,
    /// INTC#.
    C,
    /// INTD#.
    D,
}

impl Pin {
    /// The pin that the interrupt pin register means; `None` for a function that uses none, or an unknown value.
    #[must_use]
    pub const fn from_register(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::A),
            2 => Some(Self::B),
            3 => Some(Self::C),
            4 => Some(Self::D),
            _ => None,
        }
    }

    /// 0 for INTA# to 3 for INTD#.
    #[must_use]
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The pin `steps` further on, INTA# again after INTD#.
    #[must_use]
    pub const fn turned(self, steps: u8) -> Self {
        match (self as u8).wrapping_add(steps) % 4 {
            0 => Self::A,
            1 => Self::B,
            2 => Self::C,
            _ => Self::D,
        }
    }
}

/// Two to the power of `order`, which is below 64: no base address register asks for more.
pub(super) const fn size_of_order(order: u8) -> u64 {
    1_u64.wrapping_shl(order as u32)
}

/// What a base address register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which register, 0-5, the lower one of a 64-bit pair; [`Bar::ROM`] for the expansion ROM.
    pub register: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Its size, and with it its alignment, is two to this power.
    pub order: u8,
}

impl Bar {
    /// The register number of the expansion ROM: it lies where the register with this number would.
    pub const ROM: u8 = 8;

    /// The size in bytes, or ports.
    #[must_use]
    pub const fn size(self) -> u64 {
        size_of_order(self.order)
    }

    /// Its register's bit in a set of registers.
    pub(super) fn bit(self) -> u16 {
        1_u16.wrapping_shl(self.register.into())
    }
}

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Whether a bridge may prefetch from it.
        prefetchable: bool,
    },
    /// An expansion ROM, below 4 GiB. It gets an address and stays off.
    Rom,
    /// Memory anywhere; it takes two registers.
    Memory64 {
        /// Whether a bridge may prefetch from it, which lets it sit in the only window that reaches above 4 GiB.
        prefetchable: bool,
    },
}
