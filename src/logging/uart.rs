//! COM1, a 16550-compatible UART at 115,200 baud, 8 data bits, no parity, 1 stop bit, polled.
//!
//! Source of the registers: the PC16550D data sheet, section 8.

use crate::hal::Ports;

const COM1: u16 = 0x3f8;
const TRANSMIT: u16 = COM1;
const RECEIVE: u16 = COM1;
const DIVISOR_LOW: u16 = COM1;
const DIVISOR_HIGH: u16 = COM1 + 1;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
const LINE_CONTROL: u16 = COM1 + 3;
const LINE_STATUS: u16 = COM1 + 5;
const SCRATCH: u16 = COM1 + 7;

const LINE_CONTROL_8N1: u8 = 0x03;
const LINE_CONTROL_DIVISOR: u8 = 0x80;
const LINE_STATUS_TRANSMIT_EMPTY: u8 = 0x20;
const LINE_STATUS_DATA_READY: u8 = 0x01;

/// The clock of 1.8432 MHz divided by 16 and by the baud rate.
const DIVISOR_115200: u8 = 1;

/// How often the line status is read before a byte is sent regardless. At 115,200 baud a byte takes 87 us, and a port
/// access takes at least 10 ns.
const POLLS: u32 = 10_000;

/// Sets the UART up. Returns whether it is present: then the scratch register keeps what is written.
pub fn start(ports: &mut impl Ports) -> bool {
    for pattern in [0x5a, 0xa5] {
        ports.out8(SCRATCH, pattern);
        if ports.in8(SCRATCH) != pattern {
            return false;
        }
    }
    ports.out8(INTERRUPT_ENABLE, 0);
    ports.out8(LINE_CONTROL, LINE_CONTROL_DIVISOR | LINE_CONTROL_8N1);
    ports.out8(DIVISOR_LOW, DIVISOR_115200);
    ports.out8(DIVISOR_HIGH, 0);
    ports.out8(LINE_CONTROL, LINE_CONTROL_8N1);
    true
}

/// Sends `text`, with a carriage return before every line feed.
pub fn print(ports: &mut impl Ports, text: &str) {
    for byte in text.bytes() {
        if byte == b'\n' {
            send(ports, b'\r');
        }
        send(ports, byte);
    }
}

/// Sends `text` as it is.
pub fn print_raw(ports: &mut impl Ports, text: &str) {
    for byte in text.bytes() {
        send(ports, byte);
    }
}

/// The next byte that was received, if there is one.
pub fn receive(ports: &mut impl Ports) -> Option<u8> {
    (ports.in8(LINE_STATUS) & LINE_STATUS_DATA_READY != 0).then(|| ports.in8(RECEIVE))
}

fn send(ports: &mut impl Ports, byte: u8) {
    for _ in 0..POLLS {
        if ports.in8(LINE_STATUS) & LINE_STATUS_TRANSMIT_EMPTY != 0 {
            break;
        }
    }
    ports.out8(TRANSMIT, byte);
}
