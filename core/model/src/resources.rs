//! The other resources and host-side records.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    HostClosed, HostId, MacAddr, Meta, NetworkId, PowerState, ProjectId, Reason, Resource, Scope,
    SecurityGroupId, ServerId, SnapshotId, SubnetId, Timestamp, VolumeId,
};

macro_rules! resource {
    ($type:ident, $kind:literal) => {
        impl Resource for $type {
            const KIND: &'static str = $kind;
            fn meta(&self) -> &Meta {
                &self.meta
            }
            fn meta_mut(&mut self) -> &mut Meta {
                &mut self.meta
            }
        }
    };
}
resource!(Flavor, "flavors");
resource!(Image, "images");
resource!(Keypair, "keypairs");
resource!(Port, "ports");
resource!(Host, "hosts");
resource!(Project, "projects");
resource!(Token, "tokens");

/// An amount of what a host offers and a server takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resources {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in GiB.
    pub disk_gib: u64,
}

impl Resources {
    /// The sum, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.saturating_add(other.vcpus),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
            disk_gib: self.disk_gib.saturating_add(other.disk_gib),
        }
    }
    /// The difference, not below zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.saturating_sub(other.vcpus),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
            disk_gib: self.disk_gib.saturating_sub(other.disk_gib),
        }
    }
}

/// A size of servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Flavor {
    /// Identity.
    pub meta: Meta,
    /// Content.
    pub spec: FlavorSpec,
}

/// What a flavor asks of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FlavorSpec {
    /// Resources.
    pub resources: Resources,
    /// Labels that a host must carry.
    #[serde(default)]
    pub host_labels: BTreeMap<String, String>,
}

/// A format of an image's content: of a disk, or of what a host loads into a guest's memory. Always named, never probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum DiskFormat {
    /// Plain bytes.
    Raw,
    /// QEMU copy-on-write, version 2 or 3.
    Qcow2,
    /// A Linux kernel of the x86 boot protocol. No disk.
    Kernel,
    /// A kernel's first file system: a cpio archive, mostly compressed. No disk.
    Initrd,
}

impl DiskFormat {
    /// Its name; for disks the one that QEMU uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
        }
    }

    /// Whether it is one of disks.
    #[must_use]
    pub const fn is_disk(self) -> bool {
        match self {
            Self::Raw | Self::Qcow2 => true,
            Self::Kernel | Self::Initrd => false,
        }
    }
}

/// A disk image to make servers from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Image {
    /// Identity.
    pub meta: Meta,
    /// What its owner claims.
    pub spec: ImageSpec,
    /// What the inspection found.
    pub status: ImageStatus,
}

/// What the owner of an image claims.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageSpec {
    /// The claimed format; content of another format is refused.
    pub format: DiskFormat,
    /// Where the content comes from.
    pub source: ImageSource,
    /// The SHA-256 that the content must have, in lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// CPU architecture of its system, as `uname -m` says it.
    pub architecture: String,
    /// Smallest root disk in GiB.
    #[serde(default)]
    pub min_disk_gib: u64,
    /// Smallest memory in MiB.
    #[serde(default)]
    pub min_memory_mib: u64,
    /// Whether every project may use it.
    #[serde(default)]
    pub public: bool,
}

/// Where image content comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ImageSource {
    /// The client sends it.
    Upload,
    /// The cloud fetches it.
    Url {
        /// `http` or `https`, without credentials.
        url: String,
    },
    /// The root disk of a server, as it was when the image was asked for.
    Server {
        /// Whose.
        server: ServerId,
    },
    /// A volume that no server had.
    Volume {
        /// Which.
        volume: VolumeId,
    },
    /// A disk of a snapshot.
    Snapshot {
        /// Which.
        snapshot: SnapshotId,
        /// Name of the disk.
        disk: String,
    },
}

/// How far an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ImageState {
    /// Waits for its content.
    Queued,
    /// Content is being fetched, inspected and published.
    Importing,
    /// A host copies a disk and sends it; then it is inspected and published.
    Saving,
    /// Usable.
    Active,
    /// Refused or failed; see `status.fault`.
    Error,
    /// Being removed; no new servers from it.
    Deleting,
}

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ImageStatus {
    /// How far it is.
    pub state: ImageState,
    /// Bytes of the file.
    #[serde(default)]
    pub size_bytes: u64,
    /// Bytes of the disk that it describes.
    #[serde(default)]
    pub virtual_size_bytes: u64,
    /// SHA-256 of the file in lower-case hex, measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Why it is in error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Reason>,
}

