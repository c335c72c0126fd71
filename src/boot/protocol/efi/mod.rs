//! EFI programs: kernels with an EFI stub, unified kernel images, and any other program for UEFI on x86-64.
//!
//! The program's headers are parsed when the file is found. When it is loaded, each part is transferred to its final place in
//! memory, without a copy. The firmware then gives it boot services ([`EfiBoot`] has what these start with), and calls it. It
//! gets the command line as its load options, and a kernel's stub asks for the initrd by a protocol.
//!
//! If the host offers a shim (QEMU's `-shim`), that is the program, and loads the kernel file from the volume that it was itself
//! loaded from.
//!
//! Left out: a program that says it runs at one address only, if that is not free.

mod on_disk;
mod options;
mod place;
mod program;

use alloc::vec::Vec;

use uefi_raw::Status;
use uefi_raw::table::boot::MemoryType;

pub use self::on_disk::OnDisk;
pub use self::program::{EfiBoot, EfiProgram, EfiStart, First};
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::boot::blob::Blob;
use crate::boot::error::Error;
use crate::boot::extras::Extras;
use crate::boot::handover::{Entry, Handover};
use crate::boot::kernel_file::KernelFile;
use crate::boot::loaded::{Images, Loaded};
use crate::boot::system_info::SystemInfo;
use crate::efi::information::Sources;
use crate::efi::pe::{self, Image};
use crate::efi::services::{Placed, protection};
use crate::fw_cfg::FwCfg;
use crate::hal::{HostAccess, Memory, paging};
use crate::heap;
use crate::memory_map::{MemoryMap, Placement};
use crate::state::Boot;
use crate::tpm::Presence;

/// The stack of programs (UEFI 2.3.4: 128 KiB or more), and a page below it.
const STACK_LEN: u64 = (128 << 10) + Alignment::PAGE.bytes();

/// The file with a shim (QEMU 10 `hw/i386/x86-common.c`, `x86_load_linux`).
const SHIM: &str = "etc/boot/shim";

/// An EFI program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EfiKernel {
    /// The kernel file, in one or two parts.
    file: [Blob<'static>; 2],
    /// The file with the shim that loads the kernel, if there is one.
    shim: Option<Blob<'static>>,
    /// As many of the first bytes of the program as [`Image::parse`] needs.
    headers: Vec<u8>,
}

impl EfiKernel {
    /// The program in `file`.
    ///
    /// # Errors
    /// [`Error::Efi`]; [`Error::FwCfg`].
    #[cold]
    pub fn of_file<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, file: KernelFile) -> Result<Self, Error> {
        let file = file.parts(machine, fw_cfg);
        let mut kernel = Self { file, shim: None, headers: headers(machine, fw_cfg, &file)? };
        kernel.image()?;
        if let Some(shim) = fw_cfg.find(SHIM).filter(|shim| !shim.is_empty()).map(Blob::from) {
            kernel = Self { headers: headers(machine, fw_cfg, &[shim, Blob::default()])?, shim: Some(shim), ..kernel };
            kernel.image().map_err(|error| match error {
                Error::Efi(error) => Error::Shim(error),
                error => error,
            })?;
        }
        Ok(kernel)
    }

    /// The program's file: the shim's, or else the kernel's.
    fn program(&self) -> [Blob<'static>; 2] {
        self.shim.map_or(self.file, |shim| [shim, Blob::default()])
    }

    /// What the load options begin with: a shim takes the first word as the name of the file that it loads, and passes on the rest.
    const fn first_option(&self) -> &'static str {
        if self.shim.is_some() { "kernel " } else { "" }
    }

    fn image(&self) -> Result<Image, Error> {
        Ok(Image::parse(&self.headers, place::len(&self.program()))?)
    }

    /// The range of the kernel file, if that is in memory.
    #[must_use]
    pub const fn place(&self) -> Option<PhysRange> {
        let [first, _] = &self.file;
        first.place()
    }
}

/// The first bytes of a file, with all headers of the program in it. Those of a kernel are in its setup code, the first part.
fn headers<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, file: &[Blob<'static>; 2]) -> Result<Vec<u8>, Error> {
    let [first, second] = place::piece(file, 0, pe::MOST_HEADERS as u32);
    let mut headers = first.read(machine, fw_cfg)?;
    if !second.is_empty() && Image::parse(&headers, place::len(file)).is_err() {
        let bytes = second.read(machine, fw_cfg)?;
        heap::extend(&mut headers, &bytes).map_err(|_| Error::HeapFull)?;
    }
    Ok(headers)
}

