//! The UEFI data for a kernel that is entered without boot services: a system table, the memory map, configuration tables and
//! runtime services. Linux finds it by `boot_params`.
//!
//! Assumed: the tables are in their places. Left out: a table with the firmware's own random bytes where the CPU has none
//! (RDRAND).

use uefi_raw::table::boot::{MemoryDescriptor, MemoryType};

use super::configuration::{
    ACPI_10, ACPI_20, LINUX_RANDOM_SEED, MEMORY_ATTRIBUTES, RUNTIME_PROPERTIES, SMBIOS, SMBIOS_3, Tables,
};
use super::memory::{self, DESCRIPTOR_LEN};
use super::power_off;
use super::runtime::{ATTRIBUTES_TABLE_LEN, Error, Placed, RuntimeImage, State, properties_table};
use super::variables::Phase;
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::fw_cfg::FwCfg;
use crate::hal::{Cpu, Memory};
use crate::heap;
use crate::memory_map::{MemoryMap, Placement};

/// What the kernel's tables are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The image of the runtime services.
    pub runtime: &'static [u8],
    /// The address of the ACPI root pointer, if there is one.
    pub rsdp: Option<PhysAddr>,
    /// The address of the SMBIOS entry point, if there is one.
    pub smbios: Option<PhysAddr>,
    /// Whether the tables are QEMU's, of which it is known how they turn the machine off.
    pub is_qemu: bool,
    /// Random bytes, if the CPU has some.
    pub seed: Option<[u8; SEED_LEN]>,
}

impl Sources {
    /// What this machine has.
    #[cold]
    pub fn of_machine(
        machine: &mut impl Cpu,
        fw_cfg: &FwCfg,
        rsdp: Option<PhysAddr>,
        smbios: Option<PhysAddr>,
    ) -> Self {
        Self {
            runtime: machine.runtime_services(),
            rsdp,
            smbios,
            is_qemu: fw_cfg.host_kind().is_qemu(),
            seed: seed(machine),
        }
    }
}

/// Random bytes from the CPU.
fn seed(cpu: &mut impl Cpu) -> Option<[u8; SEED_LEN]> {
    let mut seed = [0; SEED_LEN];
    let (words, _) = seed.as_chunks_mut::<8>();
    for word in words {
        *word = cpu.random()?.to_le_bytes();
    }
    Some(seed)
}

/// The random bytes for a kernel: as many as Linux makes of what it gets (`drivers/firmware/efi/efi.c`, `EFI_RANDOM_SEED_SIZE`).
pub const SEED_LEN: usize = 32;

/// What a kernel is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Information {
    /// The system table.
    pub system_table: PhysAddr,
    /// The memory map: [`DESCRIPTOR_LEN`] bytes a descriptor.
    pub map: PhysRange,
}

impl Information {
    /// The version of the memory map's descriptors.
    pub const MAP_VERSION: u32 = MemoryDescriptor::VERSION;
    /// The bytes from one of its descriptors to the next.
    pub const MAP_STEP: u32 = DESCRIPTOR_LEN as u32;

    /// Puts all of it into memory. The map that is written has it all: nothing else may be allocated after that.
    ///
    /// # Errors
    /// As for [`RuntimeImage::place`]; [`Error::Room`] also for the map.
    #[cold]
    #[inline(never)]
    pub fn install(memory: &mut impl Memory, map: &mut MemoryMap, sources: &Sources) -> Result<Self, Error> {
        let (placed, _) = install_services(memory, map, sources, Phase::Runtime)?;
        Ok(Self { system_table: placed.system_table, map: write_map(memory, map)? })
    }
}

