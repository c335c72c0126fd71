//! A QEMU process with the image, its consoles, and its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::child;
use crate::environment;
use crate::qmp::Qmp;

/// How long anything that a test waits for may take: far more than it does, as the host may be busy. Linux on a CPU
/// that is emulated takes the longest.
pub const LIMIT: Duration = Duration::from_secs(120);

/// How often what is waited for is looked at.
const POLL: Duration = Duration::from_millis(10);

/// The socket on which QEMU takes commands, in the folder of its run.
const QMP_SOCKET: &str = "qmp";

/// QEMU's machine types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Q35,
    Pc,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Q35, Self::Pc];
}

/// The transport of fw_cfg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Dma,
    Ports,
}

impl Transport {
    pub const ALL: [Self; 2] = [Self::Dma, Self::Ports];
}

/// The firmware that the machine starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// This project's image.
    Firstlight,
    /// The one that QEMU takes by itself, to compare with.
    SeaBios,
    /// qboot, which is QEMU's as well.
    Qboot,
    /// OVMF, to compare EFI with.
    Ovmf,
}

/// Which QEMU runs the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulator {
    /// The one that is installed: 7.2 on Debian 12.
    Installed,
    /// One of version 10 or later beside it.
    Newer,
}

impl Emulator {
    /// All there are on this host. If there is no newer one, the output of the test says why.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Installed].into_iter().chain(Self::newer())
    }

    /// The newer one, if there is one. If not, the output of the test says why.
    pub fn newer() -> Option<Self> {
        environment::newer_qemu()
            .map(|_| Self::Newer)
            .inspect_err(|why| eprintln!("skipped: no newer QEMU: {why}"))
            .ok()
    }
}

/// What executes the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Tcg,
    Kvm,
}

impl Accelerator {
    /// KVM, if this host lets the tests have it. If it does not, the output of the test says so.
    pub fn kvm() -> Option<Self> {
        match File::options().read(true).write(true).open("/dev/kvm") {
            Ok(_) => Some(Self::Kvm),
            Err(error) => {
                eprintln!("skipped: /dev/kvm does not open: {error}");
                None
            }
        }
    }
}

/// A machine to start: without default devices, with one CPU, and ended by QEMU where it would restart.
#[derive(Clone, Debug)]
pub struct Machine {
    pub emulator: Emulator,
    pub kind: Kind,
    /// Of which version of QEMU the machine is; the newest unless given.
    pub version: Option<&'static str>,
    /// More of the machine's properties, as `-machine` takes them.
    pub properties: &'static str,
    /// As `-m` takes it.
    pub memory: &'static str,
    pub cpus: u8,
    pub transport: Transport,
    pub accelerator: Accelerator,
    pub firmware: Firmware,
    /// Whether the machine has QEMU's default devices.
    pub default_devices: bool,
    /// Whether there is a serial port.
    pub com1: bool,
    /// Whether the machine starts again when it is reset.
    pub reboots: bool,
    pub kernel: Option<PathBuf>,
    pub initrd: Option<PathBuf>,
    pub append: Option<String>,
    /// More arguments.
    pub arguments: Vec<String>,
}

impl Machine {
    pub fn new(kind: Kind) -> Self {
        Self {
            emulator: Emulator::Installed,
            kind,
            version: None,
            properties: "",
            memory: "128M",
            cpus: 1,
            transport: Transport::Dma,
            accelerator: Accelerator::Tcg,
            firmware: Firmware::Firstlight,
            default_devices: false,
            com1: true,
            reboots: false,
            kernel: None,
            initrd: None,
            append: None,
            arguments: Vec::new(),
        }
    }

    /// The machine with more arguments, divided by white space.
    pub fn with(mut self, arguments: &str) -> Self {
        self.arguments.extend(arguments.split_whitespace().map(str::to_owned));
        self
    }

    /// Starts it.
    pub fn start(&self) -> Qemu {
        let folder = TempDir::new().expect("a temporary folder");
        let command = self.command(folder.path());
        let output = File::create(folder.path().join("qemu")).expect("a file in the temporary folder");
        let errors = output.try_clone().expect("a second handle of a file");
        let line = format!("{command:?}");
        let mut command = child::tied(&command);
        let child = command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn();
        let child = child.expect("setpriv (util-linux) starts; `cargo xtask setup` installs QEMU");
        Qemu { child, folder, line, status: None }
    }

    fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(match self.emulator {
            Emulator::Installed => PathBuf::from("qemu-system-x86_64"),
            Emulator::Newer => environment::newer_qemu().expect("a newer QEMU"),
        });
        command.args(["-no-user-config", "-display", "none"]);
        command.args(["-monitor", "none", "-parallel", "none"]);
        command.args(["-qmp", &format!("unix:{},server=on,wait=off", folder.join(QMP_SOCKET).display())]);
        if !self.default_devices {
            command.arg("-nodefaults");
        }
        if !self.reboots {
            command.arg("-no-reboot");
        }
        let kind = match (self.kind, self.version) {
            (Kind::Q35, None) => "q35".to_owned(),
            (Kind::Pc, None) => "pc".to_owned(),
            (Kind::Q35, Some(version)) => format!("pc-q35-{version}"),
            (Kind::Pc, Some(version)) => format!("pc-i440fx-{version}"),
        };
        command.args(["-machine", &format!("{kind}{}", self.properties), "-m", self.memory]);
        command.args(["-smp", &self.cpus.to_string()]);
        // With QEMU's default CPU, which every KVM can run: some cannot run a copy of the host's.
        let accelerator = match self.accelerator {
            Accelerator::Tcg => "tcg",
            Accelerator::Kvm => "kvm",
        };
        command.args(["-accel", accelerator]);
        if self.transport == Transport::Ports {
            command.args(["-global", "fw_cfg.dma_enabled=off"]);
        }
        let console = |name: &str| format!("file,id={name},path={}", folder.join(name).display());
        if self.com1 {
            command.args(["-chardev", &console("com1"), "-serial", "chardev:com1"]);
        }
        command.args(["-chardev", &console("debug"), "-device", "isa-debugcon,iobase=0x402,chardev=debug"]);
        match self.firmware {
            Firmware::Firstlight => {
                command.arg("-bios").arg(environment::image());
            }
            Firmware::SeaBios => {}
            Firmware::Qboot => {
                command.args(["-bios", "qboot.rom"]);
            }
            Firmware::Ovmf => {
                command.arg("-bios").arg(environment::ovmf().expect("OVMF"));
            }
        }
        if let Some(kernel) = &self.kernel {
            command.arg("-kernel").arg(kernel);
        }
        if let Some(initrd) = &self.initrd {
            command.arg("-initrd").arg(initrd);
        }
        if let Some(append) = &self.append {
            command.args(["-append", append]);
        }
        command.args(&self.arguments);
        command
    }
}

/// A running QEMU. Dropped, it is ended; with the test failing, it says what was on its consoles.
pub struct Qemu {
    child: Child,
    folder: TempDir,
    line: String,
    status: Option<ExitStatus>,
}

impl Qemu {
    /// What came out of COM1.
    pub fn com1(&self) -> String {
        self.text("com1")
    }

    /// What came out of the debug console.
    pub fn debug_console(&self) -> String {
        self.text("debug")
    }

    /// A connection to QEMU itself. Ended before the next one is made.
    pub fn qmp(&self) -> Qmp {
        Qmp::connect(&self.folder().join(QMP_SOCKET))
    }

    /// A folder for files of this run.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What QEMU itself printed, with what `-d` and `-trace` make it print.
    pub fn log(&self) -> String {
        self.text("qemu")
    }

    fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join(name)).unwrap_or_default()).into_owned()
    }

    /// Whether QEMU has not ended.
    pub fn is_running(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("the state of a child");
        }
        self.status.is_none()
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    /// When it does not, and QEMU ends or the time is up.
    pub fn wait_for(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        self.wait_within(LIMIT, what, condition);
    }

    /// The same for what takes longer.
    pub fn wait_within(&mut self, limit: Duration, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        loop {
            // Asked before the condition, so that what QEMU did at its very end counts.
            let running = self.is_running();
            if condition(self) {
                return;
            }
            assert!(running, "QEMU ended ({:?}) without {what}", self.status);
            assert!(start.elapsed() < limit, "no {what} after {limit:?}");
            thread::sleep(POLL);
        }
    }

    /// Waits until QEMU ends by itself.
    ///
    /// # Panics
    /// When it does not before the time is up, or not with success.
    pub fn wait_for_end(&mut self) {
        let start = Instant::now();
        while self.is_running() {
            assert!(start.elapsed() < LIMIT, "QEMU has not ended after {LIMIT:?}");
            thread::sleep(POLL);
        }
        assert!(self.status.is_some_and(|status| status.success()), "QEMU ended with {:?}", self.status);
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        if self.is_running() {
            // It may end at this moment; then there is nothing left to be done.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            eprintln!("{}", self.line);
            for (name, what) in [("qemu", "QEMU"), ("com1", "COM1"), ("debug", "debug console")] {
                eprintln!("---- {what}\n{}", self.text(name));
            }
            eprintln!("----");
        }
    }
}
