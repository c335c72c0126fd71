//! Directories, and what is said of a file in them.

use std::format;

use uefi_raw::protocol::file_system::FileAttribute;
use uefi_raw::time::Time;

use super::*;
use crate::fakes::fat::{Described, Directory, long_slots, short, slot};

const FILE: Described = Described { attributes: 0x20, cluster: 0, len: 0 };

/// An image whose root directory has these slots.
fn with_slots(slots: impl IntoIterator<Item = [u8; 32]>) -> FatImage {
    let mut image = FatImage::new(Format::FAT16);
    let root = image.root();
    slots.into_iter().for_each(|slot| image.slot(root, slot));
    image
}

#[test]
fn a_directory_lists_its_files_in_their_order() {
    for format in Format::ALL {
        let mut image = FatImage::new(format);
        let loader = image.directory(image.root(), "loader");
        let entries = image.directory(loader, "entries");
        let expected: Vec<_> =
            (0..40).map(|number| format!("6f1c0dc1a3c54a2f9ad7f8d8ed2e3d1c-6.1.{number}-amd64.conf")).collect();
        expected.iter().for_each(|name| {
            image.file(entries, name, name.as_bytes());
        });
        let (fat, mut blocks) = opened(&image);
        assert_eq!(names(&list(&fat, &mut blocks, &fat.root())), ["loader"]);
        let directory = find(&fat, &mut blocks, "Loader\\ENTRIES").unwrap();
        let found = list(&fat, &mut blocks, &directory);
        assert_eq!(names(&found)[..2], [".", ".."]);
        assert_eq!(names(&found)[2..], expected);
        for entry in &found[2..] {
            assert_eq!(contents(&fat, &mut blocks, entry).unwrap(), text(entry.name()).as_bytes());
            assert_eq!(fat.find(&mut blocks, &directory, entry.name()), Ok(Some(entry.clone())));
        }
        // At the end it stays.
        let mut position = Position::default();
        while fat.next(&mut blocks, &directory, &mut position).unwrap().is_some() {}
        assert_eq!(fat.next(&mut blocks, &directory, &mut position), Ok(None));
    }
}

/// A caller whose buffer is too small asks again for the same entry: it keeps the position.
#[test]
fn a_position_that_is_kept_lists_the_same_again() {
    let mut image = FatImage::new(Format::FAT32);
    (0..50).for_each(|number| {
        image.file(image.root(), &format!("a long name {number}"), &[]);
    });
    let (fat, mut blocks) = opened(&image);
    let mut position = Position::default();
    for number in 0..50 {
        let kept = position;
        let first = fat.next(&mut blocks, &fat.root(), &mut position).unwrap().unwrap();
        assert_eq!(text(first.name()), format!("a long name {number}"));
        position = kept;
        assert_eq!(fat.next(&mut blocks, &fat.root(), &mut position).unwrap().unwrap(), first);
        assert_ne!(position, kept);
    }
    // After a failure too.
    let kept = Position::default();
    let mut position = kept;
    blocks.defect = Format::FAT32.cluster(2)..u64::MAX;
    assert_eq!(fat.next(&mut blocks, &fat.root(), &mut position), Err(DiskError::Refused(0xd).into()));
    assert_eq!(position, kept);
}

#[test]
fn dots_lead_up_to_the_root() {
    for format in Format::ALL {
        let mut image = FatImage::new(format);
        let first = image.directory(image.root(), "first");
        image.directory(first, "second");
        image.file(image.root(), "in the root", &[]);
        let (fat, mut blocks) = opened(&image);
        for path in ["first\\..\\in the root", "first\\.\\second\\..\\..\\in the root", "first\\second\\.\\..\\second"]
        {
            assert!(find(&fat, &mut blocks, path).is_some(), "{path}");
        }
        // The root has none, and a file has nothing below it.
        for path in [".", "..", "first\\..\\..", "in the root\\first", "in the root\\.", ""] {
            assert_eq!(find(&fat, &mut blocks, path), None, "{path}");
        }
        assert!(fat.root().is_directory() && fat.root().name().is_empty());
        let file = find(&fat, &mut blocks, "in the root").unwrap();
        assert_eq!(fat.next(&mut blocks, &file, &mut Position::default()), Ok(None));
    }
}

