//! Reads a bridge's capability list: the type of its port, whether functions can be plugged in behind it, and how much room the
//! host wants reserved for them.
//!
//! The list is read once, and only for bridges.

use super::address::Address;
use super::config::ConfigSpace;
use super::register;
use super::topology::{Reserve, Slot};

/// The most capabilities read in one list. The list is in the upper 192 bytes, and each has at least four bytes.
const MOST: usize = 48;

/// Vendor ID of QEMU's own devices.
const VENDOR_RED_HAT: u32 = 0x1b36;
/// QEMU's capability with the room to reserve: the type in the byte after the length, the length in bytes, and the values by
/// offset, all ones for none (`include/hw/pci/pci_bridge.h`, `PCIBridgeQemuCap`).
const RESERVE_TYPE: u8 = 1;
const RESERVE_LENGTH: u8 = 32;
const RESERVE_BUSES: u8 = 4;
const RESERVE_IO: u8 = 8;
const RESERVE_MEMORY: u8 = 16;
const RESERVE_PREFETCHABLE_32: u8 = 20;
const RESERVE_PREFETCHABLE_64: u8 = 24;

/// The contents of a bridge's list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// Whether only device 0 can be behind it, because it is a PCI Express root or downstream port.
    pub single_device: bool,
    /// The room to reserve for functions that are plugged in later.
    pub reserve: Reserve,
}

impl Capabilities {
    /// Reads the list of the bridge with the vendor and device numbers `id`.
    pub(super) fn of_bridge(config: &mut dyn ConfigSpace, address: Address, id: u32) -> Self {
        let mut found = Self::default();
        let mut at = config.read8(address, register::CAPABILITIES);
        for _ in 0..MOST {
            // The list ends with 0; a pointer into the header is invalid.
            if at < 0x40 {
                break;
            }
            let [capability, next, low, high] = config.read32(address, at).to_le_bytes();
            match capability {
                register::CAPABILITY_EXPRESS => {
                    let port = matches!(low >> 4, register::EXPRESS_ROOT_PORT | register::EXPRESS_DOWNSTREAM_PORT);
                    found.single_device |= port;
                    if port && high & register::EXPRESS_SLOT != 0 {
                        found.reserve.slot = Some(Slot::Express);
                    }
                }
                register::CAPABILITY_HOT_PLUG => found.reserve.slot = Some(Slot::Conventional),
                register::CAPABILITY_VENDOR
                    if id & 0xffff == VENDOR_RED_HAT && high == RESERVE_TYPE && low >= RESERVE_LENGTH =>
                {
                    let slot = found.reserve.slot;
                    found.reserve = Reserve { slot, ..read_reserve(config, address, at) };
                }
                _ => {}
            }
            at = next;
        }
        found
    }
}

/// Reads the room that the host wants reserved. The capability is at `at`.
fn read_reserve(config: &mut dyn ConfigSpace, address: Address, at: u8) -> Reserve {
    // Values beyond configuration space read as none.
    let mut dword = |offset| at.checked_add(offset).map_or(u32::MAX, |at| config.read32(address, at));
    let mut wide = |low: u8| u64::from(dword(low)) | u64::from(dword(low.wrapping_add(4))) << 32;
    let given = |value: u64, none: u64| if value == none { 0 } else { value };
    let io = given(wide(RESERVE_IO), u64::MAX);
    let wide_prefetchable = given(wide(RESERVE_PREFETCHABLE_64), u64::MAX);
    let mut narrow = |offset| given(dword(offset).into(), u32::MAX.into());
    let [buses, memory, prefetchable] = [RESERVE_BUSES, RESERVE_MEMORY, RESERVE_PREFETCHABLE_32].map(&mut narrow);
    Reserve {
        slot: None,
        buses: u8::try_from(buses).unwrap_or(u8::MAX),
        io: u8::try_from(io.div_ceil(1 << 12)).unwrap_or(u8::MAX),
        memory: memory.div_ceil(1 << 20) as u32,
        // QEMU lets a user specify one of the two.
        prefetchable: u32::try_from(prefetchable.max(wide_prefetchable).div_ceil(1 << 20)).unwrap_or(u32::MAX),
        below_4_gib: prefetchable != 0,
    }
}
