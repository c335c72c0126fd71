//! Variables of the program's own, and those that say how the machine was started.

use alloc::format;
use alloc::string::ToString;

use uefi::runtime::{self, VariableAttributes, VariableVendor};
use uefi::{CStr16, Guid, cstr16, guid};

use crate::report::{line, result, status};
use crate::system;

const VENDOR: VariableVendor = VariableVendor(guid!("ba57e015-65b3-4c3c-b274-659192f60001"));
const NAME: &CStr16 = cstr16!("Own");

/// Prints what the services do with variables.
pub fn check() {
    let boot = VariableAttributes::BOOTSERVICE_ACCESS;
    let both = boot | VariableAttributes::RUNTIME_ACCESS;
    let append = VariableAttributes::APPEND_WRITE;
    let set = |attributes, data: &[u8]| runtime::set_variable(NAME, &VENDOR, attributes, data);
    let get = || match runtime::get_variable_boxed(NAME, &VENDOR) {
        Ok((data, attributes)) => format!("{} {:#x}", core::str::from_utf8(&data).unwrap_or("?"), attributes.bits()),
        Err(error) => format!("{:?}", error.status()),
    };
    line("GetVariable: absent", get());
    result("SetVariable", set(both, b"first"));
    line("GetVariable", get());
    result("SetVariable: other data", set(both, b"second"));
    line("GetVariable: other data", get());
    result("SetVariable: append", set(both | append, b" and more"));
    line("GetVariable: appended", get());
    result("SetVariable: append nothing", set(both | append, b""));
    result("SetVariable: other attributes", set(boot, b"third"));
    line("GetVariable: as before", get());
    let mut buffer = [0; 4];
    result(
        "GetVariable: no room",
        runtime::get_variable(NAME, &VENDOR, &mut buffer).map_err(|error| error.status().into()),
    );
    let names = || {
        let own = runtime::variable_keys().filter_map(Result::ok).filter(|key| key.vendor == VENDOR);
        own.map(|key| key.name.to_string()).collect::<alloc::vec::Vec<_>>().join(" ")
    };
    line("GetNextVariableName", names());
    result("SetVariable: delete", runtime::delete_variable(NAME, &VENDOR));
    result("SetVariable: delete again", runtime::delete_variable(NAME, &VENDOR));
    line("GetVariable: deleted", get());
    line("GetNextVariableName: deleted", names());

    result("SetVariable: without attributes", set(VariableAttributes::empty(), b"data"));
    result("SetVariable: for the system only", set(VariableAttributes::RUNTIME_ACCESS, b"data"));
    result("SetVariable: not volatile", set(both | VariableAttributes::NON_VOLATILE, b"kept"));
    line("GetVariable: not volatile", get());
    result("SetVariable: no data", set(both | VariableAttributes::NON_VOLATILE, b""));
    let counted = VariableAttributes::AUTHENTICATED_WRITE_ACCESS;
    result("SetVariable: authenticated by a count", set(both | counted, b"data"));
    result("SetVariable: no name", runtime::set_variable(cstr16!(""), &VENDOR, both, b"data"));
    check_limits(both);
    for name in [cstr16!("SecureBoot"), cstr16!("SetupMode"), cstr16!("OsIndicationsSupported"), cstr16!("BootCurrent")]
    {
        let found = runtime::get_variable_boxed(name, &VariableVendor::GLOBAL_VARIABLE);
        line(
            &format!("variable {name}"),
            found.map_or_else(|error| format!("{:?}", error.status()), |(data, _)| format!("{data:?}")),
        );
    }
}

fn check_limits(attributes: VariableAttributes) {
    line(
        "QueryVariableInfo",
        runtime::query_variable_info(attributes).is_ok_and(|info| {
            info.remaining_variable_storage_size <= info.maximum_variable_storage_size && info.maximum_variable_size > 0
        }),
    );
    result("QueryVariableInfo: without attributes", runtime::query_variable_info(VariableAttributes::empty()));
    let large = alloc::vec![0x5a; 1 << 20];
    result("SetVariable: a megabyte", runtime::set_variable(NAME, &VENDOR, attributes, &large));
    let services = system::table().runtime_services;
    let vendor: Guid = VENDOR.0;
    // SAFETY: there is no name, which the service has to find.
    status("GetVariable: null", unsafe {
        ((*services).get_variable)(
            core::ptr::null(),
            &vendor,
            core::ptr::null_mut(),
            core::ptr::null_mut(),
            core::ptr::null_mut(),
        )
    });
    let (mut name, mut len, mut vendor) = ([u16::from(b'x'), 0, 0, 0], 8, vendor);
    // SAFETY: the name has eight bytes.
    status("GetNextVariableName: of no variable", unsafe {
        ((*services).get_next_variable_name)(&mut len, name.as_mut_ptr(), &mut vendor)
    });
}
