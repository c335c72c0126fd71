//! Boots measured by a TPM: swtpm, connected to QEMU.
//!
//! The expected PCRs are computed in two ways that share nothing with the firmware: from the log, which the guest prints, and
//! by `docs/predict-pcrs.sh` from the files that are passed to QEMU.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use firstlight::fakes::event_log::{self, Log};
use tempfile::TempDir;

use crate::bzimage::{BzImage, PVH_BASE};
use crate::child;
use crate::efi_entry::ON;
use crate::efi_protocols;
use crate::environment;
use crate::isapc;
use crate::left_behind::{NO_S3, forge_wake};
use crate::machine::{Emulator, Kind, LIMIT, Machine, Qemu};
use crate::microvm;
use crate::multiboot;
use crate::probe::Probe;
use crate::pvh;
use crate::reset::WAYS;
use crate::script;
use crate::sleep::{sleep, wake_when_asleep};

/// How often what is waited for is looked at.
const POLL: Duration = Duration::from_millis(10);

/// What the guest prints when it is about to sleep.
const SLEEPS: &str = "sleeps";

/// Prints every PCR of every bank and the log, sleeps, and prints the PCRs again. Tries each time to use the platform
/// hierarchy with the empty password that it has after a reset (`TPM2_HierarchyControl` of it by itself).
const SCRIPT: &str = r#"
mount -t securityfs none /sys/kernel/security
state() {
    for bank in /sys/class/tpm/tpm0/pcr-*; do
        for number in $(seq 0 23); do
            echo $1 ${bank##*-} $number $(cat $bank/$number)
        done
    done
    exec 3<>/dev/tpm0
    printf '\200\002\0\0\0\040\0\0\001\041\100\0\0\014\0\0\0\011\100\0\0\011\0\0\001\0\0\100\0\0\014\0' >&3
    echo $1-platform $(od -An -v -tx1 <&3)
    exec 3>&-
}
state booted
echo log $(od -An -v -tx1 /sys/kernel/security/tpm0/binary_bios_measurements)
echo deep >/sys/power/mem_sleep
echo sleeps
echo mem >/sys/power/state
state awake
"#;

/// Prints every PCR of SHA-256, and the log.
const STATE_AND_LOG: &str = "mount -t securityfs none /sys/kernel/security
    for number in $(seq 0 23); do echo pcr $number $(cat /sys/class/tpm/tpm0/pcr-sha256/$number); done
    echo log $(od -An -v -tx1 /sys/kernel/security/tpm0/binary_bios_measurements)";

/// A TPM, which ends when this is dropped.
struct Swtpm {
    child: Child,
    folder: TempDir,
}

impl Swtpm {
    /// A TPM 2.0 with these PCR banks, divided by commas.
    fn new(banks: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let made = Command::new("swtpm_setup")
            .args(["--tpm2", "--pcr-banks", banks, "--tpmstate"])
            .arg(folder.path())
            .output()
            .expect("swtpm_setup starts; `cargo xtask setup` installs it");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        Self::start(folder, &["--tpm2"])
    }

    /// A TPM 1.2.
    fn old() -> Self {
        Self::start(TempDir::new().expect("a temporary folder"), &[])
    }

    fn start(folder: TempDir, arguments: &[&str]) -> Self {
        let mut command = Command::new("swtpm");
        command.arg("socket").args(arguments);
        command.args(["--tpmstate", &format!("dir={}", folder.path().display())]);
        command.args(["--ctrl", &format!("type=unixio,path={}", folder.path().join("socket").display())]);
        let child = child::tied(&command).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.expect("setpriv (util-linux) starts");
        let this = Self { child, folder };
        let start = Instant::now();
        while !this.socket().exists() {
            assert!(start.elapsed() < LIMIT, "swtpm makes no socket");
            thread::sleep(POLL);
        }
        this
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The machine with this TPM as a device of that kind.
    fn on(&self, machine: &Machine, device: &str) -> Machine {
        machine.clone().with(&format!(
            "-chardev socket,id=tpm,path={} -tpmdev emulator,id=tpm,chardev=tpm -device {device},tpmdev=tpm",
            self.socket().display()
        ))
    }

    /// Stops it, so that it neither responds nor closes anything.
    fn stop(&self) {
        let status = Command::new("kill").args(["-STOP", &self.child.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "swtpm cannot be stopped");
    }

    fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("the end of a child");
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing left to be done.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the script printed in lines that begin with `key`.
fn lines<'a>(printed: &'a str, key: &str) -> Vec<&'a str> {
    printed.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).collect()
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits: String = hexadecimal.split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// What `docs/predict-pcrs.sh` prints for a guest that runs a script under this kernel.
fn predicted_for_script(bank: &str, kernel: &Path) -> Vec<(usize, Vec<u8>)> {
    predicted(bank, kernel.as_os_str(), script::command_line().as_ref(), environment::initrd_with_tools().as_os_str())
}

/// What `docs/predict-pcrs.sh` prints.
fn predicted(bank: &str, kernel: &OsStr, command_line: &OsStr, initrd: &OsStr) -> Vec<(usize, Vec<u8>)> {
    let output = Command::new("sh")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/predict-pcrs.sh"))
        .args([bank.as_ref(), kernel, command_line, initrd])
        .output()
        .expect("sh starts");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let pcr = |line: &str| line.split_once(' ').map(|(pcr, value)| (pcr.parse().unwrap(), bytes(value)));
    text.lines().map(|line| pcr(line).expect("a PCR and its value")).collect()
}

/// Boots Linux with a TPM that has these banks, and checks what it finds in PCRs and log.
fn measured(kind: Kind, device: &str, banks: &[(&str, u16)]) {
    let names: Vec<_> = banks.iter().map(|(name, _)| *name).collect();
    let tpm = Swtpm::new(&names.join(","));
    let printed = script::run_with(&tpm.on(&Machine::new(kind), device), SCRIPT, |qemu| {
        qemu.wait_for("sleep", |qemu| qemu.com1().contains(SLEEPS));
        wake_when_asleep(qemu);
        assert!(!qemu.com1().contains("firstlight: "), "the firmware printed something");
    });

    let log = lines(&printed, "log");
    let log = Log::parse(&bytes(log.first().expect("a log"))).unwrap();
    assert!(log.algorithms.keys().eq(banks.iter().map(|(_, id)| id)), "{:x?}", log.algorithms);
    for &(name, id) in banks {
        let pcr = |number: usize| {
            let pcrs = lines(&printed, &format!("booted {name} {number}"));
            bytes(pcrs.first().expect("a PCR"))
        };
        let replayed = log.replay(id);
        assert!(replayed.keys().copied().eq(0..10), "{replayed:x?}");
        for (&number, value) in &replayed {
            assert_eq!(&pcr(number as usize), value, "PCR {number} of {name}");
        }
        let zero = vec![0; pcr(0).len()];
        let separated = event_log::extend(id, &zero, &event_log::digest(id, &[0; 4]));
        for number in 1..8 {
            assert_eq!(pcr(number), separated, "PCR {number} of {name}");
        }
        let predicted = predicted_for_script(name, &environment::kernel());
        assert_eq!(predicted.len(), 2);
        for (number, value) in predicted {
            assert_eq!(pcr(number), value, "PCR {number} of {name}");
        }
    }
    let pcrs = lines(&printed, "booted");
    assert_eq!(pcrs.len(), 24 * banks.len(), "no other bank");
    assert_eq!(pcrs, lines(&printed, "awake"));
    let command_line = format!("kernel_cmdline: {}\0", script::command_line());
    assert!(log.events.iter().any(|event| event.data == command_line.as_bytes()));
    // TPM_RC_BAD_AUTH for the first session.
    let refusal = "80 01 00 00 00 0a 00 00 09 a2";
    assert_eq!(lines(&printed, "booted-platform"), [refusal]);
    assert_eq!(lines(&printed, "awake-platform"), [refusal]);
}

#[test]
fn q35_is_measured_with_tis_and_two_banks() {
    measured(Kind::Q35, "tpm-tis", &[("sha1", 0x04), ("sha256", 0x0b)]);
}

#[test]
fn q35_is_measured_with_crb_and_one_bank() {
    measured(Kind::Q35, "tpm-crb", &[("sha256", 0x0b)]);
}

#[test]
fn pc_is_measured_with_tis_and_all_banks() {
    measured(Kind::Pc, "tpm-tis", &[("sha1", 0x04), ("sha256", 0x0b), ("sha384", 0x0c), ("sha512", 0x0d)]);
}

/// The bank of the tests of EFI programs.
const SHA256: u16 = 0x0b;

/// A PCR of [`SHA256`] after events with these data.
fn extended(pcr: Vec<u8>, data: &[&[u8]]) -> Vec<u8> {
    data.iter().fold(pcr, |pcr, data| event_log::extend(SHA256, &pcr, &event_log::digest(SHA256, data)))
}

/// What the Authenticode digest of a program covers, if its sections fill the file: all but the checksum, the place of the
/// certificates, and these themselves at the end.
fn signed_bytes(file: &[u8]) -> Vec<u8> {
    let at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let optional = at(0x3c) + 24;
    let (checksum, directory) = (optional + 64, optional + 112 + 4 * 8);
    let end = file.len() - at(directory + 4);
    [&file[..checksum], &file[checksum + 4..directory], &file[directory + 8..end]].concat()
}

/// The contents of a section of a program. `None` without such a section.
fn section<'f>(file: &'f [u8], name: &str) -> Option<&'f [u8]> {
    let file_of = object::read::pe::PeFile64::parse(file).expect("a PE file");
    let table = object::Object::section_by_name(&file_of, name)?;
    let (offset, len) = object::ObjectSection::file_range(&table)?;
    let len = len.min(object::ObjectSection::size(&table));
    Some(&file[offset as usize..][..len as usize])
}

