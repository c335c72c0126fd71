//! Makes FAT file systems, with any defect.
//!
//! Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03.

extern crate std;

use std::borrow::ToOwned;
use std::string::String;
use std::vec::Vec;
use std::{format, vec};

/// What a file system is made of.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The bits of an entry of the table: 12, 16 or 32.
    pub bits: u32,
    /// The length of a sector in bytes.
    pub sector_len: u32,
    /// The sectors of a cluster.
    pub cluster_sectors: u8,
    /// The number of clusters. It decides between 12 and 16 bits.
    pub clusters: u32,
    /// The entries of the root directory; zero with 32 bits.
    pub root_entries: u16,
}

impl Format {
    /// Small ones, with sectors of 512 bytes.
    pub const FAT12: Self = Self { bits: 12, sector_len: 512, cluster_sectors: 1, clusters: 400, root_entries: 64 };
    /// With 16 bits.
    pub const FAT16: Self = Self { bits: 16, sector_len: 512, cluster_sectors: 1, clusters: 5000, root_entries: 64 };
    /// With 32 bits.
    pub const FAT32: Self = Self { bits: 32, sector_len: 512, cluster_sectors: 1, clusters: 5000, root_entries: 0 };
    /// One of each.
    pub const ALL: [Self; 3] = [Self::FAT12, Self::FAT16, Self::FAT32];

    fn table_sectors(self) -> u32 {
        ((self.clusters + 2) * self.bits).div_ceil(8).div_ceil(self.sector_len)
    }

    const fn reserved(self) -> u32 {
        if self.bits == 32 { 4 } else { 1 }
    }

    fn root_sectors(self) -> u32 {
        (u32::from(self.root_entries) * 32).div_ceil(self.sector_len)
    }

    /// The length of a cluster in bytes.
    #[must_use]
    pub const fn cluster_len(self) -> u32 {
        self.sector_len * self.cluster_sectors as u32
    }

    /// The first byte of a copy of the table.
    #[must_use]
    pub fn table(self, copy: u32) -> u64 {
        u64::from(self.reserved() + copy * self.table_sectors()) * u64::from(self.sector_len)
    }

    /// The first byte of the root directory, in FAT12 and FAT16.
    #[must_use]
    pub fn root(self) -> u64 {
        self.table(2)
    }

    /// The first byte of a cluster.
    #[must_use]
    pub fn cluster(self, cluster: u32) -> u64 {
        let data = self.table(2) + u64::from(self.root_sectors()) * u64::from(self.sector_len);
        data + u64::from(cluster - 2) * u64::from(self.cluster_len())
    }

    fn len(self) -> u64 {
        self.cluster(self.clusters + 2)
    }

    /// What marks the end of a chain.
    #[must_use]
    pub const fn end(self) -> u32 {
        match self.bits {
            12 => 0xfff,
            16 => 0xffff,
            _ => 0xfff_ffff,
        }
    }
}

/// A directory of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory(Option<u32>);

/// What an entry says of a file, beside its name.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// The attributes.
    pub attributes: u8,
    /// The first cluster.
    pub cluster: u32,
    /// The length in bytes.
    pub len: u32,
}

/// The time of every entry: 29 November 2026, 12:34:56.
pub const TIME: (u16, u16) = ((46 << 9) | (11 << 5) | 29, (12 << 11) | (34 << 5) | 28);

/// The bytes of a file system.
#[derive(Clone, Debug)]
pub struct FatImage {
    /// How it is made.
    pub format: Format,
    /// All of it.
    pub bytes: Vec<u8>,
    next: u32,
    aliases: u32,
}

