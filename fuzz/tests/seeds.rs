//! Each target, with its seeds and a fixed number of inputs that are made of them: no fuzzer, the same on every run.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, panic};

use firstlight_fuzz::mutate::{Sequence, mutated};
use firstlight_fuzz::{TARGETS, Target, listen};

fn run(target: &Target) {
    listen();
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty());
    let mut sequence = Sequence::new(0x5eed);
    let changed = std::iter::repeat_with(|| mutated(&seeds, &mut sequence)).take(target.tested as usize);
    for (number, bytes) in seeds.iter().cloned().chain(changed).enumerate() {
        if panic::catch_unwind(|| (target.run)(&bytes)).is_err() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{number}", target.name));
            fs::write(&path, &bytes).unwrap();
            panic!("input {number} of {} found something; it is in {}", target.name, path.display());
        }
    }
}

fn named(name: &str) {
    run(TARGETS.iter().find(|target| target.name == name).unwrap());
}

macro_rules! tests {
    ($($name:ident)*) => {
        $(#[test] fn $name() { named(stringify!($name)); })*

        #[test]
        fn every_target_has_a_test_and_a_program() {
            let tests = BTreeSet::from([$(stringify!($name)),*]);
            assert_eq!(tests, TARGETS.iter().map(|target| target.name).collect());
            let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
            let programs: BTreeSet<_> =
                fs::read_dir(programs).unwrap().map(|entry| entry.unwrap().path()).collect();
            let programs: BTreeSet<_> =
                programs.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
            assert_eq!(programs, tests);
        }
    };
}

tests! {
    ahci boot boot_order bzimage cmos console device_path directory e820 fat file_system load_option multiboot nvme
    partition pci pe pvh resume services smbios start_info table_loader tables_in_memory tcg2 tpm variables virtio
}
