//! Tells the library which target it is built for, and hands the linker script to the firmware binary alone.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=linker.ld");
    println!("cargo::rerun-if-changed=order.ld");
    let variable = |name| env::var(name).expect("cargo sets the variables of build scripts");
    println!("cargo::rustc-env=FIRSTLIGHT_TARGET={}", variable("TARGET"));
    if env::var_os("CARGO_FEATURE_FIRMWARE").is_none() {
        return;
    }
    let root = variable("CARGO_MANIFEST_DIR");
    let pass = |argument: &str| println!("cargo::rustc-link-arg-bin=firstlight={argument}");
    // For a target without an operating system the compiler calls the linker itself, else the C compiler, which has it link.
    let is_direct = variable("CARGO_CFG_TARGET_OS") == "none";
    if !is_direct {
        ["-nostdlib", "-nostartfiles", "-no-pie"].into_iter().for_each(pass);
    }
    pass(&format!("-T{root}/linker.ld"));
    // Where linker.ld looks for what it includes.
    pass(&format!("-L{root}"));
    pass("-static");
    for argument in ["--build-id=none", "--no-dynamic-linker", "-znorelro", "-zmax-page-size=4096"] {
        pass(&if is_direct { argument.to_owned() } else { format!("-Wl,{argument}") });
    }
}
