//! From the host's items to a kernel that is ready to be entered: the part of `boot` that writes memory.

use alloc::vec::Vec;

use super::boot_params::E820_ENTRIES;
use super::pvh::{PvhPlan, StartInfo};
use super::setup_data::add_e820;
use super::source::{CommandLine, Extras};
use super::{
    BootParams, Entry, Error, Handover, HostInfo, ItemSizes, Kernel, LoadPlan, Module, MultibootInfo, Part, Payload,
    PlacedKernel, ScreenInfo, SetupHeader, Source, placement,
};
use crate::addr::{PhysAddr, PhysRange};
use crate::framebuffer::Framebuffer;
use crate::fw_cfg::{FwCfg, Item, Key};
use crate::hal::{Machine, paging};
use crate::state::Boot;

/// What is in memory, and how it is entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The kernel file's real-mode part, which is not loaded, if the file has one.
    pub setup: Option<Part<'static>>,
    /// The bytes of a bzImage's protected-mode part, or of an ELF file's segments with what is between them. Of a kernel for
    /// Multiboot, all that the host gives before the list of modules.
    pub kernel: PhysRange,
    /// The bytes of the initrd, if there is one.
    pub initrd: Option<PhysRange>,
    /// The modules of a kernel for Multiboot, in its list's order.
    pub modules: Vec<Module>,
    /// The bytes of the command line as the host counts them, and one more for a NUL in any case.
    pub command_line: PhysRange,
    /// How the kernel is entered.
    pub handover: Handover,
}

/// Finds a place for everything, has the host put each part there in one transfer, and tells the kernel of it. What the
/// host has put into memory is copied from there; an initrd stays where it is, if the kernel takes it there.
///
/// `rsdp` is where the ACPI root pointer is, and `framebuffer` what the display shows, if there is one. What the kernel
/// is given is held in `map`. Gives what went where.
///
/// # Errors
/// [`Error::FwCfg`] when the host does not deliver; else what [`Payload`], [`LoadPlan`], [`PvhPlan`] and [`HostInfo`] find.
pub fn load<M: Machine>(
    boot: &mut Boot<'_, M>,
    kernel: &Kernel,
    rsdp: Option<PhysAddr>,
    framebuffer: Option<&Framebuffer>,
) -> Result<Loaded, Error> {
    match kernel {
        Kernel::BzImage { source, size, header } => {
            let extras = find_extras(boot, (*source, *size));
            load_bzimage(boot, (*source, header), extras, rsdp, framebuffer)
        }
        Kernel::Pvh(kernel) => {
            // Nothing of the kernel is to be transferred.
            let extras = find_extras(boot, (Source::Items, 0));
            load_for_pvh(boot, *kernel, extras, rsdp)
        }
        Kernel::Multiboot(kernel) => load_for_multiboot(boot, *kernel, framebuffer),
    }
}

/// What goes with a kernel of which `kernel` bytes are to be transferred, and the sizes of all.
fn find_extras<'a, M: Machine>(boot: &mut Boot<'a, M>, (source, kernel): (Source, u32)) -> (ItemSizes, Extras<'a>) {
    let extras = Extras::of_host(boot.machine, boot.fw_cfg, source, boot.start);
    // What is longer has no place below 4 GiB, and what has none is refused.
    let [initrd, command_line] =
        [extras.initrd.len(), extras.command_line.len()].map(|len| u32::try_from(len).unwrap_or(u32::MAX));
    let sizes = ItemSizes { kernel, initrd, command_line };
    (sizes, extras)
}

