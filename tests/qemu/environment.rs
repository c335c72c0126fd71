//! What `cargo xtask test` hands to the tests.

use std::env;
use std::path::PathBuf;

/// The firmware image, `firstlight.bin`.
pub fn image() -> PathBuf {
    path("FIRSTLIGHT_IMAGE")
}

/// The distribution's kernel.
pub fn kernel() -> PathBuf {
    path("FIRSTLIGHT_KERNEL")
}

/// The distribution's kernel with all its drivers: one with a console on a framebuffer.
pub fn console_kernel() -> PathBuf {
    path("FIRSTLIGHT_CONSOLE_KERNEL")
}

/// The guest's initramfs.
pub fn initrd() -> PathBuf {
    path("FIRSTLIGHT_INITRD")
}

/// The guest's initramfs with `dmidecode` and `lspci` in it as well, and modules that scripts load.
pub fn initrd_with_tools() -> PathBuf {
    path("FIRSTLIGHT_TOOLS_INITRD")
}

/// A QEMU newer than the one that is installed, else why there is none.
pub fn newer_qemu() -> Result<PathBuf, String> {
    path_or_reason("FIRSTLIGHT_NEWER_QEMU", "FIRSTLIGHT_NO_NEWER_QEMU")
}

/// Xen, unpacked, if there is one. If not, the output of the test says why.
pub fn xen() -> Option<PathBuf> {
    let xen = path_or_reason("FIRSTLIGHT_XEN", "FIRSTLIGHT_NO_XEN");
    xen.inspect_err(|why| eprintln!("skipped: no Xen: {why}")).ok()
}

/// GNU Mach, unpacked, if there is one. If not, the output of the test says why.
pub fn gnu_mach() -> Option<PathBuf> {
    let mach = path_or_reason("FIRSTLIGHT_GNU_MACH", "FIRSTLIGHT_NO_GNU_MACH");
    mach.inspect_err(|why| eprintln!("skipped: no GNU Mach: {why}")).ok()
}

fn path_or_reason(variable: &str, reason: &str) -> Result<PathBuf, String> {
    match env::var(reason) {
        Ok(why) => Err(why),
        Err(_) => Ok(path(variable)),
    }
}

fn path(variable: &str) -> PathBuf {
    let Some(value) = env::var_os(variable) else {
        panic!("{variable} is not set: run these tests with `cargo xtask test`, which sets it");
    };
    let path = PathBuf::from(value);
    assert!(path.is_file(), "{variable} names {}, which is no file", path.display());
    path
}
