//! The addresses of kernel, initrd and command line for different setup headers.

use std::fs;
use std::ops::Range;

use tempfile::TempDir;

use crate::bzimage::BzImage;
use crate::linux::{self, Report};
use crate::machine::{Emulator, Kind, Machine, Transport};
use crate::probe::{BootParams, Probe};
use crate::random;

/// `xloadflags`: a 64-bit entry, and no part of it has to be below 4 GiB.
const XLF_KERNEL_64_ABOVE_4G: u16 = 0b11;

fn machine() -> Machine {
    Machine::new(Kind::Q35)
}

/// A machine with little memory below 4 GiB and more above.
fn machine_with_high_memory(transport: Transport) -> Machine {
    Machine { properties: ",max-ram-below-4g=32M", memory: "512M", transport, ..machine() }
}

const GIB: u64 = 1 << 30;

#[test]
fn an_initrd_that_does_not_fit_below_4_gib_is_loaded_above() {
    let initrd = random::bytes(5, (5 << 20) + 3);
    // The kernel runs from 1 to 29 MiB, so there are 3 MiB left.
    let kernel = BzImage { init_size: 28 << 20, xloadflags: XLF_KERNEL_64_ABOVE_4G, ..BzImage::new() };
    let kernel = BzImage { pref_address: 1 << 20, kernel_alignment: 1 << 20, ..kernel };
    for transport in Transport::ALL {
        let mut probe = Probe::boot(&machine_with_high_memory(transport), &kernel, Some(&initrd), Some("text"));
        assert_eq!(probe.state.base, 1 << 20);
        let place = probe.boot_params().initrd();
        assert!(place.start >= 4 * GIB && place.end <= 4 * GIB + (480 << 20), "{place:x?}");
        assert_eq!(place.end - place.start, initrd.len() as u64);
        for at in [0, initrd.len() / 2, initrd.len() - 70_001] {
            assert!(probe.read(place.start + at as u64, 70_001) == initrd[at..at + 70_001], "{at:#x}");
        }
    }
}

#[test]
fn a_kernel_that_does_not_fit_below_4_gib_is_loaded_above() {
    let kernel = BzImage { init_size: 20 << 20, xloadflags: XLF_KERNEL_64_ABOVE_4G, ..BzImage::new() };
    let initrd = random::bytes(6, 70_001);
    for transport in Transport::ALL {
        let mut probe = Probe::boot(&machine_with_high_memory(transport), &kernel, Some(&initrd), Some("text"));
        assert_eq!(probe.state.base, 4 * GIB);
        assert!(probe.read(4 * GIB, kernel.len) == kernel.code());
        // All of its memory is mapped, and what it was given is nowhere in it.
        survives(&mut probe, 4 * GIB..4 * GIB + (20 << 20), &initrd, "text");
    }
}

/// With 4 MiB of memory below 4 GiB, there is room for neither.
#[test]
fn debians_kernel_and_its_initrd_boot_above_4_gib() {
    let machine = Machine { properties: ",max-ram-below-4g=4M", memory: "768M", ..Machine::new(Kind::Pc) };
    let machine = Machine { transport: Transport::Ports, ..machine };
    let mut qemu = linux::guest(&machine, "").start();
    qemu.wait_for_end();
    let com1 = qemu.com1();
    assert!(com1.contains(linux::END) && !com1.contains("firstlight: "), "{com1}");
    let report = Report::parse(&com1);
    report.check(&machine);
    let code = report.one("kernel-code").split('-').next().map(|start| u64::from_str_radix(start, 16));
    assert!(matches!(code, Some(Ok(start)) if start >= 4 * GIB), "{code:?}");
}

/// How much memory the probe itself needs.
const PROBE_LEN: u64 = 0x8_4000;

#[test]
fn a_relocatable_kernel_is_loaded_at_its_preferred_address() {
    for pref_address in [0x10_0000, 0x100_0000, 0x400_0000] {
        let kernel = BzImage { pref_address, kernel_alignment: 0x10_0000, ..BzImage::new() };
        let probe = Probe::boot(&machine(), &kernel, None, None);
        assert_eq!(probe.state.base, pref_address);
    }
}

#[test]
fn a_relocatable_kernel_moves_up_by_its_alignment_where_it_does_not_fit() {
    // At 512 KiB it would reach into video memory.
    for kernel_alignment in [0x20_0000, 0x100_0000] {
        let kernel = BzImage { pref_address: 0x8_0000, kernel_alignment, ..BzImage::new() };
        let probe = Probe::boot(&machine(), &kernel, None, None);
        assert_eq!(probe.state.base, u64::from(kernel_alignment));
    }
}

