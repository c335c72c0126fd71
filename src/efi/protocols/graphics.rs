//! `EFI_GRAPHICS_OUTPUT_PROTOCOL` on the framebuffer that the firmware has set up (UEFI 12.9).
//!
//! There is one mode, that of the framebuffer. [`Graphics::blt`] checks a transfer of pixels and returns it as a [`Transfer`]: rows,
//! each with where it is in the video memory and in the caller's buffer. Pixels of the buffer have the framebuffer's format.
//!
//! Assumed: the video memory has all of the mode. Left out: other modes, `EFI_EDID_OVERRIDE_PROTOCOL`.

use alloc::vec::Vec;

use uefi_raw::protocol::console::{
    GraphicsOutputBltOperation, GraphicsOutputModeInformation, GraphicsPixelFormat, PixelBitmask,
};
use uefi_raw::{Guid, Status, guid};

use crate::addr::{PhysAddr, PhysRange};
use crate::efi::device_path::text::PCI_ROOT;
use crate::efi::device_path::{ACPI, ACPI_ADDRESS, ACPI_DEVICE, HARDWARE, HARDWARE_MEMORY, HARDWARE_PCI, PathBuilder};
use crate::framebuffer::{EDID_LEN, Framebuffer, Mode};
use crate::hal::{Memory, MemoryError};
use crate::heap::HeapFull;

/// The EDID of the display, and the one in use (UEFI 12.9.2.4, 12.9.2.5). Nothing overrides the display's.
pub const EDID_PROTOCOLS: [Guid; 2] =
    [guid!("1c0c34f6-d380-41fa-a049-8ad06c1a66aa"), guid!("bd8c1056-9f36-44ec-92a8-a6337f817986")];

/// The address of an output by ACPI's scheme: the first VGA monitor, by its port (ACPI 6.5, B.4.2, "_DOD").
const OUTPUT: u32 = 1 << 31 | 1 << 16 | 1 << 8;

/// The number of the mode.
const MODE: u32 = 0;
/// The bytes of a pixel, in the framebuffer and in a buffer.
const PIXEL_LEN: u64 = 4;
/// The longest row.
const MOST_ROW: usize = Mode::DEFAULT.line_bytes() as usize;

/// A display with its framebuffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Graphics {
    framebuffer: Framebuffer,
}

/// A place of pixels: column and row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Pixels from the left.
    pub x: usize,
    /// Pixels from the top.
    pub y: usize,
}

/// What `Blt` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The kind of transfer.
    pub operation: GraphicsOutputBltOperation,
    /// Where the pixels come from.
    pub source: Place,
    /// Where they go.
    pub destination: Place,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from a row of the buffer to the next; zero if all of the buffer is transferred.
    pub delta: usize,
}

/// What happens to each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Fill,
    ToBuffer,
    FromBuffer,
    WithinVideo,
}

/// A transfer that is within the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    operation: Operation,
    video: PhysAddr,
    /// The first byte of video memory, from its start; the row's length; the bytes from a row to the next; and how many rows.
    start: u64,
    row_len: u64,
    line: u64,
    rows: u64,
    /// The first byte of the other side, and the bytes from a row of it to the next.
    other_start: u64,
    other_line: u64,
}

impl Graphics {
    /// The display of a framebuffer. `None` if its video memory has not all of the mode.
    #[must_use]
    pub fn new(framebuffer: Framebuffer) -> Option<Self> {
        (u64::from(framebuffer.mode.bytes()) <= framebuffer.memory.len()).then_some(Self { framebuffer })
    }

    /// The number of modes, and of the present one.
    #[must_use]
    pub const fn modes(&self) -> (u32, u32) {
        (MODE.saturating_add(1), MODE)
    }

    /// The framebuffer as the protocol's structure has it: all that is shown.
    #[must_use]
    pub fn memory(&self) -> PhysRange {
        let (shown, _) = self.framebuffer.memory.split_at(self.framebuffer.mode.bytes().into());
        shown
    }

    /// The device path of the display: its PCI function or its memory, and the output.
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn device_path(&self) -> Result<Vec<u8>, HeapFull> {
        let mut path = PathBuilder::new();
        if let Some(function) = self.framebuffer.function {
            let root = u32::from(function.route.root);
            path = path.node(ACPI, ACPI_DEVICE, &[&PCI_ROOT.to_le_bytes(), &root.to_le_bytes()])?;
            for step in function.route.steps() {
                path = path.node(HARDWARE, HARDWARE_PCI, &[&[step.function(), step.device()]])?;
            }
        } else {
            let (start, end) = (self.memory().start().get(), self.memory().end().get().saturating_sub(1));
            // The type of the memory is `EfiReservedMemoryType`.
            path = path.node(HARDWARE, HARDWARE_MEMORY, &[&[0; 4], &start.to_le_bytes(), &end.to_le_bytes()])?;
        }
        path.node(ACPI, ACPI_ADDRESS, &[&OUTPUT.to_le_bytes()])?.end()
    }

