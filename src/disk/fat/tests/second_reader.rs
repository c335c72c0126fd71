//! The crate `fatfs`, which others wrote: what it writes is read, and what it reads is the same. And images that mkfs.fat and mtools
//! made (`testdata/make.sh`).

use std::borrow::ToOwned;
use std::collections::BTreeMap;
use std::format;
use std::io::{Cursor, Read, Write};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};

use super::*;

type Files = BTreeMap<String, Option<Vec<u8>>>;
type Second<'a> = FileSystem<Cursor<&'a mut [u8]>>;

/// All files by their paths, with their contents, and directories, with none.
fn read_by_us(bytes: &[u8]) -> Files {
    fn walk(fat: &Fat, blocks: &mut FakeBlocks, directory: &Entry, path: &str, files: &mut Files) {
        for entry in list(fat, blocks, directory) {
            let name = text(entry.name());
            if name == "." || name == ".." {
                continue;
            }
            assert_eq!(fat.find(blocks, directory, entry.name()), Ok(Some(entry.clone())), "{name}");
            let path = format!("{path}\\{name}");
            if entry.is_directory() {
                walk(fat, blocks, &entry, &path, files);
                files.insert(path, None);
            } else {
                let bytes = contents(fat, blocks, &entry).unwrap();
                fat.load(blocks, &mut fat.reader(&entry), 0, place(bytes.len() as u64)).unwrap();
                assert_eq!(blocks.memory.bytes(PLACE, bytes.len()), bytes);
                files.insert(path, Some(bytes));
            }
        }
    }
    let mut blocks = FakeBlocks::new(bytes);
    let fat = Fat::open(&mut blocks).unwrap();
    let mut files = Files::new();
    walk(&fat, &mut blocks, &fat.root(), "", &mut files);
    files
}

fn read_by_fatfs(bytes: &mut [u8]) -> Files {
    fn walk(directory: fatfs::Dir<'_, Cursor<&mut [u8]>>, path: &str, files: &mut Files) {
        for entry in directory.iter().map(Result::unwrap) {
            let name = entry.file_name();
            if name == "." || name == ".." {
                continue;
            }
            let path = format!("{path}\\{name}");
            if entry.is_dir() {
                walk(entry.to_dir(), &path, files);
                files.insert(path, None);
            } else {
                let mut bytes = Vec::new();
                entry.to_file().read_to_end(&mut bytes).unwrap();
                files.insert(path, Some(bytes));
            }
        }
    }
    let second: Second<'_> = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
    let mut files = Files::new();
    walk(second.root_dir(), "", &mut files);
    files
}

/// A disk that `fatfs` formatted.
fn formatted(kind: FatType, sector_len: u16, cluster_len: u32, clusters: u32) -> Vec<u8> {
    let mut bytes = vec![0; (clusters + 300) as usize * cluster_len as usize];
    let options = FormatVolumeOptions::new()
        .fat_type(kind)
        .bytes_per_sector(sector_len)
        .bytes_per_cluster(cluster_len)
        .volume_id(0x2026_1129)
        .volume_label(*b"SECOND     ");
    format_volume(Cursor::new(&mut bytes[..]), options).unwrap();
    bytes
}

/// What a user does.
#[derive(Clone, Debug)]
enum Step {
    Create { directory: usize, name: String, len: usize },
    Append { file: usize, len: usize },
    Remove { file: usize },
    MakeDirectory { directory: usize, name: String },
    Rename { file: usize, directory: usize, name: String },
}

fn step() -> impl Strategy<Value = Step> {
    let name = prop_oneof![
        "[A-Z]{1,8}\\.[A-Z]{0,3}",
        "[a-z0-9]{1,12}\\.(conf|efi|cfg)",
        "[A-Za-z0-9àéß月_+-]{1,40}",
        "[a-z]{200,255}",
    ];
    let name = name.prop_map(|name| name.trim_end_matches('.').to_owned());
    let index = || 0..8_usize;
    prop_oneof![
        4 => (index(), name.clone(), 0..9000_usize).prop_map(|(directory, name, len)| Step::Create { directory, name, len }),
        3 => (index(), 0..9000_usize).prop_map(|(file, len)| Step::Append { file, len }),
        2 => index().prop_map(|file| Step::Remove { file }),
        1 => (index(), name.clone()).prop_map(|(directory, name)| Step::MakeDirectory { directory, name }),
        1 => (index(), index(), name).prop_map(|(file, directory, name)| Step::Rename { file, directory, name }),
    ]
}

