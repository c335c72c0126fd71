//! The TPM as functions that images call: `EFI_TCG2_PROTOCOL`.

use alloc::vec::Vec;

use uefi_raw::Status;
use uefi_raw::protocol::tcg::v2::{
    Tcg2BootServiceCapability, Tcg2EventLogBitmap, Tcg2HashAlgorithmBitmap, Tcg2HashLogExtendEventFlags, Tcg2Protocol,
};
use uefi_raw::table::boot::MemoryType;

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::boot::EfiBoot;
use firstlight::efi::configuration::TPM_FINAL_EVENTS;
use firstlight::efi::memory::PAGE_SHIFT;
use firstlight::efi::protocols::BufferError;
use firstlight::efi::protocols::tcg2::{Event, ImageLoad, Tcg2};
use firstlight::efi::services::{Pointers, Services};
use firstlight::hal::Memory;
use firstlight::tpm::{MOST_TRANSFERRED, Room, Session};
use zerocopy::{FromZeros, IntoBytes};

use super::calls::call;
use super::state::Running;
use firstlight_machine::PcMachine;

/// The functions, in the order of the protocol (TCG EFI Protocol Specification 1.00, 6.2).
fn interface() -> [u64; 7] {
    [
        get_capability as *const () as u64,
        get_event_log as *const () as u64,
        hash_log_extend_event as *const () as u64,
        submit_command as *const () as u64,
        get_active_pcr_banks as *const () as u64,
        set_active_pcr_banks as *const () as u64,
        get_result_of_set_active_pcr_banks as *const () as u64,
    ]
}

/// The bytes of a program's file that are hashed at once.
const PIECE: u64 = 1 << 20;

/// Starts the TPM, measures the host's program if there is one, which has this device path, and installs the protocol and the table
/// of final events. `None` without a TPM, and if something cannot be measured.
///
/// # Errors
/// `OUT_OF_RESOURCES`.
pub fn open(
    machine: &mut PcMachine,
    services: &mut Services,
    boot: &EfiBoot,
    path: &[u8],
) -> Result<Option<Tcg2>, Status> {
    let mut allocate = |machine: &mut PcMachine, room: Room| {
        let kind = match room {
            Room::Log => MemoryType::BOOT_SERVICES_DATA,
            Room::FinalEvents => MemoryType::ACPI_NON_VOLATILE,
        };
        services.pages_for(machine, kind, room.bytes()).ok()
    };
    let Some(session) = Session::open(machine, boot.tpm, &mut allocate) else { return Ok(None) };
    let mut tcg2 = Tcg2::new(session);
    if let Some(program) = boot.program() {
        let room = services.pages_for(machine, MemoryType::BOOT_SERVICES_DATA, PIECE)?;
        let load = ImageLoad { placed: program.placed, path };
        let measured = tcg2.measure_program(machine, &boot.fw_cfg, program.started(), room, &load);
        services.free_pages(machine, room.start().get(), room.len() >> PAGE_SHIFT)?;
        if measured.is_err() {
            tcg2.into_session().give_up(machine);
            return Ok(None);
        }
    }
    let Some(tcg2) = tcg2.into_session().lock(machine).map(Tcg2::new) else { return Ok(None) };
    if let Some(table) = tcg2.final_events() {
        services.install_table(machine, TPM_FINAL_EVENTS, table.get())?;
    }
    let interface = services.pool_of(machine, interface().as_bytes())?;
    services.install(None, Tcg2Protocol::GUID, interface)?;
    Ok(Some(tcg2))
}

/// Calls a function with the machine and the TPM.
fn with_tpm(work: impl FnOnce(&mut PcMachine, &mut Tcg2) -> Result<(), Status>) -> Status {
    call(|Running { machine, tcg2, .. }| {
        let tcg2 = tcg2.as_mut().ok_or(Status::DEVICE_ERROR)?;
        work(machine, tcg2)
    })
}

/// The bytes that an image passes.
fn bytes(machine: &mut PcMachine, at: u64, len: u32) -> Result<Vec<u8>, Status> {
    let mut bytes = u8::new_vec_zeroed(len as usize).map_err(|_| Status::OUT_OF_RESOURCES)?;
    machine.read(PhysAddr::new(at), &mut bytes).map_err(|_| Status::INVALID_PARAMETER)?;
    Ok(bytes)
}

