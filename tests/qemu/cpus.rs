//! The other CPUs: not started, or started once to enable features, and the cost of each.

use std::collections::BTreeMap;
use std::io::Write;

use tempfile::NamedTempFile;

use crate::bzimage::BzImage;
use crate::machine::{Accelerator, Kind, Machine};
use crate::probe::Probe;
use crate::sleep;

/// A CPU for which QEMU offers `etc/msr_feature_control`: with local machine checks, the one feature that TCG has.
const WITH_LMCE: &str = "-cpu max,lmce=on";
/// What QEMU says there: local machine checks, and the lock.
const FEATURES: u64 = 1 << 20 | 1;

/// Makes QEMU print each instruction in the page where CPUs begin, with the registers before it.
const WATCH_STARTUP: &str = "-singlestep -d in_asm,exec,cpu,nochain -dfilter 0x9e000+0x1000";

const DEBUG: &str = "-fw_cfg name=opt/org.firstlight/log,string=debug";

fn machine(kind: Kind, cpus: u8) -> Machine {
    Machine { cpus, ..Machine::new(kind) }
}

fn boot(machine: &Machine) -> Probe {
    Probe::boot(machine, &BzImage::new(), None, None)
}

/// The model-specific registers that the one CPU which ran in that page wrote, with their last values, from the `from`th
/// byte of the log on.
///
/// The log has the instructions, with their addresses and names, and for each executed one the registers: EIP counts
/// from the start of the page.
fn registers_written(log: &str, from: usize) -> BTreeMap<u32, u64> {
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap_or_else(|error| panic!("{text}: {error}"));
    let wrmsr: Vec<_> = log
        .lines()
        .filter(|line| line.trim_end().ends_with("wrmsr"))
        .filter_map(|line| Some(hex(line.strip_prefix("0x")?.split_once(':')?.0) & 0xfff))
        .collect();
    let mut written = BTreeMap::new();
    for state in log[from..].split("Trace ").skip(1) {
        let field = |name: &str| hex(&state.split_once(name).unwrap_or_else(|| panic!("no {name} in {state}")).1[..8]);
        if wrmsr.contains(&field("EIP=")) {
            let value = field("EDX=") << 32 | field("EAX=");
            written.insert(u32::try_from(field("ECX=")).unwrap(), value);
        }
    }
    written
}

#[test]
fn the_other_cpu_gets_the_features_and_memory_types_if_the_host_asks_for_it() {
    for kind in Kind::ALL {
        let mut probe = boot(&machine(kind, 2).with(WITH_LMCE).with(WATCH_STARTUP));
        let mut written = registers_written(&probe.qemu.log(), 0);
        assert_eq!(written.remove(&0x3a), Some(FEATURES));
        for register in [0x250, 0x259, 0x26f, 0x200, 0x201, 0x2ff] {
            assert!(written.contains_key(&register), "{register:#x} in {written:x?}");
        }
        for (register, value) in written {
            assert_eq!(value, probe.read_msr(register), "{register:#x}, on the boot CPU");
        }
    }
}

#[test]
fn the_other_cpu_gets_the_features_and_memory_types_again_at_a_wake() {
    for kind in Kind::ALL {
        let (mut probe, page) = sleep::boot(&machine(kind, 2).with(WITH_LMCE).with(WATCH_STARTUP));
        sleep::prepare(&mut probe, &page);
        let before = probe.qemu.log();
        sleep::sleep(&mut probe);
        probe.wait_for_wake();
        let written = registers_written(&probe.qemu.log(), before.len());
        assert_eq!(written, registers_written(&before, 0));
        assert_eq!(written.get(&0x3a), Some(&FEATURES));
    }
}

#[test]
fn no_cpu_is_started_unless_the_host_asks_for_it() {
    for kind in Kind::ALL {
        let probe = boot(&machine(kind, 4).with("-cpu max").with(WATCH_STARTUP));
        assert!(!probe.qemu.log().contains("Trace "), "{}", probe.qemu.log());
    }
}

#[test]
fn the_maximum_number_of_cpus_gets_the_features() {
    for kind in Kind::ALL {
        let machine = machine(kind, 255).with(WITH_LMCE).with(DEBUG);
        let probe = Probe::boot_noisily(&machine, &BzImage::new(), None, None);
        let log = probe.qemu.debug_console();
        assert!(log.contains("254 others have the memory types and features"), "{log}");
        assert!(!log.contains("warning"), "{log}");
    }
}

