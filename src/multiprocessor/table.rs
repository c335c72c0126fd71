//! The structures of the MP table, byte for byte.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::addr::PhysAddr;
use crate::checksum;
use crate::heap::{self, HeapFull};
use crate::layout;
use crate::pci::Pin;
use crate::platform::Board;

/// The specification's revision, 1.4.
const REVISION: u8 = 4;
/// The address of the local APIC.
pub const LOCAL_APIC: u32 = layout::LOCAL_APIC.start().get() as u32;
const IO_APIC: u32 = 0xfec0_0000;
/// The identifier that QEMU uses (`hw/i386/acpi-common.c`).
const IO_APIC_ID: u8 = 0;
/// The value of QEMU's version register.
const IO_APIC_VERSION: u8 = 0x20;

/// The MP floating pointer structure (section 4.1), 16 bytes.
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FloatingPointer {
    signature: [u8; 4],
    table: U32,
    /// In units of 16 bytes.
    length: u8,
    revision: u8,
    checksum: u8,
    /// All zero: there is a table, and the interrupt controllers are in virtual wire mode.
    features: [u8; 5],
}

impl FloatingPointer {
    const SIGNATURE: [u8; 4] = *b"_MP_";

    /// The pointer to a table below 4 GiB.
    pub fn to(table: PhysAddr) -> Option<Self> {
        let mut pointer = Self {
            signature: Self::SIGNATURE,
            table: table.get32()?.into(),
            length: 1,
            revision: REVISION,
            checksum: 0,
            features: [0; 5],
        };
        pointer.checksum = checksum::sum(pointer.as_bytes()).wrapping_neg();
        Some(pointer)
    }
}

/// The header of the configuration table (section 4.2), 44 bytes.
#[derive(Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 4],
    /// The length of the whole table.
    length: U16,
    revision: u8,
    checksum: u8,
    oem: [u8; 8],
    product: [u8; 12],
    /// There is no OEM table.
    oem_table: [u8; 6],
    entries: U16,
    local_apic: U32,
    /// There are no entries beyond those of version 1.1.
    extended: [u8; 4],
}

/// The CPUs of a machine. At most this many have an 8-bit identifier.
pub type Processors = ArrayVec<Processor, 255>;

/// A processor entry (section 4.3.1), 20 bytes.
#[derive(Clone, Debug, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Processor {
    kind: u8,
    id: u8,
    version: u8,
    /// Bit 0: usable. Bit 1: the boot CPU.
    flags: u8,
    /// As CPUID returns it.
    signature: U32,
    features: U32,
    reserved: U64,
}

impl Processor {
    /// A CPU with this APIC identifier. `version` is that of its local APIC; `signature` and `features` are as CPUID
    /// returns them.
    pub fn new(id: u8, is_boot: bool, version: u8, signature: u32, features: u32) -> Self {
        Self {
            kind: 0,
            id,
            version,
            flags: 1 | u8::from(is_boot) << 1,
            signature: signature.into(),
            features: features.into(),
            reserved: 0.into(),
        }
    }
}

/// A bus entry (section 4.3.2), 8 bytes.
#[derive(Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Bus {
    kind: u8,
    id: u8,
    /// Padded with spaces.
    name: [u8; 6],
}

/// The I/O APIC entry (section 4.3.3), 8 bytes.
#[derive(Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct IoApic {
    kind: u8,
    id: u8,
    version: u8,
    /// Bit 0: usable.
    flags: u8,
    address: U32,
}

/// The route of an interrupt to an APIC's input (sections 4.3.4 and 4.3.5), 8 bytes.
#[derive(Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Interrupt {
    kind: u8,
    source: u8,
    flags: U16,
    bus: u8,
    /// ISA: the interrupt. PCI: the pin in bits 0 and 1, the device above.
    line: u8,
    apic: u8,
    input: u8,
}

/// [`Interrupt::kind`]: to an input of the I/O APIC, or of local APICs.
const TO_IO_APIC: u8 = 3;
const TO_LOCAL_APICS: u8 = 4;
/// [`Interrupt::source`].
const VECTORED: u8 = 0;
const NMI: u8 = 1;
const OLD_CONTROLLER: u8 = 3;
/// [`Interrupt::flags`]: as on the bus; and level-triggered and active high, as in QEMU's tables for PCI.
const AS_BUS: u16 = 0;
const LEVEL_HIGH: u16 = 3 << 2 | 1;
/// [`Interrupt::apic`]: every local APIC.
const ALL: u8 = 0xff;

