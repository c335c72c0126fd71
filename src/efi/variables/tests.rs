//! Each status that the specification has for a call, and random calls compared with a model.

extern crate std;

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use uefi_raw::guid;

use super::*;

const VENDOR: Guid = guid!("8be4df61-93ca-11d2-aa0d-00e098032b8c");
const OTHER: Guid = guid!("12345678-9abc-def0-1234-56789abcdef0");
const BOOT: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS;
const BOTH: VariableAttributes = BOOT.union(VariableAttributes::RUNTIME_ACCESS);
const LASTING: VariableAttributes = BOTH.union(VariableAttributes::NON_VOLATILE);
const APPEND: VariableAttributes = VariableAttributes::APPEND_WRITE;

fn name(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// A store with calls by text.
struct Tested(Vec<u8>);

impl Tested {
    fn new() -> Self {
        Self(vec![0; STORE_LEN])
    }

    fn set(&mut self, text: &str, attributes: VariableAttributes, data: &[u8], phase: Phase) -> Status {
        let name = name(text);
        let result = Store::new(&mut self.0).set(Name::up_to_nul(&name).unwrap(), VENDOR, attributes, data, phase);
        result.err().unwrap_or(Status::SUCCESS)
    }

    fn get(&mut self, text: &str, phase: Phase) -> Result<(VariableAttributes, Vec<u8>), Status> {
        let name = name(text);
        let store = Store::new(&mut self.0);
        let found = store.get(Name::up_to_nul(&name).unwrap(), VENDOR, phase)?;
        Ok((found.attributes, found.data.to_vec()))
    }

    fn names(&mut self, phase: Phase) -> Vec<Vec<u8>> {
        let store = Store::new(&mut self.0);
        let mut names = Vec::new();
        let mut last = None;
        while let Ok(variable) = store.next(last, phase) {
            names.push(variable.name.bytes().to_vec());
            last = Some((variable.name, variable.vendor));
        }
        assert_eq!(store.next(last, phase), Err(Status::NOT_FOUND));
        names
    }
}

#[test]
fn a_name_ends_at_its_nul_and_has_something_before_it() {
    assert_eq!(Name::up_to_nul(&name("Boot0001")).map(|name| name.bytes().len()), Some(16));
    assert_eq!(Name::up_to_nul(&name("")), None);
    assert_eq!(Name::up_to_nul(b"B\0o\0"), None);
    assert_eq!(Name::up_to_nul(b""), None);
    assert_eq!(Name::up_to_nul(b"B\0\0"), None);
}

#[test]
fn what_is_set_is_read_back_by_name_and_vendor() {
    let mut store = Tested::new();
    assert_eq!(store.get("A", Phase::Boot), Err(Status::NOT_FOUND));
    assert_eq!(store.set("A", BOTH, b"one", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.set("AB", LASTING, b"two", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.get("A", Phase::Boot), Ok((BOTH, b"one".to_vec())));
    assert_eq!(store.get("AB", Phase::Boot), Ok((LASTING, b"two".to_vec())));
    assert_eq!(store.get("a", Phase::Boot), Err(Status::NOT_FOUND));
    let a = name("A");
    let a = Name::up_to_nul(&a).unwrap();
    assert_eq!(Store::new(&mut store.0).get(a, OTHER, Phase::Boot), Err(Status::NOT_FOUND));
}

#[test]
fn a_variable_is_replaced_by_other_data_of_any_length() {
    let mut store = Tested::new();
    for data in [&b"a"[..], b"longer than before", b"b"] {
        assert_eq!(store.set("A", BOTH, data, Phase::Boot), Status::SUCCESS);
        assert_eq!(store.set("B", BOTH, b"other", Phase::Boot), Status::SUCCESS);
        assert_eq!(store.get("A", Phase::Boot), Ok((BOTH, data.to_vec())));
        assert_eq!(store.get("B", Phase::Boot), Ok((BOTH, b"other".to_vec())));
    }
    assert_eq!(store.names(Phase::Boot).len(), 2);
}

#[test]
fn a_variable_is_deleted_without_data_or_without_access() {
    let mut store = Tested::new();
    for attributes in [BOTH, VariableAttributes::empty()] {
        assert_eq!(store.set("A", attributes, b"", Phase::Boot), Status::NOT_FOUND);
        assert_eq!(store.set("A", BOTH, b"data", Phase::Boot), Status::SUCCESS);
        assert_eq!(store.set("A", attributes, b"", Phase::Boot), Status::SUCCESS);
        assert_eq!(store.get("A", Phase::Boot), Err(Status::NOT_FOUND));
    }
    assert_eq!(store.set("A", BOTH, b"data", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.set("A", VariableAttributes::empty(), b"data", Phase::Boot), Status::SUCCESS);
    assert!(store.0.iter().all(|&byte| byte == 0), "nothing is left of what was deleted");
}

#[test]
fn other_attributes_than_those_of_the_variable_are_refused() {
    let mut store = Tested::new();
    assert_eq!(store.set("A", BOTH, b"data", Phase::Boot), Status::SUCCESS);
    for attributes in [BOOT, LASTING] {
        for data in [&b"data"[..], b""] {
            assert_eq!(store.set("A", attributes, data, Phase::Boot), Status::INVALID_PARAMETER);
            assert_eq!(store.set("A", attributes | APPEND, data, Phase::Boot), Status::INVALID_PARAMETER);
        }
    }
    assert_eq!(store.get("A", Phase::Boot), Ok((BOTH, b"data".to_vec())));
}

#[test]
fn attributes_that_cannot_be_are_refused() {
    let mut store = Tested::new();
    let unknown = VariableAttributes::from_bits_retain(0x8000_0000);
    let cases = [
        (VariableAttributes::RUNTIME_ACCESS, Status::INVALID_PARAMETER),
        (VariableAttributes::RUNTIME_ACCESS | VariableAttributes::NON_VOLATILE, Status::INVALID_PARAMETER),
        (BOTH | unknown, Status::INVALID_PARAMETER),
        (LASTING | VariableAttributes::AUTHENTICATED_WRITE_ACCESS, Status::UNSUPPORTED),
        (LASTING | VariableAttributes::TIME_BASED_AUTHENTICATED_WRITE_ACCESS, Status::UNSUPPORTED),
        (LASTING | VariableAttributes::ENHANCED_AUTHENTICATED_ACCESS, Status::UNSUPPORTED),
        (LASTING | VariableAttributes::HARDWARE_ERROR_RECORD, Status::UNSUPPORTED),
    ];
    for (attributes, status) in cases {
        assert_eq!(store.set("A", attributes, b"data", Phase::Boot), status, "{attributes:?}");
        assert_eq!(Store::new(&mut store.0).info(attributes, Phase::Boot), Err(status), "{attributes:?}");
    }
    assert_eq!(store.names(Phase::Boot), Vec::<Vec<u8>>::new());
}

#[test]
fn appended_data_goes_behind_what_is_there() {
    let mut store = Tested::new();
    assert_eq!(store.set("A", BOTH | APPEND, b"", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.get("A", Phase::Boot), Err(Status::NOT_FOUND));
    assert_eq!(store.set("A", BOTH | APPEND, b"one", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.set("B", BOTH, b"b", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.set("A", BOTH | APPEND, b" two and more", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.set("A", BOTH | APPEND, b"", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.get("A", Phase::Boot), Ok((BOTH, b"one two and more".to_vec())));
    assert_eq!(store.get("B", Phase::Boot), Ok((BOTH, b"b".to_vec())));
}

#[test]
fn a_running_system_sees_what_has_runtime_access() {
    let mut store = Tested::new();
    assert_eq!(store.set("Boot", BOOT, b"1", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.set("Both", BOTH, b"2", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.set("Lasting", LASTING, b"3", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.get("Boot", Phase::Runtime), Err(Status::NOT_FOUND));
    assert_eq!(store.get("Both", Phase::Runtime), Ok((BOTH, b"2".to_vec())));
    assert_eq!(store.names(Phase::Runtime).len(), 2);
    assert_eq!(store.names(Phase::Boot).len(), 3);
}

#[test]
fn a_running_system_writes_what_lasts_and_nothing_else() {
    let mut store = Tested::new();
    assert_eq!(store.set("Boot", BOOT, b"1", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.set("Both", BOTH, b"2", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.set("Lasting", LASTING, b"3", Phase::Boot), Status::SUCCESS);
    for data in [&b"new"[..], b""] {
        assert_eq!(store.set("Both", BOTH, data, Phase::Runtime), Status::WRITE_PROTECTED);
    }
    assert_eq!(store.set("Both", VariableAttributes::empty(), b"", Phase::Runtime), Status::WRITE_PROTECTED);
    assert_eq!(store.set("Boot", BOOT, b"", Phase::Runtime), Status::NOT_FOUND);
    for attributes in [BOOT, BOTH, BOOT | VariableAttributes::NON_VOLATILE] {
        assert_eq!(store.set("New", attributes, b"new", Phase::Runtime), Status::INVALID_PARAMETER);
    }
    assert_eq!(store.set("Boot", LASTING, b"new", Phase::Runtime), Status::INVALID_PARAMETER);
    assert_eq!(store.set("New", LASTING, b"new", Phase::Runtime), Status::SUCCESS);
    assert_eq!(store.set("Lasting", LASTING, b"new", Phase::Runtime), Status::SUCCESS);
    assert_eq!(store.set("Lasting", LASTING, b"", Phase::Runtime), Status::SUCCESS);
    assert_eq!(store.set("Lasting", LASTING, b"", Phase::Runtime), Status::NOT_FOUND);
}

#[test]
fn the_list_of_names_begins_and_goes_on_at_a_name_that_is_there() {
    let mut store = Tested::new();
    assert_eq!(store.set("A", BOTH, b"1", Phase::Boot), Status::SUCCESS);
    let (a, b) = (name("A"), name("B"));
    let [a, b] = [&a, &b].map(|name| Name::up_to_nul(name).unwrap());
    let store = Store::new(&mut store.0);
    assert_eq!(store.next(Some((b, VENDOR)), Phase::Boot), Err(Status::INVALID_PARAMETER));
    assert_eq!(store.next(Some((a, OTHER)), Phase::Boot), Err(Status::INVALID_PARAMETER));
    assert_eq!(store.next(Some((a, VENDOR)), Phase::Boot), Err(Status::NOT_FOUND));
}

#[test]
fn what_there_is_no_room_for_changes_nothing() {
    let mut store = Tested::new();
    assert_eq!(store.set("Long", BOTH, &vec![1; MOST_BYTES], Phase::Boot), Status::INVALID_PARAMETER);
    assert_eq!(store.set("Long", BOTH, &vec![1; MOST_BYTES - 8], Phase::Boot), Status::SUCCESS);
    assert_eq!(store.set("Long", BOTH | APPEND, &[1], Phase::Boot), Status::OUT_OF_RESOURCES);
    assert_eq!(store.set("Rest", BOTH, &vec![2; MOST_BYTES - 8], Phase::Boot), Status::OUT_OF_RESOURCES);
    assert_eq!(store.set("Rest", BOTH, &vec![2; 0x4000], Phase::Boot), Status::SUCCESS);
    let before = store.0.clone();
    assert_eq!(store.set("Rest", BOTH, &vec![3; MOST_BYTES - 8], Phase::Boot), Status::OUT_OF_RESOURCES);
    assert_eq!(store.0, before);
    let info = Store::new(&mut store.0).info(BOTH, Phase::Runtime).unwrap();
    assert_eq!((info.storage, info.most), (STORE_LEN as u64, MOST_BYTES as u64));
    let left = info.remaining as usize;
    assert_eq!(store.set("Last", BOTH, &vec![4; left - 32 - 8], Phase::Boot), Status::SUCCESS);
    assert_eq!(Store::new(&mut store.0).info(BOTH, Phase::Boot).unwrap().remaining, 0);
}

#[test]
fn room_is_told_for_attributes_that_a_variable_can_have_then() {
    let mut store = Tested::new();
    let mut info = |attributes, phase| Store::new(&mut store.0).info(attributes, phase).map(|_| ());
    assert_eq!(info(VariableAttributes::empty(), Phase::Boot), Err(Status::INVALID_PARAMETER));
    assert_eq!(info(VariableAttributes::NON_VOLATILE, Phase::Boot), Err(Status::INVALID_PARAMETER));
    assert_eq!(info(BOOT, Phase::Boot), Ok(()));
    assert_eq!(info(BOOT, Phase::Runtime), Err(Status::INVALID_PARAMETER));
    assert_eq!(info(LASTING, Phase::Runtime), Ok(()));
}

/// Of the attributes that Debian's shim 16.1 and its fallback set, and the longest of its copies of a list.
#[test]
fn what_shim_sets_is_kept_and_the_boot_order_can_be_made_anew() {
    let mut store = Tested::new();
    let not_lasting_at_run_time = BOOT | VariableAttributes::NON_VOLATILE;
    let list = vec![0x5a; 8664];
    for (name, attributes, data) in [
        ("SbatLevel", not_lasting_at_run_time, &b"sbat,1,2021030218\n"[..]),
        ("MokListRT", BOTH, &list),
        ("MokListXRT", BOTH, &list[..76]),
        ("Boot0004", LASTING, b"an option"),
        ("BootOrder", LASTING, &[0, 0, 1, 0]),
    ] {
        assert_eq!(store.get(name, Phase::Boot), Err(Status::NOT_FOUND));
        assert_eq!(store.set(name, attributes, b"", Phase::Boot), Status::NOT_FOUND, "{name} is deleted first");
        assert_eq!(store.set(name, attributes, data, Phase::Boot), Status::SUCCESS, "{name}");
        assert_eq!(store.get(name, Phase::Boot), Ok((attributes, data.to_vec())), "{name}");
    }
    assert_eq!(store.set("BootOrder", BOTH, b"", Phase::Boot), Status::INVALID_PARAMETER, "other attributes");
    assert_eq!(store.set("BootOrder", LASTING, b"", Phase::Boot), Status::SUCCESS);
    assert_eq!(store.set("BootOrder", LASTING, &[4, 0, 0, 0], Phase::Boot), Status::SUCCESS);
    assert_eq!(store.get("BootOrder", Phase::Boot), Ok((LASTING, vec![4, 0, 0, 0])));
    for attributes in [not_lasting_at_run_time, BOTH, LASTING] {
        assert!(Store::new(&mut store.0).info(attributes, Phase::Boot).is_ok(), "shim asks 20 times");
    }
}

#[derive(Clone, Debug)]
struct Call {
    name: u8,
    attributes: VariableAttributes,
    data: Vec<u8>,
}

prop_compose! {
    fn call()(
        name in 0..4_u8,
        kind in 0..4_usize,
        appends in any::<bool>(),
        data in prop::collection::vec(any::<u8>(), 0..40),
    ) -> Call {
        let attributes = [BOOT, BOTH, LASTING, VariableAttributes::empty()][kind];
        Call { name, attributes: if appends { attributes | APPEND } else { attributes }, data }
    }
}

proptest! {
    #[test]
    fn any_calls_leave_what_a_map_would_hold(calls in prop::collection::vec(call(), 0..60)) {
        let mut store = Tested::new();
        let mut model = BTreeMap::<u8, (VariableAttributes, Vec<u8>)>::new();
        for Call { name, attributes, data } in calls {
            let text = std::format!("Name{name}");
            let status = store.set(&text, attributes, &data, Phase::Boot);
            let (plain, appends) = (attributes - APPEND, attributes.contains(APPEND));
            let deletes = plain.is_empty() || data.is_empty() && !appends;
            let expected = match model.get_mut(&name) {
                None if deletes => Status::NOT_FOUND,
                None => {
                    if !data.is_empty() {
                        model.insert(name, (plain, data));
                    }
                    Status::SUCCESS
                }
                Some((old, _)) if *old != plain && !plain.is_empty() => Status::INVALID_PARAMETER,
                Some(_) if deletes => {
                    model.remove(&name);
                    Status::SUCCESS
                }
                Some((_, old)) => {
                    if !appends {
                        old.clear();
                    }
                    old.extend(data);
                    Status::SUCCESS
                }
            };
            prop_assert_eq!(status, expected);
            prop_assert_eq!(store.names(Phase::Boot).len(), model.len());
            for (name, (attributes, data)) in &model {
                prop_assert_eq!(store.get(&std::format!("Name{name}"), Phase::Boot), Ok((*attributes, data.clone())));
            }
        }
    }

    #[test]
    fn bytes_that_a_running_system_has_written_are_no_variables_or_whole_ones(
        changes in prop::collection::vec((0..0x100_usize, any::<u8>()), 0..12), len in 0..0x120_usize,
    ) {
        let mut store = Tested::new();
        assert_eq!(store.set("A", BOTH, b"some data", Phase::Boot), Status::SUCCESS);
        assert_eq!(store.set("Another", LASTING, &[7; 50], Phase::Boot), Status::SUCCESS);
        changes.iter().for_each(|&(at, byte)| store.0[at] = byte);
        store.0.truncate(len);
        store.names(Phase::Boot);
        let _ = store.set("B", LASTING, b"new", Phase::Runtime);
        let _ = store.set("A", BOTH, b"longer than the data before", Phase::Boot);
        let _ = store.set("Another", LASTING, b"", Phase::Boot);
    }
}
