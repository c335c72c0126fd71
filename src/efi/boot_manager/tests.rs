//! A host with disks whose programs return, set variables, or cannot be loaded.

extern crate std;

use std::collections::BTreeMap;
use std::format;
use std::string::{String, ToString};
use std::vec;

use super::target::REMOVABLE;
use super::*;
use crate::efi::device_path::{ACPI, ACPI_DEVICE, HARDWARE, HARDWARE_PCI, MEDIA_FILE, PathBuilder};
use crate::efi::protocols::text_input::scan_code::ESCAPE;

/// A controller at a device of bus 0.
struct Controller {
    device: u8,
    /// The disks, each with the volumes of these partitions; why there are none.
    disks: Result<Vec<(UnitAddress, Vec<u32>)>, disk::Error>,
}

/// What a program does: variables that it sets, and what it returns.
#[derive(Clone)]
struct Program {
    sets: Vec<(&'static str, Vec<u8>)>,
    result: Result<Status, Status>,
}

fn returns(status: Status) -> Program {
    Program { sets: vec![], result: Ok(status) }
}

#[derive(Default)]
struct FakeHost {
    controllers: Vec<Controller>,
    /// Controllers in the order in which they were started.
    started: Vec<usize>,
    /// Programs by the text of their paths.
    programs: BTreeMap<String, Program>,
    variables: BTreeMap<(String, [u8; 16]), (u32, Vec<u8>)>,
    /// What was run: the text of the path, the options, and `BootCurrent`.
    ran: Vec<(String, Vec<u8>, Option<Vec<u8>>)>,
    /// The keys that the user presses; `None` if that takes too long.
    keys: Vec<Option<InputKey>>,
    /// How long the keys were waited for, in milliseconds.
    waits: Vec<u32>,
    printed: String,
    /// How often keys that were not read were dropped.
    forgotten: usize,
}

fn volume(device: u8, unit: UnitAddress, partition: u32) -> Vec<u8> {
    let path = PathBuilder::new()
        .node(ACPI, ACPI_DEVICE, &[&[0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0]])
        .and_then(|path| path.node(HARDWARE, HARDWARE_PCI, &[&[0, device]]))
        .unwrap();
    let path = match unit {
        UnitAddress::Port(port) => path.node(3, 18, &[&[port, 0, 0xff, 0xff, 0, 0]]).unwrap(),
        UnitAddress::Scsi { target, lun } => path.node(3, 2, &[&target.to_le_bytes(), &lun.to_le_bytes()]).unwrap(),
        _ => path,
    };
    if partition == 0 { path } else { hard_drive(path, device, partition) }.end().unwrap()
}

fn hard_drive(path: PathBuilder, device: u8, partition: u32) -> PathBuilder {
    let parts = [&partition.to_le_bytes()[..], &[0; 16], &[device; 15], &[partition as u8], &[2, 2]];
    path.node(MEDIA, MEDIA_HARD_DRIVE, &parts).unwrap()
}

fn with_file(path: PathBuilder, name: &str) -> Vec<u8> {
    let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    path.node(MEDIA, MEDIA_FILE, &[&name]).and_then(PathBuilder::end).unwrap()
}

impl Host for FakeHost {
    type Name = &'static str;

    fn name(&self, controller: usize) -> Option<&'static str> {
        self.controllers.get(controller).map(|_| ["first", "second", "third"][controller])
    }

    fn is_at(&self, controller: usize, location: &Location) -> bool {
        let device = self.controllers[controller].device;
        matches!(location, Location::Pci { root: 0, steps } if steps[..] == [(device, 0)])
    }

    fn start(&mut self, controller: usize) -> Result<usize, disk::Error> {
        if !self.started.contains(&controller) {
            self.started.push(controller);
        }
        self.controllers[controller].disks.as_ref().map(Vec::len).map_err(|error| *error)
    }

    fn volume(&mut self, controller: usize, number: usize) -> Result<Option<Volume>, HeapFull> {
        assert!(self.started.contains(&controller));
        let Controller { device, disks } = &self.controllers[controller];
        let mut volumes = disks.iter().flatten().flat_map(|(unit, partitions)| {
            partitions.iter().map(|partition| Volume { unit: *unit, path: volume(*device, *unit, *partition) })
        });
        Ok(volumes.nth(number))
    }

