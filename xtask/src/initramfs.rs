//! The default guest's initramfs: busybox, three scripts, some kernel modules, and a payload the guest checks.
//!
//! The same input gives the same bytes: entries are in order, and times and owners are zero.

use std::collections::BTreeMap;
use std::io::Write;

use crate::modules::Module;

/// The first program of the guest.
const INIT: &str = include_str!("../guest/init");

/// The functions with which the guest powers off and reboots.
const LEAVE: &str = include_str!("../guest/leave");

/// The program that prints the guest's report.
const REPORT: &str = include_str!("../guest/report");

/// The payload's size. It has many pages, and needs several transfers on a host with small ones.
const PAYLOAD_BYTES: usize = 1 << 20;

/// The SHA-256 of the payload, for the guest's check.
const PAYLOAD_SHA256: &str = "bc9d1d01517351f3e2c02d32495b3bfbcba5ec54e5f1a44b06f51755d0086a01";

/// File types and permissions, as in `st_mode` (POSIX, `<sys/stat.h>`).
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// The device numbers of `/dev/console` (Linux, `Documentation/admin-guide/devices.txt`).
const CONSOLE: (u32, u32) = (5, 1);

/// Type and permissions, device numbers, bytes.
type Entry<'a> = (u32, (u32, u32), &'a [u8]);

/// Packs the initramfs as a cpio archive in the format `newc`. It is not compressed, because unpacking would take the guest longer
/// than the larger transfer.
pub fn pack(busybox: &[u8], modules: &[Module]) -> anyhow::Result<Vec<u8>> {
    let payload = payload();
    let checksum = format!("{PAYLOAD_SHA256}  /payload\n");
    let order: String = modules.iter().map(|module| format!("{}\n", module.name)).collect();

    // Sorted by path, so that a folder comes before its contents.
    let mut entries = BTreeMap::new();
    for path in ["bin", "dev", "etc", "modules", "proc", "root", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/sbin"] {
        entries.insert(path.to_owned(), (FOLDER, (0, 0), [].as_slice()));
    }
    let mut file = |path: &str, mode, bytes| entries.insert(path.to_owned(), (mode, (0, 0), bytes));
    file("bin/busybox", PROGRAM, busybox);
    file("bin/report", PROGRAM, REPORT.as_bytes());
    file("etc/leave", FILE, LEAVE.as_bytes());
    file("init", PROGRAM, INIT.as_bytes());
    file("modules/order", FILE, order.as_bytes());
    for module in modules {
        file(&format!("modules/{}.ko", module.name), FILE, &module.bytes);
    }
    file("payload", FILE, &payload);
    file("payload.sha256", FILE, checksum.as_bytes());
    entries.insert("dev/console".to_owned(), (CHARACTER_DEVICE, CONSOLE, [].as_slice()));
    archive(&entries)
}

/// Packs programs and libraries, each with its path in the guest, as a second archive. It is put behind the first, and the kernel
/// unpacks both.
pub fn pack_programs(files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<Vec<u8>> {
    let mut entries = BTreeMap::new();
    for (path, bytes) in files {
        for (end, _) in path.match_indices('/') {
            entries.insert(path[..end].to_owned(), (FOLDER, (0, 0), [].as_slice()));
        }
        entries.insert(path.clone(), (PROGRAM, (0, 0), bytes.as_slice()));
    }
    archive(&entries)
}

fn archive(entries: &BTreeMap<String, Entry<'_>>) -> anyhow::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for (number, (path, (mode, (major, minor), bytes))) in (1..).zip(entries) {
        let header = cpio::NewcBuilder::new(path).ino(number).mode(*mode).rdev_major(*major).rdev_minor(*minor);
        let mut writer = header.write(&mut archive, u32::try_from(bytes.len())?);
        writer.write_all(bytes)?;
        writer.finish()?;
    }
    cpio::newc::trailer(&mut archive)?;
    Ok(archive)
}

/// Bytes without repetition, so that a lost, doubled or moved part changes the checksum: the output of SplitMix64 (Steele, Lea and
/// Flood, "Fast splittable pseudorandom number generators", 2014), each word in little-endian order.
fn payload() -> Vec<u8> {
    let mut state = 0u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    (0..PAYLOAD_BYTES / 8).flat_map(|_| next().to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_payload() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("payload");
        std::fs::write(&path, payload()).unwrap();
        let output = Command::new("sha256sum").arg(&path).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(printed.split(' ').next(), Some(PAYLOAD_SHA256));
    }
}
