//! The list.
#![forbid(unsafe_code)]

use firstlight::fw_cfg::fake::{Changing, Misdeed, Quirks, known_hosts};
use firstlight::tables::fake::{acpi, mp_table, smbios, sum_up, table};
use vmm::devices::{At, Extra};

use crate::host::{Host, RAM, directory, key, pattern, record, script};
use crate::pci::{self, Board};
use crate::{Cases, Expected, Fault, InVmm};

macro_rules! faults {
    ($($name:ident: $what:literal, $cases:expr, $host:expr, $expected:expr, $vmm:expr;)*) => {
        /// Every fault that is tried.
        pub const FAULTS: &[Fault] = &[$(Fault {
            name: stringify!($name),
            what: $what,
            cases: $cases,
            host: $host,
            expected: $expected,
            vmm: $vmm,
        }),*];

        #[cfg(test)]
        mod tests {
            $(#[test]
            fn $name() {
                super::on_fakes(stringify!($name));
            })*
        }
    };
}

const ONCE: Cases = Cases::Below(1);

faults! {
    none: "nothing wrong", ONCE, |_| Host::sound(), Expected::goes_on(&[]), InVmm::All;

    // DMA.
    dma_fails_at_the_nth_transfer: "DMA reports an error, at each transfer of a boot in turn",
        Cases::Transfers, |n| misdeed(n, Misdeed::Fails), Expected::goes_on(&[]), InVmm::All;
    dma_fails_halfway_at_the_nth_transfer: "DMA reports an error when half of the bytes are there, at each transfer in turn",
        Cases::Transfers, |n| misdeed(n, Misdeed::FailsHalfway), Expected::goes_on(&[]), InVmm::All;
    dma_fails_at_the_nth_transfer_of_another_host:
        "the same where items are selected through a port (propolis)",
        Cases::Transfers, |n| of_propolis(misdeed(n, Misdeed::FailsHalfway)), Expected::goes_on(&[]), InVmm::Every(4);
    dma_always_fails: "DMA reports an error each time",
        ONCE, |_| Host::sound().quirks(Quirks { always_fails: true, ..NO_QUIRKS }), Expected::goes_on(&[]), InVmm::All;
    dma_never_ends: "DMA never completes",
        ONCE, |_| Host::sound().quirks(Quirks { never_completes: true, ..NO_QUIRKS }), Expected::goes_on(&["did not end"]),
        InVmm::All;
    dma_never_ends_at_the_nth_transfer: "DMA never completes, at each transfer in turn",
        Cases::Transfers, |n| misdeed(n, Misdeed::NeverEnds), Expected::goes_on(&["did not end"]),
        InVmm::No("each case waits for a deadline of 2^34 ticks");
    dma_is_short_at_the_nth_transfer: "DMA completes short and says it is done, at each transfer in turn",
        Cases::Transfers, |n| misdeed(n, Misdeed::IsShort), Expected::either(&[]), InVmm::All;
    items_change_between_two_selections: "an item has other bytes each time it is selected again",
        ONCE, |_| changing(Changing::AtSelection), Expected::either(&[]), InVmm::All;
    items_change_between_two_reads: "an item has other bytes each time it is read again",
        ONCE, |_| changing(Changing::AtRead), Expected::either(&[]), InVmm::All;
    items_change_between_two_reads_of_ports: "the same without DMA",
        ONCE, |_| without_dma(changing(Changing::AtRead)), Expected::either(&[]), InVmm::All;

    // Sizes and names.
    sizes_of_files_are_too_large: "every named file is said to have 4 GiB less one byte",
        ONCE, |_| sizes(|_| u32::MAX), Expected::either(&[]), InVmm::All;
    sizes_of_files_are_larger: "every named file is said to be longer than it is",
        ONCE, |_| sizes(|len| len + 1000), Expected::either(&[]), InVmm::All;
    sizes_of_files_are_smaller: "every named file is said to be half as long as it is",
        ONCE, |_| sizes(|len| len / 2), Expected::either(&[]), InVmm::All;
    sizes_of_files_are_zero: "every named file is said to be empty",
        ONCE, |_| sizes(|_| 0), Expected::either(&[]), InVmm::All;
    the_size_of_the_kernel_is_a_lie: "a kernel of 0, 512, 16 MiB, 2 GiB, 4 GiB less one byte",
        Cases::Below(5), |n| Host::sound().number(key::KERNEL_SIZE, SIZES[n as usize]), Expected::either(&[]), InVmm::All;
    the_size_of_the_initrd_is_a_lie: "an initrd of the same sizes",
        Cases::Below(5), |n| Host::sound().number(key::INITRD_SIZE, SIZES[n as usize]), Expected::either(&[]), InVmm::All;
    the_size_of_the_command_line_is_a_lie: "a command line of the same sizes",
        Cases::Below(5), |n| Host::sound().number(key::CMDLINE_SIZE, SIZES[n as usize]), Expected::either(&[]), InVmm::All;
    the_directory_counts_too_many_files: "65,535 files, 2^32 less one, and more than there are",
        Cases::Below(3), |n| counted([65_535, u32::MAX, 1000][n as usize]), Expected::either(&[]), InVmm::All;
    the_directory_has_as_many_files_as_may_be: "1,024 files, the known ones at the end",
        ONCE, |_| many_files(1024), Expected::goes_on(&[]), InVmm::All;
    the_directory_has_65_535_files: "65,535 files that are there",
        ONCE, |_| many_files(65_535), Expected::stops(&[]), InVmm::All;
    names_are_there_twice: "each name twice, first for an empty file",
        ONCE, |_| Host::sound().directory(twice), Expected::either(&[]), InVmm::All;
    names_have_no_end: "names that fill their field, without a NUL, and ones that are no text",
        ONCE, |_| Host::sound().directory(endless_names), Expected::either(&[]), InVmm::All;
    keys_are_those_of_other_items: "every named file has the key of the directory, of the kernel, of nothing",
        Cases::Below(3), |n| keys([key::FILE_DIR, key::KERNEL_DATA, 0xffff][n as usize]), Expected::either(&[]), InVmm::All;

    // Tables.
    tables_have_pointers_outside_their_file: "pointers in tables that lead outside the file they are to point into",
        Cases::Below(4), |n| pointer_holds([0x2_0000, 0x7fff_ffff, u32::MAX, 0xfffd_0000][n as usize]), Expected::goes_on(&[]),
        InVmm::All;
    tables_point_at_each_other_in_circles: "files that point at each other, and into themselves",
        ONCE, |_| with_script(&circles()), Expected::goes_on(&[]), InVmm::All;
    the_script_allocates_4_gib: "a file of 4 GiB less one byte, 2 GiB, 1 GiB to be loaded",
        Cases::Below(6), |n| allocation([u32::MAX, 1 << 31, 1 << 30][n as usize % 3], 16, 1 + n as u8 / 3),
        Expected::goes_on(&[]), InVmm::All;
    the_script_aligns_by_no_power_of_two: "alignments of 0, 3, 2 GiB, 2^32 less one",
        Cases::Below(8), |n| allocation(100, [0, 3, 1 << 31, u32::MAX][n as usize % 4], 1 + n as u8 / 4), Expected::goes_on(&[]),
        InVmm::All;
    the_script_sums_up_what_wraps: "a checksum of a range that wraps, or is outside its file",
        Cases::Below(4), |n| with_script(&wrong_sums()[n as usize]), Expected::goes_on(&[]), InVmm::All;
    the_script_names_what_is_not_there: "files that are not there, not loaded, without a name, loaded twice",
        Cases::Below(5), |n| with_script(&wrong_names()[n as usize]), Expected::goes_on(&[]), InVmm::All;
    the_script_points_outside: "pointers to be put or told outside their file, of odd sizes",
        Cases::Below(6), |n| with_script(&wrong_places()[n as usize]), Expected::goes_on(&[]), InVmm::All;
    the_script_is_as_long_as_may_be: "a script of 512 commands, of 513, of half a command",
        Cases::Below(3), |n| long_script([512, 513, 0][n as usize]), Expected::goes_on(&[]), InVmm::All;
    the_script_is_noise: "a script of any bytes",
        Cases::Below(8), |n| noise("etc/table-loader", n), Expected::goes_on(&[]), InVmm::Every(4);
    smbios_is_noise: "an SMBIOS anchor or structures of any bytes",
        Cases::Below(8), |n| noise(["etc/smbios/smbios-anchor", "etc/smbios/smbios-tables"][n as usize % 2], n),
        Expected::goes_on(&[]), InVmm::Every(4);
    tables_in_memory_are_in_circles: "tables in memory that lead back to where they are told of",
        Cases::Below(3), |n| in_memory(&CIRCLES[n as usize]), Expected::goes_on(&[]), InVmm::All;
    tables_in_memory_point_at_the_firmware: "tables in memory that lead to the firmware's memory, image, page zero",
        Cases::Below(4), |n| in_memory(&[Some([0x4_0000, 0x9_0000, 0xffff_f000, 0x10][n as usize]); 4]), Expected::goes_on(&[]),
        InVmm::All;
    tables_in_memory_point_outside: "tables in memory that lead where nothing is, to the end, to what does not exist",
        Cases::Below(4),
        |n| in_memory(&[Some([RAM, 0xfec0_0000, u64::MAX - 3, 1 << 52][n as usize]); 4]), Expected::goes_on(&[]), InVmm::All;
    other_tables_in_memory_point_at_the_firmware: "an SMBIOS anchor and an MP table at the firmware's memory, image, outside",
        Cases::Below(4), |n| others_in_memory([0x4_0000, 0x9_0000, 0xffff_f000, 0xffff_fff0][n as usize]), Expected::goes_on(&[]),
        InVmm::All;

    // Memory.
    e820_has_10_000_entries_that_overlap: "a list of 10,000 overlapping entries",
        ONCE, |_| e820(10_000), Expected::stops(&[]), InVmm::All;
    e820_has_as_many_entries_as_are_read: "a list of 1,024 overlapping entries",
        ONCE, |_| e820(1024), Expected::either(&[]), InVmm::All;
    e820_has_entries_that_wrap: "entries that wrap, have no length, or are cut off",
        ONCE, |_| Host::sound().file("etc/e820", wrapping_e820()), Expected::goes_on(&[]), InVmm::All;
    e820_says_that_the_firmware_has_no_memory: "the firmware's own memory is none by the list, or reserved",
        Cases::Below(2), |n| no_low_memory(n), Expected::either(&[]), InVmm::All;
    ram_is_1_mib: "RAM of 1 MiB",
        ONCE, |_| Host::sound().file("etc/e820", record(0..1 << 20, 1)), Expected::stops(&[]), InVmm::All;
    ram_is_none: "a list without RAM, and an empty one",
        Cases::Below(2), |n| Host::sound().file("etc/e820", record(0..RAM, 2)[..20 - 20 * n as usize].to_vec()),
        Expected::stops(&[]), InVmm::All;
    cmos_reads_as_all_ones: "no list, and CMOS that reads as 0xff",
        ONCE, |_| Host::sound().without("etc/e820").extra(|| Box::new(Cmos(0xff, 0))), Expected::stops(&[]), InVmm::All;
    cmos_reads_as_anything: "no list, and CMOS that always reads as some other number",
        Cases::Below(4), |n| Host::sound().without("etc/e820").extra(CMOS[n as usize]), Expected::either(&[]), InVmm::All;

    // PCI.
    pci_bars_never_settle: "base address registers that read as something else each time",
        Cases::Below(2), |n| board(n, BARS_NEVER_SETTLE), Expected::goes_on(&[]), InVmm::All;
    pci_bars_ask_for_everything: "base address registers of 2 GiB, of 2^63 bytes, of every port",
        Cases::Below(2), |n| board(n, BARS_ASK_FOR_EVERYTHING), Expected::goes_on(&[]), InVmm::All;
    pci_answers_on_every_function: "a function answers at every address of every bus",
        Cases::Below(2), |n| board(n, EVERY_FUNCTION_ANSWERS), Expected::goes_on(&[]), InVmm::All;
    pci_has_a_bridge_at_every_function: "a bridge answers at every address of every bus",
        Cases::Below(2), |n| board(n, EVERY_FUNCTION_IS_A_BRIDGE), Expected::goes_on(&[]), InVmm::All;
    pci_has_capabilities_in_a_circle: "a list of capabilities that leads back to its beginning",
        Cases::Below(2), |n| board(n, CAPABILITIES_IN_A_CIRCLE), Expected::goes_on(&[]), InVmm::All;
    pci_devices_go_away: "devices that are there no more in the middle of it",
        Cases::Below(2), |n| board(n, DEVICES_GO_AWAY), Expected::goes_on(&[]), InVmm::All;
    pci_is_noise: "every read of configuration space gives something else",
        Cases::Below(2), |n| board(n, NOTHING_BUT_NOISE), Expected::goes_on(&[]), InVmm::All;
    pci_has_as_many_roots_as_can_be_counted: "2^64 less one extra root buses",
        Cases::Below(2), |n| board(n, BARS_ASK_FOR_EVERYTHING).file("etc/extra-pci-roots", vec![0xff; 8]),
        Expected::goes_on(&[]), InVmm::All;
}

