//! `cargo xtask clients`: follows the recipes of docs/clients.md, with the tools that people start virtual machines with.
//!
//! The page is the source: its blocks of code are written to files or run, word for word (`page`). What differs on a machine
//! without hardware virtualisation is in `FOR_TCG`. Each recipe runs as on a machine where the Debian package and kernels are
//! installed, in namespaces of its own (`sandbox.sh`): it changes nothing of the machine, and leaves no process behind.

mod page;

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use self::page::Section;
use crate::packages::{self, Need, is_root};
use crate::progress::{run_quietly, run_step, say};
use crate::qemu::{self, Accelerator, Request};
use crate::{child, guest, image, paths};

/// Runs a recipe in namespaces of its own.
const SANDBOX: &str = include_str!("sandbox.sh");

/// The descriptor of the firmware for libvirt.
const DESCRIPTOR: &str = include_str!("../../../packaging/90-firstlight.json");

/// The version of virtme-ng. Debian 12 has no package of it.
const VIRTME_NG: &str = "virtme-ng==1.42";

/// The daemon with which virtme-ng shares the host's files on microvm, a crate. Debian 12 has none that serves ordinary users.
const VIRTIOFSD: (&str, &str) = ("virtiofsd", "1.13.2");

/// How many of the last lines of a failed recipe are shown: the guest's serial console among them.
const SHOWN_LINES: usize = 60;

/// The changes to the page's text on a machine without hardware virtualisation: what is replaced by what.
const FOR_TCG: [(&str, &str); 7] = [
    ("<domain type='kvm'>", "<domain type='qemu'>"),
    ("virt-install ", "virt-install --virt-type qemu "),
    ("-accel kvm", "-accel tcg"),
    ("accel = \"kvm\"", "accel = \"tcg\""),
    ("vng --disable-microvm ", "vng --disable-microvm --disable-kvm "),
    // virtme-ng uses microvm only with KVM, and takes it for granted if it can open its device.
    ("vng --run", "vng -o='-machine accel=tcg' -o='-cpu max' --append tsc_early_khz=2500000 --run"),
    // On a busy host, the timers of an emulated CPU are late.
    ("console=ttyS0", "console=ttyS0 no_timer_check tsc=nowatchdog"),
];

/// What the environment has in addition on a machine without hardware virtualisation.
const ENVIRONMENT_FOR_TCG: (&str, &str) = ("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");

/// Follow the recipes of docs/clients.md: libvirt, libguestfs, virtme-ng and others
///
/// Installs these tools first. Each recipe runs as it is written there, in namespaces of its own, and leaves nothing behind. Prints
/// the end of a failed recipe's output, with the guest's serial console; all of it is in target/clients.
#[derive(clap::Args)]
pub struct Args {
    /// Only the quick recipes, which `cargo xtask test` runs too
    #[arg(long)]
    quick: bool,

    /// Only recipes whose names contain this
    filter: Option<String>,
}

/// How a section of the page is run. The page has everything else.
#[derive(Debug)]
struct Recipe {
    /// The name of the section, as in a link to it.
    name: &'static str,
    /// What must be installed.
    needs: &'static [Need],
    /// Whether it takes only a few seconds.
    quick: bool,
    /// Who runs it.
    user: User,
    /// The longest time that it may take.
    limit: Duration,
    /// What it must print, in any order. A file of /var/tmp with the ending `log` counts as printed.
    expected: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    /// A user with no privileges.
    Ordinary,
    Root,
}

/// The firmware's first line, and the last one of the default guest's report.
const BOOTED: &[&str] = &["firstlight: info: Firstlight ", "firstlight-guest: done"];

const LIBVIRT: &[Need] = &[
    Need::tool("libvirtd", &["libvirt-daemon"], "run libvirt's domains"),
    Need::tool(
        "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so",
        &["libvirt-daemon-driver-qemu"],
        "run libvirt's domains",
    ),
    Need::tool("virsh", &["libvirt-clients"], "run libvirt's domains"),
    Need::tool("virt-install", &["virtinst"], "make a libvirt domain"),
];

