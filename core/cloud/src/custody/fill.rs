//! Fills an empty store, in the order of the keys, and goes on after a crash.
//!
//! ```text
//!  empty ── mark ──> (batch + mark moved)* ──> read again: same count, same hash ──> mark gone + incarnation [+ hold]
//! ```
//!
//! Each commit compares the mark's revision, so two fillers never work on one store, and a commit whose outcome nobody knows is
//! cleared up by reading the mark.

use skyloom_flow::Standing;
use skyloom_model::{
    Copying, Custody, Event, EventId, EventKind, FORMAT, Hold, Ids, Incarnation, Name, Origin, Scope,
    Subject, Timestamp, paths,
};
use skyloom_store::{
    Error, ErrorKind, Key, ListOptions, Outcome, Prefix, Result, Store, Txn, Value, Versioned,
};

use super::digest::{Tally, Tallying};
use super::snapshot::Snapshot;

/// Bytes of the values of one batch.
const MOST_BYTES: usize = 512 << 10;
/// Records of one batch.
const MOST_RECORDS: usize = 100;
/// Tries of a commit whose outcome is not known.
const TRIES: usize = 5;

/// A target that is being filled.
pub(super) struct Filler<'t> {
    store: &'t dyn Store,
    operation: &'static str,
    mark: Versioned<Copying>,
    /// The last key that was there when this process began.
    there: Option<Key>,
    batch: Vec<(Key, Value)>,
    bytes: usize,
    written: u64,
}

/// What is there before anything is written.
pub(super) enum Target {
    /// Nothing.
    Empty,
    /// A part of a copy.
    Begun(Versioned<Copying>),
}

/// Looks at a target.
///
/// # Errors
/// [`ErrorKind::Invalid`] when there is something in it.
pub(super) async fn target(store: &dyn Store, operation: &'static str) -> Result<Target> {
    let standing = Standing::read(store).await?;
    if let Some(begun) = standing.copying {
        return Ok(Target::Begun(begun));
    }
    let page = store
        .list(&Prefix::all(), ListOptions::default().with_limit(1))
        .await?;
    match page.items.first() {
        None => Ok(Target::Empty),
        Some(first) => Err(Error::new(ErrorKind::Invalid, operation)
            .with("the target is not empty, it has", &first.key)
            .with("what to do", "name an empty store: records are never mixed")),
    }
}

