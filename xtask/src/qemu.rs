//! QEMU's command line, and the choice of the accelerator.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use anyhow::bail;
use clap::ValueEnum;

use crate::packages::QEMU_PROGRAM;

/// Where gdb connects: the port of QEMU's option `-s`, but reachable from this machine only.
pub const GDB_ADDRESS: &str = "127.0.0.1:1234";

/// The device through which a program uses KVM.
const KVM: &str = "/dev/kvm";

/// The values of `--accel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Request {
    /// KVM if it works, else TCG
    Auto,
    /// the CPU itself, through Linux's KVM
    Kvm,
    /// QEMU's translation to the host's instructions
    Tcg,
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The CPU.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

/// Chooses the accelerator for this machine. Returns it with the reason for the choice.
///
/// # Errors
/// If the user requests KVM and it cannot be opened.
pub fn accelerator(request: Request) -> anyhow::Result<(Accelerator, String)> {
    let chosen = match (request, open_kvm()) {
        (Request::Tcg, _) => (Accelerator::Tcg, "as requested".to_owned()),
        (Request::Kvm, Ok(())) => {
            let doubt = match virtualization_flag() {
                Some(_) => "",
                None => "; the CPU has neither vmx nor svm, so Linux may not run",
            };
            (Accelerator::Kvm, format!("as requested{doubt}"))
        }
        (Request::Kvm, Err(error)) => bail!("--accel kvm: {KVM} cannot be opened: {error}{}", kvm_hint(&error)),
        (Request::Auto, Err(error)) => {
            (Accelerator::Tcg, format!("{KVM} cannot be opened: {error}{}", kvm_hint(&error)))
        }
        (Request::Auto, Ok(())) => match virtualization_flag() {
            Some(flag) => (Accelerator::Kvm, format!("{KVM} opens and the CPU has {flag}")),
            // Such a KVM emulates part of what firmware and a starting kernel do, and fails at the rest.
            None => (Accelerator::Tcg, format!("{KVM} opens, but the CPU has neither vmx nor svm")),
        },
    };
    Ok(chosen)
}

/// Whether this process can open KVM.
pub fn kvm_opens() -> bool {
    open_kvm().is_ok()
}

fn open_kvm() -> io::Result<()> {
    fs::File::options().read(true).write(true).open(KVM).map(drop)
}

fn kvm_hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied { "; members of the group kvm may open it" } else { "" }
}

/// The CPU flag for hardware virtualisation, if the CPU has it. If not, KVM has to emulate part of a guest.
pub fn virtualization_flag() -> Option<&'static str> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpuinfo.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == "flags")?.1;
    ["vmx", "svm"].into_iter().find(|flag| flags.split_ascii_whitespace().any(|word| word == *flag))
}

/// The values of `--efi`. Their names are the contents of the fw_cfg file (`src/efi/request.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Efi {
    /// EFI tables and runtime services for a kernel that is entered as usual
    Tables,
    /// EFI boot services: a kernel is entered by its EFI stub
    On,
    /// no EFI, but for a file that is only an EFI program
    Off,
}

/// One way to start QEMU.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The machine type and its properties, in the form of `-machine`.
    pub machine: String,
    /// The memory, in the form of `-m`.
    pub memory: String,
    /// The number of CPUs.
    pub cpus: u16,
    /// What executes the guest.
    pub accelerator: Accelerator,
    /// Whether fw_cfg offers DMA.
    pub dma: bool,
    /// The EFI request to the firmware, if any.
    pub efi: Option<Efi>,
    /// Whether the firmware logs what it does.
    pub log: bool,
    /// Whether QEMU waits for gdb before the first instruction.
    pub gdb: bool,
    /// Whether the serial console is a terminal, from which keys reach the guest.
    pub terminal: bool,
    /// The firmware image.
    pub firmware: PathBuf,
    /// The kernel. The guest has none if it boots from a disk.
    pub kernel: Option<PathBuf>,
    /// The initramfs, if any.
    pub initrd: Option<PathBuf>,
    /// The kernel command line.
    pub append: String,
    /// The options for a disk, if any ([`crate::disk`]).
    pub disk: Vec<OsString>,
    /// The user's arguments. They are last, because for most of QEMU's options the last one counts.
    pub extra: Vec<OsString>,
}

impl Accelerator {
    /// Its name for the user.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "TCG",
        }
    }
}

