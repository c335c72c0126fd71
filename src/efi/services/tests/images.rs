//! Image services.

use core::num::NonZeroU64;

use uefi_raw::table::boot::{EventType, Tpl};

use super::*;
use crate::efi::device_path::{DevicePath, PathBuilder};
use crate::efi::events::Function;
use crate::efi::handles::Handle;
use crate::efi::pe::Subsystem;
use crate::efi::pe::tests::{CODE, DATA, Made, OPTIONAL, file, file_with, section};
use crate::efi::services::images::{LOADED_IMAGE, LOADED_IMAGE_DEVICE_PATH, LoadedImage};
use crate::hal::Memory;

/// The first program, which loads others.
pub fn first(test: &mut Test) -> u64 {
    let place = PhysRange::new(PhysAddr::new(0x30_0000), 0x2000).unwrap();
    let placed = Placed { place, len: 0x2000, entry: place.start(), subsystem: Subsystem::Application };
    let handle = test.services.add_image(&mut test.machine, placed, None, (6, 0x2f_0000)).unwrap();
    test.services.start_image(handle.raw()).unwrap();
    handle.raw()
}

pub fn sample() -> Vec<u8> {
    file(&sample_sections())
}

pub fn sample_sections() -> [Made; 2] {
    [section(0x1000, 0x180, 0x400, 0x200, CODE), section(0x2000, 0x300, 0x600, 0x200, DATA)]
}

pub fn load(test: &mut Test, parent: u64, path: u64, file: &[u8]) -> Result<u64, Status> {
    let source = test.put(file);
    let at = test.put_number(0);
    test.services
        .load_image(&mut test.machine, parent, path, (source, file.len() as u64), at, &mut |_, _, _, _| Ok(()))?;
    Ok(test.number(at))
}

pub fn interface(test: &Test, handle: u64) -> LoadedImage {
    let at = test.services.handles.interface(Handle::from_raw(handle).unwrap(), LOADED_IMAGE).unwrap();
    LoadedImage::read_from_bytes(&test.machine.memory.bytes(at, size_of::<LoadedImage>())).unwrap()
}

fn exists(test: &Test, handle: u64) -> bool {
    test.services.handles.exists(Handle::from_raw(handle).unwrap())
}

#[test]
fn an_image_is_placed_from_a_buffer_and_is_told_of_itself() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let path = PathBuilder::new().vendor_media(ONE).unwrap().end().unwrap();
    let path = test.put(&path);
    let file = sample();
    let handle = load(&mut test, parent, path, &file).unwrap();
    let image = interface(&test, handle);
    assert_eq!((image.revision, image.parent, image.system_table), (0x1000, parent, SHARED));
    assert_eq!((image.code, image.data), (MemoryType::LOADER_CODE.0, MemoryType::LOADER_DATA.0));
    assert_eq!((image.len, image.options_len, image.options, image.device), (0x3000, 0, 0, 0));
    let bytes = test.machine.memory.bytes(image.base, 0x3000);
    assert_eq!((&bytes[..0x400], &bytes[0x1000..0x1180]), (&file[..0x400], &file[0x400..0x580]));
    assert_eq!((&bytes[0x1180..0x2000], &bytes[0x2200..]), (&[0; 0xe80][..], &[0; 0xe00][..]));
    // Without a device that it could be from, all of the path is the file's.
    assert_eq!(test.machine.memory.bytes(image.file_path, 24), test.machine.memory.bytes(path, 24));
    let own = test.services.handles.interface(Handle::from_raw(handle).unwrap(), LOADED_IMAGE_DEVICE_PATH).unwrap();
    assert_eq!(own, image.file_path);
}