/// Puts the runtime services, for who calls them in `phase`, and the small tables into memory. Returns where the services
/// are, and the configuration tables.
///
/// # Errors
/// As for [`RuntimeImage::place`]; [`Error::Room`] also for the small tables.
pub fn install_services(
    memory: &mut impl Memory,
    map: &mut MemoryMap,
    sources: &Sources,
    phase: Phase,
) -> Result<(Placed, Tables), Error> {
    let image = RuntimeImage::parse(sources.runtime)?;
    let mut small = SmallTables::allocate(map)?;
    let mut tables = Tables::new();
    let mut add = |guid, at: PhysAddr| {
        // There is room for more than there are here.
        let _ = tables.install(guid, at.get());
    };
    if let Some(rsdp) = sources.rsdp {
        // An RSDP of ACPI 1.0 has revision 0 (ACPI 6.5, 5.2.5.3).
        let mut revision = [0];
        memory.read(rsdp.checked_add(RSDP_REVISION).unwrap_or(rsdp), &mut revision)?;
        add(if revision == [0] { ACPI_10 } else { ACPI_20 }, rsdp);
    }
    if let Some(at) = sources.smbios {
        let mut anchor = [0; 5];
        memory.read(at, &mut anchor)?;
        add(if anchor == *b"_SM3_" { SMBIOS_3 } else { SMBIOS }, at);
    }
    add(RUNTIME_PROPERTIES, small.write(memory, &properties_table())?);
    let attributes = small.take(ATTRIBUTES_TABLE_LEN)?;
    add(MEMORY_ATTRIBUTES, attributes);
    if let Some(seed) = sources.seed {
        let len = (SEED_LEN as u32).to_le_bytes();
        let table = small.take(len.len().saturating_add(SEED_LEN))?;
        memory.write(table, &len)?;
        memory.write(table.checked_add(len.len() as u64).unwrap_or(table), &seed)?;
        add(LINUX_RANDOM_SEED, table);
    }
    let power_off = match (sources.rsdp, sources.is_qemu) {
        (Some(rsdp), true) => power_off::find(memory, map, rsdp),
        _ => None,
    };
    if let Some(register) = power_off.map(|way| way.register).filter(|&register| register != 0) {
        let page = PhysRange::new(PhysAddr::new(register), 1).unwrap_or_default().pages();
        map.reserve(page, MemoryType::MMIO).map_err(|_| Error::Room(Alignment::PAGE.bytes()))?;
    }
    let state =
        State { power_off: power_off.unwrap_or_default(), is_runtime: (phase == Phase::Runtime).into(), ..State::NEW };
    let placed = image.place(memory, map, state, tables.list())?;
    memory.write(attributes, &placed.attributes_table())?;
    Ok((placed, tables))
}

/// The byte of an RSDP with its revision.
const RSDP_REVISION: u64 = 15;

/// Writes the map, with the memory that it takes itself.
fn write_map(memory: &mut impl Memory, map: &mut MemoryMap) -> Result<PhysRange, Error> {
    // The memory for it can split a descriptor in three.
    let most = heap::count(memory::descriptors(map)).saturating_add(2).saturating_mul(DESCRIPTOR_LEN) as u64;
    let place = map.allocate(most, Alignment::PAGE, PhysRange::LOW_4_GIB, Placement::Top, MemoryType::LOADER_DATA);
    let place = place.ok_or(Error::Room(most))?;
    let mut at = place.start();
    for descriptor in memory::descriptors(map) {
        memory.write(at, &memory::descriptor_bytes(&descriptor))?;
        at = at.checked_add(DESCRIPTOR_LEN as u64).unwrap_or(at);
    }
    Ok(PhysRange::from_bounds(place.start(), at).unwrap_or(place))
}

/// A page for the tables that are a few bytes long, which the kernel keeps until it has read them.
struct SmallTables {
    left: PhysRange,
}

impl SmallTables {
    fn allocate(map: &mut MemoryMap) -> Result<Self, Error> {
        let len = Alignment::PAGE.bytes();
        let kind = MemoryType::ACPI_RECLAIM;
        let page = map.allocate(len, Alignment::PAGE, PhysRange::LOW_4_GIB, Placement::Top, kind);
        page.map(|left| Self { left }).ok_or(Error::Room(len))
    }

    /// Room for a table of `len` bytes, at a multiple of 8.
    fn take(&mut self, len: usize) -> Result<PhysAddr, Error> {
        let none = Error::Room(len as u64);
        let end = self.left.start().checked_add(len as u64).and_then(|end| end.align_up(Alignment::QWORD));
        let left = end.and_then(|end| PhysRange::from_bounds(end, self.left.end())).ok_or(none)?;
        Ok(core::mem::replace(&mut self.left, left).start())
    }

