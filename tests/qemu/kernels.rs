//! bzImages and zImages of every protocol version: the probe with each kind of header, and Debian's packages of such kernels.

use std::fs;
use std::ops::Range;
use std::path::PathBuf;

use crate::bzimage::BzImage;
use crate::efi_entry::ON;
use crate::environment;
use crate::failure::stops_for_kernel;
use crate::handover::check_cpu;
use crate::linux::{self, Report};
use crate::machine::{Accelerator, Kind, Machine, Transport};
use crate::probe::{BootParams, E820_RAM, Probe};
use crate::pvh::MICROVM;
use crate::random;
use crate::sleep;

const COMMAND_LINE: &str = "console=ttyS0 root=/dev/null \"two words\" ~";

/// Where an old kernel expects its parameters, and how far from there its command line may be.
const PARAMETERS: u64 = 0x9_0000;
const COMMAND_LINE_LIMIT: u64 = 0x9_a000;

/// No multiple of a page, a sector or a word.
const INITRD_LEN: usize = 50_001;

/// Where the command line is by what a kernel of protocol 2.00 or 2.01 looks at (boot.rst, "The Kernel Command Line").
fn old_command_line(page: &BootParams) -> u64 {
    assert_eq!(page.0[0x20..0x22], [0x3f, 0xa3], "the magic number of the command line");
    PARAMETERS + u64::from(u16::from_le_bytes([page.0[0x22], page.0[0x23]]))
}

/// Boots `kernel`, and checks the CPU and all that the kernel is given. `base` is where it is to be.
fn check(machine: &Machine, kernel: &BzImage, base: u64) {
    eprintln!("{kernel:?}");
    let initrd = random::bytes(2, INITRD_LEN);
    let mut probe = Probe::boot(machine, kernel, Some(&initrd), Some(COMMAND_LINE));
    check_cpu(&probe.state, 4);
    let offset = kernel.entry_offset() as u64;
    assert_eq!(probe.state.base, base + offset, "where it is entered");
    let low = !kernel.loaded_high || kernel.version < 0x202;
    if low {
        assert_eq!(probe.state.esi, PARAMETERS);
    }
    let page = probe.boot_params();
    assert_eq!(page.kernel(), base + offset, "code32_start");
    assert_eq!(page.0[0x210], 0xb0, "type_of_loader: QEMU");
    // The header is the file's, but for what a loader fills in, and ends where that of its version does.
    let file = kernel.setup();
    let loaders = [0x210..0x212, 0x214..0x220, 0x224..0x226, 0x228..0x22c];
    for at in (0x1f1..0x2d0).filter(|at| !loaders.iter().any(|range| range.contains(at))) {
        assert_eq!(page.0[at], file[at], "header byte {at:#x}");
    }

    let command_line = if kernel.version < 0x202 {
        assert_eq!(page.0[0x226..0x230], [0; 10], "no field that the kernel does not have");
        assert_eq!(page.0[2..4], [0xff; 2], "ext_mem_k: the machine has more than 16 bits can say");
        old_command_line(&page)
    } else {
        assert_eq!(page.0[..0x40], [0; 0x40], "no screen");
        page.command_line()
    };
    let text = format!("{COMMAND_LINE}\0");
    let seen = probe.read(command_line, text.len());
    assert_eq!(String::from_utf8_lossy(&seen), text);
    // Not with assert_eq, which would print them.
    let code = kernel.code();
    assert!(probe.read(base, code.len()) == code, "the kernel differs from its file");
    assert!(probe.read(page.initrd().start, initrd.len()) == initrd, "the initrd is not as it was in the file");

    let parameters = probe.state.esi..probe.state.esi + 4096;
    let line = command_line..command_line + text.len() as u64;
    assert!(!low || line.end <= COMMAND_LINE_LIMIT, "{line:x?}");
    let parts = [base..base + code.len() as u64, parameters.clone(), line.clone(), page.initrd()];
    for (i, part) in parts.iter().enumerate() {
        assert!(parts[..i].iter().all(|other| apart(part, other)), "{parts:x?}");
    }
    let last = if kernel.version < 0x203 { 0x37ff_ffff } else { u64::from(kernel.initrd_addr_max) };
    assert!(page.initrd().end <= last + 1 && page.initrd().start >= 0x10_0000);
    let map = page.e820();
    let is_ram = |part: &Range<u64>| {
        map.iter().any(|entry| entry.kind == E820_RAM && entry.start <= part.start && part.end <= entry.end)
    };
    assert!(is_ram(&parts[0]) && is_ram(&parts[3]), "{parts:x?} in {map:x?}");

    // What a kernel may write over before it looks at the map: where its kind unpacks itself to, and low memory from
    // 0x2000 up to its parameters (Linux 2.4 arch/i386/boot/compressed/misc.c).
    let unpacked = 0x10_0000.max(probe.state.base + 0x8_4000)..0x10_0000 + 3 * code.len() as u64 + (2 << 20);
    probe.fill(unpacked, 0xaa);
    if kernel.loaded_high {
        probe.fill(0x2000..probe.state.esi.min(PARAMETERS), 0xaa);
    }
    assert!(probe.read(page.initrd().start, initrd.len()) == initrd, "the initrd is overwritten");
    assert!(probe.boot_params().0 == page.0, "the parameters are overwritten");
    assert_eq!(probe.read(line.start, text.len()), text.as_bytes(), "the command line is overwritten");
}

