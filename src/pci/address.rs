//! A function's address: bus, device and function number in one value.

use core::fmt;
use core::ops::Range;

/// A function's address as numbered in PCI Local Bus 3.0, section 3.2.2.3.2: bus 0-255, device 0-31, function 0-7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address(u16);

impl Address {
    /// Function `function` of `device` on `bus`, or `None` if the device is above 31 or the function above 7.
    ///
    /// ```
    /// use firstlight::pci::Address;
    /// assert_eq!(Address::new(0, 0x1f, 2).map(|a| a.to_string()).as_deref(), Some("00:1f.2"));
    /// assert_eq!(Address::new(0, 32, 0), None);
    /// assert_eq!(Address::new(0, 0, 8), None);
    /// ```
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Option<Self> {
        if device < 32 && function < 8 {
            Some(Self((bus as u16) << 8 | (device as u16) << 3 | function as u16))
        } else {
            None
        }
    }

    /// Function 0 of each of these devices on `bus`, in order. Device numbers above 31 are left out.
    #[must_use]
    pub const fn devices(bus: u8, numbers: Range<u8>) -> Addresses {
        let left = if numbers.end < 32 { numbers.end } else { 32 }.saturating_sub(numbers.start);
        Addresses { next: (bus as u16) << 8 | (numbers.start as u16) << 3, step: 1 << 3, left }
    }

    /// Functions 1 to 7 of this function's device, in order.
    #[must_use]
    pub const fn other_functions(self) -> Addresses {
        Addresses { next: self.0 & !7 | 1, step: 1, left: 7 }
    }

    /// The bus number.
    #[must_use]
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The device number, 0-31.
    #[must_use]
    pub const fn device(self) -> u8 {
        (self.0 >> 3 & 31) as u8
    }

    /// The function number, 0-7.
    #[must_use]
    pub const fn function(self) -> u8 {
        (self.0 & 7) as u8
    }

    /// Bus, device and function in 16 bits, as in requester IDs and in both ways of access to configuration space.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }
}

/// Addresses on one bus, at equal distances.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The next address.
    next: u16,
    /// The distance to the address after that.
    step: u16,
    /// How many remain.
    left: u8,
}

impl Iterator for Addresses {
    type Item = Address;

    fn next(&mut self) -> Option<Address> {
        self.left = self.left.checked_sub(1)?;
        let address = Address(self.next);
        // It only wraps after the last function of the last bus.
        self.next = self.next.wrapping_add(self.step);
        Some(address)
    }
}

impl fmt::Display for Address {
    /// As `lspci` prints it: `00:1f.2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus(), self.device(), self.function())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn an_address_returns_the_numbers_it_was_made_of() {
        let address = Address::new(0x12, 0x1f, 7).unwrap();
        assert_eq!((address.bus(), address.device(), address.function()), (0x12, 0x1f, 7));
        assert_eq!(address.bits(), 0x12ff);
    }

    #[test]
    fn a_bus_has_32_devices_and_a_device_has_8_functions() {
        let devices: Vec<_> = Address::devices(3, 0..u8::MAX).collect();
        assert_eq!(devices.len(), 32);
        assert_eq!(devices[31], Address::new(3, 31, 0).unwrap());
        let others: Vec<_> = devices[4].other_functions().map(|a| (a.device(), a.function())).collect();
        assert_eq!(others, (1..8).map(|function| (4, function)).collect::<Vec<_>>());
        let some: Vec<_> = Address::devices(255, 30..32).collect();
        assert_eq!(some, [Address::new(255, 30, 0).unwrap(), Address::new(255, 31, 0).unwrap()]);
        assert_eq!(Address::devices(3, 5..5).chain(Address::devices(3, 40..50)).count(), 0);
        assert_eq!(Address::new(255, 31, 7).unwrap().other_functions().count(), 7);
    }
}
