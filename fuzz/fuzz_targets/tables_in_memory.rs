//! The target `tables_in_memory` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(init: firstlight_fuzz::listen(), |bytes: &[u8]| firstlight_fuzz::tables_in_memory::run(bytes));