fn apart(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.end <= b.start || b.end <= a.start
}

#[test]
fn a_bzimage_of_every_protocol_is_entered_in_32_bit_mode() {
    for version in [0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x209] {
        check(&Machine::new(Kind::Q35), &BzImage::old(version), 0x10_0000);
    }
    for version in [0x201, 0x203] {
        check(&Machine::new(Kind::Pc), &BzImage::old(version), 0x10_0000);
        check(&Machine::new(Kind::Pc).with(MICROVM), &BzImage::old(version), 0x10_0000);
    }
}

#[test]
fn a_kernel_is_entered_at_its_code32_start() {
    let entered_at = |kernel: BzImage, code32_start: u32| BzImage { code32_start, ..kernel };
    check(&Machine::new(Kind::Q35), &entered_at(BzImage::old(0x203), 0x10_1400), 0x10_0000);
    check(&Machine::new(Kind::Q35), &entered_at(BzImage::old(0x20f), 0x10_1400), 0x10_0000);
    check(&Machine::new(Kind::Q35), &entered_at(BzImage::old(0x203).low(), 0x1400), 0x1000);
}

#[test]
fn old_kernels_are_loaded_intact_under_kvm() {
    let Some(accelerator) = Accelerator::kvm() else { return };
    let machine = Machine { accelerator, ..Machine::new(Kind::Q35) };
    for kernel in [BzImage { len: 5008, ..BzImage::old(0x201) }, BzImage { len: 5008, ..BzImage::old(0x203) }.low()] {
        let mut probe = Probe::boot(&machine, &kernel, None, Some(COMMAND_LINE));
        check_cpu(&probe.state, 4);
        assert_eq!(probe.state.esi, PARAMETERS);
        assert!(probe.read(probe.state.base, kernel.len) == kernel.code(), "the kernel differs from its file");
    }
}

/// The last jump overwrites the memory that a wake from suspend runs in.
#[test]
fn a_machine_wakes_after_its_kernel_has_overwritten_the_firmware() {
    for kernel in [BzImage::old(0x201), BzImage::old(0x203).low()] {
        let mut probe = Probe::boot(&Machine::new(Kind::Q35), &kernel, None, None);
        let page = probe.boot_params();
        sleep::prepare(&mut probe, &page);
        let before = probe.hash(0x1000..0x3_0000);
        sleep::sleep(&mut probe);
        probe.wait_for_wake();
        assert_eq!(probe.hash(0x1000..0x3_0000), before, "the kernel's memory");
        assert_eq!(probe.qemu.com1(), "", "a successful wake is silent");
    }
}

#[test]
fn a_zimage_with_a_high_code32_start_runs_at_0x10000() {
    let kernel = BzImage { code32_start: 0x1_0000, ..BzImage::old(0x203).low() };
    let probe = Probe::boot(&Machine::new(Kind::Q35), &kernel, None, None);
    check_cpu(&probe.state, 4);
    // The probe's own memory is over its parameters then.
    assert_eq!((probe.state.base, probe.state.esi), (0x1_0000, PARAMETERS));
}

#[test]
fn a_zimage_too_long_for_low_memory_is_refused() {
    let kernel = BzImage { len: 0x7_f001, ..BzImage::old(0x203) }.low();
    stops_for_kernel(&kernel.file(), "", &["zImage with 520193 bytes", "520192 fit", "bzImage"]);
}

#[test]
fn a_zimage_of_every_protocol_is_moved_to_where_it_runs() {
    let check =
        |machine: Machine, version, len| check(&machine, &BzImage { len, ..BzImage::old(version) }.low(), 0x1000);
    // The longest that there may be, too.
    for (version, len) in [(0x200, 60_013), (0x201, 300_007), (0x202, 0x7_f000), (0x204, 60_013), (0x206, 60_013)] {
        check(Machine::new(Kind::Q35), version, len);
    }
    check(Machine::new(Kind::Pc), 0x201, 300_007);
    check(Machine::new(Kind::Pc).with(MICROVM), 0x203, 300_007);
}

