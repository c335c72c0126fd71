//! Services that take addresses of an EFI program: images by device path and from memory, and access to pages.
//!
//! Input: calls. Each is a byte with its kind, and what it takes. What functions of a program's own protocols return is in the
//! input too.

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::efi::configuration::Tables;
use firstlight::efi::memory::Memory as ImageMemory;
use firstlight::efi::pe::Subsystem;
use firstlight::efi::protocols::memory_attribute::Change;
use firstlight::efi::runtime::{Shared, State};
use firstlight::efi::services::{Caller, DEVICE_PATH, Functions, Placed, Services, read_file};
use firstlight::fakes::machine::FakeMachine;
use firstlight::memory_map::{HostMap, MemoryMap};
use uefi_raw::protocol::file_system::SimpleFileSystemProtocol;
use uefi_raw::protocol::media::{LoadFile2Protocol, LoadFileProtocol};
use uefi_raw::table::boot::{AllocateType, MemoryAttribute, MemoryType};
use uefi_raw::{Guid, Status};
use zerocopy::IntoBytes;

use crate::input::Input;
use crate::pe;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 0x1000;
/// The end of RAM.
const END: u64 = 16 * MIB;
/// What the runtime services share with the firmware, and memory that a program has: for paths, interfaces and files.
const SHARED: u64 = MIB;
const PATH: u64 = 0x20_0000;
const DEVICE: u64 = 0x21_0000;
const INTERFACE: u64 = 0x22_0000;
const RESULT: u64 = 0x22_1000;
const FILE: u64 = 0x23_0000;
const FIRST: u64 = 0x30_0000;

/// The functions of a program's protocols. Any other address is one that the program made up.
const FUNCTIONS: u64 = 0x22_2000;

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).expect("a range")
}

/// A program, whose functions do what the input says.
struct Program<'a, 'i> {
    machine: FakeMachine,
    services: Services,
    input: &'a mut Input<'i>,
}

impl Caller for Program<'_, '_> {
    type Machine = FakeMachine;

    fn with<R>(
        &mut self,
        work: impl FnOnce(&mut FakeMachine, &mut Services) -> Result<R, Status>,
    ) -> Result<R, Status> {
        work(&mut self.machine, &mut self.services)
    }

    /// A function writes numbers to where its arguments point, if that is memory of boot services' data, and returns any status.
    fn call(&mut self, _function: u64, arguments: [u64; 5]) -> Status {
        for at in arguments.into_iter().filter(|&at| (4 * MIB..END - 8).contains(&at)) {
            if self.input.take::<u8>() & 1 == 1 {
                let number = u64::from(self.input.take::<u16>());
                self.machine.memory.store(at, &number.to_le_bytes());
            }
        }
        self.input.pick(&[Status::SUCCESS, Status::BUFFER_TOO_SMALL, Status::NOT_FOUND, Status::DEVICE_ERROR])
    }
}

impl<'a, 'i> Program<'a, 'i> {
    fn new(input: &'a mut Input<'i>) -> Self {
        let mut map = HostMap::default();
        map.describe(range(MIB, END), MemoryType::CONVENTIONAL).expect("an empty map");
        map.reserve(range(SHARED, 4 * MIB), MemoryType::LOADER_DATA).expect("room in the map");
        let mut machine = FakeMachine::new();
        machine.keeps_accesses = false;
        let mut shared = Shared { state: State::NEW, ..Shared::EMPTY };
        shared.place(SHARED, [0x1234; 14], &[]);
        machine.memory.store(SHARED, shared.as_bytes());
        let table = core::array::from_fn(|index| FUNCTIONS + index as u64);
        machine.memory.store(INTERFACE, <[u64; 16]>::as_bytes(&table[..16].try_into().expect("16 functions")));
        let (memory, functions) = (ImageMemory::new(MemoryMap::new(map)), Functions { boot: table });
        let services = Services::new(&mut machine, memory, PhysAddr::new(SHARED), Tables::new(), &functions);
        Self { machine, services: services.expect("room for the table"), input }
    }
}

/// Makes the calls. What is called with addresses that a program made up fails or works, and writes nothing outside RAM. Attributes
/// of pages are what was set last; a call that is refused changes none.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut program = Program::new(&mut input);
    let place = range(FIRST, FIRST + 2 * PAGE);
    let placed = Placed { place, len: place.len(), entry: place.start(), subsystem: Subsystem::Application };
    let first = program.services.add_image(&mut program.machine, placed, None, (0, 0)).expect("a first program");
    program.services.start_image(first.raw()).expect("a program that has not started");
    program.machine.memory.keep_stores();
    while !program.input.is_empty() {
        match program.input.take::<u8>() % 6 {
            0 => {
                let path = program.input.short();
                program.machine.memory.store(PATH, path);
            }
            1 => install(&mut program),
            2 => {
                let (policy, path): (u8, u8) = (program.input.take(), program.input.take());
                let path = if path == 0xff { program_address(program.input) } else { PATH + u64::from(path) };
                if let Ok((at, len)) = read_file(&mut program, path, policy & 1 == 1) {
                    assert!(at >= 4 * MIB && at.checked_add(len).is_some_and(|end| end <= END), "{at:#x} {len:#x}");
                    assert_eq!(program.services.free_pool(&mut program.machine, at), Ok(()));
                }
            }
            3 => load(&mut program, first.raw()),
            4 => change(&mut program),
            _ => {
                let (kind, pages) = (program.input.pick(&[1, 2, 3, 4, 9].map(MemoryType)), program.input.take::<u8>());
                let Program { machine, services, .. } = &mut program;
                let _ =
                    services.allocate_pages(machine, AllocateType::ANY_PAGES, kind, u64::from(pages & 7) + 1, RESULT);
            }
        }
    }
    for store in program.machine.memory.stores() {
        assert!(MIB <= store.start && store.end <= END, "{store:x?} is written");
    }
}

