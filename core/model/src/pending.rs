//! What of a server waits for a restart: what its guest is made of, and what is wanted by now.
//!
//! It is reckoned from the record whenever that is written out, so it is never out of date, and it is nobody's to set.

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use crate::{PortId, Resources, Server};

/// A part of a running guest that differs from what is wanted: the next restart makes the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "part")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PendingChange {
    /// Its size.
    Flavor {
        /// What it runs with.
        applied: Resources,
        /// What it runs with after a restart.
        wanted: Resources,
    },
    /// Its ports, in device order.
    Ports {
        /// What it runs with.
        applied: Vec<PortId>,
        /// What it runs with after a restart.
        wanted: Vec<PortId>,
    },
    /// Its config drive, with the first user's password and keys. Applied is what the guest was booted with.
    ConfigDrive {
        /// The edition that it runs with.
        applied: u32,
        /// The edition that the next boot reads.
        wanted: u32,
    },
}

impl PendingChange {
    /// The part's name.
    #[must_use]
    pub const fn part(&self) -> &'static str {
        match self {
            Self::Flavor { .. } => "flavor",
            Self::Ports { .. } => "ports",
            Self::ConfigDrive { .. } => "config_drive",
        }
    }
}

impl Server {
    /// What the next restart changes. Nothing of a guest that is off, or of which it is not known what it was made of.
    #[must_use]
    pub fn pending_changes(&self) -> Vec<PendingChange> {
        let applied = self.status.applied.as_ref();
        let Some(applied) = applied.filter(|_| self.status.power.may_execute()) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        let wanted = self.spec.flavor.spec.resources;
        if applied.resources != wanted {
            all.push(PendingChange::Flavor {
                applied: applied.resources,
                wanted,
            });
        }
        if applied.ports != self.spec.ports {
            all.push(PendingChange::Ports {
                applied: applied.ports.clone(),
                wanted: self.spec.ports.clone(),
            });
        }
        if applied.drive_edition != self.status.drive_edition {
            all.push(PendingChange::ConfigDrive {
                applied: applied.drive_edition,
                wanted: self.status.drive_edition,
            });
        }
        all
    }

    /// The names of the parts that the next restart changes.
    #[must_use]
    pub fn pending_restart(&self) -> Vec<&'static str> {
        self.pending_changes().iter().map(PendingChange::part).collect()
    }
}

impl Serialize for Server {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pending = self.pending_changes();
        let mut out = serializer.serialize_struct("Server", 3 + usize::from(!pending.is_empty()))?;
        out.serialize_field("meta", &self.meta)?;
        out.serialize_field("spec", &self.spec)?;
        out.serialize_field("status", &self.status)?;
        if pending.is_empty() {
            out.skip_field("pending_restart")?;
        } else {
            out.serialize_field("pending_restart", &pending)?;
        }
        out.end()
    }
}

#[cfg(feature = "openapi")]
mod schema {
    use utoipa::openapi::{RefOr, Schema};
    use utoipa::{PartialSchema, ToSchema};

    use super::PendingChange;
    use crate::{Meta, Server, ServerSpec, ServerStatus};

    /// A virtual machine.
    #[derive(ToSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Written {
        /// Identity.
        meta: Meta,
        /// What is wanted.
        spec: ServerSpec,
        /// What is.
        status: ServerStatus,
        /// What the next restart changes; absent when nothing waits for one.
        #[schema(read_only)]
        pending_restart: Option<Vec<PendingChange>>,
    }

    impl PartialSchema for Server {
        fn schema() -> RefOr<Schema> {
            Written::schema()
        }
    }

    impl ToSchema for Server {
        fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
            Written::schemas(schemas);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_restart_is_written_out_and_not_read_back() {
        let document = serde_json::json!({
            "meta": {
                "id": "00000000-0000-7000-8000-000000000001", "name": "web", "scope": "system",
                "generation": 1, "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "flavor": {
                    "id": "00000000-0000-7000-8000-000000000002", "name": "large",
                    "spec": {"resources": {"vcpus": 2, "memory_mib": 512, "disk_gib": 1}},
                },
                "image": {"id": "00000000-0000-7000-8000-000000000003", "name": "debian"},
                "hostname": "web", "config_drive": false, "running": true,
            },
            "status": {
                "lifecycle": "active", "power": "running",
                "applied": {
                    "resources": {"vcpus": 1, "memory_mib": 512, "disk_gib": 1}, "disks": ["root"], "ports": [],
                },
            },
            "pending_restart": [{"part": "ports", "applied": [], "wanted": []}],
        });
        let mut server: Server = serde_json::from_value(document).unwrap();
        assert_eq!(server.pending_restart(), ["flavor"]);
        let written = serde_json::to_value(&server).unwrap();
        assert_eq!(
            written["pending_restart"],
            serde_json::json!([{
                "part": "flavor",
                "applied": {"vcpus": 1, "memory_mib": 512, "disk_gib": 1},
                "wanted": {"vcpus": 2, "memory_mib": 512, "disk_gib": 1},
            }])
        );
        let again: Server = serde_json::from_value(written).unwrap();
        assert_eq!(again, server);
        server.status.power = crate::PowerState::Stopped;
        let off = serde_json::to_value(&server).unwrap();
        assert!(off.get("pending_restart").is_none(), "a start defines first");
    }
}
