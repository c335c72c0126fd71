//! The seeds of the target `boot`.

use firstlight::addr::PhysRange;
use firstlight::fakes::tables;
use firstlight::start_info::Start;

use super::host_map;
use super::script::{
    AtReset, CMDLINE_SIZE, FILES, INITRD_DATA, INITRD_SIZE, KERNEL_ADDR, KERNEL_DATA, KERNEL_ENTRY, KERNEL_SIZE,
    NUMBERED, SETUP_SIZE, Script, captured, pattern,
};
use crate::bzimage::SETUP;
use crate::input::Input;

/// In the second byte of an input: the operating system resets the machine.
const RESETS: u8 = 64;

/// Where a boot puts the FACS.
fn facs(bytes: &[u8]) -> Option<u32> {
    let script = Script::take(&mut Input::new(bytes));
    let end = host_map(&script)?.ram_end(PhysRange::LOW_4_GIB)?.get();
    let mut machine = script.machine(Vec::new(), AtReset::PLAIN);
    firstlight::run(&mut machine, Start::Reset).ok()?;
    let high = machine.memory.bytes(end - (1 << 20), 1 << 20);
    let at = high.chunks(64).position(|chunk| chunk.starts_with(b"FACS"))?;
    u32::try_from(end - (1 << 20) + 64 * at as u64).ok()
}

