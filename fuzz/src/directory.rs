//! The fw_cfg device: transport and directory.
//!
//! Input: two bytes with the device's defects, and the bytes of the directory.

use arbitrary::Arbitrary;
use firstlight::fakes::fw_cfg::{Absent, AddressReads, FakeFwCfg, Quirks};
use firstlight::fakes::machine::FakeMachine;
use firstlight::fw_cfg::FwCfg;

use crate::input::Input;

/// How a device differs from QEMU's, as bits.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
pub struct Defects {
    /// With DMA.
    dma: bool,
    bits: u16,
}

impl Defects {
    /// QEMU's device, with DMA or without.
    #[must_use]
    pub const fn none(dma: bool) -> Self {
        Self { dma, bits: 0 }
    }

    /// Whether the device is as QEMU's.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.bits == 0
    }

    /// The device.
    #[must_use]
    pub fn device(self) -> FakeFwCfg {
        let bit = |bit: u32| self.bits >> bit & 1 != 0;
        let quirks = Quirks {
            address_reads: [AddressReads::AsQemu, AddressReads::LastAddress, AddressReads::Zero, AddressReads::AsQemu]
                [usize::from(self.bits & 3)],
            absent: [Absent::Empty, Absent::Refused, Absent::PreviousItem, Absent::Directory, Absent::NeverEnds]
                [usize::from(self.bits >> 2 & 7) % 5],
            id: bit(5).then_some(2),
            long_signature: bit(6),
            moves_control_bits: bit(7),
            selects_the_id: bit(8),
            short_id: bit(9),
            ignores_skip: bit(10),
            needs_high_half: bit(11),
            no_zero_fill: bit(12),
            leaves_a_short_string: bit(13),
            never_completes: bit(14),
            always_fails: bit(15),
            ..Quirks::default()
        };
        FakeFwCfg::new(self.dma).with_quirks(quirks)
    }
}

/// Reads the directory and looks up names in it. On a device without defects, exactly the names in it are found, each by its
/// first record.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let defects: Defects = input.take();
    let directory = input.rest();
    let mut machine = FakeMachine::new().with(defects.device().with_item(0x19, directory));
    machine.keeps_accesses = false;
    machine.ticks_per_look = 1 << 30;
    machine.most_steps = 1000;
    let Ok(fw_cfg) = FwCfg::probe(&mut machine) else { return };
    let found = |name: &str| fw_cfg.find(name).map(|item| (item.len(), item.key().get()));
    let records = records(directory);
    for name in ["etc/e820", "etc/table-loader", "", "etc/e82"] {
        let listed = records.iter().find(|record| record.0 == name.as_bytes()).map(|record| record.1);
        assert!(!defects.is_none() || found(name) == listed, "{name}");
    }
    for (name, _) in &records {
        let Ok(name) = str::from_utf8(name) else { continue };
        let listed = records.iter().find(|record| record.0 == name.as_bytes()).map(|record| record.1);
        assert!(!defects.is_none() || found(name) == listed, "{name}");
    }
}

/// A record: its name, length and key.
type Record = (Vec<u8>, (u32, u16));

/// The records of which the device's bytes are the directory. What they lack is zero.
fn records(directory: &[u8]) -> Vec<Record> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number: u32, &byte| number << 8 | u32::from(byte));
    let mut bytes = directory.to_vec();
    bytes.resize(bytes.len().max(4), 0);
    let count = number(&bytes[..4]) as usize;
    bytes.drain(..4);
    bytes.resize(count.min(1024) * 64, 0);
    let record = |record: &[u8]| {
        let name = record[8..].split(|&byte| byte == 0).next().unwrap_or_default();
        (name.to_vec(), (number(&record[..4]), number(&record[4..6]) as u16))
    };
    bytes.chunks(64).map(record).collect()
}

/// Directories of real machines, on each known kind of device.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for machine in crate::machines() {
        let mut directory = (machine.len() as u32).to_be_bytes().to_vec();
        for ((name, bytes), key) in machine.iter().zip(0x20_u16..) {
            directory.extend((bytes.len() as u32).to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            directory.extend(name.as_bytes());
            directory.resize(directory.len() + 56 - name.len(), 0);
        }
        for (dma, bits) in [(1, 0_u16), (0, 0), (1, 1 | 1 << 7 | 1 << 12), (1, 2 | 1 << 5), (1, 1 << 14)] {
            seeds.push([&[dma], &bits.to_le_bytes()[..], &directory].concat());
        }
    }
    seeds
}
