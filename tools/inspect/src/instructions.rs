//! Finds instructions in the image that some host cannot run.

use std::fmt::Write as _;

use anyhow::{Result, ensure};
use iced_x86::{CpuidFeature, Decoder, DecoderOptions, Instruction, Mnemonic};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object as _, ObjectSection as _, SectionKind};

/// The instructions that every host runs in ring 0: the integer instructions of the first x86-64 CPUs, and hints.
const ALLOWED: [CpuidFeature; 13] = [
    CpuidFeature::INTEL8086,
    CpuidFeature::INTEL186,
    CpuidFeature::INTEL286,
    CpuidFeature::INTEL386,
    CpuidFeature::INTEL486,
    CpuidFeature::X64,
    CpuidFeature::CMOV,
    CpuidFeature::CPUID,
    CpuidFeature::CX8,
    CpuidFeature::MSR,
    CpuidFeature::MULTIBYTENOP,
    CpuidFeature::PAUSE,
    CpuidFeature::TSC,
];

/// Whether some host cannot run it.
///
/// `tzcnt` is allowed. The compiler uses it in place of `bsf` if the operand is not zero: a CPU without `tzcnt` executes the same
/// bytes as `bsf`, with the same result. `rdrand` and `rdseed` are allowed: the firmware asks CPUID first. `fninit`,
/// `fxsave64` and `fxrstor64` are allowed: they run before and after an EFI program, which may use the FPU.
fn is_foreign(instruction: &Instruction) -> bool {
    let allowed = |feature| ALLOWED.contains(feature);
    instruction.is_invalid()
        || (!matches!(
            instruction.mnemonic(),
            Mnemonic::Tzcnt
                | Mnemonic::Rdrand
                | Mnemonic::Rdseed
                | Mnemonic::Fninit
                | Mnemonic::Fxsave64
                | Mnemonic::Fxrstor64
        ) && !instruction.cpuid_features().iter().all(allowed))
}

/// Checks that every host can run every instruction outside the start-up code.
///
/// There must be no vector, floating-point, `popcnt`, `cmpxchg16b` or other later instruction. Hosts that emulate ring 0 cannot
/// run them, and the firmware does not check that the CPU has them.
pub fn check(elf: &ElfFile64<'_, LittleEndian>) -> Result<()> {
    let mut found = String::new();
    for section in
        elf.sections().filter(|section| section.kind() == SectionKind::Text && section.name() != Ok(".start"))
    {
        let mut decoder = Decoder::with_ip(64, section.data()?, section.address(), DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            if is_foreign(&instruction) {
                writeln!(found, "  {:?} at {:#x}", instruction.mnemonic(), instruction.ip())?;
            }
        }
    }
    ensure!(found.is_empty(), "some hosts cannot run these instructions:\n{found}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_instructions_are_found() {
        let foreign = |code: &[u8]| is_foreign(&Decoder::with_ip(64, code, 0, DecoderOptions::NONE).decode());
        assert!(foreign(&[0xf3, 0x0f, 0xb8, 0xc0]), "popcnt eax, eax");
        assert!(foreign(&[0x48, 0x0f, 0xc7, 0x0f]), "cmpxchg16b [rdi]");
        assert!(foreign(&[0x66, 0x0f, 0xef, 0xc0]), "pxor xmm0, xmm0");
        assert!(foreign(&[0x0f, 0x57, 0xc0]), "xorps xmm0, xmm0");
        assert!(foreign(&[0xd9, 0xeb]), "fldpi");
        assert!(!foreign(&[0xf0, 0x0f, 0xb1, 0x0f]), "lock cmpxchg [rdi], ecx");
        assert!(!foreign(&[0xf3, 0x48, 0xa5]), "rep movsq");
    }
}
