//! Copies of tables, whose functions print the call and then call the firmware's.

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::fmt::Write;
use core::ptr;

use uefi_raw::table::system::SystemTable;
use uefi_raw::{Guid, Handle, Status};

use crate::Firmware;
use crate::calls::{BOOT, FILE, INPUT, MOST_FUNCTIONS, MOST_TABLES, MOST_WORDS, OUTPUT, RUNTIME, TABLES, Table};
use crate::line::{Line, Port};

/// The most tables that images have at a time, images, and lines: more are an error.
const MOST_COPIES: usize = 256;
const MOST_IMAGES: usize = 64;
const MOST_LINES: usize = 20_000;

/// The most arguments. `Blt` has ten, and those of `InstallMultipleProtocolInterfaces` have no limit.
const MOST_ARGUMENTS: usize = 16;
type Service =
    unsafe extern "efiapi" fn(u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64) -> u64;

/// How a protocol is tested for (UEFI 7.3, `EFI_BOOT_SERVICES.OpenProtocol`).
const TEST: u32 = 4;

/// Room for the code of one function in a copied table.
const STUB: usize = 16;

const _: () = assert!(TABLES.len() <= MOST_TABLES);

// The functions in copied tables. Each passes its number and the address of its arguments, which are in a row behind the return
// address, the first four in the room that the caller leaves for them (UEFI 2.3.4.2).
global_asm!(
    ".p2align 4",
    ".globl stubs",
    "stubs:",
    ".set number, 0",
    ".rept {stubs}",
    ".p2align 4",
    "movl $number, %eax",
    "jmp 2f",
    ".set number, number + 1",
    ".endr",
    "2:",
    "movq %rcx, 8(%rsp)",
    "movq %rdx, 16(%rsp)",
    "movq %r8, 24(%rsp)",
    "movq %r9, 32(%rsp)",
    "movl %eax, %ecx",
    "leaq 8(%rsp), %rdx",
    "subq $40, %rsp",
    "callq {called}",
    "addq $40, %rsp",
    "retq",
    stubs = const MOST_TABLES * MOST_FUNCTIONS,
    called = sym called,
    options(att_syntax)
);

unsafe extern "C" {
    static stubs: [u8; STUB];
}

/// A copy of a table.
#[derive(Clone, Copy)]
struct Copied {
    words: [u64; MOST_WORDS],
    /// The table that it is a copy of. Zero if there is none.
    original: u64,
    /// Its number in `TABLES`.
    table: usize,
    /// The handle that its protocol is on, if the image named one.
    handle: Handle,
}

const FREE: Copied = Copied { words: [0; MOST_WORDS], original: 0, table: 0, handle: ptr::null_mut() };

struct State {
    copies: [Copied; MOST_COPIES],
    images: [Handle; MOST_IMAGES],
    firmware: Firmware,
    lines: usize,
}

struct Global(UnsafeCell<State>);

// SAFETY: the program has one thread.
unsafe impl Sync for Global {}

static STATE: Global = Global(UnsafeCell::new(State {
    copies: [FREE; MOST_COPIES],
    images: [ptr::null_mut(); MOST_IMAGES],
    firmware: Firmware { boot: ptr::null(), runtime: ptr::null(), own_volume: ptr::null() },
    lines: 0,
}));

/// The state. Nobody keeps it while the firmware is called.
fn state() -> &'static mut State {
    // SAFETY: there is one thread, and no other reference is in use.
    unsafe { &mut *STATE.0.get() }
}

/// Ends the trace: its limits are too small.
fn give_up(why: &str) -> ! {
    let _ = writeln!(Port, "end: {why}");
    state().firmware.turn_off()
}

/// Has the system table point to copies.
///
/// # Safety
/// The table is the firmware's.
pub unsafe fn install(firmware: Firmware, table: *mut SystemTable) {
    state().firmware = firmware;
    // SAFETY: see above.
    let table = unsafe { &mut *table };
    table.boot_services = copy(BOOT, table.boot_services as u64, ptr::null_mut()) as *mut _;
    table.runtime_services = copy(RUNTIME, table.runtime_services as u64, ptr::null_mut()) as *mut _;
    table.stdin = copy(INPUT, table.stdin as u64, ptr::null_mut()) as *mut _;
    table.stderr = copy(OUTPUT, table.stderr as u64, ptr::null_mut()) as *mut _;
    table.stdout = copy(OUTPUT, table.stdout as u64, ptr::null_mut()) as *mut _;
}

