//! Which kernel the host offers, decided once.

use super::{Error, PlacedKernel, SetupHeader, Source};
use crate::addr::PhysAddr;
use crate::fw_cfg::{FwCfg, Key};
use crate::hal::Machine;
use crate::memory_map::MemoryMap;

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
    /// What is in that setup code is not looked at: QEMU 7.2 keeps it on a stack, and it is lost when it is read.
    ///
    /// # Errors
    /// [`Error::NoKernel`], [`Error::FwCfg`] when the host does not deliver; else what [`SetupHeader::parse`],
    /// [`PlacedKernel::new`] and [`PlacedKernel::hold`] find.
    pub fn of_host<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, map: &mut MemoryMap) -> Result<Self, Error> {
        let size = fw_cfg.read_u32(machine, Key::KERNEL_SIZE)?;
        if size == 0 {
            return Self::of_file(machine, fw_cfg);
        }
        match read_header(machine, fw_cfg, Source::Items) {
            Ok(header) => Ok(Self::BzImage { source: Source::Items, size, header }),
            Err(error @ (Error::Elf | Error::NotLinux | Error::RealModeOnly)) => {
                match fw_cfg.read_u32(machine, Key::KERNEL_ENTRY)? {
                    0 => Err(error),
                    entry => Self::placed(machine, fw_cfg, map, size, entry),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// A kernel that is a named file.
    #[cold]
    fn of_file<M: Machine>(machine: &mut M, fw_cfg: &FwCfg) -> Result<Self, Error> {
        let file = Source::find(fw_cfg).ok_or(Error::NoKernel)?;
        let source = Source::File(file);
        let header = read_header(machine, fw_cfg, source)?;
        let setup_len = header.setup_len();
        match file.len().checked_sub(setup_len) {
            None | Some(0) => {
                Err(Error::Truncated { seen: file.len() as usize, needed: setup_len.saturating_add(1) as usize })
            }
            Some(size) => Ok(Self::BzImage { source, size, header }),
        }
    }

    /// A kernel with an entry of its own.
    #[cold]
    fn placed<M: Machine>(
        machine: &mut M,
        fw_cfg: &FwCfg,
        map: &mut MemoryMap,
        size: u32,
        entry: u32,
    ) -> Result<Self, Error> {
        let is_multiboot = fw_cfg.read_u32(machine, Key::SETUP_SIZE)? == 0;
        let start = PhysAddr::new(fw_cfg.read_u32(machine, Key::KERNEL_ADDR)?.into());
        let kernel = PlacedKernel::new(start, size, PhysAddr::new(entry.into()))?;
        kernel.hold(map)?;
        Ok(if is_multiboot { Self::Multiboot(kernel) } else { Self::Pvh(kernel) })
    }
}

/// Reads what there is to be looked at of the setup code. Every bzImage has the boot sector and at least one more
/// (boot.rst, `setup_sects`), so the size need not be asked for. The rest is for an entry in real mode.
fn read_header<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, source: Source) -> Result<SetupHeader, Error> {
    let mut bytes = [0; SetupHeader::BYTES];
    fw_cfg.read(machine, source.setup(bytes.len() as u32), &mut bytes)?;
    SetupHeader::parse(&bytes)
}
