//! Marks for boot-time tools: bytes written to two ports at known points of the boot.
//!
//! Off unless the host asks for them with `-fw_cfg name=opt/org.firstlight/trace,string=on`. Each mark is an exit. The
//! ports and codes are those of qboot's `benchmark.h` and of the qemu-boot-time scripts, so these tools can read them.
//! (A host with an isa-debug-exit device at port 0xf4 would exit there.)

use crate::fw_cfg::FwCfg;
use crate::hal::{HostAccess, Ports};

/// The file that turns tracing on: `on`.
const OPTION: &str = "opt/org.firstlight/trace";

/// The port for the firmware's own points.
const FIRMWARE_PORT: u16 = 0xf5;
/// The port for points on the way into the kernel.
const KERNEL_PORT: u16 = 0xf4;

/// A point of the boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The firmware runs, and tracing is on.
    FirmwareStart,
    /// The machine is set up, with its tables.
    FirmwareDone,
    /// Kernel, initrd and command line are about to be loaded.
    KernelLoad,
    /// The kernel is about to be entered.
    KernelStart,
}

impl Point {
    const fn port_and_code(self) -> (u16, u8) {
        match self {
            Self::FirmwareStart => (FIRMWARE_PORT, 1),
            Self::FirmwareDone => (FIRMWARE_PORT, 5),
            Self::KernelLoad => (KERNEL_PORT, 2),
            Self::KernelStart => (KERNEL_PORT, 3),
        }
    }
}

/// Whether points are marked.
#[derive(Clone, Copy, Debug)]
pub struct Trace {
    on: bool,
}

impl Trace {
    /// Whether the host asks for tracing. Any option other than `on` means off.
    pub fn of_host(host: &mut impl HostAccess, fw_cfg: &FwCfg) -> Self {
        Self { on: fw_cfg.read_file(host, OPTION) == Some(*b"on") }
    }

    /// Marks a point.
    pub fn mark(self, ports: &mut impl Ports, point: Point) {
        if self.on {
            let (port, code) = point.port_and_code();
            ports.out8(port, code);
        }
    }
}
