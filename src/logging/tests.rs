use std::cell::RefCell;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

use super::*;
use crate::fakes::machine::{Access, FakeDevice, FakeMachine, FakeMemory};

/// A UART whose scratch register works and whose transmitter is empty every other time.
struct FakeUart {
    scratch: u32,
    busy: bool,
    line_control: u32,
    sent: Rc<RefCell<Vec<u8>>>,
}

impl FakeDevice for FakeUart {
    fn claims(&self, port: u16) -> bool {
        (0x3f8..0x400).contains(&port)
    }
    fn read(&mut self, port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
        match port {
            0x3ff => self.scratch,
            0x3fd => {
                self.busy = !self.busy;
                if self.busy { 0 } else { 0x20 }
            }
            _ => 0,
        }
    }
    fn write(&mut self, port: u16, _size: u8, value: u32, _memory: &mut FakeMemory) {
        match port {
            0x3ff => self.scratch = value,
            0x3fb => self.line_control = value,
            0x3f8 if self.line_control & 0x80 == 0 => self.sent.borrow_mut().push(value as u8),
            _ => {}
        }
    }
}

struct FakeDebugConsole(Rc<RefCell<Vec<u8>>>);

impl FakeDevice for FakeDebugConsole {
    fn claims(&self, port: u16) -> bool {
        port == 0x402
    }
    fn read(&mut self, _port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
        0xe9
    }
    fn write(&mut self, _port: u16, _size: u8, value: u32, _memory: &mut FakeMemory) {
        self.0.borrow_mut().push(value as u8);
    }
}

fn text(bytes: &Rc<RefCell<Vec<u8>>>) -> String {
    String::from_utf8(bytes.borrow().clone()).unwrap()
}

#[test]
fn a_line_is_printed_on_both_consoles() {
    let (com1, debug) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
    let uart = FakeUart { scratch: 0, busy: false, line_control: 0, sent: com1.clone() };
    let mut consoles = Consoles::new(FakeMachine::new().with(uart).with(FakeDebugConsole(debug.clone())));
    consoles.print(Level::Error, &"no kernel");
    consoles.print(Level::Warn, &"odd");
    assert_eq!(text(&com1), "firstlight: error: no kernel\r\nfirstlight: warning: odd\r\n");
    assert_eq!(text(&debug), "firstlight: error: no kernel\nfirstlight: warning: odd\n");
}

#[test]
fn a_terminal_adds_no_carriage_return() {
    let com1 = Rc::new(RefCell::new(Vec::new()));
    let uart = FakeUart { scratch: 0, busy: false, line_control: 0, sent: com1.clone() };
    let mut terminal = Terminal::new(FakeMachine::new().with(uart));
    assert_eq!(terminal.write_str("EFI stub\r\n\n"), Ok(()));
    assert_eq!(text(&com1), "EFI stub\r\n\n");
}

#[test]
fn an_absent_console_is_not_written_to() {
    for absent in [0, u32::MAX] {
        let mut machine = FakeMachine::new();
        machine.absent = absent;
        let mut consoles = Consoles::new(machine);
        consoles.print(Level::Error, &"no kernel");
        let writes =
            consoles.ports.accesses.iter().filter(|access| matches!(access, Access::Out(port, ..) if *port != 0x3ff));
        assert_eq!(writes.count(), 0);
    }
}

#[test]
fn a_uart_that_never_becomes_ready_does_not_hang_the_firmware() {
    struct Stuck(u32);
    impl FakeDevice for Stuck {
        fn claims(&self, port: u16) -> bool {
            (0x3f8..0x400).contains(&port)
        }
        fn read(&mut self, port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
            if port == 0x3ff { self.0 } else { 0 }
        }
        fn write(&mut self, port: u16, _size: u8, value: u32, _memory: &mut FakeMemory) {
            if port == 0x3ff {
                self.0 = value;
            }
        }
    }
    let mut consoles = Consoles::new(FakeMachine::new().with(Stuck(0)));
    consoles.print(Level::Error, &"x");
    assert!(consoles.ports.accesses.contains(&Access::Out(0x3f8, 1, u32::from(b'x'))));
}
