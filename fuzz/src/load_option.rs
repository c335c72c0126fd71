//! Load options and the variables that name them, with programs that set others: a whole boot from disks.
//!
//! Input: variables of the start, then the keys that a user presses in the menu, and what programs do: which variables they set, and what they return.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use firstlight::disk::{self, UnitAddress};
use firstlight::efi::boot_manager::boot_order::{BootOrder, Location};
use firstlight::efi::boot_manager::load_option::LoadOption;
use firstlight::efi::boot_manager::menu::Wait;
use firstlight::efi::boot_manager::{GLOBAL, Host, Volume, boot};
use firstlight::efi::device_path::{DevicePath, MEDIA, MEDIA_FILE, MEDIA_HARD_DRIVE, PathBuilder};
use firstlight::efi::protocols::text_input::scan_code::ESCAPE;
use firstlight::heap::HeapFull;
use uefi_raw::protocol::console::InputKey;
use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Guid, Status};

use crate::input::Input;

/// Controllers of the host, and disks of each.
const CONTROLLERS: usize = 3;
/// Programs that run in one boot, at most: one a volume and an option, and those that `BootNext` names.
const MOST_RUNS: usize = 256 * CONTROLLERS + 64;

struct FakeHost<'a> {
    input: RefCell<Input<'a>>,
    started: [bool; CONTROLLERS],
    variables: BTreeMap<String, Vec<u8>>,
    runs: usize,
}

fn volume(controller: usize) -> PathBuilder {
    let device = controller as u8;
    let path = PathBuilder::new().node(2, 1, &[&[0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0]]);
    let path = path.and_then(|path| path.node(1, 1, &[&[0, device]])).expect("room");
    hard_drive(path, controller)
}

fn hard_drive(path: PathBuilder, controller: usize) -> PathBuilder {
    path.node(MEDIA, MEDIA_HARD_DRIVE, &[&[1, 0, 0, 0], &[0; 16], &[controller as u8; 16], &[2, 2]]).expect("room")
}

impl Host for FakeHost<'_> {
    type Name = &'static str;

    fn name(&self, controller: usize) -> Option<&'static str> {
        ["first", "second", "third"].get(controller).copied()
    }

    fn is_at(&self, controller: usize, location: &Location) -> bool {
        matches!(location, Location::Pci { root: 0, steps } if steps[..] == [(controller as u8, 0)])
    }

    fn start(&mut self, controller: usize) -> Result<usize, disk::Error> {
        self.started[controller] = true;
        if controller == 1 { Err(disk::Error::Timeout) } else { Ok(1) }
    }

    fn volume(&mut self, controller: usize, number: usize) -> Result<Option<Volume>, HeapFull> {
        assert!(self.started[controller] && controller != 1);
        let path = volume(controller).end()?;
        Ok((number == 0).then_some(Volume { unit: UnitAddress::Only, path }))
    }

    fn run(&mut self, path: &[u8], _options: &[u8]) -> Result<Status, Status> {
        assert_eq!(DevicePath::parse(path).map(|parsed| parsed.bytes().len()), Some(path.len()));
        self.runs += 1;
        let (kind, sets) = {
            let mut input = self.input.borrow_mut();
            (input.take::<u8>(), variables(&mut input))
        };
        self.variables.extend(sets);
        match kind % 4 {
            0 => Err(Status::NOT_FOUND),
            1 => Err(Status::LOAD_ERROR),
            2 => Ok(Status::SUCCESS),
            _ => Ok(Status::ABORTED),
        }
    }

    fn variable(&mut self, name: &str, vendor: Guid) -> Option<Vec<u8>> {
        assert_eq!(vendor, GLOBAL);
        self.variables.get(name).cloned()
    }

    fn set_variable(
        &mut self,
        name: &str,
        _vendor: Guid,
        attributes: VariableAttributes,
        data: &[u8],
    ) -> Result<(), Status> {
        assert_eq!(attributes.is_empty(), data.is_empty());
        if data.is_empty() {
            return self.variables.remove(name).map(|_| ()).ok_or(Status::NOT_FOUND);
        }
        self.variables.insert(name.into(), data.to_vec());
        Ok(())
    }

    fn print(&mut self, _text: fmt::Arguments<'_>) {}

    fn key(&mut self, _milliseconds: u32) -> Option<InputKey> {
        let key = self.input.borrow_mut().take::<u8>();
        (key != 0).then(|| InputKey { scan_code: if key == 1 { ESCAPE } else { 0 }, unicode_char: key.into() })
    }

    fn forget_keys(&mut self) {}
}

/// A few variables.
fn variables(input: &mut Input<'_>) -> Vec<(String, Vec<u8>)> {
    let count = input.take::<u8>() % 4;
    let one = |_| {
        let name = match input.take::<u8>() % 8 {
            0 => "BootNext".into(),
            1 => "BootOrder".into(),
            number => format!("Boot{number:04X}"),
        };
        (name, input.short().to_vec())
    };
    (0..count).map(one).filter(|(_, data)| !data.is_empty()).collect()
}

/// Boots until nothing is left to try. That ends, leaves no `BootCurrent`, and the line that says what was tried is one line.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let order = BootOrder::parse(input.short());
    let variables: BTreeMap<_, _> = variables(&mut input).into_iter().collect();
    for data in variables.values() {
        if let Ok(option) = LoadOption::parse(data) {
            assert!(option.path.bytes().len() + option.data.len() + 8 <= data.len());
            assert!(data.ends_with(option.data));
        }
    }
    let mut host = FakeHost { input: RefCell::new(input), started: [false; CONTROLLERS], variables, runs: 0 };
    let menu = order.places.len().is_multiple_of(2).then_some(Wait(1000));
    let tried = boot(&mut host, &order, menu).to_string();
    crate::one_line(&tried);
    assert!(tried.len() < 1000, "{tried}");
    assert!(host.runs <= MOST_RUNS, "{} programs", host.runs);
    assert!(!host.variables.contains_key("BootCurrent"));
    let listed = |index| order.places.iter().flatten().any(|place| host.is_at(index, &place.controller));
    assert!(!order.is_strict || (0..CONTROLLERS).all(|index| !host.started[index] || listed(index)));
}

/// Options of each kind of path, with the variables that name them.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let name: Vec<u8> = "\\EFI\\a.efi\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let file = |path: PathBuilder| path.node(MEDIA, MEDIA_FILE, &[&name]).and_then(PathBuilder::end).expect("room");
    let paths = [
        file(PathBuilder::new()),
        file(hard_drive(PathBuilder::new(), 2)),
        file(volume(0)),
        volume(2).end().expect("room"),
    ];
    let option = |path: &Vec<u8>| {
        let len = path.len() as u16;
        [&[1, 0, 0, 0], &len.to_le_bytes()[..], &[b'x', 0, 0, 0], path, b"options"].concat()
    };
    let short = |bytes: &[u8]| [&[bytes.len() as u8], bytes].concat();
    let seed = |order: &[u8], first: u8, path: &Vec<u8>| {
        let set = [&[3, first][..], &short(&[2, 0]), &[2], &short(&option(path)), &[1], &short(&[2, 0, 3, 0])].concat();
        // Programs that return, and one that sets the same again.
        [&short(order)[..], &set, &[2], &set, &[3, 0], &[2, 0]].concat()
    };
    let orders: [&[u8]; 2] = [b"", b"/pci@i0cf8/scsi@2/disk@0,0\nHALT\0"];
    orders
        .into_iter()
        .flat_map(|order| paths.iter().map(move |path| (order, path)))
        .map(|(order, path)| seed(order, 0, path))
        .collect()
}
