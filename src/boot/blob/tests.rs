extern crate std;

use std::vec::Vec;

use super::*;
use crate::boot::extras::Extras;
use crate::boot::kernel_file::KernelFile;
use crate::fakes::fw_cfg::FakeFwCfg;
use crate::fakes::machine::FakeMachine;

const KEY: u16 = 0x20;
const FROM: u64 = 0x20_0000;

fn bytes() -> Vec<u8> {
    (0..5000_u32).map(|i| ((i * 7) ^ (i >> 8)) as u8).collect()
}

/// The same bytes as an item, in the machine's memory and in the firmware's.
fn blobs(bytes: &[u8]) -> [Blob<'_>; 3] {
    let len = bytes.len();
    let item = Item::new(Key::new(KEY), len as u32);
    [item.into(), Blob::Memory(PhysRange::new(PhysAddr::new(FROM), len as u64).unwrap()), Blob::Bytes(bytes)]
}

#[test]
fn a_part_has_the_same_bytes_in_an_item_and_in_memory() {
    let bytes = bytes();
    for (first, second) in [(0, 5000), (0, 0), (512, 1024), (4999, 1), (4999, 100), (5000, 1), (6000, 7)] {
        let start = bytes.len().min(first);
        let expected = &bytes[start..bytes.len().min(first + second)];
        for blob in blobs(&bytes) {
            let mut machine = FakeMachine::new().with(FakeFwCfg::new(true).with_item(KEY, &bytes));
            machine.memory.store(FROM, &bytes);
            let fw_cfg = FwCfg::probe(&mut machine).unwrap();
            let (piece, rest) = blob.split_at(first as u32).1.split_at(second as u32);
            assert_eq!(piece.len() + rest.len(), (bytes.len() - start) as u64, "{blob:?}");
            assert_eq!(piece.read(&mut machine, &fw_cfg).unwrap(), expected, "{blob:?}");
            let place = piece.load(&mut machine, &fw_cfg, PhysAddr::new(0x30_0000)).unwrap();
            assert_eq!(place, PhysRange::new(PhysAddr::new(0x30_0000), expected.len() as u64).unwrap());
            assert_eq!(machine.memory.bytes(0x30_0000, expected.len()), expected, "{blob:?}");
        }
    }
}

#[test]
fn a_blob_longer_than_4_gib_has_its_full_length() {
    let module = Blob::Memory(PhysRange::new(PhysAddr::new(1 << 32), 5 << 30).unwrap());
    assert_eq!(KernelFile::Whole(module).code(0x5000).len(), (5 << 30) - 0x5000);
    assert_eq!(Extras { initrd: module, ..Extras::default() }.needs(0).initrd, 5 << 30);
}
