//! The devices on ports: fw_cfg, COM1, the debug console, CMOS memory sizes, PCI functions that have IDs and
//! otherwise zeros, and a port that ends the machine; and a q35's configuration space in memory.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;

use firstlight::fakes::fw_cfg::{FakeFwCfg, Record};
use firstlight::fakes::known_hosts::{FunctionId, KnownHost};
use firstlight::fakes::machine::GuestMemory;

use crate::window::Window;

/// A write to this port, of any width, ends the guest.
pub const EXIT_PORT: u16 = 0xf4;

const COM1: u16 = 0x3f8;
/// The UART's line status: the transmitter is empty.
const LINE_STATUS: u16 = COM1 + 5;
const TRANSMITTER_EMPTY: u8 = 0x60;
/// The UART's line control, bit 7: the port of the transmitter is the divisor's.
const LINE_CONTROL: u16 = COM1 + 3;
const DIVISOR_LATCH: u8 = 1 << 7;

const DEBUG_CONSOLE: u16 = 0x402;
const DEBUG_CONSOLE_READS: u8 = 0xe9;

const CMOS_INDEX: u16 = 0x70;
const CMOS_DATA: u16 = 0x71;
/// RAM above 16 MiB, in units of 64 KiB, low byte first (QEMU `hw/i386/pc.c`, `pc_cmos_init`).
const CMOS_ABOVE_16_MIB: u8 = 0x34;

const FW_CFG_DATA: u16 = 0x511;

/// PCI's configuration address, 32 bits, and the dword there, in one access of any width.
const PCI_ADDRESS: u16 = 0xcf8;
const PCI_DATA: u16 = 0xcfc;
const PCI_DATA_END: u16 = PCI_DATA + 4;

/// A device that a test adds. Accesses that it claims reach no other device.
pub trait Extra {
    /// Whether `at` is one of the device's.
    fn claims(&self, at: At) -> bool;
    /// A read of `size` bytes (1, 2, 4 or 8).
    fn read(&mut self, at: At, size: u8) -> u64;
    /// A write of `size` bytes (1, 2, 4 or 8).
    fn write(&mut self, at: At, size: u8, value: u64);
}

/// The target of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// A port.
    Port(u16),
    /// An address without memory.
    Memory(u64),
}

/// The number in little-endian `bytes`.
#[must_use]
pub fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The devices of a machine.
pub struct Devices {
    fw_cfg: FakeFwCfg,
    fw_cfg_record: Rc<RefCell<Record>>,
    has_fw_cfg: bool,
    absent: u32,
    /// The written registers of the UART, if there is one.
    uart: Option<[u8; 8]>,
    serial: Vec<u8>,
    cmos_index: u8,
    above_16_mib: u16,
    /// Empty if there is no PCI.
    functions: &'static [FunctionId],
    pci_address: u32,
    pci_writes: Vec<u32>,
    window: Window,
}

impl Devices {
    /// The devices of `host`, with `fw_cfg`. `ram` is the number of bytes of RAM.
    #[must_use]
    pub fn new(fw_cfg: FakeFwCfg, host: &KnownHost, ram: usize, serial: bool) -> Self {
        Self {
            fw_cfg_record: fw_cfg.record(),
            fw_cfg,
            has_fw_cfg: true,
            absent: host.absent_port,
            uart: serial.then_some([0; 8]),
            serial: Vec::new(),
            cmos_index: 0,
            above_16_mib: u16::try_from(ram.saturating_sub(16 << 20) >> 16).unwrap_or(u16::MAX),
            functions: host.functions,
            pci_address: 0,
            pci_writes: Vec::new(),
            window: Window::new(host.functions, host.longest_config_access),
        }
    }

    /// The same without fw_cfg.
    #[must_use]
    pub fn without_fw_cfg(self) -> Self {
        Self { has_fw_cfg: false, ..self }
    }

    fn is_fw_cfg(&self, port: u16) -> bool {
        self.has_fw_cfg && FakeFwCfg::has_port(port)
    }

    /// The output on COM1.
    #[must_use]
    pub fn serial(&self) -> String {
        String::from_utf8_lossy(&self.serial).into_owned()
    }

    /// The configuration addresses that were written: of the first byte, with the enable bit.
    #[must_use]
    pub fn pci_writes(&self) -> &[u32] {
        &self.pci_writes
    }

