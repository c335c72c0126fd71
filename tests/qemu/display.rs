//! What the display shows before a driver for it runs: the probe draws at the address in `screen_info`, and the tests read
//! Linux's first console from the screen.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::bzimage::BzImage;
use crate::environment;
use crate::machine::{Accelerator, Kind, Machine, Qemu};
use crate::probe::{E820_RAM, Probe};

/// A colour: red, green, blue.
pub type Colour = [u8; 3];

const BLACK: Colour = [0; 3];

/// What is on the screen.
#[derive(PartialEq, Eq)]
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// Line after line.
    pub pixels: Vec<Colour>,
}

impl Picture {
    /// The picture on QEMU's first display.
    pub fn of(qemu: &mut Qemu) -> Self {
        let path = qemu.folder().join("screen");
        qemu.qmp().run("screendump", &format!("{{\"filename\": \"{}\"}}", path.display()));
        Self::parse(&fs::read(path).expect("QEMU's file"))
    }

    /// A portable pixmap, with three bytes a pixel (Netpbm, `ppm`).
    fn parse(file: &[u8]) -> Self {
        let mut parts = file.splitn(4, |&byte| byte == b'\n');
        let mut text = || std::str::from_utf8(parts.next().expect("a line")).expect("text");
        assert_eq!(text(), "P6");
        let (width, height) = text().split_once(' ').expect("the size");
        let [width, height] = [width, height].map(|number| number.parse().expect("a number"));
        assert_eq!(text(), "255");
        let pixels: Vec<_> = parts.next().expect("pixels").chunks(3).map(|pixel| pixel.try_into().unwrap()).collect();
        assert_eq!(pixels.len(), width * height);
        Self { width, height, pixels }
    }

    /// A picture without light.
    pub fn black(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![BLACK; width * height] }
    }

    /// Sets a pixel.
    pub fn set(&mut self, x: usize, y: usize, colour: Colour) {
        self.pixels[y * self.width + x] = colour;
    }

    /// Fails where the two differ.
    pub fn check(&self, expected: &Self) {
        assert_eq!((self.width, self.height), (expected.width, expected.height));
        let differs = (0..self.pixels.len()).find(|&at| self.pixels[at] != expected.pixels[at]);
        if let Some(at) = differs {
            let (x, y) = (at % self.width, at / self.width);
            panic!("the pixel at {x}, {y} is {:x?}, not {:x?}", self.pixels[at], expected.pixels[at]);
        }
    }
}

/// The screen as `boot_params` has it (Linux, `include/uapi/linux/screen_info.h`).
#[derive(Debug)]
struct Screen {
    base: u64,
    memory: u64,
    width: usize,
    height: usize,
    line_bytes: u64,
}

impl Screen {
    fn of(probe: &mut Probe) -> Self {
        let page = probe.boot_params();
        let u16_at = |at: usize| u16::from_le_bytes([page.0[at], page.0[at + 1]]);
        assert_eq!(page.0[0x0f], 0x23, "VIDEO_TYPE_VLFB");
        assert_eq!(u16_at(0x16), 32, "bits of a pixel");
        assert_eq!(page.0[0x26..0x2e], [8, 16, 8, 8, 8, 0, 8, 24], "red, green, blue and the rest: size, position");
        assert_eq!(page.u32(0x36), 0, "capabilities");
        Self {
            base: page.u32(0x18).into(),
            memory: u64::from(page.u32(0x1c)) << 16,
            width: u16_at(0x12).into(),
            height: u16_at(0x14).into(),
            line_bytes: u16_at(0x24).into(),
        }
    }

    /// Where the pixels of line `y` from `columns.start` to `columns.end` are.
    fn pixels(&self, columns: Range<usize>, y: usize) -> Range<u64> {
        let line = self.base + self.line_bytes * y as u64;
        line + 4 * columns.start as u64..line + 4 * columns.end as u64
    }
}

/// Boots the probe, draws where the kernel's parameters have the screen, and checks every pixel that QEMU shows.
///
/// The display has `memory` bytes and shows a picture of the size `mode`.
pub fn check(machine: &Machine, mode: (usize, usize), memory: u64) {
    eprintln!("{:?} {}", machine.kind, machine.arguments.join(" "));
    let mut probe = Probe::boot(machine, &BzImage::new(), None, None);
    let black = Picture::black(mode.0, mode.1);
    Picture::of(&mut probe.qemu).check(&black);
    draw_and_check(&mut probe, mode, memory);
}

