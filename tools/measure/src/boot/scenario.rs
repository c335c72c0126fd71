//! Scenarios: a machine, a transport, an accelerator and a payload, and QEMU's command line for them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use xtask::qemu::{self, Accelerator, Launch};

use super::probe::{EXIT_PORT, Files, USER_PROGRAM};

/// The machines that are measured by default.
pub const MACHINES: [&str; 3] = ["q35", "pc", "microvm"];

/// The small payload, whose transfer takes so little time that it hides nothing of the firmware.
pub const SMALL: Sizes = Sizes { kernel: 256 << 10, initrd: 0 };

/// The large payload, as large as a distribution's kernel and initrd.
pub const LARGE: Sizes = Sizes { kernel: 14 << 20, initrd: 32 << 20 };

/// QEMU's options that ask this firmware for EFI tables, and to enter the kernel as an EFI program.
pub const EFI_TABLES: [&str; 2] = ["-fw_cfg", "name=opt/org.firstlight/efi,string=tables"];
pub const EFI_ON: [&str; 2] = ["-fw_cfg", "name=opt/org.firstlight/efi,string=on"];

/// How the firmware reads fw_cfg's items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// by DMA
    Dma,
    /// through ports, on a host without DMA
    Pio,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Payload {
    /// The probe kernel, which ends QEMU at its first instruction.
    Probe(Sizes),
    /// The same as a unified kernel image, in one file.
    Unified(Sizes),
    /// A Linux kernel, up to the first program in user space.
    Linux {
        kernel: PathBuf,
        /// The initrd, behind which the program is put that ends the measurement.
        initrd: Option<PathBuf>,
    },
}

/// The sizes of a probe, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sizes {
    pub kernel: u64,
    /// The initrd's size. Zero is no initrd.
    pub initrd: u64,
}

impl Sizes {
    /// The size of both.
    const fn sum(self) -> u64 {
        self.kernel.saturating_add(self.initrd)
    }
}

/// A machine and a payload, to measure under every firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scenario {
    /// QEMU's machine type, and its properties if it has some.
    pub machine: String,
    /// How the firmware reads items.
    pub transport: Transport,
    /// What executes the guest.
    #[serde(serialize_with = "accelerator_name")]
    pub accelerator: Accelerator,
    pub payload: Payload,
    /// Devices in the form of `-device`, and other options of QEMU: a word that begins with a dash, and then its value.
    pub devices: Vec<String>,
    pub cpus: u16,
    /// The memory, in the form of `-m`.
    pub memory: String,
}

/// The files of a payload.
#[derive(Debug, Clone)]
pub struct PayloadFiles {
    kernel: PathBuf,
    initrd: Option<PathBuf>,
}

impl Payload {
    /// Makes the files.
    pub fn files(&self, files: &Files) -> anyhow::Result<PayloadFiles> {
        Ok(match self {
            Self::Probe(Sizes { kernel, initrd }) => PayloadFiles {
                kernel: files.kernel(*kernel)?,
                initrd: (*initrd > 0).then(|| files.initrd(*initrd)).transpose()?,
            },
            Self::Unified(sizes) => PayloadFiles { kernel: files.unified(sizes.sum())?, initrd: None },
            Self::Linux { kernel, initrd } => {
                PayloadFiles { kernel: kernel.clone(), initrd: Some(files.user_initrd(initrd.as_deref())?) }
            }
        })
    }

    /// For a real kernel, a probe with files of the same sizes.
    pub fn twin(&self, files: &PayloadFiles) -> anyhow::Result<Option<Self>> {
        let size = |path: &Path| {
            let data = path.metadata().with_context(|| format!("cannot read {}", path.display()));
            data.map(|data| data.len())
        };
        if !self.is_linux() {
            return Ok(None);
        }
        let initrd = files.initrd.as_deref().map(size).transpose()?.unwrap_or(0);
        Ok(Some(Self::Probe(Sizes { kernel: size(&files.kernel)?, initrd })))
    }

    /// Whether a real kernel is booted.
    pub fn is_linux(&self) -> bool {
        matches!(self, Self::Linux { .. })
    }

    /// Its name in a report.
    pub fn name(&self) -> String {
        match self {
            Self::Probe(Sizes { kernel, initrd: 0 }) => format!("probe {}, no initrd", size(*kernel)),
            Self::Probe(Sizes { kernel, initrd }) => format!("probe {}, {} initrd", size(*kernel), size(*initrd)),
            Self::Unified(sizes) => format!("unified kernel image {}", size(sizes.sum())),
            Self::Linux { kernel, .. } => format!("Linux ({})", kernel.file_name().unwrap_or_default().display()),
        }
    }
}