impl<'t> Filler<'t> {
    /// Marks an empty target.
    pub(super) async fn begin(
        store: &'t dyn Store,
        operation: &'static str,
        mark: Copying,
    ) -> Result<Filler<'t>> {
        let key = at(paths::COPYING)?;
        let txn = Txn::new().create(key.clone(), Value::json(&mark)?);
        let done = store.commit(txn).await;
        if let Err(error) = &done
            && error.kind() != ErrorKind::Unknown
        {
            done?;
        }
        match Standing::read(store).await?.copying {
            Some(there) if there.value == mark => Ok(Self::resume(store, operation, there)),
            _ => Err(Error::new(ErrorKind::Conflict, operation).with("somebody else writes", "the target")),
        }
    }

    /// Goes on with a target that is partly filled.
    pub(super) fn resume(
        store: &'t dyn Store,
        operation: &'static str,
        mark: Versioned<Copying>,
    ) -> Filler<'t> {
        let there = mark.value.after.as_deref().and_then(|k| Key::parse(k).ok());
        Self {
            store,
            operation,
            mark,
            there,
            batch: Vec::new(),
            bytes: 0,
            written: 0,
        }
    }

    /// Takes the next record, in the order of the keys. One that is there already is passed over.
    pub(super) async fn put(&mut self, key: Key, value: Value) -> Result<()> {
        if self.there.as_ref().is_some_and(|there| key <= *there) {
            return Ok(());
        }
        let most = MOST_RECORDS.min(self.store.capability().max_txn_ops.saturating_sub(2).max(1));
        let len = value.bytes().len() + key.as_str().len();
        if !self.batch.is_empty() && (self.batch.len() >= most || self.bytes + len > MOST_BYTES) {
            self.flush().await?;
        }
        self.bytes += len;
        // Bytes that came from elsewhere are checked again.
        self.batch
            .push((key, Value::from_json_bytes(value.bytes().clone())));
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let Some((last, _)) = self.batch.last() else {
            return Ok(());
        };
        let next = Copying {
            after: Some(last.as_str().to_owned()),
            ..self.mark.value.clone()
        };
        let mut txn = self.mark.replace(&next)?;
        for (key, value) in &self.batch {
            txn = txn.put(key.clone(), value.clone());
        }
        for _ in 0..TRIES {
            match self.store.commit(txn.clone()).await {
                Ok(Outcome::Committed { revision }) => {
                    self.mark.modified = revision;
                    break;
                }
                Ok(Outcome::Conflict { .. }) => return Err(self.disturbed()),
                Err(error) if error.kind() == ErrorKind::Unknown => {
                    match Standing::read(self.store).await?.copying {
                        Some(there) if there.value == next => {
                            self.mark.modified = there.modified;
                            break;
                        }
                        Some(there) if there.modified == self.mark.modified => {}
                        _ => return Err(self.disturbed()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        self.written += u64::try_from(self.batch.len()).unwrap_or(u64::MAX);
        self.mark.value = next;
        self.batch.clear();
        self.bytes = 0;
        Ok(())
    }

    fn disturbed(&self) -> Error {
        Error::new(ErrorKind::Conflict, self.operation).with("somebody else writes", "the target")
    }

    /// Compares what is there with what should be, and makes the store usable as `custody` says, on hold if there is one.
    /// How many records this process has written.
    pub(super) async fn finish(
        mut self,
        wanted: &Tally,
        custody: &Custody,
        hold: Option<&Hold>,
        told: Option<&Event>,
    ) -> Result<u64> {
        self.flush().await?;
        let there = tally(self.store).await?;
        if there != *wanted {
            return Err(Error::new(ErrorKind::Corrupt, self.operation)
                .with("records wanted", wanted.records)
                .with("records in the target", there.records)
                .with(
                    "what to do",
                    "the target differs from the source: empty it and begin again",
                ));
        }
        let mut txn = self
            .mark
            .delete()
            .create(at(paths::INCARNATION)?, Value::json(custody)?);
        if let Some(hold) = hold {
            txn = txn.create(at(paths::HOLD)?, Value::json(hold)?);
        }
        if let Some(event) = told {
            txn = txn.create(at(&paths::event(event.scope, event.id))?, Value::json(event)?);
        }
        for _ in 0..TRIES {
            match self.store.commit(txn.clone()).await {
                Ok(Outcome::Committed { .. }) => return Ok(self.written),
                Ok(Outcome::Conflict { .. }) => return Err(self.disturbed()),
                Err(error) if error.kind() == ErrorKind::Unknown => {
                    let standing = Standing::read(self.store).await?;
                    if standing.custody.as_ref() == Some(custody) {
                        return Ok(self.written);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Unknown, self.operation).with("what to do", "give the same command again"))
    }
}

/// The count and hash of all that is in a store.
async fn tally(store: &dyn Store) -> Result<Tally> {
    let mut tallying = Tallying::default();
    let mut snapshot = Snapshot::now(store).await?;
    while let Some(records) = snapshot.page().await? {
        for kv in records {
            tallying.add(&kv.key, &kv.value)?;
        }
    }
    Ok(tallying.end())
}

pub(super) fn at(path: &str) -> Result<Key> {
    Key::parse(path).map_err(|e| Error::new(ErrorKind::Internal, "make key").because(e))
}

/// The record of a target's own incarnation.
pub(super) fn custody(from: &Incarnation, origin: Origin, ids: &dyn Ids, now: Timestamp) -> Custody {
    Custody {
        format: FORMAT,
        incarnation: from.next(ids.uuid(), now),
        origin,
        since: now,
    }
}

/// A hold on the fleet of a target, and the event that tells of it.
pub(super) fn held(
    custody: &Custody,
    reason: String,
    by: &str,
    ids: &dyn Ids,
    now: Timestamp,
) -> Result<(Hold, Event)> {
    let name = Name::new(paths::CLOUD).map_err(|e| Error::new(ErrorKind::Internal, "hold").because(e))?;
    let event = Event {
        format: FORMAT,
        id: EventId::fresh(ids),
        at: now,
        scope: Scope::System,
        kind: EventKind::FleetHeld,
        subject: Subject {
            kind: paths::CLOUD.to_owned(),
            id: custody.incarnation.cluster,
            name,
        },
        task: None,
        request_id: None,
        message: format!("held by {by}: {reason}"),
        reason: None,
    };
    let hold = Hold {
        format: FORMAT,
        id: ids.uuid(),
        since: now,
        reason,
        by: by.to_owned(),
        incarnation: Some(custody.incarnation),
    };
    Ok((hold, event))
}
