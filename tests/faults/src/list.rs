//! The list.
#![forbid(unsafe_code)]

use firstlight::fakes::fw_cfg::{Changing, Misdeed, Quirks};
use firstlight::fakes::known_hosts::known_hosts;
use firstlight::fakes::tables::{acpi, mp_table, smbios, sum_up, table};
use vmm::devices::{At, Extra};

use crate::disks::{BUSES, Bus, CHANGES, DiskFault, Faulty, TARGETS};
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

/// Why the VMM does not run faults of disks.
const NO_DISKS: InVmm = InVmm::No("the test VMM has no disks");
/// As many requests of a boot from disk are tried, on each of the buses.
const REQUESTS: u32 = 8;
/// As many accesses to registers are tried, every third.
const ACCESSES: u32 = 15;
const ON_EACH_BUS: Cases = Cases::Below(REQUESTS * BUSES.len() as u32);

faults! {
    none: "nothing is wrong",
        Cases::Below(2), |_| Host::sound(),
        Expected::goes_on(&[]), InVmm::All;

    // DMA.
    dma_fails_at_the_nth_transfer: "DMA reports an error, at each transfer of a boot in turn",
        Cases::Transfers, |n| misdeed(n, Misdeed::Fails),
        Expected::goes_on(&[]), InVmm::All;
    dma_fails_halfway_at_the_nth_transfer: "DMA reports an error after half of the bytes, at each transfer in turn",
        Cases::Transfers, |n| misdeed(n, Misdeed::FailsHalfway),
        Expected::goes_on(&[]), InVmm::All;
    dma_fails_at_the_nth_transfer_of_another_host: "the same on a host that selects items through a port (propolis)",
        Cases::Transfers, |n| of_propolis(misdeed(n, Misdeed::FailsHalfway)),
        Expected::goes_on(&[]), InVmm::Every(4);
    dma_always_fails: "DMA reports an error each time",
        ONCE, |_| Host::sound().quirks(Quirks { always_fails: true, ..Quirks::default() }),
        Expected::goes_on(&[]), InVmm::All;
    dma_never_ends: "DMA never completes",
        ONCE, |_| Host::sound().quirks(Quirks { never_completes: true, ..Quirks::default() }),
        Expected::goes_on(&["did not end"]), InVmm::All;
    dma_never_ends_at_the_nth_transfer: "DMA never completes, at each transfer in turn",
        Cases::Transfers, |n| misdeed(n, Misdeed::NeverEnds),
        Expected::goes_on(&["did not end"]), InVmm::No("each case waits for a real deadline");
    dma_is_short_at_the_nth_transfer: "DMA transfers too few bytes and reports success, at each transfer in turn",
        Cases::Transfers, |n| misdeed(n, Misdeed::IsShort),
        Expected::either_in_part(&[
            "warning: no ACPI tables: the host's",
            "no SMBIOS tables: the host's SMBIOS",
            "error: the host's etc/e820 lists no RAM",
            "error: the kernel has no Linux setup header",
        ]),
        InVmm::All;
    items_change_between_two_selections: "an item has other bytes each time it is selected",
        ONCE, |_| changing(Changing::AtSelection),
        Expected::goes_on(&[]), InVmm::All;
    items_change_between_two_reads: "an item has other bytes each time it is read",
        ONCE, |_| changing(Changing::AtRead),
        Expected::goes_on(&[]), InVmm::All;
    items_change_between_two_reads_without_dma: "the same without DMA",
        ONCE, |_| without_dma(changing(Changing::AtRead)),
        Expected::either_in_part(&["error: the host gives no memory size: no etc/e820, nothing usable in CMOS"]), InVmm::All;
    items_change_and_the_directory_does_not: "every item except the directory has other bytes each time it is read",
        ONCE, |_| changing(Changing::AtReadButTheDirectory),
        Expected::goes_on(&[]), InVmm::All;

    // Sizes and names.
    sizes_of_files_are_too_large: "the directory gives every named file, or only the list of RAM, a size of 4 GiB less one byte",
        Cases::Below(2), |n| sizes(n, |_| u32::MAX),
        Expected::either(&[
            "warning: no ACPI tables: an ACPI file could not be loaded: fw_cfg: item",
            "warning: no SMBIOS tables: no room for 4294967",
            "error: the host's etc/e820 cannot be read: fw_cfg: item",
        ]),
        InVmm::All;
    sizes_of_files_are_larger: "the same, with sizes larger than the files",
        Cases::Below(2), |n| sizes(n, |len| len + 1000),
        Expected::goes_on(&["warning: no ACPI tables: the host's etc/table-loader has an impossible length"]),
        InVmm::All;
    sizes_of_files_are_smaller: "the same, with half of the sizes",
        Cases::Below(2), |n| sizes(n, |len| len / 2),
        Expected::either(&[
            "no ACPI tables: the host's ACPI files have no valid RSDP",
            "no SMBIOS tables: the host's SMBIOS",
            "warning: etc/e820: 10 bytes at its end",
            "error: the host's etc/e820 lists no RAM",
        ]),
        InVmm::All;
    sizes_of_files_are_zero: "the same, with sizes of 0",
        Cases::Below(2), |n| sizes(n, |_| 0),
        Expected::either(&[
            "no ACPI tables: the host's ACPI files have no valid RSDP",
            "no SMBIOS tables: the host's SMBIOS",
            "error: the host's etc/e820 lists no RAM",
        ]),
        InVmm::All;
    the_size_of_the_kernel_is_wrong: "the kernel has a size of 0, 4096, 16 MiB, 2 GiB, 4 GiB less one byte",
        Cases::Below(5), |n| Host::sound().number(key::KERNEL_SIZE, SIZES[n as usize]),
        Expected::either_in_part(&["error: no kernel", "error: the kernel needs", "error: the kernel's header asks for"]),
        InVmm::All;
    the_size_of_the_initrd_is_wrong: "the initrd has one of these sizes",
        Cases::Below(5), |n| Host::sound().number(key::INITRD_SIZE, SIZES[n as usize]),
        Expected::either_in_part(&["does not fit below"]), InVmm::All;
    the_size_of_the_command_line_is_wrong: "the command line has one of these sizes",
        Cases::Below(5), |n| Host::sound().number(key::CMDLINE_SIZE, SIZES[n as usize]),
        Expected::either_in_part(&["error: the command line has"]), InVmm::All;
    the_directory_counts_too_many_files: "the directory counts 65,535 files, 2^32 less one, or more than it has",
        Cases::Below(3), |n| counted([65_535, u32::MAX, 1000][n as usize]),
        Expected::either(&["files, and the limit is 1024; give it fewer"]), InVmm::All;
    the_directory_has_the_maximum_number_of_files: "1,024 files, the known ones last",
        ONCE, |_| many_files(1024),
        Expected::goes_on(&[]), InVmm::All;
    the_directory_has_65_535_files: "65,535 files that exist",
        ONCE, |_| many_files(65_535),
        Expected::stops(&["error: fw_cfg: the host lists 65535 files, and the limit is 1024"]), InVmm::All;
    names_occur_twice: "each name occurs twice, once for an empty file, first or second",
        Cases::Below(2), |n| Host::sound().directory(|records| twice(records, n)),
        Expected::either(&["error: the host's etc/e820 lists no RAM"]), InVmm::All;
    names_have_no_nul: "names that fill their field without a NUL, and names that are not text",
        ONCE, |_| Host::sound().directory(endless_names),
        Expected::goes_on(&[]), InVmm::All;
    keys_are_those_of_other_items: "every named file has the key of the directory, of the kernel, or of nothing",
        Cases::Below(3), |n| keys([key::FILE_DIR, key::KERNEL_DATA, 0xffff][n as usize]),
        Expected::goes_on(&[
            "no ACPI tables: the host's ACPI files have no valid RSDP",
            "no SMBIOS tables: the host's SMBIOS",
        ]),
        InVmm::All;

    // Tables.
    tables_have_pointers_outside_their_file: "pointers in tables lead outside their target file",
        Cases::Below(4), |n| pointer_holds([0x2_0000, 0x7fff_ffff, u32::MAX, 0xfffd_0000][n as usize]),
        Expected::goes_on(&["command 20: pointer to 0x"]), InVmm::All;
    tables_point_at_each_other_in_circles: "files that point to each other and to themselves",
        ONCE, |_| with_script(&circles()),
        Expected::goes_on(&["past the end of the file"]), InVmm::All;
    the_script_allocates_4_gib: "the script loads a file of 4 GiB less one byte, 2 GiB, 1 GiB",
        Cases::Below(6), |n| allocation([u32::MAX, 1 << 31, 1 << 30][n as usize % 3], 16, 1 + n as u8 / 3),
        Expected::goes_on(&["bytes below 4 GiB; add memory", "bytes in the F-segment; add memory"]), InVmm::All;
    the_script_aligns_by_no_power_of_two: "alignments of 0, 3, 2 GiB, 2^32 less one",
        Cases::Below(8), |n| allocation(100, [0, 3, 1 << 31, u32::MAX][n as usize % 4], 1 + n as u8 / 4),
        Expected::goes_on(&["is not a power of two", "no room for an ACPI file of 100 bytes"]), InVmm::All;
    the_script_checksums_a_range_that_wraps: "a checksum of a range that wraps or is outside its file",
        Cases::Below(4), |n| with_script(&wrong_sums()[n as usize]),
        Expected::goes_on(&["command 20: reaches past the end of a file"]), InVmm::All;
    the_script_checksums_a_file_hundreds_of_times: "checksums of all tables, repeated up to the end of the script",
        ONCE, |_| script_up_to(512, &script::add_checksum("etc/acpi/tables", 9, 0, 0x2_0000)),
        Expected::goes_on(&["bytes, but loads only 131156; sum each table once"]), InVmm::All;
    the_script_writes_addresses_without_dma: "hundreds of addresses to write to the host, and no DMA to write them with",
        ONCE, |_| without_dma(script_up_to(512, &script::write_pointer("etc/other", 0, "etc/more", 0, 8))),
        Expected::goes_on(&["the address it asked for in etc/other", "more of the addresses it asked for"]), InVmm::All;
    the_script_names_missing_files: "files that are absent, not loaded, without a name, loaded twice",
        Cases::Below(5), |n| with_script(&wrong_names()[n as usize]),
        Expected::goes_on(&[
            ": no such file",
            ": file is not allocated",
            ": bad file name",
            ": file is allocated twice",
        ]),
        InVmm::All;
    the_script_points_outside: "pointers to set or to write to the host that are outside their file, or of odd sizes",
        Cases::Below(6), |n| with_script(&wrong_places()[n as usize]),
        Expected::goes_on(&["command 20: reaches past the end of a file", "is not 1, 2, 4 or 8"]), InVmm::All;
    the_script_has_the_maximum_length: "a script of 512 commands, of 513, of half a command",
        Cases::Below(3), |n| long_script([512, 513, 0][n as usize]),
        Expected::goes_on(&["has 65664 bytes, and the limit is 65536", "has an impossible length, 2496 bytes"]),
        InVmm::All;
    the_script_is_noise: "a script of random bytes",
        Cases::Below(8), |n| noise("etc/table-loader", n),
        Expected::goes_on(&["no ACPI tables: the host's etc/table-loader, command 0: "]), InVmm::Every(4);
    smbios_is_noise: "an SMBIOS entry point or structures of random bytes",
        Cases::Below(8), |n| noise(["etc/smbios/smbios-anchor", "etc/smbios/smbios-tables"][n as usize % 2], n),
        Expected::goes_on(&["no SMBIOS tables: the host's SMBIOS"]), InVmm::Every(4);
    tables_in_memory_are_in_circles: "tables in memory that point to themselves and back",
        Cases::Below(5), |n| CIRCLES[n as usize](),
        Expected::goes_on(&["are left out: no valid XSDT at 0x9fc00", "is no ACPI table at 0x9fc00"]), InVmm::All;
    tables_in_memory_point_at_the_firmware: "a pointer of tables in memory leads to the firmware's memory, to the image or to page zero",
        Cases::Below(16), |n| in_memory(n % 4, [0x4_0000, 0x9_0000, 0xffff_f000, 0x10][n as usize / 4]),
        Expected::goes_on(&["are left out: no valid XSDT at 0x", "warning: there is no ACPI table at 0x"]),
        InVmm::Every(3);
    tables_in_memory_point_outside: "a pointer of tables in memory leads to a hole, to the end of memory or to an impossible address",
        Cases::Below(16), |n| in_memory(n % 4, [RAM, 0xfec0_0000, u64::MAX - 3, 1 << 52][n as usize / 4]),
        Expected::goes_on(&["are left out: no valid XSDT at 0x", "warning: there is no ACPI table at 0x"]),
        InVmm::Every(3);
    tables_in_memory_have_a_window_over_ram: "tables in memory that have PCI's configuration space in RAM",
        ONCE, |_| tables_at(acpi(RSDP, TABLES, 0x100_0000)),
        Expected::goes_on(&["which is RAM: it is not kept"]), InVmm::All;
    tables_in_memory_are_wrong_a_hundred_times: "the maximum number of tables in memory, all of them invalid; root pointers to nothing",
        Cases::Below(5), |n| WRONG_TABLES[n as usize](),
        Expected::goes_on(&[
            "are left out: no valid XSDT at 0x",
            "warning: there is no ACPI table at 0x",
            "which is RAM: it is not kept",
            "is lost: the firmware runs there",
            "warning: there are too many ACPI tables in memory",
            "more warnings like these",
        ]),
        InVmm::All;
    other_tables_in_memory_point_at_the_firmware: "SMBIOS and MP tables in the firmware's memory, in the image, outside memory",
        Cases::Below(4), |n| others_in_memory([0x4_0000, 0x9_0000, 0xffff_f000, 0xffff_fff0][n as usize]),
        Expected::goes_on(&["is lost: the firmware runs there", "1 more warnings like these"]), InVmm::All;

    // Memory.
    e820_has_10_000_entries_that_overlap: "a list of 10,000 overlapping entries",
        ONCE, |_| e820(10_000),
        Expected::stops(&[
            "error: the host's etc/e820 cannot be read: fw_cfg: item 0x26 has 200000 bytes, and the limit is 20480",
        ]),
        InVmm::All;
    e820_has_the_maximum_number_of_entries: "a list of 1,024 overlapping entries",
        ONCE, |_| e820(1024),
        Expected::stops(&["error: the memory map needs more than"]), InVmm::All;
    e820_has_1000_pieces_of_ram: "a list of 1,000 separate pieces of RAM",
        ONCE, |_| Host::sound().file("etc/e820", pieces_of_ram()),
        Expected::goes_on(&["pieces of RAM left out, the first at"]), InVmm::All;
    e820_has_entries_that_wrap: "entries that wrap, are empty or are cut off",
        ONCE, |_| Host::sound().file("etc/e820", wrapping_e820()),
        Expected::goes_on(&[
            "3 bytes at its end are no whole record",
            "1 pieces of RAM left out, the first at 0xfffffffffffff000",
        ]),
        InVmm::All;
    e820_has_no_ram_for_the_firmware: "the firmware's own memory is absent from the list, or reserved",
        Cases::Below(2), |n| no_low_memory(n),
        Expected::stops(&[
            "warning: no SMBIOS tables: no room for 362 bytes",
            "error: no 4096 bytes free below 640 KiB for the kernel's parameters; the host's memory map",
        ]),
        InVmm::All;
    ram_is_1_mib: "RAM of 1 MiB",
        ONCE, |_| Host::sound().file("etc/e820", record(0..1 << 20, 1)),
        Expected::stops(&["error: the kernel needs 1 MiB"]), InVmm::All;
    there_is_no_ram: "a list without RAM, and an empty list",
        Cases::Below(2), |n| Host::sound().file("etc/e820", record(0..RAM, 2)[..20 - 20 * n as usize].to_vec()),
        Expected::stops(&["error: the host's etc/e820 lists no RAM"]), InVmm::All;
    cmos_reads_as_all_ones: "no list, and CMOS that reads as 0xff",
        ONCE, |_| Host::sound().without("etc/e820").extra(|| Cmos::boxed(|_| 0xff)),
        Expected::stops(&["error: the host gives no memory size: no etc/e820, nothing usable in CMOS"]), InVmm::All;
    cmos_is_noise: "no list, and random bytes in CMOS",
        Cases::Below(4), |n| Host::sound().without("etc/e820").extra(CMOS[n as usize]),
        Expected::either(&["error: the host gives no memory size: no etc/e820, nothing usable in CMOS"]), InVmm::All;

    // The heap.
    the_heap_is_full_at_the_nth_allocation: "(not a fault of a host) the heap is full, at each allocation in turn",
        Cases::Allocations, |n| Host { allocation_fails: Some(n), ..board(1, FOUR_DEVICES_AND_A_BRIDGE) },
        Expected::either(&[
            "or no memory for them; the rest is left alone",
            "PCI: the firmware's heap is full; functions get no addresses",
            "warning: no ACPI tables: ",
            "error: fw_cfg: the firmware's heap",
            "error: the host's etc/e820 cannot be read: fw_cfg: the firmware's heap",
            "error: the firmware's heap has no room for the memory map",
            "error: the firmware's heap is full",
        ]),
        InVmm::No("the image's heap has room");
    the_heap_has_room_for_all_that_a_host_can_offer: "1,024 files, 512 commands, bridges everywhere, much RAM",
        ONCE, |_| as_much_as_can_be(),
        Expected::goes_on(&[
            "pieces of RAM left out",
            "which is not a valid size; it gets no address",
            "more BARs ask for invalid sizes",
            "PCI: more than 512 functions, or no memory for them",
            "bridges is set up: too many or too deep",
        ]),
        InVmm::All;

    // PCI.
    pci_bars_never_settle: "BARs that read as something else each time",
        Cases::Below(2), |n| board(n, BARS_NEVER_SETTLE),
        Expected::goes_on(&[
            "which is not a valid size; it gets no address",
            "more BARs ask for invalid sizes",
            "PCI: not enough I/O ports",
        ]),
        InVmm::All;
    pci_bars_ask_for_everything: "BARs of 2 GiB, of 2^63 bytes, of every port",
        Cases::Below(2), |n| board(n, BARS_ASK_FOR_EVERYTHING),
        Expected::goes_on(&[
            "PCI: not enough I/O ports",
            "PCI: not enough memory below 4 GiB",
            "PCI: not enough 64-bit memory",
        ]),
        InVmm::All;
    pci_has_a_function_everywhere: "a function responds at every address of every bus",
        Cases::Below(2),
        |n| board(n, EVERY_FUNCTION_ANSWERS).file("etc/extra-pci-roots", 255_u64.to_le_bytes().to_vec()),
        Expected::goes_on(&["PCI: more than 512 functions, or no memory for them"]), InVmm::All;
    pci_has_a_bridge_everywhere: "a bridge responds at every address of every bus",
        Cases::Below(2), |n| board(n, EVERY_FUNCTION_IS_A_BRIDGE),
        Expected::goes_on(&[
            "which is not a valid size; it gets no address",
            "more BARs ask for invalid sizes",
            "PCI: more than 512 functions, or no memory for them",
            "bridges is set up: too many or too deep",
        ]),
        InVmm::All;
    pci_has_capabilities_in_a_circle: "a capability list that leads back to its beginning",
        Cases::Below(2), |n| board(n, CAPABILITIES_IN_A_CIRCLE),
        Expected::goes_on(&["which is not a valid size; it gets no address"]), InVmm::All;
    pci_devices_disappear: "devices that disappear during the scan",
        Cases::Below(2), |n| board(n, DEVICES_GO_AWAY),
        Expected::goes_on(&[]), InVmm::All;
    pci_is_noise: "every read of configuration space returns something else",
        Cases::Below(2), |n| board(n, NOTHING_BUT_NOISE),
        Expected::goes_on(&["which is not a valid size; it gets no address", "more BARs ask for invalid sizes"]),
        InVmm::All;
    pci_has_the_maximum_number_of_root_buses: "2^64 less one extra root buses",
        Cases::Below(2), |n| board(n, BARS_ASK_FOR_EVERYTHING).file("etc/extra-pci-roots", vec![0xff; 8]),
        Expected::goes_on(&[
            "extra root buses were not found",
            "PCI: not enough I/O ports",
            "PCI: not enough memory below 4 GiB",
            "PCI: not enough 64-bit memory",
        ]),
        InVmm::All;

    // Disks. The next disk has a program.
    disks_are_sound: "nothing is wrong with the disks",
        Cases::Below(BUSES.len() as u32), |n| disk(n * REQUESTS, |_| DiskFault::None),
        Expected::goes_on(&[]), NO_DISKS;
    a_disk_does_not_answer: "a disk does not answer, from a request on",
        ON_EACH_BUS, |n| disk(n, DiskFault::IsSilent),
        Expected::goes_on(&[
            "AHCI port 0 is left out: the device does not answer",
            "virtio-scsi: target 3, unit 0: the device does not answer",
            "cannot be started: DEVICE_ERROR",
        ]),
        NO_DISKS;
    a_disk_answers_when_it_is_reset: "a disk answers after the deadline, when it is reset",
        ON_EACH_BUS, |n| disk(n, DiskFault::IsLate),
        Expected::goes_on(&[
            "AHCI port 0 is left out: the device does not answer",
            "virtio-scsi: target 3, unit 0: the device does not answer",
            "cannot be started: DEVICE_ERROR",
        ]),
        NO_DISKS;
    a_disk_ignores_its_reset: "a disk does not answer, ignores its reset, and answers when the program runs",
        ON_EACH_BUS, |n| disk(n, DiskFault::IgnoresReset),
        Expected::goes_on(&[
            "AHCI port 0 is left out: the device does not answer",
            "virtio-scsi: target 3, unit 0: the device does not answer",
            "cannot be started: DEVICE_ERROR",
            "virtio: a device cannot be reset: the device does not answer",
            "NVMe: the controller cannot be turned off: the device does not answer",
            "AHCI: the controller cannot be stopped: the device does not answer",
            "stays reserved: a controller of disks that does not stop may write it at any time",
        ]),
        NO_DISKS;
    a_disk_fails_at_the_nth_request: "a disk reports an error for a request",
        ON_EACH_BUS, |n| disk(n, DiskFault::Fails),
        Expected::goes_on(&REPORTS_AN_ERROR),
        NO_DISKS;
    a_disk_fails_from_the_nth_request_on: "a disk reports an error for each request, from one on",
        ON_EACH_BUS, |n| disk(n, DiskFault::FailsFrom),
        Expected::goes_on(&REPORTS_AN_ERROR),
        NO_DISKS;
    a_disk_answers_another_request: "a disk says that it has executed another request",
        ON_EACH_BUS, |n| disk(n, DiskFault::AnswersAnother),
        Expected::goes_on(&[
            "AHCI port 0 is left out: the device does not answer",
            "virtio-scsi: target 3, unit 0: the device breaks its specification: it says that it has executed a request that there was not",
            "cannot be started: DEVICE_ERROR",
        ]),
        NO_DISKS;
    a_disk_counts_its_answers_wrong: "a disk says that it has executed more requests, or in another round of its queue",
        ON_EACH_BUS, |n| disk(n, DiskFault::CountsWrong),
        Expected::goes_on(&[
            "AHCI port 0 is left out: the device does not answer",
            "virtio-scsi: target 3, unit 0: the device breaks its specification: it says that it has executed requests that there were not",
            "cannot be started: DEVICE_ERROR",
        ]),
        NO_DISKS;
    a_disk_reads_fewer_bytes: "a disk says that it has read fewer bytes, or has read fewer",
        ON_EACH_BUS, |n| disk(n, DiskFault::IsShort),
        Expected::goes_on(&[
            "AHCI port 0 is left out: the device breaks its specification: it has read fewer bytes",
            "virtio-scsi: target 3, unit 0: the device breaks its specification: it has written fewer bytes than none",
            "cannot be started: DEVICE_ERROR",
        ]),
        NO_DISKS;
    a_disk_reads_more_bytes: "a disk says that it has read more bytes",
        ON_EACH_BUS, |n| disk(n, DiskFault::IsLong),
        Expected::goes_on(&[
            "AHCI port 0 is left out: the device breaks its specification: it has read fewer bytes",
            "virtio-scsi: target 3, unit 0: the device breaks its specification: it says that it has written more than it was given",
            "cannot be started: DEVICE_ERROR",
        ]),
        NO_DISKS;
    a_disk_is_unplugged: "a disk's registers are all ones, from an access on",
        Cases::Below(ACCESSES * BUSES.len() as u32),
        |n| Host::with_disks(Faulty {
            bus: BUSES[(n / ACCESSES) as usize],
            fault: DiskFault::IsGone(n % ACCESSES * 3),
        }),
        Expected::goes_on(&[
            "AHCI port 0 is left out: the device does not answer",
            "virtio: a device cannot be reset: the device does not answer",
            "NVMe: the controller cannot be turned off: the device does not answer",
            "AHCI: the controller cannot be stopped: the device does not answer",
            "stays reserved: a controller of disks that does not stop may write it at any time",
        ]),
        NO_DISKS;
    a_disk_has_another_size: "a disk says that it has 0, 1, 63, 2^32 or 2^64 less one blocks",
        Cases::Below(5 * BUSES.len() as u32),
        |n| Host::with_disks(Faulty {
            bus: BUSES[(n / 5) as usize],
            fault: DiskFault::HasBlocks(SIZES_OF_DISKS[(n % 5) as usize]),
        }),
        Expected::goes_on(&[
            "AHCI port 0 is left out: not supported: it does not say how long it is",
        ]),
        NO_DISKS;
    a_disk_changes: "a disk has other bytes from a request on: another partition table, clusters in circles, other lengths, noise",
        Cases::Below(REQUESTS * CHANGES.len() as u32),
        |n| disk(n % REQUESTS, |number| DiskFault::Changes(number, CHANGES[(n / REQUESTS) as usize])),
        Expected::goes_on(&[
            "cannot be started: VOLUME_CORRUPTED",
        ]),
        NO_DISKS;
}

