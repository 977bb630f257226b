//! Where each record lives in the Store. One table, so that scopes and prefixes can be checked in one place.
//!
//! | path | record | writer |
//! | --- | --- | --- |
//! | `r/{kind}/{scope}/{id}` | resources | api, engine |
//! | `names/{kind}/{scope}/{hash of the name}` | id of the one that has the name | api |
//! | `secrets/{project}/{server}` | [`crate::ServerSecrets`] | api |
//! | `tasks/{scope}/{task}` | [`crate::Task`] | api, engine |
//! | `active/{task}` | [`crate::ActiveTask`]: where an unfinished task's record is | api, engine |
//! | `plans/{task}` | [`crate::Plan`] | engine |
//! | `runs/{task}` | [`crate::Run`]: the jobs of a finished task | engine |
//! | `steps/{task}/{job}` | [`crate::StepRecord`] of a job of the engine, until the task ends | engine |
//! | `jobs/{host}/{task}/{job}` | [`crate::JobRecord`] of that host, until the task ends | engine, agent |
//! | `agents/{host}/status` | [`crate::AgentStatus`] | agent |
//! | `vms/{host}/{server}` | [`crate::VmObservation`] | agent |
//! | `lent/{host}/{server}` | [`crate::ServerSecrets`], while a task needs them there | engine |
//! | `queries/{host}/{id}` | questions to the agent and its answers | api, agent |
//! | `claims/{host}/{server}` | [`crate::Claim`] | engine |
//! | `ledgers/{host}` | [`crate::HostLedger`] | engine |
//! | `events/{scope}/{event}` | [`crate::Event`] | api, engine |
//! | `submitted/{hash of the key}` | the task submitted under a key | engine |
//! | `previews/{scope}/{id}` | a plan that was shown and not run | api |
//! | `idempotency/{scope}/{hash of the key}` | the answer given before | api |
//! | `token-hashes/{sha256 of the secret}` | [`crate::Token`] | api |
//!
//! Leases: `hosts/{host}` (agents), `engines/{name}` (engines).
//! An agent may touch what lies below [`agent_areas`] of its own host and nothing else.

use uuid::Uuid;

use crate::{EventId, HostId, JobId, Place, ProjectId, Scope, ServerId, TaskId};