#[test]
fn a_full_root_directory_ends_with_its_last_entry() {
    for format in [Format::FAT12, Format::FAT16] {
        let mut image = FatImage::new(format);
        let expected: Vec<_> = (0..format.root_entries).map(|number| format!("F{number}")).collect();
        expected.iter().for_each(|name| {
            image.file(image.root(), name, &[]);
        });
        // What follows is a file's.
        image.put(format.cluster(2), &slot(short("OTHER").unwrap(), FILE));
        assert_eq!(root_names(&image), expected);
    }
    // A directory in clusters ends with its last one, too.
    let mut image = FatImage::new(Format::FAT32);
    let expected: Vec<_> = (0..64).map(|number| format!("F{number}")).collect();
    expected.iter().for_each(|name| {
        image.file(image.root(), name, &[]);
    });
    assert_eq!(root_names(&image), expected);
}

#[test]
fn what_was_deleted_and_the_label_are_no_files() {
    let label = |attributes| slot(*b"ESP LABEL  ", Described { attributes, ..FILE });
    let mut deleted = slot(short("GONE.TXT").unwrap(), FILE);
    deleted[0] = 0xe5;
    let mut deleted_long = long_slots(&utf16("gone with a long name"), &short("GONE.TXT").unwrap());
    deleted_long.iter_mut().for_each(|slot| slot[0] = 0xe5);
    let kept = slot(short("KEPT").unwrap(), FILE);
    let slots = deleted_long.into_iter().chain([deleted, label(0x08), kept]);
    let image = with_slots(slots.clone());
    assert_eq!(root_names(&image), ["KEPT"]);
    let (fat, mut blocks) = opened(&image);
    assert_eq!(text(&fat.label(&mut blocks).unwrap()), "ESP LABEL");
    assert_eq!(find(&fat, &mut blocks, "ESP LABEL"), None);
    // A label that was archived is one, a directory is none, and without one there is the boot sector's.
    for (attributes, expected) in
        [(0x28, "ESP LABEL"), (0x18, "FIRSTLIGHT"), (0x0f, "FIRSTLIGHT"), (0x20, "FIRSTLIGHT")]
    {
        let image = with_slots([deleted, label(attributes)]);
        let (fat, mut blocks) = opened(&image);
        assert_eq!(text(&fat.label(&mut blocks).unwrap()), expected, "{attributes:#x}");
    }
    for (bytes, expected) in
        [(b"NO NAME    ", ""), (b"           ", ""), (b"A\0B        ", "A"), (b"ELEVENBYTES", "ELEVENBYTES")]
    {
        let mut image = FatImage::new(Format::FAT16);
        image.put(43, bytes);
        let (fat, mut blocks) = opened(&image);
        assert_eq!(text(&fat.label(&mut blocks).unwrap()), expected);
    }
    // Without the signature there is neither label nor number.
    let mut image = FatImage::new(Format::FAT16);
    for (signature, serial) in [(0x28, 0x1234_5678), (0, 0)] {
        image.put(38, &[signature]);
        let (fat, mut blocks) = opened(&image);
        assert_eq!((text(&fat.label(&mut blocks).unwrap()).as_str(), fat.serial()), ("", serial));
    }
}