fn load_bzimage<M: Machine>(
    boot: &mut Boot<'_, M>,
    (source, header): (Source, &SetupHeader),
    (sizes, extras): (ItemSizes, Extras<'_>),
    rsdp: Option<PhysAddr>,
    framebuffer: Option<&Framebuffer>,
) -> Result<Loaded, Error> {
    let (machine, fw_cfg, map) = (&mut *boot.machine, boot.fw_cfg, &mut *boot.map);
    // Only what the host appended to the kernel is relative to the address that the host had in mind. To a whole file nothing
    // is appended.
    let host_address = match (header.setup_data(), source) {
        (0, _) | (_, Source::File(_) | Source::Memory(_)) => None,
        (_, Source::Items) => Some(PhysAddr::new(fw_cfg.read_u32(machine, Key::KERNEL_ADDR).into())),
    };
    let payload = Payload::new(sizes, host_address)?.with_initrd_at(extras.initrd.place());
    let plan = LoadPlan::new(header, &payload, map)?;

    let mut room = plan.page_tables.unwrap_or_default();
    for part in plan.above_4_gib() {
        let (tables, rest) = room.split_at(paging::room_for(part));
        machine.map(part, tables)?;
        room = rest;
    }
    source.load_kernel(machine, fw_cfg, plan.setup_len, sizes.kernel, plan.kernel.start())?;
    load_extras(machine, fw_cfg, extras, plan.initrd, plan.command_line)?;
    let mut params = BootParams::new(header, &plan, map, rsdp)?;
    if let Some(appended) = plan.appended {
        params.set_setup_data(appended.copy(machine, header, plan.kernel)?);
    }
    if map.region_count() > E820_ENTRIES {
        add_e820(machine, map, header, &mut params)?;
    }
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
    Ok(plan.loaded(source))
}

/// Loads what goes with a kernel that is in memory.
#[cold]
fn load_for_pvh<M: Machine>(
    boot: &mut Boot<'_, M>,
    kernel: PlacedKernel,
    (sizes, extras): (ItemSizes, Extras<'_>),
    rsdp: Option<PhysAddr>,
) -> Result<Loaded, Error> {
    let (machine, fw_cfg, map) = (&mut *boot.machine, boot.fw_cfg, &mut *boot.map);
    let plan = PvhPlan::new(kernel, sizes, extras.initrd.place(), map)?;
    load_extras(machine, fw_cfg, extras, plan.initrd, plan.command_line)?;
    let info = StartInfo::new(&plan, map, rsdp)?;
    machine.write(plan.start_info.start(), info.bytes())?;
    let loaded = plan.loaded();
    log::info!(
        "ELF kernel, loaded by the host: {} KiB at {}, initrd {} KiB, {}",
        kernel.image.len() >> 10,
        kernel.image.start(),
        sizes.initrd >> 10,
        loaded.handover.entry
    );
    Ok(loaded)
}

/// Loads a kernel for Multiboot with its modules and all that the host tells of them, in one piece.
#[cold]
fn load_for_multiboot<M: Machine>(
    boot: &mut Boot<'_, M>,
    kernel: PlacedKernel,
    framebuffer: Option<&Framebuffer>,
) -> Result<Loaded, Error> {
    let (machine, fw_cfg, map) = (&mut *boot.machine, boot.fw_cfg, &mut *boot.map);
    let image = kernel.image;
    let item = Item::new(Key::INITRD_DATA, fw_cfg.read_u32(machine, Key::INITRD_SIZE));
    let mut bytes = [0; HostInfo::LEN];
    fw_cfg.read(machine, item, &mut bytes);
    let told = HostInfo::parse(&bytes, item.len())?;
    let code = told.kernel(image);
    // The rest of the image may hold the entry as well, but not all of that is measured.
    // Both are below 4 GiB.
    PlacedKernel::new(code.start(), code.len() as u32, kernel.entry)?;
    // A kernel is below 4 GiB.
    fw_cfg.load(machine, Item::new(Key::KERNEL_DATA, image.len() as u32), image.start())?;
    let command_line = told.command_line(machine, image)?;
    let modules = told.modules(machine, image)?;

    let place = placement::allocate_low(map, size_of::<MultibootInfo>() as u64)?;
    let info = MultibootInfo::new(&told, place, map, framebuffer)?;
    machine.write(place.start(), info.bytes())?;
    let loaded = Loaded {
        setup: None,
        kernel: code,
        initrd: None,
        modules,
        command_line,
        handover: Handover::new(Entry::Multiboot(kernel.entry), place.start()),
    };
    log::info!(
        "kernel for Multiboot, loaded by {}: {} KiB at {} with {} modules, {}",
        fw_cfg.transport(),
        image.len() >> 10,
        image.start(),
        loaded.modules.len(),
        loaded.handover.entry
    );
    Ok(loaded)
}

fn load_extras<M: Machine>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    extras: Extras<'_>,
    initrd: Option<PhysRange>,
    command_line: PhysRange,
) -> Result<(), Error> {
    if let Some(initrd) = initrd {
        extras.initrd.load(machine, fw_cfg, initrd.start())?;
    }
    let text = extras.command_line.text.load(machine, fw_cfg, command_line.start())?;
    // The host's own may lack the NUL at the end. The plan has room for it.
    machine.write(text.end(), &[0])?;
    cut_line_end(machine, extras.command_line, text)
}

/// What an editor leaves at the end of a file is no part of the command line.
fn cut_line_end<M: Machine>(machine: &mut M, command_line: CommandLine<'_>, text: PhysRange) -> Result<(), Error> {
    let mut last = [0];
    if !command_line.has_nul
        && let Some(at) = text.end().checked_sub(1).filter(|_| !text.is_empty())
    {
        machine.read(at, &mut last)?;
        if last == *b"\n" {
            machine.write(at, &[0])?;
        }
    }
    Ok(())
}
