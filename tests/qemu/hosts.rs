//! Differences between hosts: machine types of several years, disabled features, and special tables: NUMA, plugged-in
//! memory, non-volatile memory, CXL, far more address space than memory.
//!
//! A distribution's kernel boots on each, logs no complaint, and finds what the host has. Unrelated features share a
//! machine, so that there are few boots.

use std::fs::{self, File};

use tempfile::TempDir;

use crate::bzimage::BzImage;
use crate::linux::{self, Report};
use crate::machine::{Emulator, Kind, Machine, Qemu, Transport};
use crate::probe::Probe;
use crate::random;
use crate::script;

/// What stands between the report and what a test's own script prints.
const DIVIDER: &str = "---- more";

/// Bytes of a large initrd.
const LARGE: usize = (16 << 20) + 4;

/// Boots, returns the report, and what `script` prints.
fn look(machine: &Machine, script: &str) -> (Report, String) {
    look_while(machine, script, |_| ())
}

/// As [`look`], with something done to the machine meanwhile.
fn look_while(machine: &Machine, script: &str, meanwhile: impl FnOnce(&mut Qemu)) -> (Report, String) {
    let script = format!("report\necho '{DIVIDER}'\n{script}");
    let printed = script::run_with(machine, &script, |qemu| {
        qemu.wait_for("the kernel's report", |qemu| qemu.com1().contains(DIVIDER));
        assert!(!qemu.com1().contains("firstlight: "), "the firmware printed something");
        assert_eq!(qemu.debug_console(), "");
        meanwhile(qemu);
    });
    let (report, rest) = printed.split_once(DIVIDER).expect("the divider");
    (Report::parse(report), rest.trim_start().to_owned())
}

/// Through ports, each byte of an item takes an access.
#[test]
fn a_large_item_is_the_same_through_ports_and_by_dma() {
    let initrd = random::bytes(7, LARGE);
    for emulator in Emulator::all() {
        let hashes = Transport::ALL.map(|transport| {
            let machine = Machine { emulator, transport, ..Machine::new(Kind::Q35) };
            let mut probe = Probe::boot(&machine, &BzImage::new(), Some(&initrd), None);
            let place = probe.boot_params().initrd();
            assert_eq!(place.end - place.start, LARGE as u64);
            assert!(probe.read(place.end - 4096, 4096) == initrd[LARGE - 4096..], "the end differs");
            probe.hash(place)
        });
        assert_eq!(hashes[0], hashes[1], "{emulator:?}");
    }
}

/// The value in a line `name=value`.
fn value<'a>(printed: &'a str, name: &str) -> &'a str {
    let line = printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {name} in {printed}"))
}

/// A number in such a line, decimal or hexadecimal.
fn number(printed: &str, name: &str) -> u64 {
    let text = value(printed, name).trim();
    let parsed = text.strip_prefix("0x").map_or_else(|| text.parse(), |digits| u64::from_str_radix(digits, 16));
    parsed.unwrap_or_else(|error| panic!("{name} is {text:?}: {error}"))
}

fn of_version(kind: Kind, version: &'static str) -> Machine {
    Machine { version: Some(version), cpus: 2, memory: "512M", ..Machine::new(kind) }
}

/// Boots with QEMU's default devices, and checks the same as on any machine.
fn check_version(kind: Kind, version: &'static str) {
    let machine = Machine { default_devices: true, ..of_version(kind, version) };
    look(&machine, "").0.check(&machine);
}

#[test]
fn linux_boots_on_pc_of_version_2_4() {
    // The last without DMA.
    let machine = Machine { transport: Transport::Ports, default_devices: true, ..of_version(Kind::Pc, "2.4") };
    look(&machine, "").0.check(&machine);
}

#[test]
fn linux_boots_on_pc_of_version_2_9() {
    check_version(Kind::Pc, "2.9");
}

#[test]
fn linux_boots_on_pc_of_version_6_2() {
    check_version(Kind::Pc, "6.2");
}

#[test]
fn linux_boots_on_q35_of_version_2_9() {
    check_version(Kind::Q35, "2.9");
}

