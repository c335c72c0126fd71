//! A boot from disks on the fakes: what the binary does with the library's boot services, without functions that programs call.
//!
//! A program is not executed. It counts as running when the boot manager has placed it, and ends boot services at once.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;

use firstlight::addr::{Alignment, PhysRange};
use firstlight::boot::{EfiBoot, First};
use firstlight::disk::controllers::{Candidate, Started};
use firstlight::disk::fat::Fat;
use firstlight::disk::{Controller as _, Disk, Error, Unit, partition};
use firstlight::efi::boot_manager::boot_order::{BootOrder, Location};
use firstlight::efi::boot_manager::{self, Volume};
use firstlight::efi::configuration::Tables;
use firstlight::efi::device_path::{DevicePath, PathBuilder};
use firstlight::efi::disks::{ControllerId, Disks, OnDisk, controller_nodes, partition_node, unit_node};
use firstlight::efi::memory::{Memory as ImageMemory, PAGE_SHIFT};
use firstlight::efi::protocols::block_io::BlockId;
use firstlight::efi::protocols::file_system::{self, FatVolume, FileSystem, Source, VolumeId};
use firstlight::efi::runtime::Shared;
use firstlight::efi::services::{DEVICE_PATH, Functions, Pointers, Services};
use firstlight::hal::Memory;
use firstlight::heap::HeapFull;
use log::LevelFilter;
use uefi_raw::protocol::console::InputKey;
use uefi_raw::protocol::file_system::SimpleFileSystemProtocol;
use uefi_raw::table::boot::{MemoryDescriptor, MemoryType};
use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Guid, Status};
use zerocopy::IntoBytes;

use crate::heap::outside;
use crate::outside::Outside;

/// Boot services whose only user is the boot manager.
pub struct Running<'m> {
    machine: &'m mut Outside,
    services: Services,
    files: FileSystem<'static>,
    disks: Disks<Started>,
    controllers: Vec<Found>,
    /// Where the program is that runs.
    program: Option<PhysRange>,
}

struct Found {
    candidate: Candidate,
    count: Option<Result<usize, Error>>,
    volumes: Vec<Volume>,
}

impl<'m> Running<'m> {
    /// Starts boot services.
    pub fn start(machine: &'m mut Outside, mut boot: EfiBoot) -> Result<Self, Status> {
        let mut memory = ImageMemory::new(core::mem::take(&mut boot.map));
        let page = memory.reserve_pages(1)?.start();
        let mut shared = Shared::EMPTY;
        shared.place(page.get(), [0; 14], &[]);
        machine.write(page, shared.as_bytes()).map_err(|_| Status::OUT_OF_RESOURCES)?;
        let functions = Functions { boot: [0; _] };
        let services = Services::new(machine, memory, page, Tables::new(), &functions)?;
        let mut controllers = Vec::new();
        if let First::Disks(candidates) = &boot.first {
            controllers.extend(candidates.iter().map(|&candidate| Found {
                candidate,
                count: None,
                volumes: Vec::new(),
            }));
        }
        Ok(Self { machine, services, files: FileSystem::new(), disks: Disks::new(), controllers, program: None })
    }

    /// Starts programs until one runs. Returns where it is, or else what was tried.
    pub fn boot(&mut self) -> Result<PhysRange, String> {
        let tried = boot_manager::boot(self, &BootOrder::default(), None);
        self.disks.stop(self.machine);
        let error = firstlight::error::Error::NothingBoots(tried);
        self.program.ok_or_else(|| error.to_string())
    }

    /// The ranges that an operating system does not use, as the memory map says, and the machine.
    pub fn end(self) -> (Vec<Range<u64>>, &'m mut Outside) {
        let withheld = self.services.memory.descriptors().filter(|shown| shown.ty == MemoryType::RESERVED);
        let range = |shown: MemoryDescriptor| shown.phys_start..shown.phys_start + (shown.page_count << PAGE_SHIFT);
        (outside(|| withheld.map(range).collect()), self.machine)
    }

    fn reserve(&mut self, len: u64) -> Result<PhysRange, Error> {
        self.services.memory.reserve_pages(len.div_ceil(Alignment::PAGE.bytes())).map_err(no_room)
    }

    fn add_disks(&mut self, index: usize, candidate: &Candidate) -> Result<usize, Error> {
        let room = self.reserve(candidate.room())?;
        let started = Started::start(self.machine, candidate, room).inspect_err(|&error| {
            if error == Error::Timeout {
                let _ = self.services.memory.give_up(room);
            }
        })?;
        let id = self.disks.add_controller(started).map_err(no_room)?;
        let mut units = Vec::new();
        let controller = self.disks.controller(id).ok_or(Error::NoRoom)?;
        controller.units(self.machine, &mut |unit| units.push(unit))?;
        for unit in &units {
            self.add_disk(index, candidate, id, *unit)?;
        }
        Ok(units.len())
    }

