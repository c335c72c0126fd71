//! A q35's configuration space in memory: the functions that the host has, with registers that keep what is written to
//! them, and the base address of power management, with the timer.
//!
//! Left out: read-only registers, except that base; BARs, because no function has any.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use firstlight::fakes::known_hosts::FunctionId;

/// The register that opens the window, as a configuration address with the enable bit (82G33 data sheet, PCIEXBAR).
const PCIEXBAR: u32 = 0x8000_0060;
const PCIEXBAR_ENABLE: u32 = 1;
const PCIEXBAR_ADDRESS: u32 = 0xf000_0000;
const LEN: u64 = 256 << 20;

/// The LPC bridge, and its register with the base of power management (ICH9 data sheet, 13.1.11).
const LPC: FunctionId = (0x1f, 0, 0x2918_8086);
const PMBASE: u64 = 0x40;
const PMBASE_ADDRESS: u32 = 0xff80;
/// The timer's port, relative to that base (ICH9 data sheet, 13.8.3.3).
const PM_TIMER: u16 = 8;

/// The window.
pub struct Window {
    functions: &'static [FunctionId],
    /// The longest access in bytes. A longer write is lost, a longer read of an existing function returns zeros.
    longest: u8,
    start: Option<u64>,
    /// Dwords by their offset in the window.
    written: BTreeMap<u64, u32>,
}

impl Window {
    /// The window of these functions. One without the LPC bridge of a q35 never opens.
    pub fn new(functions: &'static [FunctionId], longest: u8) -> Self {
        Self { functions, longest, start: None, written: BTreeMap::new() }
    }

    /// A write through the ports to this configuration address.
    pub fn port_write(&mut self, address: u32, value: u32) {
        if address == PCIEXBAR && value & PCIEXBAR_ENABLE != 0 && self.functions.contains(&LPC) {
            self.start = Some((value & PCIEXBAR_ADDRESS).into());
        }
    }

    /// Reads what is at `at`, if that is in the window.
    pub fn read(&self, at: u64, into: &mut [u8]) -> Option<()> {
        let place = self.place(at)?;
        let Some(id) = self.id(place) else {
            into.fill(u8::MAX);
            return Some(());
        };
        let is_taken = into.len() <= self.longest.into();
        for (byte, at) in into.iter_mut().zip(place..) {
            let zero = if at & 0xffc == 0 { id } else { 0 };
            let dword = self.written.get(&(at & !3)).copied().unwrap_or(zero);
            *byte = if is_taken { dword.to_le_bytes()[at as usize & 3] } else { 0 };
        }
        Some(())
    }

    /// Writes to `at`, if that is in the window.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        let Some(place) = self.place(at).filter(|&place| self.id(place).is_some()) else { return };
        if bytes.len() > self.longest.into() {
            return;
        }
        for (byte, at) in bytes.iter().zip(place..) {
            let dword = self.written.entry(at & !3).or_default();
            let mut kept = dword.to_le_bytes();
            kept[at as usize & 3] = *byte;
            *dword = u32::from_le_bytes(kept);
        }
    }

    /// The port of the power management timer, once its base is set.
    #[must_use]
    pub fn pm_timer(&self) -> Option<u16> {
        let base = self.written.get(&(u64::from(LPC.0) << 15 | PMBASE))? & PMBASE_ADDRESS;
        (base != 0).then_some(base as u16 + PM_TIMER)
    }

    /// The offset of `at` in the window.
    fn place(&self, at: u64) -> Option<u64> {
        at.checked_sub(self.start?).filter(|&place| place < LEN)
    }

    /// The IDs of the function with this number.
    fn id(&self, place: u64) -> Option<u32> {
        let at = |&(device, function, id): &FunctionId| {
            (u64::from(device) << 3 | u64::from(function) == place >> 12).then_some(id)
        };
        self.functions.iter().find_map(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LPC_PLACE: u64 = 0xb000_0000 + (0x1f << 15);

    fn opened(longest: u8) -> Window {
        let mut window = Window::new(&[LPC], longest);
        assert_eq!(window.read(LPC_PLACE, &mut [0; 4]), None, "it is closed after a reset");
        window.port_write(PCIEXBAR, 0xb000_0001);
        window
    }

    fn read<const N: usize>(window: &Window, at: u64) -> [u8; N] {
        let mut bytes = [0x55; N];
        window.read(at, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn an_access_that_is_too_long_is_lost() {
        for (longest, eight) in [(4, [0; 8]), (8, [0x86, 0x80, 0x18, 0x29, 0, 0, 0, 0])] {
            let mut window = opened(longest);
            assert_eq!(read::<8>(&window, LPC_PLACE), eight);
            assert_eq!(read::<8>(&window, LPC_PLACE + 0x1000), [0xff; 8], "no function");
            window.write(LPC_PLACE + PMBASE, &0x80_0000_0601_u64.to_le_bytes());
            assert_eq!(window.pm_timer(), (longest == 8).then_some(0x608));
            window.write(LPC_PLACE + PMBASE, &0x681_u32.to_le_bytes());
            assert_eq!((window.pm_timer(), read(&window, LPC_PLACE + PMBASE)), (Some(0x688), [0x81, 6]));
        }
    }

    #[test]
    fn a_host_without_the_bridge_has_no_window() {
        let mut window = Window::new(&[(0, 0, 0x29c0_8086)], 8);
        window.port_write(PCIEXBAR, 0xb000_0001);
        assert_eq!(window.read(0xb000_0000, &mut [0; 4]), None);
    }
}
