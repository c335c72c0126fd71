//! Devices that are plugged in while Linux runs.

use std::fs;

use tempfile::TempDir;

use crate::linux::sha256;
use crate::machine::{Kind, Machine};
use crate::random;
use crate::script;

/// What the guest prints when it waits for devices.
const READY: &str = "ready for a device";

/// The number of QEMU's test device, as Linux prints it.
const TEST_DEVICE: &str = "0x0005";

/// Boots `machine`, plugs a disk in at `disk_at` and QEMU's test device at `test_at` (each as the properties for QMP), and
/// checks that the guest reads the disk. Returns the sizes of the test device's registers; zero for one without an address.
fn plug(machine: &Machine, disk_at: &str, test_at: &str) -> Vec<u64> {
    let folder = TempDir::new().expect("a temporary folder");
    let disk = folder.path().join("disk");
    let content = random::bytes(9, 1 << 20);
    fs::write(&disk, &content).expect("a file in the temporary folder");
    let drive = format!("-drive if=none,id=disk,format=raw,readonly=on,file={}", disk.display());
    let script = format!(
        "echo {READY}
         test_device() {{ for at in /sys/bus/pci/devices/*; do [ $(cat $at/device) = {TEST_DEVICE} ] && echo $at; done; }}
         tries=0
         until [ -b /dev/vda ] && [ -n \"$(test_device)\" ]; do
             tries=$((tries + 1)); [ $tries -lt 60 ] || break; sleep 1
         done
         dd if=/dev/vda bs=512 count=2048 2>/dev/null | sha256sum
         head -n 6 $(test_device)/resource"
    );
    let printed = script::run_with(&machine.clone().with(&drive), &script, |qemu| {
        qemu.wait_for("a guest that waits", |qemu| qemu.com1().contains(READY));
        let mut qmp = qemu.qmp();
        qmp.run("device_add", &format!("{{\"driver\": \"virtio-blk-pci\", \"drive\": \"disk\", {disk_at}}}"));
        qmp.run("device_add", &format!("{{\"driver\": \"pci-testdev\", {test_at}}}"));
    });
    eprintln!("{printed}");
    let mut lines = printed.lines().skip(1);
    let sum = lines.next().and_then(|line| line.split_whitespace().next());
    assert_eq!(sum, Some(sha256(folder.path(), &content).as_str()), "what the guest reads from the disk");
    let number = |hexadecimal: &str| u64::from_str_radix(hexadecimal.trim_start_matches("0x"), 16).expect("a number");
    let size = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().map(number).collect();
        let [start, end, _] = fields[..] else { panic!("no resource: {line}") };
        if start == 0 { 0 } else { end - start + 1 }
    };
    lines.map(size).collect()
}

/// The second has more memory than an empty port takes by itself, so this is what the host asked to keep.
#[test]
fn a_disk_and_a_large_device_can_be_plugged_in_behind_empty_root_ports() {
    let machine = Machine::new(Kind::Q35)
        .with("-device pcie-root-port,id=a,chassis=1")
        .with("-device pcie-root-port,id=b,chassis=2,pref64-reserve=4G,io-reserve=4K");
    let sizes = plug(&machine, "\"bus\": \"a\"", "\"bus\": \"b\", \"membar\": 4294967296");
    assert_eq!(sizes, [0x1000, 0x100, 4 << 30, 0, 0, 0]);
}

/// As before, for memory below 4 GiB; and there are ports for both.
#[test]
fn a_disk_and_a_device_with_ports_can_be_plugged_in_behind_an_empty_bridge() {
    let machine = Machine::new(Kind::Pc).with("-device pci-bridge,id=a,chassis_nr=1,mem-reserve=64M");
    let at = |slot: u8| format!("\"bus\": \"a\", \"addr\": \"{slot}\"");
    let sizes = plug(&machine, &at(1), &format!("{}, \"membar\": 33554432", at(2)));
    assert_eq!(sizes, [0x1000, 0x100, 32 << 20, 0, 0, 0]);
}
