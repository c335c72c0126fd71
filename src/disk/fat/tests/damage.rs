//! Boot sectors, tables and files that cannot be so.

use std::string::ToString;

use super::*;
use crate::fakes::fat::{Described, short, slot};

/// A volume with a file of four clusters from 10 on, whose links are then changed.
fn damaged(format: Format, change: impl FnOnce(&mut FatImage)) -> Result<Vec<u8>, Error> {
    let mut image = FatImage::new(format);
    image.file_in(image.root(), "A", &pattern(4 * 512), &[10, 11, 20, 21]);
    change(&mut image);
    let (fat, mut blocks) = opened(&image);
    let file = find(&fat, &mut blocks, "A").unwrap();
    let loaded = fat.load(&mut blocks, &mut fat.reader(&file), 0, place(file.len().into()));
    let read = contents(&fat, &mut blocks, &file);
    assert_eq!(loaded.is_ok(), read.is_ok());
    read
}

#[test]
fn a_chain_that_leads_back_to_itself_ends() {
    for format in Format::ALL {
        for (from, to) in [(10, 10), (11, 10), (20, 11), (20, 20), (11, 11), (21, 10), (21, 21)] {
            let mut image = FatImage::new(format);
            let cluster = image.store(&[10, 11, 20, 21], &pattern(4 * 512));
            image.set_link(from, to);
            image.entry(image.root(), "A", Described { attributes: 0, cluster, len: 20 * 512 });
            let (fat, mut blocks) = opened(&image);
            let file = find(&fat, &mut blocks, "A").unwrap();
            assert_eq!(contents(&fat, &mut blocks, &file), Err(Error::Circle), "{from} {to}");
        }
        // Back into the middle of a row, from the cluster before it.
        for clusters in [&[10, 11, 12, 13, 50, 9][..], &[10, 11, 12, 13, 14, 15, 50, 9], &[9, 10, 11, 12, 40, 8]] {
            let mut image = FatImage::new(format);
            let cluster = image.store(clusters, &[]);
            let last = clusters[clusters.len() - 1];
            image.set_link(last, last + 1);
            image.entry(image.root(), "A", Described { attributes: 0, cluster, len: 100 * 512 });
            let (fat, mut blocks) = opened(&image);
            let file = find(&fat, &mut blocks, "A").unwrap();
            assert_eq!(contents(&fat, &mut blocks, &file), Err(Error::Circle), "{clusters:?}");
        }
        // Behind the end of the file it does not matter.
        assert!(damaged(format, |image| image.set_link(21, 10)).is_ok());
    }
}

/// The length of the file does not decide how long a circle is followed.
#[test]
fn a_circle_is_found_after_few_steps() {
    for circle in [1, 2, 3, 100, 1000] {
        let mut image = FatImage::new(Format::FAT32);
        let clusters: Vec<_> = (0..2000).map(|index| 100 + 2 * index).collect();
        let cluster = image.store(&clusters, &[]);
        image.set_link(clusters[1999], clusters[2000 - circle]);
        image.entry(image.root(), "A", Described { attributes: 0, cluster, len: u32::MAX });
        image.entry(image.root(), "D", Described { attributes: 0x10, cluster, len: 0 });
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "A").unwrap();
        let far = u64::from(fat.clusters) * 512 - 1;
        blocks.requests.clear();
        assert_eq!(fat.read(&mut blocks, &mut fat.reader(&file), far, &mut [0]), Err(Error::Circle));
        assert!(blocks.requests.len() <= 5000, "{circle}: {}", blocks.requests.len());
    }
    // A directory without an end, all of whose entries are deleted.
    let mut image = FatImage::new(Format::FAT16);
    let mut deleted = slot(short("GONE").unwrap(), Described { attributes: 0, cluster: 0, len: 0 });
    deleted[0] = 0xe5;
    let cluster = image.store(&[50, 60, 70], &deleted.repeat(48));
    image.set_link(70, 60);
    image.entry(image.root(), "D", Described { attributes: 0x10, cluster, len: 0 });
    let (fat, mut blocks) = opened(&image);
    let directory = find(&fat, &mut blocks, "D").unwrap();
    assert_eq!(fat.find(&mut blocks, &directory, &utf16("X")), Err(Error::Circle));
    assert_eq!(fat.next(&mut blocks, &directory, &mut Position::default()), Err(Error::Circle));
}

