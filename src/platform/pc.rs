//! pc: the 440FX host bridge, the PIIX3, and the power management of the PIIX4.

use super::board::{Board, Chipset, ID};
use super::isa::IsaDevices;
use super::{pirq, power};
use crate::addr::{PhysAddr, PhysRange, constant};
use crate::cpus;
use crate::fw_cfg::HostKind;
use crate::pci::{Address, Bar, BarKind, ChipsetFunction, ConfigSpace, Pin, PortRange};

/// The ISA bridge.
const ISA: Address = constant(Address::new(0, 1, 0));
/// ISA bridge: routes of PIRQA to PIRQD (82371AB data sheet, 4.1.10, PIRQRCA to PIRQRCD).
const PIRQ_A: u8 = 0x60;

/// The IDE controller.
const IDE: Address = constant(Address::new(0, 1, 1));
/// Its vendor and device: the PIIX3's.
const IDE_ID: u32 = 0x7010_8086;
/// IDE: timing of both channels (82371AB, 5.2.3, IDETIM). Bit 15 of each half enables the channel's decoding; without it, a
/// driver considers the channel disabled.
const IDE_TIMING: u8 = 0x40;
const IDE_TIMING_DECODE: u32 = 0x8000_8000;

/// Power management.
const PM: Address = constant(Address::new(0, 1, 3));
/// Its vendor and device: the PIIX4's.
const PM_ID: u32 = 0x7113_8086;

/// The functions that every `pc` has in addition to the host bridge and the ISA bridge, all on the PIIX. IDE has its channels at
/// their legacy ports, and a BAR for its bus master (82371AB data sheet, BMIBA). Power management has no BAR, and its pin is the
/// SCI (QEMU `hw/ide/piix.c` and `hw/acpi/piix4.c`).
static FUNCTIONS: [ChipsetFunction; 2] = [
    ChipsetFunction {
        address: IDE,
        id: IDE_ID,
        class: 0x01_0180,
        pin: None,
        bars: &[Bar { register: 4, kind: BarKind::Io, order: 4 }],
    },
    ChipsetFunction { address: PM, id: PM_ID, class: 0x06_8000, pin: Some(Pin::A), bars: &[] },
];

/// Power management: base of its registers (82371AB, 7.2.1, PMBA).
const PMBA: u8 = 0x40;
/// Power management: bit 0 enables the registers at PMBA (82371AB, 7.2.6, PMREGMISC).
const PMREGMISC: u8 = 0x80;
const PMREGMISC_ENABLE: u8 = 1;
/// The interrupt of power management, the SCI: wired to this input, unlike the pins, which are routed.
const SCI: u8 = 9;

/// The lowest starts of PCI memory below 4 GiB, depending on the end of RAM. It ends at the I/O APIC.
const MEMORY_STARTS: [u64; 2] = [0x8000_0000, 0xc000_0000];
const MEMORY_END: u64 = 0xfec0_0000;

/// The chipset.
static CHIPSET: Chipset = Chipset {
    host_bridge_id: 0x1237_8086,
    isa_bridge: ISA,
    // The PIIX3.
    isa_bridge_id: 0x7000_8086,
    functions: &FUNCTIONS,
    // 82441FX data sheet, 3.2.15.
    pam0: 0x59,
    // Above the ports of QEMU's hot-plug controllers (0xae00 to 0xafff) and of the PIIX4's SMBus, which begin at 0xb100 after a
    // reset.
    ports: constant(PortRange::new(0xc000, 0x1_0000)),
    // The ports between the mainboard's and the hot-plug controllers'.
    more_ports: constant(PortRange::new(0x1000, 0xa000)),
};

/// QEMU's `pc`, and VirtualBox.
pub struct Pc;

impl Board for Pc {
    fn name(&self) -> &'static str {
        "440FX and PIIX (pc)"
    }

    fn isa_devices(&self) -> IsaDevices {
        IsaDevices::OF_CHIPSET
    }

    fn chipset(&self) -> Option<&'static Chipset> {
        Some(&CHIPSET)
    }

    /// If the host is not QEMU, checks first for power management: VirtualBox has it at another address.
    fn program(&self, config: &mut dyn ConfigSpace, host: HostKind) {
        config.write32(ISA, PIRQ_A, pirq::ROUTES);
        config.write32(IDE, IDE_TIMING, IDE_TIMING_DECODE);
        if host.is_qemu() || config.read32(PM, ID) == PM_ID {
            // Without these two writes the guest has no ACPI: no power-off, no interrupt routing, no hot-plug.
            config.write32(PM, PMBA, power::BASE);
            config.write8(PM, PMREGMISC, PMREGMISC_ENABLE);
        }
    }

    fn pci_memory(&self, low_ram_end: PhysAddr) -> Option<PhysRange> {
        let start = MEMORY_STARTS.into_iter().map(PhysAddr::new).find(|&start| low_ram_end <= start);
        PhysRange::from_bounds(start.unwrap_or(cpus::devices_from(low_ram_end)), PhysAddr::new(MEMORY_END))
    }

    /// The board rotates the pins. Device 1 pin A would be PIRQA, but that device is the PIIX, of which only power management has
    /// pin A.
    fn interrupt(&self, device: u8, pin: Pin) -> Option<u8> {
        let is_sci = device == PM.device() && pin == Pin::A;
        Some(if is_sci { SCI } else { pirq::rotated(device.wrapping_sub(1), pin.index()) })
    }
}
