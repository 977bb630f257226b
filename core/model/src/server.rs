//! A server: a virtual machine as its owner sees it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Actor, Crashes, FlavorId, FlavorSpec, HostId, Hostname, ImageId, Lifecycle, Meta, Name, OnCrash, PortId,
    PowerState, Reason, Rescue, Resize, Resource, Resources, ServerMigration, TaskId, Timestamp, VolumeId,
};

/// A virtual machine. Written out it also says `pending_restart`: what the next restart changes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
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
    /// The volume that it boots from, instead of a root disk of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_volume: Option<VolumeId>,
    /// Whether it is meant to run (`true`) or to be off.
    pub running: bool,
    /// What is done when its process ends by itself.
    #[serde(default, skip_serializing_if = "OnCrash::is_default")]
    pub on_crash: OnCrash,
    /// What it boots instead of its own disks, while it is to be rescued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rescue: Option<Rescue>,
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
    /// Of another size, neither confirmed nor taken back.
    #[serde(default)]
    pub resized: bool,
    /// Its host does not report: the other axes are the last that was known.
    pub host_unreachable: bool,
}

/// Where a server lives, and who chose that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Placement {
    /// The host.
    pub host: HostId,
    /// Its name.
    pub host_name: Name,
    /// The task that chose it, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<TaskId>,
}

/// Who locked a server, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lock {
    /// Who.
    pub by: Actor,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// What the guest was made of when it was last turned on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Applied {
    /// Its size.
    pub resources: Resources,
    /// Names of its disks, in device order.
    pub disks: Vec<String>,
    /// Its ports, in device order.
    pub ports: Vec<PortId>,
    /// The edition of its config drive.
    #[serde(default, skip_serializing_if = "is_first")]
    pub drive_edition: u32,
}

/// Whether a config drive is as it was made with its server.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_first(edition: &u32) -> bool {
    *edition == 0
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
    /// Its volumes, in device order: behind the root disk and the config drive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeId>,
    /// How its CPU is run, and why: such as `tcg (the CPU shows neither vmx nor svm)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<String>,
    /// Why it is in error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Reason>,
    /// When it last went from off to running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_at: Option<Timestamp>,
    /// Its crashes in a row, after the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crashes: Option<Crashes>,
    /// What it was made of then. Where that differs from what is wanted, the next restart makes the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Applied>,
    /// The name of its root disk, where that is not `root`: after a rebuild.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_disk: Option<String>,
    /// Disks that it is no longer made of, until they are deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spare_disks: Vec<String>,
    /// An image that is this server's alone: what it is shelved as. It goes when the server has a root disk again, or is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_image: Option<ImageId>,
    /// The edition of its config drive: it grows when the guest is to read it as if for the first time.
    #[serde(default, skip_serializing_if = "is_first")]
    pub drive_edition: u32,
    /// The size that it had, while a resize is under way or waits to be confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// Where it is going, while it migrates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<ServerMigration>,
    /// Who locked it and why, while it is locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<Lock>,
    /// When it is removed, while it is in the recycle bin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purge_at: Option<Timestamp>,
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
            volumes: Vec::new(),
            accelerator: None,
            fault: None,
            launched_at: None,
            crashes: None,
            applied: None,
            root_disk: None,
            spare_disks: Vec::new(),
            own_image: None,
            drive_edition: 0,
            resize: None,
            migration: None,
            lock: None,
            purge_at: None,
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
