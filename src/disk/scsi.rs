//! SCSI: the commands that reading a disk or a CD takes, and what the answers say.
//!
//! A [`LogicalUnit`] executes commands, by whatever carries them: virtio, or the packets of an ATAPI drive. [`identify`] and
//! [`read`] are all that is done with it.
//!
//! Assumed: answers can be anything. A unit that always has something else to say first is given up after a few times. One that becomes
//! ready is waited for, but of a controller's units only until one of them did not become so ([`Patience`]).
//!
//! Left out: writing, and units that are neither disks nor CD drives.
//!
//! Sources: SCSI Primary Commands 4 ("SPC"), SCSI Block Commands 3 ("SBC"), MultiMedia Commands 6 ("MMC"), by section.

use arrayvec::ArrayVec;

use super::{BlockLen, Error, Media, wait};
use crate::addr::PhysRange;
use crate::hal::{Clock, Memory};

/// The bytes of memory that [`identify`] takes for answers.
pub const SCRATCH: u64 = 64;

/// The bytes of memory that [`luns`] takes for its answer, and the most units in it.
pub const LUNS_SCRATCH: u64 = 512;
const MOST_LUNS: usize = 63;

/// How often a unit may have something else to say before it executes a command.
const MOST_TRIES: u32 = 8;

/// A command, with zeros up to 16 bytes. The packets of ATAPI drives are its first 12: all commands but those for more than 2^32
/// blocks are shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command(pub [u8; 16]);

impl Command {
    /// Asks whether the unit is ready (SPC 6.47, TEST UNIT READY).
    pub const TEST_UNIT_READY: Self = Self([0; 16]);
    /// Asks what the unit is: [`INQUIRY_LEN`] bytes (SPC 6.6, INQUIRY).
    const INQUIRY: Self = Self::short(0x12, 0, 0, INQUIRY_LEN as u8);
    /// Asks for the parameters' header: [`MODE_LEN`] bytes (SPC 6.13, MODE SENSE(6): all pages, without block descriptors).
    const MODE_SENSE: Self = Self::short(0x1a, 8, 0x3f, MODE_LEN as u8);
    /// Asks for the last block and the length of blocks: 8 bytes (SBC 5.15, READ CAPACITY(10)).
    const READ_CAPACITY_10: Self = Self::short(0x25, 0, 0, 0);

