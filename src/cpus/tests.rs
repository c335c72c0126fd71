extern crate std;

use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::fakes::cpus::{self as fake, State};
use crate::fakes::fw_cfg::FakeFwCfg;
use crate::fakes::machine::{FakeMachine, STARTUP_CODE};
use crate::hal::startup::CODE_LEN;
use crate::hal::{Cpuid, Dma as _, Memory as _};
use crate::layout::STARTUP_PAGE;

const DEVICES: PhysAddr = PhysAddr::new(0xb000_0000);
const VMX: u64 = 1 << 2;
const LMCE: u64 = 1 << 20;
const LOCK: u64 = 1;

fn with_mtrrs(capabilities: u64) -> FakeMachine {
    let mut machine = FakeMachine::new();
    machine.cpuid.insert((1, 0), Cpuid { edx: 1 << 12, ..Cpuid::default() });
    machine.msrs.insert(0xfe, capabilities);
    machine
}

fn planned(machine: &mut FakeMachine, devices: PhysAddr, physical_bits: u8) -> MemoryTypes {
    let features = Features::read(machine);
    MemoryTypes::plan(machine, features, devices, physical_bits)
}

fn plan(machine: &mut FakeMachine, physical_bits: u8) -> Vec<(u32, u64)> {
    planned(machine, DEVICES, physical_bits).writes().map(|write| (write.register, write.value)).collect()
}

#[test]
fn memory_types_are_those_of_a_pc() {
    let writes = plan(&mut with_mtrrs(0x508), 40);
    let value = |register| writes.iter().find(|write| write.0 == register).map(|write| write.1);
    assert_eq!(value(0x250), Some(0x0606_0606_0606_0606));
    assert_eq!(value(0x259), Some(0));
    assert_eq!(value(0x26f), Some(0x0505_0505_0505_0505));
    // 0xb0000000 to 4 GiB, in naturally aligned powers of two.
    let ranges: Vec<_> = writes.iter().filter(|write| (0x200..0x210).contains(&write.0)).copied().collect();
    let expected = [(0x200, 0xb000_0000), (0x201, 0xff_f000_0800), (0x202, 0xc000_0000), (0x203, 0xff_c000_0800)];
    assert_eq!(ranges, expected);
    assert_eq!(writes.last(), Some(&(0x2ff, 0xc06)), "enabled last");
}

/// The type of each page from 2 GiB to 4 GiB, by the first `count` of a machine's ranges and its default.
fn types_above_2_gib(machine: &FakeMachine, count: u32) -> Vec<u64> {
    let at = |register| machine.msrs.get(&register).copied().unwrap_or_default();
    let valid: Vec<_> = (0..count).map(|i| 0x200 + 2 * i).filter(|&base| at(base + 1) & 1 << 11 != 0).collect();
    let is_in = |page: u64, base: u32| page & at(base + 1) & !0xfff == at(base) & at(base + 1) & !0xfff;
    let kind = |page| valid.iter().find(|&&base| is_in(page, base)).map_or(at(0x2ff) & 0xff, |&base| at(base) & 0xff);
    (0x8_0000..0x10_0000).map(|number| kind(number << 12)).collect()
}

#[test]
fn ram_is_cached_and_devices_are_uncached_up_to_4_gib_wherever_ram_ends() {
    // The end of RAM, and where the device space begins: as little above it as possible.
    let cases = [
        (0xb000_0000_u64, 0xb000_0000_u64),
        (0xc000_0000, 0xc000_0000),
        (0xfebf_f001, 0xfec0_0000),
        // Not a whole page: its low bits would be the type and reserved bits.
        (0xffff_e800, 0xffff_f000),
        (0xffff_f800, 1 << 32),
        // A `pc` with -m 3073M and 3330M.
        (0xc010_0000, 0xc400_0000),
        (0xd020_0000, 0xd200_0000),
        (0xdad0_0000, 0xdae0_0000),
        // Exactly four ranges, and one page more.
        (0xc400_0000, 0xc400_0000),
        (0xc3ff_f000, 0xc400_0000),
    ];
    for (end, start) in cases {
        let mut machine = with_mtrrs(0x508);
        planned(&mut machine, PhysAddr::new(end), 40).set(&mut machine);
        assert_eq!(devices_from(PhysAddr::new(end)), PhysAddr::new(start), "RAM to {end:#x}");
        let types = types_above_2_gib(&machine, 8);
        let cached = ((start - 0x8000_0000) >> 12) as usize;
        assert!(types[..cached].iter().all(|&kind| kind == 6), "{end:#x}: up to {start:#x}");
        assert!(types[cached..].iter().all(|&kind| kind == 0), "{end:#x}: devices from {start:#x}");
    }
}

