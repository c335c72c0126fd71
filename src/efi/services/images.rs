//! Image services (UEFI 7.4), but for entering an image.
//!
//! An image has a place in memory, a handle with `EFI_LOADED_IMAGE_PROTOCOL` and, if it was loaded by a path, with its device path.
//! The interface is in memory that the image can write, and is read from there when the image ends.

use alloc::vec::Vec;

use uefi_raw::table::boot::{MemoryType, Tpl};
use uefi_raw::{Guid, Status, guid};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::pointers::{Pointers, bytes};
use super::protocols::{DEVICE_PATH, handle};
use super::{Services, no_room};
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::efi::device_path::DevicePath;
use crate::efi::handles::Handle;
use crate::efi::memory::{PAGE_SHIFT, Wanted};
use crate::efi::pe::{self, Subsystem};
use crate::hal::paging::Access;
use crate::hal::{Memory, MemoryError, Protect};
use crate::heap;

/// The protocol with what an image is told of itself.
pub const LOADED_IMAGE: Guid = guid!("5b1b31a1-9562-11d2-8e3f-00a0c969723b");
/// The protocol with the device path that an image was loaded by.
pub const LOADED_IMAGE_DEVICE_PATH: Guid = guid!("bc62157e-3e33-4fec-9920-2d3b36d750df");

/// The revision of [`LoadedImage`] (UEFI 9.1.1).
const REVISION: u32 = 0x1000;

/// `EFI_LOADED_IMAGE_PROTOCOL` (UEFI 9.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct LoadedImage {
    /// 0x1000.
    pub revision: u32,
    reserved_32: u32,
    /// The image that loaded it.
    pub parent: u64,
    /// The system table.
    pub system_table: u64,
    /// The device that it was loaded from, or null.
    pub device: u64,
    /// The rest of the path after the device's, or null.
    pub file_path: u64,
    reserved: u64,
    /// The length of the options in bytes.
    pub options_len: u32,
    reserved_options: u32,
    /// The options.
    pub options: u64,
    /// The first byte of the image.
    pub base: u64,
    /// Its length in bytes.
    pub len: u64,
    /// The type of its memory.
    pub code: u32,
    /// The type of the memory that it allocates.
    pub data: u32,
    /// The function that unloads it, or null.
    pub unload: u64,
}

const _: () = assert!(size_of::<LoadedImage>() == size_of::<uefi_raw::protocol::loaded_image::LoadedImageProtocol>());

/// An image that has its place in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its pages.
    pub place: PhysRange,
    /// Its length in bytes, without the rest of the last page.
    pub len: u64,
    /// The address of its entry point.
    pub entry: PhysAddr,
    /// What it is for.
    pub subsystem: Subsystem,
}

/// An image that an image is, and where it is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its handle.
    pub handle: Handle,
    /// Where it is.
    pub placed: Placed,
    /// The address of its `LoadedImage`.
    pub interface: u64,
    /// The address of the copy of its device path, or zero.
    path: u64,
    /// Whether it was started.
    is_started: bool,
    /// Whether the firmware placed it, which then does not free its pages.
    is_first: bool,
}

/// All images that are loaded, and which run.
#[derive(Debug, Default)]
pub struct Images {
    list: Vec<Image>,
    /// Those that run: each started the next.
    running: Vec<Running>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    handle: Handle,
    /// The level at which it was started, and at which its caller continues.
    level: Tpl,
    /// What `Exit` passed: the length and the address.
    exit_data: (u64, u64),
}

/// Records an image that is to be loaded: its file in memory, its place, the bytes of its device path.
pub type Record<'r, M> = &'r mut dyn FnMut(&mut M, PhysRange, Placed, &[u8]) -> Result<(), Status>;
/// As [`Record`], for any file.
pub type RecordFile<'r, M> = &'r mut dyn FnMut(&mut M, Placed, &[u8]) -> Result<(), Status>;

/// The file of an image.
pub trait ImageFile<M> {
    /// The length in bytes.
    fn file_len(&self) -> u64;

    /// Reads its bytes from `at` on.
    ///
    /// # Errors
    /// The status for an image that cannot be read.
    fn read(&mut self, machine: &mut M, at: u64, into: &mut [u8]) -> Result<(), Status>;

    /// Puts its bytes from `at` on to all of `into`.
    ///
    /// # Errors
    /// As for [`Self::read`].
    fn load(&mut self, machine: &mut M, at: u64, into: PhysRange) -> Result<(), Status>;

    /// Takes a range of memory that a device may write at any time, after one of the above has failed.
    fn take_lost(&mut self) -> Option<PhysRange> {
        None
    }
}

