//! The host's boot order: the fw_cfg file `bootorder`, which QEMU makes of the `bootindex` of devices.
//!
//! Each line is a path in the style of Open Firmware: the bus, the bridges and the function of a PCI device or the address of a
//! virtio device in memory, and the drive behind it. A last line `HALT` (QEMU `-boot strict=on`) says that nothing else is tried.
//! A line that names no disk, such as a network card's, is passed over. So is `/rom@genroms/linuxboot_dma.bin`, which stands for
//! QEMU's `-kernel`: a boot with a kernel has no boot order.
//!
//! Numbers are hexadecimal. Sources: QEMU `hw/core/qdev-fw.c` and `system/bootdevice.c`, the functions `get_fw_dev_path` and
//! `ofw_unit_address` of buses (`hw/pci/pci.c`, `hw/pci-bridge/pci_expander_bridge.c`, `hw/scsi/scsi-bus.c`, `hw/ide/qdev.c`), and
//! `hw/nvme/ctrl.c`.
//!
//! Left out: disks for which the firmware has no driver. They have a place in the order, and no controller is at it.

use alloc::vec::Vec;

use arrayvec::ArrayVec;

use crate::disk::{UnitAddress, controllers};
use crate::fw_cfg::FwCfg;
use crate::hal::HostAccess;
use crate::heap;
use crate::pci::{MOST_STEPS, Route};

/// The file.
const FILE: &str = "bootorder";
/// The most bytes of the file that are read. A line has some 60.
const MOST_BYTES: u32 = 16 << 10;
/// The most lines that count.
const MOST_LINES: usize = 256;
/// The line after which nothing is tried.
const HALT: &[u8] = b"HALT";

/// The order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootOrder {
    /// The places in their order; `None` for a line that names no disk.
    pub places: Vec<Option<Place>>,
    /// Whether nothing is tried that has no line.
    pub is_strict: bool,
}

/// The place of a drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its controller.
    pub controller: Location,
    /// Which of the controller's drives it is.
    pub drive: Drive,
}

/// The place of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A PCI function.
    Pci {
        /// How many roots come before its own: 0 for that of bus 0, and the others by their bus numbers.
        root: u16,
        /// Device and function of the bridges from the root on, and of itself.
        steps: ArrayVec<(u8, u8), MOST_STEPS>,
    },
    /// The registers of a virtio device at this address.
    VirtioMmio(u64),
}

impl Location {
    /// Whether the controller at `place` is there.
    #[must_use]
    pub fn is(&self, place: &controllers::Place) -> bool {
        match (self, place) {
            (Self::Pci { root, steps }, controllers::Place::Pci(function)) => is_route(*root, steps, &function.route),
            (Self::VirtioMmio(at), controllers::Place::Slot(registers)) => *at == registers.start().get(),
            _ => false,
        }
    }
}

/// Whether the steps behind a root are a route.
fn is_route(root: u16, steps: &[(u8, u8)], route: &Route) -> bool {
    let steps = steps.iter().copied();
    let found = route.steps().map(|step| (step.device(), step.function()));
    root == u16::from(route.root_index) && found.eq(steps)
}

/// A drive of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// The only one.
    Only,
    /// A target and its logical unit.
    Scsi {
        /// The target.
        target: u16,
        /// The logical unit.
        lun: u16,
    },
    /// A namespace.
    Namespace(u32),
    /// Any namespace: QEMU 7 does not say which.
    AnyNamespace,
    /// A port of AHCI or a channel of IDE, and the disk at it.
    Ata {
        /// The port or the channel.
        port: u8,
        /// The disk.
        disk: u8,
    },
}

impl Drive {
    /// Whether it is this unit of its controller.
    #[must_use]
    pub fn is(self, unit: UnitAddress) -> bool {
        match (self, unit) {
            (Self::Only, UnitAddress::Only) | (Self::AnyNamespace, UnitAddress::Namespace { .. }) => true,
            (Self::Scsi { target, lun }, UnitAddress::Scsi { target: of_unit, lun: lun_of_unit }) => {
                (target, lun) == (of_unit, lun_of_unit)
            }
            // The path has no identifier but for the number: QEMU writes a zero for it.
            (Self::Namespace(number), UnitAddress::Namespace { id, .. }) => number == id,
            (Self::Ata { port, disk: 0 }, UnitAddress::Port(of_unit)) => port == of_unit,
            _ => false,
        }
    }
}

