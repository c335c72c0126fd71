//! Where a kernel that the firmware loads, its initrd and its command line are read from.
//!
//! A host that is given a kernel offers each part as a numbered item ([`Source::Items`]). One that is not, or that has no
//! such items, may offer them as named files: under `opt/org.firstlight/`, or the kernel as QEMU 10 has it beside the
//! numbered items, under `etc/boot/kernel`. Nobody has written to these, so the kernel is there as its file is: setup code
//! and the rest in one. They are looked for where there is no numbered kernel, and only there.
//!
//! Left out: `etc/boot/kernel` in place of a kernel that the host has divided. It is the same kernel, without what the host
//! wrote into its header, which counts for none of what is done here (see `docs/kernels.md`).

use super::Error;
use crate::addr::PhysAddr;
use crate::fw_cfg::{FwCfg, Item, Key};
use crate::hal::Machine;

/// The files with a whole kernel, of which the first counts (QEMU 10 `hw/i386/x86-common.c`, `x86_load_linux`).
const KERNELS: [&str; 2] = ["opt/org.firstlight/kernel", "etc/boot/kernel"];
/// The file with an initrd.
const INITRD: &str = "opt/org.firstlight/initrd";
/// The file with a command line.
const COMMAND_LINE: &str = "opt/org.firstlight/cmdline";

/// How a bzImage comes from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In numbered items: the setup code as the host has changed it, and the rest with what the host has appended.
    Items,
    /// In a named file: all of it.
    File(Item),
}

impl Source {
    /// The first named file with a kernel, where the host has one.
    #[cold]
    pub(super) fn find(fw_cfg: &FwCfg) -> Option<Item> {
        KERNELS.into_iter().filter_map(|name| fw_cfg.find(name)).find(|file| !file.is_empty())
    }

    /// The first `len` bytes of the kernel, or as many as there are of a named file.
    #[must_use]
    pub(super) fn setup(self, len: u32) -> Item {
        match self {
            Self::Items => Item::new(Key::SETUP_DATA, len),
            Self::File(file) => Item::new(file.key(), file.len().min(len)),
        }
    }

    /// Loads what follows the `setup_len` bytes of setup code, `size` bytes, to `to`.
    pub(super) fn load_kernel<M: Machine>(
        self,
        machine: &mut M,
        fw_cfg: &FwCfg,
        setup_len: u32,
        size: u32,
        to: PhysAddr,
    ) -> Result<(), Error> {
        match self {
            Self::Items => fw_cfg.load(machine, Item::new(Key::KERNEL_DATA, size), to)?,
            Self::File(file) => fw_cfg.load_from(machine, file, setup_len, to)?,
        };
        Ok(())
    }
}

/// What goes with a kernel, each with no bytes where there is none.
#[derive(Clone, Copy)]
pub(super) struct Extras {
    pub initrd: Item,
    pub command_line: CommandLine,
}

/// The command line.
#[derive(Clone, Copy)]
pub(super) struct CommandLine {
    pub item: Item,
    /// Whether the item ends with a NUL, which the host counts; else it is a file as somebody wrote it.
    pub has_nul: bool,
}

impl CommandLine {
    /// The bytes of the text with a NUL at its end.
    pub fn len(self) -> u32 {
        if self.has_nul { self.item.len() } else { self.item.len().saturating_add(1) }
    }
}

impl Extras {
    /// What the host has for a kernel from `source`. A numbered item counts before a file.
    pub fn of_host<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, source: Source) -> Result<Self, Error> {
        let initrd = Item::new(Key::INITRD_DATA, fw_cfg.read_u32(machine, Key::INITRD_SIZE)?);
        let command_line = Item::new(Key::CMDLINE_DATA, fw_cfg.read_u32(machine, Key::CMDLINE_SIZE)?);
        let mut this = Self { initrd, command_line: CommandLine { item: command_line, has_nul: true } };
        if let Source::File(_) = source {
            this.find_files(fw_cfg);
        }
        Ok(this)
    }

    /// Puts named files in the place of what there is not.
    #[cold]
    fn find_files(&mut self, fw_cfg: &FwCfg) {
        if self.initrd.is_empty()
            && let Some(file) = fw_cfg.find(INITRD)
        {
            self.initrd = file;
        }
        // A host without a command line may offer an empty one, which is its NUL.
        if self.command_line.len() <= 1
            && let Some(item) = fw_cfg.find(COMMAND_LINE)
        {
            self.command_line = CommandLine { item, has_nul: false };
        }
    }
}
