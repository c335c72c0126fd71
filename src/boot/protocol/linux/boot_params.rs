//! The page that describes the machine to the kernel: `struct boot_params`, the "zero page".
//!
//! Offsets are those of Linux `Documentation/arch/x86/zero-page.rst` and `arch/x86/include/uapi/asm/bootparam.h`.
//!
//! Left zero: the EDD and APM data that a BIOS would provide. The kernel does not need them.

use alloc::boxed::Box;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::low::COMMAND_LINE_OFFSET;
use super::plan::LoadPlan;
use super::raw_header::{HEADER_ROOM_END, HEADER_START, LOADED_HIGH, QUIET_FLAG, RawHeader, high_half, low_half};
use super::screen_info::ScreenInfo;
use super::setup_header::SetupHeader;
use crate::addr::PhysAddr;
use crate::boot::error::Error;
use crate::efi::information::Information;
use crate::layout;
use crate::memory_map::{E820Entry, MemoryMap};

/// `type_of_loader` as the host writes it: QEMU, any version (boot.rst, `type_of_loader`). Firstlight has no number of
/// its own, and acts in place of QEMU's loader.
const LOADER_QEMU: u8 = 0xb0;

/// How many e820 entries the page has room for (`E820_MAX_ENTRIES_ZEROPAGE`). Further entries go into `setup_data`.
pub const E820_ENTRIES: usize = 128;

/// `struct efi_info`. Zero without EFI.
#[derive(Clone, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct EfiInfo {
    loader_signature: [u8; 4],
    systab: U32,
    memdesc_size: U32,
    memdesc_version: U32,
    memmap: U32,
    memmap_size: U32,
    systab_hi: U32,
    memmap_hi: U32,
}

/// The page, ready to be stored.
#[derive(Clone, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BootParams {
    screen_info: ScreenInfo,
    apm_to_ist: [u8; 0x30],
    acpi_rsdp_addr: U64,
    disks_to_olpc: [u8; 0x48],
    ext_ramdisk_image: U32,
    ext_ramdisk_size: U32,
    ext_cmd_line_ptr: U32,
    edid: [u8; 0x1c0 - 0xcc],
    efi_info: EfiInfo,
    alt_mem_k: U32,
    scratch: U32,
    e820_entries: u8,
    /// Ends with `sentinel`. If the file's own bytes were copied there, the kernel would distrust the whole page.
    edd_to_sentinel: [u8; HEADER_START - 0x1e9],
    hdr: RawHeader,
    edd_mbr_sig_buffer: [u8; 0x2d0 - HEADER_ROOM_END],
    e820_table: [E820Entry; E820_ENTRIES],
    eddbuf: [u8; 0x1000 - 0xcd0],
}

impl BootParams {
    /// The page for a kernel with `header`, loaded by `plan`, on a machine with this map, with the ACPI root pointer at
    /// `rsdp`. The plan is already reserved in the map.
    ///
    /// The setup header is the file's, with the fields that a loader has to fill in (boot.rst, "Details of Header
    /// Fields").
    ///
    /// # Errors
    /// [`Error::HeapFull`].
    #[inline]
    pub fn new(
        header: &SetupHeader,
        plan: &LoadPlan,
        map: &MemoryMap,
        rsdp: Option<PhysAddr>,
    ) -> Result<Box<Self>, Error> {
        let mut page = Self::new_box_zeroed().map_err(|_| Error::HeapFull)?;
        page.hdr = header.raw;
        let hdr = &mut page.hdr;
        if hdr.type_of_loader == 0 {
            hdr.type_of_loader = LOADER_QEMU;
        }
        // CAN_USE_HEAP is for the real-mode code, which does not run. With KEEP_SEGMENTS, which is obsolete, a kernel
        // would not load its own segments. The other flags are the kernel's own.
        hdr.loadflags &= LOADED_HIGH | QUIET_FLAG;
        hdr.code32_start.set(low_half(plan.code32_start().get()));
        // Set only after the data that the host has appended to the kernel is in its place.
        hdr.setup_data.set(0);
        if let Some(alignment) = plan.kernel_alignment {
            hdr.kernel_alignment.set(alignment);
        }

        if header.has_cmd_line_ptr() {
            let command_line = plan.at_entry(plan.command_line.start()).get();
            hdr.cmd_line_ptr.set(low_half(command_line));
            page.ext_cmd_line_ptr.set(high_half(command_line));
        } else {
            page.screen_info = ScreenInfo::for_old_kernel(kib_above_1_mib(map), COMMAND_LINE_OFFSET);
        }
        let initrd = plan.initrd.unwrap_or_default();
        hdr.ramdisk_image.set(low_half(initrd.start().get()));
        hdr.ramdisk_size.set(low_half(initrd.len()));
        page.ext_ramdisk_image.set(high_half(initrd.start().get()));
        page.ext_ramdisk_size.set(high_half(initrd.len()));

        if let Some(rsdp) = rsdp {
            page.acpi_rsdp_addr.set(rsdp.get());
        }
        page.alt_mem_k.set(kib_above_1_mib(map));
        // The table has 128 entries.
        page.e820_entries = map.fill_from_e820(&mut page.e820_table, |entry| entry) as u8;
        Ok(page)
    }

