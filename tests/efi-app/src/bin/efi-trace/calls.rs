//! The tables of functions whose calls are printed, and the names of GUIDs.
//!
//! Not there are services that say nothing about a firmware and are called often: those for memory that is copied or set, and those
//! for task priorities.

use uefi_raw::{Guid, guid};

/// A table of functions: the boot services, the runtime services or the interface of a protocol.
pub struct Table {
    pub name: &'static str,
    /// The protocol. Services have none.
    pub guid: Guid,
    /// Whether the first argument of each function is the interface.
    pub has_this: bool,
    /// The length in words of eight bytes, as far as images use it.
    pub len: usize,
    pub functions: &'static [Function],
}

/// A function: its place in the table in words, its name, and its arguments, a character for each (`line::Line::argument`).
pub type Function = (usize, &'static str, &'static str);

/// The numbers of some tables.
pub const BOOT: usize = 0;
pub const RUNTIME: usize = 1;
pub const FILE: usize = 2;
pub const INPUT: usize = 3;
pub const OUTPUT: usize = 4;

/// The most tables, functions of a table, and words of a table.
pub const MOST_TABLES: usize = 16;
pub const MOST_FUNCTIONS: usize = 64;
pub const MOST_WORDS: usize = 48;

const NONE: Guid = guid!("00000000-0000-0000-0000-000000000000");

const fn protocol(name: &'static str, guid: Guid, len: usize, functions: &'static [Function]) -> Table {
    Table { name, guid, has_this: true, len, functions }
}

pub const TABLES: &[Table] = &[
    Table { name: "BS", guid: NONE, has_this: false, len: 47, functions: BOOT_SERVICES },
    Table { name: "RT", guid: NONE, has_this: false, len: 17, functions: RUNTIME_SERVICES },
    protocol(
        "File",
        NONE,
        15,
        &[
            (1, "Open", "tfsuu"),
            (2, "Close", "t"),
            (3, "Delete", "t"),
            (4, "Read", "tz"),
            (5, "Write", "tz"),
            (6, "GetPosition", "to"),
            (7, "SetPosition", "tu"),
            (8, "GetInfo", "tgzo"),
            (9, "SetInfo", "tgu"),
            (10, "Flush", "t"),
            (11, "OpenEx", "t"),
            (12, "ReadEx", "t"),
            (13, "WriteEx", "t"),
            (14, "FlushEx", "t"),
        ],
    ),
    protocol(
        "TextIn",
        guid!("387477c1-69c7-11d2-8e39-00a0c969723b"),
        3,
        &[(0, "Reset", "tb"), (1, "ReadKeyStroke", "to")],
    ),
    protocol(
        "TextOut",
        guid!("387477c2-69c7-11d2-8e39-00a0c969723b"),
        10,
        &[
            (0, "Reset", "tb"),
            (1, "OutputString", "t"),
            (2, "TestString", "ts"),
            (3, "QueryMode", "tuoo"),
            (4, "SetMode", "tu"),
            (5, "SetAttribute", "tu"),
            (6, "ClearScreen", "t"),
            (7, "SetCursorPosition", "t"),
            (8, "EnableCursor", "tb"),
        ],
    ),
    protocol(
        "TextInEx",
        guid!("dd9e7534-7762-4698-8c14-f58517a625aa"),
        6,
        &[
            (0, "Reset", "tb"),
            (1, "ReadKeyStrokeEx", "to"),
            (3, "SetState", "to"),
            (4, "RegisterKeyNotify", "tooo"),
            (5, "UnregisterKeyNotify", "to"),
        ],
    ),
    protocol("SimpleFs", guid!("964e5b22-6459-11d2-8e39-00a0c969723b"), 2, &[(1, "OpenVolume", "tf")]),
    protocol(
        "BlockIo",
        guid!("964e5b21-6459-11d2-8e39-00a0c969723b"),
        6,
        // The number of the medium is the firmware's choice.
        &[(2, "Reset", "tb"), (3, "ReadBlocks", "t.uu"), (4, "WriteBlocks", "t.uu"), (5, "FlushBlocks", "t")],
    ),
    protocol("LoadFile", guid!("56ec3091-954c-11d2-8e3f-00a0c969723b"), 1, &[(0, "LoadFile", "tpbzo")]),
    protocol("LoadFile2", guid!("4006c0c1-fcb3-403e-996d-4a6c8724e06d"), 1, &[(0, "LoadFile", "tpbzo")]),
    protocol(
        "GOP",
        guid!("9042a9de-23dc-4a38-96fb-7aded080516a"),
        4,
        &[(0, "QueryMode", "td"), (1, "SetMode", "td"), (2, "Blt", "t.d")],
    ),
    protocol("RNG", guid!("3152bca5-eade-433d-862e-c01cdc291f44"), 2, &[(0, "GetInfo", "tzo"), (1, "GetRNG", "tgu")]),
    protocol(
        "SerialIo",
        guid!("bb25cf6f-f1d4-11d2-9a0c-0090273fc1fd"),
        9,
        &[
            (1, "Reset", "t"),
            (2, "SetAttributes", "tudd"),
            (3, "SetControl", "td"),
            (4, "GetControl", "to"),
            (5, "Write", "tz"),
            (6, "Read", "tz"),
        ],
    ),
    Table {
        name: "ToText",
        guid: guid!("8b843e20-8132-4852-90cc-551a4e4a7f1c"),
        has_this: false,
        len: 2,
        functions: &[(0, "Node", "pbb*"), (1, "Path", "pbb*")],
    },
];

