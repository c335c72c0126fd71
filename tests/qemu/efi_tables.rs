//! Kernels that are entered directly and find EFI tables: what Debian's kernel does with them, and each runtime service before and
//! after the kernel moves it.
//!
//! No x86 kernel of Debian's has a driver for the EFI clock (`RTC_DRV_EFI` excludes x86), so the probe calls the time services.

use std::fs;
use std::ops::Range;

use tempfile::TempDir;

use crate::bzimage::BzImage;
use crate::environment;
use crate::linux::TSC_IS_KNOWN;
use crate::machine::{Kind, Machine};
use crate::microvm;
use crate::probe::Probe;
use crate::script;

/// What asks for the tables.
const TABLES: &str = "-fw_cfg name=opt/org.firstlight/efi,string=tables";

/// A microvm with everything that the services use.
fn microvm() -> Machine {
    microvm::machine(&["acpi", "pcie", "isa-serial", "rtc", "pit", "pic"])
}

/// What Linux logs if it complains about its EFI, or about the firmware's code.
const COMPLAINTS: &str =
    "dmesg | grep -v 'ommand line' | grep -iE 'efi.*(error|fail|invalid|broken|unable|bug)|WARNING|BUG:|Oops'";

/// Boots Debian's kernel with EFI tables, and runs a script in it. Fails if the kernel complains.
fn run(machine: &Machine, script: &str) -> String {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("script");
    fs::write(&file, format!("{script}\n! {COMPLAINTS}")).expect("a file in the temporary folder");
    let guest = script::guest(&machine.clone().with(TABLES), &file);
    let append = Some(format!("{TSC_IS_KNOWN}efi=debug {}", script::command_line()));
    let mut qemu = Machine { append, ..guest }.start();
    qemu.wait_for_end();
    let com1 = qemu.com1().replace("\r\n", "\n");
    assert!(com1.contains("script: ended with 0\n"), "{com1}");
    com1
}

/// Sets, changes, extends, lists and deletes variables. The kernel lets root delete those of this vendor
/// (`LINUX_EFI_CRASH_GUID`) and the ones of the specification.
const VARIABLES: &str = "set -e
insmod /modules/efivarfs.ko
mount -t efivarfs efivarfs /sys/firmware/efi/efivars
cd /sys/firmware/efi/efivars
one=one-cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0
two=OsIndications-8be4df61-93ca-11d2-aa0d-00e098032b8c
echo at first: $(ls)
printf '\\007\\000\\000\\000first' >$one
printf '\\007\\000\\000\\0001234567' >$two
printf '\\007\\000\\000\\000other' >$one
printf '\\107\\000\\000\\000more' >>$one
echo one: $(od -An -c $one | tr -d ' \\n')
echo all: $(ls)
rm $one
echo the rest: $(ls)
cd /
umount /sys/firmware/efi/efivars
mount -t efivarfs efivarfs /sys/firmware/efi/efivars
echo read anew: $(ls /sys/firmware/efi/efivars)
";