#[test]
fn linux_boots_on_q35_of_version_6_2() {
    check_version(Kind::Q35, "6.2");
}

#[test]
fn linux_boots_on_q35_of_version_4_0_without_smm_and_with_cpu_features_to_enable() {
    let machine = Machine { properties: ",smm=off", cpus: 4, ..of_version(Kind::Q35, "4.0") };
    look(&machine.clone().with("-cpu max,lmce=on"), "").0.check(&machine);
}

#[test]
fn linux_boots_on_pc_of_version_4_2_with_two_nodes_and_no_hpet() {
    let machine = Machine { properties: ",hpet=off", cpus: 4, memory: "1G", ..of_version(Kind::Pc, "4.2") };
    let nodes = "-object memory-backend-ram,id=a,size=384M -object memory-backend-ram,id=b,size=640M \
                 -numa node,memdev=a,cpus=0-1 -numa node,memdev=b,cpus=2-3 -numa dist,src=0,dst=1,val=17";
    let (report, printed) = look(
        &machine.clone().with(nodes),
        "cd /sys/devices/system/node
         for node in node[0-9]*; do
             echo $node=CPUs $(cat $node/cpulist), distance $(cat $node/distance)
             echo $node-memory=$(awk '/MemTotal/ { print $4 }' $node/meminfo)
         done
         echo timers=$(cat /sys/devices/system/clocksource/clocksource0/available_clocksource)",
    );
    report.check(&machine);
    assert_eq!(value(&printed, "node0"), "CPUs 0-1, distance 10 17");
    assert_eq!(value(&printed, "node1"), "CPUs 2-3, distance 17 10");
    for (node, mib) in [("node0-memory", 384), ("node1-memory", 640)] {
        let kib = number(&printed, node);
        assert!(kib < mib << 10 && kib > mib << 9, "{node}: {kib} KiB of {mib} MiB");
    }
    let tables = report.one("acpi-tables");
    assert!(tables.contains("SRAT") && tables.contains("SLIT") && !tables.contains("HPET"), "{tables}");
    assert!(!value(&printed, "timers").contains("hpet"), "{printed}");
}

/// Takes all memory that is there and not in use yet, as a distribution's rules for it do; prints how much there is.
const TAKE_MEMORY: &str = "
    take_memory() {
        for block in /sys/devices/system/memory/memory*; do
            [ $(cat $block/state) = online ] || echo online >$block/state
        done
        echo $1=$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)
    }
    echo before=$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)
    take_memory at-start
";

/// Waits for the memory that is plugged in meanwhile.
const WAIT_FOR_MEMORY: &str = "
    blocks=$(ls -d /sys/devices/system/memory/memory* | wc -l)
    echo waiting=$blocks
    for second in $(seq 30); do
        [ $(ls -d /sys/devices/system/memory/memory* | wc -l) -gt $blocks ] && break
        sleep 1
    done
    take_memory plugged-in
";