/// PCR 4 as `systemd-pcrlock` predicts it: the firmware calls an application, these files are loaded one after the other.
fn with_applications(files: &[&[u8]]) -> Vec<u8> {
    let called = extended(vec![0; 32], &[b"Calling EFI Application from Boot Option", &[0; 4]]);
    files.iter().fold(called, |pcr, file| extended(pcr, &[&signed_bytes(file)]))
}

/// Checks that the log has the PCRs' values, and that boot services have ended as the log says. Returns the PCRs, and the log.
fn checked_log(printed: &str) -> (Vec<Vec<u8>>, Log) {
    let log = Log::parse(&bytes(lines(printed, "log")[0])).expect("a log");
    let pcrs: Vec<_> = (0..24).map(|number| bytes(lines(printed, &format!("pcr {number}"))[0])).collect();
    for (number, value) in log.replay(SHA256) {
        assert_eq!(pcrs[number as usize], value, "PCR {number}");
    }
    let ended: &[&[u8]] = &[&[0; 4], b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success"];
    assert_eq!(pcrs[5], extended(vec![0; 32], ended));
    (pcrs, log)
}

/// The stub measures the command line and the initrd by the protocol, after the firmware has measured the program.
#[test]
fn what_a_kernels_stub_measures_is_in_its_pcrs_and_in_the_log() {
    let tpm = Swtpm::new("sha256");
    let machine = Machine { memory: "512M", ..Machine::new(Kind::Q35) }.with(ON);
    let printed = script::run(&tpm.on(&machine, "tpm-crb"), STATE_AND_LOG);
    let (pcrs, log) = checked_log(&printed);
    for data in ["LOADED_IMAGE::LoadOptions", "Linux initrd"] {
        let is_data = |event: &event_log::Event| {
            event.pcr == 9 && event.data.windows(data.len()).any(|part| part == data.as_bytes())
        };
        assert!(log.events.iter().any(is_data), "{data:?}");
    }
    // This QEMU writes into the setup header: the fields that `docs/tpm.md` lists count as zero.
    let mut kernel = fs::read(environment::kernel()).expect("the kernel");
    for (at, len) in [(0x1fa, 2), (0x210, 1), (0x218, 8), (0x224, 2), (0x228, 4), (0x250, 8)] {
        kernel[at..at + len].fill(0);
    }
    kernel[0x211] &= 0x7f;
    assert_eq!(pcrs[4], with_applications(&[&kernel]));
}

/// PCR 4 is as `systemd-pcrlock lock-uki` predicts it, and PCR 11 as `systemd-measure calculate` does.
#[test]
fn the_pcrs_of_a_unified_kernel_image_can_be_predicted() {
    const SECTIONS: [&str; 5] = [".linux", ".osrel", ".cmdline", ".initrd", ".sbat"];
    // systemd 252 does not measure `.sbat`.
    for (suite, device, sections) in [("bookworm", "tpm-crb", &SECTIONS[..4]), ("trixie", "tpm-tis", &SECTIONS)] {
        let tpm = Swtpm::new("sha256");
        let machine = tpm.on(&Machine::new(Kind::Q35), device);
        let Some((image, printed)) = efi_protocols::run_in_unified(&machine, suite, STATE_AND_LOG) else { return };
        let (pcrs, _) = checked_log(&printed);
        let kernel = section(&image, ".linux").expect("the kernel");
        assert_eq!(pcrs[4], with_applications(&[&image, kernel]), "{suite}");
        let predicted = sections.iter().fold(vec![0; 32], |pcr, name| {
            let contents = section(&image, name).expect("the section");
            extended(pcr, &[format!("{name}\0").as_bytes(), contents])
        });
        assert_eq!(pcrs[11], predicted, "{suite}");
    }
}

/// Debian's `vmlinux`. The file has the bytes that are measured in memory.
#[test]
fn an_elf_kernel_is_measured_as_its_file_says() {
    let tpm = Swtpm::new("sha256");
    let vmlinux = pvh::unpack(&environment::kernel(), tpm.folder.path());
    let machine = Machine { kernel: Some(vmlinux.clone()), memory: "256M", ..Machine::new(Kind::Q35) };
    let script = "for number in 8 9; do echo pcr $number $(cat /sys/class/tpm/tpm0/pcr-sha256/$number); done";
    let printed = script::run(&tpm.on(&machine, "tpm-crb"), script);
    assert!(!printed.is_empty());
    for (number, value) in predicted_for_script("sha256", &vmlinux) {
        assert_eq!(bytes(lines(&printed, &format!("pcr {number}"))[0]), value, "PCR {number}");
    }
}

/// The probe can read the log without a driver. Tests with a fake TPM check that the PCRs agree with it.
#[test]
fn a_multiboot_kernel_is_measured_as_its_files_say() {
    let tpm = Swtpm::new("sha256");
    let machine = tpm.on(&Machine::new(Kind::Pc), "tpm-tis");
    let (mut probe, folder) = multiboot::boot(&machine, &multiboot::flat(PVH_BASE), 2);
    // ACPI 6.5, 5.2.7; TCG ACPI Specification 1.3, table 7: the log's length and its address.
    let rsdt = multiboot::number(&multiboot::find_rsdp(&mut probe), 16, 4);
    let entries: Vec<_> = (36..probe.read32(rsdt + 4)).step_by(4).map(|at| rsdt + u64::from(at)).collect();
    let tables = entries.into_iter().map(|entry| u64::from(probe.read32(entry))).collect::<Vec<_>>();
    let table = tables.into_iter().find(|table| probe.read(*table, 4) == b"TPM2").expect("the TPM's table");
    let (len, log) = (probe.read32(table + 64), probe.read32(table + 68).into());
    let log = Log::parse(&probe.read(log, len as usize)).expect("a log");
    let info = probe.read(probe.state.ebx, 64);
    let command_line = probe.read(multiboot::number(&info, 16, 4), 256);
    let command_line = command_line.split(|&byte| byte == 0).next().map(String::from_utf8_lossy).expect("text");
    let (kernel, words) = command_line.split_once(' ').expect("a file's name and the command line");
    let modules = multiboot::module_lines(&folder, 2).join(",");
    let replayed = log.replay(SHA256);
    let predicted = predicted("sha256", kernel.as_ref(), words.as_ref(), modules.as_ref());
    assert_eq!(predicted.len(), 2);
    for (number, value) in predicted {
        assert_eq!(replayed[&(number as u32)], value, "PCR {number}");
    }
}

/// Starts a machine with a TPM, changes the TPM before the firmware runs, and returns the machine when the firmware is about
/// to enter the kernel.
fn with_trouble(tpm: &mut Swtpm, device: &str, trouble: impl FnOnce(&mut Swtpm)) -> Qemu {
    let kernel = tpm.folder.path().join("kernel");
    fs::write(&kernel, BzImage::new().file()).expect("a file in the temporary folder");
    let points = tpm.folder.path().join("points");
    let machine = Machine { kernel: Some(kernel), ..Machine::new(Kind::Q35) }
        .with("-S -fw_cfg name=opt/org.firstlight/trace,string=on")
        .with(&format!(
            "-chardev file,id=points,path={} -device isa-debugcon,iobase=0xf4,chardev=points",
            points.display()
        ));
    let mut qemu = tpm.on(&machine, device).start();
    qemu.wait_for("QEMU's control socket", |qemu| qemu.folder().join("qmp").exists());
    let mut qmp = qemu.qmp();
    trouble(tpm);
    qmp.run("cont", "{}");
    // The second point on that port, and the last before the kernel.
    qemu.wait_for("the kernel", |_| fs::read(&points).is_ok_and(|points| points == [2, 3]));
    qemu
}

/// The firmware's warnings.
fn warning(qemu: &Qemu) -> String {
    // The kernel of these tests only reports that its own devices are missing.
    let com1 = qemu.com1().lines().next().unwrap_or_default().to_owned();
    let warning = com1.strip_prefix("firstlight: warning: this boot is not measured, or not all of it: ");
    warning.unwrap_or_else(|| panic!("no warning in {com1:?}")).to_owned()
}

#[test]
fn a_tpm_that_does_not_respond_delays_the_boot_until_a_deadline() {
    // With the other interface, QEMU itself asks swtpm for a register's value, and waits for ever.
    let qemu = with_trouble(&mut Swtpm::new("sha256"), "tpm-crb", |tpm| tpm.stop());
    let expected = "the TPM does not answer: the response to a command is missing; is the host's swtpm running?";
    assert_eq!(warning(&qemu), expected);
}

#[test]
fn a_tpm_that_has_exited_does_not_stop_the_boot() {
    // QEMU answers for it, by either interface in its own way.
    for (device, expected) in
        [("tpm-crb", "the TPM has failed"), ("tpm-tis", "the TPM refused TPM2_Startup: response code 0x9")]
    {
        let qemu = with_trouble(&mut Swtpm::new("sha256"), device, Swtpm::kill);
        assert_eq!(warning(&qemu), expected);
    }
}

#[test]
fn a_tpm_1_2_is_left_alone() {
    let qemu = with_trouble(&mut Swtpm::old(), "tpm-tis", |_| ());
    assert_eq!(
        warning(&qemu),
        "the TPM is one of version 1.2, which is left alone; give the machine a TPM 2.0 (swtpm --tpm2)"
    );
}

/// The registers of `tpm-crb`'s locality 0 (TCG PC Client Platform TPM Profile 1.05, 6.5.2), and its buffer.
const LOCALITY_CONTROL: u64 = 0xfed4_0008;
const CONTROL_REQUEST: u64 = 0xfed4_0040;
const CONTROL_START: u64 = 0xfed4_004c;
const BUFFER: u64 = 0xfed4_0080;

/// `TPM2_Startup` with the given type, `TPM2_Shutdown` of the state (TPM 2.0 library, part 3, 9.3 and 9.4).
const STARTUP_CLEAR: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
const SHUTDOWN_STATE: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x45, 0, 1];
/// `TPM2_HierarchyControl` of the platform by itself, with the empty password that it has after a reset.
const CONTROL_PLATFORM: [u8; 32] = [
    0x80, 2, 0, 0, 0, 32, 0, 0, 1, 0x21, 0x40, 0, 0, 0xc, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 1, 0, 0, 0x40, 0, 0, 0xc, 0,
];
/// The length of the firmware's last command, `TPM2_HierarchyChangeAuth` with a password of 20 bytes.
const PASSWORD_COMMAND: usize = 49;
/// Response codes (part 2, 6.6): success, the TPM was started before, a wrong password for the first session.
const SUCCESS: u32 = 0;
const RC_INITIALIZE: u32 = 0x100;
const RC_BAD_AUTH_1: u32 = 0x9a2;

