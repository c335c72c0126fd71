//! EFI programs: boot services as functions that they call, and how a program is entered and comes back.
//!
//! The services themselves are in the library, as values ([`firstlight::efi::services`]). Here is what the library cannot have: the
//! functions' addresses, a static that they work on, the calls of images' functions, and stacks.
//!
//! A program runs on a stack of its own, and the functions that it calls run on that too. Objects are therefore also at
//! addresses of memory that the map gives to the program. No image passes such an address for anything but its own objects.
//!
//! Left out: interrupts, which stay off. Timers expire when a service is called.
#![no_std]
// No code in the image may panic, as in the library (`src/lib.rs`).
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::get_unwrap,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used
)]

extern crate alloc;

mod block_io;
mod boot;
mod calls;
mod console;
mod device_path;
mod disks;
mod enter;
mod files;
mod graphics;
mod images;
mod load_file;
mod memory_attribute;
mod random;
mod state;
mod tcg2;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use firstlight::addr::{Alignment, PhysAddr};
use firstlight::boot::{EfiBoot, EfiProgram, Error as BootError, First};
use firstlight::efi::device_path::{DevicePath, PathBuilder};
use firstlight::efi::disks::Disks;
use firstlight::efi::exception::{Exception, Origin, Report};
use firstlight::efi::information::install_services;
use firstlight::efi::memory::Memory as ImageMemory;
use firstlight::efi::protocols::file_system::{FileSystem, HostFile, HostVolume, Volume};
use firstlight::efi::protocols::graphics::Graphics;
use firstlight::efi::protocols::load_file::LoadFile2;
use firstlight::efi::protocols::memory_attribute::MEMORY_ATTRIBUTE;
use firstlight::efi::protocols::text_input::TextInput;
use firstlight::efi::protocols::text_output::TextOutput;
use firstlight::efi::services::{DEVICE_PATH, Functions, Services};
use firstlight::efi::variables::Phase;
use firstlight::error::Error;
use firstlight::failure::Failure;
use firstlight::hal::Protect;
use firstlight::hal::paging::Access;
use firstlight::heap;
use firstlight::layout;
use firstlight::logging::Terminal;
use uefi_raw::Status;
use uefi_raw::protocol::console::{SimpleTextInputProtocol, SimpleTextOutputProtocol};
use uefi_raw::protocol::device_path::{
    DevicePathFromTextProtocol, DevicePathToTextProtocol, DevicePathUtilitiesProtocol,
};
use uefi_raw::protocol::file_system::SimpleFileSystemProtocol;
use uefi_raw::protocol::media::LoadFile2Protocol;
use uefi_raw::protocol::rng::RngProtocol;
use uefi_raw::table::boot::EventType;
use zerocopy::IntoBytes;

use disks::Controller;
use firstlight_machine::{PcMachine, PcPorts, VIRTUAL_OFFSET, report};
use state::Running;

/// Starts boot services, and runs the host's program, or what the boot manager finds. Returns only if no program runs any more.
///
/// All memory is mapped and executable, except page zero.
/// The machine is lost if a program has ended boot services, or has no room on the heap.
#[cold]
#[inline(never)]
pub fn run(machine: PcMachine, boot: EfiBoot) -> (Option<PcMachine>, Failure) {
    let stack = boot.stack.end().get();
    let result = start(machine, boot).and_then(|(running, handle)| {
        state::set(running).map_err(no_room)?;
        match handle {
            Some(handle) => calls::run_image(handle, stack).map(|(status, _)| BootError::EfiReturned(status).into()),
            None => Ok(Error::NothingBoots(boot::from_disks())),
        }
    });
    let error = result.unwrap_or_else(|status| BootError::EfiNotStarted(status).into());
    match state::take() {
        Some(Running { mut machine, mut disks, controllers, boot, .. }) => {
            disks.stop(&mut machine);
            // A machine whose controllers have no disks is one without disks.
            let is_without_disks = controllers.iter().all(|controller| controller.found == Some(Ok(0)));
            let is_disk_missing = boot.program().is_none() && is_without_disks;
            let error = if is_disk_missing { BootError::NoKernel.into() } else { error };
            let failure = Failure::new(&mut machine, &boot.fw_cfg, error);
            (Some(machine), failure)
        }
        None => (None, Failure::final_stop(error)),
    }
}

