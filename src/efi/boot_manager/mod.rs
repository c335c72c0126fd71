//! The boot manager (UEFI 3): what is started if the host offers no kernel, and in which order.

pub mod boot_order;
pub mod load_option;
