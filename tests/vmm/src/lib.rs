//! A small host for tests: a virtual machine under KVM that starts an image at the reset vector, or an ELF file by its
//! PVH entry.
//!
//! It is there for what QEMU does not show: hosts that differ. Its fw_cfg device is the library's model
//! ([`firstlight::fakes::fw_cfg`]), which has the defects of every host known to offer one; the image may or may not be
//! shown below 1 MiB, absent ports read as zero or all ones, and of a chipset there are only the numbers, and a q35's
//! configuration space in memory.
//!
//! [`Setup`] says what there is, [`Setup::boot`] or [`Setup::boot_by_pvh`] runs it to its end under a limit, and
//! [`Outcome`] has what was seen. [`devices`] and [`elf`] need no KVM and have tests of their own.
//!
//! Assumed: a Linux host. Left out: interrupts, more than one CPU, PCI, and everything a kernel such as Linux would need.

pub mod devices;
pub mod elf;
pub mod machine;
pub mod pvh;
pub mod ram;
pub mod window;

use std::time::Duration;

use firstlight::fakes::fw_cfg::Record;
use firstlight::fakes::known_hosts::KnownHost;

use devices::{Devices, Extra};
use ram::Ram;

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Whose defects it has.
    pub host: KnownHost,
    /// The firmware: what ends at 4 GiB, or for a start by the PVH entry an ELF file.
    pub image: Vec<u8>,
    /// Bytes of RAM, a multiple of 64 KiB from 16 MiB up.
    pub ram: usize,
    /// fw_cfg items that are in no directory, by key.
    pub items: Vec<(u16, Vec<u8>)>,
    /// Named fw_cfg items.
    pub files: Vec<(String, Vec<u8>)>,
    /// What the host puts into memory before it starts the guest, and where.
    pub memory: Vec<(u64, Vec<u8>)>,
    /// Whether COM1 is there.
    pub serial: bool,
    /// Makes a device that a test adds.
    pub extra: Option<fn() -> Box<dyn Extra>>,
}

impl Setup {
    /// Its devices.
    #[must_use]
    pub fn devices(&self) -> Devices {
        let mut fw_cfg = self.host.device();
        for (key, bytes) in &self.items {
            fw_cfg = fw_cfg.with_item(*key, bytes);
        }
        for (name, bytes) in &self.files {
            fw_cfg = fw_cfg.with_file(name, bytes);
        }
        Devices::new(fw_cfg, &self.host, self.ram, self.serial)
    }

    /// Starts the machine and lets it run until the guest ends, or for as long as `limit`.
    ///
    /// # Errors
    /// When KVM does not make the machine.
    pub fn boot(self, limit: Duration) -> anyhow::Result<Outcome> {
        machine::boot(self, None, limit)
    }

    /// The same by the PVH entry: no image is shown below 4 GiB or 1 MiB then.
    ///
    /// # Errors
    /// When KVM does not make the machine, or the image is not an ELF file that can be started so.
    pub fn boot_by_pvh(self, start: pvh::Start, limit: Duration) -> anyhow::Result<Outcome> {
        machine::boot(self, Some(start), limit)
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest wrote this to [`devices::EXIT_PORT`].
    Exit(u32),
    /// The CPU halted; there are no interrupts.
    Halt,
    /// A triple fault.
    Shutdown,
    /// The limit passed.
    Limit,
    /// KVM did not go on, and says this.
    Kvm(String),
}

/// What a run left.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// What went to COM1.
    pub serial: String,
    /// What fw_cfg did.
    pub fw_cfg: Record,
    /// Guest memory.
    pub ram: Ram,
    /// Addresses without memory that were read, and those that were written, ROM among them.
    pub mmio_reads: Vec<u64>,
    /// See there.
    pub mmio_writes: Vec<u64>,
    /// PCI configuration addresses that were written to: of the first byte, with the bit that turns access on.
    pub pci_writes: Vec<u32>,
    /// The port of a q35's power management timer, once its base is set.
    pub pm_timer: Option<u16>,
    /// How often the guest came back to the host.
    pub exits: u32,
}
