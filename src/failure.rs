//! What happens when the boot fails: the message on the display, how long it stands there, and whether the
//! machine starts again.
//!
//! Left out: the consoles, which the binary has (`src/firmware/main.rs`) and which come first; panics and exceptions, which
//! are on the consoles only.

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

/// How long a failed boot waits, in milliseconds, little-endian (QEMU `-boot reboot-timeout=`); -1 for ever.
const BOOT_FAIL_WAIT: &str = "etc/boot-fail-wait";
/// The item's value for a machine that is not to start again.
const FOR_EVER: u32 = u32::MAX;

/// A failed boot.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// After how many milliseconds the host wants the machine to start again; `None` to stop for good, as when the host
    /// says nothing.
    pub restart_after: Option<u32>,
}

impl Failure {
    /// A failure before the host could be asked.
    #[must_use]
    pub const fn final_stop(error: Error) -> Self {
        Self { error, restart_after: None }
    }

    /// A failure after which the machine starts again at once.
    #[must_use]
    pub const fn restart(error: Error) -> Self {
        Self { error, restart_after: Some(0) }
    }

    /// A failure, with what the host wants done then.
    pub fn new<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, error: Error) -> Self {
        let wait = fw_cfg.find(BOOT_FAIL_WAIT).filter(|item| item.len() == 4).map(|item| {
            let mut bytes = [0; 4];
            fw_cfg.read(machine, item, &mut bytes);
            u32::from_le_bytes(bytes)
        });
        Self { error, restart_after: wait.filter(|&wait| wait != FOR_EVER) }
    }
}

/// Shows `error` on the display, in the words that the consoles have. Does nothing where no display can be set up.
/// `start` is as for [`crate::run`].
///
/// The boot may have failed anywhere, so nothing of it is used: the host is asked again, and PCI is set up anew for the
/// display alone. No kernel can be started after that.
#[cold]
pub fn show<M: Machine>(machine: &mut M, start: Start<PhysAddr>, error: &Error) {
    let fw_cfg = FwCfg::probe(machine).unwrap_or_else(|_| FwCfg::absent());
    let map = match start {
        Start::Reset => host::memory_map(machine, &fw_cfg, &Start::Reset).unwrap_or_default(),
        // What the host handed over may be overwritten, and with it what it reserves. So no memory is known to be free.
        Start::Pvh(_) => HostMap::default(),
    };
    let mut map = MemoryMap::new(map);
    let mut boot = Boot { machine, fw_cfg: &fw_cfg, map: &mut map, start: &Start::Reset };
    let devices = platform::set_up_for_display(boot.machine, &fw_cfg, boot.map);
    if let Some(framebuffer) = framebuffer::set_up(&mut boot, &devices) {
        // What cannot be drawn was printed.
        let _ = framebuffer.show(boot.machine, &Line { level: Level::Error, message: error });
    }
}
