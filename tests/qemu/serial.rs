//! A serial console on which a test types.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use tempfile::TempDir;

/// A serial console. The machine has it in place of COM1.
pub struct Serial {
    folder: TempDir,
    /// Connected when the test types for the first time.
    keys: Option<UnixStream>,
}

impl Serial {
    pub fn new() -> Self {
        Self { folder: TempDir::new().expect("a temporary folder"), keys: None }
    }

    /// QEMU's arguments.
    pub fn arguments(&self) -> String {
        let [socket, log] = ["socket", "log"].map(|name| self.folder.path().join(name).display().to_string());
        let console = format!("socket,id=keys,path={socket},server=on,wait=off,logfile={log}");
        format!("-chardev {console} -serial chardev:keys")
    }

    /// What the guest has printed.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// How often the guest has printed a text.
    pub fn count(&self, text: &str) -> usize {
        self.printed().matches(text).count()
    }

    /// Presses keys, as the bytes that a terminal sends. QEMU must be running.
    pub fn press(&mut self, keys: &[u8]) {
        let socket = self.folder.path().join("socket");
        let stream = self.keys.get_or_insert_with(|| {
            let stream = UnixStream::connect(socket).expect("the serial console");
            let mut output = stream.try_clone().expect("a second handle of a socket");
            // QEMU waits if nobody reads.
            thread::spawn(move || io::copy(&mut output, &mut io::sink()));
            stream
        });
        stream.write_all(keys).expect("the serial console");
    }
}