/// Loads a program as [`Kernel::load`](super::Kernel::load) does.
///
/// # Errors
/// As for [`Kernel::load`](super::Kernel::load).
#[cold]
pub fn load<M: HostAccess>(
    boot: &mut Boot<'_, M>,
    kernel: &EfiKernel,
    extras: &Extras<'_>,
    system: &SystemInfo<'_>,
) -> Result<Loaded, Error> {
    let Boot { machine, fw_cfg, map, .. } = boot;
    let sources = system.efi.ok_or(Error::EfiNotStarted(Status::UNSUPPORTED))?;
    let image = kernel.image()?;
    map_all(*machine, map)?;
    let place = allocate_image(map, &image)?;
    place::load(*machine, fw_cfg, &kernel.program(), &image, place)?;
    pe::relocate(*machine, &image, place.start())?;
    let options = options::load(*machine, fw_cfg, map, kernel.first_option(), &extras.command_line)?;
    let stack = allocate_stack(map)?;
    let initrd = Some(kept(extras.initrd)).filter(|initrd| !initrd.is_empty());
    let entry = place.start().checked_add(image.entry().into()).unwrap_or(place.start());
    crate::info!(
        "EFI program, loaded by {}: {} KiB at {}, initrd {} KiB",
        fw_cfg.transport(*machine),
        place.len() >> 10,
        place.start(),
        initrd.map_or(0, |initrd| initrd.len()) >> 10,
    );
    let mut pages = Vec::new();
    for part in protection(&image, place) {
        heap::push(&mut pages, part).map_err(|_| Error::HeapFull)?;
    }
    let program = EfiProgram {
        placed: Placed { place, len: image.len().into(), entry, subsystem: image.subsystem() },
        protection: pages,
        options,
        file: kernel.file,
        shim: kernel.shim,
        initrd,
        command_line: kept(extras.command_line.text),
    };
    let images = Images { setup: None, kernel: place, initrd: None, modules: Vec::new(), command_line: options };
    Ok(Loaded { images, handover: hand_over(First::Program(program), stack, sources, system)? })
}

/// The start of boot services for `first`.
fn hand_over(first: First, stack: PhysRange, sources: &Sources, system: &SystemInfo<'_>) -> Result<Handover, Error> {
    let boot = EfiBoot {
        first,
        stack,
        tpm: Presence::Absent,
        framebuffer: system.framebuffer.copied(),
        sources: *sources,
        map: MemoryMap::default(),
        fw_cfg: FwCfg::absent(),
    };
    Ok(Handover { efi: EfiStart::new(boot)?, ..Handover::new(Entry::Efi, PhysAddr::new(0)) })
}

/// Reserves the stack of programs.
fn allocate_stack(map: &mut MemoryMap) -> Result<PhysRange, Error> {
    let stack =
        map.allocate(STACK_LEN, Alignment::PAGE, PhysRange::LOW_4_GIB, Placement::Top, MemoryType::BOOT_SERVICES_DATA);
    stack.ok_or(Error::NoEfiMemory { needed: STACK_LEN })
}

/// Bytes that are still there when the program runs. Those in the firmware's own memory are not.
const fn kept(blob: Blob<'_>) -> Blob<'static> {
    match blob {
        Blob::Item { item, offset } => Blob::Item { item, offset },
        Blob::Memory(range) => Blob::Memory(range),
        Blob::Bytes(_) => Blob::Bytes(&[]),
    }
}

/// Reserves the memory of an image.
fn allocate_image(map: &mut MemoryMap, image: &Image) -> Result<PhysRange, Error> {
    let needed = u64::from(image.len());
    let none = Error::NoEfiMemory { needed };
    let pages = PhysAddr::new(needed).align_up(Alignment::PAGE).ok_or(none)?.get();
    let kind = MemoryType::LOADER_CODE;
    match image.base() {
        (base, true) => {
            let base_page = Some(PhysAddr::new(base)).filter(|base| base.is_aligned(Alignment::PAGE));
            let place = base_page.and_then(|start| PhysRange::new(start, pages)).filter(|&place| map.is_free(place));
            let place = place.ok_or(pe::Error::NotAtBase(base))?;
            map.reserve(place, kind)?;
            Ok(place)
        }
        _ => map.allocate(pages, Alignment::PAGE, PhysRange::LOW_4_GIB, Placement::Top, kind).ok_or(none),
    }
}

/// Maps all memory above 4 GiB: programs get some of it, and a kernel's stub unpacks the kernel to any of it. What cannot be mapped is
/// not for them.
fn map_all(memory: &mut impl Memory, map: &mut MemoryMap) -> Result<(), Error> {
    let above = PhysRange::from_bounds(PhysRange::LOW_4_GIB.end(), PhysAddr::new(u64::MAX)).unwrap_or_default();
    for space in paging::SPACES {
        let Some(ram) = ram_within(map, space) else { continue };
        let needed = paging::room_for(ram);
        let kind = MemoryType::BOOT_SERVICES_DATA;
        let room = map.allocate(needed, Alignment::PAGE, PhysRange::LOW_4_GIB, Placement::Top, kind);
        memory.map(ram, room.ok_or(Error::NoEfiMemory { needed })?)?;
    }
    let mut at = above.start();
    for space in paging::SPACES.into_iter().map(Some).chain([None]) {
        let end = space.map_or(above.end(), PhysRange::start);
        let unmapped = PhysRange::from_bounds(at, end).unwrap_or_default();
        if let Some(ram) = ram_within(map, unmapped) {
            map.reserve(ram, MemoryType::BOOT_SERVICES_DATA)?;
        }
        at = space.map_or(end, PhysRange::end);
    }
    Ok(())
}

/// The memory in `space` from the first to the last byte of free RAM.
fn ram_within(map: &MemoryMap, space: PhysRange) -> Option<PhysRange> {
    let mut parts = map
        .regions()
        .filter(|region| region.kind == MemoryType::CONVENTIONAL)
        .filter_map(|region| region.range.intersection(space));
    let first = parts.next()?;
    let last = parts.next_back().unwrap_or(first);
    PhysRange::from_bounds(first.start(), last.end())
}