/// Tries the fault of this name on the fakes.
#[cfg(test)]
fn on_fakes(name: &str) {
    let fault = FAULTS.iter().find(|fault| fault.name == name).unwrap();
    let report = crate::run(fault, &mut crate::Fakes::default());
    assert!(report.problems.is_empty(), "{}: {:#?}", report.happened, report.problems);
}

const NO_QUIRKS: Quirks = known_qemu();

const fn known_qemu() -> Quirks {
    Quirks {
        address_reads: firstlight::fw_cfg::fake::AddressReads::AsQemu,
        id: None,
        long_signature: false,
        ignores_select: false,
        selects_the_id: false,
        refuses_skip: false,
        ignores_skip: false,
        needs_high_half: false,
        no_zero_fill: false,
        zeroes_a_string_past_the_end: false,
        absent: firstlight::fw_cfg::fake::Absent::Empty,
        ends_at_write: false,
        ends_at_dma: false,
        ends_at_other_widths: false,
        lists_numbered_items: false,
        never_completes: false,
        always_fails: false,
        misdeed: None,
        changing: None,
    }
}

fn misdeed(nth: u32, misdeed: Misdeed) -> Host {
    Host::sound().quirks(Quirks { misdeed: Some((nth, misdeed)), ..Quirks::default() })
}