    const fn short(operation: u8, first: u8, second: u8, len: u8) -> Self {
        Self([operation, first, second, 0, len, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// Asks what was wrong with the last command, for [`Sense::parse`]: at most `len` bytes (SPC 6.39, REQUEST SENSE).
    #[must_use]
    pub const fn request_sense(len: u8) -> Self {
        Self::short(0x03, 0, 0, len)
    }

    /// Asks which units there are behind a target: at most `len` bytes (SPC 6.33, REPORT LUNS).
    const fn report_luns(len: u32) -> Self {
        let [a, b, c, d] = len.to_be_bytes();
        Self([0xa0, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0])
    }

    /// As [`Self::READ_CAPACITY_10`], for any number of blocks: 32 bytes (SBC 5.16, READ CAPACITY(16)).
    const fn read_capacity_16() -> Self {
        Self([0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0])
    }

    /// Reads blocks (SBC 5.11, READ(10), and 5.13, READ(16)).
    const fn read(first: u64, blocks: u32) -> Self {
        let [a, b, c, d, e, f, g, h] = first.to_be_bytes();
        let [i, j, k, l] = blocks.to_be_bytes();
        if first <= u32::MAX as u64 && blocks <= u16::MAX as u32 {
            Self([0x28, 0, e, f, g, h, 0, k, l, 0, 0, 0, 0, 0, 0, 0])
        } else {
            Self([0x88, 0, a, b, c, d, e, f, g, h, i, j, k, l, 0, 0])
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was executed, and this many bytes were written.
    Good(u64),
    /// The unit has something to say about it (status CHECK CONDITION).
    Check(Sense),
    /// The unit has no time (status BUSY or TASK SET FULL).
    Busy,
}

/// What a unit says about a command (SPC 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sense {
    /// The kind of thing.
    pub key: u8,
    /// What it is.
    pub code: u8,
    /// What exactly.
    pub qualifier: u8,
}

impl Sense {
    /// Keys (SPC 4.5.6).
    const NOT_READY: u8 = 2;
    const UNIT_ATTENTION: u8 = 6;
    /// Codes (SPC 4.5.6, table 43): the unit is not ready; there is another medium; there is no medium.
    const UNIT_NOT_READY: u8 = 0x04;
    const MEDIUM_CHANGED: u8 = 0x28;
    const NO_MEDIUM: u8 = 0x3a;
    /// Qualifiers of a unit that is not ready: it does not say why; it becomes ready. All others are states that stay, such as that
    /// of a path in standby.
    const NO_CAUSE: u8 = 0x00;
    const BECOMING_READY: u8 = 0x01;

    /// Reads it in one of its two forms: with fixed fields, or with descriptors. All zeros if it has neither.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        match *bytes {
            [form, _, key, _, _, _, _, _, _, _, _, _, code, qualifier, ..] if matches!(form & 0x7f, 0x70 | 0x71) => {
                Self { key: key & 0xf, code, qualifier }
            }
            [form, key, code, qualifier, ..] if matches!(form & 0x7f, 0x72 | 0x73) => {
                Self { key: key & 0xf, code, qualifier }
            }
            _ => Self::default(),
        }
    }

    const fn error(self) -> Error {
        match self {
            Self { key: Self::NOT_READY, code: Self::NO_MEDIUM, .. }
            | Self { key: Self::UNIT_ATTENTION, code: Self::MEDIUM_CHANGED, .. } => Error::NoMedium,
            Self { key, code, qualifier } => Error::Refused(u32::from_be_bytes([0, key, code, qualifier])),
        }
    }
}

/// Whether units that become ready are still waited for. A controller has one for all of its units, so that those that never become
/// ready cost one wait together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    is_over: bool,
}

/// Something that executes SCSI commands.
pub trait LogicalUnit<M> {
    /// Executes a command whose answer, if it has one, goes to the first bytes of `into`.
    ///
    /// # Errors
    /// [`Error`] if the command did not get there, or ended in another way than those of [`Outcome`].
    fn execute(&mut self, machine: &mut M, command: Command, into: PhysRange) -> Result<Outcome, Error>;
}

/// Asks what the unit is. `scratch` is memory for its answers: [`SCRATCH`] bytes. `None` if it is neither a disk nor a CD drive. A
/// drive without a medium has zero blocks.
///
/// # Errors
/// [`Error`] if it does not say.
pub fn identify<M: Memory + Clock>(
    unit: &mut impl LogicalUnit<M>,
    machine: &mut M,
    scratch: PhysRange,
    patience: &mut Patience,
) -> Result<Option<Media>, Error> {
    let Some(kind) = Kind::parse(ask(unit, machine, Command::INQUIRY, INQUIRY_LEN, scratch)?) else { return Ok(None) };
    let empty = Media {
        block_len: if kind.is_cd { BlockLen::CD } else { BlockLen::DISK },
        blocks: 0,
        is_read_only: true,
        is_removable: kind.is_removable,
    };
    if !is_ready(unit, machine, scratch, patience)? {
        return Ok(Some(empty));
    }
    let [a, b, c, d, e, f, g, h, ..] = ask(unit, machine, Command::READ_CAPACITY_10, 8, scratch)?;
    let (mut last, mut block_len) = (u64::from(u32::from_be_bytes([a, b, c, d])), u32::from_be_bytes([e, f, g, h]));
    if last == u32::MAX.into() {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = ask(unit, machine, Command::read_capacity_16(), 32, scratch)?;
        (last, block_len) = (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes([i, j, k, l]));
    }
    Ok(Some(Media {
        block_len: BlockLen::new(block_len).ok_or(Error::Broken("the length of its blocks is not supported"))?,
        blocks: last.saturating_add(1),
        is_read_only: kind.is_cd || is_write_protected(unit, machine, scratch)?,
        ..empty
    }))
}

/// Reads blocks into all of `into`, with at most `most` bytes a command.
///
/// # Errors
/// [`Error`]; [`Error::NoMedium`] also if the medium is another one now.
pub fn read<M: Memory + Clock>(
    unit: &mut impl LogicalUnit<M>,
    machine: &mut M,
    media: &Media,
    first: u64,
    into: PhysRange,
    most: u64,
) -> Result<(), Error> {
    media.blocks_in(first, into.len())?;
    let most = media.block_len.round_down(most);
    if most == 0 {
        return Err(Error::Broken("it does not take requests of a whole block"));
    }
    let (mut first, mut rest) = (first, into);
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(most);
        let blocks = u32::try_from(media.block_len.whole_blocks(piece.len())).map_err(|_| Error::OutOfRange)?;
        match retried(unit, machine, Command::read(first, blocks), piece, Change::Wrong)? {
            Ok(written) if written == piece.len() => {}
            Ok(_) => return Err(Error::Broken("it has read fewer bytes than it was asked for")),
            Err(sense) => return Err(sense.error()),
        }
        first = first.saturating_add(blocks.into());
        rest = more;
    }
    Ok(())
}

