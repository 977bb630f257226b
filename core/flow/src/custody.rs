//! Looks at what the store says of itself, for those who act by it.
//!
//! ```text
//!  new lease ──> Standing::read ──> unfinished copy: nobody acts │ Witness: another history: drop all caches, begin anew
//!  cloud/    ──mirror──> HoldFeed ──> Held ──> workers begin nothing, engines take no turns
//! ```
//!
//! Leases are no part of a backup: a store that was put back knows nobody's, so every process notices by its lease, and looks
//! here before it uses the next one.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value as Json;
use skyloom_model::{Copying, Custody, Hold, Incarnation, paths};
use skyloom_store::{
    DynBackend, Error, ErrorKind, Guard, Key, ListOptions, Mirror, MirrorDriver, Prefix, Result, Store,
    Versioned, latest,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What a store says of itself at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// Its incarnation; nothing in a store that no cloud was made in.
    pub custody: Option<Custody>,
    /// The hold on the fleet.
    pub hold: Option<Versioned<Hold>>,
    /// A copy into it that has not ended.
    pub copying: Option<Versioned<Copying>>,
}

impl Standing {
    /// Reads it.
    ///
    /// # Errors
    /// Those of the store; [`ErrorKind::Corrupt`] when a record is of a newer version.
    pub async fn read<S: Store + ?Sized>(store: &S) -> Result<Self> {
        let page = store.list(&cloud()?, ListOptions::default()).await?;
        let mut found = Self::default();
        for kv in &page.items {
            match kv.key.as_str() {
                paths::INCARNATION => found.custody = Some(kv.value.parse()?),
                paths::HOLD => found.hold = Some(Versioned::decode(kv)?),
                paths::COPYING => found.copying = Some(Versioned::decode(kv)?),
                _ => {}
            }
        }
        Ok(found)
    }

    /// The incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.custody.as_ref().map(|c| c.incarnation)
    }

    /// Refuses a store whose copy has not ended.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`].
    pub fn whole(&self) -> Result<()> {
        match &self.copying {
            None => Ok(()),
            Some(copying) => Err(Error::new(ErrorKind::Invalid, "use store")
                .with(
                    "it is the target of an unfinished copy from",
                    &copying.value.source,
                )
                .with("what to do", "give the same command again, or empty the store")),
        }
    }
}

/// The guard of a commit that must not pass while the fleet is held.
///
/// # Errors
/// Never in practice.
pub fn not_held() -> Result<Guard> {
    let key = Key::parse(paths::HOLD).map_err(|e| Error::new(ErrorKind::Internal, "hold").because(e))?;
    Ok(Guard::Absent(key))
}

fn cloud() -> Result<Prefix> {
    Prefix::parse(paths::CLOUD).map_err(|e| Error::new(ErrorKind::Internal, "read custody").because(e))
}

/// Whether the fleet is held, as far as a process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Not known yet: as if it was.
    Unknown,
    /// It is not.
    No,
    /// It is; by which hold, where that can be read.
    Yes(Option<Uuid>),
}

impl Held {
    /// Whether work may begin.
    #[must_use]
    pub fn free(self) -> bool {
        self == Self::No
    }

    /// By which hold.
    #[must_use]
    pub fn by(self) -> Option<Uuid> {
        match self {
            Self::Yes(by) => by,
            Self::Unknown | Self::No => None,
        }
    }
}

/// Follows the hold.
#[derive(Debug)]
pub struct HoldFeed {
    mirror: Mirror<Json>,
    driver: MirrorDriver<Json>,
    held: latest::Sender<Held>,
}

impl HoldFeed {
    /// A feed of `backend`'s hold, which must be run, and what it says.
    ///
    /// # Errors
    /// Never in practice.
    pub fn new(backend: &DynBackend) -> Result<(Self, latest::Receiver<Held>)> {
        let (mirror, driver) = Mirror::new(backend.clone(), cloud()?);
        let (held, said) = latest::channel(Held::Unknown);
        let feed = Self { mirror, driver, held };
        Ok((feed, said))
    }

    /// Follows until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { mirror, driver, held } = self;
        let mut changes = mirror.changes();
        let follow = async {
            if mirror.ready().await.is_err() {
                return;
            }
            loop {
                let now = look(&mirror);
                held.send_if_modified(|said| std::mem::replace(said, now) != now);
                if changes.next().await.is_none() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = driver.run(shutdown) => {}
            () = follow => {}
        }
    }
}

fn look(mirror: &Mirror<Json>) -> Held {
    let there = |path| Key::parse(path).ok().and_then(|key| mirror.get(&key));
    if let Some(hold) = there(paths::HOLD) {
        let id = hold.value.get("id").and_then(Json::as_str);
        return Held::Yes(id.and_then(|id| id.parse().ok()));
    }
    match there(paths::COPYING) {
        Some(_) => Held::Yes(None),
        None => Held::No,
    }
}

/// Notices that a store tells another history than the one a process has begun with. Clones remember together.
#[derive(Debug, Clone, Default)]
pub struct Witness(Arc<Mutex<Option<Incarnation>>>);

impl Witness {
    /// Takes in what the store says; whether that is another history. A store that begins to say one goes on with its own.
    pub fn another(&self, says: Option<Incarnation>) -> bool {
        let mut known = self.0.lock();
        let before = *known;
        *known = says.or(before);
        before.is_some() && before != *known
    }

    /// What it has taken in last.
    #[must_use]
    pub fn known(&self) -> Option<Incarnation> {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_incarnation_is_another_history() {
        let witness = Witness::default();
        let first = Incarnation::first(Uuid::from_u128(1), Uuid::from_u128(2));
        let second = first.next(Uuid::from_u128(3), jiff::Timestamp::from_second(5).unwrap());
        assert!(!witness.another(None));
        assert!(!witness.another(Some(first)));
        assert!(!witness.another(Some(first)));
        assert!(witness.another(Some(second)));
        assert!(!witness.another(Some(second)));
        assert!(witness.another(Some(first)), "also back");
        assert_eq!(witness.known(), Some(first));
    }
}
