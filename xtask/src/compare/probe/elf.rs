//! ELF files made here: the probe as a kernel with a PVH entry, and the first program in user space.

use object::elf;
use object::endian::{LittleEndian, U16, U32, U64};
use object::pod::bytes_of;

use super::code::{End, Mode, finish, user_program};

/// Where the PVH probe is loaded.
const PVH_BASE: u32 = 0x10_0000;

/// The note's type and name (Xen, `xen/include/public/elfnote.h`, `XEN_ELFNOTE_PHYS32_ENTRY`).
const PHYS32_ENTRY: u32 = 18;

/// Where the user program is loaded: any page above the first ones.
const USER_BASE: u64 = 0x40_0000;

const LE: LittleEndian = LittleEndian;

/// The probe as an ELF kernel of `size` bytes with a PVH entry; the rest of the file is zeros.
pub fn pvh_head(size: u64) -> Vec<u8> {
    const HEADERS: u32 = (size_of::<elf::FileHeader32<LittleEndian>>() + 2 * PROGRAM_HEADER) as u32;
    const PROGRAM_HEADER: usize = size_of::<elf::ProgramHeader32<LittleEndian>>();
    const NOTE_SIZE: u32 = 20;
    let entry = PVH_BASE + HEADERS + NOTE_SIZE;
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let header = elf::FileHeader32 {
        e_ident: ident(elf::ELFCLASS32),
        e_type: U16::new(LE, elf::ET_EXEC),
        e_machine: U16::new(LE, elf::EM_386),
        e_version: U32::new(LE, u32::from(elf::EV_CURRENT)),
        e_entry: U32::new(LE, entry),
        e_phoff: U32::new(LE, size_of::<elf::FileHeader32<LittleEndian>>() as u32),
        e_shoff: U32::default(),
        e_flags: U32::default(),
        e_ehsize: U16::new(LE, size_of::<elf::FileHeader32<LittleEndian>>() as u16),
        e_phentsize: U16::new(LE, PROGRAM_HEADER as u16),
        e_phnum: U16::new(LE, 2),
        e_shentsize: U16::default(),
        e_shnum: U16::default(),
        e_shstrndx: U16::default(),
    };
    let segment = |kind, offset: u32, length: u32| elf::ProgramHeader32 {
        p_type: U32::new(LE, kind),
        p_offset: U32::new(LE, offset),
        p_vaddr: U32::new(LE, PVH_BASE + offset),
        p_paddr: U32::new(LE, PVH_BASE + offset),
        p_filesz: U32::new(LE, length),
        p_memsz: U32::new(LE, length),
        p_flags: U32::new(LE, elf::PF_R | elf::PF_W | elf::PF_X),
        p_align: U32::new(LE, 4),
    };
    let mut bytes = bytes_of(&header).to_vec();
    bytes.extend(bytes_of(&segment(elf::PT_LOAD, 0, size)));
    bytes.extend(bytes_of(&segment(elf::PT_NOTE, HEADERS, NOTE_SIZE)));
    for word in [4, 4, PHYS32_ENTRY] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(b"Xen\0");
    bytes.extend(entry.to_le_bytes());
    bytes.extend(finish(Mode::Bits32, End::Pvh));
    bytes
}

/// The first program in user space, as a file that Linux executes.
pub fn user() -> Vec<u8> {
    const HEADER: usize = size_of::<elf::FileHeader64<LittleEndian>>();
    const PROGRAM_HEADER: usize = size_of::<elf::ProgramHeader64<LittleEndian>>();
    const CODE: u64 = (HEADER + PROGRAM_HEADER) as u64;
    let code = user_program();
    let length = CODE + code.len() as u64;
    let header = elf::FileHeader64 {
        e_ident: ident(elf::ELFCLASS64),
        e_type: U16::new(LE, elf::ET_EXEC),
        e_machine: U16::new(LE, elf::EM_X86_64),
        e_version: U32::new(LE, u32::from(elf::EV_CURRENT)),
        e_entry: U64::new(LE, USER_BASE + CODE),
        e_phoff: U64::new(LE, HEADER as u64),
        e_shoff: U64::default(),
        e_flags: U32::default(),
        e_ehsize: U16::new(LE, HEADER as u16),
        e_phentsize: U16::new(LE, PROGRAM_HEADER as u16),
        e_phnum: U16::new(LE, 1),
        e_shentsize: U16::default(),
        e_shnum: U16::default(),
        e_shstrndx: U16::default(),
    };
    let segment = elf::ProgramHeader64 {
        p_type: U32::new(LE, elf::PT_LOAD),
        p_flags: U32::new(LE, elf::PF_R | elf::PF_X),
        p_offset: U64::default(),
        p_vaddr: U64::new(LE, USER_BASE),
        p_paddr: U64::new(LE, USER_BASE),
        p_filesz: U64::new(LE, length),
        p_memsz: U64::new(LE, length),
        p_align: U64::new(LE, 0x1000),
    };
    let mut bytes = bytes_of(&header).to_vec();
    bytes.extend(bytes_of(&segment));
    bytes.extend(code);
    bytes
}

fn ident(class: u8) -> elf::Ident {
    elf::Ident {
        magic: elf::ELFMAG,
        class,
        data: elf::ELFDATA2LSB,
        version: elf::EV_CURRENT,
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        padding: [0; 7],
    }
}

#[cfg(test)]
mod tests {
    use object::Object as _;
    use object::read::elf::{ElfFile32, FileHeader as _, ProgramHeader as _};

    use super::*;

    #[test]
    fn the_note_and_the_header_name_the_pvh_entry() {
        let mut file = pvh_head(4096);
        file.resize(4096, 0);
        let parsed = ElfFile32::<LittleEndian>::parse(file.as_slice()).unwrap();
        let header = parsed.elf_header();
        let segments = header.program_headers(LE, file.as_slice()).unwrap();
        let mut notes = segments[1].notes(LE, file.as_slice()).unwrap().unwrap();
        let note = notes.next().unwrap().unwrap();
        assert_eq!((note.name(), note.n_type(LE)), (&b"Xen"[..], PHYS32_ENTRY));
        let entry = u32::from_le_bytes(note.desc().try_into().unwrap());
        assert_eq!(u64::from(entry), parsed.entry());
        let code = finish(Mode::Bits32, End::Pvh);
        let offset = (entry - PVH_BASE) as usize;
        assert_eq!(file[offset..offset + code.len()], code);
    }
}