/// Has the TPM execute a command, as root in a guest can.
fn execute(probe: &mut Probe, command: &[u8]) -> Vec<u8> {
    probe.write(LOCALITY_CONTROL, &1_u32.to_le_bytes());
    probe.write(CONTROL_REQUEST, &1_u32.to_le_bytes());
    probe.write(BUFFER, command);
    probe.write(CONTROL_START, &1_u32.to_le_bytes());
    let start = Instant::now();
    while probe.read32(CONTROL_START) != 0 {
        assert!(start.elapsed() < LIMIT, "the TPM does not answer");
    }
    let size = u32::from_be_bytes(probe.read(BUFFER, 6)[2..].try_into().unwrap());
    let response = probe.read(BUFFER, size as usize);
    probe.write(CONTROL_REQUEST, &2_u32.to_le_bytes());
    probe.write(LOCALITY_CONTROL, &2_u32.to_le_bytes());
    response
}

fn response_code(response: &[u8]) -> u32 {
    u32::from_be_bytes(response[6..10].try_into().unwrap())
}

/// PCRs 0 to 9 of the bank of SHA-256 (`TPM2_PCR_Read`).
fn pcrs(probe: &mut Probe) -> Vec<Vec<u8>> {
    let read = |number: u8| {
        let selection = 1_u32 << number;
        let mut command = vec![0x80, 1, 0, 0, 0, 20, 0, 0, 1, 0x7e, 0, 0, 0, 1, 0, 0x0b, 3];
        command.extend(&selection.to_le_bytes()[..3]);
        let response = execute(probe, &command);
        assert_eq!(response_code(&response), SUCCESS, "PCR {number}");
        response[response.len() - 32..].to_vec()
    };
    (0..10).map(read).collect()
}

