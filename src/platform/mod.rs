//! The chipset: what the host bridge tells about the machine, and the registers that firmware sets on it.
//!
//! QEMU makes the ACPI tables from these registers at the moment the first ACPI item is selected, so all of this comes
//! before that. Each write is one that a guest misses when it is left out. What SeaBIOS writes beyond these (SMM, SMBus) makes no
//! difference to a guest with ACPI tables, but for the root complex's base address, without which q35 has no watchdog of its own
//! (`docs/hosts.md`, "q35's watchdog").
//!
//! Assumed: registers are at their reset values, or as this module left them in the same run, when a reset that a guest
//! wanted taken for a wake is none ([`restore`]). An unknown or absent host bridge is no error: then there is nothing to
//! program, and the tables of the host stand on their own. Nor is PCI set up there: every host that is known to have
//! another bridge gives its functions addresses itself, and its tables tell of them (see `docs/hosts.md`). Left out: SMM,
//! SMBus, graphics.
//!
//! Sources: Intel 82441FX (i440FX) data sheet; Intel 82371AB (PIIX4) data sheet; Intel 3 Series (82G33) MCH data sheet
//! for q35's 29C0h; Intel I/O Controller Hub 9 data sheet; QEMU `hw/pci-host/`, `hw/isa/lpc_ich9.c`, `hw/isa/piix3.c`.

mod a20;
mod display;
mod keyboard;
mod pc;
mod pic;
mod q35;
pub mod reset;
#[cfg(test)]
mod tests;
pub mod timer;
mod window;

use core::fmt;

use uefi_raw::table::boot::MemoryType;

use crate::addr::{PhysAddr, PhysRange, constant};
use crate::cpus::{self, LocalApic, MemoryTypes};
use crate::fw_cfg::{FwCfg, HostKind};
use crate::hal::{Cpu, Machine, Memory, Ports};
use crate::host;
use crate::memory_map::Regions;
use crate::pci::{
    self, Address, Board, ConfigSpace, Display, EcamWindow, Near, OwnFunction, Pin, PortConfig, PortRange, Summary,
    Windows,
};
use crate::state::Boot;
pub use display::set_up_display;
use window::{high_windows, physical_bits, unoccupied};

/// How many root buses there are beside bus 0, 64 bits, little-endian.
const EXTRA_ROOTS: &str = "etc/extra-pci-roots";

/// The end of what the host keeps above RAM for memory that is plugged in later, 64 bits, little-endian.
const RESERVED_MEMORY_END: &str = "etc/reserved-memory-end";

/// What was set up, as far as later steps need it.
#[derive(Clone, Copy, Debug)]
pub struct Platform {
    /// The chipset.
    pub chipset: Chipset,
    /// Whether 0xf0000 to 0xfffff is RAM.
    pub f_segment: bool,
    /// The PCI display, if there is one.
    pub display: Option<Display>,
}

impl Platform {
    /// Programs the chipset, gives PCI its addresses and sets the memory types.
    ///
    /// # Errors
    /// [`crate::memory_map::Error::Full`] when the map has no room for the configuration window.
    pub fn set_up<M: Machine>(boot: &mut Boot<'_, M>) -> Result<Self, crate::memory_map::Error> {
        let fw_cfg = boot.fw_cfg;
        let (chipset, low_ram_end, f_segment, ecam) = program(boot.machine, fw_cfg, boot.map);
        if let Some(window) = ecam {
            boot.map.reserve(window.range, MemoryType::RESERVED)?;
        }
        let (machine, map) = (&mut *boot.machine, &*boot.map);
        let Some((ports, low)) = chipset.low_windows(low_ram_end) else {
            set_memory_types_beside_unknown_devices(machine, fw_cfg, low_ram_end);
            return Ok(Self { chipset, f_segment, display: None });
        };
        let bits = physical_bits(machine);
        let reserved = read_number(machine, fw_cfg, RESERVED_MEMORY_END).map(PhysAddr::new);
        let extra_roots = read_number(machine, fw_cfg, EXTRA_ROOTS).unwrap_or(0);
        // QEMU reserves nothing there.
        let free = if fw_cfg.host_kind().is_qemu() { low } else { unoccupied(map, low) };
        let near = Near::new(ports, free);
        let windows = || Windows::new(near, high_windows(map, reserved, bits), bits).or_ports(chipset.more_ports());
        let pci = chipset.configure_pci(machine, ecam, extra_roots, near, &windows, fw_cfg.host_kind());
        cpus::set_up(machine, fw_cfg, devices_start(ecam, low), bits);
        Ok(Self { chipset, f_segment, display: pci.display })
    }
}

