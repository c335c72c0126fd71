use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::fake::{FakeFwCfg, Quirks};
use super::*;
use crate::hal::fake::{Access, FakeMachine};
use crate::layout;

/// Hosts as they are known to be (name, DMA, defects).
fn hosts() -> Vec<(&'static str, bool, Quirks)> {
    let none = Quirks::default();
    vec![
        ("QEMU", true, none),
        ("QEMU without DMA", false, none),
        ("propolis", true, Quirks { no_dma_signature: true, ..none }),
        ("Cloud Hypervisor", true, Quirks { no_dma_signature: true, ignores_select: true, no_zero_fill: true, ..none }),
        ("AxVisor", true, Quirks { no_dma_signature: true, needs_high_half: true, no_traditional_bit: true, ..none }),
        ("crosvm", false, Quirks { no_traditional_bit: true, ..none }),
    ]
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + 3) as u8).collect()
}

#[test]
fn every_known_host_is_read_alike() {
    for (name, dma, quirks) in hosts() {
        let device = FakeFwCfg::new(dma)
            .with_quirks(quirks)
            .with_item(0x08, &0x1234_5678u32.to_le_bytes())
            .with_item(0x11, &bytes(5000))
            .with_file("etc/e820", &bytes(40))
            .with_file("etc/table-loader", &bytes(300));
        let record = device.record();
        let mut machine = FakeMachine::new().with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();

        assert_eq!(fw_cfg.read_u32(&mut machine, Key::KERNEL_SIZE), Ok(0x1234_5678), "{name}");
        let item = fw_cfg.find("etc/table-loader").unwrap();
        assert_eq!(item.len(), 300);
        assert_eq!(fw_cfg.read_all(&mut machine, item, 4096).unwrap(), bytes(300), "{name}");

        let to = PhysAddr::new(0x10_0000);
        let range = fw_cfg.load(&mut machine, Item::new(Key::KERNEL_DATA, 5000), to).unwrap();
        assert_eq!(range.len(), 5000);
        assert_eq!(machine.memory.bytes(to.get(), 5001), [bytes(5000), vec![0]].concat(), "{name}");

        // A buffer that is longer than the item: the rest is zero, whatever was there, and nothing is read past the end.
        let mut buffer = [0xaa; 64];
        fw_cfg.read(&mut machine, fw_cfg.find("etc/e820").unwrap(), &mut buffer).unwrap();
        assert_eq!(buffer.to_vec(), [bytes(40), vec![0; 24]].concat(), "{name}");
        assert_eq!(record.borrow().past_end, 0, "{name}");
    }
}

#[test]
fn qemu_takes_one_port_write_a_transfer() {
    let device = FakeFwCfg::new(true).with_item(0x11, &bytes(100));
    let mut machine = FakeMachine::new().with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    assert_eq!(fw_cfg.transport(), Transport::QemuDma);
    // A read of the signature, a transfer of the directory's count: there is no file.
    assert_eq!(machine.accesses.len(), 2);
    machine.accesses.clear();
    fw_cfg.load(&mut machine, Item::new(Key::KERNEL_DATA, 100), PhysAddr::new(0x10_0000)).unwrap();
    assert!(matches!(machine.accesses[..], [Access::Out(0x518, 4, _)]), "{:?}", machine.accesses);
}

#[test]
fn a_read_at_an_offset_skips_on_every_transport() {
    for (name, dma, quirks) in hosts() {
        let device = FakeFwCfg::new(dma).with_quirks(quirks).with_file("file", &bytes(400));
        let mut machine = FakeMachine::new().with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let item = fw_cfg.find("file").unwrap();
        let mut buffer = [0; 16];
        fw_cfg.read_at(&mut machine, item, 390, &mut buffer).unwrap();
        assert_eq!(buffer[..10], bytes(400)[390..], "{name}");
        assert_eq!(buffer[10..], [0; 6], "{name}");
        fw_cfg.read_at(&mut machine, item, 500, &mut buffer).unwrap();
        assert_eq!(buffer, [0; 16], "{name}");
    }
}

