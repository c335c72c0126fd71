//! The target `ahci` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(init: firstlight_fuzz::listen(), |bytes: &[u8]| firstlight_fuzz::ahci::run(bytes));
