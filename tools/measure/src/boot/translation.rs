//! The code that TCG translates, and the instructions that exit from a guest inside KVM, from QEMU's log of one run.
//!
//! With `-d in_asm` QEMU prints each block of guest code when it translates it, and with `-d exec,nochain` one line
//! whenever it enters one. A block runs from its first instruction to its last, so the two together give how often an
//! instruction was executed. A block that an exception ends early counts as a whole.
//!
//! CPUID, RDMSR and WRMSR are counted because a KVM handles each of them itself, outside of the guest. QEMU sees none of
//! these exits.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use xtask::elf_file;
use xtask::qemu::Accelerator;

use super::counts::{Attempt, LIMIT};
use super::process;
use super::scenario::{PayloadFiles, Scenario};
use super::trace::{self, Event};

/// The end of the image's linked addresses (`linker.ld`), and of its physical ones.
const VIRTUAL_OFFSET: u64 = 0xffff_ffff_c000_0000;
const FOUR_GIB: u64 = 1 << 32;

/// The size of a page in bytes. A KVM maps the image page by page, each at its first use.
const PAGE: u64 = 4096;

/// What QEMU translated and executed from reset to the kernel's first instruction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Translation {
    /// Translated blocks. A block that is translated again counts again.
    pub blocks: u64,
    /// Executed instructions that cause an exit inside KVM.
    pub executed: Exiting,
    /// Pages of the image with translated code.
    pub code_pages: u64,
}

/// The result of one run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Log {
    pub translation: Translation,
    /// The linked addresses of the image's instructions, in the order in which they were translated.
    pub addresses: Vec<u64>,
}

/// Instructions that cause an exit inside KVM.
const EXITING: [&str; 3] = ["cpuid", "rdmsr", "wrmsr"];

/// Numbers of these instructions.
pub type Exiting = [u64; 3];

/// Boots once under TCG and parses the log.
pub fn log(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles) -> Attempt<Log> {
    let mut launch = Scenario { accelerator: Accelerator::Tcg, ..scenario.clone() }.launch(firmware, payload);
    launch.extra.extend(["-d", "in_asm,exec,nochain"].map(Into::into));
    let (ended, log) = process::run_with_log(&launch, &[trace::STATE, trace::SELECT], LIMIT)?;
    Ok(match read(&log) {
        None => Err(ended.failure("the kernel", LIMIT)),
        Some(None) => Err("this QEMU has no disassembler".to_owned()),
        Some(Some(log)) => Ok(log),
    })
}

