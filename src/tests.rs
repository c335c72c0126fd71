//! Tests of the whole boot on scripted hosts.

use std::boxed::Box;
use std::cell::RefCell;
use std::format;
use std::rc::Rc;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::boot::{EfiBoot, Entry};
use crate::fakes::chipset::{FakeConfigPorts, FakePics};
use crate::fakes::fw_cfg::{AddressReads, FakeFwCfg, Quirks};
use crate::fakes::known_hosts::known_hosts;
use crate::fakes::machine::{Access, FakeMachine, FakeMemory};
use crate::fakes::tpm::{Defects, FakeTpm, Kind, State};
use crate::fakes::{event_log, golden, machine, tables as made};

mod display;
mod hosts;
mod resets;

/// The first 1024 bytes of Debian's kernel, except its length (`syssize`, in 16 bytes), which is that of [`with_kernel`]'s.
const SETUP: &[u8] = &{
    let mut setup = *include_bytes!("boot/testdata/vmlinuz-6.1.0-56-cloud-amd64.setup");
    [setup[0x1f4], setup[0x1f5], setup[0x1f6], setup[0x1f7]] = 9001_u32.div_ceil(16).to_le_bytes();
    setup
};
const COMMAND_LINE: &[u8] = b"console=ttyS0 quiet\0";

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i / 256) as u8 ^ (i as u8).wrapping_mul(13) ^ seed).collect()
}

/// `device` with a kernel, an initrd and a command line.
fn with_kernel(device: FakeFwCfg) -> FakeFwCfg {
    let size = |len: usize| (len as u32).to_le_bytes();
    device
        .with_item(0x18, SETUP)
        .with_item(0x08, &size(9001))
        .with_item(0x11, &bytes(9001, 1))
        .with_item(0x0b, &size(7003))
        .with_item(0x12, &bytes(7003, 2))
        .with_item(0x14, &size(COMMAND_LINE.len()))
        .with_item(0x15, COMMAND_LINE)
}

fn q35(device: FakeFwCfg) -> FakeMachine {
    let config = FakeConfigPorts::with_host_bridge(0x29c0_8086).with_function(0x1f << 11, 0x2918_8086);
    FakeMachine::new().with(device).with(config)
}

fn u32_at(page: &[u8], at: usize) -> u64 {
    u32::from_le_bytes(page[at..at + 4].try_into().unwrap()).into()
}

#[test]
fn a_kernel_is_loaded_with_all_its_parts_on_every_transport() {
    let address_reads = AddressReads::LastAddress;
    let portable = Quirks { address_reads, moves_control_bits: true, no_zero_fill: true, ..Quirks::default() };
    for (dma, quirks) in [(true, Quirks::default()), (false, Quirks::default()), (true, portable)] {
        let device = with_kernel(golden::device("q35", dma)).with_quirks(quirks);
        let record = device.record();
        let mut machine = q35(device);
        let handover = run(&mut machine, Start::Reset).unwrap();
        assert_eq!(handover.entry, Entry::Linux64(addr::PhysAddr::new(0x100_0200)));
        assert_eq!(machine.memory.bytes(0x100_0000, 9001), bytes(9001, 1));
        let page = machine.memory.bytes(handover.parameters.get(), 4096);
        assert_eq!(page[0x1f1 + 1..0x202], SETUP[0x1f1 + 1..0x202]);
        assert_eq!(u32_at(&page, 0x21c), 7003);
        assert_eq!(machine.memory.bytes(u32_at(&page, 0x218), 7003), bytes(7003, 2));
        assert_eq!(machine.memory.bytes(u32_at(&page, 0x228), COMMAND_LINE.len()), COMMAND_LINE);
        let rsdp = u32_at(&page, 0x070);
        assert_eq!(machine.memory.bytes(rsdp, 8), b"RSD PTR ");
        // No item is read past its end, except on QEMU, which returns zeros there: the directory, for the usual number of files,
        // and the first item in the F-segment, to the end of the space for tables there.
        let files = golden::items("q35").len() as u64 + 1;
        let directory = (24 - files) * 64;
        let zeros = if dma && quirks.address_reads == AddressReads::AsQemu { directory + 0xffc0 - 20 } else { 0 };
        assert_eq!(record.borrow().past_end, zeros);
    }
}

#[test]
fn the_chipset_is_programmed_before_any_acpi_item_is_selected() {
    let device = with_kernel(golden::device("q35", false));
    let mut machine = q35(device);
    let names: Vec<_> = golden::items("q35").keys().cloned().collect();
    let acpi = |key: u32| {
        let name = &names[key as usize - 0x20];
        name.starts_with("etc/acpi") || name == "etc/table-loader"
    };
    run(&mut machine, Start::Reset).unwrap();
    let select = |access: &Access| matches!(access, Access::Out(0x510, 2, key) if *key >= 0x20 && acpi(*key));
    let first = machine.accesses.iter().position(select).unwrap();
    let pciexbar = machine.accesses.iter().position(|access| *access == Access::Out(0xcfc, 4, 0xb000_0001)).unwrap();
    let last_configuration =
        machine.accesses.iter().rposition(|access| matches!(access, Access::Out(0xcf8, ..))).unwrap();
    assert!(pciexbar < first && last_configuration < first);
    // Through the window, which is already open.
    assert_eq!(machine.memory.bytes(0xb000_0000 + (0x1f << 15) + 0x40, 2), [0x01, 0x06]);
}

#[test]
fn a_successful_boot_does_not_access_a_console() {
    let mut machine = q35(with_kernel(golden::device("q35", true)));
    run(&mut machine, Start::Reset).unwrap();
    let console = |port| (0x3f8..0x400).contains(&port) || port == 0x402;
    assert!(!machine.accesses.iter().any(|access| match access {
        Access::In(port, ..) | Access::Out(port, ..) => console(*port),
    }));
}

#[test]
fn the_points_of_the_boot_are_marked_when_the_host_asks_for_it() {
    let marks = |option: Option<&str>| {
        let device = with_kernel(golden::device("q35", true));
        let device = match option {
            Some(text) => device.with_file("opt/org.firstlight/trace", text.as_bytes()),
            None => device,
        };
        let mut machine = q35(device);
        run(&mut machine, Start::Reset).unwrap();
        let mark = |access: &Access| match *access {
            Access::Out(port @ (0xf4 | 0xf5), 1, code) => Some((port, code)),
            _ => None,
        };
        machine.accesses.iter().filter_map(mark).collect::<Vec<_>>()
    };
    assert_eq!(marks(Some("on")), [(0xf5, 1), (0xf5, 5), (0xf4, 2), (0xf4, 3)]);
    assert_eq!(marks(Some("off")), []);
    assert_eq!(marks(None), []);
}

