//! The kernel modules the default guest loads: which ones, in which order, and their bytes.
//!
//! Distribution kernels have the drivers that the guest needs as modules. kmod knows which modules one depends on. A package that
//! was only unpacked has no list of dependencies, so the list is made first.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::paths::find_program;
use crate::progress::run_quietly;

/// The drivers of the default guest. One that the kernel has built in, or lacks, is passed over: the guest's report
/// shows what it found.
const WANTED: [&str; 6] = ["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "nvme", "qemu_fw_cfg"];

/// Drivers that few guests need, for scripts to load: persistent memory, the windows of CXL, and a console of virtio.
const FOR_SCRIPTS: [&str; 4] = ["nfit", "nd_pmem", "cxl_acpi", "virtio_console"];

/// A kernel module.
#[derive(Debug)]
pub struct Module {
    /// Its name, with `_` and never `-`.
    pub name: String,
    /// The object file, decompressed.
    pub bytes: Vec<u8>,
}

/// Reads the wanted modules and those they depend on from a folder such as `/lib/modules/6.1.0-56-cloud-amd64`, each
/// after the ones it depends on. A folder that does not exist gives none: its kernel may have everything built in.
pub fn load(folder: &Path) -> anyhow::Result<Vec<Module>> {
    load_named(folder, &WANTED)
}

/// As [`load`], the modules that only some scripts load.
pub fn load_for_scripts(folder: &Path) -> anyhow::Result<Vec<Module>> {
    load_named(folder, &FOR_SCRIPTS)
}

fn load_named(folder: &Path, names: &[&str]) -> anyhow::Result<Vec<Module>> {
    let mut modules = Vec::<Module>::new();
    if !folder.is_dir() {
        return Ok(modules);
    }
    let (release, system) = folder.file_name().zip(folder.ancestors().nth(3)).context("no folder of modules")?;
    let kmod = |program: &str| anyhow::Ok(Command::new(find_program(program).context("kmod is not installed")?));
    if !folder.join("modules.dep").is_file() {
        run_quietly(kmod("depmod")?.arg("--basedir").arg(system).arg(release))?;
    }
    for name in names {
        let mut modprobe = kmod("modprobe")?;
        modprobe.args(["--show-depends", "--dirname"]).arg(system).arg("--set-version").arg(release).arg(name);
        // It fails for a module that the kernel lacks.
        let printed = run_quietly(&mut modprobe).unwrap_or_default();
        // `insmod /lib/modules/6.1.0/kernel/drivers/nvme/host/nvme-core.ko `
        for path in String::from_utf8_lossy(&printed).lines().filter_map(|line| line.strip_prefix("insmod ")) {
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
    // busybox is there anyway, and knows two of the three compressions in use.
    let decompressor: &[&str] = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => &["busybox", "unxz", "-c"],
        Some("gz") => &["busybox", "gunzip", "-c"],
        Some("zst") => &["zstd", "--decompress", "--stdout"],
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    run_quietly(Command::new(decompressor[0]).args(&decompressor[1..]).arg(path))
}
