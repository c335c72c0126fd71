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

/// The source of all files, for `as`.
const SOURCE: &str = include_str!("probe.s");

/// The path of the program in the initramfs. The kernel starts it because of its option `rdinit=`.
pub const USER_PROGRAM: &str = "/firstlight-compare";

/// Its file type and permissions, as in `st_mode` (POSIX, `<sys/stat.h>`).
const PROGRAM: u32 = 0o100_755;

/// A marker is the selection of a fw_cfg item that no host has. QEMU's event `fw_cfg_select`, which costs little, has its time.
const MARKER_BASE: u16 = 0x3f00;

/// A port without a device. A write to it is visible in QEMU's trace only.
pub const CLOCK_PORT: u16 = 0x508;

/// The port of `isa-debug-exit`. Its usual port, 0xf4, is for the firmware's trace points.
pub const EXIT_PORT: u16 = 0x501;

/// The size of a bzImage is a multiple of this many bytes.
const SECTOR: u64 = 512;

/// The size of the smallest probe, which has all entry points.
const SMALLEST: u64 = 4608;

/// The size of the largest probe. QEMU has a signed 32-bit size for a kernel.
const LARGEST: u64 = i32::MAX as u64 / SECTOR * SECTOR;

/// Where a measurement ends. The guest writes the value to the exit port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The kernel's 16-bit entry point, in its setup code.
    Real16 = 0x10,
    Protected32 = 0x20,
    Long64 = 0x30,
    Efi = 0x50,
    User = 0x60,
    /// The reset vector of the base line image.
    Reset = 0x70,
}

/// Every end.
const ENDS: [End; 6] = [End::Real16, End::Protected32, End::Long64, End::Efi, End::User, End::Reset];

impl End {
    /// The end that is marked by a selected key of fw_cfg.
    pub fn of_marker(key: u16) -> Option<Self> {
        ENDS.into_iter().find(|end| MARKER_BASE | *end as u16 == key)
    }

    /// The end at which the guest ended QEMU with this exit status, which is twice the value plus one (QEMU,
    /// `hw/misc/debugexit.c`).
    pub fn of_status(status: i32) -> Option<Self> {
        ENDS.into_iter().find(|end| *end as i32 * 2 + 1 == status)
    }

    /// Its name in a report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Real16 => "16-bit",
            Self::Protected32 => "32-bit",
            Self::Long64 => "64-bit",
            Self::Efi => "EFI",
            Self::User => "user space",
            Self::Reset => "reset vector",
        }
    }
}

/// Makes the files, in one folder.
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// The files in `folder`, which is made if necessary.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        packages::ensure(&packages::ASSEMBLER)?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", shown(folder)))?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Makes the probe kernel with about `size` bytes.
    pub fn kernel(&self, size: u64) -> anyhow::Result<PathBuf> {
        let size = size.clamp(SMALLEST, LARGEST).next_multiple_of(SECTOR).min(LARGEST);
        self.write(&format!("probe-{size}.bzimage"), &assembled("bzimage", size)?, size)
    }

    /// Makes a unified kernel image with about `size` bytes: an EFI program with a kernel and an initrd in it.
    pub fn unified(&self, size: u64) -> anyhow::Result<PathBuf> {
        let size = size.clamp(SMALLEST, LARGEST).next_multiple_of(SECTOR).min(LARGEST);
        self.write(&format!("probe-{size}.efi"), &assembled("unified", size)?, size)
    }

    /// Makes an initrd of `size` zeros. Nothing reads it, because the probe ends before.
    pub fn initrd(&self, size: u64) -> anyhow::Result<PathBuf> {
        self.write(&format!("initrd-{size}"), &[], size)
    }

    /// Makes the base line image, which ends at the reset vector.
    pub fn base_line(&self) -> anyhow::Result<PathBuf> {
        let image = assembled("base-line", SMALLEST)?;
        self.write("base-line.bin", &image, image.len() as u64)
    }

    /// Makes an initrd from `initrd` and the user program behind it.
    pub fn user_initrd(&self, initrd: Option<&Path>) -> anyhow::Result<PathBuf> {
        let mut bytes = match initrd {
            Some(path) => fs::read(path).with_context(|| format!("cannot read {}", path.display()))?,
            None => Vec::new(),
        };
        // Linux unpacks one archive after the other. Each starts at a multiple of four bytes.
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

    /// The file for QEMU's trace of a timed run.
    pub fn log(&self) -> PathBuf {
        self.folder.join("trace.log")
    }

    /// Writes a file with `head` and then zeros up to `size`, as a hole.
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

/// Assembles a section of the source, for a kernel of `size` bytes.
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