/// An image of the EFI runtime services: a page of code and three of data.
const RUNTIME: &[u8] = &{
    let mut image = [0; 76];
    [image[0], image[1], image[2], image[3]] = *b"FLRT";
    // Where the shared structure is, where the code ends, the length; then the functions, at 0x100.
    (image[5], image[9], image[13]) = (0x10, 0x10, 0x40);
    let mut at = 17;
    while at < image.len() {
        image[at] = 1;
        at += 4;
    }
    image
};

#[test]
fn a_kernel_finds_efi_tables_only_when_the_host_asks_for_them() {
    let efi_info = |option: Option<&[u8]>, image: &'static [u8]| {
        let device = with_kernel(golden::device("q35", true));
        let device = match option {
            Some(text) => device.with_file("opt/org.firstlight/efi", text),
            None => device,
        };
        let mut machine = q35(device);
        machine.runtime_services = image;
        let handover = run(&mut machine, Start::Reset).unwrap();
        let page = machine.memory.bytes(handover.parameters.get(), 4096);
        let info = page[0x1c0..0x1e0].to_vec();
        let system_table = u32_at(&info, 4);
        let is_table = system_table != 0 && machine.memory.bytes(system_table, 8) == b"IBI SYST";
        // The system table is in memory that the kernel leaves alone.
        let entries = usize::from(page[0x1e8]);
        let is_ram = page[0x2d0..][..20 * entries].chunks(20).any(|entry| {
            let (start, len) = (u32_at(entry, 0), u32_at(entry, 8));
            (start..start + len).contains(&system_table) && u32_at(entry, 16) == 1
        });
        (info, is_table && !is_ram)
    };
    for option in [None, Some(&b"off"[..]), Some(b"what")] {
        assert_eq!(efi_info(option, RUNTIME), (vec![0; 32], false), "{option:?}");
    }
    let (info, has_table) = efi_info(Some(b"tables"), RUNTIME);
    assert_eq!((&info[..4], u32_at(&info, 8), u32_at(&info, 12)), (&b"EL64"[..], 48, 1));
    assert!(has_table && u32_at(&info, 20).is_multiple_of(48));
    // A firmware that was built without the services.
    assert_eq!(efi_info(Some(b"tables"), &[]), (vec![0; 32], false));
}

#[test]
fn a_host_without_a_known_bridge_boots() {
    let mut machine = FakeMachine::new().with(with_kernel(golden::device("microvm", true)));
    let handover = run(&mut machine, Start::Reset).unwrap();
    let page = machine.memory.bytes(handover.parameters.get(), 4096);
    assert_eq!(machine.memory.bytes(u32_at(&page, 0x070), 8), b"RSD PTR ");
}

/// Reading the rate takes CPUID.
#[test]
fn a_boot_without_waits_does_not_read_the_rate_of_the_clock() {
    for dma in [true, false] {
        let mut machine = q35(with_kernel(golden::device("q35", dma)));
        run(&mut machine, Start::Reset).unwrap();
        assert_eq!(machine.rate_looks, 0);
    }
}

/// On this machine, an access to a port of fw_cfg panics, and every other port reads as all ones.
#[test]
fn a_machine_without_ports_boots_with_fw_cfg_in_memory() {
    for dma in [true, false] {
        let device = || with_kernel(golden::device("microvm", dma));
        let mut by_ports = FakeMachine::new().with(device());
        let mut by_memory = FakeMachine::new().with_fw_cfg_at(0x0902_0000, device());
        let handover = run(&mut by_memory, Start::Reset).unwrap();
        assert_eq!(handover, run(&mut by_ports, Start::Reset).unwrap(), "DMA: {dma}");
        // What is loaded, and the kernel's parameters.
        for (start, len) in [(handover.parameters.get(), 4096), (0x10_0000, 16 << 20), (0xf_0000, 0x1_0000)] {
            assert!(by_memory.memory.bytes(start, len) == by_ports.memory.bytes(start, len), "{start:#x}, DMA: {dma}");
        }
    }
}

fn failure(device: FakeFwCfg) -> Failure {
    run(&mut q35(device), Start::Reset).unwrap_err()
}

#[test]
fn each_missing_item_is_reported_in_a_sentence() {
    let nothing = run(&mut FakeMachine::new(), Start::Reset).unwrap_err();
    assert!(nothing.error.to_string().starts_with("no fw_cfg device"), "{}", nothing.error);
    assert_eq!(nothing.restart_after, None);

    let no_kernel = failure(golden::device("q35", true));
    let expected = "no kernel and no disk: give the host a kernel (QEMU -kernel, libvirt <kernel>, or the fw_cfg file \
         opt/org.firstlight/kernel), or a virtio, NVMe or AHCI disk (QEMU -drive if=virtio, libvirt <disk>)";
    assert_eq!(no_kernel.error.to_string(), expected);

    let mut old = SETUP.to_vec();
    old[0x206..0x208].copy_from_slice(&[0x05, 0x01]);
    let old = failure(with_kernel(golden::device("q35", true)).with_item(0x18, &old));
    assert!(old.error.to_string().starts_with("kernel too old: its boot protocol is 1.05"), "{}", old.error);

    let large = failure(with_kernel(golden::device("q35", true)).with_item(0x0b, &(200u32 << 20).to_le_bytes()));
    assert!(large.error.to_string().starts_with("the initrd of 200 MiB does not fit"), "{}", large.error);
}

#[test]
fn the_host_says_how_long_a_failed_boot_waits() {
    let wait = |contents: &[u8]| {
        let device = golden::device("q35", true).with_file("etc/boot-fail-wait", contents);
        failure(device).restart_after
    };
    assert_eq!(wait(&5000u32.to_le_bytes()), Some(5000));
    assert_eq!(wait(&0u32.to_le_bytes()), Some(0));
    assert_eq!(wait(&u32::MAX.to_le_bytes()), None, "-1 is for ever");
    assert_eq!(wait(&[0; 3]), None, "an item of the wrong length");
    assert_eq!(failure(golden::device("q35", true)).restart_after, None);
}

#[test]
fn a_host_whose_dma_does_not_work_boots_through_ports() {
    for quirks in
        [Quirks { never_completes: true, ..Quirks::default() }, Quirks { always_fails: true, ..Quirks::default() }]
    {
        let device = with_kernel(golden::device("q35", true)).with_quirks(quirks);
        let record = device.record();
        let mut machine = q35(device);
        let handover = run(&mut machine, Start::Reset).unwrap();
        assert_eq!(handover.entry, Entry::Linux64(addr::PhysAddr::new(0x100_0200)));
        assert_eq!(machine.memory.bytes(0x100_0000, 9001), bytes(9001, 1));
        // A transfer that never ends costs its deadline once.
        let transfers = record.borrow().transfers;
        assert_eq!(transfers == 1, quirks.never_completes, "{transfers}");
    }
}

/// 256 MiB of RAM.
const E820: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 1, 0, 0, 0];

