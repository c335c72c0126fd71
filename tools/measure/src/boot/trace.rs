//! Parses the output of QEMU's option `-trace`: the few events that the measurements need.
//!
//! The formats are those of QEMU's `trace-events` files, with or without the prefix of `-msg timestamp=on`. Other lines,
//! including QEMU's own messages, are ignored.

use std::time::Duration;

use super::probe::{CLOCK_PORT, End};

/// The event when the guest starts or stops.
pub const STATE: &str = "vm_state_notify";
/// The event when a fw_cfg item is selected.
pub const SELECT: &str = "fw_cfg_select";
/// The events of accesses to devices.
pub const ACCESSES: &str = "memory_region_ops_*";
/// The event of a write to a device.
pub const WRITES: &str = "memory_region_ops_write";
/// The event of a write to a register in PCI configuration space.
pub const CONFIG_WRITE: &str = "pci_cfg_write";
/// The event when QEMU makes a new view of an address space, because the guest's memory topology has changed.
pub const NEW_VIEW: &str = "flatview_new";
/// The event of an exit from KVM to QEMU.
pub const EXIT: &str = "kvm_run_exit";

/// The keys of the items that hold the kernel, the initrd and the command line (QEMU,
/// `include/standard-headers/linux/qemu_fw_cfg.h`). Firmware may read their sizes and the kernel's setup code long before.
const LOADED_KEYS: [u16; 3] = [0x11, 0x12, 0x15];

/// Whether the item of this key is loaded for the kernel.
pub fn is_loaded_key(key: u16) -> bool {
    LOADED_KEYS.contains(&key)
}

/// One line of a trace.
#[derive(Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The host's time since 1970. `None` without `-msg timestamp=on`.
    pub time: Option<Duration>,
    /// What happened.
    pub event: Event<'a>,
}

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    Running,
    Select(u16),
    /// A CPU reads from a device, or writes to one.
    Access(Access<'a>),
    /// A register in PCI configuration space is written. The text has the device, the register and the value.
    ConfigWrite(&'a str),
    /// QEMU makes a new view of an address space.
    NewView,
    Exit,
}

/// A CPU's access to a device.
#[derive(Debug, PartialEq, Eq)]
pub struct Access<'a> {
    pub write: bool,
    /// The port or the physical address. The line does not say which.
    pub address: u64,
    /// The value that is read or written, in the device's byte order.
    pub value: u64,
    /// The name of QEMU's memory region.
    pub region: &'a str,
}

impl Access<'_> {
    /// Whether it is an access to PCI configuration space, whether there is a device or not.
    pub fn is_config(&self) -> bool {
        // QEMU, `hw/pci-host/{i440fx,q35}.c` and `hw/pci/pcie_host.c`.
        ["pci-conf-data", "pcie-mmcfg-mmio", "pcie-mmcfg"].contains(&self.region)
    }

    /// Whether it selects a register in configuration space for the next access to the data port, 0xcfc.
    pub fn is_config_address(&self) -> bool {
        // QEMU, `hw/pci/pci_host.c`.
        self.write && self.region == "pci-conf-idx"
    }

    /// Whether it starts a transfer of fw_cfg: the low half of the descriptor's address (QEMU, `docs/specs/fw_cfg.rst`).
    pub fn is_doorbell(&self) -> bool {
        self.write && self.region == "fwcfg.dma" && self.address == 0x518
    }

    /// Half of the time stamp counter, if this is a probe's write to the clock port.
    pub fn clock(&self) -> Option<u64> {
        (self.write && self.address == u64::from(CLOCK_PORT)).then_some(self.value)
    }
}

/// Parses one line. Returns `None` for a line that does not count.
pub fn parse(line: &str) -> Option<Line<'_>> {
    let line = line.trim_end();
    let (prefix, rest) = match line.split_once(':') {
        Some((prefix, rest)) if prefix.contains('@') && !prefix.contains(' ') => (Some(prefix), rest),
        _ => (None, line),
    };
    let (name, text) = rest.split_once(' ')?;
    let time = prefix.and_then(|prefix| timestamp(prefix.split_once('@')?.1));
    let event = match name {
        STATE => text.starts_with("running 1").then_some(Event::Running),
        SELECT => after(text, "key ").and_then(number).and_then(|key| u16::try_from(key).ok()).map(Event::Select),
        "memory_region_ops_read" => access(text, false).map(Event::Access),
        WRITES => access(text, true).map(Event::Access),
        CONFIG_WRITE => Some(Event::ConfigWrite(text)),
        NEW_VIEW => Some(Event::NewView),
        EXIT => Some(Event::Exit),
        _ => None,
    }?;
    Some(Line { time, event })
}

/// The end that is marked by the selection of an item.
pub fn end(event: &Event<'_>) -> Option<End> {
    match event {
        Event::Select(key) => End::of_marker(*key),
        _ => None,
    }
}

/// "1795338802.450471": seconds, and six digits of microseconds.
fn timestamp(text: &str) -> Option<Duration> {
    let (seconds, micros) = text.split_once('.')?;
    if micros.len() != 6 {
        return None;
    }
    Some(Duration::from_secs(seconds.parse().ok()?) + Duration::from_micros(micros.parse().ok()?))
}

/// "cpu 0 mr 0x56253ab863f0 addr 0x510 value 0x19 size 2 name 'fwcfg'". An access of QEMU itself has "cpu -1".
fn access(text: &str, write: bool) -> Option<Access<'_>> {
    after(text, "cpu ")?.split(' ').next()?.parse::<u32>().ok()?;
    let region = after(text, "name '")?.strip_suffix('\'')?;
    let address = number(after(text, "addr ")?)?;
    let value = number(after(text, "value ")?)?;
    Some(Access { write, address, value, region })
}

/// The text behind `word`.
fn after<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    Some(text.split_once(word)?.1)
}

/// The hexadecimal number at the start of `text`.
fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    u64::from_str_radix(&digits[..end], 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_of_qemu_itself_and_other_lines_are_ignored() {
        for text in [
            "memory_region_ops_write cpu -1 mr 0x55b50edd99e0 addr 0xfee00000 value 0x0 size 4 name 'apic-msi'",
            "vm_state_notify running 0 reason 4 (paused)",
            "qemu-system-x86_64: warning: nothing",
            "fw_cfg_select 0x1 key nonsense",
            "fw_cfg_select",
            "",
            "@:",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
