//! Where each record lives in the Store. One table, so that scopes and prefixes can be checked in one place.
//!
//! | path | record | writer |
//! | --- | --- | --- |
//! | `r/{kind}/{scope}/{id}` | resources | api, engine |
//! | `names/{kind}/{scope}/{hash of the name}` | id of the one that has the name | api |
//! | `secrets/{project}/{server}` | [`crate::ServerSecrets`] | api |
//! | `tasks/{scope}/{task}` | [`crate::Task`] | api, engine |
//! | `plans/{task}` | [`crate::Plan`] | engine |
//! | `engine/jobs/{task}/{job}` | [`crate::JobRecord`] with place `engine` | engine |
//! | `hosts/{host}/jobs/{task}/{job}` | [`crate::JobRecord`] of that host | engine, agent |
//! | `hosts/{host}/status` | [`crate::AgentStatus`] | agent |
//! | `hosts/{host}/vms/{server}` | [`crate::VmObservation`] | agent |
//! | `hosts/{host}/secrets/{server}` | [`crate::ServerSecrets`], while a job needs them | engine |
//! | `hosts/{host}/queries/{id}` | questions to the agent and its answers | api, agent |
//! | `claims/{host}/{server}` | [`crate::Claim`] | engine |
//! | `ledgers/{host}` | [`crate::HostLedger`] | engine |
//! | `idempotency/{scope}/{hash of the key}` | the answer given before | api |
//! | `token-hashes/{sha256 of the secret}` | [`crate::Token`] | api |
//!
//! Leases: `hosts/{host}` (agents), `engines/{name}` (engines).
//! An agent may touch `hosts/{its host}/` and nothing else.

use uuid::Uuid;

use crate::{HostId, JobId, Place, ProjectId, Scope, ServerId, TaskId};

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
/// All hosts' own areas.
pub const HOSTS: &str = "hosts";
/// All jobs of engines.
pub const ENGINE_JOBS: &str = "engine/jobs";
/// A host's own area.
#[must_use]
pub fn host(host: HostId) -> String {
    format!("hosts/{host}")
}
/// A host's jobs.
#[must_use]
pub fn host_jobs(host: HostId) -> String {
    format!("hosts/{host}/jobs")
}
/// One job.
#[must_use]
pub fn job(place: Place, task: TaskId, job: &JobId) -> String {
    match place {
        Place::Engine => format!("{ENGINE_JOBS}/{task}/{job}"),
        Place::Host(host) => format!("hosts/{host}/jobs/{task}/{job}"),
    }
}
/// An agent's own status.
#[must_use]
pub fn agent_status(host: HostId) -> String {
    format!("hosts/{host}/status")
}
/// What an agent says of its virtual machines.
#[must_use]
pub fn host_vms(host: HostId) -> String {
    format!("hosts/{host}/vms")
}
/// What an agent says of one virtual machine.
#[must_use]
pub fn host_vm(host: HostId, server: ServerId) -> String {
    format!("hosts/{host}/vms/{server}")
}
/// Secrets lent to a host.
#[must_use]
pub fn host_secrets(host: HostId, server: ServerId) -> String {
    format!("hosts/{host}/secrets/{server}")
}
/// Questions to a host.
#[must_use]
pub fn host_queries(host: HostId) -> String {
    format!("hosts/{host}/queries")
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
