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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// `hvm_start_info` does not begin with its magic number.
    NoMagic {
        /// Where it was expected.
        at: PhysAddr,
        /// What is there.
        seen: u32,
    },
    /// The firmware cannot read the memory of a part.
    Unreachable {
        /// The part.
        part: Part,
        /// Where it is.
        range: PhysRange,
    },
    /// The memory map is too long.
    TooManyEntries {
        /// How many entries it has.
        count: u32,
        /// How many are accepted.
        limit: u32,
    },
    /// The command line does not end.
    CommandLineTooLong {
        /// Where it begins.
        at: PhysAddr,
        /// How many bytes are accepted.
        limit: usize,
    },
    /// A module reaches past the last address.
    ModuleWraps {
        /// Where it begins.
        start: PhysAddr,
        /// Its size in bytes.
        size: u64,
    },
    /// A module overlaps the firmware.
    ModuleOverFirmware {
        /// Where it is.
        module: PhysRange,
    },
    /// The firmware's heap has no room for the data.
    HeapFull,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoMagic { at, seen } => write!(
                f,
                "PVH start: EBX is {at}, where there is {seen:#010x} and not hvm_start_info ({:#010x}); the host has to \
                 enter the firmware as a PVH guest",
                super::abi::MAGIC
            ),
            Self::Unreachable { part, range } => write!(
                f,
                "PVH start: {part} is at {range}, where the firmware itself is or which it does not reach; the host has to put \
                 it elsewhere below 4 GiB"
            ),
            Self::TooManyEntries { count, limit } => {
                write!(f, "PVH start: the memory map has {count} entries, {limit} are accepted; give the machine fewer")
            }
            Self::CommandLineTooLong { at, limit } => {
                write!(f, "PVH start: the command line at {at} has no end within {limit} bytes; shorten it")
            }
            Self::ModuleWraps { start, size } => {
                write!(f, "PVH start: a module of {size:#x} bytes at {start} reaches past the last address")
            }
            Self::ModuleOverFirmware { module } => write!(
                f,
                "PVH start: the host has put a module at {module}, over the firmware; it has to be elsewhere from 1 MiB on"
            ),
            Self::HeapFull => f.write_str("PVH start: the firmware's heap has no room for what the host hands over"),
        }
    }
}

impl core::error::Error for Error {}