/// A file in memory.
impl<M: Memory> ImageFile<M> for PhysRange {
    fn file_len(&self) -> u64 {
        self.len()
    }

    fn read(&mut self, machine: &mut M, at: u64, into: &mut [u8]) -> Result<(), Status> {
        let (_, rest) = self.split_at(at);
        machine.read(rest.start(), into).map_err(refused)
    }

    fn load(&mut self, machine: &mut M, at: u64, into: PhysRange) -> Result<(), Status> {
        let (_, rest) = self.split_at(at);
        let (from, _) = rest.split_at(into.len());
        machine.copy(from, into.start()).map_err(refused)
    }
}

fn refused(_: MemoryError) -> Status {
    Status::INVALID_PARAMETER
}

/// An image that is to be entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// Its handle, the first argument of its entry point.
    pub handle: Handle,
    /// The entry point.
    pub entry: PhysAddr,
    /// The second argument.
    pub system_table: PhysAddr,
}

/// How an image has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The length and the address of what it passed to `Exit`.
    pub exit_data: (u64, u64),
}

/// What `UnloadImage` has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unloading {
    /// Nothing: the image is gone.
    Done,
    /// Call the image's function at this address with the handle, and then [`Services::forget_image`] if it returned success.
    Call(u64, Handle),
}

/// The status for an image that cannot be loaded.
pub fn status_of(error: &pe::Error) -> Status {
    match error {
        pe::Error::NotPe | pe::Error::Machine(_) | pe::Error::Magic(_) | pe::Error::Subsystem(_) => Status::UNSUPPORTED,
        _ => Status::LOAD_ERROR,
    }
}

/// The types of memory of an image and of what it allocates (UEFI 7.2, "Memory Type Usage before ExitBootServices").
const fn kinds(subsystem: Subsystem) -> (MemoryType, MemoryType) {
    match subsystem {
        Subsystem::Application => (MemoryType::LOADER_CODE, MemoryType::LOADER_DATA),
        Subsystem::BootDriver => (MemoryType::BOOT_SERVICES_CODE, MemoryType::BOOT_SERVICES_DATA),
        Subsystem::RuntimeDriver => (MemoryType::RUNTIME_SERVICES_CODE, MemoryType::RUNTIME_SERVICES_DATA),
    }
}

/// Why an image could not be put into its place.
impl From<MemoryError> for Unplaced {
    fn from(_: MemoryError) -> Self {
        Self(Status::INVALID_PARAMETER)
    }
}

/// A status, for `?` on the errors of memory and of images.
struct Unplaced(Status);

impl From<pe::Error> for Unplaced {
    fn from(error: pe::Error) -> Self {
        Self(status_of(&error))
    }
}

impl From<Status> for Unplaced {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl Services {
    /// The image with this handle.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`.
    fn image(&self, number: u64) -> Result<Image, Status> {
        let handle = handle(number)?;
        self.images.list.iter().find(|image| image.handle == handle).copied().ok_or(Status::INVALID_PARAMETER)
    }

    /// The image at an address, and its start.
    #[must_use]
    pub fn image_at(&self, address: PhysAddr) -> Option<(Handle, PhysAddr)> {
        let image = self.images.list.iter().find(|image| image.placed.place.contains_addr(address))?;
        Some((image.handle, image.placed.place.start()))
    }

    /// Whether an image is there that was started.
    #[must_use]
    pub fn has_started_images(&self) -> bool {
        self.images.list.iter().any(|image| image.is_started)
    }

    /// The device path that an image was loaded by, if there is one.
    pub fn image_path(&self, machine: &mut impl Memory, handle: Handle) -> Option<Vec<u8>> {
        let image = self.image(handle.raw()).ok()?;
        machine.path(image.path).ok()
    }

    /// The image that runs, if there is one: of several, the one that was started last.
    #[must_use]
    pub fn running(&self) -> Option<Handle> {
        self.images.running.last().map(|running| running.handle)
    }

    /// How many images run within each other.
    #[must_use]
    pub const fn running_count(&self) -> usize {
        self.images.running.len()
    }

    /// Adds an image of the host's that is in its place, with `options` as its load options: the length and the address.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`.
    pub fn add_image(
        &mut self,
        machine: &mut impl Memory,
        placed: Placed,
        path: Option<DevicePath<'_>>,
        options: (u32, u64),
    ) -> Result<Handle, Status> {
        self.add(machine, placed, None, path, options, true)
    }