/// Checks that the TPM was started, so that root cannot start it anew, and that the platform hierarchy is closed.
fn check_closed(probe: &mut Probe) {
    check_no_password(&probe.qemu);
    assert_eq!(response_code(&execute(probe, &STARTUP_CLEAR)), RC_INITIALIZE, "the TPM was not started");
    assert_eq!(response_code(&execute(probe, &CONTROL_PLATFORM)), RC_BAD_AUTH_1, "the platform hierarchy is open");
}

/// Boots the probe with a TPM.
fn boot_with(tpm: &Swtpm, machine: &Machine) -> Probe {
    let machine = tpm.on(&Machine { reboots: true, ..machine.clone() }, "tpm-crb");
    let mut probe = Probe::boot(&machine, &BzImage::new(), Some(b"initrd"), Some("words"));
    let left = probe.read(BUFFER, PASSWORD_COMMAND);
    assert!(left.iter().all(|&byte| byte == 0), "the buffer still has the platform's password: {left:02x?}");
    check_closed(&mut probe);
    probe
}

/// Checks that the firmware's memory has neither the command that set the platform's password nor the response with the numbers
/// that it was made of. A guest that had them could clear the TPM and change its banks for all boots to come.
fn check_no_password(qemu: &Qemu) {
    const CHANGE_AUTH: [u8; 8] = [0, 0, 1, 0x29, 0x40, 0, 0, 0x0c];
    const RANDOM: [u8; 12] = [0x80, 1, 0, 0, 0, 32, 0, 0, 0, 0, 0, 20];
    let path = qemu.folder().join("memory");
    qemu.qmp().run("pmemsave", &format!("{{\"val\": 0, \"size\": {}, \"filename\": {path:?}}}", 1 << 20));
    let memory = fs::read(path).expect("the memory that QEMU has saved");
    for part in [&CHANGE_AUTH[..], &RANDOM] {
        let found = memory.windows(part.len()).position(|bytes| bytes == part);
        assert_eq!(found, None, "where a password of the TPM is");
    }
}

