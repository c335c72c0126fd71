//! `cargo xtask disks`: makes the disks that the tests boot, from Debian's packages.
//!
//! `disks.toml` has the list. Nothing needs root or a loop device: file systems are made in files by their ordinary programs, and
//! partition tables by sfdisk. The same packages give the same bytes, except for what others make: the CD of grub-mkrescue, the disk of
//! genimage, the installed system. That system needs root (`debian`). The tool is a separate workspace member, compiled when a
//! command needs it.
#![forbid(unsafe_code)]

mod debian;
mod make;
mod sources;
mod table;

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use clap::Parser;
use xtask::packages::{self, Need};
use xtask::progress::{exit_code, say, step};
use xtask::{efi_programs, guest, paths};

use crate::sources::Sources;
use crate::table::Table;

/// The programs that make partition tables and file systems.
const NEEDS: [Need; 10] = [
    Need::tool("sfdisk", &["fdisk"], "make partition tables"),
    Need::tool("mkfs.vfat", &["dosfstools"], "make FAT file systems"),
    Need::tool("mcopy", &["mtools"], "put files on FAT file systems"),
    Need::tool("mke2fs", &["e2fsprogs"], "make ext4 file systems"),
    Need::tool("xorriso", &["xorriso"], "make CDs"),
    Need::tool("grub-mkrescue", &["grub-common"], "make CDs with GRUB"),
    Need::tool("/usr/lib/grub/x86_64-efi/moddep.lst", &["grub-efi-amd64-bin"], "make CDs with GRUB"),
    Need::tool("/usr/lib/grub/i386-pc/moddep.lst", &["grub-pc-bin"], "make CDs with GRUB for a BIOS"),
    Need::tool("genimage", &["genimage"], "make a disk as others do"),
    Need::tool("objcopy", &["binutils"], "make unified kernel images"),
];

/// Make the disks that the tests boot
///
/// They are put into target/guest/disks, as sparse files. A disk that is there is made again if its packages, its entry in
/// tools/disks/disks.toml or this tool have changed.
#[derive(Parser)]
#[command(name = "disks", bin_name = "cargo xtask disks", max_term_width = 100)]
struct Arguments {
    /// The disks to make; by default, those that the tests boot by default
    names: Vec<String>,

    /// Make those too that only `cargo xtask test --all-disks` boots
    #[arg(long)]
    all: bool,

    /// List the disks, and make none
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    exit_code(run(&Arguments::parse()).map(|()| ExitCode::SUCCESS))
}

fn run(args: &Arguments) -> anyhow::Result<()> {
    let table = Table::read()?;
    let chosen = table.choose(&args.names, args.all || args.list)?;
    if args.list {
        for (_, disk) in chosen {
            println!("{:<14} {}", disk.name, disk.about);
        }
        return Ok(());
    }
    packages::ensure(&NEEDS)?;
    if chosen.iter().any(|(_, disk)| disk.has_a_system()) {
        packages::ensure(&debian::NEEDS)?;
    }
    packages::ensure(&[packages::BUSYBOX, packages::KMOD])?;
    let guest = guest::prepare()?;
    let sources = Sources { programs: efi_programs::prepare()?, kernel: guest.kernel.image, initrd: guest.initrd };
    let folder = paths::disks_folder();
    let _lock = paths::lock(&folder)?;
    let tool = modified(&std::env::current_exe()?)?;
    for (number, disk) in chosen {
        let contents = table.contents(disk)?;
        let recipe = format!("{tool:?} {} {number} {disk:?} {contents:?}", sources.state(&contents)?);
        let (image, made_by) = (folder.join(disk.file_name()), folder.join(format!("{}.recipe", disk.name)));
        if image.is_file() && std::fs::read_to_string(&made_by).is_ok_and(|made_by| made_by == recipe) {
            continue;
        }
        let step = step(&format!("Making the disk {}", disk.name));
        make::disk(number, disk, &contents, &sources, &image).with_context(|| format!("the disk {}", disk.name))?;
        paths::write_if_changed(&made_by, recipe.as_bytes())?;
        step.done();
    }
    say(&format!("The disks are in {}.", paths::shown(&folder)));
    Ok(())
}

/// When a file was last changed.
fn modified(path: &PathBuf) -> anyhow::Result<SystemTime> {
    let time = File::open(path).and_then(|file| file.metadata()?.modified());
    time.with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_definition_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
