//! CPUID, model-specific registers, the time stamp counter, and the code of CPUs that are started.

use core::arch::x86_64::{__cpuid_count, _rdtsc};
use core::arch::{asm, global_asm};
use core::{hint, ptr};

use firstlight::hal::clock::{Clock, time_stamp_rate};
use firstlight::hal::startup::{self, CODE_LEN, LocalApic, MOST_WRITES, Mailbox, X2APIC_COMMAND};
use firstlight::hal::{Cpu, Cpuid, MemoryError};
use firstlight::layout;
use x86_64::instructions::random::RdRand;
use x86_64::registers::model_specific::Msr;

use super::{PcMachine, pointer};

global_asm!(include_str!("startup.s"), CODE_LEN = const CODE_LEN, MOST_WRITES = const MOST_WRITES);

unsafe extern "C" {
    /// The code of `startup.s`.
    static firstlight_startup_code: [u8; CODE_LEN];
}

/// Sends a message to the other CPUs.
///
/// # Safety
/// The local APIC is accessed as `apic` says. A message that starts CPUs names a page with the code of `startup.s`.
unsafe fn send(apic: LocalApic, message: u32) {
    match apic {
        LocalApic::XApic => {
            let register = pointer(layout::INTERRUPT_COMMAND.start()).cast::<u32>();
            // SAFETY: the register is mapped, and the caller promises what it does.
            unsafe { ptr::write_volatile(register, message) };
        }
        // SAFETY: the register exists in this mode, and the caller promises what it does.
        LocalApic::X2Apic => unsafe { Msr::new(X2APIC_COMMAND).write(message.into()) },
    }
}

/// Not inlined, because that would cost instructions in each write to a known register.
#[cold]
#[inline(never)]
fn warn_of_register(register: u32) {
    firstlight::warn!("write to model-specific register {register:#x} ignored: not one that firmware sets");
}

impl Cpu for PcMachine {
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Cpuid {
        let result = __cpuid_count(leaf, subleaf);
        Cpuid { eax: result.eax, ebx: result.ebx, ecx: result.ecx, edx: result.edx }
    }

    fn read_msr(&mut self, register: u32) -> u64 {
        // SAFETY: the caller of `take` promised ring 0. A register that does not exist raises a fault, which stops the firmware
        // with a message and breaks no invariant.
        unsafe { Msr::new(register).read() }
    }

    fn write_msr(&mut self, register: u32, value: u64) {
        // Intel SDM volume 4, table 2-2: the MTRRs, which are most writes; IA32_FEATURE_CONTROL, IA32_MTRR_DEF_TYPE,
        // IA32_X2APIC_SIVR, _LVT_LINT0, _LVT_LINT1.
        if !(0x200..=0x26f).contains(&register) && !matches!(register, 0x3a | 0x2ff | 0x80f | 0x835 | 0x836) {
            return warn_of_register(register);
        }
        // SAFETY: these registers choose memory types, lock features and unmask interrupts of this CPU, which has interrupts disabled. The mapping, mode and stack of the running code do not depend on them.
        unsafe { Msr::new(register).write(value) };
    }

    fn run_others(&mut self, apic: LocalApic, mailbox: &mut Mailbox, others: u32) -> Result<(), MemoryError> {
        let start = &raw const firstlight_startup_code;
        // SAFETY: `startup.s` puts CODE_LEN bytes there (`.org`), in read-only memory that stays.
        let code = unsafe { &*start };
        // SAFETY: `run` sends a start-up message only when the code is in the page. The code writes memory only in the mailbox in
        // that page, where no Rust object lives, and the other CPUs' registers. If `apic` is not the mode that the CPU is in, the
        // message is lost or raises a fault.
        startup::run(self, code, mailbox, others, |_, message| unsafe { send(apic, message) })
    }

    fn random(&mut self) -> Option<u64> {
        // None if CPUID does not report it (leaf 1, ECX bit 30).
        let source = RdRand::new()?;
        (0..RANDOM_TRIES).find_map(|_| source.get_u64())
    }

    fn seed(&mut self) -> Option<u64> {
        let (seed, success): (u64, u8);
        // SAFETY: the instruction only writes the register and the flags. On a CPU without it, it raises a fault, which stops the
        // firmware with a message and breaks no invariant.
        unsafe { asm!("rdseed {}", "setc {}", out(reg) seed, out(reg_byte) success, options(nomem, nostack)) };
        if success == 0 {
            // Other CPUs may use the source. Intel advises a pause (SDM volume 1, 7.3.17.2).
            hint::spin_loop();
            return None;
        }
        Some(seed)
    }

    fn runtime_services(&self) -> &'static [u8] {
        self.runtime_services
    }
}

/// The number of attempts of RDRAND. If ten fail, it is defective (Intel SDM volume 1, 7.3.17.1).
const RANDOM_TRIES: u32 = 10;

impl Clock for PcMachine {
    fn ticks(&mut self) -> u64 {
        // SAFETY: every x86-64 CPU has RDTSC, and ring 0 may always execute it.
        unsafe { _rdtsc() }
    }

    fn rate(&mut self) -> Option<u64> {
        let rate = match self.rate {
            Some(rate) => rate,
            None => time_stamp_rate(self),
        };
        self.rate = Some(rate);
        rate
    }
}