#[test]
fn names_are_the_same_in_any_case() {
    let mut image = FatImage::new(Format::FAT16);
    let root = image.root();
    for name in ["Ünïcödé Ñame.EFI", "smile 😀.txt", "straße", "a×b", "Київ", "debian.conf"] {
        image.file(root, name, name.as_bytes());
    }
    let (fat, mut blocks) = opened(&image);
    for (name, expected) in [
        ("ÜNÏCÖDÉ ÑAME.efi", Some("Ünïcödé Ñame.EFI")),
        ("üNÏCödé ñame.eFI", Some("Ünïcödé Ñame.EFI")),
        ("SMILE 😀.TXT", Some("smile 😀.txt")),
        ("smile 😁.txt", None),
        ("straße", Some("straße")),
        ("strasse", None),
        ("A×B", Some("a×b")),
        ("a÷b", None),
        ("Київ", Some("Київ")),
        // Beyond Latin-1 the case matters, as for edk2.
        ("КИЇВ", None),
        ("DEBIAN.CONF", Some("debian.conf")),
        ("debian.con", None),
        ("debian.conf0", None),
        ("[ebian.conf", None),
    ] {
        let found = fat.find(&mut blocks, &fat.root(), &utf16(name)).unwrap();
        assert_eq!(found.map(|entry| text(entry.name())).as_deref(), expected, "{name}");
    }
    assert!(is_same(&utf16("àÿ"), &utf16("Àÿ")) && !is_same(&[0x100], &[0x101]));
}

#[test]
fn spaces_and_dots_around_a_name_do_not_matter() {
    let mut image = FatImage::new(Format::FAT16);
    image.file(image.root(), "A.TXT", &[]);
    image.file(image.root(), "two words", &[]);
    let (fat, mut blocks) = opened(&image);
    for name in ["A.TXT", "a.txt.", "A.TXT . .", " A.TXT", "  a.txt  ", "two words..."] {
        assert!(fat.find(&mut blocks, &fat.root(), &utf16(name)).unwrap().is_some(), "{name}");
    }
    for name in ["", " ", ".", "...", " . ", ".A.TXT", "A .TXT", "two  words"] {
        assert_eq!(fat.find(&mut blocks, &fat.root(), &utf16(name)), Ok(None), "{name}");
    }
}

#[test]
fn a_file_has_its_short_name_beside_its_long_one() {
    let alias = short("GRUBEN~1.CFG").unwrap();
    let long = long_slots(&utf16("grubenv backup.cfg"), &alias);
    let image = with_slots(long.into_iter().chain([slot(alias, FILE)]));
    assert_eq!(root_names(&image), ["grubenv backup.cfg"]);
    let (fat, mut blocks) = opened(&image);
    for name in ["GRUBENV BACKUP.CFG", "gruben~1.cfg"] {
        let found = fat.find(&mut blocks, &fat.root(), &utf16(name)).unwrap().unwrap();
        assert_eq!(text(found.name()), "grubenv backup.cfg");
    }
}

#[test]
fn long_names_have_up_to_255_characters() {
    let alias = short("LONG").unwrap();
    // One that fills its entries has no NUL at the end.
    for len in [1, 12, 13, 14, 26, 254, 255] {
        let name: Vec<u16> = (0..len).map(|at| 0x61 + at % 26).collect();
        let image = with_slots(long_slots(&name, &alias).into_iter().chain([slot(alias, FILE)]));
        assert_eq!(root_names(&image), [text(&name)]);
        let (fat, mut blocks) = opened(&image);
        assert!(fat.find(&mut blocks, &fat.root(), &name).unwrap().is_some());
    }
    // 256 fit into the entries, but are no name; 261 do not fit.
    for len in [256, 260, 261, 400] {
        let name: Vec<u16> = (0..len).map(|at| 0x61 + at % 26).collect();
        let image = with_slots(long_slots(&name, &alias).into_iter().chain([slot(alias, FILE)]));
        assert_eq!(root_names(&image), ["LONG"], "{len}");
    }
}

type Change = fn(&mut Vec<[u8; 32]>);

