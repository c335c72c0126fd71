//! The runtime services' image: what an operating system calls after the boot.
//!
//! It is a program of its own, which the firmware carries and copies to memory. It runs at the address that it is copied to, and
//! after `SetVirtualAddressMap` at another: its code refers to its data relative to itself, and nothing in it is relocated. Only
//! what is here is unsafe; what the services do is in the library (`firstlight::efi::runtime`).
//!
//! Assumed: an operating system calls one service at a time (UEFI 8.1), with its pages mapped as the memory map says, and with
//! pointers that it may access. What it does with the memory of the services is its own affair: it can only break its own
//! services.
#![no_std]
#![no_main]

mod ports;

use core::alloc::{GlobalAlloc, Layout};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::panic::PanicInfo;

use firstlight::efi::runtime::{Mapping, Shared};
use firstlight::efi::variables::{MOST_BYTES, Name, Phase, STORE_LEN, Store, Variable};
use firstlight::hal::Ports;
use ports::RuntimePorts;
use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor};
use uefi_raw::table::runtime::{ResetType, TimeCapabilities, VariableAttributes};
use uefi_raw::time::Time;
use uefi_raw::{Guid, Status};

global_asm!(include_str!("header.s"));

/// What the firmware and the services share, zero until the firmware fills it.
struct SharedCell(UnsafeCell<MaybeUninit<Shared>>);

// SAFETY: services are called one at a time.
unsafe impl Sync for SharedCell {}

#[unsafe(no_mangle)]
static shared: SharedCell = SharedCell(UnsafeCell::new(MaybeUninit::zeroed()));

/// The shared structure.
///
/// # Safety
/// The reference is gone before the next call. Each service calls it once.
unsafe fn state() -> &'static mut Shared {
    // SAFETY: services are called one at a time, and the caller has no other reference.
    let place = unsafe { &mut *shared.0.get() };
    // SAFETY: all bytes are zero or what the firmware wrote; the structure may have any.
    unsafe { place.assume_init_mut() }
}

/// The variables.
struct Variables(UnsafeCell<[u8; STORE_LEN]>);

// SAFETY: services are called one at a time.
unsafe impl Sync for Variables {}

static VARIABLES: Variables = Variables(UnsafeCell::new([0; STORE_LEN]));

/// The variables, and who asks for them.
///
/// # Safety
/// As for [`state`].
unsafe fn store() -> (Store<'static>, Phase) {
    // SAFETY: the caller promises it.
    let phase = unsafe { state() }.phase();
    // SAFETY: services are called one at a time, and the caller has no other reference.
    (Store::new(unsafe { &mut *VARIABLES.0.get() }), phase)
}

fn status(result: Result<(), Status>) -> Status {
    result.err().unwrap_or(Status::SUCCESS)
}

/// Writes to where the caller wants it, if it does.
///
/// # Safety
/// `to` is null or points to memory of the caller's for a value of this type.
unsafe fn put<T>(to: *mut T, value: T) {
    if !to.is_null() {
        // SAFETY: the caller promises it. It need not be aligned.
        unsafe { to.write_unaligned(value) };
    }
}

/// # Safety
/// As the specification has it for `GetTime`: the pointers are null or the caller's.
#[unsafe(no_mangle)]
unsafe extern "efiapi" fn get_time(time: *mut Time, capabilities: *mut TimeCapabilities) -> Status {
    if time.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: this service has no other reference.
    let found = unsafe { state() }.time(&mut RuntimePorts);
    let Ok(now) = found else { return Status::DEVICE_ERROR };
    // SAFETY: the caller promises it.
    unsafe { put(time, now) };
    // A crystal of 32,768 Hz is off by some 50 parts in a million, and the time counts seconds.
    let told = TimeCapabilities { resolution: 1, accuracy: 50_000_000, sets_to_zero: false.into() };
    // SAFETY: the caller promises it.
    unsafe { put(capabilities, told) };
    Status::SUCCESS
}

/// # Safety
/// As the specification has it for `SetTime`: the pointer is null or the caller's.
#[unsafe(no_mangle)]
unsafe extern "efiapi" fn set_time(time: *const Time) -> Status {
    if time.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller promises it; every field may have any value.
    let time = unsafe { time.read_unaligned() };
    // SAFETY: this service has no other reference.
    status(unsafe { state() }.set_time(&mut RuntimePorts, &time))
}