fn changing(changing: Changing) -> Host {
    Host::sound().quirks(Quirks { changing: Some(changing), ..Quirks::default() })
}

fn of_propolis(mut host: Host) -> Host {
    let known = known_hosts().into_iter().find(|known| known.name == "propolis").unwrap_or(host.known);
    host.known.quirks = Quirks { misdeed: host.known.quirks.misdeed, ..known.quirks };
    host
}

fn without_dma(mut host: Host) -> Host {
    host.known.dma = false;
    host
}

const SIZES: [u32; 5] = [0, 512, 16 << 20, 1 << 31, u32::MAX];

/// The sizes in the directory, by what they are.
fn sizes(size: fn(u32) -> u32) -> Host {
    Host::sound().directory(|records| records.iter_mut().for_each(|(len, ..)| *len = size(*len)))
}

/// A directory that counts so many files and has those that there are.
fn counted(count: u32) -> Host {
    let host = Host::sound();
    let mut bytes = Vec::new();
    let host = host.directory(|records| bytes = directory(count, records));
    host.item(key::FILE_DIR, &bytes)
}

fn many_files(count: usize) -> Host {
    Host::sound().directory(|records| {
        let known = std::mem::take(records);
        let fillers = count - known.len();
        records.extend((0..fillers).map(|number| (number as u32, 0xfff0, format!("etc/filler/{number}").into_bytes())));
        records.extend(known);
    })
}

