//! The boot manager (UEFI 3): which programs on disks are started, and in which order.
//!
//! The order is: the drives in the host's boot order, each with its program for removable media; what `BootOrder` names; the other
//! disks, in the order in which their controllers were found. `BootNext` comes before whatever is next. Where the host's order is
//! strict, nothing but its drives is tried. A program that returns, and one that cannot be loaded, is followed by the next.
//!
//! Variables do not outlive a reset. So `BootNext` and `BootOrder` are there only if a program has set them in this boot and then
//! returned. The boot manager makes no options of its own, and `BootCurrent` is there only for a program that an option names.
//!
//! A controller is started when a program may be on its disks, and not before. Before all that, the host may want a menu.
//!
//! Left out: `SysPrep####` and `Driver####`, `OsRecovery####`, hot keys, and the choice of a platform's recovery.

pub mod boot_order;
pub mod load_option;
pub mod menu;
pub mod target;
#[cfg(test)]
mod tests;
pub mod tried;

use alloc::vec::Vec;
use core::fmt::{self, Write};

use uefi_raw::protocol::console::InputKey;
use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Guid, Status, guid};

use self::boot_order::{BootOrder, Drive, Location};
use self::load_option::LoadOption;
use self::target::{Place, Target};
use self::tried::Tried;
use crate::disk::{self, UnitAddress};
use crate::efi::device_path::text::PathText;
use crate::efi::device_path::{DevicePath, MEDIA, MEDIA_CD_ROM, MEDIA_HARD_DRIVE};
use crate::efi::printable::Printable;
use crate::heap::{self, HeapFull};

/// A volume with files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The disk that it is on.
    pub unit: UnitAddress,
    /// Its device path.
    pub path: Vec<u8>,
}

/// What the boot manager works with.
pub trait Host {
    /// A controller's name for the user, such as `virtio disk at 00:02.0`.
    type Name: fmt::Display + Copy;

    /// The name of a controller. `None` if there are not so many.
    fn name(&self, controller: usize) -> Option<Self::Name>;

    /// Where a controller is.
    fn is_at(&self, controller: usize, location: &Location) -> bool;

    /// Starts a controller, unless it was started, and shows its disks to programs. Returns how many there are.
    ///
    /// # Errors
    /// Why there are none, which stays so.
    fn start(&mut self, controller: usize) -> Result<usize, disk::Error>;

    /// A volume on the disks of a controller that was started, by its number: those of a disk are in the order of its partitions.
    /// `None` if there are not so many.
    ///
    /// # Errors
    /// [`HeapFull`].
    fn volume(&mut self, controller: usize, number: usize) -> Result<Option<Volume>, HeapFull>;

    /// Loads the program with this device path, starts it with these load options, and unloads it when it returns. Returns what it
    /// returned.
    ///
    /// # Errors
    /// Why it could not be loaded or started.
    fn run(&mut self, path: &[u8], options: &[u8]) -> Result<Status, Status>;

    /// The data of a variable. `None` if there is none, and if it cannot be read.
    fn variable(&mut self, name: &str, vendor: Guid) -> Option<Vec<u8>>;

    /// Sets a variable, or deletes it if there is no data.
    ///
    /// # Errors
    /// Those of `SetVariable`.
    fn set_variable(
        &mut self,
        name: &str,
        vendor: Guid,
        attributes: VariableAttributes,
        data: &[u8],
    ) -> Result<(), Status>;

    /// Shows text on the console.
    fn print(&mut self, text: fmt::Arguments<'_>);

    /// The next key that is pressed on the console, without what a terminal answers by itself. `None` if none comes for so many
    /// milliseconds.
    fn key(&mut self, milliseconds: u32) -> Option<InputKey>;

    /// Drops the keys that came and were not read.
    fn forget_keys(&mut self);
}

/// The vendor of the variables that the specification defines (UEFI 3.3).
pub const GLOBAL: Guid = guid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
/// The vendor of shim's variables (`include/guid.h`, `SHIM_LOCK_GUID`).
pub const SHIM: Guid = guid!("605dab50-e046-4300-abb6-3dd810dd8b23");

/// The attributes of `BootCurrent` (UEFI 3.3).
const VOLATILE: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);

/// The most options that `BootOrder` names.
const MOST_OPTIONS: usize = 256;
/// How many times in a boot `BootNext` counts: programs that set it and return would never end.
const MOST_NEXT: u32 = 16;

/// Starts one program after the other, until one does not return. Returns what was tried. `menu` is there if the host wants a menu.
#[cold]
pub fn boot(host: &mut impl Host, order: &BootOrder, menu: Option<menu::Wait>) -> Tried {
    crate::info!("EFI: variables are lost when the machine is reset, those with NON_VOLATILE too");
    // With a TPM, shim's fallback resets the machine after it has set a boot option, which a reset removes: it would do so for
    // ever. It does not if this number is 1 (shim, `fallback.c`, `get_fallback_no_reboot`).
    let _ = host.set_variable("FB_NO_REBOOT", SHIM, VariableAttributes::BOOTSERVICE_ACCESS, &1_u32.to_le_bytes());
    let mut manager =
        Manager { host, is_strict: order.is_strict, tried: Tried::default(), removable: Vec::new(), next: 0 };
    if menu.map_or(Ok(()), |wait| manager.menu(order, wait)).and_then(|()| manager.all(order)).is_err() {
        manager.tried.add(format_args!("the firmware's heap is full"));
    }
    if manager.tried.is_empty() {
        manager.tried.add(format_args!("the host's boot order is strict (QEMU -boot strict=on) and names no disk"));
    }
    manager.tried
}

