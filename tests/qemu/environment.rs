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
    match env::var("FIRSTLIGHT_NO_NEWER_QEMU") {
        Ok(why) => Err(why),
        Err(_) => Ok(path("FIRSTLIGHT_NEWER_QEMU")),
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