/// The kernel as a whole file: setup code and the rest.
fn kernel_file() -> Vec<u8> {
    let mut file = SETUP.to_vec();
    file.resize((usize::from(SETUP[0x1f1]) + 1) * 512, 0x77);
    file.extend(bytes(9001, 1));
    file
}

#[test]
fn every_known_host_boots_a_kernel_from_named_files() {
    // The last byte is the entry point; less than the setup code; all of it.
    for rest in [513, 5000, 9001] {
        for host in known_hosts() {
            let mut file = kernel_file();
            file.truncate(file.len() - 9001 + rest);
            file[0x1f4..0x1f8].copy_from_slice(&(rest as u32).div_ceil(16).to_le_bytes());
            let device = host
                .device()
                .with_file("etc/e820", &E820)
                .with_file("etc/boot/kernel", b"not this one")
                .with_file("opt/org.firstlight/kernel", &file)
                .with_file("opt/org.firstlight/initrd", &bytes(7003, 2))
                .with_file("opt/org.firstlight/cmdline", b"console=ttyS0 quiet\n");
            let record = device.record();
            let mut machine = FakeMachine::new().with(device);
            machine.absent = host.absent_port;
            // Earlier contents of memory are not in the command line.
            machine.memory.store(0x1_1000, &[0x55; 64]);
            let handover =
                run(&mut machine, Start::Reset).unwrap_or_else(|failure| panic!("{}: {}", host.name, failure.error));
            let name = host.name;
            assert_eq!(machine.memory.bytes(0x100_0000, rest), bytes(9001, 1)[..rest], "{name}");
            let page = machine.memory.bytes(handover.parameters.get(), 4096);
            assert_eq!(u32_at(&page, 0x21c), 7003, "{name}");
            assert_eq!(machine.memory.bytes(u32_at(&page, 0x218), 7003), bytes(7003, 2), "{name}");
            assert_eq!(machine.memory.bytes(u32_at(&page, 0x228), COMMAND_LINE.len()), COMMAND_LINE, "{name}");
            // The signature and the directory may be read past their ends, the files not.
            assert_eq!(record.borrow().fatal, Vec::<&str>::new(), "{name}");
        }
    }
}

#[test]
fn a_numbered_item_precedes_a_named_file() {
    let files = |device: FakeFwCfg| {
        device
            .with_file("opt/org.firstlight/kernel", b"not this one")
            .with_file("opt/org.firstlight/initrd", b"nor this one")
            .with_file("opt/org.firstlight/cmdline", b"nor this one")
    };
    let mut machine = q35(files(with_kernel(golden::device("q35", true))));
    let handover = run(&mut machine, Start::Reset).unwrap();
    let page = machine.memory.bytes(handover.parameters.get(), 4096);
    assert_eq!(u32_at(&page, 0x21c), 7003);
    assert_eq!(machine.memory.bytes(u32_at(&page, 0x228), COMMAND_LINE.len()), COMMAND_LINE);

    // Cloud Hypervisor has numbered items for these, but none for a kernel of the guest's.
    let device = files(with_kernel(golden::device("q35", true)).with_item(0x08, &[0; 4]));
    let device = device.with_file("etc/boot/kernel", &kernel_file());
    // The first of the two kernels is invalid.
    assert!(failure(device).error.to_string().contains("no Linux setup header"));
    let device = with_kernel(golden::device("q35", true)).with_item(0x08, &[0; 4]);
    let mut machine = q35(device.with_file("etc/boot/kernel", &kernel_file()));
    let handover = run(&mut machine, Start::Reset).unwrap();
    let page = machine.memory.bytes(handover.parameters.get(), 4096);
    assert_eq!(machine.memory.bytes(0x100_0000, 9001), bytes(9001, 1));
    assert_eq!(machine.memory.bytes(u32_at(&page, 0x218), 7003), bytes(7003, 2));
    assert_eq!(machine.memory.bytes(u32_at(&page, 0x228), COMMAND_LINE.len()), COMMAND_LINE);
}

#[test]
fn each_defect_of_a_kernel_file_is_reported_in_a_sentence() {
    let with = |file: &[u8]| {
        let device = golden::device("q35", true).with_file("opt/org.firstlight/kernel", file);
        failure(device).error.to_string()
    };
    assert!(with(&[]).starts_with("no kernel: the fw_cfg file for the kernel is empty"), "{}", with(&[]));
    assert!(with(b"text").contains("no Linux setup header: it is text"));
    let elf = [b"\x7fELF", &[0; 14][..], &[62, 0]].concat();
    assert!(with(&elf).contains("ELF file, which the host has to load"), "{}", with(&elf));
    // The setup code alone, less, and more.
    let file = kernel_file();
    for len in [1024, file.len() - 9001, file.len() - 16] {
        let expected = format!("it has {len} bytes, and {} by its header", file.len() + 7);
        assert!(with(&file[..len]).contains(&expected), "{}", with(&file[..len]));
    }
    let device = golden::device("q35", true).with_file("opt/org.firstlight/kernel", &file);
    let long = device.with_file("opt/org.firstlight/cmdline", &[b'x'; 2048]);
    assert!(failure(long).error.to_string().contains("has 2048 bytes, the kernel accepts 2047"));
}

/// The items of a host with a TPM, whose log has `log_len` bytes.
fn tpm_device(log_len: usize) -> FakeFwCfg {
    let log = "etc/tpm/log";
    let device = golden::items("q35").iter().fold(FakeFwCfg::new(true), |device, (name, bytes)| match &name[..] {
        "etc/table-loader" => device.with_file(name, &[bytes.as_slice(), &golden::allocate(log)].concat()),
        _ => device.with_file(name, bytes),
    });
    device.with_file(log, &vec![0; log_len])
}

/// The whole boot with the registers of a TPM.
fn with_tpm(defects: Defects) -> (FakeMachine, Handover, Rc<RefCell<State>>) {
    with_tpm_and(defects, with_kernel)
}

/// The same with the additions of `add` to the device.
fn with_tpm_and(defects: Defects, add: fn(FakeFwCfg) -> FakeFwCfg) -> (FakeMachine, Handover, Rc<RefCell<State>>) {
    let (registers, state) = FakeTpm::new(Kind::Crb, &[0x0b], defects);
    let mut machine = q35(add(tpm_device(0x1_0000)));
    machine.registers.push(Box::new(registers));
    let handover = run(&mut machine, Start::Reset).unwrap();
    (machine, handover, state)
}

