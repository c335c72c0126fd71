//! The users of an interface, and which uses exclude each other (UEFI 7.3, `OpenProtocol`).

use alloc::vec::Vec;

use uefi_raw::Status;

use super::Handle;
use crate::heap;

/// How an interface is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// `BY_HANDLE_PROTOCOL`.
    Handle,
    /// `GET_PROTOCOL`.
    Get,
    /// `TEST_PROTOCOL`: whether it is there; it is not opened.
    Test,
    /// `BY_CHILD_CONTROLLER`.
    ChildController,
    /// `BY_DRIVER`.
    Driver,
    /// `EXCLUSIVE`.
    Exclusive,
    /// `BY_DRIVER` and `EXCLUSIVE`.
    ExclusiveDriver,
}

impl OpenMode {
    /// The mode with these attributes, if the specification has it.
    #[must_use]
    pub const fn from_attributes(attributes: u32) -> Option<Self> {
        Some(match attributes {
            0x01 => Self::Handle,
            0x02 => Self::Get,
            0x04 => Self::Test,
            0x08 => Self::ChildController,
            0x10 => Self::Driver,
            0x20 => Self::Exclusive,
            0x30 => Self::ExclusiveDriver,
            _ => return None,
        })
    }

    /// The attributes.
    #[must_use]
    pub const fn attributes(self) -> u32 {
        match self {
            Self::Handle => 0x01,
            Self::Get => 0x02,
            Self::Test => 0x04,
            Self::ChildController => 0x08,
            Self::Driver => 0x10,
            Self::Exclusive => 0x20,
            Self::ExclusiveDriver => 0x30,
        }
    }

    /// Whether the interface can be neither removed nor replaced while it is open in this mode.
    #[must_use]
    pub const fn is_held(self) -> bool {
        matches!(self, Self::ChildController | Self::Driver | Self::Exclusive | Self::ExclusiveDriver)
    }
}

/// The user of an interface: the image, and the controller for which the image opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agent {
    /// The image.
    pub image: Option<Handle>,
    /// The controller.
    pub controller: Option<Handle>,
}

/// An interface that is open (UEFI 7.3, `EFI_OPEN_PROTOCOL_INFORMATION_ENTRY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// The user.
    pub agent: Agent,
    /// The mode.
    pub mode: OpenMode,
    /// How often this user has opened it in this mode.
    pub count: u32,
}

/// Adds a user to the list.
///
/// # Errors
/// `ALREADY_STARTED` if the same image has it open in the same driver mode, `ACCESS_DENIED` if another use excludes this one;
/// `OUT_OF_RESOURCES`.
pub fn add(opens: &mut Vec<Open>, agent: Agent, mode: OpenMode) -> Result<(), Status> {
    let held = opens
        .iter()
        .find(|open| matches!(open.mode, OpenMode::Driver | OpenMode::Exclusive | OpenMode::ExclusiveDriver));
    if let Some(held) = held
        && matches!(mode, OpenMode::Driver | OpenMode::Exclusive | OpenMode::ExclusiveDriver)
    {
        let is_same = held.mode == mode && mode != OpenMode::Exclusive && held.agent.image == agent.image;
        return Err(if is_same { Status::ALREADY_STARTED } else { Status::ACCESS_DENIED });
    }
    if mode == OpenMode::Test {
        return Ok(());
    }
    if let Some(open) = opens.iter_mut().find(|open| open.agent == agent && open.mode == mode) {
        open.count = open.count.saturating_add(1);
        return Ok(());
    }
    heap::push(opens, Open { agent, mode, count: 1 }).map_err(|_| Status::OUT_OF_RESOURCES)
}
