//! The disks of a boot without a kernel: their controllers are started one by one, as the boot manager asks for them, and their disks,
//! partitions and volumes become handles.

use alloc::vec::Vec;

use uefi_raw::Guid;
use uefi_raw::protocol::block::BlockIoProtocol;
use uefi_raw::protocol::file_system::SimpleFileSystemProtocol;

use firstlight::addr::{Alignment, PhysRange};
use firstlight::disk::controllers::{Candidate, Started};
use firstlight::disk::fat::{self, Fat};
use firstlight::disk::{Controller as _, Disk, Error, Unit, partition};
use firstlight::efi::boot_manager;
use firstlight::efi::device_path::PathBuilder;
use firstlight::efi::disks::{ControllerId, controller_nodes, partition_node, unit_node};
use firstlight::efi::handles::Handle;
use firstlight::efi::protocols::block_io::BlockId;
use firstlight::efi::protocols::file_system::{FatVolume, Source, Volume};
use firstlight::efi::services::{DEVICE_PATH, Services};
use firstlight::heap::{self, HeapFull};
use firstlight::logging::RateLimited;
use zerocopy::IntoBytes;

use super::state::Running;
use super::{block_io, files};
use firstlight_machine::PcMachine;

/// The most disks of a controller that programs see.
const MOST_UNITS: usize = 64;
/// The most disks of all controllers that programs see: each takes room on the heap.
const MOST_DISKS: usize = 128;
/// The most partitions of a disk that programs see, so that one disk leaves handles for the others.
const MOST_PARTITIONS: usize = 32;
/// So many disks read far ahead; others have [`SMALL_ROOM`].
const MOST_LARGE: usize = 2;
/// So many disks read ahead at all. The windows of all together have less than 4 MiB.
const MOST_AHEAD: usize = 16;
/// What a later disk has to read ahead.
const SMALL_ROOM: u64 = (64 << 10) + Disk::LEAST_ROOM;

/// A controller that may have disks.
#[derive(Debug)]
pub struct Controller {
    /// What it is.
    pub candidate: Candidate,
    /// How many disks it has, or why none, once it was started.
    pub found: Option<Result<usize, Error>>,
    /// The volumes on its disks.
    pub volumes: Vec<boot_manager::Volume>,
    /// Warnings about partitions that cannot be read.
    unreadable: RateLimited<4>,
}

impl Controller {
    /// One that was not started.
    pub const fn new(candidate: Candidate) -> Self {
        Self { candidate, found: None, volumes: Vec::new(), unreadable: RateLimited::new() }
    }
}

impl Running {
    /// Starts a controller, unless it was started, and makes handles of its disks. Returns how many there are.
    ///
    /// # Errors
    /// Why there are none, which stays so.
    pub fn start_controller(&mut self, index: usize) -> Result<usize, Error> {
        let controller = self.controllers.get(index).ok_or(Error::OutOfRange)?;
        if let Some(found) = controller.found {
            return found;
        }
        let candidate = controller.candidate;
        let found = self.add_disks(index, &candidate);
        self.disks.give_up_lost(&mut self.services.memory);
        if let Some(controller) = self.controllers.get_mut(index) {
            controller.found = Some(found);
            if let Some(rest) = controller.unreadable.rest() {
                firstlight::warn!("{candidate}: {rest} more partitions cannot be read");
            }
        }
        found
    }

    fn add_disks(&mut self, index: usize, candidate: &Candidate) -> Result<usize, Error> {
        let Self { machine, services, disks, .. } = self;
        let room = reserve(services, candidate.room())?;
        let started = Started::start(machine, candidate, room).inspect_err(|&error| {
            // It may have ignored its reset too.
            if error == Error::Timeout {
                let _ = services.memory.give_up(room);
            }
        })?;
        let id = disks.add_controller(started).map_err(|(_, mut started)| {
            // No request is under way.
            let _ = started.stop(machine);
            Error::NoRoom
        })?;
        let mut units = Vec::new();
        let mut is_lost = false;
        let most = MOST_DISKS.saturating_sub(disks.count()).min(MOST_UNITS);
        let controller = disks.controller(id).ok_or(Error::NoRoom)?;
        controller.units(machine, &mut |unit| {
            is_lost |= units.len() >= most || heap::push(&mut units, unit).is_err();
        })?;
        if is_lost {
            firstlight::warn!("{candidate}: there are more disks than programs see");
        }
        let (mut count, mut failed) = (0_usize, 0_usize);
        let mut last = Ok(());
        for unit in &units {
            match self.add_disk(index, candidate, id, *unit) {
                // An empty drive is no disk.
                Ok(()) => count = count.saturating_add(usize::from(unit.media.blocks != 0)),
                Err(error) => (failed, last) = (failed.saturating_add(1), Err(error)),
            }
        }
        if let Err(error) = last {
            firstlight::warn!("{candidate}: {failed} disks are left out, the last because {error}");
            if count == 0 {
                return Err(error);
            }
        }
        Ok(count)
    }

