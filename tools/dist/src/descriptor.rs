//! The descriptor by which libvirt and other tools find the image (QEMU's `docs/interop/firmware.json`).
//!
//! Its name's number is above those of other firmware, which is then taken first. Nothing here writes it: it is
//! `packaging/90-firstlight.json`, and tests check it.

/// The descriptor's name, in the repository, in a release and in a folder of descriptors.
pub const NAME: &str = "90-firstlight.json";
/// The folder of descriptors that come with packages.
pub const FOLDER: &str = "usr/share/qemu/firmware";
/// The place of the image, which the descriptor names.
pub const IMAGE: &str = "usr/share/firstlight/firstlight.bin";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use serde::Deserialize;
    use tempfile::TempDir;
    use xtask::packages;
    use xtask::paths::{self, find_program};
    use xtask::progress::run_quietly;

    use super::*;

    /// The root of the schema, with all its fields: others are errors.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Firmware {
        description: String,
        interface_types: Vec<Interface>,
        mapping: Mapping,
        targets: Vec<Target>,
        features: Vec<Feature>,
        tags: Vec<String>,
    }

    #[derive(Deserialize, PartialEq, Debug)]
    #[serde(rename_all = "lowercase")]
    enum Interface {
        Bios,
        Openfirmware,
        Uboot,
        Uefi,
    }

    /// Of the devices `flash`, `kernel` and `memory`, the one for `-bios`.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, tag = "device", rename_all = "lowercase")]
    enum Mapping {
        Memory { filename: String },
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Target {
        architecture: String,
        machines: Vec<String>,
    }

    /// The features of QEMU 7.2, since which the image is supported.
    #[derive(Deserialize, PartialEq, Debug)]
    #[serde(rename_all = "kebab-case")]
    enum Feature {
        AcpiS3,
        AcpiS4,
        AmdSev,
        AmdSevEs,
        EnrolledKeys,
        RequiresSmm,
        SecureBoot,
        VerboseDynamic,
        VerboseStatic,
    }

    #[test]
    fn the_descriptor_follows_qemus_schema_and_says_what_the_firmware_does() {
        let firmware: Firmware = serde_json::from_str(&descriptor()).unwrap();
        let Mapping::Memory { filename } = firmware.mapping;
        assert_eq!(filename, format!("/{IMAGE}"));
        assert!(firmware.description.starts_with("Firstlight"));
        // Without BIOS services; with boot services, for disks and programs.
        assert_eq!(firmware.interface_types, [Interface::Uefi]);
        // Suspend to RAM; no log without being asked for it.
        assert_eq!(firmware.features, [Feature::AcpiS3]);
        let [target] = firmware.targets.as_slice() else { panic!("one architecture") };
        assert_eq!(target.architecture, "x86_64");
        // Patterns of concrete machine types, not their aliases "pc" and "q35".
        assert_eq!(target.machines, ["microvm", "pc-i440fx-*", "pc-q35-*"]);
        assert!(firmware.tags.is_empty());
    }

    fn descriptor() -> String {
        fs::read_to_string(paths::root().join("packaging").join(NAME)).unwrap()
    }

    /// A user's folder of descriptors, with everything that libvirt needs to run without a daemon. As root, libvirt does not look
    /// into such a folder, so it runs as the user nobody.
    struct Libvirt(TempDir);

    impl Libvirt {
        fn new() -> Self {
            let folder = TempDir::new().unwrap();
            let descriptors = folder.path().join("qemu/firmware");
            fs::create_dir_all(&descriptors).unwrap();
            // An empty file hides a descriptor of the machine.
            for name in crate::files::names(&Path::new("/").join(FOLDER)).unwrap_or_default() {
                fs::write(descriptors.join(name), "").unwrap();
            }
            Self(folder)
        }

        /// Adds the descriptor by this name, for an image in this file.
        fn add(&self, name: &str, image: &str) {
            let image = self.0.path().join(image);
            fs::write(&image, "").unwrap();
            let text = descriptor().replace(&format!("/{IMAGE}"), &image.display().to_string());
            fs::write(self.0.path().join("qemu/firmware").join(name), text).unwrap();
        }

        /// The name of the image that a domain gets that asks for EFI and names no file.
        fn image(&self, machine: &str) -> String {
            let folder = self.0.path();
            let domain = folder.join("domain.xml");
            let text = format!(
                "<domain type='qemu'><name>test</name><memory unit='MiB'>128</memory><os firmware='efi'>\
                 <type arch='x86_64' machine='{machine}'>hvm</type></os><features><acpi/></features></domain>"
            );
            fs::write(&domain, text).unwrap();
            let mut virsh = Command::new("setpriv");
            if packages::is_root() {
                virsh.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
                run_quietly(Command::new("chmod").args(["-R", "a+rwX"]).arg(folder)).unwrap();
            }
            virsh.args(["virsh", "--quiet", "--connect"]).arg(format!("qemu:///embed?root={}/root", folder.display()));
            virsh.args(["domxml-to-native", "qemu-argv"]).arg(&domain);
            for variable in ["HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"] {
                virsh.env(variable, folder);
            }
            let line = run_quietly(&mut virsh).unwrap();
            let (_, image) = line.split_once(" -bios ").unwrap_or_else(|| panic!("no -bios in {line}"));
            let image = image.split(' ').next().unwrap_or_default();
            Path::new(image).file_name().unwrap().to_string_lossy().into_owned()
        }
    }

    #[test]
    fn libvirt_takes_the_image_by_itself_if_no_other_descriptor_comes_first() {
        if find_program("virsh").is_none() || find_program(packages::QEMU_PROGRAM).is_none() {
            println!("skipped: virsh or QEMU is not installed (apt-get install libvirt-clients libvirt-daemon)");
            return;
        }
        let libvirt = Libvirt::new();
        libvirt.add(NAME, "own.bin");
        for machine in ["q35", "pc"] {
            assert_eq!(libvirt.image(machine), "own.bin", "{machine}");
        }
        // Debian's and QEMU's own descriptors have numbers up to 60.
        libvirt.add("60-other.json", "other.bin");
        assert_eq!(libvirt.image("q35"), "other.bin");
        libvirt.add("10-firstlight.json", "own.bin");
        assert_eq!(libvirt.image("q35"), "own.bin");
    }
}
