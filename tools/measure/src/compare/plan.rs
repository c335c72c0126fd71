//! Which scenarios the user's options stand for.

use std::path::absolute;

use xtask::guest;
use xtask::progress::say;
use xtask::qemu::Accelerator;

use super::Args;
use crate::boot::scenario::{LARGE, MACHINES, Payload, SMALL, Scenario, Sizes, Transport};

/// The steps in which growth is measured: numbers of devices and of CPUs, and sizes of the initrd in MiB.
const GROWTH_DEVICES: [u32; 4] = [0, 1, 8, 32];
const GROWTH_CPUS: [u16; 3] = [4, 16, 64];
const GROWTH_INITRD: [u64; 4] = [4, 32, 256, 1024];

/// The scenarios for the options.
pub fn scenarios(args: &Args, accelerators: &[Accelerator]) -> anyhow::Result<Vec<Scenario>> {
    let machines: Vec<_> = match (args.machine.is_empty(), args.growth, args.device.is_empty()) {
        (false, ..) => args.machine.iter().map(String::as_str).collect(),
        (_, true, _) => vec![MACHINES[0]],
        (.., true) => MACHINES.to_vec(),
        // Those with a PCI bus.
        (.., false) => vec!["q35", "pc"],
    };
    let transports = if args.transport.is_empty() { &[Transport::Dma][..] } else { &args.transport };
    let combined = |machines: &[&str], transports: &[Transport], payloads: &[Payload]| {
        combined(args, accelerators, machines, transports, payloads)
    };
    if args.growth {
        return Ok(growth(|payload| combined(&machines, transports, &[payload])));
    }
    let (sizes_chosen, chosen) = (args.kernel_size.or(args.initrd_size).is_some(), linux(args)?);
    let mut payloads = Vec::new();
    if sizes_chosen {
        let kernel = args.kernel_size.unwrap_or(SMALL.kernel);
        payloads.push(Payload::Probe(Sizes { kernel, initrd: args.initrd_size.unwrap_or(SMALL.initrd) }));
    } else if chosen.is_none() {
        payloads.push(Payload::Probe(SMALL));
        // The cost of a device does not depend on the payload.
        payloads.extend(args.device.is_empty().then_some(Payload::Probe(LARGE)));
    }
    payloads.extend(chosen.clone());
    let mut scenarios = combined(&machines, transports, &payloads);

    // Without a choice, also the slow transport and a real kernel, each on one machine.
    let nothing_chosen = args.machine.is_empty() && args.transport.is_empty() && args.device.is_empty();
    if nothing_chosen && !sizes_chosen && chosen.is_none() {
        scenarios.extend(combined(&MACHINES[..1], &[Transport::Pio], &[Payload::Probe(SMALL)]));
        match guest::kernel() {
            Ok(kernel) => {
                let linux = Payload::Linux { kernel: kernel.image, initrd: None };
                scenarios.extend(combined(&MACHINES[..1], &[Transport::Dma], &[linux]));
            }
            // The rest is measured.
            Err(error) => say(&format!("No Linux kernel is measured: {error:#}")),
        }
    }
    Ok(scenarios)
}

/// The real kernel of the options, if they name a kernel or an initrd.
fn linux(args: &Args) -> anyhow::Result<Option<Payload>> {
    let initrd = args.initrd.as_ref().map(absolute).transpose()?;
    let kernel = match &args.kernel {
        Some(kernel) => absolute(kernel)?,
        None if initrd.is_some() => guest::kernel()?.image,
        None => return Ok(None),
    };
    Ok(Some(Payload::Linux { kernel, initrd }))
}

/// Every combination, each without devices and with each of the devices whose cost is measured.
fn combined(
    args: &Args,
    accelerators: &[Accelerator],
    machines: &[&str],
    transports: &[Transport],
    payloads: &[Payload],
) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for machine in machines {
        for &transport in transports {
            for &accelerator in accelerators {
                for payload in payloads {
                    let plain = Scenario::plain(machine, payload.clone());
                    let memory = args.memory.clone().unwrap_or(plain.memory);
                    let bare = Scenario { transport, accelerator, cpus: args.smp, memory, ..plain };
                    scenarios.push(bare.clone());
                    scenarios.extend(args.device.iter().map(|device| {
                        let devices = device.split_whitespace().map(str::to_owned).collect();
                        Scenario { devices, ..bare.clone() }
                    }));
                }
            }
        }
    }
    scenarios
}

/// The scenarios that show growth. Each changes one thing of the small probe on one CPU without devices. `with` makes the
/// scenarios with a payload.
fn growth(with: impl Fn(Payload) -> Vec<Scenario>) -> Vec<Scenario> {
    let small = with(Payload::Probe(SMALL));
    let mut scenarios = Vec::new();
    for count in GROWTH_DEVICES {
        let devices: Vec<_> = (0..count).map(device).collect();
        scenarios.extend(small.iter().map(|bare| Scenario { devices: devices.clone(), ..bare.clone() }));
    }
    for cpus in GROWTH_CPUS {
        scenarios.extend(small.iter().map(|bare| Scenario { cpus, ..bare.clone() }));
    }
    for size in GROWTH_INITRD {
        scenarios.extend(with(Payload::Probe(Sizes { initrd: size << 20, ..SMALL })));
    }
    scenarios
}

/// The small device of this number. Eight share a slot, because a bus has too few slots.
fn device(number: u32) -> String {
    let (slot, function) = (1 + number / 8, number % 8);
    let multifunction = if function == 0 { ",multifunction=on" } else { "" };
    format!("virtio-rng-pci,addr={slot:#x}.{function}{multifunction}")
}