/// The number of an image, in the order in which they are first seen.
pub fn number(image: Handle) -> usize {
    let images = &mut state().images;
    let place = images.iter().position(|known| *known == image || known.is_null());
    let Some(place) = place else { give_up("too many images") };
    images[place] = image;
    place + 1
}

/// The copy of a table, which is made unless it is there. Returns its address.
fn copy(table: usize, original: u64, handle: Handle) -> u64 {
    let copies = &mut state().copies;
    let same = |known: &Copied| (known.original, known.table, known.handle) == (original, table, handle);
    let is_copy = |known: &Copied| known.original != 0 && ptr::from_ref(known) as u64 == original;
    let place = copies.iter().position(|known| same(known) || is_copy(known));
    let Some(place) = place.or_else(|| copies.iter().position(|known| known.original == 0)) else {
        give_up("too many tables")
    };
    let copied = &mut copies[place];
    if copied.original == 0 {
        *copied = Copied { original, table, handle, ..FREE };
        for (word, to) in copied.words.iter_mut().enumerate().take(TABLES[table].len) {
            // SAFETY: the table is as long as its protocol says.
            *to = unsafe { *(original as *const u64).add(word) };
        }
        for (index, (word, ..)) in TABLES[table].functions.iter().enumerate() {
            let stub = table * MOST_FUNCTIONS + index;
            copied.words[*word] = (&raw const stubs) as u64 + (STUB * stub) as u64;
        }
    }
    copied.words.as_ptr() as u64
}

/// Each function of a copied table comes here, with its number and the address of its arguments.
extern "efiapi" fn called(number: usize, at: *const u64) -> u64 {
    let (index, number) = (number / MOST_FUNCTIONS, number % MOST_FUNCTIONS);
    let (table, firmware) = (&TABLES[index], state().firmware);
    let (word, name, kinds) = table.functions[number];
    // SAFETY: what is behind the arguments on the stack is the caller's frame.
    let mut arguments: [u64; MOST_ARGUMENTS] = core::array::from_fn(|index| unsafe { *at.add(index) });
    let is_this = |copied: &Copied| {
        let is_its = !table.has_this || copied.words.as_ptr() as u64 == arguments[0];
        copied.original != 0 && copied.table == index && is_its
    };
    let Some(place) = state().copies.iter().position(is_this) else { give_up("an unknown interface") };
    let Copied { original, handle, .. } = state().copies[place];
    // SAFETY: the original is as long as its protocol says.
    let function = unsafe { *(original as *const u64).add(word) };

    let mut line = asked(&firmware, table, number, handle, &arguments);
    if table.has_this {
        arguments[0] = original;
    }
    state().lines += 1;
    if state().lines > MOST_LINES {
        give_up("too many calls");
    }
    if matches!(name, "Exit" | "ResetSystem") {
        let _ = line.write_str("does not return");
        line.print();
    }
    // SAFETY: the original function, with the arguments of the call.
    let result = unsafe { call(function, &arguments) };
    let status = Status(result as usize);
    if kinds.ends_with('*') {
        let _ = line.argument(&firmware, 'o', result);
    } else {
        let _ = write!(line, "{status:?}");
    }
    if (index, name) == (BOOT, "ExitBootServices") && status == Status::SUCCESS {
        line.print();
        let _ = writeln!(Port, "end: ExitBootServices");
        firmware.turn_off();
    }
    if matches!(status, Status::SUCCESS | Status::BUFFER_TOO_SMALL) {
        answered(&firmware, &mut line, (name, kinds), &arguments, status);
    }
    if index == FILE && matches!(name, "Close" | "Delete") {
        state().copies[place].original = 0;
    }
    if !matches!(name, "Exit" | "ResetSystem") {
        line.print();
    }
    result
}