#[test]
fn an_image_shows_nothing_of_what_was_in_its_memory() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let handle = load(&mut test, parent, 0, &sample()).unwrap();
    let base = interface(&test, handle).base;
    assert_eq!(test.services.unload_image(&mut test.machine, handle), Ok(Unloading::Done));
    let pages = PhysRange::new(PhysAddr::new(base), 0x3000).unwrap();
    test.machine.fill(pages, 0xee).unwrap();
    let sections = [section(0x1000, 0x180, 0x400, 0x200, CODE), section(0x2000, 0x80, 0x600, 0x200, DATA)];
    let file = file_with(&sections, |file| {
        file[OPTIONAL + 32..][..4].copy_from_slice(&0x200_u32.to_le_bytes());
        file[OPTIONAL + 56..][..4].copy_from_slice(&0x2200_u32.to_le_bytes());
    });
    let handle = load(&mut test, parent, 0, &file).unwrap();
    assert_eq!((interface(&test, handle).base, interface(&test, handle).len), (base, 0x2200));
    assert_eq!(test.machine.memory.bytes(base + 0x2200, 0xe00), [0; 0xe00]);
}

#[test]
fn the_device_of_an_image_is_the_one_with_its_path() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let device = PathBuilder::new().vendor_media(TWO).unwrap();
    let path = device.clone().vendor_media(ONE).unwrap().end().unwrap();
    let (device, path) = (test.put(&device.end().unwrap()), test.put(&path));
    let device = test.install(DEVICE_PATH, device);
    let handle = load(&mut test, parent, path, &sample()).unwrap();
    let image = interface(&test, handle);
    assert_eq!(image.device, device);
    assert_eq!(test.machine.memory.bytes(image.file_path, 24), test.machine.memory.bytes(path + 20, 24));
}

#[test]
fn what_cannot_be_loaded_takes_no_memory() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let free = |test: &Test| -> u64 {
        let free = test.services.memory.descriptors().filter(|shown| shown.ty == MemoryType::CONVENTIONAL);
        free.map(|shown| shown.page_count).sum()
    };
    load(&mut test, parent, 0, &sample()).unwrap();
    let before = free(&test);
    let mut other_machine = sample();
    other_machine[0x44] ^= 1;
    let mut other_subsystem = sample();
    other_subsystem[OPTIONAL + 68] = 3;
    let cut = sample()[..0x500].to_vec();
    let fixed_elsewhere = file_with(&[section(0x1000, 0x180, 0x400, 0x200, CODE)], |file| {
        file[0x44 + 18] = 1;
        file[OPTIONAL + 24..][..8].copy_from_slice(&0x1_0000_0000_u64.to_le_bytes());
    });
    for (file, status) in [
        (other_machine, Status::UNSUPPORTED),
        (other_subsystem, Status::UNSUPPORTED),
        (b"a text, which is no image, and longer than the magic number".to_vec(), Status::UNSUPPORTED),
        (cut, Status::LOAD_ERROR),
        (fixed_elsewhere, Status::LOAD_ERROR),
    ] {
        assert_eq!(load(&mut test, parent, 0, &file), Err(status));
        assert_eq!(free(&test), before);
    }
    assert_eq!(load(&mut test, 0, 0, &sample()), Err(Status::INVALID_PARAMETER));
    assert_eq!(load(&mut test, 77, 0, &sample()), Err(Status::INVALID_PARAMETER));
    let (machine, services) = (&mut test.machine, &mut test.services);
    let result = services.load_image(machine, parent, 0, (OWN, 0x400), 0, &mut |_, _, _, _| Ok(()));
    assert_eq!(result, Err(Status::INVALID_PARAMETER), "no place for the handle");
    let result = services.load_image(machine, parent, 0, (0, 0), OWN, &mut |_, _, _, _| Ok(()));
    assert_eq!(result, Err(Status::NOT_FOUND), "neither bytes nor a path");
}

