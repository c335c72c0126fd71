//! The `log` facade on two consoles: COM1 and the debug console.
//!
//! Errors and warnings are always printed, and more if the host asks for it with `-fw_cfg
//! name=opt/org.firstlight/log,string=LEVEL`. A successful boot prints nothing, and a console is probed only when there
//! is something to print, because every access is an exit to the host.
//!
//! Lines are `firstlight: error: ...`, `firstlight: warning: ...`, `firstlight: info: ...` and so on.

mod debug_console;
mod rate_limited;
mod uart;

use core::fmt::{self, Write};

pub use log::Level;
use log::{LevelFilter, Log, Metadata, Record};
pub use rate_limited::RateLimited;
use spin::Mutex;

use crate::fw_cfg::FwCfg;
use crate::hal::{HostAccess, Ports};

/// Logs a warning.
#[macro_export]
macro_rules! warn {
    ($($message:tt)+) => { $crate::logging::log($crate::logging::Level::Warn, format_args!($($message)+)) };
}

/// Logs what a user may want to know.
#[macro_export]
macro_rules! info {
    ($($message:tt)+) => { $crate::log_at!(Info, $($message)+) };
}

/// Logs what the firmware does.
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => { $crate::log_at!(Debug, $($message)+) };
}

/// Logs at a level that is off by default: then nothing is formatted.
#[doc(hidden)]
#[macro_export]
macro_rules! log_at {
    ($level:ident, $($message:tt)+) => {
        if $crate::logging::is_on($crate::logging::Level::$level) {
            $crate::logging::log($crate::logging::Level::$level, format_args!($($message)+));
        }
    };
}

/// Whether lines of this level are printed.
#[must_use]
pub fn is_on(level: Level) -> bool {
    level <= log::max_level()
}

/// Gives the logger a line. The macros of the crate `log` do that at each call, which takes 400 bytes of code where it is compiled
/// for speed.
#[cold]
#[inline(never)]
pub fn log(level: Level, message: fmt::Arguments<'_>) {
    if is_on(level) {
        log::logger().log(&Record::builder().level(level).args(message).build());
    }
}

/// The consoles, probed when the first line is printed.
pub struct Consoles<P> {
    ports: P,
    present: Option<Present>,
}

/// The consoles that are present.
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

    /// Prints a [`Line`] on every console that is present.
    pub fn print(&mut self, level: Level, message: &dyn fmt::Display) {
        // `write_str` below does not fail.
        let _ = writeln!(self, "{}", Line { level, message });
    }

    /// Sends `text` to the consoles that are present, to COM1 by `print`.
    fn send(&mut self, text: &str, print: impl Fn(&mut P, &str)) {
        let present = self.present();
        if present.com1 {
            print(&mut self.ports, text);
        }
        if present.debug_console {
            debug_console::print(&mut self.ports, text);
        }
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

/// A message as printed, without the end of the line: `firstlight: LEVEL: MESSAGE`.
pub struct Line<'m> {
    /// The severity.
    pub level: Level,
    /// The text.
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
        self.send(text, uart::print);
        Ok(())
    }
}

/// The consoles for text that has its own carriage returns, as that of EFI programs.
pub struct Terminal<P>(Consoles<P>);

impl<P: Ports> Terminal<P> {
    /// A terminal behind `ports`, not probed yet.
    #[must_use]
    pub const fn new(ports: P) -> Self {
        Self(Consoles::new(ports))
    }

    /// Whether bytes can come: whether there is a COM1.
    pub fn can_receive(&mut self) -> bool {
        self.0.present().com1
    }

    /// The next byte that came on COM1, if there is one.
    pub fn receive(&mut self) -> Option<u8> {
        if self.can_receive() { uart::receive(&mut self.0.ports) } else { None }
    }
}

impl<P: Ports> Write for Terminal<P> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.send(text, uart::print_raw);
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

/// The version with its commit, and the target. Zeros are around it, so that `strings` finds it without the text beside it.
static NAME: &str =
    concat!("\0Firstlight ", env!("FIRSTLIGHT_VERSION"), ", built for ", env!("FIRSTLIGHT_TARGET"), "\0");

/// The file with the log level.
const LEVEL: &str = "opt/org.firstlight/log";
/// The valid levels.
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

/// Sets the log level to that of `opt/org.firstlight/log`, or to warnings and errors if there is no such file. The
/// first line logged is the version with its commit, and the target that the firmware was built for.
pub fn configure(host: &mut impl HostAccess, fw_cfg: &FwCfg) {
    let Some(option) = fw_cfg.read_file::<LEVEL_MAX>(host, LEVEL) else { return };
    set_level(&option);
    crate::info!("{}", NAME.trim_matches('\0'));
}

/// Sets the level that the option names, up to a NUL, space or line end.
fn set_level(option: &[u8]) {
    let word = option.split(|byte| byte.is_ascii_whitespace() || *byte == 0).next().unwrap_or_default();
    match LEVELS.into_iter().find(|(name, _)| *name == word) {
        Some((_, level)) => log::set_max_level(level),
        None => crate::warn!("{LEVEL} is none of off, error, warn, info, debug and trace; logging warnings"),
    }
}

impl<P: Ports + Send> Log for Logger<P> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_on(metadata.level())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // The lock is free: one CPU runs, and printing does not log.
        if let Some(mut consoles) = self.consoles.try_lock() {
            consoles.print(record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests;
