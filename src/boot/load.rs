//! From the host's items to a kernel that is ready to be entered: the one part of `boot` that touches the machine.

use super::{BootParams, Error, ItemSizes, LoadPlan, Payload, ScreenInfo, SetupHeader};
use crate::addr::PhysAddr;
use crate::framebuffer::Framebuffer;
use crate::fw_cfg::{FwCfg, Item, Key};
use crate::hal::Machine;
use crate::memory_map::MemoryMap;

/// How much of the setup code is read: the boot sector and the one after it, which hold the setup header and which every
/// bzImage has (boot.rst, `setup_sects`), so that its size need not be asked for. The rest is for an entry in real mode.
const SETUP_READ: usize = 1024;

/// Reads the kernel's header, finds a place for everything, and has the host put each part there in one transfer.
///
/// `rsdp` is where the ACPI root pointer is, and `framebuffer` what the display shows, if there is one. What the kernel
/// is given is held in `map`. Gives what went where.
///
/// # Errors
/// [`Error::FwCfg`] when the host does not deliver; else what [`Payload`], [`SetupHeader`] and [`LoadPlan`] find.
pub fn load<M: Machine>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    map: &mut MemoryMap,
    rsdp: Option<PhysAddr>,
    framebuffer: Option<&Framebuffer>,
) -> Result<LoadPlan, Error> {
    let kernel = fw_cfg.read_u32(machine, Key::KERNEL_SIZE)?;
    if kernel == 0 {
        return Err(Error::NoKernel);
    }
    let sizes = ItemSizes {
        kernel,
        initrd: fw_cfg.read_u32(machine, Key::INITRD_SIZE)?,
        command_line: fw_cfg.read_u32(machine, Key::CMDLINE_SIZE)?,
    };
    let header = read_header(machine, fw_cfg)?;
    // Only what the host appended to the kernel is relative to the address that the host had in mind.
    let host_address = match header.setup_data() {
        0 => None,
        _ => Some(PhysAddr::new(fw_cfg.read_u32(machine, Key::KERNEL_ADDR)?.into())),
    };
    let payload = Payload::new(sizes, host_address)?;
    let plan = LoadPlan::new(&header, &payload, map)?;

    fw_cfg.load(machine, Item::new(Key::KERNEL_DATA, sizes.kernel), plan.kernel.start())?;
    if let Some(initrd) = plan.initrd {
        fw_cfg.load(machine, Item::new(Key::INITRD_DATA, sizes.initrd), initrd.start())?;
    }
    fw_cfg.load(machine, Item::new(Key::CMDLINE_DATA, sizes.command_line), plan.command_line.start())?;
    end_command_line(machine, &plan)?;
    let mut params = BootParams::new(&header, &plan, map, rsdp)?;
    if let Some(framebuffer) = framebuffer {
        params.set_screen(ScreenInfo::new(framebuffer, header.has_efi_stub()));
    }
    machine.write(plan.boot_params.start(), params.bytes())?;

    log::info!(
        "Linux, boot protocol {}.{:02}, loaded by {}: {} KiB at {}, initrd {} KiB, {}",
        header.version() >> 8,
        header.version() & 0xff,
        fw_cfg.transport(),
        sizes.kernel >> 10,
        plan.kernel.start(),
        sizes.initrd >> 10,
        plan.entry
    );
    Ok(plan)
}

fn read_header<M: Machine>(machine: &mut M, fw_cfg: &FwCfg) -> Result<SetupHeader, Error> {
    let mut bytes = [0; SETUP_READ];
    fw_cfg.read(machine, Item::new(Key::SETUP_DATA, SETUP_READ as u32), &mut bytes)?;
    SetupHeader::parse(&bytes)
}

/// Puts a NUL behind the command line: the host's own may lack it.
fn end_command_line<M: Machine>(machine: &mut M, plan: &LoadPlan) -> Result<(), Error> {
    if let Some(last) = plan.command_line.end().checked_sub(1) {
        machine.write(last, &[0])?;
    }
    Ok(())
}
