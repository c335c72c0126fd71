//! The CPU's random numbers as functions that images call: `EFI_RNG_PROTOCOL`.

use uefi_raw::Status;

use firstlight::efi::protocols::random::{Generator, Random};
use firstlight::efi::services::Pointers;
use firstlight::hal::Cpu;

use super::calls::{call, checked};
use super::state::Running;

/// The numbers that are made at once, in bytes.
const PIECE: usize = 64;

/// The functions, in the order of the protocol (UEFI 37.5.1).
pub fn interface() -> [u64; 2] {
    [get_info as *const () as u64, get_rng as *const () as u64]
}

extern "efiapi" fn get_info(_this: u64, len_at: u64, list: u64) -> Status {
    call(|Running { machine, .. }| {
        let room = machine.number(len_at)?;
        let info = Random::of_cpu(machine).info(if list == 0 { 0 } else { room });
        let info = checked(machine, info, len_at)?;
        machine.put(list, &info)?;
        machine.set_number(len_at, info.len() as u64)
    })
}

extern "efiapi" fn get_rng(_this: u64, algorithm: u64, len: u64, at: u64) -> Status {
    call(|Running { machine, .. }| {
        let algorithm = if algorithm == 0 { None } else { Some(machine.guid(algorithm)?) };
        let random = Random::of_cpu(machine);
        let (mut left, mut at) = (len, at);
        loop {
            let mut bytes = [0; PIECE];
            let (piece, _) = bytes.split_at_mut_checked(left.min(PIECE as u64) as usize).ok_or(Status::DEVICE_ERROR)?;
            random.get(algorithm, piece, &mut |generator| match generator {
                Generator::Rdrand => machine.random(),
                Generator::Rdseed => machine.seed(),
            })?;
            machine.put(at, piece)?;
            left = left.saturating_sub(piece.len() as u64);
            at = at.saturating_add(piece.len() as u64);
            if left == 0 {
                return Ok(());
            }
        }
    })
}
