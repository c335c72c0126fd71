//! Measured boot: starts a TPM 2.0 and records in it, and in a log, what is booted.
//!
//! `docs/tpm.md` lists what each PCR gets, and how to predict the values. The order is: start, the firmware's version
//! (PCR 0), separators (PCRs 0 to 7), command line (PCR 8), kernel and initrd (PCR 9), modules of a Multiboot kernel
//! (their command lines to PCR 8, the modules to PCR 9). Then the platform hierarchy gets a random password, so that
//! the operating system cannot use it.
//!
//! There is a TPM if the host's table-loader script allocates a log for it. If the script failed, there is no log, and
//! the TPM is marked unmeasured. On machines whose host would not say that there is a TPM (QEMU's microvm, and all
//! machines without ACPI tables), the firmware looks for one and measures the boot without a log. On all other machines
//! without a TPM, nothing here accesses the machine. A failure is a warning, and the kernel starts. Such a boot must
//! not be trusted, and that is up to the TPM's user. So the hierarchies that could sign or unseal for it are turned
//! off, as far as the TPM still answers.
//!
//! EFI programs measure what they load themselves: a [`Session`] is a TPM that they use.
//!
//! All of this runs once, and most of it waits for the TPM.
//!
//! Assumed: the log's memory is reserved and zero, and kernel, initrd and command line are in their places. Left out:
//! TPM 1.2, measuring ACPI and SMBIOS tables, unknown hash algorithms (their banks are capped), and the physical
//! presence interface.

mod bytes;
mod code;
mod command;
mod error;
mod event_log;
pub(crate) mod hash;
mod interface;
mod kernel_file;
mod presence;
mod session;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt;

use arrayvec::ArrayVec;
use zerocopy::FromZeros;

pub use code::{Code, Refusal};
pub use error::Error;
pub use event_log::{Action, EventType};
pub use hash::Algorithm;
use hash::{Digest, Digests, Hashes};
use interface::{Host, Interface};
pub(crate) use kernel_file::forget_host;
use kernel_file::forget_loader;
pub use presence::Presence;
pub use session::{LogPlace, MOST_TRANSFERRED, Room, Session};

use self::command::{Banks, Command, HEADER_LEN, MAX_RESPONSE, Startup, check_random};
use self::event_log::{EventLog, event_start, first_event};
use crate::addr::PhysRange;
use crate::boot::Images;
use crate::fw_cfg::FwCfg;
use crate::hal::{Clock, Deadline, HostAccess, Memory, MemoryError};

/// The PCRs that get a separator (PFP 1.05, 3.3.4): 0 to 7.
const FIRMWARE_PCRS: u32 = 8;
/// The PCR of the command line, as in GRUB (its manual, "Measured Boot").
const COMMAND_LINE_PCR: u32 = 8;
/// The PCR of booted files, as in GRUB.
const FILE_PCR: u32 = 9;

/// The data of a separator without an error (PFP 1.05, 10.4.1, `EV_SEPARATOR`).
const SEPARATOR: [u8; 4] = [0; 4];
/// The data of a separator after an error.
const SEPARATOR_ERROR: [u8; 4] = 1_u32.to_le_bytes();

/// The name and version of this firmware.
const NAME: &str = concat!("Firstlight ", env!("CARGO_PKG_VERSION"));
/// The same in UTF-16, little-endian and with a NUL, as in logs (PFP 1.05, 10.4.1, `EV_S_CRTM_VERSION`).
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const VERSION: [u8; 2 * (NAME.len() + 1)] = {
    let mut version = [0; 2 * (NAME.len() + 1)];
    let mut i = 0;
    while i < NAME.len() {
        // A package's version is ASCII.
        version[2 * i] = NAME.as_bytes()[i];
        i += 1;
    }
    version
};

/// The longest setup code: 255 sectors and the first (boot.rst, `setup_sects`).
pub(crate) const MAX_SETUP: u64 = 256 * 512;