    /// Takes the actions of fw_cfg so far.
    #[must_use]
    pub fn take_fw_cfg_record(&self) -> Record {
        self.fw_cfg_record.take()
    }

    /// A q35's configuration space in memory.
    pub const fn window(&mut self) -> &mut Window {
        &mut self.window
    }

    /// Reads as many bytes as `into` has from `port`. On the data port of fw_cfg, these are reads of one byte each.
    pub fn read(&mut self, port: u16, into: &mut [u8]) {
        if port == FW_CFG_DATA && self.has_fw_cfg {
            self.fw_cfg.read_port_string(port, into);
            return;
        }
        let value = match port {
            _ if self.is_fw_cfg(port) => self.fw_cfg.read_port(port, into.len() as u8),
            DEBUG_CONSOLE => DEBUG_CONSOLE_READS.into(),
            CMOS_DATA => self.cmos().into(),
            PCI_DATA..PCI_DATA_END if !self.functions.is_empty() => self.pci() >> (8 * (port - PCI_DATA)),
            _ => self.uart_read(port).map_or(self.absent, u32::from),
        };
        for (byte, read) in into.iter_mut().zip(value.to_le_bytes()) {
            *byte = read;
        }
    }

    /// A write to `port`. Returns what was written to [`EXIT_PORT`].
    pub fn write(&mut self, port: u16, bytes: &[u8], memory: &mut dyn GuestMemory) -> Option<u32> {
        let value = number(bytes) as u32;
        match port {
            EXIT_PORT => return Some(value),
            _ if self.is_fw_cfg(port) => self.fw_cfg.write_port(port, bytes.len() as u8, value, memory),
            CMOS_INDEX => self.cmos_index = value as u8 & 0x7f,
            PCI_ADDRESS => self.pci_address = value,
            PCI_DATA..PCI_DATA_END => {
                let address = self.pci_address + u32::from(port - PCI_DATA);
                self.pci_writes.push(address);
                self.window.port_write(address, value);
            }
            _ => self.uart_write(port, value as u8),
        }
        None
    }

    fn cmos(&self) -> u8 {
        let [low, high] = self.above_16_mib.to_le_bytes();
        match self.cmos_index.wrapping_sub(CMOS_ABOVE_16_MIB) {
            0 => low,
            1 => high,
            _ => 0,
        }
    }

    /// The dword at the configuration address: the IDs of a function, or zero for any other of its registers.
    fn pci(&self) -> u32 {
        let at = |(device, function, _): &FunctionId| u32::from(*device) << 11 | u32::from(*function) << 8;
        let found = self.functions.iter().find(|function| 1 << 31 | at(function) == self.pci_address & !0xff);
        match found {
            Some((.., id)) if self.pci_address & 0xff == 0 => *id,
            Some(_) => 0,
            None => u32::MAX,
        }
    }

    fn uart_read(&self, port: u16) -> Option<u8> {
        let register = *self.uart?.get(usize::from(port.checked_sub(COM1)?))?;
        Some(if port == LINE_STATUS { TRANSMITTER_EMPTY } else { register })
    }

