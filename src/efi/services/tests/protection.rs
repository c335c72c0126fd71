//! Access to the pages of images, and `EFI_MEMORY_ATTRIBUTE_PROTOCOL`.

use uefi_raw::table::boot::{AllocateType, MemoryAttribute};

use super::images::{first, interface, load, sample, sample_sections};
use super::*;
use crate::efi::pe::tests::{OPTIONAL, file_with};
use crate::efi::protocols::memory_attribute::Change;
use crate::hal::Protect;
use crate::hal::paging::Access;

const READ_ONLY: u64 = MemoryAttribute::READ_ONLY.bits();
const NO_EXECUTE: u64 = MemoryAttribute::EXECUTE_PROTECT.bits();

impl Test {
    fn access(&mut self, at: u64, pages: u64) -> Option<Access> {
        self.machine.access(PhysRange::new(PhysAddr::new(at), pages * 0x1000).unwrap()).unwrap()
    }

    /// Pages that an image has allocated.
    fn pages(&mut self, count: u64) -> u64 {
        let at = self.put_number(0);
        let (machine, services) = (&mut self.machine, &mut self.services);
        services.allocate_pages(machine, AllocateType::ANY_PAGES, MemoryType::LOADER_DATA, count, at).unwrap();
        self.number(at)
    }

    fn change(&mut self, base: u64, len: u64, bits: u64, change: Change) -> Result<(), Status> {
        self.services.change_attributes(&mut self.machine, base, len, bits, change)
    }

    fn attributes(&mut self, base: u64, len: u64) -> Result<u64, Status> {
        self.services.attributes(&mut self.machine, base, len).map(|attributes| attributes.bits())
    }
}

#[test]
fn an_images_sections_are_code_or_data_until_it_is_unloaded() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let handle = load(&mut test, parent, 0, &sample()).unwrap();
    let base = interface(&test, handle).base;
    assert_eq!(test.access(base, 1), Some(Access::Constants), "the headers");
    assert_eq!(test.access(base + 0x1000, 1), Some(Access::Code));
    assert_eq!(test.access(base + 0x2000, 1), Some(Access::Data));
    let count = test.services.next_monotonic_count(&mut test.machine, base + 0x1000);
    assert_eq!(count, Err(Status::INVALID_PARAMETER), "a service does not write code either");
    assert_eq!(test.services.next_monotonic_count(&mut test.machine, base + 0x2000), Ok(()));
    test.services.unload_image(&mut test.machine, handle).unwrap();
    assert_eq!(test.access(base, 3), Some(Access::Any));
}

#[test]
fn an_application_that_has_ended_leaves_plain_memory() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let handle = load(&mut test, parent, 0, &sample()).unwrap();
    let base = interface(&test, handle).base;
    test.services.start_image(handle).unwrap();
    test.services.end_image(&mut test.machine, Status::SUCCESS).unwrap();
    assert_eq!(test.access(base, 3), Some(Access::Any));
}

#[test]
fn an_image_that_does_not_know_of_nx_is_not_protected() {
    let mut test = Test::new();
    let parent = first(&mut test);
    let file = file_with(&sample_sections(), |file| file[OPTIONAL + 70..][..2].fill(0));
    let handle = load(&mut test, parent, 0, &file).unwrap();
    let base = interface(&test, handle).base;
    assert_eq!(test.access(base, 3), Some(Access::Any));
}

#[test]
fn attributes_of_pages_are_set_and_cleared_where_they_are_mixed_too() {
    let mut test = Test::new();
    let at = test.pages(8);
    assert_eq!(test.attributes(at, 0x8000), Ok(0));
    test.change(at + 0x2000, 0x2000, READ_ONLY, Change::Set).unwrap();
    test.change(at + 0x3000, 0x2000, NO_EXECUTE, Change::Set).unwrap();
    let each = |test: &mut Test| -> Vec<_> {
        (0..8).map(|page| test.attributes(at + page * 0x1000, 0x1000).unwrap()).collect()
    };
    assert_eq!(each(&mut test), [0, 0, READ_ONLY, READ_ONLY | NO_EXECUTE, NO_EXECUTE, 0, 0, 0]);
    assert_eq!(test.attributes(at, 0x8000), Err(Status::NO_MAPPING));
    test.change(at, 0x8000, READ_ONLY, Change::Set).unwrap();
    let both = READ_ONLY | NO_EXECUTE;
    assert_eq!(each(&mut test), [READ_ONLY, READ_ONLY, READ_ONLY, both, both, READ_ONLY, READ_ONLY, READ_ONLY]);
    test.change(at, 0x8000, both, Change::Clear).unwrap();
    assert_eq!(test.attributes(at, 0x8000), Ok(0));
}