/// The second part of [`check`], on a machine whose screen is black.
fn draw_and_check(probe: &mut Probe, mode: (usize, usize), memory: u64) {
    let screen = Screen::of(probe);
    assert_eq!((screen.width, screen.height), mode);
    assert_eq!(screen.memory, memory, "{screen:x?}");
    let end = screen.base + screen.memory;
    let e820 = probe.boot_params().e820();
    let apart = |start: u64, stop: u64| end <= start || stop <= screen.base;
    let ram = e820.iter().find(|entry| entry.kind == E820_RAM && !apart(entry.start, entry.end));
    assert_eq!(ram, None, "the kernel takes the picture for free memory");

    let mut expected = Picture::black(mode.0, mode.1);
    let (right, bottom) = (mode.0 - 1, mode.1 - 1);
    let corners = [(0, 0, 0x10), (right, 0, 0x20), (0, bottom, 0x30), (right, bottom, 0x40), (1, 1, 0x50)];
    for (x, y, shade) in corners {
        let colour = [shade + 1, shade + 2, shade + 3];
        let at = screen.pixels(x..x + 1, y).start;
        for (byte, component) in (at..).zip(colour.into_iter().rev()) {
            probe.fill(byte..byte + 1, component);
        }
        expected.set(x, y, colour);
    }
    let line = mode.1 / 2;
    probe.fill(screen.pixels(0..mode.0, line), 0xff);
    (0..mode.0).for_each(|x| expected.set(x, line, [0xff; 3]));
    Picture::of(&mut probe.qemu).check(&expected);
}

pub const XGA: (usize, usize) = (1024, 768);
const MIB: u64 = 1 << 20;

#[test]
fn pixels_in_the_memory_of_a_pci_display_appear_on_the_screen() {
    for kind in Kind::ALL {
        let machine = || Machine::new(kind);
        check(&Machine { default_devices: true, ..machine() }.with("-nic none"), XGA, 16 * MIB);
        check(&machine().with("-vga std"), XGA, 16 * MIB);
        check(&machine().with("-device secondary-vga"), XGA, 16 * MIB);
        check(&machine().with("-device bochs-display,vgamem=64M"), XGA, 64 * MIB);
    }
    let behind_a_port = "-device pcie-root-port,id=a,chassis=1 -device bochs-display,bus=a";
    check(&Machine::new(Kind::Q35).with(behind_a_port), XGA, 16 * MIB);
    check(&Machine::new(Kind::Q35).with("-vga virtio"), XGA, 8 * MIB);
    let behind_a_bridge = "-device pci-bridge,id=a,chassis_nr=1 -device VGA,bus=a,addr=1";
    check(&Machine::new(Kind::Pc).with(behind_a_bridge), XGA, 16 * MIB);
}

#[test]
fn pixels_in_the_framebuffer_appear_on_the_screen_under_kvm() {
    let Some(accelerator) = Accelerator::kvm() else { return };
    check(&Machine { accelerator, ..Machine::new(Kind::Q35) }.with("-vga std"), XGA, 16 * MIB);
    check(&Machine { accelerator, ..Machine::new(Kind::Q35) }.with("-device ramfb"), XGA, 3 * MIB);
}

#[test]
fn a_display_with_little_memory_gets_a_smaller_mode() {
    check(&Machine::new(Kind::Q35).with("-device VGA,vgamem_mb=1"), (640, 400), MIB);
    check(&Machine::new(Kind::Pc).with("-device VGA,vgamem_mb=2"), (800, 600), 2 * MIB);
    check(&Machine::new(Kind::Pc).with("-device VGA,vgamem_mb=4"), XGA, 4 * MIB);
}

#[test]
fn pixels_in_the_ram_of_ramfb_appear_on_the_screen() {
    for kind in Kind::ALL {
        check(&Machine::new(kind).with("-device ramfb"), XGA, 3 * MIB);
        check(&Machine { memory: "6G", ..Machine::new(kind) }.with("-device ramfb"), XGA, 3 * MIB);
    }
}

#[test]
fn a_pci_display_takes_precedence_over_ramfb() {
    check(&Machine::new(Kind::Q35).with("-device bochs-display -device ramfb"), XGA, 16 * MIB);
}

#[test]
fn the_screen_is_black_after_a_reset_and_shows_new_pixels() {
    for (display, memory) in [("-vga std", 16 * MIB), ("-device secondary-vga", 16 * MIB), ("-device ramfb", 3 * MIB)] {
        let machine = Machine { reboots: true, ..Machine::new(Kind::Q35) }.with(display);
        let mut probe = Probe::boot(&machine, &BzImage::new(), None, None);
        draw_and_check(&mut probe, XGA, memory);
        probe.reset();
        Picture::of(&mut probe.qemu).check(&Picture::black(XGA.0, XGA.1));
        draw_and_check(&mut probe, XGA, memory);
    }
}

