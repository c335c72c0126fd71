//! The mappings while the firmware runs, and what it leaves in memory.
//!
//! The tests read the page tables from the machine's memory and walk every entry.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::bzimage::BzImage;
use crate::environment;
use crate::failure;
use crate::gdb::{Gdb, Register};
use crate::machine::{Accelerator, Firmware, Kind, Machine, Qemu, Transport};
use crate::probe::Probe;
use crate::qmp::Qmp;

/// The image's linked address (`VIRTUAL_OFFSET` in `linker.ld`), and low RAM after it.
const IMAGE: Range<u64> = 0xffff_ffff_bff8_0000..0xffff_ffff_c000_0000;
const RAM: u64 = 0xffff_ffff_c000_0000;
/// Where the image is in physical memory: after a reset, and after a start by the PVH entry point.
const IN_ROM: Range<u64> = 0xfff8_0000..0x1_0000_0000;
const IN_RAM: Range<u64> = 0xf8_0000..0x100_0000;
/// Code in the image: `.start` is at its end.
const CODE: u64 = IMAGE.end - 0x100;
/// The page under the stack, and the stack (`src/layout.rs`, `linker.ld`).
const STACK_GUARD: Range<u64> = 0x8_c000..0x8_d000;
const STACK: Range<u64> = 0x8_d000..0x9_9000;

/// Bits of an entry (Intel SDM volume 3, tables 4-15 to 4-20), and EFER's bit that makes the last one count.
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const EFER_NXE: u64 = 1 << 11;
/// Bits of CR4 (Intel SDM volume 3, 2.5).
const CR4_PAE: u64 = 1 << 5;
const CR4_UMIP: u64 = 1 << 11;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;

/// A page that is mapped, with what all levels of tables together allow.
#[derive(Debug)]
struct Page {
    at: u64,
    to: u64,
    len: u64,
    writable: bool,
    executable: bool,
}

/// The address space of the first CPU.
struct Mapping {
    /// The machine's low memory, where the tables are.
    memory: Vec<u8>,
    pages: Vec<Page>,
    no_execute: bool,
    cr4: u64,
}

impl Mapping {
    fn read(qemu: &Qemu) -> Self {
        let mut qmp = qemu.qmp();
        let registers = qmp.run("human-monitor-command", "{\"command-line\": \"info registers\"}");
        let register = |name: &str| {
            let (_, rest) = registers.split_once(name).expect("a register");
            let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
            u64::from_str_radix(&digits, 16).expect("a number")
        };
        let (root, no_execute) = (register("CR3=") & ADDRESS, register("EFER=") & EFER_NXE != 0);
        assert_ne!(register("CR0=") & 1 << 16, 0, "the firmware may write what is read-only");
        let memory = fs::read(save_memory(qemu, &mut qmp, 1 << 20)).expect("the machine's memory");
        let mut mapping = Self { memory, pages: Vec::new(), no_execute, cr4: register("CR4=") };
        mapping.walk(root, 39, 0, (true, true));
        mapping
    }

    fn walk(&mut self, table: u64, shift: u32, base: u64, (writable, executable): (bool, bool)) {
        for number in 0..512 {
            let at = usize::try_from(table + number * 8).unwrap();
            let entry = u64::from_le_bytes(self.memory[at..at + 8].try_into().expect("a table in low memory"));
            if entry & PRESENT == 0 {
                assert_eq!(entry, 0, "what is left of something is at {at:#x}");
                continue;
            }
            assert_eq!(entry & USER, 0, "{entry:#x} is a user's");
            let allowed =
                (writable && entry & WRITABLE != 0, executable && !(self.no_execute && entry & NO_EXECUTE != 0));
            let mut address = base | number << shift;
            if shift == 39 && number >= 256 {
                address |= 0xffff << 48;
            }
            if shift == 12 || entry & LARGE != 0 {
                let len = 1 << shift;
                let (writable, executable) = allowed;
                self.pages.push(Page { at: address, to: entry & ADDRESS & !(len - 1), len, writable, executable });
            } else {
                self.walk(entry & ADDRESS, shift - 9, address, allowed);
            }
        }
    }

    fn at(&self, address: u64) -> Option<&Page> {
        self.pages.iter().find(|page| page.at <= address && address - page.at < page.len)
    }

