//! The kernel modules the default guest loads: which ones, in which order, and their bytes.
//!
//! Distribution kernels have the drivers that the guest needs as modules. kmod knows which modules one depends on. A package that
//! was only unpacked has no list of dependencies, so the list is made first.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::paths::find_program;
use crate::progress::{run, run_quietly};

/// The drivers of the default guest. A driver that the kernel has built in, or lacks, is left out.
pub const WANTED: [&str; 6] = ["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "nvme", "qemu_fw_cfg"];

/// Drivers for scripts to load, which few guests need: persistent memory, CXL windows, the virtio console, and
/// EFI variables.
pub const FOR_SCRIPTS: [&str; 5] = ["nfit", "nd_pmem", "cxl_acpi", "virtio_console", "efivarfs"];

/// A kernel module.
#[derive(Debug)]
pub struct Module {
    /// Its name, with `_` in place of `-`.
    pub name: String,
    /// The object file, decompressed.
    pub bytes: Vec<u8>,
}

/// Reads modules from a folder such as `/lib/modules/6.1.0-56-cloud-amd64`, each after the modules that it depends on. Returns none
/// if the folder does not exist: the kernel may have everything built in.
pub fn load(folder: &Path, names: &[&str]) -> anyhow::Result<Vec<Module>> {
    let mut modules = Vec::<Module>::new();
    if !folder.is_dir() {
        return Ok(modules);
    }
    let (release, system) =
        folder.file_name().zip(folder.ancestors().nth(3)).context("the path of the modules is too short")?;
    let kmod = |program: &str| anyhow::Ok(Command::new(find_program(program).context("kmod is not installed")?));
    if !folder.join("modules.dep").is_file() {
        run_quietly(kmod("depmod")?.arg("--basedir").arg(system).arg(release))?;
    }
    for name in names {
        let mut modprobe = kmod("modprobe")?;
        modprobe.args(["--show-depends", "--dirname"]).arg(system).arg("--set-version").arg(release).arg(name);
        // modprobe fails for a module that the kernel lacks.
        let printed = run_quietly(&mut modprobe).unwrap_or_default();
        // `insmod /lib/modules/6.1.0/kernel/drivers/nvme/host/nvme-core.ko `
        for path in printed.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let path = Path::new(path.trim());
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let name = file.split('.').next().unwrap_or(&file).replace('-', "_");
            if modules.iter().all(|module| module.name != name) {
                modules.push(Module { name, bytes: read(path)? });
            }
        }
    }
    Ok(modules)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    // busybox is installed for the guest, and knows two of the three formats.
    let decompressor: &[&str] = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => &["busybox", "unxz", "-c"],
        Some("gz") => &["busybox", "gunzip", "-c"],
        Some("zst") => &["zstd", "--decompress", "--stdout"],
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    run(Command::new(decompressor[0]).args(&decompressor[1..]).arg(path))
}
