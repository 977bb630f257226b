//! What a test can let go wrong, once, at the next use.

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
}

impl FaultPoint {
    /// All points.
    pub const ALL: [Self; 16] = [
        Self::Facts,
        Self::Define,
        Self::Start,
        Self::Stop,
        Self::Undefine,
        Self::Inspect,
        Self::Recover,
        Self::Console,
        Self::Event,
        Self::CachedImage,
        Self::CacheImage,
        Self::CreateOverlay,
        Self::CreateSeed,
        Self::DeleteDisk,
        Self::DeleteServer,
        Self::Disks,
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
            | Self::DeleteServer => true,
            Self::Facts
            | Self::Inspect
            | Self::Recover
            | Self::Console
            | Self::Event
            | Self::CachedImage
            | Self::Disks => false,
        }
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
            Self::Console => "read console",
            Self::Event => "send event",
            Self::CachedImage => "look up image",
            Self::CacheImage => "cache image",
            Self::CreateOverlay => "create overlay",
            Self::CreateSeed => "create config drive",
            Self::DeleteDisk => "delete disk",
            Self::DeleteServer => "delete server's disks",
            Self::Disks => "list disks",
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
    /// The verb never returns and nothing happened.
    Hang,
    /// It happened, but the verb never returns.
    HangAfterEffect,
    /// The domain has disappeared just before the verb.
    Vanish,
    /// `inspect` and `recover` answer `CannotTell`; other verbs fail with [`ErrorKind::Unavailable`].
    CannotTell,
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
