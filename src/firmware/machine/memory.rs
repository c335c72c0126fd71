//! Guest memory and memory-mapped registers, by physical address, and the page tables.

use core::sync::atomic::{Ordering, fence};
use core::{ptr, slice};

use firstlight::addr::{Alignment, PhysAddr, PhysRange};
use firstlight::hal::paging::{self, Access};
use firstlight::hal::{BusMaster, DeviceRange, Memory, MemoryError, Protect};
use firstlight::heap;
use firstlight::layout;
use x86_64::instructions::tlb;

use super::{PcMachine, bytes, pointer};

/// The page tables in memory.
pub struct PageTables<'a> {
    /// The tables added to those of `src/firmware/start`.
    pub added: &'a [PhysRange],
}

impl PageTables<'_> {
    /// Whether there is an entry at `at`: in a table of `src/firmware/start`, or in an added one.
    fn has(&self, at: PhysAddr) -> bool {
        let contain = |tables: &PhysRange| PhysRange::new(at, 8).is_some_and(|entry| tables.contains(entry));
        at.is_aligned(Alignment::QWORD) && (contain(&layout::PAGE_TABLES) || self.added.iter().any(contain))
    }
}

impl paging::Entries for PageTables<'_> {
    fn get(&mut self, at: PhysAddr) -> u64 {
        if !self.has(at) {
            return 0;
        }
        // SAFETY: the entry is aligned and mapped, and no Rust object lives there.
        unsafe { ptr::read_volatile(pointer(at).cast::<u64>()) }
    }

    fn set(&mut self, at: PhysAddr, entry: u64) {
        if self.has(at) {
            // SAFETY: the entry is aligned and mapped, and no Rust object lives there. `paging` maps only memory that is not
            // mapped yet, and removes access only to memory that `protect` below allows, so the running program's mappings stay.
            unsafe { ptr::write_volatile(pointer(at).cast::<u64>(), entry) };
        }
    }

    /// Looks once whether the table is there, not at each entry.
    fn set_table(&mut self, table: PhysAddr, first: u64, step: u64) {
        let contains = |tables: &PhysRange| {
            PhysRange::new(table, Alignment::PAGE.bytes()).is_some_and(|table| tables.contains(table))
        };
        if !table.is_aligned(Alignment::PAGE) || !self.added.iter().any(contains) {
            return;
        }
        let mut entry = first;
        for at in paging::slots(table) {
            // SAFETY: as in `set`. The table was looked up above.
            unsafe { ptr::write_volatile(pointer(at).cast::<u64>(), entry) };
            entry = entry.wrapping_add(step);
        }
    }
}

impl Protect for PcMachine {
    fn protect(&mut self, range: PhysRange, access: Access, room: PhysRange) -> Result<PhysRange, MemoryError> {
        let error = MemoryError { range };
        // The range has no Rust object and no page table.
        self.check_mapped(range)?;
        self.check(room)?;
        if self.added.has_tables(range) || self.added.has_tables(room) {
            return Err(error);
        }
        let tables = &mut self.added.tables;
        heap::push(tables, room).map_err(|_| error)?;
        let rest = paging::protect(&mut PageTables { added: tables }, range, access, room);
        // Also a compiler barrier: no access to the range moves across this.
        tlb::flush_all();
        tables.pop();
        let rest = rest.ok_or(error)?;
        if !access.is_writable() {
            let both = PhysRange::from_bounds(
                self.read_only.start().min(range.start()),
                self.read_only.end().max(range.end()),
            );
            self.read_only = if self.read_only.is_empty() { range } else { both.unwrap_or(range) };
            // From now on, every write looks at the page tables.
            self.limit = PhysAddr::new(0);
        }
        let (used, _) = room.split_at(rest.start().get().saturating_sub(room.start().get()));
        match tables.last_mut().filter(|last| last.end() == used.start()) {
            // The room continues that of the previous call.
            Some(last) => *last = PhysRange::from_bounds(last.start(), used.end()).ok_or(error)?,
            None if used.is_empty() => {}
            // Adds the room.
            None => heap::push(tables, used).map_err(|_| error)?,
        }
        Ok(rest)
    }

    fn access(&mut self, range: PhysRange) -> Result<Option<Access>, MemoryError> {
        self.check_mapped(range)?;
        Ok(paging::access(&mut PageTables { added: &self.added.tables }, range))
    }
}

impl Memory for PcMachine {
    #[cold]
    fn map(&mut self, range: PhysRange, room: PhysRange) -> Result<(), MemoryError> {
        let error = MemoryError { range };
        self.check(room)?;
        self.added.add_room(room).ok_or(error)?;
        paging::map(&mut PageTables { added: &self.added.tables }, range, room).ok_or(error)?;
        // Also a compiler barrier: no access to the range moves before this.
        tlb::flush_all();
        self.added.mapped.try_push(range).map_err(|_| error)
    }

