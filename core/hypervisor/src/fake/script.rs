//! What a test can let go wrong, once, at the next use.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use skyloom_model::ServerId;

use crate::ErrorKind;

/// Where something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FaultPoint {
    /// `Hypervisor::facts`.
    Facts,
    /// `Hypervisor::define`.
    Define,
    /// `Hypervisor::start`.
    Start,
    /// `Hypervisor::stop`.
    Stop,
    /// `Hypervisor::undefine`.
    Undefine,
    /// `Hypervisor::inspect`.
    Inspect,
    /// `Hypervisor::recover`.
    Recover,
    /// `Hypervisor::list`.
    List,
    /// `Console::console_tail`.
    Console,
    /// The next event.
    Event,
    /// `HostStorage::cached_image`.
    CachedImage,
    /// `HostStorage::cache_image`.
    CacheImage,
    /// `HostStorage::create_overlay`.
    CreateOverlay,
    /// `HostStorage::create_seed`.
    CreateSeed,
    /// `HostStorage::delete_disk`.
    DeleteDisk,
    /// `HostStorage::delete_server`.
    DeleteServer,
    /// `HostStorage::disks`.
    Disks,
    /// `HostStorage::servers`.
    Servers,
    /// `HostVolumes::create_volume`.
    CreateVolume,
    /// `HostVolumes::volume` and `volume_snapshots`.
    LookVolume,
    /// `HostVolumes::grow_volume`.
    GrowVolume,
    /// `HostVolumes::delete_volume`.
    DeleteVolume,
    /// `HostVolumes::volumes`.
    Volumes,
    /// `HostVolumes::snapshot_volume`.
    SnapshotVolume,
    /// `HostVolumes::revert_volume`.
    RevertVolume,
    /// `HostVolumes::forget_volume_snapshot`.
    ForgetVolumeSnapshot,
    /// `HostNetwork::ensure_port`.
    EnsurePort,
    /// `HostNetwork::remove_port`.
    RemovePort,
    /// `HostNetwork::ports`.
    Ports,
    /// `HostNetwork::recover`.
    RecoverNetwork,
    /// `Pause::pause`.
    Pause,
    /// `Pause::unpause`.
    Unpause,
    /// `Suspend::suspend`.
    Suspend,
    /// `Snapshots::take`.
    TakeSnapshot,
    /// `Snapshots::revert`.
    RevertSnapshot,
    /// `Snapshots::forget`.
    ForgetSnapshot,
    /// `Snapshots::snapshots`.
    Snapshots,
    /// `Hotplug::attach_disk`.
    AttachDisk,
    /// `Hotplug::detach_disk`.
    DetachDisk,
    /// `Hotplug::grow_disk`.
    GrowDisk,
    /// `Hotplug::limit_disk`.
    LimitDisk,
    /// `Hotplug::attach_nic`.
    AttachNic,
    /// `Hotplug::detach_nic`.
    DetachNic,
    /// `Screen::screenshot`.
    Screenshot,
    /// `GuestAgent::answers`.
    AgentAnswers,
    /// `GuestAgent::set_password`.
    SetPassword,
    /// `Migration::receive`.
    Receive,
    /// `Migration::send`.
    Send,
    /// `Migration::migration`.
    LookMigration,
    /// `Migration::cancel`.
    CancelMigration,
    /// `Migration::force`.
    ForceMigration,
    /// `Migration::hand_over`; halfway: it is recorded, and the last pass is not let go.
    HandOver,
    /// `Migration::take_over`.
    TakeOver,
    /// The connection of a migration, met when it begins and at its last pass: with [`Fault::Fail`] it is lost before the
    /// end, with another fault the source is not told that all has arrived.
    Stream,
}