#[test]
fn attributes_have_the_status_of_the_specification() {
    let mut test = Test::new();
    let at = test.pages(1);
    for change in [Change::Set, Change::Clear] {
        for (base, len, bits, status) in [
            (at, 0, READ_ONLY, Status::INVALID_PARAMETER),
            (at, 0x1000, 0, Status::INVALID_PARAMETER),
            (at, 0x1000, 1, Status::INVALID_PARAMETER),
            (at + 1, 0x1000, READ_ONLY, Status::UNSUPPORTED),
            (at, 0x1001, READ_ONLY, Status::UNSUPPORTED),
            // No RAM, and the firmware's own.
            (0x8000_0000, 0x1000, READ_ONLY, Status::UNSUPPORTED),
            (0x4_0000, 0x1000, READ_ONLY, Status::UNSUPPORTED),
        ] {
            assert_eq!(test.change(base, len, bits, change), Err(status), "{base:#x} {len:#x} {bits:#x}");
        }
    }
    let unreadable = MemoryAttribute::READ_PROTECT.bits();
    assert_eq!(test.change(at, 0x1000, unreadable, Change::Set), Err(Status::UNSUPPORTED));
    assert_eq!(test.change(at, 0x1000, unreadable, Change::Clear), Ok(()));
    assert_eq!(test.attributes(at, 0), Err(Status::INVALID_PARAMETER));
    assert_eq!(test.attributes(at, 1), Err(Status::UNSUPPORTED));
}

#[test]
fn freed_pages_are_plain_memory() {
    let mut test = Test::new();
    let at = test.pages(4);
    test.change(at, 0x4000, READ_ONLY | NO_EXECUTE, Change::Set).unwrap();
    test.services.free_pages(&mut test.machine, at + 0x1000, 2).unwrap();
    assert_eq!((test.access(at, 1), test.access(at + 0x3000, 1)), (Some(Access::Constants), Some(Access::Constants)));
    assert_eq!(test.access(at + 0x1000, 2), Some(Access::Any));
}

#[test]
fn an_image_cannot_free_page_tables() {
    let mut test = Test::new();
    let at = test.pages(1);
    let is_free = |test: &Test, page: u64| {
        test.services.memory.map().is_free(PhysRange::new(PhysAddr::new(page), 0x1000).unwrap())
    };
    let before: Vec<_> = (MIB..16 * MIB).step_by(0x1000).filter(|&page| is_free(&test, page)).collect();
    test.change(at, 0x1000, READ_ONLY, Change::Set).unwrap();
    let tables: Vec<_> = before.into_iter().filter(|&page| !is_free(&test, page)).collect();
    assert!(!tables.is_empty());
    for page in tables {
        let result = test.services.free_pages(&mut test.machine, page, 1);
        assert_eq!(result, Err(Status::NOT_FOUND), "{page:#x}");
    }
}

#[test]
fn the_firmwares_own_pages_are_nobody_elses() {
    let mut test = Test::new();
    let table = test.system_table().boot_services;
    let page = table & !0xfff;
    assert_eq!(
        test.change(page, 0x1000, READ_ONLY, Change::Set),
        Err(Status::UNSUPPORTED),
        "the table of boot services"
    );
    // Free pages, where the firmware takes room for page tables, and then those tables.
    let free = test.services.memory.descriptors().find(|shown| shown.ty == MemoryType::CONVENTIONAL).unwrap();
    let len = free.page_count * 0x1000;
    assert_eq!(test.change(free.phys_start, len, READ_ONLY, Change::Set), Err(Status::OUT_OF_RESOURCES));
    assert_eq!(test.change(free.phys_start, len, READ_ONLY, Change::Set), Err(Status::UNSUPPORTED));
    // A range that the firmware keeps, such as its stack.
    let stack = test.pages(2);
    test.services.memory.keep_stack(PhysRange::new(PhysAddr::new(stack), 0x2000).unwrap());
    assert_eq!(test.change(stack + 0x1000, 0x1000, READ_ONLY, Change::Set), Err(Status::UNSUPPORTED));
}

#[test]
fn page_tables_are_not_put_into_pages_that_may_only_be_read() {
    let mut test = Test::new();
    // The highest free pages, which are taken next.
    let free = test.services.memory.descriptors().filter(|shown| shown.ty == MemoryType::CONVENTIONAL).last().unwrap();
    let end = free.phys_start + free.page_count * 0x1000;
    let own = test.pages(1);
    // There are tables now, so that these pages can be made read-only. Then they are all used.
    assert_eq!(test.change(own, 0x1000, READ_ONLY, Change::Set), Ok(()));
    let end = end.min(own) - 16 * 0x1000;
    assert_eq!(test.change(end - 32 * 0x1000, 32 * 0x1000, READ_ONLY, Change::Set), Ok(()));
    test.services.table_room = PhysRange::default();
    let other =
        test.services.memory.descriptors().find(|shown| shown.ty == MemoryType::CONVENTIONAL).unwrap().phys_start;
    let refused = test.change(other, 0x1000, READ_ONLY, Change::Set);
    assert_eq!(refused, Err(Status::OUT_OF_RESOURCES));
    // Once these pages are gone, the next ones can be written.
    let results: Vec<_> = (0..4).map(|_| test.change(other, 0x1000, READ_ONLY, Change::Set)).collect();
    assert!(results.contains(&Ok(())), "{results:?}");
}
