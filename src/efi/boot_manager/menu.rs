//! The boot menu, for a host that asks for one (QEMU `-boot menu=on`): the user chooses what is started first.
//!
//! Before anything is started, the console shows a line for some time, in which Escape opens the menu. The menu has the volumes of
//! all disks, for which all controllers are started. What is chosen is started as from a medium that can be removed; if it returns,
//! the usual order follows. In a strict order only the host's drives can be chosen.
//!
//! Left out: options that variables name (no variable outlives a reset), the host's own text and key, which QEMU does not set.

use super::boot_order::BootOrder;
use super::target::{Place, Target};
use super::{Host, Manager, Program, Where};
use crate::disk::UnitAddress;
use crate::efi::device_path::DevicePath;
use crate::efi::protocols::text_input::scan_code::ESCAPE;
use crate::fw_cfg::{FwCfg, Key};
use crate::hal::HostAccess;
use crate::heap::HeapFull;

/// How long the line is shown, 16 bits, little-endian, in milliseconds (QEMU `-boot splash-time=`).
const FILE: &str = "etc/boot-menu-wait";
/// How long, if the host does not say it: as under SeaBIOS (`src/boot.c`, `DEFAULT_BOOTMENU_WAIT`).
const DEFAULT: u16 = 2500;
/// How long the menu waits for a choice, in milliseconds: a boot without a user goes on after ten minutes.
const CHOICE: u32 = 600_000;
/// Escape leaves the menu only after so many milliseconds without a key: users press it several times to open the menu.
const SETTLE: u32 = 1500;
/// Digits and letters choose: from 1 to 9, then from a to z.
const DIGITS: u32 = 36;
/// So many keys that choose nothing are passed over.
const MOST_KEYS: u32 = 100;

/// The key for a number.
fn digit(number: u32) -> char {
    char::from_digit(number, DIGITS).unwrap_or('?')
}

/// For how many milliseconds the user may open the menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub u16);

impl Wait {
    /// The host's wish. `None` if it wants no menu.
    #[cold]
    pub fn of_host(machine: &mut impl HostAccess, fw_cfg: &FwCfg) -> Option<Self> {
        // 16 bits, which zeros follow.
        if fw_cfg.read_u32(machine, Key::BOOT_MENU) == 0 {
            return None;
        }
        Some(Self(fw_cfg.read_file(machine, FILE).map_or(DEFAULT, u16::from_le_bytes)))
    }
}

impl<H: Host> Manager<'_, H> {
    /// Shows the line, and the menu if the user opens it. Starts what the user chooses.
    pub(super) fn menu(&mut self, order: &BootOrder, wait: Wait) -> Result<(), HeapFull> {
        self.host.print(format_args!("Press Esc for the boot menu.\r\n"));
        if self.host.key(wait.0.into()).is_none_or(|key| key.scan_code != ESCAPE) {
            return Ok(());
        }
        let mut count = 0;
        let left_out = self.each_choice(order, |manager, number, place, _| {
            count = number;
            manager.host.print(format_args!("{}. {place}\r\n", digit(number)));
            Ok(())
        })?;
        if count == 0 {
            let which = if order.is_strict { "disk in the host's boot order, which is strict," } else { "disk" };
            self.host.print(format_args!("No {which} has a FAT file system.\r\n"));
            return Ok(());
        }
        if left_out != 0 {
            self.host.print(format_args!("{left_out} more have no key here: list them in the host's boot order.\r\n"));
        }
        self.host.print(format_args!("Start which? Esc leaves the menu.\r\n"));
        let chosen = self.choice(count);
        // What was typed behind it is not for a boot loader.
        self.host.forget_keys();
        let Some(chosen) = chosen else { return Ok(()) };
        self.each_choice(order, |manager, number, place, volume| {
            if number != chosen {
                return Ok(());
            }
            manager.host.print(format_args!("{}. {place} is started.\r\n", digit(number)));
            let target = Target { place: Place::Anywhere, file: None };
            manager.try_on(place, volume, &Program { label: None, target, drive: None, data: &[] })
        })?;
        Ok(())
    }

    /// The number that the user chooses of so many. `None` if the user leaves the menu.
    fn choice(&mut self, count: u32) -> Option<u32> {
        let mut may_leave = false;
        for _ in 0..MOST_KEYS {
            match self.host.key(if may_leave { CHOICE } else { SETTLE }) {
                Some(key) if key.scan_code == ESCAPE => {
                    if may_leave {
                        return None;
                    }
                }
                Some(key) => {
                    let character = char::from_u32(key.unicode_char.into());
                    let digit = character.and_then(|character| character.to_digit(DIGITS));
                    if digit.is_some_and(|digit| (1..=count).contains(&digit)) {
                        return digit;
                    }
                }
                None if may_leave => return None,
                None => may_leave = true,
            }
        }
        None
    }

    /// Calls `work` with each volume that can be chosen: its number in the menu, where it is, and its controller and number there.
    /// Returns how many are left out, because there are no more digits and letters.
    fn each_choice(
        &mut self,
        order: &BootOrder,
        mut work: impl FnMut(&mut Self, u32, &Where<'_, H::Name>, (usize, usize)) -> Result<(), HeapFull>,
    ) -> Result<u32, HeapFull> {
        let (mut choice, mut left_out, mut index) = (0_u32, 0_u32, 0_usize);
        while let Some(controller) = self.host.name(index) {
            let mut number = 0_usize;
            // Why there are no disks is said when nothing boots.
            let has_disks = self.may_be_chosen(order, index, None) && self.host.start(index).is_ok();
            while has_disks && let Some(volume) = self.host.volume(index, number)? {
                if self.may_be_chosen(order, index, Some(volume.unit))
                    && let Some(path) = DevicePath::parse(&volume.path)
                {
                    if choice.saturating_add(1) < DIGITS {
                        choice = choice.saturating_add(1);
                        let place = Where { label: None, controller, unit: volume.unit, volume: path };
                        work(self, choice, &place, (index, number))?;
                    } else {
                        left_out = left_out.saturating_add(1);
                    }
                }
                number = number.saturating_add(1);
            }
            index = index.saturating_add(1);
        }
        Ok(left_out)
    }

    /// Whether a unit of a controller, or one of them, may be started.
    fn may_be_chosen(&self, order: &BootOrder, controller: usize, unit: Option<UnitAddress>) -> bool {
        let mut places = order.places.iter().flatten().filter(|place| self.host.is_at(controller, &place.controller));
        !order.is_strict || places.any(|place| unit.is_none_or(|unit| place.drive.is(unit)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::fw_cfg::FakeFwCfg;
    use crate::fakes::machine::FakeMachine;

    fn wish(device: FakeFwCfg) -> Option<Wait> {
        let mut machine = FakeMachine::new().with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        Wait::of_host(&mut machine, &fw_cfg)
    }

    #[test]
    fn the_host_says_whether_there_is_a_menu_and_for_how_long() {
        let device = || FakeFwCfg::new(true);
        let wait = |bytes: &[u8]| wish(device().with_item(0x0e, &[1, 0]).with_file(FILE, bytes));
        assert_eq!(wish(device()), None);
        assert_eq!(wish(device().with_item(0x0e, &[0, 0]).with_file(FILE, &[1, 0])), None);
        assert_eq!(wish(device().with_item(0x0e, &[1, 0])), Some(Wait(2500)));
        assert_eq!(wait(&[0x39, 0x30]), Some(Wait(12345)));
        assert_eq!(wait(&[1]), Some(Wait(1)));
    }
}