    /// Checks what holds on every machine. `image` is the image's physical address.
    fn check(&self, image: &Range<u64>) {
        for page in &self.pages {
            let of_image = image.contains(&page.to) && page.len == 4096;
            if self.no_execute {
                assert!(!(page.writable && page.executable), "{page:x?}");
                assert!(!page.executable || of_image, "{page:x?} is no code");
            }
            assert!(!(of_image && page.at >= IMAGE.start && page.at < IMAGE.end && page.writable), "{page:x?}");
        }
        for address in [STACK_GUARD.start, STACK_GUARD.end - 1].into_iter().flat_map(|at| [at, RAM + at]) {
            assert!(self.at(address).is_none(), "{address:#x} is mapped");
        }
        for address in [STACK.start, STACK.end - 1, 0x4_0000].map(|at| RAM + at) {
            assert!(self.at(address).is_some_and(|page| page.writable), "{address:#x} is not writable");
        }
        // All of the image: first the constants, then the code.
        let image: Vec<_> = IMAGE.step_by(4096).map(|at| self.at(at).expect("a page of the image")).collect();
        if self.no_execute {
            let constants = image.iter().take_while(|page| !page.executable).count();
            assert!((1..image.len()).contains(&constants), "{constants} pages of constants");
            assert!(image[constants..].iter().all(|page| page.executable));
        }
    }
}

/// The first bytes of the machine's memory, in a file.
fn save_memory(qemu: &Qemu, qmp: &mut Qmp, len: u64) -> PathBuf {
    let path = qemu.folder().join("memory");
    qmp.run("pmemsave", &format!("{{\"val\": 0, \"size\": {len}, \"filename\": {path:?}}}"));
    path
}

/// A firmware that has stopped with an error, because its kernel is none. Without a kernel, it would look for disks first.
fn stopped(machine: &Machine) -> Qemu {
    let mut qemu = machine.clone().with(failure::NO_KERNEL).start();
    qemu.wait_for("an error", |qemu| qemu.com1().contains("firstlight: error: ") && qemu.com1().ends_with('\n'));
    qemu
}

#[test]
fn no_page_is_both_writable_and_executable() {
    let tcg = Kind::ALL.map(Machine::new);
    let kvm = Accelerator::kvm().map(|accelerator| Machine { accelerator, ..Machine::new(Kind::Q35) });
    for machine in tcg.into_iter().chain(kvm) {
        let mapping = Mapping::read(&stopped(&machine));
        assert!(mapping.no_execute, "{machine:?}");
        mapping.check(&IN_ROM);
        assert!(mapping.at(0).is_none() && mapping.at(RAM).is_none(), "page zero is mapped");
        assert!(mapping.at(0x1000).is_some_and(|page| page.writable && page.to == 0x1000));
    }
}

#[test]
fn no_page_is_both_writable_and_executable_after_a_start_by_the_pvh_entry_point() {
    for firmware in [Firmware::SeaBios, Firmware::Qboot] {
        let machine = Machine { firmware, kernel: Some(environment::elf()), ..Machine::new(Kind::Q35) };
        let mapping = Mapping::read(&stopped(&machine));
        assert!(mapping.no_execute);
        mapping.check(&IN_RAM);
        assert!(mapping.at(0).is_some_and(|page| !page.writable), "page zero can be written");
    }
}

#[test]
fn a_cpu_without_nx_boots_with_all_other_protections() {
    let machine = Machine::new(Kind::Q35).with("-cpu qemu64,-nx");
    let mapping = Mapping::read(&stopped(&machine));
    assert!(!mapping.no_execute);
    mapping.check(&IN_ROM);
    assert!(mapping.at(0).is_none());
    for kernel in [BzImage::new(), BzImage::new().entered_in_32_bit_mode()] {
        Probe::boot(&machine, &kernel, None, None);
    }
}

#[test]
fn smep_smap_and_umip_are_enabled_until_the_jump() {
    // The first has no leaf for these features, the second has one without them.
    for (cpu, on) in [
        ("qemu64,level=6", 0),
        ("qemu64", 0),
        ("qemu64,+smep", CR4_SMEP),
        ("qemu64,+smap", CR4_SMAP),
        ("qemu64,+umip", CR4_UMIP),
        ("max", CR4_SMEP | CR4_SMAP | CR4_UMIP),
    ] {
        let machine = Machine::new(Kind::Q35).with(&format!("-cpu {cpu}"));
        assert_eq!(Mapping::read(&stopped(&machine)).cr4, CR4_PAE | on, "{cpu}");
        for (kernel, left) in [(BzImage::new(), CR4_PAE), (BzImage::new().entered_in_32_bit_mode(), 0)] {
            assert_eq!(Probe::boot(&machine, &kernel, None, None).state.cr4, left, "{cpu}, {kernel:?}");
        }
    }
}

/// A stack overflow: the write outside the stack is reported, on another stack.
#[test]
fn a_stack_overflow_is_reported() {
    let folder = TempDir::new().expect("a temporary folder");
    let (mut qemu, mut gdb, copy) = stopped_at_a_copy(folder.path());
    // A copy onto the page under the stack, with the stack there as well: nothing can be pushed.
    let below = RAM + STACK_GUARD.end - 8;
    gdb.set(&[(Register::Rsi, RAM + STACK.start), (Register::Rdi, below), (Register::Rcx, 1), (Register::Rsp, below)]);
    gdb.go();
    qemu.wait_for("the report of an exception", |qemu| qemu.com1().ends_with('\n'));
    let expected = format!("CPU exception 14 at {copy:#x}, error code 0x2, CR2 {below:#x}:");
    assert!(qemu.com1().contains(&expected), "{expected} is not in {}", qemu.com1());
    assert!(qemu.is_running(), "QEMU ended");
}

