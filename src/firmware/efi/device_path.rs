//! Device paths as functions that images call: `EFI_DEVICE_PATH_UTILITIES_PROTOCOL`, `EFI_DEVICE_PATH_TO_TEXT_PROTOCOL` and
//! `EFI_DEVICE_PATH_FROM_TEXT_PROTOCOL`.
//!
//! A function that cannot read a path, or has no memory for its result, returns null.

use alloc::vec::Vec;

use uefi_raw::Status;

use firstlight::addr::PhysAddr;
use firstlight::efi::device_path::text::{NodeText, PathText, utf16};
use firstlight::efi::device_path::{DevicePath, HEADER_LEN, Node, from_text, utilities};
use firstlight::efi::services::{Pointers, rest_address};
use firstlight::hal::Memory;
use firstlight::heap::HeapFull;
use zerocopy::FromZeros;

use super::calls::call_for_address;
use super::state::Running;
use firstlight_machine::PcMachine;

/// The longest text that is read, in characters.
const MOST_CHARACTERS: usize = 4 << 10;

/// The utilities, in the order of the protocol (UEFI 10.5.1).
pub fn utilities() -> [u64; 8] {
    [
        get_device_path_size as *const () as u64,
        duplicate_device_path as *const () as u64,
        append_device_path as *const () as u64,
        append_device_node as *const () as u64,
        append_device_path_instance as *const () as u64,
        get_next_device_path_instance as *const () as u64,
        is_device_path_multi_instance as *const () as u64,
        create_device_node as *const () as u64,
    ]
}

/// The functions that make text, in the order of the protocol (UEFI 10.6.2).
pub fn to_text() -> [u64; 2] {
    [convert_device_node_to_text as *const () as u64, convert_device_path_to_text as *const () as u64]
}

/// The functions that read text, in the order of the protocol (UEFI 10.6.4).
pub fn from_text() -> [u64; 2] {
    [convert_text_to_device_node as *const () as u64, convert_text_to_device_path as *const () as u64]
}

/// The bytes of the path at `at`; none for a null pointer.
fn path_bytes(machine: &mut PcMachine, at: u64) -> Result<Vec<u8>, Status> {
    if at == 0 { Ok(Vec::new()) } else { machine.path(at) }
}

/// The path with the bytes of [`path_bytes`].
fn parsed(bytes: &[u8]) -> Result<Option<DevicePath<'_>>, Status> {
    if bytes.is_empty() { Ok(None) } else { DevicePath::parse(bytes).map(Some).ok_or(Status::INVALID_PARAMETER) }
}

/// The bytes of the node at `at`; none for a null pointer.
fn node_bytes(machine: &mut PcMachine, at: u64) -> Result<Vec<u8>, Status> {
    if at == 0 {
        return Ok(Vec::new());
    }
    let [_, _, low, high]: [u8; HEADER_LEN] = machine.get(at)?;
    let mut node = u8::new_vec_zeroed(u16::from_le_bytes([low, high]).into()).map_err(|_| Status::OUT_OF_RESOURCES)?;
    machine.read(PhysAddr::new(at), &mut node).map_err(|_| Status::INVALID_PARAMETER)?;
    Ok(node)
}

/// Puts what a function makes into memory of the pool.
fn made(running: &mut Running, bytes: Result<Option<Vec<u8>>, HeapFull>) -> Result<u64, Status> {
    let Running { machine, services, .. } = running;
    match bytes.map_err(|_| Status::OUT_OF_RESOURCES)? {
        Some(bytes) => services.pool_of(machine, &bytes),
        None => Ok(0),
    }
}

extern "efiapi" fn get_device_path_size(path: u64) -> u64 {
    call_for_address(|running| {
        let path = path_bytes(&mut running.machine, path)?;
        Ok(utilities::size(parsed(&path)?))
    })
}

extern "efiapi" fn duplicate_device_path(path: u64) -> u64 {
    call_for_address(|running| {
        let path = path_bytes(&mut running.machine, path)?;
        made(running, utilities::duplicate(parsed(&path)?))
    })
}

extern "efiapi" fn append_device_path(first: u64, second: u64) -> u64 {
    call_for_address(|running| {
        let first = path_bytes(&mut running.machine, first)?;
        let second = path_bytes(&mut running.machine, second)?;
        made(running, utilities::append_path(parsed(&first)?, parsed(&second)?).map(Some))
    })
}

extern "efiapi" fn append_device_node(path: u64, node: u64) -> u64 {
    call_for_address(|running| {
        let path = path_bytes(&mut running.machine, path)?;
        let node = node_bytes(&mut running.machine, node)?;
        made(running, utilities::append_node(parsed(&path)?, Node::parse(&node)).map(Some))
    })
}

extern "efiapi" fn append_device_path_instance(path: u64, instance: u64) -> u64 {
    call_for_address(|running| {
        let path = path_bytes(&mut running.machine, path)?;
        let instance = path_bytes(&mut running.machine, instance)?;
        made(running, utilities::append_instance(parsed(&path)?, parsed(&instance)?))
    })
}

extern "efiapi" fn get_next_device_path_instance(at: u64, len_at: u64) -> u64 {
    call_for_address(|running| {
        let path_at = running.machine.check_number(at)?;
        let path = path_bytes(&mut running.machine, path_at)?;
        let Some(path) = parsed(&path)? else {
            running.machine.set_optional(len_at, 0)?;
            return Ok(0);
        };
        let (instance, rest) = utilities::next_instance(path).map_err(|_| Status::OUT_OF_RESOURCES)?;
        let len = instance.len() as u64;
        let next = rest.map_or(0, |rest| rest_address(path_at, path, rest));
        let address = made(running, Ok(Some(instance)))?;
        running.machine.set_number(at, next)?;
        running.machine.set_optional(len_at, len)?;
        Ok(address)
    })
}

extern "efiapi" fn is_device_path_multi_instance(path: u64) -> u8 {
    let is_multi_instance = call_for_address(|running| {
        let path = path_bytes(&mut running.machine, path)?;
        Ok(utilities::is_multi_instance(parsed(&path)?).into())
    });
    u8::from(is_multi_instance != 0)
}

extern "efiapi" fn create_device_node(kind: u8, sub_kind: u8, len: u16) -> u64 {
    call_for_address(|running| made(running, utilities::create_node(kind, sub_kind, len)))
}

extern "efiapi" fn convert_device_node_to_text(node: u64, _display_only: u8, _allow_shortcuts: u8) -> u64 {
    call_for_address(|running| {
        let node = node_bytes(&mut running.machine, node)?;
        let text = Node::parse(&node).map(|node| utf16(NodeText(node)));
        made(running, text.transpose())
    })
}

extern "efiapi" fn convert_device_path_to_text(path: u64, _display_only: u8, _allow_shortcuts: u8) -> u64 {
    call_for_address(|running| {
        let path = path_bytes(&mut running.machine, path)?;
        let text = parsed(&path)?.map(|path| utf16(PathText(path)));
        made(running, text.transpose())
    })
}

/// Makes bytes of the text at `at`.
fn of_text(at: u64, convert: impl FnOnce(&[u16]) -> Result<Vec<u8>, HeapFull>) -> u64 {
    call_for_address(|running| {
        let text = running.machine.text(at, MOST_CHARACTERS)?;
        made(running, convert(&text).map(Some))
    })
}

extern "efiapi" fn convert_text_to_device_node(text: u64) -> u64 {
    of_text(text, from_text::node)
}

extern "efiapi" fn convert_text_to_device_path(text: u64) -> u64 {
    of_text(text, from_text::path)
}