fn twice(records: &mut Vec<crate::host::Record>) {
    let empty: Vec<_> = records.iter().map(|(_, _, name)| (0, 0xfff0, name.clone())).collect();
    records.splice(0..0, empty);
}

fn endless_names(records: &mut Vec<crate::host::Record>) {
    let fields = [b'x', 0xff, b'/', b'e'];
    records.splice(0..0, fields.map(|byte| (100, 0xfff0, vec![byte; 56])));
    // Known names that go on behind their end.
    for (_, _, name) in records.iter_mut().skip(fields.len()).filter(|(_, _, name)| !name.ends_with(b"e820")) {
        name.resize(56, b'x');
    }
}

fn keys(other: u16) -> Host {
    Host::sound().directory(|records| {
        for (_, key, name) in records {
            if !name.ends_with(b"e820") {
                *key = other;
            }
        }
    })
}

/// A file that holds `value` where a pointer into the tables is to be.
fn pointer_holds(value: u32) -> Host {
    let commands = [
        script::allocate("etc/pointer", 16, 1),
        script::add_pointer("etc/pointer", "etc/acpi/tables", 0, 4),
    ];
    with_script(&commands.concat()).file("etc/pointer", value.to_le_bytes().to_vec())
}

/// The sound host with more commands in front of its script's end, and a file for them, `etc/more`.
fn with_script(commands: &[u8]) -> Host {
    let host = Host::sound().file("etc/more", vec![0; 64]).file("etc/other", vec![0; 64]).file("etc/empty", Vec::new());
    let mut script = host.contents("etc/table-loader").to_vec();
    let used = script.chunks(128).rposition(|command| command[0] != 0).map_or(0, |last| last + 1);
    script.truncate(used * 128);
    script.extend(commands);
    host.file("etc/table-loader", script)
}

