//! One disk: its file systems, its partition table, and what is broken on it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use gpt::GptConfig;
use gpt::disk::LogicalBlockSize;
use gpt::partition_types::EFI;
use xtask::apt::Apart;
use xtask::progress::{command_line, run_quietly};

use crate::debian;
use crate::sources::{Sources, Values};
use crate::table::{Disk, Files, Kind, Partition, System};

/// The time of every file: the start of 2026, in seconds since 1970.
const TIME: u64 = 1_767_225_600;
/// The variables from which the programs take their time (reproducible-builds.org; mke2fs).
const TIME_VARIABLES: [&str; 2] = ["SOURCE_DATE_EPOCH", "E2FSPROGS_FAKE_TIME"];

/// The times of an inode (debugfs(8)).
const TIMES: [&str; 4] = ["atime", "ctime", "mtime", "crtime"];

/// Where the first partition is, and the room behind the last one.
const GAP: u64 = 1 << 20;
/// The piece in which images are copied. One of zeros stays a hole.
const PIECE: usize = 64 << 10;
/// The longest free piece of a fragmented file system.
const FRAGMENT: usize = 64 << 10;

/// What genimage is to make.
const GENIMAGE: &str = r#"
image esp.vfat {
    vfat {}
    size = 64M
}
image disk {
    hdimage {
        partition-table-type = "gpt"
    }
    partition esp {
        partition-type-uuid = "U"
        image = "esp.vfat"
    }
}
"#;

/// Makes a disk, the `number`th of the list, in the file `image`.
pub fn disk(number: u32, disk: &Disk, contents: &[Files], sources: &Sources, image: &Path) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(image.parent().context("no folder")?)?;
    let made = folder.path().join("disk");
    let values = Values { name: &disk.name, root: identifier(number, 0) };
    let maker = Maker { folder: folder.path(), number, disk, sources, values };
    match disk.table {
        Kind::Gpt | Kind::Mbr => maker.partitioned(contents, &made)?,
        Kind::None => maker.file_system(0, contents, &made)?,
        Kind::Iso => maker.iso(contents, &made)?,
        Kind::GrubIso => maker.grub_iso(contents, &made)?,
        Kind::Genimage => maker.genimage(contents, &made)?,
        Kind::Package => maker.file_of_package(&made)?,
    }
    if disk.has_a_system() {
        debian::install_boot_loader(&made, folder.path())?;
    }
    let file = File::options().write(true).open(&made)?;
    for (offset, length) in &disk.zero {
        file.write_all_at(&vec![0; usize::try_from(*length)?], *offset)?;
    }
    fs::rename(&made, image).with_context(|| format!("cannot make {}", image.display()))
}

/// An identifier of a partition, or of the disk as its partition 0.
fn identifier(disk: u32, partition: usize) -> String {
    format!("F1257119-0000-4000-8000-{disk:08x}{partition:04x}")
}

struct Maker<'a> {
    folder: &'a Path,
    number: u32,
    disk: &'a Disk,
    sources: &'a Sources,
    values: Values<'a>,
}

/// A program that knows no other time and place.
fn program(name: &str) -> Command {
    let mut command = Command::new(xtask::paths::find_program(name).unwrap_or_else(|| name.into()));
    command.envs(TIME_VARIABLES.map(|variable| (variable, TIME.to_string())));
    command.envs([("TZ", "UTC"), ("LC_ALL", "C"), ("MTOOLSRC", "/dev/null"), ("MTOOLS_SKIP_CHECK", "1")]);
    command
}

