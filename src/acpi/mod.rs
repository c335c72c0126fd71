//! ACPI tables: an interpreter for the script that links the host's tables.
//!
//! The host provides its tables as files in fw_cfg, but does not know their addresses in guest memory. So it adds a
//! script, `etc/table-loader`. Its commands say which files to load where, which fields are addresses and which bytes
//! are checksums. QEMU's `hw/acpi/bios-linker-loader.c` defines the language. Cloud Hypervisor, propolis and bhyve use
//! it too.
//!
//! The script is untrusted, so it is checked before it runs: [`Plan::parse`] checks every command against the sizes of
//! the files and the order of the commands. Then [`load`] places the files, links them and finds the RSDP. Only then
//! does it write the requested addresses to the host, so that the host never has an address in memory that the firmware
//! has freed. Tables that could not be linked are hidden from operating systems that scan for them.
//!
//! [`TableReader`] follows tables that are already in memory.
//!
//! Assumed: the chipset is programmed, because QEMU builds the tables from its registers when one of the files is first
//! selected; and the F-segment is writable. Left out: parsing any table but the RSDP. To write the addresses to the
//! host again after a wake from suspend is the task of [`Host::write_file`] and [`crate::resume`].

mod commands;
mod error;
mod host;
mod plan;
mod reader;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

pub use error::{Cause, Error, ScriptError};
pub use host::{Host, Zone};
pub use plan::Plan;
pub use reader::{HEADER_LEN, NoTable, Root, TableReader};

use crate::addr::{PhysAddr, PhysRange};
use crate::checksum;
use crate::heap;
use crate::logging::RateLimited;

/// The length of the RSDP of ACPI 1.0, which its first checksum covers (ACPI 6.5, 5.2.5.3).
const RSDP_LEN: u32 = 20;
/// The length of the RSDP since ACPI 2.0.
const RSDP2_LEN: u32 = 36;
/// The offset of the revision, which is 0 or at least 2.
const RSDP_REVISION: usize = 15;
/// The offset of the length, 32 bits. The second checksum covers that length.
const RSDP_TOTAL: usize = 20;
/// From this revision on, the RSDP has a length, a second checksum and the XSDT's address.
const RSDP_XSDT_REVISION: u8 = 2;
/// The signature of an RSDP, which is on a 16-byte boundary.
const RSDP_SIGNATURE: &[u8; 8] = b"RSD PTR ";

/// Runs `script`, the contents of the host's `etc/table-loader`, and returns the address of the RSDP.
///
/// If a command requests an address and the host does not accept it, this is a warning: the tables work, and only the
/// device that uses the address (VM generation ID, hardware errors) is silent.
///
/// # Errors
/// Any [`Error`]. Then no address was written to the host, the memory from [`Host::allocate`] may be freed, and nothing
/// in the F-segment looks like an RSDP.
pub fn load<H: Host>(host: &mut H, script: &[u8]) -> Result<PhysAddr, Error<H::Error>> {
    let plan = Plan::parse(script, |file| host.len_of(file))?;
    let mut places = heap::with_capacity(plan.files.loaded.len()).map_err(|_| ScriptError::HeapFull)?;

    let linked = place_and_link(host, &plan, &mut places);
    if linked.is_err() {
        hide(host, &plan, &places);
    }
    let rsdp = linked?;

    let mut not_taken = RateLimited::<4>::default();
    for pointer in &plan.write_pointers {
        if let Err(error) = pointer.run(host, &places) {
            not_taken.warn(format_args!(
                "acpi: the host did not take the address it asked for in {}: {error}",
                pointer.dest.escape_ascii()
            ));
        }
    }
    if let Some(rest) = not_taken.rest() {
        crate::warn!("acpi: the host did not take {rest} more of the addresses it asked for");
    }
    Ok(rsdp)
}

/// Allocates and loads the files, runs the commands on them and finds the RSDP. `places` gets one range for each
/// allocated file, in the plan's order, even after an error.
fn place_and_link<H: Host>(
    host: &mut H,
    plan: &Plan<'_>,
    places: &mut Vec<PhysRange>,
) -> Result<PhysAddr, Error<H::Error>> {
    for file in &plan.files.loaded {
        let place = file.allocate(host)?;
        heap::push_within_capacity(places, place).map_err(|_| ScriptError::HeapFull)?;
        file.load(host, place)?;
    }
    for link in &plan.links {
        link.run(host, places)?;
    }
    for &place in &*places {
        if is_rsdp(host, place)? {
            return Ok(place.start());
        }
    }
    Err(Error::NoRsdp)
}

/// Whether a file is an RSDP with valid checksums. Its contents identify it, because hosts use different names.
fn is_rsdp<H: Host>(host: &mut H, place: PhysRange) -> Result<bool, Error<H::Error>> {
    let mut rsdp = [0; RSDP2_LEN as usize];
    let header = match rsdp.get_mut(..usize::try_from(place.len()).unwrap_or(usize::MAX)) {
        Some(short) => short,
        None => &mut rsdp,
    };
    host.read(place.start(), header).map_err(Error::Host)?;
    // The bytes that a short file lacks stay zero.
    let (first, _) = rsdp.split_at(RSDP_LEN as usize);
    if place.len() < RSDP_LEN.into() || !first.starts_with(RSDP_SIGNATURE) || checksum::sum(first) != 0 {
        return Ok(false);
    }
    if rsdp[RSDP_REVISION] < RSDP_XSDT_REVISION {
        return Ok(true);
    }
    let total = rsdp[RSDP_TOTAL..].first_chunk().map_or(0, |len| u32::from_le_bytes(*len));
    match PhysRange::new(place.start(), total.into()) {
        Some(whole) if total >= RSDP2_LEN && place.contains(whole) => Ok(sum(host, whole)? == 0),
        _ => Ok(false),
    }
}

/// Overwrites all files in which an operating system could find an RSDP: it can be on any multiple of 16 bytes, and in
/// a file that was only partly loaded.
#[cold]
fn hide<H: Host>(host: &mut H, plan: &Plan<'_>, places: &[PhysRange]) {
    for (file, &place) in plan.files.loaded.iter().zip(places) {
        if file.zone == Zone::FSegment
            && let Err(error) = overwrite(host, place)
        {
            crate::warn!("acpi: a broken table remains at {}: {error}", place.start());
        }
    }
}

/// Sets guest memory to zero.
fn overwrite<H: Host>(host: &mut H, place: PhysRange) -> Result<(), H::Error> {
    let zeros = [0; 64];
    let mut rest = place;
    while let Some(now) = zeros.get(..rest.len().min(zeros.len() as u64) as usize).filter(|now| !now.is_empty()) {
        host.write(rest.start(), now)?;
        // No more than the rest.
        let next = rest.start().checked_add(now.len() as u64);
        rest = next.and_then(|next| PhysRange::from_bounds(next, rest.end())).unwrap_or_default();
    }
    Ok(())
}

/// The sum of the bytes in `range`, modulo 256.
fn sum<H: Host>(host: &mut H, range: PhysRange) -> Result<u8, Error<H::Error>> {
    let mut sum = 0_u8;
    host.inspect(range, &mut |piece| sum = sum.wrapping_add(checksum::sum(piece))).map_err(Error::Host)?;
    Ok(sum)
}
