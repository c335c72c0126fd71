//! The probe as a bzImage: nothing but entry points and padding.
//!
//! Every way into a bzImage is there: the 16-bit setup code, the 32-bit and the 64-bit entry (Linux,
//! `Documentation/arch/x86/boot.rst`), and the EFI program that the file is as well (Microsoft, "PE Format").

use super::code::{End, Mode, finish};

const SECTOR: usize = 512;

/// Sectors of setup code after the first one.
const SETUP_SECTORS: u8 = 4;

/// Where the protected-mode part starts in the file.
const SETUP_SIZE: usize = (SETUP_SECTORS as usize + 1) * SECTOR;

/// Where the setup header ends: protocol 2.15 has `kernel_info_offset` as its last field, at 0x268.
const HEADER_END: usize = 0x26c;

/// The 64-bit entry and the EFI entry, from the start of the protected-mode part.
const ENTRY_64: usize = 0x200;
const ENTRY_EFI: usize = 0x280;

/// Where the protected-mode part lies when the EFI program is in memory, a page above its headers.
const EFI_BASE: u32 = 0x1000;

/// Where the PE header stands in the file: behind the DOS header, whose last field points to it.
const PE_HEADER: usize = 0x40;

/// The smallest probe: the setup part and the entry points.
pub const SMALLEST: u64 = (SETUP_SIZE + 4 * SECTOR) as u64;

/// The largest: QEMU reads a kernel with a signed 32-bit size.
pub const LARGEST: u64 = (i32::MAX as u64) / SECTOR as u64 * SECTOR as u64;

/// Writes numbers where a format wants them.
struct Image(Vec<u8>);

impl Image {
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn put16(&mut self, offset: usize, value: u16) {
        self.put(offset, &value.to_le_bytes());
    }

    fn put32(&mut self, offset: usize, value: u32) {
        self.put(offset, &value.to_le_bytes());
    }

    fn put64(&mut self, offset: usize, value: u64) {
        self.put(offset, &value.to_le_bytes());
    }
}

/// The size of a probe of about `size` bytes, which has to be in whole sectors.
pub fn rounded(size: u64) -> u64 {
    size.clamp(SMALLEST, LARGEST).next_multiple_of(SECTOR as u64).min(LARGEST)
}

/// The first bytes of a probe that is `size` bytes long (as [`rounded`] has it). The rest of the file is zeros.
pub fn head(size: u64) -> Vec<u8> {
    let protected = u32::try_from(size).unwrap_or(i32::MAX as u32) - SETUP_SIZE as u32;
    let mut image = Image(vec![0; SETUP_SIZE + 2 * SECTOR]);
    setup_header(&mut image, protected);
    pe_header(&mut image, protected);
    image.put(HEADER_END, &finish(Mode::Bits16, End::Real16));
    image.put(SETUP_SIZE, &finish(Mode::Bits32, End::Protected32));
    image.put(SETUP_SIZE + ENTRY_64, &finish(Mode::Bits64, End::Long64));
    image.put(SETUP_SIZE + ENTRY_EFI, &finish(Mode::Bits64, End::Efi));
    image.0
}

/// The fields of the setup header, protocol 2.15.
fn setup_header(image: &mut Image, protected: u32) {
    image.put(0x1f1, &[SETUP_SECTORS]);
    image.put32(0x1f4, protected / 16); // syssize
    image.put16(0x1fe, 0xaa55); // boot_flag
    image.put(0x200, &[0xeb, (HEADER_END - 0x202) as u8]); // jump: over the header
    image.put(0x202, b"HdrS");
    image.put16(0x206, 0x020f); // version
    image.put(0x211, &[1]); // loadflags: LOADED_HIGH
    image.put32(0x214, 0x10_0000); // code32_start
    image.put32(0x22c, 0x7fff_ffff); // initrd_addr_max
    image.put32(0x230, 0x20_0000); // kernel_alignment
    image.put(0x234, &[1, 21]); // relocatable_kernel, min_alignment
    image.put16(0x236, 0b11); // xloadflags: XLF_KERNEL_64, XLF_CAN_BE_LOADED_ABOVE_4G
    image.put32(0x238, 2047); // cmdline_size
    image.put64(0x258, 0x100_0000); // pref_address
    image.put32(0x260, protected.next_multiple_of(0x1000)); // init_size
}

