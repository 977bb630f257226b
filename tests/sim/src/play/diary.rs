//! What is written down of a play, commit by commit: the events of the cloud, what became of each request, of each server, of
//! each host. It only listens.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use skyloom_model::{
    Event, EventKind, Host, HostId, HostLedger, JobId, Lifecycle, OrderVerb, Plan, Reason, Resources, Run,
    ServerId, TaskId, TaskState,
};
use skyloom_store::{Key, Value, Write};

use super::describe::{counted, drawn};
use super::played::{Entry, Kind, Latency};
use super::units::clock;
use crate::faults::Planned;

/// See above.
#[derive(Debug, Default)]
pub(crate) struct Diary {
    start: Duration,
    /// Names of all processes, engines first, and how many of these there are.
    processes: Vec<String>,
    engines: usize,
    pub(super) entries: Vec<Entry>,
    servers: BTreeMap<ServerId, ServerSeen>,
    tasks: BTreeMap<TaskId, TaskSeen>,
    pub(super) hosts: BTreeMap<HostId, HostSeen>,
    deeds: Vec<Tally>,
    /// Tries of jobs beyond the first, by kind.
    pub(super) retries: BTreeMap<String, u64>,
    pub(super) commits: u64,
    pub(super) effects: u64,
    /// Until when a create took, from its request to the server being active, in milliseconds.
    pub(super) to_active: Vec<u64>,
}

#[derive(Debug, Default)]
struct ServerSeen {
    name: String,
    active_at: Option<Duration>,
}

#[derive(Debug, Default)]
struct TaskSeen {
    /// The kinds of its jobs, until it ends.
    kinds: BTreeMap<JobId, String>,
    flow: String,
    state: Option<TaskState>,
    /// The event of the script that asked for it.
    event: Option<usize>,
}

/// What is known of a host.
#[derive(Debug, Default, Clone)]
pub(super) struct HostSeen {
    pub(super) name: String,
    /// What can be claimed of it.
    pub(super) offers: Resources,
    pub(super) ledger: HostLedger,
    pub(super) most_servers: u32,
    pub(super) reachable: bool,
    pub(super) enabled: bool,
}

/// What became of an event's requests.
#[derive(Debug, Default)]
struct Tally {
    name: &'static str,
    expected: usize,
    accepted: usize,
    refused: usize,
    all_asked: bool,
    told: bool,
    open: usize,
    done: usize,
    failed: usize,
    cancelled: usize,
    /// When the servers of its creates were asked for.
    asked: BTreeMap<ServerId, Duration>,
}

#[derive(Deserialize)]
struct TaskDoc {
    flow: String,
    state: TaskState,
}

#[derive(Deserialize)]
struct ServerDoc {
    meta: MetaDoc,
    status: StatusDoc,
}
#[derive(Deserialize)]
struct MetaDoc {
    name: String,
}
#[derive(Deserialize)]
struct StatusDoc {
    lifecycle: Lifecycle,
}

fn parse<T: DeserializeOwned>(value: Option<&Value>) -> Option<T> {
    value?.parse().ok()
}

fn id<T: std::str::FromStr>(key: &Key) -> Option<T> {
    key.last().parse().ok()
}

impl Diary {
    /// A diary of a day that begins at `start`, of these processes and events.
    pub(super) fn new(
        start: Duration,
        processes: Vec<String>,
        engines: usize,
        events: Vec<&'static str>,
    ) -> Self {
        let tally = |name| Tally {
            name,
            ..Tally::default()
        };
        Self {
            start,
            processes,
            engines,
            deeds: events.into_iter().map(tally).collect(),
            ..Self::default()
        }
    }

    fn write(&mut self, at: Duration, kind: Kind, what: impl Into<String>) -> &mut Entry {
        self.entries.push(Entry {
            at_ms: at.as_millis() as u64,
            time: clock(self.start, at),
            kind,
            what: what.into(),
            subject: None,
            detail: None,
            event: None,
            task: None,
            reason: None,
        });
        let last = self.entries.len() - 1;
        &mut self.entries[last]
    }

    /// Something of the script begins.
    pub(crate) fn begins(&mut self, at: Duration, event: usize, text: String) {
        self.write(at, Kind::Script, text).event = Some(event + 1);
    }

    /// Something of the script is over.
    pub(crate) fn over(&mut self, at: Duration, event: usize, text: String) {
        self.write(at, Kind::Script, text).event = Some(event + 1);
    }

    /// The weather brings a fault.
    pub(crate) fn drawn(&mut self, at: Duration, fault: &Planned) {
        let (subject, what, detail) = drawn(fault, &self.processes, self.engines);
        let entry = self.write(at, Kind::Fault, what);
        entry.subject = Some(subject);
        entry.detail = Some(detail).filter(|d| !d.is_empty());
    }

    /// Guests die.
    pub(crate) fn guests_crash(&mut self, at: Duration, event: usize, servers: &[String]) {
        for server in servers {
            let entry = self.write(at, Kind::Fault, "guest crashes");
            entry.subject = Some(server.clone());
            entry.event = Some(event + 1);
        }
        if servers.is_empty() {
            self.write(at, Kind::Fault, "no guest of that name runs").event = Some(event + 1);
        }
    }