/// QEMU does not describe a TPM with `acpi=off`, nor on a microvm. The TPM's user cannot distinguish these from others.
#[test]
fn a_boot_is_measured_into_an_undescribed_tpm() {
    let (_, _, listed) = with_tpm(Defects::default());
    let without_acpi = || FakeFwCfg::new(true).with_file(golden::QEMU_FILE, &[]).with_file("etc/e820", &E820);
    let devices: [&dyn Fn() -> FakeFwCfg; 2] = [&without_acpi, &|| golden::device("microvm", true)];
    for device in devices {
        for kind in [Kind::Crb, Kind::Fifo] {
            let (registers, state) = FakeTpm::new(kind, &[0x0b], Defects::default());
            let mut machine = q35(with_kernel(device()));
            machine.registers.push(Box::new(registers));
            run(&mut machine, Start::Reset).unwrap();
            assert_eq!(state.borrow().pcrs, listed.borrow().pcrs);
            assert!(!state.borrow().password.is_empty(), "the platform hierarchy is closed");
            assert!(!state.borrow().taken);
        }
    }
    // A microvm's firmware before this one passes tables.
    let (registers, state) = FakeTpm::new(Kind::Crb, &[0x0b], Defects::default());
    let mut machine = pvh_host(&[], 0xe_0000);
    machine.devices.push(Box::new(with_kernel(golden::device("microvm", true))));
    machine.registers.push(Box::new(registers));
    let handover = run(&mut machine, START_INFO).unwrap();
    assert_eq!(u32_at(&machine.memory.bytes(handover.parameters.get(), 4096), 0x070), 0xe_0000, "these are taken");
    assert_eq!(state.borrow().pcrs[&0x0b][9], listed.borrow().pcrs[&0x0b][9]);
    // On another host, an undescribed TPM is absent.
    let (registers, state) = FakeTpm::new(Kind::Crb, &[0x0b], Defects::default());
    let mut machine = q35(with_kernel(FakeFwCfg::new(true).with_file("etc/e820", &E820)));
    machine.registers.push(Box::new(registers));
    run(&mut machine, Start::Reset).unwrap();
    assert_eq!(state.borrow().commands, []);
}

#[test]
fn a_kernel_file_is_measured_like_the_host_s_items() {
    let device = tpm_device(0x1_0000).with_file("opt/org.firstlight/kernel", &kernel_file());
    let (registers, state) = FakeTpm::new(Kind::Crb, &[0x0b], Defects::default());
    let mut machine = q35(device);
    machine.registers.push(Box::new(registers));
    run(&mut machine, Start::Reset).unwrap();
    let mut file = kernel_file();
    file[0x1fa..0x1fc].fill(0);
    file[0x224..0x226].fill(0);
    let expected = event_log::extend(0x0b, &[0; 32], &event_log::digest(0x0b, &file));
    assert_eq!(state.borrow().pcrs[&0x0b][9], expected);
}

#[test]
fn a_setup_data_pointer_in_the_kernel_file_is_cleared() {
    // Unused memory, and the kernel itself.
    for pointer in [0x123_4560_u64, 0x10_0100] {
        let mut file = kernel_file();
        file[0x250..0x258].copy_from_slice(&pointer.to_le_bytes());
        let named = FakeFwCfg::new(true).with_file("etc/e820", &E820).with_file("opt/org.firstlight/kernel", &file);
        let setup = &file[..SETUP.len()];
        let items = with_kernel(golden::device("q35", true)).with_item(0x18, setup).with_item(0x07, &[0, 0, 0x10, 0]);
        let hosts = [(q35(named), Start::Reset), (q35(items), Start::Reset), (pvh_host(&[&file], 0), START_INFO)];
        for (mut machine, start) in hosts {
            let handover = run(&mut machine, start).unwrap();
            let page = machine.memory.bytes(handover.parameters.get(), 4096);
            assert_eq!(page[0x250..0x258], [0; 8], "{pointer:#x}");
        }
    }
}

#[test]
fn a_boot_with_a_tpm_is_measured() {
    let (_, _, state) = with_tpm(Defects::default());
    let sha256 = |bytes: &[u8]| event_log::digest(0x0b, bytes);
    let extend = |pcr: &[u8], bytes: &[u8]| event_log::extend(0x0b, pcr, &sha256(bytes));
    let mut setup = SETUP.to_vec();
    // All of the setup code; this kernel lacks its end.
    setup.resize((usize::from(SETUP[0x1f1]) + 1) * 512, 0);
    setup[0x224..0x226].fill(0);
    setup[0x1fa..0x1fc].fill(0);
    let kernel = [setup, bytes(9001, 1)].concat();
    let files = extend(&extend(&[0; 32], &kernel), &bytes(7003, 2));
    assert_eq!(state.borrow().pcrs[&0x0b][9], files);
    assert_eq!(state.borrow().pcrs[&0x0b][8], extend(&[0; 32], b"console=ttyS0 quiet"));
}

/// An ELF kernel is reserved before tables are placed, and may take all of RAM for its zeroed data.
#[test]
fn a_kernel_that_leaves_no_room_for_the_tables_gets_a_closed_tpm() {
    let mut machine = q35(golden::device("q35", true));
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let ram_end =
        host::memory_map(&mut machine, &fw_cfg, &Start::Reset).unwrap().ram_end(addr::PhysRange::LOW_4_GIB).unwrap();
    // Only memory below 640 KiB remains, which has no room for a log of 1 MiB.
    let size = u32::try_from(ram_end.get() - 0x10_0000).unwrap();
    let device =
        with_elf(tpm_device(0x10_0000), &[0; 8192]).with_item(0x08, &size.to_le_bytes()).with_item(0x0b, &[0; 4]);
    let (registers, state) = FakeTpm::new(Kind::Crb, &[0x0b], Defects::default());
    let mut machine = q35(device);
    machine.registers.push(Box::new(registers));
    let handover = run(&mut machine, Start::Reset).unwrap();
    assert_eq!(u32_at(&machine.memory.bytes(handover.parameters.get(), 40), 32), 0, "no RSDP");

    let state = state.borrow();
    let separator = event_log::extend(0x0b, &[0; 32], &event_log::digest(0x0b, &[1, 0, 0, 0]));
    assert!(state.pcrs[&0x0b][..10].iter().all(|pcr| *pcr == separator));
    assert_eq!(state.off, [0x4000_000b, 0x4000_0001], "it can vouch for nothing");
    assert_eq!(state.password.len(), 20);
    assert!(!state.taken);
}

#[test]
fn a_tpm_that_does_not_answer_does_not_delay_the_boot() {
    let silent = Defects { silent_from: Some(0), ..Defects::default() };
    let (machine, handover, state) = with_tpm(silent);
    assert_eq!(state.borrow().commands, [0x144]);
    assert_eq!(machine.memory.bytes(handover.parameters.get() + 0x202, 4), b"HdrS");
}

#[test]
fn without_a_file_for_its_log_a_tpm_is_not_accessed() {
    struct Untouched;
    impl machine::FakeRegisters for Untouched {
        fn claims(&self, at: u64) -> bool {
            assert!(!(0xfed4_0000..0xfed4_5000).contains(&at), "an access to {at:#x}");
            false
        }
        fn read(&mut self, _: u64, _: u8) -> u64 {
            unreachable!("it claims nothing")
        }
        fn write(&mut self, _: u64, _: u8, _: u64, _: &mut machine::FakeMemory) {}
    }
    let mut machine = q35(with_kernel(golden::device("q35", true)));
    machine.registers.push(Box::new(Untouched));
    run(&mut machine, Start::Reset).unwrap();
}