    fn run(&mut self, path: &[u8], options: &[u8]) -> Result<Status, Status> {
        let path = PathText(DevicePath::parse(path).unwrap()).to_string();
        let Some(program) = self.programs.get(&path).cloned() else { return Err(Status::NOT_FOUND) };
        let current = self.variable("BootCurrent", GLOBAL);
        self.ran.push((path, options.to_vec(), current));
        for (name, data) in program.sets {
            self.set_variable(name, GLOBAL, VOLATILE, &data).unwrap();
        }
        program.result
    }

    fn variable(&mut self, name: &str, vendor: Guid) -> Option<Vec<u8>> {
        self.variables.get(&(name.to_string(), vendor.to_bytes())).map(|(_, data)| data.clone())
    }

    fn set_variable(
        &mut self,
        name: &str,
        vendor: Guid,
        attributes: VariableAttributes,
        data: &[u8],
    ) -> Result<(), Status> {
        let key = (name.to_string(), vendor.to_bytes());
        if data.is_empty() {
            return self.variables.remove(&key).map(|_| ()).ok_or(Status::NOT_FOUND);
        }
        self.variables.insert(key, (attributes.bits(), data.to_vec()));
        Ok(())
    }

    fn print(&mut self, text: fmt::Arguments<'_>) {
        self.printed.write_fmt(text).unwrap();
    }

    fn key(&mut self, milliseconds: u32) -> Option<InputKey> {
        self.waits.push(milliseconds);
        if self.keys.is_empty() { None } else { self.keys.remove(0) }
    }

    fn forget_keys(&mut self) {
        self.forgotten += 1;
    }
}

const ONLY: UnitAddress = UnitAddress::Only;

impl FakeHost {
    /// Virtio disks at devices 1, 2 and 3, with one partition each.
    fn new() -> Self {
        let disk = |device| Controller { device, disks: Ok(vec![(ONLY, vec![1])]) };
        Self { controllers: vec![disk(1), disk(2), disk(3)], ..Self::default() }
    }

    fn set(&mut self, name: &str, data: &[u8]) {
        self.set_variable(name, GLOBAL, VOLATILE, data).unwrap();
    }

    /// A program for removable media on a disk's partition.
    fn removable(&mut self, device: u8, partition: u32, program: Program) {
        self.program(device, partition, REMOVABLE, program);
    }

    fn program(&mut self, device: u8, partition: u32, file: &str, program: Program) {
        let path = PathText(DevicePath::parse(&volume(device, ONLY, partition)).unwrap()).to_string();
        self.programs.insert(format!("{path}/{file}"), program);
    }

    fn boot(&mut self, order: &str) -> String {
        boot(self, &BootOrder::parse(order.as_bytes()), None).to_string()
    }

    /// A boot with a menu, in which the user presses these keys: `^` is Escape, and a space a while without a key.
    fn boot_with_menu(&mut self, order: &str, keys: &str) {
        let key = |character| match character {
            ' ' => None,
            '^' => Some(InputKey { scan_code: ESCAPE, unicode_char: 0 }),
            _ => Some(InputKey { scan_code: 0, unicode_char: character as u16 }),
        };
        self.keys = keys.chars().map(key).collect();
        boot(self, &BootOrder::parse(order.as_bytes()), Some(menu::Wait(2500)));
    }

    /// The devices and the files of what was run.
    fn ran(&self) -> Vec<String> {
        let device = |path: &str| path.split("Pci(0x").nth(1).and_then(|rest| rest.split(',').next()).map(String::from);
        let file = |path: &str| path.rsplit('/').next().unwrap().to_string();
        self.ran.iter().map(|(path, ..)| format!("{} {}", device(path).unwrap_or_default(), file(path))).collect()
    }
}

fn option(attributes: u32, path: &[u8], data: &[u8]) -> Vec<u8> {
    [&attributes.to_le_bytes()[..], &(path.len() as u16).to_le_bytes(), &[b'x', 0, 0, 0], path, data].concat()
}

fn short(device: u8, file: &str) -> Vec<u8> {
    with_file(hard_drive(PathBuilder::new(), device, 1), file)
}

#[test]
fn each_disk_is_tried_in_the_order_of_discovery_and_the_line_says_why_none_boots() {
    let mut host = FakeHost::new();
    host.controllers[0].disks = Ok(vec![]);
    host.controllers[1].disks = Err(disk::Error::Timeout);
    host.controllers.push(Controller { device: 4, disks: Ok(vec![]) });
    host.controllers.truncate(3);
    host.removable(3, 1, returns(Status::ABORTED));
    assert_eq!(
        host.boot(""),
        "first: no disks; second: the device does not answer; third, partition 1: \\EFI\\BOOT\\BOOTX64.EFI returned: ABORTED"
    );
    assert_eq!(host.ran(), ["3 \\EFI\\BOOT\\BOOTX64.EFI"]);
}

