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

    use serde::Deserialize;

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
        let text = fs::read_to_string(xtask::paths::root().join("packaging").join(NAME)).unwrap();
        let firmware: Firmware = serde_json::from_str(&text).unwrap();
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

    #[test]
    fn other_firmware_is_chosen_first() {
        let number: u32 = NAME.split('-').next().unwrap().parse().unwrap();
        // Debian's and QEMU's own descriptors have numbers up to 60.
        assert!((61..100).contains(&number));
    }
}
