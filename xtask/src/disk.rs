//! A disk image for a guest: its format, the bus that the disk is on, and QEMU's options for it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::qemu;

/// The first bytes of the formats other than raw, with QEMU's names for them (QEMU, `block/*.c`).
const FORMATS: [(&[u8], &str); 5] =
    [(b"QFI\xfb", "qcow2"), (b"KDMV", "vmdk"), (b"vhdxfile", "vhdx"), (b"conectix", "vpc"), (b"<<< ", "vdi")];

/// The length of a disk's block, in bytes. No image of a disk is shorter, in whatever format.
const BLOCK: u64 = 512;

/// The end of the name of a CD's image.
const CD: &str = "iso";

/// The format that can name other files, and how the name of such an image ends.
const QCOW2: &str = "qcow2";
/// Where a qcow2 image has the place of its backing file's name, and its features; the bit for a file that has its data (QEMU,
/// `docs/interop/qcow2.txt`).
const BACKING_FILE: usize = 8;
const INCOMPATIBLE_FEATURES: usize = 72;
const DATA_FILE: u64 = 1 << 2;

/// The bus of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Bus {
    /// virtio-blk: on PCI, or in a slot of a microvm
    Virtio,
    /// NVMe
    Nvme,
    /// SATA: q35's own AHCI controller, or one of its own
    Ahci,
    /// virtio-scsi
    Scsi,
}

/// A disk that a guest boots from.
#[derive(Debug, Clone)]
pub struct Disk {
    file: PathBuf,
    format: &'static str,
    bus: Bus,
    /// Whether it is a CD, in a drive if the bus has CD drives.
    is_cd: bool,
    /// Whether the guest's writes go to the file.
    is_writable: bool,
}

impl Disk {
    /// Looks at a disk image. It is a CD's if its name ends with ".iso". Without a bus, a disk is on virtio-blk, and a CD on SATA
    /// on q35 and on virtio-scsi elsewhere.
    ///
    /// # Errors
    /// If there is no such file, or it has another format than raw and qcow2; if the machine does not have the bus.
    pub fn of_file(path: &Path, bus: Option<Bus>, machine: &str) -> anyhow::Result<Self> {
        let file = File::open(path)?;
        ensure!(file.metadata()?.is_file(), "not a regular file");
        let mut first = [0; 80];
        ensure!(file.metadata()?.len() >= BLOCK, "it has {} bytes, less than a disk's block", file.metadata()?.len());
        file.read_exact_at(&mut first, 0).context("cannot read it")?;
        let format = FORMATS.into_iter().find(|(magic, _)| first.starts_with(magic)).map_or("raw", |(_, name)| name);
        if !["raw", QCOW2].contains(&format) {
            bail!("a {format} image; make a raw one of it: qemu-img convert -O raw {} disk.img", path.display());
        }
        let ends_with = |end: &str| path.extension().is_some_and(|of_path| of_path.eq_ignore_ascii_case(end));
        // A guest can write such an image to its raw disk, and would have another file of the user's as its disk at the next run.
        ensure!(
            format != QCOW2 || ends_with(QCOW2) || !names_another_file(&first),
            "a qcow2 image that names another file, which the guest would read or write; if this is meant, call it {}.qcow2",
            path.file_stem().unwrap_or_default().display()
        );
        let is_cd = ends_with(CD);
        let usual = match qemu::machine_type(machine) {
            _ if !is_cd => Bus::Virtio,
            "q35" => Bus::Ahci,
            _ => Bus::Scsi,
        };
        let bus = bus.unwrap_or(usual);
        match qemu::machine_type(machine) {
            "isapc" => bail!("{machine} has no PCI, and so no disk that boots"),
            "microvm"
                if matches!(bus, Bus::Nvme | Bus::Ahci)
                    && !machine.split(',').any(|property| property == "pcie=on") =>
            {
                bail!("{machine} has no PCI for the disk; use --bus virtio or scsi, or --machine microvm,pcie=on")
            }
            _ => {}
        }
        Ok(Self {
            file: std::path::absolute(path)?,
            format,
            bus,
            is_cd,
            is_writable: !is_cd && File::options().write(true).open(path).is_ok(),
        })
    }

    /// Whether the guest's writes go to the file.
    pub fn is_writable(&self) -> bool {
        self.is_writable || self.is_cd
    }

    /// The same, and what the guest writes is lost at its end.
    pub fn discarding(self) -> Self {
        Self { is_writable: false, ..self }
    }

    /// Its name for the user.
    pub fn name(&self) -> String {
        self.file.file_name().unwrap_or_default().display().to_string()
    }

