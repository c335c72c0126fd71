//! PCI: finding what is there, and giving it addresses inside the room the host has.
//!
//! [`configure`] does it all: [`scan()`] numbers the buses and asks every function what it needs, [`plan()`] finds a place
//! for everything without touching the machine, [`apply()`] writes it. [`ConfigSpace`] is for everyone who has to reach
//! a register of a known function.
//!
//! Assumed: nothing decodes what the host offers as room, and nobody uses a function meanwhile. Functions need not be
//! in their reset state: one that decodes is stopped, given a place, and started again.
//!
//! Left out:
//! - Running expansion ROMs, and those of bridges. The others get an address and stay off.
//! - CardBus bridges, legacy VGA forwarding, resizable BARs, virtual functions.
//! - Base address registers of host and ISA bridges, and of IDE channels at their legacy ports: they have no meaning.

mod address;
pub mod apply;
mod capabilities;
mod config;
mod display;
pub mod plan;
pub mod register;
mod report;
pub mod scan;
mod sizing;
pub mod topology;
mod windows;

#[cfg(test)]
mod tests;

pub use address::{Address, Addresses};
pub use apply::{Routing, apply};
pub use config::{ConfigSpace, EcamWindow, LongestAccess, PortConfig};
pub use display::Display;
pub use plan::plan;
pub use scan::{Board, OwnFunction, scan};
pub use topology::{Bar, BarKind, Pin};
pub use windows::{Near, PortRange, Windows};

use crate::addr::PhysRange;

/// What was done, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Buses that have a number.
    pub buses: usize,
    /// Functions found.
    pub functions: usize,
    /// Base address registers that got an address.
    pub placed: usize,
    /// Base address registers that did not.
    pub unplaced: usize,
    /// From the first to the last byte that got an address above 4 GiB; empty when none did.
    pub high: PhysRange,
    /// The display, if there is one.
    pub display: Option<Display>,
}

/// Sets up everything on bus 0, on `extra_roots` more root buses, and behind them. What does not fit is warned about and
/// left without an address. `windows` is called only where `near`, their part that is tried first, does not do.
pub fn configure(
    config: &mut dyn ConfigSpace,
    extra_roots: u64,
    board: Board<'_>,
    near: Near,
    windows: &dyn Fn() -> Windows,
    routing: Routing,
) -> Summary {
    let topology = scan(config, extra_roots, board);
    let plan = plan::plan_near(&topology, near, windows).unwrap_or_else(|error| {
        log::warn!("PCI: {error}; functions get no addresses");
        plan::Plan::default()
    });
    report::shortage(&topology, &plan);
    apply(config, &topology, &plan, routing);
    let summary = Summary {
        buses: topology.buses().len(),
        functions: topology.functions().len(),
        placed: plan.placements.len(),
        unplaced: plan.unplaced.len(),
        high: plan.above_4_gib(),
        display: Display::first(&topology, &plan),
    };
    log::debug!(
        "PCI: {} functions on {} buses, {} BARs placed, {} not; above 4 GiB: {}",
        summary.functions,
        summary.buses,
        summary.placed,
        summary.unplaced,
        summary.high
    );
    summary
}
