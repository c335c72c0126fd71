//! The target `boot_order` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(init: firstlight_fuzz::listen(), |bytes: &[u8]| firstlight_fuzz::boot_order::run(bytes));