/// Makes the steps that are possible.
fn make(bytes: &mut [u8], steps: &[Step]) {
    let second: Second<'_> = FileSystem::new(Cursor::new(bytes), FsOptions::new()).unwrap();
    let root = second.root_dir();
    let (mut directories, mut files) = (vec![String::new()], Vec::<String>::new());
    for (number, step) in steps.iter().enumerate() {
        let path = |directory: &usize, name: &str| format!("{}{name}", directories[directory % directories.len()]);
        match step {
            Step::Create { directory, name, len } => {
                let path = path(directory, name);
                if root.open_file(&path).is_ok() || root.open_dir(&path).is_ok() {
                    continue;
                }
                root.create_file(&path).unwrap().write_all(&pattern(len + number)[number..]).unwrap();
                files.push(path);
            }
            Step::Append { file, len } if !files.is_empty() => {
                let mut file = root.open_file(&files[file % files.len()]).unwrap();
                std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
                file.write_all(&pattern(*len)).unwrap();
            }
            Step::Remove { file } if !files.is_empty() => {
                root.remove(&files.swap_remove(file % files.len())).unwrap();
            }
            Step::MakeDirectory { directory, name } => {
                let path = path(directory, name);
                if root.open_file(&path).is_ok() || root.open_dir(&path).is_ok() {
                    continue;
                }
                root.create_dir(&path).unwrap();
                directories.push(path + "/");
            }
            Step::Rename { file, directory, name } if !files.is_empty() => {
                let (index, path) = (file % files.len(), path(directory, name));
                if root.open_file(&path).is_err() && root.open_dir(&path).is_err() {
                    root.rename(&files[index], &root, &path).unwrap();
                    files[index] = path;
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_another_driver_writes_is_read(
        (kind, sector_len, cluster_len, clusters) in prop_oneof![
            Just((FatType::Fat12, 512, 512, 2000)),
            Just((FatType::Fat12, 512, 8192, 400)),
            Just((FatType::Fat16, 512, 512, 6000)),
            Just((FatType::Fat16, 4096, 4096, 4500)),
        ],
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut bytes = formatted(kind, sector_len, cluster_len, clusters);
        make(&mut bytes, &steps);
        prop_assert_eq!(read_by_us(&bytes), read_by_fatfs(&mut bytes));
    }
}

/// Fewer steps: the second reader takes FAT32 only with as many clusters as Microsoft asks for, which makes the disks large.
#[test]
fn what_another_driver_writes_in_fat32_is_read() {
    let mut bytes = formatted(FatType::Fat32, 512, 512, 67_000);
    let step = |number: usize| match number % 5 {
        0 => Step::MakeDirectory { directory: number / 2, name: format!("directory {number}") },
        1 | 2 => Step::Create { directory: number, name: format!("file {number} with a long name"), len: number * 700 },
        3 => Step::Append { file: number * 7, len: 3000 },
        _ => Step::Remove { file: number * 3 },
    };
    make(&mut bytes, &(0..60).map(step).collect::<Vec<_>>());
    let files = read_by_us(&bytes);
    assert!(files.len() > 20);
    assert_eq!(files, read_by_fatfs(&mut bytes));
    let mut blocks = FakeBlocks::new(&bytes);
    let fat = Fat::open(&mut blocks).unwrap();
    assert_eq!(
        (fat.kind, fat.serial(), text(&fat.label(&mut blocks).unwrap()).as_str()),
        (Kind::Fat32, 0x2026_1129, "SECOND")
    );
}

/// So the images of the other tests are file systems to others too.
#[test]
fn another_driver_reads_the_images_of_these_tests() {
    for format in [Format::FAT12, Format::FAT16, Format { clusters: 66_000, ..Format::FAT32 }] {
        let mut image = FatImage::new(format);
        let efi = image.directory(image.root(), "EFI");
        let deep = image.directory(efi, "a directory with a long name");
        (0..20).for_each(|number| {
            image.file(deep, &format!("entry number {number}.conf"), &pattern(number * 100));
        });
        image.file_in(image.root(), "scattered", &pattern(5 * 512), &[390, 381, 382, 399, 370]);
        let files = read_by_fatfs(&mut image.bytes);
        assert_eq!(files.len(), 23);
        assert_eq!(read_by_us(&image.bytes), files);
    }
}

/// The disk of a file in `testdata`: pieces, and zeros between them.
fn golden(kept: &[u8], kib: u64) -> FakeBlocks {
    let mut blocks = FakeBlocks::empty(BlockLen::DISK, kib * 2);
    let mut rest = kept;
    while let Some((numbers, pieces)) = rest.split_first_chunk::<8>() {
        let [at, len] = [0, 4].map(|index| u32::from_le_bytes(*numbers[index..].first_chunk().unwrap()));
        let (piece, next) = pieces.split_at(len as usize);
        blocks.disk.store(at.into(), piece);
        rest = next;
    }
    blocks
}

#[test]
fn images_of_mkfs_and_mtools_are_read() {
    macro_rules! images {
        ($($name:literal $kib:literal $kind:ident $cluster_len:literal $label:literal,)*) => {
            [$(($name, &include_bytes!(concat!("../testdata/", $name, ".fat"))[..], $kib, Kind::$kind, $cluster_len, $label),)*]
        };
    }
    let images = images! {
        "fat12" 1440 Fat12 512 "FLOPPY",
        "fat12-8k" 24_576 Fat12 8192 "TWELVE 8K",
        "fat16" 10_240 Fat16 512 "",
        "fat16-4kn" 65_536 Fat16 4096 "FOURK",
        "fat32" 40_960 Fat32 512 "ESP",
        "mformat" 2880 Fat12 1024 "MFORMAT",
    };
    let lines = |count: usize| (0..count).map(|line| format!("{line:07}\n")).collect::<String>().into_bytes();
    for (name, kept, kib, kind, cluster_len, label) in images {
        let mut blocks = golden(kept, kib);
        let fat = Fat::open(&mut blocks).unwrap();
        assert_eq!((fat.kind, fat.cluster_len(), fat.serial()), (kind, cluster_len, 0x1234_5678), "{name}");
        assert_eq!(text(&fat.label(&mut blocks).unwrap()), label, "{name}");
        for (path, count) in [
            ("efi\\boot\\bootx64.efi", 100),
            ("LOADER\\LOADER.CONF", 3),
            ("loader\\entries\\6F1C0DC1A3C54A2F9AD7F8D8ED2E3D1C-6.1.0-56-cloud-amd64+3-0.conf", 20),
            ("GRÜSSE AUS kiew ☃.txt", 0),
            ("grÜße aus kiew ☃.TXT", 1),
            ("lower.txt", 0),
            ("pieces.bin", 400),
        ] {
            let file = find(&fat, &mut blocks, path);
            if path.starts_with("GRÜSSE") {
                assert_eq!(file, None);
                continue;
            }
            let file = file.unwrap_or_else(|| panic!("{path} of {name}"));
            assert_eq!(contents(&fat, &mut blocks, &file), Ok(lines(count)), "{path} of {name}");
        }
        let root = list(&fat, &mut blocks, &fat.root());
        assert_eq!(names(&root), ["EFI", "loader", "Grüße aus Kiew ☃.txt", "lower.txt", "pieces.bin"], "{name}");
        // It was written into what the deleted files had left; in FAT32 behind them, and a large cluster holds all of a file.
        blocks.requests.clear();
        fat.load(&mut blocks, &mut fat.reader(&root[4]), 0, place(3200)).unwrap();
        assert!(kind == Kind::Fat32 || cluster_len > 1024 || loads(&blocks).len() > 1, "{name}");
    }
}
