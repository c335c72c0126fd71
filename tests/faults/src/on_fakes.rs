//! The whole boot against the fakes, with a heap as small as the image's.
#![forbid(unsafe_code)]

use std::any::Any;
use std::cell::RefCell;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use firstlight::addr::PhysAddr;
use firstlight::boot::{EfiBoot, Entry, Handover};
use firstlight::failure::{self, Failure};
use firstlight::fakes::machine::{FakeDevice, FakeMachine, FakeMemory, FakeRegisters};
use firstlight::hal::Memory;
use firstlight::start_info::Start;
use log::{LevelFilter, Log, Metadata};
use vmm::devices::{At, Extra};

use crate::disks::{self, Attached, DiskFault, Faulty, PROGRAM_LEN};
use crate::efi::Running;
use crate::heap::outside;
use crate::host::Host;
use crate::outside::Outside;
use crate::written::{Handed, strays};
use crate::{Boot, BootResult, End, Fault, Runner, heap, pci};

/// A boot with more accesses than this counts as endless.
const MOST_STEPS: u64 = 20_000_000;

/// The fakes.
#[derive(Default)]
pub struct Fakes {
    /// The most bytes of the heap that any boot used.
    pub most_heap: usize,
}

impl Fakes {
    /// The bytes of the heap.
    pub const HEAP: usize = heap::SIZE;
}

/// Waits for its turn: the heap is one.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Runner for Fakes {
    fn why_not(&self) -> Option<String> {
        None
    }

    fn is_complete(&self) -> bool {
        true
    }

    fn takes(&self, _: &Fault, _: u32) -> Result<bool, &'static str> {
        Ok(true)
    }

    fn boot(&mut self, host: &Host) -> BootResult {
        let _turn = turn();
        listen();
        LINES.take();
        let device = host.device();
        let record = device.record();
        let mut machine = Outside(machine(host, device));
        machine.0.memory.keep_stores();

        heap::start(host.allocation_fails);
        let in_slots = host.disks.filter(|faulty| faulty.bus.is_slot());
        let mut attached = in_slots.map(|faulty| disks::attach(&mut machine.0, faulty, None));
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            heap::inside(|| {
                let mut handover = run(&mut machine).map_err(|failure| outside(|| failure.error.to_string()))?;
                let Some(faulty) = host.disks else { return Ok((Some(handover), Vec::new())) };
                let boot = handover.efi.take();
                drop(handover);
                boot_from_disks(&mut machine, boot, attached.take(), faulty).map(|problems| (None, problems))
            })
        }));
        let mut lines = LINES.take();
        let mut problems = Vec::new();
        let (end, handover) = match result {
            Ok(Ok((handover, from_disk))) => {
                problems.extend(from_disk);
                (End::WentOn, handover)
            }
            Ok(Err(error)) => {
                lines.push(format!("error: {error}"));
                (End::Stopped, None)
            }
            Err(payload) => (End::Other(format!("panicked: {}", message(&*payload))), None),
        };
        let memory = &machine.0.memory;
        let handed = handover.as_ref().map(|handover| Handed::of(host, memory, handover.parameters.get()));
        problems.extend(strays(host, handed.as_ref(), memory.stores()));
        let entry = |handed: &Handed| Entry::Linux64(PhysAddr::new(handed.kernel.start + 0x200));
        if let (Some(handed), Some(handover)) = (&handed, &handover)
            && handover.entry != entry(handed)
        {
            problems.push(format!("the kernel is entered at {:?}", handover.entry));
        }
        let different = handed.map_or_else(Vec::new, |handed| handed.differences(host, memory));
        // The memory of a transfer that did not end stays the device's.
        drop(mem::take(&mut machine.0.lent_for_good));
        let usage = heap::usage();
        if usage.left != 0 {
            problems.push(format!("{} bytes of the heap were not given back", usage.left));
        }
        self.most_heap = self.most_heap.max(usage.most);
        let transfers = record.borrow().transfers;
        BootResult(Boot { end, lines, transfers, allocations: usage.allocations, problems, different })
    }
}

