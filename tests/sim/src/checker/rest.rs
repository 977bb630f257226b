//! What must hold when all is quiet: I8, I10, I12, and that records say what is.

use std::collections::BTreeMap;

use skyloom_hypervisor::Holding;
use skyloom_model::{HostId, Id, Lifecycle, ServerId, TaskId, TaskState};

use super::Checker;

/// What really is on a host.
#[derive(Debug)]
pub(crate) struct HostSeen {
    pub(crate) host: HostId,
    /// What it holds of which server.
    pub(crate) held: BTreeMap<ServerId, Holding>,
    /// Operations that are not over.
    pub(crate) under_way: usize,
}

/// Something that is not as it should be at rest.
pub(crate) type Leftover = (&'static str, String);

impl Checker {
    /// Tasks that have not come to rest.
    pub(crate) fn open_tasks(&self) -> impl Iterator<Item = (TaskId, TaskState)> {
        self.tasks
            .iter()
            .filter(|(_, t)| !t.rests())
            .filter_map(|(id, t)| Some((*id, t.state()?)))
    }

    /// Tasks that wait for an operator.
    pub(crate) fn stuck_tasks(&self) -> Vec<TaskId> {
        let stuck = self
            .tasks
            .iter()
            .filter(|(_, t)| t.state() == Some(TaskState::Stuck) && t.rests());
        stuck.map(|(id, _)| *id).collect()
    }

    /// What a task came to, with its reason, for reports.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (&str, TaskState, Option<&str>)> {
        self.tasks.values().filter_map(|t| {
            let doc = t.doc.as_ref()?;
            Some((
                doc.flow.as_str(),
                doc.state,
                doc.reason.as_ref().map(|r| r.code.as_str()),
            ))
        })
    }

    /// Where a task stands.
    pub(crate) fn state(&self, id: TaskId) -> Option<TaskState> {
        self.tasks.get(&id)?.state()
    }

    /// Whether an operator has given a task up.
    pub(crate) fn abandoned(&self, id: TaskId) -> bool {
        self.tasks.get(&id).is_some_and(|t| t.abandoned())
    }

    /// A task in words.
    pub(crate) fn task(&self, id: TaskId) -> String {
        let Some(model) = self.tasks.get(&id) else {
            return format!("{id}: unknown");
        };
        let Some(doc) = &model.doc else {
            return format!("{id}: gone");
        };
        let jobs: Vec<String> = model
            .jobs
            .iter()
            .map(|(id, j)| {
                format!(
                    "{id}={:?}/{} by {:?}",
                    j.state,
                    j.attempt,
                    j.worker.as_ref().map(|w| &w.lease)
                )
            })
            .collect();
        let reason = doc.reason.as_ref().map(|r| format!("{}: {}", r.code, r.message));
        format!(
            "{id} {} {:?}, owner {:?}, cancel {}, reason {reason:?}, jobs [{}]",
            doc.flow,
            doc.state,
            doc.owner,
            doc.cancel,
            jobs.join(", ")
        )
    }

    /// What is not as it should be now that nothing is under way.
    pub(crate) fn at_rest(&self, hosts: &[HostSeen], pool: Option<&HostSeen>) -> Vec<Leftover> {
        let mut wrong: Vec<Leftover> = Vec::new();
        for (id, task) in &self.tasks {
            if !task.state().is_some_and(TaskState::ended) {
                continue;
            }
            if task.mark || !task.jobs.is_empty() {
                wrong.push(("I12", format!("task {id} has ended and left marks or jobs")));
            }
        }
        for (id, server) in &self.servers {
            if let Some(activity) = &server.status.activity {
                let state = self.tasks.get(&activity.task).and_then(|t| t.state());
                if state.is_none_or(TaskState::ended) {
                    wrong.push((
                        "I12",
                        format!(
                            "server {id} is busy with task {}, which is {state:?}",
                            activity.task
                        ),
                    ));
                }
            } else if !server.status.lifecycle.steady() {
                wrong.push((
                    "I12",
                    format!(
                        "server {id} is {:?} and nobody works on it",
                        server.status.lifecycle
                    ),
                ));
            }
        }
        for (port, server) in &self.ports {
            if !self.servers.contains_key(server) {
                wrong.push(("I12", format!("port {port} is of server {server}, which is gone")));
            }
        }
        for server in self.secrets.keys().filter(|s| !self.owned(**s)) {
            wrong.push(("I12", format!("the secrets of {server} are kept and it is gone")));
        }
        for (host, model) in &self.hosts {
            for server in &model.lent {
                if !self.works_on(*server) {
                    wrong.push((
                        "I12",
                        format!("the secrets of {server} are lent to {host} and no task needs them"),
                    ));
                }
            }
            for server in model.reported.keys() {
                let here = hosts
                    .iter()
                    .any(|h| h.host == *host && h.held.get(server).is_some_and(|h| h.domain.is_some()));
                if !here {
                    wrong.push(("I12", format!("{host} reports {server}, which is not there")));
                }
            }
        }
        for seen in hosts {
            self.host_at_rest(seen, &mut wrong);
        }
        if let Some(pool) = pool {
            let somewhere = |server: &ServerId| {
                let known = self.servers.get(server);
                known.is_some_and(|s| s.status.placement.is_some())
            };
            self.held_at_rest(pool, somewhere, &mut wrong);
        }
        wrong
    }

    /// What is on a host, or in the folder that hosts share, is of servers that have it there.
    fn held_at_rest(&self, seen: &HostSeen, of: impl Fn(&ServerId) -> bool, wrong: &mut Vec<Leftover>) {
        let host = seen.host;
        if seen.under_way > 0 {
            wrong.push((
                "I8",
                format!("{} operations on {host} are not over", seen.under_way),
            ));
        }
        for (server, held) in seen.held.iter().filter(|(s, _)| !of(s) && !self.works_on(**s)) {
            wrong.push((
                self.leftover(*server),
                format!("{host} has {held:?} of {server}, which does not live there"),
            ));
        }
    }

    fn host_at_rest(&self, seen: &HostSeen, wrong: &mut Vec<Leftover>) {
        let host = seen.host;
        let lives_here = |server: &ServerId| {
            self.servers
                .get(server)
                .and_then(|s| s.status.placement.as_ref())
                .is_some_and(|p| p.host == host)
        };
        self.held_at_rest(seen, lives_here, wrong);
        for (id, server) in self.servers.iter().filter(|(id, _)| lives_here(id)) {
            if self.works_on(*id) || server.status.lifecycle != Lifecycle::Active {
                continue;
            }
            let real = seen.held.get(id).and_then(|h| h.domain).map(|(_, power)| power);
            if real != Some(server.status.power) {
                wrong.push((
                    "I12",
                    format!(
                        "server {id} is said to be {:?} and is {real:?}",
                        server.status.power
                    ),
                ));
            }
        }
    }

    /// What a leftover of a server breaks: I10 when its making failed, else I12.
    fn leftover(&self, server: ServerId) -> &'static str {
        if self.servers.contains_key(&server) {
            "I10"
        } else {
            "I12"
        }
    }

    /// Whether some task that has not ended is about this subject, or one that was given up with what was left of it.
    fn works_on(&self, server: ServerId) -> bool {
        self.tasks.values().any(|t| {
            let about = t
                .doc
                .as_ref()
                .is_some_and(|d| Id::from_uuid(d.subject.id) == server);
            about && (t.abandoned() || t.state().is_some_and(|s| !s.ended()))
        })
    }

    /// Whether a server or an open task of that id is there.
    fn owned(&self, server: ServerId) -> bool {
        self.servers.contains_key(&server) || self.works_on(server)
    }
}
