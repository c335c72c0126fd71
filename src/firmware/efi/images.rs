//! Images that are loaded from disks, by `LoadImage` and by the boot manager.
//!
//! Each section goes from the disk straight to its place, without a copy. With a TPM, the file is read to a pool first, because
//! what is measured has to be what is loaded.

use uefi_raw::Status;
use uefi_raw::table::boot::MemoryType;

use firstlight::addr::PhysRange;
use firstlight::efi::device_path::DevicePath;
use firstlight::efi::disks::OnDisk;
use firstlight::efi::handles::Handle;
use firstlight::efi::protocols::tcg2::ImageLoad;

use super::calls::run_image;
use super::files;
use super::state::{Running, with};
impl Running {
    /// Loads the image with the device path `path`, if it is a file on one of the firmware's own volumes. `None` if not.
    ///
    /// # Errors
    /// Those of `Services::load_file`.
    pub fn load_from_disk(&mut self, parent: Option<Handle>, path: &[u8]) -> Result<Option<Handle>, Status> {
        self.try_load_from_disk(parent, path).inspect_err(|_| self.disks.give_up_lost(&mut self.services.memory))
    }

    fn try_load_from_disk(&mut self, parent: Option<Handle>, path: &[u8]) -> Result<Option<Handle>, Status> {
        let Self { machine, services, disks, files, tcg2, .. } = self;
        let path = DevicePath::parse(path).ok_or(Status::INVALID_PARAMETER)?;
        let Some((interface, names)) = services.volume_of(machine, path)? else { return Ok(None) };
        let Some(volume) = files::own_volume(machine, interface)? else { return Ok(None) };
        let mut file = match files.find(&mut disks.on(machine), volume, &names) {
            Err(Status::NOT_FOUND) | Ok(None) => return Ok(None),
            Err(status) => return Err(status),
            Ok(Some(file)) => file,
        };
        let Some(tcg2) = tcg2 else {
            let mut file = OnDisk { disks, file };
            return services.load_file(machine, parent, Some(path), &mut file, &mut |_, _, _| Ok(())).map(Some);
        };
        let pool = services.memory.allocate_pool(MemoryType::BOOT_SERVICES_DATA, file.len())?;
        let mut bytes = PhysRange::new(pool, file.len()).ok_or(Status::OUT_OF_RESOURCES)?;
        let source = bytes;
        let read =
            file.load(&mut disks.on(machine), 0, bytes).inspect_err(|_| disks.give_up_lost(&mut services.memory));
        let loaded = read.and_then(|()| {
            services.load_file(machine, parent, Some(path), &mut bytes, &mut |machine, placed, path| {
                tcg2.measure_image(machine, source, &ImageLoad { placed, path })
            })
        });
        // It is the firmware's, so it can be freed.
        let _ = services.free_pool(machine, pool.get());
        loaded.map(Some)
    }
}

/// Loads and starts the program with the device path `path`, with these load options, on the stack of programs. Returns what it
/// returned. Its pages, its events and the files that it has open are gone then; what it has allocated stays.
///
/// # Errors
/// `NOT_FOUND` without the file; those of `Services::load_file` and [`run_image`].
pub fn run_program(path: &[u8], options: &[u8]) -> Result<Status, Status> {
    let load = |running: &mut Running| {
        let handle = running.load_from_disk(None, path)?.ok_or(Status::NOT_FOUND)?;
        let stack = running.boot.stack.end().get();
        let Running { machine, services, .. } = running;
        match services.set_load_options(machine, handle, options) {
            Ok(pool) => Ok((handle, pool, stack)),
            Err(status) => {
                let _ = services.forget_image(machine, handle);
                Err(status)
            }
        }
    };
    let (handle, pool, stack) = with(load).unwrap_or(Err(Status::DEVICE_ERROR))?;
    let returned = run_image(handle.raw(), stack).map(|(status, _)| status);
    with(|Running { machine, services, files, .. }| {
        // A driver that succeeded stays loaded. The pool is the firmware's, unless the program freed it.
        if returned.is_err() {
            let _ = services.forget_image(machine, handle);
        }
        if let Some(pool) = pool {
            let _ = services.free_pool(machine, pool);
        }
        // The next program may open as many as this one. One that the program has only loaded has none open.
        if !services.has_started_images() {
            files.close_all();
        }
    });
    returned
}