/// The short name remains.
#[test]
fn a_damaged_long_name_is_none() {
    let alias = short("ALIAS").unwrap();
    let whole = long_slots(&utf16("a name that takes three entries"), &alias);
    assert_eq!(whole.len(), 3);
    let damaged = |change: Change| {
        let mut slots = whole.clone();
        change(&mut slots);
        root_names(&with_slots(slots.into_iter().chain([slot(alias, FILE)])))
    };
    let changes: [(&str, Change); 13] = [
        ("another sum", |slots| slots.iter_mut().for_each(|slot| slot[13] ^= 1)),
        ("another sum in one", |slots| slots[1][13] ^= 1),
        ("the wrong order", |slots| slots.reverse()),
        ("two pieces swapped", |slots| slots.swap(1, 2)),
        ("a piece is missing", |slots| {
            slots.remove(1);
        }),
        ("the first piece is missing", |slots| {
            slots.remove(2);
        }),
        ("the last piece is missing", |slots| {
            slots.remove(0);
        }),
        ("a piece twice", |slots| slots.insert(1, slots[1])),
        ("no last piece", |slots| slots[0][0] = 3),
        ("number 0", |slots| slots[2][0] = 0x40),
        ("number 21", |slots| slots[0][0] = 0x55),
        ("a deleted piece", |slots| slots[1][0] = 0xe5),
        ("a label between", |slots| slots.insert(3, slot(*b"LABEL      ", Described { attributes: 8, ..FILE }))),
    ];
    assert_eq!(damaged(|_| ()), ["a name that takes three entries"]);
    for (what, change) in changes {
        assert_eq!(damaged(change), ["ALIAS"], "{what}");
    }
    // A piece too many, of which the right ones follow.
    let twice = damaged(|slots| slots.insert(0, slots[0]));
    assert_eq!(twice, ["a name that takes three entries"]);
    // One of another file before it, and nothing after it.
    let orphan = long_slots(&utf16("of another file"), &short("OTHER").unwrap());
    let image = with_slots(orphan.clone().into_iter().chain([slot(alias, FILE)]).chain(orphan));
    assert_eq!(root_names(&image), ["ALIAS"]);
    // An empty one.
    let image = with_slots(long_slots(&[0; 13], &alias).into_iter().chain([slot(alias, FILE)]));
    assert_eq!(root_names(&image), ["ALIAS"]);
}

#[test]
fn short_names_have_the_case_of_their_flags() {
    for (bytes, flags, expected) in [
        (b"README  TXT", 0x00, "README.TXT"),
        (b"README  TXT", 0x08, "readme.TXT"),
        (b"README  TXT", 0x10, "README.txt"),
        (b"README  TXT", 0x18, "readme.txt"),
        (b"VMLINUZ    ", 0x18, "vmlinuz"),
        (b"EIGHTCHRSTH", 0x00, "EIGHTCHR.STH"),
        (b"A B     C D", 0x00, "A B.C D"),
        // The first one would be the mark of a deleted entry.
        (b"\x05TUDE   TXT", 0x00, "åTUDE.TXT"),
        (b"\xc9TUDE   TXT", 0x08, "étude.TXT"),
        // No character ends a name in UTF-16.
        (b"A\0BCDEF T\0T", 0x00, "A.T"),
    ] {
        let mut entry = slot(*bytes, FILE);
        entry[12] = flags;
        let image = with_slots([entry]);
        assert_eq!(root_names(&image), [expected]);
        let (fat, mut blocks) = opened(&image);
        assert!(fat.find(&mut blocks, &fat.root(), &utf16(expected)).unwrap().is_some(), "{expected}");
    }
}