/// All resources of a kind.
#[must_use]
pub fn kind(kind: &str) -> String {
    format!("r/{kind}")
}
/// All resources of a kind in a scope.
#[must_use]
pub fn scoped(kind: &str, scope: Scope) -> String {
    format!("r/{kind}/{scope}")
}
/// One resource.
#[must_use]
pub fn resource(kind: &str, scope: Scope, id: Uuid) -> String {
    format!("r/{kind}/{scope}/{id}")
}
/// The claim of a unique name, by the lower-case hex of a hash of it.
#[must_use]
pub fn name(kind: &str, scope: Scope, name_hash: &str) -> String {
    format!("names/{kind}/{scope}/{name_hash}")
}
/// A server's secrets.
#[must_use]
pub fn server_secrets(project: ProjectId, server: ServerId) -> String {
    format!("secrets/{project}/{server}")
}
/// All tasks.
pub const TASKS: &str = "tasks";
/// All tasks of a scope.
#[must_use]
pub fn tasks(scope: Scope) -> String {
    format!("tasks/{scope}")
}
/// One task.
#[must_use]
pub fn task(scope: Scope, task: TaskId) -> String {
    format!("tasks/{scope}/{task}")
}
/// A task's plan.
#[must_use]
pub fn plan(task: TaskId) -> String {
    format!("plans/{task}")
}
/// The marks of all unfinished tasks.
pub const ACTIVE: &str = "active";
/// The mark of an unfinished task.
#[must_use]
pub fn active(task: TaskId) -> String {
    format!("active/{task}")
}
/// The job records of a finished task.
#[must_use]
pub fn run(task: TaskId) -> String {
    format!("runs/{task}")
}
/// All live jobs of hosts.
pub const JOBS: &str = "jobs";
/// All live jobs of a host.
#[must_use]
pub fn jobs(host: HostId) -> String {
    format!("jobs/{host}")
}
/// All live jobs of engines.
pub const STEPS: &str = "steps";
/// All live jobs of a task at a place.
#[must_use]
pub fn task_jobs(place: Place, task: TaskId) -> String {
    match place {
        Place::Engine => format!("{STEPS}/{task}"),
        Place::Host(host) => format!("jobs/{host}/{task}"),
    }
}
/// Where a build of format 1 kept the engine's jobs of a task.
#[must_use]
pub fn task_jobs_of_format_1(task: TaskId) -> String {
    format!("jobs/engine/{task}")
}
/// One live job.
#[must_use]
pub fn job(place: Place, task: TaskId, job: &JobId) -> String {
    format!("{}/{job}", task_jobs(place, task))
}
/// All agents' areas.
pub const AGENTS: &str = "agents";
/// An agent's own status.
#[must_use]
pub fn agent_status(host: HostId) -> String {
    format!("agents/{host}/status")
}
/// What all agents say of their virtual machines.
pub const VMS: &str = "vms";
/// What an agent says of its virtual machines.
#[must_use]
pub fn host_vms(host: HostId) -> String {
    format!("vms/{host}")
}
/// What an agent says of one virtual machine.
#[must_use]
pub fn host_vm(host: HostId, server: ServerId) -> String {
    format!("vms/{host}/{server}")
}
/// Secrets lent to a host.
#[must_use]
pub fn lent(host: HostId, server: ServerId) -> String {
    format!("lent/{host}/{server}")
}
/// Questions to a host.
#[must_use]
pub fn queries(host: HostId) -> String {
    format!("queries/{host}")
}
/// One question to a host.
#[must_use]
pub fn query(host: HostId, id: Uuid) -> String {
    format!("queries/{host}/{id}")
}
/// The prefixes below which the agent of `host` reads and writes. Nothing else in the store is its business.
#[must_use]
pub fn agent_areas(host: HostId) -> [String; 5] {
    ["jobs", "agents", "vms", "lent", "queries"].map(|area| format!("{area}/{host}"))
}
/// All claims on a host.
#[must_use]
pub fn claims(host: HostId) -> String {
    format!("claims/{host}")
}
/// One claim.
#[must_use]
pub fn claim(host: HostId, server: ServerId) -> String {
    format!("claims/{host}/{server}")
}
/// All ledgers.
pub const LEDGERS: &str = "ledgers";
/// A host's ledger.
#[must_use]
pub fn ledger(host: HostId) -> String {
    format!("ledgers/{host}")
}
/// All events of a scope.
#[must_use]
pub fn events(scope: Scope) -> String {
    format!("events/{scope}")
}
/// One event.
#[must_use]
pub fn event(scope: Scope, event: EventId) -> String {
    format!("events/{scope}/{event}")
}
/// The task that was submitted under a key, by the lower-case hex of a hash of it.
#[must_use]
pub fn submitted(key_hash: &str) -> String {
    format!("submitted/{key_hash}")
}
/// A plan that was shown.
#[must_use]
pub fn preview(scope: Scope, id: Uuid) -> String {
    format!("previews/{scope}/{id}")
}
/// The answer given to an idempotency key, by the lower-case hex of a hash of it.
#[must_use]
pub fn idempotency(scope: Scope, key_hash: &str) -> String {
    format!("idempotency/{scope}/{key_hash}")
}
/// A token by the lower-case hex SHA-256 of its secret.
#[must_use]
pub fn token_hash(sha256: &str) -> String {
    format!("token-hashes/{sha256}")
}
/// The lease of a host's agent.
#[must_use]
pub fn host_lease(host: HostId) -> String {
    format!("hosts/{host}")
}
/// The lease of an engine.
#[must_use]
pub fn engine_lease(name: &str) -> String {
    format!("engines/{name}")
}
