//! Starts the other CPUs once: they set their registers, report their APIC identifiers, and return to wait-for-SIPI.
//!
//! One INIT and one start-up message reach all of them, whatever their number and APIC identifiers, in the mode of the boot CPU's
//! local APIC. They begin in real mode at [`layout::STARTUP_PAGE`]. The page has the code from [`crate::hal`], followed by the AP
//! [`Mailbox`]. All CPUs run at the same time: each sets its registers, stores its identifier, increments a counter and halts.
//! Then a second INIT returns them to wait-for-SIPI, where only a start-up message wakes them. So no interrupt, NMI or SMI wakes
//! a halted CPU in memory that is then the kernel's. INIT keeps the MTRRs and IA32_FEATURE_CONTROL. It also stops a CPU that is
//! late. The page's bytes are restored afterwards, so any RAM below 640 KiB is suitable.
//!
//! Assumed: a CPU accepts a start-up message right after INIT, as under KVM and TCG; hardware needs 10 ms in between. Left out:
//! starting CPUs one by one.
//!
//! Source: Intel SDM volume 3, 8.4.4 (start-up), 9.1 with table 9-1 (what INIT changes).

use core::mem::offset_of;

use arrayvec::ArrayVec;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::Error;
use super::feature_control::FeatureControl;
use super::features::Features;
use super::local_apic::LocalApic;
use super::mtrr::{self, MemoryTypes};
use crate::addr::{PhysAddr, constant};
use crate::hal::{Clock, Cpu, Deadline, Memory, MemoryError, STARTUP_MAILBOX, STARTUP_WRITES};
use crate::layout;

/// Local APIC messages: INIT, and start-up with the start page's number in the low byte.
const ICR_INIT: u32 = 5 << 8;
const ICR_STARTUP: u32 = 6 << 8;
const STARTUP_PAGE_NUMBER: u32 = (layout::STARTUP_PAGE.start().get() >> 12) as u32;
const _: () = assert!(STARTUP_PAGE_NUMBER < 0xa0);

/// The AP mailbox: what the started CPUs write and report. It follows the code in the page. Little-endian.
/// `src/firmware/machine/startup.s` reads it.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Mailbox {
    /// How many CPUs have finished. Each increments it.
    pub done: U32,
    /// The number of entries in `writes`.
    pub count: U32,
    /// The value for IA32_FEATURE_CONTROL, if the register is not locked. Zero: do not access the register, which may not exist.
    pub feature_control: U64,
    /// The number of used entries in `ids`. Each CPU increments it.
    pub next_id: U16,
    /// The number of entries in `ids`.
    pub most_ids: U16,
    /// Registers to write.
    pub writes: [RegisterWrite; STARTUP_WRITES],
    /// The CPUs' APIC identifiers, in the order in which the CPUs stored them.
    pub ids: [u8; MOST_IDS],
}

// The layout that `startup.s` reads.
const _: () = assert!(size_of::<RegisterWrite>() == 12 && offset_of!(Mailbox, writes) == 20);
const _: () = assert!(offset_of!(Mailbox, count) == 4 && offset_of!(Mailbox, feature_control) == 8);
const _: () = assert!(offset_of!(Mailbox, next_id) == 16 && offset_of!(Mailbox, most_ids) == 18);
const _: () = assert!(offset_of!(Mailbox, ids) == 20 + 12 * 20);

/// The number of 8-bit identifiers, without the boot CPU's and the broadcast identifier.
pub const MOST_IDS: usize = 254;
const _: () = assert!(mtrr::MOST_WRITES <= STARTUP_WRITES);

/// One register to write.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RegisterWrite {
    pub register: U32,
    pub value: U64,
}

const MAILBOX: PhysAddr = constant(layout::STARTUP_PAGE.start().checked_add(STARTUP_MAILBOX as u64));
/// The bytes of the page that are used.
const USED: usize = STARTUP_MAILBOX + size_of::<Mailbox>();
const _: () = assert!(USED as u64 <= layout::STARTUP_CODE.len());

/// The APIC identifiers of CPUs.
pub type Ids = ArrayVec<u8, MOST_IDS>;

/// The result of starting the other CPUs.
#[derive(Debug)]
pub struct Started {
    /// How many finished: all, or those that did before the deadline. All are in wait-for-SIPI again.
    pub done: u32,
    /// Their identifiers, unordered.
    pub ids: Ids,
}

impl Started {
    /// Checks that all `others` finished.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub const fn all(&self, others: u32) -> Result<(), Error> {
        if self.done < others { Err(Error::Missing { done: self.done, others }) } else { Ok(()) }
    }
}

/// Starts all CPUs but this one, which has these `features`. Each writes `memory_types` and `control` and stores its identifier.
/// Waits until all `others` have finished, or until the deadline.
///
/// # Errors
/// [`Error::NoLocalApic`] and [`Error::Memory`], before any CPU is started.
pub fn run<M: Memory + Cpu + Clock>(
    machine: &mut M,
    features: Features,
    others: u32,
    memory_types: &MemoryTypes,
    control: Option<FeatureControl>,
) -> Result<Started, Error> {
    let apic = LocalApic::of(machine, features).ok_or(Error::NoLocalApic)?;
    let mut before = [0; USED];
    machine.read(layout::STARTUP_PAGE.start(), &mut before)?;
    machine.write(layout::STARTUP_PAGE.start(), machine.startup_code())?;
    machine.write(MAILBOX, mailbox(memory_types, control).as_bytes())?;

    apic.send(machine, ICR_INIT)?;
    apic.send(machine, ICR_STARTUP | STARTUP_PAGE_NUMBER)?;
    let done = wait(machine, others)?;
    apic.send(machine, ICR_INIT)?;

    let mut mailbox = Mailbox::new_zeroed();
    machine.read(MAILBOX, mailbox.as_mut_bytes())?;
    machine.write(layout::STARTUP_PAGE.start(), &before)?;
    let mut ids = Ids::new();
    for &id in mailbox.ids.iter().take(mailbox.next_id.get().into()) {
        // `Ids` has room for all entries of the mailbox.
        let _ = ids.try_push(id);
    }
    Ok(Started { done, ids })
}

fn mailbox(memory_types: &MemoryTypes, control: Option<FeatureControl>) -> Mailbox {
    let mut mailbox = Mailbox::new_zeroed();
    mailbox.feature_control = control.map_or(0, FeatureControl::get).into();
    mailbox.most_ids = (MOST_IDS as u16).into();
    let mut count = 0u32;
    for (entry, write) in mailbox.writes.iter_mut().zip(memory_types.writes()) {
        *entry = RegisterWrite { register: write.register.into(), value: write.value.into() };
        count = count.wrapping_add(1);
    }
    mailbox.count = count.into();
    mailbox
}

/// Waits until all have finished or the deadline has passed. Returns how many have finished.
fn wait<M: Memory + Clock>(machine: &mut M, others: u32) -> Result<u32, MemoryError> {
    let deadline = Deadline::start(machine);
    loop {
        let done = machine.read_register32(MAILBOX)?;
        if done >= others || deadline.has_passed(machine) {
            return Ok(done);
        }
        core::hint::spin_loop();
    }
}