/// The chipset after [`restore`].
#[derive(Clone, Copy, Debug)]
pub struct Restored {
    chipset: Chipset,
    low_ram_end: PhysAddr,
    ecam: Option<EcamWindow>,
}

/// Sets the chipset's registers as a boot does, after a reset that may have left an operating system's memory as it was.
/// What PCI functions had, the operating system restores.
///
/// Writes no memory, and a boot may follow: it writes the same again.
pub fn restore<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, map: &Regions) -> Restored {
    let (chipset, low_ram_end, _, ecam) = program(machine, fw_cfg, map);
    Restored { chipset, low_ram_end, ecam }
}

impl Restored {
    /// Whether the machine was asleep before this reset: WAK_STS in the PM1 status register (ACPI 6.5, 4.8.3.1.1).
    ///
    /// QEMU sets it when a machine wakes, after the reset of its devices, which clears it; a guest can only clear it
    /// (`hw/acpi/core.c`: `acpi_notify_wakeup`, `acpi_pm1_evt_reset`, `acpi_pm1_evt_write_sts`).
    pub fn was_asleep(&self, ports: &mut impl Ports) -> bool {
        match self.chipset {
            Chipset::I440fx | Chipset::Q35 => {
                let status = ports.in16(PM1_STATUS);
                log::debug!("PM1 status after a reset that asks for a wake: {status:#06x}");
                // Where nothing answers all bits are set, reserved ones too.
                status != u16::MAX && status & WAK_STS != 0
            }
            Chipset::Microvm | Chipset::Other(_) | Chipset::None => false,
        }
    }

    /// Sets the memory types and features of all CPUs as a boot does.
    pub fn set_up_cpus<M: Machine>(&self, machine: &mut M, fw_cfg: &FwCfg) {
        let Some((_, low)) = self.chipset.low_windows(self.low_ram_end) else {
            return set_memory_types_beside_unknown_devices(machine, fw_cfg, self.low_ram_end);
        };
        let bits = physical_bits(machine);
        cpus::set_up(machine, fw_cfg, devices_start(self.ecam, low), bits);
    }
}

/// No host is known to have devices below 2 GiB; all have the I/O APIC, and some above it.
const LEAST_DEVICES: PhysAddr = PhysAddr::new(2 << 30);
const IO_APIC: PhysAddr = PhysAddr::new(0xfec0_0000);

/// Where devices may begin on a board that the firmware does not know, whose RAM below 4 GiB ends at `low_ram_end`.
fn unknown_devices(low_ram_end: PhysAddr) -> PhysAddr {
    low_ram_end.clamp(LEAST_DEVICES, IO_APIC)
}

/// Sets the memory types on a board that the firmware does not know. A host other than QEMU that has turned the MTRRs on has
/// set them for its own devices. The CPUs' features are no concern there: QEMU offers them on `q35` and `pc` alone.
fn set_memory_types_beside_unknown_devices<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, low_ram_end: PhysAddr) {
    if fw_cfg.host_kind().is_qemu() || !MemoryTypes::are_on(machine) {
        let bits = physical_bits(machine);
        MemoryTypes::plan(machine, unknown_devices(low_ram_end), bits).set(machine);
    }
}