fn check_plugged_memory(machine: &Machine) -> (Report, String) {
    let at_start = "-object memory-backend-ram,id=at-start,size=256M -device pc-dimm,memdev=at-start";
    let script = [TAKE_MEMORY, WAIT_FOR_MEMORY].concat();
    let (report, printed) = look_while(&machine.clone().with(at_start), &script, |qemu| {
        qemu.wait_for("the guest to wait", |qemu| qemu.com1().contains("waiting="));
        let mut qmp = qemu.qmp();
        qmp.run("object-add", r#"{"qom-type": "memory-backend-ram", "id": "later", "size": 536870912}"#);
        qmp.run("device_add", r#"{"driver": "pc-dimm", "id": "dimm", "memdev": "later"}"#);
    });
    report.check(machine);
    let [before, at_start, plugged_in] = ["before", "at-start", "plugged-in"].map(|name| number(&printed, name));
    assert_eq!([at_start - before, plugged_in - at_start], [256 << 10, 512 << 10], "KiB that came to it");
    (report, printed)
}

#[test]
fn linux_uses_plugged_in_memory_on_pc() {
    check_plugged_memory(&Machine { memory: "512M,slots=4,maxmem=4G", ..Machine::new(Kind::Pc) });
}

#[test]
fn linux_uses_plugged_in_memory_on_q35_of_version_7_0() {
    check_plugged_memory(&Machine { memory: "512M,slots=4,maxmem=4G", cpus: 1, ..of_version(Kind::Q35, "7.0") });
}

#[test]
fn linux_uses_non_volatile_memory_on_q35() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("memory");
    let content: Vec<_> = (0..4096u32).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    fs::write(&path, &content).expect("a file in the temporary folder");
    File::options().write(true).open(&path).and_then(|file| file.set_len(128 << 20)).expect("a file of 128 MiB");
    let machine = Machine { properties: ",nvdimm=on", memory: "512M,slots=2,maxmem=2G", ..Machine::new(Kind::Q35) };
    let (report, printed) = look(
        &machine
            .clone()
            .with(&format!("-object memory-backend-file,id=file,size=128M,share=on,mem-path={}", path.display()))
            .with("-device nvdimm,memdev=file"),
        "for module in libnvdimm nfit nd_btt nd_pmem; do insmod /modules/$module.ko; done
         echo region=$(cat /sys/bus/nd/devices/region0/size)
         echo disk=$(($(cat /sys/block/pmem0/size) * 512))
         head -c 16384 /dev/pmem0 | sha256sum | sed 's/^/content=/; s/ .*//'
         printf changed | dd of=/dev/pmem0 conv=notrunc 2>/dev/null
         sync",
    );
    report.check(&machine);
    assert!(report.one("acpi-tables").contains("NFIT"), "{}", report.one("acpi-tables"));
    assert_eq!([number(&printed, "region"), number(&printed, "disk")], [128 << 20; 2]);
    assert_eq!(value(&printed, "content"), linux::sha256(folder.path(), &content));
    let kept = fs::read(&path).expect("the file behind the memory");
    assert!(kept.starts_with(b"changed") && kept[7..content.len()] == content[7..], "what the guest wrote is kept");
}

/// Prints the end of what the host keeps for memory that is plugged in, and where the test device's memory is.
const RESERVED_AND_DEVICE: &str = "
    echo reserved-end=0x$(od -A n -t x8 /sys/firmware/qemu_fw_cfg/by_name/etc/reserved-memory-end/raw | tr -d ' ')
    for device in /sys/bus/pci/devices/*; do
        [ $(cat $device/device) = 0x0005 ] && sed -n '3 { s/^/device=/; s/ .*//; p }' $device/resource
    done
    true
";
const TEST_DEVICE: &str = "-device pci-testdev,bus=pcie.0,membar=8G";

#[test]
fn linux_boots_on_q35_with_1_tib_of_address_space_and_3_gib_of_memory() {
    let machine = Machine { memory: "3G,slots=4,maxmem=1T", ..Machine::new(Kind::Q35) };
    let (report, printed) = look(&machine.clone().with("-cpu max,phys-bits=46").with(TEST_DEVICE), RESERVED_AND_DEVICE);
    report.check(&machine);
    // QEMU leaves out the addresses of HyperTransport below 1 TiB, so the memory above 4 GiB is there.
    let high = report.all("e820").iter().any(|line| line.starts_with("0x10000000000-") && line.ends_with("System RAM"));
    assert!(high, "{:?}", report.all("e820"));
    let (reserved, device) = (number(&printed, "reserved-end"), number(&printed, "device"));
    assert!(reserved > 2 << 40 && device >= reserved && device + (8 << 30) <= 1 << 46, "{printed}");
}

