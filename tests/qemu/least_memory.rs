//! The least memory in which the distribution's kernel boots to user space: no more than under SeaBIOS.
//!
//! Near the limit, the kernel itself runs out of memory in some boots while it unpacks the initramfs, under any firmware. So
//! the memory that it has left is compared with slightly more memory, where this does not happen. With the least memory, one
//! boot of a few has to succeed. The kernel's address is not randomised here.

use std::thread;
use std::time::{Duration, Instant};

use crate::linux::{self, Report, TSC_IS_KNOWN};
use crate::machine::{Firmware, Kind, Machine};
use crate::microvm;

/// With so many MiB more than the least, no boot runs out of memory.
const ENOUGH: u32 = 6;

/// Of how many boots with the least memory one has to succeed.
const ATTEMPTS: usize = 8;

/// How long a kernel that boots may take. Most failed boots print an error and make QEMU exit; some are silent.
const LIMIT: Duration = Duration::from_secs(60);

/// The memory in KiB that the kernel has left, if it boots with so many MiB.
fn boots(machine: &Machine, firmware: Firmware, mib: u32) -> Option<u64> {
    let machine = Machine { firmware, ..machine.clone() }.with(&format!("-m {mib}M"));
    let mut qemu = linux::guest(&machine, &format!("nokaslr panic=-1 {TSC_IS_KNOWN}")).start();
    let start = Instant::now();
    while qemu.is_running() && !qemu.com1().contains(linux::END) && start.elapsed() < LIMIT {
        thread::sleep(Duration::from_millis(50));
    }
    let com1 = qemu.com1();
    eprintln!("{firmware:?}, {mib} MiB: {}", com1.lines().last().unwrap_or_default());
    let is_whole = com1.contains(linux::END);
    is_whole.then(|| Report::parse(&com1).one("memory-kib").parse().expect("a number"))
}

/// Checks that the kernel has no less left than under SeaBIOS, and that `least` MiB are enough. With one less it has not booted
/// under SeaBIOS (`docs/kernels.md`).
fn check(machine: &Machine, least: u32) {
    let [ours, of_seabios] = [Firmware::Firstlight, Firmware::SeaBios]
        .map(|firmware| boots(machine, firmware, least + ENOUGH).expect("a kernel that boots with enough memory"));
    assert!(ours >= of_seabios, "{ours} KiB left, under SeaBIOS {of_seabios}");
    let booted = (0..ATTEMPTS).any(|_| boots(machine, Firmware::Firstlight, least).is_some());
    assert!(booted, "it never boots with {least} MiB");
}

#[test]
fn q35_boots_with_as_little_memory_as_under_seabios() {
    check(&Machine::new(Kind::Q35), 74);
}

#[test]
fn pc_boots_with_as_little_memory_as_under_seabios() {
    check(&Machine::new(Kind::Pc), 74);
}

#[test]
fn microvm_boots_with_as_little_memory_as_under_seabios() {
    check(&microvm::machine(&["acpi", "isa-serial", "rtc", "pit", "pic"]), 73);
}
