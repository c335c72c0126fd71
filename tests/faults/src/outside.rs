//! The machine as code under test sees it: a fake that does not use that code's heap.
#![forbid(unsafe_code)]

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::fakes::machine::FakeMachine;
use firstlight::hal::dma::{Fault, Transfer};
use firstlight::hal::startup::{LocalApic, Mailbox};
use firstlight::hal::{
    BusMaster, Clock, Cpu, Cpuid, DeviceRange, Dma, FwCfgRegisters, Memory, MemoryError, Ports, Protect, paging,
};

use crate::heap::{inside, outside};

/// A fake machine on the system's heap.
pub struct Outside(pub FakeMachine);

macro_rules! delegate {
    ($($name:ident(&mut self $(, $argument:ident: $type:ty)*) $(-> $result:ty)?;)*) => {
        $(fn $name(&mut self $(, $argument: $type)*) $(-> $result)? {
            outside(|| self.0.$name($($argument),*))
        })*
    };
}

impl Ports for Outside {
    delegate! {
        in8(&mut self, port: u16) -> u8;
        in16(&mut self, port: u16) -> u16;
        in32(&mut self, port: u16) -> u32;
        out8(&mut self, port: u16, value: u8);
        out16(&mut self, port: u16, value: u16);
        out32(&mut self, port: u16, value: u32);
    }
}

impl FwCfgRegisters for Outside {
    delegate! {
        select(&mut self, key: u16);
        read_data(&mut self, into: &mut [u8]);
        load_data(&mut self, to: PhysRange) -> Result<(), MemoryError>;
        read_dma_address_high(&mut self) -> [u8; 4];
    }
}

impl Memory for Outside {
    delegate! {
        map(&mut self, range: PhysRange, room: PhysRange) -> Result<(), MemoryError>;
        copy(&mut self, from: PhysRange, to: PhysAddr) -> Result<(), MemoryError>;
        read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryError>;
        write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), MemoryError>;
        fill(&mut self, range: PhysRange, byte: u8) -> Result<(), MemoryError>;
        read_register8(&mut self, at: PhysAddr) -> Result<u8, MemoryError>;
        read_register16(&mut self, at: PhysAddr) -> Result<u16, MemoryError>;
        read_register32(&mut self, at: PhysAddr) -> Result<u32, MemoryError>;
        read_register64(&mut self, at: PhysAddr) -> Result<u64, MemoryError>;
        write_register8(&mut self, at: PhysAddr, value: u8) -> Result<(), MemoryError>;
        write_register16(&mut self, at: PhysAddr, value: u16) -> Result<(), MemoryError>;
        write_register32(&mut self, at: PhysAddr, value: u32) -> Result<(), MemoryError>;
        write_register64(&mut self, at: PhysAddr, value: u64) -> Result<(), MemoryError>;
    }

    fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), MemoryError> {
        outside(|| self.0.inspect(range, &mut |piece| inside(|| show(piece))))
    }
}

impl Dma for Outside {
    delegate! {
        pass(&mut self, transfer: Transfer, len: u32) -> Result<(), Fault>;
        load(&mut self, transfer: Transfer, to: PhysRange) -> Result<(), Fault>;
        read_list(&mut self, transfer: Transfer, into: &mut Vec<u8>) -> Result<(), Fault>;
        read_bytes(&mut self, transfer: Transfer, into: &mut [u8]) -> Result<(), Fault>;
        write_bytes(&mut self, transfer: Transfer, bytes: &[u8]) -> Result<(), Fault>;
        forget_address(&mut self);
    }

    fn is_stuck(&self) -> bool {
        self.0.is_stuck()
    }

    fn check_device_range(&self, range: PhysRange) -> Result<(), MemoryError> {
        outside(|| self.0.check_device_range(range))
    }
}

impl Cpu for Outside {
    delegate! {
        cpuid(&mut self, leaf: u32, subleaf: u32) -> Cpuid;
        read_msr(&mut self, register: u32) -> u64;
        write_msr(&mut self, register: u32, value: u64);
        run_others(&mut self, apic: LocalApic, mailbox: &mut Mailbox, others: u32) -> Result<(), MemoryError>;
        random(&mut self) -> Option<u64>;
        seed(&mut self) -> Option<u64>;
    }

    fn runtime_services(&self) -> &'static [u8] {
        self.0.runtime_services()
    }
}

impl Clock for Outside {
    delegate! {
        ticks(&mut self) -> u64;
        rate(&mut self) -> Option<u64>;
    }
}

impl BusMaster for Outside {
    delegate! {
        lend(&mut self, range: PhysRange) -> Result<DeviceRange, MemoryError>;
        order(&mut self);
    }
}

impl Protect for Outside {
    delegate! {
        protect(&mut self, range: PhysRange, access: paging::Access, room: PhysRange) -> Result<PhysRange, MemoryError>;
        access(&mut self, range: PhysRange) -> Result<Option<paging::Access>, MemoryError>;
    }
}