    /// The address of the first `setup_data` node. Zero for none.
    pub fn setup_data(&self) -> u64 {
        self.hdr.setup_data.get()
    }

    /// Sets the address of the first `setup_data` node.
    pub fn set_setup_data(&mut self, first: u64) {
        self.hdr.setup_data.set(first);
    }

    /// Sets the EFI system table and memory map, for a kernel of 64 bits.
    pub fn set_efi(&mut self, efi: &Information) {
        let (system_table, map) = (efi.system_table.get(), efi.map.start().get());
        self.efi_info = EfiInfo {
            loader_signature: *b"EL64",
            systab: low_half(system_table).into(),
            memdesc_size: Information::MAP_STEP.into(),
            memdesc_version: Information::MAP_VERSION.into(),
            memmap: low_half(map).into(),
            memmap_size: low_half(efi.map.len()).into(),
            systab_hi: high_half(system_table).into(),
            memmap_hi: high_half(map).into(),
        };
    }

    /// Sets the screen. Without this call there is none.
    pub fn set_screen(&mut self, screen: ScreenInfo) {
        self.screen_info = screen.with_old_fields_of(&self.screen_info);
    }

    /// The 4096 bytes of the page.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// The KiB of RAM from 1 MiB to the first hole, as a BIOS returns it from INT 15h, AX=E801h or AH=88h. A kernel uses it
/// if it finds fewer than two e820 entries.
fn kib_above_1_mib(map: &MemoryMap) -> u32 {
    map.ram_run_kib(layout::EXTENDED)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::mem::offset_of;
    use std::vec;
    use std::vec::Vec;

    use super::super::plan;
    use super::super::setup_header::tests::{DEBIAN, debian_with};
    use super::*;
    use crate::addr::PhysRange;
    use crate::boot::{Entry, Needs};
    use crate::memory_map::HostMap;
    use uefi_raw::table::boot::MemoryType;

    #[test]
    fn fields_have_the_offsets_of_linux() {
        assert_eq!(offset_of!(BootParams, screen_info), 0);
        assert_eq!(offset_of!(BootParams, acpi_rsdp_addr), 0x70);
        assert_eq!(offset_of!(BootParams, ext_ramdisk_image), 0xc0);
        assert_eq!(offset_of!(BootParams, ext_ramdisk_size), 0xc4);
        assert_eq!(offset_of!(BootParams, ext_cmd_line_ptr), 0xc8);
        assert_eq!(offset_of!(BootParams, efi_info), 0x1c0);
        assert_eq!(offset_of!(BootParams, alt_mem_k), 0x1e0);
        assert_eq!(offset_of!(BootParams, e820_entries), 0x1e8);
        assert_eq!(offset_of!(BootParams, hdr), 0x1f1);
        assert_eq!(offset_of!(BootParams, edd_mbr_sig_buffer), 0x290);
        assert_eq!(offset_of!(BootParams, e820_table), 0x2d0);
        assert_eq!(offset_of!(BootParams, eddbuf), 0xcd0);
        assert_eq!(size_of::<BootParams>(), 4096);
    }

    fn map() -> MemoryMap {
        let mut map = HostMap::default();
        let ram = |start, len| PhysRange::new(PhysAddr::new(start), len).unwrap();
        map.describe(ram(0, 512 << 20), MemoryType::CONVENTIONAL).unwrap();
        map.describe(ram(1 << 32, 4 << 30), MemoryType::CONVENTIONAL).unwrap();
        map.carve_pc().unwrap();
        MemoryMap::new(map)
    }

    fn build(setup: &[u8], sizes: Needs, rsdp: Option<u64>) -> (Vec<u8>, LoadPlan, MemoryMap) {
        let header = SetupHeader::parse(setup).unwrap();
        let mut map = map();
        let plan = plan(&header, &sizes, Some(PhysAddr::new(0x10_0000)), &mut map).unwrap();
        let page = BootParams::new(&header, &plan, &map, rsdp.map(PhysAddr::new)).unwrap();
        (page.bytes().to_vec(), plan, map)
    }

    const SIZES: Needs = Needs { kernel: 0xd8_27c0, initrd: 0x12_3457, initrd_at: None, command_line: 20 };

    fn u32_at(page: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(page[at..at + 4].try_into().unwrap())
    }

    fn u64_at(page: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(page[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn debian_kernel() {
        let (page, plan, map) = build(DEBIAN, SIZES, Some(0xf_1230));
        assert_eq!(plan.entry, Entry::Linux64(PhysAddr::new(0x100_0200)));
        assert_eq!(u64_at(&page, 0x70), 0xf_1230);
        assert_eq!(u32_at(&page, 0x1e0), 511 << 10);
        assert_eq!(page[0x210], 0xb0);
        assert_eq!(page[0x211], 1);
        assert_eq!(u32_at(&page, 0x214), 0x100_0000);
        assert_eq!(u64::from(u32_at(&page, 0x218)), plan.initrd.unwrap().start().get());
        assert_eq!(u32_at(&page, 0x21c), 0x12_3457);
        assert_eq!(u64::from(u32_at(&page, 0x228)), plan.command_line.start().get());
        assert_eq!(u64_at(&page, 0x250), 0);

        // The rest of the header is from the file.
        let filled = [0x210..0x212, 0x214..0x220, 0x228..0x22c];
        for at in (0x1f1..0x26c).filter(|at| !filled.iter().any(|range| range.contains(at))) {
            assert_eq!(page[at], DEBIAN[at], "{at:#x}");
        }
        // Everything else is zero, most importantly the sentinel.
        for at in (0..0x70).chain(0x78..0x1e0).chain(0x1e9..0x1f1).chain(0x26c..0x2d0).chain(0xcd0..0x1000) {
            assert_eq!(page[at], 0, "{at:#x}");
        }

        let entries: Vec<_> = map.e820().collect();
        assert_eq!(usize::from(page[0x1e8]), entries.len());
        assert!(entries.len() > 4);
        for (i, entry) in entries.iter().enumerate() {
            let at = 0x2d0 + i * 20;
            let seen = (u64_at(&page, at), u64_at(&page, at + 8), u32_at(&page, at + 16));
            assert_eq!(seen, (entry.addr.get(), entry.size.get(), entry.kind.get()));
        }
        assert!(page[0x2d0 + entries.len() * 20..0xcd0].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn fields_set_by_the_host_are_kept() {
        let patches: &[(usize, &[u8])] = &[(0x1fa, &[0x17, 0x03]), (0x210, &[0xff]), (0x211, &[0xff])];
        let (page, ..) = build(&debian_with(patches), SIZES, None);
        assert_eq!(page[0x1fa..0x1fc], [0x17, 0x03], "the video mode of vga=");
        assert_eq!(page[0x210], 0xff);
        assert_eq!(page[0x211], 0x21, "no heap, no kept segments");
        assert_eq!(u64_at(&page, 0x70), 0);
    }

    #[test]
    fn without_an_initrd_its_fields_are_zero() {
        let (page, ..) = build(&debian_with(&[(0x218, &[0xff; 8])]), Needs { initrd: 0, ..SIZES }, None);
        assert_eq!(page[0x218..0x220], [0; 8]);
        assert_eq!(page[0xc0..0xc8], vec![0; 8]);
    }
}