    /// The display's EDID, if it has one.
    pub fn edid(&self, memory: &mut impl Memory) -> Option<[u8; EDID_LEN]> {
        self.framebuffer.edid(memory)
    }

    /// `QueryMode`: about a mode.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a mode that there is not.
    pub const fn query_mode(&self, mode: u32) -> Result<GraphicsOutputModeInformation, Status> {
        if mode != MODE {
            return Err(Status::INVALID_PARAMETER);
        }
        let mode = self.framebuffer.mode;
        Ok(GraphicsOutputModeInformation {
            version: 0,
            horizontal_resolution: mode.width() as u32,
            vertical_resolution: mode.height() as u32,
            pixel_format: GraphicsPixelFormat::PIXEL_BLUE_GREEN_RED_RESERVED_8_BIT_PER_COLOR,
            pixel_information: PixelBitmask { red: 0, green: 0, blue: 0, reserved: 0 },
            // There are no gaps between lines.
            pixels_per_scan_line: mode.width() as u32,
        })
    }

    /// `SetMode`: fills the screen with black.
    ///
    /// # Errors
    /// `UNSUPPORTED` for a mode that there is not, `DEVICE_ERROR` if the firmware may not write the video memory.
    pub fn set_mode(&self, mode: u32, memory: &mut impl Memory) -> Result<(), Status> {
        if mode != MODE {
            return Err(Status::UNSUPPORTED);
        }
        memory.fill(self.memory(), 0).map_err(device_error)
    }

    /// `Blt`: checks what is asked for.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for an unknown operation, for no pixels, for pixels outside the screen, and for a buffer that no memory
    /// has.
    pub fn blt(&self, request: &Request) -> Result<Transfer, Status> {
        let Request { operation, source, destination, width, height, delta } = *request;
        let (operation, on_screen, other) = match operation {
            GraphicsOutputBltOperation::BLT_VIDEO_FILL => (Operation::Fill, destination, Place::default()),
            GraphicsOutputBltOperation::BLT_VIDEO_TO_BLT_BUFFER => (Operation::ToBuffer, source, destination),
            GraphicsOutputBltOperation::BLT_BUFFER_TO_VIDEO => (Operation::FromBuffer, destination, source),
            GraphicsOutputBltOperation::BLT_VIDEO_TO_VIDEO => (Operation::WithinVideo, destination, source),
            _ => return Err(Status::INVALID_PARAMETER),
        };
        let line = u64::from(self.framebuffer.mode.line_bytes());
        let other_line = match (operation, delta) {
            (Operation::WithinVideo, _) => line,
            (_, 0) => (width as u64).checked_mul(PIXEL_LEN).ok_or(Status::INVALID_PARAMETER)?,
            (_, delta) => delta as u64,
        };
        let sides = [Some(on_screen), Some(other).filter(|_| operation == Operation::WithinVideo)];
        let is_on_screen = |place: Place| self.has(place, width, height);
        if width == 0 || height == 0 || !sides.into_iter().flatten().all(is_on_screen) {
            return Err(Status::INVALID_PARAMETER);
        }
        let start = offset(on_screen, line).ok_or(Status::INVALID_PARAMETER)?;
        let other_start = offset(other, other_line).ok_or(Status::INVALID_PARAMETER)?;
        Ok(Transfer {
            operation,
            video: self.framebuffer.memory.start(),
            start,
            row_len: (width as u64).saturating_mul(PIXEL_LEN),
            line,
            rows: height as u64,
            other_start,
            other_line,
        })
    }

    fn has(&self, place: Place, width: usize, height: usize) -> bool {
        let mode = self.framebuffer.mode;
        let fits = |start: usize, len: usize, most: u16| start.checked_add(len).is_some_and(|end| end <= most.into());
        fits(place.x, width, mode.width()) && fits(place.y, height, mode.height())
    }
}

