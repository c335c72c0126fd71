//! What to boot, where to put it, and what the kernel is told: the Linux/x86 boot protocol, PVH, and Multiboot.
//!
//! [`Kernel`] is which kind of kernel the host offers. The rest is decided without touching the machine: for a bzImage
//! [`SetupHeader`] is what it says of itself, [`Payload`] what goes with it, [`LoadPlan`] where everything goes,
//! [`BootParams`] the page it is handed; for an ELF file [`PlacedKernel`], [`PvhPlan`] and [`StartInfo`] are these, for
//! Multiboot [`PlacedKernel`], [`HostInfo`] and [`MultibootInfo`]. [`load()`]
//! applies a plan, and [`Handover`] is how the kernel is entered.
//!
//! The protocol is that of Linux `Documentation/arch/x86/boot.rst`, "boot.rst" below.
//!
//! Assumed: the memory map is complete, with the firmware's own memory and the tables held in it. Left out: kernels
//! for Multiboot 2, kernels from before protocol 2.00, and those that
//! can only start in real mode, which would need a BIOS.

mod boot_params;
mod elf;
mod error;
mod file_kind;
mod handover;
mod kernel;
mod load;
mod low;
mod multiboot;
mod part;
mod payload;
mod placed;
mod placement;
mod pvh;
mod screen_info;
mod setup_data;
mod setup_header;
mod source;

pub use self::boot_params::BootParams;
pub use self::error::Error;
pub use self::file_kind::FileKind;
pub use self::handover::{Clears, Entry, Handover};
pub use self::kernel::Kernel;
pub use self::load::{Loaded, load};
pub use self::low::LowBlock;
pub use self::multiboot::{HostInfo, Module, MultibootInfo};
pub use self::part::Part;
pub use self::payload::{ItemSizes, Payload};
pub use self::placed::PlacedKernel;
pub use self::placement::LoadPlan;
pub use self::pvh::{PvhPlan, StartInfo};
pub use self::screen_info::ScreenInfo;
pub use self::setup_data::Appended;
pub use self::setup_header::{Relocation, SetupHeader};
pub use self::source::Source;