proptest! {
    #[test]
    fn four_ranges_cover_the_device_space_above_any_ram(end in 1_u64 << 31..1 << 32) {
        let start = devices_from(PhysAddr::new(end)).get();
        let pages = end.next_multiple_of(0x1000);
        prop_assert!(pages <= start && start - pages <= ((1 << 32) - pages) / 15, "RAM to {end:#x}, devices from {start:#x}");
        let mut machine = with_mtrrs(0x504);
        let planned = planned(&mut machine, PhysAddr::new(end), 40);
        let ranges: Vec<_> = planned.writes().filter(|write| (0x200..0x208).contains(&write.register)).collect();
        let mut next = start;
        for pair in ranges.chunks(2) {
            let len = (1 << 40) - (pair[1].value & !0xfff);
            prop_assert_eq!((pair[0].value, next % len, pair[1].value & 0xfff), (next, 0, 0x800));
            next += len;
        }
        prop_assert_eq!(next, 1 << 32);
        prop_assert_eq!(planned.writes().last().map(|write| write.value), Some(0xc06));
    }
}

#[test]
fn without_enough_ranges_for_devices_no_memory_becomes_cached() {
    // On q35 it takes two.
    for (count, writes) in [(0, 0), (1, 0), (2, 11 + 4 + 1), (8, 11 + 4 + 1)] {
        assert_eq!(plan(&mut with_mtrrs(0x500 | count), 36).len(), writes);
    }
}

#[test]
fn only_existing_mtrrs_are_written() {
    let writes = plan(&mut with_mtrrs(0x002), 36);
    let registers: Vec<_> = writes.iter().map(|write| write.0).collect();
    assert_eq!(registers, [0x200, 0x201, 0x202, 0x203, 0x2ff], "two ranges, and no fixed ones");
    assert_eq!(writes.last(), Some(&(0x2ff, 0x806)));
    assert_eq!(plan(&mut FakeMachine::new(), 36), [], "no MTRRs at all");
}

#[test]
fn the_writes_for_any_device_space_fit_the_list() {
    for start in [0x8000_0000, 0xb000_0000, 0x8fff_f000, 0xffff_f000, 0, 1 << 32] {
        let types = planned(&mut with_mtrrs(0x5ff), PhysAddr::new(start), 52);
        assert_eq!(types.writes().last().map(|write| write.register), Some(0x2ff), "{start:#x}");
    }
}

/// A CPU with some of the features that IA32_FEATURE_CONTROL controls.
fn with_features(ecx: u32, edx: u32, mcg_cap: u64) -> FakeMachine {
    let mut machine = FakeMachine::new();
    machine.cpuid.insert((1, 0), Cpuid { ecx, edx, ..Cpuid::default() });
    machine.msrs.insert(0x179, mcg_cap);
    machine
}

fn control(machine: &mut FakeMachine, wanted: u64) -> Option<FeatureControl> {
    let features = Features::read(machine);
    FeatureControl::new(machine, features, wanted)
}

