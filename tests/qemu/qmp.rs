//! QEMU's own control connection (QEMU `docs/interop/qmp-spec.txt`): one JSON object a line.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long QEMU may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// A connection on which commands are taken.
pub struct Qmp {
    lines: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket that QEMU made. One connection at a time is possible.
    pub fn connect(socket: &Path) -> Self {
        let deadline = Instant::now() + ANSWER_LIMIT;
        let stream = loop {
            match UnixStream::connect(socket) {
                // QEMU has made the socket, and does not listen yet.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(10));
                }
                result => break result.expect("QEMU's control socket"),
            }
        };
        stream.set_read_timeout(Some(ANSWER_LIMIT)).expect("a socket with a time limit");
        let mut qmp = Self { lines: BufReader::new(stream) };
        let greeting = qmp.line();
        assert!(greeting.starts_with("{\"QMP\""), "QEMU's greeting is {greeting}");
        qmp.run("qmp_capabilities", "{}");
        qmp
    }

    /// Runs a command, whose arguments are a JSON object, and returns the line with what it returns.
    ///
    /// # Panics
    /// When QEMU refuses it.
    pub fn run(&mut self, command: &str, arguments: &str) -> String {
        let line = format!("{{\"execute\": \"{command}\", \"arguments\": {arguments}}}\n");
        self.lines.get_mut().write_all(line.as_bytes()).expect("QEMU takes a command");
        loop {
            let answer = self.line();
            assert!(!answer.starts_with("{\"error\""), "{command} {arguments}: {answer}");
            // Events come in between.
            if answer.starts_with("{\"return\"") {
                return answer;
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line from QEMU");
        assert!(!line.is_empty(), "QEMU ended");
        line
    }
}