const LIBGUESTFS: &[Need] = &[Need::tool("libguestfs-test-tool", &["libguestfs-tools"], "test libguestfs")];

const VIRTME: &[Need] =
    &[Need::tool("pip3", &["python3-pip"], "install virtme-ng"), Need::tool("getfacl", &["acl"], "run virtme-ng")];

/// virtiofsd, a crate, is linked with these.
const VIRTME_MICROVM: &[Need] = &[
    VIRTME[0],
    VIRTME[1],
    Need::tool("/usr/include/cap-ng.h", &["libcap-ng-dev"], "build virtiofsd"),
    Need::tool("/usr/include/seccomp.h", &["libseccomp-dev"], "build virtiofsd"),
];

const RECIPES: &[Recipe] = &[
    Recipe {
        name: "a-domain-that-names-the-file",
        needs: LIBVIRT,
        quick: true,
        user: User::Ordinary,
        limit: Duration::from_secs(60),
        expected: BOOTED,
    },
    Recipe {
        name: "a-domain-that-names-no-file",
        needs: LIBVIRT,
        quick: true,
        user: User::Ordinary,
        limit: Duration::from_secs(60),
        expected: BOOTED,
    },
    Recipe {
        name: "virt-install",
        needs: LIBVIRT,
        quick: true,
        user: User::Ordinary,
        limit: Duration::from_secs(60),
        expected: BOOTED,
    },
    Recipe {
        name: "a-domain-that-does-not-boot",
        needs: LIBVIRT,
        quick: true,
        user: User::Ordinary,
        limit: Duration::from_secs(60),
        expected: &["firstlight: error: no kernel and no disk: give the host a kernel (QEMU -kernel, libvirt <kernel>"],
    },
    Recipe {
        name: "qemu-with-a-configuration-file",
        needs: &[],
        quick: true,
        user: User::Ordinary,
        limit: Duration::from_secs(60),
        expected: BOOTED,
    },
    Recipe {
        name: "flash-memory",
        needs: &[],
        quick: true,
        user: User::Ordinary,
        limit: Duration::from_secs(60),
        expected: BOOTED,
    },
    Recipe {
        name: "libguestfs",
        needs: LIBGUESTFS,
        quick: false,
        user: User::Root,
        limit: Duration::from_secs(300),
        expected: &["firstlight: info: Firstlight ", "===== TEST FINISHED OK ====="],
    },
    Recipe {
        name: "virtme-ng-on-q35",
        needs: VIRTME,
        quick: false,
        user: User::Ordinary,
        limit: Duration::from_secs(300),
        expected: &["Firstlight\r\n"],
    },
    Recipe {
        name: "virtme-ng-on-microvm",
        needs: VIRTME_MICROVM,
        quick: false,
        user: User::Ordinary,
        limit: Duration::from_secs(300),
        expected: &["firstlight: info: Firstlight ", "reboot: Power down"],
    },
];

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let fits = |recipe: &&Recipe| {
        (recipe.quick || !args.quick) && args.filter.as_ref().is_none_or(|filter| recipe.name.contains(filter))
    };
    let recipes: Vec<_> = RECIPES.iter().filter(fits).collect();
    let names = || RECIPES.iter().map(|recipe| recipe.name).collect::<Vec<_>>().join(", ");
    ensure!(!recipes.is_empty(), "no recipe has such a name; there are {}", names());
    packages::ensure(&[packages::QEMU, packages::BUSYBOX, packages::KMOD])?;
    for recipe in &recipes {
        packages::ensure(recipe.needs)?;
    }
    run_all(&recipes, &image::build()?.bin)
}

/// Installs what the quick recipes need. An error is the reason why they cannot be run on this machine.
pub fn prepare_quick() -> anyhow::Result<()> {
    check_namespaces()?;
    let needs: Vec<_> = quick().iter().flat_map(|recipe| recipe.needs).copied().collect();
    packages::ensure(&needs).map(drop)
}

/// Runs the quick recipes with this image.
pub fn check_quick(image: &Path) -> anyhow::Result<()> {
    run_all(&quick(), image)
}

fn quick() -> Vec<&'static Recipe> {
    RECIPES.iter().filter(|recipe| recipe.quick).collect()
}