#[test]
fn a_kernel_that_is_not_relocatable_is_loaded_at_1_mib() {
    for pref_address in [0x10_0000, 0x100_0000] {
        let kernel = BzImage { relocatable_kernel: false, pref_address, ..BzImage::new() };
        for kernel in [kernel.clone(), kernel.entered_in_32_bit_mode()] {
            let mut probe = Probe::boot(&machine(), &kernel, None, None);
            assert_eq!(probe.state.base, 0x10_0000);
            assert!(probe.read(0x10_0000, kernel.len) == kernel.code());
        }
    }
}

#[test]
fn fields_newer_than_the_kernels_protocol_are_ignored() {
    // 2.06 knows no init_size and no pref_address, 2.11 no xloadflags.
    for (version, base) in [(0x206, 0x10_0000), (0x20b, 0x100_0000)] {
        let kernel = BzImage { version, ..BzImage::new() };
        let probe = Probe::boot(&machine(), &kernel, Some(b"initrd"), Some("text"));
        assert_eq!((probe.state.base, probe.state.word), (base, 4), "{version:#x}");
    }
}

/// Overwrites all memory that the kernel may use before it reads the map, as a kernel that unpacks itself does, and checks
/// that nothing passed to it was there.
fn survives(probe: &mut Probe, run: Range<u64>, initrd: &[u8], command_line: &str) {
    let page = probe.boot_params();
    probe.fill(run.start.max(probe.state.base + PROBE_LEN)..run.end, 0xaa);
    assert!(probe.boot_params().0 == page.0, "boot_params are overwritten");
    assert!(probe.read(page.initrd().start, initrd.len()) == initrd, "the initrd is overwritten");
    assert_eq!(probe.read(page.command_line(), command_line.len()), command_line.as_bytes());
}

#[test]
fn the_initrd_is_kept_clear_of_a_kernel_that_unpacks_itself() {
    // The kernel runs from 16 to 40 MiB; the initrd must be below 32 MiB, where QEMU would have it in the kernel's way.
    let kernel = BzImage { init_size: 24 << 20, initrd_addr_max: (32 << 20) - 1, ..BzImage::new() };
    let initrd = random::bytes(3, 70_001);
    for kind in Kind::ALL {
        let mut probe = Probe::boot(&Machine::new(kind), &kernel, Some(&initrd), Some("text"));
        let place = probe.boot_params().initrd();
        assert!(place.end <= 16 << 20, "{place:x?}");
        survives(&mut probe, 16 << 20..40 << 20, &initrd, "text");
    }
}

#[test]
fn the_initrd_is_kept_clear_of_a_kernel_that_moves_up() {
    // Loaded at 1 MiB, it runs from 16 MiB to 40 MiB.
    let fixed = BzImage { relocatable_kernel: false, init_size: 24 << 20, ..BzImage::new() };
    let kernel = BzImage { initrd_addr_max: (48 << 20) - 1, ..fixed };
    let initrd = random::bytes(3, 70_001);
    let mut probe = Probe::boot(&machine(), &kernel, Some(&initrd), Some("text"));
    survives(&mut probe, 16 << 20..40 << 20, &initrd, "text");
}

#[test]
fn the_initrd_is_below_the_highest_address_that_the_kernel_takes() {
    let machine = Machine { memory: "512M", ..machine() };
    let initrd = random::bytes(4, 123_457);
    for initrd_addr_max in [0x3ff_ffff, 0xfff_ffff, 0x1000_07fe] {
        let kernel = BzImage { initrd_addr_max, ..BzImage::new() };
        let mut probe = Probe::boot(&machine, &kernel, Some(&initrd), None);
        let place = probe.boot_params().initrd();
        assert!(place.end - 1 <= initrd_addr_max.into(), "{place:x?}");
        assert!(probe.read(place.start, initrd.len()) == initrd);
    }
    // A kernel that takes it above 4 GiB takes it anywhere below.
    let kernel = BzImage { initrd_addr_max: 0x3ff_ffff, xloadflags: XLF_KERNEL_64_ABOVE_4G, ..BzImage::new() };
    let place = Probe::boot(&machine, &kernel, Some(&initrd), None).boot_params().initrd();
    assert!(place.start > 0x400_0000, "{place:x?}");
}

