//! The axes of a server's state. What each state allows is in [`crate::action`].

use serde::{Deserialize, Serialize};

/// Whether the server exists, as far as its owner is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Lifecycle {
    /// Being made.
    Building,
    /// Usable.
    Active,
    /// Making or changing it failed; see `status.fault`.
    Error,
    /// Off, and kept as an image of its root disk; its host forgets it. It is made again on any host that can take it.
    Shelved,
    /// In the recycle bin: off, and removed at `status.purge_at` unless it is restored before.
    Recycled,
    /// Being removed.
    Deleting,
}

/// What the hypervisor last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PowerState {
    /// Nothing is known yet.
    Unknown,
    /// Executing.
    Running,
    /// Held: its CPUs are stopped.
    Paused,
    /// Off.
    Stopped,
    /// Off, with its memory kept on disk: the next start goes on from there.
    Suspended,
    /// Its process ended by itself, not by the guest's own shutdown.
    Crashed,
}

impl Lifecycle {
    /// All values.
    pub const ALL: [Self; 6] = [
        Self::Building,
        Self::Active,
        Self::Error,
        Self::Shelved,
        Self::Recycled,
        Self::Deleting,
    ];
    /// Whether it stays like this without a task under way.
    #[must_use]
    pub const fn steady(self) -> bool {
        match self {
            Self::Active | Self::Error | Self::Shelved | Self::Recycled => true,
            Self::Building | Self::Deleting => false,
        }
    }
}

impl PowerState {
    /// All values.
    pub const ALL: [Self; 6] = [
        Self::Unknown,
        Self::Running,
        Self::Paused,
        Self::Stopped,
        Self::Suspended,
        Self::Crashed,
    ];
    /// Whether a guest executes, or may.
    #[must_use]
    pub const fn may_execute(self) -> bool {
        match self {
            Self::Running | Self::Paused | Self::Unknown => true,
            Self::Stopped | Self::Suspended | Self::Crashed => false,
        }
    }
}
