//! What callers ask for: the bodies and queries of the REST interface, as types. Unknown fields are refused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use skyloom_model::{
    DiskFormat, EventKind, OnCrash, PortId, Resources, Secret, ServerId, SnapshotId, SubnetId, TaskId,
    TaskState, Timestamp, TokenHolder, VolumeId,
};
use uuid::Uuid;

use crate::ServerVolume;

/// Makes a server.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateServer {
    /// Display name; by default the hostname.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "web-1", min_length = 1, max_length = 255)
    )]
    pub name: Option<String>,
    /// What the guest calls itself; by default made from the name.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "web-1", min_length = 1, max_length = 63)
    )]
    pub hostname: Option<String>,
    /// Id or name of the image of its root disk; none for one that boots from a volume.
    #[cfg_attr(feature = "openapi", schema(example = "debian-13"))]
    #[serde(default)]
    pub image: String,
    /// Whose root disk is copied, instead of an image. What this request leaves open is then as that server has it: flavor, keys,
    /// networks with their security groups, metadata, labels and the rest, but not its password, user data or volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clone_of: Option<ServerId>,
    /// Id or name of the flavor; none only for a clone.
    #[cfg_attr(feature = "openapi", schema(example = "m1.tiny"))]
    #[serde(default)]
    pub flavor: String,
    /// Ids or names of keypairs for the first user.
    #[serde(default)]
    pub keypairs: Vec<String>,
    /// Whether a config drive is attached; by default it is.
    pub config_drive: Option<bool>,
    /// Password of the first user, 8 to 128 printable characters; by default one is made and shown once.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, min_length = 8, max_length = 128))]
    pub password: Option<Secret<String>>,
    /// cloud-init user-data, at most 64 KiB.
    #[cfg_attr(feature = "openapi", schema(max_length = 65536))]
    pub user_data: Option<String>,
    /// Free metadata that the guest may read: at most 128 entries.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// NICs; by default one on the user network.
    pub networks: Option<Vec<NetworkRequest>>,
    /// Volumes, in device order; the one that it boots from comes first wherever it stands here.
    #[serde(default)]
    pub volumes: Vec<ServerVolume>,
    /// Free marks of the server.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Labels that the host must carry.
    #[serde(default)]
    pub host_labels: BTreeMap<String, String>,
    /// Servers of one group are kept on different hosts.
    #[cfg_attr(feature = "openapi", schema(example = "web", min_length = 1, max_length = 64))]
    pub anti_affinity_group: Option<String>,
    /// Whether it is turned on; by default it is.
    pub start: Option<bool>,
    /// What is done when its process ends by itself; by default it is left off.
    #[serde(default)]
    pub on_crash: OnCrash,
    /// How long it waits for room where no host has any: 1 second to 23 hours; by default it fails at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = 3600, minimum = 1, maximum = 82800))]
    pub wait_for_room_seconds: Option<u32>,
}

impl CreateServer {
    /// A server of that name, with every default.
    #[must_use]
    pub fn new(name: impl Into<String>, image: impl Into<String>, flavor: impl Into<String>) -> Self {
        Self {
            name: Some(name.into()),
            image: image.into(),
            flavor: flavor.into(),
            ..Self::default()
        }
    }
}

/// One NIC of a new server. Free text here, so that what is refused can be named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NetworkRequest {
    /// `user` for the user network: outgoing connections only. Without a network or port that is the default.
    #[cfg_attr(feature = "openapi", schema(example = "user"))]
    pub kind: Option<String>,
    /// Id or name of the network that a port is made in. It goes with the server.
    #[cfg_attr(feature = "openapi", schema(example = "backend"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Id of the subnet that its address is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<SubnetId>,
    /// A port that was made before, instead of a network. It outlives the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortId>,
    /// Address of the NIC in the network; by default a free one.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "192.168.10.20"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_address: Option<IpAddr>,
    /// Ids or names of security groups of the NIC in the network; by default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_groups: Option<Vec<String>>,
    /// How the NIC is made; only `normal` so far. Physical functions are refused.
    #[cfg_attr(feature = "openapi", schema(example = "normal"))]
    pub vnic_type: Option<String>,
}

/// How to stop or reboot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StopOptions {
    /// Off at once, without asking the guest.
    pub force: bool,
    /// How long the guest may take before it is forced off; by default 60, at most 3600.
    #[cfg_attr(feature = "openapi", schema(example = 60, minimum = 0, maximum = 3600))]
    pub timeout_seconds: Option<u32>,
}

/// Makes a flavor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateFlavor {
    /// Display name, unique.
    #[cfg_attr(feature = "openapi", schema(example = "m1.small"))]
    pub name: String,
    /// Virtual CPUs.
    #[cfg_attr(feature = "openapi", schema(example = 1, minimum = 1, maximum = 256))]
    pub vcpus: u32,
    /// Memory in MiB.
    #[cfg_attr(
        feature = "openapi",
        schema(example = 1024, minimum = 32, maximum = 16_777_216)
    )]
    pub memory_mib: u64,
    /// Root disk in GiB.
    #[cfg_attr(feature = "openapi", schema(example = 10, minimum = 1, maximum = 65_536))]
    pub disk_gib: u64,
    /// Labels that a host must carry.
    #[serde(default)]
    pub host_labels: BTreeMap<String, String>,
}