/// Boots one of Debian's kernels for i386 to user space, where the same guest runs as on amd64.
fn boot_i386(machine: &Machine, guest: Option<[PathBuf; 2]>, words: &str) -> Option<Report> {
    let [kernel, initrd] = guest?;
    let machine = Machine { kernel: Some(kernel), initrd: Some(initrd), ..linux::guest(machine, words) };
    let mut qemu = machine.start();
    qemu.wait_for("the guest's report", |qemu| qemu.com1().contains(linux::END));
    let com1 = qemu.com1();
    assert!(!com1.contains("firstlight: "), "the firmware printed something");
    let report = Report::parse(&com1);
    assert_eq!(report.one("command-line"), linux::command_line(words));
    assert_eq!(report.one("loader-type"), "0xb0");
    Some(report)
}

#[test]
fn q35_boots_debians_i386_kernel() {
    let machine = Machine { cpus: 2, memory: "512M", default_devices: true, ..Machine::new(Kind::Q35) };
    let Some(report) = boot_i386(&machine, environment::i386(), "") else { return };
    report.check(&machine);
    assert!(report.one("kernel").ends_with("-686"), "{}", report.one("kernel"));
}

/// The kernel has an EFI stub, for 32 bits.
#[test]
fn a_kernel_for_i386_is_entered_as_usual_where_the_host_asks_for_efi() {
    let machine = Machine { memory: "512M", ..Machine::new(Kind::Q35) }.with(ON);
    boot_i386(&machine, environment::i386(), "");
}

/// With PAE, such a kernel uses memory above 4 GiB.
#[test]
fn pc_with_ports_boots_debians_i386_kernel_with_pae() {
    let machine = Machine { transport: Transport::Ports, memory: "5G", ..Machine::new(Kind::Pc) };
    let Some(report) = boot_i386(&machine, environment::i386_pae(), "") else { return };
    report.check(&machine);
    assert!(report.one("kernel").ends_with("-686-pae"), "{}", report.one("kernel"));
}

#[test]
fn microvm_boots_debians_i386_kernel() {
    let machine = Machine { memory: "512M", ..Machine::new(Kind::Pc) }.with(MICROVM);
    // See `pvh::microvm_boots_debians_vmlinux`.
    let Some(report) = boot_i386(&machine, environment::i386(), "tsc_early_khz=2500000 ") else { return };
    assert!(report.one("initrd").starts_with("ok "));
    assert!(report.one("acpi-tables").contains("APIC"));
}

/// What a serial console with cursor control shows: its lines, without the blanks at their ends.
pub fn screen(output: &str) -> String {
    let mut lines = vec![vec![b' '; 80]; 25];
    let (mut line, mut column) = (0, 0);
    for part in output.split("\x1b[") {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0);
        let (sequence, text) = part.split_at(part.len().min(end + 1));
        if let Some(place) = sequence.strip_suffix('H') {
            let mut numbers = place.split(';').map(|number| number.parse::<usize>().unwrap_or(1) - 1);
            (line, column) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        }
        for byte in text.bytes() {
            if let Some(place) = lines.get_mut(line).and_then(|line| line.get_mut(column)) {
                *place = byte;
            }
            column += 1;
        }
    }
    lines.iter().map(|line| format!("{}\n", String::from_utf8_lossy(line).trim_end())).collect()
}

/// Starts Memtest86+, and waits until it has gone through its first tests.
fn run_memtest(kind: Kind, kernel: Option<PathBuf>, build: &str) {
    let Some(kernel) = kernel else { return };
    let append = Some("console=ttyS0,115200".to_owned());
    let machine = Machine { memory: "32M", kernel: Some(kernel), append, ..Machine::new(kind) };
    let mut qemu = machine.start();
    let is_at_work = |screen: &str| (2..=10).any(|test| screen.contains(&format!("Test #{test}")));
    qemu.wait_for("memory tests", |qemu| is_at_work(&screen(&qemu.com1())));
    let com1 = qemu.com1();
    assert!(!com1.contains("firstlight: "), "the firmware printed something");
    let screen = screen(&com1);
    // Everything except the holes in the first MiB and the tables, as in the memory map.
    for part in ["Memtest86+ v", build, "Memory  :   31", "Status: Testing", "Errors: 0", "QEMU Standard PC"] {
        assert!(screen.contains(part), "{part} is missing:\n{screen}");
    }
}

#[test]
fn memtest86_runs_by_its_64_bit_entry_point() {
    run_memtest(Kind::Q35, environment::memtest86(64), "x64");
    run_memtest(Kind::Pc, environment::memtest86(64), "x64");
}

#[test]
fn memtest86_runs_by_its_32_bit_entry_point() {
    run_memtest(Kind::Q35, environment::memtest86(32), "x32");
    run_memtest(Kind::Pc, environment::memtest86(32), "x32");
}

#[test]
fn debians_real_mode_only_files_are_refused_with_the_reason() {
    for file in [environment::ipxe(), environment::memdisk()].into_iter().flatten() {
        let file = fs::read(file).expect("the file");
        stops_for_kernel(&file, "", &["real mode only", "services of a BIOS", "SeaBIOS"]);
    }
}
