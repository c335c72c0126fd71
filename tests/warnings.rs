//! If a host causes a warning hundreds of times, the firmware prints a few and the number of the rest. This is a test program
//! that has only this test, because a process has only one logger. `tests/faults` tests the warnings of a boot.

use std::sync::Mutex;

use firstlight::fakes::fw_cfg::FakeFwCfg;
use firstlight::fakes::machine::FakeMachine;
use firstlight::fw_cfg::FwCfg;
use firstlight::host::HostWrite;
use firstlight::resume;
use log::{LevelFilter, Log, Metadata, Record};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Listener;

impl Log for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        LINES.lock().unwrap().push(record.args().to_string());
    }
    fn flush(&self) {}
}

#[test]
fn a_wake_prints_a_few_of_many_warnings_and_the_number_of_the_rest() {
    log::set_logger(&Listener).unwrap();
    log::set_max_level(LevelFilter::Warn);
    let mut machine = FakeMachine::new().with(FakeFwCfg::new(true));
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let write = HostWrite::new(b"etc/gone", 0, &[1; 8]).unwrap();
    for (writes, expected) in [(1, 1), (4, 4), (5, 5), (16, 5)] {
        LINES.lock().unwrap().clear();
        resume::tell_host(&mut machine, &fw_cfg, &vec![write.clone(); writes]);
        let lines = LINES.lock().unwrap();
        assert_eq!(lines.len(), expected, "{lines:#?}");
        assert!(lines[..expected.min(4)].iter().all(|line| line.contains("the address in etc/gone")), "{lines:#?}");
        if let Some(last) = lines.get(4) {
            assert_eq!(*last, format!("resume: {} more addresses could not be written again", writes - 4));
        }
    }
}