impl BootOrder {
    /// The host's order; the default without one.
    #[cold]
    pub fn of_host(machine: &mut impl HostAccess, fw_cfg: &FwCfg) -> Self {
        let Some(item) = fw_cfg.find(FILE) else { return Self::default() };
        match fw_cfg.read_all(machine, item, MOST_BYTES) {
            Ok(bytes) => Self::parse(&bytes),
            Err(error) => {
                // It may say that nothing else is to be tried.
                crate::warn!("no disk is tried, because the host's boot order cannot be read: {error}");
                Self { is_strict: true, ..Self::default() }
            }
        }
    }

    /// The order in the bytes of the file.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let lines = bytes.split(|&byte| byte == b'\n' || byte == 0).filter(|line| !line.is_empty());
        // QEMU writes it last, behind lines that there may be no room for.
        let is_strict = lines.clone().any(|line| line == HALT);
        let mut order = Self { is_strict, ..Self::default() };
        for line in lines.filter(|&line| line != HALT) {
            let is_full = order.places.len() == MOST_LINES;
            if is_full || heap::push(&mut order.places, Place::parse(line)).is_err() {
                crate::warn!("the host's boot order is cut after {} lines", order.places.len());
                break;
            }
        }
        order
    }
}

impl Place {
    /// The place that a line names.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut nodes = Nodes(line);
        let (name, unit) = nodes.next()?;
        let controller = match name {
            b"pci" => {
                let root = second(unit).map_or(Some(0), hex)?;
                let mut steps = ArrayVec::new();
                loop {
                    let (name, unit) = nodes.next()?;
                    steps.try_push(function(unit)?).ok()?;
                    if name != b"pci-bridge" {
                        break;
                    }
                }
                Location::Pci { root: root.try_into().ok()?, steps }
            }
            b"virtio-mmio" => Location::VirtioMmio(hex(unit)?),
            _ => return None,
        };
        let drive = drive(nodes)?;
        Some(Self { controller, drive })
    }
}

/// The drive at the end of a path.
fn drive(mut nodes: Nodes<'_>) -> Option<Drive> {
    let (name, unit) = nodes.next()?;
    let behind = nodes.next();
    if nodes.next().is_some() {
        return None;
    }
    match (name, behind) {
        (b"disk", None) => (unit == b"0,0").then_some(Drive::Only),
        // The only channel of a SCSI controller that has one.
        (b"channel", Some((_, address))) if unit == b"0" => {
            let (target, lun) = pair(address)?;
            Some(Drive::Scsi { target: hex(target)?.try_into().ok()?, lun: hex(lun)?.try_into().ok()? })
        }
        (b"drive", Some((b"disk", disk))) => {
            Some(Drive::Ata { port: hex(unit)?.try_into().ok()?, disk: hex(disk)?.try_into().ok()? })
        }
        (b"namespace", None) => {
            let (number, _) = pair(unit)?;
            hex(number)?.try_into().ok().map(Drive::Namespace)
        }
        (b"nvme-nsbootindex", None) => Some(Drive::AnyNamespace),
        _ => None,
    }
}

/// The nodes of a path: `/name@unit/name@unit`. The unit is empty if there is none.
struct Nodes<'a>(&'a [u8]);

impl<'a> Iterator for Nodes<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.strip_prefix(b"/")?;
        let (node, rest) = rest.split_at_checked(rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len()))?;
        self.0 = rest;
        let name_len = node.iter().position(|&byte| byte == b'@').unwrap_or(node.len());
        let (name, unit) = node.split_at_checked(name_len)?;
        Some((name, unit.strip_prefix(b"@").unwrap_or_default()))
    }
}

/// The two parts of `a,b`.
#[inline(never)]
fn pair(unit: &[u8]) -> Option<(&[u8], &[u8])> {
    let (first, rest) = unit.split_at_checked(unit.iter().position(|&byte| byte == b',')?)?;
    Some((first, rest.strip_prefix(b",")?))
}

/// What follows the comma, if there is one.
fn second(unit: &[u8]) -> Option<&[u8]> {
    pair(unit).map(|(_, second)| second)
}

/// A PCI device and its function: `device` or `device,function`.
fn function(unit: &[u8]) -> Option<(u8, u8)> {
    let (device, function) = pair(unit).unwrap_or((unit, b"0"));
    let (device, function) = (hex(device)?, hex(function)?);
    (device < 32 && function < 8).then_some((device as u8, function as u8))
}