#[test]
fn a_display_without_registers_causes_a_warning() {
    let machine = Machine::new(Kind::Q35).with("-device VGA,mmio=off");
    let mut probe = Probe::boot_noisily(&machine, &BzImage::new(), None, None);
    assert_eq!(probe.boot_params().0[..0x40], [0; 0x40]);
    let com1 = probe.qemu.com1();
    assert!(com1.starts_with("firstlight: warning: no framebuffer: ") && com1.contains("mmio=on"), "{com1}");
}

#[test]
fn a_vga_display_decodes_memory_and_ports() {
    for kind in Kind::ALL {
        let mut probe = Probe::boot(&Machine::new(kind).with("-device VGA,addr=5"), &BzImage::new(), None, None);
        assert_eq!(probe.pci([0, 5, 0], 0x04) & 3, 3);
    }
}

#[test]
fn without_a_known_display_the_kernel_gets_no_screen() {
    for display in ["-vga none", "-vga cirrus"] {
        let mut probe = Probe::boot(&Machine::new(Kind::Q35).with(display), &BzImage::new(), None, None);
        assert_eq!(probe.boot_params().0[..0x40], [0; 0x40], "{display}");
    }
}

/// The size of a character of Linux's console at this width.
const CELL: (usize, usize) = (8, 16);

/// What the screen shows, in cells of a character: each row's cells, as bits that are set where there is no black.
fn cells(picture: &Picture) -> Vec<Vec<u128>> {
    let cell = |row: usize, column: usize| {
        (0..CELL.0 * CELL.1).fold(0, |bits, i| {
            let (x, y) = (column * CELL.0 + i % CELL.0, row * CELL.1 + i / CELL.0);
            bits << 1 | u128::from(picture.pixels[y * picture.width + x] != BLACK)
        })
    };
    let columns = picture.width / CELL.0;
    (0..picture.height / CELL.1).map(|row| (0..columns).map(|column| cell(row, column)).collect()).collect()
}

/// Which character each cell shows, if `rows` show exactly the text in `lines`: a character looks the same everywhere, two
/// characters do not look alike, and a space is black.
fn read(rows: &[Vec<u128>], lines: &[String]) -> Result<BTreeMap<u128, char>, String> {
    let mut characters = BTreeMap::from([(0, ' ')]);
    let mut shapes = BTreeMap::from([(' ', 0)]);
    for (row, line) in rows.iter().zip(lines) {
        for (&shape, character) in row.iter().zip(line.chars().chain(std::iter::repeat(' '))) {
            let (seen, known) =
                (*characters.entry(shape).or_insert(character), *shapes.entry(character).or_insert(shape));
            if (seen, known) != (character, shape) {
                return Err(format!("{seen:?} where there should be {character:?} in {line:?}"));
            }
        }
    }
    Ok(characters)
}

/// The kernel's line after it has started its built-in drivers.
const AFTER_DRIVERS: &str = "Loading compiled-in X.509 certificates";

/// What the kernel says last when it has no root file system, and nothing to do.
const LAST_LINE: &str = "end Kernel panic - not syncing: VFS: Unable to mount root fs";

/// A row of the screen, in characters.
const COLUMNS: usize = 128;

/// How long the screen may be behind the serial port.
const SCREEN_LIMIT: Duration = Duration::from_secs(30);

/// Boots Linux without a root file system, and reads all that it says from the screen, from the first line on. It says
/// the same on the serial port.
fn check_console(machine: &Machine, kernel: PathBuf) {
    eprintln!("{:?} {}", machine.kind, machine.arguments.join(" "));
    let machine = Machine {
        memory: "256M",
        kernel: Some(kernel),
        // No more than fits one screen: notices and what is more urgent. A busy host cannot fail the kernel's timer check.
        append: Some("console=tty0 console=ttyS0 loglevel=6 no_timer_check".to_owned()),
        ..machine.clone()
    };
    let mut qemu = machine.start();
    qemu.wait_for("the kernel's last line", |qemu| qemu.com1().contains(LAST_LINE) && qemu.com1().ends_with("\n"));
    assert_eq!(qemu.debug_console(), "", "the firmware printed something");

    // The kernel writes to the serial port first, so the screen may be a moment behind.
    let start = Instant::now();
    let characters = loop {
        let screen = Picture::of(&mut qemu);
        let mut shown = cells(&screen);
        assert_eq!((shown.len(), shown[0].len()), (48, COLUMNS));
        let mut text = on_screen(&qemu.com1());
        assert!(text[0].starts_with("[    0.000000] Linux version ") && text.len() < shown.len(), "{text:?}");
        // The cursor is below the text, and nothing below that.
        shown.remove(text.len());
        text.resize(shown.len(), String::new());
        match read(&shown, &text) {
            Ok(characters) => break characters,
            Err(error) => assert!(start.elapsed() < SCREEN_LIMIT, "{error}"),
        }
        thread::sleep(Duration::from_millis(100));
    };
    assert!(characters.len() > 40, "only {} characters were seen", characters.len());
}