#[test]
fn a_kernel_shows_its_efi_tables_and_keeps_variables() {
    let script = format!(
        "{VARIABLES}
        echo tables: $(sed 's/=.*//' /sys/firmware/efi/systab) of $(cat /sys/firmware/efi/fw_platform_size) bits
        echo clock: $(ls -d /sys/devices/platform/rtc-efi.0)
        for entry in /sys/firmware/efi/runtime-map/*; do echo map: $(cat $entry/type $entry/attribute); done"
    );
    let one = "one-cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0";
    let two = "OsIndications-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    for (machine, tables) in
        [(Machine::new(Kind::Q35), "ACPI SMBIOS"), (Machine::new(Kind::Pc), "ACPI SMBIOS"), (microvm(), "ACPI20")]
    {
        let printed = run(&machine, &script);
        for line in [
            "at first:",
            "one: \\a\\0\\0\\0othermore",
            &format!("all: {two} {one}"),
            &format!("the rest: {two}"),
            &format!("read anew: {two}"),
            &format!("tables: {tables} of 64 bits"),
            "clock: /sys/devices/platform/rtc-efi.0",
            // Code and data of the services.
            "map: 0x5 0x800000000000000f",
        ] {
            assert!(printed.lines().any(|printed| printed == line), "{machine:?}: no {line:?} in {printed}");
        }
    }
}

#[test]
fn a_kernel_gets_random_bytes_from_a_cpu_that_has_them_and_memory_above_4_gib() {
    let machine = Machine { memory: "6G", ..Machine::new(Kind::Q35) };
    for (cpu, expected) in [("qemu64,-rdrand", "none"), ("max", "RNG=")] {
        let script = "echo random: $(dmesg | grep -o 'efi: .*RNG=' | grep -o RNG= || echo none)
            echo above: $(dmesg | grep -c 'efi: mem.*Conventional.*range=.0x0000000100000000-')";
        let printed = run(&machine.clone().with(&format!("-cpu {cpu}")), script);
        for line in [&format!("random: {expected}"), "above: 1"] {
            assert!(printed.lines().any(|printed| printed == line), "{cpu}: no {line:?} in {printed}");
        }
    }
}

#[test]
fn a_kernel_started_by_kexec_finds_the_variables_of_the_first_and_restarts_by_efi() {
    let folder = TempDir::new().expect("a temporary folder");
    let disk = |name: &str, file: &std::path::Path| {
        let mut bytes = fs::read(file).expect("a file of the guest");
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let path = folder.path().join(name);
        fs::write(&path, bytes).expect("a file in the temporary folder");
        format!(
            "-drive if=none,id={name},format=raw,readonly=on,file={} -device virtio-blk-pci,drive={name}",
            path.display()
        )
    };
    let machine = Machine { memory: "512M", ..Machine::new(Kind::Q35) }
        .with(TABLES)
        .with(&disk("kernel", &environment::kernel()))
        .with(&disk("initrd", &environment::initrd_with_tools()));
    let script = "set -e
insmod /modules/efivarfs.ko
mount -t efivarfs efivarfs /sys/firmware/efi/efivars
kept=/sys/firmware/efi/efivars/kept-cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0
if ! grep -q second /proc/cmdline; then
    printf '\\007\\000\\000\\000by the first kernel' >$kept
    cp /dev/vda /tmp/kernel
    cp /dev/vdb /tmp/initrd
    kexec -s -l /tmp/kernel --initrd=/tmp/initrd --append=\"$(cat /proc/cmdline) second\"
    kexec -e
fi
echo kept: $(tail -c +5 $kept)
COMPLAINTS || echo no complaint
echo efi >/sys/kernel/reboot/type
reboot -f"
        .replace("COMPLAINTS", COMPLAINTS);
    let file = folder.path().join("script");
    fs::write(&file, script).expect("a file in the temporary folder");
    let mut qemu = script::guest(&machine, &file).start();
    qemu.wait_for_end();
    let com1 = qemu.com1();
    assert!(com1.contains("kept: by the first kernel\r\nno complaint\r\n"), "{com1}");
    assert!(!com1.contains("script: ended"), "the restart");
}

#[test]
fn a_request_that_is_none_is_a_warning_with_the_three_that_are() {
    let machine = Machine::new(Kind::Q35).with("-fw_cfg name=opt/org.firstlight/efi,string=maybe");
    let mut probe = Probe::boot_noisily(&machine, &BzImage::new(), None, None);
    let expected =
        "opt/org.firstlight/efi begins with \"maybe\", which is none of off, tables and on; set it to one of these";
    assert!(probe.qemu.com1().contains(expected), "{}", probe.qemu.com1());
    assert_eq!(probe.boot_params().0[0x1c0..0x1e0], [0; 32]);
}

/// RAM of the probe's for requests, and for what the services read and write.
const BLOCK: u64 = 0x300_0000;
const DATA: u64 = BLOCK + 0x1000;
const NAME: u64 = BLOCK + 0x2000;
const VENDOR: u64 = BLOCK + 0x3000;
const NUMBER: u64 = BLOCK + 0x3100;
const MAP: u64 = BLOCK + 0x4000;

/// Statuses (UEFI appendix D).
const SUCCESS: u64 = 0;
const INVALID_PARAMETER: u64 = 1 << 63 | 2;
const UNSUPPORTED: u64 = 1 << 63 | 3;
const BUFFER_TOO_SMALL: u64 = 1 << 63 | 5;
const NOT_FOUND: u64 = 1 << 63 | 14;

/// The runtime services by their places in the table.
#[derive(Clone, Copy, Debug)]
enum Service {
    GetTime = 0,
    SetTime = 1,
    GetWakeupTime = 2,
    SetVirtualAddressMap = 4,
    ConvertPointer = 5,
    GetVariable = 6,
    GetNextVariableName = 7,
    SetVariable = 8,
    GetNextHighMonotonicCount = 9,
    ResetSystem = 10,
    UpdateCapsule = 11,
    QueryVariableInfo = 13,
}

/// The bytes from one descriptor of the memory map to the next, its type of runtime services' code, and its flag of what the
/// services need.
const STEP: usize = 48;
const RUNTIME_CODE: u32 = 5;
const RUNTIME: u64 = 1 << 63;

/// The runtime services of a machine, called by the probe.
struct Services {
    probe: Probe,
    system_table: u64,
    map: Vec<u8>,
    /// The addresses of the functions.
    functions: Vec<u64>,
}

impl Services {
    fn start(machine: &Machine) -> Self {
        let mut probe = Probe::boot(&machine.clone().with(TABLES), &BzImage::new(), None, None);
        let page = probe.boot_params();
        assert_eq!(&page.0[0x1c0..0x1c4], b"EL64");
        let wide = |low: usize, high: usize| u64::from(page.u32(low)) | u64::from(page.u32(high)) << 32;
        let (system_table, map) = (wide(0x1c4, 0x1d8), wide(0x1d0, 0x1dc));
        let map = probe.read(map, page.u32(0x1d4) as usize);
        assert_eq!((page.u32(0x1c8), map.len() % STEP), (STEP as u32, 0));
        assert_eq!(probe.read(system_table, 8), b"IBI SYST");
        let mut services = Self { probe, system_table, map, functions: Vec::new() };
        services.find_functions();
        services
    }

    /// Reads the addresses of the functions from the tables.
    fn find_functions(&mut self) {
        let table = self.number(self.system_table + 88);
        assert_eq!(self.probe.read(table, 8), b"RUNTSERV");
        self.functions = (0..14).map(|index| self.number(table + 24 + 8 * index)).collect();
    }

    fn number(&mut self, at: u64) -> u64 {
        u64::from_le_bytes(self.probe.read(at, 8).try_into().unwrap())
    }

    fn call(&mut self, service: Service, arguments: &[u64]) -> u64 {
        self.probe.call(BLOCK, self.functions[service as usize], arguments)
    }

    /// Puts a variable's name and vendor, and a number, to where the calls below find them.
    fn prepare(&mut self, name: &str, number: u64) {
        let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        self.probe.write(NAME, &name);
        self.probe.write(VENDOR, b"sixteen bytes ..");
        self.probe.write(NUMBER, &number.to_le_bytes());
    }

    fn set(&mut self, name: &str, attributes: u64, data: &[u8]) -> u64 {
        self.prepare(name, 0);
        self.probe.write(DATA, data);
        self.call(Service::SetVariable, &[NAME, VENDOR, attributes, data.len() as u64, DATA])
    }

    /// The status, and the data if there is room for them in `room` bytes, else the length.
    fn get(&mut self, name: &str, room: u64) -> (u64, Vec<u8>) {
        self.prepare(name, room);
        let status = self.call(Service::GetVariable, &[NAME, VENDOR, 0, NUMBER, DATA]);
        let len = self.number(NUMBER);
        (status, if status == SUCCESS { self.probe.read(DATA, len as usize) } else { len.to_le_bytes().to_vec() })
    }

    /// The names of all variables.
    fn names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        self.prepare("", 0);
        loop {
            self.probe.write(NUMBER, &200_u64.to_le_bytes());
            match self.call(Service::GetNextVariableName, &[NUMBER, NAME, VENDOR]) {
                SUCCESS => {}
                status => {
                    assert_eq!(status, NOT_FOUND);
                    return names;
                }
            }
            let len = self.number(NUMBER) as usize;
            let bytes = self.probe.read(NAME, len);
            let units: Vec<_> = bytes.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
            let name = String::from_utf16(&units).expect("a name");
            names.push(name.trim_end_matches('\0').to_owned());
        }
    }

    fn time(&mut self) -> Vec<u8> {
        assert_eq!(self.call(Service::GetTime, &[DATA, 0]), SUCCESS);
        self.probe.read(DATA, 16)
    }

    /// Each service but those that end the machine, and that for addresses.
    fn check(&mut self, round: u32) {
        let attributes = 7;
        assert_eq!(self.get("absent", 8).0, NOT_FOUND);
        assert_eq!(self.set("a", attributes, b"some data"), SUCCESS);
        assert_eq!(self.get("a", 3), (BUFFER_TOO_SMALL, 9_u64.to_le_bytes().to_vec()));
        assert_eq!(self.get("a", 100), (SUCCESS, b"some data".to_vec()));
        self.check_arguments();
        assert_eq!(self.set("b", attributes, b"1"), SUCCESS);
        assert_eq!(self.set("a", attributes | 0x40, b" and more"), SUCCESS);
        assert_eq!(self.names(), ["b", "a"]);
        assert_eq!(self.get("a", 100), (SUCCESS, b"some data and more".to_vec()));
        assert_eq!(self.set("a", 6, b"2"), INVALID_PARAMETER, "other attributes");
        assert_eq!(self.call(Service::QueryVariableInfo, &[attributes, DATA, DATA + 8, DATA + 16]), SUCCESS);
        assert_eq!((self.number(DATA), self.number(DATA + 16)), (64 << 10, 32 << 10));
        assert_eq!((self.set("a", attributes, b""), self.set("b", 0, b"")), (SUCCESS, SUCCESS));
        assert_eq!(self.names(), [""; 0]);

        // 2031-02-03 04:05:06, which a second or two later is read again.
        let time = [0xef, 0x07, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 60, 0, 0, 0];
        self.probe.write(DATA, &time);
        assert_eq!(self.call(Service::SetTime, &[DATA]), SUCCESS);
        let read = self.time();
        assert_eq!((&read[..5], &read[12..15]), (&time[..5], &time[12..15]));
        self.probe.write(DATA, &[0xef, 0x07, 2, 30, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(self.call(Service::SetTime, &[DATA]), INVALID_PARAMETER, "30 February");

        assert_eq!(self.call(Service::GetNextHighMonotonicCount, &[DATA]), SUCCESS);
        assert_eq!(self.probe.read32(DATA), round);
        assert_eq!(self.call(Service::GetWakeupTime, &[DATA, DATA, DATA]), UNSUPPORTED);
        assert_eq!(self.call(Service::UpdateCapsule, &[DATA, 1, 0]), UNSUPPORTED);
        self.probe.write(DATA, &BLOCK.to_le_bytes());
        assert_eq!(self.call(Service::ConvertPointer, &[0, DATA]), NOT_FOUND);
        for service in [Service::GetTime, Service::SetTime, Service::ConvertPointer, Service::GetVariable] {
            assert_eq!(self.call(service, &[0; 5]), INVALID_PARAMETER, "null pointers");
        }
    }

    /// The statuses of calls for variables with one argument that cannot be, while there is the variable "a".
    fn check_arguments(&mut self) {
        let get = [NAME, VENDOR, 0, NUMBER, DATA];
        let next = [NUMBER, NAME, VENDOR];
        let set = [NAME, VENDOR, 7, 1, DATA];
        let info = [7, DATA, DATA + 8, DATA + 16];
        let with = |call: &[u64], at: usize, argument: u64| {
            let mut call = call.to_vec();
            call[at] = argument;
            call
        };
        let invalid = [
            (Service::GetVariable, with(&get, 0, 0)),
            (Service::GetVariable, with(&get, 1, 0)),
            (Service::GetVariable, with(&get, 3, 0)),
            // There is room for the data, and no address.
            (Service::GetVariable, with(&get, 4, 0)),
            (Service::GetNextVariableName, with(&next, 0, 0)),
            (Service::GetNextVariableName, with(&next, 1, 0)),
            (Service::GetNextVariableName, with(&next, 2, 0)),
            (Service::SetVariable, with(&set, 0, 0)),
            (Service::SetVariable, with(&set, 1, 0)),
            (Service::SetVariable, with(&set, 4, 0)),
            // Runtime access alone, more than any variable has, an empty name.
            (Service::SetVariable, with(&set, 2, 4)),
            (Service::SetVariable, with(&set, 3, 33 << 10)),
            (Service::SetVariable, with(&set, 0, NAME + 2)),
            (Service::QueryVariableInfo, with(&info, 1, 0)),
            (Service::QueryVariableInfo, with(&info, 2, 0)),
            (Service::QueryVariableInfo, with(&info, 3, 0)),
            (Service::QueryVariableInfo, with(&info, 0, 1)),
        ];
        for (service, arguments) in invalid {
            self.prepare("a", 100);
            assert_eq!(self.call(service, &arguments), INVALID_PARAMETER, "{service:?} {arguments:x?}");
        }
        self.prepare("", 100);
        assert_eq!(self.call(Service::GetVariable, &get), NOT_FOUND, "an empty name");
        self.prepare("absent", 100);
        assert_eq!(self.call(Service::GetNextVariableName, &next), INVALID_PARAMETER, "no variable has this name");
        self.prepare("a", 2);
        assert_eq!(self.call(Service::GetNextVariableName, &next), INVALID_PARAMETER, "the name has no NUL in 2 bytes");
        self.prepare("", 2);
        assert_eq!(self.call(Service::GetNextVariableName, &next), BUFFER_TOO_SMALL);
        assert_eq!(self.number(NUMBER), 4);
        let authenticated = with(&set, 2, 0x27);
        self.prepare("a", 0);
        assert_eq!(self.call(Service::SetVariable, &authenticated), UNSUPPORTED);
    }

    /// Moves the services up by `distance`.
    fn move_by(&mut self, distance: u64) -> u64 {
        let mut map = self.map.clone();
        for entry in map.chunks_mut(STEP) {
            let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
            if number(32) & RUNTIME != 0 {
                let address = number(8) + distance;
                entry[16..24].copy_from_slice(&address.to_le_bytes());
            }
        }
        self.probe.write(MAP, &map);
        self.call(Service::SetVirtualAddressMap, &[map.len() as u64, STEP as u64, 1, MAP])
    }
}

/// The second half of a terabyte, which is mapped as the first here.
const ALIAS: u64 = 1 << 39;

#[test]
fn runtime_services_work_where_they_are_and_where_a_kernel_moves_them_without_the_firmwares_memory() {
    for machine in [Machine::new(Kind::Q35), Machine::new(Kind::Pc), microvm()] {
        let mut services = Services::start(&machine);
        // Everything that the firmware has used, but the page tables: heap, stack and data.
        for range in [0x4_0000..0x8_3000, 0x8_d000..0x9_e000] {
            services.probe.fill(range, 0xcc);
        }
        services.check(1);
        // Memory from ALIAS on is that from zero on.
        let tables = services.probe.state.cr3 & !0xfff;
        let first = services.number(tables);
        services.probe.write(tables + 8, &first.to_le_bytes());

        let code: Vec<_> = services.functions.clone();
        // No map, a step that is shorter than a descriptor, another version.
        for (step, version, map) in [(STEP, 1, 0), (39, 1, MAP), (STEP, 2, MAP)] {
            let arguments = [STEP as u64, step as u64, version, map];
            assert_eq!(services.call(Service::SetVirtualAddressMap, &arguments), INVALID_PARAMETER);
        }
        assert_eq!(services.move_by(ALIAS), SUCCESS);
        services.find_functions();
        assert_eq!(services.functions, code.iter().map(|address| address + ALIAS).collect::<Vec<_>>());
        services.check(2);
        assert_eq!(services.move_by(2 * ALIAS), UNSUPPORTED, "the second time");
        services.check(3);
    }
}

/// Linux calls services on its own stack of 16 KiB.
#[test]
fn runtime_services_use_less_than_4_kib_of_stack() {
    /// The probe's stack, from the end of its table of interrupts on.
    const STACK: Range<u64> = 0x8_1200..0x8_4000;
    let mut services = Services::start(&Machine::new(Kind::Q35));
    let base = services.probe.state.base;
    let (bottom, top) = (base + STACK.start, base + STACK.end);
    services.probe.fill(bottom..top - 0x400, 0xcc);
    services.check(1);
    assert_eq!(services.move_by(0), SUCCESS);
    let stack = services.probe.read(bottom, (STACK.end - STACK.start) as usize);
    let unused = stack.iter().take_while(|&&byte| byte == 0xcc).count();
    let used = stack.len() - unused;
    assert!((0x100..0x1000).contains(&used), "{used:#x} bytes");
}

#[test]
fn the_rsdp_is_in_the_parameters_and_in_the_configuration_tables() {
    /// ACPI 1.0 and ACPI 2.0 (UEFI 4.6.1), in the order of the bytes in memory.
    const ACPI_10: [u8; 16] = *b"\x30\x2d\x9d\xeb\x88\x2d\xd3\x11\x9a\x16\x00\x90\x27\x3f\xc1\x4d";
    const ACPI_20: [u8; 16] = *b"\x71\xe8\x68\x88\xf1\xe4\xd3\x11\xbc\x22\x00\x80\xc7\x3c\x88\x81";
    for (machine, guid) in [(Machine::new(Kind::Q35), ACPI_10), (microvm(), ACPI_20)] {
        let mut services = Services::start(&machine);
        let rsdp = services.probe.boot_params().rsdp();
        let [count, list] = [104, 112].map(|offset| services.number(services.system_table + offset));
        let tables = services.probe.read(list, count as usize * 24);
        let found = tables.chunks(24).find(|entry| entry[..16] == guid).expect("a table of ACPI");
        assert_eq!(found[16..], rsdp.to_le_bytes());
        assert!(services.probe.read(rsdp, 8).starts_with(b"RSD PTR "));
    }
}

#[test]
fn the_services_are_in_one_run_of_memory_that_the_kernel_leaves_alone() {
    let mut services = Services::start(&Machine::new(Kind::Q35));
    let runtime: Vec<_> = services
        .map
        .chunks(STEP)
        .map(|entry| {
            let number = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
            (number(0) as u32, number(8)..number(8) + (number(24) << 12), number(32))
        })
        .filter(|(.., attributes)| attributes & RUNTIME != 0)
        .collect();
    let [(kind, range, _)] = &runtime[..] else { panic!("{runtime:x?}") };
    assert_eq!(*kind, RUNTIME_CODE);
    assert!(range.contains(&services.system_table));
    assert!(services.functions.iter().all(|address| range.contains(address)));
    let map = services.probe.boot_params().e820();
    assert!(!map.iter().any(|entry| entry.kind == 1 && entry.start < range.end && range.start < entry.end), "{map:x?}");
    // UEFI 4.6.2: what the services need is neither below 1 MiB nor above 4 GiB here.
    assert!(range.start >= 1 << 20 && range.end <= 1 << 32);
}

#[test]
fn reset_system_restarts_the_machine_or_turns_it_off() {
    /// Types of a reset (UEFI 8.5.1).
    const COLD: u64 = 0;
    const WARM: u64 = 1;
    const SHUTDOWN: u64 = 2;
    for machine in [Machine::new(Kind::Q35), Machine::new(Kind::Pc), microvm()] {
        let mut services = Services::start(&Machine { reboots: true, ..machine });
        for kind in [COLD, WARM] {
            let reset = services.functions[Service::ResetSystem as usize];
            services.probe.start_call(BLOCK, reset, &[kind, 0, 0, 0]);
            services.probe.wait_for_restart();
            services.find_functions();
        }
        let reset = services.functions[Service::ResetSystem as usize];
        services.probe.start_call(BLOCK, reset, &[SHUTDOWN, 0, 0, 0]);
        services.probe.qemu.wait_for_end();
    }
}
