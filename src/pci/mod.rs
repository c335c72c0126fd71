//! PCI: finds functions and assigns them addresses in the host's apertures.
//!
//! [`configure`] does all of it: [`scan()`] numbers the buses and sizes the BARs of every function, [`plan()`] assigns addresses
//! without accessing the machine, [`apply()`] writes them. The result is [`Devices`], where drivers find their function and its
//! BARs. [`ConfigSpace`] is for code that accesses a register of a known function.
//!
//! Where the host has set up PCI, [`existing`] finds the same by reading only.
//!
//! Assumed: nothing else decodes the host's apertures, and nobody uses a function meanwhile. Functions need not be in their reset
//! state: one that decodes is disabled, moved, and enabled again.
//!
//! Left out:
//! - Running expansion ROMs, and those of bridges. Other ROMs get an address and stay disabled.
//! - CardBus bridges, legacy VGA forwarding, resizable BARs, virtual functions.
//! - BARs of host and ISA bridges, and of IDE channels at their legacy ports: they have no meaning.

mod address;
mod apertures;
pub mod apply;
mod capabilities;
mod config;
mod devices;
mod existing;
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
pub use devices::{Device, Devices, MOST_STEPS, Route, turn_on};
pub use existing::existing;
pub use plan::plan;
pub use scan::{ChipsetFunction, ChipsetFunctions, scan};
pub use topology::{Bar, BarKind, Pin};

/// The platform's host bridges.
#[derive(Clone, Copy)]
pub struct HostBridge<'h> {
    /// The number of root buses other than bus 0.
    pub extra_roots: u64,
    /// The chipset functions.
    pub chipset: ChipsetFunctions<'h>,
    /// The apertures that are tried first.
    pub low: LowApertures,
    /// Returns all apertures. Called only if the low ones do not suffice.
    pub apertures: &'h dyn Fn() -> Apertures,
    /// The interrupt lines.
    pub routing: Routing<'h>,
}

/// Sets up all functions on the root buses and behind them. A function that does not fit is warned about and gets no address.
/// `access` is how `config` accesses configuration space.
pub fn configure(config: &mut dyn ConfigSpace, access: ConfigAccess, host: &HostBridge<'_>) -> Devices {
    let topology = scan(config, host.extra_roots, host.chipset);
    let resources = plan::plan_low_first(&topology, host.low, host.apertures).unwrap_or_else(|error| {
        crate::warn!("PCI: {error}; functions get no addresses");
        plan::Resources::default()
    });
    report::shortage(&topology, &resources, !host.low.io().is_empty());
    apply(config, &topology, &resources, host.routing);
    crate::debug!(
        "PCI: {} functions on {} buses, {} BARs placed, {} not; above 4 GiB: {}",
        topology.functions().len(),
        topology.buses().len(),
        resources.assigned.len(),
        resources.unassigned.len(),
        resources.above_4_gib()
    );
    Devices { access, topology, resources }
}
