//! SMBIOS as `dmidecode` prints it in a guest: every structure is as under SeaBIOS, except the one that describes the
//! firmware.

use std::fs;

use tempfile::TempDir;

use crate::bzimage::BzImage;
use crate::machine::{Emulator, Firmware, Kind, Machine};
use crate::probe::Probe;
use crate::script;

/// The structures as `dmidecode` printed them.
#[derive(Debug)]
struct Tables {
    /// The version that the entry point has: "SMBIOS 2.8 present."
    version: String,
    /// Each structure's text. The first line is "Handle 0x0100, DMI type 1, 27 bytes".
    structures: Vec<String>,
}

impl Tables {
    fn parse(printed: &str) -> Self {
        let (head, structures) = printed.split_once("\nHandle 0x").expect("a structure");
        let version = head.lines().find(|line| line.ends_with(" present.")).expect("a version").to_owned();
        let structures =
            structures.split("\nHandle 0x").map(|text| format!("Handle 0x{}\n", text.trim_end())).collect();
        Self { version, structures }
    }

    /// The structures of a type, with their place in the order.
    fn of_type(&self, kind: u8) -> Vec<(usize, &str)> {
        let mark = format!(", DMI type {kind}, ");
        let found = |text: &str| text.lines().next().is_some_and(|line| line.contains(&mark));
        self.structures.iter().map(String::as_str).enumerate().filter(|(_, text)| found(text)).collect()
    }

    /// The handles, in order.
    fn handles(&self) -> Vec<&str> {
        self.structures.iter().map(|text| &text[7..13]).collect()
    }
}

/// What a guest finds.
struct Found {
    words: Tables,
    bytes: Tables,
    entry_point: Vec<u8>,
}

impl Found {
    /// What the guest on `machine` finds under `firmware`.
    fn under(machine: &Machine, firmware: Firmware) -> Self {
        let script = "dmidecode && echo ==== && dmidecode -u && echo ==== && \
                      hexdump -v -e '/1 \"%02x \"' /sys/firmware/dmi/tables/smbios_entry_point && echo";
        let printed = script::run(&Machine { firmware, ..machine.clone() }, script);
        let [words, bytes, entry_point] =
            printed.split("\n====\n").collect::<Vec<_>>().try_into().expect("three parts");
        let entry_point = entry_point.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect("a byte"));
        Self { words: Tables::parse(words), bytes: Tables::parse(bytes), entry_point: entry_point.collect() }
    }

    /// The length of each structure in bytes.
    fn lengths(&self) -> Vec<usize> {
        self.bytes.structures.iter().map(|text| structure_len(text)).collect()
    }

    /// All the structures, in bytes.
    fn len(&self) -> usize {
        self.lengths().iter().sum()
    }

    /// Checks what the entry point says (DSP0134 3.6, 5.2.1 and 5.2.2).
    fn check_entry_point(&self) {
        let at = &self.entry_point;
        let u16_at = |offset: usize| usize::from(u16::from_le_bytes([at[offset], at[offset + 1]]));
        let sum = at.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        assert_eq!(sum, 0, "{at:x?}");
        if at.starts_with(b"_SM_") {
            assert_eq!(u16_at(0x08), self.lengths().into_iter().max().unwrap(), "the longest structure");
            assert_eq!(u16_at(0x16), self.len(), "the length of all");
            assert_eq!(u16_at(0x1c), self.bytes.structures.len(), "how many there are");
        } else {
            assert!(at.starts_with(b"_SM3_"), "{at:x?}");
            assert_eq!(u16_at(0x0c) | u16_at(0x0e) << 16, self.len(), "the length of all");
        }
    }
}

