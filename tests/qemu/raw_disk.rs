//! Disks of random bytes, and what every driver of a controller must do with one. No guest runs: the drivers do, on this host,
//! with QEMU's own devices.

use std::fs;

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::disk::{Controller, Error, Unit};
use tempfile::NamedTempFile;

use crate::qtest::Qtest;
use crate::random;

/// RAM of the machines that nothing else is in, where the driver's room is, and where data are read to.
pub const RAM: std::ops::Range<u64> = 16 << 20..112 << 20;
pub const ROOM: u64 = 16 << 20;
pub const DATA: u64 = 32 << 20;
/// The length of a disk, not a multiple of a MiB.
pub const LEN: usize = (2 << 20) + 4096 * 3;

/// A disk with random bytes.
pub struct Disk {
    file: NamedTempFile,
    pub bytes: Vec<u8>,
}

impl Disk {
    pub fn new() -> Self {
        Self::of(16)
    }

    /// The disk of this number: no two have the same bytes.
    pub fn of(number: u64) -> Self {
        let (file, bytes) = (NamedTempFile::new().expect("a temporary file"), random::bytes(number, LEN));
        fs::write(file.path(), &bytes).expect("a disk");
        Self { file, bytes }
    }

    /// QEMU's argument for it, as the drive `name`.
    pub fn drive(&self, name: &str) -> String {
        format!("-drive if=none,format=raw,file={},id={name}", self.file.path().display())
    }

    /// Starts QEMU with it as the drive `disk`.
    pub fn start(&self, arguments: &str) -> Qtest {
        self.start_as("disk", arguments)
    }

    /// Starts QEMU with it as the drive of this name, after which can be more options.
    pub fn start_as(&self, name: &str, arguments: &str) -> Qtest {
        let arguments = format!("-m 128M {} {arguments}", self.drive(name));
        Qtest::start("qemu-system-x86_64", &arguments, RAM)
    }
}

/// The range of these bytes.
pub fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).expect("a range")
}

/// The units of a controller.
pub fn units(host: &mut Qtest, controller: &mut impl Controller<Qtest>) -> Vec<Unit> {
    let mut units = Vec::new();
    controller.units(host, &mut |unit| units.push(unit)).expect("units");
    units
}

/// The only unit.
pub fn unit(host: &mut Qtest, controller: &mut impl Controller<Qtest>) -> Unit {
    let units = units(host, controller);
    let [unit] = units[..] else { panic!("{units:?}") };
    unit
}

/// Reads the only disk of a controller by its driver: single blocks, all of it, to any address, and what is not there. Stops the
/// controller.
pub fn check(host: &mut Qtest, controller: &mut impl Controller<Qtest>, disk: &Disk, block_len: usize) {
    let unit = unit(host, controller);
    check_unit(host, controller, &unit, disk, block_len);
    controller.stop(host).unwrap();
}

/// The same for one of the units. The controller is not stopped.
pub fn check_unit(
    host: &mut Qtest,
    controller: &mut impl Controller<Qtest>,
    unit: &Unit,
    disk: &Disk,
    block_len: usize,
) {
    assert_eq!(unit.media.block_len.get() as usize, block_len);
    assert_eq!(unit.media.blocks as usize, LEN / block_len);
    let last = unit.media.blocks - 1;
    for first in [0, 1, last] {
        for to in [DATA, DATA + 1, DATA + 0xfff] {
            controller.read(host, unit, first, range(to, block_len as u64)).expect("a block");
            let expected = &disk.bytes[first as usize * block_len..][..block_len];
            assert!(host.ram(to, block_len) == expected, "block {first} to {to:#x}");
        }
    }
    let len = LEN / 2 / block_len * block_len;
    controller.read(host, unit, 1, range(DATA, len as u64)).expect("many blocks");
    assert!(host.ram(DATA, len) == disk.bytes[block_len..][..len], "many blocks");
    controller.read(host, unit, 0, range(DATA, LEN as u64)).expect("the whole disk");
    assert!(host.ram(DATA, LEN) == disk.bytes, "the whole disk");
    for (first, len) in [(last, 2 * block_len), (last + 1, block_len), (u64::MAX, block_len), (0, block_len - 1)] {
        let error = controller.read(host, unit, first, range(DATA, len as u64)).unwrap_err();
        assert_eq!(error, Error::OutOfRange, "{first}, {len}");
    }
}