/// Eight GPUs of 128 GiB, each in a slot: more than there is below the 12 GiB that QEMU reserves below 1 TiB.
#[test]
fn linux_uses_bars_above_the_addresses_of_hyper_transport() {
    let gpu = |i: u8| format!("-device pcie-root-port,id=p{i},chassis={i} -device pci-testdev,bus=p{i},membar=128G");
    let gpus: Vec<_> = (1..=8).map(gpu).collect();
    let machine = Machine::new(Kind::Q35).with("-cpu EPYC,phys-bits=48").with(&gpus.join(" "));
    let (report, printed) = look(
        &machine,
        "cat /proc/iomem | grep -E 'PCI Bus 0000:00$|0000:0[1-8]:00.0' | grep -E '[0-9a-f]{11}-' | tr -d ' '",
    );
    report.check(&machine);
    let ranges = printed.lines().filter_map(|line| line.split_once(':')?.0.split_once('-'));
    let ranges = ranges.map(|bounds| [bounds.0, bounds.1].map(|at| u64::from_str_radix(at, 16).expect("an address")));
    let ranges: Vec<_> = ranges.collect();
    assert_eq!(ranges.len(), 1 + 8, "the root bus's and the devices': {printed}");
    assert!(ranges.iter().all(|[first, last]| 1 << 40 <= *first && *last < 1 << 48), "{printed}");
    assert!(ranges[1..].iter().all(|[first, last]| last - first == (128 << 30) - 1), "{printed}");
}

#[test]
fn linux_boots_on_q35_with_a_cxl_window() {
    let machine =
        Machine { properties: ",cxl=on,cxl-fmw.0.targets.0=cxl,cxl-fmw.0.size=4G", ..Machine::new(Kind::Q35) };
    let machine = Machine { memory: "512M,slots=2,maxmem=4G", ..machine };
    let (report, printed) = look(
        &machine
            .with("-device pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl -device cxl-rp,bus=cxl,id=root-port,port=0,chassis=0,slot=2")
            .with("-object memory-backend-ram,id=memory,size=256M -object memory-backend-ram,id=labels,size=256K")
            .with("-device cxl-type3,bus=root-port,memdev=memory,lsa=labels,id=pmem")
            .with(TEST_DEVICE),
        &format!(
            "insmod /modules/cxl_acpi.ko
             echo window=$(cat /sys/bus/cxl/devices/decoder0.0/start)
             echo window-size=$(cat /sys/bus/cxl/devices/decoder0.0/size)
             {RESERVED_AND_DEVICE}"
        ),
    );
    assert!(report.one("acpi-tables").contains("CEDT"), "{}", report.one("acpi-tables"));
    let end = number(&printed, "window") + number(&printed, "window-size");
    let (reserved, device) = (number(&printed, "reserved-end"), number(&printed, "device"));
    assert_eq!(number(&printed, "window-size"), 4 << 30);
    assert!(end <= reserved && reserved <= device, "{printed}");
    let devices = report.all("pci").iter().filter(|line| line.starts_with("0000:0c:") || line.starts_with("0000:0d:"));
    assert_eq!(devices.count(), 2, "the port and the device: {:?}", report.all("pci"));
    // QEMU 7.2 names a root twice in its tables, with room for more memory it leaves out of them what is between 3 and 4
    // GiB, and a root without I/O has no ports for hot-plug: so it is under every firmware.
    let of_qemu = ["AE_ALREADY_EXISTS", "can't claim; no compatible bridge window", "bridge window [io  size 0x1000]"];
    let others: Vec<_> =
        report.all("problem").iter().filter(|line| !of_qemu.iter().any(|known| line.contains(known))).collect();
    assert_eq!(others, [""; 0]);
}

#[test]
fn linux_boots_on_machines_without_acpi() {
    for kind in Kind::ALL {
        let machine = Machine { properties: ",acpi=off", memory: "512M", default_devices: true, ..Machine::new(kind) };
        let mut qemu = linux::guest(&machine, "").start();
        // Such a machine cannot be powered off.
        qemu.wait_for("the kernel's report", |qemu| qemu.com1().contains(linux::END));
        assert!(!qemu.com1().contains("firstlight: "), "the firmware printed something");
        let report = Report::parse(&qemu.com1());
        assert_eq!(report.one("acpi-tables"), "");
        assert_eq!(report.one("dmi-bios-vendor"), "Firstlight");
        assert_eq!(report.one("bars-assigned-by-kernel"), "0");
        let problems = report.all("problem");
        assert!(problems.iter().all(|line| line.contains("A valid RSDP was not found")), "{problems:?}");
    }
}
