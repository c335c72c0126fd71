//! Captures configuration space of QEMU's machines through its test protocol, without firmware. Writes `data/pci/`.
//!
//! A file has the functions in the order in which they are found; those behind a bridge follow it. Each function has: its bus (0
//! for bus 0, else the number of the bridge, from 1 on), its device and function number, 256 bytes of configuration space as
//! after a reset, and the values that the six BARs and the expansion ROM read back after a write of all ones, little-endian.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::{fs, iter};

/// The machines: a name, and QEMU's arguments.
const MACHINES: [(&str, &str); 2] = [
    (
        "q35",
        "-M q35 -vga std -device pcie-root-port,id=a,chassis=1,slot=1 -device virtio-net-pci,bus=a \
         -device x3130-upstream,id=b,bus=pcie.0,addr=5 -device pcie-pci-bridge,id=c -device nvme,serial=1,bus=pcie.0 \
         -device e1000,bus=c,addr=1 -device virtio-blk-pci,drive=d -drive if=none,id=d,file=null-co://,format=raw \
         -device qemu-xhci -device ivshmem-plain,memdev=m -object memory-backend-ram,id=m,size=4M",
    ),
    (
        "pc",
        "-M pc -vga cirrus -device pci-bridge,id=a,chassis_nr=1,addr=7 -device virtio-net-pci,bus=a,addr=1 \
         -device virtio-rng-pci,bus=a,addr=2 -device rtl8139 -device piix3-usb-uhci -device lsi53c895a -device intel-hda",
    ),
];

/// A machine that waits for commands.
struct Machine {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Machine {
    fn start(arguments: &str) -> io::Result<Self> {
        let mut child = Command::new("qemu-system-x86_64")
            .args(arguments.split_whitespace())
            .args(["-nodefaults", "-display", "none", "-S", "-qtest", "stdio"])
            .args(["-qtest-log", "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("no pipe to QEMU");
        let orders = child.stdin.take().ok_or_else(missing)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        Ok(Self { child, orders, answers })
    }

    fn order(&mut self, order: &str) -> io::Result<u32> {
        writeln!(self.orders, "{order}")?;
        let mut answer = String::new();
        if self.answers.read_line(&mut answer)? == 0 || !answer.starts_with("OK") {
            return Err(io::Error::other(format!("{order}: {answer:?}")));
        }
        let value = answer
            .split_whitespace()
            .nth(1)
            .and_then(|value| u32::from_str_radix(value.trim_start_matches("0x"), 16).ok());
        Ok(value.unwrap_or(0))
    }

    fn read(&mut self, bus: u8, place: u8, at: u8) -> io::Result<u32> {
        let address = u32::from_be_bytes([0x80, bus, place, at]);
        self.order(&format!("outl 0xcf8 {address:#x}"))?;
        self.order("inl 0xcfc")
    }

    fn write(&mut self, bus: u8, place: u8, at: u8, value: u32) -> io::Result<()> {
        let address = u32::from_be_bytes([0x80, bus, place, at]);
        self.order(&format!("outl 0xcf8 {address:#x}"))?;
        self.order(&format!("outl 0xcfc {value:#x}")).map(|_| ())
    }

    /// All functions on `bus`, which is behind the bridge of number `behind`, and behind the bridges there.
    fn functions(&mut self, bus: u8, behind: u8, last: &mut u8, found: &mut Vec<Vec<u8>>) -> io::Result<()> {
        let mut bridges = Vec::new();
        for place in 0..=u8::MAX {
            if self.read(bus, place, 0)? == u32::MAX {
                continue;
            }
            let mut bytes = vec![behind, place];
            for at in (0..=0xfc).step_by(4) {
                bytes.extend(self.read(bus, place, at)?.to_le_bytes());
            }
            let is_bridge = bytes[2 + 0x0e] & 0x7f == 1;
            let rom = if is_bridge { 0x38 } else { 0x30 };
            let bars = if is_bridge { 2 } else { 6 };
            for at in (0x10..).step_by(4).take(6).chain(iter::once(rom)) {
                let is_bar = at < 0x10 + 4 * bars || at == rom;
                if is_bar {
                    self.write(bus, place, at, if at == rom { !1 } else { u32::MAX })?;
                }
                let value = if is_bar { self.read(bus, place, at)? } else { 0 };
                bytes.extend(value.to_le_bytes());
            }
            found.push(bytes);
            if is_bridge {
                bridges.push((place, found.len() as u8));
            }
        }
        for (place, number) in bridges {
            *last += 1;
            let secondary = *last;
            self.write(bus, place, 0x18, u32::from_le_bytes([bus, secondary, u8::MAX, 0]))?;
            self.functions(secondary, number, last, found)?;
            self.write(bus, place, 0x18, u32::from_le_bytes([bus, secondary, *last, 0]))?;
        }
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/pci");
    fs::create_dir_all(&folder)?;
    for (name, arguments) in MACHINES {
        let mut machine = Machine::start(arguments)?;
        let mut found = Vec::new();
        let result = machine.functions(0, 0, &mut 0, &mut found);
        machine.child.kill()?;
        machine.child.wait()?;
        result?;
        fs::write(folder.join(name), found.concat())?;
        println!("{name}: {} functions", found.len());
    }
    Ok(())
}