    /// The day is over.
    pub(crate) fn healed(&mut self, at: Duration) {
        let text = "the day is over: whatever is broken is mended, and what is open goes on to its end";
        self.write(at, Kind::Day, text);
    }

    /// The operator looks after stuck tasks.
    pub(crate) fn orders(&mut self, at: Duration, verb: OrderVerb, tasks: usize) {
        let verb = format!("{verb:?}").to_lowercase();
        let tasks = counted(tasks, "stuck task");
        self.write(at, Kind::Day, format!("the operator orders {verb} for {tasks}"));
    }

    // What users are told.

    /// So many requests will be made because of an event.
    pub(super) fn expects(&mut self, event: usize, requests: usize) {
        self.deeds[event].expected += requests;
    }

    /// A request was accepted.
    pub(super) fn accepted(&mut self, event: usize, asked_at: Duration, made: Option<(TaskId, ServerId)>) {
        let deed = &mut self.deeds[event];
        deed.accepted += 1;
        let Some((task, server)) = made else {
            deed.done += 1;
            return;
        };
        if deed.name == "create" {
            deed.asked.insert(server, asked_at);
        }
        let seen = self.tasks.entry(task).or_default();
        seen.event = Some(event);
        match seen.state {
            Some(state) if state.ended() => deed.ended(state),
            _ => deed.open += 1,
        }
    }

    /// A request was refused, or nobody answered.
    pub(super) fn refused(&mut self, at: Duration, event: usize, subject: &str, reason: Reason) {
        let deed = &mut self.deeds[event];
        deed.refused += 1;
        let what = format!("{} refused", deed.name);
        let entry = self.write(at, Kind::Refused, what);
        entry.subject = Some(subject.to_owned());
        entry.event = Some(event + 1);
        entry.reason = Some(reason);
    }

    /// All that an event asks for was asked.
    pub(super) fn all_asked(&mut self, at: Duration, event: usize) {
        self.deeds[event].all_asked = true;
        self.conclude(at, event);
    }

    /// Says what became of an event when all of it is known.
    fn conclude(&mut self, at: Duration, event: usize) {
        let deed = &mut self.deeds[event];
        if !deed.all_asked || deed.open > 0 || deed.told {
            return;
        }
        deed.told = true;
        let mut took = Vec::new();
        for (server, asked_at) in &deed.asked {
            let active = self.servers.get(server).and_then(|s| s.active_at);
            took.extend(active.map(|at| at.saturating_sub(*asked_at).as_millis() as u64));
        }
        let mut text = deed.says();
        if let Some(latency) = Latency::of(took.clone()) {
            text.push_str(&format!("; from request to active {latency}"));
        }
        self.to_active.extend(took);
        self.write(at, Kind::Outcome, text).event = Some(event + 1);
    }

    /// Says what is left to say at the end.
    pub(super) fn finish(&mut self, at: Duration) {
        for event in 0..self.deeds.len() {
            let deed = &mut self.deeds[event];
            if deed.expected > 0 && !deed.told {
                deed.all_asked = true;
                deed.open = 0;
                self.conclude(at, event);
            }
        }
    }

    // What is committed.

    /// A commit that has happened.
    pub(crate) fn commit(&mut self, at: Duration, writes: &[Write]) {
        self.commits += 1;
        // Events are told after what they speak of is known.
        let mut events: Vec<Event> = Vec::new();
        let mut ended: Vec<usize> = Vec::new();
        for write in writes {
            let (key, value) = match write {
                Write::Put(key, value) => (key, Some(value)),
                Write::Delete(key) => (key, None),
            };
            let mut segments = key.segments();
            match (segments.next(), segments.next()) {
                (Some("events"), _) => events.extend(parse::<Event>(value)),
                (Some("tasks"), _) => ended.extend(self.task(key, value)),
                (Some("plans"), _) => self.plan(key, value),
                (Some("runs"), _) => self.run(key, value),
                (Some("r"), Some("servers")) => self.server(at, key, value),
                (Some("r"), Some("hosts")) => self.host(key, value),
                (Some("ledgers"), Some(_)) => {
                    if let Some(id) = id(key) {
                        let host = self.hosts.entry(id).or_default();
                        host.ledger = parse(value).unwrap_or_default();
                        host.most_servers = host.most_servers.max(host.ledger.servers);
                    }
                }
                _ => {}
            }
        }
        for event in events {
            self.event(at, event);
        }
        for event in ended {
            self.conclude(at, event);
        }
    }

    /// Something has happened on a host.
    pub(crate) fn effect(&mut self) {
        self.effects += 1;
    }

    /// The name of a server.
    pub(crate) fn server_name(&self, server: ServerId) -> Option<String> {
        self.servers.get(&server).map(|s| s.name.clone())
    }

