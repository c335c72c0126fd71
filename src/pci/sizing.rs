//! Sizes BARs and expansion ROMs.

use core::fmt;

use crate::logging::RateLimited;

use super::address::Address;
use super::config::ConfigSpace;
use super::register;
use super::topology::{Bar, BarKind, Function};

/// Class and sub-class of an IDE controller (PCI Code and ID Assignment 1.11, section 1.2).
const CLASS_IDE: u32 = 0x0101;
/// IDE programming interface: the primary channel is not at its legacy ports.
const IDE_PRIMARY_NATIVE: u32 = 1 << 0;
/// IDE programming interface: the secondary channel is not at its legacy ports.
const IDE_SECONDARY_NATIVE: u32 = 1 << 2;

/// The BARs, one bit each, that have no meaning because an IDE channel is at its legacy ports (PCI IDE Controller Specification
/// 1.0, section 2.1).
const fn legacy_registers(class: u32) -> u32 {
    let mut registers = 0;
    if class >> 8 == CLASS_IDE {
        if class & IDE_PRIMARY_NATIVE == 0 {
            registers |= 0b0011;
        }
        if class & IDE_SECONDARY_NATIVE == 0 {
            registers |= 0b1100;
        }
    }
    registers
}

/// BARs that ask for an invalid size. Warnings are rate-limited: if one is wrong, hundreds may be.
#[derive(Default)]
pub(super) struct Odd(RateLimited<4>);

impl Odd {
    #[cold]
    fn warn(&mut self, address: Address, register: fmt::Arguments<'_>, asks: u32) {
        self.0.warn(format_args!(
            "PCI {address}: {register} asks for {asks:#x}, which is not a valid size; it gets no address"
        ));
    }

    /// Logs how many were not named.
    pub fn warn_of_the_rest(&self) {
        if let Some(rest) = self.0.rest() {
            crate::warn!("PCI: {rest} more BARs ask for invalid sizes; they get no address");
        }
    }
}

/// Address bits of a memory BAR; the other bits are its kind (PCI Local Bus 3.0, section 6.2.5.1, figure 6-5). So the smallest
/// memory BAR has 16 bytes.
const MEMORY_ADDRESS: u32 = !0xf;
/// The lowest of them.
const LEAST_MEMORY: u32 = 1 << 4;
/// Address bits of an I/O BAR (same section, figure 6-6). The smallest has four ports.
const IO_ADDRESS: u32 = !0b11;
/// The bit of an I/O BAR that reads as zero.
const IO_RESERVED: u32 = 1 << 1;
/// Bit 0: the BAR decodes ports, not memory.
const IS_IO: u32 = 1 << 0;
/// Bits 1 and 2 of a memory BAR, and their value for 64 bits. Every other value means 32 bits, as in Linux.
const WIDTH: u32 = 0b11 << 1;
const WIDTH_64: u32 = 0b10 << 1;
/// Bit 3 of a memory BAR.
const PREFETCHABLE: u32 = 1 << 3;

/// Sizes the first `count` BARs. The function does not decode.
///
/// After a write of all ones, a BAR reads back its writable bits (PCI Local Bus 3.0, section 6.2.5.1). The address bits give the
/// size, the others the kind. A BAR with impossible address bits is set to zero and left out.
pub(super) fn size_bars(config: &mut dyn ConfigSpace, function: &mut Function, count: u8, odd: &mut Odd) {
    let (address, skipped) = (function.address, legacy_registers(function.class));
    let mut next = 0;
    let mut probed = None;
    while next < count {
        let this = next;
        let after = this.saturating_add(1);
        next = after;
        if skipped.wrapping_shr(this.into()) & 1 != 0 {
            continue;
        }
        let low = probe(config, address, this, &mut probed);
        if low == 0 {
            continue;
        }
        let kind = if is_kind_hidden(low) { fixed_bits(config, address, this) } else { low };
        let prefetchable = kind & PREFETCHABLE != 0;
        let (kind, order) = if kind & IS_IO != 0 {
            // A 16-bit decoder does not implement the upper half.
            let upper = if low >> 16 == 0 { 0xffff_0000 } else { 0 };
            (BarKind::Io, order(low & IO_ADDRESS | upper))
        } else if kind & WIDTH != WIDTH_64 {
            (BarKind::Memory32 { prefetchable }, order(low & MEMORY_ADDRESS))
        } else {
            let order = match low & MEMORY_ADDRESS {
                _ if after >= count => None,
                // The upper half only matters if the lower has no address bits.
                0 => order(probe(config, address, after, &mut probed)).map(|order| order.saturating_add(32)),
                mask => order(mask),
            };
            next = after.saturating_add(1).min(count);
            (BarKind::Memory64 { prefetchable }, order)
        };
        let bar = order.map(|order| Bar { register: this, kind, order });
        match bar {
            // There are at most `count`, so there is always room.
            Some(bar) => drop(function.bars.try_push(bar)),
            None => {
                function.sound = false;
                odd.warn(address, format_args!("BAR {this}"), low);
                for unusable in this..next {
                    config.write32(address, bar_offset(unusable), 0);
                }
            }
        }
    }
}

/// Sizes the expansion ROM, with its decoder disabled.
pub(super) fn size_rom(config: &mut dyn ConfigSpace, function: &mut Function, odd: &mut Odd) {
    config.write32(function.address, register::ROM, register::ROM_ADDRESS);
    let mask = config.read32(function.address, register::ROM) & register::ROM_ADDRESS;
    match order(mask) {
        // There is room for one more than there are BARs.
        Some(order) => drop(function.bars.try_push(Bar { register: Bar::ROM, kind: BarKind::Rom, order })),
        None if mask == 0 => {}
        None => {
            odd.warn(function.address, format_args!("the ROM"), mask);
            config.write32(function.address, register::ROM, 0);
        }
    }
}

/// Whether a BAR that reads back `low` may be smaller than the smallest valid size, so that address bits hide its kind: a memory
/// BAR of 2 to 8 bytes has bit 4 and some lower bits set; a memory BAR of 1 byte, and an I/O BAR of 2 ports, have bits 0 and 1
/// set.
const fn is_kind_hidden(low: u32) -> bool {
    if low & IS_IO == 0 { low & LEAST_MEMORY != 0 } else { low & IO_RESERVED != 0 }
}

/// What a BAR reads back after a write of zeros: its kind.
#[cold]
fn fixed_bits(config: &mut dyn ConfigSpace, address: Address, register: u8) -> u32 {
    config.write32(address, bar_offset(register), 0);
    config.read32(address, bar_offset(register))
}

/// What a BAR reads back. `probed` is the value that is already known of one BAR, by its number; afterwards, that of the next
/// BAR.
fn probe(config: &mut dyn ConfigSpace, address: Address, register: u8, probed: &mut Option<(u8, u32)>) -> u32 {
    if let Some((known, value)) = *probed
        && known == register
    {
        return value;
    }
    let probe = config.probe(address, bar_offset(register));
    *probed = probe.next.map(|next| (register.wrapping_add(1), next));
    probe.this
}

/// The offset of a BAR.
pub(super) const fn bar_offset(register: u8) -> u8 {
    register::BAR0.wrapping_add(register << 2)
}

/// The size of a BAR with this mask of address bits, as a power of two. `None` if a bit above the lowest is missing.
fn order(mask: u32) -> Option<u8> {
    let order = mask.trailing_zeros();
    (mask != 0 && mask == u32::MAX.wrapping_shl(order)).then_some(order as u8)
}
