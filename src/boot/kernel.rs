//! Which kernel the host offers, decided once.

use super::{Error, PlacedKernel, SetupHeader, Source, elf};
use crate::addr::PhysAddr;
use crate::fw_cfg::{FwCfg, Item, Key};
use crate::hal::Machine;
use crate::layout;
use crate::memory_map::HostMap;
use crate::start_info::{Start, StartInfo};

/// A kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// A bzImage, which the firmware has to load.
    BzImage {
        /// Where it is read from.
        source: Source,
        /// The bytes of its protected-mode part, and what the host appended to it.
        size: u32,
        /// What it says of itself.
        header: SetupHeader,
    },
    /// An ELF file with a PVH note, which the host has loaded.
    Pvh(PlacedKernel),
    /// A kernel for Multiboot, which the firmware has to load where the host says.
    Multiboot(PlacedKernel),
}

impl Kernel {
    /// The kernel that the host offers. The memory of one whose place the host has chosen is held in `map`, so this comes
    /// before anything else is put into memory.
    ///
    /// QEMU tells the kinds apart by the file, and so which items there are (`hw/i386/x86.c`, `x86_load_linux`;
    /// `hw/i386/multiboot.c`): an entry only with a kernel that is not a bzImage, and then setup code only with a PVH note.
    /// An entry that is zero reads as one that is absent.
    /// What is in that setup code is not looked at: QEMU 7.2 keeps it on a stack, and it is lost when it is read.
    ///
    /// After a start by the PVH entry the numbered kernel may be the firmware itself: the host was given it as the kernel. QEMU
    /// gives its entry then, Cloud Hypervisor none. The kernel is looked for elsewhere.
    ///
    /// # Errors
    /// [`Error::NoKernel`], [`Error::EmptyFile`], [`Error::ElfFile`], [`Error::FileTruncated`], [`Error::FwCfg`] when the
    /// host does not deliver; else what [`SetupHeader::parse`], [`PlacedKernel::new`] and [`PlacedKernel::hold`] find.
    pub fn of_host<M: Machine>(
        machine: &mut M,
        fw_cfg: &FwCfg,
        start: &Start,
        map: &mut HostMap,
    ) -> Result<Self, Error> {
        let size = fw_cfg.read_u32(machine, Key::KERNEL_SIZE);
        if size == 0 {
            return Self::of_file(machine, fw_cfg, start);
        }
        match read_header(machine, fw_cfg, Source::Items) {
            Ok(header) => Ok(Self::BzImage { source: Source::Items, size, header }),
            Err(error @ (Error::Elf | Error::NotLinux { .. } | Error::RealModeOnly)) => {
                let entry = fw_cfg.read_u32(machine, Key::KERNEL_ENTRY);
                if start.info().is_some() && is_own_image(machine, fw_cfg, entry) {
                    return Self::of_file(machine, fw_cfg, start);
                }
                // An entry that is absent. Without setup code it is the entry of a kernel for Multiboot.
                if entry == 0 && fw_cfg.read_u32(machine, Key::SETUP_SIZE) != 0 {
                    return Err(error);
                }
                Self::placed(machine, fw_cfg, map, size, entry)
            }
            Err(error) => Err(error),
        }
    }

    /// A kernel that is a file: a named one, else one in memory.
    #[cold]
    fn of_file<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, start: &Start) -> Result<Self, Error> {
        match (Source::find(fw_cfg), start) {
            (Ok(file), _) => Self::whole(machine, fw_cfg, Source::File(file)).map_err(|error| match error {
                Error::Elf => Error::ElfFile,
                error => error,
            }),
            (Err(_), Start::Pvh(info)) => Self::of_modules(machine, fw_cfg, info),
            (Err(error), Start::Reset) => Err(error),
        }
    }

    /// The first module that is a bzImage. Where there is none it may still be the initrd's item: QEMU's `pvh.bin` passes no
    /// modules on.
    #[cold]
    fn of_modules<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, info: &StartInfo) -> Result<Self, Error> {
        let item = match fw_cfg.read_u32(machine, Key::INITRD_SIZE) {
            len if len != 0 && info.modules.is_empty() => Some(Source::File(Item::new(Key::INITRD_DATA, len))),
            _ => None,
        };
        let mut none = Error::NoKernelModule { modules: info.modules.len() };
        for source in info.modules.iter().copied().map(Source::Memory).chain(item) {
            match Self::whole(machine, fw_cfg, source) {
                // Of memory that is where the firmware cannot read it.
                Err(Error::Elf | Error::NotLinux { .. } | Error::Truncated { .. } | Error::FwCfg(_)) => {}
                // Any file with a boot sector, unless it is all that there is.
                Err(error @ Error::RealModeOnly) => none = error,
                kernel => return kernel,
            }
        }
        Err(none)
    }

    /// The kernel that is the whole of `source`.
    #[inline(never)]
    fn whole<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, source: Source) -> Result<Self, Error> {
        let header = read_header(machine, fw_cfg, source)?;
        // No kernel is as long as 4 GiB.
        let len = u32::try_from(source.len()).unwrap_or(u32::MAX);
        match len.checked_sub(header.setup_len()) {
            None | Some(0) => Err(Error::FileTruncated { seen: source.len(), needed: header.file_len().max(1) }),
            Some(size) => Ok(Self::BzImage { source, size, header }),
        }
    }

    /// A kernel with an entry of its own.
    #[cold]
    fn placed<M: Machine>(
        machine: &mut M,
        fw_cfg: &FwCfg,
        map: &mut HostMap,
        size: u32,
        entry: u32,
    ) -> Result<Self, Error> {
        let is_multiboot = fw_cfg.read_u32(machine, Key::SETUP_SIZE) == 0;
        let start = PhysAddr::new(fw_cfg.read_u32(machine, Key::KERNEL_ADDR).into());
        let kernel = PlacedKernel::new(start, size, PhysAddr::new(entry.into()))?;
        kernel.hold(map)?;
        Ok(if is_multiboot { Self::Multiboot(kernel) } else { Self::Pvh(kernel) })
    }
}

/// Whether the numbered kernel is the firmware itself, by its entry: that of the host, or without one (zero) that of the file.
/// Nothing else is entered where the image is, since nothing else can be there.
#[cold]
fn is_own_image<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, entry: u32) -> bool {
    let entry = match entry {
        0 => {
            let mut bytes = [0; elf::BYTES];
            fw_cfg.read(machine, Item::new(Key::SETUP_DATA, bytes.len() as u32), &mut bytes);
            elf::entry(&bytes)
        }
        entry => Some(PhysAddr::new(entry.into())),
    };
    entry.is_some_and(|entry| layout::LOADED_IMAGE.contains_addr(entry))
}

/// Reads what there is to be looked at of the setup code. Every bzImage has the boot sector and at least one more
/// (boot.rst, `setup_sects`), so the size need not be asked for. The rest is for an entry in real mode.
fn read_header<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, source: Source) -> Result<SetupHeader, Error> {
    const BYTES: u32 = SetupHeader::BYTES as u32;
    SetupHeader::parse(&source.setup(BYTES).read(machine, fw_cfg, BYTES)?)
}