    /// QEMU's options for the disk on a machine, in the form of `-machine`. It is the first in the boot order that can be: a kernel of
    /// `-kernel` has index 0.
    pub fn arguments(&self, machine: &str) -> Vec<OsString> {
        let is_microvm = qemu::machine_type(machine) == "microvm";
        let bus = if is_microvm { "device" } else { "pci" };
        let is_cd = self.is_cd && matches!(self.bus, Bus::Ahci | Bus::Scsi);
        let drive = if is_cd { "cd" } else { "hd" };
        let (controller, disk) = match self.bus {
            Bus::Virtio => (None, format!("virtio-blk-{bus}")),
            Bus::Nvme => (None, "nvme,serial=disk".to_owned()),
            Bus::Ahci if qemu::machine_type(machine) == "q35" => (None, format!("ide-{drive},bus=ide.0")),
            Bus::Ahci => (Some("ich9-ahci,id=ahci".to_owned()), format!("ide-{drive},bus=ahci.0")),
            Bus::Scsi => (Some(format!("virtio-scsi-{bus},id=scsi")), format!("scsi-{drive},bus=scsi.0")),
        };
        // Not every device can have a drive that is read-only.
        let protection = if is_cd {
            ",readonly=on"
        } else if self.is_writable {
            ""
        } else {
            ",snapshot=on"
        };
        let mut drive = OsString::from(format!("if=none,id=disk,format={}{protection},file=", self.format));
        drive.push(option_value(self.file.as_os_str()));
        let mut arguments = vec!["-drive".into(), drive];
        arguments.extend(controller.into_iter().flat_map(|device| ["-device".into(), device.into()]));
        arguments.extend(["-device".into(), format!("{disk},drive=disk,bootindex=1").into()]);
        arguments
    }
}

/// Whether a qcow2 image with this start has a backing file, or its data in another one.
fn names_another_file(first: &[u8; 80]) -> bool {
    let number =
        |at: usize| first.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |&bytes| u64::from_be_bytes(bytes));
    number(BACKING_FILE) != 0 || number(INCOMPATIBLE_FEATURES) & DATA_FILE != 0
}

/// A value in the list of an option's properties: commas are doubled.
fn option_value(text: &OsStr) -> OsString {
    let bytes = text.as_bytes().iter();
    OsString::from_vec(bytes.flat_map(|byte| std::iter::repeat_n(*byte, if *byte == b',' { 2 } else { 1 })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The options for a file of this name and contents.
    fn options(name: &str, bytes: &[u8], bus: Option<Bus>, machine: &str) -> anyhow::Result<String> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join(name);
        std::fs::write(&path, bytes)?;
        let arguments = Disk::of_file(&path, bus, machine)?.arguments(machine);
        let shown: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        Ok(shown.join(" ").replace(&*folder.path().to_string_lossy(), "/folder"))
    }

    #[test]
    fn a_disk_is_on_virtio_and_a_cd_in_a_drive() {
        let of = |name, bus, machine| options(name, &[0; 512], bus, machine).unwrap();
        assert_eq!(
            of("a,b.img", None, "q35"),
            "-drive if=none,id=disk,format=raw,file=/folder/a,,b.img -device virtio-blk-pci,drive=disk,bootindex=1"
        );
        assert!(of("a.img", None, "microvm,acpi=off").contains("virtio-blk-device"));
        assert!(of("a.ISO", None, "q35").contains("ide-cd,bus=ide.0") && of("a.iso", None, "q35").contains("readonly"));
        assert!(of("a.iso", None, "pc").contains("scsi-cd,bus=scsi.0"));
        assert!(of("a.iso", Some(Bus::Virtio), "pc").contains("snapshot=on"));
        assert!(of("a.img", Some(Bus::Ahci), "pc").contains("-device ich9-ahci,id=ahci -device ide-hd,bus=ahci.0"));
    }

    #[test]
    fn an_image_that_names_another_file_is_opened_only_if_its_name_says_so() {
        let image = |at: usize, byte| {
            let mut image = [b"QFI\xfb\0\0\0\x03".as_slice(), &[0; 512]].concat();
            image[at] = byte;
            image
        };
        // A backing file, and a data file.
        for (at, byte) in [(BACKING_FILE + 6, 1), (INCOMPATIBLE_FEATURES + 7, 4)] {
            let error = options("disk.img", &image(at, byte), None, "q35").unwrap_err().to_string();
            assert!(error.contains("disk.qcow2"), "{error}");
            assert!(options("disk.QCOW2", &image(at, byte), None, "q35").unwrap().contains("format=qcow2"));
        }
        assert!(options("disk.img", &image(INCOMPATIBLE_FEATURES + 7, 1), None, "q35").is_ok());
    }

    #[test]
    fn the_format_is_known_by_the_first_bytes() {
        let of = |magic: &[u8]| {
            options("disk", &[magic, &[0; 512]].concat(), None, "q35").map_err(|error| error.to_string())
        };
        assert!(of(b"QFI\xfb\0\0\0\x03").unwrap().contains("format=qcow2"));
        assert!(of(b"KDMV\x01\0\0\0").unwrap_err().contains("qemu-img convert"));
        assert!(of(b"<<< QEMU").unwrap_err().contains("vdi"));
        assert!(options("disk", b"", None, "q35").unwrap_err().to_string().contains("0 bytes"));
        for (machine, bus) in [("microvm", Some(Bus::Nvme)), ("microvm", Some(Bus::Ahci)), ("isapc", None)] {
            assert!(options("disk", &[0; 512], bus, machine).unwrap_err().to_string().contains("no PCI"));
        }
        assert!(options("disk", &[0; 512], Some(Bus::Nvme), "microvm,pcie=on").unwrap().contains("-device nvme"));
        assert!(Disk::of_file(Path::new("/"), None, "q35").is_err());
        assert!(Disk::of_file(Path::new("/no/such/file"), None, "q35").is_err());
    }
}