#[test]
fn an_image_is_recorded_by_its_file_and_one_that_cannot_be_is_not_loaded() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let path = PathBuilder::new().vendor_media(ONE).unwrap().end().unwrap();
    let (path_at, file, at) = (test.put(&path), sample(), test.put_number(0));
    let source = (test.put(&file), file.len() as u64);
    // Page tables for its protection stay.
    load(&mut test, parent, 0, &file).unwrap();
    let before = test.services.memory.descriptors_len();
    let (machine, services) = (&mut test.machine, &mut test.services);
    let refused =
        services.load_image(machine, parent, path_at, source, at, &mut |_, _, _, _| Err(Status::DEVICE_ERROR));
    assert_eq!((refused, services.memory.descriptors_len()), (Err(Status::DEVICE_ERROR), before));
    let mut recorded = None;
    let mut record = |machine: &mut FakeMachine, file: PhysRange, placed: Placed, path: &[u8]| {
        let contents = machine.memory.bytes(file.start().get(), file.len() as usize);
        recorded = Some((contents, placed, path.to_vec()));
        Ok(())
    };
    services.load_image(machine, parent, path_at, source, at, &mut record).unwrap();
    let (contents, placed, recorded_path) = recorded.unwrap();
    let image = interface(&test, test.number(at));
    assert_eq!((contents, recorded_path), (file, path.to_vec()));
    assert_eq!((placed.place.start().get(), placed.len), (image.base, image.len));
}

#[test]
fn an_application_is_gone_when_it_has_ended() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let handle = load(&mut test, parent, 0, &sample()).unwrap();
    let image = interface(&test, handle);
    let started = test.services.start_image(handle).unwrap();
    assert_eq!((started.handle.raw(), started.system_table), (handle, PhysAddr::new(SHARED)));
    assert_eq!(started.entry, PhysAddr::new(image.base + 0x1000));
    assert_eq!(test.services.running_count(), 2);
    assert_eq!(test.services.start_image(handle), Err(Status::INVALID_PARAMETER), "it runs");
    assert_eq!(test.services.start_image(77), Err(Status::INVALID_PARAMETER));
    assert_eq!(test.services.exit(&mut test.machine, parent, (0, 0)), Err(Status::INVALID_PARAMETER), "another runs");
    assert_eq!(test.services.exit(&mut test.machine, handle, (4, 0x5000)), Ok(true));
    let ended = test.services.end_image(&mut test.machine, Status::SUCCESS).unwrap();
    assert_eq!(ended.exit_data, (4, 0x5000));
    assert!(!exists(&test, handle) && test.services.running_count() == 1);
    let pages = test.services.memory.allocate_pages(
        crate::efi::memory::Wanted::Address(image.base),
        MemoryType::LOADER_DATA,
        3,
    );
    assert!(pages.is_ok(), "its memory is free");
}

/// An image may return at a higher level than it was started at, or call `Exit` in a notification, which then never returns.
#[test]
fn the_level_is_that_of_the_start_when_an_image_has_ended() {
    let mut test = Test::new();
    let parent = first(&mut test);
    for (before, raises, exits) in
        [(Tpl::APPLICATION, true, false), (Tpl::APPLICATION, false, true), (Tpl::CALLBACK, true, true)]
    {
        test.services.raise_level(before.0);
        let handle = load(&mut test, parent, 0, &sample()).unwrap();
        test.services.start_image(handle).unwrap();
        if raises {
            test.services.raise_level(Tpl::NOTIFY.0);
        }
        if exits {
            let address = NonZeroU64::new(0x5000).unwrap();
            let function = Function { address, context: 0, level: Tpl(20) };
            let event = test.services.events.create(EventType::NOTIFY_SIGNAL, Some(function), None).unwrap();
            test.services.events.signal(event).unwrap();
            assert!(test.services.events.begin().is_some());
            assert_eq!(test.services.exit(&mut test.machine, handle, (0, 0)), Ok(true));
        }
        test.services.end_image(&mut test.machine, Status::SUCCESS).unwrap();
        assert_eq!(test.services.events.level(), before);
    }
}

