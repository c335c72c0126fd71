//! Warnings for users if there is not enough room: one line for each kind of room, with what to change.

use super::plan::{GivenUp, Resources, Unassigned};
use super::topology::{BarKind, Topology};

/// A kind of room, with its advice.
struct Asked {
    what: &'static str,
    includes: fn(&Unassigned) -> bool,
    advice: &'static str,
}

const PORTS: &str = "I/O ports";

const ASKED: [Asked; 3] = [
    Asked {
        what: PORTS,
        includes: |lost| lost.bar.kind == BarKind::Io,
        advice: "virtio devices need none without their legacy interface (QEMU: disable-legacy=on)",
    },
    Asked {
        what: "memory below 4 GiB",
        includes: |lost| lost.bar.kind != BarKind::Io && !lost.may_be_high,
        advice: "use fewer or smaller devices or, with much RAM, put less of it below 4 GiB (QEMU: -machine max-ram-below-4g=2G)",
    },
    Asked {
        what: "64-bit memory",
        includes: |lost| lost.may_be_high,
        advice: "give the devices less memory or, except on a microvm, the CPU more address bits (QEMU: -cpu ...,phys-bits= or host-phys-bits=on)",
    },
];

/// Warns about everything that did not fit. Of a host bridge without ports, nobody expects any.
pub(super) fn shortage(topology: &Topology, resources: &Resources, has_ports: bool) {
    let GivenUp { io, memory } = resources.given_up;
    for (what, bridges) in [(PORTS, io), ("memory", memory)] {
        if bridges != 0 && (has_ports || what != PORTS) {
            crate::warn!("PCI: no {what} reserved for hot plug behind {bridges} bridge(s); present devices come first");
        }
    }
    if !resources.unassigned.is_empty() {
        unassigned(topology, resources, has_ports);
    }
}

/// Warns about the BARs without an address.
#[inline(never)]
fn unassigned(topology: &Topology, resources: &Resources, has_ports: bool) {
    for Asked { what, includes, advice } in ASKED.into_iter().filter(|asked| has_ports || asked.what != PORTS) {
        let mut lost = resources.unassigned.iter().filter(|lost| includes(lost));
        let Some(&Unassigned { function, bar, .. }) = lost.next() else { continue };
        let Some(function) = topology.functions().get(usize::from(function)) else { continue };
        crate::warn!(
            "PCI: not enough {what}: {} BAR(s) get none, the first is BAR {} of {} with {:#x}; {advice}",
            lost.fold(1_u32, |count, _| count.saturating_add(1)),
            bar.register,
            function.address,
            bar.size()
        );
    }
}