/// An address that a program made up.
fn program_address(input: &mut Input<'_>) -> u64 {
    input.pick(&[0, 0x800, 0x4_0000, END - 2, END, 0xffff_fff0, 1 << 40, u64::MAX - 1])
}

fn install(program: &mut Program<'_, '_>) {
    let guid: Guid =
        program.input.pick(&[SimpleFileSystemProtocol::GUID, LoadFile2Protocol::GUID, LoadFileProtocol::GUID]);
    let at = if program.input.take::<u8>() == 0xff { program_address(program.input) } else { INTERFACE };
    let path = program.input.short();
    program.machine.memory.store(DEVICE, path);
    let device = program.services.install(None, DEVICE_PATH, DEVICE).expect("room for a handle");
    program.services.install(Some(device), guid, at).expect("room for a protocol");
}

/// Loads an image from memory, and unloads it.
fn load(program: &mut Program<'_, '_>, parent: u64) {
    let file = program.input.long();
    program.machine.memory.store(FILE, file);
    let Program { machine, services, .. } = program;
    let source = (FILE, file.len() as u64);
    if services.load_image(machine, parent, PATH, source, RESULT, &mut |_, _, _, _| Ok(())).is_ok() {
        let handle = machine.memory.bytes(RESULT, 8).try_into().map_or(0, u64::from_le_bytes);
        services.unload_image(machine, handle).expect("an image that has not started");
    }
}

/// Changes attributes of pages, and checks those of each page, and of those around.
fn change(program: &mut Program<'_, '_>) {
    let (page, count, bits): (u16, u8, u8) = (program.input.take(), program.input.take(), program.input.take());
    let count = u64::from(count & 0x1f);
    let (base, len) = (u64::from(page & 0xfff) * PAGE, count * PAGE);
    let odd = if bits & 0x80 == 0 { 0 } else { 8 };
    let change = if bits & 0x40 == 0 { Change::Set } else { Change::Clear };
    let all = [MemoryAttribute::READ_PROTECT, MemoryAttribute::READ_ONLY, MemoryAttribute::EXECUTE_PROTECT];
    let chosen = (0..).zip(all).filter(|(bit, _)| bits >> bit & 1 == 1);
    let attributes = chosen.fold(MemoryAttribute::empty(), |sum, (_, attribute)| sum | attribute);
    let Program { machine, services, .. } = program;
    let around: Vec<u64> = (0..count + 2).map(|index| (base + index * PAGE).wrapping_sub(PAGE)).collect();
    let mut each = |services: &Services| -> Vec<_> {
        around.iter().map(|&page| services.attributes(machine, page, PAGE)).collect()
    };
    let before = each(services);
    let result = services.change_attributes(machine, base + odd, len, attributes.bits(), change);
    let mut each = |services: &Services| -> Vec<_> {
        around.iter().map(|&page| services.attributes(machine, page, PAGE)).collect()
    };
    let after = each(services);
    for ((page, before), after) in around.iter().zip(before).zip(after) {
        let is_changed = result.is_ok() && (base..base + len).contains(page);
        let expected = before.map(|before| match change {
            _ if !is_changed => before,
            Change::Set => before | attributes,
            Change::Clear => before.difference(attributes),
        });
        // A change that has no room for page tables may be done in part.
        assert!(expected == after || result == Err(Status::OUT_OF_RESOURCES), "{page:#x}: {expected:?}, {after:?}");
    }
}

/// A program that reads files from a volume and by `LoadFile2`, one that loads images, and one that changes attributes.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let name: Vec<u8> = "a.efi\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let end = [0x7f, 0xff, 4, 0];
    let device = [&[4, 3, 20, 0][..], &[7; 16]].concat();
    let file = [&[4, 4, name.len() as u8 + 4, 0][..], &name].concat();
    let bytes = |path: &[u8]| [&[path.len() as u8][..], path].concat();
    let set_path = |parts: &[&[u8]]| [&[0][..], &bytes(&parts.concat())].concat();
    let install = |kind: u8| [&[1, kind, 0][..], &bytes(&[&device[..], &end].concat())].concat();
    let load = |policy: u8| [2, policy, 0].to_vec();
    // Each call of a function returns success, and small numbers where it can.
    let calls = [1, 0x00, 0x01, 1, 0x10, 0x00, 0].repeat(20);
    let mut seeds = vec![
        [install(0), set_path(&[&device, &file, &end]), load(0), calls.clone()].concat(),
        [install(1), install(2), set_path(&[&device, &end]), load(0), calls.clone(), load(1), calls].concat(),
        [[5, 0, 7], [5, 2, 3]].concat(),
    ];
    let change = |page: u16, count: u8, bits: u8| [&[4][..], &page.to_le_bytes(), &[count, bits]].concat();
    seeds.push([change(0x500, 8, 2), change(0x502, 3, 4), change(0x500, 9, 0x42), change(0x4ff, 12, 0x46)].concat());
    seeds.push([change(0xffe, 4, 2), change(0x40, 1, 2), change(0x500, 0, 2), change(0x500, 1, 1)].concat());
    for image in pe::seeds().into_iter().skip(1) {
        let file = &image[6..];
        seeds.push([&[3][..], &(file.len() as u16).to_le_bytes(), file].concat());
    }
    seeds
}