const PCI_BUS: u8 = 0;

/// The input of the timer's interrupt, which is number 0. Interrupt 2 is the cascade of the 8259s and has no input.
const TIMER_INPUT: u8 = 2;

const PINS: [Pin; 4] = [Pin::A, Pin::B, Pin::C, Pin::D];
/// Devices on a PCI bus. Device 0 of bus 0 is the host bridge, without a pin.
const DEVICES: u8 = 32;

/// The table, with its checksum.
///
/// # Errors
/// [`HeapFull`].
#[inline(never)]
pub fn build(processors: &[Processor], board: &dyn Board) -> Result<Vec<u8>, HeapFull> {
    let mut entries = Entries { bytes: Vec::new(), count: 0 };
    for processor in processors {
        entries.push(processor)?;
    }
    // Each of a device's pins that the board routes. There are none without PCI.
    let pins = || (1..DEVICES).flat_map(|device| PINS.map(|pin| (device, pin)));
    let routes = || pins().filter_map(|(device, pin)| Some((device, pin, board.interrupt(device, pin)?)));
    // Bus numbers begin at 0 and have no gaps.
    let has_pci = routes().next().is_some();
    let isa_bus = u8::from(has_pci);
    if has_pci {
        entries.push(&Bus { kind: 1, id: PCI_BUS, name: *b"PCI   " })?;
    }
    entries.push(&Bus { kind: 1, id: isa_bus, name: *b"ISA   " })?;
    entries.push(&IoApic { kind: 2, id: IO_APIC_ID, version: IO_APIC_VERSION, flags: 1, address: IO_APIC.into() })?;
    let to_io_apic = |bus, line, flags: u16, input| Interrupt {
        kind: TO_IO_APIC,
        source: VECTORED,
        flags: flags.into(),
        bus,
        line,
        apic: IO_APIC_ID,
        input,
    };
    for (device, pin, input) in routes() {
        entries.push(&to_io_apic(PCI_BUS, device << 2 | pin.index(), LEVEL_HIGH, input))?;
    }
    for line in (0..16).filter(|&line| line != TIMER_INPUT && !routes().any(|(.., input)| input == line)) {
        entries.push(&to_io_apic(isa_bus, line, AS_BUS, if line == 0 { TIMER_INPUT } else { line }))?;
    }
    // The local inputs: the 8259s' interrupt at 0 (virtual wire mode), the NMI at 1.
    for (source, input) in [(OLD_CONTROLLER, 0), (NMI, 1)] {
        let flags = AS_BUS.into();
        entries.push(&Interrupt { kind: TO_LOCAL_APICS, source, flags, bus: isa_bus, line: 0, apic: ALL, input })?;
    }
    entries.finish()
}

/// The entries so far.
struct Entries {
    bytes: Vec<u8>,
    count: u16,
}

impl Entries {
    fn push(&mut self, entry: &(impl IntoBytes + Immutable)) -> Result<(), HeapFull> {
        self.count = self.count.wrapping_add(1);
        append(&mut self.bytes, entry.as_bytes())
    }

    /// The table: the header, then the entries. With at most 255 CPUs and 124 pins the length fits 16 bits.
    fn finish(self) -> Result<Vec<u8>, HeapFull> {
        let mut header = Header {
            signature: *b"PCMP",
            length: (size_of::<Header>().wrapping_add(self.bytes.len()) as u16).into(),
            revision: REVISION,
            checksum: 0,
            oem: *b"FIRSTLGT",
            product: *b"FIRSTLIGHT  ",
            oem_table: [0; 6],
            entries: self.count.into(),
            local_apic: LOCAL_APIC.into(),
            extended: [0; 4],
        };
        let sum = checksum::sum(header.as_bytes()).wrapping_add(checksum::sum(&self.bytes));
        header.checksum = sum.wrapping_neg();
        let mut table = Vec::new();
        append(&mut table, header.as_bytes())?;
        append(&mut table, &self.bytes)?;
        Ok(table)
    }
}

fn append(to: &mut Vec<u8>, bytes: &[u8]) -> Result<(), HeapFull> {
    to.try_reserve(bytes.len()).map_err(|_| HeapFull)?;
    bytes.iter().try_for_each(|&byte| heap::push_within_capacity(to, byte))
}