#[test]
fn only_features_that_the_cpu_has_are_enabled() {
    let value = |mut machine: FakeMachine, wanted| control(&mut machine, wanted).map(FeatureControl::get);
    let vmx = || with_features(1 << 5, 0, 0);
    assert_eq!(value(vmx(), VMX | LOCK), Some(VMX | LOCK));
    assert_eq!(value(vmx(), VMX | LMCE | LOCK), Some(VMX | LOCK), "no LMCE here");
    assert_eq!(value(vmx(), LMCE | LOCK), None, "a lock would keep VMX from the kernel");
    assert_eq!(value(vmx(), 0), None);
    assert_eq!(value(vmx(), 1 << 63), None);
    assert_eq!(value(with_features(0, 0, 0), VMX | LOCK), None, "no such register");
    // Local machine checks need machine checks, their architecture, and the capability.
    assert_eq!(value(with_features(0, 1 << 7 | 1 << 14, 1 << 27), LMCE | LOCK), Some(LMCE | LOCK));
    for (edx, mcg_cap) in [(1 << 7, 1 << 27), (1 << 14, 1 << 27), (1 << 7 | 1 << 14, 0)] {
        assert_eq!(value(with_features(0, edx, mcg_cap), LMCE | LOCK), None);
    }
    // VMX in SMX operation needs both features.
    assert_eq!(value(with_features(1 << 5 | 1 << 6, 0, 0), 0xff07), Some(0xff07));
    assert_eq!(value(with_features(1 << 6, 0, 0), 0xff07), Some(0xff01));
    // SGX is in leaf 7, which not every CPU has.
    let sgx = Cpuid { ebx: 1 << 2, ecx: 1 << 30, ..Cpuid::default() };
    for (highest, expected) in [(6, None), (7, Some(0x6_0001))] {
        let mut machine = with_features(0, 0, 0);
        machine.cpuid.insert((0, 0), Cpuid { eax: highest, ..Cpuid::default() });
        machine.cpuid.insert((7, 0), sgx);
        assert_eq!(value(machine, 0x6_0001), expected);
    }
}

#[test]
fn a_locked_register_is_not_written() {
    let mut machine = with_features(1 << 5, 0, 0);
    let features = control(&mut machine, VMX | LOCK).unwrap();
    machine.msrs.insert(0x3a, LOCK);
    features.set(&mut machine);
    assert_eq!(machine.msrs[&0x3a], LOCK);
    machine.msrs.insert(0x3a, 0);
    features.set(&mut machine);
    assert_eq!(machine.msrs[&0x3a], VMX | LOCK);
}

/// Sets up one CPU whose host has these items. Returns the machine.
fn set_up_with(fw_cfg: FakeFwCfg, mut machine: FakeMachine) -> FakeMachine {
    machine = machine.with(fw_cfg);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    machine.accesses.clear();
    let features = Features::read(&mut machine);
    set_up(&mut machine, &fw_cfg, features, DEVICES, 40);
    machine
}

#[test]
fn features_are_enabled_only_if_the_host_asks_for_it() {
    let file = (VMX | LOCK).to_le_bytes();
    let machine = set_up_with(
        FakeFwCfg::new(true).with_file("etc/msr_feature_control", &file).with_item(5, &1u16.to_le_bytes()),
        with_features(1 << 5, 0, 0),
    );
    assert_eq!(machine.msrs[&0x3a], VMX | LOCK);
    for file in [None, Some([0; 8])] {
        let mut fw_cfg = FakeFwCfg::new(true).with_item(5, &64u16.to_le_bytes());
        if let Some(bytes) = &file {
            fw_cfg = fw_cfg.with_file("etc/msr_feature_control", bytes);
        }
        let machine = set_up_with(fw_cfg, with_features(1 << 5, 0, 0));
        assert!(!machine.msrs.contains_key(&0x3a));
        // The number of CPUs is not read, and no CPU is started.
        assert_eq!(machine.accesses.len(), usize::from(file.is_some()), "{:?}", machine.accesses);
        assert_eq!(machine.memory.bytes(0xfee0_0300, 4), [0; 4]);
    }
}

/// Starts the `others` CPUs of `machine` other than the boot CPU.
fn start(machine: &mut FakeMachine, others: u32) -> Result<(), Error> {
    let control = control(&mut with_features(1 << 5, 0, 0), VMX | LOCK).unwrap();
    let features = Features::read(machine);
    startup::run(machine, features, others, &memory_types(), Some(control)).map(drop)
}

fn memory_types() -> MemoryTypes {
    planned(&mut with_mtrrs(0x508), DEVICES, 40)
}

const XAPIC: u64 = 0xfee0_0900;
const X2APIC: u64 = 0xfee0_0d00;

