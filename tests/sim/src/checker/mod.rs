//! Looks at every commit and every effect as it happens, and says when an invariant is broken.
//!
//! | invariant | looked at |
//! | --- | --- |
//! | I1 a guest executes at most once | each start |
//! | I2 nothing acknowledged disappears | each deletion, each acknowledgement |
//! | I3 plans are only appended to, ended tasks never change, states change as their tables say | each write of a task, plan or job |
//! | I4 one task per key, no effect again after its result | each new task, each beginning of a job |
//! | I5 nothing is written under a lease that is not the writer's | each commit of an engine or agent, each beginning of a job |
//! | I6 a ledger is the sum of its claims, and within the host's capacity | each write of a ledger, claim or server |
//! | I7 a job comes after what it builds on, and goes after what was built on it | each write of a job |
//! | I8 every task ends | after healing ([`rest`]) |
//! | I9 a mirror shows what is | after healing |
//! | I10 what failed leaves nothing | at rest |
//! | I11 an agent touches what is its host's | each commit of an agent, each beginning of a job |
//! | I12 nothing is without an owner | at rest |
//! | I13 a project's quota ledger says what the project has | each write of a resource or a quota |
//!
//! It keeps the few fields that these speak of and does work proportional to what was written.

mod jobs;
pub(crate) mod model;
mod quotas;
mod rest;
mod servers;
mod tasks;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::de::DeserializeOwned;
use skyloom_flow::journal::Effect as Effort;
use skyloom_hypervisor::{Effect, EffectKind, Executions};
use skyloom_model::{HostId, PortId, ServerId, TaskId};
use skyloom_store::{Key, Outcome, Value, Write};

use self::model::{AnyDoc, EventDoc, HostModel, LeaseBook, PortDoc, ServerDoc, TaskModel, lease_of};
use crate::bed::{Part, Who};

pub(crate) use rest::{HostSeen, Leftover};

/// See above.
#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) leases: LeaseBook,
    complaints: VecDeque<(&'static str, String)>,
    tasks: BTreeMap<TaskId, TaskModel>,
    servers: BTreeMap<ServerId, ServerDoc>,
    hosts: BTreeMap<HostId, HostModel>,
    ports: BTreeMap<PortId, ServerId>,
    secrets: BTreeMap<ServerId, ()>,
    /// Which task a caller's key has made.
    keys: BTreeMap<(String, String), TaskId>,
    /// What stands in a journal as done, and was not ordered anew since: the try.
    journaled: BTreeMap<Effort, u32>,
    /// Where guests execute.
    running: Executions,
    /// The newest generation of which an order was carried out, by host and server.
    ordered: BTreeMap<(u32, ServerId), u64>,
    quotas: quotas::Quotas,
    /// What clients were told.
    acknowledged: BTreeMap<TaskId, ()>,
    /// Which life of a process got its lease last.
    holders: BTreeMap<String, u32>,
}

/// What a commit changed, to be checked when all of it is in.
#[derive(Debug)]
enum Changed {
    Task(TaskId, Option<model::TaskDoc>),
    Plan(TaskId),
    Job(TaskId, skyloom_model::JobId, Option<model::JobDoc>),
    Mark(TaskId),
    Event(TaskId),
    Server(ServerId, Option<ServerDoc>),
    Host(HostId),
}

/// The words of a key.
fn id<T: std::str::FromStr>(segment: Option<&str>) -> Option<T> {
    segment?.parse().ok()
}

impl Checker {
    /// The first thing that is wrong, once.
    pub(crate) fn complaint(&mut self) -> Option<(&'static str, String)> {
        self.complaints.pop_front()
    }

    fn complain(&mut self, invariant: &'static str, what: String) {
        self.complaints.push_back((invariant, what));
    }

    /// A process got its lease in this life.
    pub(crate) fn holds(&mut self, who: &Who) {
        self.holders.insert(who.name.to_string(), who.life);
    }

    /// A commit that has happened.
    pub(crate) fn commit(&mut self, now: Duration, who: &Who, writes: &[Write]) {
        self.writer(now, who, writes);
        let mut changed = Vec::with_capacity(writes.len());
        for write in writes {
            let (key, value) = match write {
                Write::Put(key, value) => (key, Some(value)),
                Write::Delete(key) => (key, None),
            };
            self.take(key, value, &mut changed);
        }
        for change in &changed {
            match change {
                Changed::Event(_) => {}
                Changed::Task(id, before) => {
                    self.check_task(now, who, *id, before.as_ref());
                    self.check_told(*id, before.as_ref(), &changed);
                }
                Changed::Plan(id) => self.check_plan_writer(who, *id),
                Changed::Job(task, job, before) => self.check_job(now, who, *task, job, before.as_ref()),
                Changed::Mark(id) => self.check_mark(*id),
                Changed::Server(id, before) => {
                    self.check_server(*id, before.as_ref(), &changed);
                    self.check_power(who, *id, before.as_ref(), &changed);
                }
                Changed::Host(id) => self.check_host(*id),
            }
        }
        self.check_quotas();
    }