/// Reads what Debian's ordinary kernel shows by the driver that takes the screen.
fn check_driver(machine: &Machine) {
    check_console(machine, environment::console_kernel());
}

/// What the kernel said on the serial port, in rows as the screen has them. Before there was a driver for the screen it
/// had 80 columns.
fn on_screen(com1: &str) -> Vec<String> {
    let before_drivers = com1.lines().position(|line| line.contains(AFTER_DRIVERS)).expect(AFTER_DRIVERS);
    let widths = (0..).map(|number| if number < before_drivers { 80 } else { COLUMNS });
    com1.lines().zip(widths).flat_map(|(line, width)| wrapped(line.trim_end_matches('\r'), width)).collect()
}

/// A line as a terminal with so many columns shows it.
fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let characters: Vec<_> = line.chars().collect();
    if characters.is_empty() {
        return vec![String::new()];
    }
    characters.chunks(columns).map(|part| part.iter().collect()).collect()
}

#[test]
fn linux_shows_its_messages_on_the_vga_of_a_default_pc() {
    check_driver(&Machine { default_devices: true, ..Machine::new(Kind::Pc) }.with("-nic none"));
}

#[test]
fn linux_shows_its_messages_on_a_bochs_display() {
    check_driver(&Machine::new(Kind::Q35).with("-device bochs-display"));
}

#[test]
fn linux_shows_its_messages_on_a_framebuffer_in_ram() {
    check_driver(&Machine::new(Kind::Q35).with("-device ramfb"));
}

#[test]
fn linux_shows_its_first_line_before_it_has_any_driver() {
    let machine = Machine {
        memory: "256M",
        kernel: Some(environment::kernel()),
        append: Some("earlycon=efifb earlyprintk=serial,ttyS0,keep keep_bootcon loglevel=6 no_timer_check".to_owned()),
        ..Machine::new(Kind::Q35).with("-vga std")
    };
    let mut qemu = machine.start();
    qemu.wait_for("the kernel's early messages", |qemu| qemu.com1().contains("] Kernel command line: "));
    let start = Instant::now();
    loop {
        // The kernel writes to one and then to the other, so it may have been stopped in between.
        qemu.qmp().run("stop", "{}");
        // It fills the screen from below.
        let shown: Vec<_> =
            cells(&Picture::of(&mut qemu)).into_iter().skip_while(|row| row.iter().all(|&cell| cell == 0)).collect();
        // What has no time was written by code that only knows the serial port.
        let com1 = qemu.com1();
        let lines = com1.lines().map(|line| line.trim_end_matches('\r')).filter(|line| line.starts_with('['));
        let mut text: Vec<_> = lines.flat_map(|line| wrapped(line, COLUMNS)).collect();
        assert!(text[0].starts_with("[    0.000000] Linux version "), "{text:?}");
        let complete = text.len() < shown.len();
        text.resize(shown.len(), String::new());
        match read(&shown, &text).and_then(|read| complete.then_some(read).ok_or_else(|| "rows are missing".to_owned()))
        {
            Ok(characters) => break assert!(characters.len() > 40, "only {} characters were seen", characters.len()),
            Err(error) => assert!(start.elapsed() < SCREEN_LIMIT, "{error}"),
        }
        qemu.qmp().run("cont", "{}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn linux_for_clouds_shows_its_messages() {
    let machine = Machine::new(Kind::Q35).with("-vga std");
    check_console(&machine, environment::kernel());
}

#[test]
fn text_on_the_screen_is_recognised_by_its_pixels() {
    let lines = ["ab a".to_owned(), "b".to_owned()];
    let read = |first: [u128; 5], second: [u128; 2]| read(&[first.to_vec(), second.to_vec()], &lines);
    assert_eq!(read([7, 8, 0, 7, 0], [8, 0]), Ok(BTreeMap::from([(0, ' '), (7, 'a'), (8, 'b')])));
    for (first, second) in [
        ([7, 7, 0, 7, 0], [7, 0]),
        ([7, 8, 0, 8, 0], [8, 0]),
        ([7, 8, 9, 7, 0], [8, 0]),
        ([7, 8, 0, 7, 9], [8, 0]),
        ([0, 0, 0, 0, 0], [0, 0]),
        ([7, 8, 0, 7, 0], [9, 0]),
    ] {
        assert!(read(first, second).is_err(), "{first:?} {second:?}");
    }
}