/// Measures what is in memory according to `loaded`, if there is a TPM.
///
/// Without a table that describes the TPM there is no log. An undescribed TPM is marked unmeasured: if it were not
/// started and its platform hierarchy were open, the kernel could fake any boot in it.
pub fn measure<M: HostAccess + Clock>(machine: &mut M, fw_cfg: &FwCfg, presence: Presence, loaded: &Images) {
    let result = match presence {
        Presence::Described { log } => try_measure(machine, fw_cfg, EventLog::new(log), loaded),
        Presence::Unknown if interface::is_present(machine) => try_measure(machine, fw_cfg, EventLog::absent(), loaded),
        Presence::Undescribed => mark_unmeasured(machine),
        Presence::Unknown | Presence::Absent => Ok(()),
    };
    if let Err(failure) = result {
        failure.report("this boot is not measured, or not all of it");
    }
}

fn mark_unmeasured(machine: &mut dyn Host) -> Result<(), Failure> {
    let mut tpm = Tpm::open(machine)?;
    let result = tpm.start_with_error(machine).and(Err(Error::NoTables));
    tpm.finish(machine, result)
}

fn try_measure<M: HostAccess + Clock>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    log: EventLog,
    loaded: &Images,
) -> Result<(), Failure> {
    let mut tpm = Tpm::open(machine)?;
    let result = tpm.measure(machine, fw_cfg, log, loaded).and_then(|()| tpm.lock_platform(machine));
    tpm.finish(machine, result)
}

/// Resumes the TPM after a suspend to memory, if the host has one. `has_tpm` comes from the host, never from memory,
/// which the guest can write.
///
/// If the operating system saved the TPM's state, the TPM resumes it. If not, the PCRs show that, and the hierarchies
/// that could sign or unseal for it are turned off, as after a boot that could not be measured.
pub fn resume<M: Memory + Clock>(machine: &mut M, has_tpm: bool) {
    if has_tpm && let Err(failure) = try_resume(machine) {
        failure.report("the TPM's state from before the suspend is lost");
    }
}

fn try_resume(machine: &mut dyn Host) -> Result<(), Failure> {
    let mut tpm = Tpm::open(machine)?;
    // The saved state includes the platform hierarchy's password.
    let result = tpm.resume(machine);
    tpm.finish(machine, result)
}

/// Why the boot is not measured, and why the TPM could not be marked so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failure {
    error: Error,
    turn_off_error: Option<Error>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, turn_off_error: None }
    }
}

impl Failure {
    fn report(self, consequence: &str) {
        crate::warn!("{consequence}: {}", self.error);
        if let Some(error) = self.turn_off_error {
            crate::warn!("the TPM can still vouch for this machine: {error}");
        }
    }
}

/// A TPM that was found.
struct Tpm {
    interface: Interface,
    banks: Banks,
}

impl Tpm {
    fn open(host: &mut dyn Host) -> Result<Self, Error> {
        Ok(Self { interface: Interface::open(host)?, banks: Banks::default() })
    }

    /// Starts the TPM and measures the boot.
    fn measure<M: HostAccess + Clock>(
        &mut self,
        machine: &mut M,
        fw_cfg: &FwCfg,
        mut log: EventLog,
        loaded: &Images,
    ) -> Result<(), Error> {
        self.prepare(machine, &mut log, None)?;
        self.record_command_line(machine, &mut log, b"kernel_cmdline: ", loaded.command_line)?;
        let digests = self.hash_kernel(machine, fw_cfg, loaded)?;
        self.record(machine, &mut log, FILE_PCR, EventType::Ipl as u32, &digests, &[b"kernel\0"])?;
        if let Some(initrd) = loaded.initrd {
            let digests = self.hash_memory(machine, Hashes::new(&self.banks.known), initrd)?;
            self.record(machine, &mut log, FILE_PCR, EventType::Ipl as u32, &digests, &[b"initrd\0"])?;
        }
        for module in &loaded.modules {
            self.record_command_line(machine, &mut log, b"module_cmdline: ", module.command_line)?;
            let digests = self.hash_memory(machine, Hashes::new(&self.banks.known), module.bytes)?;
            self.record(machine, &mut log, FILE_PCR, EventType::Ipl as u32, &digests, &[b"module\0"])?;
        }
        Ok(())
    }