#[test]
fn a_volume_without_the_program_and_a_disk_without_volumes_are_passed_over() {
    let mut host = FakeHost::new();
    host.controllers[0].disks = Ok(vec![(ONLY, vec![1, 5])]);
    host.controllers[1].disks = Ok(vec![(ONLY, vec![])]);
    host.controllers[2].disks = Ok(vec![(UnitAddress::Port(3), vec![0])]);
    host.removable(1, 5, Program { sets: vec![], result: Err(Status::LOAD_ERROR) });
    let text = host.boot("");
    assert!(
        text.starts_with("first, partition 1: no \\EFI\\BOOT\\BOOTX64.EFI; first, partition 5: \\EFI\\BOOT"),
        "{text}"
    );
    assert!(text.contains("cannot be started"), "{text}");
    assert!(text.ends_with("; second: no FAT file system; third, port 3: no \\EFI\\BOOT\\BOOTX64.EFI"), "{text}");
}

#[test]
fn a_start_that_found_no_memory_says_to_try_more() {
    let mut host = FakeHost::new();
    host.removable(1, 1, Program { sets: vec![], result: Err(Status::OUT_OF_RESOURCES) });
    let text = host.boot("");
    assert!(text.contains("\\EFI\\BOOT\\BOOTX64.EFI cannot be started: try more memory"), "{text}");
}

#[test]
fn listed_disks_come_first_and_only_they_are_started_before() {
    let mut host = FakeHost::new();
    for device in 1..4 {
        host.removable(device, 1, returns(Status::SUCCESS));
    }
    host.boot("/pci@i0cf8/scsi@3/disk@0,0\n/pci@i0cf8/ethernet@9/ethernet-phy@0\n/pci@i0cf8/scsi@1/disk@0,0\0");
    assert_eq!(host.started, [2, 0, 1]);
    let file = REMOVABLE;
    assert_eq!(host.ran(), [format!("3 {file}"), format!("1 {file}"), format!("2 {file}")]);
}

#[test]
fn a_line_for_another_device_says_what_can_boot() {
    // What libvirt's domain has for a disk on USB, and for a network card.
    for line in ["/pci@i0cf8/usb@1/storage@2/channel@0/disk@0,0", "/pci@i0cf8/ethernet@9/ethernet-phy@0"] {
        let text = FakeHost::new().boot(&format!("{line}\nHALT\0"));
        assert_eq!(text, "line 1 of the boot order: not a virtio, NVMe or AHCI disk");
    }
}

#[test]
fn a_strict_order_tries_nothing_else() {
    let mut host = FakeHost::new();
    let next = Program { sets: vec![("BootNext", vec![1, 0])], result: Ok(Status::SUCCESS) };
    host.removable(2, 1, next);
    host.removable(1, 1, returns(Status::SUCCESS));
    host.set("BootOrder", &[1, 0]);
    host.set("Boot0001", &option(1, &short(1, REMOVABLE), b""));
    let text = host.boot("/pci@i0cf8/scsi@2/disk@0,0\n/pci@i0cf8/scsi@a/disk@0,0\nHALT\0");
    assert_eq!(host.started, [1]);
    assert!(text.ends_with("; line 2 of the boot order: no controller of disks is there"), "{text}");
    let mut host = FakeHost::new();
    assert_eq!(host.boot("HALT"), "the host's boot order is strict (QEMU -boot strict=on) and names no disk");
    assert_eq!(host.started, []);
}

#[test]
fn a_line_names_one_disk_of_its_controller_and_the_others_come_later() {
    let mut host = FakeHost::new();
    let scsi = |target| UnitAddress::Scsi { target, lun: 0 };
    host.controllers = vec![Controller { device: 1, disks: Ok(vec![(scsi(0), vec![1]), (scsi(2), vec![1])]) }];
    assert_eq!(
        host.boot("/pci@i0cf8/scsi@1/channel@0/disk@2,0"),
        "first, target 2 unit 0, partition 1: no \\EFI\\BOOT\\BOOTX64.EFI; first, target 0 unit 0, partition 1: no \
         \\EFI\\BOOT\\BOOTX64.EFI"
    );
    let order = BootOrder::parse(b"/pci@i0cf8/scsi@1/channel@0/disk@2,0");
    assert_eq!(order.places[0].as_ref().map(|place| place.drive), Some(Drive::Scsi { target: 2, lun: 0 }));
}