#[test]
fn initrds_of_odd_sizes_are_loaded_intact() {
    for len in [1, 511, 4095, 4097, 65_537] {
        let initrd = random::bytes(len, len as usize);
        let mut probe = Probe::boot(&machine(), &BzImage::new(), Some(&initrd), None);
        let place = probe.boot_params().initrd();
        assert_eq!(place.end - place.start, len);
        assert_eq!(place.start % 4096, 0, "the kernel wants it to begin on a page");
        assert!(probe.read(place.start, initrd.len()) == initrd, "{len}");
    }
}

#[test]
fn without_an_initrd_the_kernel_gets_none() {
    let page = Probe::boot(&machine(), &BzImage::new(), None, Some("text")).boot_params();
    assert_eq!(page.initrd(), 0..0);
}

#[test]
fn without_a_command_line_the_kernel_gets_an_empty_one() {
    let mut probe = Probe::boot(&machine(), &BzImage::new(), None, None);
    let at = probe.boot_params().command_line();
    assert_ne!(at, 0);
    assert_eq!(probe.read(at, 1), [0]);
}

#[test]
fn the_longest_command_line_that_the_kernel_takes_is_passed_intact() {
    for cmdline_size in [255, 4096, 30_000] {
        let kernel = BzImage { cmdline_size, ..BzImage::new() };
        let text: String = ('!'..='~').cycle().take(cmdline_size as usize).collect();
        let mut probe = Probe::boot(&machine(), &kernel, None, Some(&text));
        let at = probe.boot_params().command_line();
        assert!(probe.read(at, text.len() + 1) == [text.as_bytes(), b"\0"].concat(), "{cmdline_size}");
    }
}

/// `SETUP_DTB` (Linux `arch/x86/include/uapi/asm/setup_data.h`).
const SETUP_DTB: u32 = 2;

/// The nodes of the list that begins at `next`, as the kernel finds them (boot.rst, `setup_data`): kind and data.
fn setup_data(probe: &mut Probe) -> Vec<(u32, Vec<u8>)> {
    let mut next = probe.boot_params().u64(0x250);
    let mut nodes = Vec::new();
    while next != 0 {
        assert!(nodes.len() < 10, "the list does not end");
        let header = BootParams(probe.read(next, 16));
        nodes.push((header.u32(8), probe.read(next + 16, header.u32(12) as usize)));
        next = header.u64(0);
    }
    nodes
}

fn check_device_tree(machine: &Machine) {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("tree");
    // More than the kernel's setup code, and less.
    for len in [4001, 501] {
        let tree = random::bytes(7, len);
        fs::write(&path, &tree).expect("a file in the temporary folder");
        // The kernel unpacks itself over the place where QEMU would have it, and all behind it.
        let kernel = BzImage { pref_address: 0x10_0000, init_size: 40 << 20, ..BzImage::new() };
        let machine = machine.clone().with(&format!("-dtb {}", path.display()));
        let mut probe = Probe::boot(&machine, &kernel, Some(b"initrd"), Some("text"));
        assert!(probe.read(probe.state.base, kernel.len) == kernel.code());
        let end = probe.state.base + (40 << 20);
        survives(&mut probe, 1 << 20..end, b"initrd", "text");
        let nodes = setup_data(&mut probe);
        assert!(nodes == [(SETUP_DTB, tree)], "{} nodes", nodes.len());
    }
}

#[test]
fn a_device_tree_that_the_host_appends_to_the_kernel_survives() {
    for kind in Kind::ALL {
        check_device_tree(&Machine::new(kind));
    }
}

/// Version 10 counts the pointer to it from the beginning of the file.
#[test]
fn a_device_tree_of_a_newer_qemu_is_found() {
    if let Some(emulator) = Emulator::newer() {
        check_device_tree(&Machine { emulator, ..machine() });
    }
}

#[test]
fn a_command_line_of_60_000_characters_is_passed_intact() {
    let words: Vec<_> = (0..6000).map(|i| format!("w{i:08}")).collect();
    let text = words.join(" ");
    for transport in Transport::ALL {
        for kernel in [BzImage::new(), BzImage::new().entered_in_32_bit_mode()] {
            let kernel = BzImage { cmdline_size: 0xffff, ..kernel };
            let mut probe = Probe::boot(&Machine { transport, ..machine() }, &kernel, Some(b"initrd"), Some(&text));
            let at = probe.boot_params().command_line();
            assert!(probe.read(at, text.len() + 1) == [text.as_bytes(), &[0]].concat());
        }
    }
}
