//! Kernel, initrd and command line as named fw_cfg files, without QEMU's own `-kernel`.

use std::fs;

use tempfile::TempDir;

use crate::bzimage::BzImage;
use crate::environment;
use crate::linux::{self, Report};
use crate::machine::{Kind, Machine, Transport};
use crate::probe::Probe;
use crate::random;

/// The machine with an argument for each file.
pub fn with_files(machine: Machine, folder: &TempDir, files: &[(&str, &[u8])]) -> Machine {
    files.iter().fold(machine, |machine, (name, bytes)| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("a file in the temporary folder");
        machine.with(&format!("-fw_cfg name=opt/org.firstlight/{name},file={}", path.display()))
    })
}

#[test]
fn every_part_of_a_kernel_from_named_files_is_loaded_intact() {
    let initrd = random::bytes(2, 150_001);
    let kernel = BzImage { len: 300_007, ..BzImage::new() };
    for kernel in [kernel.clone(), kernel.entered_in_32_bit_mode()] {
        for kind in Kind::ALL {
            for transport in Transport::ALL {
                let folder = TempDir::new().expect("a temporary folder");
                let machine = Machine { transport, ..Machine::new(kind) };
                let files: &[(&str, &[u8])] =
                    &[("kernel", &kernel.file()), ("initrd", &initrd), ("cmdline", b"console=ttyS0 quiet\n")];
                let mut probe = Probe::start(&with_files(machine, &folder, files), folder);
                assert_eq!(
                    (probe.qemu.com1(), probe.qemu.debug_console()),
                    Default::default(),
                    "a successful boot is silent"
                );
                let page = probe.boot_params();
                assert_eq!(page.kernel(), kernel.pref_address);
                assert!(probe.read(page.kernel(), kernel.len) == kernel.code(), "the kernel differs from its file");
                assert_eq!(page.initrd().end - page.initrd().start, initrd.len() as u64);
                assert!(
                    probe.read(page.initrd().start, initrd.len()) == initrd,
                    "the initrd is not as it was in the file"
                );
                assert_eq!(probe.read(page.command_line(), 20), b"console=ttyS0 quiet\0");
            }
        }
    }
}

#[test]
fn a_kernel_boots_without_an_initrd_and_a_command_line() {
    let folder = TempDir::new().expect("a temporary folder");
    let machine = with_files(Machine::new(Kind::Q35), &folder, &[("kernel", &BzImage::new().file())]);
    let mut probe = Probe::start(&machine, folder);
    let page = probe.boot_params();
    assert_eq!(page.initrd(), 0..0);
    assert_eq!(probe.read(page.command_line(), 1), [0]);
}

#[test]
fn debians_kernel_boots_from_named_files() {
    let folder = TempDir::new().expect("a temporary folder");
    let read = |path| fs::read(path).expect("a file of the default guest");
    let [kernel, initrd] = [environment::kernel(), environment::initrd()].map(read);
    let line = format!("{}\n", linux::command_line(""));
    let machine = Machine { memory: "512M", ..Machine::new(Kind::Pc) };
    let files: &[(&str, &[u8])] = &[("kernel", &kernel), ("initrd", &initrd), ("cmdline", line.as_bytes())];
    let mut qemu = with_files(machine.clone(), &folder, files).start();
    qemu.wait_for_end();
    let com1 = qemu.com1();
    assert!(com1.contains(linux::END) && !com1.contains("firstlight: "), "{com1}");
    let report = Report::parse(&com1);
    assert_eq!(report.one("command-line"), linux::command_line(""));
    report.check(&machine);
}
