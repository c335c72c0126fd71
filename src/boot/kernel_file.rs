//! A kernel file as a source has it.

use super::blob::Blob;
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::{FwCfg, Item, Key};
use crate::hal::HostAccess;

/// The file with the kernel as the user passed it. QEMU 10 offers it besides the divided one (`hw/i386/x86-common.c`,
/// `x86_load_linux`).
pub const UNMODIFIED: &str = "etc/boot/kernel";

/// Where the bytes of a kernel file are. A Linux kernel file is setup code, followed by the code that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFile {
    /// In one piece.
    Whole(Blob<'static>),
    /// In two items, because the host divides a bzImage.
    Divided {
        /// The item with the setup code, as modified by the host.
        setup: Key,
        /// The item with the rest, followed by what the host has appended.
        code: Item,
        /// The item with the kernel's address for which the host has computed pointers to what it has appended.
        address: Key,
    },
}

impl KernelFile {
    /// The first `len` bytes. A whole file may be shorter. Of a divided file, `len` must not exceed the setup code, because
    /// the host is not asked for its length.
    #[must_use]
    pub fn first(self, len: u32) -> Blob<'static> {
        match self {
            Self::Whole(file) => file.split_at(len).0,
            Self::Divided { setup, .. } => Item::new(setup, len).into(),
        }
    }

    /// What follows the `setup_len` bytes of setup code.
    #[must_use]
    pub fn code(self, setup_len: u32) -> Blob<'static> {
        match self {
            Self::Whole(file) => file.split_at(setup_len).1,
            Self::Divided { code, .. } => code.into(),
        }
    }

    /// The whole file, in one or two parts. Instead of a divided file it is the unmodified one, if the host offers that: signatures
    /// and measurements cover every byte. If not, the host is asked for the length of the setup code.
    pub fn parts<M: HostAccess>(self, machine: &mut M, fw_cfg: &FwCfg) -> [Blob<'static>; 2] {
        match (self, fw_cfg.find(UNMODIFIED).filter(|file| !file.is_empty())) {
            (Self::Whole(file), _) => [file, Blob::default()],
            (Self::Divided { .. }, Some(file)) => [file.into(), Blob::default()],
            (Self::Divided { setup, code, .. }, None) => {
                let len = fw_cfg.read_u32(machine, Key::SETUP_SIZE);
                [Item::new(setup, len).into(), code.into()]
            }
        }
    }

    /// The range that holds the whole file, if the host has put it into memory.
    #[must_use]
    pub const fn place(&self) -> Option<PhysRange> {
        match self {
            Self::Whole(file) => file.place(),
            Self::Divided { .. } => None,
        }
    }

    /// The address at which the host expects the code. `None` for a whole file, to which nothing is appended.
    pub fn host_address<M: HostAccess>(self, machine: &mut M, fw_cfg: &FwCfg) -> Option<PhysAddr> {
        match self {
            Self::Whole(_) => None,
            Self::Divided { address, .. } => Some(PhysAddr::new(fw_cfg.read_u32(machine, address).into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fakes::fw_cfg::FakeFwCfg;
    use crate::fakes::machine::FakeMachine;

    fn parts(device: FakeFwCfg, file: KernelFile) -> [Blob<'static>; 2] {
        let mut machine = FakeMachine::new().with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        file.parts(&mut machine, &fw_cfg)
    }

    #[test]
    fn the_whole_of_a_divided_file_is_the_unmodified_file_if_the_host_has_it() {
        let device = || FakeFwCfg::new(true).with_item(0x17, &512_u32.to_le_bytes());
        let [setup, code] = [Key::SETUP_DATA, Key::KERNEL_DATA].map(|key| Item::new(key, 512));
        let divided = KernelFile::Divided { setup: setup.key(), code, address: Key::KERNEL_ADDR };
        let both = [setup.into(), code.into()];
        assert_eq!(parts(device(), divided), both);
        assert_eq!(parts(device().with_file(UNMODIFIED, b""), divided), both, "an empty file is none");
        let [file, rest] = parts(device().with_file(UNMODIFIED, b"unmodified"), divided);
        assert_eq!((file.len(), rest), (10, Blob::default()));
        let whole = Blob::Bytes(b"another");
        let with_file = device().with_file(UNMODIFIED, b"unmodified");
        assert_eq!(parts(with_file, KernelFile::Whole(whole)), [whole, Blob::default()]);
    }
}
