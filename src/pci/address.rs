//! Which function: bus, device and function number in one value.
#![forbid(unsafe_code)]

use core::fmt;

/// A function's address, as PCI Local Bus 3.0, section 3.2.2.3.2 numbers it: bus 0-255, device 0-31, function 0-7.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address(u16);

impl Address {
    /// The function `function` of `device` on `bus`, or `None` when the device is above 31 or the function above 7.
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

    /// Function 0 of each of the 32 devices that `bus` can hold, in order.
    pub fn devices(bus: u8) -> impl Iterator<Item = Self> {
        (0..32).map(move |device| Self(u16::from(bus) << 8 | device << 3))
    }

    /// Functions 1 to 7 of this function's device, in order.
    pub fn other_functions(self) -> impl Iterator<Item = Self> {
        (1..8).map(move |function| Self(self.0 & !7 | function))
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

    /// Bus, device and function in 16 bits, as both ways into configuration space and requester IDs carry them.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
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
    fn parts_come_back() {
        let address = Address::new(0x12, 0x1f, 7).unwrap();
        assert_eq!((address.bus(), address.device(), address.function()), (0x12, 0x1f, 7));
        assert_eq!(address.bits(), 0x12ff);
    }

    #[test]
    fn a_bus_has_32_devices_and_a_device_8_functions() {
        let devices: Vec<_> = Address::devices(3).collect();
        assert_eq!(devices.len(), 32);
        assert_eq!(devices[31], Address::new(3, 31, 0).unwrap());
        let others: Vec<_> = devices[4].other_functions().map(|a| (a.device(), a.function())).collect();
        assert_eq!(others, (1..8).map(|function| (4, function)).collect::<Vec<_>>());
    }
}