/// Boots `machine` under both and compares; returns what is found under this firmware.
///
/// Only the structure of type 0 that a firmware adds may differ: it names the firmware, and its strings determine its length.
/// If the host has none, it comes first. SeaBIOS assigns it handle 0, which QEMU's type 8 has as well.
fn compare(machine: &Machine, host_has_type_0: bool) -> Found {
    let [theirs, ours] = [Firmware::SeaBios, Firmware::Firstlight].map(|firmware| Found::under(machine, firmware));
    for (ours, theirs) in [(&ours.words, &theirs.words), (&ours.bytes, &theirs.bytes)] {
        assert_eq!(ours.version, theirs.version);
        assert_eq!(ours.handles()[1..], theirs.handles()[1..]);
        for (number, (ours, theirs)) in ours.structures.iter().zip(&theirs.structures).enumerate() {
            let firmware_added = number == 0 && !host_has_type_0;
            assert!(ours == theirs || firmware_added, "structure {number}: SeaBIOS has {theirs}\nthis one {ours}");
        }
        assert_eq!(ours.of_type(0).len(), 1);
        assert_eq!(ours.of_type(127).len(), 1);
    }
    let mut handles = ours.words.handles();
    handles.sort_unstable();
    assert!(handles.windows(2).all(|pair| pair[0] != pair[1]), "a handle is there twice: {handles:?}");
    if !host_has_type_0 {
        check_own(ours.words.of_type(0)[0].1);
    }
    ours.check_entry_point();
    ours
}

/// The structure that this firmware adds.
fn check_own(text: &str) {
    let version = format!("Version: {}", env!("CARGO_PKG_VERSION"));
    for line in ["Vendor: Firstlight", &version, "Address: 0xF0000", "ROM Size: 512 kB", "System is a virtual machine"]
    {
        assert!(text.lines().any(|found| found.trim() == line), "no {line:?} in {text}");
    }
}

/// The length in bytes of a structure, as `dmidecode -u` prints it: the header and data in rows of hexadecimal bytes, then
/// each string in such rows up to its zero byte, and as text.
fn structure_len(text: &str) -> usize {
    let mut rows = text.lines().skip(1).map(str::trim);
    // The zero byte that ends the strings; two where there are none.
    let mut len = if text.contains("\tStrings:") { 1 } else { 2 };
    let mut strings = false;
    while let Some(row) = rows.next() {
        match row {
            "Header and Data:" | "" => {}
            "Strings:" => strings = true,
            bytes => {
                len += bytes.split(' ').count();
                if strings && bytes.ends_with("00") {
                    rows.next();
                }
            }
        }
    }
    len
}

#[test]
fn the_length_of_a_structure_counts_its_strings() {
    let none = "Handle 0x7F00, DMI type 127, 4 bytes\n\tHeader and Data:\n\t\t7F 04 00 7F\n";
    assert_eq!(structure_len(none), 6);
    let two = "Handle 0x0E00, DMI type 11, 5 bytes\n\tHeader and Data:\n\t\t0B 05 00 0E 02\n\tStrings:\n\t\t61 62 00\n\t\tab\n\t\t\
               63 00\n\t\tc\n";
    assert_eq!(structure_len(two), 5 + 3 + 2 + 1);
}

#[test]
fn q35_has_the_same_structures_as_under_seabios_with_a_nearly_full_2_x_entry_point() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("string");
    // QEMU ends where the structures do not fit 65,535 bytes; with the firmware's own they fill most of that.
    fs::write(&file, "Firstlight ".repeat(5000)).expect("a file in the temporary folder");
    let options = format!("-smbios type=11,value=first,path={} -smp 1,sockets=32,maxcpus=32", file.display());
    let machine =
        Machine { properties: ",smbios-entry-point-type=32", memory: "256M", ..Machine::new(Kind::Q35) }.with(&options);
    let found = compare(&machine, false);
    assert_eq!(found.words.version, "SMBIOS 2.8 present.");
    assert!(found.len() > 55_000, "{} bytes", found.len());
    assert_eq!(found.words.of_type(4).len(), 32);
    assert_eq!(found.words.handles()[0], "0x0000");
}

/// 240 processors of their own, and a string of so many times eleven bytes.
fn large(folder: &TempDir, times: usize) -> Machine {
    let file = folder.path().join("string");
    fs::write(&file, "Firstlight ".repeat(times)).expect("a file in the temporary folder");
    let options = format!("-smbios type=11,path={} -smp 1,sockets=240,maxcpus=240", file.display());
    Machine { properties: ",smbios-entry-point-type=64", memory: "256M", ..Machine::new(Kind::Q35) }.with(&options)
}

#[test]
fn q35_has_the_same_structures_as_under_seabios_with_a_3_x_entry_point_and_hundreds_of_sockets() {
    let folder = TempDir::new().expect("a temporary folder");
    let found = compare(&large(&folder, 3000), false);
    assert_eq!(found.words.version, "SMBIOS 3.0.0 present.");
    assert!(found.len() > 40_000, "{} bytes", found.len());
    assert_eq!(found.words.of_type(4).len(), 240);
}

