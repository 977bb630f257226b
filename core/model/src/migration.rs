//! A server on its way to another host.

use serde::{Deserialize, Serialize};

use crate::{HostId, Placement, ServerStatus, Timestamp};

/// A migration under way: its server has a claim on both hosts until it ends. One that was abandoned stays written here, as nobody has
/// said on which host the guest is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerMigration {
    /// Where it goes. Until it is there, its placement is where it comes from.
    pub to: Placement,
    /// Whether its guest runs on.
    pub live: bool,
    /// Since when.
    pub since: Timestamp,
    /// Whether the guest may be held for longer, so that the passes end.
    #[serde(default)]
    pub forced: bool,
}

impl ServerStatus {
    /// Whether something of the server may be on a host: it lives there, or is on its way there.
    #[must_use]
    pub fn may_be_on(&self, host: HostId) -> bool {
        let lives = self.placement.as_ref().is_some_and(|placed| placed.host == host);
        lives
            || self
                .migration
                .as_ref()
                .is_some_and(|moving| moving.to.host == host)
    }
}