/// Its parts are read in turns, so the chain is followed from its start each time.
#[test]
fn a_scattered_file_is_followed_for_a_limited_number_of_steps() {
    let mut image = FatImage::new(Format::FAT32);
    let clusters: Vec<_> = (0..2000).map(|index| 100 + 2 * index).collect();
    let bytes = pattern(2000 * 512);
    image.file_in(image.root(), "A", &bytes, &clusters);
    let (fat, mut blocks) = opened(&image);
    let file = find(&fat, &mut blocks, "A").unwrap();
    let mut reader = fat.reader(&file);
    let mut reads = (0..1000).map(|_| {
        blocks.requests.clear();
        let mut last = [0];
        fat.read(&mut blocks, &mut reader, 1999 * 512, &mut last)?;
        assert_eq!(last, bytes[1999 * 512..][..1]);
        fat.read(&mut blocks, &mut reader, 0, &mut [0])
    });
    let error = reads.by_ref().position(|read| read == Err(Error::Scattered));
    assert_eq!(error, Some((chain::MOST_STEPS / 1999) as usize));
    // It stays so, but for what can be read without a step.
    assert_eq!(reads.next(), Some(Err(Error::Scattered)));
    assert_eq!(fat.read(&mut blocks, &mut reader, 0, &mut [0]), Ok(()));
    // Another one that opens it begins anew.
    assert_eq!(contents(&fat, &mut blocks, &file), Ok(bytes));
}

#[test]
fn a_link_to_no_cluster_is_an_error_where_it_is_followed() {
    for format in Format::ALL {
        let beyond = format.clusters + 2;
        let bad = format.end() - 8;
        for value in [0, 1, beyond, bad, bad - 1] {
            assert_eq!(damaged(format, |image| image.set_link(11, value)), Err(Error::Cluster(value)), "{value:#x}");
            let first = |image: &mut FatImage| {
                image.entry(image.root(), "B", Described { attributes: 0, cluster: value, len: 1 });
            };
            let mut image = FatImage::new(format);
            first(&mut image);
            let (fat, mut blocks) = opened(&image);
            let file = find(&fat, &mut blocks, "B").unwrap();
            assert_eq!(contents(&fat, &mut blocks, &file), Err(Error::Cluster(value)));
        }
        // What comes before it can be read.
        let mut image = FatImage::new(format);
        let bytes = pattern(4 * 512);
        image.file_in(image.root(), "A", &bytes, &[10, 11, 20, 21]);
        image.set_link(11, 0);
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "A").unwrap();
        let mut reader = fat.reader(&file);
        let mut piece = vec![0; 1024];
        assert_eq!(fat.read(&mut blocks, &mut reader, 0, &mut piece), Ok(()));
        assert_eq!(piece, bytes[..1024]);
        assert_eq!(fat.read(&mut blocks, &mut reader, 1024, &mut [0]), Err(Error::Cluster(0)));
        // The last cluster is one.
        let last = format.clusters + 1;
        let mut image = FatImage::new(format);
        image.file_in(image.root(), "A", b"last", &[last]);
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "A").unwrap();
        assert_eq!(contents(&fat, &mut blocks, &file), Ok(b"last".to_vec()));
    }
}

#[test]
fn each_mark_ends_a_chain() {
    for format in Format::ALL {
        for mark in format.end() - 7..=format.end() {
            assert!(damaged(format, |image| image.set_link(21, mark)).is_ok());
            assert_eq!(damaged(format, |image| image.set_link(11, mark)), Err(Error::CutOff), "{mark:#x}");
        }
    }
}