/// Asks a target's first logical unit for the numbers of all. `scratch` is memory for its answer: [`LUNS_SCRATCH`] bytes. A target
/// that does not list them has one unit.
///
/// # Errors
/// [`Error`] if it does not answer.
pub fn luns<M: Memory + Clock>(
    unit: &mut impl LogicalUnit<M>,
    machine: &mut M,
    scratch: PhysRange,
) -> Result<ArrayVec<u16, MOST_LUNS>, Error> {
    let (into, _) = scratch.split_at(LUNS_SCRATCH);
    let mut answer = [0; LUNS_SCRATCH as usize];
    let mut luns = ArrayVec::new();
    match retried(unit, machine, Command::report_luns(LUNS_SCRATCH as u32), into, Change::Fine)? {
        Ok(written) => {
            machine.read(into.start(), &mut answer)?;
            let written = usize::try_from(written).ok().and_then(|written| answer.get(..written));
            // There are at most as many as fit.
            parse_luns(written.unwrap_or(&answer)).for_each(|lun| luns.try_push(lun).unwrap_or_default());
        }
        Err(_) => luns.try_push(0).unwrap_or_default(),
    }
    Ok(luns)
}

/// The numbers in a list of logical units, as far as they are on one level and below 16,384 (SPC 6.33, SAM 4.7).
fn parse_luns(answer: &[u8]) -> impl Iterator<Item = u16> {
    let (len, list) = answer.split_at_checked(8).unwrap_or_default();
    let len = len.first_chunk().map_or(0, |len| u32::from_be_bytes(*len));
    list.chunks_exact(8).take((len / 8) as usize).filter_map(|lun| match *lun {
        [0, low, 0, 0, 0, 0, 0, 0] => Some(low.into()),
        [high @ 0x40..=0x7f, low, 0, 0, 0, 0, 0, 0] => Some(u16::from_be_bytes([high & 0x3f, low])),
        _ => None,
    })
}

/// The length of the answer to [`Command::INQUIRY`], and to [`Command::MODE_SENSE`].
const INQUIRY_LEN: usize = 36;
const MODE_LEN: usize = 4;

/// What a unit is.
struct Kind {
    is_cd: bool,
    is_removable: bool,
}

impl Kind {
    /// Reads type and flags (SPC 6.6.2). `None` if nothing is there, or something else than a disk or a CD drive.
    const fn parse(answer: [u8; INQUIRY_LEN]) -> Option<Self> {
        // The qualifier in the upper three bits is zero where there is a device.
        let [kind @ (0 | 5), flags, ..] = answer else { return None };
        Some(Self { is_cd: kind == 5, is_removable: flags & 1 << 7 != 0 })
    }
}