    /// I5, I11: whoever writes holds the lease under which it may, and stays in its own areas.
    fn writer(&mut self, now: Duration, who: &Who, writes: &[Write]) {
        if let Some(lease) = lease_of(who) {
            if self.leases.held(&lease, now).is_none() {
                self.complain("I5", format!("{} writes and its lease {lease} is over", who.name));
            } else if self.holders.get(&*who.name).is_some_and(|life| *life != who.life) {
                self.complain(
                    "I5",
                    format!(
                        "{} writes in its life {} and a later one has its lease",
                        who.name, who.life
                    ),
                );
            }
        }
        if let Part::Agent(host) | Part::Rogue(host) = who.part {
            let host = host.to_string();
            let own = |key: &Key| {
                let mut segments = key.segments();
                matches!(
                    segments.next(),
                    Some("jobs" | "agents" | "vms" | "guests" | "queries")
                ) && segments.next() == Some(host.as_str())
            };
            if let Some(foreign) = writes.iter().map(Write::key).find(|key| !own(key)) {
                self.complain("I11", format!("{} writes {foreign}", who.name));
            }
        }
    }

    /// Takes one write into the model.
    fn take(&mut self, key: &Key, value: Option<&Value>, changed: &mut Vec<Changed>) {
        let mut segments = key.segments();
        if key.segments().next() == Some("r") {
            self.take_counted(key, value);
        }
        match segments.next() {
            Some("tasks") => self.take_task(key, value, changed),
            Some("plans") => self.take_plan(key, value, changed),
            Some("jobs" | "steps") => self.take_job(key, value, changed),
            Some("active") => {
                if let Some(task) = id::<TaskId>(segments.next()) {
                    self.tasks.entry(task).or_default().mark = value.is_some();
                    changed.push(Changed::Mark(task));
                }
            }
            Some("runs") => {
                if let Some(task) = id::<TaskId>(segments.next()) {
                    let model = self.tasks.entry(task).or_default();
                    // What is archived goes with its task.
                    model.run = value.is_some() || model.archived;
                }
            }
            Some("archive") if segments.next() == Some("task") => self.take_archived(key, value),
            Some("quotas") => self.take_quota(key, value),
            Some("r") => match segments.next() {
                Some("servers") => self.take_server(key, value, changed),
                Some("hosts") => {
                    if let Some(host) = id::<HostId>(Some(key.last())) {
                        self.hosts.entry(host).or_default().doc = self.parse(key, value);
                    }
                }
                Some("ports") => {
                    if let Some(port) = id::<PortId>(Some(key.last())) {
                        match self.parse::<PortDoc>(key, value) {
                            Some(doc) => self.ports.insert(port, doc.spec.server),
                            None => self.ports.remove(&port),
                        };
                    }
                }
                _ => {}
            },
            Some("secrets") => {
                if let Some(server) = id::<ServerId>(Some(key.last())) {
                    match value {
                        Some(_) => self.secrets.insert(server, ()),
                        None => self.secrets.remove(&server),
                    };
                }
            }
            Some("events") => {
                let event = self.parse::<EventDoc>(key, value);
                changed.extend(event.and_then(|e| e.task).map(Changed::Event));
            }
            Some("claims" | "ledgers" | "lent" | "vms") => self.take_of_host(key, value, changed),
            _ => {
                if let Some(value) = value
                    && value.parse::<AnyDoc>().is_err()
                {
                    self.complain("I3", format!("{key} is no document"));
                }
            }
        }
    }

    /// A document; one that cannot be read is a complaint.
    fn parse<T: DeserializeOwned>(&mut self, key: &Key, value: Option<&Value>) -> Option<T> {
        match value?.parse() {
            Ok(document) => Some(document),
            Err(error) => {
                self.complain("I3", format!("{key} cannot be read: {error}"));
                None
            }
        }
    }

    /// I1: something has happened on a host.
    pub(crate) fn effect(&mut self, effect: &Effect) {
        if let Err(what) = self.running.see(effect) {
            self.complain("I1", what);
        }
        let ordered = matches!(
            effect.kind,
            EffectKind::Defined
                | EffectKind::Redefined
                | EffectKind::Started
                | EffectKind::StartedTwice
                | EffectKind::Stopped { .. }
                | EffectKind::Undefined
        );
        if let Some(server) = effect.server.filter(|_| ordered) {
            let newest = self.ordered.entry((effect.host, server)).or_default();
            let (before, now) = (*newest, effect.generation);
            *newest = before.max(now);
            if now < before {
                let kind = &effect.kind;
                self.complain(
                    "I5",
                    format!("{kind:?} of {server} was ordered at generation {now}, after one of {before}"),
                );
            }
        }
    }

    /// I2: a client was told of a task.
    pub(crate) fn acknowledge(&mut self, task: TaskId) {
        self.acknowledged.insert(task, ());
        if self.tasks.get(&task).is_none_or(|t| t.doc.is_none()) {
            self.complain("I2", format!("task {task} was acknowledged and is not there"));
        }
    }
}

/// A commit in one line.
pub(crate) fn describe(writes: &[Write], outcome: &Outcome) -> String {
    use std::fmt::Write as _;
    let mut line = match outcome {
        Outcome::Committed { revision } => format!("at {revision}:"),
        Outcome::Conflict { guard, current } => format!("conflict at guard {guard}, now {current:?}:"),
    };
    for write in writes {
        let _ = match write {
            Write::Put(key, value) => {
                let state = value
                    .parse::<serde_json::Value>()
                    .ok()
                    .and_then(|v| v.get("state").and_then(|s| s.as_str().map(str::to_owned)));
                write!(
                    line,
                    " {key}{}",
                    state.map(|s| format!("={s}")).unwrap_or_default()
                )
            }
            Write::Delete(key) => write!(line, " -{key}"),
        };
    }
    line
}