/// The beginning of the line: the function, with its arguments.
fn asked(firmware: &Firmware, table: &Table, number: usize, handle: Handle, arguments: &[u64; MOST_ARGUMENTS]) -> Line {
    let (_, name, kinds) = table.functions[number];
    let mut line = Line::new();
    let _ = write!(line, "{}.{name}", table.name);
    if !handle.is_null() {
        let _ = line.write_str(" ").and_then(|()| line.handle(firmware, handle));
    }
    let mut between = "(";
    let mut put = |line: &mut Line, kind, argument| {
        let _ = line.write_str(between).and_then(|()| line.argument(firmware, kind, argument));
        between = ", ";
    };
    for (kind, argument) in kinds.chars().zip(*arguments) {
        match kind {
            't' | 'i' | 'f' | 'r' | 'c' | '.' | '*' => {}
            // Pairs of a GUID and an interface, up to a null pointer.
            'm' => {
                let guids = arguments.iter().skip(1).step_by(2).take_while(|guid| **guid != 0);
                guids.for_each(|guid| put(&mut line, 'g', *guid));
            }
            _ => put(&mut line, kind, argument),
        }
    }
    let _ = line.write_str(if between == "(" { "()" } else { ")" });
    line.begin_result();
    line
}

/// What a call has returned besides its status: lengths and handles are added to the line, and interfaces are replaced by copies.
fn answered(
    firmware: &Firmware,
    line: &mut Line,
    (name, kinds): (&str, &str),
    arguments: &[u64; MOST_ARGUMENTS],
    status: Status,
) {
    if status == Status::SUCCESS {
        match name {
            // SAFETY: the service has written as many bytes.
            "LocateHandle" => unsafe {
                hide(firmware, arguments[4] as *mut Handle, arguments[3] as *mut usize, size_of::<Handle>())
            },
            // SAFETY: the service has written the address of as many handles.
            "LocateHandleBuffer" => unsafe {
                hide(firmware, *(arguments[4] as *const *mut Handle), arguments[3] as *mut usize, 1)
            },
            _ => {}
        }
    }
    for (kind, argument) in kinds.chars().zip(*arguments).filter(|(_, argument)| *argument != 0) {
        let out = argument as *mut u64;
        match kind {
            // A length is in the result too.
            'z' | 'c' => {
                let _ = line.write_str(" ").and_then(|()| line.argument(firmware, 'z', argument));
            }
            'r' if status == Status::SUCCESS => {
                let _ = line.write_str(" ").and_then(|()| line.argument(firmware, 'H', argument));
            }
            // A test returns no interface.
            'i' if status == Status::SUCCESS && (name, arguments[5] as u32) != ("OpenProtocol", TEST) => {
                let guid = arguments[kinds.find('g').unwrap_or_default()] as *const Guid;
                // SAFETY: images pass the addresses of GUIDs.
                let guid = unsafe { guid.read_unaligned() };
                let on = if kinds.starts_with('h') { arguments[0] as Handle } else { ptr::null_mut() };
                let known = TABLES.iter().position(|table| table.guid == guid);
                if let Some(known) = known {
                    // SAFETY: the service has written the address of an interface.
                    unsafe { *out = copy(known, *out, on) };
                }
            }
            // SAFETY: the same for a file.
            'f' if status == Status::SUCCESS => unsafe { *out = copy(FILE, *out, ptr::null_mut()) },
            _ => {}
        }
    }
}

/// Removes the handles of the program's own disk, which would be one more disk to a loader.
///
/// # Safety
/// There are as many handles as `len` says, in this unit.
unsafe fn hide(firmware: &Firmware, handles: *mut Handle, len: *mut usize, unit: usize) {
    let mut kept = 0;
    // SAFETY: see above.
    for index in 0..unsafe { *len } / unit {
        // SAFETY: see above.
        let handle = unsafe { *handles.add(index) };
        if !firmware.is_on_own_disk(handle) {
            // SAFETY: see above.
            unsafe { *handles.add(kept) = handle };
            kept += 1;
        }
    }
    // SAFETY: see above.
    unsafe { *len = kept * unit };
}

/// Calls a function of the firmware.
///
/// # Safety
/// It is one.
unsafe fn call(function: u64, arguments: &[u64; MOST_ARGUMENTS]) -> u64 {
    // SAFETY: see above. All functions take words, and those that they do not take are ignored.
    let function: Service = unsafe { core::mem::transmute(function as usize) };
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *arguments;
    // SAFETY: see above.
    unsafe { function(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) }
}