/// Parses the log. Returns `None` if the kernel was not reached, and `Some(None)` if the log has no instructions.
fn read(text: &str) -> Option<Option<Log>> {
    let mut log = Log::default();
    let mut blocks = HashMap::<u64, Exiting>::new();
    let mut current = None;
    let mut last = Exiting::default();
    for line in text.lines() {
        match line.split_once(' ').map_or(line, |(word, _)| word) {
            "IN:" => {
                log.translation.blocks += 1;
                current = None;
            }
            "Trace" => {
                add(&mut log.translation.executed, last);
                last = entered(line).and_then(|address| blocks.get(&address)).copied().unwrap_or_default();
            }
            // "Stopped execution of TB chain before": QEMU had something else to do, and enters that block again.
            "Stopped" => last = Exiting::default(),
            _ => {
                if let Some((address, mnemonic)) = instruction(line) {
                    let start = *current.get_or_insert_with(|| {
                        blocks.insert(address, Exiting::default());
                        address
                    });
                    add(blocks.entry(start).or_default(), EXITING.map(|name| u64::from(name == mnemonic)));
                    log.addresses.extend(linked(address));
                } else if let Some(line) = trace::parse(line) {
                    match line.event {
                        Event::Running => (log, last) = Default::default(),
                        event if trace::end(&event).is_some() => {
                            add(&mut log.translation.executed, last);
                            // The kernel's first block, which selects the marker.
                            log.translation.blocks = log.translation.blocks.saturating_sub(1);
                            let pages: BTreeSet<_> = log.addresses.iter().map(|address| address / PAGE).collect();
                            log.translation.code_pages = pages.len() as u64;
                            return Some((!blocks.is_empty()).then_some(log));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    None
}

/// The linked address of code in the image. Before paging is on, the code runs at its physical address. Returns `None` for code
/// outside the image.
fn linked(address: u64) -> Option<u64> {
    let size = elf_file::LIMIT as u64;
    match address {
        VIRTUAL_OFFSET.. => None,
        _ if address >= VIRTUAL_OFFSET - size => Some(address),
        FOUR_GIB.. => None,
        _ if address >= FOUR_GIB - size => Some(VIRTUAL_OFFSET - (FOUR_GIB - address)),
        _ => None,
    }
}

/// "0xfffff6c0:  0f a2                    cpuid": the address, and the mnemonic after the bytes.
fn instruction(line: &str) -> Option<(u64, &str)> {
    let (address, rest) = line.strip_prefix("0x")?.split_once(':')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let is_byte = |word: &&str| word.len() == 2 && u8::from_str_radix(word, 16).is_ok();
    Some((address, rest.split_whitespace().find(|word| !is_byte(word)).unwrap_or_default()))
}

/// "Trace 0: 0x7fe7b4000100 [00000000ffff0000/00000000fffffff0/00000040/ff000200]": the second number in the brackets,
/// the address of the block's first instruction.
fn entered(line: &str) -> Option<u64> {
    u64::from_str_radix(line.split_once('[')?.1.split('/').nth(1)?, 16).ok()
}

/// Adds the numbers of `more` to those of `sum`.
fn add(sum: &mut Exiting, more: Exiting) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut from a run of this firmware with the probe under QEMU 7.2, with one more round of the block at 0xfffff71f.
    const LOG: &str = "\
fw_cfg_select 0x55cc679adf20 key 0x0000 'signature', ret: 1
vm_state_notify running 1 reason 9 (running)
----------------
IN: 
0xfffffff0:  e9 cd f6                 jmp      0xf6c0

Trace 0: 0x7fe7b4000100 [00000000ffff0000/00000000fffffff0/00000040/ff000200] 
----------------
IN: 
0xfffff71f:  0f a2                    cpuid    
0xfffff721:  b9 80 00 00 c0           movl     $0xc0000080, %ecx
0xfffff726:  0f 32                    rdmsr    
0xfffff728:  0f 30                    wrmsr    
0xfffff72a:  0f 30                    wrmsr    

Trace 0: 0x7fe7b4000700 [0000000000000000/00000000fffff71f/00000090/ff000200] 
Trace 0: 0x7fe7b4000700 [0000000000000000/00000000fffff71f/00000090/ff000200] 
----------------
IN: 
0x01000200:  0f 31                    rdtsc    
0x01000220:  ee                       outb     %al, %dx

Trace 0: 0x7fe7b40ec000 [0000000000000000/0000000001000200/0000c0b0/ff000200] 
fw_cfg_select 0x55cc679adf20 key 0x3f30 'unknown', ret: 0
----------------
IN: 
0x01000223:  0f a2                    cpuid    

Trace 0: 0x7fe7b40ec100 [0000000000000000/0000000001000223/0000c0b0/ff000200] 
";

    #[test]
    fn blocks_count_when_translated_and_instructions_when_executed() {
        let wanted = Translation { blocks: 2, executed: [2, 2, 4], code_pages: 1 };
        assert_eq!(read(LOG).flatten().map(|log| log.translation), Some(wanted));
    }

    #[test]
    fn a_block_that_qemu_did_not_execute_does_not_count() {
        let trace = LOG.lines().find(|line| line.contains("fffff71f/")).unwrap();
        let stopped = format!("{trace}\nStopped execution of TB chain before 0x7f [00000000fffff71f] \n{trace}");
        let log = LOG.replacen(trace, &stopped, 1);
        let count = |log: &str| read(log).flatten().map(|log| log.translation.executed);
        assert_eq!(count(&log), count(LOG));
    }

    #[test]
    fn only_the_images_code_is_found_with_and_without_paging() {
        let log = LOG.replacen(
            "----------------\nIN: \n0x01000200",
            "IN: \n0xffffffffbffd6fe2:  31 ed  xorl %ebp, %ebp\nIN: \n0x01000200",
            1,
        );
        let log = read(&log).flatten().unwrap();
        assert_eq!(log.addresses.first(), Some(&0xffff_ffff_bfff_fff0));
        assert_eq!(log.addresses.last(), Some(&0xffff_ffff_bffd_6fe2));
        assert_eq!((log.addresses.len(), log.translation.code_pages), (7, 2));
        let size = elf_file::LIMIT as u64;
        for outside in [0, 0x9e000, FOUR_GIB - size - 1, FOUR_GIB, VIRTUAL_OFFSET - size - 1, 0xffff_ffff_c009_e000] {
            assert_eq!(linked(outside), None, "{outside:#x}");
        }
    }
}
