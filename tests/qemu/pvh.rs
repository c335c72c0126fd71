//! ELF files with a PVH note, which QEMU loads itself: the probe, and the distribution's kernel taken out of its bzImage.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::bzimage::{PVH_BASE, pvh_file};
use crate::environment;
use crate::failure::stops_for_kernel;
use crate::handover::check_bios_data;
use crate::linux::{self, Report};
use crate::machine::{Kind, Machine, Transport};
use crate::probe::{E820, E820_RAM, Probe};
use crate::random;

const COMMAND_LINE: &str = "unikernel --flag \"two words\" ~";

/// A microvm; the last `-machine` counts.
pub const MICROVM: &str = "-machine microvm,acpi=on,pit=on,pic=on,rtc=on";

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Boots the probe, and checks everything that it gets.
pub fn check(machine: &Machine) {
    let (file, layout) = pvh_file(PVH_BASE);
    let initrd = random::bytes(2, 150_001);
    let mut probe = Probe::boot_file(machine, &file, Some(&initrd), Some(COMMAND_LINE));
    assert_eq!((probe.qemu.com1(), probe.qemu.debug_console()), Default::default(), "a successful boot is silent");

    // Xen, docs/misc/pvh.pandoc. CR0: PE, and ET, which is always set. Flags: VM, IF and TF.
    let state = probe.state.clone();
    assert_eq!((state.word, state.base), (4, layout.probe));
    assert_eq!([state.cr0 & !(1 << 4), state.cr4, state.efer], [1, 0, 0]);
    assert_eq!(state.flags & (1 << 17 | 1 << 9 | 1 << 8), 0, "flags {:#x}", state.flags);
    let gdt = probe.read(PVH_BASE + 0x108, 6);
    let (limit, gdt) = (number(&gdt[..2]), number(&gdt[2..]));
    let tr = number(&probe.read(PVH_BASE + 0x100, 2));
    // Flat, present, used before; read and executed, read and written; a busy 32-bit TSS at 0 of 0x68 bytes.
    let descriptors = [
        (state.cs, 0x00cf_9b00_0000_ffff),
        (state.ds, 0x00cf_9300_0000_ffff),
        (state.es, 0x00cf_9300_0000_ffff),
        (state.ss, 0x00cf_9300_0000_ffff),
        (tr, 0x0000_8b00_0000_0067),
    ];
    for (selector, descriptor) in descriptors {
        assert!(selector != 0 && selector + 7 <= limit, "selector {selector:#x}");
        assert_eq!(number(&probe.read(gdt + selector, 8)), descriptor, "selector {selector:#x}");
    }

    // What QEMU has put into memory. The probe's own memory follows its code.
    assert!(probe.read(layout.data, layout.data_bytes.len()) == layout.data_bytes, "the second segment has changed");
    let rest = layout.data + layout.data_bytes.len() as u64;
    assert!(probe.read(rest, layout.data_bytes.len()).iter().all(|&byte| byte == 0), "its end is not zero");

    // Xen, start_info.h.
    let info = probe.read(state.ebx, 56);
    let [narrow, wide] = [4, 8].map(|len| move |info: &[u8], at: usize| number(&info[at..at + len]));
    assert_eq!([0, 4, 8, 12, 52].map(|at| narrow(&info, at)), [0x336e_c578, 1, 0, 1, 0]);
    let module = probe.read(wide(&info, 16), 32);
    assert_eq!([8, 16, 24].map(|at| wide(&module, at)), [initrd.len() as u64, 0, 0]);
    let module = wide(&module, 0);
    assert!(probe.read(module, initrd.len()) == initrd, "the initrd is not as it was in the file");
    let command_line = wide(&info, 24);
    let seen = probe.read(command_line, COMMAND_LINE.len() + 1);
    assert_eq!(String::from_utf8_lossy(&seen), format!("{COMMAND_LINE}\0"));
    assert_eq!(probe.read(wide(&info, 32), 8), b"RSD PTR ");

    let entries = narrow(&info, 48) as usize;
    let list = probe.read(wide(&info, 40), entries * 24);
    let map: Vec<_> =
        list.chunks(24).map(|entry| (wide(entry, 0), wide(entry, 0) + wide(entry, 8), narrow(entry, 16))).collect();
    assert!(map.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{map:x?}");
    assert!(list.chunks(24).all(|entry| narrow(entry, 20) == 0));
    let entries = map.iter().map(|&(start, end, kind)| E820 { start, end, kind: kind as u32 });
    check_bios_data(&mut probe, &entries.collect::<Vec<_>>());
    let parts = [
        PVH_BASE..layout.end(),
        module..module + initrd.len() as u64,
        command_line..command_line + seen.len() as u64,
        state.ebx..state.ebx + 56,
        wide(&info, 40)..wide(&info, 40) + list.len() as u64,
        wide(&info, 16)..wide(&info, 16) + 32,
    ];
    for (i, part) in parts.iter().enumerate() {
        let entry = map.iter().find(|(start, end, _)| *start <= part.start && part.end <= *end);
        assert!(entry.is_some_and(|(_, _, kind)| *kind == u64::from(E820_RAM)), "{part:x?} in {map:x?}");
        assert!(parts[..i].iter().all(|other| other.end <= part.start || part.end <= other.start), "{parts:x?}");
    }
}

#[test]
fn every_field_of_start_info_is_right_on_q35_and_pc() {
    for kind in Kind::ALL {
        for transport in Transport::ALL {
            check(&Machine { transport, ..Machine::new(kind) });
        }
    }
}

#[test]
fn every_field_of_start_info_is_right_on_microvm() {
    check(&Machine::new(Kind::Pc).with(MICROVM));
}

#[test]
fn a_kernel_is_loaded_again_after_a_reset() {
    let (file, layout) = pvh_file(PVH_BASE);
    let machine = Machine { reboots: true, ..Machine::new(Kind::Q35) };
    let mut probe = Probe::boot_file(&machine, &file, None, None);
    probe.fill(layout.data..layout.data + 64, 0x55);
    probe.reset();
    assert!(probe.read(layout.data, layout.data_bytes.len()) == layout.data_bytes);
    let info = probe.read(probe.state.ebx, 56);
    assert_eq!((number(&info[..4]), number(&info[12..24])), (0x336e_c578, 0), "no module");
}

#[test]
fn a_kernel_that_overlaps_the_firmware_is_refused() {
    let (file, _) = pvh_file(0x5_0000);
    stops_for_kernel(&file, "", &["0x50000-", "over the firmware's own memory 0x40000-0x9fbff", "from 1 MiB on"]);
}

#[test]
fn a_kernel_outside_memory_is_refused() {
    let (file, _) = pvh_file(200 << 20);
    stops_for_kernel(&file, "", &["at 0xc800000-", "not all free RAM", "more memory"]);
}

/// Takes the ELF file out of a bzImage: where it is, and how long, is in the setup header (Linux
/// `Documentation/arch/x86/boot.rst`, `payload_offset`). Behind the packed file is its length when unpacked.
pub fn unpack(bzimage: &Path, folder: &Path) -> PathBuf {
    let file = fs::read(bzimage).expect("the kernel");
    let field = |at: usize| number(&file[at..at + 4]) as usize;
    let start = (usize::from(file[0x1f1]) + 1) * 512 + field(0x248);
    let payload = &file[start..start + field(0x24c) - 4];
    let program = match payload {
        [0x02, 0x21, ..] => "lz4",
        [0xfd, b'7', ..] => "xz",
        _ => panic!("the kernel is packed by something that the test does not know: {:x?}", &payload[..4]),
    };
    let [packed, elf] = ["packed", "vmlinux"].map(|name| folder.join(name));
    fs::write(&packed, payload).expect("a file in the temporary folder");
    let status = Command::new(program)
        .arg("-dc")
        .stdin(File::open(&packed).expect("the file"))
        .stdout(File::create(&elf).expect("a file in the temporary folder"))
        .stderr(Stdio::null())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "{program} fails; `cargo xtask setup` installs it");
    elf
}

