//! The other CPUs: setting their registers, and counting them.
//!
//! The machine starts them ([`crate::hal::startup`]).

use arrayvec::ArrayVec;

use super::error::Error;
use super::feature_control::FeatureControl;
use super::features::Features;
use super::mtrr::{self, MemoryTypes};
use crate::hal::Cpu;
use crate::hal::startup::{LocalApic, MOST_IDS, MOST_WRITES, Mailbox};

const _: () = assert!(mtrr::MOST_WRITES <= MOST_WRITES);

/// The APIC identifiers of CPUs.
pub type Ids = ArrayVec<u8, MOST_IDS>;

/// Starts all `others` CPUs but this one, which has these `features`. Each writes `memory_types` and `control`. Returns their
/// identifiers, unordered.
///
/// # Errors
/// [`Error::NoLocalApic`] and [`Error::Memory`], before any CPU is started; [`Error::Missing`] if not all have finished before
/// the deadline.
pub fn run(
    cpu: &mut impl Cpu,
    features: Features,
    others: u32,
    memory_types: &MemoryTypes,
    control: Option<FeatureControl>,
) -> Result<Ids, Error> {
    let apic = LocalApic::of(cpu, features).ok_or(Error::NoLocalApic)?;
    let writes = memory_types.writes().map(|write| (write.register, write.value));
    let mut mailbox = Mailbox::new(writes, control.map_or(0, FeatureControl::get));
    cpu.run_others(apic, &mut mailbox, others)?;
    if mailbox.done() < others {
        return Err(Error::Missing { done: mailbox.done(), others });
    }
    // The mailbox has as many.
    Ok(mailbox.ids().take(MOST_IDS).collect())
}
