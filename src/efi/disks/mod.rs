//! The disks and partitions that EFI programs see: the controllers that were started, each disk with its window, and the extents of
//! partitions.
//!
//! A disk or partition has a number ([`BlockId`]), which its interface in memory has behind its functions. Nothing is removed while
//! boot services run.
//!
//! The type of controllers is a parameter, so that tests bring their own.

mod on_disk;
mod path;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

pub use self::on_disk::OnDisk;
pub use self::path::{controller_nodes, partition_node, unit_node};
use super::protocols::block_io::{BlockId, BlockIo};
use super::protocols::file_system::Source;
use crate::disk::cache::{Disk, Extent, View};
use crate::disk::{Blocks, Controller};
use crate::hal::{BusMaster, Clock};
use crate::heap::{self, HeapFull};

/// The number of a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerId(usize);

#[derive(Debug)]
struct OnController {
    controller: usize,
    disk: Disk,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    disk: usize,
    extent: Extent,
    io: BlockIo,
}

/// All of them. `C` is a started controller.
#[derive(Debug)]
pub struct Disks<C> {
    controllers: Vec<C>,
    disks: Vec<OnController>,
    blocks: Vec<Block>,
}

impl<C> Default for Disks<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C> Disks<C> {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { controllers: Vec::new(), disks: Vec::new(), blocks: Vec::new() }
    }

    /// Adds a controller that was started. It is stopped by [`Self::stop`].
    ///
    /// # Errors
    /// [`HeapFull`] with the controller, for the caller to stop.
    pub fn add_controller(&mut self, controller: C) -> Result<ControllerId, (HeapFull, C)> {
        if self.controllers.try_reserve(1).is_err() {
            return Err((HeapFull, controller));
        }
        let id = ControllerId(self.controllers.len());
        // There is room for it.
        let _ = heap::push_within_capacity(&mut self.controllers, controller);
        Ok(id)
    }

    /// A controller.
    pub fn controller(&mut self, id: ControllerId) -> Option<&mut C> {
        self.controllers.get_mut(id.0)
    }

    /// Adds a disk of a controller.
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn add_disk(&mut self, controller: ControllerId, disk: Disk) -> Result<BlockId, HeapFull> {
        let (extent, io) = (disk.whole(), BlockIo::disk(disk.unit().media));
        let index = self.disks.len();
        heap::push(&mut self.disks, OnController { controller: controller.0, disk })?;
        self.add(Block { disk: index, extent, io })
    }

    /// Adds a partition of a disk.
    ///
    /// # Errors
    /// [`HeapFull`], also if there is no such disk.
    pub fn add_partition(&mut self, disk: BlockId, extent: Extent) -> Result<BlockId, HeapFull> {
        let disk = self.block(disk).ok_or(HeapFull)?.disk;
        let media = self.disks.get(disk).ok_or(HeapFull)?.disk.unit().media;
        self.add(Block { disk, extent, io: BlockIo::partition(media, extent.blocks) })
    }

    fn add(&mut self, block: Block) -> Result<BlockId, HeapFull> {
        let id = BlockId::from_raw(self.blocks.len() as u64);
        heap::push(&mut self.blocks, block)?;
        Ok(id)
    }

    fn block(&self, id: BlockId) -> Option<&Block> {
        self.blocks.get(usize::try_from(id.raw()).ok()?)
    }

    /// The protocol of a disk or partition. `None` if there is none of this number.
    #[must_use]
    pub fn io(&self, id: BlockId) -> Option<&BlockIo> {
        self.block(id).map(|block| &block.io)
    }

    /// How many disks there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.disks.len()
    }

    /// The disks with the machine that reads them.
    pub const fn on<'d, M>(&'d mut self, machine: &'d mut M) -> Attached<'d, M, C> {
        Attached { disks: self, machine }
    }

    /// What reads a disk or partition. `None` if there is none of this number.
    pub fn view<'d, M>(&'d mut self, machine: &'d mut M, id: BlockId) -> Option<View<'d, M, C>> {
        let Block { disk, extent, .. } = *self.block(id)?;
        let on = self.disks.get_mut(disk)?;
        let controller = self.controllers.get_mut(on.controller)?;
        Some(on.disk.view(machine, controller, extent))
    }

    /// Makes all controllers quiet, and forgets all disks: no device accesses memory from now on.
    pub fn stop<M: BusMaster + Clock>(&mut self, machine: &mut M)
    where
        C: Controller<M>,
    {
        for controller in &mut self.controllers {
            // There was a warning, and no request is under way.
            let _ = controller.stop(machine);
        }
        self.controllers.clear();
        self.disks.clear();
        self.blocks.clear();
    }
}

/// Disks that can be read.
#[derive(Debug)]
pub struct Attached<'d, M, C> {
    disks: &'d mut Disks<C>,
    machine: &'d mut M,
}

impl<M: BusMaster + Clock, C: Controller<M>> Source for Attached<'_, M, C> {
    fn blocks(&mut self, block: BlockId) -> Option<impl Blocks> {
        self.disks.view(self.machine, block)
    }
}