impl Launch {
    /// The arguments for `qemu-system-x86_64`.
    ///
    /// Except in a disk's, no comma is doubled: QEMU does not split the values of `-bios`, `-kernel`, `-initrd` (of a Linux kernel) and `-append`,
    /// and the values of `-machine` and `-m` are in QEMU's form already.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = Vec::<OsString>::new();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
        add(&["-machine", &self.machine, "-m", &self.memory, "-smp", &self.cpus.to_string()]);
        match self.accelerator {
            Accelerator::Kvm => add(&["-accel", "kvm", "-cpu", "host"]),
            Accelerator::Tcg => add(&["-accel", "tcg"]),
        }
        add(&["-display", "none"]);
        if self.terminal {
            // Shared with QEMU's monitor: Ctrl-A X ends QEMU, and Ctrl-C reaches the guest.
            add(&["-serial", "mon:stdio"]);
        } else {
            // A guest that reboots has failed. Without a terminal, nobody would see it reboot again and again.
            add(&["-serial", "stdio", "-monitor", "none", "-no-reboot"]);
        }
        if !self.dma {
            add(&["-global", "fw_cfg.dma_enabled=off"]);
        }
        if let Some(efi) = self.efi.as_ref().and_then(Efi::to_possible_value) {
            add(&["-fw_cfg", &format!("name=opt/org.firstlight/efi,string={}", efi.get_name())]);
        }
        if self.log {
            add(&["-fw_cfg", "name=opt/org.firstlight/log,string=debug"]);
        }
        if self.gdb {
            add(&["-gdb", &format!("tcp:{GDB_ADDRESS}"), "-S"]);
        }
        arguments.extend(["-bios".into(), self.firmware.clone().into_os_string()]);
        if let Some(kernel) = &self.kernel {
            arguments.extend(["-kernel".into(), kernel.clone().into_os_string()]);
            arguments.extend(["-append".into(), self.append.clone().into()]);
        }
        if let Some(initrd) = &self.initrd {
            arguments.extend(["-initrd".into(), initrd.clone().into_os_string()]);
        }
        arguments.extend(self.disk.iter().cloned());
        arguments.extend(self.extra.iter().cloned());
        arguments
    }

    /// The command that starts QEMU.
    pub fn command(&self) -> Command {
        let mut command = Command::new(QEMU_PROGRAM);
        command.args(self.arguments());
        command
    }
}

/// The machine type in the value of `-machine`. Empty if the value has only properties.
pub fn machine_type(machine: &str) -> &str {
    let named = machine.split(',').find_map(|part| part.strip_prefix("type="));
    let first = machine.split(',').next().filter(|first| !first.contains('='));
    named.or(first).unwrap_or_default()
}

/// Words for the command line of a Linux kernel on a busy host. There, the timers of an emulated CPU are late. Linux takes that
/// for a defect of the machine and stops, or measures the rate of its clock for ever.
///
/// On microvm, Linux measures its only timer with the TSC, so it needs the TSC's rate. QEMU's TSC runs at the host's rate, so the
/// guest's clock is as wrong as the number.
pub fn timer_words(machine: &str, accelerator: Accelerator) -> &'static str {
    match accelerator {
        // KVM tells Linux the rate, and Linux does not check the timer.
        Accelerator::Kvm => "",
        Accelerator::Tcg if machine_type(machine) == "microvm" => "no_timer_check tsc=nowatchdog tsc_early_khz=2500000",
        Accelerator::Tcg => "no_timer_check tsc=nowatchdog",
    }
}

/// Parses a number of bytes, which may have K, M, G or T behind it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[number.len()..] {
        "" => Some(0),
        "K" | "k" => Some(10),
        "M" | "m" => Some(20),
        "G" | "g" => Some(30),
        "T" | "t" => Some(40),
        _ => None,
    };
    let digits = number.parse::<u64>().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()));
    let bytes = digits.zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "a size is a number of bytes, or a number with K, M, G or T, such as 256K or 14M".to_owned())
}

/// Checks an amount of memory in the form of QEMU's `-m`. Without a letter, QEMU would take it to be in MiB.
pub fn parse_memory(text: &str) -> Result<String, String> {
    match parse_size(text) {
        Ok(1..) if text.ends_with(|c: char| c.is_ascii_alphabetic()) => Ok(text.to_owned()),
        _ => Err("an amount of memory is a number with K, M, G or T, such as 512M or 6G".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_at_most_one_letter_and_memory_has_one() {
        for (text, bytes) in [("512", 512), ("256K", 256 << 10), ("14m", 14 << 20), ("6G", 6 << 30), ("0", 0)] {
            assert_eq!(parse_size(text), Ok(bytes));
            assert_eq!(parse_memory(text).is_ok(), bytes >= 1 << 10, "{text}");
        }
        for bad in ["", "K", "1.5M", "512MB", "-1", "+1", "1 G", "1X", "99999999999999999999", "99999999999G", "é"] {
            assert!(parse_size(bad).is_err() && parse_memory(bad).is_err(), "{bad}");
        }
    }
}