#[test]
fn a_driver_stays_unless_it_fails() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let driver = file_with(&[section(0x1000, 0x180, 0x400, 0x200, CODE)], |file| file[OPTIONAL + 68] = 11);
    let handle = load(&mut test, parent, 0, &driver).unwrap();
    assert_eq!(interface(&test, handle).code, MemoryType::BOOT_SERVICES_CODE.0);
    test.services.start_image(handle).unwrap();
    test.services.end_image(&mut test.machine, Status::SUCCESS).unwrap();
    assert!(exists(&test, handle));
    assert_eq!(test.services.unload_image(&mut test.machine, handle), Err(Status::UNSUPPORTED), "it has no function");
    let at = test.services.handles.interface(Handle::from_raw(handle).unwrap(), LOADED_IMAGE).unwrap();
    test.machine.memory.store(at + 88, &0x1234_u64.to_le_bytes());
    let image = Handle::from_raw(handle).unwrap();
    assert_eq!(test.services.unload_image(&mut test.machine, handle), Ok(Unloading::Call(0x1234, image)));
    test.services.forget_image(&mut test.machine, image).unwrap();
    assert!(!exists(&test, handle));
    let handle = load(&mut test, parent, 0, &driver).unwrap();
    test.services.start_image(handle).unwrap();
    test.services.end_image(&mut test.machine, Status::DEVICE_ERROR).unwrap();
    assert!(!exists(&test, handle));
}

#[test]
fn events_whose_functions_are_in_an_image_end_with_it() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let handle = load(&mut test, parent, 0, &sample()).unwrap();
    let base = interface(&test, handle).base;
    let mut event = |address: u64| {
        let level = Tpl::CALLBACK;
        let function = Function { address: address.try_into().unwrap(), context: 0, level };
        test.services.events.create(EventType::NOTIFY_SIGNAL, Some(function), None).unwrap()
    };
    let (own, others) = (event(base + 0x1000), event(base - 1));
    test.services.events.signal(own).unwrap();
    test.services.events.signal(others).unwrap();
    test.services.start_image(handle).unwrap();
    test.services.end_image(&mut test.machine, Status::SUCCESS).unwrap();
    assert!(!test.services.events.exists(own) && test.services.events.exists(others));
    let next = test.services.events.begin().map(|notification| notification.event);
    assert_eq!(next, Some(others), "the other's function is not called");
}

#[test]
fn protocols_whose_interfaces_are_in_an_image_end_with_it() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let handle = load(&mut test, parent, 0, &sample()).unwrap();
    let base = interface(&test, handle).base;
    let handles = &mut test.services.handles;
    let own = handles.install(None, ONE, base + 0x2010).unwrap();
    let others = handles.install(None, ONE, base - 8).unwrap();
    test.services.start_image(handle).unwrap();
    test.services.end_image(&mut test.machine, Status::ABORTED).unwrap();
    assert!(!test.services.handles.exists(own) && test.services.handles.exists(others));
    assert_eq!(test.services.handles.first(ONE), Ok(base - 8), "the next program does not find it");
}

#[test]
fn an_image_that_was_not_started_is_unloaded_at_once() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let handle = load(&mut test, parent, 0, &sample()).unwrap();
    assert_eq!(test.services.unload_image(&mut test.machine, handle), Ok(Unloading::Done));
    assert!(!exists(&test, handle));
    assert_eq!(test.services.unload_image(&mut test.machine, handle), Err(Status::INVALID_PARAMETER));
    let handle = load(&mut test, parent, 0, &sample()).unwrap();
    assert_eq!(test.services.exit(&mut test.machine, handle, (0, 0)), Ok(false), "as by UnloadImage");
    assert!(!exists(&test, handle));
    assert_eq!(test.services.unload_image(&mut test.machine, parent), Err(Status::UNSUPPORTED), "it runs");
}

#[test]
fn the_first_program_has_its_options() {
    let mut test = Test::new();
    let handle = first(&mut test);
    let image = interface(&test, handle);
    assert_eq!((image.options_len, image.options, image.parent), (6, 0x2f_0000, 0));
}

/// A file that is somewhere else, with each request for its bytes.
struct Elsewhere {
    bytes: Vec<u8>,
    loads: Vec<(u64, u64, u64)>,
    fails_from: u64,
    /// Whether what fails may still be written.
    is_lost: bool,
    lost: Option<PhysRange>,
}

impl ImageFile<FakeMachine> for Elsewhere {
    fn file_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read(&mut self, _: &mut FakeMachine, at: u64, into: &mut [u8]) -> Result<(), Status> {
        into.copy_from_slice(&self.bytes[at as usize..][..into.len()]);
        Ok(())
    }

