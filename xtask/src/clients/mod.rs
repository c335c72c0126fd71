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
use crate::progress::{limited, parallel, run_quietly, run_step, say};
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
/// the end of a failed recipe's output, with the guest's serial console; its files stay in target/clients.
#[derive(clap::Args)]
pub struct Args {
    /// Only the quick recipes, which `cargo xtask test` runs too
    #[arg(long)]
    quick: bool,

    /// Install the firmware from this Debian package of `cargo xtask dist`, instead of building it
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,

    /// Only recipes whose names contain this; they are the names of the page's sections, such as virt-install
    filter: Option<String>,
}

/// What is installed for the recipes.
enum Firmware {
    /// This image, with the descriptor of the sources.
    Image(PathBuf),
    /// This Debian package.
    Package(PathBuf),
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
    /// What it must print, in any order. A file of /var/tmp with the ending `log` counts as printed.
    expected: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum User {
    /// A user with no privileges.
    Ordinary,
    Root,
}

/// The recipe whose guest boots from a disk, and the disk (`tools/disks`).
const WITH_DISK: &str = "a-domain-with-a-disk";
const DISK: &str = "c-uki257";

/// The recipe that needs virtiofsd.
const ON_MICROVM: &str = "virtme-ng-on-microvm";

/// How many recipes run at a time. Much of their time is the tools' own waiting.
const AT_ONCE: usize = 2;

/// The firmware's first line.
const STARTED: &str = "firstlight: info: Firstlight ";
/// The last line of the default guest's report.
const DONE: &str = "firstlight-guest: done";
const BOOTED: &[&str] = &[STARTED, DONE];

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
    Recipe::quick("a-domain-that-names-the-file", LIBVIRT, BOOTED),
    Recipe::quick(
        "a-domain-that-names-no-file",
        LIBVIRT,
        &["-bios /usr/share/firstlight/firstlight.bin", STARTED, DONE],
    ),
    Recipe::quick(WITH_DISK, LIBVIRT, &["firstlight: debug: ", "firstlight-guest: booted from disk c-uki257"]),
    Recipe::quick("virt-install", LIBVIRT, BOOTED),
    Recipe::quick(
        "a-domain-that-does-not-boot",
        LIBVIRT,
        &["firstlight: error: no kernel and no disk: give the host a kernel (QEMU -kernel, libvirt <kernel>"],
    ),
    Recipe::quick("qemu-with-a-configuration-file", &[], BOOTED),
    Recipe::quick("flash-memory", &[], BOOTED),
    Recipe::slow("libguestfs", LIBGUESTFS, User::Root, &[STARTED, "===== TEST FINISHED OK ====="]),
    Recipe::slow("virtme-ng-on-q35", VIRTME, User::Ordinary, &["Firstlight\r\n"]),
    Recipe::slow(ON_MICROVM, VIRTME_MICROVM, User::Ordinary, &[STARTED, "reboot: Power down"]),
];

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let fits = |recipe: &&Recipe| {
        (recipe.quick || !args.quick) && args.filter.as_ref().is_none_or(|filter| recipe.name.contains(filter))
    };
    let recipes: Vec<_> = RECIPES.iter().filter(fits).collect();
    let names = || RECIPES.iter().filter(|recipe| recipe.quick || !args.quick).map(|recipe| recipe.name);
    let quick = if args.quick { "quick " } else { "" };
    ensure!(
        !recipes.is_empty(),
        "no {quick}recipe has such a name; there are {}",
        names().collect::<Vec<_>>().join(", ")
    );
    packages::ensure(&[packages::QEMU, packages::BUSYBOX, packages::KMOD])?;
    for recipe in &recipes {
        packages::ensure(recipe.needs)?;
        if recipe.name == WITH_DISK && !disk().is_file() {
            run_step("Making the disk to boot from", paths::member("disks").arg(DISK))?;
        }
    }
    let firmware = match &args.package {
        Some(package) => Firmware::Package(package.clone()),
        None => Firmware::Image(image::build()?.bin),
    };
    run_all(&recipes, firmware)
}

/// Installs what the quick recipes need. An error is the reason why they cannot be run on this machine.
pub fn prepare_quick() -> anyhow::Result<()> {
    {
        let _lock = paths::lock(&folder())?;
        check_sandbox(&folder().join("check"))?;
    }
    let needs: Vec<_> = quick().iter().flat_map(|recipe| recipe.needs).copied().collect();
    packages::ensure(&needs).map(drop)
}

/// Runs the quick recipes with the Debian package of a release.
pub fn check_quick() -> anyhow::Result<()> {
    let _lock = paths::lock_release()?;
    let dist = paths::release_folder();
    let mut files = fs::read_dir(&dist)?.flatten().map(|entry| entry.path());
    let package = files.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    run_all(&quick(), Firmware::Package(package.with_context(|| format!("no package in {}", dist.display()))?))
}