fn circles() -> Vec<u8> {
    let (more, other) = ("etc/more", "etc/other");
    [
        script::allocate(more, 16, 1),
        script::allocate(other, 16, 2),
        script::add_pointer(more, other, 0, 8),
        script::add_pointer(other, more, 0, 8),
        script::add_pointer(more, more, 8, 8),
        script::add_pointer(more, more, 8, 8),
        script::add_pointer(other, "etc/acpi/rsdp", 8, 4),
        script::add_checksum(more, 0, 0, 64),
        script::add_checksum(more, 0, 0, 64),
    ]
    .concat()
}

fn allocation(len: u32, alignment: u32, zone: u8) -> Host {
    let host = with_script(&script::allocate("etc/more", alignment, zone));
    host.directory(|records| {
        for (size, _, name) in records {
            if name == b"etc/more" {
                *size = len;
            }
        }
    })
}

fn wrong_sums() -> [Vec<u8>; 4] {
    let (more, allocate) = ("etc/more", script::allocate("etc/more", 16, 1));
    let sums = [(0, 0, 65), (0, 32, u32::MAX - 15), (0, u32::MAX, 2), (64, 0, 64)];
    sums.map(|(offset, start, len)| [allocate.clone(), script::add_checksum(more, offset, start, len)].concat())
}

fn wrong_names() -> [Vec<u8>; 5] {
    let allocate = script::allocate("etc/more", 16, 1);
    [
        script::allocate("etc/none", 16, 1),
        script::add_pointer("etc/more", "etc/acpi/tables", 0, 4),
        script::allocate("", 16, 1),
        [allocate.clone(), allocate.clone()].concat(),
        [allocate, script::write_pointer("etc/none", 0, "etc/more", 0, 8)].concat(),
    ]
}

fn wrong_places() -> [Vec<u8>; 6] {
    let more = "etc/more";
    let commands = [
        script::add_pointer(more, more, 61, 4),
        script::add_pointer(more, more, u32::MAX, 8),
        script::add_pointer(more, more, 0, 3),
        script::write_pointer("etc/other", 60, more, 0, 8),
        script::write_pointer("etc/other", 0, more, 64, 8),
        script::write_pointer("etc/other", u32::MAX, more, u32::MAX, 255),
    ];
    commands.map(|command| [script::allocate(more, 16, 1), command].concat())
}

/// A script of so many commands, or with half a command for 0.
fn long_script(commands: usize) -> Host {
    if commands == 0 {
        return with_script(&script::allocate("etc/more", 16, 1)[..64]);
    }
    let host = with_script(&script::allocate("etc/more", 16, 1));
    let used = host.contents("etc/table-loader").len() / 128;
    with_script(&[script::allocate("etc/more", 16, 1), script::add_checksum("etc/more", 0, 0, 64).repeat(commands - used)].concat())
}

fn noise(name: &str, seed: u32) -> Host {
    let host = Host::sound();
    let mut bytes = host.contents(name).to_vec();
    // Some of it is as it was.
    for (at, byte) in pattern(bytes.len(), seed as u8).into_iter().enumerate().skip(4) {
        if (at as u32 / 7 + seed).is_multiple_of(5) {
            bytes[at] ^= byte;
        }
    }
    host.file(name, bytes)
}

/// Where the root pointer of tables in memory is, and where the tables are: in what the host keeps for itself.
const RSDP: u64 = 0x9_fc00;
const TABLES: u64 = RAM - 0x8_0000;

/// To where XSDT, its first entry, FACS and DSDT are pointed, if elsewhere. 0 stands for the table that has the pointer.
const CIRCLES: [[Option<u64>; 4]; 3] =
    [[None, Some(TABLES), None, None], [None, None, Some(TABLES + 64), Some(TABLES + 64)], [Some(RSDP), None, None, None]];

/// Tables in memory, with pointers of theirs elsewhere.
fn in_memory(pointers: &[Option<u64>; 4]) -> Host {
    let mut pieces = acpi(RSDP, TABLES, 0xd000_0000);
    let [xsdt, entry, facs, dsdt] = *pointers;
    let mut put = |piece: usize, at: usize, value: Option<u64>, sums: &[(usize, usize)]| {
        let Some(value) = value else { return };
        let bytes = &mut pieces[piece].1;
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        for (end, sum) in sums {
            let end = (*end).min(bytes.len());
            sum_up(&mut bytes[..end], *sum);
        }
    };
    // What a case is about is the first pointer that leads astray: the others are sound, or are never come to.
    put(2, 132, facs, &[(usize::MAX, 9)]);
    put(2, 140, dsdt, &[(usize::MAX, 9)]);
    put(1, 36, entry.filter(|_| facs.is_none() || xsdt.is_some()), &[(usize::MAX, 9)]);
    put(0, 24, xsdt.filter(|_| entry.is_none()), &[(20, 8), (36, 32)]);
    // Another table, so that there is one that nothing is wrong with.
    pieces.push((TABLES + 0x1000, table(b"GOOD", &[1, 2, 3])));
    let host = Host::sound().without("etc/table-loader");
    host.memory(pieces)
}

