//! What there is to boot.

use super::Error;
use crate::addr::{PhysAddr, PhysRange};

/// The sizes of the host's kernel items in bytes, zero where it has no such item (QEMU `docs/specs/fw_cfg.rst` and
/// `include/standard-headers/linux/qemu_fw_cfg.h`: `FW_CFG_KERNEL_SIZE`, `_INITRD_SIZE`,
/// `_CMDLINE_SIZE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ItemSizes {
    /// The protected-mode part of the kernel file, and what the host appended to it.
    pub kernel: u32,
    /// The initrd.
    pub initrd: u32,
    /// The command line with the NUL at its end.
    pub command_line: u32,
}

/// A kernel and what goes with it. Made from [`ItemSizes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    pub(super) kernel: u64,
    pub(super) initrd: u64,
    pub(super) command_line: u64,
    pub(super) host_address: Option<PhysAddr>,
    pub(super) initrd_place: Option<PhysRange>,
}

impl Payload {
    /// The payload with these sizes. `host_address` is where the host would have the protected-mode part loaded
    /// (`FW_CFG_KERNEL_ADDR`), if it says so: what the host put into the header is relative to that.
    ///
    /// # Errors
    /// [`Error::NoKernel`].
    pub fn new(sizes: ItemSizes, host_address: Option<PhysAddr>) -> Result<Self, Error> {
        if sizes.kernel == 0 {
            return Err(Error::NoKernel);
        }
        Ok(Self {
            kernel: sizes.kernel.into(),
            initrd: sizes.initrd.into(),
            command_line: sizes.command_line.into(),
            host_address,
            initrd_place: None,
        })
    }

    /// With an initrd that is in memory already. It stays there if the kernel takes it there.
    #[must_use]
    pub const fn with_initrd_at(mut self, place: Option<PhysRange>) -> Self {
        self.initrd_place = place;
        self
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let new = |sizes| Payload::new(sizes, None);
        assert_eq!(new(ItemSizes::default()), Err(Error::NoKernel));
        assert_eq!(new(ItemSizes { initrd: 5, command_line: 1, ..Default::default() }), Err(Error::NoKernel));
        assert!(new(ItemSizes { kernel: 1, ..Default::default() }).is_ok());
        assert!(
            Error::NoKernel.to_string().starts_with("no kernel: give the host one (QEMU -kernel, libvirt <kernel>)")
        );
    }
}