/// A program looks for the password while it has boot services.
#[test]
fn an_efi_program_finds_no_password_of_the_tpm() {
    let tpm = Swtpm::new("sha256");
    let folder = TempDir::new().expect("a temporary folder");
    let program = efi_protocols::program(folder.path(), "efi_fault.s", &["--defsym", "FAULT=1"]);
    for device in ["tpm-tis", "tpm-crb"] {
        let machine = Machine { kernel: Some(program.clone()), memory: "128M", ..Machine::new(Kind::Q35) };
        let mut qemu = tpm.on(&machine, device).start();
        qemu.wait_for("message", |qemu| qemu.com1().contains("CPU exception"));
        check_no_password(&qemu);
    }
}

/// Root wants a reset that looks like a wake, so that the firmware does not start the TPM and root can forge a boot in it.
#[test]
fn a_plain_reset_is_measured_whatever_a_guest_left() {
    let tpm = Swtpm::new("sha256");
    for kind in Kind::ALL {
        for machine in [Machine::new(kind), Machine::new(kind).with(NO_S3)] {
            let mut probe = boot_with(&tpm, &machine);
            let first = pcrs(&mut probe);
            for way in WAYS {
                // With the TPM's state saved, as before a suspend.
                assert_eq!(response_code(&execute(&mut probe, &SHUTDOWN_STATE)), SUCCESS);
                forge_wake(&mut probe);
                way.take(&mut probe);
                check_closed(&mut probe);
                assert_eq!(pcrs(&mut probe), first, "{way:?}: {machine:?}");
            }
            assert_eq!(probe.qemu.com1(), "");
        }
    }
}

