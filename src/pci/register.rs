//! Offsets and bits in configuration space, in bytes. Values are little-endian.
//!
//! Sources: PCI Local Bus Specification 3.0, chapter 6 ("PLB"); PCI-to-PCI Bridge Architecture Specification 1.2,
//! section 3.2 ("PPB"); PCI Express Base Specification 5.0, section 7.5.3 ("PCIe").

/// Vendor ID in the low half, device ID in the high half (PLB 6.2.1).
pub const ID: u8 = 0x00;
/// COMMAND in the low half, STATUS in the high half (PLB 6.2.2, 6.2.3). STATUS bits are cleared by writing one, so a dword write
/// with zero there does not change them.
pub const COMMAND: u8 = 0x04;
/// Revision in the low byte, then programming interface, sub-class and class (PLB 6.2.1).
pub const CLASS: u8 = 0x08;
/// Cache line size, latency timer, header type and self-test, from the low byte up (PLB 6.2.1).
pub const HEADER: u8 = 0x0c;
/// The first base address register (PLB 6.2.5).
pub const BAR0: u8 = 0x10;
/// Primary, secondary, subordinate bus number and secondary latency timer, from the low byte up (PPB 3.2.5.2-5).
pub const BUS_NUMBERS: u8 = 0x18;
/// I/O base and limit in the low half; the secondary status above them is cleared by writing one (PPB 3.2.5.6-7).
pub const IO_WINDOW: u8 = 0x1c;
/// The value of a closed memory window: base above limit, so that nothing is forwarded.
pub const CLOSED_MEMORY: u32 = 0x0000_fff0;
/// The value of a closed I/O window: base above limit.
pub const CLOSED_IO: u32 = 0x00f0;
/// Memory base in the low half, limit in the high half (PPB 3.2.5.8).
pub const MEMORY_WINDOW: u8 = 0x20;
/// Prefetchable memory base in the low half, limit in the high half (PPB 3.2.5.9).
pub const PREFETCHABLE_WINDOW: u8 = 0x24;
/// Bits 63:32 of the prefetchable base (PPB 3.2.5.10).
pub const PREFETCHABLE_BASE_UPPER: u8 = 0x28;
/// Bits 63:32 of the prefetchable limit (PPB 3.2.5.10).
pub const PREFETCHABLE_LIMIT_UPPER: u8 = 0x2c;
/// Bits 31:16 of the I/O base in the low half, of the limit in the high half (PPB 3.2.5.11).
pub const IO_WINDOW_UPPER: u8 = 0x30;
/// The expansion ROM's base address in an ordinary function: the address in bits 31:11, and the enable bit in bit 0 (PLB
/// 6.2.5.2).
pub const ROM: u8 = 0x30;
/// The address bits of [`ROM`].
pub const ROM_ADDRESS: u32 = 0xffff_f800;
/// The first capability's offset in the low byte (PLB 6.7).
pub const CAPABILITIES: u8 = 0x34;
/// Interrupt line in the low byte, pin above it; in a bridge, BRIDGE_CONTROL in the high half (PLB 6.2.4, PPB 3.2.5.17).
pub const INTERRUPT: u8 = 0x3c;

/// COMMAND: decode I/O accesses.
pub const COMMAND_IO: u16 = 1 << 0;
/// COMMAND: decode memory accesses.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// COMMAND: act as a bus master; in a bridge, forward requests of devices behind it.
pub const COMMAND_MASTER: u16 = 1 << 2;
/// COMMAND: report address parity errors and the like.
pub const COMMAND_SERR: u16 = 1 << 8;
/// STATUS: there is a capability list.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Header type, low seven bits: an ordinary function.
pub const HEADER_ORDINARY: u8 = 0;
/// Header type, low seven bits: a PCI-to-PCI bridge.
pub const HEADER_BRIDGE: u8 = 1;
/// Header type, top bit: the device has more functions than function 0.
pub const HEADER_MULTIFUNCTION: u8 = 1 << 7;

/// Capability ID: PCI Express (PCIe 7.5.3.1). Bits 23:20 of its first dword are the device or port type.
pub const CAPABILITY_EXPRESS: u8 = 0x10;
/// In the top byte of that dword: there is a slot at the port (PCIe 7.5.3.2).
pub const EXPRESS_SLOT: u8 = 1 << 0;
/// Capability ID: vendor-specific. The length in bytes follows the next capability's offset (PLB appendix H).
pub const CAPABILITY_VENDOR: u8 = 0x09;
/// Capability ID: the standard hot-plug controller of a conventional bridge (PLB appendix H).
pub const CAPABILITY_HOT_PLUG: u8 = 0x0c;
/// PCI Express device or port type: root port (PCIe 7.5.3.2).
pub const EXPRESS_ROOT_PORT: u8 = 4;
/// PCI Express device or port type: downstream port of a switch (PCIe 7.5.3.2).
pub const EXPRESS_DOWNSTREAM_PORT: u8 = 6;