#[test]
fn boot_next_is_deleted_before_its_start_and_comes_first() {
    let mut host = FakeHost::new();
    host.set("BootNext", &[7, 0]);
    // Only BootNext may name an inactive one.
    host.set("Boot0007", &option(0, &short(2, "\\next.efi"), b"options"));
    let sees = Program { sets: vec![("BootNext", vec![8, 0])], result: Ok(Status::SUCCESS) };
    host.program(2, 1, "\\next.efi", sees);
    host.removable(1, 1, returns(Status::SUCCESS));
    let text = host.boot("");
    assert_eq!(host.ran(), ["2 \\next.efi", &format!("1 {REMOVABLE}")]);
    assert_eq!(host.ran[0].1, b"options");
    assert_eq!(host.ran[0].2.as_deref(), Some(&[7, 0][..]));
    assert_eq!(host.ran[1].2, None);
    assert!(text.contains("Boot0008: there is none"), "{text}");
    assert_eq!(host.variable("BootNext", GLOBAL), None);
}

#[test]
fn programs_that_set_boot_next_for_ever_end() {
    let mut host = FakeHost::new();
    host.set("BootNext", &[7, 0]);
    host.set("Boot0007", &option(1, &short(1, "\\next.efi"), b""));
    host.program(1, 1, "\\next.efi", Program { sets: vec![("BootNext", vec![7, 0])], result: Ok(Status::SUCCESS) });
    host.boot("");
    assert_eq!(host.ran.len(), MOST_NEXT as usize);
}