/// A firmware that is about to copy something, and the address of that instruction.
fn stopped_at_a_copy(folder: &Path) -> (Qemu, Gdb, u64) {
    let image = fs::read(environment::image()).expect("the image");
    // `rep movsq`, as in memcpy: it reads at RSI and writes at RDI. The last one is at the start, where there is no table
    // of interrupts yet.
    let copies = (IMAGE.start..).zip(image.windows(3)).filter(|(_, bytes)| *bytes == [0xf3, 0x48, 0xa5]);
    let mut copies: Vec<_> = copies.map(|(at, _)| at).collect();
    copies.pop();
    let machine = Machine::new(Kind::Q35).with("-S").with(&Gdb::argument(folder));
    let mut qemu = machine.start();
    let mut gdb = Gdb::connect(folder, &mut qemu);
    gdb.run_to(&copies);
    let copy = gdb.get(Register::Rip);
    (qemu, gdb, copy)
}

/// A wild pointer: the firmware prints the address and stops. The test stops the firmware at a copy, and changes the copy.
#[test]
fn a_wild_pointer_is_reported() {
    let heap = RAM + 0x4_0000;
    // Where it is stopped, RIP stays.
    let copy = None;
    let cases = [
        // Error codes: Intel SDM volume 3, figure 4-12. 1: the page is mapped; 2: a write; 0x10: execution.
        ("a null pointer written", copy, heap, 0, 0, 2),
        ("a null pointer read", copy, 8, heap, 8, 0),
        ("code written", copy, heap, CODE, CODE, 3),
        ("constants written", copy, heap, IMAGE.start, IMAGE.start, 3),
        ("the page under the stack written", copy, heap, RAM + STACK_GUARD.end - 8, RAM + STACK_GUARD.end - 8, 2),
        ("the heap executed", Some(heap), 0, 0, heap, 0x11),
        ("memory executed where it is", Some(0x10_0000), 0, 0, 0x10_0000, 0x11),
        ("constants executed", Some(IMAGE.start), 0, 0, IMAGE.start, 0x11),
        ("a null pointer executed", Some(0), 0, 0, 0, 0x10),
    ];
    for (what, rip, from, to, cr2, error_code) in cases {
        eprintln!("{what}");
        let folder = TempDir::new().expect("a temporary folder");
        let (mut qemu, mut gdb, copy) = stopped_at_a_copy(folder.path());
        let rip = rip.unwrap_or(copy);
        gdb.set(&[(Register::Rsi, from), (Register::Rdi, to), (Register::Rcx, 1), (Register::Rip, rip)]);
        gdb.go();
        qemu.wait_for("the report of an exception", |qemu| qemu.com1().ends_with('\n'));
        let expected = format!("CPU exception 14 at {rip:#x}, error code {error_code:#x}, CR2 {cr2:#x}:");
        assert!(qemu.com1().contains(&expected), "{what}: {expected} is not in {}", qemu.com1());
    }
}

/// Command line and initrd are where the kernel's parameters say, and nowhere else: the firmware keeps no copy.
#[test]
fn command_line_and_initrd_are_in_memory_once() {
    let [line, initrd] = ["isolation=4c1f9e0d27b8a356", "initrd 93d07a5ef1c84b26"];
    let old = BzImage { version: 0x201, ..BzImage::new() }.entered_in_32_bit_mode();
    for kernel in [BzImage::new(), BzImage::new().entered_in_32_bit_mode(), old] {
        for transport in Transport::ALL {
            let machine = Machine { transport, memory: "64M", ..Machine::new(Kind::Q35) };
            let mut probe = Probe::boot(&machine, &kernel, Some(initrd.as_bytes()), Some(line));
            let page = probe.boot_params();
            let file = save_memory(&probe.qemu, &mut probe.qemu.qmp(), 64 << 20);
            let places = |text: &str| -> Vec<u64> {
                let mut grep = Command::new("grep");
                let output = grep.args(["-aboF", text]).arg(&file).output().expect("grep starts");
                let lines = String::from_utf8(output.stdout).expect("text");
                lines.lines().map(|line| line.split(':').next().unwrap().parse().expect("an offset")).collect()
            };
            assert_eq!(places(initrd), [page.initrd().start], "{kernel:?}");
            let [at] = places(line)[..] else { panic!("{:x?}", places(line)) };
            if kernel.version >= 0x202 {
                assert_eq!(at, page.command_line());
            }
        }
    }
}