    fn add_disk(&mut self, index: usize, candidate: &Candidate, on: ControllerId, unit: Unit) -> Result<(), Error> {
        let disk = Disk::new(unit, self.reserve(Disk::ROOM)?)?;
        let id = self.disks.add_disk(on, disk).map_err(no_room)?;
        let path = controller_nodes(candidate).and_then(|path| unit_node(path, unit.address)).map_err(no_room)?;
        let nodes = path.without_end();
        let mut partitions = Vec::new();
        if let Some(mut blocks) = self.disks.on(self.machine).blocks(id) {
            partitions = partition::find(&mut blocks)?;
        }
        if partitions.is_empty() {
            self.add_volume(index, unit, PathBuilder::new().nodes(&nodes), id)?;
        }
        for partition in &partitions {
            let path = PathBuilder::new().nodes(&nodes).and_then(|path| partition_node(path, partition));
            let id = self.disks.add_partition(id, partition.extent).map_err(no_room)?;
            self.add_volume(index, unit, path, id)?;
        }
        Ok(())
    }

    fn add_volume(
        &mut self,
        index: usize,
        unit: Unit,
        path: Result<PathBuilder, HeapFull>,
        id: BlockId,
    ) -> Result<(), Error> {
        let path = path.and_then(PathBuilder::end).map_err(no_room)?;
        let mut source = self.disks.on(self.machine);
        let Some(Ok(fat)) = source.blocks(id).map(|mut blocks| Fat::open(&mut blocks)) else { return Ok(()) };
        let volume = self.files.add(file_system::Volume::Fat(FatVolume::new(id, fat))).map_err(no_room)?;
        let at = self.services.pool_of(self.machine, &path).map_err(no_room)?;
        let handle = self.services.install(None, DEVICE_PATH, at).map_err(no_room)?;
        let interface = self.services.pool_of(self.machine, &volume.raw().to_le_bytes()).map_err(no_room)?;
        self.services.install(Some(handle), SimpleFileSystemProtocol::GUID, interface).map_err(no_room)?;
        if let Some(found) = self.controllers.get_mut(index) {
            found.volumes.push(Volume { unit: unit.address, path });
        }
        Ok(())
    }

    fn load(&mut self, path: &[u8]) -> Result<PhysRange, Status> {
        let Self { machine, services, disks, files, .. } = self;
        let path = DevicePath::parse(path).ok_or(Status::INVALID_PARAMETER)?;
        let (interface, names) = services.volume_of(*machine, path)?.ok_or(Status::NOT_FOUND)?;
        let volume = VolumeId::from_raw(machine.number(interface)?);
        let file = files.find(&mut disks.on(*machine), volume, &names)?.ok_or(Status::NOT_FOUND)?;
        let mut file = OnDisk { disks, file };
        let mut place = PhysRange::default();
        services.load_file(*machine, None, Some(path), &mut file, &mut |_, placed, _| {
            place = placed.place;
            Ok(())
        })?;
        Ok(place)
    }
}

impl boot_manager::Host for Running<'_> {
    type Name = Candidate;

    fn name(&self, controller: usize) -> Option<Candidate> {
        let found = self.controllers.get(controller).filter(|_| self.program.is_none());
        found.map(|found| found.candidate)
    }

    fn is_at(&self, controller: usize, location: &Location) -> bool {
        self.name(controller).is_some_and(|candidate| location.is(&candidate.place))
    }

    fn start(&mut self, controller: usize) -> Result<usize, Error> {
        let Found { candidate, count, .. } = self.controllers.get(controller).ok_or(Error::OutOfRange)?;
        if let Some(count) = count {
            return *count;
        }
        let candidate = *candidate;
        let count = self.add_disks(controller, &candidate);
        self.disks.give_up_lost(&mut self.services.memory);
        if let Some(found) = self.controllers.get_mut(controller) {
            found.count = Some(count);
        }
        count
    }

    fn volume(&mut self, controller: usize, number: usize) -> Result<Option<Volume>, HeapFull> {
        let found = self.controllers.get(controller).filter(|_| self.program.is_none());
        Ok(found.and_then(|found| found.volumes.get(number)).cloned())
    }

    fn run(&mut self, path: &[u8], _: &[u8]) -> Result<Status, Status> {
        let loaded = self.load(path);
        self.disks.give_up_lost(&mut self.services.memory);
        self.program = Some(loaded?);
        self.disks.stop(self.machine);
        // It does not return.
        log::set_max_level(LevelFilter::Off);
        Ok(Status::SUCCESS)
    }

    fn variable(&mut self, _: &str, _: Guid) -> Option<Vec<u8>> {
        None
    }

    fn set_variable(&mut self, _: &str, _: Guid, _: VariableAttributes, _: &[u8]) -> Result<(), Status> {
        Ok(())
    }

    fn print(&mut self, _text: fmt::Arguments<'_>) {}

    fn key(&mut self, _milliseconds: u32) -> Option<InputKey> {
        None
    }

    fn forget_keys(&mut self) {}
}

fn no_room<E>(_: E) -> Error {
    Error::NoRoom
}
