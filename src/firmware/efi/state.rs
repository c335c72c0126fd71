//! What functions that images call work on: a static, because an image passes nothing of the firmware's.

use alloc::vec::Vec;
use core::fmt;

use firstlight::boot::EfiBoot;
use firstlight::disk::controllers::Started;
use firstlight::efi::disks::Disks;
use firstlight::efi::events::{Event, Time};
use firstlight::efi::protocols::file_system::FileSystem;
use firstlight::efi::protocols::graphics::Graphics;
use firstlight::efi::protocols::tcg2::Tcg2;
use firstlight::efi::protocols::text_input::TextInput;
use firstlight::efi::protocols::text_output::TextOutput;
use firstlight::efi::services::Services;
use firstlight::hal::Clock;
use firstlight::heap::{self, HeapFull};
use firstlight::logging::Terminal;
use firstlight::platform::timer;
use spin::Mutex;

use super::disks::Controller;
use firstlight_machine::{PcMachine, PcPorts};

/// Boot services that run.
pub struct Running {
    /// The machine.
    pub machine: PcMachine,
    /// The services.
    pub services: Services,
    /// What they started with.
    pub boot: EfiBoot,
    /// The console's protocol, and the address of its mode.
    pub output: (TextOutput, u64),
    /// The keys that came.
    pub input: TextInput,
    /// The event that is signalled while there is a key.
    pub key_event: Event,
    /// The volumes, and the files that are open.
    pub files: FileSystem<'static>,
    /// The disks.
    pub disks: Disks<Started>,
    /// The controllers that may have disks.
    pub controllers: Vec<Controller>,
    /// The TPM, if there is one.
    pub tcg2: Option<Tcg2>,
    /// The display, if there is one.
    pub graphics: Option<Graphics>,
    /// The console itself.
    pub terminal: Terminal<PcPorts>,
    /// Ticks per second, once they are known.
    pub rate: Option<u64>,
    /// When the console was last asked for keys.
    pub received: Time,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

/// Units of [`Time`] in a second.
pub const TIME_SECOND: u64 = 10_000_000;
/// How often ten milliseconds are measured at most.
const MOST_MEASUREMENTS: u32 = 5;

impl Running {
    /// Ticks per second: as the CPU says, or as a PC's timer shows.
    pub fn rate(&mut self) -> u64 {
        if let Some(rate) = self.rate {
            return rate;
        }
        let rate = self.machine.rate().unwrap_or_else(|| self.ticks_in_10_ms().saturating_mul(100));
        self.rate = Some(rate.max(1));
        rate.max(1)
    }

    /// The ticks in ten milliseconds of a PC's timer. A host that lets the CPU wait makes some of these longer, never shorter. So it
    /// takes the shortest, until two agree. Without a timer it takes no time: GRUB measures how long the first `Stall` is, to know the rate
    /// itself, and a machine without a timer is where it does.
    fn ticks_in_10_ms(&mut self) -> u64 {
        let mut shortest = u64::MAX;
        for _ in 0..MOST_MEASUREMENTS {
            let Some(ticks) = timer::ticks_in_10_ms(&mut self.machine) else { return timer::TSC_10_MS };
            let agrees = ticks.abs_diff(shortest) < shortest / 16;
            shortest = shortest.min(ticks);
            if agrees {
                break;
            }
        }
        shortest
    }

    /// The time since the machine was started.
    pub fn now(&mut self) -> Time {
        let (ticks, rate) = (self.machine.ticks(), self.rate());
        let time = u128::from(ticks).saturating_mul(TIME_SECOND.into()).checked_div(rate.into());
        time.and_then(|time| Time::try_from(time).ok()).unwrap_or(Time::MAX)
    }

    /// Takes what came on the console.
    pub fn receive(&mut self) {
        let now = self.now();
        while self.input.has_room()
            && let Some(byte) = self.terminal.receive()
        {
            self.input.receive(byte, now);
        }
        self.received = now;
    }

    /// Signals the event for a key, if there is one. The console is asked a thousand times a second at most, because each time
    /// is an exit to the host.
    pub fn look_for_key(&mut self) {
        let now = self.now();
        if now.saturating_sub(self.received) >= TIME_SECOND / 1000 {
            self.receive();
        }
        if self.input.has_key(now) {
            // The firmware made the event, and an image that closed it gets no keys.
            let _ = self.services.events.signal(self.key_event);
        }
    }

    /// Signals the events whose timers have expired.
    pub fn advance(&mut self) {
        if self.services.events.has_timers() {
            let now = self.now();
            self.services.events.advance(now);
        }
    }
}

/// The services, while there are any: a list of one on the heap.
static RUNNING: Mutex<Vec<Running>> = Mutex::new(Vec::new());

/// Makes `running` what functions work on.
///
/// # Errors
/// [`HeapFull`].
pub fn set(running: Running) -> Result<(), HeapFull> {
    heap::push(&mut RUNNING.lock(), running)
}

/// Takes the services away.
pub fn take() -> Option<Running> {
    RUNNING.try_lock().and_then(|mut running| running.pop())
}

/// Does something with the services. `None` without services, and within another call of this.
pub fn with<R>(work: impl FnOnce(&mut Running) -> R) -> Option<R> {
    RUNNING.try_lock().and_then(|mut running| running.first_mut().map(work))
}