impl FatImage {
    /// An empty one with a label.
    #[must_use]
    pub fn new(format: Format) -> Self {
        let mut this = Self { format, bytes: vec![0; format.len() as usize], next: 2, aliases: 0 };
        let sectors = (format.len() / u64::from(format.sector_len)) as u32;
        this.put(0, &[0xeb, 0x3c, 0x90]);
        this.put(3, b"mkfs.fat");
        this.put(11, &(format.sector_len as u16).to_le_bytes());
        this.put(13, &[format.cluster_sectors]);
        this.put(14, &(format.reserved() as u16).to_le_bytes());
        this.put(16, &[2]);
        this.put(17, &format.root_entries.to_le_bytes());
        match u16::try_from(sectors) {
            Ok(few) if format.bits != 32 => this.put(19, &few.to_le_bytes()),
            _ => this.put(32, &sectors.to_le_bytes()),
        }
        this.put(21, &[0xf8]);
        this.put(510, &[0x55, 0xaa]);
        let identity = if format.bits == 32 {
            this.put(36, &format.table_sectors().to_le_bytes());
            this.put(44, &2_u32.to_le_bytes());
            this.put(48, &[1, 0, 0, 0]);
            let information = u64::from(format.sector_len);
            this.put(information, b"RRaA");
            this.put(information + 484, b"rrAa\xff\xff\xff\xff\xff\xff\xff\xff");
            this.put(information + 510, &[0x55, 0xaa]);
            64
        } else {
            this.put(22, &(format.table_sectors() as u16).to_le_bytes());
            36
        };
        this.put(identity, &[0x80, 0, 0x29, 0x78, 0x56, 0x34, 0x12]);
        this.put(identity + 7, b"FIRSTLIGHT FAT");
        this.set_link(0, format.end() & !7);
        this.set_link(1, format.end());
        if format.bits == 32 {
            this.take(1);
            this.set_link(2, format.end());
        }
        this
    }