fn run_all(recipes: &[&Recipe], image: &Path) -> anyhow::Result<()> {
    let sections = page::sections(page::PAGE);
    let machine = Machine::prepare(image)?;
    let (accelerator, _) = qemu::accelerator(Request::Auto)?;
    let mut failures = Vec::new();
    for recipe in recipes {
        let section = sections.iter().find(|section| section.name == recipe.name);
        let section = section.with_context(|| format!("docs/clients.md has no section {}", recipe.name))?;
        let skipped = match recipe.name {
            _ if recipe.user == User::Root && !is_root() => "only root can run it",
            "virtme-ng-on-microvm" if !qemu::kvm_opens() => "virtme-ng needs /dev/kvm for it",
            _ => "",
        };
        if !skipped.is_empty() {
            say(&format!("{:<32} skipped: {skipped}", recipe.name));
            continue;
        }
        let start = Instant::now();
        let result = machine.follow(recipe, section, accelerator);
        let taken = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => say(&format!("{:<32} {taken:>5.1} s", recipe.name)),
            Err(error) => {
                say(&format!("{:<32} FAILED after {taken:.1} s: {error:#}", recipe.name));
                failures.push(recipe.name);
            }
        }
    }
    ensure!(failures.is_empty(), "these recipes of docs/clients.md failed: {}", failures.join(", "));
    Ok(())
}

/// The machine that the recipes see: this one, with the firmware and kernels installed.
struct Machine {
    image: PathBuf,
    /// The default guest: for recipes that name a kernel and an initrd.
    guest: guest::Guest,
    /// A kernel with all drivers: for tools that take one which is installed.
    kernel: guest::Kernel,
}

impl Machine {
    fn prepare(image: &Path) -> anyhow::Result<Self> {
        check_namespaces()?;
        Ok(Self { image: image.to_owned(), guest: guest::prepare()?, kernel: guest::console_kernel()? })
    }

    /// Runs a recipe, and checks what it prints.
    fn follow(&self, recipe: &Recipe, section: &Section, accelerator: Accelerator) -> anyhow::Result<()> {
        let folder = paths::target().join("clients").join(recipe.name);
        let _lock = paths::lock(&paths::target().join("clients"))?;
        paths::remake(&folder)?;
        self.install(&folder)?;
        let adapt = |text: &str| match accelerator {
            Accelerator::Kvm => text.to_owned(),
            Accelerator::Tcg => FOR_TCG.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to)),
        };
        let write = |name: &str, text: &str| {
            fs::write(folder.join(name), text).with_context(|| format!("cannot write {name} in {}", folder.display()))
        };
        for (name, text) in &section.files {
            write(name, &adapt(text))?;
        }
        write("recipe.sh", &adapt(&section.script))?;
        write("sandbox.sh", SANDBOX)?;
        let output = folder.join("output.log");
        let file = File::create(&output).with_context(|| format!("cannot write {}", output.display()))?;
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", &recipe.limit.as_secs().to_string()]);
        let unshare = unshare();
        command.arg(unshare.get_program()).args(unshare.get_args());
        command.args(["sh", "sandbox.sh", if recipe.user == User::Root { "root" } else { "ordinary" }]);
        command.current_dir(&folder);
        if accelerator == Accelerator::Tcg {
            command.env(ENVIRONMENT_FOR_TCG.0, ENVIRONMENT_FOR_TCG.1);
        }
        if recipe.needs.starts_with(VIRTME) {
            let python = virtme_ng()?;
            let mut programs = vec![python.join("bin")];
            if recipe.needs == VIRTME_MICROVM {
                programs.push(virtiofsd()?);
            }
            programs.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
            command.env("PYTHONPATH", &python).env("PATH", env::join_paths(programs)?);
        }
        let mut command = child::tied(&command);
        command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
        let start = Instant::now();
        let status = command.status().context("cannot start timeout")?;
        let in_time = start.elapsed() < recipe.limit;
        let printed = printed(&folder)?;
        let show = || {
            let lines: Vec<_> = printed.lines().collect();
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                say(&format!("    {line}"));
            }
            say(&format!("    (all of it is in {})", paths::shown(&folder)));
        };
        if !in_time {
            show();
            bail!("it did not end in {} s", recipe.limit.as_secs());
        }
        if !status.success() {
            show();
            bail!("it ended with {status}");
        }
        if let Some(missing) = recipe.expected.iter().find(|text| !printed.contains(**text)) {
            show();
            bail!("it did not print {missing:?}");
        }
        Ok(())
    }

    /// Puts what is installed into the recipe's folder, where `sandbox.sh` takes it from.
    fn install(&self, folder: &Path) -> anyhow::Result<()> {
        let modules = format!("usr/lib/modules/{}", self.kernel.release);
        for part in ["usr/share/firstlight", "usr/share/qemu/firmware", &modules, "work", "boot", "tmp"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("cannot make {part}"))?;
        }
        let copy = |from: &Path, to: &str| {
            fs::copy(from, folder.join(to)).with_context(|| format!("cannot copy {}", from.display())).map(drop)
        };
        copy(&self.image, "usr/share/firstlight/firstlight.bin")?;
        fs::write(folder.join("usr/share/qemu/firmware/90-firstlight.json"), DESCRIPTOR)?;
        copy(&self.guest.kernel.image, "boot/vmlinuz")?;
        copy(&self.guest.initrd, "boot/initrd.img")?;
        copy(&self.kernel.image, &format!("boot/vmlinuz-{}", self.kernel.release))?;
        symlink(&self.kernel.modules, folder.join(format!("boot/modules-{}", self.kernel.release)))
            .context("cannot link the kernel's modules")
    }
}

