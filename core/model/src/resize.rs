//! A server of another size, until that is confirmed or taken back.

use serde::{Deserialize, Serialize};

use crate::{FlavorRef, Resources, Server, Timestamp};

/// A change of size that can be taken back. The new flavor stands in the server's spec from the request on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resize {
    /// The flavor that a revert goes back to. What it takes stays taken until then.
    pub former: FlavorRef,
    /// When it was asked for.
    pub since: Timestamp,
    /// When it confirms itself; none: never, or not yet done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_at: Option<Timestamp>,
}

impl Resources {
    /// The larger of both, each for itself.
    #[must_use]
    pub fn at_least(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.max(other.vcpus),
            memory_mib: self.memory_mib.max(other.memory_mib),
            disk_gib: self.disk_gib.max(other.disk_gib),
        }
    }
}

impl Server {
    /// What is kept for it on its host and charged to its project: while a resize is neither confirmed nor taken back, the larger of
    /// both sizes. One that boots from a volume has no root disk of its own.
    #[must_use]
    pub fn reserved(&self) -> Resources {
        let wanted = self.spec.flavor.spec.resources;
        let mut all = match &self.status.resize {
            Some(resize) => wanted.at_least(resize.former.spec.resources),
            None => wanted,
        };
        if self.spec.boot_volume.is_some() {
            all.disk_gib = 0;
        }
        all
    }
}