    /// Adds an image that is in its place. If `is_first`, its pages are not the services' to free.
    fn add(
        &mut self,
        machine: &mut impl Memory,
        placed: Placed,
        parent: Option<Handle>,
        path: Option<DevicePath<'_>>,
        options: (u32, u64),
        is_first: bool,
    ) -> Result<Handle, Status> {
        let (code, data) = kinds(placed.subsystem);
        let mut image = LoadedImage {
            revision: REVISION,
            parent: parent.map_or(0, Handle::raw),
            system_table: self.system_table.get(),
            base: placed.place.start().get(),
            len: placed.len,
            code: code.0,
            data: data.0,
            options_len: options.0,
            options: options.1,
            ..LoadedImage::default()
        };
        let mut path_copy = 0;
        if let Some(path) = path {
            path_copy = self.pool_of(machine, path.bytes())?;
            let device = self.device_of(machine, DEVICE_PATH, path)?;
            let rest = device.map_or(path, |(_, rest)| rest);
            image.device = device.map_or(0, |(device, _)| device.raw());
            image.file_path = super::pointers::rest_address(path_copy, path, rest);
        }
        let interface = self.pool_of(machine, image.as_bytes())?;
        self.images.list.try_reserve(1).map_err(no_room)?;
        let handle = self.install(None, LOADED_IMAGE, interface)?;
        self.install(Some(handle), LOADED_IMAGE_DEVICE_PATH, path_copy)?;
        let image = Image { handle, placed, interface, path: path_copy, is_started: false, is_first };
        heap::push_within_capacity(&mut self.images.list, image).map_err(no_room)?;
        Ok(handle)
    }

    /// Checks what [`Self::load_image`] needs besides a file, before one is read by its path.
    ///
    /// # Errors
    /// Those of [`Self::load_image`].
    pub fn check_load(&self, machine: &mut impl Memory, parent: u64, path: u64, at: u64) -> Result<(), Status> {
        machine.check_number(at)?;
        self.image(parent)?;
        if path == 0 { Err(Status::NOT_FOUND) } else { Ok(()) }
    }

    /// `LoadImage` from `source`: address and length. The handle is written to `at`. The image is recorded by `record` before.
    ///
    /// # Errors
    /// As for [`Self::load_image_file`]; `NOT_FOUND` without a source.
    pub fn load_image<M: Memory + Protect>(
        &mut self,
        machine: &mut M,
        parent: u64,
        path_at: u64,
        source: (u64, u64),
        at: u64,
        record: Record<'_, M>,
    ) -> Result<(), Status> {
        machine.check_number(at)?;
        self.image(parent)?;
        let (address, len) = source;
        if address == 0 {
            return Err(Status::NOT_FOUND);
        }
        let mut file = bytes(address, len)?;
        let source = file;
        let mut record = |machine: &mut M, placed, path: &[u8]| record(machine, source, placed, path);
        self.load_image_file(machine, parent, path_at, &mut file, at, &mut record)
    }

    /// `LoadImage` of `file`. The handle is written to `at`. The image is recorded by `record` before.
    ///
    /// # Errors
    /// Those of `record` and of `file`; `INVALID_PARAMETER` for null pointers and a parent that is no image; `UNSUPPORTED` for
    /// what is no image for this machine, `LOAD_ERROR` for a broken one; `OUT_OF_RESOURCES`.
    pub fn load_image_file<M: Memory + Protect>(
        &mut self,
        machine: &mut M,
        parent: u64,
        path_at: u64,
        file: &mut dyn ImageFile<M>,
        at: u64,
        record: RecordFile<'_, M>,
    ) -> Result<(), Status> {
        machine.check_number(at)?;
        let parent = self.image(parent)?.handle;
        let path = if path_at == 0 { None } else { Some(machine.path(path_at)?) };
        let path = path.as_deref().and_then(DevicePath::parse);
        let handle = self.load_file(machine, Some(parent), path, file, record)?;
        machine.set_number(at, handle.raw())
    }

    /// Loads an image from `file`, which has the device path `path`. Without a parent, the firmware's boot manager loads it. The
    /// image is recorded by `record` before it has a handle.
    ///
    /// # Errors
    /// As for [`Self::load_image_file`].
    pub fn load_file<M: Memory + Protect>(
        &mut self,
        machine: &mut M,
        parent: Option<Handle>,
        path: Option<DevicePath<'_>>,
        file: &mut dyn ImageFile<M>,
        record: RecordFile<'_, M>,
    ) -> Result<Handle, Status> {
        let placed = self.place_image(machine, file).map_err(|Unplaced(status)| status)?;
        let recorded = record(machine, placed, path.map_or(&[], DevicePath::bytes));
        let added = recorded.and_then(|()| self.add(machine, placed, parent, path, (0, 0), false));
        added.inspect_err(|_| {
            let _ = self.free_image(machine, placed);
        })
    }