    fn write(&mut self, memory: &mut impl Memory, table: &[u8]) -> Result<PhysAddr, Error> {
        let at = self.take(table.len())?;
        memory.write(at, table)?;
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::sync::LazyLock;
    use std::vec::Vec;

    use zerocopy::FromBytes;

    use super::super::runtime::{ConfigurationEntry, SystemTable};
    use super::*;
    use crate::fakes::machine::FakeMachine;
    use crate::memory_map::HostMap;

    /// An image of the services with one page of code and three of data.
    fn image() -> &'static [u8] {
        static IMAGE: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let mut image = b"FLRT".to_vec();
            image.extend([0x1000_u32, 0x1000, 0x4000].into_iter().chain([0x100; 14]).flat_map(u32::to_le_bytes));
            image
        });
        &IMAGE
    }

    fn map() -> MemoryMap {
        let mut map = HostMap::default();
        let range = PhysRange::from_bounds(PhysAddr::new(0x10_0000), PhysAddr::new(0x100_0000)).unwrap();
        map.describe(range, MemoryType::CONVENTIONAL).unwrap();
        MemoryMap::new(map)
    }

    const NOTHING: Sources = Sources { runtime: &[], rsdp: None, smbios: None, is_qemu: true, seed: None };

    fn installed(
        machine: &mut FakeMachine,
        map: &mut MemoryMap,
        sources: &Sources,
    ) -> (Information, Vec<ConfigurationEntry>) {
        let information = Information::install(machine, map, sources).unwrap();
        let system = machine.memory.bytes(information.system_table.get(), size_of::<SystemTable>());
        let system = SystemTable::read_from_bytes(&system).unwrap();
        let tables = machine.memory.bytes(system.configuration, 24 * system.configuration_count as usize);
        let tables = tables.chunks(24).map(|entry| ConfigurationEntry::read_from_bytes(entry).unwrap()).collect();
        (information, tables)
    }

    #[test]
    fn the_map_that_is_handed_over_has_everything_in_it() {
        let (mut machine, mut map) = (FakeMachine::new(), map());
        let (information, _) = installed(&mut machine, &mut map, &Sources { runtime: image(), ..NOTHING });
        let bytes = machine.memory.bytes(information.map.start().get(), information.map.len() as usize);
        let expected: Vec<u8> =
            memory::descriptors(&map).flat_map(|descriptor| memory::descriptor_bytes(&descriptor)).collect();
        assert_eq!(bytes, expected);
        let kind_at = |at: PhysAddr| {
            let holds = |shown: &MemoryDescriptor| {
                (shown.phys_start..shown.phys_start + shown.page_count * 0x1000).contains(&at.get())
            };
            memory::descriptors(&map).find(holds).unwrap().ty
        };
        assert_eq!(kind_at(information.map.start()), MemoryType::LOADER_DATA);
        assert_eq!(kind_at(information.system_table), MemoryType::RUNTIME_SERVICES_CODE);
    }

    #[test]
    fn tables_are_named_by_their_versions() {
        let (mut machine, rsdp, smbios) = (FakeMachine::new(), PhysAddr::new(0x9_fc10), PhysAddr::new(0xf_0000));
        let sources = Sources { runtime: image(), rsdp: Some(rsdp), smbios: Some(smbios), ..NOTHING };
        for (revision, anchor, guids) in [(0, b"_SM_\x1f", [ACPI_10, SMBIOS]), (2, b"_SM3_", [ACPI_20, SMBIOS_3])] {
            machine.memory.store(rsdp.get(), b"RSD PTR ");
            machine.memory.store(rsdp.get() + 15, &[revision]);
            machine.memory.store(smbios.get(), anchor);
            let (_, tables) = installed(&mut machine, &mut map(), &sources);
            let found: Vec<_> = tables[..2].iter().map(|table| (table.guid, table.address)).collect();
            assert_eq!(found, [(guids[0].to_bytes(), rsdp.get()), (guids[1].to_bytes(), smbios.get())]);
        }
    }

    #[test]
    fn small_tables_are_in_memory_that_the_kernel_reads_before_it_uses_it() {
        let (mut machine, mut map) = (FakeMachine::new(), map());
        let seed: [u8; SEED_LEN] = core::array::from_fn(|index| index as u8);
        let sources = Sources { runtime: image(), seed: Some(seed), ..NOTHING };
        let (_, tables) = installed(&mut machine, &mut map, &sources);
        let guids: Vec<_> = tables.iter().map(|table| table.guid).collect();
        let expected = [RUNTIME_PROPERTIES, MEMORY_ATTRIBUTES, LINUX_RANDOM_SEED].map(|guid| guid.to_bytes());
        assert_eq!(guids, expected);
        let bytes = |index: usize, len| machine.memory.bytes(tables[index].address, len);
        assert_eq!(bytes(0, 8), properties_table());
        assert_eq!(bytes(1, 12), [1, 0, 0, 0, 2, 0, 0, 0, 48, 0, 0, 0]);
        assert_eq!(bytes(2, 36), [&[32, 0, 0, 0], &seed[..]].concat());
        let page = memory::descriptors(&map).find(|shown| shown.ty == MemoryType::ACPI_RECLAIM).unwrap();
        assert!(tables.iter().all(|table| table.address - page.phys_start < 0x1000 && table.address % 8 == 0));
    }

    #[test]
    fn without_room_nothing_is_handed_over() {
        let sources = Sources { runtime: image(), ..NOTHING };
        for pages in 0..6 {
            let mut map = HostMap::default();
            let range = PhysRange::new(PhysAddr::new(0x10_0000), pages * 0x1000).unwrap();
            map.describe(range, MemoryType::CONVENTIONAL).unwrap();
            let result = Information::install(&mut FakeMachine::new(), &mut MemoryMap::new(map), &sources);
            assert!(matches!(result, Err(Error::Room(_))), "{pages} {result:?}");
        }
        let broken = Sources { runtime: &[0; 0x100], ..NOTHING };
        assert_eq!(Information::install(&mut FakeMachine::new(), &mut map(), &broken), Err(Error::Image));
    }
}