    /// Starts the TPM, and records the firmware's version, an action if there is one, and the end of what firmware measures.
    fn prepare(&mut self, machine: &mut dyn Host, log: &mut EventLog, action: Option<Action>) -> Result<(), Error> {
        self.start(machine, Startup::Clear)?;
        self.find_banks(machine)?;
        self.cap_unknown_banks(machine)?;
        write(machine, log, &[&first_event(&self.banks.known)?])?;
        self.record_bytes(machine, log, 0, EventType::FirmwareVersion, &VERSION)?;
        if let Some(action) = action {
            self.record_bytes(machine, log, action.pcr(), EventType::EfiAction, action.text())?;
        }
        for pcr in 0..FIRMWARE_PCRS {
            self.record_bytes(machine, log, pcr, EventType::Separator, &SEPARATOR)?;
        }
        Ok(())
    }

    /// Starts the TPM with its saved state, else without it and with PCRs that show that.
    fn resume(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        let Err(error) = self.start(host, Startup::State) else { return Ok(()) };
        if error.still_answers() {
            self.start_with_error(host)?;
        }
        Err(error)
    }

    /// Starts the TPM with PCRs that no boot can be faked in.
    fn start_with_error(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        self.start(host, Startup::Clear)?;
        self.find_banks(host)?;
        self.cap_unknown_banks(host)?;
        self.extend_by_error(host)
    }

    /// Extends the PCRs that record a boot by the separator of an error.
    fn extend_by_error(&self, host: &mut dyn Host) -> Result<(), Error> {
        let digests = self.hash(&SEPARATOR_ERROR);
        (0..=FILE_PCR).try_for_each(|pcr| self.extend(host, pcr, &digests))
    }

    /// Hands the TPM to the operating system with PCRs that show an error.
    fn cap(&self, host: &mut dyn Host) -> Result<(), Error> {
        self.extend_by_error(host)?;
        self.interface.close(host)
    }

    /// Hands the TPM to the operating system. After an error, first removes every capability that relies on correct
    /// PCRs.
    fn finish(self, host: &mut dyn Host, result: Result<(), Error>) -> Result<(), Failure> {
        match result {
            Ok(()) => Ok(self.interface.close(host)?),
            Err(error) if error.still_answers() => Err(Failure { error, turn_off_error: self.turn_off(host).err() }),
            Err(error) => Err(error.into()),
        }
    }

    /// Turns off the hierarchies that an operating system uses.
    fn turn_off(&self, host: &mut dyn Host) -> Result<(), Error> {
        for hierarchy in [command::ENDORSEMENT, command::OWNER] {
            self.run(host, &Command::turn_off(hierarchy)?)?;
        }
        self.lock_platform(host)?;
        self.interface.close(host)
    }

    /// Sets a random password for the platform hierarchy, which nobody knows. A guest finds no copy of it on the stack.
    fn lock_platform(&self, host: &mut dyn Host) -> Result<(), Error> {
        let result = self.set_platform_password(host);
        host.clear_unused_stack();
        result
    }

    /// Not inlined, so that the password is below the caller's frame.
    #[inline(never)]
    fn set_platform_password(&self, host: &mut dyn Host) -> Result<(), Error> {
        let mut response = [0; MAX_RESPONSE];
        let password = self.execute(host, &Command::random()?, &mut response)?;
        check_random(password)?;
        self.run(host, &Command::set_platform_password(password)?)
    }