/// The headers of an EFI program whose one section is the protected-mode part.
fn pe_header(image: &mut Image, protected: u32) {
    const OPTIONAL_HEADER: usize = PE_HEADER + 24;
    const DIRECTORIES: u32 = 6;
    const OPTIONAL_SIZE: usize = 112 + 8 * DIRECTORIES as usize;
    const SECTION: usize = OPTIONAL_HEADER + OPTIONAL_SIZE;
    image.put(0, b"MZ");
    image.put32(0x3c, PE_HEADER as u32);
    image.put(PE_HEADER, b"PE\0\0");
    image.put16(PE_HEADER + 4, 0x8664); // machine: x86-64
    image.put16(PE_HEADER + 6, 1); // sections
    image.put16(PE_HEADER + 20, OPTIONAL_SIZE as u16);
    image.put16(PE_HEADER + 22, 0x0206); // executable, no line numbers, no debug information; may be moved
    image.put16(OPTIONAL_HEADER, 0x20b); // PE32+
    image.put32(OPTIONAL_HEADER + 4, protected); // size of code
    image.put32(OPTIONAL_HEADER + 16, EFI_BASE + ENTRY_EFI as u32); // entry point
    image.put32(OPTIONAL_HEADER + 20, EFI_BASE); // base of code
    image.put32(OPTIONAL_HEADER + 32, 0x1000); // section alignment
    image.put32(OPTIONAL_HEADER + 36, SECTOR as u32); // file alignment
    image.put32(OPTIONAL_HEADER + 56, (EFI_BASE + protected).next_multiple_of(0x1000)); // size of image
    image.put32(OPTIONAL_HEADER + 60, SETUP_SIZE as u32); // size of headers
    image.put16(OPTIONAL_HEADER + 68, 10); // subsystem: EFI application
    image.put32(OPTIONAL_HEADER + 108, DIRECTORIES);
    image.put(SECTION, b".text");
    image.put32(SECTION + 8, protected); // virtual size
    image.put32(SECTION + 12, EFI_BASE); // virtual address
    image.put32(SECTION + 16, protected); // size in the file
    image.put32(SECTION + 20, SETUP_SIZE as u32); // place in the file
    image.put32(SECTION + 36, 0x6000_0020); // code, executable, readable
}

#[cfg(test)]
mod tests {
    use object::read::pe::PeFile64;
    use object::{Object as _, ObjectSection as _};

    use super::*;

    const SIZE: u64 = 256 << 10;

    fn whole() -> Vec<u8> {
        let mut bytes = head(SIZE);
        bytes.resize(SIZE as usize, 0);
        bytes
    }

    fn code_at(image: &[u8], offset: usize, mode: Mode, end: End) {
        let code = finish(mode, end);
        assert_eq!(image[offset..offset + code.len()], code, "{end:?}");
    }

    #[test]
    fn every_entry_point_ends_the_measurement() {
        let image = whole();
        let jump = 0x202 + usize::from(image[0x201]);
        assert_eq!(image[0x200], 0xeb);
        assert!(image[0x201] < 0x80, "a short jump goes forward by 127 bytes at most");
        code_at(&image, jump, Mode::Bits16, End::Real16);
        code_at(&image, SETUP_SIZE, Mode::Bits32, End::Protected32);
        code_at(&image, SETUP_SIZE + 0x200, Mode::Bits64, End::Long64);
    }

    #[test]
    fn it_is_an_efi_program_too() {
        let image = whole();
        let file = PeFile64::parse(image.as_slice()).unwrap();
        let section = file.sections().next().unwrap();
        assert_eq!(section.data().unwrap().len(), image.len() - SETUP_SIZE);
        let entry = (file.entry() - section.address()) as usize;
        code_at(&image, SETUP_SIZE + entry, Mode::Bits64, End::Efi);
    }
}
