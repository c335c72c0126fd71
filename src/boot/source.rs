//! Where a kernel that the firmware loads, its initrd and its command line are read from.
//!
//! A host that is given a kernel offers each part as a numbered item ([`Source::Items`]). One that is not, or that has no
//! such items, may offer them as named files: under `opt/org.firstlight/`, or the kernel as QEMU 10 has it beside the
//! numbered items, under `etc/boot/kernel`. Nobody has written to these, so the kernel is there as its file is: setup code
//! and the rest in one. They are looked for where there is no numbered kernel, and only there.
//!
//! A host that starts the firmware by the PVH entry may have a kernel in memory ([`Source::Memory`]), as one of the modules
//! of `hvm_start_info`; another one is the initrd. Items of fw_cfg count before these.
//!
//! Left out: `etc/boot/kernel` in place of a kernel that the host has divided. It is the same kernel, without what the host
//! wrote into its header, which counts for none of what is done here (see `docs/kernels.md`).

use super::{Error, Part};
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::{FwCfg, Item, Key};
use crate::hal::Machine;
use crate::start_info::{Start, StartInfo};

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
    /// In memory: all of it.
    Memory(PhysRange),
}

impl Source {
    /// The first named file with a kernel.
    ///
    /// # Errors
    /// [`Error::NoKernel`] when the host has none, [`Error::EmptyFile`] when nothing is in it.
    #[cold]
    pub(super) fn find(fw_cfg: &FwCfg) -> Result<Item, Error> {
        let files = || KERNELS.into_iter().filter_map(|name| fw_cfg.find(name));
        let none = if files().next().is_some() { Error::EmptyFile } else { Error::NoKernel };
        files().find(|file| !file.is_empty()).ok_or(none)
    }

    /// The length in bytes of a whole file; zero for numbered items, which have two.
    pub(super) const fn len(self) -> u64 {
        match self {
            Self::Items => 0,
            Self::File(file) => file.len() as u64,
            Self::Memory(file) => file.len(),
        }
    }

    /// The first `len` bytes of the kernel, or as many as there are of a whole file.
    #[must_use]
    pub(super) fn setup(self, len: u32) -> Part<'static> {
        match self {
            Self::Items => Part::Item(Item::new(Key::SETUP_DATA, len)),
            Self::File(file) => Part::Item(Item::new(file.key(), file.len().min(len))),
            Self::Memory(file) => {
                Part::Memory(PhysRange::new(file.start(), file.len().min(len.into())).unwrap_or(file))
            }
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
            Self::Items => fw_cfg.load(machine, Item::new(Key::KERNEL_DATA, size), to).map(drop)?,
            Self::File(file) => fw_cfg.load_from(machine, file, setup_len, to).map(drop)?,
            Self::Memory(file) => {
                let start = file.start().checked_add(setup_len.into()).unwrap_or(file.end());
                let code = PhysRange::from_bounds(start, file.end()).unwrap_or_default();
                Part::Memory(code).load(machine, fw_cfg, to)?;
            }
        }
        Ok(())
    }
}

/// What goes with a kernel, each with no bytes where there is none.
#[derive(Clone, Copy)]
pub(super) struct Extras<'a> {
    pub initrd: Part<'static>,
    pub command_line: CommandLine<'a>,
}

/// The command line.
#[derive(Clone, Copy)]
pub(super) struct CommandLine<'a> {
    pub text: Part<'a>,
    /// Whether the text ends with a NUL, which the host counts; else it is as somebody wrote it.
    pub has_nul: bool,
}

impl CommandLine<'_> {
    /// The bytes of the text with a NUL at its end.
    pub fn len(self) -> u64 {
        if self.has_nul { self.text.len() } else { self.text.len().saturating_add(1) }
    }
}

impl<'a> Extras<'a> {
    /// What the host has for a kernel from `source`. A numbered item counts before a file, and that before what is in
    /// memory. The initrd's item is none if the kernel is just that item, or in memory.
    pub fn of_host<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, source: Source, start: &'a Start) -> Self {
        let initrd = match source {
            Source::Memory(_) => 0,
            Source::File(file) if file.key() == Key::INITRD_DATA => 0,
            Source::Items | Source::File(_) => fw_cfg.read_u32(machine, Key::INITRD_SIZE),
        };
        let command_line = Item::new(Key::CMDLINE_DATA, fw_cfg.read_u32(machine, Key::CMDLINE_SIZE));
        let mut this = Self {
            initrd: Part::Item(Item::new(Key::INITRD_DATA, initrd)),
            command_line: CommandLine { text: Part::Item(command_line), has_nul: true },
        };
        if source != Source::Items {
            this.find_files(fw_cfg);
        }
        if let Start::Pvh(info) = start {
            this.find_in_memory(source, info);
        }
        this
    }

    /// Puts named files in the place of what there is not.
    #[cold]
    fn find_files(&mut self, fw_cfg: &FwCfg) {
        if self.initrd.is_empty()
            && let Some(file) = fw_cfg.find(INITRD)
        {
            self.initrd = Part::Item(file);
        }
        // A host without a command line may offer an empty one, which is its NUL.
        if self.command_line.len() <= 1
            && let Some(item) = fw_cfg.find(COMMAND_LINE)
        {
            self.command_line = CommandLine { text: Part::Item(item), has_nul: false };
        }
    }

    /// Puts what the host has put into memory in the place of what there is not: as initrd the first module that is not
    /// the kernel.
    #[cold]
    fn find_in_memory(&mut self, source: Source, info: &'a StartInfo) {
        if self.initrd.is_empty()
            && let Some(&module) = info.modules.iter().find(|&&module| source != Source::Memory(module))
        {
            self.initrd = Part::Memory(module);
        }
        if self.command_line.len() <= 1 {
            self.command_line = CommandLine { text: Part::Bytes(&info.command_line), has_nul: false };
        }
    }
}
