//! Suspend to RAM and wake, as Linux sees it: devices, memory and time are unchanged, and the host finds the generation ID.

use std::fs;

use tempfile::TempDir;

use crate::efi_entry::ON;
use crate::environment;
use crate::linux::LATE_TIMERS;
use crate::machine::{Kind, Machine, Qemu};
use crate::random;
use crate::script;
use crate::sleep::wake_when_asleep;

/// What the guest prints when everything that it prepared is there and it is about to sleep; it goes on in the next line.
const SLEEPS: &str = "sleeps";

/// A script for the guest: sleeps twice, and prints before and after it what should be the same. The second time the
/// real-time clock wakes it.
const TWICE: &str = r#"
state() {
    echo 3 >/proc/sys/vm/drop_caches
    echo "cpus $(grep -c ^processor /proc/cpuinfo)"
    echo "memory $(sha256sum </tmp/memory/data)"
    echo "disk $(sha256sum </dev/vda)"
    echo "memory types $(sha256sum </proc/mtrr) of CPUs $(cat /sys/devices/system/cpu/online)"
    echo "clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)"
    udhcpc -i eth0 -n -q -t 10 -T 1 -s /bin/true 2>&1 | grep -o 'lease of .* obtained'
    lspci -vv 2>/dev/null | sed -e '/Latency/d' -e '/LnkSta/d' -e '/DevSta/d' -e '/Status:/d' | sha256sum
}
mkdir /tmp/memory
mount -t tmpfs -o size=64m tmpfs /tmp/memory
dd if=/dev/urandom of=/tmp/memory/data bs=1M count=24 2>/dev/null
ip link set eth0 up
state >/tmp/before
cat /tmp/before
dmesg -c >/dev/null
echo deep >/sys/power/mem_sleep
for round in 1 2; do
    start=$(date +%s)
    clock=$(cut -d . -f 1 /proc/uptime)
    [ $round = 2 ] && echo +2 >/sys/class/rtc/rtc0/wakealarm
    echo "sleeps"
    echo mem >/sys/power/state || echo "round $round: the kernel does not sleep"
    state >/tmp/after
    cmp -s /tmp/before /tmp/after && echo "round $round: as before" || diff /tmp/before /tmp/after
    slept=$(($(date +%s) - start))
    clock=$(($(cut -d . -f 1 /proc/uptime) - clock))
    # Within what a busy host takes, and never backwards.
    [ $slept -ge 0 ] && [ $slept -le 60 ] && [ $clock -ge 0 ] && [ $clock -le 60 ] || echo "round $round: $slept s, $clock s"
    # Two seconds of the RTC, which sets the clock at a wake: whole seconds of both can differ by one.
    [ $round = 1 ] || [ $slept -ge 1 ] || echo "the alarm came after $slept s"
    dmesg -c >/tmp/log
    grep -q 'Low-level resume complete' /tmp/log || echo "round $round: no resume in the log"
    grep -v no_console_suspend /tmp/log | grep -iE 'bug|error|warn|fail|timed? ?out|mtrr|can.t|invalid|unable|not respond'
done
true
"#;

/// Devices behind bridges, whose registers and their bridges' are at reset values after a wake.
fn devices(kind: Kind) -> &'static str {
    match kind {
        Kind::Q35 => {
            "-device pcie-root-port,id=a,chassis=1 -device virtio-blk-pci,bus=a,drive=disk \
             -device pcie-root-port,id=b,chassis=2 -device virtio-net-pci,bus=b,netdev=net"
        }
        Kind::Pc => {
            "-device pci-bridge,id=a,chassis_nr=1 -device virtio-blk-pci,bus=a,addr=1,drive=disk \
             -device virtio-net-pci,bus=a,addr=2,netdev=net"
        }
    }
}

fn sleeps_twice(kind: Kind, option: &str) {
    let folder = TempDir::new().expect("a temporary folder");
    let disk = folder.path().join("disk");
    fs::write(&disk, random::bytes(8, 2 << 20)).expect("a file in the temporary folder");
    let machine = Machine { cpus: 2, memory: "256M", ..Machine::new(kind) }
        .with(&format!("-drive if=none,id=disk,format=raw,readonly=on,file={}", disk.display()))
        .with("-netdev user,id=net,restrict=on")
        .with(devices(kind))
        .with(option);
    let printed = script::run_with(&machine, TWICE, |qemu| {
        qemu.wait_for("sleep", |qemu| qemu.com1().contains(SLEEPS));
        wake_when_asleep(qemu);
    });
    let (before, after) = printed.split_once("sleeps\n").expect("a guest that sleeps");
    assert!(before.starts_with("cpus 2\n") && before.contains("lease of "), "{before}");
    assert_eq!(after, "round 1: as before\nsleeps\nround 2: as before\n");
}

