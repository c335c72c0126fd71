//! Chains of clusters, and the table that links them (FAT, "FAT Data Structure").

use super::{DiskError, Error, Fat, Kind, Place};
use crate::disk::Blocks;

/// The first cluster's number.
const FIRST: u32 = 2;
/// Numbers up to this many below the highest mark the end of a chain.
const END_MARKS: u32 = 7;
/// The most steps from a row of clusters to another one, all together, for a file that is open. Each can cost a request to the disk.
/// 14 MiB without two neighbouring clusters of 512 bytes take 28,672.
pub(super) const MOST_STEPS: u32 = 1 << 16;

/// What reads a file. It remembers the row of clusters in which the last bytes were, so that the next ones are found without
/// following the chain from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    place: Place,
    len: u32,
    row: Row,
    /// How many steps have been made. What follows the chain from its start again does not get them back: else a file whose parts
    /// are read in turns would be read for days.
    steps: u32,
}

impl Reader {
    pub(super) const fn new(place: Place, len: u32) -> Self {
        Self { place, len, row: Row::NONE, steps: 0 }
    }

    /// The same, with the row of another one of the same file.
    pub(super) const fn in_row(self, row: Row) -> Self {
        Self { row, ..self }
    }

    /// The row in which it is.
    pub(super) const fn row(&self) -> Row {
        self.row
    }

    /// The length of the file in bytes.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether the file has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Clusters of a chain that follow each other on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The first one.
    first: u32,
    /// How many are before it in the chain.
    before: u32,
    /// How many are known to be in the row. Zero if the chain has not been followed yet.
    count: u32,
    /// A cluster that the chain has passed: if it comes again, the chain is a circle. It moves on whenever the number of
    /// clusters reaches a power of two (R. P. Brent, "An improved Monte Carlo factorization algorithm", 1980, section 2).
    passed: u32,
}

impl Row {
    const NONE: Self = Self { first: 0, before: 0, count: 0, passed: 0 };

    /// The number of clusters of the chain up to the row's end.
    const fn end(&self) -> u32 {
        self.before.saturating_add(self.count)
    }

    const fn last(&self) -> u32 {
        self.first.saturating_add(self.count).saturating_sub(1)
    }

    /// As many clusters more. The last of them whose place in the chain is a power of two is the one that was passed.
    fn grow(&mut self, more: u32) {
        let end = self.end();
        self.count = self.count.saturating_add(more);
        let place = self.end().saturating_sub(1).checked_ilog2().map_or(0, |log| 1_u32.wrapping_shl(log));
        if place >= end {
            self.passed = self.first.saturating_add(place.saturating_sub(self.before));
        }
    }
}

/// A piece of the table, so that neighbouring entries are read from the disk at once.
pub struct Table {
    /// The piece's first byte in the table.
    at: u64,
    len: usize,
    bytes: [u8; 512],
}

impl Table {
    /// Nothing has been read.
    pub const fn new() -> Self {
        Self { at: 0, len: 0, bytes: [0; 512] }
    }

    /// `N` bytes of the table of `fat` from byte `at` on.
    fn get<const N: usize>(&mut self, blocks: &mut dyn Blocks, fat: &Fat, at: u64) -> Result<[u8; N], Error> {
        if let Some(found) = self.find(at) {
            return Ok(*found);
        }
        let left = fat.table_len.saturating_sub(at);
        let len = self.bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.len = 0;
        let position = fat.table.checked_add(at).ok_or(DiskError::OutOfRange)?;
        blocks.read(position, self.bytes.get_mut(..len).unwrap_or_default())?;
        (self.at, self.len) = (at, len);
        self.find(at).copied().ok_or(Error::Disk(DiskError::OutOfRange))
    }

    fn find<const N: usize>(&self, at: u64) -> Option<&[u8; N]> {
        self.from(at)?.first_chunk()
    }

    /// What of the piece is from byte `at` of the table on.
    fn from(&self, at: u64) -> Option<&[u8]> {
        let start = usize::try_from(at.checked_sub(self.at)?).ok()?;
        self.bytes.get(..self.len)?.get(start..)
    }

    /// How many clusters follow `cluster` in a row, at most `most` and as far as the piece tells. Most files are in few rows of
    /// many clusters, so this loop is what takes the time of a large file.
    fn neighbours(&self, kind: Kind, cluster: u32, most: u32) -> u32 {
        let mut expected = cluster;
        let mut is_next = |link: u32| {
            expected = expected.wrapping_add(1);
            link == expected
        };
        let (most, index) = (most as usize, u64::from(cluster));
        let count = match kind {
            Kind::Fat12 => 0,
            Kind::Fat16 => {
                let (links, _) = self.from(index.saturating_mul(2)).unwrap_or_default().as_chunks();
                crate::heap::count(
                    links.iter().take(most).take_while(|link| is_next(u16::from_le_bytes(**link).into())),
                )
            }
            Kind::Fat32 => {
                let (links, _) = self.from(index.saturating_mul(4)).unwrap_or_default().as_chunks();
                let mask = kind.mask();
                crate::heap::count(
                    links.iter().take(most).take_while(|link| is_next(u32::from_le_bytes(**link) & mask)),
                )
            }
        };
        // The piece is short.
        count as u32
    }
}

