//! Device paths: text and back.

use alloc::string::ToString;

use uefi::boot;
use uefi::proto::device_path::text::{AllowShortcuts, DevicePathFromText, DevicePathToText, DisplayOnly};
use uefi::proto::device_path::{DevicePath, LoadedImageDevicePath};
use uefi::proto::loaded_image::LoadedImage;
use uefi::{CString16, Result};

use crate::report::{line, result};

/// Texts of UEFI 10.6 that have to become the same text again.
const TEXTS: [&str; 12] = [
    "PciRoot(0x0)/Pci(0x1F,0x2)",
    "PciRoot(0x0)/Pci(0x1,0x0)/Pci(0x0,0x1)",
    "Acpi(PNP0A03,0x0)",
    "PciRoot(0x0)/Pci(0x2,0x0)/Sata(0x0,0xFFFF,0x0)",
    "PciRoot(0x0)/Pci(0x3,0x0)/Scsi(0x1,0x2)",
    "HD(1,GPT,12345678-1234-5678-9ABC-DEF012345678,0x800,0x100000)",
    "HD(2,MBR,0x1A2B3C4D,0x3F,0x1000)",
    "\\EFI\\BOOT\\BOOTX64.EFI",
    "VenMedia(5568E427-68FC-4F3D-AC74-CA555231CC68)",
    "VenHw(1428F772-B64A-441E-B8C3-9EBDD7F893C7,010203)",
    "MAC(525400123456,0x1)",
    "Path(1,1,0102)",
];

/// Prints what becomes of paths.
pub fn check() {
    own_path();
    let (Ok(to), Ok(from)) = (open::<DevicePathToText>(), open::<DevicePathFromText>()) else {
        line("device paths", "no protocols");
        return;
    };
    for text in TEXTS {
        let Ok(wide) = CString16::try_from(text) else { continue };
        let back = from
            .convert_text_to_device_path(&wide)
            .and_then(|path| to.convert_device_path_to_text(&path, DisplayOnly(false), AllowShortcuts(false)));
        match back {
            Ok(back) => line(text, back.to_string()),
            Err(error) => line(text, error),
        }
    }
}

fn open<P: uefi::proto::ProtocolPointer + ?Sized>() -> Result<boot::ScopedProtocol<P>> {
    boot::open_protocol_exclusive::<P>(boot::get_handle_for_protocol::<P>()?)
}

/// Where the program comes from.
fn own_path() {
    let text = |path: &DevicePath| {
        let text = path.to_string16(DisplayOnly(false), AllowShortcuts(false));
        text.map_or_else(|_| "?".to_string(), |text| text.to_string())
    };
    let own = boot::image_handle();
    if let Some(image) = result("LoadedImage", boot::open_protocol_exclusive::<LoadedImage>(own)) {
        line("LoadedImage: file", image.file_path().map_or_else(|| "none".to_string(), text));
        if let Some(device) = image.device() {
            // SAFETY: the handle keeps its path.
            let params = boot::OpenProtocolParams { handle: device, agent: own, controller: None };
            let path = unsafe { boot::open_protocol::<DevicePath>(params, boot::OpenProtocolAttributes::GetProtocol) };
            line("LoadedImage: device path", path.map_or_else(|_| "none".to_string(), |path| text(&path)));
        }
    }
    if let Some(path) = result("LoadedImageDevicePath", boot::open_protocol_exclusive::<LoadedImageDevicePath>(own)) {
        line("LoadedImageDevicePath: text", text(&path));
    }
}