/// A command that runs another one, which its arguments name, in new namespaces. All processes of it end with it.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}

/// Checks that this machine allows namespaces.
fn check_namespaces() -> anyhow::Result<()> {
    let mut probe = unshare();
    run_quietly(probe.arg("true"))
        .map(drop)
        .context("recipes run in namespaces of their own, and this machine allows none")
}

/// Everything that a recipe has printed, and what is in its logs.
fn printed(folder: &Path) -> anyhow::Result<String> {
    let mut logs: Vec<_> = fs::read_dir(folder.join("tmp"))?.flatten().map(|entry| entry.path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    let mut all = Vec::new();
    for path in [folder.join("output.log")].iter().chain(&logs) {
        all.extend(fs::read(path).with_context(|| format!("cannot read {}", path.display()))?);
        all.write_all(b"\n")?;
    }
    Ok(String::from_utf8_lossy(&all).into_owned())
}

/// Installs virtme-ng below the build folder. Returns the folder: Python's modules, and programs in `bin`.
fn virtme_ng() -> anyhow::Result<PathBuf> {
    let folder = paths::target().join("clients").join("virtme-ng-program");
    if !folder.join("bin/vng").is_file() {
        let mut command = Command::new("pip3");
        command.args(["install", "--quiet", "--disable-pip-version-check", "--target"]).arg(&folder).arg(VIRTME_NG);
        run_step("Downloading virtme-ng", &mut command)?;
    }
    Ok(folder)
}

/// Builds virtiofsd below the build folder. Returns the folder of the program.
fn virtiofsd() -> anyhow::Result<PathBuf> {
    let folder = paths::target().join("clients").join("virtiofsd-program");
    let programs = folder.join("bin");
    if !programs.join(VIRTIOFSD.0).is_file() {
        let mut command = paths::cargo();
        command.args(["install", "--quiet", "--locked", VIRTIOFSD.0, "--version", VIRTIOFSD.1]);
        command.arg("--root").arg(&folder);
        run_step("Building virtiofsd", &mut command)?;
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_of_the_page_is_run() {
        let sections = page::sections(page::PAGE);
        let on_page: Vec<_> = sections.iter().map(|section| section.name.as_str()).collect();
        let run: Vec<_> = RECIPES.iter().map(|recipe| recipe.name).collect();
        assert_eq!(on_page, run);
    }

    #[test]
    fn what_is_replaced_without_hardware_virtualisation_is_on_the_page() {
        for (from, _) in FOR_TCG {
            assert!(page::PAGE.contains(from), "{from}");
        }
    }
}
