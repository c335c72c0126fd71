//! The devices of a PC/AT: the two interrupt controllers, the keyboard controller, and what an ISA bridge has at fixed ports.

use super::{a20, keyboard, pic, pirq};
use crate::cpus::{Features, LocalApic};
use crate::hal::{Cpu, Memory, Ports};

/// Which of them a board has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsaDevices {
    /// Whether there is an ISA bridge: the edge/level control of interrupts, and port 0x92.
    pub bridge: bool,
    /// The keyboard controller.
    pub keyboard: Keyboard,
    /// The interrupt controllers.
    pub pic: Pic,
}

/// A board's keyboard controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keyboard {
    /// There is none, or the host says what it has.
    Absent,
    /// It is looked for.
    IfPresent,
    /// There is one, or nothing that takes its commands for something else.
    Present,
}

/// What is done to a board's interrupt controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pic {
    /// They are masked.
    Masked,
    /// They are programmed, if there are any.
    IfPresent,
}

impl IsaDevices {
    /// Those of a board with an ISA bridge.
    pub const OF_CHIPSET: Self = Self { bridge: true, keyboard: Keyboard::Present, pic: Pic::IfPresent };

    /// Sets them up on a machine whose CPU has these `features`.
    pub(super) fn set_up<M: Ports + Memory + Cpu>(self, machine: &mut M, features: Features) {
        if self.bridge {
            pirq::set_level_triggered(machine);
            a20::tell(machine);
        }
        match self.keyboard {
            Keyboard::Absent => {}
            Keyboard::IfPresent => keyboard::translate_if_present(machine),
            Keyboard::Present => keyboard::translate(machine),
        }
        connect_pic(machine, features, self.pic);
    }
}

/// Programs the old interrupt controllers, where there are any, and lets their interrupts through to this CPU, for operating
/// systems that drive no APIC. One that does sets all of this itself.
fn connect_pic<M: Ports + Memory + Cpu>(machine: &mut M, features: Features, pic: Pic) {
    match pic {
        Pic::Masked => pic::mask(machine),
        Pic::IfPresent if pic::set_up(machine) => {}
        Pic::IfPresent => return,
    }
    // Without a local APIC, or with one that is off, the controllers reach the CPU by themselves.
    if let Some(Err(error)) = LocalApic::of(machine, features).map(|apic| apic.wire_pic(machine)) {
        log::info!("interrupts of the 8259 controllers do not reach the CPU: {error}");
    }
}
