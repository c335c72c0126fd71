//! Whether there is a TPM, as the host and its tables say.

use crate::addr::PhysRange;
use crate::fw_cfg::FwCfg;
use crate::host;

/// What the host and its tables say about a TPM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// There is no TPM.
    #[default]
    Absent,
    /// There is a TPM, and the ACPI tables describe it.
    Described {
        /// The memory for its log.
        log: PhysRange,
    },
    /// There is a TPM, but no table describes it, because there are no tables or they could not be linked.
    Undescribed,
    /// The host does not say whether there is a TPM.
    Unknown,
}

impl Presence {
    /// For a machine whose tables cannot describe a TPM: whether the host would say that there is one.
    #[must_use]
    pub fn without_table(fw_cfg: &FwCfg) -> Self {
        if host::is_silent_on_tpm(fw_cfg) { Self::Unknown } else { Self::Absent }
    }
}