impl Transfer {
    /// The bytes of the caller's buffer that it uses, from the buffer's start on: to the end of the last row, or one pixel.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if no memory is that long.
    pub fn buffer_len(&self) -> Result<u64, Status> {
        match self.operation {
            Operation::Fill => Ok(PIXEL_LEN),
            Operation::WithinVideo => Ok(0),
            Operation::ToBuffer | Operation::FromBuffer => {
                let last = self.rows.saturating_sub(1).checked_mul(self.other_line);
                let end = last.and_then(|last| last.checked_add(self.other_start)?.checked_add(self.row_len));
                end.ok_or(Status::INVALID_PARAMETER)
            }
        }
    }

    /// Moves the pixels, with the caller's buffer at `buffer`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if the buffer ends beyond all addresses; `DEVICE_ERROR` if the firmware may not access one of the two.
    /// Some rows may be moved then.
    pub fn run(&self, memory: &mut impl Memory, buffer: PhysAddr) -> Result<(), Status> {
        PhysRange::new(buffer, self.buffer_len()?).ok_or(Status::INVALID_PARAMETER)?;
        match self.operation {
            Operation::Fill => self.fill(memory, buffer),
            Operation::ToBuffer => self.each_row(self.rows_down(), |video, other| {
                memory.copy(video, at(buffer, other)?).map_err(device_error)
            }),
            Operation::FromBuffer => self.each_row(self.rows_down(), |video, other| {
                let row = PhysRange::new(at(buffer, other)?, self.row_len).ok_or(Status::INVALID_PARAMETER)?;
                memory.copy(row, video.start()).map_err(device_error)
            }),
            Operation::WithinVideo => {
                let copy = |video: PhysRange, other| {
                    let row = PhysRange::new(at(self.video, other)?, self.row_len).ok_or(Status::DEVICE_ERROR)?;
                    memory.copy(row, video.start()).map_err(device_error)
                };
                // A row is read before another one is written over it.
                if self.start > self.other_start {
                    self.each_row(self.rows_down().rev(), copy)
                } else {
                    self.each_row(self.rows_down(), copy)
                }
            }
        }
    }

    fn fill(&self, memory: &mut impl Memory, buffer: PhysAddr) -> Result<(), Status> {
        let mut pixel = [0; PIXEL_LEN as usize];
        memory.read(buffer, &mut pixel).map_err(device_error)?;
        let mut row = [0; MOST_ROW];
        row.as_chunks_mut().0.iter_mut().for_each(|place| *place = pixel);
        let (row, _) = row.split_at_checked(self.row_len as usize).ok_or(Status::DEVICE_ERROR)?;
        self.each_row(self.rows_down(), |video, _| memory.write(video.start(), row).map_err(device_error))
    }

    fn rows_down(&self) -> impl DoubleEndedIterator<Item = u64> + use<> {
        0..self.rows
    }

    /// Calls `with` for each row, with its place in the video memory, and with the offset of the other side.
    fn each_row(
        &self,
        mut rows: impl Iterator<Item = u64>,
        mut with: impl FnMut(PhysRange, u64) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let place = |start: u64, line: u64, row: u64| row.checked_mul(line)?.checked_add(start);
        rows.try_for_each(|row| {
            let video = place(self.start, self.line, row).ok_or(Status::DEVICE_ERROR)?;
            let video = PhysRange::new(at(self.video, video)?, self.row_len).ok_or(Status::DEVICE_ERROR)?;
            with(video, place(self.other_start, self.other_line, row).ok_or(Status::INVALID_PARAMETER)?)
        })
    }
}

/// The first byte of a place, with `line` bytes from a row to the next.
fn offset(place: Place, line: u64) -> Option<u64> {
    let column = (place.x as u64).checked_mul(PIXEL_LEN)?;
    (place.y as u64).checked_mul(line)?.checked_add(column)
}

fn at(start: PhysAddr, offset: u64) -> Result<PhysAddr, Status> {
    start.checked_add(offset).ok_or(Status::INVALID_PARAMETER)
}

