//! Port instructions.

use core::arch::asm;

use firstlight::addr::PhysRange;
use firstlight::hal::registers::{DATA, SELECTOR};
use firstlight::hal::{FwCfgRegisters, MemoryError, Ports, dma};

use super::PcMachine;

/// Port I/O. A separate type, so that the logger can print while the machine is borrowed.
#[derive(Debug, Default)]
pub struct PcPorts(());

impl PcPorts {
    /// Creates the port I/O of the firmware.
    ///
    /// # Safety
    /// The caller runs in ring 0 and owns the machine: no operating system drives the devices behind the ports.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

// None of these blocks is `nomem`: a port write may start a DMA transfer or change what an address maps to (PAM, PCIEXBAR), so
// the compiler must not move memory accesses across it.
impl PcPorts {
    fn write8(&mut self, port: u16, value: u8) {
        // SAFETY: the caller of `new` promised ring 0 and ownership of the devices. OUT writes no register, and the port is not a
        // doorbell.
        unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
    }

    fn write16(&mut self, port: u16, value: u16) {
        // SAFETY: as for `write8`.
        unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
    }

    /// Writes four bytes in one access. The port may be the doorbell; [`super::dma`] is responsible for its memory.
    pub(super) fn write32(&mut self, port: u16, value: u32) {
        // SAFETY: as for `write8`. A DMA doorbell makes the device write memory that `super::dma` has lent to it. Rust code does
        // not borrow that memory meanwhile.
        unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
    }
}

impl Ports for PcPorts {
    fn in8(&mut self, port: u16) -> u8 {
        let value: u8;
        // SAFETY: as for `write8`; IN writes AL only.
        unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) };
        value
    }

    fn in16(&mut self, port: u16) -> u16 {
        let value: u16;
        // SAFETY: as for `in8`; IN writes AX only.
        unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nostack, preserves_flags)) };
        value
    }

    fn in32(&mut self, port: u16) -> u32 {
        let value: u32;
        // SAFETY: as for `in8`; IN writes EAX only.
        unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags)) };
        value
    }

    fn out8(&mut self, port: u16, value: u8) {
        if !dma::is_doorbell(port, 1) {
            self.write8(port, value);
        }
    }

    fn out16(&mut self, port: u16, value: u16) {
        if !dma::is_doorbell(port, 2) {
            self.write16(port, value);
        }
    }

    fn out32(&mut self, port: u16, value: u32) {
        if !dma::is_doorbell(port, 4) {
            self.write32(port, value);
        }
    }
}

impl Ports for PcMachine {
    fn in8(&mut self, port: u16) -> u8 {
        self.ports.in8(port)
    }
    fn in16(&mut self, port: u16) -> u16 {
        self.ports.in16(port)
    }
    fn in32(&mut self, port: u16) -> u32 {
        self.ports.in32(port)
    }
    fn out8(&mut self, port: u16, value: u8) {
        self.ports.out8(port, value);
    }
    fn out16(&mut self, port: u16, value: u16) {
        self.ports.out16(port, value);
    }
    fn out32(&mut self, port: u16, value: u32) {
        self.ports.out32(port, value);
    }
}

impl FwCfgRegisters for PcMachine {
    fn select(&mut self, key: u16) {
        self.out16(SELECTOR, key);
    }

    fn read_data(&mut self, into: &mut [u8]) {
        // SAFETY: RDI to RDI + RCX is `into`, borrowed mutably. The caller of `new` promised ring 0 and ownership of the devices.
        // The direction flag is clear in Rust code.
        unsafe {
            asm!("rep insb", in("dx") DATA, inout("rdi") into.as_mut_ptr() => _, inout("rcx") into.len() => _,
                options(nostack, preserves_flags))
        };
    }

    fn load_data(&mut self, to: PhysRange) -> Result<(), MemoryError> {
        self.check_writable(to)?;
        // SAFETY: `check_writable` allowed the range, so it is mapped, writable and disjoint from every Rust object. The caller
        // of `new` promised ring 0 and ownership of the devices. The direction flag is clear in Rust code.
        unsafe {
            asm!("rep insb", in("dx") DATA, inout("rdi") to.start().get() => _, inout("rcx") to.len() => _,
                options(nostack, preserves_flags))
        };
        Ok(())
    }

    fn read_dma_address_high(&mut self) -> [u8; 4] {
        self.in32(dma::ADDRESS_HIGH).to_le_bytes()
    }
}
