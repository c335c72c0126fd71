//! The machine code at the end of a measurement: it tells QEMU that it was reached, and ends it.
//!
//! The same few instructions serve in 16-bit, 32-bit and 64-bit mode. They use registers and ports only, so they run at
//! a kernel's first instruction, before there is a stack.

/// Where a measurement ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The kernel's 16-bit entry, in its setup code.
    Real16,
    /// The kernel's 32-bit entry.
    Protected32,
    /// The kernel's 64-bit entry.
    Long64,
    /// The entry that an ELF kernel's PVH note names.
    Pvh,
    /// The entry as an EFI program.
    Efi,
    /// The first program in user space.
    User,
    /// The reset vector of the base line image.
    Reset,
}

/// Every end.
pub const ENDS: [End; 7] = [End::Real16, End::Protected32, End::Long64, End::Pvh, End::Efi, End::User, End::Reset];

/// The marker is the selection of a fw_cfg item that no host has: QEMU's cheap event `fw_cfg_select` then has the time.
const MARKER_BASE: u16 = 0x3f00;

/// The port of fw_cfg's selector on x86 (QEMU, `docs/specs/fw_cfg.rst`).
const SELECTOR: u16 = 0x510;

/// A port that no device has. What is written there is seen in QEMU's trace alone.
pub const CLOCK_PORT: u16 = 0x508;

/// Where the tool puts `isa-debug-exit`: its usual place, 0xf4, is that of the firmware's trace points.
pub const EXIT_PORT: u16 = 0x501;

impl End {
    /// The number written to the exit port.
    pub const fn code(self) -> u8 {
        match self {
            Self::Real16 => 0x10,
            Self::Protected32 => 0x20,
            Self::Long64 => 0x30,
            Self::Pvh => 0x40,
            Self::Efi => 0x50,
            Self::User => 0x60,
            Self::Reset => 0x70,
        }
    }

    /// The key of the fw_cfg item whose selection marks this end.
    pub const fn marker(self) -> u16 {
        MARKER_BASE | self.code() as u16
    }

    /// The end that a selected key marks.
    pub fn of_marker(key: u16) -> Option<Self> {
        ENDS.into_iter().find(|end| end.marker() == key)
    }

    /// The end at which the guest ended QEMU with this exit status: twice the code, plus one (QEMU,
    /// `hw/misc/debugexit.c`).
    pub fn of_status(status: i32) -> Option<Self> {
        ENDS.into_iter().find(|end| i32::from(end.code()) * 2 + 1 == status)
    }

    /// What it is called in a report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Real16 => "16-bit",
            Self::Protected32 => "32-bit",
            Self::Long64 => "64-bit",
            Self::Pvh => "PVH",
            Self::Efi => "EFI",
            Self::User => "user space",
            Self::Reset => "reset vector",
        }
    }
}

/// The mode that code is for: it decides on the operand sizes that need a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Real mode, or a 16-bit code segment.
    Bits16,
    /// A 32-bit code segment.
    Bits32,
    /// Long mode.
    Bits64,
}

/// The prefix that changes the operand size (Intel SDM volume 2, 2.1.1).
const OPERAND_SIZE: u8 = 0x66;

/// Instructions, appended one by one.
struct Code {
    mode: Mode,
    bytes: Vec<u8>,
}

impl Code {
    /// An instruction with a 16-bit operand.
    fn word(&mut self, bytes: &[u8]) {
        if self.mode != Mode::Bits16 {
            self.bytes.push(OPERAND_SIZE);
        }
        self.bytes.extend(bytes);
    }

    /// An instruction with a 32-bit operand.
    fn dword(&mut self, bytes: &[u8]) {
        if self.mode == Mode::Bits16 {
            self.bytes.push(OPERAND_SIZE);
        }
        self.bytes.extend(bytes);
    }

