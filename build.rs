//! Passes the target's name to the library, and the linker script to the firmware binary only.

use std::env;

#[path = "src/image_size.rs"]
mod image_size;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=linker.ld");
    println!("cargo::rerun-if-changed=order.ld");
    println!("cargo::rerun-if-changed=src/image_size.rs");
    let variable = |name| env::var(name).expect("cargo sets the variables of build scripts");
    println!("cargo::rustc-env=FIRSTLIGHT_TARGET={}", variable("TARGET"));
    if env::var_os("CARGO_FEATURE_FIRMWARE").is_none() {
        return;
    }
    let root = variable("CARGO_MANIFEST_DIR");
    let pass = |argument: &str| println!("cargo::rustc-link-arg-bin=firstlight={argument}");
    // For a target without an operating system, rustc calls the linker itself; otherwise it calls the C compiler to link.
    let is_direct = variable("CARGO_CFG_TARGET_OS") == "none";
    if !is_direct {
        ["-nostdlib", "-nostartfiles", "-no-pie"].into_iter().for_each(pass);
    }
    pass(&format!("-T{root}/linker.ld"));
    // The directory of the files that linker.ld includes.
    pass(&format!("-L{root}"));
    pass("-static");
    let size = format!("--defsym=IMAGE_SIZE={}", image_size::IMAGE_SIZE);
    for argument in [&size, "--build-id=none", "--no-dynamic-linker", "-znorelro", "-zmax-page-size=4096"] {
        pass(&if is_direct { argument.to_owned() } else { format!("-Wl,{argument}") });
    }
}