/// Tries the fault of this name on the fakes.
#[cfg(test)]
fn on_fakes(name: &str) {
    let fault = FAULTS.iter().find(|fault| fault.name == name).unwrap();
    let report = crate::run(fault, &mut crate::Fakes::default());
    assert!(report.problems.is_empty(), "{}: {:#?}", report.happened, report.problems);
}

/// What is printed of a disk that reports an error.
const REPORTS_AN_ERROR: [&str; 4] = [
    "AHCI port 0 is left out: the device reports an error",
    "NVMe namespace 1: the device reports an error",
    "virtio-scsi: target 3, unit 0: the device reports an error",
    "cannot be started: DEVICE_ERROR",
];

/// The numbers of blocks that a disk says it has.
const SIZES_OF_DISKS: [u64; 5] = [0, 1, 63, 1 << 32, u64::MAX];

/// The fault at each of a few requests on each bus.
fn disk(number: u32, fault: impl Fn(u32) -> DiskFault) -> Host {
    let (bus, request) = (BUSES[(number / REQUESTS) as usize], number % REQUESTS);
    // A SCSI host is first asked for each target. The first of these requests is tried, and then what follows.
    let request = if bus == Bus::Scsi && request > 0 { TARGETS + request - 1 } else { request };
    Host::with_disks(Faulty { bus, fault: fault(request) })
}