#[test]
fn a_file_has_times_and_attributes() {
    let mut described = slot(short("A").unwrap(), Described { attributes: 0x27, cluster: 0, len: 0 });
    // Created at the first second that can be written; accessed on a day that does not exist.
    described[14..18].copy_from_slice(&[0, 0, 0x21, 0]);
    described[18..20].copy_from_slice(&[0, 0]);
    let mut image = with_slots([described]);
    image.directory(image.root(), "D");
    let (fat, mut blocks) = opened(&image);
    let file = find(&fat, &mut blocks, "A").unwrap();
    let time = |year, month, day, hour, minute, second| {
        let time_zone = Time::UNSPECIFIED_TIMEZONE;
        Time { year, month, day, hour, minute, second, time_zone, ..Time::invalid() }
    };
    assert_eq!(file.modified(), time(2026, 11, 29, 12, 34, 56));
    assert_eq!(file.created(), time(1980, 1, 1, 0, 0, 0));
    assert_eq!(file.accessed(), Time::invalid());
    let attributes = FileAttribute::READ_ONLY | FileAttribute::HIDDEN | FileAttribute::SYSTEM | FileAttribute::ARCHIVE;
    assert_eq!(file.attributes(), attributes);
    let directory = find(&fat, &mut blocks, "D").unwrap();
    assert_eq!((directory.attributes(), directory.len()), (FileAttribute::DIRECTORY, 0));
    assert_eq!(directory.accessed(), time(2026, 11, 29, 0, 0, 0));
    assert_eq!((fat.root().attributes(), fat.root().modified()), (FileAttribute::DIRECTORY, Time::invalid()));
    for (date, clock) in [(0x20, 0), (0x01, 0), (0x1a1, 0), (0x21, 24 << 11), (0x21, 60 << 5), (0x21, 30)] {
        assert_eq!(super::super::directory::time(date, clock), Time::invalid(), "{date:#x} {clock:#x}");
    }
}

#[test]
fn a_directory_ends_after_65536_entries() {
    let format = Format { clusters: 6000, ..Format::FAT32 };
    let mut image = FatImage::new(format);
    let clusters = image.take(MOST_DIRECTORY / 512 + 1);
    let mut deleted = slot(short("GONE").unwrap(), FILE);
    deleted[0] = 0xe5;
    let bytes: Vec<u8> = core::iter::repeat_n(deleted, 65_536 - 1)
        .chain(["LAST", "BEHIND"].map(|name| slot(short(name).unwrap(), FILE)))
        .flatten()
        .collect();
    let cluster = image.store(&clusters, &bytes);
    image.entry(image.root(), "D", Described { attributes: 0x10, cluster, len: 0 });
    let (fat, mut blocks) = opened(&image);
    let directory = find(&fat, &mut blocks, "D").unwrap();
    blocks.requests.clear();
    assert_eq!(names(&list(&fat, &mut blocks, &directory)), ["LAST"]);
    assert_eq!(find(&fat, &mut blocks, "D\\BEHIND"), None);
    assert!(blocks.requests.len() <= 3 * 5000, "{}", blocks.requests.len());
}

/// A part of FAT32's number of a cluster has another meaning elsewhere.
#[test]
fn the_upper_half_of_a_cluster_matters_in_fat32_only() {
    for format in Format::ALL {
        let mut image = FatImage::new(format);
        let cluster = image.file(image.root(), "A", b"contents");
        let mut entry = slot(short("B").unwrap(), Described { attributes: 0x20, cluster, len: 8 });
        entry[20..22].copy_from_slice(&[0x12, 0]);
        image.slot(image.root(), entry);
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "B").unwrap();
        let expected =
            if format.bits == 32 { Err(Error::Cluster(0x12_0000 | cluster)) } else { Ok(b"contents".to_vec()) };
        assert_eq!(contents(&fat, &mut blocks, &file), expected);
    }
}

#[test]
fn a_long_name_goes_on_in_the_next_cluster() {
    for format in Format::ALL {
        let mut image = FatImage::new(format);
        let directory: Directory = image.directory(image.root(), "D");
        // The two dots and this many files fill a cluster but for two entries.
        (0..12).for_each(|number| {
            image.file(directory, &format!("F{number}"), &[]);
        });
        image.file_in(image.root(), "BETWEEN", b"x", &[image.format.clusters - 5]);
        image.file(directory, "a name that takes three entries", b"found");
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "d\\A NAME that takes three entries").unwrap();
        assert_eq!(contents(&fat, &mut blocks, &file), Ok(b"found".to_vec()));
    }
}
