//! Hands the linker script to the firmware binary, and to it alone.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=linker.ld");
    println!("cargo::rerun-if-changed=order.ld");
    if env::var_os("CARGO_FEATURE_FIRMWARE").is_none() {
        return;
    }
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    for argument in [
        &format!("-T{root}/linker.ld"),
        // Where linker.ld looks for what it includes.
        &format!("-L{root}"),
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,--no-dynamic-linker",
        "-Wl,-z,norelro",
        "-Wl,-z,max-page-size=4096",
    ] {
        println!("cargo::rustc-link-arg-bin=firstlight={argument}");
    }
}