/// A public SSH key of a project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Keypair {
    /// Identity; the name is unique in the project.
    pub meta: Meta,
    /// Content.
    pub spec: KeypairSpec,
}

/// Content of a keypair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeypairSpec {
    /// One line: type, base64, comment.
    pub public_key: String,
    /// `SHA256:…` as `ssh-keygen -l` prints it.
    pub fingerprint: String,
}

/// How a NIC is made for the guest. The request may name others (physical functions), which are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NicKind {
    /// QEMU's user-mode network: outgoing connections only, no privileges on the host.
    User,
    /// A tap device on its network's bridge.
    Tap,
}

/// A NIC of a server with its addresses, known before the guest boots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Port {
    /// Identity.
    pub meta: Meta,
    /// Content.
    pub spec: PortSpec,
    /// Whether the NIC exists.
    pub status: PortStatus,
}

/// Content of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortSpec {
    /// Whose NIC it is, if it is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerId>,
    /// Whether it goes with its server: it was made with it.
    #[serde(default = "goes_with_server")]
    pub goes_with_server: bool,
    /// The network that it is plugged into; none on the user network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkId>,
    /// The subnet that its address is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<SubnetId>,
    /// What may reach it, and what it may reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<SecurityGroupId>,
    /// How it is made.
    pub kind: NicKind,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Its address.
    #[cfg_attr(feature = "openapi", schema(value_type = String, example = "10.0.2.15"))]
    pub address: IpAddr,
    /// Length of its network's prefix.
    pub prefix_len: u8,
    /// Its default gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub gateway: Option<IpAddr>,
    /// Name servers that it is told.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub dns: Vec<IpAddr>,
}

/// Ports of before had no life of their own.
const fn goes_with_server() -> bool {
    true
}

/// What is known of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortStatus {
    /// Whether the NIC exists in a defined virtual machine.
    pub bound: bool,
}

/// A machine that runs servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Host {
    /// Identity.
    pub meta: Meta,
    /// What the operator wants.
    pub spec: HostSpec,
    /// What its agent reports, as far as the engine believes it.
    pub status: HostStatus,
}

/// What the operator wants of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostSpec {
    /// Whether new servers may be placed there.
    pub enabled: bool,
    /// Virtual CPUs per real one.
    pub cpu_ratio: f64,
    /// Virtual memory per real memory.
    pub memory_ratio: f64,
    /// Virtual disk per real disk.
    pub disk_ratio: f64,
    /// Kept back for the host itself, before the ratios.
    pub reserved: Resources,
    /// Upper bounds on what the agent's reports are believed; `None` believes them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Resources>,
    /// Who has said that it is off, so that nothing of it runs. Nothing is placed there meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<HostFenced>,
    /// Why no new servers may be placed there, where somebody has said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<HostClosed>,
}

/// That a host is off, as an operator has made sure of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostFenced {
    /// Why, and how that is known.
    #[cfg_attr(feature = "openapi", schema(example = "mainboard burnt; power cord pulled"))]
    pub why: String,
    /// Who says so.
    #[cfg_attr(feature = "openapi", schema(example = "anna"))]
    pub by: String,
    /// Since when.
    pub since: Timestamp,
}

impl Default for HostSpec {
    /// Enabled; CPU 4:1, memory 1:1, disk 1:1; nothing kept back.
    fn default() -> Self {
        Self {
            enabled: true,
            cpu_ratio: 4.0,
            memory_ratio: 1.0,
            disk_ratio: 1.0,
            reserved: Resources::default(),
            limit: None,
            fenced: None,
            closed: None,
        }
    }
}

/// What is known of a host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostStatus {
    /// Whether its agent holds its lease.
    pub reachable: bool,
    /// Its last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<HostFacts>,
    /// Until when its certificate counts, if it has one of the cloud's authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_until: Option<Timestamp>,
    /// Whether its certificate has expired. Nothing follows from that for what runs there: whether the host is reachable stays as it was
    /// last known, and its agent has only to renew the certificate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub certificate_expired: bool,
}