#[test]
fn a_file_that_is_longer_than_its_clusters_is_cut_off() {
    for format in Format::ALL {
        for len in [4 * 512 + 1, 1 << 20, u32::MAX] {
            let mut image = FatImage::new(format);
            let bytes = pattern(4 * 512);
            let cluster = image.store(&[10, 11, 12, 20], &bytes);
            image.entry(image.root(), "A", Described { attributes: 0, cluster, len });
            let (fat, mut blocks) = opened(&image);
            let file = find(&fat, &mut blocks, "A").unwrap();
            let mut reader = fat.reader(&file);
            let all = place(len.into());
            assert_eq!(fat.load(&mut blocks, &mut reader, 0, all), Err(Error::CutOff));
            assert_eq!(fat.read(&mut blocks, &mut reader, u64::from(len) - 1, &mut [0]), Err(Error::CutOff));
            let mut there = vec![0; 4 * 512];
            assert_eq!(fat.read(&mut blocks, &mut reader, 0, &mut there), Ok(()));
            assert_eq!(there, bytes);
        }
        // More clusters than its length are no defect.
        let mut image = FatImage::new(format);
        let cluster = image.store(&[10, 11, 12], &pattern(3 * 512));
        image.entry(image.root(), "A", Described { attributes: 0, cluster, len: 700 });
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "A").unwrap();
        assert_eq!(contents(&fat, &mut blocks, &file), Ok(pattern(700)));
    }
}

#[test]
fn a_directory_in_no_cluster_is_an_error() {
    for format in Format::ALL {
        for cluster in [0, 1, format.clusters + 2] {
            let mut image = FatImage::new(format);
            image.entry(image.root(), "D", Described { attributes: 0x10, cluster, len: 0 });
            let (fat, mut blocks) = opened(&image);
            let directory = find(&fat, &mut blocks, "D").unwrap();
            assert_eq!(fat.next(&mut blocks, &directory, &mut Position::default()), Err(Error::Cluster(cluster)));
            assert_eq!(fat.find(&mut blocks, &directory, &utf16("A")), Err(Error::Cluster(cluster)));
        }
    }
    let mut image = FatImage::new(Format::FAT32);
    image.put(44, &1_u32.to_le_bytes());
    let (fat, mut blocks) = opened(&image);
    assert_eq!(fat.find(&mut blocks, &fat.root(), &utf16("A")), Err(Error::Cluster(1)));
    assert_eq!(fat.label(&mut blocks), Err(Error::Cluster(1)));
}

#[test]
fn a_disk_that_cannot_be_read_is_the_disks_error() {
    for format in Format::ALL {
        let mut image = FatImage::new(format);
        image.file_in(image.root(), "A", &pattern(4 * 512), &[10, 11, 20, 21]);
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "A").unwrap();
        let refused = Err(Error::Disk(DiskError::Refused(0xd)));
        let mut reader = fat.reader(&file);
        let root = if format.bits == 32 { format.cluster(2) } else { format.root() };
        for (defect, file_fails) in
            [(format.table(0), true), (format.cluster(11), true), (root, false), (format.cluster(300), false)]
        {
            blocks.defect = defect..defect + 512;
            let mut bytes = vec![0; 4 * 512];
            let result = fat.read(&mut blocks, &mut reader, 0, &mut bytes);
            assert_eq!(result, if file_fails { refused } else { Ok(()) }, "{defect:#x}");
        }
        blocks.defect = root..root + 1;
        assert_eq!(fat.find(&mut blocks, &fat.root(), &utf16("A")).map(|_| ()), refused);
        blocks.defect = 0..512;
        assert_eq!(Fat::open(&mut blocks).map(|_| ()), refused);
        // And then it can be read.
        blocks.defect = 0..0;
        assert_eq!(contents(&fat, &mut blocks, &file), Ok(pattern(4 * 512)));
    }
    // The partition is shorter than the file system in it.
    let mut image = FatImage::new(Format::FAT16);
    image.file_in(image.root(), "A", b"x", &[4000]);
    image.bytes.truncate(1 << 20);
    let (fat, mut blocks) = opened(&image);
    let file = find(&fat, &mut blocks, "A").unwrap();
    assert_eq!(contents(&fat, &mut blocks, &file), Err(DiskError::OutOfRange.into()));
}

