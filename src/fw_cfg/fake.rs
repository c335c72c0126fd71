//! A fw_cfg device for host tests, with the defects of known hosts to choose from.
#![forbid(unsafe_code)]

extern crate std;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use crate::hal::fake::{FakeDevice, FakeMemory};

/// How a device departs from QEMU's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quirks {
    /// The DMA address register does not read as "QEMU CFG" (Cloud Hypervisor, propolis).
    pub no_dma_signature: bool,
    /// SELECT in the control word is ignored, and SKIP and WRITE are errors (Cloud Hypervisor).
    pub ignores_select: bool,
    /// A transfer starts only when the high half of the address was written just before (AxVisor).
    pub needs_high_half: bool,
    /// Bit 0 of the identification is clear (crosvm, AxVisor).
    pub no_traditional_bit: bool,
    /// What a read does not reach in memory stays as it was (Cloud Hypervisor, alioth).
    pub no_zero_fill: bool,
    /// Transfers never end (StratoVirt, for keys it does not know).
    pub never_completes: bool,
    /// Every transfer fails.
    pub always_fails: bool,
}

/// What the device did, for a test to look at while the machine owns the device.
#[derive(Debug, Default)]
pub struct Record {
    /// DMA transfers that were started.
    pub transfers: u32,
    /// Bytes asked for past the end of the selected item, or with none selected.
    pub past_end: u64,
    /// Bytes written to items: key, offset, contents.
    pub written: Vec<(u16, u32, Vec<u8>)>,
}

/// The device.
pub struct FakeFwCfg {
    items: BTreeMap<u16, Vec<u8>>,
    names: Vec<(Vec<u8>, u16)>,
    dma: bool,
    quirks: Quirks,
    selected: u16,
    offset: usize,
    high: Option<u32>,
    record: Rc<RefCell<Record>>,
}

impl FakeFwCfg {
    /// A device as QEMU has it, with DMA or without.
    #[must_use]
    pub fn new(dma: bool) -> Self {
        Self {
            items: BTreeMap::from([(0, b"QEMU".to_vec())]),
            names: Vec::new(),
            dma,
            quirks: Quirks::default(),
            selected: 0,
            offset: 0,
            high: None,
            record: Rc::default(),
        }
    }

    /// With defects.
    #[must_use]
    pub fn with_quirks(mut self, quirks: Quirks) -> Self {
        self.quirks = quirks;
        self
    }

    /// With an item in no directory.
    #[must_use]
    pub fn with_item(mut self, key: u16, bytes: &[u8]) -> Self {
        self.items.insert(key, bytes.to_vec());
        self
    }

    /// With a named item.
    #[must_use]
    pub fn with_file(mut self, name: &str, bytes: &[u8]) -> Self {
        let key = 0x20 + self.names.len() as u16;
        self.names.push((name.as_bytes().to_vec(), key));
        self.with_item(key, bytes)
    }

    /// The record of what the device does.
    #[must_use]
    pub fn record(&self) -> Rc<RefCell<Record>> {
        self.record.clone()
    }

    fn item(&self, key: u16) -> Option<Vec<u8>> {
        match key {
            1 => {
                let traditional = u32::from(!self.quirks.no_traditional_bit);
                Some((traditional | u32::from(self.dma) << 1).to_le_bytes().to_vec())
            }
            0x19 => self.items.get(&0x19).cloned().or_else(|| Some(self.directory())),
            _ => self.items.get(&key).cloned(),
        }
    }

    fn directory(&self) -> Vec<u8> {
        let mut bytes = (self.names.len() as u32).to_be_bytes().to_vec();
        for (name, key) in &self.names {
            bytes.extend((self.items[key].len() as u32).to_be_bytes());
            bytes.extend(key.to_be_bytes());
            bytes.extend([0; 2]);
            let mut field = name.clone();
            field.resize(56, 0);
            bytes.extend(field);
        }
        bytes
    }

    fn next_byte(&mut self) -> Option<u8> {
        let byte = self.item(self.selected).and_then(|item| item.get(self.offset).copied());
        self.offset += 1;
        if byte.is_none() {
            self.record.borrow_mut().past_end += 1;
        }
        byte
    }

    fn transfer(&mut self, at: u64, memory: &mut FakeMemory) {
        self.record.borrow_mut().transfers += 1;
        if self.quirks.never_completes {
            return;
        }
        let descriptor = memory.bytes(at, 16);
        let word = |i: usize| u32::from_be_bytes(descriptor[i..i + 4].try_into().unwrap());
        let (control, len) = (word(0), word(4) as usize);
        let address = u64::from(word(8)) << 32 | u64::from(word(12));
        let mut failed = self.quirks.always_fails;
        if control & 8 != 0 && !self.quirks.ignores_select {
            self.selected = (control >> 16) as u16;
            self.offset = 0;
        }
        if control & 2 != 0 && !failed {
            for i in 0..len {
                match self.next_byte() {
                    Some(byte) => memory.store(address + i as u64, &[byte]),
                    None if self.quirks.no_zero_fill => {}
                    None => memory.store(address + i as u64, &[0]),
                }
            }
        } else if control & 16 != 0 && !failed {
            failed = self.quirks.ignores_select || !self.items.contains_key(&self.selected);
            if !failed {
                let bytes = memory.bytes(address, len);
                self.record.borrow_mut().written.push((self.selected, self.offset as u32, bytes));
            }
        } else if control & 4 != 0 && !failed {
            failed = self.quirks.ignores_select;
            self.offset += len;
        }
        memory.store(at, &u32::from(failed).to_be_bytes());
    }
}

impl FakeDevice for FakeFwCfg {
    fn claims(&self, port: u16) -> bool {
        (0x510..0x51c).contains(&port)
    }

    fn read(&mut self, port: u16, size: u8, _memory: &mut FakeMemory) -> u32 {
        match (port, size) {
            (0x511, 1) => self.next_byte().unwrap_or(0).into(),
            (0x514, 4) if self.dma && !self.quirks.no_dma_signature => u32::from_le_bytes(*b"QEMU"),
            (0x518, 4) if self.dma && !self.quirks.no_dma_signature => u32::from_le_bytes(*b" CFG"),
            (0x514 | 0x518, _) if !self.dma => u32::MAX,
            _ => 0,
        }
    }

    fn write(&mut self, port: u16, size: u8, value: u32, memory: &mut FakeMemory) {
        match (port, size) {
            (0x510, 2) => {
                self.selected = value as u16;
                self.offset = 0;
            }
            (0x514, 4) if self.dma => self.high = Some(value.swap_bytes()),
            (0x518, 4) if self.dma => {
                let high = self.high.take();
                if high.is_some() || !self.quirks.needs_high_half {
                    self.transfer(u64::from(high.unwrap_or(0)) << 32 | u64::from(value.swap_bytes()), memory);
                }
            }
            _ => {}
        }
    }
}
