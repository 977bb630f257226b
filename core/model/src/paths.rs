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
//! | `guests/{host}/all` | [`crate::GuestReport`] | agent |
//! | `lent/{host}/{server}` | [`crate::ServerSecrets`], while a task needs them there | engine |
//! | `queries/{host}/{id}` | questions to the agent and its answers | api, agent |
//! | `claims/{host}/{server}` | [`crate::Claim`] | engine |
//! | `ledgers/{host}` | [`crate::HostLedger`] | engine |
//! | `addresses/{subnet}/{address}` | [`crate::Reserved`]: the port that has it | api, engine |
//! | `macs/{network}/{mac}` | [`crate::Reserved`]: the port that has it | api, engine |
//! | `members/{group}` | [`crate::GroupMembers`] | api, engine |
//! | `events/{scope}/{event}` | [`crate::Event`] | api, engine |
//! | `submitted/{hash of the key}` | the task submitted under a key | engine |
//! | `drains/{host}` | [`crate::Drain`]: how far a host has been emptied | api |
//! | `timers/{time}/{scope}/{server}` | when to look at a server because something is due | api, engine |
//! | `previews/{scope}/{id}` | a plan that was shown and not run | api |
//! | `idempotency/{scope}/{hash of the key}` | the answer given before | api |
//! | `identity/…`, `quotas/…`, `audit/…` | who may call, what is used, what was done: `skyloom_identity` | api |
//! | `archive/task/{scope}/{end}/{task}` | a finished task with its plan and jobs, in the archive | archiver |
//! | `archive/task-id/{task}` | where in the archive that is | archiver |
//! | `archive/task-part/{task}/{part}` | plan and jobs that one document cannot hold | archiver |
//! | `archive/event/{scope}/{event}` | [`crate::Event`], in the archive | archiver |
//!
//! The archive may be another store than the others' (`skyloom_cloud::Archive`).
//! | `cloud/incarnation` | [`crate::Custody`]: which cloud, in which telling of its history | api, whoever copies |
//! | `cloud/hold` | [`crate::Hold`]: while it is there nothing is begun | api, whoever restores |
//! | `cloud/copying` | [`crate::Copying`]: a copy into this store has not ended | whoever copies |
//!
//! Leases: `hosts/{host}` (agents), `engines/{name}` (engines).
//! An agent may touch what lies below [`agent_areas`] of its own host, read what lies below [`CLOUD`], and nothing else.

use std::net::IpAddr;

use uuid::Uuid;

use crate::{
    EventId, HostId, JobId, MacAddr, NetworkId, Place, ProjectId, Scope, SecurityGroupId, ServerId, SubnetId,
    TaskId, Timestamp,
};

/// What the store says of itself. All may read it.
pub const CLOUD: &str = "cloud";
/// The store's incarnation.
pub const INCARNATION: &str = "cloud/incarnation";
/// The hold on the fleet, while there is one.
pub const HOLD: &str = "cloud/hold";
/// The mark of a copy into this store that has not ended.
pub const COPYING: &str = "cloud/copying";

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
/// All marks of what is due, in order of time.
pub const TIMERS: &str = "timers";
/// The mark that has a server looked at when `at` has come. Its time is in milliseconds, of a fixed length.
#[must_use]
pub fn timer(at: Timestamp, scope: Scope, server: ServerId) -> String {
    format!("{TIMERS}/{:015}/{scope}/{server}", at.as_millisecond().max(0))
}
/// All hosts that are being emptied.
pub const DRAINS: &str = "drains";
/// How far a host has been emptied.
#[must_use]
pub fn drain(host: HostId) -> String {
    format!("{DRAINS}/{host}")
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
/// All guests of all hosts, as their agents see them.
pub const GUESTS: &str = "guests";
/// All guests of a host, as its agent sees them.
#[must_use]
pub fn guests(host: HostId) -> String {
    format!("guests/{host}/all")
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
pub fn agent_areas(host: HostId) -> [String; 6] {
    ["jobs", "agents", "vms", "guests", "lent", "queries"].map(|area| format!("{area}/{host}"))
}
/// All claims on all hosts.
pub const CLAIMS: &str = "claims";
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
/// All addresses of a subnet that somebody has.
#[must_use]
pub fn addresses(subnet: SubnetId) -> String {
    format!("addresses/{subnet}")
}
/// One address of a subnet.
#[must_use]
pub fn address(subnet: SubnetId, address: IpAddr) -> String {
    format!("addresses/{subnet}/{address}")
}
/// One MAC address of a network.
#[must_use]
pub fn mac(network: NetworkId, mac: MacAddr) -> String {
    format!("macs/{network}/{mac}")
}
/// The ports that are in a security group.
#[must_use]
pub fn members(group: SecurityGroupId) -> String {
    format!("members/{group}")
}
/// All events.
pub const EVENTS: &str = "events";
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
/// All archived tasks.
pub const ARCHIVED_TASKS: &str = "archive/task";
/// All archived tasks of a scope, by their ends.
#[must_use]
pub fn archived_tasks(scope: Scope) -> String {
    format!("{ARCHIVED_TASKS}/{scope}")
}
/// What lies before all archived tasks of a scope that ended at `end` or later, and behind all that ended before it.
#[must_use]
pub fn archived_since(scope: Scope, end: Timestamp) -> String {
    format!("{ARCHIVED_TASKS}/{scope}/{}", end.strftime("%Y%m%dT%H%M%S%.9fZ"))
}
/// One archived task, which ended at `end`.
#[must_use]
pub fn archived_task(scope: Scope, end: Timestamp, task: TaskId) -> String {
    format!("{}/{task}", archived_since(scope, end))
}
/// Where an archived task is.
#[must_use]
pub fn archived_task_id(task: TaskId) -> String {
    format!("archive/task-id/{task}")
}
/// The parts of an archived task that one document cannot hold.
#[must_use]
pub fn archived_parts(task: TaskId) -> String {
    format!("archive/task-part/{task}")
}
/// All archived events.
pub const ARCHIVED_EVENTS: &str = "archive/event";
/// All archived events of a scope.
#[must_use]
pub fn archived_events(scope: Scope) -> String {
    format!("{ARCHIVED_EVENTS}/{scope}")
}
/// One archived event.
#[must_use]
pub fn archived_event(scope: Scope, event: EventId) -> String {
    format!("{}/{event}", archived_events(scope))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archived_tasks_lie_in_the_order_of_their_ends() {
        let task = TaskId::from_uuid(Uuid::max());
        let path = |text: &str| archived_task(Scope::System, text.parse().unwrap(), task);
        let paths = [
            "1999-12-31T23:59:59.999999999Z",
            "2026-11-22T10:00:00Z",
            "2026-11-22T10:00:00.000000001Z",
            "2026-11-22T10:00:00.5Z",
            "2026-11-22T10:00:01Z",
            "2026-12-01T00:00:00Z",
        ]
        .map(path);
        assert!(paths.is_sorted(), "{paths:?}");
        assert_eq!(
            paths[1],
            format!("archive/task/-/20261122T100000.000000000Z/{}", Uuid::max())
        );
        let since = archived_since(Scope::System, "2026-11-22T10:00:00.5Z".parse().unwrap());
        assert!(paths[2] < since && since < paths[3]);
    }
}