/// More than SeaBIOS 1.16 passes on: under SeaBIOS, a guest finds nothing after the first 64 KiB. A string cannot be much
/// longer: Linux 6.1 copies strings to 64 KiB of its own.
#[test]
fn a_3_x_entry_point_has_structures_of_more_than_64_kib() {
    let folder = TempDir::new().expect("a temporary folder");
    let machine = Machine { firmware: Firmware::Firstlight, ..large(&folder, 5500) };
    let script = "dmidecode -t 4 | grep -c '^Handle' && dmidecode -t 11 | wc -c && dmidecode -t 127 | grep -c '^Handle' && \
                  wc -c </sys/firmware/dmi/tables/DMI";
    let printed = script::run(&machine, script);
    let numbers: Vec<usize> = printed.lines().map(|line| line.parse().expect("a number")).collect();
    let [sockets, string, ends, len] = numbers[..] else { panic!("{printed}") };
    assert_eq!((sockets, ends), (240, 1));
    assert!(string > 60_000 && len > 0x1_0000, "{string}, {len}");
}

#[test]
fn pc_has_the_same_structures_as_under_seabios_with_options_for_every_type() {
    let options = "-smbios type=1,manufacturer=Maker,product=Product,version=1.5,serial=S1,\
                   uuid=11112222-3333-4444-5555-666677778888,sku=Sku,family=Family \
                   -smbios type=2,manufacturer=Board,product=Mainboard,version=2,serial=S2,asset=A2,location=Here \
                   -smbios type=3,manufacturer=Case,version=3,serial=S3,asset=A3,sku=K3 \
                   -smbios type=4,sock_pfx=Socket,manufacturer=Cpu,version=4,serial=S4,asset=A4,part=P4,max-speed=5000,\
                   current-speed=4000 \
                   -smbios type=8,external_reference=Outside,internal_reference=Inside,connector_type=1,port_type=16 \
                   -smbios type=11,value=first,value=second,value=third \
                   -smbios type=17,loc_pfx=Slot,bank=Bank,manufacturer=Dimm,serial=S17,asset=A17,part=P17,speed=3200 \
                   -device virtio-rng-pci,id=rng -smbios type=41,designation=Onboard,kind=ethernet,instance=1,pcidev=rng";
    let tables = compare(&Machine::new(Kind::Pc).with(options), false).words;
    let expected = [
        "Maker",
        "Mainboard",
        "S3",
        "P4",
        "Outside",
        "third",
        "Bank",
        "Onboard",
        "11112222-3333-4444-5555-666677778888",
    ];
    for text in expected {
        assert!(tables.structures.iter().any(|structure| structure.contains(text)), "no {text}");
    }
    for kind in [1, 2, 3, 4, 8, 11, 16, 17, 19, 32, 41] {
        assert_eq!(tables.of_type(kind).len(), 1, "type {kind}");
    }
}

#[test]
fn pc_has_the_same_structures_as_under_seabios_with_type_0_from_the_host() {
    let type_0 = "-smbios type=0,vendor=Host,version=0.5,date=02/03/2004,release=6.7,uefi=on";
    let tables = compare(&Machine::new(Kind::Pc).with(type_0), true).words;
    assert!(tables.of_type(0)[0].1.contains("Vendor: Host"));
}

/// QEMU has no structures for a microvm, and the firmware invents none (docs/hosts.md, "microvm").
#[test]
fn a_microvm_has_no_smbios_as_its_host_gives_none() {
    const DIRECTORY: u16 = 0x19;
    for emulator in Emulator::all() {
        let machine = Machine { emulator, ..Machine::new(Kind::Pc) }
            .with("-machine microvm -smbios type=1,manufacturer=Maker -uuid 00112233-4455-6677-8899-aabbccddeeff");
        let mut probe = Probe::boot(&machine, &BzImage::new(), None, None);
        let files = probe.fw_cfg(DIRECTORY, 4 + 64 * 32);
        let files = String::from_utf8_lossy(&files);
        assert!(files.contains("etc/acpi/tables") && !files.contains("etc/smbios"), "{files}");
        let segment = probe.read(0xf_0000, 0x1_0000);
        assert!(!segment.chunks(16).any(|paragraph| paragraph.starts_with(b"_SM")));
    }
}
