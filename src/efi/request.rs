//! Whether the host wants EFI: the fw_cfg file `opt/org.firstlight/efi`.
//!
//! Left out: what then happens. A kernel file that can only be entered by EFI is another reason for it, and no matter of this file.

use crate::fw_cfg::FwCfg;
use crate::hal::HostAccess;

/// The file with the request.
const FILE: &str = "opt/org.firstlight/efi";
/// The length of the longest request, and a line end or NUL after it.
const TEXT_MAX: usize = 8;

/// What the host wants of EFI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Request {
    /// `off`, and without the file: nothing. A kernel finds no EFI.
    #[default]
    Off,
    /// `tables`: a Linux kernel is entered directly, and finds a system table with runtime services.
    Tables,
    /// `on`: the kernel is entered as an EFI application, with boot services.
    On,
}

/// The requests by their names.
const NAMES: [(&[u8], Request); 3] = [(b"off", Request::Off), (b"tables", Request::Tables), (b"on", Request::On)];

impl Request {
    /// The request of the host: up to a NUL, space or line end of the file. A warning says that it is none, and then it is off.
    pub fn of_host(machine: &mut impl HostAccess, fw_cfg: &FwCfg) -> Self {
        match fw_cfg.find(FILE) {
            Some(item) => {
                let mut text = [0; TEXT_MAX];
                fw_cfg.read(machine, item, &mut text);
                Self::parse(&text)
            }
            None => Self::Off,
        }
    }

    fn parse(text: &[u8]) -> Self {
        let word = text.split(|byte| byte.is_ascii_whitespace() || *byte == 0).next().unwrap_or_default();
        if let Some((_, request)) = NAMES.into_iter().find(|(name, _)| *name == word) {
            return request;
        }
        crate::warn!(
            "{FILE} begins with \"{}\", which is none of off, tables and on; set it to one of these. Booting without EFI",
            word.escape_ascii()
        );
        Self::Off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_word_with_or_without_a_line_end() {
        for (text, request) in [
            (&b"tables\0\0"[..], Request::Tables),
            (b"tables\n\0", Request::Tables),
            (b"on\0\0\0\0\0\0", Request::On),
            (b"on\n\0\0\0\0\0", Request::On),
            (b"off\r\n\0\0\0", Request::Off),
        ] {
            assert_eq!(Request::parse(text), request, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_request_is_off() {
        for text in
            [&b""[..], b"\0\0\0\0\0\0\0\0", b"tablesss", b"ON\0\0\0\0\0\0", b"onn\0\0\0\0\0", b"1\0\0\0\0\0\0\0"]
        {
            assert_eq!(Request::parse(text), Request::Off, "{text:?}");
        }
    }
}