/// `device` with an ELF kernel that the host has put at 1 MiB, with an entry point 16 bytes into it. Its setup code is `setup`.
fn with_elf(device: FakeFwCfg, setup: &[u8]) -> FakeFwCfg {
    device
        .with_item(0x07, &0x10_0000_u32.to_le_bytes())
        .with_item(0x08, &9001_u32.to_le_bytes())
        .with_item(0x0b, &7003_u32.to_le_bytes())
        .with_item(0x10, &0x10_0010_u32.to_le_bytes())
        .with_item(0x12, &bytes(7003, 2))
        .with_item(0x14, &(COMMAND_LINE.len() as u32).to_le_bytes())
        .with_item(0x15, COMMAND_LINE)
        .with_item(0x17, &8192_u32.to_le_bytes())
        .with_item(0x18, setup)
}

#[test]
fn an_elf_kernel_stays_in_place_and_gets_the_addresses_of_its_parts() {
    let mut elf = bytes(8192, 4);
    elf[..4].copy_from_slice(b"\x7fELF");
    // The second is what QEMU 7.2 may leave there.
    for (setup, dma) in [(elf, true), (bytes(8192, 3), true), (vec![0; 8192], false)] {
        let mut machine = q35(with_elf(golden::device("q35", dma), &setup));
        machine.memory.store(0x10_0000, &bytes(9001, 1));
        let handover = run(&mut machine, Start::Reset).unwrap();
        assert_eq!(handover.entry, Entry::Pvh(addr::PhysAddr::new(0x10_0010)));
        assert_eq!(machine.memory.bytes(0x10_0000, 9001), bytes(9001, 1));
        let info = machine.memory.bytes(handover.parameters.get(), 88);
        assert_eq!(u32_at(&info, 0), 0x336e_c578);
        assert_eq!(machine.memory.bytes(u32_at(&info, 24), COMMAND_LINE.len()), COMMAND_LINE);
        assert_eq!(machine.memory.bytes(u32_at(&info, 32), 8), b"RSD PTR ");
        let module = machine.memory.bytes(u32_at(&info, 16), 16);
        assert_eq!(machine.memory.bytes(u32_at(&module, 0), 7003), bytes(7003, 2));
    }
}

#[test]
fn each_defect_of_an_elf_kernel_is_reported_in_a_sentence() {
    let with = |key: u16, value: u32| {
        let device = with_elf(golden::device("q35", true), &bytes(8192, 3)).with_item(key, &value.to_le_bytes());
        let entry = if key == 0x07 { value } else { 0x10_0010 };
        let device = if key == 0x10 { device } else { device.with_item(0x10, &entry.to_le_bytes()) };
        failure(device).error.to_string()
    };
    assert!(
        with(0x07, 0x9_0000).contains("over the firmware's own memory 0x40000-0x9fbff"),
        "{}",
        with(0x07, 0x9_0000)
    );
    assert!(with(0x07, 0x3_e000).contains("0x3e000-0x40328, over the firmware's own memory"));
    assert!(with(0x07, 0xf_ff00).contains("not all free RAM"), "{}", with(0x07, 0xf_ff00));
    assert!(with(0x10, 0xf_ffff).contains("entry point 0xfffff is not in the 9001 bytes from 0x100000"));
    assert!(with(0x10, 0).contains("no Linux setup header"));
}