/// Makes the services, and the image of the host's program if there is one.
fn start(mut machine: PcMachine, mut boot: EfiBoot) -> Result<(Running, Option<u64>), Status> {
    enter::enable_vectors();
    let functions = Functions { boot: calls::table() };
    let (placed, tables) =
        install_services(&mut machine, &mut boot.map, &boot.sources, Phase::Boot).map_err(no_room)?;
    let mut memory = ImageMemory::new(core::mem::take(&mut boot.map));
    memory.keep_stack(boot.stack);
    let mut services = Services::new(&mut machine, memory, placed.system_table, tables, &functions)?;

    let output = TextOutput::new();
    let mode = services.pool_of(&mut machine, &console::mode(&output))?;
    let key_event = services.events.create(EventType::empty(), None, None)?;
    let output_at = services.pool_of(&mut machine, console::output(mode).as_bytes())?;
    let input_at = services.pool_of(&mut machine, console::input(key_event.raw()).as_bytes())?;
    let console = services.install(None, SimpleTextOutputProtocol::GUID, output_at)?;
    services.install(Some(console), SimpleTextInputProtocol::GUID, input_at)?;
    services.set_console(&mut machine, console, input_at, output_at)?;

    let program = boot.program();
    let mut install = |on, guid, interface: &[u8]| {
        let interface = services.pool_of(&mut machine, interface)?;
        services.install(on, guid, interface)
    };
    let mut files = FileSystem::new();
    if let Some(program) = program {
        let volume = files.add(Volume::Host(files::volume(program)?))?;
        let path = HostVolume::device_path().map_err(no_room)?;
        let device = install(None, DEVICE_PATH, &path)?;
        install(Some(device), SimpleFileSystemProtocol::GUID, files::volume_interface(volume).as_bytes())?;
    }
    if program.is_some_and(|program| program.initrd.is_some()) {
        let path = LoadFile2::initrd_device_path().map_err(no_room)?;
        let handle = install(None, DEVICE_PATH, &path)?;
        install(Some(handle), LoadFile2Protocol::GUID, load_file::load_file2().as_bytes())?;
    }
    let paths = install(None, DevicePathUtilitiesProtocol::GUID, device_path::utilities().as_bytes())?;
    install(Some(paths), DevicePathToTextProtocol::GUID, device_path::to_text().as_bytes())?;
    install(Some(paths), DevicePathFromTextProtocol::GUID, device_path::from_text().as_bytes())?;
    if boot.sources.seed.is_some() {
        install(None, RngProtocol::GUID, random::interface().as_bytes())?;
    }

    let (guard, stack) = boot.stack.split_at(Alignment::PAGE.bytes());
    let own = [(guard, Access::Constants), (stack, Access::Data)];
    let protection = program.map_or(&[][..], |program| &program.protection);
    services.protect_image(&mut machine, protection.iter().copied().chain(own))?;
    GUARD.store(guard.start().get(), Relaxed);
    // Without NX, execution cannot be forbidden.
    if machine.access(stack) == Ok(Some(Access::Data)) {
        let interface = services.pool_of(&mut machine, memory_attribute::interface().as_bytes())?;
        services.install(None, MEMORY_ATTRIBUTE, interface)?;
    }

    let graphics = boot.framebuffer.and_then(Graphics::new);
    if let Some(graphics) = &graphics {
        graphics::install(&mut machine, &mut services, graphics)?;
    }

    let path = program.map(program_path).transpose()?.unwrap_or_default();
    let tcg2 = tcg2::open(&mut machine, &mut services, &boot, &path)?;
    let image = match program {
        Some(program) => {
            let options = (program.options.len() as u32, program.options.start().get());
            let path = DevicePath::parse(&path);
            Some(services.add_image(&mut machine, program.placed, path, options)?.raw())
        }
        None => None,
    };
    let mut controllers = Vec::new();
    if let First::Disks(candidates) = &boot.first {
        for &candidate in candidates {
            heap::push(&mut controllers, Controller::new(candidate)).map_err(no_room)?;
        }
    }
    // Nobody has asked to be told of the changes so far.
    services.signal_map_change();
    // SAFETY: this is the firmware, and nothing else drives the machine's ports.
    let terminal = Terminal::new(unsafe { PcPorts::new() });
    let output = (output, mode);
    let input = TextInput::new();
    let running = Running {
        machine,
        services,
        boot,
        output,
        input,
        key_event,
        files,
        disks: Disks::new(),
        controllers,
        tcg2,
        graphics,
        terminal,
        rate: None,
        received: 0,
    };
    Ok((running, image))
}

/// The device path of the host's program.
fn program_path(program: &EfiProgram) -> Result<Vec<u8>, Status> {
    let volume = HostVolume::device_path().map_err(no_room)?;
    let name = if program.shim.is_some() { "shim" } else { "kernel" };
    let file = HostVolume::file_path(&HostFile::new(name, program.file)).map_err(no_room)?;
    let nodes = |path| DevicePath::parse(path).map(DevicePath::nodes_bytes).unwrap_or_default();
    let both = PathBuilder::new().nodes(nodes(&volume)).and_then(|path| path.nodes(nodes(&file)));
    both.and_then(PathBuilder::end).map_err(no_room)
}

/// The start of the page below the stack of images, while there is one.
static GUARD: AtomicU64 = AtomicU64::new(0);
/// The page fault's vector.
const PAGE_FAULT: u64 = 14;
/// The firmware's code begins here.
const OWN_CODE: u64 = VIRTUAL_OFFSET.wrapping_sub(layout::FIRMWARE_ROM.len());

/// Reports an exception that an image has caused. `false` if it is the firmware's own.
pub fn report_exception(exception: Exception) -> bool {
    let guard = GUARD.load(Relaxed);
    let is_overflow = guard != 0 && exception.cr2.wrapping_sub(guard) < Alignment::PAGE.bytes();
    if is_overflow && exception.vector == PAGE_FAULT {
        report(&Report { exception, origin: Origin::Stack });
        return true;
    }
    if exception.rip >= OWN_CODE {
        return false;
    }
    // While an image executes, nothing has borrowed the services.
    let reported = state::with(|Running { machine, services, .. }| {
        let rip = PhysAddr::new(exception.rip);
        let found = services.image_at(rip);
        let handle = found.map(|(handle, _)| handle).or_else(|| services.running())?;
        let path = services.image_path(machine, handle);
        let path = path.as_deref().and_then(DevicePath::parse);
        let origin = match found {
            Some((_, start)) => Origin::Image { path, offset: rip.get().wrapping_sub(start.get()) },
            None => Origin::Outside { path },
        };
        report(&Report { exception, origin });
        Some(())
    });
    reported.flatten().is_some()
}

fn no_room<E>(_: E) -> Status {
    Status::OUT_OF_RESOURCES
}
