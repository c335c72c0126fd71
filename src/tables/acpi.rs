//! ACPI: the machine for the table-loader script.

use super::place::Place;
use crate::acpi::{self, Error, Host, Plan, Zone};
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::fw_cfg::{self, Item};
use crate::hal::HostAccess;
use crate::heap;
use crate::host::{HostWrite, TPM_LOG};

/// Runs `script` and returns the address of the RSDP.
pub fn load<M: HostAccess>(place: &mut Place<'_, M>, script: Item) -> Result<PhysAddr, Error<fw_cfg::Error>> {
    let bytes = place.fw_cfg.read_all(place.machine, script, Plan::MAX_SCRIPT as u32).map_err(Error::Host)?;
    acpi::load(place, &bytes)
}

impl<M: HostAccess> Host for Place<'_, M> {
    type Error = fw_cfg::Error;

    fn len_of(&self, file: &[u8]) -> Option<u32> {
        self.fw_cfg.find(file).map(Item::len)
    }

    fn allocate(&mut self, len: u64, alignment: Alignment, zone: Zone) -> Option<PhysRange> {
        match zone {
            Zone::High => self.high(len, alignment),
            Zone::FSegment => self.scanned(len, alignment),
        }
    }

    fn load(&mut self, file: &[u8], to: PhysRange) -> Result<(), Self::Error> {
        let item = self.fw_cfg.find(file).ok_or(fw_cfg::Error::Absent)?;
        Place::load(self, item, to.start())?;
        if file == TPM_LOG.as_bytes() {
            self.tpm_log = Some(to);
        }
        Ok(())
    }

    #[inline(always)]
    fn read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), Self::Error> {
        Ok(self.machine.read(from, into)?)
    }

    #[inline(always)]
    fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), Self::Error> {
        Ok(self.machine.inspect(range, show)?)
    }

    fn write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), Self::Error> {
        Ok(self.machine.write(to, bytes)?)
    }

    fn write_file(&mut self, file: &[u8], offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        let item = self.fw_cfg.find(file).ok_or(fw_cfg::Error::Absent)?;
        self.fw_cfg.write(self.machine, item, offset, bytes)?;
        // If it cannot be stored, the device does not work after a wake from suspend, but nothing worse happens.
        if let Some(write) = HostWrite::new(file, offset, bytes) {
            let _ = heap::push(&mut self.writes, write);
        }
        Ok(())
    }
}
