//! The chipset's own functions match the firmware's description of them, so the firmware need not read them. No guest runs:
//! the module `pci` runs on this host, against QEMU's devices.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use firstlight::fw_cfg::HostKind;
use firstlight::hal::Ports as _;
use firstlight::pci::register::{BAR0, COMMAND, INTERRUPT};
use firstlight::pci::topology::Function;
use firstlight::pci::{ChipsetFunction, ConfigSpace as _, PortConfig, scan};
use firstlight::platform::Board;
use firstlight::platform::pc::Pc;
use firstlight::platform::q35::Q35;

use crate::environment;
use crate::qtest::Qtest;

/// The oldest types that the newer QEMU still has, and today's.
const TYPES: [(&str, &dyn Board); 4] = [("pc", &Pc), ("pc-i440fx-2.4", &Pc), ("q35", &Q35), ("pc-q35-2.4", &Q35)];

/// RESET_CONTROL (ICH9 data sheet, 13.7.5; 82371FB, 2.5.2.1): a reset of all, at the second write.
const RESET_CONTROL: u16 = 0xcf9;
const HARD: u8 = 1 << 1;
const NOW: u8 = 1 << 2;
/// How long a reset may take.
const RESET_LIMIT: Duration = Duration::from_secs(30);

fn start(program: &Path, machine: &str) -> Qtest {
    let arguments = format!("-M {machine} -m 128M");
    Qtest::start(&program.to_string_lossy(), &arguments, 1 << 20..32 << 20)
}

/// The chipset's own functions as a scan finds them.
fn found(host: &mut Qtest, board: &dyn Board, kind: HostKind) -> Vec<Function> {
    let topology = scan(&mut PortConfig::new(host), 0, board.chipset_functions(kind));
    topology.functions().iter().filter(|function| function.in_chipset).cloned().collect()
}

/// What an operating system may leave: the function decodes other addresses, with another interrupt line.
fn leave_running(host: &mut Qtest, own: &ChipsetFunction) {
    let mut config = PortConfig::new(host);
    config.write32(own.address, BAR0 + 4 * 4, 0xc000);
    config.write32(own.address, INTERRUPT, 0xff);
    config.write32(own.address, COMMAND, 0x107);
}

fn reset(host: &mut Qtest, own: &ChipsetFunction) {
    host.out8(RESET_CONTROL, HARD);
    host.out8(RESET_CONTROL, HARD | NOW);
    let deadline = Instant::now() + RESET_LIMIT;
    while PortConfig::new(host).read16(own.address, COMMAND) & 7 != 0 {
        assert!(Instant::now() < deadline, "no reset");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn qemus_chipset_functions_match_their_description_after_a_start_and_after_a_reset() {
    for program in [PathBuf::from("qemu-system-x86_64")].into_iter().chain(environment::newer_qemu()) {
        for (machine, board) in TYPES {
            let own = board.chipset_functions(HostKind::Qemu).functions;
            let asked = found(&mut start(&program, machine), board, HostKind::Other);
            assert_eq!(asked.len(), own.len(), "{machine}");
            let mut host = start(&program, machine);
            assert_eq!(found(&mut host, board, HostKind::Qemu), asked, "{machine}");
            own.iter().for_each(|own| leave_running(&mut host, own));
            assert_ne!(found(&mut host, board, HostKind::Other), asked, "{machine}: what was left is seen");
            own.iter().for_each(|own| leave_running(&mut host, own));
            reset(&mut host, own.last().expect("a function"));
            assert_eq!(found(&mut host, board, HostKind::Other), asked, "{machine}, after a reset");
        }
    }
}
