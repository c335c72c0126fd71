//! Asking base address registers and expansion ROMs for their sizes.

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

/// The registers, one bit each, that an IDE channel at its legacy ports leaves without meaning (PCI IDE Controller
/// Specification 1.0, section 2.1).
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

/// Registers that ask for what is no size. Only the first few are named: where one is wrong, hundreds may be.
#[derive(Default)]
pub(super) struct Odd(RateLimited<4>);

impl Odd {
    #[cold]
    fn warn(&mut self, address: Address, register: fmt::Arguments<'_>, asks: u32) {
        self.0.warn(format_args!("PCI {address}: {register} asks for {asks:#x}, which is no size; it gets no address"));
    }

    /// Says how many were not named.
    pub fn warn_of_the_rest(&self) {
        if let Some(rest) = self.0.rest() {
            log::warn!("PCI: {rest} more BARs ask for what is no size; they get no address");
        }
    }
}

/// Address bits of a memory register; the others tell its kind (PCI Local Bus 3.0, section 6.2.5.1, figure 6-5). So 16 bytes
/// are the least that a register can ask for.
const MEMORY_ADDRESS: u32 = !0xf;
/// The lowest of them.
const LEAST_MEMORY: u32 = 1 << 4;
/// Address bits of an I/O register (same section, figure 6-6). Four ports are the least.
const IO_ADDRESS: u32 = !0b11;
/// Bit of an I/O register that reads as zero.
const IO_RESERVED: u32 = 1 << 1;
/// Bit 0: the register decodes ports and not memory.
const IS_IO: u32 = 1 << 0;
/// Bits 1 and 2 of a memory register, and their value for 64 bits. Every other value is taken for 32 bits, as Linux does.
const WIDTH: u32 = 0b11 << 1;
const WIDTH_64: u32 = 0b10 << 1;
/// Bit 3 of a memory register.
const PREFETCHABLE: u32 = 1 << 3;

/// Asks the first `count` base address registers what they need. The function does not decode.
///
/// A register takes all ones and reads back which bits it has (PCI Local Bus 3.0, section 6.2.5.1). The address bits tell the
/// size, and the others the kind. One whose address bits no decoder can have is set to zero and left out.
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
            // A 16-bit decoder leaves the upper half out.
            let upper = if low >> 16 == 0 { 0xffff_0000 } else { 0 };
            (BarKind::Io, order(low & IO_ADDRESS | upper))
        } else if kind & WIDTH != WIDTH_64 {
            (BarKind::Memory32 { prefetchable }, order(low & MEMORY_ADDRESS))
        } else {
            let order = match low & MEMORY_ADDRESS {
                _ if after >= count => None,
                // The upper half only matters if all of the size is there.
                0 => order(probe(config, address, after, &mut probed)).map(|order| order.saturating_add(32)),
                mask => order(mask),
            };
            next = after.saturating_add(1).min(count);
            (BarKind::Memory64 { prefetchable }, order)
        };
        let bar = order.map(|order| Bar { register: this, kind, order });
        match bar {
            // There are never more than `count`, so there is always room.
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

/// Asks for the size of the expansion ROM, with its decoder off.
pub(super) fn size_rom(config: &mut dyn ConfigSpace, function: &mut Function, odd: &mut Odd) {
    config.write32(function.address, register::ROM, register::ROM_ADDRESS);
    let mask = config.read32(function.address, register::ROM) & register::ROM_ADDRESS;
    match order(mask) {
        // There is room for one more than there are registers.
        Some(order) => drop(function.bars.try_push(Bar { register: Bar::ROM, kind: BarKind::Rom, order })),
        None if mask == 0 => {}
        None => {
            odd.warn(function.address, format_args!("the ROM"), mask);
            config.write32(function.address, register::ROM, 0);
        }
    }
}

/// Whether a register that reads back `low` may ask for less than the least size, so that it has bits of an address where its
/// kind should be: of a memory register of 2 to 8 bytes bit 4 and some below it are set; of one of 1 byte, and of an I/O
/// register of 2 ports, bits 0 and 1.
const fn is_kind_hidden(low: u32) -> bool {
    if low & IS_IO == 0 { low & LEAST_MEMORY != 0 } else { low & IO_RESERVED != 0 }
}

/// What a register reads back after zeros, which is its kind.
#[cold]
fn fixed_bits(config: &mut dyn ConfigSpace, address: Address, register: u8) -> u32 {
    config.write32(address, bar_offset(register), 0);
    config.read32(address, bar_offset(register))
}

/// What a register reads back. `probed` is what is known already of one, by its number, and then of the one after this.
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

/// Where a base address register is.
pub(super) const fn bar_offset(register: u8) -> u8 {
    register::BAR0.wrapping_add(register << 2)
}

/// The size that a mask of address bits means, as a power of two. All bits above the lowest have to be there.
fn order(mask: u32) -> Option<u8> {
    let order = mask.trailing_zeros();
    (mask != 0 && mask == u32::MAX.wrapping_shl(order)).then_some(order as u8)
}
