//! Errors of a start by the PVH entry point.

use core::fmt;

use crate::addr::{PhysAddr, PhysRange};

/// A part of the host's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `hvm_start_info` itself.
    StartInfo,
    /// The memory map.
    MemoryMap,
    /// The list of modules.
    ModuleList,
    /// The command line.
    CommandLine,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartInfo => "hvm_start_info",
            Self::MemoryMap => "the memory map",
            Self::ModuleList => "the list of modules",
            Self::CommandLine => "the command line",
        })
    }
}

/// What is wrong with the host's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `hvm_start_info` does not begin with its magic number.
    #[error(
        "PVH start: EBX is {at}, where there is {seen:#010x} and not hvm_start_info ({:#010x}); the host has to enter \
         the firmware as a PVH guest",
        super::abi::MAGIC
    )]
    NoMagic {
        /// Where it was expected.
        at: PhysAddr,
        /// What is there.
        seen: u32,
    },
    /// The firmware cannot read the memory of a part.
    #[error(
        "PVH start: {part} is at {range}, where the firmware itself is or which it does not reach; the host has to \
         put it elsewhere below 4 GiB"
    )]
    Unreachable {
        /// The part.
        part: Part,
        /// Where it is.
        range: PhysRange,
    },
    /// The memory map is too long.
    #[error("PVH start: the memory map has {count} entries, {limit} are accepted; give the machine fewer")]
    TooManyEntries {
        /// How many entries it has.
        count: u32,
        /// How many are accepted.
        limit: u32,
    },
    /// The command line does not end.
    #[error("PVH start: the command line at {at} has no end within {limit} bytes; shorten it")]
    CommandLineTooLong {
        /// Where it begins.
        at: PhysAddr,
        /// How many bytes are accepted.
        limit: usize,
    },
    /// A module reaches past the last address.
    #[error("PVH start: a module of {size:#x} bytes at {start} reaches past the last address")]
    ModuleWraps {
        /// Where it begins.
        start: PhysAddr,
        /// Its size in bytes.
        size: u64,
    },
    /// A module overlaps the firmware.
    #[error(
        "PVH start: the host has put a module at {module}, over the firmware; it has to be elsewhere from 1 MiB on"
    )]
    ModuleOverFirmware {
        /// Where it is.
        module: PhysRange,
    },
    /// The firmware's heap has no room for the data.
    #[error("PVH start: the firmware's heap has no room for what the host hands over")]
    HeapFull,
}
