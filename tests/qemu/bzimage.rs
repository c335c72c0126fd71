//! Kernel files: a setup header with chosen fields, and the probe behind it.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::random;

/// How far into the kernel's memory its file may reach: `request` in `tests/kernels/probe.s`.
const FILE_LIMIT: usize = 0x8_0000;
/// How much memory the probe needs: `stack_top` there.
const LEAST_INIT_SIZE: u32 = 0x8_4000;

/// The real-mode part: the boot sector and one more.
pub const SETUP_LEN: usize = 1024;

/// `xloadflags`: there is a 64-bit entry.
const XLF_KERNEL_64: u16 = 1;

/// The fields of the setup header that matter to a loader, as Linux's `Documentation/arch/x86/boot.rst` names them.
#[derive(Clone, Debug)]
pub struct BzImage {
    pub version: u16,
    pub initrd_addr_max: u32,
    pub kernel_alignment: u32,
    pub relocatable_kernel: bool,
    pub xloadflags: u16,
    pub cmdline_size: u32,
    pub pref_address: u64,
    pub init_size: u32,
    /// The length of the protected-mode part: the probe, and random bytes behind it.
    pub len: usize,
}

impl BzImage {
    /// A kernel that is entered in 64-bit mode and asks for nothing out of the ordinary.
    pub fn new() -> Self {
        Self {
            version: 0x20f,
            initrd_addr_max: 0x7fff_ffff,
            kernel_alignment: 0x20_0000,
            relocatable_kernel: true,
            xloadflags: XLF_KERNEL_64,
            cmdline_size: 2047,
            pref_address: 0x100_0000,
            init_size: LEAST_INIT_SIZE,
            len: 60_013,
        }
    }

    /// The same with the 32-bit entry only.
    pub fn entered_in_32_bit_mode(self) -> Self {
        Self { xloadflags: 0, ..self }
    }

    /// The protected-mode part.
    pub fn code(&self) -> Vec<u8> {
        assert!(self.len <= FILE_LIMIT);
        let mut code = random::bytes(1, self.len);
        let probe = &probe().text;
        code[..probe.len()].copy_from_slice(probe);
        code
    }

    /// The real-mode part: nothing but the header.
    pub fn setup(&self) -> Vec<u8> {
        let mut setup = vec![0; SETUP_LEN];
        let mut put = |at: usize, bytes: &[u8]| setup[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x1f1, &[1]);
        put(0x1f4, &u32::try_from(self.len / 16).unwrap().to_le_bytes());
        put(0x1fe, &0xaa55_u16.to_le_bytes());
        // A short jump behind the header, which ends at 0x26c.
        put(0x200, &[0xeb, 0x6a]);
        put(0x202, b"HdrS");
        put(0x206, &self.version.to_le_bytes());
        put(0x211, &[1]);
        put(0x214, &0x10_0000_u32.to_le_bytes());
        put(0x22c, &self.initrd_addr_max.to_le_bytes());
        put(0x230, &self.kernel_alignment.to_le_bytes());
        put(0x234, &[u8::from(self.relocatable_kernel), 12]);
        put(0x236, &self.xloadflags.to_le_bytes());
        put(0x238, &self.cmdline_size.to_le_bytes());
        put(0x258, &self.pref_address.to_le_bytes());
        put(0x260, &self.init_size.to_le_bytes());
        setup
    }

    /// The whole file.
    pub fn file(&self) -> Vec<u8> {
        [self.setup(), self.code()].concat()
    }
}

/// The code with which the probe that was loaded at `base` wakes from suspend, for anywhere below 1 MiB.
pub fn wake_code(base: u64) -> Vec<u8> {
    let mut code = probe().wake.clone();
    code[4..8].copy_from_slice(&u32::try_from(base).unwrap().to_le_bytes());
    code
}

/// The sections of `tests/kernels/probe.s`.
struct Code {
    text: Vec<u8>,
    wake: Vec<u8>,
}

/// Assembles the probe, once.
fn probe() -> &'static Code {
    static CODE: OnceLock<Code> = OnceLock::new();
    CODE.get_or_init(|| {
        let folder = TempDir::new().expect("a temporary folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/probe.s");
        let [object, binary] = ["probe.o", "probe.bin"].map(|name| folder.path().join(name));
        run(Command::new("as").arg("--64").arg("-o").arg(&object).arg(source));
        let [text, wake] = [".text", ".wake"].map(|section| {
            run(Command::new("objcopy").args(["-O", "binary", "-j", section]).arg(&object).arg(&binary));
            std::fs::read(&binary).expect("what objcopy wrote")
        });
        Code { text, wake }
    })
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?} (binutils): {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