    /// Makes handles of a disk, its partitions and its volumes.
    fn add_disk(
        &mut self,
        index: usize,
        candidate: &Candidate,
        controller: ControllerId,
        unit: Unit,
    ) -> Result<(), Error> {
        let room = match (unit.media.blocks, self.disks.count()) {
            (0, _) => Disk::LEAST_ROOM,
            (_, count) if count < MOST_LARGE => Disk::ROOM,
            (_, count) if count < MOST_AHEAD => SMALL_ROOM,
            _ => Disk::LEAST_ROOM,
        };
        let disk = Disk::new(unit, reserve(&mut self.services, room)?)?;
        let id = self.disks.add_disk(controller, disk).map_err(no_room)?;
        let path = controller_nodes(candidate).and_then(|path| unit_node(path, unit.address)).map_err(no_room)?;
        let nodes = path.without_end();
        let mut partitions = Vec::new();
        if unit.media.blocks != 0
            && let Some(mut blocks) = self.disks.on(&mut self.machine).blocks(id)
        {
            partitions = partition::find(&mut blocks)?;
        }
        let place = (index, unit);
        self.add_handle(place, PathBuilder::new().nodes(&nodes), id, partitions.is_empty())?;
        if partitions.len() > MOST_PARTITIONS {
            firstlight::warn!("{candidate}: only the first {MOST_PARTITIONS} partitions of a disk are used");
        }
        for partition in partitions.iter().take(MOST_PARTITIONS) {
            let extended = partition.extended.and_then(|extended| partitions.get(usize::from(extended)));
            let mut path = PathBuilder::new().nodes(&nodes).map_err(no_room)?;
            if let Some(extended) = extended {
                path = partition_node(path, extended).map_err(no_room)?;
            }
            let id = self.disks.add_partition(id, partition.extent).map_err(no_room)?;
            self.add_handle(place, partition_node(path, partition), id, true)?;
        }
        Ok(())
    }

    /// Makes a handle of a disk or partition of the controller with this index, with its volume if it may have one.
    fn add_handle(
        &mut self,
        (index, unit): (usize, Unit),
        path: Result<PathBuilder, HeapFull>,
        id: BlockId,
        may_be_volume: bool,
    ) -> Result<(), Error> {
        let path = path.and_then(PathBuilder::end).map_err(no_room)?;
        let Self { machine, services, disks, files, controllers, .. } = self;
        let controller = controllers.get_mut(index).ok_or(Error::OutOfRange)?;
        let media = disks.io(id).ok_or(Error::OutOfRange)?.media_bytes();
        let handle = install(machine, services, None, DEVICE_PATH, &path)?;
        let media = services.pool_of(machine, &media).map_err(no_room)?;
        let interface = block_io::interface(id, media);
        install(machine, services, Some(handle), BlockIoProtocol::GUID, interface.as_bytes())?;
        let mut source = disks.on(machine);
        let fat = match source.blocks(id).filter(|_| may_be_volume) {
            Some(mut blocks) => Fat::open(&mut blocks),
            None => Err(fat::Error::NotFat),
        };
        let fat = match fat {
            Ok(fat) => fat,
            Err(fat::Error::NotFat) => return Ok(()),
            Err(error) => {
                let Controller { candidate, unreadable, .. } = controller;
                unreadable.warn(format_args!("{candidate}: {error}"));
                return Ok(());
            }
        };
        let volume = files.add(Volume::Fat(FatVolume::new(id, fat))).map_err(no_room)?;
        let interface = files::volume_interface(volume);
        install(machine, services, Some(handle), SimpleFileSystemProtocol::GUID, interface.as_bytes())?;
        heap::push(&mut controller.volumes, boot_manager::Volume { unit: unit.address, path }).map_err(no_room)
    }
}

/// Installs a protocol whose interface has these bytes.
fn install(
    machine: &mut PcMachine,
    services: &mut Services,
    on: Option<Handle>,
    guid: Guid,
    interface: &[u8],
) -> Result<Handle, Error> {
    let at = services.pool_of(machine, interface).map_err(no_room)?;
    services.install(on, guid, at).map_err(no_room)
}

/// Pages for `len` bytes that are the firmware's own.
fn reserve(services: &mut Services, len: u64) -> Result<PhysRange, Error> {
    services.memory.reserve_pages(len.div_ceil(Alignment::PAGE.bytes())).map_err(no_room)
}

fn no_room<E>(_: E) -> Error {
    Error::NoRoom
}
