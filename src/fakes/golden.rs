//! The fw_cfg items of real machines, and what real programs write on disks, for tests (`tests/data/README.md`).

extern crate std;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::string::{String, ToString};
use std::vec::Vec;

use super::blocks::FakeBlocks;
use super::fw_cfg::FakeFwCfg;
use crate::disk::BlockLen;

/// The captured items of a machine by name, at their full length.
///
/// # Panics
/// If there is no such machine.
#[must_use]
pub fn items(machine: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(machine);
    let sizes = fs::read_to_string(folder.join("sizes")).unwrap();
    let item = |line: &str| {
        let (name, size) = line.split_once(' ').unwrap();
        let mut bytes = fs::read(folder.join(name.rsplit('/').next().unwrap())).unwrap();
        bytes.resize(size.parse().unwrap(), 0);
        (name.to_string(), bytes)
    };
    sizes.lines().map(item).collect()
}

/// A file that the captured machines have as well, here empty. The firmware identifies QEMU by its name.
pub const QEMU_FILE: &str = "bios-geometry";

/// A device that offers a captured machine's items.
#[must_use]
pub fn device(machine: &str, dma: bool) -> FakeFwCfg {
    let device = items(machine).iter().fold(FakeFwCfg::new(dma), |device, (name, bytes)| device.with_file(name, bytes));
    device.with_file(QEMU_FILE, &[])
}

/// A command of the table-loader language that allocates a file below 4 GiB.
///
/// # Panics
/// If the name is too long for a command.
#[must_use]
pub fn allocate(file: &str) -> [u8; 128] {
    let mut command = [0; 128];
    command[0] = 1;
    command[4..4 + file.len()].copy_from_slice(file.as_bytes());
    command[60] = 1;
    command[64] = 1;
    command
}

/// The names of the captured disks.
pub const DISKS: [&str; 8] = ["gpt", "gpt-4096", "mbr", "logical", "fat-mkfs", "fat-mformat", "cd", "cd-grub"];

/// A captured disk, and the lines that say what is on it.
///
/// # Panics
/// If there is no such disk.
#[must_use]
pub fn disk(name: &str) -> (FakeBlocks, Vec<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/disks").join(name);
    let text = fs::read_to_string(path).unwrap();
    let (mut disk, mut said) = (FakeBlocks::new(&[]), Vec::new());
    for line in text.lines() {
        let (first, rest) = line.split_once(' ').unwrap();
        match first {
            "disk" => {
                let (block_len, blocks) = rest.split_once(' ').unwrap();
                let block_len = BlockLen::new(block_len.parse().unwrap()).unwrap();
                disk = FakeBlocks::empty(block_len, blocks.parse().unwrap());
            }
            "partition" | "signature" => said.push(line.to_string()),
            at => {
                let digits = rest.as_bytes().chunks(2).map(|digits| std::str::from_utf8(digits).unwrap());
                let bytes: Vec<_> = digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
                disk.disk.store(u64::from_str_radix(at, 16).unwrap(), &bytes);
            }
        }
    }
    (disk, said)
}
