//! Broken kernel files, files with impossible requests, and files that are no kernels: each is refused with a sentence that
//! says what was asked, what was seen and what to change.
//!
//! QEMU checks a file of `-kernel` itself and rejects some of these, so they are passed as named files, which QEMU does not
//! check. `failure` tests what is wrong with a machine rather than with a file.

use std::fs::{self, File};

use tempfile::TempDir;

use crate::bzimage::{BzImage, PVH_BASE, SETUP_LEN, pvh_file};
use crate::environment;
use crate::failure::{stops, stops_for_kernel};
use crate::machine::{Kind, Machine, Transport};
use crate::named_files::with_files;
use crate::probe::Probe;

/// As [`stops_for_kernel`], for a kernel that is a named file.
fn stops_for_file(file: &[u8], parts: &[&str]) {
    stops_for_files(&Machine::new(Kind::Q35), &[("kernel", file)], parts);
}

/// As [`stops_for_file`], with other files, on a machine.
fn stops_for_files(machine: &Machine, files: &[(&str, &[u8])], parts: &[&str]) {
    let folder = TempDir::new().expect("a temporary folder");
    stops(&with_files(machine.clone(), &folder, files), parts);
}

/// The file with some bytes changed.
fn with(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn a_truncated_kernel_file_is_detected_by_its_header() {
    let file = BzImage::new().file();
    assert_eq!(file.len(), 61_037);
    // In its header, in its setup code, after it, in the middle, and just before the end.
    stops_for_file(&file[..300], &["setup header is cut short: 300 bytes", "is the file whole?"]);
    for len in [700, SETUP_LEN, SETUP_LEN + 1, 30_000, file.len() - 16] {
        let seen = format!("cut short: it has {len} bytes, and 61040 by its header; build or copy it again");
        stops_for_file(&file[..len], &[&seen]);
    }
    // As QEMU divides it.
    stops_for_kernel(&file[..30_000], "", &["cut short: it has 30000 bytes, and 61040 by its header"]);
    // Without DMA, and a real kernel: half of it.
    let kernel = fs::read(environment::kernel()).expect("the kernel");
    let ports = Machine { transport: Transport::Ports, ..Machine::new(Kind::Pc) };
    let half = kernel.len() / 2;
    stops_for_files(&ports, &[("kernel", &kernel[..half])], &[&format!("cut short: it has {half} bytes, and ")]);
}

#[test]
fn a_kernel_with_255_sectors_of_setup_code_must_contain_them() {
    let kernel = BzImage::new();
    let file = with(kernel.file(), 0x1f1, &[255]);
    // 256 sectors, and then the kernel.
    stops_for_file(&file, &["cut short: it has 61037 bytes, and 191088 by its header"]);
    let mut longer = file.clone();
    longer.resize(256 * 512 + 1000, 0);
    stops_for_kernel(&longer, "", &["cut short: it has 132072 bytes, and 191088 by its header"]);

    // A file that contains them boots.
    let mut whole = file[..SETUP_LEN].to_vec();
    whole.resize(256 * 512, 0);
    whole.extend(kernel.code());
    let mut probe = Probe::boot_file(&Machine::new(Kind::Q35), &whole, None, None);
    assert!(probe.read(kernel.pref_address, kernel.len) == kernel.code(), "the kernel differs from its file");
}

#[test]
fn a_kernel_that_asks_for_more_memory_than_any_machine_has_is_refused() {
    let beyond = |kernel: BzImage, parts: &[&str]| stops_for_kernel(&kernel.file(), "", parts);
    let up_to = ["(init_size, pref_address)", "none from 0x100000000 on", "is the file whole?"];
    let and = |first: &'static str| [&[first][..], &up_to].concat();
    for kernel in [BzImage::new(), BzImage::new().entered_in_32_bit_mode()] {
        beyond(BzImage { init_size: u32::MAX, ..kernel.clone() }, &and("asks for 4096 MiB from 0x1000000 up"));
        beyond(BzImage { pref_address: u64::MAX, ..kernel.clone() }, &and("from 0xffffffffffffffff up"));
        beyond(BzImage { pref_address: u64::MAX - 0xf_ffff, ..kernel.clone() }, &and("from 0xfffffffffff00000 up"));
        beyond(BzImage { pref_address: 0xffff_0000, ..kernel.clone() }, &and("from 0xffff0000 up"));
        beyond(
            BzImage { relocatable_kernel: false, pref_address: 1 << 63, ..kernel },
            &and("from 0x8000000000000000 up"),
        );
    }
    let above = BzImage { pref_address: u64::MAX, xloadflags: 0b11, ..BzImage::new() };
    beyond(above, &["from 0xffffffffffffffff up", "none from 0x400000000000 on", "is the file whole?"]);
    // The same for a size that a larger machine could have.
    let large = BzImage { pref_address: 3 << 30, ..BzImage::new() };
    stops_for_kernel(
        &large.file(),
        "",
        &["1 MiB in one piece from 0xc0000000 up", "the machine has 128 MiB in all", "more memory"],
    );
}

#[test]
fn a_kernel_with_an_entry_point_outside_it_is_refused() {
    for code32_start in [0x9_0000, 0x10_0000 + 60_013, 0x7fff_f000, u32::MAX] {
        // The builder puts the probe at the entry point.
        let file = with(BzImage::old(0x20f).file(), 0x214, &code32_start.to_le_bytes());
        let seen = format!("entry point (code32_start) at {code32_start:#x}, outside its 60013 bytes from 0x100000");
        stops_for_kernel(&file, "", &[&seen, "no other loader has changed"]);
    }
    let zimage = with(BzImage::old(0x203).low().file(), 0x214, &0x10_0000_u32.to_le_bytes());
    stops_for_kernel(&zimage, "", &["entry point (code32_start) at 0x100000, outside its 60013 bytes from 0x10000"]);
    // A relocatable kernel is entered at its beginning, whatever the field says.
    let file = with(BzImage::new().file(), 0x214, &0x1234_5678_u32.to_le_bytes());
    assert_eq!(Probe::boot_file(&Machine::new(Kind::Q35), &file, None, None).state.base, 0x100_0000);
}

#[test]
fn an_elf_kernel_with_an_entry_point_outside_it_is_refused() {
    let (file, layout) = pvh_file(PVH_BASE);
    let note = file.windows(4).rposition(|bytes| bytes == b"Xen\0").expect("the note") + 4;
    for entry in [layout.base - 1, layout.end(), 0xf000, 0x4000_0000, 0xffff_fff0] {
        let file = with(file.clone(), note, &entry.to_le_bytes());
        let seen = format!(
            "the kernel's entry point {entry:#x} is not in the {} bytes from 0x200000",
            layout.end() - layout.base
        );
        stops_for_kernel(&file, "", &[&seen, "is the file whole?"]);
    }
    // The whole kernel where there is no RAM: above it, in a hole of the machine, and under the firmware's image.
    for base in [1 << 30, 0xb000_0000, 0xffe0_0000] {
        let (file, layout) = pvh_file(base);
        let seen = format!("the host puts the kernel at {base:#x}-{:#x}", layout.end() - 1);
        stops_for_kernel(&file, "", &[&seen, "not all free RAM", "more memory", "from 1 MiB on"]);
    }
}

#[test]
fn the_error_for_an_initrd_larger_than_the_memory_names_both_sizes() {
    let kernel = BzImage::new().file();
    let (elf, _) = pvh_file(PVH_BASE);
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("elf"), elf).expect("a file in the temporary folder");
    let sparse = |name: &str, mib: u64| {
        File::create(path(name)).and_then(|file| file.set_len(mib << 20)).expect("a file with a hole");
    };
    sparse("initrd", 300);
    sparse("small", 126);
    let option = format!("-fw_cfg name=opt/org.firstlight/initrd,file={}", path("initrd").display());
    for machine in [Machine::new(Kind::Q35), Machine { transport: Transport::Ports, ..Machine::new(Kind::Pc) }] {
        let parts = ["initrd of 300 MiB does not fit", " MiB are free in one piece", "more memory"];
        stops_for_files(&machine.with(&option), &[("kernel", &kernel)], &parts);
    }
    // The same of an ELF kernel; QEMU itself refuses one that is larger than all memory.
    let machine = Machine { kernel: Some(path("elf")), initrd: Some(path("small")), ..Machine::new(Kind::Q35) };
    stops(&machine, &["initrd of 126 MiB does not fit below 0x100000000", "more memory"]);
}

