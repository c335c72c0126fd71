//! The host's boot order.
//!
//! Input: the bytes of the file.

use firstlight::efi::boot_manager::boot_order::{BootOrder, Drive, Location, Place};

use crate::input::Input;

/// Reads the order. Each place, written as QEMU writes it, is the same place; an order has no more places than lines, and only a
/// line `HALT` makes it strict.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let bytes = Input::new(bytes).rest();
    let order = BootOrder::parse(bytes);
    let lines: Vec<_> = bytes.split(|&byte| byte == b'\n' || byte == 0).filter(|line| !line.is_empty()).collect();
    assert!(order.places.len() <= lines.len());
    assert!(!order.is_strict || lines.contains(&&b"HALT"[..]));
    for place in order.places.iter().flatten() {
        let line = written(place);
        assert_eq!(Place::parse(line.as_bytes()).as_ref(), Some(place), "{line}");
    }
}

/// The line for a place.
fn written(place: &Place) -> String {
    let controller = match &place.controller {
        Location::VirtioMmio(at) => format!("/virtio-mmio@{at:016x}"),
        Location::Pci { root, steps } => {
            let root = if *root == 0 { String::new() } else { format!(",{root:x}") };
            let (last, bridges) = steps.split_last().expect("a function");
            let unit = |(device, function): (u8, u8)| {
                if function == 0 { format!("{device:x}") } else { format!("{device:x},{function:x}") }
            };
            let bridges: String = bridges.iter().map(|step| format!("/pci-bridge@{}", unit(*step))).collect();
            format!("/pci@i0cf8{root}{bridges}/scsi@{}", unit(*last))
        }
    };
    let drive = match place.drive {
        Drive::Only => "disk@0,0".into(),
        Drive::Scsi { target, lun } => format!("channel@0/disk@{target:x},{lun:x}"),
        Drive::Namespace(number) => format!("namespace@{number:x},0"),
        Drive::AnyNamespace => "nvme-nsbootindex".into(),
        Drive::Ata { port, disk } => format!("drive@{port:x}/disk@{disk:x}"),
    };
    format!("{controller}/{drive}")
}

/// Lines of QEMU.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let seeds: [&[u8]; 4] = [
        b"/rom@genroms/linuxboot_dma.bin\n/pci@i0cf8/scsi@1/disk@0,0\n/pci@i0cf8/ethernet@2/ethernet-phy@0\nHALT\0",
        b"/pci@i0cf8/pci-bridge@1/scsi@0/channel@0/disk@2,3\n/pci@i0cf8,1/pci-bridge@0/scsi@0/disk@0,0\0",
        b"/pci@i0cf8/pci8086,2922@1f,2/drive@2/disk@0\n/pci@i0cf8/ide@1,1/drive@0/disk@1\n/virtio-mmio@00000000feb02e00/disk@0,0\0",
        b"/pci@i0cf8/pci1b36,0010@1/namespace@1,0\n/pci@i0cf8/pci1b36,0010@1/nvme-nsbootindex\n/pci@ffffffffffffffff/scsi@1/disk@0,0\0",
    ];
    seeds.map(<[u8]>::to_vec).to_vec()
}
