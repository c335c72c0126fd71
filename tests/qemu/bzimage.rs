//! Kernel files: a setup header with chosen fields, and the probe after it.

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

/// Where the ELF file of the probe runs, and where its `.text` is from there: `PVH_BASE` and `PVH_TEXT` in
/// `tests/kernels/probe.s`.
pub const PVH_BASE: u64 = 0x20_0000;
const PVH_TEXT: u64 = 0x1000;

/// Kinds of ELF segments, and of Xen's notes (its `public/elfnote.h`).
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// The fields of the setup header that matter to a loader, as Linux's `Documentation/arch/x86/boot.rst` names them.
#[derive(Clone, Debug)]
pub struct BzImage {
    pub version: u16,
    /// Whether it is a bzImage; else it is a zImage.
    pub loaded_high: bool,
    /// Where the probe is entered in 32-bit mode if the kernel is not relocatable. It is there in the protected-mode part.
    pub code32_start: u32,
    pub initrd_addr_max: u32,
    pub kernel_alignment: u32,
    pub relocatable_kernel: bool,
    pub xloadflags: u16,
    pub cmdline_size: u32,
    pub pref_address: u64,
    pub init_size: u32,
    /// The length of the protected-mode part: the probe, and random bytes after it.
    pub len: usize,
}