/// Where the address space of devices begins below 4 GiB.
fn devices_start(ecam: Option<EcamWindow>, low: PhysRange) -> PhysAddr {
    ecam.map_or(low, |window| window.range).start()
}

/// Programs the chipset. Gives it, the end of RAM below 4 GiB, whether the F-segment is RAM, and the window of
/// memory-mapped configuration space if it is open.
fn program<M: Machine>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    map: &Regions,
) -> (Chipset, PhysAddr, bool, Option<EcamWindow>) {
    let chipset = Chipset::of_host(machine, fw_cfg);
    log::debug!("chipset: {chipset}");
    let low_ram_end = map.ram_end(PhysRange::LOW_4_GIB).unwrap_or_default();
    let ecam = chipset.program(machine, low_ram_end, fw_cfg.host_kind());
    connect_pic(machine, chipset == Chipset::Microvm);
    if chipset == Chipset::None && !host::describes_devices(fw_cfg) {
        keyboard::translate_if_present(machine);
    }
    let f_segment = chipset.is_known() && host::wants_f_segment(fw_cfg) && chipset.open_f_segment(machine, ecam);
    (chipset, low_ram_end, f_segment, ecam)
}

/// Whether this is QEMU's microvm, by its files: it describes its devices, and has neither the SMBIOS tables nor the power
/// management of a PC.
fn is_microvm(fw_cfg: &FwCfg) -> bool {
    !host::has_smbios(fw_cfg)
        && fw_cfg.host_kind().is_qemu()
        && host::describes_devices(fw_cfg)
        && !host::can_sleep(fw_cfg)
}

/// Programs the old interrupt controllers, where there are any, and lets their interrupts through to this CPU, for operating
/// systems that drive no APIC. One that does sets all of this itself.
///
/// On a microvm they are only masked: KVM leaves them to QEMU there, and each write is an exit.
fn connect_pic<M: Ports + Memory + Cpu>(machine: &mut M, is_microvm: bool) {
    if is_microvm {
        pic::mask(machine);
    } else if !pic::set_up(machine) {
        return;
    }
    // Without a local APIC, or with one that is off, the controllers reach the CPU by themselves.
    if let Some(Err(error)) = LocalApic::of(machine).map(|apic| apic.wire_pic(machine)) {
        log::info!("interrupts of the 8259 controllers do not reach the CPU: {error}");
    }
}

/// Reads an item of 64 bits, if the host has it.
fn read_number<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, name: &str) -> Option<u64> {
    let item = fw_cfg.find(name)?;
    let mut bytes = [0; 8];
    fw_cfg.read(machine, item, &mut bytes);
    Some(u64::from_le_bytes(bytes))
}

/// What the host bridge at 00:00.0 says the machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chipset {
    /// Intel 440FX with PIIX3 and PIIX4 power management: QEMU's `pc`.
    I440fx,
    /// Intel Q35 with ICH9: QEMU's `q35`.
    Q35,
    /// QEMU's `microvm`: no chipset, and a PCI host, if it has one, without a register at a known place.
    Microvm,
    /// Another, with its vendor and device numbers (vendor in the low half).
    Other(u32),
    /// No PCI at all.
    None,
}

impl fmt::Display for Chipset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::I440fx => f.write_str("440FX and PIIX (pc)"),
            Self::Q35 => f.write_str("Q35 and ICH9 (q35)"),
            Self::Microvm => f.write_str("none (microvm)"),
            Self::Other(id) => write!(f, "unknown, host bridge {:04x}:{:04x}", id & 0xffff, id >> 16),
            Self::None => f.write_str("none, no PCI"),
        }
    }
}

/// 00:00.0, where the host bridge is.
const HOST_BRIDGE: Address = address(0, 0);

/// Vendor and device (the vendor is the low half).
const ID: u8 = 0x00;
const ID_I440FX: u32 = 0x1237_8086;
const ID_Q35: u32 = 0x29c0_8086;

