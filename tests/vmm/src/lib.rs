//! A small host for tests: a virtual machine under KVM that starts an image at the reset vector, or an ELF file by its
//! PVH entry point.
//!
//! It models the hosts that differ from QEMU. Its fw_cfg device is the library's model ([`firstlight::fakes::fw_cfg`]) with the
//! defects of every known host. The image may or may not be mapped below 1 MiB, and absent ports read as zero or as all ones.
//! A chipset consists of its IDs, and of the memory-mapped configuration space of a q35.
//!
//! [`Setup`] describes the machine, [`Setup::boot`] or [`Setup::boot_by_pvh`] runs it with a time limit, and [`Outcome`] has the
//! results. [`devices`] and [`elf`] need no KVM and have their own tests.
//!
//! Assumed: a Linux host. Left out: interrupts, more than one CPU, PCI, and everything that a kernel such as Linux needs.

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

/// The description of a machine.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The host that it models.
    pub host: KnownHost,
    /// The firmware: the flat image, which ends at 4 GiB, or an ELF file for a start by the PVH entry point.
    pub image: Vec<u8>,
    /// Bytes of RAM: a multiple of 64 KiB, at least 16 MiB.
    pub ram: usize,
    /// Numbered fw_cfg items, by key.
    pub items: Vec<(u16, Vec<u8>)>,
    /// Named fw_cfg items.
    pub files: Vec<(String, Vec<u8>)>,
    /// What the host puts into memory before the start, with the addresses.
    pub memory: Vec<(u64, Vec<u8>)>,
    /// Whether there is a COM1.
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

    /// Runs the machine until the guest ends, but at most for `limit`.
    ///
    /// # Errors
    /// If KVM cannot create the machine.
    pub fn boot(self, limit: Duration) -> anyhow::Result<Outcome> {
        machine::boot(self, None, limit)
    }

    /// The same by the PVH entry point. No image is mapped below 4 GiB or 1 MiB then.
    ///
    /// # Errors
    /// If KVM cannot create the machine, or the image is not an ELF file with a PVH entry point.
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
    /// The time limit was reached.
    Limit,
    /// KVM stopped with this reason.
    Kvm(String),
}

/// The results of a run.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The output on COM1.
    pub serial: String,
    /// The actions of fw_cfg.
    pub fw_cfg: Record,
    /// Guest memory.
    pub ram: Ram,
    /// Addresses without memory that were read.
    pub mmio_reads: Vec<u64>,
    /// Addresses without memory that were written, and those of ROM.
    pub mmio_writes: Vec<u64>,
    /// PCI configuration addresses that were written: of the first byte, with the enable bit.
    pub pci_writes: Vec<u32>,
    /// The port of a q35's power management timer, once its base is set.
    pub pm_timer: Option<u16>,
    /// How often the guest exited to the host.
    pub exits: u32,
}