fn others_in_memory(at: u64) -> Host {
    let mut pieces = acpi(RSDP, TABLES, 0xd000_0000);
    pieces.push(smbios(0xf_0000, at).swap_remove(0));
    pieces.push(mp_table(0xf_0100, at).swap_remove(0));
    Host::sound().without("etc/table-loader").without("etc/smbios/smbios-anchor").memory(pieces)
}

/// So many entries: RAM, with pieces of it reserved again and again.
fn e820(entries: u64) -> Host {
    let other = |number: u64| {
        let start = 0x10_0000 + number * 0x1357_0000 % RAM / 4096 * 4096;
        record(start..start + 0x8000 * (1 + number % 7), [1, 2, 1, 3, 1][number as usize % 5])
    };
    let list = (1..entries).flat_map(other);
    Host::sound().file("etc/e820", record(0..RAM, 1).into_iter().chain(list).collect())
}

fn wrapping_e820() -> Vec<u8> {
    let sound = Host::sound();
    let mut list = sound.contents("etc/e820").to_vec();
    list.extend(record(0x200_0000..0x200_0000, 1));
    list.extend(record(u64::MAX - 0xfff..0x10_0000, 1));
    list.extend(record(u64::MAX - 0xfff..0x10_0000, 2));
    list.extend([1, 2, 3]);
    list
}

/// Without low memory, or with all of it reserved.
fn no_low_memory(case: u32) -> Host {
    let list = match case {
        0 => record(0x10_0000..RAM, 1),
        _ => [record(0..RAM, 1), record(0..0x10_0000, 2)].concat(),
    };
    Host::sound().file("etc/e820", list)
}

/// CMOS that reads as one number up to 0x5a, and as another from there on; no chipset.
struct Cmos(u8, u8);

const CMOS: [fn() -> Box<dyn Extra>; 4] = [
    || Box::new(Cmos(0, 0)),
    || Box::new(Cmos(1, 0xff)),
    || Box::new(Cmos(1, 1)),
    || Box::new(Cmos(0x80, 0)),
];

impl Extra for Cmos {
    fn claims(&self, at: At) -> bool {
        matches!(at, At::Port(0x70 | 0x71 | 0xcf8..0xd00))
    }
    fn read(&mut self, at: At, _: u8) -> u64 {
        if at == At::Port(0x71) { self.0.into() } else { u64::MAX }
    }
    fn write(&mut self, at: At, _: u8, value: u64) {
        if at == At::Port(0x70) && value & 0x7f > 0x5a {
            self.0 = self.1;
        }
    }
}

/// A board of each kind: pc, q35.
type Boards = [fn() -> Box<dyn Extra>; 2];

const BARS_NEVER_SETTLE: Boards = [|| Board::pc(pci::bars_never_settle), || Board::q35(pci::bars_never_settle)];
const BARS_ASK_FOR_EVERYTHING: Boards =
    [|| Board::pc(pci::bars_ask_for_everything), || Board::q35(pci::bars_ask_for_everything)];
const EVERY_FUNCTION_ANSWERS: Boards =
    [|| Board::pc(pci::every_function_answers), || Board::q35(pci::every_function_answers)];
const EVERY_FUNCTION_IS_A_BRIDGE: Boards =
    [|| Board::pc(pci::every_function_is_a_bridge), || Board::q35(pci::every_function_is_a_bridge)];
const CAPABILITIES_IN_A_CIRCLE: Boards =
    [|| Board::pc(pci::capabilities_in_a_circle), || Board::q35(pci::capabilities_in_a_circle)];
const DEVICES_GO_AWAY: Boards = [|| Board::pc(pci::devices_go_away), || Board::q35(pci::devices_go_away)];
const NOTHING_BUT_NOISE: Boards = [|| Board::pc(pci::nothing_but_noise), || Board::q35(pci::nothing_but_noise)];

fn board(number: u32, boards: Boards) -> Host {
    Host::sound().extra(boards[number as usize])
}
