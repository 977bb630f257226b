//! What some hypervisors can do beyond the [`Hypervisor`](crate::Hypervisor) trait itself: small traits, reached by its `as_*`.
//!
//! The rules of the trait hold here, too: verbs say *ensure*; each carries the order's generation, a newer domain refuses
//! it ([`ErrorKind::Stale`](crate::ErrorKind::Stale)) and an older one takes it on first; after any error, what is must be
//! looked up. A domain that does not exist is [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) to all of them. What a
//! verb changes about the domain's making (its disks and NICs) is durable before it is live.

use std::fmt::Debug;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use skyloom_model::{IoLimits, MacAddr, Secret, ServerId, SnapshotId, Timestamp};

use crate::{DiskSpec, NicSpec, Result};

/// Ability: holding a guest's CPUs, its memory in place. A held guest stays held when the agent comes back;
/// [`start`](crate::Hypervisor::start) lets it go on as [`Pause::unpause`] does.
#[async_trait]
pub trait Pause: Send + Sync + Debug {
    /// Ensures that the guest's CPUs are held.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when it is off.
    async fn pause(&self, id: ServerId, generation: u64) -> Result<()>;

    /// Ensures that a held guest's CPUs execute. One that runs is left alone.
    ///
    /// # Errors
    /// As [`Pause::pause`]: a domain that is off is not started.
    async fn unpause(&self, id: ServerId, generation: u64) -> Result<()>;
}

/// Ability: off, with the memory kept on disk. The next [`start`](crate::Hypervisor::start) goes on from there, under the
/// definition that the memory was written by; a [`stop`](crate::Hypervisor::stop) (which says `AlreadyOff`) or `undefine`
/// drops the memory. A `define` in between is for the start after that.
#[async_trait]
pub trait Suspend: Send + Sync + Debug {
    /// Ensures that the domain is off with its memory on disk
    /// ([`Suspended`](skyloom_model::PowerState::Suspended)). A failure leaves the guest as it was, running or paused.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when it is off without memory, [`Full`](crate::ErrorKind::Full).
    async fn suspend(&self, id: ServerId, generation: u64) -> Result<()>;
}

/// Ability: the state of disks at one moment, kept inside of them.
///
/// Works on a domain that is off as well as on a running one. All disks of a snapshot stand still at the same moment.
/// What is known of snapshots goes with the domain (`undefine`), not with the disks.
#[async_trait]
pub trait Snapshots: Send + Sync + Debug {
    /// Ensures that the snapshot is there. One that was begun and not ended is not there: it is removed and taken anew.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) when a disk's format keeps none, or memory is asked for of a guest
    /// that is off; [`NotFound`](crate::ErrorKind::NotFound) when the domain has no such disk;
    /// [`Invalid`](crate::ErrorKind::Invalid) for no disk at all, one named twice or a read-only one;
    /// [`Conflict`](crate::ErrorKind::Conflict) when one of that id is there with other disks, or with memory where this
    /// is without.
    async fn take(&self, id: ServerId, generation: u64, order: &SnapshotOrder) -> Result<SnapshotFound>;

    /// Ensures that the disks are as they were then. With memory, the guest goes on from that moment, held or running as
    /// it was, in a new process and under the definition that the memory was written by; without it the domain must be
    /// off. Each order reverts: what was written since is lost, also when it comes twice.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) also when it is not whole; [`Conflict`](crate::ErrorKind::Conflict) when it
    /// runs or is suspended and no memory was kept, or when a disk of the snapshot is no longer the domain's.
    async fn revert(&self, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()>;

    /// Ensures that nothing of the snapshot is left in any disk of the domain. From its first step on the snapshot is no
    /// longer told of.
    async fn forget(&self, id: ServerId, generation: u64, snapshot: SnapshotId) -> Result<()>;

    /// The snapshots that are whole, in the order in which they were taken.
    async fn snapshots(&self, id: ServerId) -> Result<Vec<SnapshotFound>>;
}

/// A snapshot to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotOrder {
    /// Under which id.
    pub snapshot: SnapshotId,
    /// Names of the disks; none of them is read-only.
    pub disks: Vec<String>,
    /// With the guest's memory.
    pub memory: bool,
}

/// A snapshot that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFound {
    /// Which.
    pub snapshot: SnapshotId,
    /// Its disks with the bytes that they describe, in name order.
    pub disks: Vec<(String, u64)>,
    /// Bytes of memory; 0 without.
    pub memory_bytes: u64,
    /// When the disks stood still, by the host's clock.
    pub taken_at: Timestamp,
}

/// Ability: disks and NICs that come and go. Of a domain that is off they change its definition alone; one that is
/// suspended refuses them all ([`Conflict`](crate::ErrorKind::Conflict)): its memory knows the devices that it was written
/// with.
///
/// A `define` of the same devices may come first: then only the guest is changed.
#[async_trait]
pub trait Hotplug: Send + Sync + Debug {
    /// Ensures that the domain has the disk, as its last one if it is new.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when a disk of that name has another file.
    async fn attach_disk(&self, id: ServerId, generation: u64, disk: &DiskSpec) -> Result<()>;

    /// Ensures that the domain has no disk of that name, and that nothing holds its file any more when this returns.
    ///
    /// # Errors
    /// [`Refused`](crate::ErrorKind::Refused), transient, when the guest does not let go of it in time: the guest keeps the
    /// disk for now, the next start is without it, and attaching it again changes nothing but that.
    async fn detach_disk(&self, id: ServerId, generation: u64, disk: &str) -> Result<()>;

    /// Ensures that the disk has at least `bytes`, file and what the guest sees.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for a disk that the domain does not have.
    async fn grow_disk(&self, id: ServerId, generation: u64, disk: &str, bytes: u64) -> Result<()>;

    /// Ensures what the disk may do at most; `None` lifts the limits.
    ///
    /// # Errors
    /// As [`Hotplug::grow_disk`].
    async fn limit_disk(
        &self,
        id: ServerId,
        generation: u64,
        disk: &str,
        limits: Option<IoLimits>,
    ) -> Result<()>;

    /// Ensures that the domain has the NIC, as its last one if it is new.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when a NIC of that address is plugged in elsewhere.
    async fn attach_nic(&self, id: ServerId, generation: u64, nic: &NicSpec) -> Result<()>;

    /// Ensures that the domain has no NIC of that address.
    ///
    /// # Errors
    /// As [`Hotplug::detach_disk`].
    async fn detach_nic(&self, id: ServerId, generation: u64, mac: MacAddr) -> Result<()>;
}

/// Ability: a picture of what the guest shows.
#[async_trait]
pub trait Screen: Send + Sync + Debug {
    /// A PNG of at most 8 MiB. Untrusted content.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when it is off.
    async fn screenshot(&self, id: ServerId) -> Result<Vec<u8>>;
}

/// Ability: the QEMU guest agent. Whatever it answers is hostile: bounded, typed, never trusted beyond its own server.
#[async_trait]
pub trait GuestAgent: Send + Sync + Debug {
    /// Whether an agent answers in the guest now. `false` when it is silent for a few seconds, and when the domain is off.
    async fn answers(&self, id: ServerId) -> Result<bool>;

    /// Sets a user's password in the guest, given as its crypt(3) hash.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when no agent answers, [`Conflict`](crate::ErrorKind::Conflict) when
    /// the domain is off, [`Refused`](crate::ErrorKind::Refused) with what the agent said, bounded.
    async fn set_password(&self, id: ServerId, user: &str, hash: &Secret<String>) -> Result<()>;
}