/// `device` with a kernel for Multiboot of 12 KiB, with its entry point 16 bytes from its start, and two modules, all at 1 MiB.
fn with_multiboot(device: FakeFwCfg) -> FakeFwCfg {
    let mut info = [0; 88];
    for (at, value) in [(0, 0x24f_u32), (16, 0x10_3020), (20, 2), (24, 0x10_3000), (48, 0x9000), (64, 0x10_3030)] {
        info[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let blob = multiboot_blob();
    device
        .with_item(0x07, &0x10_0000_u32.to_le_bytes())
        .with_item(0x08, &(blob.len() as u32).to_le_bytes())
        .with_item(0x0a, &0x9500_u32.to_le_bytes())
        .with_item(0x0b, &88_u32.to_le_bytes())
        .with_item(0x10, &0x10_0010_u32.to_le_bytes())
        .with_item(0x11, &blob)
        .with_item(0x12, &info)
}

/// The kernel, the list of modules followed by strings, and the modules.
fn multiboot_blob() -> Vec<u8> {
    let mut blob = bytes(0x3000, 1);
    for field in [0x10_4000_u32, 0x10_4123, 0x10_3035, 0, 0x10_5000, 0x10_5001, 0x10_303b, 0] {
        blob.extend(field.to_le_bytes());
    }
    blob.extend(b"kernel words\0\0\0\0qemu\0first\0second\0");
    blob.resize(0x4000, 0);
    blob.extend(bytes(0x1001, 5));
    blob.resize(0x6000, 0);
    blob
}

#[test]
fn a_kernel_for_multiboot_is_loaded_at_the_hosts_address_and_gets_a_memory_map() {
    for dma in [true, false] {
        let device = with_multiboot(golden::device("q35", dma));
        let mut machine = q35(device);
        let handover = run(&mut machine, Start::Reset).unwrap();
        assert_eq!(handover.entry, Entry::Multiboot(addr::PhysAddr::new(0x10_0010)));
        assert_eq!(machine.memory.bytes(0x10_0000, 0x6000), multiboot_blob());
        let info = machine.memory.bytes(handover.parameters.get(), 116);
        assert_eq!([0, 16, 20, 24, 64].map(|at| u32_at(&info, at)), [0x24f, 0x10_3020, 2, 0x10_3000, 0x10_3030]);
        assert_eq!(u32_at(&info, 4), 639);
        let list = machine.memory.bytes(u32_at(&info, 48), u32_at(&info, 44) as usize);
        assert!(list.len() >= 5 * 24 && list.chunks(24).all(|entry| u32_at(entry, 0) == 20));
    }
}

#[test]
fn each_defect_of_a_kernel_for_multiboot_is_reported_in_a_sentence() {
    let with = |key: u16, value: u32| {
        failure(with_multiboot(golden::device("q35", true)).with_item(key, &value.to_le_bytes())).error.to_string()
    };
    assert!(with(0x08, 0x0800_0000).contains("not all free RAM"), "{}", with(0x08, 0x0800_0000));
    assert!(with(0x10, 0xf_0000).contains("entry point 0xf0000 is not in the 24576 bytes from 0x100000"));
    let no_entry = with(0x10, 0);
    assert!(no_entry.contains("entry point 0x0 is not in the 24576 bytes from 0x100000"), "{no_entry}");
    assert!(no_entry.contains("without an entry point; name one to the linker"), "{no_entry}");
    assert!(with(0x0b, 60).contains("Multiboot information has 60 bytes"), "{}", with(0x0b, 60));
    let low = failure(
        with_multiboot(golden::device("q35", true))
            .with_item(0x07, &0x3_e000_u32.to_le_bytes())
            .with_item(0x10, &0x3_e010_u32.to_le_bytes()),
    );
    assert!(low.error.to_string().contains("0x3e000-0x43fff, over the firmware's own memory"), "{}", low.error);
    let page_zero = with_multiboot(golden::device("q35", true)).with_item(0x07, &[0; 4]).with_item(0x10, &[0; 4]);
    let page_zero = failure(page_zero).error.to_string();
    assert!(page_zero.contains("kernel at 0x0-0x5fff, which is not all free RAM"), "{page_zero}");
    let mut info = [0; 88];
    info[..4].copy_from_slice(&4_u32.to_le_bytes());
    let outside = failure(with_multiboot(golden::device("q35", true)).with_item(0x12, &info)).error.to_string();
    assert!(outside.contains("has the command line at 0x0, which is not all in what the host has loaded"), "{outside}");
}

#[test]
fn a_kernel_for_multiboot_with_an_entry_point_after_it_is_refused() {
    // The list of modules, the gap between two modules, and a module.
    for (list, entry, len) in [
        (0x10_3000_u32, 0x10_3000_u32, 12288),
        (0x10_3000, 0x10_4800, 12288),
        (0x10_3000, 0x10_5000, 12288),
        (0x10_0000, 0x10_0010, 0),
    ] {
        let mut info = [0; 88];
        for (at, value) in [(0, 0x208_u32), (20, 2), (24, list), (64, 0x10_3030)] {
            info[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let device = with_multiboot(golden::device("q35", true)).with_item(0x12, &info);
        let error = failure(device.with_item(0x10, &entry.to_le_bytes())).error.to_string();
        let expected = format!("entry point {entry:#x} is not in the {len} bytes from 0x100000");
        assert!(error.contains(&expected), "{error}");
    }
}

#[test]
fn the_modules_of_a_kernel_for_multiboot_are_measured() {
    let (machine, _, state) = with_tpm_and(Defects::default(), with_multiboot);
    let blob = multiboot_blob();
    let extend = |pcr: &[u8], bytes: &[u8]| event_log::extend(0x0b, pcr, &event_log::digest(0x0b, bytes));
    let extended = |all: &[&[u8]]| all.iter().fold(vec![0; 32], |pcr, bytes| extend(&pcr, bytes));
    let pcrs = &state.borrow().pcrs[&0x0b];
    assert_eq!(pcrs[8], extended(&[b"kernel words", b"first", b"second"]));
    assert_eq!(pcrs[9], extended(&[&blob[..0x3000], &blob[0x4000..0x4123], &blob[0x5000..0x5001]]));
    assert_eq!(machine.memory.bytes(0x10_0000, blob.len()), blob);
}

/// The address of the ACPI tables of [`pvh_host`].
const TABLES: u64 = 0x7e0_0000;

/// A host without fw_cfg that starts the firmware by the PVH entry point, with these modules and, if not zero, an RSDP there.
fn pvh_host(modules: &[&[u8]], rsdp: u64) -> FakeMachine {
    let mut machine = FakeMachine::new();
    store_start_info(&mut machine.memory, 0x800_0000, modules, rsdp);
    if rsdp != 0 {
        let pieces = made::acpi(rsdp, TABLES, 0xe000_0000);
        pieces.iter().for_each(|(at, bytes)| machine.memory.store(*at, bytes));
    }
    machine
}

/// Stores `hvm_start_info` of a machine with RAM up to `ram_end`.
fn store_start_info(memory: &mut FakeMemory, ram_end: u64, modules: &[&[u8]], rsdp: u64) {
    let numbers = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    let mut list = Vec::new();
    for (at, module) in (0x600_0000..).step_by(0x10_0000).zip(modules) {
        memory.store(at, module);
        list.extend(numbers(&[at, module.len() as u64, 0, 0]));
    }
    memory.store(0x6040, &list);
    memory.store(0x7000, &numbers(&[0, 0xa_0000, 1, 0x10_0000, ram_end - 0x10_0000, 1]));
    memory.store(0x2_0000, b"root=/dev/vda\0");
    let header = [0x1_336e_c578, (modules.len() as u64) << 32, 0x6040, 0x2_0000, rsdp, 0x7000, 2];
    memory.store(0x6000, &numbers(&header));
}

const START_INFO: Start<PhysAddr> = Start::Pvh(PhysAddr::new(0x6000));

/// A whole bzImage with the header of Debian's kernel, and 9,001 bytes after the setup code.
fn bzimage() -> Vec<u8> {
    let mut file = SETUP.to_vec();
    file.resize(0x5000, 0);
    file.extend(bytes(9001, 1));
    file
}

#[test]
fn a_host_without_fw_cfg_boots_a_kernel_from_its_modules() {
    let initrd = bytes(7003, 2);
    for modules in [[bzimage(), initrd.clone()], [initrd.clone(), bzimage()]] {
        let mut machine = pvh_host(&[&modules[0], &modules[1]], 0);
        let handover = run(&mut machine, START_INFO).unwrap();
        assert_eq!(handover.entry, Entry::Linux64(PhysAddr::new(0x100_0200)));
        assert_eq!(machine.memory.bytes(0x100_0000, 9001), bytes(9001, 1));
        let page = machine.memory.bytes(handover.parameters.get(), 4096);
        let at = u32_at(&page, 0x218);
        assert_eq!((at & 0xf_ffff, u32_at(&page, 0x21c)), (0, 7003), "the initrd stays where it is");
        assert_eq!(machine.memory.bytes(at, 7003), initrd);
        assert_eq!(machine.memory.bytes(u32_at(&page, 0x228), 14), b"root=/dev/vda\0");
        assert_eq!(u32_at(&page, 0x070), 0);
    }
}

#[test]
fn a_single_module_is_a_kernel_without_an_initrd() {
    let handover_page = |machine: &mut FakeMachine| {
        let handover = run(machine, START_INFO).unwrap();
        machine.memory.bytes(handover.parameters.get(), 4096)
    };
    assert_eq!(u32_at(&handover_page(&mut pvh_host(&[&bzimage()], 0)), 0x21c), 0);
    // QEMU has the same file in its initrd's item, and the firmware as its kernel.
    for modules in [&[][..], &[&bzimage()[..]]] {
        let mut machine = pvh_host(modules, 0xe_0000);
        machine.memory.store(0x10_0000, &[0; 4096]);
        machine.devices.push(Box::new(firmware_as_kernel().with_item(0x12, &bzimage())));
        let page = handover_page(&mut machine);
        assert_eq!(u32_at(&page, 0x21c), 0);
        assert_eq!(machine.memory.bytes(0x100_0000, 9001), bytes(9001, 1));
        assert_eq!(u32_at(&page, 0x070), 0xe_0000);
    }
}

/// QEMU with the firmware as its kernel, and an item of an initrd with a bzImage's length.
fn firmware_as_kernel() -> FakeFwCfg {
    golden::device("q35", true)
        .with_item(0x08, &0x3_0000u32.to_le_bytes())
        .with_item(0x10, &0xff_f800u32.to_le_bytes())
        .with_item(0x18, b"\x7fELF")
        .with_item(0x0b, &(bzimage().len() as u32).to_le_bytes())
}

/// Cloud Hypervisor puts the file that it was given as the kernel, which is the firmware, into the items of a kernel: split like
/// a bzImage, with some bytes changed, and without an entry point.
fn firmware_in_the_kernel_items(entry: u64) -> FakeFwCfg {
    let mut setup = vec![0; 4096];
    setup[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    setup[16..20].copy_from_slice(&[2, 0, 62, 0]);
    setup[24..32].copy_from_slice(&entry.to_le_bytes());
    (setup[0x1f1], setup[0x210]) = (4, 0xff);
    let cloud_hypervisor = known_hosts().into_iter().find(|host| host.name == "Cloud Hypervisor").unwrap();
    cloud_hypervisor
        .device()
        .with_file("etc/e820", &E820)
        .with_item(0x17, &4096_u32.to_le_bytes())
        .with_item(0x18, &setup)
        .with_item(0x08, &0x4_0000_u32.to_le_bytes())
        .with_item(0x11, &bytes(0x4_0000, 7))
}

#[test]
fn the_firmware_in_the_kernel_s_items_is_not_the_kernel() {
    let own = 0xff_f6e7;
    // A named file; a module, with the next one as the initrd.
    let named = firmware_in_the_kernel_items(own).with_file("opt/org.firstlight/kernel", &bzimage());
    let initrd = bytes(7003, 2);
    for (device, modules) in
        [(named, &[&initrd[..]][..]), (firmware_in_the_kernel_items(own), &[&bzimage()[..], &initrd[..]])]
    {
        let mut machine = pvh_host(modules, 0xe_0000);
        machine.devices.push(Box::new(device));
        let handover = run(&mut machine, START_INFO).unwrap();
        assert_eq!(machine.memory.bytes(0x100_0000, 9001), bytes(9001, 1));
        let page = machine.memory.bytes(handover.parameters.get(), 4096);
        assert_eq!(machine.memory.bytes(u32_at(&page, 0x218), 7003), initrd);
        assert_eq!(machine.memory.bytes(u32_at(&page, 0x228), 14), b"root=/dev/vda\0");
    }
    // Without another kernel, with a kernel that is not the firmware, of 32 bits, and after a reset.
    let error = |device: FakeFwCfg, start: Start<PhysAddr>| {
        let mut machine = pvh_host(&[], 0);
        machine.devices.push(Box::new(device));
        run(&mut machine, start).unwrap_err().error.to_string()
    };
    assert!(error(firmware_in_the_kernel_items(own), START_INFO).contains("none of 0 modules"));
    for device in [
        firmware_in_the_kernel_items(0x100_0000),
        firmware_in_the_kernel_items(own | 1 << 32),
        firmware_in_the_kernel_items(0),
        firmware_in_the_kernel_items(own).with_item(0x18, &[b"\x7fELF\x01", &[0xff; 27][..]].concat()),
    ] {
        let error = error(device.with_file("opt/org.firstlight/kernel", &bzimage()), START_INFO);
        assert!(error.contains("is an ELF file"), "{error}");
    }
    assert!(error(firmware_in_the_kernel_items(own), Start::Reset).contains("ELF file without a PVH entry point"));
}

#[test]
fn items_of_fw_cfg_precede_modules_and_tables_in_memory() {
    // A kernel in fw_cfg, with its initrd and its command line.
    let mut machine = pvh_host(&[&bytes(7003, 9), &bzimage()], 0xe_0000);
    machine.devices.push(Box::new(with_kernel(golden::device("q35", true))));
    let accesses = machine.accesses.len();
    let handover = run(&mut machine, START_INFO).unwrap();
    let page = machine.memory.bytes(handover.parameters.get(), 4096);
    assert_eq!(machine.memory.bytes(u32_at(&page, 0x218), 7003), bytes(7003, 2));
    assert_eq!(machine.memory.bytes(u32_at(&page, 0x228), COMMAND_LINE.len()), COMMAND_LINE);
    // The tables and the machine that they describe stay unchanged.
    assert_eq!(u32_at(&page, 0x070), 0xe_0000);
    let entries: Vec<_> = page[0x2d0..][..usize::from(page[0x1e8]) * 20].chunks(20).collect();
    let holds = |entry: &&&[u8]| (u32_at(entry, 0)..u32_at(entry, 0) + u32_at(entry, 8)).contains(&TABLES);
    assert_ne!(entries.iter().find(holds).map(|entry| entry[16]), Some(1), "{entries:?}");
    let to_pci = |access: &Access| matches!(access, Access::Out(0xcf8..=0xcff, ..));
    assert!(!machine.accesses[accesses..].iter().any(to_pci));

    // Without tables in memory both are set up, as after a reset.
    let mut machine = pvh_host(&[], 0);
    machine.memory.store(0x7020, &(63_u64 << 20).to_le_bytes());
    machine.devices.push(Box::new(with_kernel(golden::device("q35", true))));
    machine.devices.push(Box::new(FakeConfigPorts::with_host_bridge(0x29c0_8086)));
    let handover = run(&mut machine, START_INFO).unwrap();
    let page = machine.memory.bytes(handover.parameters.get(), 4096);
    assert_eq!(machine.memory.bytes(u32_at(&page, 0x070), 8), b"RSD PTR ");
    // QEMU's own map, not the one of 64 MiB.
    let entries = page[0x2d0..][..usize::from(page[0x1e8]) * 20].chunks(20);
    let end = |entry: &[u8]| u32_at(entry, 0) + u32_at(entry, 8);
    assert!(entries.filter(|entry| entry[16] == 1).map(end).max() > Some(64 << 20));
}

/// A host that passes ACPI tables has set up the machine: its interrupt controllers, memory types and BIOS data area stay.
#[test]
fn a_machine_that_the_host_has_set_up_is_not_set_up_again() {
    let boot = |rsdp: u64| {
        let mut machine = pvh_host(&[&bzimage()], rsdp).with(FakePics::default());
        machine.cpuid.insert((1, 0), hal::Cpuid { edx: 1 << 9 | 1 << 12, ..hal::Cpuid::default() });
        machine.msrs.extend([(0x1b, 0xfee0_0900), (0xfe, 0x508)]);
        let before = machine.msrs.clone();
        let handover = run(&mut machine, START_INFO).unwrap();
        assert_eq!(handover.bios_data, None);
        let outs = machine.accesses.iter().filter(|access| matches!(access, Access::Out(0x20..=0xff, ..))).count();
        let apic = machine.memory.bytes(0xfee0_0350, 4);
        (outs == 0 && apic == [0; 4], machine.msrs == before, machine.memory.bytes(0x9_fc00, 1) == [0])
    };
    assert_eq!(boot(0xe_0000), (true, true, true));
    // Without tables of the host, the firmware sets it up, except page zero.
    assert_eq!(boot(0), (false, false, false));
}

/// A table's memory is reserved, and thus taken from the kernel. That must not take pages of an initrd that stays in its place.
#[test]
fn tables_that_point_into_a_module_do_not_take_its_memory() {
    let boot = |tables: u64, handed_over: u64| {
        let mut machine = pvh_host(&[&bzimage(), &bytes(0x4321, 2)], 0);
        made::acpi(0xe_0000, tables, 0xe000_0000).iter().for_each(|(at, b)| machine.memory.store(*at, b));
        machine.memory.store(0x6020, &handed_over.to_le_bytes());
        let handover = run(&mut machine, START_INFO).unwrap();
        let page = machine.memory.bytes(handover.parameters.get(), 4096);
        let initrd = (u32_at(&page, 0x218), u32_at(&page, 0x21c));
        let is_ram = |at: u64| {
            let entries = page[0x2d0..][..usize::from(page[0x1e8]) * 20].chunks(20);
            let start_and_end = |entry: &[u8]| u32_at(entry, 0)..u32_at(entry, 0) + u32_at(entry, 8);
            entries.clone().any(|entry| entry[16] == 1 && start_and_end(entry).contains(&at))
        };
        assert_eq!((initrd.0 & 0xf_ffff, initrd.1), (0, 0x4321), "it stays where it is");
        assert!((initrd.0..initrd.0 + initrd.1).all(is_ram), "{tables:#x}");
        (u32_at(&page, 0x070), is_ram(tables))
    };
    // Passed by the host, or found.
    for handed_over in [0xe_0000, 0] {
        for lost in [0x60f_fe00, 0x610_1000, 0x610_4fc0, 0xfc_1000, 0xff_f000] {
            assert_eq!(boot(lost, handed_over).0, 0, "{lost:#x}");
        }
        assert_eq!(boot(0x610_5000, handed_over), (0xe_0000, false), "behind the module's last page");
    }
}

/// Such as a disk's boot sector, which looks like a real-mode kernel, and a module above 4 GiB, which is not in fw_cfg.
#[test]
fn modules_before_the_kernel_that_are_not_kernels_are_skipped() {
    let mut disk = vec![0; 0x4000];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    assert!(run(&mut pvh_host(&[&disk, &bzimage()], 0), START_INFO).is_ok());
    let error = run(&mut pvh_host(&[&disk], 0), START_INFO).unwrap_err().error.to_string();
    assert!(error.contains("real mode only"), "{error}");
    let mut machine = pvh_host(&[&bytes(7003, 2), &bzimage()], 0);
    machine.memory.store(0x6040, &0x1_8000_0000_u64.to_le_bytes());
    let high = [0x1_0000_0000_u64, 0x1_0000_0000, 1].map(u64::to_le_bytes).concat();
    machine.memory.store(0x7030, &high);
    machine.memory.store(0x6030, &3_u64.to_le_bytes());
    assert!(run(&mut machine, START_INFO).is_ok());
}

#[test]
fn the_error_for_ram_that_wraps_says_so() {
    let list = [0x1000_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat();
    let error = memory_map::HostMap::from_e820(&[list, vec![1, 0, 0, 0]].concat()).unwrap_err().to_string();
    assert!(error.contains("past the last address"), "{error}");
}

#[test]
fn the_error_for_a_map_full_of_tables_says_so() {
    let mut machine = pvh_host(&[&bzimage()], 0xe_0000);
    let tables = (0..124_u64).map(|number| 0x300_0000 + number * 0x4000);
    let entries: Vec<u8> = tables.clone().flat_map(u64::to_le_bytes).collect();
    tables.for_each(|at| machine.memory.store(at, &made::table(b"SSDT", &[0; 4])));
    machine.memory.store(TABLES, &made::table(b"XSDT", &entries));
    let error = run(&mut machine, START_INFO).unwrap_err().error.to_string();
    assert!(error.contains("more than 256 regions"), "{error}");
}

#[test]
fn each_defect_of_a_pvh_start_is_reported_in_a_sentence() {
    let text =
        |machine: &mut FakeMachine, at| run(machine, Start::Pvh(PhysAddr::new(at))).unwrap_err().error.to_string();
    assert!(text(&mut pvh_host(&[], 0), 0x6000).starts_with("no kernel: fw_cfg has none, and none of 0 modules"));
    let not_kernels = [&bytes(7003, 2)[..], b"text"];
    assert!(text(&mut pvh_host(&not_kernels, 0), 0x6000).contains("none of 2 modules is a bzImage; give one"));
    for len in [0x5000, bzimage().len() - 16] {
        let cut = [&bytes(7003, 2)[..], &bzimage()[..len]];
        assert!(text(&mut pvh_host(&cut, 0), 0x6000).contains(&format!("cut short: it has {len} bytes")));
    }
    assert!(text(&mut pvh_host(&[], 0), 0x7000).contains("and not hvm_start_info (0x336ec578)"));
    let mut without_ram = pvh_host(&[&bzimage()], 0);
    without_ram.memory.store(0x7010, &[2]);
    without_ram.memory.store(0x7028, &[2]);
    assert!(text(&mut without_ram, 0x6000).contains("hvm_start_info lists no RAM"));
    // A module that ends at the last byte of RAM, and one that ends after it.
    let initrd_up_to = |len: u64| {
        let mut machine = pvh_host(&[&bzimage(), &[1]], 0);
        machine.memory.store(0x6060, &0x7ff_f000_u64.to_le_bytes());
        machine.memory.store(0x6068, &len.to_le_bytes());
        machine
    };
    assert!(run(&mut initrd_up_to(0x1000), START_INFO).is_ok());
    assert!(text(&mut initrd_up_to(0x1001), 0x6000).contains("a module at 0x7fff000-0x8000000, which is not all RAM"));
    // With invalid tables, the machine is set up.
    let mut not_tables = pvh_host(&[&bzimage()], 0xe_0000);
    not_tables.memory.store(0xe_0000, &[0]);
    let handover = run(&mut not_tables, START_INFO).unwrap();
    assert_eq!(u32_at(&not_tables.memory.bytes(handover.parameters.get(), 4096), 0x070), 0);
    let mut old = bzimage();
    old[0x206..0x208].copy_from_slice(&[0x05, 0x02]);
    let error = text(&mut pvh_host(&[&old], 0), 0x6000);
    assert!(!error.contains("none of 1 modules"), "{error}");
}