/// What is not there.
#[unsafe(no_mangle)]
extern "efiapi" fn unsupported() -> Status {
    Status::UNSUPPORTED
}

/// # Safety
/// As the specification has it for `SetVirtualAddressMap`: `map` is null or has `map_len` bytes.
#[unsafe(no_mangle)]
unsafe extern "efiapi" fn set_virtual_address_map(
    map_len: usize,
    descriptor_len: usize,
    version: u32,
    map: *const MemoryDescriptor,
) -> Status {
    if map.is_null() || version != MemoryDescriptor::VERSION || descriptor_len < size_of::<MemoryDescriptor>() {
        return Status::INVALID_PARAMETER;
    }
    let count = map_len.checked_div(descriptor_len).unwrap_or(0);
    let mappings = (0..count).map(|index| {
        let at = map.wrapping_byte_add(index.wrapping_mul(descriptor_len));
        // SAFETY: it is within the map, which the caller promises.
        let found = unsafe { at.read_unaligned() };
        Mapping {
            physical: found.phys_start,
            virtual_: found.virt_start,
            len: found.page_count.saturating_mul(4096),
            attributes: MemoryAttribute::from_bits_retain(found.att.bits()),
        }
    });
    // SAFETY: this service has no other reference.
    status(unsafe { state() }.set_virtual_address_map(mappings))
}

/// # Safety
/// As the specification has it for `ConvertPointer`: `address` is null or the caller's.
#[unsafe(no_mangle)]
unsafe extern "efiapi" fn convert_pointer(disposition: usize, address: *mut u64) -> Status {
    if address.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller promises it.
    let address = unsafe { address.read_unaligned() };
    status(firstlight::efi::runtime::convert_pointer(disposition, address))
}

/// The name at `text` up to its NUL. An empty one is none, and one that is longer than any variable's has no NUL.
///
/// # Safety
/// `text` points to characters of the caller's with a NUL behind them.
unsafe fn name<'a>(text: *const u16) -> Option<Name<'a>> {
    let mut len = 0_usize;
    while len <= MOST_BYTES {
        let at = text.wrapping_byte_add(len);
        len = len.wrapping_add(size_of::<u16>());
        // SAFETY: there was no NUL before it.
        if unsafe { at.read_unaligned() } == 0 {
            break;
        }
    }
    // SAFETY: all of them were read.
    Name::up_to_nul(unsafe { core::slice::from_raw_parts(text.cast(), len) })
}

/// # Safety
/// As the specification has it for `GetVariable`: the pointers are null or the caller's, and `data` has `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "efiapi" fn get_variable(
    text: *const u16,
    vendor: *const Guid,
    attributes: *mut VariableAttributes,
    len: *mut usize,
    data: *mut u8,
) -> Status {
    if text.is_null() || vendor.is_null() || len.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller promises it.
    let Some(name) = (unsafe { name(text) }) else { return Status::NOT_FOUND };
    // SAFETY: the caller promises it.
    let vendor = unsafe { vendor.read_unaligned() };
    // SAFETY: this service has no other reference.
    let (store, phase) = unsafe { store() };
    let found = match store.get(name, vendor, phase) {
        Ok(found) => found,
        Err(error) => return error,
    };
    // SAFETY: the caller promises it.
    unsafe { put(attributes, found.attributes) };
    // SAFETY: the caller promises it.
    let room = unsafe { len.read_unaligned() };
    // SAFETY: the caller promises it.
    unsafe { put(len, found.data.len()) };
    if room < found.data.len() {
        return Status::BUFFER_TOO_SMALL;
    }
    if data.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller promises that there is room for `room` bytes, which are no less.
    unsafe { data.copy_from_nonoverlapping(found.data.as_ptr(), found.data.len()) };
    Status::SUCCESS
}

