//! The console as functions that images call: `EFI_SIMPLE_TEXT_OUTPUT_PROTOCOL` and `EFI_SIMPLE_TEXT_INPUT_PROTOCOL`.

use uefi_raw::Status;
use zerocopy::IntoBytes;

use firstlight::efi::protocols::text_output::TextOutput;
use firstlight::efi::services::Pointers;

use super::calls::call;
use super::state::Running;

/// The longest string that is written: a bound for one without an end.
const MOST_CHARACTERS: usize = 64 << 10;

/// The functions, in the order of the protocol (UEFI 12.4.1), with the address of the mode behind them.
pub fn output(mode: u64) -> [u64; 10] {
    [
        reset as *const () as u64,
        output_string as *const () as u64,
        test_string as *const () as u64,
        query_mode as *const () as u64,
        set_mode as *const () as u64,
        set_attribute as *const () as u64,
        clear_screen as *const () as u64,
        set_cursor_position as *const () as u64,
        enable_cursor as *const () as u64,
        mode,
    ]
}

/// The mode as it is in memory.
pub fn mode(output: &TextOutput) -> [u8; 24] {
    let mode = output.mode();
    let numbers =
        [mode.max_mode, mode.mode, mode.attribute, mode.cursor_column, mode.cursor_row, mode.cursor_visible.0.into()];
    let mut bytes = [0; 24];
    bytes.iter_mut().zip(numbers.as_bytes()).for_each(|(to, from)| *to = *from);
    bytes
}

/// Changes the console, and then writes its mode anew.
fn change(work: impl FnOnce(&mut Running) -> Result<(), Status>) -> Status {
    call(|running| {
        let result = work(running);
        let (output, at) = &running.output;
        running.machine.put(*at, &mode(output))?;
        result
    })
}

extern "efiapi" fn reset(_this: u64, _verify: u8) -> Status {
    change(|Running { output: (output, _), terminal, .. }| output.reset(terminal))
}

extern "efiapi" fn output_string(_this: u64, string: u64) -> Status {
    change(|Running { machine, output: (output, _), terminal, .. }| {
        let text = machine.text(string, MOST_CHARACTERS)?;
        output.output_string(&text, terminal)
    })
}

extern "efiapi" fn test_string(_this: u64, string: u64) -> Status {
    call(|Running { machine, output: (output, _), .. }| {
        let text = machine.text(string, MOST_CHARACTERS)?;
        output.test_string(&text)
    })
}

extern "efiapi" fn query_mode(_this: u64, mode: usize, columns: u64, rows: u64) -> Status {
    call(|Running { machine, output: (output, _), .. }| {
        let (column_count, row_count) = output.query_mode(mode)?;
        machine.set_number(columns, column_count as u64)?;
        machine.set_number(rows, row_count as u64)
    })
}

extern "efiapi" fn set_mode(_this: u64, mode: usize) -> Status {
    change(|Running { output: (output, _), terminal, .. }| output.set_mode(mode, terminal))
}

extern "efiapi" fn set_attribute(_this: u64, attribute: usize) -> Status {
    change(|Running { output: (output, _), terminal, .. }| output.set_attribute(attribute, terminal))
}

extern "efiapi" fn clear_screen(_this: u64) -> Status {
    change(|Running { output: (output, _), terminal, .. }| output.clear_screen(terminal))
}

extern "efiapi" fn set_cursor_position(_this: u64, column: usize, row: usize) -> Status {
    change(|Running { output: (output, _), terminal, .. }| output.set_cursor_position(column, row, terminal))
}

extern "efiapi" fn enable_cursor(_this: u64, is_visible: u8) -> Status {
    change(|Running { output: (output, _), terminal, .. }| output.enable_cursor(is_visible != 0, terminal))
}

/// The functions of the input, in the order of the protocol (UEFI 12.3), with the event for a key behind them.
pub fn input(key_event: u64) -> [u64; 3] {
    [reset_input as *const () as u64, read_key_stroke as *const () as u64, key_event]
}

extern "efiapi" fn reset_input(_this: u64, _verify: u8) -> Status {
    call(|running| {
        running.input.reset();
        Ok(())
    })
}

extern "efiapi" fn read_key_stroke(_this: u64, at: u64) -> Status {
    call(|running| {
        running.receive();
        let now = running.now();
        let key = running.input.read_key_stroke(now)?;
        let [low, high] = key.scan_code.to_le_bytes();
        // An image that passes no place loses the key.
        let [first, second] = key.unicode_char.to_le_bytes();
        running.machine.put(at, &[low, high, first, second])
    })
}
