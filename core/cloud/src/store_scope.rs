//! What the bearer of a token may see and change through the store protocol, and an agent without a token through
//! [`crate::AgentScoped`].
//!
//! Engines, and users with the permission `store:use`, have the whole store. An agent has its own host's areas ([`paths::agent_areas`]) and its
//! own lease, and of these:
//!
//! | path | read | write |
//! | --- | --- | --- |
//! | `jobs/{host}/{task}/{job}` | yes | replace only, guarded by the revision read: `state` as a worker may change it, `worker` to its own lease, `output`, `error` and the times |
//! | `agents/{host}/status` | yes | an [`AgentStatus`]; delete |
//! | `vms/{host}/{server}` | yes | a [`VmObservation`] of that server; delete |
//! | `guests/{host}/all` | yes | a [`GuestReport`] |
//! | `lent/{host}/…` | yes | never |
//! | `queries/{host}/{id}` | yes | replace only, guarded by the revision read: the `answer`; delete |
//! | `cloud/…` | yes, also as a guard | never |
//! | lease `hosts/{host}` | – | grant, renew, revoke; as a guard |
//!
//! Everything else is refused before the store is asked, guards included: a guard on a foreign key would tell whether
//! and when it changed.

use skyloom_identity::{Effect, Identified, Object, Place, Rights};
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{
    AgentStatus, GuestReport, HostId, JobRecord, JobState, Reason, VmObservation, WorkerMark, paths,
};
use skyloom_store::{
    DynBackend, Error, ErrorKind, Guard, Key, LeaseName, Outcome, Prefix, Result, Revision, Txn, Value, Write,
};

use crate::Query;

/// The part of the store that a caller has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreScope {
    /// Everything.
    All,
    /// The areas of one host's agent.
    Areas(HostId),
}

/// One area of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Area {
    Jobs,
    Agents,
    Vms,
    Guests,
    Lent,
    Queries,
}

fn denied(operation: &'static str) -> Error {
    Error::new(ErrorKind::Denied, operation).because("outside of what this token may touch")
}

impl StoreScope {
    /// The part that somebody has who was let in.
    ///
    /// # Errors
    /// `auth.forbidden`: they have none.
    pub fn of(who: &Identified) -> std::result::Result<Self, Reason> {
        match who {
            Identified::Engine { .. } => Ok(Self::All),
            Identified::Agent { host, .. } => Ok(Self::Areas(*host)),
            Identified::Person(rights) if uses_store(rights) => Ok(Self::All),
            Identified::Person(_) => Err(Reason::new(
                "auth.forbidden",
                "the store protocol takes the permission store:use",
            )
            .hint("engines and agents use it; users use the resources")),
        }
    }

    /// The host in whose areas the caller has to stay.
    fn confined_to(self) -> Option<HostId> {
        match self {
            Self::Areas(host) if kept(Rule::HostScope) => Some(host),
            Self::All | Self::Areas(_) => None,
        }
    }

    /// Refuses keys that may not be read.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub fn read(self, key: &Key) -> Result<()> {
        match self.confined_to() {
            Some(host) if area(host, key).is_none() && !of_cloud(key) => Err(denied("get")),
            _ => Ok(()),
        }
    }

    /// Refuses prefixes that reach out of what may be read.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub fn below(self, prefix: &Prefix, operation: &'static str) -> Result<()> {
        let Some(host) = self.confined_to() else {
            return Ok(());
        };
        let inside = paths::agent_areas(host)
            .iter()
            .map(String::as_str)
            .chain([paths::CLOUD])
            .any(|area| Prefix::parse(area).is_ok_and(|area| area.includes(prefix)));
        if inside { Ok(()) } else { Err(denied(operation)) }
    }

    /// Refuses leases of others.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub fn lease(self, name: &LeaseName, operation: &'static str) -> Result<()> {
        match self.confined_to() {
            Some(host) if name.as_key().as_str() != paths::host_lease(host) => Err(denied(operation)),
            _ => Ok(()),
        }
    }

    /// Refuses lists of leases: they tell of others.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`].
    pub fn leases(self) -> Result<()> {
        match self.confined_to() {
            None => Ok(()),
            Some(_) => Err(denied("list leases")),
        }
    }

    /// Commits what may be committed.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`], and those of the store.
    pub async fn commit_through(self, backend: &DynBackend, txn: Txn) -> Result<Outcome> {
        txn.check(&backend.capability())?;
        match self.commit(backend, &txn).await? {
            Some(outcome) => Ok(outcome),
            None => backend.commit(txn).await,
        }
    }

    /// Refuses transactions that touch what they may not. `Some` is an answer already: a guard that does not hold.
    async fn commit(self, backend: &DynBackend, txn: &Txn) -> Result<Option<Outcome>> {
        let Some(host) = self.confined_to() else {
            return Ok(None);
        };
        for guard in &txn.guards {
            match guard {
                Guard::Absent(key) | Guard::Revision(key, _) if of_cloud(key) => {}
                Guard::Absent(key) | Guard::Revision(key, _) => {
                    area(host, key).ok_or_else(|| denied("commit"))?;
                }
                Guard::Lease(name, _) => self.lease(name, "commit")?,
            }
        }
        // First everything that can be said without the store, so that a refused transaction asks it nothing.
        let mut replacements = Vec::new();
        for write in &txn.writes {
            replacements.extend(may_write(host, txn, write)?);
        }
        for new in replacements {
            let current = backend.get(new.key).await?;
            let modified = current.as_ref().map(|kv| kv.modified);
            let Some(current) = current.filter(|_| modified == Some(new.revision)) else {
                // Not committed at all: the record could reach that revision in between, unchecked.
                return Ok(Some(Outcome::Conflict {
                    guard: new.guard,
                    current: modified,
                }));
            };
            let same = match &new.record {
                Record::Job(job) => same_job(host, &current.value.parse()?, job),
                Record::Query(query) => same_query(&current.value.parse()?, query),
            };
            if !same {
                return Err(denied("commit"));
            }
        }
        Ok(None)
    }
}