    fn uart_write(&mut self, port: u16, value: u8) {
        let (Some(registers), Some(index)) = (&mut self.uart, port.checked_sub(COM1)) else { return };
        let latched = registers[usize::from(LINE_CONTROL - COM1)] & DIVISOR_LATCH != 0;
        let Some(register) = registers.get_mut(usize::from(index)) else { return };
        *register = value;
        if port == COM1 && !latched {
            self.serial.push(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use firstlight::fakes::known_hosts::known_hosts;
    use firstlight::fakes::machine::FakeMemory;

    use super::*;

    fn host(absent_port: u32, functions: &'static [FunctionId]) -> KnownHost {
        KnownHost { absent_port, functions, ..known_hosts()[0] }
    }

    fn devices(absent: u32, serial: bool) -> Devices {
        let fw_cfg = FakeFwCfg::new(true).with_item(0x11, &[1, 2, 3, 4, 5]);
        Devices::new(fw_cfg, &host(absent, &[]), 64 << 20, serial)
    }

    fn read<const N: usize>(devices: &mut Devices, port: u16) -> [u8; N] {
        let mut bytes = [0x55; N];
        devices.read(port, &mut bytes);
        bytes
    }

    #[test]
    fn absent_ports_read_as_the_host_has_them() {
        for absent in [0, u32::MAX] {
            let mut devices = devices(absent, false);
            assert_eq!(u32::from_le_bytes(read(&mut devices, 0xcfc)), absent);
            assert_eq!(read(&mut devices, COM1 + 7), [absent as u8]);
        }
    }

    #[test]
    fn com1_records_the_data_and_not_the_divisor() {
        let mut devices = devices(0, true);
        let memory = &mut FakeMemory::default();
        for (port, value) in [(COM1 + 3, 0x83), (COM1, 1), (COM1 + 3, 3), (COM1, b'o'), (COM1, b'k'), (COM1 + 7, 9)] {
            assert_eq!(devices.write(port, &[value], memory), None);
        }
        assert_eq!(devices.serial(), "ok");
        assert_eq!(read(&mut devices, COM1 + 7), [9]);
        assert_eq!(read(&mut devices, LINE_STATUS), [TRANSMITTER_EMPTY]);
    }

    #[test]
    fn fw_cfg_returns_bytes_and_writes_memory() {
        let mut devices = devices(0, false);
        let mut memory = FakeMemory::default();
        devices.write(0x510, &[0x11, 0], &mut memory);
        assert_eq!(read(&mut devices, FW_CFG_DATA), [1, 2, 3]);
        assert_eq!(read(&mut devices, 0x514), *b"QEMU");
        // READ with SELECT of item 0x11, 5 bytes to 0x2000; the descriptor is at 0x1000.
        memory.store(0x1000, &[0, 0x11, 0, 0x0a, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0x20, 0]);
        devices.write(0x518, &[0, 0, 0x10, 0], &mut memory);
        assert_eq!(memory.bytes(0x2000, 6), [1, 2, 3, 4, 5, 0]);
        assert_eq!(memory.bytes(0x1000, 4), [0; 4]);
        assert_eq!(devices.take_fw_cfg_record().transfers, 1);
    }

    #[test]
    fn without_fw_cfg_its_ports_are_absent() {
        let mut devices = devices(u32::MAX, false).without_fw_cfg();
        devices.write(0x510, &[0x11, 0], &mut FakeMemory::default());
        assert_eq!(read(&mut devices, FW_CFG_DATA), [0xff; 3]);
        assert_eq!(read(&mut devices, 0x514), [0xff; 4]);
    }

    #[test]
    fn pci_functions_have_their_ids_and_zeros_elsewhere() {
        let fw_cfg = FakeFwCfg::new(false);
        let mut devices = Devices::new(fw_cfg, &host(0, &[(1, 3, 0x7113_8086)]), 64 << 20, false);
        let memory = &mut FakeMemory::default();
        let mut select = |devices: &mut Devices, at: u32| devices.write(PCI_ADDRESS, &at.to_le_bytes(), memory);
        for (at, expected) in [(0x8000_0b00, 0x7113_8086), (0x8000_0b04, 0), (0x8000_0000, u32::MAX)] {
            select(&mut devices, at);
            assert_eq!(u32::from_le_bytes(read(&mut devices, PCI_DATA)), expected, "{at:#x}");
        }
        select(&mut devices, 0x8000_0b00);
        assert_eq!(read(&mut devices, PCI_DATA + 2), 0x7113_u16.to_le_bytes());
        assert!(devices.pci_writes().is_empty());
        devices.write(PCI_DATA + 1, &[0], &mut FakeMemory::default());
        assert_eq!(devices.pci_writes(), [0x8000_0b01]);
    }

    #[test]
    fn cmos_has_the_size_of_ram_and_the_exit_port_ends_the_run() {
        let mut devices = devices(0, false);
        let memory = &mut FakeMemory::default();
        for (register, value) in [(0xb4, 0), (0xb5, 3), (0x8f, 0)] {
            devices.write(CMOS_INDEX, &[register], memory);
            assert_eq!(read(&mut devices, CMOS_DATA), [value], "{register:#x}");
        }
        assert_eq!(devices.write(EXIT_PORT, &[1, 2, 3, 4], memory), Some(0x0403_0201));
    }
}