/// Makes an image: fetched from `url`, or waiting for its content to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateImage {
    /// Display name.
    #[cfg_attr(feature = "openapi", schema(example = "debian-13"))]
    pub name: String,
    /// The format of the content; content of another format is refused.
    pub format: DiskFormat,
    /// Where the cloud fetches it: `http` or `https`, without credentials.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "https://images.example.org/debian-13.qcow2")
    )]
    pub url: Option<String>,
    /// The server whose root disk it becomes, running or not. It is as after a power cut where the guest does not stand still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerId>,
    /// The volume that it becomes. No server may have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// The snapshot of which it becomes one disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// Which disk of the snapshot; by default its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "root"))]
    pub disk: Option<String>,
    /// The SHA-256 that the content must have, in hex.
    #[cfg_attr(feature = "openapi", schema(pattern = "^[0-9a-fA-F]{64}$"))]
    pub sha256: Option<String>,
    /// CPU architecture as `uname -m` says it; by default `x86_64`.
    #[cfg_attr(feature = "openapi", schema(example = "x86_64"))]
    pub architecture: Option<String>,
    /// Smallest root disk in GiB.
    #[serde(default)]
    pub min_disk_gib: u64,
    /// Smallest memory in MiB.
    #[serde(default)]
    pub min_memory_mib: u64,
    /// Whether every project may use it. It takes the permission `image:publish`.
    #[serde(default)]
    pub public: bool,
    /// Free marks.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl CreateImage {
    /// An image that waits for its content to be sent, with every default.
    #[must_use]
    pub fn new(name: impl Into<String>, format: DiskFormat) -> Self {
        Self {
            name: name.into(),
            format,
            url: None,
            server: None,
            volume: None,
            snapshot: None,
            disk: None,
            sha256: None,
            architecture: None,
            min_disk_gib: 0,
            min_memory_mib: 0,
            public: false,
            labels: BTreeMap::new(),
        }
    }
}

/// Stores a public SSH key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateKeypair {
    /// Display name, unique in the project.
    #[cfg_attr(feature = "openapi", schema(example = "laptop"))]
    pub name: String,
    /// One line as in `id_ed25519.pub`.
    #[cfg_attr(
        feature = "openapi",
        schema(
            example = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl me@laptop"
        )
    )]
    pub public_key: String,
}

/// Registers a host; its agent's token is in the answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateHost {
    /// Display name, unique.
    #[cfg_attr(feature = "openapi", schema(example = "rack1-07"))]
    pub name: String,
    /// Labels that servers can ask for.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether servers may be placed there; by default they may.
    pub enabled: Option<bool>,
    /// Virtual CPUs per real one; by default 4.
    #[cfg_attr(feature = "openapi", schema(example = 4.0))]
    pub cpu_ratio: Option<f64>,
    /// Virtual memory per real memory; by default 1.
    #[cfg_attr(feature = "openapi", schema(example = 1.0))]
    pub memory_ratio: Option<f64>,
    /// Virtual disk per real disk; by default 1.
    #[cfg_attr(feature = "openapi", schema(example = 1.0))]
    pub disk_ratio: Option<f64>,
    /// Kept back for the host itself.
    pub reserved: Option<Resources>,
    /// Upper bounds on what its agent's reports are believed.
    pub limit: Option<Resources>,
}

/// Changes a host; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PatchHost {
    /// Whether new servers may be placed there. Whichever it is, a drain of the host ends.
    pub enabled: Option<bool>,
    /// Why not, for those who ask later: at most 500 characters, with `enabled: false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// All labels anew.
    pub labels: Option<BTreeMap<String, String>>,
    /// Virtual CPUs per real one.
    pub cpu_ratio: Option<f64>,
    /// Virtual memory per real memory.
    pub memory_ratio: Option<f64>,
    /// Virtual disk per real disk.
    pub disk_ratio: Option<f64>,
    /// Kept back for the host itself.
    pub reserved: Option<Resources>,
}

/// Makes a project.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateProject {
    /// Display name, unique in its domain.
    #[cfg_attr(feature = "openapi", schema(example = "shop"))]
    pub name: String,
    /// Free text, at most 1024 bytes.
    #[serde(default)]
    pub description: String,
    /// Id of the domain that it is for; by default its parent's, or the caller's own, or the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Uuid>,
    /// Id of the project that it stands below; by default it stands at the top of its domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Uuid>,
}

/// Makes an API token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateToken {
    /// Display name.
    #[cfg_attr(feature = "openapi", schema(example = "ci"))]
    pub name: String,
    /// Who acts with it: an engine, or a host's agent.
    pub holder: TokenHolder,
    /// When it stops working; by default never.
    pub expires_at: Option<Timestamp>,
}

