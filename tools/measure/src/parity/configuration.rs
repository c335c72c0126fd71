//! The machines on which the guest is compared.

use xtask::packages::{self, Need};

/// A machine.
#[derive(Debug)]
pub struct Configuration {
    /// Its name in the list of intended differences.
    pub name: &'static str,
    /// QEMU's machine type.
    pub machine: &'static str,
    /// The number of CPUs.
    pub cpus: u16,
    /// Other arguments of QEMU, separated by spaces.
    pub arguments: &'static str,
    /// Whether there are extra PCI root buses: QEMU's tables then show the addresses that firmware gave to what is behind
    /// each, and so to what is not.
    pub extra_roots: bool,
}

/// A disk of zeros, for devices that need one.
const DISK: &str = "-blockdev driver=null-co,node-name=disk,read-zeroes=on,size=1048576";

/// All machines that are compared.
pub const CONFIGURATIONS: [Configuration; 9] = [
    Configuration { name: "q35", machine: "q35", cpus: 1, arguments: "", extra_roots: false },
    Configuration { name: "pc", machine: "pc", cpus: 1, arguments: "", extra_roots: false },
    Configuration {
        name: "q35-virtio",
        machine: "q35",
        cpus: 1,
        arguments: "-device pcie-root-port,id=a,chassis=1 -device virtio-blk-pci,bus=a,drive=disk \
            -netdev user,id=net,restrict=on -device pcie-root-port,id=b,chassis=2 \
            -device virtio-net-pci,bus=b,netdev=net -device pcie-root-port,id=c,chassis=3 \
            -device virtio-rng-pci,bus=c",
        extra_roots: false,
    },
    Configuration {
        name: "pc-virtio",
        machine: "pc",
        cpus: 1,
        arguments: "-device pci-bridge,id=a,chassis_nr=1 -device virtio-blk-pci,bus=a,addr=1,drive=disk \
            -netdev user,id=net,restrict=on -device virtio-net-pci,bus=a,addr=2,netdev=net \
            -device virtio-rng-pci,bus=a,addr=3",
        extra_roots: false,
    },
    Configuration {
        name: "q35-pxb",
        machine: "q35",
        cpus: 1,
        arguments: "-device pxb-pcie,id=x,bus_nr=128 -device pcie-root-port,id=a,bus=x,chassis=1 \
            -device virtio-blk-pci,bus=a,drive=disk",
        extra_roots: true,
    },
    Configuration {
        name: "pc-pxb",
        machine: "pc",
        cpus: 1,
        arguments: "-device pxb,id=x,bus_nr=128 -device virtio-blk-pci,bus=x,addr=1,drive=disk \
            -netdev user,id=net,restrict=on -device virtio-net-pci,bus=x,addr=2,netdev=net",
        extra_roots: true,
    },
    Configuration { name: "q35-8cpus", machine: "q35", cpus: 8, arguments: "", extra_roots: false },
    Configuration { name: "pc-8cpus", machine: "pc", cpus: 8, arguments: "", extra_roots: false },
    Configuration {
        name: "microvm",
        machine: "microvm",
        cpus: 2,
        arguments: "-device virtio-blk-device,drive=disk -netdev user,id=net,restrict=on \
            -device virtio-net-device,netdev=net -device virtio-rng-device",
        extra_roots: false,
    },
];

/// The names of all machines.
pub fn names() -> impl Iterator<Item = &'static str> {
    CONFIGURATIONS.iter().map(|configuration| configuration.name)
}

impl Configuration {
    /// SeaBIOS's build for the machine.
    pub fn seabios(&self) -> Need {
        if self.machine == "microvm" { packages::SEABIOS_MICROVM } else { packages::SEABIOS }
    }

    /// QEMU's arguments for the machine and its devices.
    pub fn arguments(&self) -> Vec<String> {
        let cpus = self.cpus.to_string();
        let mut arguments: Vec<_> =
            ["-machine", self.machine, "-m", "512M", "-smp", &cpus].iter().map(|word| (*word).to_owned()).collect();
        if self.arguments.contains("drive=disk") {
            arguments.extend(DISK.split(' ').map(str::to_owned));
        }
        arguments.extend(self.arguments.split_whitespace().map(str::to_owned));
        arguments
    }
}
