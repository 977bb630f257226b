//! A server: a virtual machine as its owner sees it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    FlavorId, FlavorSpec, HostId, Hostname, ImageId, Lifecycle, Meta, Name, PortId, PowerState, Reason,
    Resource, TaskId, Timestamp,
};

/// A virtual machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Server {
    /// Identity.
    pub meta: Meta,
    /// What is wanted.
    pub spec: ServerSpec,
    /// What is.
    pub status: ServerStatus,
}

/// The flavor as it was when the server was made: later changes of the flavor do not touch the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlavorRef {
    /// Which flavor.
    pub id: FlavorId,
    /// Its name then.
    pub name: Name,
    /// Its content then.
    pub spec: FlavorSpec,
}

/// The image that the root disk was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageRef {
    /// Which image.
    pub id: ImageId,
    /// Its name then.
    pub name: Name,
}

/// What is wanted of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerSpec {
    /// Size.
    pub flavor: FlavorRef,
    /// Root disk content.
    pub image: ImageRef,
    /// What the guest calls itself.
    pub hostname: Hostname,
    /// Whether a config drive (NoCloud) is attached.
    pub config_drive: bool,
    /// OpenSSH public keys for the first user.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// Free metadata that the guest may read.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Its network ports, in device order.
    #[serde(default)]
    pub ports: Vec<PortId>,
    /// Labels that a host must carry.
    #[serde(default)]
    pub host_labels: BTreeMap<String, String>,
    /// Servers of one group are kept on different hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anti_affinity_group: Option<String>,
    /// Whether it is meant to run (`true`) or to be off.
    pub running: bool,
}

/// A task that is under way on a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Activity {
    /// Which task.
    pub task: TaskId,
    /// Its flow, such as `server.start`.
    pub flow: String,
}

/// Conditions that lie over the other axes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Overlays {
    /// Running its rescue system.
    pub rescued: bool,
    /// Changes are refused.
    pub locked: bool,
    /// Deletion is refused.
    pub protected: bool,
    /// Its host does not report: the other axes are the last that was known.
    pub host_unreachable: bool,
}

/// Where a server lives and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Placement {
    /// The host.
    pub host: HostId,
    /// Its name.
    pub host_name: Name,
}

/// What is known of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerStatus {
    /// Axis 1.
    pub lifecycle: Lifecycle,
    /// Axis 2.
    pub power: PowerState,
    /// Axis 3: the task under way, if any. At most one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<Activity>,
    /// Overlays.
    #[serde(default)]
    pub overlays: Overlays,
    /// Where it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// Its addresses, in the order of its ports.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// How its CPU is run, and why: such as `tcg (the CPU shows neither vmx nor svm)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<String>,
    /// Why it is in error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Reason>,
    /// When it last went from off to running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_at: Option<Timestamp>,
}

impl ServerStatus {
    /// Of a server of which nothing else is known.
    #[must_use]
    pub fn new(lifecycle: Lifecycle, power: PowerState) -> Self {
        Self {
            lifecycle,
            power,
            activity: None,
            overlays: Overlays::default(),
            placement: None,
            addresses: Vec::new(),
            accelerator: None,
            fault: None,
            launched_at: None,
        }
    }
}

impl Resource for Server {
    const KIND: &'static str = "servers";
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }
}
