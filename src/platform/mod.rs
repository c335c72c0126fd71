//! The platform: detects the board, and sets up its registers, PCI, and memory types.
//!
//! QEMU builds the ACPI tables from the chipset's registers when the first ACPI item is selected, so all of this comes before.
//! Without any one of the writes, a guest lacks something. SeaBIOS also sets up SMM and SMBus, which makes no difference to a
//! guest with ACPI tables, and the root complex's base address, without which q35 has no chipset watchdog (`docs/hosts.md`,
//! "q35's watchdog").
//!
//! Assumed: registers have their reset values, or the values that this module wrote earlier in the same run, if a reset looked
//! like a wake but was none ([`Platform::program`]). An unknown or absent host bridge is no error: then there is nothing to
//! program, and the host's tables do not depend on it (see `docs/hosts.md`). Left out: SMM, SMBus, graphics.
//!
//! Sources: Intel 82441FX (i440FX) data sheet; Intel 82371AB (PIIX4) data sheet; Intel 3 Series (82G33) MCH data sheet
//! for q35's 29C0h; Intel I/O Controller Hub 9 data sheet; QEMU `hw/pci-host/`, `hw/isa/lpc_ich9.c`, `hw/isa/piix3.c`.

mod a20;
mod aperture;
mod board;
mod detect;
mod display;
mod isa;
mod keyboard;
pub mod microvm;
pub mod none;
pub mod pc;
mod pic;
mod pirq;
mod power;
pub mod q35;
pub mod reset;
mod root;
#[cfg(test)]
mod tests;
pub mod timer;

use uefi_raw::table::boot::MemoryType;

use crate::addr::{PhysAddr, PhysRange};
use crate::cpus::{self, Features, MemoryTypes};
use crate::fw_cfg::{FwCfg, HostKind};
use crate::hal::{Machine, Ports};
use crate::host;
use crate::memory_map::{Error, Regions};
use crate::pci::{ConfigAccess, Devices, PortConfig};
use crate::state::Boot;
use aperture::physical_bits;
use board::HOST_BRIDGE;
pub use board::{Board, Chipset};
pub use display::set_up_for_display;
pub use isa::IsaDevices;
use root::Root;

/// PAM0, upper half (bits 4 and 5): reads and writes of 0xf0000 to 0xfffff go to RAM.
const PAM0_RAM: u8 = 0x30;

/// A platform whose registers are set.
#[derive(Clone, Copy, Debug)]
pub struct Platform {
    /// The board.
    pub board: &'static dyn Board,
    /// Whether 0xf0000 to 0xfffff is RAM.
    pub f_segment: bool,
    /// The PCI root, if the firmware sets up PCI.
    root: Option<Root>,
    /// The start of the device space below 4 GiB.
    devices_start: PhysAddr,
    /// The way to access configuration space: the memory-mapped window if it is open, which takes one access where the ports take
    /// two.
    access: ConfigAccess,
    features: Features,
    physical_bits: u8,
}

impl Platform {
    /// Sets the chipset's registers: in a boot, and after a reset that may be a wake.
    ///
    /// Writes no memory. May be called again, and then writes the same values.
    pub fn program<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, map: &Regions) -> Self {
        let board = detect::board(machine, fw_cfg);
        crate::debug!("board: {}", board.name());
        let features = Features::read(machine);
        let low_ram_end = map.ram_end(PhysRange::LOW_4_GIB).unwrap_or_default();
        let access = program(machine, board, low_ram_end, fw_cfg.host_kind());
        board.isa_devices().set_up(machine, features);
        let chipset = board.chipset().filter(|_| host::wants_f_segment(fw_cfg));
        if let Some(chipset) = chipset {
            open_f_segment(machine, access, chipset);
        }
        let root = Root::of(board, low_ram_end);
        let devices_start = match (access, &root) {
            (ConfigAccess::Ecam(window), _) => window.range.start(),
            (ConfigAccess::Ports, Some(root)) => root.memory.start(),
            (ConfigAccess::Ports, None) => low_ram_end.clamp(LEAST_DEVICES, IO_APIC),
        };
        let physical_bits = physical_bits(machine);
        Self { board, f_segment: chipset.is_some(), root, devices_start, access, features, physical_bits }
    }

    /// Whether the chipset says that the machine was asleep before this reset.
    pub fn was_asleep(&self, ports: &mut impl Ports) -> bool {
        self.board.chipset().is_some() && power::was_asleep(ports)
    }

    /// Assigns addresses to PCI functions, if the firmware sets up PCI. After a wake, the operating system restores its own.
    ///
    /// # Errors
    /// [`Error::Full`] if the map has no room for the configuration window.
    pub fn set_up_pci<M: Machine>(&self, boot: &mut Boot<'_, M>) -> Result<Devices, Error> {
        if let ConfigAccess::Ecam(window) = self.access {
            boot.map.reserve(window.range, MemoryType::RESERVED)?;
        }
        let Some(root) = &self.root else { return Ok(Devices::default()) };
        Ok(root.configure(boot.machine, boot.fw_cfg, boot.map, self.access, Some(self.physical_bits)))
    }

    /// Sets the memory types of all CPUs and, on a known board, their features; QEMU offers no features on others. A host other
    /// than QEMU that has enabled the MTRRs for its own board has set them for its devices, and they are unchanged.
    pub fn set_up_cpus<M: Machine>(&self, machine: &mut M, fw_cfg: &FwCfg) {
        let Self { features, devices_start, physical_bits, .. } = *self;
        if self.root.is_some() {
            cpus::set_up(machine, fw_cfg, features, devices_start, physical_bits);
        } else if fw_cfg.host_kind().is_qemu() || !MemoryTypes::are_on(machine, features) {
            MemoryTypes::plan(machine, features, devices_start, physical_bits).set(machine);
        }
    }
}

/// No known host has devices below 2 GiB. All have the I/O APIC, and some have devices above it.
const LEAST_DEVICES: PhysAddr = PhysAddr::new(2 << 30);
const IO_APIC: PhysAddr = PhysAddr::new(0xfec0_0000);

/// Sets the chipset's registers in configuration space. The window comes first, because it is the faster way to access the
/// others.
fn program<M: Machine>(machine: &mut M, board: &dyn Board, low_ram_end: PhysAddr, host: HostKind) -> ConfigAccess {
    let ecam = board.open_ecam(&mut PortConfig::new(machine), low_ram_end, host);
    let access = ecam.map_or(ConfigAccess::Ports, ConfigAccess::Ecam);
    access.with(machine, |config| board.program(config, host));
    access
}

/// Makes 0xf0000 to 0xfffff writable RAM, where an operating system searches for the SMBIOS entry point and the RSDP.
///
/// The host rebuilds its memory map for this, which is the most expensive single operation of the firmware. It is done once, and
/// only if there are tables to put there.
fn open_f_segment<M: Machine>(machine: &mut M, access: ConfigAccess, chipset: &Chipset) {
    access.with(machine, |config| config.write8(HOST_BRIDGE, chipset.pam0, PAM0_RAM));
}