    /// Puts the image in `file` into memory of its own.
    fn place_image<M: Memory + Protect>(
        &mut self,
        machine: &mut M,
        file: &mut dyn ImageFile<M>,
    ) -> Result<Placed, Unplaced> {
        let len = file.file_len().min(pe::MOST_HEADERS as u64);
        let mut headers = u8::new_vec_zeroed(len as usize).map_err(no_room)?;
        file.read(machine, 0, &mut headers)?;
        let image = pe::Image::parse(&headers, file.file_len())?;
        drop(headers);
        let placed = self.allocate_image(&image)?;
        let filled = fill_image(machine, file, &image, placed.place);
        let result = filled.and_then(|()| Ok(self.protect_image(machine, protection(&image, placed.place))?));
        if let Err(error) = result {
            while let Some(lost) = file.take_lost() {
                // There is nothing better to do.
                let _ = self.memory.give_up(lost);
            }
            self.free_image(machine, placed)?;
            return Err(error);
        }
        Ok(placed)
    }

    /// Gives an image load options, and returns the address of the pool that they are in. Nothing is done without options.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`; `INVALID_PARAMETER` without the image.
    pub fn set_load_options(
        &mut self,
        machine: &mut impl Memory,
        handle: Handle,
        options: &[u8],
    ) -> Result<Option<u64>, Status> {
        if options.is_empty() {
            return Ok(None);
        }
        let image = self.image(handle.raw())?;
        let mut interface = read_interface(machine, &image)?;
        interface.options_len = u32::try_from(options.len()).map_err(no_room)?;
        interface.options = self.pool_of(machine, options)?;
        machine.put(image.interface, interface.as_bytes())?;
        Ok(Some(interface.options))
    }

    /// Sets the access to the pages of an image.
    ///
    /// # Errors
    /// Those of [`Self::set_access`].
    pub fn protect_image(
        &mut self,
        machine: &mut impl Protect,
        protection: impl IntoIterator<Item = (PhysRange, Access)>,
    ) -> Result<(), Status> {
        protection.into_iter().try_for_each(|(pages, access)| self.set_access(machine, pages, access))
    }

    fn free_image(&mut self, machine: &mut impl Protect, placed: Placed) -> Result<(), Status> {
        self.free_pages(machine, placed.place.start().get(), placed.place.len() >> PAGE_SHIFT)
    }

    /// Takes pages for an image.
    fn allocate_image(&mut self, image: &pe::Image) -> Result<Placed, Status> {
        let pages = PhysAddr::new(image.len().into()).align_up(Alignment::PAGE).ok_or(Status::OUT_OF_RESOURCES)?;
        let pages = pages.get() >> PAGE_SHIFT;
        let (base, is_fixed) = image.base();
        let wanted = if is_fixed { Wanted::Address(base) } else { Wanted::AnyPages };
        let (code, _) = kinds(image.subsystem());
        let start = match self.memory.allocate_pages(wanted, code, pages) {
            Err(Status::NOT_FOUND | Status::INVALID_PARAMETER) if is_fixed => return Err(Status::LOAD_ERROR),
            result => result?,
        };
        let place = PhysRange::new(start, pages.saturating_mul(Alignment::PAGE.bytes())).unwrap_or_default();
        let entry = start.checked_add(image.entry().into()).unwrap_or(start);
        Ok(Placed { place, len: image.len().into(), entry, subsystem: image.subsystem() })
    }

    /// `StartImage`, up to entering it. [`Self::end_image`] follows when it has returned, or by `Exit`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a handle that is no image, and for one that was started; `OUT_OF_RESOURCES`.
    pub fn start_image(&mut self, number: u64) -> Result<Started, Status> {
        let image = self.image(number)?;
        if image.is_started {
            return Err(Status::INVALID_PARAMETER);
        }
        let running = Running { handle: image.handle, level: self.events.level(), exit_data: (0, 0) };
        heap::push(&mut self.images.running, running).map_err(no_room)?;
        for other in self.images.list.iter_mut().filter(|other| other.handle == image.handle) {
            other.is_started = true;
        }
        Ok(Started { handle: image.handle, entry: image.placed.entry, system_table: self.system_table })
    }

