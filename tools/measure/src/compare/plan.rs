//! Which scenarios the user's options stand for.

use std::path::PathBuf;

use xtask::qemu::Accelerator;

use crate::boot::probe::Format;
use crate::boot::scenario::{LARGE, MACHINES, Payload, SMALL, Scenario, Sizes, Transport};

/// The machines on which devices are measured by default: those with a PCI bus.
const WITH_PCI: [&str; 2] = ["q35", "pc"];

/// The steps in which growth is measured: numbers of devices and of CPUs, and sizes of the initrd in MiB.
const GROWTH_DEVICES: [u32; 4] = [0, 1, 8, 32];
const GROWTH_CPUS: [u16; 3] = [4, 16, 64];
const GROWTH_INITRD: [u64; 4] = [4, 32, 256, 1024];

/// What the user chose. An empty field is not chosen.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Machine types.
    pub machines: Vec<String>,
    /// Transports.
    pub transports: Vec<Transport>,
    /// Accelerators.
    pub accelerators: Vec<Accelerator>,
    /// A real kernel and its initrd.
    pub linux: Option<(PathBuf, Option<PathBuf>)>,
    /// The sizes of the probe.
    pub kernel_size: Option<u64>,
    /// The size of its initrd.
    pub initrd_size: Option<u64>,
    /// The form of the probe.
    pub format: Option<Format>,
    /// Devices on the machine.
    pub devices: Vec<String>,
    /// Devices whose cost is measured, each as words in the form of [`Scenario::devices`].
    pub extras: Vec<Vec<String>>,
    /// The number of CPUs.
    pub cpus: u16,
    /// The guest's memory.
    pub memory: Option<String>,
}

impl Wishes {
    /// Whether neither machine, transport, payload nor device is chosen.
    pub fn nothing_chosen(&self) -> bool {
        self.extras.is_empty()
            && self.machines.is_empty()
            && self.transports.is_empty()
            && !self.sizes_chosen()
            && self.linux.is_none()
    }

    fn sizes_chosen(&self) -> bool {
        self.kernel_size.is_some() || self.initrd_size.is_some()
    }
}

/// The scenarios for the user's choice. `kernel` is the real kernel that is measured without a choice.
pub fn scenarios(wishes: &Wishes, default_accelerator: Accelerator, kernel: Option<PathBuf>) -> Vec<Scenario> {
    let combined = |machines: &[String], transports: &[Transport], payloads: &[Payload]| {
        let accelerators: &[_] =
            if wishes.accelerators.is_empty() { &[default_accelerator] } else { &wishes.accelerators };
        let mut scenarios = Vec::new();
        for machine in machines {
            for &transport in transports {
                for &accelerator in accelerators {
                    for payload in payloads {
                        let plain = Scenario::plain(machine, payload.clone());
                        let memory = wishes.memory.clone().unwrap_or(plain.memory);
                        let devices = wishes.devices.clone();
                        let bare = Scenario { transport, accelerator, devices, cpus: wishes.cpus, memory, ..plain };
                        let with = |devices: &Vec<_>| Scenario { devices: devices.clone(), ..bare.clone() };
                        scenarios.extend([bare.clone()].into_iter().chain(wishes.extras.iter().map(with)));
                    }
                }
            }
        }
        scenarios
    };
    let format = wishes.format.unwrap_or(Format::Bzimage);
    let extras = !wishes.extras.is_empty();
    let default_machines =
        if extras { WITH_PCI.map(str::to_owned).to_vec() } else { MACHINES.map(str::to_owned).to_vec() };
    let machines = if wishes.machines.is_empty() { &default_machines[..] } else { &wishes.machines };
    let transports = if wishes.transports.is_empty() { &[Transport::Dma][..] } else { &wishes.transports };
    let sizes_chosen = wishes.sizes_chosen();

    let mut payloads = Vec::new();
    if sizes_chosen {
        let kernel = wishes.kernel_size.unwrap_or(SMALL.kernel);
        payloads.push(Sizes { kernel, initrd: wishes.initrd_size.unwrap_or(SMALL.initrd) }.probe(format));
    } else if wishes.linux.is_none() && extras {
        // The cost of a device does not depend on the payload.
        payloads.push(SMALL.probe(format));
    } else if wishes.linux.is_none() {
        payloads.extend([SMALL.probe(format), LARGE.probe(format)]);
    }
    payloads.extend(wishes.linux.clone().map(|(kernel, initrd)| Payload::Linux { kernel, initrd }));
    let mut scenarios = combined(machines, transports, &payloads);

    // Without a choice, also the slow transport and a real kernel, each on one machine.
    if wishes.nothing_chosen() {
        let first = &default_machines[..1];
        scenarios.extend(combined(first, &[Transport::Pio], &[SMALL.probe(format)]));
        let linux = kernel.map(|kernel| Payload::Linux { kernel, initrd: None });
        scenarios.extend(combined(first, &[Transport::Dma], linux.as_slice()));
    }
    scenarios
}

/// The scenarios that show growth. Each changes one thing of the small probe on one CPU without devices.
pub fn growth(wishes: &Wishes, default_accelerator: Accelerator) -> Vec<Scenario> {
    let machines = if wishes.machines.is_empty() { vec![MACHINES[0].to_owned()] } else { wishes.machines.clone() };
    let plain = Wishes {
        machines,
        kernel_size: Some(SMALL.kernel),
        initrd_size: Some(SMALL.initrd),
        devices: Vec::new(),
        extras: Vec::new(),
        cpus: 1,
        ..wishes.clone()
    };
    let devices = GROWTH_DEVICES.map(|count| Wishes { devices: (0..count).map(device).collect(), ..plain.clone() });
    let cpus = GROWTH_CPUS.map(|cpus| Wishes { cpus, ..plain.clone() });
    let initrd = GROWTH_INITRD.map(|size| Wishes { initrd_size: Some(size << 20), ..plain.clone() });
    let all = devices.into_iter().chain(cpus).chain(initrd);
    all.flat_map(|wishes| scenarios(&wishes, default_accelerator, None)).collect()
}

/// The small device of this number. Eight share a slot, because a bus has too few slots.
fn device(number: u32) -> String {
    let (slot, function) = (1 + number / 8, number % 8);
    let multifunction = if function == 0 { ",multifunction=on" } else { "" };
    format!("virtio-rng-pci,addr={slot:#x}.{function}{multifunction}")
}
