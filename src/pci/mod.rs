//! PCI: finding what is there, and giving it addresses inside the room the host has.
//!
//! [`configure`] does it all: [`scan()`] numbers the buses and asks every function what it needs, [`plan()`] finds a place
//! for everything without touching the machine, [`apply()`] writes it. [`Devices`] is what comes out: drivers find their
//! function and its registers there. [`ConfigSpace`] is for everyone who has to reach a register of a known function.
//!
//! Assumed: nothing decodes what the host offers as room, and nobody uses a function meanwhile. Functions need not be
//! in their reset state: one that decodes is stopped, given a place, and started again.
//!
//! Left out:
//! - Running expansion ROMs, and those of bridges. The others get an address and stay off.
//! - CardBus bridges, legacy VGA forwarding, resizable BARs, virtual functions.
//! - Base address registers of host and ISA bridges, and of IDE channels at their legacy ports: they have no meaning.

mod address;
mod apertures;
pub mod apply;
mod capabilities;
mod config;
mod devices;
pub mod plan;
pub mod register;
mod report;
pub mod scan;
mod sizing;
pub mod topology;

#[cfg(test)]
mod tests;

pub use address::{Address, Addresses};
pub use apertures::{Apertures, LowApertures, PortRange};
pub use apply::{Routing, apply};
pub use config::{ConfigAccess, ConfigSpace, EcamWindow, LongestAccess, PortConfig};
pub use devices::{Device, Devices};
pub use plan::plan;
pub use scan::{ChipsetFunction, ChipsetFunctions, scan};
pub use topology::{Bar, BarKind, Pin};

/// What the platform says of its host bridges.
#[derive(Clone, Copy)]
pub struct HostBridge<'h> {
    /// How many root buses there are beside bus 0.
    pub extra_roots: u64,
    /// The functions that are the chipset's own.
    pub chipset: ChipsetFunctions<'h>,
    /// The apertures that are tried first.
    pub low: LowApertures,
    /// All apertures. They are worked out only where the low ones do not suffice.
    pub apertures: &'h dyn Fn() -> Apertures,
    /// Where interrupts go.
    pub routing: Routing<'h>,
}

/// Sets up everything on the root buses and behind them. What does not fit is warned about and left without an address.
/// `access` is the way that leads to `config`.
pub fn configure(config: &mut dyn ConfigSpace, access: ConfigAccess, host: &HostBridge<'_>) -> Devices {
    let topology = scan(config, host.extra_roots, host.chipset);
    let resources = plan::plan_low_first(&topology, host.low, host.apertures).unwrap_or_else(|error| {
        log::warn!("PCI: {error}; functions get no addresses");
        plan::Resources::default()
    });
    report::shortage(&topology, &resources);
    apply(config, &topology, &resources, host.routing);
    log::debug!(
        "PCI: {} functions on {} buses, {} BARs placed, {} not; above 4 GiB: {}",
        topology.functions().len(),
        topology.buses().len(),
        resources.assigned.len(),
        resources.unassigned.len(),
        resources.above_4_gib()
    );
    Devices { access, topology, resources }
}
