//! Variables of the boot manager, by functions of the runtime services table.

use uefi_raw::table::runtime::VariableAttributes;

use super::super::load::Caller;
use super::super::variables::{set_variable, variable};
use super::*;
use crate::efi::variables::{Name, Phase, Store};
use crate::fakes::machine::FakeMachine;

const GET: u64 = 0x1000;
const SET: u64 = 0x1001;

struct Images {
    test: Test,
    store: Vec<u8>,
}

impl Images {
    fn new() -> Self {
        let mut test = Test::new();
        let table = test.system_table().runtime_services;
        for (index, function) in [(6, GET), (8, SET)] {
            test.machine.memory.store(table + 24 + 8 * index, &u64::to_le_bytes(function));
        }
        Self { test, store: std::vec![0; 0x4000] }
    }

    fn get(&mut self, name: &str) -> Result<Vec<u8>, Status> {
        variable(self, name, ONE)
    }
}

impl Caller for Images {
    type Machine = FakeMachine;

    fn with<R>(
        &mut self,
        work: impl FnOnce(&mut FakeMachine, &mut Services) -> Result<R, Status>,
    ) -> Result<R, Status> {
        work(&mut self.test.machine, &mut self.test.services)
    }

    fn call(&mut self, function: u64, [name, vendor, c, d, e]: [u64; 5]) -> Status {
        let memory = &mut self.test.machine.memory;
        let vendor = Guid::from_bytes(memory.bytes(vendor, 16).try_into().unwrap());
        let name = memory.bytes(name, 64);
        let name = Name::up_to_nul(&name).unwrap();
        let mut store = Store::new(&mut self.store);
        match function {
            GET => {
                let (len_at, data) = (d, e);
                let found = match store.get(name, vendor, Phase::Boot) {
                    Ok(found) => found.data,
                    Err(status) => return status,
                };
                let room = u64::from_le_bytes(memory.bytes(len_at, 8).try_into().unwrap());
                memory.store(len_at, &(found.len() as u64).to_le_bytes());
                if room < found.len() as u64 {
                    return Status::BUFFER_TOO_SMALL;
                }
                memory.store(data, found);
                Status::SUCCESS
            }
            SET => {
                let data = memory.bytes(e, d as usize);
                let attributes = VariableAttributes::from_bits_retain(c as u32);
                store.set(name, vendor, attributes, &data, Phase::Boot).err().unwrap_or(Status::SUCCESS)
            }
            _ => panic!("a function at {function:#x}"),
        }
    }
}

const ATTRIBUTES: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS;

#[test]
fn a_variable_of_the_boot_manager_is_set_read_and_deleted() {
    let mut images = Images::new();
    assert_eq!(images.get("BootNext"), Err(Status::NOT_FOUND));
    assert_eq!(set_variable(&mut images, "BootNext", ONE, ATTRIBUTES, &[1, 2]), Ok(()));
    assert_eq!(images.get("BootNext"), Ok(std::vec![1, 2]));
    assert_eq!(set_variable(&mut images, "BootNext", ONE, VariableAttributes::empty(), &[]), Ok(()));
    assert_eq!(images.get("BootNext"), Err(Status::NOT_FOUND));
    assert_eq!(set_variable(&mut images, "BootNext", ONE, VariableAttributes::empty(), &[]), Err(Status::NOT_FOUND));
}

#[test]
fn a_variable_that_is_too_long_is_not_read() {
    let mut images = Images::new();
    for (len, result) in [(4096, Ok(4096)), (4097, Err(Status::BUFFER_TOO_SMALL))] {
        set_variable(&mut images, "Boot0000", ONE, VariableAttributes::empty(), &[]).ok();
        let name: Vec<u8> = "Boot0000\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let name = Name::up_to_nul(&name).unwrap();
        Store::new(&mut images.store).set(name, ONE, ATTRIBUTES, &std::vec![7; len], Phase::Boot).unwrap();
        assert_eq!(images.get("Boot0000").map(|data| data.len()), result);
    }
}

#[test]
fn a_call_leaves_no_memory_behind() {
    let mut images = Images::new();
    let first = images.test.services.pool_of(&mut images.test.machine, &[0; 8]).unwrap();
    let _ = images.get("a");
    set_variable(&mut images, "a", ONE, ATTRIBUTES, &[1]).unwrap();
    images.get("a").unwrap();
    let next = images.test.services.pool_of(&mut images.test.machine, &[0; 8]).unwrap();
    assert_eq!(next, first + 8);
}