    #[inline]
    fn read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryError> {
        let range = bytes(from, into.len())?;
        self.check_mapped(range).or_else(|error| if self.may_read_page_zero(range) { Ok(()) } else { Err(error) })?;
        // SAFETY: one of the checks allowed the source, so it is mapped, not at address zero, and disjoint from every Rust
        // object, including `into`.
        unsafe { ptr::copy_nonoverlapping(pointer(from), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    #[inline]
    fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), MemoryError> {
        self.check_mapped(range)?;
        if self.lost.is_some_and(|lost| lost.overlaps(range)) {
            return show_copies(range, show);
        }
        if !range.is_empty() {
            // SAFETY: `check_mapped` allowed the range, so it is mapped and disjoint from every Rust object that could be
            // written. No device writes it: transfers have ended when their functions return, except one that timed out, whose
            // memory is refused. `self` is borrowed, so no memory access and no transfer happens during the slice's lifetime.
            show(unsafe { slice::from_raw_parts(pointer(range.start()), range.len() as usize) });
        }
        Ok(())
    }

    #[inline]
    fn write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), MemoryError> {
        self.check_writable(super::bytes(to, bytes.len())?)?;
        // SAFETY: `check_writable` allowed the target, so it is mapped, writable and disjoint from every Rust object, including
        // `bytes`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(to), bytes.len()) };
        Ok(())
    }

    fn copy(&mut self, from: PhysRange, to: PhysAddr) -> Result<(), MemoryError> {
        self.check_mapped(from)?;
        self.check_writable(bytes(to, from.len() as usize)?)?;
        // SAFETY: both ranges were allowed, so they are mapped, the target is writable, and both are disjoint from every Rust
        // object; they may overlap.
        unsafe { ptr::copy(pointer(from.start()), pointer(to), from.len() as usize) };
        Ok(())
    }

    fn fill(&mut self, range: PhysRange, byte: u8) -> Result<(), MemoryError> {
        self.check_writable(range)?;
        // SAFETY: `check_writable` allowed the range, so it is mapped, writable and disjoint from every Rust object.
        unsafe { ptr::write_bytes(pointer(range.start()), byte, range.len() as usize) };
        Ok(())
    }

    fn clear_unused_stack(&mut self) {
        self.clear_below();
    }

    fn read_register8(&mut self, at: PhysAddr) -> Result<u8, MemoryError> {
        self.check_register(at, Alignment::BYTE)?;
        // SAFETY: the address is mapped and disjoint from every Rust object.
        Ok(unsafe { ptr::read_volatile(pointer(at)) })
    }

    fn read_register16(&mut self, at: PhysAddr) -> Result<u16, MemoryError> {
        self.check_register(at, Alignment::WORD)?;
        // SAFETY: the address is aligned, mapped and disjoint from every Rust object.
        Ok(unsafe { ptr::read_volatile(pointer(at).cast::<u16>()) })
    }

    #[inline]
    fn read_register32(&mut self, at: PhysAddr) -> Result<u32, MemoryError> {
        self.check_register(at, Alignment::DWORD)?;
        // SAFETY: the address is aligned, mapped and disjoint from every Rust object.
        Ok(unsafe { ptr::read_volatile(pointer(at).cast::<u32>()) })
    }

    fn read_register64(&mut self, at: PhysAddr) -> Result<u64, MemoryError> {
        self.check_register(at, Alignment::QWORD)?;
        // SAFETY: the address is aligned, mapped and disjoint from every Rust object.
        Ok(unsafe { ptr::read_volatile(pointer(at).cast::<u64>()) })
    }

    fn write_register8(&mut self, at: PhysAddr, value: u8) -> Result<(), MemoryError> {
        self.check_register(at, Alignment::BYTE)?;
        // SAFETY: the address is mapped and disjoint from every Rust object.
        unsafe { ptr::write_volatile(pointer(at), value) };
        Ok(())
    }

    fn write_register16(&mut self, at: PhysAddr, value: u16) -> Result<(), MemoryError> {
        self.check_register(at, Alignment::WORD)?;
        // SAFETY: the address is aligned, mapped and disjoint from every Rust object.
        unsafe { ptr::write_volatile(pointer(at).cast::<u16>(), value) };
        Ok(())
    }

    #[inline]
    fn write_register32(&mut self, at: PhysAddr, value: u32) -> Result<(), MemoryError> {
        self.check_register(at, Alignment::DWORD)?;
        // SAFETY: the address is aligned, mapped and disjoint from every Rust object.
        unsafe { ptr::write_volatile(pointer(at).cast::<u32>(), value) };
        Ok(())
    }

    fn write_register64(&mut self, at: PhysAddr, value: u64) -> Result<(), MemoryError> {
        self.check_register(at, Alignment::QWORD)?;
        // SAFETY: the address is aligned, mapped and disjoint from every Rust object.
        unsafe { ptr::write_volatile(pointer(at).cast::<u64>(), value) };
        Ok(())
    }
}

/// Shows copies of the bytes of `range`, which was checked. A device may write them meanwhile.
#[cold]
fn show_copies(range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), MemoryError> {
    let mut rest = range;
    while !rest.is_empty() {
        let mut bytes = [0; 512];
        let (piece, behind) = rest.split_at(bytes.len() as u64);
        let copy = bytes.get_mut(..piece.len() as usize).unwrap_or_default();
        // SAFETY: the range is mapped and disjoint from every Rust object, including `copy`.
        unsafe { ptr::copy_nonoverlapping(pointer(piece.start()), copy.as_mut_ptr(), copy.len()) };
        show(copy);
        rest = behind;
    }
    Ok(())
}

impl BusMaster for PcMachine {
    fn lend(&mut self, range: PhysRange) -> Result<DeviceRange, MemoryError> {
        self.check_mapped(range)?;
        self.check_writable(range)?;
        Ok(DeviceRange::checked(range))
    }

    fn order(&mut self) {
        // On x86 a store can still be under way when a later load is done (Intel SDM volume 3, 10.2.2), so this is an instruction.
        fence(Ordering::SeqCst);
    }
}
