//! The axes of a server's state and the table of what each state allows. CLI, web and OpenAPI are fed from here.

use serde::{Deserialize, Serialize};

use crate::{Reason, ServerStatus};

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

/// What can be asked of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ServerAction {
    /// Turn on.
    Start,
    /// Turn off: ask the guest, then force after a time.
    Stop,
    /// Off and on again.
    Reboot,
    /// Remove with its disks.
    Delete,
}

impl Lifecycle {
    /// All values.
    pub const ALL: [Self; 4] = [Self::Building, Self::Active, Self::Error, Self::Deleting];
    /// Whether it stays like this without a task under way.
    #[must_use]
    pub const fn steady(self) -> bool {
        match self {
            Self::Active | Self::Error => true,
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

impl ServerAction {
    /// All values.
    pub const ALL: [Self; 4] = [Self::Start, Self::Stop, Self::Reboot, Self::Delete];

    /// The flow that does it.
    #[must_use]
    pub const fn flow(self) -> &'static str {
        match self {
            Self::Start => "server.start",
            Self::Stop => "server.stop",
            Self::Reboot => "server.reboot",
            Self::Delete => "server.delete",
        }
    }

    /// The permission that it needs.
    #[must_use]
    pub const fn permission(self) -> &'static str {
        match self {
            Self::Start => "server:start",
            Self::Stop => "server:stop",
            Self::Reboot => "server:reboot",
            Self::Delete => "server:delete",
        }
    }

    /// The power states in which it makes sense for an `active` server.
    #[must_use]
    pub const fn fits(self, power: PowerState) -> bool {
        match (self, power) {
            (Self::Start, PowerState::Stopped | PowerState::Suspended | PowerState::Crashed) => true,
            (Self::Start, PowerState::Running | PowerState::Paused | PowerState::Unknown) => false,
            (Self::Stop | Self::Reboot, PowerState::Running | PowerState::Paused | PowerState::Unknown) => {
                true
            }
            (Self::Stop, PowerState::Stopped) => false,
            (Self::Stop, PowerState::Suspended | PowerState::Crashed) => true,
            (Self::Reboot, PowerState::Stopped | PowerState::Suspended | PowerState::Crashed) => false,
            (Self::Delete, _) => true,
        }
    }

    /// Whether a server in `status` can take this action now.
    ///
    /// # Errors
    /// The reason why not, for people and programs.
    pub fn allowed(self, status: &ServerStatus) -> Result<(), Reason> {
        let verb = self.flow().trim_start_matches("server.");
        if let Some(activity) = &status.activity {
            return Err(Reason::new(
                "server.busy",
                format!("{} is under way as task {}", activity.flow, activity.task),
            )
            .hint("wait for that task, then ask again")
            .retryable());
        }
        if status.overlays.locked {
            return Err(
                Reason::new("server.locked", format!("the server is locked: cannot {verb}"))
                    .hint("unlock it first"),
            );
        }
        if status.overlays.protected && matches!(self, Self::Delete) {
            return Err(
                Reason::new("server.protected", "the server is protected from deletion")
                    .hint("remove the protection first"),
            );
        }
        match status.lifecycle {
            Lifecycle::Active => {}
            Lifecycle::Error if matches!(self, Self::Delete) => return Ok(()),
            Lifecycle::Error => {
                return Err(Reason::new(
                    "server.in_error",
                    format!("the server is in error: cannot {verb}"),
                )
                .hint("see status.fault; delete it and create it anew"));
            }
            Lifecycle::Building | Lifecycle::Deleting => {
                return Err(Reason::new(
                    "server.busy",
                    format!("the server is being built or deleted: cannot {verb}"),
                )
                .retryable());
            }
        }
        if self.fits(status.power) {
            Ok(())
        } else {
            let power = serde_json::to_value(status.power)
                .ok()
                .and_then(|v| v.as_str().map(str::to_owned))
                .unwrap_or_default();
            Err(Reason::new(
                "server.wrong_power_state",
                format!("the server is {power}: cannot {verb}"),
            ))
        }
    }
}