#[test]
fn a_sector_that_is_no_fats_is_refused() {
    let refused = |bytes: &[u8]| Fat::open(&mut FakeBlocks::new(bytes)) == Err(Error::NotFat);
    let changes: [(u64, &[u8]); 19] = [
        (11, &[0, 0]),
        (11, &[0, 1]),
        (11, &[1, 2]),
        (11, &[0, 3]),
        (11, &[0, 0x20]),
        (13, &[0]),
        (13, &[3]),
        (14, &[0, 0]),
        (14, &[0xff, 0xff]),
        (16, &[0]),
        (16, &[255]),
        (17, &[0, 0]),
        (19, &[0, 0]),
        (19, &[1, 0]),
        (21, &[0x80]),
        (21, &[0xf1]),
        (21, &[0xf7]),
        (22, &[0xff, 0xff]),
        // Then it would be FAT32 with a table of so many sectors.
        (22, &[0, 0]),
    ];
    for (at, bytes) in changes {
        let mut image = FatImage::new(Format::FAT16);
        image.put(at, bytes);
        assert!(refused(&image.bytes), "{at} {bytes:?}");
    }
    let mut image = FatImage::new(Format::FAT32);
    image.put(42, &[1]);
    assert!(refused(&image.bytes), "a later version");
    for (at, bytes) in [(32, [0; 4]), (36, [0; 4]), (36, [0xff; 4])] {
        let mut image = FatImage::new(Format::FAT32);
        image.put(at, &bytes);
        assert!(refused(&image.bytes), "{at}");
    }
    assert!(refused(&[]) && refused(&[0; 512]) && refused(&[0xff; 512]));
    // Without the two bytes at the end it is one, as for Linux and edk2.
    let mut image = FatImage::new(Format::FAT16);
    image.put(510, &[0, 0]);
    assert!(!refused(&image.bytes));
    // NTFS and exFAT have no reserved sectors, or no length of a sector.
    let mut ntfs = FatImage::new(Format::FAT16);
    ntfs.put(3, b"NTFS    \0\x02\x08\0\0\0\0\0\0\0\xf8\0\0");
    let mut exfat = FatImage::new(Format::FAT16);
    exfat.put(3, b"EXFAT   ");
    exfat.put(11, &[0; 53]);
    assert!(refused(&ntfs.bytes) && refused(&exfat.bytes));
}

/// As edk2 and Linux decide.
#[test]
fn the_number_of_clusters_decides_between_12_and_16_bits() {
    for (bits, clusters, kind) in [
        (12, 4084, Some(Kind::Fat12)),
        (16, 4085, Some(Kind::Fat16)),
        (16, 65_524, Some(Kind::Fat16)),
        (16, 65_525, None),
    ] {
        let image = FatImage::new(Format { bits, clusters, ..Format::FAT16 });
        let fat = Fat::open(&mut FakeBlocks::new(&image.bytes));
        assert_eq!(fat.map(|fat| fat.kind).ok(), kind, "{clusters}");
    }
    for clusters in [1, 4000, 65_524, 65_525] {
        let image = FatImage::new(Format { clusters, ..Format::FAT32 });
        let fat = Fat::open(&mut FakeBlocks::new(&image.bytes)).unwrap();
        assert_eq!((fat.kind, fat.clusters), (Kind::Fat32, clusters));
    }
}

#[test]
fn there_are_no_more_clusters_than_the_table_has_entries() {
    for (format, field, entries) in [(Format::FAT12, 22, 341), (Format::FAT16, 22, 256), (Format::FAT32, 36, 128)] {
        let mut image = FatImage::new(format);
        image.put(field, &[1, 0]);
        let fat = Fat::open(&mut FakeBlocks::new(&image.bytes)).unwrap();
        assert_eq!(fat.clusters, entries - 2);
        // The last entry is in the table.
        let mut blocks = FakeBlocks::new(&image.bytes);
        let mut reader = Reader::new(Place::Chain(entries - 1), 2 * fat.cluster_len());
        let _ = fat.read(&mut blocks, &mut reader, 512, &mut [0]);
        let table = format.table(0)..format.table(0) + 512;
        assert!(!blocks.requests.is_empty());
        assert!(blocks.requests.iter().all(|request| request.range().end <= table.end), "{:?}", blocks.requests);
    }
}

#[test]
fn an_error_says_what_to_do() {
    for error in [Error::NotFat, Error::Cluster(1), Error::Circle, Error::Scattered, Error::CutOff, Error::OutOfRange] {
        assert!(!error.to_string().contains('\n'));
    }
    assert_eq!(Error::from(DiskError::Timeout).to_string(), DiskError::Timeout.to_string());
    let text = Error::Cluster(0x12).to_string();
    assert_eq!(text, "the FAT file system is damaged: it leads to cluster 0x12; check it with fsck.fat");
}