/// What a host offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostFacts {
    /// Real resources.
    pub capacity: Resources,
    /// CPU architecture, as `uname -m` says it.
    pub architecture: String,
    /// Hypervisor, such as `qmp` or `fake`.
    pub hypervisor: String,
    /// Version of the hypervisor.
    pub hypervisor_version: String,
    /// How CPUs are run: `kvm`, `tcg` or `fake`.
    pub accelerator: String,
    /// Why that was chosen.
    pub accelerator_reason: String,
    /// Features that requests can ask for.
    #[serde(default)]
    pub traits: Vec<String>,
}

/// What an agent says of itself; lives below its host's own prefix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Grows with each start of the agent: its lease's epoch.
    pub incarnation: u64,
    /// Program version.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// The host's facts.
    pub facts: HostFacts,
    /// The kinds of jobs that it knows, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
}

/// What an agent says of one virtual machine; lives below its host's own prefix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmObservation {
    /// Which server.
    pub server: ServerId,
    /// Whose project.
    pub project: ProjectId,
    /// The generation that the domain itself carries.
    pub generation: u64,
    /// Its power state.
    pub power: PowerState,
    /// Why it is so, where that is known: `guest-shutdown`, `host-request`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How its CPU is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<String>,
    /// When it was seen.
    pub observed_at: Timestamp,
}

/// A server's share of a host. One record each, made and removed together with the ledger's change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Whose.
    pub server: ServerId,
    /// Whose server that is: with the id, the address of its record. Claims of format 1 do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// How much.
    pub resources: Resources,
    /// Its anti-affinity group, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// The sum of a host's claims. Every placement compares its revision, so placements never overcommit however many
/// schedulers run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLedger {
    /// Sum of all claims.
    pub used: Resources,
    /// Servers per anti-affinity group.
    #[serde(default)]
    pub groups: BTreeMap<String, u32>,
    /// Number of claims.
    pub servers: u32,
    /// How much of `used` volumes of its local pool take.
    #[serde(default, skip_serializing_if = "no_volumes")]
    pub volume_gib: u64,
}

fn no_volumes(gib: &u64) -> bool {
    *gib == 0
}

/// A project: the unit of tenancy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Project {
    /// Identity.
    pub meta: Meta,
    /// Content.
    pub spec: ProjectSpec,
}

/// Content of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProjectSpec {
    /// Free text.
    pub description: String,
    /// The id of the domain that it belongs to.
    pub domain: Uuid,
    /// The project above it; none at the top of its domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<ProjectId>,
    /// Whether anybody can work in it. Below one that is not, nobody can either.
    pub enabled: bool,
    /// Marks to find it by.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub tags: BTreeSet<String>,
    /// Grows when tokens for it must end.
    pub epoch: u64,
    /// Whether it is being deleted: nothing new may refer to it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deleting: bool,
}

/// The id of the domain of all projects of which nothing else is said.
pub const DEFAULT_DOMAIN: Uuid = Uuid::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001);

impl Default for ProjectSpec {
    fn default() -> Self {
        Self {
            description: String::new(),
            domain: DEFAULT_DOMAIN,
            parent: None,
            enabled: true,
            tags: BTreeSet::new(),
            epoch: 0,
            deleting: false,
        }
    }
}

/// Who acts with an API token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TokenHolder {
    /// A user, with no more than that user may do at the moment of the call.
    User {
        /// Which user.
        user: Uuid,
    },
    /// The whole store, as an engine process needs it; no user calls.
    Engine,
    /// One host's own keys; no user calls.
    Agent {
        /// Which host.
        host: HostId,
    },
}

/// An API token as it is shown. Its secret is shown once, and only its SHA-256 is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Token {
    /// Identity.
    pub meta: Meta,
    /// Content.
    pub spec: TokenSpec,
}

/// Content of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenSpec {
    /// Who acts with it.
    pub holder: TokenHolder,
    /// First characters of the secret, to find it again.
    pub hint: String,
    /// When it stops working.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}