    /// Says which event of the script a task that has just ended was for.
    fn task(&mut self, key: &Key, value: Option<&Value>) -> Option<usize> {
        let (id, doc) = (id::<TaskId>(key)?, parse::<TaskDoc>(value)?);
        let seen = self.tasks.entry(id).or_default();
        let before = seen.state.replace(doc.state);
        seen.flow = doc.flow;
        if before == Some(doc.state) || !doc.state.ended() {
            return None;
        }
        let deed = self.deeds.get_mut(seen.event?)?;
        deed.open = deed.open.saturating_sub(1);
        deed.ended(doc.state);
        seen.event
    }

    fn plan(&mut self, key: &Key, value: Option<&Value>) {
        let (Some(task), Some(plan)) = (id::<TaskId>(key), parse::<Plan>(value)) else {
            return;
        };
        let kinds = plan.jobs.into_iter().map(|job| (job.id, job.kind));
        self.tasks.entry(task).or_default().kinds = kinds.collect();
    }

    fn run(&mut self, key: &Key, value: Option<&Value>) {
        let (Some(task), Some(run)) = (id::<TaskId>(key), parse::<Run>(value)) else {
            return;
        };
        let mut kinds = std::mem::take(&mut self.tasks.entry(task).or_default().kinds);
        for job in run.jobs {
            let again = job.attempt.saturating_sub(1);
            if again > 0
                && let Some(kind) = kinds.remove(&job.id)
            {
                *self.retries.entry(kind).or_default() += u64::from(again);
            }
        }
    }

    fn server(&mut self, at: Duration, key: &Key, value: Option<&Value>) {
        let (Some(id), Some(doc)) = (id::<ServerId>(key), parse::<ServerDoc>(value)) else {
            return;
        };
        let server = self.servers.entry(id).or_default();
        server.name = doc.meta.name;
        if doc.status.lifecycle == Lifecycle::Active {
            server.active_at.get_or_insert(at);
        }
    }

    fn host(&mut self, key: &Key, value: Option<&Value>) {
        let (Some(id), Some(host)) = (id::<HostId>(key), parse::<Host>(value)) else {
            return;
        };
        let seen = self.hosts.entry(id).or_default();
        seen.name = host.meta.name.to_string();
        seen.reachable = host.status.reachable;
        seen.enabled = host.spec.enabled;
        if let Some(facts) = host.status.facts {
            let (real, spec) = (facts.capacity.minus(host.spec.reserved), &host.spec);
            seen.offers = Resources {
                vcpus: (f64::from(real.vcpus) * spec.cpu_ratio) as u32,
                memory_mib: (real.memory_mib as f64 * spec.memory_ratio) as u64,
                disk_gib: (real.disk_gib as f64 * spec.disk_ratio) as u64,
            };
        }
    }

    /// Something that the cloud itself tells.
    fn event(&mut self, at: Duration, event: Event) {
        let task = event.task.and_then(|id| self.tasks.get(&id));
        let flow = task.map(|t| t.flow.clone()).unwrap_or_default();
        let asked_by = task.and_then(|t| t.event);
        let (kind, what) = match event.kind {
            // Too many to name; the outcomes count them.
            EventKind::TaskAccepted | EventKind::TaskPlanned => return,
            EventKind::TaskEnded if event.reason.is_none() => return,
            EventKind::TaskEnded if task.is_some_and(|t| t.state == Some(TaskState::Cancelled)) => {
                (Kind::Task, format!("{flow} cancelled"))
            }
            EventKind::TaskEnded => (Kind::Task, format!("{flow} failed")),
            EventKind::TaskUnwinding => (Kind::Task, format!("{flow} goes back")),
            EventKind::TaskStuck => (Kind::Task, format!("{flow} is stuck")),
            EventKind::TaskOrdered => (Kind::Task, event.message),
            EventKind::ServerPower => (Kind::Cloud, format!("server {}", event.message)),
            EventKind::HostReachable => (Kind::Cloud, "host is reachable".to_owned()),
            EventKind::HostUnreachable => (Kind::Cloud, "host is unreachable".to_owned()),
            EventKind::FleetHeld | EventKind::FleetReleased => (Kind::Cloud, event.message),
        };
        let entry = self.write(at, kind, what);
        entry.subject = Some(event.subject.name.to_string());
        entry.task = event.task;
        entry.event = asked_by.map(|e| e + 1);
        entry.reason = event.reason;
    }
}

impl Tally {
    fn ended(&mut self, state: TaskState) {
        match state {
            TaskState::Done => self.done += 1,
            TaskState::Cancelled => self.cancelled += 1,
            _ => self.failed += 1,
        }
    }

    fn says(&self) -> String {
        let mut parts = vec![format!("{}: {} asked", self.name, self.expected)];
        for (count, what) in [
            (self.done, "done"),
            (self.failed, "failed"),
            (self.cancelled, "cancelled"),
            (self.refused, "refused"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        let known = self.done + self.failed + self.cancelled + self.refused;
        match self.expected.saturating_sub(known) {
            0 => {}
            open => parts.push(format!("{open} not ended")),
        }
        parts.join(", ")
    }
}
