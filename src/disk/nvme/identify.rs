//! What a controller says about itself and its namespaces.
//!
//! Source: NVM Express Base Specification 1.4, figures 245 (namespaces) and 247 (controllers).

use crate::disk::{BlockLen, Media};

/// In the data about the controller: the longest transfer, and the greatest number of a namespace.
pub(super) const LONGEST_TRANSFER: u64 = 77;
pub(super) const LAST_NAMESPACE: u64 = 516;

/// The bytes of the data about a namespace that the driver reads.
pub(super) const NAMESPACE_LEN: usize = 192;

/// In these: the size in blocks; which format is in use; attributes, bit 0 of which is write protection; the EUI-64; the formats.
const BLOCKS: usize = 0;
const FORMAT: usize = 26;
const ATTRIBUTES: usize = 99;
const EUI64: usize = 120;
const FORMATS: usize = 128;
/// Lengths of a block that the driver knows, as powers of two.
const BLOCK_ORDERS: core::ops::RangeInclusive<u8> = 9..=12;

/// The longest transfer in bytes. `power` is the controller's number for it: of pages of 4 KiB, as a power of two, or zero for no
/// limit.
pub(super) const fn longest_transfer(power: u8) -> u64 {
    match power {
        // One page of a list, which is what the driver has, holds 2 MiB.
        0 | 10.. => u64::MAX,
        _ => 4096 << power,
    }
}

/// A namespace that is active: its medium, and its EUI-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Namespace {
    pub(super) media: Media,
    pub(super) eui64: [u8; 8],
}

impl Namespace {
    /// The namespace in the data. `None` if it is not active.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) fn parse(data: &[u8; NAMESPACE_LEN]) -> Result<Option<Self>, &'static str> {
        let blocks = u64::from_le_bytes(field(data, BLOCKS));
        if blocks == 0 {
            return Ok(None);
        }
        let [format] = field(data, FORMAT);
        // Formats from the 17th on, whose number has two more bits, are not read.
        if format & 0x60 != 0 {
            return Err("its format is none of the first 16");
        }
        let at = FORMATS.saturating_add(usize::from(format & 0xf).saturating_mul(4));
        let [meta, more_meta, order, _] = field(data, at);
        if (meta, more_meta) != (0, 0) {
            return Err("its blocks have metadata");
        }
        let block_len = if BLOCK_ORDERS.contains(&order) { BlockLen::new(1 << order) } else { None };
        let block_len = block_len.ok_or("its blocks are not of 512 to 4096 bytes")?;
        let [attributes] = field(data, ATTRIBUTES);
        let media = Media { block_len, blocks, is_read_only: attributes & 1 != 0, is_removable: false };
        Ok(Some(Self { media, eui64: field(data, EUI64) }))
    }
}

/// The bytes at `at`; zeros behind the end.
fn field<const LEN: usize>(data: &[u8; NAMESPACE_LEN], at: usize) -> [u8; LEN] {
    data.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; LEN])
}
