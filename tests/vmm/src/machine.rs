//! The KVM half: a virtual machine with one CPU, and a thread that runs it.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{panic, thread};

use anyhow::{Context, bail};
use firstlight::fakes::machine::GuestMemory;
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::devices::{At, Extra, number};
use crate::ram::Ram;
use crate::{End, Outcome, Setup, elf, pvh};

/// Three pages that KVM needs on Intel hosts, where the guest has nothing.
const KVM_TSS: usize = 0xfeff_c000;
const END_OF_ROM: u64 = 1 << 32;
/// How much of the image a PC maps below 1 MiB.
const ALIAS: u64 = 128 << 10;
const MIB: u64 = 1 << 20;

/// The address of PAM0 on the 440FX, with the enable bit (82441FX data sheet, 3.2.15), and on the Q35 in its
/// configuration space where the firmware puts that (82G33 data sheet). What is written there makes the F-segment RAM.
const PAM0: u32 = 0x8000_0059;
const PAM0_BY_ECAM: u64 = 0xb000_0090;
const F_SEGMENT: u64 = 0xf_0000;
/// The slot of the alias below 1 MiB in [`regions`], and one after the last.
const ALIAS_SLOT: u32 = 1;
const F_SEGMENT_SLOT: u32 = 4;
/// How often a CPU that does not respond is asked again to stop.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// Why no machine can be created here; `None` if one can.
#[must_use]
pub fn why_not() -> Option<String> {
    match Kvm::new() {
        Err(error) => Some(format!("/dev/kvm cannot be opened: {error}")),
        Ok(kvm) if !kvm.check_extension(Cap::ReadonlyMem) => Some("this KVM has no read-only memory".to_owned()),
        Ok(kvm) => kvm.create_vm().err().map(|error| format!("KVM makes no machine: {error}")),
    }
}

/// See [`Setup::boot`], and [`Setup::boot_by_pvh`] for `start`.
///
/// # Errors
/// If KVM cannot create the machine, or the image cannot be started in this way.
pub fn boot(setup: Setup, start: Option<pvh::Start>, limit: Duration) -> anyhow::Result<Outcome> {
    // The signal only makes KVM_RUN return.
    register_signal_handler(SIGRTMIN(), on_signal).context("no signal handler")?;
    let (done, when_done) = mpsc::channel::<()>();
    let end_by = Instant::now() + limit;
    let cpu = thread::spawn(move || {
        let outcome = run(&setup, start.as_ref(), end_by);
        drop(done);
        outcome
    });
    let mut wait = limit;
    while when_done.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
        cpu.kill(SIGRTMIN()).context("the CPU's thread is gone")?;
        wait = ASK_AGAIN;
    }
    cpu.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
}

extern "C" fn on_signal(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

fn run(setup: &Setup, start: Option<&pvh::Start>, end_by: Instant) -> anyhow::Result<Outcome> {
    let kvm = Kvm::new().context("/dev/kvm")?;
    let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
    vm.set_tss_address(KVM_TSS).context("KVM_SET_TSS_ADDR")?;
    // With a start by the PVH entry point, the image is only in RAM.
    let rom = if start.is_some() { &[][..] } else { &setup.image };
    let alias = setup.host.alias && start.is_none();
    let mut ram = Ram::new(setup.ram, rom)?;
    let entry = start.map(|_| elf::load(&setup.image, &ram)).transpose()?;
    for (at, bytes) in &setup.memory {
        ram.store(*at, bytes);
    }
    let regions = regions(setup.ram as u64, rom.len() as u64, alias);
    for (slot, region) in regions.into_iter().enumerate() {
        map(&vm, slot as u32, region, &ram)?;
    }
    let mut cpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
    let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("KVM_GET_SUPPORTED_CPUID")?;
    cpu.set_cpuid2(&cpuid).context("KVM_SET_CPUID2")?;

    let mut devices = setup.devices();
    let mut extra = Added(setup.extra.map(|make| make()));
    if let (Some(start), Some(entry)) = (start, entry) {
        pvh::enter(&cpu, entry, start.start_info)?;
        if !start.has_fw_cfg {
            devices = devices.without_fw_cfg();
        }
    }
    let mut outcome = Outcome {
        end: End::Limit,
        serial: String::new(),
        fw_cfg: devices.take_fw_cfg_record(),
        ram,
        mmio_reads: Vec::new(),
        mmio_writes: Vec::new(),
        pci_writes: Vec::new(),
        pm_timer: None,
        exits: 0,
    };
    let mut f_segment_is_ram = false;
    while Instant::now() < end_by {
        let end = match cpu.run() {
            Ok(VcpuExit::IoIn(port, into)) => {
                if !extra.read(At::Port(port), into) {
                    devices.read(port, into);
                }
                None
            }
            Ok(VcpuExit::IoOut(port, bytes)) if extra.write(At::Port(port), bytes) => None,
            Ok(VcpuExit::IoOut(port, bytes)) => devices.write(port, bytes, &mut outcome.ram).map(End::Exit),
            Ok(VcpuExit::MmioRead(at, into)) => {
                if !extra.read(At::Memory(at), into) {
                    if devices.window().read(at, into).is_none() {
                        into.fill(setup.host.absent_port as u8);
                    }
                    outcome.mmio_reads.push(at);
                }
                None
            }
            Ok(VcpuExit::MmioWrite(at, bytes)) => {
                if !extra.write(At::Memory(at), bytes) {
                    devices.window().write(at, bytes);
                    outcome.mmio_writes.push(at);
                }
                None
            }
            Ok(VcpuExit::Hlt) => Some(End::Halt),
            Ok(VcpuExit::Shutdown) => Some(End::Shutdown),
            Ok(VcpuExit::Intr) => None,
            Ok(other) => {
                let what = format!("{other:?}");
                Some(End::Kvm(format!("{what} {}", place(&cpu))))
            }
            Err(error) if error.errno() == libc::EINTR => None,
            Err(error) => Some(End::Kvm(format!("{error} {}", place(&cpu)))),
        };
        if alias && !f_segment_is_ram {
            let written =
                devices.pci_writes().last() == Some(&PAM0) || outcome.mmio_writes.last() == Some(&PAM0_BY_ECAM);
            if written {
                f_segment_is_ram = true;
                open_f_segment(&vm, setup.image.len() as u64, &outcome.ram)?;
            }
        }
        outcome.exits += 1;
        if let Some(end) = end {
            outcome.end = end;
            break;
        }
    }
    outcome.serial = devices.serial();
    outcome.pci_writes = devices.pci_writes().to_vec();
    outcome.pm_timer = devices.window().pm_timer();
    outcome.fw_cfg = devices.take_fw_cfg_record();
    Ok(outcome)
}

/// The device that a test adds, if there is one.
struct Added(Option<Box<dyn Extra>>);

impl Added {
    fn claiming(&mut self, at: At) -> Option<&mut Box<dyn Extra>> {
        self.0.as_mut().filter(|extra| extra.claims(at))
    }

    /// Whether it handled the read.
    fn read(&mut self, at: At, into: &mut [u8]) -> bool {
        let Some(extra) = self.claiming(at) else { return false };
        let value = extra.read(at, into.len() as u8);
        into.iter_mut().zip(value.to_le_bytes()).for_each(|(byte, read)| *byte = read);
        true
    }

    /// Whether it handled the write.
    fn write(&mut self, at: At, bytes: &[u8]) -> bool {
        let Some(extra) = self.claiming(at) else { return false };
        extra.write(at, bytes.len() as u8, number(bytes));
        true
    }
}

/// Where the CPU is.
fn place(cpu: &VcpuFd) -> String {
    match (cpu.get_regs(), cpu.get_sregs()) {
        (Ok(regs), Ok(sregs)) => {
            format!("at {:#x}, CS {:#x}+{:#x}, CR0 {:#x}", regs.rip, sregs.cs.selector, sregs.cs.base, sregs.cr0)
        }
        _ => "at an unknown place".to_owned(),
    }
}

/// A piece of guest memory: its guest address, its offset in [`Ram`], its length, and whether it is ROM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Region {
    at: u64,
    of: u64,
    len: u64,
    rom: bool,
}

