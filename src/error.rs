//! Why the boot failed, as a message for the user.

use core::fmt;

use crate::{boot, fw_cfg, memory_map, resume, start_info};

/// The error that stopped the boot. Each prints as one sentence: what was asked, what was seen, what to change.
#[derive(Debug)]
pub enum Error {
    /// The fw_cfg device.
    FwCfg(fw_cfg::Error),
    /// The information from a host that starts the firmware by the PVH entry point.
    StartInfo(start_info::Error),
    /// The memory map.
    MemoryMap(memory_map::Error),
    /// The kernel, its place or its transfer.
    Boot(boot::Error),
    /// A wake from suspend.
    Resume(resume::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FwCfg(error) => error.fmt(f),
            Self::StartInfo(error) => error.fmt(f),
            Self::MemoryMap(error) => error.fmt(f),
            Self::Boot(error) => error.fmt(f),
            Self::Resume(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

impl From<fw_cfg::Error> for Error {
    fn from(error: fw_cfg::Error) -> Self {
        Self::FwCfg(error)
    }
}

impl From<start_info::Error> for Error {
    fn from(error: start_info::Error) -> Self {
        Self::StartInfo(error)
    }
}

impl From<memory_map::Error> for Error {
    fn from(error: memory_map::Error) -> Self {
        Self::MemoryMap(error)
    }
}

impl From<boot::Error> for Error {
    fn from(error: boot::Error) -> Self {
        Self::Boot(error)
    }
}

impl From<resume::Error> for Error {
    fn from(error: resume::Error) -> Self {
        Self::Resume(error)
    }
}