/// A hexadecimal number.
#[inline(never)]
fn hex(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        number.checked_mul(16)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::addr::{PhysAddr, PhysRange};
    use crate::pci::Address;

    fn pci(root: u16, steps: &[(u8, u8)], drive: Drive) -> Option<Place> {
        let steps = steps.iter().copied().collect();
        Some(Place { controller: Location::Pci { root, steps }, drive })
    }

    #[test]
    fn an_order_that_is_too_long_is_as_strict_as_it_says() {
        let lines = vec!["/pci@i0cf8/scsi@1/disk@0,0\n"; MOST_LINES + 40].concat();
        assert!(!BootOrder::parse(lines.as_bytes()).is_strict);
        let order = BootOrder::parse((lines + "HALT\0").as_bytes());
        assert_eq!((order.is_strict, order.places.len()), (true, MOST_LINES));
    }

    /// Lines of QEMU 7.2 and 10.0.
    #[test]
    fn a_line_names_a_controller_and_a_drive() {
        let scsi = |target, lun| Drive::Scsi { target, lun };
        let ata = |port, disk| Drive::Ata { port, disk };
        let mmio = Place { controller: Location::VirtioMmio(0xfeb0_2e00), drive: Drive::Only };
        for (line, place) in [
            // Virtio block devices on q35's bus, on pc's, and behind bridges.
            ("/pci@i0cf8/scsi@1/disk@0,0", pci(0, &[(1, 0)], Drive::Only)),
            ("/pci@i0cf8/scsi@2/disk@0,0", pci(0, &[(2, 0)], Drive::Only)),
            ("/pci@i0cf8/scsi@1e,7/disk@0,0", pci(0, &[(0x1e, 7)], Drive::Only)),
            ("/pci@i0cf8/pci-bridge@1/scsi@0/disk@0,0", pci(0, &[(1, 0), (0, 0)], Drive::Only)),
            ("/pci@i0cf8/pci-bridge@2/scsi@3/disk@0,0", pci(0, &[(2, 0), (3, 0)], Drive::Only)),
            ("/pci@i0cf8/pci-bridge@2,1/pci-bridge@0/scsi@3/disk@0,0", pci(0, &[(2, 1), (0, 0), (3, 0)], Drive::Only)),
            // Behind another root.
            ("/pci@i0cf8,1/pci-bridge@0/scsi@0/disk@0,0", pci(1, &[(0, 0), (0, 0)], Drive::Only)),
            ("/pci@i0cf8,a/scsi@0/disk@0,0", pci(10, &[(0, 0)], Drive::Only)),
            // On microvm.
            ("/virtio-mmio@00000000feb02e00/disk@0,0", Some(mmio)),
            ("/pci@ffffffffffffffff/scsi@1/disk@0,0", pci(0, &[(1, 0)], Drive::Only)),
            // SCSI disks and CDs, of virtio and of others.
            ("/pci@i0cf8/scsi@1/channel@0/disk@2,3", pci(0, &[(1, 0)], scsi(2, 3))),
            ("/pci@i0cf8/scsi@1/channel@0/disk@ff,4000", pci(0, &[(1, 0)], scsi(0xff, 0x4000))),
            ("/pci@i0cf8/scsi@1/channel@1/disk@2,3", None),
            // NVMe, and its namespaces as devices of their own: QEMU 7.2 and 10.0.
            ("/pci@i0cf8/pci1b36,0010@1/namespace@1,0", pci(0, &[(1, 0)], Drive::Namespace(1))),
            ("/pci@i0cf8/pci1b36,0010@1/nvme-nsbootindex", pci(0, &[(1, 0)], Drive::AnyNamespace)),
            ("/nvme-nsbootindex", None),
            // AHCI and IDE.
            ("/pci@i0cf8/pci8086,2922@1f,2/drive@2/disk@0", pci(0, &[(0x1f, 2)], ata(2, 0))),
            ("/pci@i0cf8/ide@1,1/drive@0/disk@1", pci(0, &[(1, 1)], ata(0, 1))),
            // No disks, or none that the firmware has a driver for.
            ("/pci@i0cf8/usb@1/storage@1/channel@0/disk@0,0", None),
            ("/pci@i0cf8/ethernet@2/ethernet-phy@0", None),
            ("/pci@i0cf8/isa@1/fdc@03f0/floppy@0", None),
            ("/rom@genroms/linuxboot_dma.bin", None),
        ] {
            assert_eq!(Place::parse(line.as_bytes()), place, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_path_names_nothing() {
        for line in [
            "",
            "/",
            "pci@i0cf8/scsi@1/disk@0,0",
            "/pci@i0cf8",
            "/pci@i0cf8/scsi@1",
            "/pci@i0cf8/scsi@/disk@0,0",
            "/pci@i0cf8/scsi@20/disk@0,0",
            "/pci@i0cf8/scsi@1,8/disk@0,0",
            "/pci@i0cf8/scsi@-1/disk@0,0",
            "/pci@i0cf8/scsi@+1/disk@0,0",
            "/pci@i0cf8/scsi@1/disk@0,0/",
            "/pci@i0cf8/scsi@1/disk@1,0",
            "/pci@i0cf8,10000/scsi@1/disk@0,0",
            "/pci@i0cf8,/scsi@1/disk@0,0",
            "/pci@i0cf8/scsi@1/channel@0/disk@10000,0",
            "/virtio-mmio@10000000000000000/disk@0,0",
            "/virtio-mmio/disk@0,0",
            "/pci@i0cf8/pci1b36,0010@1/namespace@1",
        ] {
            assert_eq!(Place::parse(line.as_bytes()), None, "{line}");
        }
        let bridges = "/pci-bridge@1".repeat(MOST_STEPS);
        assert_eq!(Place::parse(std::format!("/pci@i0cf8{bridges}/scsi@1/disk@0,0").as_bytes()), None);
    }

    #[test]
    fn an_order_has_its_lines_and_may_be_strict() {
        let first = pci(0, &[(1, 0)], Drive::Only);
        for (text, places, is_strict) in [
            ("", vec![], false),
            ("\0", vec![], false),
            ("/pci@i0cf8/scsi@1/disk@0,0\0", vec![first.clone()], false),
            ("/pci@i0cf8/scsi@1/disk@0,0\n/nothing\nHALT\0", vec![first.clone(), None], true),
            ("HALT", vec![], true),
            ("HALT \n", vec![None], false),
        ] {
            assert_eq!(BootOrder::parse(text.as_bytes()), BootOrder { places, is_strict }, "{text:?}");
        }
    }

    #[test]
    fn an_order_without_an_end_is_cut() {
        let long = "/a\n".repeat(MOST_LINES + 10);
        assert_eq!(BootOrder::parse(long.as_bytes()).places.len(), MOST_LINES);
    }

    #[test]
    fn a_drive_is_the_unit_with_its_address() {
        let namespace = |id| UnitAddress::Namespace { id, eui64: [1; 8] };
        let scsi = |target, lun| UnitAddress::Scsi { target, lun };
        for (drive, unit, is) in [
            (Drive::Only, UnitAddress::Only, true),
            (Drive::Only, UnitAddress::Port(0), false),
            (Drive::Scsi { target: 2, lun: 3 }, scsi(2, 3), true),
            (Drive::Scsi { target: 2, lun: 3 }, scsi(3, 2), false),
            (Drive::Namespace(1), namespace(1), true),
            (Drive::Namespace(1), namespace(2), false),
            (Drive::AnyNamespace, namespace(2), true),
            (Drive::AnyNamespace, UnitAddress::Only, false),
            (Drive::Ata { port: 2, disk: 0 }, UnitAddress::Port(2), true),
            (Drive::Ata { port: 2, disk: 0 }, UnitAddress::Port(0), false),
            // AHCI has one disk at a port.
            (Drive::Ata { port: 2, disk: 1 }, UnitAddress::Port(2), false),
        ] {
            assert_eq!(drive.is(unit), is, "{drive:?} {unit:?}");
        }
    }

    #[test]
    fn a_slot_is_named_by_the_address_of_its_registers() {
        let registers = |at| controllers::Place::Slot(PhysRange::new(PhysAddr::new(at), 0x200).unwrap());
        let location = Location::VirtioMmio(0xfeb0_2e00);
        assert!(location.is(&registers(0xfeb0_2e00)) && !location.is(&registers(0xfeb0_2c00)));
        assert!(!Location::Pci { root: 0, steps: ArrayVec::new() }.is(&registers(0xfeb0_2e00)));
    }

    #[test]
    fn a_function_is_named_by_its_root_its_bridges_and_itself() {
        let route = |device| Route::of(0, 0, &[Address::new(0, device, 1).unwrap()]);
        let steps = |steps: &[(u8, u8)]| steps.iter().copied().collect::<ArrayVec<_, MOST_STEPS>>();
        for (root, list, is) in [
            (0, &[(3, 1)][..], true),
            (1, &[(3, 1)], false),
            (0, &[(3, 0)], false),
            (0, &[(3, 1), (3, 1)], false),
            (0, &[], false),
        ] {
            assert_eq!(is_route(root, &steps(list), &route(3)), is, "{root} {list:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_order(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let order = BootOrder::parse(&bytes);
            prop_assert!(order.places.len() <= bytes.len());
        }
    }
}