/// The guest's memory with `ram` bytes of RAM and an image of `image` bytes.
fn regions(ram: u64, image: u64, alias: bool) -> Vec<Region> {
    let plain = |at, end| Region { at, of: at, len: end - at, rom: false };
    let rom = |at, len| Region { at, of: END_OF_ROM - len, len, rom: true };
    let top = rom(END_OF_ROM - image, image);
    if alias {
        let shown = image.min(ALIAS);
        vec![plain(0, MIB - shown), rom(MIB - shown, shown), plain(MIB, ram), top]
    } else {
        [plain(0, ram), top].into_iter().filter(|region| region.len > 0).collect()
    }
}

/// Maps RAM in place of the second half of the alias.
fn open_f_segment(vm: &VmFd, image: u64, ram: &Ram) -> anyhow::Result<()> {
    let [_, alias, ..] = regions(2 * MIB, image, true)[..] else { bail!("there is no alias") };
    // KVM cannot change the length of a slot.
    map(vm, ALIAS_SLOT, Region { len: 0, ..alias }, ram)?;
    map(vm, ALIAS_SLOT, Region { len: F_SEGMENT - alias.at, ..alias }, ram)?;
    let f_segment = Region { at: F_SEGMENT, of: F_SEGMENT, len: MIB - F_SEGMENT, rom: false };
    map(vm, F_SEGMENT_SLOT, f_segment, ram)
}

fn map(vm: &VmFd, slot: u32, region: Region, ram: &Ram) -> anyhow::Result<()> {
    // Checks both ends: the whole region is one piece of `ram`.
    let userspace_addr = ram.host_address(region.of)?;
    let last = region.len.saturating_sub(1);
    if ram.host_address(region.of + last)? != userspace_addr + last {
        bail!("{region:?} is not in one piece");
    }
    let memory = kvm_userspace_memory_region {
        slot,
        flags: if region.rom { KVM_MEM_READONLY } else { 0 },
        guest_phys_addr: region.at,
        memory_size: region.len,
        userspace_addr,
    };
    // SAFETY: the region is a part of one mapping of `ram`, as was checked above; one without bytes takes a slot away. The
    // mapping is accessed by volatile operations only. The one CPU that uses it runs in `run`, on whose stack `ram` or the
    // `Outcome` with it is all the while.
    unsafe { vm.set_user_memory_region(memory) }.with_context(|| format!("KVM_SET_USER_MEMORY_REGION {region:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_shown_below_1_mib_where_the_host_does_so() {
        let all = regions(64 * MIB, 0x3_0000, true);
        let ends: Vec<_> = all.iter().map(|region| (region.at, region.at + region.len, region.rom)).collect();
        assert_eq!(
            ends,
            [
                (0, 0xe_0000, false),
                (0xe_0000, 0x10_0000, true),
                (0x10_0000, 64 * MIB, false),
                (0xfffd_0000, 1 << 32, true)
            ]
        );
        assert_eq!(all[1].of, 0xfffe_0000);
        assert_eq!(regions(64 * MIB, 0x3_0000, false).len(), 2);
        assert_eq!(regions(64 * MIB, 0, false), [Region { at: 0, of: 0, len: 64 * MIB, rom: false }]);
    }
}
