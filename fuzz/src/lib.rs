//! Fuzz targets: one for each of Firstlight's parsers and planners, and one for the whole boot.
//!
//! A target is a function of bytes that panics if it finds something: a panic of the code under test, or a violation of the
//! properties that the target checks; each lists its own. Two programs run them: libFuzzer (`fuzz_targets/`, started by `cargo
//! xtask fuzz`), and a test on the stable toolchain that mutates the seeds by a fixed rule (`tests/seeds.rs`).
//!
//! Seeds are made from captures of real machines (`tests/data`), and are not committed anywhere else.

pub mod ahci;
pub mod boot;
pub mod boot_order;
pub mod bzimage;
mod check;
pub mod cmos;
pub mod console;
mod device;
pub mod device_path;
pub mod directory;
pub mod e820;
pub mod fat;
pub mod file_system;
pub mod input;
pub mod load_option;
pub mod multiboot;
pub mod mutate;
pub mod nvme;
pub mod partition;
pub mod pci;
pub mod pe;
pub mod pvh;
pub mod resume;
pub mod services;
pub mod smbios;
pub mod start_info;
pub mod table_loader;
pub mod tables_in_memory;
pub mod tcg2;
pub mod tpm;
pub mod variables;
pub mod virtio;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Once;

use firstlight::fakes::golden;
use log::{LevelFilter, Log, Metadata, Record};

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its module, and of its program for libFuzzer.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Its seeds.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs the test runs.
    pub tested: u32,
}

macro_rules! targets {
    ($($name:ident: $tested:literal,)*) => {
        &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds, tested: $tested },)*]
    };
}

/// All of them.
pub const TARGETS: &[Target] = targets! {
    ahci: 10_000,
    boot: 3_000,
    boot_order: 20_000,
    bzimage: 20_000,
    cmos: 20_000,
    console: 20_000,
    device_path: 20_000,
    directory: 20_000,
    e820: 20_000,
    fat: 5_000,
    file_system: 20_000,
    load_option: 20_000,
    multiboot: 20_000,
    nvme: 10_000,
    partition: 10_000,
    pci: 4_000,
    pe: 20_000,
    pvh: 20_000,
    resume: 20_000,
    services: 10_000,
    smbios: 20_000,
    start_info: 20_000,
    table_loader: 20_000,
    tables_in_memory: 20_000,
    tcg2: 5_000,
    tpm: 20_000,
    variables: 10_000,
    virtio: 10_000,
};

/// The machines of `tests/data`.
const MACHINES: [&str; 8] =
    ["microvm", "pc", "pc-128m", "q35", "q35-6g", "q35-host-bios", "q35-smbios3", "q35-vmgenid"];

/// The captured items of each, by name.
fn machines() -> Vec<BTreeMap<String, Vec<u8>>> {
    MACHINES.into_iter().map(golden::items).collect()
}

/// Panics unless `text` is one line, as every line of the firmware must be.
fn one_line(text: &str) {
    // Without a branch for each byte, which the fuzzer would track.
    let controls = text.bytes().fold(0, |seen, byte| seen | u8::from(byte < 0x20) | u8::from(byte == 0x7f));
    assert!(!text.is_empty() && controls == 0, "not one line: {text:?}");
}

/// Formats and checks everything that is logged.
pub fn listen() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| log::set_logger(&Listener).expect("the only logger"));
    log::set_max_level(LevelFilter::Trace);
}

/// Formats and checks log records.
struct Listener;

impl Log for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }
    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut text = String::new();
            write!(text, "{}", record.args()).expect("a string takes all");
            one_line(&text);
        }
    }
    fn flush(&self) {}
}