    fn start(&self, host: &mut dyn Host, kind: Startup) -> Result<(), Error> {
        match self.run(host, &Command::startup(kind)?) {
            // swtpm can be configured to start the TPM itself (`--flags startup-clear`).
            Err(Error::Refused(refusal)) if refusal.response() == Refusal::INITIALIZE && kind == Startup::Clear => {
                Ok(())
            }
            result => result,
        }
    }

    fn find_banks(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        let mut response = [0; MAX_RESPONSE];
        self.banks = Banks::parse(self.execute(host, &Command::list_banks()?, &mut response)?)?;
        Ok(())
    }

    fn extend(&self, host: &mut dyn Host, pcr: u32, digests: &[Digest]) -> Result<(), Error> {
        self.run(host, &Command::extend(pcr, digests)?)
    }

    /// Extends the banks that are not measured with ones, so that they do not look like a boot of nothing.
    fn cap_unknown_banks(&self, host: &mut dyn Host) -> Result<(), Error> {
        if !self.banks.others.is_empty() {
            crate::warn!("{}", UnknownBanks(&self.banks.others));
        }
        for &id in &self.banks.others {
            let Some(len) = unknown_digest_len(id) else { continue };
            for pcr in 0..=FILE_PCR {
                self.extend(host, pcr, &[Digest::ones(id, len)])?;
            }
        }
        if self.banks.known.is_empty() { Err(Error::NoBank) } else { Ok(()) }
    }

    /// Extends a PCR with the digests of `data`, and appends an event with them to the log.
    fn record_bytes(
        &self,
        machine: &mut dyn Host,
        log: &mut EventLog,
        pcr: u32,
        kind: EventType,
        data: &[u8],
    ) -> Result<(), Error> {
        self.record(machine, log, pcr, kind as u32, &self.hash(data), &[data])
    }

    /// Records a command line up to its first NUL. In the log it has a label, as in GRUB's.
    fn record_command_line(
        &self,
        machine: &mut dyn Host,
        log: &mut EventLog,
        label: &[u8],
        range: PhysRange,
    ) -> Result<(), Error> {
        let command_line = read_command_line(machine, range)?;
        let digests = self.hash(&command_line);
        self.record(machine, log, COMMAND_LINE_PCR, EventType::Ipl as u32, &digests, &[label, &command_line, b"\0"])
    }

    /// Extends a PCR with `digests`, and appends an event of the type `kind` to the log whose data are the parts of `data`.
    fn record(
        &self,
        machine: &mut dyn Host,
        log: &mut EventLog,
        pcr: u32,
        kind: u32,
        digests: &Digests,
        data: &[&[u8]],
    ) -> Result<(), Error> {
        self.extend(machine, pcr, digests)?;
        write_event(machine, log, pcr, kind, digests, data)
    }

    fn hash(&self, bytes: &[u8]) -> Digests {
        let mut hashes = Hashes::new(&self.banks.known);
        hashes.update(bytes);
        hashes.finish()
    }

    /// Hashes the kernel file: the setup code without the fields that a loader writes, and everything after it. For an
    /// ELF file and a Multiboot kernel, hashes what the host has put into memory.
    fn hash_kernel<M: HostAccess>(&self, machine: &mut M, fw_cfg: &FwCfg, loaded: &Images) -> Result<Digests, Error> {
        let mut hashes = Hashes::new(&self.banks.known);
        if let Some(setup) = loaded.setup {
            if setup.len() > MAX_SETUP {
                return Err(Error::Setup);
            }
            let mut bytes = setup.read(machine, fw_cfg).map_err(|error| {
                crate::warn!("{error}");
                Error::Setup
            })?;
            forget_loader(&mut bytes);
            hashes.update(&bytes);
        }
        self.hash_memory(machine, hashes, loaded.kernel)
    }

    fn hash_memory(&self, machine: &mut dyn Memory, mut hashes: Hashes, range: PhysRange) -> Result<Digests, Error> {
        machine.inspect(range, &mut |bytes| hashes.update(bytes))?;
        Ok(hashes.finish())
    }