#[test]
fn options_follow_in_their_order_and_those_that_cannot_boot_are_skipped() {
    let mut host = FakeHost::new();
    // What is named again is not tried again.
    let all = [[5_u16, 0xabcd, 1, 2], [3, 4, 6, 7], [4, 5, 4, 7]].concat();
    host.set("BootOrder", &all.into_iter().flat_map(u16::to_le_bytes).collect::<Vec<_>>());
    host.set("Boot0005", &option(1, &short(9, "\\gone.efi"), b""));
    // Boot0001 is inactive, Boot0002 an application, Boot0003 malformed.
    host.set("Boot0001", &option(0, &short(1, "\\a.efi"), b""));
    host.set("Boot0002", &option(0x101, &short(1, "\\a.efi"), b""));
    host.set("Boot0003", &option(1, &[0x7f], b""));
    host.set("Boot0004", &option(8 | 1, &with_file(PathBuilder::new(), "\\a.efi"), b"file alone"));
    host.set(
        "Boot0006",
        &option(1, &volume(2, ONLY, 1)[..18].iter().copied().chain([0x7f, 0xff, 4, 0]).collect::<Vec<_>>(), b""),
    );
    host.set("Boot0007", &option(1, &with_file(PathBuilder::new().node(1, 4, &[&[0; 16]]).unwrap(), "\\a.efi"), b""));
    for device in [1, 3] {
        host.program(device, 1, "\\a.efi", returns(Status::NOT_READY));
    }
    host.removable(2, 1, returns(Status::SUCCESS));
    let text = host.boot("");
    assert_eq!(host.ran(), ["1 \\a.efi", "3 \\a.efi", &format!("2 {REMOVABLE}")]);
    assert_eq!(host.ran[0].1, b"file alone");
    for part in [
        "Boot0005: no disk has HD(",
        "BootABCD: there is none",
        "Boot0001: inactive",
        "Boot0002: inactive",
        "Boot0003: its list",
        "Boot0004, first, partition 1: \\a.efi returned",
        "Boot0007: no disk has VenHw(",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_program_that_a_returned_program_has_named_is_started() {
    // What shim's fallback leaves.
    let mut host = FakeHost::new();
    let entry = option(1, &short(1, "\\EFI\\debian\\shimx64.efi"), b"");
    let sets = vec![("Boot0000", entry), ("BootOrder", vec![0, 0])];
    host.removable(1, 1, Program { sets, result: Ok(Status::SUCCESS) });
    host.program(1, 1, "\\EFI\\debian\\shimx64.efi", returns(Status::SUCCESS));
    host.boot("/pci@i0cf8/scsi@1/disk@0,0");
    assert_eq!(host.ran(), [format!("1 {REMOVABLE}"), String::from("1 \\EFI\\debian\\shimx64.efi")]);
    assert_eq!(host.ran[1].2.as_deref(), Some(&[0, 0][..]));
    assert_eq!(host.variable("BootCurrent", GLOBAL), None);
}

#[test]
fn shims_fallback_does_not_reset_the_machine() {
    let mut host = FakeHost::new();
    host.boot("");
    assert_eq!(host.variables[&("FB_NO_REBOOT".into(), SHIM.to_bytes())], (2, vec![1, 0, 0, 0]));
}

/// Three disks with a program that returns.
fn three_disks() -> FakeHost {
    let mut host = FakeHost::new();
    for device in 1..4 {
        host.removable(device, 1, returns(Status::SUCCESS));
    }
    host
}

#[test]
fn a_disk_that_the_user_chooses_is_started_first_and_once() {
    let mut host = three_disks();
    host.boot_with_menu("", "^x93");
    let file = REMOVABLE;
    assert_eq!(host.ran(), [3, 1, 2].map(|device| format!("{device} {file}")));
    assert_eq!(
        host.printed,
        "Press Esc for the boot menu.\r\n1. first, partition 1\r\n2. second, partition 1\r\n3. third, partition 1\r\n\
         Start which? Esc leaves the menu.\r\n3. third, partition 1 is started.\r\n"
    );
    assert_eq!(host.waits, [2500, 1500, 1500, 1500]);
    assert_eq!(host.forgotten, 1, "what is typed behind the choice is not for the program");
}

#[test]
fn without_escape_at_first_or_a_choice_the_order_is_the_usual_one() {
    let senseless = String::from("^") + &"x".repeat(200);
    for (keys, waits) in [("", 1), ("3", 1), ("^", 3), ("^ ^3", 3), (&senseless[..], 101)] {
        let mut host = three_disks();
        host.boot_with_menu("", keys);
        assert_eq!(host.ran(), [1, 2, 3].map(|device| format!("{device} {REMOVABLE}")), "{keys}");
        assert_eq!(host.waits.len(), waits, "{keys}");
    }
}

#[test]
fn escape_that_is_pressed_several_times_to_open_the_menu_does_not_leave_it() {
    let mut host = three_disks();
    host.boot_with_menu("", "^^^^2");
    assert_eq!(host.ran().first(), Some(&format!("2 {REMOVABLE}")));
    let mut host = three_disks();
    host.boot_with_menu("", "^^ x^2");
    assert_eq!(host.waits, [2500, 1500, 1500, 600_000, 600_000]);
    assert_eq!(host.ran().first(), Some(&format!("1 {REMOVABLE}")));
}

#[test]
fn the_menu_of_a_strict_order_has_only_its_disks() {
    let mut host = three_disks();
    host.boot_with_menu("/pci@i0cf8/scsi@1/disk@0,0\n/pci@i0cf8/scsi@3/disk@0,0\nHALT", "^32");
    assert_eq!(host.ran(), [3, 1].map(|device| format!("{device} {REMOVABLE}")));
    assert_eq!(host.started, [0, 2]);
    assert!(host.printed.contains("\r\n1. first, partition 1\r\n2. third, partition 1\r\nStart"), "{}", host.printed);
    let mut host = three_disks();
    host.boot_with_menu("/pci@i0cf8/ethernet@9/ethernet-phy@0\nHALT", "^1");
    let text = "No disk in the host's boot order, which is strict, has a FAT file system.\r\n";
    assert!(host.printed.ends_with(text) && host.ran.is_empty(), "{}", host.printed);
}

#[test]
fn the_menu_has_as_many_disks_as_there_are_digits_and_letters() {
    let mut host = FakeHost::new();
    host.controllers = vec![Controller { device: 1, disks: Ok(vec![(ONLY, (1..60).collect())]) }];
    host.removable(1, 35, returns(Status::SUCCESS));
    host.boot_with_menu("", "^z");
    assert!(
        host.printed.contains(
            "z. first, partition 35\r\n24 more have no key here: list them in the host's boot order.\r\nStart"
        ),
        "{}",
        host.printed
    );
    assert_eq!(host.ran.len(), 1);
    let mut host = FakeHost::new();
    host.controllers.clear();
    host.boot_with_menu("", "^1");
    assert!(host.printed.ends_with("No disk has a FAT file system.\r\n"), "{}", host.printed);
}