    /// Overwrites bytes.
    pub fn put(&mut self, at: u64, bytes: &[u8]) {
        self.bytes[at as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    /// The root directory.
    #[must_use]
    pub const fn root(&self) -> Directory {
        Directory(if self.format.bits == 32 { Some(2) } else { None })
    }

    /// The entry of a cluster in the table.
    #[must_use]
    pub fn link(&self, cluster: u32) -> u32 {
        let table = &self.bytes[self.format.table(0) as usize..];
        let number = |at: usize, len: usize| {
            table[at..at + len].iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
        };
        let index = cluster as usize;
        match self.format.bits {
            12 if index.is_multiple_of(2) => number(index * 3 / 2, 2) & 0xfff,
            12 => number(index * 3 / 2, 2) >> 4,
            16 => number(index * 2, 2),
            _ => number(index * 4, 4) & 0xfff_ffff,
        }
    }

    /// Sets the entry of a cluster in both copies of the table.
    pub fn set_link(&mut self, cluster: u32, value: u32) {
        for copy in 0..2 {
            let table = self.format.table(copy);
            let index = u64::from(cluster);
            match self.format.bits {
                12 => {
                    let at = table + index * 3 / 2;
                    let old = u16::from_le_bytes([self.bytes[at as usize], self.bytes[at as usize + 1]]);
                    let value = value as u16 & 0xfff;
                    let new = if cluster.is_multiple_of(2) { old & 0xf000 | value } else { old & 0xf | value << 4 };
                    self.put(at, &new.to_le_bytes());
                }
                16 => self.put(table + index * 2, &(value as u16).to_le_bytes()),
                // The upper four bits are not the cluster's.
                _ => self.put(table + index * 4, &(value | 0xa000_0000).to_le_bytes()),
            }
        }
    }

    /// The next free clusters.
    pub fn take(&mut self, count: u32) -> Vec<u32> {
        let taken = (self.next..self.next + count).collect();
        self.next += count;
        assert!(self.next <= self.format.clusters + 2, "the image is full");
        taken
    }

    /// Puts bytes into clusters, and links these. Returns the first one, or zero without any.
    pub fn store(&mut self, clusters: &[u32], contents: &[u8]) -> u32 {
        let cluster_len = self.format.cluster_len() as usize;
        for (piece, &cluster) in contents.chunks(cluster_len).zip(clusters) {
            self.put(self.format.cluster(cluster), piece);
        }
        let links = clusters.iter().skip(1).copied().chain([self.format.end()]);
        clusters.iter().zip(links).for_each(|(&cluster, next)| self.set_link(cluster, next));
        clusters.first().copied().unwrap_or(0)
    }

    /// Adds a file in the next free clusters. Returns its first cluster.
    pub fn file(&mut self, directory: Directory, name: &str, contents: &[u8]) -> u32 {
        let clusters = self.take((contents.len() as u32).div_ceil(self.format.cluster_len()));
        self.file_in(directory, name, contents, &clusters)
    }

    /// Adds a file in these clusters.
    pub fn file_in(&mut self, directory: Directory, name: &str, contents: &[u8], clusters: &[u32]) -> u32 {
        let cluster = self.store(clusters, contents);
        self.entry(directory, name, Described { attributes: 0x20, cluster, len: contents.len() as u32 });
        cluster
    }

    /// Adds a directory with `.` and `..`.
    pub fn directory(&mut self, parent: Directory, name: &str) -> Directory {
        let cluster = self.take(1)[0];
        self.set_link(cluster, self.format.end());
        let described = |cluster| Described { attributes: 0x10, cluster, len: 0 };
        self.entry(parent, name, described(cluster));
        let this = Directory(Some(cluster));
        let above = if parent == self.root() { 0 } else { parent.0.unwrap_or(0) };
        self.slot(this, slot(*b".          ", described(cluster)));
        self.slot(this, slot(*b"..         ", described(above)));
        this
    }

    /// Adds an entry. A name that is no short one gets a long one beside it.
    pub fn entry(&mut self, directory: Directory, name: &str, described: Described) {
        let short = short(name).unwrap_or_else(|| {
            self.aliases += 1;
            short(&format!("ALIAS{:03}.~", self.aliases)).expect("a short name")
        });
        if as_text(&short) != name {
            self.long(directory, name, &short);
        }
        self.slot(directory, slot(short, described));
    }

    /// Adds the entries of a long name.
    pub fn long(&mut self, directory: Directory, name: &str, short: &[u8; 11]) {
        let units: Vec<u16> = name.encode_utf16().collect();
        long_slots(&units, short).into_iter().for_each(|slot| self.slot(directory, slot));
    }

    /// Adds 32 bytes to a directory, which grows by a cluster if it has to.
    pub fn slot(&mut self, directory: Directory, slot: [u8; 32]) {
        let format = self.format;
        let (mut cluster, len) = match directory.0 {
            None => (None, u32::from(format.root_entries) * 32),
            Some(first) => (Some(first), format.cluster_len()),
        };
        loop {
            let start = cluster.map_or(format.root(), |cluster| format.cluster(cluster));
            for at in (start..start + u64::from(len)).step_by(32) {
                if self.bytes[at as usize] == 0 {
                    return self.put(at, &slot);
                }
            }
            let last = cluster.expect("a root directory that is not full");
            cluster = Some(match self.link(last) {
                next if next == format.end() => {
                    let next = self.take(1)[0];
                    self.set_link(last, next);
                    self.set_link(next, format.end());
                    next
                }
                next => next,
            });
        }
    }
}

/// The entry of a short name.
#[must_use]
pub fn slot(name: [u8; 11], described: Described) -> [u8; 32] {
    let (date, time) = TIME;
    let mut slot = [0; 32];
    let mut put = |at: usize, bytes: &[u8]| slot[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &name);
    put(11, &[described.attributes]);
    for (at, number) in [(14, time), (16, date), (18, date), (22, time), (24, date)] {
        put(at, &number.to_le_bytes());
    }
    put(20, &((described.cluster >> 16) as u16).to_le_bytes());
    put(26, &(described.cluster as u16).to_le_bytes());
    put(28, &described.len.to_le_bytes());
    slot
}

/// The entries of a long name, in the order in which they are in a directory.
#[must_use]
pub fn long_slots(name: &[u16], short: &[u8; 11]) -> Vec<[u8; 32]> {
    let sum = short.iter().fold(0_u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
    let count = name.len().div_ceil(13);
    let slots = name.chunks(13).enumerate().map(|(index, piece)| {
        let mut units = [0xffff; 13];
        units[..piece.len()].copy_from_slice(piece);
        if let Some(end) = units.get_mut(piece.len()) {
            *end = 0;
        }
        let mut slot = [0; 32];
        slot[0] = (index + 1) as u8 | if index + 1 == count { 0x40 } else { 0 };
        slot[11] = 0x0f;
        slot[13] = sum;
        let places = (1..11).step_by(2).chain((14..26).step_by(2)).chain([28, 30]);
        places.zip(units).for_each(|(at, unit): (usize, u16)| slot[at..at + 2].copy_from_slice(&unit.to_le_bytes()));
        slot
    });
    let mut slots: Vec<_> = slots.collect();
    slots.reverse();
    slots
}

/// The bytes of a name of eight and three characters.
#[must_use]
pub fn short(name: &str) -> Option<[u8; 11]> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"~_-$".contains(&byte));
    if base.is_empty() || base.len() > 8 || extension.len() > 3 || !is_plain(base) || !is_plain(extension) {
        return None;
    }
    let mut bytes = [b' '; 11];
    bytes[..base.len()].copy_from_slice(base.to_ascii_uppercase().as_bytes());
    bytes[8..][..extension.len()].copy_from_slice(extension.to_ascii_uppercase().as_bytes());
    Some(bytes)
}

fn as_text(short: &[u8; 11]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let (base, extension) = (text(&short[..8]), text(&short[8..]));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}