#[test]
fn a_write_goes_to_its_offset() {
    let device = FakeFwCfg::new(true).with_file("etc/vmgenid_addr", &[0; 8]);
    let record = device.record();
    let mut machine = FakeMachine::new().with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let item = fw_cfg.find("etc/vmgenid_addr").unwrap();
    fw_cfg.write(&mut machine, item, 4, &[1, 2, 3, 4]).unwrap();
    fw_cfg.write(&mut machine, item, 0, &[5; 8]).unwrap();
    assert_eq!(record.borrow().written, [(0x20, 4, vec![1, 2, 3, 4]), (0x20, 0, vec![5; 8])]);
    // The longest in one piece, and one byte more.
    let device = FakeFwCfg::new(true).with_file("file", &[0; 64]);
    let record = device.record();
    let mut machine = FakeMachine::new().with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let item = fw_cfg.find("file").unwrap();
    fw_cfg.write(&mut machine, item, 0, &bytes(MOST_WRITTEN)).unwrap();
    assert_eq!(record.borrow().written, [(0x20, 0, bytes(MOST_WRITTEN))]);
    assert!(matches!(fw_cfg.write(&mut machine, item, 0, &bytes(MOST_WRITTEN + 1)), Err(Error::NotWritable { .. })));
    // Past the end, by overflow too, and without DMA.
    assert!(matches!(fw_cfg.write(&mut machine, item, 61, &[0; 4]), Err(Error::NotWritable { .. })));
    assert!(matches!(fw_cfg.write(&mut machine, item, u32::MAX, &[0; 4]), Err(Error::NotWritable { .. })));
    let mut machine = FakeMachine::new().with(FakeFwCfg::new(false).with_file("etc/vmgenid_addr", &[0; 8]));
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let item = fw_cfg.find("etc/vmgenid_addr").unwrap();
    assert!(matches!(fw_cfg.write(&mut machine, item, 0, &[0; 4]), Err(Error::NotWritable { .. })));
}

#[test]
fn no_device_is_an_error_that_shows_what_was_read() {
    for absent in [0, u32::MAX] {
        let mut machine = FakeMachine::new();
        machine.absent = absent;
        let error = FwCfg::probe(&mut machine).unwrap_err();
        assert_eq!(error, Error::NoDevice { seen: [absent as u8; 4] });
        assert!(error.to_string().contains("q35"), "{error}");
    }
}

#[test]
fn a_transfer_that_never_ends_meets_the_deadline() {
    let quirks = Quirks { never_completes: true, ..Quirks::default() };
    let mut machine = FakeMachine::new().with(FakeFwCfg::new(true).with_quirks(quirks));
    let error = FwCfg::probe(&mut machine).unwrap_err();
    assert!(matches!(error, Error::Timeout { key: Key::FILE_DIR, .. }), "{error}");
}

#[test]
fn the_error_bit_is_reported() {
    let quirks = Quirks { always_fails: true, ..Quirks::default() };
    let mut machine = FakeMachine::new().with(FakeFwCfg::new(true).with_quirks(quirks));
    assert_eq!(FwCfg::probe(&mut machine).unwrap_err(), Error::Refused { key: Key::FILE_DIR, control: 1 });
}

#[test]
fn nothing_is_loaded_over_the_firmware_or_past_4_gib() {
    for dma in [false, true] {
        let mut machine = FakeMachine::new().with(FakeFwCfg::new(dma));
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        machine.accesses.clear();
        for to in [layout::FIRMWARE_RAM.start().get(), 0xffff_0000, 0xffff_ffff, 0, u64::MAX - 10] {
            let item = Item::new(Key::KERNEL_DATA, 0x1000);
            let result = fw_cfg.load(&mut machine, item, PhysAddr::new(to));
            assert!(matches!(result, Err(Error::Memory(_))), "{to:#x}");
        }
        assert!(machine.accesses.is_empty());
    }
}

#[test]
fn a_directory_that_claims_too_many_files_is_refused() {
    for count in [1025, u32::MAX] {
        for dma in [false, true] {
            let mut machine = FakeMachine::new().with(FakeFwCfg::new(dma).with_item(0x19, &count.to_be_bytes()));
            let error = FwCfg::probe(&mut machine).unwrap_err();
            assert!(matches!(error, Error::TooLarge { key: Key::FILE_DIR, .. }), "{error}");
        }
    }
}

#[test]
fn a_large_directory_is_read_whole() {
    let mut device = FakeFwCfg::new(true);
    for i in 0..100 {
        device = device.with_file(&std::format!("opt/file-{i}"), &bytes(i));
    }
    let mut machine = FakeMachine::new().with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    assert_eq!(fw_cfg.find("opt/file-99").map(Item::len), Some(99));
}

#[test]
fn names_are_compared_whole() {
    let long = "n".repeat(56);
    let device =
        FakeFwCfg::new(true).with_file("etc/e820-old", &[]).with_file("etc/e820", &[1]).with_file(&long, &[2; 2]);
    let mut machine = FakeMachine::new().with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    assert_eq!(fw_cfg.find("etc/e820").map(Item::len), Some(1));
    assert_eq!(fw_cfg.find("etc/e82"), None);
    assert_eq!(fw_cfg.find(&long).map(Item::len), Some(2));
    assert_eq!(fw_cfg.find(&"n".repeat(57)), None);
}

proptest! {
    #[test]
    fn any_directory_bytes_are_survived(contents in proptest::collection::vec(any::<u8>(), 0..600), dma: bool) {
        let mut machine = FakeMachine::new().with(FakeFwCfg::new(dma).with_item(0x19, &contents));
        if let Ok(fw_cfg) = FwCfg::probe(&mut machine) {
            let _ = fw_cfg.find("etc/e820");
        }
    }
}