fn quick() -> Vec<&'static Recipe> {
    RECIPES.iter().filter(|recipe| recipe.quick).collect()
}

fn run_all(recipes: &[&Recipe], firmware: Firmware) -> anyhow::Result<()> {
    let sections = page::sections(page::PAGE);
    let _lock = paths::lock(&folder())?;
    let machine = Machine::prepare(firmware, recipes)?;
    let failed = parallel(recipes, AT_ONCE, |recipe| {
        let section = sections.iter().find(|section| section.name == recipe.name);
        let section = section.with_context(|| format!("docs/clients.md has no section {}", recipe.name))?;
        let start = Instant::now();
        let result = match recipe.why_not() {
            Some(why) => format!("skipped: {why}"),
            None => match machine.follow(recipe, section) {
                Ok(()) => format!("{:>5.1} s", start.elapsed().as_secs_f64()),
                Err(error) => {
                    say(&format!("{:<32} FAILED: {error:#}", recipe.name));
                    return Ok(Some(recipe.name));
                }
            },
        };
        say(&format!("{:<32} {result}", recipe.name));
        Ok(None)
    })?;
    let failed: Vec<_> = failed.into_iter().flatten().collect();
    ensure!(failed.is_empty(), "these recipes of docs/clients.md failed: {}", failed.join(", "));
    Ok(())
}

/// The folder of what this command downloads, and of the recipes that run or have failed.
fn folder() -> PathBuf {
    paths::target().join("clients")
}

impl Recipe {
    const fn quick(name: &'static str, needs: &'static [Need], expected: &'static [&'static str]) -> Self {
        Self { name, needs, quick: true, user: User::Ordinary, expected }
    }

    const fn slow(name: &'static str, needs: &'static [Need], user: User, expected: &'static [&'static str]) -> Self {
        Self { name, needs, quick: false, user, expected }
    }

    /// The longest time that it may take.
    const fn limit(&self) -> Duration {
        Duration::from_secs(if self.quick { 60 } else { 300 })
    }

    /// Why this machine cannot run it.
    fn why_not(&self) -> Option<&'static str> {
        match self.name {
            _ if self.user == User::Root && !is_root() => Some("only root can run it"),
            WITH_DISK if !disk().is_file() => Some("its disk is not there (cargo xtask disks c-uki257)"),
            ON_MICROVM if !qemu::kvm_opens() => Some("virtme-ng needs /dev/kvm for it"),
            _ => None,
        }
    }
}

/// The machine that the recipes see: this one, with the firmware and kernels installed.
struct Machine {
    accelerator: Accelerator,
    firmware: Firmware,
    /// The default guest: for recipes that name a kernel and an initrd.
    guest: guest::Guest,
    /// A kernel with all drivers: for tools that take one which is installed.
    kernel: guest::Kernel,
    /// The folder of virtme-ng's Python modules, with programs in `bin`.
    virtme_ng: Option<PathBuf>,
    /// The program virtiofsd.
    virtiofsd: Option<PathBuf>,
}

impl Machine {
    fn prepare(firmware: Firmware, recipes: &[&Recipe]) -> anyhow::Result<Self> {
        check_sandbox(&folder().join("check"))?;
        let has = |needs| recipes.iter().any(|recipe| recipe.needs == needs && recipe.why_not().is_none());
        let on_microvm = has(VIRTME_MICROVM);
        Ok(Self {
            accelerator: qemu::accelerator(Request::Auto)?.0,
            firmware,
            guest: guest::prepare()?,
            kernel: guest::console_kernel()?,
            virtme_ng: (on_microvm || has(VIRTME)).then(virtme_ng).transpose()?,
            virtiofsd: on_microvm.then(|| packages::of_crate(VIRTIOFSD.0, VIRTIOFSD.1, &[])).transpose()?,
        })
    }

    /// Runs a recipe, and checks what it prints.
    fn follow(&self, recipe: &Recipe, section: &Section) -> anyhow::Result<()> {
        let folder = folder().join(recipe.name);
        paths::remake(&folder)?;
        self.install(recipe, &folder)?;
        let adapt = |text: &str| match self.accelerator {
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
        let mut command = child::tied(self.command(recipe)?.current_dir(&folder));
        command.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
        let start = Instant::now();
        let status = command.status().context("cannot start timeout")?;
        let in_time = start.elapsed() < recipe.limit();
        let printed = printed(&folder)?;
        let show = || {
            let lines: Vec<_> = printed.lines().collect();
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                say(&format!("    {line}"));
            }
            say(&format!("    (all of it is in {}: output.log, tmp/*.log)", paths::shown(&folder)));
        };
        if !in_time {
            show();
            bail!("it did not end in {} s", recipe.limit().as_secs());
        }
        if !status.success() {
            show();
            bail!("it ended with {status}");
        }
        if let Some(missing) = recipe.expected.iter().find(|text| !printed.contains(**text)) {
            show();
            bail!("it did not print {missing:?}");
        }
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
    }

