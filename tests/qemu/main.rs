//! What the image does in QEMU. `cargo xtask test` builds the image and the guest and runs these tests.
//!
//! `handover`, `placement`, `tables`, `chipset`, `interrupts`, `cpus`, `pci`, `pci_room`, `sleep`, `reset` and `left_behind` boot
//! the probe, a kernel of the project's own (the file `tests/kernels/probe.s`), and look at the machine through it; the last one
//! attacks the boot that comes after it. `linux` boots a distribution's kernel to user space, `pvh` the same kernel as an ELF
//! file, `multiboot` kernels for Multiboot, `kernels` bzImages and zImages of every age, and `hot_plug` plugs devices into it.
//! `display` and `named_files` do both; the one looks at the screen, the other has the kernel come as a file of fw_cfg. `tpm`
//! boots with swtpm. `failure` is about what cannot boot, and about the log, `failure_on_display` about how that is shown,
//! `bad_kernels` about files that are broken or no kernels. `efi_tables` boots kernels that find EFI tables, and calls the runtime
//! services; `efi_entry` boots kernels as EFI programs, `efi_unified` unified kernel images, `efi_programs` other files, `efi_shim`
//! has a shim start a kernel, `efi_protocols` calls what these find, and `efi_compared` holds it against OVMF. `newer_qemu` does some
//! of this on a second QEMU. `disks` boots from disk. `fw_cfg`, `virtio`, `nvme`, `ahci` and `controllers` run no guest, but modules of the firmware against
//! QEMU's devices.

mod ahci;
mod bad_kernels;
mod bzimage;
mod child;
mod chipset;
mod controllers;
mod cpus;
mod disks;
mod display;
mod efi_attack;
mod efi_compared;
mod efi_entry;
mod efi_programs;
mod efi_protocols;
mod efi_shim;
mod efi_tables;
mod efi_unified;
mod environment;
mod failure;
mod failure_on_display;
mod fw_cfg;
mod gdb;
mod handover;
mod hosts;
mod hot_plug;
mod interrupts;
mod isapc;
mod isolation;
mod kernels;
mod least_memory;
mod left_behind;
mod linux;
mod linux_sleep;
mod machine;
mod microvm;
mod multiboot;
mod multiprocessor;
mod named_files;
mod newer_qemu;
mod nvme;
mod own_functions;
mod pci;
mod pci_room;
mod placement;
mod probe;
mod pvh;
mod pvh_entry;
mod qmp;
mod qtest;
mod random;
mod raw_disk;
mod reset;
mod script;
mod serial;
mod sleep;
mod smbios;
mod tables;
mod tpm;
mod virtio;
