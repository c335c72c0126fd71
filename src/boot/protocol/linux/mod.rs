//! Linux kernels: bzImages and zImages, by the Linux/x86 boot protocol.
//!
//! [`SetupHeader`] is the header in the kernel file, [`plan()`] decides where everything goes, and [`BootParams`] is
//! the page that the kernel reads. The protocol is that of Linux `Documentation/arch/x86/boot.rst`, "boot.rst" below.
//!
//! Left out: kernels before protocol 2.00, and kernels that can only start in real mode, which need a BIOS.

mod boot_params;
mod e820_ext;
mod low;
mod plan;
mod planner;
mod raw_header;
mod run_range;
mod screen_info;
mod setup_data;
mod setup_header;

use alloc::vec::Vec;

pub use self::boot_params::BootParams;
pub use self::plan::LoadPlan;
pub use self::planner::plan;
pub use self::screen_info::ScreenInfo;
pub use self::setup_data::Appended;
pub use self::setup_header::{Relocation, SetupHeader};
use crate::addr::PhysAddr;
use crate::boot::error::Error;
use crate::boot::extras::Extras;
use crate::boot::kernel_file::KernelFile;
use crate::boot::loaded::{Images, Loaded};
use crate::boot::system_info::SystemInfo;
use crate::efi::information::Information;
use crate::fw_cfg::FwCfg;
use crate::hal::{HostAccess, paging};
use crate::state::Boot;

/// A bzImage or zImage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxKernel {
    /// The file.
    pub(super) file: KernelFile,
    header: SetupHeader,
    /// The kernel's address for which the host has computed the pointers in the header, if there are any.
    host_address: Option<PhysAddr>,
}

impl LinuxKernel {
    /// The kernel in `file`, which begins with the bytes `first`, [`SetupHeader::BYTES`] of it or as many as there are.
    ///
    /// # Errors
    /// As for [`SetupHeader::parse`]; [`Error::FileTruncated`].
    pub fn of_file<M: HostAccess>(
        machine: &mut M,
        fw_cfg: &FwCfg,
        file: KernelFile,
        first: &[u8],
    ) -> Result<Self, Error> {
        let header = SetupHeader::parse(first)?;
        if file.code(header.setup_len()).is_empty() {
            return Err(Error::FileTruncated { seen: file.code(0).len(), needed: header.file_len().max(1) });
        }
        let host_address = if header.setup_data() == 0 { None } else { file.host_address(machine, fw_cfg) };
        Ok(Self { file, header, host_address })
    }

    /// Whether the kernel can be entered as an EFI program for x86-64 too.
    #[must_use]
    pub fn is_efi_program(&self) -> bool {
        self.header.has_efi_stub() && self.header.is_64_bit()
    }
}

/// Loads a kernel as [`Kernel::load`](super::Kernel::load) does.
pub fn load<M: HostAccess>(
    boot: &mut Boot<'_, M>,
    kernel: &LinuxKernel,
    extras: &Extras<'_>,
    system: &SystemInfo<'_>,
) -> Result<Loaded, Error> {
    let Boot { machine, fw_cfg, map, .. } = boot;
    let LinuxKernel { file, header, host_address } = kernel;
    let code = file.code(header.setup_len());
    let needs = extras.needs(code.len());
    let plan = plan(header, &needs, *host_address, map)?;

    let mut room = plan.page_tables.unwrap_or_default();
    for part in plan.above_4_gib() {
        let (tables, rest) = room.split_at(paging::room_for(part));
        machine.map(part, tables)?;
        room = rest;
    }
    code.load(*machine, fw_cfg, plan.kernel.start())?;
    extras.load(*machine, fw_cfg, plan.initrd, plan.command_line)?;

    // After everything else is allocated, because this writes the map.
    let efi = system.efi.and_then(|sources| {
        Information::install(*machine, map, sources)
            .inspect_err(|error| crate::warn!("the kernel gets no EFI tables: {error}"))
            .ok()
    });
    let mut params = BootParams::new(header, &plan, map, system.rsdp)?;
    if let Some(efi) = &efi {
        params.set_efi(efi);
    }
    if let Some(appended) = plan.appended {
        params.set_setup_data(appended.copy(*machine, header, plan.kernel)?);
    }
    if map.region_count() > boot_params::E820_ENTRIES {
        e820_ext::add(*machine, map, header, &mut params)?;
    }
    if let Some(framebuffer) = system.framebuffer {
        params.set_screen(ScreenInfo::new(framebuffer, header.has_efi_stub()));
    }
    machine.write(plan.boot_params.start(), params.bytes())?;

    crate::info!(
        "Linux, boot protocol {}.{:02}, loaded by {}: {} KiB at {}, initrd {} KiB, {}",
        header.version() >> 8,
        header.version() & 0xff,
        fw_cfg.transport(*machine),
        needs.kernel >> 10,
        plan.kernel.start(),
        needs.initrd >> 10,
        plan.entry
    );
    let images = Images {
        setup: Some(file.first(plan.setup_len)),
        kernel: plan.kernel,
        initrd: plan.initrd,
        modules: Vec::new(),
        command_line: plan.command_line,
    };
    Ok(Loaded { images, handover: plan.handover() })
}

#[cfg(test)]
mod tests;
