//! What `cargo xtask test` hands to the tests.

use std::env;
use std::path::PathBuf;

/// The firmware image, `firstlight.bin`.
pub fn image() -> PathBuf {
    path("FIRSTLIGHT_IMAGE")
}

/// The firmware as an ELF file, `firstlight.elf`.
pub fn elf() -> PathBuf {
    path("FIRSTLIGHT_ELF")
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

/// The guest's initramfs with `dmidecode`, `lspci` and `kexec` in it as well, and modules that scripts load.
pub fn initrd_with_tools() -> PathBuf {
    path("FIRSTLIGHT_TOOLS_INITRD")
}

/// A QEMU newer than the installed one, or why there is none.
pub fn newer_qemu() -> Result<PathBuf, String> {
    path_or_reason("FIRSTLIGHT_NEWER_QEMU", "FIRSTLIGHT_NO_NEWER_QEMU")
}

/// Xen, unpacked, if there is one. If not, the output of the test says why.
pub fn xen() -> Option<PathBuf> {
    optional("Xen", "FIRSTLIGHT_XEN", "FIRSTLIGHT_NO_XEN")
}

/// GNU Mach, unpacked, if there is one. If not, the output of the test says why.
pub fn gnu_mach() -> Option<PathBuf> {
    optional("GNU Mach", "FIRSTLIGHT_GNU_MACH", "FIRSTLIGHT_NO_GNU_MACH")
}

/// The folder with Debian's EFI programs, if they are there. If not, the output of the test says why.
pub fn efi_programs() -> Option<PathBuf> {
    optional("EFI programs", "FIRSTLIGHT_EFI_PROGRAMS", "FIRSTLIGHT_NO_EFI_PROGRAMS")
}

/// The folder with the test disks, if they could be made. If not, the output of the test says why.
pub fn disks() -> Option<PathBuf> {
    optional("disks", "FIRSTLIGHT_DISKS", "FIRSTLIGHT_NO_DISKS")
}

/// The program of `tests/efi-app`, if it could be built. If not, the output of the test says why.
pub fn efi_app() -> Option<PathBuf> {
    optional("EFI program of the tests", "FIRSTLIGHT_EFI_APP", "FIRSTLIGHT_NO_EFI_APP")
}

/// OVMF, if it is installed. If not, the output of the test says why.
pub fn ovmf() -> Option<PathBuf> {
    optional("OVMF", "FIRSTLIGHT_OVMF", "FIRSTLIGHT_NO_OVMF")
}

fn path_or_reason(variable: &str, reason: &str) -> Result<PathBuf, String> {
    match env::var(reason) {
        Ok(why) => Err(why),
        Err(_) => Ok(path(variable)),
    }
}

/// Debian's kernel for i386 and the guest's initramfs for it, if they are there. If not, the output of the test says why.
pub fn i386() -> Option<[PathBuf; 2]> {
    let [kernel, initrd] = ["FIRSTLIGHT_I386_KERNEL", "FIRSTLIGHT_I386_INITRD"];
    Some([optional("i386 kernel", kernel, "FIRSTLIGHT_NO_I386")?, path(initrd)])
}

/// As [`i386`], the kernel with PAE.
pub fn i386_pae() -> Option<[PathBuf; 2]> {
    let [kernel, initrd] = ["FIRSTLIGHT_I386_PAE_KERNEL", "FIRSTLIGHT_I386_PAE_INITRD"];
    Some([optional("i386 kernel with PAE", kernel, "FIRSTLIGHT_NO_I386_PAE")?, path(initrd)])
}

/// Memtest86+, built for CPUs of 32 or 64 bits, if it is there. If not, the output of the test says why.
pub fn memtest86(bits: u8) -> Option<PathBuf> {
    let [found, absent] = ["", "NO_"].map(|no| format!("FIRSTLIGHT_{no}MEMTEST86_{bits}"));
    optional("Memtest86+", &found, &absent)
}

/// iPXE's file with a setup header, if it is there. If not, the output of the test says why.
pub fn ipxe() -> Option<PathBuf> {
    optional("iPXE", "FIRSTLIGHT_IPXE", "FIRSTLIGHT_NO_IPXE")
}

/// memdisk, which has a setup header, if it is there. If not, the output of the test says why.
pub fn memdisk() -> Option<PathBuf> {
    optional("memdisk", "FIRSTLIGHT_MEMDISK", "FIRSTLIGHT_NO_MEMDISK")
}

/// The file in the variable `found`, or the reason in `absent` why there is none.
fn optional(what: &str, found: &str, absent: &str) -> Option<PathBuf> {
    path_or_reason(found, absent).inspect_err(|why| eprintln!("skipped: no {what}: {why}")).ok()
}

fn path(variable: &str) -> PathBuf {
    let Some(value) = env::var_os(variable) else {
        panic!("{variable} is not set: run these tests with `cargo xtask test`, which sets it");
    };
    let path = PathBuf::from(value);
    assert!(path.exists(), "{variable} names {}, which does not exist", path.display());
    path
}
