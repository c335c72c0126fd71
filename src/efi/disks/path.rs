//! The nodes of device paths for controllers and the disks behind them, as OVMF has them.

use uefi_raw::{Guid, guid};

use crate::disk::UnitAddress;
use crate::disk::controllers::{Candidate, Place};
use crate::disk::partition::{Partition, Scheme};
use crate::efi::device_path::text::PCI_ROOT;
use crate::efi::device_path::{
    ACPI, ACPI_DEVICE, HARDWARE, HARDWARE_PCI, HARDWARE_VENDOR, MEDIA, MEDIA_CD_ROM, MEDIA_HARD_DRIVE, MESSAGING,
    MESSAGING_NVME, MESSAGING_SATA, MESSAGING_SCSI, PathBuilder,
};
use crate::heap::HeapFull;

/// The vendor of a virtio device in memory, whose address follows (edk2 `OvmfPkg/Include/Library/VirtioMmioDeviceLib.h`, the
/// device path of `ArmVirtPkg` and of OVMF's `MicrovmX64`).
const VIRTIO_MMIO: Guid = guid!("837dca9e-e874-4d82-b29a-23fe0e23d1e2");

/// A port of a SATA controller itself, not of a multiplier (UEFI 10.3.4.6).
const NO_MULTIPLIER: u16 = 0xffff;

/// The nodes of a controller.
///
/// # Errors
/// [`HeapFull`].
pub fn controller_nodes(candidate: &Candidate) -> Result<PathBuilder, HeapFull> {
    let mut path = PathBuilder::new();
    match &candidate.place {
        Place::Pci(function) => {
            let root = u32::from(function.route.root);
            path = path.node(ACPI, ACPI_DEVICE, &[&PCI_ROOT.to_le_bytes(), &root.to_le_bytes()])?;
            for step in function.route.steps() {
                path = path.node(HARDWARE, HARDWARE_PCI, &[&[step.function(), step.device()]])?;
            }
            Ok(path)
        }
        Place::Slot(registers) => {
            let address = registers.start().get().to_le_bytes();
            path.node(HARDWARE, HARDWARE_VENDOR, &[&VIRTIO_MMIO.to_bytes(), &address])
        }
    }
}

/// The path of a controller with the node of a disk or drive behind it. A virtio block device is its disk.
///
/// # Errors
/// [`HeapFull`].
pub fn unit_node(path: PathBuilder, unit: UnitAddress) -> Result<PathBuilder, HeapFull> {
    match unit {
        UnitAddress::Only => Ok(path),
        UnitAddress::Scsi { target, lun } => {
            path.node(MESSAGING, MESSAGING_SCSI, &[&target.to_le_bytes(), &lun.to_le_bytes()])
        }
        UnitAddress::Namespace { id, eui64 } => path.node(MESSAGING, MESSAGING_NVME, &[&id.to_le_bytes(), &eui64]),
        UnitAddress::Port(port) => {
            let words = [port.into(), NO_MULTIPLIER, 0].map(u16::to_le_bytes);
            path.node(MESSAGING, MESSAGING_SATA, &[words.as_flattened()])
        }
    }
}

/// How a table of partitions is made, and how it names them (UEFI 10.3.5.1).
const MBR: u8 = 1;
const GPT: u8 = 2;

/// The path of a disk, or of an extended partition, with the node of a partition on it.
///
/// # Errors
/// [`HeapFull`].
pub fn partition_node(path: PathBuilder, partition: &Partition) -> Result<PathBuilder, HeapFull> {
    let [start, len] = [partition.extent.first, partition.extent.blocks].map(u64::to_le_bytes);
    let (number, signature, kind) = match partition.scheme {
        Scheme::Gpt { number, unique, .. } => (number, unique.to_bytes(), GPT),
        Scheme::Mbr { number, signature, .. } => {
            let [a, b, c, d] = signature.to_le_bytes();
            (number, [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], MBR)
        }
        Scheme::ElTorito { entry, .. } => {
            return path.node(MEDIA, MEDIA_CD_ROM, &[&entry.to_le_bytes(), &start, &len]);
        }
    };
    path.node(MEDIA, MEDIA_HARD_DRIVE, &[&number.to_le_bytes(), &start, &len, &signature, &[kind, kind]])
}