/// The guest memory for a payload: 512 MiB, or more if a probe needs more. Its kernel may be anywhere below the initrd, aligned to
/// 16 MiB.
fn memory_for(payload: &Payload) -> String {
    let bytes = match payload {
        Payload::Probe(sizes) | Payload::Unified(sizes) => sizes.sum().saturating_add(128 << 20),
        Payload::Linux { .. } => 0,
    };
    format!("{}M", bytes.max(512 << 20).next_multiple_of(256 << 20) >> 20)
}

impl Scenario {
    /// A machine with one CPU and no more devices, with DMA and under TCG.
    pub fn plain(machine: &str, payload: Payload) -> Self {
        Self {
            machine: machine.to_owned(),
            transport: Transport::Dma,
            accelerator: Accelerator::Tcg,
            memory: memory_for(&payload),
            payload,
            devices: Vec::new(),
            cpus: 1,
        }
    }

    /// With more devices or options.
    pub fn with(&self, devices: &[&str]) -> Self {
        let mut scenario = self.clone();
        scenario.devices.extend(devices.iter().map(|&word| word.to_owned()));
        scenario
    }

    /// Its name in a report.
    pub fn name(&self) -> String {
        let transport = match self.transport {
            Transport::Dma => "DMA",
            Transport::Pio => "ports",
        };
        let mut name = format!("{}, {transport}, {}", self.machine, self.payload.name());
        if !self.devices.is_empty() {
            name.push_str(&format!(", {}", self.device_names()));
        }
        if self.cpus != 1 {
            name.push_str(&format!(", {} CPUs", self.cpus));
        }
        name.push_str(", ");
        name.push_str(self.accelerator.name());
        name
    }

    /// The devices without their properties, or their number if they are many.
    pub fn device_names(&self) -> String {
        let devices: Vec<_> = options(&self.devices).filter(|[option, _]| *option == "-device").collect();
        match devices.as_slice() {
            [] => self.devices.join(" "),
            few if few.len() <= FEW => {
                let names = few.iter().map(|[_, device]| device.split(',').next().unwrap_or(device));
                names.collect::<Vec<_>>().join(" + ")
            }
            many => format!("{} devices", many.len()),
        }
    }

    /// QEMU's launch with a firmware. A measurement adds its own options.
    pub fn launch(&self, firmware: &Path, payload: &PayloadFiles) -> Launch {
        let append = if self.payload.is_linux() {
            // `panic=-1` ends a guest that failed.
            let timers = qemu::timer_words(&self.machine, self.accelerator);
            format!("console=ttyS0 quiet panic=-1 {timers} rdinit={USER_PROGRAM}")
        } else {
            "console=ttyS0 quiet".to_owned()
        };
        let mut extra: Vec<OsString> = vec!["-nodefaults".into()];
        extra.extend(["-device".into(), format!("isa-debug-exit,iobase={EXIT_PORT:#x}").into()]);
        if self.accelerator == Accelerator::Kvm {
            // Some KVMs cannot set all registers of the host's own CPU model. This model works everywhere.
            extra.extend(["-cpu".into(), "qemu64".into()]);
        }
        extra.extend(options(&self.devices).flatten().map(Into::into));
        Launch {
            machine: self.machine.clone(),
            memory: self.memory.clone(),
            cpus: self.cpus,
            accelerator: self.accelerator,
            dma: self.transport == Transport::Dma,
            efi: None,
            log: false,
            gdb: false,
            terminal: false,
            firmware: firmware.to_owned(),
            kernel: Some(payload.kernel.clone()),
            initrd: payload.initrd.clone(),
            append,
            disk: Vec::new(),
            extra,
        }
    }
}

/// Up to this number, devices are named one by one.
const FEW: usize = 4;

/// The options for devices. A word that is neither an option nor an option's value is a device.
fn options(words: &[String]) -> impl Iterator<Item = [&str; 2]> {
    let mut words = words.iter().map(String::as_str);
    std::iter::from_fn(move || {
        let word = words.next()?;
        Some(if word.starts_with('-') { [word, words.next().unwrap_or_default()] } else { ["-device", word] })
    })
}

/// A number of bytes in the largest unit that is exact.
fn size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

fn accelerator_name<S: serde::Serializer>(accelerator: &Accelerator, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(accelerator.name())
}