fn uses_store(rights: &Rights) -> bool {
    let object = Object::all("store", Place::System);
    let permission = rights.permission("store:use");
    permission.is_some_and(|p| rights.decide(p, &object).effect == Effect::Allow)
}

/// Whether `key` is something that the store says of itself: no secret.
fn of_cloud(key: &Key) -> bool {
    key.segments().next() == Some(paths::CLOUD)
}

/// The area of `host` that `key` lies in.
fn area(host: HostId, key: &Key) -> Option<Area> {
    let mut segments = key.segments();
    let (first, second) = (segments.next()?, segments.next()?);
    segments.next().filter(|_| second == host.to_string())?;
    match first {
        "jobs" => Some(Area::Jobs),
        "agents" => Some(Area::Agents),
        "vms" => Some(Area::Vms),
        "guests" => Some(Area::Guests),
        "lent" => Some(Area::Lent),
        "queries" => Some(Area::Queries),
        _ => None,
    }
}

/// A record that replaces another, to be compared with it.
struct Replacement<'t> {
    key: &'t Key,
    guard: usize,
    revision: Revision,
    record: Record,
}

enum Record {
    Job(Box<JobRecord>),
    Query(Query),
}

/// Checks one write of an agent as far as it can be without the store.
fn may_write<'t>(host: HostId, txn: &'t Txn, write: &'t Write) -> Result<Option<Replacement<'t>>> {
    let refused = || denied("commit");
    let key = write.key();
    let area = area(host, key).ok_or_else(refused)?;
    let segments: Vec<&str> = key.segments().collect();
    let value = match write {
        Write::Put(_, value) => value,
        Write::Delete(_) => {
            return match (area, segments.as_slice()) {
                (Area::Vms | Area::Queries, [_, _, _]) | (Area::Agents, [_, _, "status"]) => Ok(None),
                _ => Err(refused()),
            };
        }
    };
    match (area, segments.as_slice()) {
        (Area::Jobs, [_, _, _, _]) | (Area::Queries, [_, _, _]) => {
            let (guard, revision) = revision_guard(txn, key).ok_or_else(refused)?;
            let record = match area {
                Area::Jobs => Record::Job(record(key, value)?),
                _ => Record::Query(record(key, value)?),
            };
            Ok(Some(Replacement {
                key,
                guard,
                revision,
                record,
            }))
        }
        (Area::Agents, [_, _, "status"]) => record::<AgentStatus>(key, value).map(|_| None),
        (Area::Guests, [_, _, "all"]) => record::<GuestReport>(key, value).map(|_| None),
        (Area::Vms, [_, _, server]) => {
            let seen: VmObservation = record(key, value)?;
            if seen.server.to_string() == *server {
                Ok(None)
            } else {
                Err(refused())
            }
        }
        _ => Err(refused()),
    }
}

/// The guard that lets only a replacement of what was read through.
fn revision_guard(txn: &Txn, wanted: &Key) -> Option<(usize, Revision)> {
    txn.guards.iter().enumerate().find_map(|(i, guard)| match guard {
        Guard::Revision(key, revision) if key == wanted => Some((i, *revision)),
        _ => None,
    })
}

