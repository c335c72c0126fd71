//! A start by the PVH entry point: what the host puts into memory, and the state of the CPU.
//!
//! The specification is Xen's `docs/misc/pvh.pandoc`. Where it leaves a choice, this is as inconvenient as possible: registers hold
//! garbage, the direction flag is set, and there is no GDT.
#![forbid(unsafe_code)]

use anyhow::Context;
use firstlight::fakes::known_hosts::E820Record;
use firstlight::fakes::tables::Piece;
use firstlight::memory_map::E820Entry;
use firstlight::start_info::abi::{Header, MAGIC, MapEntry, Module, VERSION};
use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use zerocopy::IntoBytes;

/// Where Cloud Hypervisor and Firecracker put `hvm_start_info`, its lists and the command line (`layout.rs` of both).
pub const START_INFO: u64 = 0x6000;
const MODULES: u64 = 0x6040;
/// See there.
pub const MEMORY_MAP: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x2_0000;

/// A start by the PVH entry point, in place of one at the reset vector.
#[derive(Clone, Debug)]
pub struct Start {
    /// The address in EBX.
    pub start_info: u64,
    /// Whether there is a fw_cfg device.
    pub has_fw_cfg: bool,
}

/// `hvm_start_info` with everything that it points to.
#[derive(Clone, Debug, Default)]
pub struct StartInfo {
    /// The memory map.
    pub memory_map: Vec<E820Record>,
    /// The command line without its NUL, if there is one.
    pub command_line: Option<Vec<u8>>,
    /// The modules: addresses and bytes.
    pub modules: Vec<Piece>,
    /// The address of the RSDP; zero if there is none.
    pub rsdp: u64,
}

impl StartInfo {
    /// The contents of memory: `hvm_start_info` first, then its lists and the modules.
    #[must_use]
    pub fn pieces(&self) -> Vec<Piece> {
        let place = |is_there: bool, at: u64| if is_there { at } else { 0 }.into();
        let header = Header {
            magic: MAGIC.into(),
            version: VERSION.into(),
            flags: 0.into(),
            nr_modules: (self.modules.len() as u32).into(),
            modlist_paddr: place(!self.modules.is_empty(), MODULES),
            cmdline_paddr: place(self.command_line.is_some(), COMMAND_LINE),
            rsdp_paddr: self.rsdp.into(),
            memmap_paddr: place(!self.memory_map.is_empty(), MEMORY_MAP),
            memmap_entries: (self.memory_map.len() as u32).into(),
            reserved: 0.into(),
        };
        let module = |(at, bytes): &Piece| Module {
            paddr: (*at).into(),
            size: (bytes.len() as u64).into(),
            cmdline_paddr: 0.into(),
            reserved: 0.into(),
        };
        let modules: Vec<_> = self.modules.iter().map(module).collect();
        let entry = |&(addr, size, kind): &E820Record| {
            MapEntry::new(E820Entry { addr: addr.into(), size: size.into(), kind: kind.into() })
        };
        let memory_map: Vec<_> = self.memory_map.iter().map(entry).collect();
        let mut pieces = vec![
            (START_INFO, header.as_bytes().to_vec()),
            (MODULES, modules.as_bytes().to_vec()),
            (MEMORY_MAP, memory_map.as_bytes().to_vec()),
        ];
        pieces.extend(self.command_line.iter().map(|line| (COMMAND_LINE, [&line[..], &[0]].concat())));
        pieces.extend(self.modules.iter().cloned());
        pieces
    }
}

/// Puts the CPU at the PVH entry point.
///
/// # Errors
/// If KVM refuses the state.
pub fn enter(cpu: &VcpuFd, entry: u32, start_info: u64) -> anyhow::Result<()> {
    let flat = |selector, type_| kvm_segment {
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let mut sregs = cpu.get_sregs().context("KVM_GET_SREGS")?;
    // Readable code, writable data, both accessed; a busy 32-bit task state segment.
    sregs.cs = flat(0x50, 0xb);
    (sregs.ds, sregs.es, sregs.ss) = (flat(0x58, 3), flat(0x58, 3), flat(0x58, 3));
    sregs.tr = kvm_segment { limit: 0x67, selector: 0x60, type_: 0xb, present: 1, ..kvm_segment::default() };
    (sregs.gdt, sregs.idt) = (kvm_dtable::default(), kvm_dtable::default());
    // Protection is on. The bit for a coprocessor cannot be cleared.
    (sregs.cr0, sregs.cr4, sregs.efer) = (0x11, 0, 0);
    cpu.set_sregs(&sregs).context("KVM_SET_SREGS")?;
    let rubbish = 0xdead_beef;
    let regs = kvm_regs {
        rip: entry.into(),
        rbx: start_info,
        // Direction, carry, and the bit that is always set.
        rflags: 1 << 10 | 1 << 1 | 1,
        rax: rubbish,
        rcx: rubbish,
        rdx: rubbish,
        rsi: rubbish,
        rdi: rubbish,
        rsp: rubbish,
        rbp: rubbish,
        ..kvm_regs::default()
    };
    cpu.set_regs(&regs).context("KVM_SET_REGS")
}