fn misdeed(nth: u32, misdeed: Misdeed) -> Host {
    let host = Host::sound().quirks(Quirks { misdeed: Some((nth, misdeed)), ..Quirks::default() });
    // The count of files, the directory, the list of RAM.
    Host { hides_its_list: misdeed == Misdeed::IsShort && nth <= 3, ..host }
}

fn changing(changing: Changing) -> Host {
    let host = Host::sound().quirks(Quirks { changing: Some(changing), ..Quirks::default() });
    Host { hides_its_list: changing == Changing::AtRead, ..host }
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

const SIZES: [u32; 5] = [0, 4096, 16 << 20, 1 << 31, u32::MAX];

/// The sizes in the directory, by what they are: of every file but the list of RAM, or of that.
fn sizes(case: u32, size: fn(u32) -> u32) -> Host {
    Host::sound().directory(|records| {
        for (len, _, name) in records {
            if (name == b"etc/e820") == (case == 1) {
                *len = size(*len);
            }
        }
    })
}

/// A directory that counts so many files and has those that there are.
fn counted(count: u32) -> Host {
    let host = Host::sound();
    let mut bytes = Vec::new();
    let host = host.directory(|records| bytes = directory(count, records));
    host.item(key::FILE_DIR, &bytes)
}

fn many_files(count: usize) -> Host {
    many_files_on(Host::sound(), count)
}

fn many_files_on(host: Host, count: usize) -> Host {
    host.directory(|records| {
        let known = std::mem::take(records);
        let fillers = count - known.len();
        records.extend((0..fillers).map(|number| (number as u32, 0xfff0, format!("etc/filler/{number}").into_bytes())));
        records.extend(known);
    })
}

fn twice(records: &mut Vec<crate::host::Record>, case: u32) {
    let empty: Vec<_> = records.iter().map(|(_, _, name)| (0, 0xfff0, name.clone())).collect();
    let at = if case == 0 { records.len() } else { 0 };
    records.splice(at..at, empty);
}

fn endless_names(records: &mut Vec<crate::host::Record>) {
    let fields = [b'x', 0xff, b'/', b'e'];
    records.splice(0..0, fields.map(|byte| (100, 0xfff0, vec![byte; 56])));
    // Known names with more characters at their ends.
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
    let commands =
        [script::allocate("etc/pointer", 16, 1), script::add_pointer("etc/pointer", "etc/acpi/tables", 0, 4)];
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
    script_up_to(commands, &script::add_checksum("etc/more", 0, 0, 64))
}

/// A script of so many commands: what is needed, `etc/more`, and then the same again and again.
fn script_up_to(commands: usize, command: &[u8]) -> Host {
    let allocate = script::allocate("etc/more", 16, 1);
    let used = with_script(&allocate).contents("etc/table-loader").len() / 128;
    with_script(&[allocate, command.repeat(commands - used)].concat())
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

/// RSDP to itself; XSDT to itself, to the RSDP; FADT to itself, in the two places.
const CIRCLES: [fn() -> Host; 5] = [
    || in_memory(0, RSDP),
    || in_memory(1, TABLES),
    || in_memory(1, RSDP),
    || in_memory(2, TABLES + 64),
    || in_memory(3, TABLES + 64),
];

/// Tables in memory with one pointer that leads to `value`: that to the XSDT, its first entry, those to FACS and DSDT.
fn in_memory(pointer: u32, value: u64) -> Host {
    let mut pieces = acpi(RSDP, TABLES, 0xd000_0000);
    // The piece, where the pointer is in it, and its checksum.
    let (piece, at, sum) = [(0, 24, 32), (1, 36, 9), (2, 132, 9), (2, 140, 9)][pointer as usize];
    let bytes = &mut pieces[piece].1;
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    sum_up(bytes, sum);
    tables_at(pieces)
}

/// Root pointers to nothing; a list that leads to nothing, to FADTs that do, to windows over RAM, to where the firmware runs.
const WRONG_TABLES: [fn() -> Host; 5] = [
    || tables_at((0..16).map(|number| acpi(RSDP + number * 48, TABLES, 0xd000_0000).swap_remove(0)).collect()),
    || listed(|number| RAM + number * 64, &[]),
    || listed(|_| LISTED, &table(b"FACP", &RAM.to_le_bytes().repeat(29))),
    || listed(|_| LISTED, &table(b"MCFG", &windows_over_ram())),
    || {
        let mut host = listed(|_| 0x9_e000, &[]);
        host.memory.push((0x9_e000, table(b"SSDT", &[])));
        host
    },
];

/// Where a table is that is listed again and again.
const LISTED: u64 = TABLES + 0x1000;

/// Tables in memory: a list of 128, and one table.
fn listed(entry: fn(u64) -> u64, table_there: &[u8]) -> Host {
    let root = acpi(RSDP, TABLES, 0xd000_0000).swap_remove(0);
    let list = table(b"XSDT", &(0..128).map(entry).flat_map(u64::to_le_bytes).collect::<Vec<_>>());
    tables_at(vec![root, (TABLES, list), (LISTED, table_there.to_vec())])
}

fn windows_over_ram() -> Vec<u8> {
    let window = [&0x100_0000_u64.to_le_bytes()[..], &[0, 0, 0, 63, 0, 0, 0, 0]].concat();
    [vec![0; 8], window.repeat(4)].concat()
}

/// On a host that has its tables in memory: elsewhere they are not looked for.
fn tables_at(pieces: Vec<(u64, Vec<u8>)>) -> Host {
    let mut host = Host::sound().without("etc/table-loader").memory(pieces);
    let crosvm = known_hosts().into_iter().find(|known| known.name == "crosvm").unwrap_or(host.known);
    host.known.dma = crosvm.dma;
    host.known.quirks = crosvm.quirks;
    host
}

fn others_in_memory(at: u64) -> Host {
    let mut pieces = acpi(RSDP, TABLES, 0xd000_0000);
    pieces.push(smbios(0xf_0000, at).swap_remove(0));
    pieces.push(mp_table(0xf_0100, at).swap_remove(0));
    tables_at(pieces)
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

fn pieces_of_ram() -> Vec<u8> {
    let piece = |number: u64| record(number * 0x2000..number * 0x2000 + 0x1000, 1);
    [record(0x100_0000..RAM, 1), record(0..0xa_0000, 1)]
        .into_iter()
        .chain((0x80..0x80 + 998).map(piece))
        .flatten()
        .collect()
}

fn wrapping_e820() -> Vec<u8> {
    let sound = Host::sound();
    let wrapping = std::ops::Range { start: u64::MAX - 0xfff, end: 0x10_0000 };
    let mut list = sound.contents("etc/e820").to_vec();
    list.extend(record(0x200_0000..0x200_0000, 1));
    list.extend([1, 2].map(|kind| record(wrapping.clone(), kind)).concat());
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

/// CMOS by its registers, and no chipset.
struct Cmos {
    registers: fn(u8) -> u8,
    selected: u8,
}

impl Cmos {
    fn boxed(registers: fn(u8) -> u8) -> Box<dyn Extra> {
        Box::new(Self { registers, selected: 0 })
    }
}

/// Nothing; all of RAM but 64 KiB, with no end above 4 GiB, and with much there; 17 MiB in the oldest registers.
const CMOS: [fn() -> Box<dyn Extra>; 4] = [
    || Cmos::boxed(|_| 0),
    || Cmos::boxed(|register| if register == 0x34 || register > 0x5a { 0xff } else { 0 }),
    || {
        Cmos::boxed(|register| match register {
            0x34 => 0xff,
            0x5b.. => 0x7f,
            _ => 0,
        })
    },
    || {
        Cmos::boxed(|register| match register {
            0x30 => 0xff,
            0x31 => 0x3f,
            _ => 0,
        })
    },
];

impl Extra for Cmos {
    fn claims(&self, at: At) -> bool {
        matches!(at, At::Port(0x70 | 0x71 | 0xcf8..0xd00))
    }
    fn read(&mut self, at: At, _: u8) -> u64 {
        if at == At::Port(0x71) { (self.registers)(self.selected).into() } else { u64::MAX }
    }
    fn write(&mut self, at: At, _: u8, value: u64) {
        if at == At::Port(0x70) {
            self.selected = value as u8 & 0x7f;
        }
    }
}

/// A board of each kind: pc, q35.
type Boards = [fn() -> Box<dyn Extra>; 2];

const FOUR_DEVICES_AND_A_BRIDGE: Boards =
    [|| Board::pc(pci::four_devices_and_a_bridge), || Board::q35(pci::four_devices_and_a_bridge)];

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

fn as_much_as_can_be() -> Host {
    let host = many_files_on(long_script(512).file("etc/e820", pieces_of_ram()), 1024);
    host.extra(EVERY_FUNCTION_IS_A_BRIDGE[1])
}