/// Waits until the unit is ready, or asks it once if there is no patience. False if it has no medium.
fn is_ready<M: Memory + Clock>(
    unit: &mut impl LogicalUnit<M>,
    machine: &mut M,
    scratch: PhysRange,
    patience: &mut Patience,
) -> Result<bool, Error> {
    let nothing = PhysRange::empty_at(scratch.start());
    let mut unready = None;
    let mut look = |machine: &mut M| {
        unready = None;
        match retried(unit, machine, Command::TEST_UNIT_READY, nothing, Change::Fine)? {
            Ok(_) => Ok(Some(true)),
            Err(Sense { key: Sense::NOT_READY, code: Sense::NO_MEDIUM, .. }) => Ok(Some(false)),
            Err(
                sense @ Sense {
                    key: Sense::NOT_READY,
                    code: Sense::UNIT_NOT_READY,
                    qualifier: Sense::NO_CAUSE | Sense::BECOMING_READY,
                },
            ) => {
                unready = Some(sense.error());
                Ok(None)
            }
            Err(sense) => Err(sense.error()),
        }
    };
    let result = if patience.is_over {
        look(machine).and_then(|answer| answer.ok_or(Error::Timeout))
    } else {
        wait::until(machine, look, |_| Ok(()))
    };
    match (result, unready) {
        // The device answers, and says that the unit is not ready.
        (Err(Error::Timeout), Some(error)) => {
            patience.is_over = true;
            Err(error)
        }
        (result, _) => result,
    }
}

/// Whether the unit's medium cannot be written (SBC 6.4.1, WP). A unit that does not say can be written.
fn is_write_protected<M: Memory + Clock>(
    unit: &mut impl LogicalUnit<M>,
    machine: &mut M,
    scratch: PhysRange,
) -> Result<bool, Error> {
    match ask(unit, machine, Command::MODE_SENSE, MODE_LEN, scratch) {
        Ok([_, _, flags, ..]) => Ok(flags & 1 << 7 != 0),
        Err(Error::Refused(_) | Error::Broken(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Executes a command with an answer of at least `len` bytes, which zeros follow.
///
/// Not inlined, because copies of it would be a kilobyte of code each.
#[inline(never)]
fn ask<M: Memory + Clock>(
    unit: &mut impl LogicalUnit<M>,
    machine: &mut M,
    command: Command,
    len: usize,
    scratch: PhysRange,
) -> Result<[u8; INQUIRY_LEN], Error> {
    let (into, _) = scratch.split_at(len as u64);
    match retried(unit, machine, command, into, Change::Fine)? {
        Ok(written) if written >= into.len() => {
            let mut answer = [0; INQUIRY_LEN];
            machine.read(into.start(), answer.get_mut(..len).unwrap_or_default())?;
            Ok(answer)
        }
        Ok(_) => Err(Error::Broken("an answer of its is too short")),
        Err(sense) => Err(sense.error()),
    }
}

/// Whether another medium than before may be in the drive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Fine,
    Wrong,
}

/// Executes a command until the unit has nothing else to say first, such as that it was reset.
#[inline(never)]
fn retried<M>(
    unit: &mut impl LogicalUnit<M>,
    machine: &mut M,
    command: Command,
    into: PhysRange,
    change: Change,
) -> Result<Result<u64, Sense>, Error> {
    for _ in 0..MOST_TRIES {
        match unit.execute(machine, command, into)? {
            Outcome::Good(written) => return Ok(Ok(written)),
            Outcome::Check(sense) => match sense.key {
                Sense::UNIT_ATTENTION if sense.code != Sense::MEDIUM_CHANGED || change == Change::Fine => {}
                _ => return Ok(Err(sense)),
            },
            Outcome::Busy => {}
        }
    }
    Err(Error::Broken("it never has time for a command"))
}

#[cfg(test)]
mod tests;
