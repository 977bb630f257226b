//! What flows read and answer.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use skyloom_model::{
    HostId, Ids, JobId, JobSpec, Plan, ProjectId, Reason, ServerId, StageOutcome, TaskEnd, Timestamp,
};
use skyloom_scheduler::{Inventory, Scheduler};
use skyloom_store::{Guard, Key, Revision, Txn, Value as Document};

/// Records as they were read for one planning or settling; each is decoded when it is asked for.
#[derive(Debug, Clone, Default)]
pub struct Records(BTreeMap<Key, Found>);

#[derive(Debug, Clone)]
enum Found {
    /// As the store has it.
    Stored(Document, Revision),
    /// Read, and not there.
    Absent,
    /// As a commit under way will have it: nothing to guard, its writes are replaced.
    Pending(Option<Document>),
}

impl Records {
    /// Nothing read yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes what was read under `key`.
    pub fn insert(&mut self, key: Key, found: Option<(Document, Revision)>) {
        let found = found.map_or(Found::Absent, |(value, revision)| Found::Stored(value, revision));
        self.0.insert(key, found);
    }

    /// Notes what a commit under way will have put under `key`, or deleted.
    pub fn insert_pending(&mut self, key: Key, value: Option<Document>) {
        self.0.insert(key, Found::Pending(value));
    }

    /// Whether `key` was read.
    #[must_use]
    pub fn has_read(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    /// The revision under which `key` was last changed, if it is there and not of a commit under way.
    #[must_use]
    pub fn revision(&self, key: &Key) -> Option<Revision> {
        match self.0.get(key) {
            Some(Found::Stored(_, revision)) => Some(*revision),
            Some(Found::Absent | Found::Pending(_)) | None => None,
        }
    }

    /// The record under `key` as a `T`, if it is there.
    ///
    /// # Errors
    /// A reason when it is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, Reason> {
        match self.0.get(key) {
            Some(Found::Stored(value, _) | Found::Pending(Some(value))) => {
                value.parse().map(Some).map_err(|e| {
                    let why = skyloom_model::report(&e);
                    Reason::new(
                        "record.undecodable",
                        format!("the record {key} cannot be read: {why}"),
                    )
                })
            }
            Some(Found::Absent | Found::Pending(None)) | None => Ok(None),
        }
    }

    /// The record under `key` as a `T`.
    ///
    /// # Errors
    /// A reason when it is not there or not a `T`.
    pub fn need<T: DeserializeOwned>(&self, key: &Key) -> Result<T, Reason> {
        self.get(key)?
            .ok_or_else(|| Reason::new("record.gone", format!("the record {key} is gone")))
    }

    /// Adds to `txn`: only if the record under `key` still is as it was read.
    #[must_use]
    pub fn guard(&self, txn: Txn, key: &Key) -> Txn {
        match self.0.get(key) {
            Some(Found::Stored(_, revision)) => txn.guard(Guard::Revision(key.clone(), *revision)),
            Some(Found::Pending(_)) => txn,
            Some(Found::Absent) | None => txn.guard(Guard::Absent(key.clone())),
        }
    }

    /// Adds to `txn`: replace (or create) the record under `key`, if it is still as it was read.
    ///
    /// # Errors
    /// A reason when `value` cannot be serialised.
    pub fn put<T: Serialize>(&self, txn: Txn, key: &Key, value: &T) -> Result<Txn, Reason> {
        let value = Document::json(value)
            .map_err(|e| Reason::new("record.unencodable", skyloom_model::report(&e)))?;
        Ok(self.guard(txn, key).put(key.clone(), value))
    }

    /// Adds to `txn`: delete the record under `key`, if it is still as it was read.
    #[must_use]
    pub fn delete(&self, txn: Txn, key: &Key) -> Txn {
        match self.0.get(key) {
            Some(Found::Stored(..) | Found::Pending(Some(_))) => self.guard(txn, key).delete(key.clone()),
            Some(Found::Absent | Found::Pending(None)) | None => txn,
        }
    }
}

/// What planning may use: nothing else.
#[derive(Debug)]
pub struct PlanContext<'a> {
    /// The records that [`crate::TaskFlow::reads`] named.
    pub records: &'a Records,
    /// All hosts.
    pub inventory: &'a Inventory,
    /// Chooses among them.
    pub scheduler: &'a dyn Scheduler,
    /// Fresh ids.
    pub ids: &'a dyn Ids,
    /// The time of planning.
    pub now: Timestamp,
}

/// A stage that has ended, and what is known by then.
#[derive(Debug)]
pub struct StageEnd<'a> {
    /// The plan so far; the stage is its last.
    pub plan: &'a Plan,
    /// The stage's name.
    pub stage: &'a str,
    /// What became of it.
    pub outcome: &'a StageOutcome,
    /// What the jobs of all stages gave.
    pub outputs: &'a BTreeMap<JobId, Value>,
}

/// A stage of a plan and what is committed with it.
#[derive(Debug, Clone, Default)]
pub struct Planned {
    /// The stage's name; empty: [`skyloom_model::MAIN_STAGE`].
    pub stage: String,
    /// The jobs, each after those that it names in `after`.
    pub jobs: Vec<JobSpec>,
    /// Why the host was chosen.
    pub placement: Option<Value>,
    /// Record changes of the same commit (claims, placement, generation …), with guards on what they were made from.
    pub changes: Txn,
    /// The subject's generation under which host jobs work.
    pub generation: u64,
    /// Server secrets that the host needs until the task ends.
    pub lend: Vec<Lend>,
}

/// "Lend the secrets of this server to this host until the task ends."
pub type Lend = (ProjectId, ServerId, HostId);

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The task fails; nothing was begun.
    Fail(Reason),
    /// The task fails because no host can take what it needs; what the scheduler said is kept as its plan's placement.
    NoHost(Reason, Box<Value>),
    /// The task waits; it is planned anew when the world changes.
    Wait(Reason),
    /// The task waits for room: it is planned anew when a host has more of it, and at that moment.
    WaitForRoom(Reason, Timestamp),
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self::Fail(reason)
    }
}

/// What settling may use.
#[derive(Debug)]
pub struct SettleContext<'a> {
    /// How the task ends.
    pub end: TaskEnd,
    /// Why, unless it is done.
    pub reason: Option<&'a Reason>,
    /// Its plan, if it got one.
    pub plan: Option<&'a Plan>,
    /// What its jobs gave.
    pub outputs: &'a BTreeMap<JobId, Value>,
    /// The records that [`crate::TaskFlow::reads`] named, read anew.
    pub records: &'a Records,
    /// The time of settling.
    pub now: Timestamp,
}

/// What is committed with a task's end.
#[derive(Debug, Clone, Default)]
pub struct Settled {
    /// Record changes, with guards on what they were made from.
    pub changes: Txn,
    /// The task's result.
    pub result: Option<Value>,
}