    /// The command that runs a recipe, in the recipe's folder.
    fn command(&self, recipe: &Recipe) -> anyhow::Result<Command> {
        let mut command = limited(&sandbox(recipe.user), recipe.limit());
        if self.accelerator == Accelerator::Tcg {
            command.env(ENVIRONMENT_FOR_TCG.0, ENVIRONMENT_FOR_TCG.1);
        }
        if let Some(python) = &self.virtme_ng {
            let mut programs = vec![python.join("bin")];
            programs.extend(self.virtiofsd.as_ref().and_then(|program| program.parent()).map(Path::to_owned));
            programs.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
            command.env("PYTHONPATH", python).env("PATH", env::join_paths(programs)?);
        }
        Ok(command)
    }

    /// Puts what is installed into the recipe's folder, where `sandbox.sh` takes it from.
    fn install(&self, recipe: &Recipe, folder: &Path) -> anyhow::Result<()> {
        let modules = format!("usr/lib/modules/{}", self.kernel.release);
        for part in ["usr/share/firstlight", "usr/share/qemu/firmware", &modules, "work", "boot", "tmp"] {
            fs::create_dir_all(folder.join(part)).with_context(|| format!("cannot make {part}"))?;
        }
        let copy = |from: &Path, to: &str| {
            fs::copy(from, folder.join(to)).with_context(|| format!("cannot copy {}", from.display())).map(drop)
        };
        match &self.firmware {
            Firmware::Image(image) => {
                copy(image, "usr/share/firstlight/firstlight.bin")?;
                fs::write(folder.join("usr/share/qemu/firmware/90-firstlight.json"), DESCRIPTOR)?;
            }
            Firmware::Package(package) => {
                run_quietly(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder))?;
            }
        }
        if recipe.name == WITH_DISK {
            copy(&disk(), "tmp/disk.img")?;
        }
        copy(&self.guest.kernel.image, "boot/vmlinuz")?;
        copy(&self.guest.initrd, "boot/initrd.img")?;
        copy(&self.kernel.image, &format!("boot/vmlinuz-{}", self.kernel.release))?;
        symlink(&self.kernel.modules, folder.join(format!("boot/modules-{}", self.kernel.release)))
            .context("cannot link the kernel's modules")
    }
}

/// The disk that one recipe boots from.
fn disk() -> PathBuf {
    paths::disks_folder().join(format!("{DISK}.img"))
}

/// A command that runs `recipe.sh` in the current folder by `sandbox.sh` there, in new namespaces. All processes of it end with it.
fn sandbox(user: User) -> Command {
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "sandbox.sh"]);
    command.arg(if user == User::Root { "root" } else { "ordinary" });
    command
}

/// Checks that this machine allows what `sandbox.sh` does: containers often do not. Makes `folder` for it, and removes it.
fn check_sandbox(folder: &Path) -> anyhow::Result<()> {
    paths::remake(folder)?;
    for part in ["usr", "work", "boot", "tmp"] {
        fs::create_dir(folder.join(part))?;
    }
    fs::write(folder.join("sandbox.sh"), SANDBOX)?;
    fs::write(folder.join("recipe.sh"), "true\n")?;
    run_quietly(sandbox(User::Ordinary).current_dir(folder).stdin(Stdio::null()))
        .context("recipes run in namespaces and over mounts of their own, which cannot be made here")?;
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
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
    let folder = folder().join("virtme-ng-program");
    if !folder.join("bin/vng").is_file() {
        let mut command = Command::new("pip3");
        command.args(["install", "--quiet", "--disable-pip-version-check", "--target"]).arg(&folder).arg(VIRTME_NG);
        run_step("Downloading virtme-ng", &mut command)?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_run_in_a_build_folder_below_each_folder_that_they_do_not_see() {
        let place = tempfile::tempdir_in(paths::target()).unwrap();
        if let Err(why) = check_sandbox(&place.path().join("check")) {
            eprintln!("skipped: {why:#}");
            return;
        }
        for part in ["usr", "work", "boot", "tmp"] {
            fs::create_dir_all(place.path().join("check").join(part)).unwrap();
        }
        fs::write(place.path().join("check/sandbox.sh"), SANDBOX).unwrap();
        fs::write(place.path().join("check/recipe.sh"), "echo followed\n").unwrap();
        for hidden in ["/var/tmp", "/run", "/boot"] {
            let mut outer = Command::new("unshare");
            if !is_root() {
                outer.args(["--user", "--map-root-user"]);
            }
            let inner = sandbox(User::Ordinary);
            outer.args(["--mount", "sh", "-ec", r#"mount --bind . "$0"; cd "$0/check"; exec "$@""#, hidden]);
            outer.arg(inner.get_program()).args(inner.get_args()).current_dir(place.path()).stdin(Stdio::null());
            assert!(run_quietly(&mut outer).unwrap().contains("followed"), "{hidden}");
        }
    }

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