#[test]
fn the_error_for_a_command_line_longer_than_the_kernel_takes_names_both_lengths() {
    let kernel = BzImage { cmdline_size: 300, ..BzImage::new() };
    let too_long: &[&str] = &["command line has 301 bytes, the kernel accepts 300; shorten it"];
    stops_for_kernel(&kernel.file(), &"x".repeat(301), too_long);
    let machine = Machine::new(Kind::Pc);
    stops_for_files(&machine, &[("kernel", &kernel.file()), ("cmdline", &[b'x'; 301])], too_long);
    // Before 2.06 a header has no field for it.
    let old = BzImage::old(0x205).file();
    stops_for_kernel(&old, &"x".repeat(256), &["command line has 256 bytes, the kernel accepts 255; shorten it"]);
    // A kernel without a limit, and more than low memory.
    let kernel = BzImage { cmdline_size: u32::MAX, ..BzImage::new() };
    let files: &[(&str, &[u8])] = &[("kernel", &kernel.file()), ("cmdline", &vec![b'x'; 640 << 10])];
    stops_for_files(&machine, files, &["no 655362 bytes free below 640 KiB for the command line; shorten it"]);
}

/// Files that nothing before the firmware checks.
#[test]
fn the_error_for_a_file_that_is_no_kernel_says_what_it_is() {
    let use_a_bzimage = "use a bzImage (vmlinuz)";
    let is = |file: &[u8], what: &str| {
        stops_for_file(file, &[&format!("no Linux setup header: it is {what}"), use_a_bzimage]);
    };
    let long = |magic: &[u8], at: usize| with(vec![0; 70_000], at, magic);
    stops_for_file(&[], &["no kernel: the fw_cfg file for the kernel is empty", "put a bzImage (vmlinuz) into it"]);
    is(b"not a kernel\n", "text");
    is("#!/bin/sh\nexec echo not a kernel\n".repeat(1000).as_bytes(), "text");
    is(&long(b"\x1f\x8b\x08", 0), "a packed file, which has to be unpacked first");
    is(&long(b"\x28\xb5\x2f\xfd", 0), "a packed file");
    is(&long(b"\xfd7zXZ\0", 0), "a packed file");
    is(&long(b"ARM\x64", 0x38), "Linux for 64-bit Arm, not for x86");
    is(&with(long(b"ARM\x64", 0x38), 0, b"MZ"), "Linux for 64-bit Arm, not for x86");
    is(&long(b"RSC\x05", 0x38), "Linux for RISC-V, not for x86");
    is(&long(b"MZ", 0), "a program for DOS");
    // A real ELF file; QEMU would refuse that for Arm.
    let (elf, _) = pvh_file(PVH_BASE);
    is(&with(elf.clone(), 18, &[183, 0]), "an ELF file for another machine, number 183, not x86");
    stops_for_file(&elf, &["ELF file, which the host has to load", "QEMU -kernel"]);
    stops_for_file(&vec![0xee; 70_000], &["the kernel has no Linux setup header; use a bzImage (vmlinuz)"]);
}

/// The same for the files that QEMU accepts.
#[test]
fn the_error_for_a_file_that_is_no_kernel_says_what_it_is_with_dash_kernel_too() {
    let is = |file: &[u8], what: &str| {
        stops_for_kernel(file, "", &[&format!("no Linux setup header: it is {what}"), "use a bzImage (vmlinuz)"]);
    };
    let long = |magic: &[u8], at: usize| with(vec![0; 70_000], at, magic);
    is("not a kernel\n".repeat(10_000).as_bytes(), "text");
    is(&long(b"\x1f\x8b\x08", 0), "a packed file");
    is(&with(long(b"ARM\x64", 0x38), 0, b"MZ"), "Linux for 64-bit Arm");
    is(&long(b"MZ", 0), "a program for DOS");
}
