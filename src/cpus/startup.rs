//! The other CPUs, started once to set their registers and to tell their identifiers, and sent back to wait.
//!
//! One INIT and one start-up message reach all of them, whatever their number and their APIC identifiers, in the mode
//! that the boot CPU's local APIC is in. They begin in real mode at [`layout::STARTUP_PAGE`], with code of the hal and
//! with [`Orders`] behind it, set their registers all at once, leave their identifiers, count themselves and halt. Then a second INIT puts them
//! into the state they reset to, in which nothing but a start-up message wakes them: no interrupt, NMI or SMI finds them
//! halted in memory that is the kernel's by then. INIT leaves both the MTRRs and IA32_FEATURE_CONTROL as they are. It
//! also ends a CPU that comes too late. The bytes of the page are put back, so any RAM below 640 KiB is good for it.
//!
//! Assumed: the host's CPUs take a start-up message right after INIT, as those of KVM and TCG do; hardware wants 10 ms
//! between the two. Left out: starting CPUs one by one.
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
use crate::hal::{Clock, Cpu, Deadline, Memory, MemoryError, STARTUP_ORDERS, STARTUP_WRITES};
use crate::layout;

/// Messages of the local APIC: INIT, and start-up with the number of the page to begin at in the low byte.
const ICR_INIT: u32 = 5 << 8;
const ICR_STARTUP: u32 = 6 << 8;
const STARTUP_PAGE_NUMBER: u32 = (layout::STARTUP_PAGE.start().get() >> 12) as u32;
const _: () = assert!(STARTUP_PAGE_NUMBER < 0xa0);

/// What the started CPUs shall do, behind the code: little-endian. `src/firmware/machine/startup.s` reads it.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Orders {
    /// How many CPUs are done. They add to it.
    pub done: U32,
    /// How many of `writes` there are.
    pub count: U32,
    /// For IA32_FEATURE_CONTROL, where that is not locked. Zero: it is left alone, as it may not exist.
    pub feature_control: U64,
    /// How many of `ids` are taken. The CPUs add to it.
    pub next_id: U16,
    /// How many `ids` there is room for.
    pub most_ids: U16,
    /// Registers to write.
    pub writes: [Order; STARTUP_WRITES],
    /// The CPUs' APIC identifiers, in the order in which they came.
    pub ids: [u8; MOST_IDS],
}

// As `startup.s` reads them.
const _: () = assert!(size_of::<Order>() == 12 && offset_of!(Orders, writes) == 20);
const _: () = assert!(offset_of!(Orders, count) == 4 && offset_of!(Orders, feature_control) == 8);
const _: () = assert!(offset_of!(Orders, next_id) == 16 && offset_of!(Orders, most_ids) == 18);
const _: () = assert!(offset_of!(Orders, ids) == 20 + 12 * 20);

/// As many identifiers as fit 8 bits, without that of the boot CPU and the one that means all.
pub const MOST_IDS: usize = 254;
const _: () = assert!(mtrr::MOST_WRITES <= STARTUP_WRITES);

/// One register to write.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Order {
    pub register: U32,
    pub value: U64,
}

const ORDERS: PhysAddr = constant(layout::STARTUP_PAGE.start().checked_add(STARTUP_ORDERS as u64));
/// What of the page is used.
const USED: usize = STARTUP_ORDERS + size_of::<Orders>();
const _: () = assert!(USED as u64 <= layout::STARTUP_CODE.len());

/// The APIC identifiers of CPUs.
pub type Ids = ArrayVec<u8, MOST_IDS>;

/// What became of the other CPUs.
#[derive(Debug)]
pub struct Started {
    /// How many did their work; all, or those that did until the time was up. All wait again.
    pub done: u32,
    /// Their identifiers, in no order.
    pub ids: Ids,
}

impl Started {
    /// Whether all `others` did their work.
    ///
    /// # Errors
    /// [`Error::Missing`].
    pub const fn all(&self, others: u32) -> Result<(), Error> {
        if self.done < others { Err(Error::Missing { done: self.done, others }) } else { Ok(()) }
    }
}

/// Starts all CPUs but this one, which has these `features`. Each writes `memory_types` and `control` and leaves its
/// identifier. Waits until all `others` have, or until the time is up.
///
/// # Errors
/// [`Error::NoLocalApic`] and [`Error::Memory`], before any is started.
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
    machine.write(ORDERS, orders(memory_types, control).as_bytes())?;

    apic.send(machine, ICR_INIT)?;
    apic.send(machine, ICR_STARTUP | STARTUP_PAGE_NUMBER)?;
    let done = wait(machine, others)?;
    apic.send(machine, ICR_INIT)?;

    let mut orders = Orders::new_zeroed();
    machine.read(ORDERS, orders.as_mut_bytes())?;
    machine.write(layout::STARTUP_PAGE.start(), &before)?;
    let mut ids = Ids::new();
    for &id in orders.ids.iter().take(orders.next_id.get().into()) {
        // There is room for as many as there is place to say.
        let _ = ids.try_push(id);
    }
    Ok(Started { done, ids })
}

fn orders(memory_types: &MemoryTypes, control: Option<FeatureControl>) -> Orders {
    let mut orders = Orders::new_zeroed();
    orders.feature_control = control.map_or(0, FeatureControl::get).into();
    orders.most_ids = (MOST_IDS as u16).into();
    let mut count = 0u32;
    for (order, write) in orders.writes.iter_mut().zip(memory_types.writes()) {
        *order = Order { register: write.register.into(), value: write.value.into() };
        count = count.wrapping_add(1);
    }
    orders.count = count.into();
    orders
}

/// Waits until all are done or the time is up; gives how many are.
fn wait<M: Memory + Clock>(machine: &mut M, others: u32) -> Result<u32, MemoryError> {
    let deadline = Deadline::start(machine);
    loop {
        let done = machine.read_register32(ORDERS)?;
        if done >= others || deadline.has_passed(machine) {
            return Ok(done);
        }
        core::hint::spin_loop();
    }
}
