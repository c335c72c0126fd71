//! Commands, as the controller reads them.
//!
//! Sources: NVM Express Base Specification 1.4, figures 105 (the common part), 150 and 154 (queues), 244 (Identify), 362 (Read),
//! sections 5.21 (Set Features) and 5.21.1.7 (the number of queues).

use crate::addr::PhysAddr;
use crate::hal::DeviceRange;

/// Identify a namespace, the controller, or list the active namespaces.
pub(super) const NAMESPACE: u32 = 0;
pub(super) const CONTROLLER: u32 = 1;
pub(super) const ACTIVE_NAMESPACES: u32 = 2;

/// Operations: of the admin queue, and of the others.
const CREATE_SUBMISSION_QUEUE: u32 = 0x01;
const CREATE_COMPLETION_QUEUE: u32 = 0x05;
const IDENTIFY: u32 = 0x06;
const SET_FEATURES: u32 = 0x09;
const READ: u32 = 0x02;
/// The feature that is the number of queues, without those for admin commands.
const NUMBER_OF_QUEUES: u32 = 0x07;
/// A queue in one piece of memory. Without interrupts, for the one of completions.
const CONTIGUOUS: u32 = 1;

/// A command without its identifier: its dwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command {
    operation: u32,
    namespace: u32,
    /// PRP entries 1 and 2: the data's first page, and its second or a list of the others.
    pages: (u64, u64),
    /// Dwords 10 to 12.
    parameters: [u32; 3],
}

impl Command {
    /// Writes 4096 bytes of what `kind` says to `page`.
    pub(super) fn identify(kind: u32, namespace: u32, page: DeviceRange) -> Self {
        Self { operation: IDENTIFY, namespace, pages: (page.start().get(), 0), parameters: [kind, 0, 0] }
    }

    /// Asks for one queue of commands and one of completions.
    pub(super) const fn one_pair_of_queues() -> Self {
        // The numbers, both in one dword, are less by one.
        Self { operation: SET_FEATURES, namespace: 0, pages: (0, 0), parameters: [NUMBER_OF_QUEUES, 0, 0] }
    }

    /// Creates the queue of completions with this number, in one page.
    pub(super) fn create_completion_queue(number: u16, page: DeviceRange, entries: u16) -> Self {
        let parameters = [queue(number, entries), CONTIGUOUS, 0];
        Self { operation: CREATE_COMPLETION_QUEUE, namespace: 0, pages: (page.start().get(), 0), parameters }
    }

    /// Creates the queue of commands with this number, whose completions go to the queue of the same number.
    pub(super) fn create_submission_queue(number: u16, page: DeviceRange, entries: u16) -> Self {
        let parameters = [queue(number, entries), u32::from(number) << 16 | CONTIGUOUS, 0];
        Self { operation: CREATE_SUBMISSION_QUEUE, namespace: 0, pages: (page.start().get(), 0), parameters }
    }

    /// Reads `blocks` blocks, from `first` on, to the pages. There are 1 to 65,536 blocks.
    pub(super) fn read(namespace: u32, first: u64, blocks: u64, (start, rest): (PhysAddr, PhysAddr)) -> Self {
        let last = blocks.saturating_sub(1) as u32 & 0xffff;
        let parameters = [first as u32, (first >> 32) as u32, last];
        Self { operation: READ, namespace, pages: (start.get(), rest.get()), parameters }
    }

    /// The bytes of the command with this identifier.
    pub(super) fn bytes(&self, identifier: u16) -> [u8; 64] {
        let ((first, second), [p10, p11, p12]) = (self.pages, self.parameters);
        let dwords = [
            self.operation | u32::from(identifier) << 16,
            self.namespace,
            0,
            0,
            0,
            0,
            first as u32,
            (first >> 32) as u32,
            second as u32,
            (second >> 32) as u32,
            p10,
            p11,
            p12,
            0,
            0,
            0,
        ];
        let mut bytes = [0; 64];
        for (to, dword) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(dwords) {
            *to = dword.to_le_bytes();
        }
        bytes
    }
}

/// The dword for the number of a queue and that of its entries.
fn queue(number: u16, entries: u16) -> u32 {
    u32::from(entries).saturating_sub(1) << 16 | u32::from(number)
}
