//! The programs that end a measurement, all made from `probe.s`: the probe kernel, the base line image, and the first program in
//! user space.
//!
//! They are in the build folder under descriptive names, so that a reported command line can be repeated.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use xtask::packages;
use xtask::paths::shown;
use xtask::progress::run_quietly;

/// What `as` makes the files of.
const SOURCE: &str = include_str!("probe.s");

/// The path of the program in the initramfs. It is started by the kernel's option `rdinit=`.
pub const USER_PROGRAM: &str = "/firstlight-compare";

/// File types and permissions in a cpio archive, as in `st_mode` (POSIX, `<sys/stat.h>`).
const PROGRAM: u32 = 0o100_755;

/// The marker is the selection of a fw_cfg item that no host has: QEMU's cheap event `fw_cfg_select` then has the time.
const MARKER_BASE: u16 = 0x3f00;

/// A port that no device has. What is written there is seen in QEMU's trace alone.
pub const CLOCK_PORT: u16 = 0x508;

/// Where the tool puts `isa-debug-exit`: its usual place, 0xf4, is that of the firmware's trace points.
pub const EXIT_PORT: u16 = 0x501;

/// Bytes that the size of a bzImage is a multiple of.
const SECTOR: u64 = 512;

/// The smallest probe: all entry points.
const SMALLEST: u64 = 4608;

/// The largest: QEMU reads a kernel with a signed 32-bit size.
const LARGEST: u64 = i32::MAX as u64 / SECTOR * SECTOR;

/// Where a measurement ends. The value is written to the exit port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The kernel's 16-bit entry, in its setup code.
    Real16 = 0x10,
    /// The kernel's 32-bit entry.
    Protected32 = 0x20,
    /// The kernel's 64-bit entry.
    Long64 = 0x30,
    /// The entry that an ELF kernel's PVH note names.
    Pvh = 0x40,
    /// The entry as an EFI program.
    Efi = 0x50,
    /// The first program in user space.
    User = 0x60,
    /// The reset vector of the base line image.
    Reset = 0x70,
}

/// Every end.
const ENDS: [End; 7] = [End::Real16, End::Protected32, End::Long64, End::Pvh, End::Efi, End::User, End::Reset];

impl End {
    /// The end that a selected key of fw_cfg marks.
    pub fn of_marker(key: u16) -> Option<Self> {
        ENDS.into_iter().find(|end| MARKER_BASE | *end as u16 == key)
    }

    /// The end at which the guest ended QEMU with this exit status: twice the value, plus one (QEMU,
    /// `hw/misc/debugexit.c`).
    pub fn of_status(status: i32) -> Option<Self> {
        ENDS.into_iter().find(|end| *end as i32 * 2 + 1 == status)
    }

    /// What it is called in a report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Real16 => "16-bit",
            Self::Protected32 => "32-bit",
            Self::Long64 => "64-bit",
            Self::Pvh => "PVH",
            Self::Efi => "EFI",
            Self::User => "user space",
            Self::Reset => "reset vector",
        }
    }
}

/// The form of the probe kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// a bzImage with 16-bit, 32-bit, 64-bit and EFI entry
    Bzimage,
    /// an ELF kernel with a PVH entry
    Pvh,
}

/// Makes the files, below one folder.
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// The files below `folder`, which is made.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        packages::ensure(&packages::ASSEMBLER)?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", shown(folder)))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// The probe kernel, about `size` bytes long.
    pub fn kernel(&self, format: Format, size: u64) -> anyhow::Result<PathBuf> {
        let size = size.clamp(SMALLEST, LARGEST).next_multiple_of(SECTOR).min(LARGEST);
        let (section, name) = match format {
            Format::Bzimage => ("bzimage", format!("probe-{size}.bzimage")),
            Format::Pvh => ("pvh", format!("probe-{size}.elf")),
        };
        self.write(&name, &assembled(section, size)?, size)
    }

    /// An initrd of `size` bytes, which nothing looks into: the probe ends before.
    pub fn initrd(&self, size: u64) -> anyhow::Result<PathBuf> {
        self.write(&format!("initrd-{size}"), &[], size)
    }

    /// The base line image: it ends at the reset vector.
    pub fn base_line(&self) -> anyhow::Result<PathBuf> {
        let image = assembled("base-line", SMALLEST)?;
        self.write("base-line.bin", &image, image.len() as u64)
    }

    /// `initrd` with the user program behind it, or an archive with that alone.
    pub fn user_initrd(&self, initrd: Option<&Path>) -> anyhow::Result<PathBuf> {
        let mut bytes = match initrd {
            Some(path) => fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => Vec::new(),
        };
        // Linux takes archives one after the other, each at a multiple of four bytes.
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let program = assembled("user", SMALLEST)?;
        let header = cpio::NewcBuilder::new(USER_PROGRAM.trim_start_matches('/')).ino(1).mode(PROGRAM);
        let mut writer = header.write(&mut bytes, u32::try_from(program.len())?);
        writer.write_all(&program)?;
        writer.finish()?;
        cpio::newc::trailer(&mut bytes)?;
        let name = if initrd.is_some() { "user-initrd-with-program" } else { "user-initrd" };
        self.write(name, &bytes, bytes.len() as u64)
    }

    /// Where QEMU's trace of a run that is timed goes.
    pub fn log(&self) -> PathBuf {
        self.folder.join("trace.log")
    }

    /// Writes `head` and zeros up to `size`, as a file with a hole.
    fn write(&self, name: &str, head: &[u8], size: u64) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(name);
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(head)?;
            file.set_len(size)
        };
        write().with_context(|| format!("cannot write {}", shown(&path)))?;
        Ok(path)
    }
}

/// A section of the source, for a kernel of `size` bytes.
fn assembled(section: &str, size: u64) -> anyhow::Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let [source, object, flat] = ["source", "object", "flat"].map(|name| folder.path().join(name));
    fs::write(&source, SOURCE)?;
    let ports = [("MARKER", u64::from(MARKER_BASE)), ("CLOCK", CLOCK_PORT.into()), ("EXIT", EXIT_PORT.into())];
    let names = ENDS.iter().map(|end| format!("{end:?}={}", *end as u8));
    let symbols = names.chain(ports.iter().map(|(name, value)| format!("{name}={value}")));
    let mut assembler = Command::new("as");
    assembler
        .arg("--64")
        .args(symbols.chain([format!("KERNEL={size}")]).flat_map(|symbol| ["--defsym".into(), symbol]));
    run_quietly(assembler.arg("-o").args([&object, &source]))?;
    run_quietly(Command::new("objcopy").args(["-O", "binary", "-j", section]).args([&object, &flat]))?;
    Ok(fs::read(&flat)?)
}
