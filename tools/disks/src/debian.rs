//! An installed Debian: mmdebstrap makes the system from Debian's packages, and in a first boot the system's own programs install its
//! boot loader.
//!
//! mmdebstrap needs root for it, and the first boot takes a minute or two without KVM. In the system, root logs in without a password, and apt's
//! cache has another kernel, of the backports, for a test to install.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use xtask::apt;
use xtask::child;
use xtask::packages::{self, Need};
use xtask::progress::{limited, run_quietly};
use xtask::qemu::{self, Request};

/// The release.
const SUITE: &str = "bookworm";
/// What is in the system beside the packages that each has.
const PACKAGES: &str = "systemd-sysv,udev,dbus,login,kmod,e2fsprogs,initramfs-tools,linux-image-cloud-amd64,grub-efi-amd64,\
     grub-efi-amd64-signed,shim-signed";
/// Completes the system and makes its file system.
const HOOK: &str = include_str!("debian/system.sh");
/// What the first boot prints at its end.
const INSTALLED: &str = "The boot loader is installed.";
/// How long the first boot may take.
const LIMIT: Duration = Duration::from_secs(1800);
/// The partition with the system.
const ROOT: &str = "/dev/vda2";

/// The programs that make it.
pub const NEEDS: [Need; 2] = [Need::tool("mmdebstrap", &["mmdebstrap"], "make a Debian system"), packages::QEMU];

/// Makes the file system of the system in `to`, a file of its size, with the identifier `root`. Puts the system's kernel and initrd
/// into `folder`.
pub fn file_system(root: &str, folder: &Path, to: &Path) -> anyhow::Result<()> {
    let hook = folder.join("system.sh");
    fs::write(&hook, HOOK)?;
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    let made = folder.join("file-system");
    fs::rename(to, &made)?;
    let mut make = Command::new("mmdebstrap");
    // In a list of file systems, it is compared with small letters.
    let root = root.to_lowercase();
    make.envs([("FOLDER", folder.as_os_str()), ("ROOT", root.as_ref()), ("SUITE", SUITE.as_ref())]);
    make.args(["--mode=root", "--variant=minbase", "--format=null", &format!("--include={PACKAGES}")]);
    make.arg(format!("--customize-hook={}", hook.display()));
    run_quietly(make.args([SUITE, "/dev/null"]).args(apt::sources_of(SUITE).lines()))?;
    fs::rename(&made, to).context("mmdebstrap made no file system")
}

/// Boots the system on a disk once to install its boot loader.
pub fn install_boot_loader(disk: &Path, folder: &Path) -> anyhow::Result<()> {
    let (accelerator, _) = qemu::accelerator(Request::Auto)?;
    let mut boot = Command::new(packages::QEMU_PROGRAM);
    boot.args(["-machine", "q35", "-accel", &accelerator.name().to_lowercase(), "-m", "1G", "-no-reboot"]);
    boot.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"]);
    boot.args(
        [["-kernel", "kernel"], ["-initrd", "initrd"]]
            .map(|[option, name]| [option.to_owned(), folder.join(name).display().to_string()])
            .as_flattened(),
    );
    boot.args(["-append", &format!("root={ROOT} init=/install console=ttyS0 quiet panic=-1 no_timer_check")]);
    boot.arg("-drive").arg(format!("if=virtio,format=raw,file={}", disk.display()));
    let printed = run_quietly(&mut child::tied(&limited(&boot, LIMIT)))?;
    ensure!(printed.contains(INSTALLED), "grub-install or update-grub failed; they printed:\n{printed}");
    Ok(())
}
