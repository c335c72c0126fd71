//! Random numbers, the display and the console.

use alloc::format;
use alloc::vec;

use uefi::boot;
use uefi::proto::console::gop::{BltOp, BltPixel, BltRegion, GraphicsOutput};
use uefi::proto::console::text::Color;
use uefi::proto::rng::{Rng, RngAlgorithmType};
use uefi::{cstr16, system};

use crate::report::{line, result};

/// Prints what the devices do.
pub fn check() {
    check_random();
    check_display();
    check_console();
}

fn check_random() {
    let rng = boot::get_handle_for_protocol::<Rng>().and_then(boot::open_protocol_exclusive::<Rng>);
    let Some(mut rng) = result("RNG", rng) else { return };
    let mut list = [RngAlgorithmType::EMPTY_ALGORITHM; 8];
    if let Some(list) = result("RNG: GetInfo", rng.get_info(&mut list).map_err(|error| error.status().into())) {
        for algorithm in list {
            line("RNG: algorithm", format!("{}", algorithm.0));
        }
    }
    let (mut first, mut second) = ([0; 32], [0; 32]);
    result("RNG: by default", rng.get_rng(None, &mut first));
    result("RNG: by default again", rng.get_rng(None, &mut second));
    line("RNG: other bytes", first != second && first != [0; 32]);
    result("RNG: of an unknown algorithm", rng.get_rng(Some(RngAlgorithmType::ALGORITHM_X9_31_AES), &mut first));
    result("RNG: no bytes", rng.get_rng(None, &mut []));
}

fn check_display() {
    let display =
        boot::get_handle_for_protocol::<GraphicsOutput>().and_then(boot::open_protocol_exclusive::<GraphicsOutput>);
    let Some(mut display) = result("GOP", display) else { return };
    let info = display.current_mode_info();
    let (width, height) = info.resolution();
    line("GOP: mode", format!("{width}x{height}"));
    line("GOP: pixels", format!("{:?}", info.pixel_format()));
    line("GOP: modes", display.modes().len() > 0);
    line("GOP: framebuffer", display.frame_buffer().size() >= width * height * 4);
    let red = BltPixel::new(200, 10, 20);
    result("Blt: fill", display.blt(BltOp::VideoFill { color: red, dest: (10, 20), dims: (30, 40) }));
    let mut buffer = vec![BltPixel::new(0, 0, 0); 50 * 60];
    let read = BltOp::VideoToBltBuffer { buffer: &mut buffer, src: (0, 0), dest: BltRegion::Full, dims: (50, 60) };
    result("Blt: read", display.blt(read));
    let is_red = |x: usize, y: usize| buffer.get(y * 50 + x).is_some_and(|pixel| (pixel.red, pixel.blue) == (200, 20));
    line("Blt: what was filled", is_red(10, 20) && is_red(39, 59) && !is_red(9, 20) && !is_red(10, 19));
    result("Blt: move", display.blt(BltOp::VideoToVideo { src: (10, 20), dest: (100, 100), dims: (30, 40) }));
    let mut one = [BltPixel::new(0, 0, 0)];
    let read = BltOp::VideoToBltBuffer { buffer: &mut one, src: (129, 139), dest: BltRegion::Full, dims: (1, 1) };
    let _ = display.blt(read);
    line("Blt: what was moved", one[0].red == 200);
    let write =
        BltOp::BufferToVideo { buffer: &[BltPixel::new(1, 2, 3)], src: BltRegion::Full, dest: (5, 5), dims: (1, 1) };
    result("Blt: write", display.blt(write));
    result("Blt: nothing", display.blt(BltOp::VideoFill { color: red, dest: (0, 0), dims: (0, 1) }));
}

fn check_console() {
    system::with_stdout(|output| {
        result("console: reset", output.reset(false));
        line("console: mode 0", output.modes().next().map_or(0, |mode| mode.columns() * 1000 + mode.rows()));
        line("console: current mode", output.current_mode().is_ok_and(|mode| mode.is_some()));
        result("console: text", output.output_string(cstr16!("text of the program\r\n")));
        line("console: ASCII can be shown", output.test_string(cstr16!("abc")).unwrap_or(false));
        line("console: Hangul can be shown", output.test_string(cstr16!("\u{ac00}")).unwrap_or(false));
        result("console: color", output.set_color(Color::Yellow, Color::Blue));
        result("console: clear", output.clear());
        line("console: cursor", format!("{:?}", output.cursor_position()));
        let _ = output.output_string(cstr16!("abc"));
        line("console: cursor after text", format!("{:?}", output.cursor_position()));
        let _ = output.output_string(cstr16!("\r\n"));
        line("console: cursor after a line", format!("{:?}", output.cursor_position()));
        result("console: place", output.set_cursor_position(7, 3));
        line("console: cursor after that", format!("{:?}", output.cursor_position()));
        result("console: place beyond", output.set_cursor_position(1000, 3));
        result("console: show the cursor", output.enable_cursor(true));
    });
    system::with_stdin(|input| {
        result("console: reset input", input.reset(false));
        line("console: no key", input.read_key().is_ok_and(|key| key.is_none()));
        result("console: event of keys", input.wait_for_key_event());
    });
}
