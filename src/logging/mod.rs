//! The `log` facade on two consoles: COM1 and the debug console.
//!
//! Errors and warnings go out in any case, more when the host asks for it with
//! `-fw_cfg name=opt/org.firstlight/log,string=LEVEL`. A good boot prints nothing, and a console is only probed when
//! there is something to print, because every access is an exit to the host.
//!
//! Lines are `firstlight: error: ...`, `firstlight: warning: ...`, `firstlight: info: ...` and so on.

mod debug_console;
mod few;
mod uart;

use core::fmt::{self, Write};

pub use few::Few;
use log::{Level, LevelFilter, Log, Metadata, Record};
use spin::Mutex;

use crate::fw_cfg::FwCfg;
use crate::hal::{HostAccess, Ports};

/// The consoles, probed when the first line is printed.
pub struct Consoles<P> {
    ports: P,
    present: Option<Present>,
}

/// Which consoles answer.
#[derive(Clone, Copy)]
struct Present {
    com1: bool,
    debug_console: bool,
}

impl<P: Ports> Consoles<P> {
    /// Consoles behind `ports`, not probed yet.
    #[must_use]
    pub const fn new(ports: P) -> Self {
        Self { ports, present: None }
    }

    /// Prints [`Line`] on every console that answers.
    pub fn print(&mut self, level: Level, message: &dyn fmt::Display) {
        // `write_str` below does not fail.
        let _ = writeln!(self, "{}", Line { level, message });
    }

    fn present(&mut self) -> Present {
        if let Some(present) = self.present {
            return present;
        }
        let present =
            Present { com1: uart::start(&mut self.ports), debug_console: debug_console::is_present(&mut self.ports) };
        self.present = Some(present);
        present
    }
}

/// A message as it is printed, without the end of the line: `firstlight: LEVEL: MESSAGE`.
pub struct Line<'m> {
    /// How urgent it is.
    pub level: Level,
    /// What it says.
    pub message: &'m dyn fmt::Display,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        write!(f, "firstlight: {level}: {}", self.message)
    }
}

impl<P: Ports> Write for Consoles<P> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let present = self.present();
        if present.com1 {
            uart::print(&mut self.ports, text);
        }
        if present.debug_console {
            debug_console::print(&mut self.ports, text);
        }
        Ok(())
    }
}

/// A logger that owns its consoles.
pub struct Logger<P> {
    consoles: Mutex<Consoles<P>>,
}

impl<P: Ports + Send> Logger<P> {
    /// A logger on consoles that have not been probed yet.
    #[must_use]
    pub const fn new(ports: P) -> Self {
        Self { consoles: Mutex::new(Consoles::new(ports)) }
    }

    /// Makes this the program's logger, for warnings and errors. A second logger is ignored.
    pub fn install(&'static self) {
        if log::set_logger(self).is_ok() {
            log::set_max_level(LevelFilter::Warn);
        }
    }
}

/// How much is logged, as the host asks for it.
const LEVEL: &str = "opt/org.firstlight/log";
/// What it may say.
const LEVELS: [(&[u8], LevelFilter); 6] = [
    (b"off", LevelFilter::Off),
    (b"error", LevelFilter::Error),
    (b"warn", LevelFilter::Warn),
    (b"info", LevelFilter::Info),
    (b"debug", LevelFilter::Debug),
    (b"trace", LevelFilter::Trace),
];
/// The longest of them, and a line end or NUL after it.
const LEVEL_MAX: usize = 8;

/// Logs as much as the host asks for with `opt/org.firstlight/log`: warnings and errors when it says nothing. The first line
/// is the version and the target that the firmware was built for.
pub fn configure(host: &mut impl HostAccess, fw_cfg: &FwCfg) {
    let Some(item) = fw_cfg.find(LEVEL) else { return };
    let mut option = [0; LEVEL_MAX];
    fw_cfg.read(host, item, &mut option);
    set_level(&option);
    log::info!(concat!("Firstlight ", env!("CARGO_PKG_VERSION"), ", built for ", env!("FIRSTLIGHT_TARGET")));
}

/// Sets the level that the option names, up to a NUL, space or line end.
fn set_level(option: &[u8]) {
    let word = option.split(|byte| byte.is_ascii_whitespace() || *byte == 0).next().unwrap_or_default();
    match LEVELS.into_iter().find(|(name, _)| *name == word) {
        Some((_, level)) => log::set_max_level(level),
        None => log::warn!("{LEVEL} is none of off, error, warn, info, debug and trace; logging warnings"),
    }
}

impl<P: Ports + Send> Log for Logger<P> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // The lock is free: one CPU runs, and what is printed does not log.
        if let Some(mut consoles) = self.consoles.try_lock() {
            consoles.print(record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests;
