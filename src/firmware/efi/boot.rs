//! The boot manager's programs: the disks of a boot without a kernel, and the variables, as the boot manager in the library wants them.

use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use uefi_raw::protocol::console::InputKey;
use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Guid, Status};

use firstlight::disk::Error;
use firstlight::disk::controllers::Candidate;
use firstlight::efi::boot_manager::boot_order::{BootOrder, Location};
use firstlight::efi::boot_manager::tried::Tried;
use firstlight::efi::boot_manager::{self, Volume, menu};
use firstlight::efi::protocols::text_input::PATIENCE;
use firstlight::efi::services;
use firstlight::hal::clock;
use firstlight::heap::{self, HeapFull};
use firstlight::tpm::Action;

use super::calls::{Images, record};
use super::images;
use super::state::{Running, TIME_SECOND, with};

/// Starts programs from disks, until one ends boot services. Returns what was tried.
#[cold]
pub fn from_disks() -> Tried {
    let wishes = with(|Running { machine, boot, terminal, .. }| {
        let order = BootOrder::of_host(machine, &boot.fw_cfg);
        // Without a serial port no key can come.
        (order, menu::Wait::of_host(machine, &boot.fw_cfg).filter(|_| terminal.can_receive()))
    });
    let (order, menu) = wishes.unwrap_or_default();
    boot_manager::boot(&mut Host { has_run: false }, &order, menu)
}

/// The host of the boot manager.
struct Host {
    /// Whether a program has run.
    has_run: bool,
}

impl boot_manager::Host for Host {
    type Name = Candidate;

    #[inline(never)]
    fn name(&self, controller: usize) -> Option<Candidate> {
        with(|running| running.controllers.get(controller).map(|controller| controller.candidate)).flatten()
    }

    fn is_at(&self, controller: usize, location: &Location) -> bool {
        self.name(controller).is_some_and(|candidate| location.is(&candidate.place))
    }

    #[inline(never)]
    fn start(&mut self, controller: usize) -> Result<usize, Error> {
        with(|running| running.start_controller(controller)).unwrap_or(Err(Error::NoRoom))
    }

    #[inline(never)]
    fn volume(&mut self, controller: usize, number: usize) -> Result<Option<Volume>, HeapFull> {
        let copy = with(|running| {
            let volumes = running.controllers.get(controller).map_or(&[][..], |controller| &controller.volumes);
            let Some(volume) = volumes.get(number) else { return Ok(None) };
            let mut path = Vec::new();
            heap::extend(&mut path, &volume.path)?;
            Ok(Some(Volume { unit: volume.unit, path }))
        });
        copy.unwrap_or(Err(HeapFull))
    }

    #[inline(never)]
    fn run(&mut self, path: &[u8], options: &[u8]) -> Result<Status, Status> {
        // The TPM has recorded the first.
        if self.has_run {
            record(Action::CallsProgram);
        }
        let returned = images::run_program(path, options);
        if returned.is_ok() {
            self.has_run = true;
            record(Action::ProgramReturned);
        }
        returned
    }

    fn variable(&mut self, name: &str, vendor: Guid) -> Option<Vec<u8>> {
        services::variable(&mut Images, name, vendor).ok()
    }

    fn set_variable(
        &mut self,
        name: &str,
        vendor: Guid,
        attributes: VariableAttributes,
        data: &[u8],
    ) -> Result<(), Status> {
        services::set_variable(&mut Images, name, vendor, attributes, data)
    }

    fn print(&mut self, text: fmt::Arguments<'_>) {
        // Without a console nobody sees it.
        let _ = with(|running| running.terminal.write_fmt(text));
    }

    fn key(&mut self, milliseconds: u32) -> Option<InputKey> {
        let end = with(Running::now)?.saturating_add(u64::from(milliseconds).saturating_mul(TIME_SECOND / 1000));
        // Whether an Escape is a key shows only after a while.
        let end_of_sequence = end.saturating_add(PATIENCE);
        loop {
            let (key, is_over) = with(|running| {
                running.look_for_key();
                let now = running.now();
                let key = running.input.pressed(now);
                let end = if running.input.is_empty() { end } else { end_of_sequence };
                (key, now >= end)
            })?;
            if key.is_some() || is_over {
                return key;
            }
            clock::pause();
        }
    }

    fn forget_keys(&mut self) {
        let _ = with(|running| {
            running.receive();
            running.input.reset();
        });
    }
}