/// The I/O base of the power management registers, and bit 0, which an I/O base has. Below 0x1000, so that PCI can have
/// the ports from there on; QEMU's tables take whatever stands here.
const PM_BASE: u32 = 0x600 | 1;
/// The PM1 status register, 16 bits, the first of them (ICH9 data sheet, 13.8.3; 82371AB, 7.1.1).
const PM1_STATUS: u16 = (PM_BASE & !1) as u16;
/// PM1 status: the machine was asleep and has woken (ACPI 6.5, 4.8.3.1.1).
const WAK_STS: u16 = 1 << 15;

/// Interrupts of the four routing registers, PIRQA to PIRQD in a dword from the low byte up: 10, 10, 11, 11, as a PC's
/// firmware has it.
const PIRQ_ROUTES: u32 = 0x0b0b_0a0a;
/// The same by index.
const PIRQ_INTERRUPTS: [u8; 4] = [10, 10, 11, 11];

/// Edge/level control of interrupts 8 to 15 (PIIX3 data sheet, ELCR2): 10 and 11 are level-triggered. Those of 0 to 7
/// stay at their reset value, edge-triggered.
const ELCR2: u16 = 0x4d1;
const ELCR2_LEVEL_10_11: u8 = 1 << (10 - 8) | 1 << (11 - 8);

/// PAM0, upper half (bits 4 and 5): reads and writes of 0xf0000 to 0xfffff go to RAM.
const PAM0_RAM: u8 = 0x30;

impl Chipset {
    /// The chipset of this host. A microvm is known by its files, and not asked.
    pub fn of_host(ports: &mut impl Ports, fw_cfg: &FwCfg) -> Self {
        if is_microvm(fw_cfg) { Self::Microvm } else { Self::detect(ports, fw_cfg.host_kind()) }
    }

    /// Reads the host bridge's numbers, and where the host is not QEMU those of the ISA bridge too: crosvm gives its host
    /// bridge the numbers of the 440FX, with nothing of a PC behind it.
    pub fn detect(ports: &mut impl Ports, host: HostKind) -> Self {
        let mut config = PortConfig::new(ports);
        let id = config.read32(HOST_BRIDGE, ID);
        let (chipset, isa_bridge, isa_id) = match id {
            ID_I440FX => (Self::I440fx, pc::ISA, pc::ISA_ID),
            ID_Q35 => (Self::Q35, q35::LPC, q35::LPC_ID),
            // Absent ports read as all ones, on crosvm and others as zero.
            u32::MAX | 0 => return Self::None,
            other => return Self::Other(other),
        };
        if host.is_qemu() || config.read32(isa_bridge, ID) == isa_id { chipset } else { Self::Other(id) }
    }

    /// Whether it is one that the firmware programs.
    const fn is_known(self) -> bool {
        matches!(self, Self::I440fx | Self::Q35)
    }

    /// Sets the chipset's own registers: power management and ACPI, interrupt routing, the memory-mapped configuration
    /// space. RAM below 4 GiB ends at `low_ram_end`. Where the host is not QEMU, a part that another may lack is looked for
    /// first.
    ///
    /// Gives the window of memory-mapped configuration space if it is open now.
    pub fn program<M: Ports + Memory>(
        self,
        machine: &mut M,
        low_ram_end: PhysAddr,
        host: HostKind,
    ) -> Option<EcamWindow> {
        match self {
            Self::I440fx => {
                pc::program(machine, host);
                None
            }
            Self::Q35 => q35::program(machine, low_ram_end, host),
            Self::Microvm | Self::Other(_) | Self::None => None,
        }
    }