/// Boots from the disks of a machine without a kernel, which are `attached` if they are in slots. Returns what was wrong: the program
/// has other bytes than on its disk, or a controller that is stopped has written memory that somebody may use.
///
/// # Errors
/// Why no program runs.
fn boot_from_disks(
    machine: &mut Outside,
    boot: Option<EfiBoot>,
    attached: Option<[Attached; 2]>,
    faulty: Faulty,
) -> Result<Vec<String>, String> {
    let boot = boot.ok_or_else(|| outside(|| "boot services do not start".to_owned()))?;
    let [attached, _] = outside(|| attached.unwrap_or_else(|| attach_functions(&mut machine.0, faulty)));
    let mut running = Running::start(machine, boot).map_err(|status| outside(|| format!("no services: {status:?}")))?;
    let place = running.boot().map_err(|error| outside(|| error.clone()))?;
    let (withheld, machine) = running.end();
    outside(|| {
        let mut problems = Vec::new();
        let memory = &mut machine.0.memory;
        let is_changed = matches!(faulty.fault, DiskFault::Changes(..));
        let is_intact = |memory: &FakeMemory| {
            let bytes = memory.bytes(place.start().get(), PROGRAM_LEN as usize);
            is_changed || disks::is_placed(&bytes)
        };
        if !is_intact(memory) {
            problems.push("the program has other bytes than on its disk".to_owned());
        }
        let before = memory.bytes(place.start().get(), PROGRAM_LEN as usize);
        let stores = memory.stores().len();
        attached.finish(memory);
        let after = memory.bytes(place.start().get(), PROGRAM_LEN as usize);
        if after != before {
            problems.push("a controller that was stopped has written into the program".to_owned());
        }
        for store in memory.stores().iter().skip(stores) {
            if !withheld.iter().any(|range| range.start <= store.start && store.end <= range.end) {
                problems.push(format!("a controller that was stopped has written {store:x?}"));
            }
        }
        Ok(problems)
    })
}

/// Attaches controllers where the firmware has put their registers.
fn attach_functions(machine: &mut FakeMachine, faulty: Faulty) -> [Attached; 2] {
    let registers = [faulty.bus.register(), pci::VIRTIO_BAR];
    let mut index = 0;
    let bases = disks::FUNCTIONS.map(|function| {
        let at = pci::ECAM.start + (u64::from(function) << 12) + u64::from(registers[index]);
        index += 1;
        u64::from(machine.read_register32(PhysAddr::new(at)).unwrap_or(0) & !0xf)
    });
    disks::attach(machine, faulty, Some(bases))
}

/// Boots, and shows a failure on the display, as the binary does.
fn run(machine: &mut Outside) -> Result<Handover, Failure> {
    firstlight::run(machine, Start::Reset).inspect_err(|failure| {
        log::set_max_level(LevelFilter::Off);
        failure::show(machine, Start::Reset, &failure.error);
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

fn machine(host: &Host, device: impl FakeDevice + 'static) -> FakeMachine {
    let extra = Shared(Rc::new(RefCell::new((host.extra)())));
    let mut machine = FakeMachine::new().with(extra.clone()).with(device);
    machine.registers.push(Box::new(extra));
    machine.absent = host.known.absent_port;
    machine.keeps_accesses = false;
    // A deadline passes at the tenth check.
    machine.ticks_per_look = 1 << 31;
    machine.most_steps = MOST_STEPS;
    for (at, bytes) in &host.memory {
        machine.memory.store(*at, bytes);
    }
    machine
}

/// The rest of the machine: ports and registers in memory.
#[derive(Clone)]
struct Shared(Rc<RefCell<Box<dyn Extra>>>);

impl FakeDevice for Shared {
    fn claims(&self, port: u16) -> bool {
        self.0.borrow().claims(At::Port(port))
    }
    fn read(&mut self, port: u16, size: u8, _: &mut FakeMemory) -> u32 {
        self.0.borrow_mut().read(At::Port(port), size) as u32
    }
    fn write(&mut self, port: u16, size: u8, value: u32, _: &mut FakeMemory) {
        self.0.borrow_mut().write(At::Port(port), size, value.into());
    }
}

impl FakeRegisters for Shared {
    fn claims(&self, at: u64) -> bool {
        self.0.borrow().claims(At::Memory(at))
    }
    fn read(&mut self, at: u64, size: u8) -> u64 {
        self.0.borrow_mut().read(At::Memory(at), size)
    }
    fn write(&mut self, at: u64, size: u8, value: u64, _: &mut FakeMemory) {
        self.0.borrow_mut().write(At::Memory(at), size, value);
    }
}

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Collects what is logged.
struct Listener;

impl Log for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }
    fn log(&self, record: &log::Record<'_>) {
        let level = match record.level() {
            log::Level::Error => "error",
            log::Level::Warn => "warning",
            _ => "more",
        };
        heap::outside(|| LINES.with_borrow_mut(|lines| lines.push(format!("{level}: {}", record.args()))));
    }
    fn flush(&self) {}
}

fn listen() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // There is no other: this is the only one to call it, and once.
        let _ = log::set_logger(&Listener);
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| heap::outside(|| hook(info))));
    });
    log::set_max_level(LevelFilter::Warn);
}