struct Manager<'h, H> {
    host: &'h mut H,
    /// Whether only what the host lists is tried.
    is_strict: bool,
    tried: Tried,
    /// The volumes whose program for removable media was tried: the controller, and the number of the volume.
    removable: Vec<(usize, usize)>,
    /// How many times `BootNext` has counted.
    next: u32,
}

impl<H: Host> Manager<'_, H> {
    fn all(&mut self, order: &BootOrder) -> Result<(), HeapFull> {
        for (place, line) in order.places.iter().zip(1_usize..) {
            let Some(place) = place else {
                self.tried.add(format_args!("line {line} of the boot order: not a virtio, NVMe or AHCI disk"));
                continue;
            };
            let mut index = 0_usize;
            while self.host.name(index).is_some() && !self.host.is_at(index, &place.controller) {
                index = index.saturating_add(1);
            }
            if !self.removable(index, Some(place.drive))? {
                self.tried.add(format_args!("line {line} of the boot order: no controller of disks is there"));
            }
        }
        if !self.is_strict {
            self.boot_order()?;
            let mut index = 0_usize;
            while self.removable(index, None)? {
                index = index.saturating_add(1);
            }
            self.boot_next()?;
        }
        Ok(())
    }

    /// Tries the programs for removable media of a controller's disks, or of one of them. `false` without the controller.
    fn removable(&mut self, controller: usize, drive: Option<Drive>) -> Result<bool, HeapFull> {
        let target = Target { place: Place::Anywhere, file: None };
        let option = Program { label: None, target, drive, data: &[] };
        let found = self.try_controller(controller, &option)?;
        if let (Some(false), Some(name)) = (found, self.host.name(controller)) {
            self.tried.add(format_args!("{name}: no FAT file system"));
        }
        Ok(found.is_some())
    }

    /// Tries the programs on a controller's volumes. Returns whether there are volumes, or disks are missing; `None` without the
    /// controller.
    fn try_controller(&mut self, controller: usize, program: &Program<'_>) -> Result<Option<bool>, HeapFull> {
        let Some(name) = self.host.name(controller) else { return Ok(None) };
        let count = self.host.start(controller);
        if !matches!(count, Ok(1..)) {
            match count {
                Ok(_) => self.tried.add(format_args!("{name}: no disks")),
                Err(error) => self.tried.add(format_args!("{name}: {error}")),
            }
            return Ok(Some(program.label.is_none()));
        }
        let (mut found, mut number) = (false, 0_usize);
        while let Some(volume) = self.host.volume(controller, number)? {
            let path = DevicePath::parse(&volume.path).filter(|&path| program.target.is_on(path));
            if let Some(path) = path.filter(|_| program.drive.is_none_or(|drive| drive.is(volume.unit))) {
                found = true;
                let place = Where { label: program.label, controller: name, unit: volume.unit, volume: path };
                self.try_on(&place, (controller, number), program)?;
            }
            number = number.saturating_add(1);
        }
        Ok(Some(found))
    }

    /// Tries the options that `BootOrder` names.
    fn boot_order(&mut self) -> Result<(), HeapFull> {
        let order = self.host.variable("BootOrder", GLOBAL).unwrap_or_default();
        let (numbers, _) = order.as_chunks::<2>();
        let numbers = numbers.get(..MOST_OPTIONS).unwrap_or(numbers);
        for (index, number) in numbers.iter().enumerate() {
            self.boot_next()?;
            // An option is tried once, however often it is named.
            if !numbers.iter().take(index).any(|before| before == number) {
                self.option(u16::from_le_bytes(*number), false)?;
            }
        }
        Ok(())
    }

    /// Tries the option that `BootNext` names, as long as there is one. The variable is deleted before.
    fn boot_next(&mut self) -> Result<(), HeapFull> {
        while !self.is_strict
            && self.next < MOST_NEXT
            && let Some(next) = self.host.variable("BootNext", GLOBAL)
        {
            self.next = self.next.saturating_add(1);
            // Without attributes, a variable is deleted whatever its own are.
            let deleted = self.host.set_variable("BootNext", GLOBAL, VariableAttributes::empty(), &[]);
            match (deleted, <[u8; 2]>::try_from(&next[..])) {
                (Ok(()), Ok(number)) => self.option(u16::from_le_bytes(number), true)?,
                _ => crate::warn!("EFI: BootNext is not used: it is no number, or cannot be deleted"),
            }
        }
        Ok(())
    }

    /// Tries an option. `is_next` is whether `BootNext` names it, which an inactive one may be.
    #[inline(never)]
    fn option(&mut self, number: u16, is_next: bool) -> Result<(), HeapFull> {
        let label = Label(number);
        let name = label.name();
        let name = str::from_utf8(&name).unwrap_or_default();
        let Some(data) = self.host.variable(name, GLOBAL) else {
            self.tried.add(format_args!("{label}: there is none"));
            return Ok(());
        };
        let option = match LoadOption::parse(&data) {
            Ok(option) => option,
            Err(error) => {
                crate::warn!("EFI: {label} is skipped: {error}");
                self.tried.add(format_args!("{label}: {error}"));
                return Ok(());
            }
        };
        if !is_next && !option.boots_by_itself() {
            self.tried.add(format_args!("{label}: inactive"));
            return Ok(());
        }
        if self.host.set_variable("BootCurrent", GLOBAL, VOLATILE, &number.to_le_bytes()).is_err() {
            crate::warn!("EFI: BootCurrent cannot be set");
        }
        let target = Target::of_path(option.path);
        let program = Program { label: Some(label), target, drive: None, data: option.data };
        let (mut found, mut index) = (false, 0_usize);
        while !(found && target.is_on_one())
            && let Some(is_there) = self.try_controller(index, &program)?
        {
            found |= is_there;
            index = index.saturating_add(1);
        }
        if !found {
            self.tried.add(format_args!("{label}: no disk has {}", PathText(option.path)));
        }
        let _ = self.host.set_variable("BootCurrent", GLOBAL, VariableAttributes::empty(), &[]);
        Ok(())
    }

    /// Tries a program on a volume. One for removable media is tried once.
    fn try_on(
        &mut self,
        place: &Where<'_, H::Name>,
        number: (usize, usize),
        program: &Program<'_>,
    ) -> Result<(), HeapFull> {
        if program.target.file.is_none() {
            if self.removable.contains(&number) {
                return Ok(());
            }
            heap::push(&mut self.removable, number)?;
        }
        if program.label.is_none() {
            self.boot_next()?;
        }
        let path = program.target.path_on(place.volume)?;
        let file = DevicePath::parse(&path).and_then(|path| path.strip_prefix(place.volume));
        let Some(file) = file.map(PathText) else { return Ok(()) };
        let file = Printed(&file);
        crate::info!("EFI: starts {file} on {place}");
        match self.host.run(&path, program.data) {
            Err(Status::NOT_FOUND) => self.tried.add(format_args!("{place}: no {file}")),
            Err(Status::OUT_OF_RESOURCES) => {
                self.report(format_args!("{place}: {file} cannot be started: try more memory (QEMU -m)"));
            }
            Err(status) => self.report(format_args!("{place}: {file} cannot be started: {status}")),
            Ok(status) => self.report(format_args!("{place}: {file} returned: {status}")),
        }
        Ok(())
    }

    /// Says why a program that is there has not booted.
    fn report(&mut self, what: fmt::Arguments<'_>) {
        crate::warn!("EFI: {what}");
        self.tried.add(what);
    }
}

