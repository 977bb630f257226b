//! The records of a Skyloom cloud: what every other crate talks about.
//!
//! No IO, no async. Time and chance come from a [`Clock`] and an [`Ids`] source that the caller hands in.
//!
//! * Resources ([`Server`], [`Flavor`], [`Image`], …) are `meta` + `spec` (wanted) + `status` (observed).
//! * Work is a [`Task`] (one asked-for change), woven into an immutable [`Plan`] of [`JobSpec`]s, whose progress stands
//!   in [`JobRecord`]s.
//! * States are orthogonal axes with exhaustive tables ([`state`], [`action`], [`TaskState::next`], [`JobState::next`]).
//! * [`paths`] says where each record lives in the Store.

pub mod ablation;
pub mod action;
mod clock;
pub mod crash;
mod custody;
mod drain;
mod error;
mod event;
mod fields;
mod ids;
mod job;
mod mac;
mod meta;
mod migration;
mod name;
mod network;
pub mod paths;
mod pending;
mod plan;
mod readiness;
mod reason;
mod rescue;
mod resize;
mod resources;
mod restart;
mod secret;
mod server;
pub mod state;
mod task;
mod volume;

pub use action::{ActionDef, Overlay, ServerAction, Words};
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use crash::crash_point;
pub use custody::{Copying, Custody, Guest, GuestReport, Hold, Incarnation, Kinship, Origin};
pub use drain::{AskedToGo, Drain, DrainState, DrainStep, DrainWay, HostClosed};
pub use error::report;
pub use event::{Event, EventKind};
pub use fields::{FIELD_RULES, FieldRule, Unseen, field_rules};
pub use ids::{
    EventId, FlavorId, HostId, Id, Ids, ImageId, KeypairId, NetworkId, OsIds, PortId, ProjectId,
    SecurityGroupId, SeededIds, ServerId, SnapshotId, SubnetId, TaskId, TokenId, UserId, VolumeId,
};
pub use job::{JobRecord, JobState, JobWant, StepRecord, WorkerMark};
pub use mac::MacAddr;
pub use meta::{Meta, Resource, Scope};
pub use migration::ServerMigration;
pub use name::{Hostname, MAX_NAME_LEN, Name, NameError};
pub use network::{
    AddressRange, Direction, Family, GroupMembers, Network, NetworkSpec, Protocol, Remote, Reserved,
    SecurityGroup, SecurityGroupSpec, SecurityRule, Subnet, SubnetSpec,
};
pub use pending::PendingChange;
pub use plan::{JobId, JobSpec, MAIN_STAGE, Place, Plan, RetryPolicy, Stage, StageOutcome};
pub use readiness::{Phase, PhaseReport, PhaseState, Readiness};
pub use reason::Reason;
pub use rescue::{BootFile, RESCUE_DISK, RESCUE_SEED, Rescue, RescueMedia};
pub use resize::Resize;
pub use resources::{
    AgentStatus, Claim, DEFAULT_DOMAIN, DiskFormat, Flavor, FlavorSpec, Host, HostFacts, HostFenced,
    HostLedger, HostSpec, HostStatus, Image, ImageSource, ImageSpec, ImageState, ImageStatus, Keypair,
    KeypairSpec, NicKind, Port, PortSpec, PortStatus, Project, ProjectSpec, Resources, Token, TokenHolder,
    TokenSpec, VmObservation,
};
pub use restart::{Crashes, OnCrash, Timer};
pub use secret::{Secret, ServerSecrets};
pub use server::{
    Activity, Applied, FlavorRef, ImageRef, Lock, Overlays, Placement, Server, ServerSpec, ServerStatus,
};
pub use state::{Lifecycle, PowerState};
pub use task::{
    ActiveTask, Actor, Order, OrderVerb, Owner, Priority, Progress, Run, Subject, Task, TaskEnd, TaskState,
};
pub use volume::{
    Attachment, IoLimits, Pool, Snapshot, SnapshotDisk, SnapshotOf, SnapshotSpec, SnapshotState,
    SnapshotStatus, SystemOf, Volume, VolumeSource, VolumeSpec, VolumeState, VolumeStatus, disk_of,
};

/// The format version that this build writes into Task, Plan and Job records.
/// Format 1 had no stages, orders, priorities and events; `stuck` was an end. Records of it are read and carried on.
pub const FORMAT: u16 = 2;