fn device_error(_: MemoryError) -> Status {
    Status::DEVICE_ERROR
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;
    use std::vec;

    use proptest::prelude::*;

    use super::*;
    use crate::efi::device_path::DevicePath;
    use crate::efi::device_path::text::PathText;
    use crate::fakes::machine::FakeMachine;
    use crate::framebuffer::DisplayFunction;
    use crate::pci::{Address, Route};

    const VIDEO: u64 = 0xfd00_0000;
    const BUFFER: u64 = 0x100_0000;

    const FILL: GraphicsOutputBltOperation = GraphicsOutputBltOperation::BLT_VIDEO_FILL;
    const TO_BUFFER: GraphicsOutputBltOperation = GraphicsOutputBltOperation::BLT_VIDEO_TO_BLT_BUFFER;
    const FROM_BUFFER: GraphicsOutputBltOperation = GraphicsOutputBltOperation::BLT_BUFFER_TO_VIDEO;
    const WITHIN: GraphicsOutputBltOperation = GraphicsOutputBltOperation::BLT_VIDEO_TO_VIDEO;

    /// The smallest mode, 640 by 400.
    fn graphics() -> Graphics {
        let memory = PhysRange::new(PhysAddr::new(VIDEO), 1 << 20).unwrap();
        Graphics::new(Framebuffer { memory, mode: Mode::largest_in(1 << 20).unwrap(), function: None }).unwrap()
    }

    fn request(
        operation: GraphicsOutputBltOperation,
        [x, y]: [usize; 2],
        [to_x, to_y]: [usize; 2],
        [width, height]: [usize; 2],
        delta: usize,
    ) -> Request {
        let (source, destination) = (Place { x, y }, Place { x: to_x, y: to_y });
        Request { operation, source, destination, width, height, delta }
    }

    /// Pixels of which each has its number as its bytes.
    fn pixels(count: u32) -> Vec<u8> {
        (0..count).flat_map(|number| (number | 0x0100_0000).to_le_bytes()).collect()
    }

    #[test]
    fn a_framebuffer_larger_than_its_memory_has_no_protocol() {
        let memory = PhysRange::new(PhysAddr::new(VIDEO), (3 << 20) - 1).unwrap();
        assert_eq!(Graphics::new(Framebuffer { memory, mode: Mode::DEFAULT, function: None }), None);
    }

    #[test]
    fn the_path_of_a_display_has_its_function_or_its_memory() {
        let text = |graphics: Graphics| {
            let path = graphics.device_path().unwrap();
            PathText(DevicePath::parse(&path).unwrap()).to_string()
        };
        assert_eq!(text(graphics()), "MemoryMapped(0x0,0xFD000000,0xFD0F9FFF)/AcpiAdr(0x80010100)");
        let registers = PhysRange::new(PhysAddr::new(0xfebf_0000), 0x1000).unwrap();
        let route = Route::of(0, 0, &[Address::new(0, 2, 1).unwrap()]);
        let function = Some(DisplayFunction { route, registers });
        let framebuffer = Framebuffer { function, ..graphics().framebuffer };
        let expected = "PciRoot(0x0)/Pci(0x2,0x1)/AcpiAdr(0x80010100)";
        assert_eq!(text(Graphics { framebuffer }), expected);
    }

    #[test]
    fn there_is_one_mode() {
        let graphics = graphics();
        assert_eq!(graphics.modes(), (1, 0));
        let mode = graphics.query_mode(0).unwrap();
        assert_eq!((mode.horizontal_resolution, mode.vertical_resolution, mode.pixels_per_scan_line), (640, 400, 640));
        assert_eq!(mode.pixel_format, GraphicsPixelFormat::PIXEL_BLUE_GREEN_RED_RESERVED_8_BIT_PER_COLOR);
        assert_eq!(graphics.memory(), PhysRange::new(PhysAddr::new(VIDEO), 640 * 400 * 4).unwrap());
        for mode in [1, u32::MAX] {
            assert_eq!(graphics.query_mode(mode), Err(Status::INVALID_PARAMETER));
            assert_eq!(graphics.set_mode(mode, &mut FakeMachine::new()), Err(Status::UNSUPPORTED));
        }
    }

    #[test]
    fn setting_the_mode_clears_what_is_shown_and_no_more() {
        let mut machine = FakeMachine::new();
        machine.memory.store(VIDEO, &vec![7; 1 << 20]);
        assert_eq!(graphics().set_mode(0, &mut machine), Ok(()));
        let bytes = machine.memory.bytes(VIDEO, 1 << 20);
        let (shown, rest) = bytes.split_at(640 * 400 * 4);
        assert!(shown.iter().all(|&byte| byte == 0) && rest.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn what_is_not_on_the_screen_is_refused() {
        let refused = |operation, from, to, size| {
            assert_eq!(graphics().blt(&request(operation, from, to, size, 0)), Err(Status::INVALID_PARAMETER));
        };
        let all = [640, 400];
        for operation in [FILL, TO_BUFFER, FROM_BUFFER, WITHIN] {
            assert!(graphics().blt(&request(operation, [0; 2], [0; 2], all, 0)).is_ok());
            for size in [[641, 1], [1, 401], [0, 1], [1, 0], [usize::MAX, 1], [1, usize::MAX]] {
                refused(operation, [0; 2], [0; 2], size);
            }
        }
        for place in [[1, 0], [0, 1], [usize::MAX, 0], [0, usize::MAX]] {
            refused(FILL, [0; 2], place, all);
            refused(FROM_BUFFER, [0; 2], place, all);
            refused(TO_BUFFER, place, [0; 2], all);
            refused(WITHIN, place, [0; 2], all);
            refused(WITHIN, [0; 2], place, all);
        }
        for operation in [4, 5, u32::MAX].map(GraphicsOutputBltOperation) {
            refused(operation, [0; 2], [0; 2], [1, 1]);
        }
        // A buffer beyond all addresses.
        for (from, delta) in [([0, usize::MAX], 8), ([usize::MAX, 0], 8), ([0, 2], usize::MAX)] {
            let request = request(FROM_BUFFER, from, [0; 2], [1, 2], delta);
            let result = graphics().blt(&request).and_then(|transfer| transfer.buffer_len());
            assert_eq!(result, Err(Status::INVALID_PARAMETER));
        }
    }

    #[test]
    fn a_buffer_has_all_rows_at_their_distance() {
        let len = |operation, place: [usize; 2], delta| {
            let request = match operation {
                TO_BUFFER => request(operation, [0; 2], place, [10, 3], delta),
                _ => request(operation, place, [0; 2], [10, 3], delta),
            };
            graphics().blt(&request).unwrap().buffer_len().unwrap()
        };
        for operation in [TO_BUFFER, FROM_BUFFER] {
            assert_eq!(len(operation, [0, 0], 0), 120);
            assert_eq!(len(operation, [2, 1], 100), 100 + 8 + 2 * 100 + 40);
        }
        assert_eq!((len(FILL, [5, 5], 0), len(WITHIN, [5, 5], 0)), (4, 0));
    }

    #[test]
    fn memory_that_is_the_firmwares_is_neither_read_nor_written() {
        let mut machine = FakeMachine::new();
        let own = crate::layout::FIRMWARE_RAM.start();
        for operation in [FILL, TO_BUFFER, FROM_BUFFER] {
            let transfer = graphics().blt(&request(operation, [0; 2], [0; 2], [4, 4], 0)).unwrap();
            assert_eq!(transfer.run(&mut machine, own), Err(Status::DEVICE_ERROR));
            assert!(transfer.run(&mut machine, PhysAddr::new(u64::MAX - 1)).is_err());
        }
    }

    proptest! {
        #[test]
        fn pixels_go_where_they_are_sent(
            kind in 0_u32..4,
            [x, y, to_x, to_y] in prop::array::uniform4(0_usize..30),
            [width, height] in prop::array::uniform2(1_usize..20),
            more in 0_usize..5,
        ) {
            let operation = GraphicsOutputBltOperation(kind);
            let delta = (30 + 20 + more) * 4;
            let mut machine = FakeMachine::new();
            let (screen, buffer) = (pixels(640 * 60), pixels(3000).iter().map(|byte| byte ^ 0x80).collect::<Vec<_>>());
            machine.memory.store(VIDEO, &screen);
            machine.memory.store(BUFFER, &buffer);
            let transfer = graphics().blt(&request(operation, [x, y], [to_x, to_y], [width, height], delta)).unwrap();
            prop_assert!(transfer.buffer_len().unwrap() <= buffer.len() as u64);
            transfer.run(&mut machine, PhysAddr::new(BUFFER)).unwrap();

            // Pixel by pixel.
            let (mut new_screen, mut new_buffer) = (screen.clone(), buffer.clone());
            for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
                let video = |x: usize, y: usize| ((y + row) * 640 + x + column) * 4;
                let other = |x: usize, y: usize| (y + row) * delta + (x + column) * 4;
                let (to, from, at, source): (&mut Vec<u8>, &[u8], _, _) = match operation {
                    FILL => (&mut new_screen, &buffer, video(to_x, to_y), 0),
                    TO_BUFFER => (&mut new_buffer, &screen, other(to_x, to_y), video(x, y)),
                    FROM_BUFFER => (&mut new_screen, &buffer, video(to_x, to_y), other(x, y)),
                    _ => (&mut new_screen, &screen, video(to_x, to_y), video(x, y)),
                };
                to[at..at + 4].copy_from_slice(&from[source..source + 4]);
            }
            prop_assert!(machine.memory.bytes(VIDEO, screen.len()) == new_screen);
            prop_assert!(machine.memory.bytes(BUFFER, buffer.len()) == new_buffer);
        }
    }
}