    /// Executes a command whose response has no parameters.
    fn run(&self, host: &mut dyn Host, command: &Command) -> Result<(), Error> {
        self.execute(host, command, &mut [0; MAX_RESPONSE]).map(|_| ())
    }

    /// Executes a command, repeated while the TPM is busy, and returns the response's parameters. All of it has one
    /// deadline.
    fn execute<'b>(
        &self,
        host: &mut dyn Host,
        command: &Command,
        buffer: &'b mut [u8; MAX_RESPONSE],
    ) -> Result<&'b [u8], Error> {
        let deadline = Deadline::start(host);
        let len = loop {
            let response = self.interface.transmit(host, deadline, command.bytes(), buffer)?;
            match command.parse(response) {
                Ok(_) => break response.len(),
                Err(Error::Refused(refusal)) if refusal.is_busy() && !deadline.has_passed(host) => {}
                Err(Error::Refused(refusal))
                    if refusal.response() == Refusal::NEEDS_TEST && !deadline.has_passed(host) =>
                {
                    // The result does not matter: the command itself shows whether the test was sufficient.
                    self.interface.transmit(host, deadline, Command::self_test()?.bytes(), buffer)?;
                }
                Err(error) => return Err(error),
            }
        };
        Ok(buffer.get(HEADER_LEN..len).unwrap_or_default())
    }
}

/// The warning about banks that are not measured, by their `TPM_ALG_ID`s. It is one line, as a TPM may have 16 of them.
struct UnknownBanks<'a>(&'a [u16]);

impl fmt::Display for UnknownBanks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the TPM's PCR banks of these algorithms do not record this boot:")?;
        for id in self.0 {
            write!(f, " {id:#x}")?;
        }
        f.write_str("; the firmware has no such hash; turn them off (swtpm_setup --pcr-banks sha256)")
    }
}

/// The digest length in bytes of an algorithm that the firmware does not compute (TCG Algorithm Registry): SM3-256,
/// SHA3-256, SHA3-384, SHA3-512.
const fn unknown_digest_len(id: u16) -> Option<u16> {
    match id {
        0x12 | 0x27 => Some(32),
        0x28 => Some(48),
        0x29 => Some(64),
        _ => None,
    }
}

/// The command line as the kernel sees it: up to the first NUL.
fn read_command_line(machine: &mut dyn Memory, range: PhysRange) -> Result<Vec<u8>, Error> {
    let full = Error::HeapFull(u32::try_from(range.len()).unwrap_or(u32::MAX));
    let mut bytes = u8::new_vec_zeroed(range.len() as usize).map_err(|_| full)?;
    machine.read(range.start(), &mut bytes)?;
    let len = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    bytes.truncate(len);
    Ok(bytes)
}

/// Appends an event to the log whose data are the parts of `data`, three at most.
fn write_event(
    machine: &mut dyn Memory,
    log: &mut EventLog,
    pcr: u32,
    kind: u32,
    digests: &Digests,
    data: &[&[u8]],
) -> Result<(), Error> {
    let len = data.iter().fold(0_usize, |len, part| len.saturating_add(part.len()));
    let start = event_start(pcr, kind, digests, u32::try_from(len).unwrap_or(u32::MAX))?;
    let mut parts = ArrayVec::<&[u8], 4>::new();
    parts.push(&start);
    parts.try_extend_from_slice(data).map_err(|_| Error::TooLong)?;
    Ok(write(machine, log, &parts)?)
}

/// Writes an event of several parts to the end of the log, unless the log has ended.
fn write(machine: &mut dyn Memory, log: &mut EventLog, parts: &[&[u8]]) -> Result<(), MemoryError> {
    let len = parts.iter().fold(0_usize, |len, part| len.saturating_add(part.len()));
    let Some(mut at) = log.take(len) else { return Ok(()) };
    for part in parts {
        machine.write(at, part)?;
        at = at.checked_add(part.len() as u64).unwrap_or(at);
    }
    Ok(())
}
