//! An EFI program that calls EFI's services and prints what they return.
//!
//! It uses the published `uefi` crate, which nothing of the firmware shares but the definitions of `uefi-raw`. Each line has a
//! subject and a result that does not depend on addresses or times, so the lines of two firmwares can be compared
//! (`tests/qemu/efi_compared.rs`). The program starts itself as its own child; the load options tell them apart.
//!
//! It assumes that it is alone: no driver of the firmware's uses its protocols, events or variables.

#![no_main]
#![no_std]

extern crate alloc;

mod devices;
mod end;
mod events;
mod files;
mod handles;
mod images;
mod memory;
mod paths;
mod report;
mod system;
mod variables;

use uefi::prelude::*;

#[entry]
fn main() -> Status {
    if let Some(status) = images::as_child() {
        return status;
    }
    system::check();
    memory::check();
    handles::check();
    events::check();
    images::check();
    paths::check();
    files::check();
    variables::check();
    devices::check();
    end::check()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    report::line("panic", info);
    end::turn_off()
}