/// # Safety
/// As the specification has it for `GetNextVariableName`: the pointers are null or the caller's, and `text` has `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "efiapi" fn get_next_variable_name(len: *mut usize, text: *mut u16, vendor: *mut Guid) -> Status {
    if len.is_null() || text.is_null() || vendor.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller promises it.
    let room = unsafe { len.read_unaligned() };
    // SAFETY: the caller promises that there are `room` bytes.
    let given = unsafe { core::slice::from_raw_parts(text.cast::<u8>(), room) };
    let (characters, _) = given.as_chunks::<2>();
    if !characters.contains(&[0, 0]) {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller promises it.
    let last = Name::up_to_nul(given).map(|name| (name, unsafe { vendor.read_unaligned() }));
    // SAFETY: this service has no other reference.
    let (store, phase) = unsafe { store() };
    let Variable { name, vendor: next_vendor, .. } = match store.next(last, phase) {
        Ok(found) => found,
        Err(error) => return error,
    };
    let needed = name.bytes().len().saturating_add(size_of::<u16>());
    // SAFETY: the caller promises it.
    unsafe { put(len, needed) };
    if room < needed {
        return Status::BUFFER_TOO_SMALL;
    }
    // SAFETY: there is room for it; it is the store's, and no part of what the caller gave.
    unsafe { text.cast::<u8>().copy_from_nonoverlapping(name.bytes().as_ptr(), name.bytes().len()) };
    // SAFETY: there is room for it.
    unsafe { put(text.wrapping_byte_add(name.bytes().len()), 0) };
    // SAFETY: the caller promises it.
    unsafe { put(vendor, next_vendor) };
    Status::SUCCESS
}

/// # Safety
/// As the specification has it for `SetVariable`: the pointers are null or the caller's, and `data` has `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "efiapi" fn set_variable(
    text: *const u16,
    vendor: *const Guid,
    attributes: VariableAttributes,
    len: usize,
    data: *const u8,
) -> Status {
    if text.is_null() || vendor.is_null() || len != 0 && data.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // What is this long fits nowhere, and is not looked at.
    if len > MOST_BYTES {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: the caller promises it.
    let Some(name) = (unsafe { name(text) }) else { return Status::INVALID_PARAMETER };
    // SAFETY: the caller promises it.
    let vendor = unsafe { vendor.read_unaligned() };
    let data = match len {
        0 => &[],
        // SAFETY: the caller promises that there are `len` bytes.
        len => unsafe { core::slice::from_raw_parts(data, len) },
    };
    // SAFETY: this service has no other reference.
    let (mut store, phase) = unsafe { store() };
    status(store.set(name, vendor, attributes, data, phase))
}

/// # Safety
/// As the specification has it for `QueryVariableInfo`: the pointers are null or the caller's.
#[unsafe(no_mangle)]
unsafe extern "efiapi" fn query_variable_info(
    attributes: VariableAttributes,
    storage: *mut u64,
    remaining: *mut u64,
    most: *mut u64,
) -> Status {
    if storage.is_null() || remaining.is_null() || most.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: this service has no other reference.
    let (store, phase) = unsafe { store() };
    let info = match store.info(attributes, phase) {
        Ok(info) => info,
        Err(error) => return error,
    };
    // SAFETY: the caller promises it.
    unsafe { put(storage, info.storage) };
    // SAFETY: the caller promises it.
    unsafe { put(remaining, info.remaining) };
    // SAFETY: the caller promises it.
    unsafe { put(most, info.most) };
    Status::SUCCESS
}

/// # Safety
/// As the specification has it for `GetNextHighMonotonicCount`: the pointer is null or the caller's.
#[unsafe(no_mangle)]
unsafe extern "efiapi" fn get_next_high_monotonic_count(count: *mut u32) -> Status {
    if count.is_null() {
        return Status::INVALID_PARAMETER;
    }
    // SAFETY: this service has no other reference.
    let next = unsafe { state() }.next_high_count();
    // SAFETY: the caller promises it.
    unsafe { put(count, next) };
    Status::SUCCESS
}

/// # Safety
/// Nothing is asked of the caller but that it expects no return.
#[unsafe(no_mangle)]
unsafe extern "efiapi" fn reset_system(kind: ResetType, _status: Status, _len: usize, _data: *const u8) -> ! {
    // SAFETY: this service has no other reference.
    let power_off = unsafe { state() }.state.power_off;
    if kind == ResetType::SHUTDOWN {
        if power_off.register != 0 {
            let register = power_off.register as *mut u8;
            // SAFETY: the firmware put the register's address there, and the operating system maps it.
            unsafe { register.write_volatile(power_off.value as u8) };
        }
        if power_off.port != 0 {
            RuntimePorts.out16(power_off.port, power_off.value);
        }
        ports::wait();
    }
    ports::reset();
    loop {
        // SAFETY: nothing is left to be done.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// The library names a heap; the services have none.
struct NoHeap;

// SAFETY: nothing is allocated, so nothing can be wrong with it.
unsafe impl GlobalAlloc for NoHeap {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static HEAP: NoHeap = NoHeap;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        // SAFETY: nothing is left to be done.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
