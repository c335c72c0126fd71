//! EFI variables: calls of an operating system, on a store that it may have overwritten.
//!
//! Input: whether the store is overwritten, bytes for that, and calls: which one, a name, attributes, a phase, data.

use std::collections::BTreeMap;

use firstlight::efi::variables::{MOST_BYTES, Name, Phase, STORE_LEN, Store};
use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Guid, guid};

use crate::input::Input;

/// Bytes of the store that are checked for writes, behind the end.
const BEHIND: usize = 64;
const VENDORS: [Guid; 2] =
    [guid!("8be4df61-93ca-11d2-aa0d-00e098032b8c"), guid!("cfc8fc79-be2e-4ddc-97f0-9f98bfe298a0")];

/// Applies the calls. What is in a store that nobody overwrites is what was set, with names that do not repeat. In any store, each
/// listed variable can be read, the list ends, and no data are longer than the limit.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut memory = vec![0; STORE_LEN + BEHIND];
    memory[STORE_LEN..].fill(0x5a);
    let is_overwritten = input.take::<bool>();
    if is_overwritten {
        let contents = input.long();
        memory[..contents.len().min(STORE_LEN)].copy_from_slice(&contents[..contents.len().min(STORE_LEN)]);
    }
    let mut model = BTreeMap::new();
    while !input.is_empty() {
        let (name, vendor) = (name(&mut input), input.pick(&VENDORS));
        let phase = input.pick(&[Phase::Boot, Phase::Runtime]);
        let attributes = VariableAttributes::from_bits_retain(u32::from(input.take::<u8>()));
        let data = input.long();
        let Some(parsed) = Name::up_to_nul(&name) else { continue };
        let mut store = Store::new(&mut memory[..STORE_LEN]);
        let before = store.get(parsed, vendor, Phase::Boot).ok().map(|variable| variable.data.to_vec());
        let is_set = store.set(parsed, vendor, attributes, data, phase).is_ok();
        let after = store.get(parsed, vendor, Phase::Boot).ok().map(|variable| variable.data.to_vec());
        let appends = attributes.contains(VariableAttributes::APPEND_WRITE);
        let deletes = data.is_empty() && !appends || !attributes.intersects(ACCESS);
        let key = ([parsed.bytes(), &[0, 0]].concat(), vendor.to_bytes());
        if !is_set {
            assert_eq!(after, before, "a call that fails changes nothing");
        } else if !is_overwritten {
            if deletes {
                model.remove(&key);
            } else {
                let mut expected = if appends { before.unwrap_or_default() } else { Vec::new() };
                expected.extend(data);
                // Appending nothing to nothing makes no variable.
                if !expected.is_empty() {
                    model.insert(key, expected);
                }
            }
        }
        let listed = list(&store);
        if !is_overwritten {
            assert_eq!(sorted(listed), model, "the store holds what was set");
        }
    }
    assert!(memory[STORE_LEN..].iter().all(|&byte| byte == 0x5a), "written behind the store");
}

/// What a variable has at least one of.
const ACCESS: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);

type Key = (Vec<u8>, [u8; 16]);

/// All variables, in the order of the store.
fn list(store: &Store<'_>) -> Vec<(Key, Vec<u8>)> {
    let (mut listed, mut last) = (Vec::<(Key, Vec<u8>)>::new(), None);
    loop {
        let next = match store.next(last, Phase::Boot) {
            Ok(next) => next,
            Err(_) => return listed,
        };
        assert!(store.get(next.name, next.vendor, Phase::Boot).is_ok());
        assert!(next.name.bytes().len() + next.data.len() <= MOST_BYTES);
        let name = [next.name.bytes(), &[0, 0]].concat();
        let key = (name, next.vendor.to_bytes());
        // A name that repeats in an overwritten store leads back to the first of it.
        if listed.iter().any(|(other, _)| *other == key) {
            return listed;
        }
        listed.push((key, next.data.to_vec()));
        last = Some((next.name, next.vendor));
    }
}

fn sorted(listed: Vec<(Key, Vec<u8>)>) -> BTreeMap<Key, Vec<u8>> {
    let count = listed.len();
    let sorted: BTreeMap<_, _> = listed.into_iter().collect();
    assert_eq!(sorted.len(), count, "a name repeats");
    sorted
}

/// A name in UTF-16 with a NUL: often one of a few, so that calls meet.
fn name(input: &mut Input<'_>) -> Vec<u8> {
    let text = match input.take::<u8>() {
        choice @ 0..0xc0 => vec![u16::from(b'a' + choice % 4)],
        _ => input.short().iter().map(|&byte| byte.into()).collect(),
    };
    text.into_iter().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Calls that set, extend and delete; a store that fills up; a store with records that no call makes.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let call = |name: u8, attributes: u8, data: &[u8]| {
        [&[name, 0, 0, attributes][..], &(data.len() as u16).to_le_bytes(), data].concat()
    };
    let calls = [call(0, 7, b"one"), call(1, 7, b"two"), call(0, 0x47, b" more"), call(1, 7, b""), call(0, 0, b"")];
    let large: Vec<_> = (0..4).map(|name| call(name, 7, &[name; 20_000])).collect();
    let record = |name: &[u8], data: &[u8]| {
        let lens = [name.len() as u32, data.len() as u32].map(u32::to_le_bytes);
        let mut record = [b"VAR1\x07\0\0\0", &VENDORS[0].to_bytes()[..], lens.as_flattened(), name, data].concat();
        record.resize(record.len().next_multiple_of(8), 0);
        record
    };
    let overwritten =
        |records: &[u8]| [&[1][..], &(records.len() as u16).to_le_bytes(), records, &calls.concat()].concat();
    vec![
        [&[0][..], &calls.concat()].concat(),
        [&[0][..], &large.concat()].concat(),
        overwritten(&[record(b"a\0", b"1"), record(b"b\0", b"2"), record(b"a\0", b"3")].concat()),
        overwritten(&[record(b"a\0", &[7; 4000]), record(b"", b"2"), record(b"b", b"")].concat()),
    ]
}