#[test]
fn linux_on_q35_sleeps_twice_with_its_state_unchanged() {
    sleeps_twice(Kind::Q35, "");
}

#[test]
fn linux_on_pc_sleeps_twice_with_its_state_unchanged() {
    sleeps_twice(Kind::Pc, "");
}

/// The end of boot services clears the stack beside the record of the boot.
#[test]
fn linux_entered_by_efi_sleeps_twice_with_its_state_unchanged() {
    sleeps_twice(Kind::Q35, ON);
}

/// The identifiers of a guest and of its copy; the latter also as two little-endian numbers in memory, where its first
/// three parts are little-endian themselves.
const ORIGINAL: &str = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87";
const COPY: &str = "7d1b3c52-5f0e-4d8e-9a44-0c6b2f8e1a90";
const COPY_IN_MEMORY: &str = "0x4D8E5F0E7D1B3C52 0x901A8E2F6B0C449A";

/// A script for the guest: sleeps once, and waits for the event that tells it that it is a copy. The kernel of the tests
/// has no driver that would do this: Debian builds its cloud kernels without.
const IS_COPIED: &str = r#"
address=$(od -An -tu8 /sys/firmware/qemu_fw_cfg/by_name/etc/vmgenid_addr/raw)
events() { awk '{ print $1 }' /sys/firmware/acpi/interrupts/gpe05; }
echo "events $(events)"
echo deep >/sys/power/mem_sleep
echo sleeps
echo mem >/sys/power/state
echo awake
for second in $(seq 90); do
    [ "$(events)" = 0 ] || break
    sleep 1
done
echo "events $(events)"
echo "identifier $(devmem $((address)) 64) $(devmem $((address + 8)) 64)"
"#;

/// Ends the original, and starts the copy with its state.
fn copied(mut original: Qemu, mut copy: Machine) -> Qemu {
    let state = original.folder().join("state");
    original.qmp().run("migrate", &format!("{{\"uri\": \"exec:cat >{}\"}}", state.display()));
    original.wait_for("a copy", |qemu| qemu.qmp().run("query-migrate", "{}").contains("\"completed\""));
    copy.arguments.extend(["-incoming".to_owned(), format!("exec:cat {}", state.display())]);
    let mut copy = copy.start();
    // All of the state has been read when the copy runs.
    copy.wait_for("the control socket", |qemu| qemu.folder().join("qmp").exists());
    copy.wait_for("the state", |qemu| qemu.qmp().run("query-status", "{}").contains("\"running\": true"));
    copy
}

/// QEMU writes the identifier into a copy's memory and sends the event only if it knows the address. A reset makes QEMU
/// forget the address.
#[test]
fn a_copy_of_a_suspended_guest_gets_a_new_generation_id() {
    let folder = TempDir::new().expect("a temporary folder");
    let script = folder.path().join("script");
    fs::write(&script, IS_COPIED).expect("a file in the temporary folder");
    let guest = |identifier: &str| {
        let machine = Machine::new(Kind::Q35).with(&format!("-device vmgenid,guid={identifier}"));
        script::guest(&machine, &script)
    };

    let mut original = guest(ORIGINAL).start();
    original.wait_for("sleep", |qemu| qemu.com1().contains(SLEEPS));
    wake_when_asleep(&mut original);
    original.wait_for("wake", |qemu| qemu.com1().contains("awake"));
    assert!(original.com1().contains("events 0\r\n"), "an event before there is a copy");
    let mut copy = copied(original, guest(COPY));
    copy.wait_for_end();
    let printed = copy.com1();
    assert!(printed.contains("events 1\r\n"), "no event");
    assert!(printed.contains(&format!("identifier {COPY_IN_MEMORY}\r\n")), "not the copy's identifier");
}

/// Debian's ordinary kernel has the driver. Here it has no root file system, and waits for one.
#[test]
fn the_kernels_driver_sees_the_generation_id_of_a_copy() {
    let guest = |identifier: &str| {
        Machine {
            memory: "256M",
            kernel: Some(environment::console_kernel()),
            append: Some(format!("console=ttyS0 {LATE_TIMERS} random.trust_cpu=on root=/dev/none rootwait")),
            ..Machine::new(Kind::Q35)
        }
        .with("-cpu max")
        .with(&format!("-device vmgenid,guid={identifier}"))
    };
    const SEEN: &str = "crng reseeded due to virtual machine fork";
    let mut original = guest(ORIGINAL).start();
    original.wait_for("Linux", |qemu| qemu.com1().contains("Waiting for root device"));
    assert!(!original.com1().contains(SEEN), "there is no copy yet");
    let mut copy = copied(original, guest(COPY));
    copy.wait_for("the driver", |qemu| qemu.com1().contains(SEEN));
}
