//! What happens if the boot fails: the message on the display, how long it stays, and whether the machine restarts.
//!
//! Left out: the consoles, which the binary writes first (`src/firmware/main.rs`); panics and exceptions, which are on
//! the consoles only.

use log::Level;

use crate::addr::PhysAddr;
use crate::error::Error;
use crate::fw_cfg::FwCfg;
use crate::hal::{HostAccess, Machine};
use crate::logging::Line;
use crate::memory_map::{HostMap, MemoryMap};
use crate::start_info::Start;
use crate::state::Boot;
use crate::{framebuffer, host, platform};

/// How long a failed boot waits, in milliseconds, little-endian (QEMU `-boot reboot-timeout=`). -1 means forever.
const BOOT_FAIL_WAIT: &str = "etc/boot-fail-wait";
/// The value for a machine that must not restart.
const FOR_EVER: u32 = u32::MAX;

/// A failed boot.
#[derive(Debug)]
pub struct Failure {
    /// The error.
    pub error: Error,
    /// The milliseconds after which the host wants the machine to restart. `None` to stop forever, also if the host has
    /// no setting.
    pub restart_after: Option<u32>,
}

impl Failure {
    /// A failure before the host's setting could be read.
    #[must_use]
    pub const fn final_stop(error: Error) -> Self {
        Self { error, restart_after: None }
    }

    /// A failure after which the machine restarts at once.
    #[must_use]
    pub const fn restart(error: Error) -> Self {
        Self { error, restart_after: Some(0) }
    }

    /// A failure, with the host's setting.
    pub fn new<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, error: Error) -> Self {
        let wait = fw_cfg.find(BOOT_FAIL_WAIT).filter(|item| item.len() == 4).map(|item| {
            let mut bytes = [0; 4];
            fw_cfg.read(machine, item, &mut bytes);
            u32::from_le_bytes(bytes)
        });
        Self { error, restart_after: wait.filter(|&wait| wait != FOR_EVER) }
    }
}

/// Shows `error` on the display, with the text of the consoles. Does nothing if no display can be set up. `start` is as
/// for [`crate::run`].
///
/// The boot may have failed at any point, so nothing of it is used: the host is read again, and PCI is set up again
/// only for the display. No kernel can be started after that.
pub fn show<M: Machine>(machine: &mut M, start: Start<PhysAddr>, error: &Error) {
    let fw_cfg = FwCfg::probe(machine).unwrap_or_else(|_| FwCfg::absent());
    let map = match start {
        Start::Reset => host::memory_map(machine, &fw_cfg, &Start::Reset).unwrap_or_default(),
        // The host's information may be overwritten, and with it the list of reserved memory. So no memory is known to
        // be free.
        Start::Pvh(_) => HostMap::default(),
    };
    let mut map = MemoryMap::new(map);
    let mut boot = Boot { machine, fw_cfg: &fw_cfg, map: &mut map, start: &Start::Reset };
    let devices = platform::set_up_for_display(boot.machine, &fw_cfg, boot.map);
    if let Some(framebuffer) = framebuffer::set_up(&mut boot, &devices) {
        // If the message cannot be drawn, it is still on the consoles.
        let _ = framebuffer.show(boot.machine, &Line { level: Level::Error, message: error });
    }
}