    /// An instruction that is the same in every mode.
    fn any(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// `mov dx, port`
    fn port(&mut self, port: u16) {
        let [low, high] = port.to_le_bytes();
        self.word(&[0xba, low, high]);
    }
}

/// Marks `end`, tells the time stamp counter's value at its first instruction, and ends QEMU.
///
/// With the option `-icount shift=0` of QEMU, that value is the number of instructions executed since reset.
pub fn finish(mode: Mode, end: End) -> Vec<u8> {
    let mut code = Code { mode, bytes: Vec::new() };
    let [low, high] = end.marker().to_le_bytes();
    code.any(&[0x0f, 0x31]); // rdtsc
    code.dword(&[0x89, 0xc3]); // mov ebx, eax
    code.dword(&[0x89, 0xd1]); // mov ecx, edx
    code.port(SELECTOR);
    code.word(&[0xb8, low, high]); // mov ax, marker
    code.word(&[0xef]); // out dx, ax
    code.port(CLOCK_PORT);
    code.dword(&[0x89, 0xd8]); // mov eax, ebx
    code.dword(&[0xef]); // out dx, eax
    code.dword(&[0x89, 0xc8]); // mov eax, ecx
    code.dword(&[0xef]); // out dx, eax
    code.port(EXIT_PORT);
    code.any(&[0xb0, end.code()]); // mov al, code
    code.any(&[0xee]); // out dx, al
    // Where the host has no exit device, stay here.
    code.any(&[0xfa, 0xf4, 0xeb, 0xfd]); // cli; 1: hlt; jmp 1b
    code.bytes
}

/// The first program in user space: takes the right to use ports, marks its end, and ends QEMU.
pub fn user_program() -> Vec<u8> {
    // Linux, `arch/x86/entry/syscalls/syscall_64.tbl`.
    const IOPL: u32 = 172;
    let [low, high] = End::User.marker().to_le_bytes();
    let mut code = Code { mode: Mode::Bits64, bytes: Vec::new() };
    code.any(&[0xb8]); // mov eax, IOPL
    code.any(&IOPL.to_le_bytes());
    code.any(&[0xbf, 3, 0, 0, 0]); // mov edi, 3
    code.any(&[0x0f, 0x05]); // syscall
    code.port(SELECTOR);
    code.word(&[0xb8, low, high]); // mov ax, marker
    code.word(&[0xef]); // out dx, ax
    code.port(EXIT_PORT);
    code.any(&[0xb0, End::User.code()]); // mov al, code
    code.any(&[0xee]); // out dx, al
    code.any(&[0xeb, 0xfe]); // 1: jmp 1b
    code.bytes
}

#[cfg(test)]
mod tests {
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    use super::*;

    /// The mnemonics of `code`, and the operands' sizes of its OUT instructions in bytes.
    fn decoded(mode: Mode, code: &[u8]) -> (Vec<Mnemonic>, Vec<usize>) {
        let bits = match mode {
            Mode::Bits16 => 16,
            Mode::Bits32 => 32,
            Mode::Bits64 => 64,
        };
        let instructions: Vec<_> = Decoder::new(bits, code, DecoderOptions::NONE).into_iter().collect();
        let outs = instructions.iter().filter(|instruction| instruction.mnemonic() == Mnemonic::Out);
        let sizes = outs.map(|instruction| instruction.op1_register().size()).collect();
        (instructions.iter().map(iced_x86::Instruction::mnemonic).collect(), sizes)
    }

    #[test]
    fn the_code_means_the_same_in_every_mode() {
        use Mnemonic::{Cli, Hlt, Jmp, Mov, Out, Rdtsc};
        let wanted = [Rdtsc, Mov, Mov, Mov, Mov, Out, Mov, Mov, Out, Mov, Out, Mov, Mov, Out, Cli, Hlt, Jmp];
        for mode in [Mode::Bits16, Mode::Bits32, Mode::Bits64] {
            let (mnemonics, sizes) = decoded(mode, &finish(mode, End::Long64));
            assert_eq!(mnemonics, wanted, "{mode:?}");
            assert_eq!(sizes, [2, 4, 4, 1], "{mode:?}");
        }
    }

    #[test]
    fn ends_can_be_told_apart() {
        for end in ENDS {
            assert_eq!(End::of_marker(end.marker()), Some(end));
            // QEMU ends with twice that, plus one (QEMU, `hw/misc/debugexit.c`).
            assert!(end.code() < 0x80);
            // fw_cfg's flags for writing and for the architecture's own items stay clear.
            assert_eq!(end.marker() & 0xc000, 0);
        }
        assert_eq!(End::of_marker(0x11), None);
    }
}