#[test]
fn the_page_with_the_start_up_code_belongs_to_the_kernel_afterwards() {
    let mut probe = boot(&machine(Kind::Q35, 4).with(WITH_LMCE));
    assert_eq!(probe.read(0x9_e000, 512), [0; 512], "as it was");
    // Nothing runs there any more, whatever the kernel puts into it.
    probe.fill(0x9_e000..0x9_f000, 0xff);
    assert_eq!(probe.read(0x9_e000, 512), [0xff; 512]);
}

/// Every device access of the firmware, except those of the probe's own conversation: what, where and how wide.
fn accesses(machine: &Machine) -> Vec<String> {
    let trace = "-trace memory_region_ops_read -trace memory_region_ops_write";
    let log = boot(&machine.clone().with(trace)).qemu.log();
    let of_probe = ["name 'serial'", "name 'isa-debugcon'"];
    // The probe goes on meanwhile, so the last line may be there in part.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter(|line| !of_probe.iter().any(|name| line.contains(name)));
    // Behind the event's name are the CPU and where QEMU has the device in its own memory; the value may differ.
    let accesses: Vec<_> = lines
        .filter_map(|line| line.split_once("memory_region_ops_")?.1.split_once(' '))
        .map(|(event, rest)| format!("{event} {} {}", word_after(rest, "addr "), word_after(rest, "size ")))
        .collect();
    assert!(accesses.len() > 50, "no trace: {log}");
    accesses
}

/// The word that follows `name` in a line of QEMU's trace.
fn word_after<'l>(line: &'l str, name: &str) -> &'l str {
    line.split_once(name).and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default()
}

#[test]
fn device_accesses_do_not_grow_with_the_cpus() {
    for kind in Kind::ALL {
        let of = |cpus, cpu| accesses(&machine(kind, cpus).with(cpu));
        let alone = of(1, "-cpu max");
        assert_eq!(alone, of(64, "-cpu max"));
        // Two more items, and three IPIs to all CPUs at once.
        let two = of(2, WITH_LMCE);
        assert_eq!(two, of(64, WITH_LMCE));
        assert!(two.len() <= alone.len() + 5, "{two:#?}");
    }
}

/// A file that asks for VMX, which no CPU here has.
fn asking_for_vmx() -> (NamedTempFile, String) {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(&5u64.to_le_bytes()).expect("a temporary file takes bytes");
    let argument = format!("-fw_cfg name=etc/msr_feature_control,file={}", file.path().display());
    (file, argument)
}

/// Boots on a CPU that does not have what the host asks for: the register may not even exist.
fn check_missing_feature(machine: &Machine) {
    let (_file, argument) = asking_for_vmx();
    let probe = Probe::boot_noisily(&machine.clone().with(&argument), &BzImage::new(), None, None);
    let warning = "firstlight: warning: etc/msr_feature_control asks for 0x5, but this CPU has no feature for 0x5";
    let log = probe.qemu.debug_console();
    assert!(log.starts_with(warning) && log.lines().count() == 1, "{log}");
}

#[test]
fn a_feature_that_the_cpu_lacks_causes_a_warning() {
    check_missing_feature(&machine(Kind::Q35, 2));
}

#[test]
fn a_feature_that_the_cpu_lacks_causes_a_warning_under_kvm() {
    let Some(accelerator) = Accelerator::kvm() else { return };
    check_missing_feature(&Machine { accelerator, ..machine(Kind::Q35, 2) });
}

#[test]
fn a_machine_with_more_cpus_than_8_bits_number_boots_under_kvm() {
    let Some(accelerator) = Accelerator::kvm() else { return };
    let x2apic = "-smp 288 -device intel-iommu,intremap=on,eim=on";
    let machine = Machine { accelerator, properties: ",kernel-irqchip=split", ..Machine::new(Kind::Q35) };
    let mut probe = boot(&machine.with(x2apic));
    let cpus = probe.fw_cfg(5, 2);
    assert_eq!(u16::from_le_bytes([cpus[0], cpus[1]]), 288);
}