/// A program that may be on several volumes.
struct Program<'a> {
    /// The option that names it, if one does.
    label: Option<Label>,
    /// What it is, and where.
    target: Target<'a>,
    /// The only drive whose volumes count, if it is one.
    drive: Option<Drive>,
    /// Its load options.
    data: &'a [u8],
}

/// An option, by its number.
#[derive(Clone, Copy)]
struct Label(u16);

impl Label {
    /// Its variable's name.
    fn name(self) -> [u8; 8] {
        let digit = |shift: u32| match (self.0.wrapping_shr(shift) & 0xf) as u8 {
            digit @ 0..10 => b'0'.wrapping_add(digit),
            digit => b'A'.wrapping_add(digit).wrapping_sub(10),
        };
        [b'B', b'o', b'o', b't', digit(12), digit(8), digit(4), digit(0)]
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.name()).unwrap_or_default())
    }
}

/// Where a program is: `Boot0001, AHCI at 00:1f.2, port 0, partition 1`.
struct Where<'a, N> {
    /// The option that names it, if one does.
    label: Option<Label>,
    controller: N,
    unit: UnitAddress,
    volume: DevicePath<'a>,
}

impl<N: fmt::Display> fmt::Display for Where<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(label) = self.label {
            write!(f, "{label}, ")?;
        }
        write!(f, "{}", self.controller)?;
        match self.unit {
            UnitAddress::Only => {}
            UnitAddress::Scsi { target, lun } => write!(f, ", target {target} unit {lun}")?,
            UnitAddress::Namespace { id, .. } => write!(f, ", namespace {id}")?,
            UnitAddress::Port(port) => write!(f, ", port {port}")?,
        }
        for node in self.volume.nodes() {
            let number = node.data.first_chunk().map_or(0, |number| u32::from_le_bytes(*number));
            match (node.kind, node.sub_kind) {
                (MEDIA, MEDIA_HARD_DRIVE) => write!(f, ", partition {number}")?,
                (MEDIA, MEDIA_CD_ROM) => write!(f, ", boot image {number}")?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Text of others, without characters that control a terminal.
struct Printed<'a>(&'a dyn fmt::Display);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Printable(f), "{}", self.0)
    }
}
