//! QEMU's debugger interface (the remote serial protocol of GDB's manual, appendix E), as far as tests use it.

use std::cell::OnceCell;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::environment;
use crate::machine::Qemu;

/// How long the machine may take to get to a place.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The socket, in its folder.
const SOCKET: &str = "gdb";

/// A register, with QEMU's number for it (`gdb-xml/i386-64bit.xml`).
#[derive(Clone, Copy, Debug)]
pub enum Register {
    Rcx = 2,
    Rsi = 4,
    Rdi = 5,
    Rsp = 7,
    Rip = 16,
}

/// Where a register is among all of them: the first seventeen have eight bytes, in the order of memory.
fn digits(register: Register) -> Range<usize> {
    let start = register as usize * 16;
    start..start + 16
}

/// A connection to the first CPU.
pub struct Gdb(UnixStream);

impl Gdb {
    /// QEMU's arguments to listen in `folder`.
    pub fn argument(folder: &Path) -> String {
        format!("-gdb unix:{},server=on,wait=off", folder.join(SOCKET).display())
    }

    /// Connects, which stops the machine.
    pub fn connect(folder: &Path, qemu: &mut Qemu) -> Self {
        let path = folder.join(SOCKET);
        // The file is there before QEMU listens.
        let connected = OnceCell::new();
        qemu.wait_for("the debugger's socket", |_| {
            UnixStream::connect(&path).is_ok_and(|stream| connected.set(stream).is_ok())
        });
        let stream = connected.into_inner().expect("QEMU's debugger socket");
        stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("a socket with a time limit");
        Self(stream)
    }

    /// Lets the machine run until it is about to execute what is at one of these addresses.
    pub fn run_to(&mut self, addresses: &[u64]) {
        for address in addresses {
            assert_eq!(self.ask(&format!("Z0,{address:x},1")), "OK");
        }
        let stop = self.ask("c");
        assert!(stop.starts_with('T') || stop.starts_with('S'), "{stop}");
        for address in addresses {
            assert_eq!(self.ask(&format!("z0,{address:x},1")), "OK");
        }
    }

    /// Sets registers of a CPU in 64-bit mode.
    pub fn set(&mut self, registers: &[(Register, u64)]) {
        let mut all = self.ask("g");
        for &(register, value) in registers {
            all.replace_range(digits(register), &format!("{:016x}", value.swap_bytes()));
        }
        assert_eq!(self.ask(&format!("G{all}")), "OK");
    }

    /// Reads a register of a CPU in 64-bit mode.
    pub fn get(&mut self, register: Register) -> u64 {
        let all = self.ask("g");
        u64::from_str_radix(&all[digits(register)], 16).expect("the value of a register").swap_bytes()
    }

    /// Lets the machine run.
    pub fn go(&mut self) {
        self.send("c");
    }

    fn send(&mut self, packet: &str) {
        let sum = packet.bytes().fold(0, u8::wrapping_add);
        self.0.write_all(format!("${packet}#{sum:02x}").as_bytes()).expect("QEMU takes a packet");
    }

    /// Sends a packet. Returns the body of the answer.
    fn ask(&mut self, packet: &str) -> String {
        self.send(packet);
        let mut byte = || {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("an answer of the debugger interface");
            char::from(byte[0])
        };
        while byte() != '$' {}
        let mut body = String::new();
        loop {
            match byte() {
                '#' => break,
                part => body.push(part),
            }
        }
        let _sum = [byte(), byte()];
        self.0.write_all(b"+").expect("QEMU takes an acknowledgement");
        body
    }
}

/// The command in docs/development.md. Inlined functions have no name in the file.
#[test]
fn the_breakpoint_of_the_page_on_development_is_a_function_of_the_image() {
    let page = include_str!("../../docs/development.md");
    let (_, rest) = page.split_once("`hbreak ").expect("the advice");
    let (name, _) = rest.split_once('`').expect("its end");
    let listed = Command::new("nm").arg("--demangle").arg(environment::elf()).output().expect("nm, of binutils");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let is_it = |line: &str| line.split_whitespace().nth(2).is_some_and(|symbol| symbol == name);
    assert!(listed.lines().any(is_it), "there is no {name}");
}