const BOOT_SERVICES: &[Function] = &[
    (5, "AllocatePages", "ddu"),
    (6, "FreePages", ".u"),
    (7, "GetMemoryMap", ".o"),
    // The length is that of the memory map, or of a list of handles.
    (8, "AllocatePool", "d"),
    (9, "FreePool", "o"),
    (10, "CreateEvent", "duo"),
    (11, "SetTimer", ".du"),
    (12, "WaitForEvent", "u"),
    (13, "SignalEvent", ""),
    (14, "CloseEvent", ""),
    (15, "CheckEvent", ""),
    (16, "InstallProtocolInterface", "Hgd"),
    (17, "ReinstallProtocolInterface", "hg"),
    (18, "UninstallProtocolInterface", "hg"),
    (19, "HandleProtocol", "hgi"),
    (21, "RegisterProtocolNotify", "g"),
    (22, "LocateHandle", "dg.zo"),
    (23, "LocateDevicePath", "gPr"),
    (24, "InstallConfigurationTable", "go"),
    (25, "LoadImage", "bhpou"),
    (26, "StartImage", "h"),
    (27, "Exit", "hu"),
    (28, "UnloadImage", "h"),
    (29, "ExitBootServices", "h"),
    (30, "GetNextMonotonicCount", "o"),
    (31, "Stall", "u"),
    (32, "SetWatchdogTimer", "uuuo"),
    (33, "ConnectController", "hopb"),
    (34, "DisconnectController", "hhh"),
    (35, "OpenProtocol", "hgihhd"),
    (36, "CloseProtocol", "hghh"),
    (37, "OpenProtocolInformation", "hg"),
    (38, "ProtocolsPerHandle", "h"),
    (39, "LocateHandleBuffer", "dg.c"),
    (40, "LocateProtocol", "g.i"),
    (41, "InstallMultipleProtocolInterfaces", "Hm"),
    (42, "UninstallMultipleProtocolInterfaces", "hm"),
    (43, "CalculateCrc32", ".uo"),
    (46, "CreateEventEx", "duo.g"),
];