impl BzImage {
    /// An ordinary kernel that is entered in 64-bit mode.
    pub fn new() -> Self {
        Self {
            version: 0x20f,
            loaded_high: true,
            code32_start: 0x10_0000,
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

    /// The same with only the 32-bit entry point.
    pub fn entered_in_32_bit_mode(self) -> Self {
        Self { xloadflags: 0, ..self }
    }

    /// A kernel of protocol `version`, which has only the 32-bit entry point.
    pub fn old(version: u16) -> Self {
        Self { version, relocatable_kernel: false, ..Self::new() }.entered_in_32_bit_mode()
    }

    /// The same as a zImage.
    pub fn low(self) -> Self {
        Self { loaded_high: false, code32_start: 0x1000, ..self }
    }

    /// How far into the protected-mode part the probe is.
    pub fn entry_offset(&self) -> usize {
        match self.code32_start {
            _ if self.relocatable_kernel => 0,
            0x1_0000 => 0,
            address => address as usize - if self.loaded_high { 0x10_0000 } else { 0x1000 },
        }
    }

    /// The protected-mode part.
    pub fn code(&self) -> Vec<u8> {
        assert!(self.len <= FILE_LIMIT);
        let mut code = random::bytes(1, self.len);
        let probe = &probe().text;
        code[self.entry_offset()..][..probe.len()].copy_from_slice(probe);
        code
    }

    /// The real-mode part: nothing but the header.
    pub fn setup(&self) -> Vec<u8> {
        let mut setup = vec![0; SETUP_LEN];
        // Of each field there is as much as a header of this version has.
        let end: usize = match self.version {
            ..=0x200 => 0x224,
            0x201 => 0x226,
            0x202 => 0x22c,
            0x203..=0x204 => 0x230,
            0x205 => 0x236,
            0x206..=0x209 => 0x23c,
            _ => 0x26c,
        };
        let mut put = |at: usize, bytes: &[u8]| {
            let bytes = &bytes[..bytes.len().min(end.saturating_sub(at))];
            setup[at..at + bytes.len()].copy_from_slice(bytes);
        };
        put(0x1f1, &[1]);
        put(0x1f4, &u32::try_from(self.len.div_ceil(16)).unwrap().to_le_bytes());
        put(0x1fe, &0xaa55_u16.to_le_bytes());
        // A short jump over the header.
        put(0x200, &[0xeb, (end - 0x202) as u8]);
        put(0x202, b"HdrS");
        put(0x206, &self.version.to_le_bytes());
        put(0x211, &[self.loaded_high.into()]);
        put(0x214, &self.code32_start.to_le_bytes());
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

/// The probe as an ELF file with a PVH note, for `PVH_BASE` of `tests/kernels/probe.s`, and where its segments are then.
///
/// There are two segments: the probe with its memory, and behind a gap random bytes followed by as many that are to be
/// zero. `base` moves both, to where the probe does not run.
pub fn pvh_file(base: u64) -> (Vec<u8>, PvhLayout) {
    let layout = PvhLayout { base, probe: base + PVH_TEXT, data: base + 0x9_0000, data_bytes: random::bytes(7, 5003) };
    let mut code = probe().pvh.clone();
    code.resize(PVH_TEXT as usize, 0);
    code.extend(&probe().text);
    let entry = u32::try_from(base).unwrap();

    let mut note = Vec::new();
    for word in [4, 8, XEN_ELFNOTE_PHYS32_ENTRY] {
        note.extend(u32::to_le_bytes(word));
    }
    note.extend(b"Xen\0");
    note.extend(u64::from(entry).to_le_bytes());

    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // An executable for x86-64, version 1; the headers behind this one are three of 56 bytes.
    file.extend(2_u16.to_le_bytes());
    file.extend(62_u16.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for wide in [base, 64, 0] {
        file.extend(wide.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 3, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut contents = Vec::new();
    let offset = 64 + 3 * 56;
    let mut segment = |kind: u32, at: u64, bytes: &[u8], size: u64| {
        file.extend(kind.to_le_bytes());
        file.extend(7_u32.to_le_bytes());
        for wide in [offset + contents.len() as u64, at, at, bytes.len() as u64, size, 4] {
            file.extend(wide.to_le_bytes());
        }
        contents.extend(bytes);
        contents.resize(contents.len().next_multiple_of(4), 0);
    };
    segment(PT_LOAD, layout.base, &code, PVH_TEXT + u64::from(LEAST_INIT_SIZE));
    segment(PT_LOAD, layout.data, &layout.data_bytes, layout.end() - layout.data);
    segment(PT_NOTE, 0, &note, note.len() as u64);
    file.extend(contents);
    (file, layout)
}

/// Where the parts of [`pvh_file`] are in memory.
pub struct PvhLayout {
    pub base: u64,
    /// The probe itself.
    pub probe: u64,
    /// The second segment, and what it begins with.
    pub data: u64,
    pub data_bytes: Vec<u8>,
}

impl PvhLayout {
    /// One past the last byte.
    pub fn end(&self) -> u64 {
        self.data + 2 * self.data_bytes.len() as u64
    }
}

/// The probe with a Multiboot header, as it is in memory from `PVH_BASE` on: [`MULTIBOOT_SIZE`] bytes, of which the last are
/// zero and not here.
///
/// `fields` are the header's after the checksum, which the flags say whether there are (Multiboot specification 0.6.96, 3.1).
pub fn multiboot_image(flags: u32, fields: [u32; 5]) -> Vec<u8> {
    let mut image = probe().multiboot.clone();
    let magic = u32::from_le_bytes(image[..4].try_into().unwrap());
    let checksum = 0_u32.wrapping_sub(magic).wrapping_sub(flags);
    for (field, at) in [flags, checksum].iter().chain(&fields).zip((4..).step_by(4)) {
        image[at..at + 4].copy_from_slice(&field.to_le_bytes());
    }
    image.resize(PVH_TEXT as usize, 0);
    image.extend(&probe().text);
    image
}

/// The memory that the probe takes with all that is before its code.
pub const MULTIBOOT_SIZE: u32 = PVH_TEXT as u32 + LEAST_INIT_SIZE;
/// Where it is entered, from its start: `MULTIBOOT_ENTRY` in `tests/kernels/probe.s`.
pub const MULTIBOOT_ENTRY: u32 = 0x40;

/// The sections of `tests/kernels/probe.s`.
struct Code {
    text: Vec<u8>,
    wake: Vec<u8>,
    pvh: Vec<u8>,
    multiboot: Vec<u8>,
}

/// Assembles the probe, once.
fn probe() -> &'static Code {
    static CODE: OnceLock<Code> = OnceLock::new();
    CODE.get_or_init(|| {
        let folder = TempDir::new().expect("a temporary folder");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/probe.s");
        let [object, binary] = ["probe.o", "probe.bin"].map(|name| folder.path().join(name));
        run(Command::new("as").arg("--64").arg("-o").arg(&object).arg(source));
        let [text, wake, pvh, multiboot] = [".text", ".wake", ".pvh", ".multiboot"].map(|section| {
            run(Command::new("objcopy").args(["-O", "binary", "-j", section]).arg(&object).arg(&binary));
            std::fs::read(&binary).expect("what objcopy wrote")
        });
        Code { text, wake, pvh, multiboot }
    })
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?} (binutils): {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