/// The capability as it is in memory.
fn capability_bytes(of: &Tcg2BootServiceCapability) -> [u8; size_of::<Tcg2BootServiceCapability>()] {
    let versions = [of.structure_version, of.protocol_version].map(|version| [version.major, version.minor]);
    let [[structure, structure_minor], [protocol, protocol_minor]] = versions;
    let [command_low, command_high] = of.max_command_size.to_le_bytes();
    let [response_low, response_high] = of.max_response_size.to_le_bytes();
    let words = [
        [of.size, structure, structure_minor, protocol],
        [protocol_minor, 0, 0, 0],
        of.hash_algorithm_bitmap.bits().to_le_bytes(),
        of.supported_event_logs.bits().to_le_bytes(),
        [of.tpm_present_flag, 0, command_low, command_high],
        [response_low, response_high, 0, 0],
        of.manufacturer_id.to_le_bytes(),
        of.number_of_pcr_banks.to_le_bytes(),
        of.active_pcr_banks.bits().to_le_bytes(),
    ];
    let mut bytes = [0; size_of::<Tcg2BootServiceCapability>()];
    bytes.iter_mut().zip(words.as_flattened()).for_each(|(to, from)| *to = *from);
    bytes
}

extern "efiapi" fn get_capability(_this: u64, at: u64) -> Status {
    with_tpm(|machine, tcg2| {
        let [len] = machine.get(at)?;
        match tcg2.capability(machine, len) {
            Ok(capability) => {
                let bytes = capability_bytes(&capability);
                let (bytes, _) = bytes.split_at_checked(capability.size.into()).ok_or(Status::DEVICE_ERROR)?;
                machine.put(at, bytes)
            }
            Err(error) => {
                if let BufferError::TooSmall { needed } = error {
                    machine.put(at, &[needed as u8])?;
                }
                Err(error.status())
            }
        }
    })
}

extern "efiapi" fn get_event_log(_this: u64, format: u32, start: u64, last: u64, is_truncated: u64) -> Status {
    with_tpm(|machine, tcg2| {
        let log = tcg2.event_log(Tcg2EventLogBitmap::from_bits_retain(format))?;
        let place = log.map_or((0, 0), |log| (log.start.get(), log.last.get()));
        machine.set_number(start, place.0)?;
        machine.set_number(last, place.1)?;
        machine.put(is_truncated, &[log.is_some_and(|log| log.is_truncated).into()])
    })
}

extern "efiapi" fn hash_log_extend_event(_this: u64, flags: u64, data: u64, len: u64, event: u64) -> Status {
    with_tpm(|machine, tcg2| {
        if data == 0 || event == 0 {
            return Err(Status::INVALID_PARAMETER);
        }
        let data = PhysRange::new(PhysAddr::new(data), len).ok_or(Status::INVALID_PARAMETER)?;
        let event_len = Event::len_of(machine.get(event)?)?;
        let event = bytes(machine, event, event_len)?;
        let flags = Tcg2HashLogExtendEventFlags::from_bits_retain(flags);
        tcg2.hash_log_extend_event(machine, flags, data, &Event::parse(&event)?)
    })
}

extern "efiapi" fn submit_command(_this: u64, len: u32, command: u64, room: u32, response: u64) -> Status {
    with_tpm(|machine, tcg2| {
        if len as usize > MOST_TRANSFERRED || command == 0 || response == 0 {
            return Err(Status::INVALID_PARAMETER);
        }
        let command = bytes(machine, command, len)?;
        let answer = tcg2.submit_command(machine, &command, room.into()).map_err(BufferError::status)?;
        machine.put(response, &answer)
    })
}

extern "efiapi" fn get_active_pcr_banks(_this: u64, at: u64) -> Status {
    with_tpm(|machine, tcg2| machine.put(at, &tcg2.active_banks().bits().to_le_bytes()))
}

extern "efiapi" fn set_active_pcr_banks(_this: u64, banks: u32) -> Status {
    with_tpm(|_, tcg2| tcg2.set_active_banks(Tcg2HashAlgorithmBitmap::from_bits_retain(banks)))
}

/// No request is ever left for the next start.
extern "efiapi" fn get_result_of_set_active_pcr_banks(_this: u64, operation: u64, response: u64) -> Status {
    with_tpm(|machine, _| {
        machine.put(operation, &[0; 4])?;
        machine.put(response, &[0; 4])
    })
}
