//! What happens to domains without being asked for.

use skyloom_model::{PowerState, ServerId};

/// A change of one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmEvent {
    /// Whose; `None` when it concerns the stream itself.
    pub id: Option<ServerId>,
    /// What.
    pub kind: VmEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VmEventKind {
    /// Its power state changed.
    Power {
        /// To this.
        power: PowerState,
        /// Why, where that is known: `guest-shutdown`, `host-request`, `killed`, …
        cause: Option<String>,
    },
    /// Events were lost: inspect everything.
    Lost,
}