/// QEMU's tables list no TPM there. The PCRs are those of a machine whose tables list it.
#[test]
fn machines_whose_tables_list_no_tpm_are_measured() {
    let tpm = Swtpm::new("sha256");
    let listed = pcrs(&mut boot_with(&tpm, &Machine::new(Kind::Q35)));
    let without_acpi = Kind::ALL.map(|kind| Machine { properties: ",acpi=off", ..Machine::new(kind) });
    let microvms = [&["isa-serial"][..], &["isa-serial", "acpi"]].map(microvm::machine);
    for machine in without_acpi.into_iter().chain(microvms).chain([isapc::machine(Emulator::Installed)]) {
        eprintln!("{machine:?}");
        // Each machine has a TPM that was just switched on, because its TPM exits with it.
        let mut probe = boot_with(&tpm, &machine);
        assert_eq!(pcrs(&mut probe), listed);
    }
}

/// The guest forges the record that the machine wakes by.
#[test]
fn a_wake_by_a_forged_record_resumes_the_tpm() {
    let tpm = Swtpm::new("sha256");
    for kind in Kind::ALL {
        let mut probe = boot_with(&tpm, &Machine::new(kind));
        let first = pcrs(&mut probe);
        assert_eq!(response_code(&execute(&mut probe, &SHUTDOWN_STATE)), SUCCESS);
        forge_wake(&mut probe);
        sleep(&mut probe);
        probe.wait_for_wake();
        check_closed(&mut probe);
        assert_eq!(pcrs(&mut probe), first);
        assert_eq!(probe.qemu.com1(), "");
    }
}

#[test]
fn a_wake_without_a_saved_state_shows_in_the_pcrs() {
    let separator = event_log::extend(SHA256, &[0; 32], &event_log::digest(SHA256, &[1, 0, 0, 0]));
    let tpm = Swtpm::new("sha256");
    for kind in Kind::ALL {
        let mut probe = boot_with(&tpm, &Machine::new(kind));
        let first = pcrs(&mut probe);
        forge_wake(&mut probe);
        sleep(&mut probe);
        probe.wait_for_wake();
        check_closed(&mut probe);
        assert_eq!(pcrs(&mut probe), vec![separator.clone(); 10]);
        assert!(
            probe.qemu.com1().starts_with("firstlight: warning: the TPM's state from before the suspend is lost: ")
        );
        // And the next boot is measured as usual.
        probe.reset();
        check_closed(&mut probe);
        assert_eq!(pcrs(&mut probe), first);
    }
}