#[test]
fn every_other_cpu_sets_its_registers_and_returns_to_waiting() {
    for (base, register, others) in [(XAPIC, 0xfee0_0300, 1), (XAPIC, 0xfee0_0300, 287), (X2APIC, 0x830, 287)] {
        let (mut machine, cpus) = fake::machine(others, base);
        let before: Vec<_> = (0..4096u32).map(|i| i as u8).collect();
        machine.memory.store(STARTUP_PAGE.start().get(), &before);
        start(&mut machine, others as u32).unwrap();
        let cpus = cpus.borrow();
        // INIT, start-up at 0x9e000, INIT: three messages, however many CPUs there are.
        assert_eq!(cpus.messages, [0xc4500, 0xc469e, 0xc4500].map(|command| (register, command)));
        assert_eq!(cpus.code, STARTUP_CODE);
        for cpu in &cpus.cpus {
            assert_eq!(cpu.state, State::Waiting);
            assert_eq!(cpu.msrs[&0x3a], VMX | LOCK);
            assert_eq!(cpu.msrs.len(), memory_types().writes().count() + 1);
            assert!(memory_types().writes().all(|write| cpu.msrs[&write.register] == write.value));
        }
        assert_eq!(machine.memory.bytes(STARTUP_PAGE.start().get(), 4096), before, "the page is as it was");
    }
}

#[test]
fn a_cpu_that_does_not_answer_is_reported_and_the_boot_continues() {
    let (mut machine, cpus) = fake::machine(3, XAPIC);
    cpus.borrow_mut().cpus[1].deaf = true;
    let error = start(&mut machine, 3).unwrap_err();
    assert_eq!(error, Error::Missing { done: 2, others: 3 });
    assert!(error.to_string().contains("1 of 3 CPUs"), "{error}");
    assert_eq!(cpus.borrow().messages.len(), 3, "a late CPU is reset");
    assert_eq!(machine.memory.bytes(STARTUP_PAGE.start().get(), CODE_LEN), [0; CODE_LEN]);
}

#[test]
fn a_locked_register_of_another_cpu_is_not_written() {
    let (mut machine, cpus) = fake::machine(2, XAPIC);
    cpus.borrow_mut().cpus[0].msrs.insert(0x3a, LOCK);
    start(&mut machine, 2).unwrap();
    assert_eq!([0, 1].map(|i: usize| cpus.borrow().cpus[i].msrs[&0x3a]), [LOCK, VMX | LOCK]);
}

#[test]
fn every_other_cpu_reports_its_identifier() {
    let told = |others: u16| {
        let (mut machine, cpus) = fake::machine(others.into(), XAPIC);
        machine = machine.with(FakeFwCfg::new(true).with_item(5, &(others + 1).to_le_bytes()));
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let features = Features::read(&mut machine);
        let ids = other_ids(&mut machine, &fw_cfg, features);
        assert!(cpus.borrow().cpus.iter().all(|cpu| cpu.msrs.is_empty()), "no register is written");
        (ids.map(|ids| ids.to_vec()), cpus.borrow().messages.len())
    };
    assert_eq!(told(0), (Ok(std::vec![]), 0));
    assert_eq!(told(3), (Ok(std::vec![1, 3, 5]), 3));
    assert_eq!(told(255), (Err(Error::TooMany { others: 255 }), 0));
}

#[test]
fn only_the_machine_can_write_the_register_that_starts_cpus() {
    let (mut machine, cpus) = fake::machine(1, XAPIC);
    let command = crate::layout::INTERRUPT_COMMAND;
    assert!(machine.write_register32(command.start(), 0xc469e).is_err());
    assert!(machine.write_register64(command.start(), 0xc469e).is_err());
    assert!(machine.write(command.start(), &[0x9e]).is_err() && machine.fill(command, 0).is_err());
    assert!(machine.check_device_range(command).is_err());
    assert_eq!(cpus.borrow().messages, []);
}

#[test]
fn without_a_local_apic_no_cpu_is_started() {
    let off = fake::machine(1, XAPIC & !0x800);
    let elsewhere = fake::machine(1, 0xfed0_0800);
    let mut none = fake::machine(1, XAPIC);
    none.0.cpuid.clear();
    for (mut machine, cpus) in [off, elsewhere, none] {
        assert_eq!(start(&mut machine, 1), Err(Error::NoLocalApic));
        assert_eq!(cpus.borrow().messages, []);
    }
}