impl FaultPoint {
    /// All points of a hypervisor's abilities.
    pub const ABILITIES: [Self; 16] = [
        Self::Pause,
        Self::Unpause,
        Self::Suspend,
        Self::TakeSnapshot,
        Self::RevertSnapshot,
        Self::ForgetSnapshot,
        Self::Snapshots,
        Self::AttachDisk,
        Self::DetachDisk,
        Self::GrowDisk,
        Self::LimitDisk,
        Self::AttachNic,
        Self::DetachNic,
        Self::Screenshot,
        Self::AgentAnswers,
        Self::SetPassword,
    ];
    /// All points of migrations.
    pub const MIGRATION: [Self; 8] = [
        Self::Receive,
        Self::Send,
        Self::LookMigration,
        Self::CancelMigration,
        Self::ForceMigration,
        Self::HandOver,
        Self::TakeOver,
        Self::Stream,
    ];
    /// All points of volumes.
    pub const VOLUMES: [Self; 8] = [
        Self::CreateVolume,
        Self::LookVolume,
        Self::GrowVolume,
        Self::DeleteVolume,
        Self::Volumes,
        Self::SnapshotVolume,
        Self::RevertVolume,
        Self::ForgetVolumeSnapshot,
    ];
    /// All points of a network.
    pub const NETWORK: [Self; 4] = [
        Self::EnsurePort,
        Self::RemovePort,
        Self::Ports,
        Self::RecoverNetwork,
    ];
    /// All points of a hypervisor and a pool.
    pub const ALL: [Self; 18] = [
        Self::Facts,
        Self::Define,
        Self::Start,
        Self::Stop,
        Self::Undefine,
        Self::Inspect,
        Self::Recover,
        Self::List,
        Self::Console,
        Self::Event,
        Self::CachedImage,
        Self::CacheImage,
        Self::CreateOverlay,
        Self::CreateSeed,
        Self::DeleteDisk,
        Self::DeleteServer,
        Self::Disks,
        Self::Servers,
    ];

    /// Whether the verb changes the host: these wait for a step in step mode.
    #[must_use]
    pub const fn changes(self) -> bool {
        match self {
            Self::Define
            | Self::Start
            | Self::Stop
            | Self::Undefine
            | Self::CacheImage
            | Self::CreateOverlay
            | Self::CreateSeed
            | Self::DeleteDisk
            | Self::DeleteServer
            | Self::CreateVolume
            | Self::GrowVolume
            | Self::DeleteVolume
            | Self::SnapshotVolume
            | Self::RevertVolume
            | Self::ForgetVolumeSnapshot
            | Self::EnsurePort
            | Self::RemovePort
            | Self::Pause
            | Self::Unpause
            | Self::Suspend
            | Self::TakeSnapshot
            | Self::RevertSnapshot
            | Self::ForgetSnapshot
            | Self::AttachDisk
            | Self::DetachDisk
            | Self::GrowDisk
            | Self::LimitDisk
            | Self::AttachNic
            | Self::DetachNic
            | Self::SetPassword
            | Self::Receive
            | Self::Send
            | Self::CancelMigration
            | Self::ForceMigration
            | Self::HandOver
            | Self::TakeOver => true,
            Self::Facts
            | Self::Inspect
            | Self::Recover
            | Self::List
            | Self::Console
            | Self::Event
            | Self::CachedImage
            | Self::Disks
            | Self::Servers
            | Self::LookVolume
            | Self::Volumes
            | Self::Ports
            | Self::RecoverNetwork
            | Self::AgentAnswers
            | Self::Screenshot
            | Self::LookMigration
            | Self::Stream
            | Self::Snapshots => false,
        }
    }

    /// Whether the verb has the domain to itself: these wait for one another however long that takes.
    pub(super) const fn alone(self) -> bool {
        matches!(
            self,
            Self::Start
                | Self::Stop
                | Self::Undefine
                | Self::Pause
                | Self::Unpause
                | Self::Suspend
                | Self::TakeSnapshot
                | Self::RevertSnapshot
                | Self::ForgetSnapshot
                | Self::AttachDisk
                | Self::DetachDisk
                | Self::GrowDisk
                | Self::LimitDisk
                | Self::AttachNic
                | Self::DetachNic
                | Self::Send
                | Self::CancelMigration
                | Self::ForceMigration
                | Self::HandOver
                | Self::TakeOver
        )
    }

    /// Whether the verb has more than one step, so that it can end halfway ([`Fault::Halfway`]).
    #[must_use]
    pub const fn in_steps(self) -> bool {
        matches!(
            self,
            Self::TakeSnapshot
                | Self::RevertSnapshot
                | Self::ForgetSnapshot
                | Self::AttachDisk
                | Self::DetachDisk
                | Self::AttachNic
                | Self::DetachNic
                | Self::HandOver
        )
    }

