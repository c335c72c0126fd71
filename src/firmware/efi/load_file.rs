//! The initrd as a function that a kernel's stub calls: `EFI_LOAD_FILE2_PROTOCOL` (UEFI 13.2).

use uefi_raw::Status;

use firstlight::addr::PhysAddr;
use firstlight::efi::device_path::DevicePath;
use firstlight::efi::protocols::load_file::LoadFile2;
use firstlight::efi::services::Pointers;

use super::calls::{call, checked, status_of};
use super::state::Running;

/// The protocol's function.
pub fn load_file2() -> [u64; 1] {
    [load_file as *const () as u64]
}

extern "efiapi" fn load_file(_this: u64, path: u64, policy: u8, len_at: u64, buffer: u64) -> Status {
    call(|Running { machine, boot, .. }| {
        let initrd = boot.program().and_then(|program| program.initrd).ok_or(Status::NOT_FOUND)?;
        let file = LoadFile2::initrd(initrd.len()).ok_or(Status::NOT_FOUND)?;
        let path = machine.path(path).ok();
        let path = path.as_deref().and_then(DevicePath::parse);
        let room = machine.number(len_at)?;
        let len = file.load(path, policy != 0, if buffer == 0 { 0 } else { room });
        let len = checked(machine, len, len_at)?;
        machine.set_number(len_at, len)?;
        initrd.load(machine, &boot.fw_cfg, PhysAddr::new(buffer)).map_err(status_of)?;
        Ok(())
    })
}