/// Captured machines, with variations.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let order = |kind: u8, parts: &[&[u8]]| [&[kind], &parts.concat()[..]].concat();
    let number = |key: u16, value: u32| {
        let place = NUMBERED.iter().position(|&other| other == key).unwrap() as u8;
        order(1, &[&[place], &value.to_le_bytes()])
    };
    let file = |name: &str, bytes: &[u8]| {
        let place = FILES.iter().position(|&other| other == name).unwrap() as u8;
        order(2, &[&[place], &(bytes.len() as u16).to_le_bytes(), bytes])
    };
    let mut left_tables = Vec::new();
    for (entry_point, tables) in [(0x9_fc00, 0x60_0000), (0xf_0000, 0x61_0000), (0xf_8000, 0x62_0000)] {
        let others =
            [tables::smbios(entry_point + 64, tables + 0x1000), tables::mp_table(entry_point + 128, tables + 0x2000)];
        for (at, bytes) in [tables::acpi(entry_point, tables, 0xe000_0000), others.concat()].concat() {
            for (at, bytes) in (at as u32..).step_by(128).zip(bytes.chunks(128)) {
                left_tables.extend(order(10, &[&at.to_le_bytes(), &[bytes.len() as u8], bytes]));
            }
        }
    }
    for base in 0..=captured().len() as u8 {
        let chipset = match base {
            0 => 2,
            1 | 2 => 1,
            _ => 0,
        };
        seeds.push(vec![base, chipset, 0]);
        seeds.push(vec![base, chipset, 3 | 64]);
        // An operating system with the waking vector 0x1000, after a suspend, and after a plain reset.
        if let Some(facs) = facs(&[base, chipset, 2]) {
            let vector = order(10, &[&(facs + 12).to_le_bytes(), &[4, 0, 0x10, 0, 0]]);
            for kind in [chipset, chipset | RESETS] {
                seeds.push([vec![base, kind, 2], vector.clone()].concat());
            }
        }
        // An operating system that leaves tables for the next boot.
        seeds.push([vec![base, chipset | RESETS, 2], left_tables.clone()].concat());
    }
    // The same on a host without ACPI tables, and on a host without anything.
    let ram = [&[0; 11][..], &[0x10, 0, 0, 0, 0, 1, 0, 0, 0]].concat();
    let smbios = ["etc/smbios/smbios-anchor", "etc/smbios/smbios-tables"];
    let smbios: Vec<_> = captured()[3].iter().filter(|(name, _)| smbios.contains(&name.as_str())).collect();
    let smbios: Vec<_> = smbios.iter().flat_map(|(name, bytes)| file(name, bytes)).collect();
    for chipset in [0, 1, 2] {
        let start = [&[0xff, chipset | RESETS, 2][..], &file("etc/e820", &ram)].concat();
        seeds.push([start.as_slice(), &left_tables].concat());
        seeds.push([start, smbios.clone(), left_tables.clone()].concat());
    }
    // CMOS in place of a list, on a machine without tables.
    let mut cmos = [0; 0x60];
    cmos[0x35] = 0x1f;
    seeds.push([vec![0xff, 2, 0], order(8, &[&[0x60], &cmos])].concat());
    // An ELF kernel in memory.
    let elf =
        [number(KERNEL_ADDR, 0x10_0000), number(KERNEL_ENTRY, 0x10_0010), order(4, &[&[0x02, 0x02], &[0; 4]])].concat();
    seeds.push([vec![3, 0, 2], elf.clone()].concat());
    seeds.push([vec![0, 2, 0], elf.clone()].concat());
    // A zImage, and a bzImage that finds its command line in low memory.
    let old = order(4, &[&0x206_u16.to_le_bytes(), &[0, 2, 0, 0]]);
    seeds.push([&[3, 0, 2], &old[..]].concat());
    let zimage =
        [(0x211_u16, [0; 4]), (0x214, [0, 0x10, 0, 0])].map(|(at, bytes)| order(4, &[&at.to_le_bytes(), &bytes]));
    seeds.push([&[3, 0, 0], &old[..], &zimage.concat()].concat());
    // A kernel for Multiboot.
    let (info, kernel) = crate::multiboot::with_modules();
    let item = |key: u16, bytes: &[u8]| {
        let place = NUMBERED.iter().position(|&other| other == key).unwrap() as u8;
        order(0, &[&[place], &(bytes.len() as u16).to_le_bytes(), bytes])
    };
    let sizes = [(KERNEL_SIZE, kernel.len()), (INITRD_SIZE, 88), (SETUP_SIZE, 0)];
    let sizes: Vec<_> = sizes.iter().flat_map(|&(key, size)| number(key, size as u32)).collect();
    let items = [item(KERNEL_DATA, &kernel), item(INITRD_DATA, &info)].concat();
    seeds.push([vec![3, 0, 2], elf.clone(), sizes.clone(), items.clone()].concat());
    seeds.push([vec![0, 2, 0], elf.clone(), sizes, items].concat());
    // A kernel that is a file.
    let mut setup = SETUP.to_vec();
    setup[0x1f1] = 1;
    let kernel = [setup.as_slice(), &pattern(2000, 3)].concat();
    let extras = [file("opt/org.firstlight/initrd", &pattern(700, 4)), file("opt/org.firstlight/cmdline", b"quiet\n")];
    for name in ["opt/org.firstlight/kernel", "etc/boot/kernel"] {
        let sizes = [KERNEL_SIZE, INITRD_SIZE, CMDLINE_SIZE].map(|key| number(key, 0)).concat();
        seeds.push([vec![4, 0, 2], sizes, file(name, &kernel), extras.concat()].concat());
    }
    // A TPM, whose log the script has to allocate.
    let mut script = captured()[3].iter().find(|(name, _)| name == "etc/table-loader").unwrap().1.clone();
    let used = script.chunks(128).rposition(|command| command[0] != 0).map_or(0, |last| last + 1);
    script.truncate(used * 128);
    script.extend(firstlight::fakes::golden::allocate("etc/tpm/log"));
    let log = [file("etc/tpm/log", &[0; 4096]), file("etc/table-loader", &script)].concat();
    for kind in [0, 1] {
        seeds.push([vec![3, 0, 2 | 32, kind, 0, 0], log.clone()].concat());
        seeds.push([vec![3, RESETS, 2 | 32, kind, 0, 0], log.clone()].concat());
    }
    // PCI, a display, a framebuffer in RAM, CPUs.
    for pci in crate::pci::seeds() {
        seeds.push([&[3, 15 << 2, 16], &pci[9..]].concat());
        seeds.push([&[1, 1 | 15 << 2, 16], &pci[9..]].concat());
    }
    let features = order(6, &[&[1], &[0; 8], &0x20_u32.to_le_bytes(), &0x1200_u32.to_le_bytes()]);
    let control = [file("etc/msr_feature_control", &[5, 0, 0, 0, 0, 0, 0, 0]), number(5, 4)].concat();
    seeds.push([vec![3, 0, 0], features, control, file("etc/ramfb", &[0; 28])].concat());
    seeds.push(
        [vec![3, 0, 0], file("opt/org.firstlight/log", b"debug"), file("opt/org.firstlight/trace", b"on")].concat(),
    );
    seeds.push([vec![3, 0, 0], number(KERNEL_SIZE, 0x4000_0000), number(INITRD_SIZE, 0x3000_0000)].concat());
    // A display, and no kernel: the first of the seeds for PCI has three functions.
    let no_kernel = number(KERNEL_SIZE, 0);
    let functions = &crate::pci::seeds()[0][9..];
    seeds.push([&[3, 3 << 2, 16], functions, &no_kernel].concat());
    seeds.push([vec![3, 0, 0], file("etc/ramfb", &[0; 28]), no_kernel].concat());
    // A start by the PVH entry point, with a kernel and an initrd as modules, and with the items of fw_cfg.
    let modules = [(0x200_0000, 1024 + 2000), (0x300_0000, 500)];
    let pieces = crate::start_info::pieces(0x6000, &modules, b"quiet", &[(0, 0xa_0000), (0x10_0000, 0x3ff0_0000)]);
    let pieces = pieces.iter().map(|(at, piece)| order(9, &[&at.to_le_bytes(), &[piece.len() as u8], piece]));
    let pieces: Vec<_> = pieces.collect::<Vec<_>>().concat();
    let start = [0, 2, 128, 0, 0x60, 0, 0];
    let module = order(12, &[&0x200_0000_u32.to_le_bytes(), &[1]]);
    let sizes = [KERNEL_SIZE, INITRD_SIZE, CMDLINE_SIZE].map(|key| number(key, 0)).concat();
    seeds.push([&start[..], &pieces, &module, &sizes].concat());
    seeds.push([&start[..], &pieces].concat());
    // An initrd where there is no RAM.
    let outside = order(9, &[&0x6120_u32.to_le_bytes(), &[8], &0x7_0200_0000_u64.to_le_bytes()]);
    seeds.push([&start[..], &pieces, &module, &sizes, &outside].concat());
    // ACPI tables that lead into an initrd.
    let mut tables = order(9, &[&0x6020_u32.to_le_bytes(), &[8], &0xe_0000_u64.to_le_bytes()]);
    for (at, bytes) in firstlight::fakes::tables::acpi(0xe_0000, 0x300_0100, 0xe000_0000) {
        for (at, bytes) in (at as u32..).step_by(128).zip(bytes.chunks(128)) {
            tables.extend(order(9, &[&at.to_le_bytes(), &[bytes.len() as u8], bytes]));
        }
    }
    seeds.push([&start[..], &pieces, &module, &sizes, &tables].concat());
    // An initrd that is above 4 GiB.
    seeds.push([vec![4, 0, 2], number(INITRD_SIZE, 0xb000_0000)].concat());
    seeds
}