/// Boots the distribution's `vmlinux` to user space, with `words` on its command line.
fn boot_linux(machine: &Machine, words: &str) -> Report {
    let folder = TempDir::new().expect("a temporary folder");
    let vmlinux = unpack(&environment::kernel(), folder.path());
    let mut qemu = Machine { kernel: Some(vmlinux), ..linux::guest(machine, words) }.start();
    qemu.wait_for("the guest's report", |qemu| qemu.com1().contains(linux::END));
    let com1 = qemu.com1();
    assert!(!com1.contains("firstlight: "), "the firmware printed something");
    let report = Report::parse(&com1);
    assert_eq!(report.one("command-line"), linux::command_line(words));
    report
}

#[test]
fn q35_with_dma_boots_debians_vmlinux() {
    let machine = Machine { cpus: 2, memory: "512M", default_devices: true, ..Machine::new(Kind::Q35) };
    boot_linux(&machine, "").check(&machine);
}

#[test]
fn pc_with_ports_boots_debians_vmlinux() {
    let machine = Machine { transport: Transport::Ports, memory: "256M", ..Machine::new(Kind::Pc) };
    boot_linux(&machine, "").check(&machine);
}

#[test]
fn microvm_boots_debians_vmlinux() {
    let machine = Machine { memory: "512M", cpus: 2, ..Machine::new(Kind::Pc) };
    let report = boot_linux(&machine.with(MICROVM), linux::TSC_IS_KNOWN);
    assert_eq!(report.one("cpus-online"), "2");
    assert!(report.one("initrd").starts_with("ok "));
    assert!(report.one("acpi-tables").contains("APIC"));
}