impl Maker<'_> {
    /// A disk with partitions.
    fn partitioned(&self, contents: &[Files], to: &Path) -> anyhow::Result<()> {
        let (mut start, mut places) = (GAP, Vec::new());
        for partition in &self.disk.partition {
            // Before a logical partition is its own table.
            start += if partition.logical { GAP } else { 0 };
            places.push(start);
            start += partition.mib << 20;
        }
        let disk = File::options().read(true).write(true).create_new(true).open(to)?;
        disk.set_len(start + GAP)?;
        match self.disk.sector {
            512 => self.table(&places, start, to)?,
            sector => self.table_of_large_sectors(&places, sector, to)?,
        }
        for (number, place) in places.iter().enumerate() {
            let image = self.folder.join(format!("partition-{number}"));
            self.file_system(number, contents, &image)?;
            copy_into(&image, &disk, *place)?;
        }
        Ok(())
    }

    /// A partition table with sectors of 512 bytes, by sfdisk. The partitions end at `end`.
    fn table(&self, places: &[u64], end: u64, to: &Path) -> anyhow::Result<()> {
        let mut script = match self.disk.table {
            Kind::Gpt => format!("label: gpt\nlabel-id: {}\n", identifier(self.number, 0)),
            _ => format!("label: dos\nlabel-id: {:#x}\n", 0xf125_0000 + self.number),
        };
        if self.disk.partition.iter().any(|partition| partition.logical) {
            script += &format!("1: start={}, size={}, type=extended\n", GAP / 512, (end - GAP) / 512);
        }
        for (number, (place, partition)) in (1..).zip(places.iter().zip(&self.disk.partition)) {
            let name = if partition.logical { number + 4 } else { number };
            script += &format!("{name}: start={}, size={}, type={}", place / 512, partition.mib << 11, partition.kind);
            if self.disk.table == Kind::Gpt {
                script += &format!(", uuid={}, name=partition-{number}", identifier(self.number, number));
            }
            script.push('\n');
        }
        with_input(program("sfdisk").args(["--quiet", "--no-reread", "--no-tell-kernel"]).arg(to), &script)
    }

    /// A GPT with larger sectors, which sfdisk cannot make in a file.
    fn table_of_large_sectors(&self, places: &[u64], sector: u32, to: &Path) -> anyhow::Result<()> {
        ensure!(self.disk.table == Kind::Gpt, "only a GPT can have sectors of {sector} bytes");
        let size = LogicalBlockSize::try_from(u64::from(sector))?;
        let mut device = File::options().read(true).write(true).open(to)?;
        let sectors = device.metadata()?.len() / u64::from(sector);
        let protective = gpt::mbr::ProtectiveMBR::with_lb_size(u32::try_from(sectors - 1)?);
        protective.overwrite_lba0(&mut device)?;
        let mut table = GptConfig::new()
            .writable(true)
            .logical_block_size(size)
            .create_from_device(device, Some(identifier(self.number, 0).parse()?))?;
        for (number, (place, partition)) in (1..).zip(places.iter().zip(&self.disk.partition)) {
            let first = place / u64::from(sector);
            table.add_partition_at(
                &format!("partition-{number}"),
                u32::try_from(number)?,
                first,
                (partition.mib << 20) / u64::from(sector),
                EFI,
                0,
            )?;
        }
        let mut partitions = table.partitions().clone();
        for (number, partition) in &mut partitions {
            partition.part_guid = identifier(self.number, usize::try_from(*number)?).parse()?;
        }
        table.update_partitions(partitions)?;
        table.write().map(drop).context("cannot write the partition table")
    }

    /// The file system of a partition.
    fn file_system(&self, number: usize, contents: &[Files], to: &Path) -> anyhow::Result<()> {
        let (partition, files) =
            self.disk.partition.get(number).zip(contents.get(number)).context("the disk has no partition")?;
        File::create_new(to)?.set_len(partition.mib << 20)?;
        match partition.system {
            System::Fat12 => self.fat("12", number, partition, files, to),
            System::Fat16 => self.fat("16", number, partition, files, to),
            System::Fat32 => self.fat("32", number, partition, files, to),
            System::Ext4 => self.ext4(files, to),
            System::Debian => debian::file_system(&self.values.root, self.folder, to),
            System::Iso9660 => bail!("only a CD has this file system"),
        }
    }

    fn fat(&self, bits: &str, number: usize, partition: &Partition, files: &Files, to: &Path) -> anyhow::Result<()> {
        let mut make = program("mkfs.vfat");
        make.args(["--invariant", "-F", bits, "-n", "FIRSTLIGHT", "-S", &self.disk.sector.to_string()]);
        make.args(["-i", &format!("{:04x}{number:04x}", self.number)]);
        if let Some(sectors) = partition.cluster {
            make.args(["-s", &sectors.to_string()]);
        }
        run_quietly(make.arg(to))?;
        if partition.fragmented {
            self.fragment(partition.mib << 20, to)?;
        }
        let folders: BTreeSet<_> = files.keys().flat_map(|path| Path::new(path).ancestors().skip(1)).collect();
        let folders = folders.into_iter().filter(|folder| !folder.as_os_str().is_empty());
        let folders: Vec<_> = folders.map(|folder| format!("::/{}", folder.display())).collect();
        if !folders.is_empty() {
            run_quietly(program("mmd").arg("-i").arg(to).args(folders))?;
        }
        for (path, source) in files {
            let file = self.sources.file(source, &self.values, self.folder)?;
            run_quietly(program("mcopy").arg("-i").arg(to).arg(file).arg(format!("::/{path}")))?;
        }
        Ok(())
    }

    /// Leaves free pieces of [`FRAGMENT`] only, between files.
    fn fragment(&self, bytes: u64, to: &Path) -> anyhow::Result<()> {
        let fill = self.folder.join("fill");
        fs::create_dir(&fill)?;
        // The file system has less room than this, and the last files do not fit.
        let pieces = usize::try_from(bytes)? / FRAGMENT;
        let name = |number: usize| format!("{number:04}.bin");
        for number in 0..pieces - 8 {
            fs::write(fill.join(name(number)), vec![0xf1; FRAGMENT])?;
        }
        let all = |step: usize| (0..pieces - 8).step_by(step).map(name);
        run_quietly(program("mmd").arg("-i").arg(to).arg("::/fill"))?;
        run_quietly(program("mcopy").arg("-i").arg(to).args(all(1).map(|name| fill.join(name))).arg("::/fill"))?;
        run_quietly(program("mdel").arg("-i").arg(to).args(all(2).map(|name| format!("::/fill/{name}"))))?;
        Ok(())
    }

    fn ext4(&self, files: &Files, to: &Path) -> anyhow::Result<()> {
        let tree = self.tree(files)?;
        let root = &self.values.root;
        let mut make = program("mke2fs");
        // GRUB 2.06 does not read a file system whose checksums have a seed.
        make.args(["-q", "-t", "ext4", "-O", "^metadata_csum_seed", "-U", root]);
        make.args(["-E", &format!("hash_seed={root},root_owner=0:0"), "-d"]).arg(tree).arg(to);
        run_quietly(&mut make)?;
        // mke2fs takes the files' times from the folder.
        let inodes = files.keys().flat_map(|path| Path::new(path).ancestors()).collect::<BTreeSet<_>>();
        let set =
            |path: &Path| TIMES.map(|name| format!("set_inode_field /{} {name} @{TIME}\n", path.display())).concat();
        let script: String = inodes.into_iter().map(set).collect();
        with_input(
            program("debugfs").args(["-w", "-f", "-"]).arg(to).stdout(Stdio::null()).stderr(Stdio::null()),
            &script,
        )
    }

    /// Puts the files into a folder. Returns it.
    fn tree(&self, files: &Files) -> anyhow::Result<PathBuf> {
        let tree = self.folder.join("tree");
        fs::create_dir(&tree)?;
        for (path, source) in files {
            let to = tree.join(path);
            fs::create_dir_all(to.parent().context("no folder")?)?;
            fs::copy(self.sources.file(source, &self.values, self.folder)?, &to)?;
        }
        Ok(tree)
    }

    /// A CD whose El Torito image is the file system.
    fn iso(&self, contents: &[Files], to: &Path) -> anyhow::Result<()> {
        let tree = self.folder.join("tree");
        fs::create_dir(&tree)?;
        self.file_system(0, contents, &tree.join("efi.img"))?;
        let mut make = program("xorriso");
        make.args(["-as", "mkisofs", "-quiet", "-V", "FIRSTLIGHT", "-e", "efi.img", "-no-emul-boot"]);
        make.args(["--set_all_file_dates", &format!("={TIME}"), "-o"]);
        run_quietly(make.arg(to).arg(tree)).map(drop)
    }

    /// A CD that GRUB's own program makes. It has the time in it, by which GRUB finds its files.
    fn grub_iso(&self, contents: &[Files], to: &Path) -> anyhow::Result<()> {
        let tree = self.tree(contents.first().context("the disk has no files")?)?;
        let mut make = program("grub-mkrescue");
        make.arg("-o").arg(to).arg(tree).args(["--", "-volid", "FIRSTLIGHT"]);
        run_quietly(&mut make).map(drop)
    }

    /// A disk with one partition as genimage makes it, which Buildroot uses.
    fn genimage(&self, contents: &[Files], to: &Path) -> anyhow::Result<()> {
        let tree = self.tree(contents.first().context("the disk has no files")?)?;
        let [config, images, temporary] = ["genimage.cfg", "images", "temporary"].map(|name| self.folder.join(name));
        fs::write(&config, GENIMAGE)?;
        let mut make = program("genimage");
        make.arg("--config").arg(config).arg("--rootpath").arg(tree).arg("--tmppath").arg(temporary);
        run_quietly(make.arg("--inputpath").arg(&images).arg("--outputpath").arg(&images))?;
        fs::rename(images.join("disk"), to).context("genimage made no disk")
    }

    /// A file of a Debian package.
    fn file_of_package(&self, to: &Path) -> anyhow::Result<()> {
        let (package, path) = self.disk.package.as_ref().context("the disk names no package")?;
        let system = Apart::here()?.download_to(self.folder, package, &[package])?;
        fs::copy(system.join(path), to).with_context(|| format!("{package} has no {path}"))?;
        Ok(())
    }
}

/// Runs a program with this input.
fn with_input(command: &mut Command, input: &str) -> anyhow::Result<()> {
    let line = command_line(command);
    let mut child = command.stdin(Stdio::piped()).spawn().with_context(|| format!("cannot start `{line}`"))?;
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    ensure!(child.wait()?.success(), "`{line}` failed; its input was:\n{input}");
    Ok(())
}

/// Copies a file into `to` at `place`. Its zeros stay holes.
fn copy_into(from: &Path, to: &File, place: u64) -> anyhow::Result<()> {
    let mut from = File::open(from)?;
    let mut piece = vec![0; PIECE];
    let (mut to, mut place) = (to, place);
    loop {
        let read = from.read(&mut piece)?;
        let Some(bytes) = piece.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        if bytes.iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(place))?;
            to.write_all(bytes)?;
        }
        place += u64::try_from(read)?;
    }
}