/// A record that others will read must be one.
fn record<T: serde::de::DeserializeOwned>(key: &Key, value: &Value) -> Result<T> {
    serde_json::from_slice(value.bytes()).map_err(|e| {
        Error::new(ErrorKind::Invalid, "commit")
            .with("no such record under key", key)
            .because(e)
    })
}

/// Whether the worker of `host` changed only what is a worker's to change.
fn same_job(host: HostId, current: &JobRecord, new: &JobRecord) -> bool {
    let own_mark = |mark: &WorkerMark| mark.lease == paths::host_lease(host);
    let mut rest = new.clone();
    rest.state = current.state;
    rest.worker.clone_from(&current.worker);
    rest.output.clone_from(&current.output);
    rest.error.clone_from(&current.error);
    rest.started_at = current.started_at;
    rest.ended_at = current.ended_at;
    rest == *current && worker_may(current.state, new.state) && new.worker.as_ref().is_none_or(own_mark)
}

/// Whether only the answer changed.
fn same_query(current: &Query, new: &Query) -> bool {
    new.question == current.question && new.asked_at == current.asked_at
}

/// Whether the worker, not the engine, makes this change.
fn worker_may(from: JobState, to: JobState) -> bool {
    match to {
        JobState::Ready | JobState::UndoReady => false,
        // Taking back what nobody has started, and skipping what cannot be undone, is the engine's.
        JobState::Undone if matches!(from, JobState::Ready | JobState::UndoFailed) => false,
        JobState::Started
        | JobState::Succeeded
        | JobState::Failed
        | JobState::UndoStarted
        | JobState::Undone
        | JobState::UndoFailed => from == to && from.for_worker() || from.may_become(to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn host() -> HostId {
        HostId::from_uuid(Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001))
    }

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[test]
    fn an_area_ends_where_the_id_ends() {
        let h = host();
        let scope = StoreScope::Areas(h);
        assert!(scope.read(&key(&format!("jobs/{h}/t/j"))).is_ok());
        for bad in [
            format!("jobs/{h}"),
            format!("jobs/{h}0/t/j"),
            format!("jobs/x/{h}/j"),
            format!("claims/{h}/x"),
            format!("r/hosts/{h}/x"),
            format!("JOBS/{h}/t"),
            "jobs".to_owned(),
        ] {
            assert!(scope.read(&key(&bad)).is_err(), "{bad}");
        }
        assert!(
            scope
                .below(&Prefix::parse(&format!("jobs/{h}")).unwrap(), "list")
                .is_ok()
        );
        assert!(
            scope
                .below(&Prefix::parse(&format!("jobs/{h}/t")).unwrap(), "list")
                .is_ok()
        );
        for bad in [
            "",
            "jobs",
            "jobs/0198",
            "agents",
            "identity",
            &format!("jobs/{h}0"),
        ] {
            assert!(
                scope.below(&Prefix::parse(bad).unwrap(), "list").is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_worker_never_decides_for_the_engine() {
        let allowed: Vec<(JobState, JobState)> = JobState::ALL
            .iter()
            .flat_map(|from| JobState::ALL.map(|to| (*from, to)))
            .filter(|(from, to)| worker_may(*from, *to))
            .collect();
        assert_eq!(
            allowed,
            [
                (JobState::Ready, JobState::Started),
                (JobState::Started, JobState::Started),
                (JobState::Started, JobState::Succeeded),
                (JobState::Started, JobState::Failed),
                (JobState::UndoReady, JobState::UndoStarted),
                (JobState::UndoStarted, JobState::UndoStarted),
                (JobState::UndoStarted, JobState::Undone),
                (JobState::UndoStarted, JobState::UndoFailed),
            ]
        );
    }

    proptest! {
        /// Whatever an agent may read lies below one of its prefixes, and the other way round.
        #[test]
        fn keys_and_prefixes_agree(first in "jobs|agents|vms|lent|queries|claims|r|hosts|secrets", own in any::<bool>(), rest in "[a-z]{1,3}(/[a-z]{1,3}){0,2}") {
            let h = host();
            let second = if own { h.to_string() } else { format!("{h}1") };
            let prefix = Prefix::parse(&format!("{first}/{second}")).unwrap();
            let scope = StoreScope::Areas(h);
            prop_assert_eq!(scope.below(&prefix, "list").is_ok(), scope.read(&prefix.key(&rest).unwrap()).is_ok());
        }
    }
}