    /// `Exit`: whether the firmware has to go back to where it entered the image. If not, the image was not started, and is gone.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a handle that is no image, and for one that is not the one that runs.
    pub fn exit(&mut self, machine: &mut impl Protect, number: u64, data: (u64, u64)) -> Result<bool, Status> {
        let image = self.image(number)?;
        if !image.is_started {
            self.forget_image(machine, image.handle)?;
            return Ok(false);
        }
        let running = self.images.running.last_mut().filter(|running| running.handle == image.handle);
        running.ok_or(Status::INVALID_PARAMETER)?.exit_data = data;
        Ok(true)
    }

    /// The image that runs has returned `status`. An application is gone then, and a driver if it failed. The level is again that
    /// of the start, whatever the image has raised it to, and even if a notification has called `Exit`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if none runs.
    pub fn end_image(&mut self, machine: &mut impl Protect, status: Status) -> Result<Ended, Status> {
        let running = self.images.running.pop().ok_or(Status::INVALID_PARAMETER)?;
        self.events.set_level(running.level);
        let image = self.image(running.handle.raw())?;
        if image.placed.subsystem == Subsystem::Application || status.is_error() {
            self.forget_image(machine, image.handle)?;
        }
        Ok(Ended { exit_data: running.exit_data })
    }

    /// `UnloadImage`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a handle that is no image; `UNSUPPORTED` for an image that was started and has no function for it.
    pub fn unload_image(&mut self, machine: &mut (impl Memory + Protect), number: u64) -> Result<Unloading, Status> {
        let image = self.image(number)?;
        if !image.is_started {
            self.forget_image(machine, image.handle)?;
            return Ok(Unloading::Done);
        }
        let runs = self.images.running.iter().any(|running| running.handle == image.handle);
        match read_interface(machine, &image)?.unload {
            0 => Err(Status::UNSUPPORTED),
            _ if runs => Err(Status::UNSUPPORTED),
            function => Ok(Unloading::Call(function, image.handle)),
        }
    }

    /// Takes an image away, with its handle and its memory.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the image.
    pub fn forget_image(&mut self, machine: &mut impl Protect, handle: Handle) -> Result<(), Status> {
        let image = self.image(handle.raw())?;
        self.images.list.retain(|other| other.handle != handle);
        self.handles.close_all(handle);
        // An image may have taken them away, and opened them as it likes.
        let _ = self.handles.uninstall(handle, LOADED_IMAGE, image.interface);
        let _ = self.handles.uninstall(handle, LOADED_IMAGE_DEVICE_PATH, image.path);
        let _ = self.free_pool(machine, image.interface);
        if image.path != 0 {
            let _ = self.free_pool(machine, image.path);
        }
        if !image.is_first {
            // An image is to close its events, and to take its protocols away. One that did not must not take others down with it.
            self.events.close_within(image.placed.place);
            self.handles.remove_within(image.placed.place);
            let _ = self.free_image(machine, image.placed);
        }
        Ok(())
    }
}

/// The access to the pages of an image that is at `place`, if its headers allow it. The rest of the last page belongs to its last
/// section.
pub fn protection(image: &pe::Image, place: PhysRange) -> impl Iterator<Item = (PhysRange, Access)> + '_ {
    image.protection().into_iter().flatten().map(move |(span, access)| {
        let (_, rest) = place.split_at(span.start.into());
        let (pages, _) = rest.split_at(pe::up_to_page(span.len()));
        (pages, access)
    })
}

/// What an image's interface holds now.
fn read_interface(machine: &mut impl Memory, image: &Image) -> Result<LoadedImage, Status> {
    let mut interface = LoadedImage::new_zeroed();
    machine.read(PhysAddr::new(image.interface), interface.as_mut_bytes()).map_err(no_room)?;
    Ok(interface)
}

/// Puts the contents of `image` from its file to `place`, adapts it to that address, and clears the rest of its last page.
fn fill_image<M: Memory>(
    machine: &mut M,
    file: &mut dyn ImageFile<M>,
    image: &pe::Image,
    place: PhysRange,
) -> Result<(), Unplaced> {
    let start = place.start();
    let at = |offset: u32| start.checked_add(offset.into()).ok_or(Status::LOAD_ERROR);
    for piece in image.contents() {
        let into = PhysRange::new(at(piece.address)?, piece.len.into()).ok_or(Status::LOAD_ERROR)?;
        file.load(machine, piece.offset.into(), into)?;
    }
    for gap in image.zeros() {
        machine.fill(bytes(at(gap.start)?.get(), gap.len().into())?, 0)?;
    }
    let (_, rest) = place.split_at(image.len().into());
    machine.fill(rest, 0)?;
    Ok(pe::relocate(machine, image, start)?)
}