impl CreateToken {
    /// A token that does not expire.
    #[must_use]
    pub fn new(name: impl Into<String>, holder: TokenHolder) -> Self {
        Self {
            name: name.into(),
            holder,
            expires_at: None,
        }
    }
}

/// Which part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema, utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct ListQuery {
    /// Most items in the answer: 1 to 1000, by default 100.
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    pub cursor: Option<String>,
    /// Only what has exactly this name.
    pub name: Option<String>,
    /// Only what has this label, as `key=value`.
    pub label: Option<String>,
}

/// A server that is asked about and not made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema, utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct PlacementQuery {
    /// Its flavor, by name or id. A forecast without it is of all flavors.
    pub flavor: Option<String>,
    /// The architecture of its image; by default `x86_64`.
    pub architecture: Option<String>,
    /// Labels that its host must carry, as `key=value`, several with commas between them.
    pub host_labels: Option<String>,
    /// A group whose servers are on different hosts.
    pub anti_affinity_group: Option<String>,
    /// Of a test: how many servers, 1 to 1000; by default 1.
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 1000))]
    pub servers: Option<u32>,
    /// Of a forecast: the label of hosts by whose values it is counted too, such as `zone`.
    pub by: Option<String>,
}

/// Which tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema, utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct TaskQuery {
    /// Most items in the answer: 1 to 1000, by default 100.
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    pub cursor: Option<String>,
    /// Only in this state.
    pub state: Option<TaskState>,
    /// Only of this flow, such as `server.create`.
    pub flow: Option<String>,
    /// Only those that change this resource.
    pub subject: Option<Uuid>,
    /// Only those that change resources of this kind, such as `servers`.
    pub kind: Option<String>,
    /// Only those that change what had this name when they were asked for.
    pub name: Option<String>,
    /// Only those that were asked for by the token or user of this id or name.
    pub actor: Option<String>,
    /// Only those with a reason of this code, such as `server.no_host`, or of this family of codes, such as `server`.
    pub code: Option<String>,
    /// Only those that were asked for at this moment or later.
    pub started_after: Option<Timestamp>,
    /// Only those that were asked for before this moment.
    pub started_before: Option<Timestamp>,
    /// Only those that ended at this moment or later.
    pub ended_after: Option<Timestamp>,
    /// Only those that ended before this moment.
    pub ended_before: Option<Timestamp>,
    /// Those in the archive, by their ends, and no others. One call looks at 1000 of them: a page may be short, or empty,
    /// and have a `next`.
    pub archived: bool,
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema, utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct EventQuery {
    /// Most items in the answer: 1 to 1000, by default 100.
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 1000))]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    pub cursor: Option<String>,
    /// Only of this kind, such as `task_ended`.
    pub kind: Option<EventKind>,
    /// Only those of this task.
    pub task: Option<TaskId>,
    /// Only those that happened to this resource.
    pub subject: Option<Uuid>,
    /// Those in the archive, which are older than a week, and no others. One call looks at 1000 of them.
    pub archived: bool,
}

/// An operator's reason for an order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OrderTask {
    /// Why, for the record: 1 to 500 characters.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "the disk was deleted by hand", min_length = 1, max_length = 500)
    )]
    pub why: String,
}

/// Why the fleet is to be held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetHold {
    /// Why, for the record: 1 to 500 characters.
    #[cfg_attr(
        feature = "openapi",
        schema(
            example = "the storage network is being rebuilt",
            min_length = 1,
            max_length = 500
        )
    )]
    pub reason: String,
}

/// How to release the fleet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseHold {
    /// Also when hosts have not reported or guests are not as recorded.
    pub anyway: bool,
}

/// That a host is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FenceHost {
    /// Why, and how that is known: 1 to 500 characters.
    #[cfg_attr(feature = "openapi", schema(example = "mainboard burnt; power cord pulled"))]
    pub why: String,
    /// Must be true: whoever asks has made sure that the host is off and stays off until it is unfenced.
    #[serde(default)]
    pub is_off: bool,
}

/// How to empty a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DrainHost {
    /// Why, for those who ask later: at most 500 characters.
    #[cfg_attr(feature = "openapi", schema(example = "a fan is broken"))]
    pub why: String,
    /// How many servers are on their way at the same time: 1 to 32, 2 unless told.
    pub at_once: Option<u32>,
}

/// For what to move servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
pub struct AdviceQuery {
    /// `spread`, `consolidate` or `drain`.
    #[cfg_attr(feature = "openapi", param(example = "spread"))]
    pub goal: String,
    /// The host to drain: its id or name.
    pub host: Option<String>,
    /// Most moves of `spread` and `consolidate`: 100 unless told, at most 1000.
    pub most: Option<u32>,
}

/// How to sweep a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SweepHost {
    /// Whether what belongs to no server is removed; otherwise it is only named.
    pub remove: bool,
}