/// What is done with a piece of a file: it begins at this byte of the disk, and has this length.
pub type Work<'a> = dyn FnMut(&mut dyn Blocks, u64, u32) -> Result<(), DiskError> + 'a;

impl Fat {
    /// The cluster that follows one, or `None` at the end of its chain.
    fn following(&self, blocks: &mut dyn Blocks, table: &mut Table, cluster: u32) -> Result<Option<u32>, Error> {
        let index = u64::from(cluster);
        let value = match self.kind {
            // Two entries share three bytes.
            Kind::Fat12 => {
                let pair = u16::from_le_bytes(table.get(blocks, self, index.saturating_add(index >> 1))?);
                u32::from(if cluster & 1 == 0 { pair & 0xfff } else { pair >> 4 })
            }
            Kind::Fat16 => u16::from_le_bytes(table.get(blocks, self, index.saturating_mul(2))?).into(),
            Kind::Fat32 => u32::from_le_bytes(table.get(blocks, self, index.saturating_mul(4))?),
        };
        let mask = self.kind.mask();
        let value = value & mask;
        if value >= mask.saturating_sub(END_MARKS) {
            return Ok(None);
        }
        self.checked(value).map(Some)
    }

    /// The cluster, if it exists.
    fn checked(&self, cluster: u32) -> Result<u32, Error> {
        match cluster.checked_sub(FIRST) {
            Some(index) if index < self.clusters => Ok(cluster),
            _ => Err(Error::Cluster(cluster)),
        }
    }

    /// How many clusters more a row can have: those that exist, and not one that the chain has passed.
    fn most_after(&self, row: &Row) -> u32 {
        let last = row.last();
        let existing = self.clusters.saturating_add(FIRST).saturating_sub(1).saturating_sub(last);
        let new = if row.passed > last { row.passed.saturating_sub(last).saturating_sub(1) } else { u32::MAX };
        existing.min(new).min(self.clusters.saturating_sub(row.end()))
    }

    /// Where bytes of a file are on the disk: those from `at` on that follow each other, at most `most`, which is not zero.
    /// `None` behind the end of its clusters. The file's length is not looked at.
    pub(super) fn piece(
        &self,
        blocks: &mut dyn Blocks,
        table: &mut Table,
        file: &mut Reader,
        at: u32,
        most: u32,
    ) -> Result<Option<(u64, u32)>, Error> {
        let first = match file.place {
            Place::Row { at: start, len } => {
                let left = len.saturating_sub(at);
                return Ok((left > 0).then(|| (start.saturating_add(at.into()), most.min(left))));
            }
            Place::Chain(first) => first,
        };
        let wanted = at / self.cluster_len;
        let last = at.saturating_add(most.saturating_sub(1)) / self.cluster_len;
        let row = &mut file.row;
        if row.count == 0 || wanted < row.before {
            let first = self.checked(first)?;
            *row = Row { first, before: 0, count: 1, passed: first };
        }
        while row.end() <= last {
            let most = last.saturating_sub(row.end()).saturating_add(1).min(self.most_after(row));
            let more = table.neighbours(self.kind, row.last(), most);
            if more > 0 {
                row.grow(more);
                continue;
            }
            let has_wanted = row.end() > wanted;
            let Some(next) = self.following(blocks, table, row.last())? else {
                if has_wanted {
                    break;
                }
                return Ok(None);
            };
            let before = row.end();
            if next == row.passed || before >= self.clusters {
                return Err(Error::Circle);
            }
            if next == row.last().saturating_add(1) {
                row.grow(1);
            } else if has_wanted {
                break;
            } else {
                if file.steps >= MOST_STEPS {
                    return Err(Error::Scattered);
                }
                file.steps = file.steps.saturating_add(1);
                let passed = if before.is_power_of_two() { next } else { row.passed };
                *row = Row { first: next, before, count: 1, passed };
            }
        }
        let cluster = u64::from(row.first.saturating_sub(FIRST).saturating_add(wanted.saturating_sub(row.before)));
        let offset = at % self.cluster_len;
        let start = cluster
            .checked_mul(self.cluster_len.get().into())
            .and_then(|start| start.checked_add(self.data)?.checked_add(offset.into()));
        let clusters = u64::from(row.end().saturating_sub(wanted));
        let len = clusters.saturating_mul(self.cluster_len.get().into()).saturating_sub(offset.into());
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(most);
        Ok(Some((start.ok_or(DiskError::OutOfRange)?, len)))
    }

    /// Calls `work` with the place on the disk and the length of each piece of `len` bytes of a file from `at` on.
    pub(super) fn pieces(
        &self,
        blocks: &mut dyn Blocks,
        file: &mut Reader,
        at: u64,
        len: u64,
        work: &mut Work<'_>,
    ) -> Result<(), Error> {
        let end = at.checked_add(len).filter(|&end| end <= file.len.into()).ok_or(Error::OutOfRange)?;
        // The length of a file has 32 bits.
        let (mut at, end) = (at as u32, end as u32);
        let mut table = Table::new();
        while at < end {
            let left = end.saturating_sub(at);
            let (start, len) = self.piece(blocks, &mut table, file, at, left)?.ok_or(Error::CutOff)?;
            work(blocks, start, len)?;
            at = at.saturating_add(len);
        }
        Ok(())
    }
}
