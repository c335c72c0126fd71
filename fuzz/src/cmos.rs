//! Memory sizes in CMOS, on a host without a list.
//!
//! Input: the change at each read, and the registers.

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::fakes::machine::{FakeDevice, FakeMachine, FakeMemory};
use firstlight::memory_map::HostMap;

use crate::check;
use crate::input::Input;

/// CMOS memory.
pub struct Cmos {
    registers: [u8; 128],
    index: u8,
    /// Added to a register when it was read.
    step: u8,
}

impl Cmos {
    /// With these registers, zero where there are none.
    #[must_use]
    pub fn new(registers: &[u8], step: u8) -> Self {
        let mut all = [0; 128];
        all.iter_mut().zip(registers).for_each(|(to, from)| *to = *from);
        Self { registers: all, index: 0, step }
    }
}

/// The PM1 status register where the firmware puts it, with what it reads as.
pub struct Pm1(pub u16);

impl Pm1 {
    /// Set at a wake: WAK_STS.
    pub const WOKEN: u16 = 1 << 15;
}

impl FakeDevice for Pm1 {
    fn claims(&self, port: u16) -> bool {
        (0x600..0x602).contains(&port)
    }
    fn read(&mut self, _port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
        self.0.into()
    }
    fn write(&mut self, _port: u16, _size: u8, _value: u32, _memory: &mut FakeMemory) {}
}

impl FakeDevice for Cmos {
    fn claims(&self, port: u16) -> bool {
        matches!(port, 0x70 | 0x71)
    }
    fn read(&mut self, port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
        let register = &mut self.registers[usize::from(self.index & 0x7f)];
        let value = if port == 0x70 { self.index } else { *register };
        *register = register.wrapping_add(self.step);
        value.into()
    }
    fn write(&mut self, port: u16, _size: u8, value: u32, _memory: &mut FakeMemory) {
        match port {
            0x70 => self.index = value as u8,
            _ => self.registers[usize::from(self.index & 0x7f)] = value as u8,
        }
    }
}

/// Makes the map, in few accesses. RAM below 4 GiB begins at zero and is one range, RAM above it too, and a PC's holes can be cut
/// out.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let step = input.take();
    let mut machine = FakeMachine::new().with(Cmos::new(input.rest(), step));
    machine.most_steps = 32;
    let Ok(mut map) = HostMap::from_cmos(&mut machine) else { return };
    check::map(&map);
    // A part of a page at its end is reserved.
    let regions: Vec<_> = map.regions().map(|region| region.range).filter(|&range| map.is_ram(range)).collect();
    let above = PhysRange::from_bounds(PhysRange::LOW_4_GIB.end(), PhysAddr::new(u64::MAX)).unwrap();
    match regions[..] {
        [low] => assert!(low.start() == PhysAddr::new(0) && PhysRange::LOW_4_GIB.contains(low), "{low}"),
        [low, high] => {
            assert!(low.start() == PhysAddr::new(0) && PhysRange::LOW_4_GIB.contains(low), "{low}");
            assert!(high.start() == above.start(), "{high}");
        }
        _ => panic!("{regions:?}"),
    }
    map.carve_pc_that_sleeps().unwrap();
    check::map(&map);
}

/// The sizes of machines with 64 MiB, 512 MiB and 6 GiB, and of none.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let registers = |below_64_mib: u16, above_16_mib: u16, high: u32| {
        let mut registers = [0; 129];
        registers[1 + 0x30..][..2].copy_from_slice(&below_64_mib.to_le_bytes());
        registers[1 + 0x34..][..2].copy_from_slice(&above_16_mib.to_le_bytes());
        registers[1 + 0x5b..][..3].copy_from_slice(&high.to_le_bytes()[..3]);
        registers.to_vec()
    };
    vec![
        registers(0xfc00, 0, 0),
        registers(0xfc00, (512 - 16) * 16, 0),
        registers(0xfc00, (2048 - 16) * 16, 4096 * 16),
        vec![0; 129],
        [vec![1], vec![0xff; 128]].concat(),
    ]
}
