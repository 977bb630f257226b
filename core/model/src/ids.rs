//! Typed ids (UUID version 7: sortable by creation time) and the sources they come from.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::{Clock, Timestamp};

/// The id of a `K`. Ids of different kinds do not mix.
pub struct Id<K: ?Sized>(Uuid, PhantomData<fn() -> Box<K>>);

/// Id of a server.
pub type ServerId = Id<crate::Server>;
/// Id of a host.
pub type HostId = Id<crate::Host>;
/// Id of a flavor.
pub type FlavorId = Id<crate::Flavor>;
/// Id of an image.
pub type ImageId = Id<crate::Image>;
/// Id of a keypair.
pub type KeypairId = Id<crate::Keypair>;
/// Id of a port.
pub type PortId = Id<crate::Port>;
/// Id of a volume.
pub type VolumeId = Id<crate::Volume>;
/// Id of a snapshot.
pub type SnapshotId = Id<crate::Snapshot>;
/// Id of a network.
pub type NetworkId = Id<crate::Network>;
/// Id of a subnet.
pub type SubnetId = Id<crate::Subnet>;
/// Id of a security group.
pub type SecurityGroupId = Id<crate::SecurityGroup>;
/// Id of a project.
pub type ProjectId = Id<crate::Project>;
/// Id of an API token (not its secret).
pub type TokenId = Id<crate::Token>;
/// Id of an event.
pub type EventId = Id<crate::Event>;
/// Id of a task.
pub type TaskId = Id<crate::Task>;
/// Id of a user or service account; users themselves come with the identity service.
pub type UserId = Id<dyn fmt::Debug>;

impl<K: ?Sized> Id<K> {
    /// Wraps a UUID.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }
    /// The UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
    /// A fresh id.
    #[must_use]
    pub fn fresh(ids: &dyn Ids) -> Self {
        Self::from_uuid(ids.uuid())
    }
}

impl<K: ?Sized> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K: ?Sized> Copy for Id<K> {}
impl<K: ?Sized> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K: ?Sized> Eq for Id<K> {}
impl<K: ?Sized> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K: ?Sized> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K: ?Sized> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl<K: ?Sized> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
impl<K: ?Sized> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
impl<K: ?Sized> FromStr for Id<K> {
    type Err = uuid::Error;
    fn from_str(s: &str) -> Result<Self, uuid::Error> {
        s.parse().map(Self::from_uuid)
    }
}
impl<K: ?Sized> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(s)
    }
}
impl<'de, K: ?Sized> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Uuid::deserialize(d).map(Self::from_uuid)
    }
}

#[cfg(feature = "openapi")]
impl<K: ?Sized> utoipa::PartialSchema for Id<K> {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
            .description(Some("A version 7 UUID."))
            .into()
    }
}
#[cfg(feature = "openapi")]
impl<K: ?Sized> utoipa::ToSchema for Id<K> {
    fn name() -> std::borrow::Cow<'static, str> {
        "Id".into()
    }
}

/// A source of ids and random bytes.
pub trait Ids: Send + Sync + fmt::Debug + 'static {
    /// A fresh version 7 UUID, greater than those given before in the same millisecond or earlier.
    fn uuid(&self) -> Uuid;
    /// Fills `out` with random bytes fit for secrets (from a seed only in tests).
    fn random(&self, out: &mut [u8]);
}

impl<T: Ids + ?Sized> Ids for Arc<T> {
    fn uuid(&self) -> Uuid {
        (**self).uuid()
    }
    fn random(&self, out: &mut [u8]) {
        (**self).random(out);
    }
}

/// Ids from the operating system's random source and the given clock.
#[derive(Debug)]
pub struct OsIds<C> {
    clock: C,
    context: Mutex<(u64, u16)>,
}

impl<C: Clock> OsIds<C> {
    /// A source that takes its time from `clock`.
    pub fn new(clock: C) -> Self {
        Self {
            clock,
            context: Mutex::new((0, 0)),
        }
    }
}

/// Version 7 with a 12-bit counter: ids of one source are strictly ordered.
fn v7(now: Timestamp, last: &Mutex<(u64, u16)>, mut random: [u8; 8]) -> Uuid {
    let ms = u64::try_from(now.as_millisecond()).unwrap_or(0);
    let mut last = last.lock();
    if ms > last.0 {
        *last = (ms, 0);
    } else if last.1 < 0x0fff {
        last.1 += 1;
    } else {
        *last = (last.0 + 1, 0);
    }
    random[0] = (random[0] & 0x3f) | 0x80;
    let high = (last.0 << 16) | 0x7000 | u64::from(last.1);
    Uuid::from_u64_pair(high, u64::from_be_bytes(random))
}

impl<C: Clock> Ids for OsIds<C> {
    fn uuid(&self) -> Uuid {
        let mut bytes = [0; 8];
        self.random(&mut bytes);
        v7(self.clock.now(), &self.context, bytes)
    }
    #[expect(
        clippy::expect_used,
        reason = "without randomness no secret may be made; there is nothing to go on with"
    )]
    fn random(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("the operating system gives random bytes");
    }
}

/// Ids from a seed: the same seed gives the same ids. For tests and simulations only.
#[derive(Debug)]
pub struct SeededIds<C> {
    clock: C,
    state: Mutex<u64>,
    context: Mutex<(u64, u16)>,
}

impl<C: Clock> SeededIds<C> {
    /// A source for `seed`.
    pub fn new(clock: C, seed: u64) -> Self {
        Self {
            clock,
            state: Mutex::new(seed),
            context: Mutex::new((0, 0)),
        }
    }
}

impl<C: Clock> Ids for SeededIds<C> {
    fn uuid(&self) -> Uuid {
        let mut bytes = [0; 8];
        self.random(&mut bytes);
        v7(self.clock.now(), &self.context, bytes)
    }
    fn random(&self, out: &mut [u8]) {
        let mut state = self.state.lock();
        for chunk in out.chunks_mut(8) {
            // SplitMix64
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = *state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;

    #[test]
    fn ids_of_one_source_are_strictly_ordered_v7() {
        let ids = SeededIds::new(ManualClock::new(), 7);
        let made: Vec<Uuid> = (0..10_000).map(|_| ids.uuid()).collect();
        assert!(made.windows(2).all(|w| w[0] < w[1]));
        assert!(made.iter().all(|u| u.get_version_num() == 7));
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let a = SeededIds::new(ManualClock::new(), 42);
        let b = SeededIds::new(ManualClock::new(), 42);
        assert!((0..100).all(|_| a.uuid() == b.uuid()));
    }
}
