//! The devices of a PC/AT: the two interrupt controllers, the keyboard controller, and the ISA bridge's fixed ports.

use super::{a20, keyboard, pic, pirq};
use crate::cpus::Features;
use crate::hal::startup::LocalApic;
use crate::hal::{Cpu, Memory, Ports};

/// The devices of a board.
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
    /// There is none, or the host describes it.
    Absent,
    /// There may be one; the firmware checks.
    IfPresent,
    /// There is one, or the ports are unused, so commands do no harm.
    Present,
}

/// How a board's interrupt controllers are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pic {
    /// They are masked.
    Masked,
    /// They are programmed if they exist.
    IfPresent,
}

impl IsaDevices {
    /// The devices of a board with an ISA bridge.
    pub const OF_CHIPSET: Self = Self { bridge: true, keyboard: Keyboard::Present, pic: Pic::IfPresent };

    /// Sets the devices up. The CPU has these `features`.
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

/// Programs the 8259 interrupt controllers, if there are any, and lets their interrupts through to this CPU, for operating
/// systems that do not use the APIC. Others set all of this themselves.
fn connect_pic<M: Ports + Memory + Cpu>(machine: &mut M, features: Features, pic: Pic) {
    match pic {
        Pic::Masked => pic::mask(machine),
        Pic::IfPresent if pic::set_up(machine) => {}
        Pic::IfPresent => return,
    }
    // Without an enabled local APIC, the controllers are connected to the CPU directly.
    if let Some(Err(error)) = LocalApic::of(machine, features).map(|apic| apic.wire_pic(machine)) {
        crate::info!("interrupts of the 8259 controllers do not reach the CPU: {error}");
    }
}
