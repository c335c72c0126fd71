//! What a user is told when there is not room for everything: one line for each kind of room, with what to change.

use super::plan::{GivenUp, Resources, Unassigned};
use super::topology::{BarKind, Topology};

/// What registers ask for, as far as the advice differs.
struct Asked {
    what: &'static str,
    includes: fn(&Unassigned) -> bool,
    advice: &'static str,
}

const ASKED: [Asked; 3] = [
    Asked {
        what: "I/O ports",
        includes: |lost| lost.bar.kind == BarKind::Io,
        advice: "virtio devices need none without their legacy interface (QEMU: disable-legacy=on)",
    },
    Asked {
        what: "memory below 4 GiB",
        includes: |lost| lost.bar.kind != BarKind::Io && !lost.may_be_high,
        advice: "give fewer or smaller devices, or with much RAM let less of it be below 4 GiB (QEMU: -machine max-ram-below-4g=2G)",
    },
    Asked {
        what: "64-bit memory",
        includes: |lost| lost.may_be_high,
        advice: "give the CPU more address bits (QEMU: -cpu ...,phys-bits= or host-phys-bits=on) or the devices less memory",
    },
];

/// Warns about what there was no room for.
pub(super) fn shortage(topology: &Topology, resources: &Resources) {
    let GivenUp { io, memory } = resources.given_up;
    for (what, bridges) in [("I/O ports", io), ("memory", memory)] {
        if bridges != 0 {
            log::warn!("PCI: no {what} left to plug devices in behind {bridges} bridge(s); what is there comes first");
        }
    }
    if !resources.unassigned.is_empty() {
        unassigned(topology, resources);
    }
}

/// Warns about the registers that got no address.
fn unassigned(topology: &Topology, resources: &Resources) {
    for Asked { what, includes, advice } in ASKED {
        let mut lost = resources.unassigned.iter().filter(|lost| includes(lost));
        let Some(&Unassigned { function, bar, .. }) = lost.next() else { continue };
        let Some(function) = topology.functions().get(usize::from(function)) else { continue };
        log::warn!(
            "PCI: not enough {what}: {} BAR(s) get none, the first is BAR {} of {} with {:#x}; {advice}",
            lost.fold(1_u32, |count, _| count.saturating_add(1)),
            bar.register,
            function.address,
            bar.size()
        );
    }
}