    fn load(&mut self, machine: &mut FakeMachine, at: u64, into: PhysRange) -> Result<(), Status> {
        if at >= self.fails_from {
            self.lost = Some(into).filter(|_| self.is_lost);
            return Err(Status::DEVICE_ERROR);
        }
        self.loads.push((at, into.start().get(), into.len()));
        machine.memory.store(into.start().get(), &self.bytes[at as usize..][..into.len() as usize]);
        Ok(())
    }

    fn take_lost(&mut self) -> Option<PhysRange> {
        self.lost.take()
    }
}

impl Elsewhere {
    fn new(fails_from: u64) -> Self {
        Self { bytes: sample(), loads: Vec::new(), fails_from, is_lost: false, lost: None }
    }
}

#[test]
fn the_place_of_an_image_that_a_device_may_still_write_is_never_used_again() {
    let mut test = Test::new();
    let pages = |test: &Test| {
        let sizes = test.services.memory.descriptors().filter(|shown| shown.ty == MemoryType::CONVENTIONAL);
        sizes.map(|shown| shown.page_count).sum::<u64>()
    };
    for (is_lost, kept) in [(false, 0), (true, 3)] {
        let before = pages(&test);
        let mut file = Elsewhere { is_lost, ..Elsewhere::new(0x400) };
        let Test { machine, services, .. } = &mut test;
        let loaded = services.load_file(machine, None, None, &mut file, &mut |_, _, _| Ok(()));
        assert_eq!(loaded, Err(Status::DEVICE_ERROR));
        assert_eq!(pages(&test), before - kept);
    }
    let reserved = test.services.memory.descriptors().filter(|shown| shown.ty == MemoryType::RESERVED);
    assert!(
        reserved.map(|shown| shown.page_count).any(|count| count == 1),
        "an operating system does not use it either"
    );
}

#[test]
fn an_image_elsewhere_goes_straight_to_its_place() {
    let mut test = Test::new();
    let path = PathBuilder::new().vendor_media(ONE).unwrap().end().unwrap();
    let path = DevicePath::parse(&path);
    let mut file = Elsewhere::new(u64::MAX);
    let Test { machine, services, .. } = &mut test;
    let handle = services.load_file(machine, None, path, &mut file, &mut |_, _, _| Ok(())).unwrap();
    let image = interface(&test, handle.raw());
    let base = image.base;
    assert_eq!(file.loads, [(0, base, 0x400), (0x400, base + 0x1000, 0x180), (0x600, base + 0x2000, 0x200)]);
    assert_eq!((image.parent, image.code), (0, MemoryType::LOADER_CODE.0), "the firmware has loaded it");
    // Its memory is free again, unlike that of the host's program.
    let free = |test: &Test| test.services.memory.map().is_free(PhysRange::new(PhysAddr::new(base), 0x3000).unwrap());
    assert!(!free(&test));
    test.services.unload_image(&mut test.machine, handle.raw()).unwrap();
    assert!(free(&test));
    for fails_from in [0, 0x400, 0x600] {
        let mut file = Elsewhere::new(fails_from);
        let Test { machine, services, .. } = &mut test;
        let failed = services.load_file(machine, None, path, &mut file, &mut |_, _, _| Ok(()));
        assert_eq!(failed, Err(Status::DEVICE_ERROR));
        assert!(free(&test));
    }
}

#[test]
fn an_image_gets_load_options_that_are_not_its_own() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let handle = load(&mut test, parent, 0, &sample()).unwrap();
    let Test { machine, services, .. } = &mut test;
    let image = Handle::from_raw(handle).unwrap();
    assert_eq!(services.set_load_options(machine, image, &[]), Ok(None));
    let pool = services.set_load_options(machine, image, b"a\0b\0\0\0").unwrap().unwrap();
    let told = interface(&test, handle);
    assert_eq!((told.options_len, told.options), (6, pool));
    assert_eq!(test.machine.memory.bytes(pool, 6), b"a\0b\0\0\0");
    let none = Handle::from_raw(0x1234).unwrap();
    assert_eq!(test.services.set_load_options(&mut test.machine, none, b"a\0"), Err(Status::INVALID_PARAMETER));
}