    /// Makes 0xf0000 to 0xfffff RAM that can be read and written, where an operating system looks for the SMBIOS anchor
    /// and the RSDP. Gives whether it is.
    ///
    /// The host rebuilds its memory map for this, which is the dearest single thing that firmware asks for: it is done
    /// once, and only for a guest that has tables to find there. Through the window `ecam`, if there is one, it takes one
    /// access and not two.
    pub fn open_f_segment<M: Ports + Memory>(self, machine: &mut M, ecam: Option<EcamWindow>) -> bool {
        let pam0 = match self {
            Self::I440fx => pc::PAM0,
            Self::Q35 => q35::PAM0,
            Self::Microvm | Self::Other(_) | Self::None => return false,
        };
        match ecam {
            Some(window) => window.with(machine, |config| config.write8(HOST_BRIDGE, pam0, PAM0_RAM)),
            None => PortConfig::new(machine).write8(HOST_BRIDGE, pam0, PAM0_RAM),
        }
        true
    }

    /// The I/O ports and the memory below 4 GiB that PCI functions may have. RAM below 4 GiB ends at
    /// `low_ram_end`.
    #[must_use]
    pub fn low_windows(self, low_ram_end: PhysAddr) -> Option<(PortRange, PhysRange)> {
        match self {
            Self::I440fx => pc::windows(low_ram_end),
            Self::Q35 => q35::windows(low_ram_end),
            Self::Microvm | Self::Other(_) | Self::None => None,
        }
    }

    /// The I/O ports that PCI functions may have when the others do not suffice.
    #[must_use]
    pub const fn more_ports(self) -> PortRange {
        match self {
            Self::I440fx => pc::MORE_PORTS,
            Self::Q35 => q35::MORE_PORTS,
            Self::Microvm | Self::Other(_) | Self::None => PortRange::NONE,
        }
    }

    /// The interrupt of `pin` of a device on bus 0, as the routing registers have it.
    #[must_use]
    pub fn interrupt(self, device: u8, pin: Pin) -> Option<u8> {
        match self {
            Self::I440fx => Some(pc::interrupt(device, pin)),
            Self::Q35 => Some(q35::interrupt(device, pin)),
            Self::Microvm | Self::Other(_) | Self::None => None,
        }
    }

    /// The chipset's own functions on bus 0, which every machine of its kind has.
    #[must_use]
    pub fn board(self, host: HostKind) -> Board<'static> {
        let (isa_bridge, functions): (_, &[OwnFunction]) = match self {
            Self::I440fx => (Some(pc::ISA), &pc::FUNCTIONS),
            Self::Q35 => (Some(q35::LPC), &q35::FUNCTIONS),
            Self::Microvm | Self::Other(_) | Self::None => (None, &[]),
        };
        Board { host_bridge: Some(HOST_BRIDGE), isa_bridge, functions, is_qemu: host.is_qemu() }
    }

    /// Configures PCI: through the memory-mapped window if one is open, which takes one access where the ports take
    /// two. On QEMU it is known what the chipset's own functions are like.
    pub fn configure_pci<M: Ports + Memory>(
        self,
        machine: &mut M,
        ecam: Option<EcamWindow>,
        extra_roots: u64,
        near: Near,
        windows: &dyn Fn() -> Windows,
        host: HostKind,
    ) -> Summary {
        let route = |device, pin| self.interrupt(device, pin);
        let board = self.board(host);
        let configure =
            |config: &mut dyn ConfigSpace| pci::configure(config, extra_roots, board, near, windows, &route);
        match ecam {
            Some(window) => window.with(machine, configure),
            None => configure(&mut PortConfig::new(machine)),
        }
    }
}

/// Marks interrupts 10 and 11 as level-triggered, as PCI interrupts are.
fn set_level_triggered(ports: &mut impl Ports) {
    ports.out8(ELCR2, ELCR2_LEVEL_10_11);
}

/// Index into [`PIRQ_INTERRUPTS`] of a pin (0 for A) that the board rotates by `device`.
const fn rotated(device: u8, pin: u8) -> u8 {
    let [a, b, c, d] = PIRQ_INTERRUPTS;
    match device.wrapping_add(pin) & 3 {
        0 => a,
        1 => b,
        2 => c,
        _ => d,
    }
}

/// The function on bus 0. Only for the constants here, whose numbers exist.
const fn address(device: u8, function: u8) -> Address {
    constant(Address::new(0, device, function))
}
