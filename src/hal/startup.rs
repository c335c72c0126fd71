//! Starting the other CPUs: each executes the machine's code in one page, writes some registers, reports and halts.
//!
//! A message of the local APIC starts them, at any page below 1 MiB. It is a doorbell as that of DMA: code that could send
//! it could let another CPU execute anything. So only the machine sends it, with its own code in the page
//! ([`Cpu::run_others`](super::Cpu::run_others)). [`super::Memory`] refuses the register in memory
//! ([`layout::INTERRUPT_COMMAND`]), and [`super::Cpu::write_msr`] the model-specific one.
//!
//! One message starts all CPUs. They must be in wait-for-SIPI, so INIT comes first, and each executes the page and halts.
//! Then a second INIT returns them to wait-for-SIPI, where only a start-up message wakes them. So no interrupt, NMI or SMI
//! wakes a halted CPU in memory that is then the kernel's. INIT keeps the MTRRs and IA32_FEATURE_CONTROL. It also stops a CPU
//! that is late. The page's bytes are restored afterwards, so any RAM below 640 KiB is suitable.
//!
//! Assumed: a CPU accepts a start-up message right after INIT, as under KVM and TCG; hardware needs 10 ms in between. Left
//! out: starting CPUs one by one.
//!
//! Source: Intel SDM volume 3, 8.4.4 (start-up), 9.1 with table 9-1 (what INIT changes), 11.6.1 (interrupt command).

use core::mem::offset_of;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Clock, Deadline, Memory, MemoryError};
use crate::addr::{PhysAddr, constant};
use crate::layout;

/// Local APIC messages to all CPUs but the sender: INIT, and start-up with the page's number in the low byte.
const INIT: u32 = ALL_OTHERS | ASSERT | 5 << 8;
const START: u32 = ALL_OTHERS | ASSERT | 6 << 8 | PAGE_NUMBER;
const ALL_OTHERS: u32 = 3 << 18;
const ASSERT: u32 = 1 << 14;
const PAGE_NUMBER: u32 = (layout::STARTUP_PAGE.start().get() >> 12) as u32;
const _: () = assert!(PAGE_NUMBER < 0xa0);

/// How the local APIC's registers are accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalApic {
    /// In memory, at [`layout::LOCAL_APIC`].
    XApic,
    /// As model-specific registers.
    X2Apic,
}

/// The x2APIC register for messages: the interrupt command.
pub const X2APIC_COMMAND: u32 = 0x830;

/// The length of the machine's code in bytes. The AP mailbox follows it.
pub const CODE_LEN: usize = 128;
/// The most registers that the AP mailbox can name.
pub const MOST_WRITES: usize = 20;
/// The most identifiers in the AP mailbox: all of 8 bits, without the boot CPU's and the broadcast identifier.
pub const MOST_IDS: usize = 254;

/// The AP mailbox: what the started CPUs write and report. It follows the code in the page. Little-endian.
/// `src/firmware/machine/startup.s` reads it.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Mailbox {
    /// How many CPUs have finished. Each increments it.
    done: U32,
    /// The number of entries in `writes`.
    count: U32,
    /// The value for IA32_FEATURE_CONTROL, if the register is not locked. Zero: do not access the register, which may not
    /// exist.
    feature_control: U64,
    /// The number of used entries in `ids`. Each CPU increments it.
    next_id: U16,
    /// The number of entries in `ids`.
    most_ids: U16,
    /// Registers to write.
    writes: [RegisterWrite; MOST_WRITES],
    /// The CPUs' APIC identifiers, in the order in which the CPUs stored them.
    ids: [u8; MOST_IDS],
}

/// One register to write.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RegisterWrite {
    register: U32,
    value: U64,
}

// The layout that `startup.s` reads.
const _: () = assert!(size_of::<RegisterWrite>() == 12 && offset_of!(Mailbox, writes) == 20);
const _: () = assert!(offset_of!(Mailbox, count) == 4 && offset_of!(Mailbox, feature_control) == 8);
const _: () = assert!(offset_of!(Mailbox, next_id) == 16 && offset_of!(Mailbox, most_ids) == 18);
const _: () = assert!(offset_of!(Mailbox, ids) == 20 + 12 * MOST_WRITES);

const MAILBOX: PhysAddr = constant(layout::STARTUP_PAGE.start().checked_add(CODE_LEN as u64));
/// The bytes of the page that are used.
const USED: usize = CODE_LEN + size_of::<Mailbox>();
const _: () = assert!(USED as u64 <= layout::STARTUP_CODE.len());

impl Mailbox {
    /// A mailbox with these registers and values, of which the first [`MOST_WRITES`] count, and a value for
    /// IA32_FEATURE_CONTROL, or zero.
    pub fn new(writes: impl Iterator<Item = (u32, u64)>, feature_control: u64) -> Self {
        let mut this = Self::new_zeroed();
        this.feature_control = feature_control.into();
        this.most_ids = (MOST_IDS as u16).into();
        let mut count = 0_u32;
        for (entry, (register, value)) in this.writes.iter_mut().zip(writes) {
            *entry = RegisterWrite { register: register.into(), value: value.into() };
            count = count.wrapping_add(1);
        }
        this.count = count.into();
        this
    }

    /// How many CPUs have finished.
    #[must_use]
    pub fn done(&self) -> u32 {
        self.done.get()
    }

    /// The identifiers of the CPUs that have finished, unordered.
    pub fn ids(&self) -> impl Iterator<Item = u8> + '_ {
        self.ids.iter().copied().take(self.next_id.get().into())
    }
}

/// Starts the other CPUs at `code`, with `mailbox` behind it. Waits until all `others` have finished, or until a deadline.
/// Then they are in wait-for-SIPI again, and `mailbox` has what they reported. `send` sends a message of the local APIC.
///
/// For implementations of [`Cpu::run_others`](super::Cpu::run_others): who has `send` can have other code executed.
///
/// # Errors
/// [`MemoryError`] if the page cannot be accessed. Then no CPU is started.
pub fn run<M: Memory + Clock>(
    machine: &mut M,
    code: &[u8; CODE_LEN],
    mailbox: &mut Mailbox,
    others: u32,
    send: impl Fn(&mut M, u32),
) -> Result<(), MemoryError> {
    let mut before = [0; USED];
    machine.read(layout::STARTUP_PAGE.start(), &mut before)?;
    machine.write(layout::STARTUP_PAGE.start(), code)?;
    machine.write(MAILBOX, mailbox.as_bytes())?;
    send(machine, INIT);
    send(machine, START);
    let deadline = Deadline::start(machine);
    while machine.read_register32(MAILBOX)? < others && !deadline.has_passed(machine) {
        core::hint::spin_loop();
    }
    send(machine, INIT);
    machine.read(MAILBOX, mailbox.as_mut_bytes())?;
    machine.write(layout::STARTUP_PAGE.start(), &before)
}