    pub(super) const fn operation(self) -> &'static str {
        match self {
            Self::Facts => "read host facts",
            Self::Define => "define domain",
            Self::Start => "start domain",
            Self::Stop => "stop domain",
            Self::Undefine => "undefine domain",
            Self::Inspect => "inspect domain",
            Self::Recover => "recover domains",
            Self::List => "list domains",
            Self::Console => "read console",
            Self::Event => "send event",
            Self::CachedImage => "look up image",
            Self::CacheImage => "cache image",
            Self::CreateOverlay => "create overlay",
            Self::CreateSeed => "create config drive",
            Self::DeleteDisk => "delete disk",
            Self::DeleteServer => "delete server's disks",
            Self::Disks => "list disks",
            Self::Servers => "list servers with disks",
            Self::CreateVolume => "create volume",
            Self::LookVolume => "look up volume",
            Self::GrowVolume => "grow volume",
            Self::DeleteVolume => "delete volume",
            Self::Volumes => "list volumes",
            Self::SnapshotVolume => "take snapshot of volume",
            Self::RevertVolume => "revert volume",
            Self::ForgetVolumeSnapshot => "delete snapshot of volume",
            Self::EnsurePort => "wire port",
            Self::RemovePort => "remove port",
            Self::Ports => "list ports",
            Self::RecoverNetwork => "recover network",
            Self::Pause => "pause domain",
            Self::Unpause => "unpause domain",
            Self::Suspend => "suspend domain",
            Self::TakeSnapshot => "take snapshot",
            Self::RevertSnapshot => "revert to snapshot",
            Self::ForgetSnapshot => "forget snapshot",
            Self::Snapshots => "list snapshots",
            Self::AttachDisk => "attach disk",
            Self::DetachDisk => "detach disk",
            Self::GrowDisk => "grow disk",
            Self::LimitDisk => "limit disk",
            Self::AttachNic => "attach NIC",
            Self::DetachNic => "detach NIC",
            Self::Screenshot => "take screenshot",
            Self::AgentAnswers => "ask guest agent",
            Self::SetPassword => "set password",
            Self::Receive => "receive domain",
            Self::Send => "send domain",
            Self::LookMigration => "look up migration",
            Self::CancelMigration => "cancel migration",
            Self::ForceMigration => "force migration",
            Self::HandOver => "hand domain over",
            Self::TakeOver => "take domain over",
            Self::Stream => "send memory",
        }
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fault {
    /// The verb fails and nothing happened.
    Fail(ErrorKind),
    /// It happened, but the verb fails.
    FailAfterEffect(ErrorKind),
    /// The first step of it happened, then the verb fails: a snapshot is begun and not whole, the definition is changed
    /// and the guest is not. A verb of one step fails and nothing happened.
    Halfway(ErrorKind),
    /// The verb never returns and nothing happened.
    Hang,
    /// It happened, but the verb never returns.
    HangAfterEffect,
    /// The domain has disappeared just before the verb.
    Vanish,
    /// `inspect`, `list` and `recover` answer `CannotTell`; other verbs fail with [`ErrorKind::Unavailable`].
    CannotTell,
    /// It happens that much later, also when the caller has gone away by then. Verbs that change the host go on by
    /// themselves (see [`crate::FakeWorld::run_late`]); later verbs for the same server wait for it. Of verbs that only
    /// look the answer is late, and so is an event.
    Late(Duration),
    /// The request is carried out twice in a row, as by a transport that delivers at least once. The answer is the second
    /// one's.
    Twice,
    /// An event is lost. Only at [`FaultPoint::Event`].
    Lose,
    /// An event comes twice. Only at [`FaultPoint::Event`].
    Duplicate,
    /// An event comes after later ones: when the world is told to release it. Only at [`FaultPoint::Event`].
    Delay,
}

/// One planned fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Planned {
    pub(super) point: FaultPoint,
    /// Only for this server; `None` means whoever comes next.
    pub(super) server: Option<ServerId>,
    pub(super) fault: Fault,
}

impl Planned {
    pub(super) fn fits(&self, point: FaultPoint, server: Option<ServerId>) -> bool {
        self.point == point && (self.server.is_none() || self.server == server)
    }
}

/// The test's orders: in the ledger, so that they outlive the agent and reach another process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Script {
    pub(super) planned: Vec<Planned>,
    pub(super) ignores_graceful: BTreeSet<ServerId>,
    pub(super) cannot_tell: BTreeSet<ServerId>,
    /// Console line of the next boots; `None` says the default.
    pub(super) ready_line: Option<String>,
    /// The pool has no room.
    #[serde(default)]
    pub(super) pool_full: bool,
    /// Guests in which no agent answers.
    #[serde(default)]
    pub(super) no_agent: BTreeSet<ServerId>,
    /// Guests that let go of no device.
    #[serde(default)]
    pub(super) holds_on: BTreeSet<ServerId>,
    /// Guests that write faster than any pass sends.
    #[serde(default)]
    pub(super) busy: BTreeSet<ServerId>,
}

impl Script {
    /// The fault that this use of `point` meets; it is met once.
    pub(super) fn meet(&mut self, point: FaultPoint, server: Option<ServerId>) -> Option<Fault> {
        let place = self.planned.iter().position(|p| p.fits(point, server))?;
        Some(self.planned.remove(place).fault)
    }
}
