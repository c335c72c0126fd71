//! The result of a scan: buses, functions and their BARs, checked and owned.
//!
//! Buses and functions are flat lists in the order of discovery: a bus comes after its parent bus, and the functions of one bus
//! are consecutive. So a walk towards the root follows [`Bus::parent`], a walk from the leaves reads the list backwards, and
//! nothing recurses.

use alloc::vec::Vec;

use arrayvec::ArrayVec;

use super::address::Address;

/// The buses and functions that were found.
#[derive(Default, Debug)]
pub struct Topology {
    pub(super) buses: Vec<Bus>,
    pub(super) functions: Vec<Function>,
}

impl Topology {
    /// The buses, each after its parent bus.
    #[must_use]
    pub fn buses(&self) -> &[Bus] {
        &self.buses
    }

    /// The functions; those of one bus are consecutive.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// Whether there is a bridge to another bus.
    #[inline(never)]
    pub(super) fn has_bridges(&self) -> bool {
        self.functions.iter().any(|function| function.bridge.is_some())
    }

    /// How many BARs all functions have.
    pub(super) fn bars(&self) -> usize {
        self.functions.iter().fold(0, |count, function| count.saturating_add(function.bars.len()))
    }

    /// The functions on `bus`, each with its index in [`Topology::functions`].
    pub fn on_bus(&self, bus: &Bus) -> impl Iterator<Item = (u16, &Function)> {
        let first = bus.first;
        let functions = self.functions.get(usize::from(first)..usize::from(bus.end)).unwrap_or_default();
        (first..bus.end).zip(functions)
    }

    /// The device number and the interrupt pin on the root bus for `pin` of `function` on `bus`: each bridge rotates the pins by
    /// the device number (PCI-to-PCI Bridge 1.2, section 9.1, table 9-1).
    #[must_use]
    pub fn interrupt_at_root(&self, bus: &Bus, function: &Function, pin: Pin) -> (u8, Pin) {
        let mut device = function.address.device();
        let mut pin = pin;
        let mut parent = bus.parent;
        // A parent comes earlier in the list, so this ends; the bound makes that visible.
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
    /// The bridge to it; `None` for a root bus.
    pub parent: Option<Parent>,
    /// Index of its first function.
    pub(super) first: u16,
    /// Index one past its last function.
    pub(super) end: u16,
}

impl Bus {
    /// Whether it has no functions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first == self.end
    }
}

/// The path from a bus towards the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Index of the bridge's bus, in [`Topology::buses`].
    pub bus: u8,
    /// Index of the bridge, in [`Topology::functions`].
    pub bridge: u16,
}

/// A function of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its address.
    pub address: Address,
    /// Vendor ID in the low half, device ID in the high half.
    pub id: u32,
    /// Class, sub-class and programming interface in bits 23:16, 15:8 and 7:0.
    pub class: u32,
    /// COMMAND as it was found. Until [`super::apply()`], I/O and memory decoding are disabled.
    pub command: u16,
    /// The interrupt pin it uses, if any.
    pub pin: Option<Pin>,
    /// The interrupt line register as it was found.
    pub line: u8,
    /// Its BARs and its expansion ROM.
    pub bars: ArrayVec<Bar, 7>,
    /// Whether every BAR asks for a valid size. If not, the function must not decode.
    pub sound: bool,
    /// Whether it is a chipset function, which is left to its driver.
    pub in_chipset: bool,
    /// The bridge's data, if it is a bridge.
    pub bridge: Option<Bridge>,
}

/// A PCI-to-PCI bridge. Its memory window always exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Index in [`Topology::buses`] of the bus behind it; `None` if that got no number.
    pub bus: Option<u8>,
    /// Its I/O window. Only probed if something behind the bridge needs ports.
    pub io: IoWindow,
    /// Its prefetchable window. Only probed if something behind the bridge can use it.
    pub prefetchable: PrefetchableWindow,
    /// Whether only device 0 can be behind it, because it is a PCI Express root or downstream port.
    pub single_device: bool,
    /// The secondary latency timer, which shares a register with the bus numbers.
    pub latency: u8,
    /// The room to reserve for functions that are plugged in later.
    pub reserve: Reserve,
}

/// The prefetchable window of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefetchableWindow {
    /// It does not exist, or nothing needs it.
    Absent,
    /// It takes 32-bit addresses.
    Bits32,
    /// It takes 64-bit addresses.
    Bits64,
}

/// The room that a bridge reserves for functions that are plugged in later: what the host asks for, in the units of the windows,
/// or zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// The slot, if functions can be plugged in. It gets room even if the host does not ask for it.
    pub slot: Option<Slot>,
    /// Bus numbers in addition to the bus behind the bridge.
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
    /// Whether any ports are reserved.
    #[must_use]
    pub fn wants_io(&self) -> bool {
        self.io != 0 || self.slot == Some(Slot::Conventional)
    }

    /// Whether any prefetchable memory is reserved.
    #[must_use]
    pub const fn wants_prefetchable(&self) -> bool {
        self.prefetchable != 0 || self.slot.is_some()
    }
}

/// A place where functions can be plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// At a PCI Express port. Functions there do not need ports.
    Express,
    /// Behind a conventional bridge with a hot-plug controller.
    Conventional,
}

/// The I/O window of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoWindow {
    /// It does not exist, or nothing needs it.
    Absent,
    /// It takes 16-bit addresses.
    Bits16,
    /// It takes 32-bit addresses, so the upper halves must be written too.
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
    /// The pin for a value of the interrupt pin register; `None` for a function that uses none, or an unknown value.
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

    /// The pin `steps` further; INTA# follows INTD#.
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

/// Two to the power of `order`. It is below 64, because no BAR is larger.
pub(super) const fn size_of_order(order: u8) -> u64 {
    1_u64.wrapping_shl(order as u32)
}

/// A base address register (BAR): what it asks for.
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
    /// The register number of the expansion ROM: a BAR with this number would be at its offset.
    pub const ROM: u8 = 8;

    /// The size in bytes, or ports.
    #[must_use]
    pub const fn size(self) -> u64 {
        size_of_order(self.order)
    }

    /// Its bit in a set of BARs.
    pub(super) fn bit(self) -> u16 {
        1_u16.wrapping_shl(self.register.into())
    }
}

/// What a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32 {
        /// Whether a bridge may prefetch from it.
        prefetchable: bool,
    },
    /// An expansion ROM, below 4 GiB. It gets an address and stays disabled.
    Rom,
    /// Memory anywhere; it takes two registers.
    Memory64 {
        /// Whether a bridge may prefetch from it. If so, it can be in the only window that reaches above 4 GiB.
        prefetchable: bool,
    },
}