const RUNTIME_SERVICES: &[Function] = &[
    (3, "GetTime", "oo"),
    (4, "SetTime", "o"),
    (5, "GetWakeupTime", "ooo"),
    (6, "SetWakeupTime", "bo"),
    (7, "SetVirtualAddressMap", ""),
    (8, "ConvertPointer", ""),
    (9, "GetVariable", "sgozo"),
    (10, "GetNextVariableName", "zsg"),
    (11, "SetVariable", "sgduo"),
    (12, "GetNextHighMonotonicCount", "o"),
    (13, "ResetSystem", "d"),
    (14, "UpdateCapsule", ""),
    (15, "QueryCapsuleCapabilities", ""),
    (16, "QueryVariableInfo", "dooo"),
];

/// The names of GUIDs that loaders use and that are in no table: those of EDK II, of Linux, and of shim.
pub const NAMES: &[(&str, Guid)] = &[
    ("Global", guid!("8be4df61-93ca-11d2-aa0d-00e098032b8c")),
    ("Loader", guid!("4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")),
    ("ShimLock", guid!("605dab50-e046-4300-abb6-3dd810dd8b23")),
    ("ImageSecurity", guid!("d719b2cb-3d3a-4596-a3bc-dad00e67656f")),
    ("LoadedImage", guid!("5b1b31a1-9562-11d2-8e3f-00a0c969723b")),
    ("LoadedImageDevicePath", guid!("bc62157e-3e33-4fec-9920-2d3b36d750df")),
    ("DevicePath", guid!("09576e91-6d3f-11d2-8e39-00a0c969723b")),
    ("FileInfo", guid!("09576e92-6d3f-11d2-8e39-00a0c969723b")),
    ("PciIo", guid!("4cf5b200-68b8-4ca5-9eec-b23e3f50029a")),
    ("PciRootBridgeIo", guid!("2f707ebb-4a1a-11d4-9a38-0090273fc14d")),
    ("SNP", guid!("a19832b9-ac25-11d3-9a2d-0090273fc14d")),
    ("PxeBc", guid!("03c4e603-ac28-11d3-9a2d-0090273fc14d")),
    ("TCG1", guid!("f541796d-a62e-4954-a775-9584f61b9cdd")),
    ("TCG2", guid!("607f766c-7455-42be-930b-e4d76db2720f")),
    ("CcMeasurement", guid!("96751a3d-72f4-41a6-a794-ed5d0e67ae6b")),
    ("MemoryAttribute", guid!("f4560cf6-40ec-4b4a-a192-bf1d57d0b189")),
    ("UgaDraw", guid!("982c298b-f4fa-41cb-b838-77aa688fb839")),
    ("ConsoleControl", guid!("f42f7782-012e-4c12-9956-49f94304f721")),
    ("UnicodeCollation", guid!("1d85cd7f-f43d-11d2-9a0c-0090273fc14d")),
    ("ConsoleOutDevice", guid!("d3b36f2c-d551-11d4-9a46-0090273fc14d")),
    ("ShellParameters", guid!("752f3136-4e16-4fdc-a22a-e5f46812f4ca")),
    ("EdidActive", guid!("bd8c1056-9f36-44ec-92a8-a6337f817986")),
    ("EdidDiscovered", guid!("1c0c34f6-d380-41fa-a049-8ad06c1a66aa")),
    ("LinuxInitrd", guid!("5568e427-68fc-4f3d-ac74-ca555231cc68")),
    ("LinuxRandomSeed", guid!("1ce1e5bc-7ceb-42f2-81e5-8aadf180f57b")),
    ("LinuxMemoryMap", guid!("800f683f-d08b-423a-a293-965c3c6fe2b4")),
    ("AppleProperties", guid!("91bd12fe-f6c3-44fb-a5b7-5122ab303ae0")),
    ("Security2", guid!("94ab2f58-1438-4ef1-9152-18941a3a0e68")),
    ("Security", guid!("a46423e3-4617-49f1-b9ff-d1bfa9115839")),
];
