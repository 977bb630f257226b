//! `port.rewire`: the hosts of servers learn what their security groups say now. No guest is disturbed, and no order is given.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, TaskFlow};
use skyloom_model::{
    ActiveTask, GroupMembers, JobId, Lifecycle, Place, Port, Priority, Progress, Reason, Resource as _,
    SecurityGroupId, Server, ServerId, Task, TaskId, TaskState, Timestamp, paths,
};
use skyloom_store::{Key, Txn, Value};

use super::definition::definition_reads;
use super::port_attach::PLUGS;
use super::records::{key, port_key};
use super::wiring::{members_key, wiring_reads, wirings};
use super::{Outputs, Step, params};
use crate::jobs::EnsurePortsInput;

/// Most servers of one task; the next ones are the next task's.
const PAGE: usize = 64;

/// Parameters of `port.rewire`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RewireParams {
    /// Whose ports, in any case.
    #[serde(default)]
    pub(crate) servers: Vec<ServerId>,
    /// Groups with other rules.
    #[serde(default)]
    pub(crate) ruled: Vec<SecurityGroupId>,
    /// Groups with other members.
    #[serde(default)]
    pub(crate) joined: Vec<SecurityGroupId>,
    /// The last server of the task before this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<ServerId>,
}

/// Has hosts take on what has changed about ports.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PortRewire;

fn server_key(task: &Task, server: ServerId) -> Result<Key, Reason> {
    key(&paths::resource(Server::KIND, task.scope, server.uuid()))
}

/// The members of a group, as far as they are read.
fn members(group: SecurityGroupId, records: &Records) -> Result<GroupMembers, Reason> {
    Ok(records.get(&members_key(group)?)?.unwrap_or_default())
}

/// The groups of which members are concerned.
fn groups(params: &RewireParams, records: &Records) -> Result<BTreeSet<SecurityGroupId>, Reason> {
    let mut groups: BTreeSet<_> = params.ruled.iter().copied().collect();
    for group in &params.joined {
        groups.extend(members(*group, records)?.named_by);
    }
    Ok(groups)
}

/// This task's servers, and the parameters of the next task if there are more.
fn page(task: &Task, records: &Records) -> Result<(Vec<ServerId>, Option<RewireParams>), Reason> {
    let params: RewireParams = params(task)?;
    let mut servers: BTreeSet<ServerId> = params.servers.iter().copied().collect();
    for group in groups(&params, records)? {
        for id in members(group, records)?.ports.keys() {
            let port = records.get::<Port>(&port_key(task, *id)?)?;
            servers.extend(port.and_then(|port| port.spec.server));
        }
    }
    let mut left = servers
        .into_iter()
        .filter(|id| params.after.is_none_or(|after| *id > after));
    let page: Vec<ServerId> = left.by_ref().take(PAGE).collect();
    let next = left.next().and(page.last()).map(|last| RewireParams {
        after: Some(*last),
        ..params.clone()
    });
    Ok((page, next))
}

/// The part of a commit that submits a `port.rewire` in the name of who asked for the task `of`.
pub(super) fn submit(of: &Task, id: TaskId, params: &RewireParams, now: Timestamp) -> Result<Txn, Reason> {
    let unwritable = |e: &dyn std::fmt::Display| Reason::new("record.unencodable", e.to_string());
    let task = Task {
        id,
        flow: "port.rewire".to_owned(),
        params: serde_json::to_value(params).map_err(|e| unwritable(&e))?,
        idempotency_key: None,
        state: TaskState::Queued,
        reason: None,
        progress: Progress::default(),
        owner: None,
        cancel: false,
        priority: Priority::Normal,
        deadline: now.checked_add(SignedDuration::from_hours(24)).ok(),
        plan_version: 0,
        resume: None,
        orders: Vec::new(),
        result: None,
        created_at: now,
        planned_at: None,
        ended_at: None,
        ..of.clone()
    };
    let mark = Value::json(&ActiveTask::of(&task)).map_err(|e| unwritable(&e))?;
    let record = Value::json(&task).map_err(|e| unwritable(&e))?;
    Ok(Txn::new()
        .create(key(&paths::task(task.scope, id))?, record)
        .create(key(&paths::active(id))?, mark))
}

fn reads(task: &Task, have: &Records) -> Result<Vec<Key>, Reason> {
    let mut keys = Vec::new();
    let params: RewireParams = params(task)?;
    for group in groups(&params, have)?.iter().chain(&params.joined) {
        keys.push(members_key(*group)?);
        for port in members(*group, have)?.ports.keys() {
            keys.push(port_key(task, *port)?);
        }
    }
    for id in page(task, have)?.0 {
        let at = server_key(task, id)?;
        if let Some(server) = have.get::<Server>(&at)? {
            keys.extend(definition_reads(task, &server)?);
            keys.extend(wiring_reads(task, have, &server)?);
        }
        keys.push(at);
    }
    Ok(keys)
}

impl TaskFlow for PortRewire {
    fn name(&self) -> &'static str {
        "port.rewire"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        reads(task, have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let mut planned = Planned::default();
        let (servers, next) = page(task, cx.records)?;
        if let Some(next) = next {
            planned.changes = submit(task, TaskId::fresh(cx.ids), &next, cx.now)?;
        }
        for id in servers {
            let Some(server) = cx.records.get::<Server>(&server_key(task, id)?)? else {
                continue;
            };
            let Some(placement) = &server.status.placement else {
                continue;
            };
            // Its ports are being wired by what was known when that was planned.
            let busy = server.status.activity.as_ref();
            let plugged = busy.is_some_and(|busy| PLUGS.contains(&busy.flow.as_str()));
            if plugged || server.status.lifecycle == Lifecycle::Building {
                let message = format!("the server {} is being made or plugged in", server.meta.name);
                return Err(Refusal::Wait(Reason::new("server.busy", message)));
            }
            if server.status.lifecycle != Lifecycle::Active {
                continue;
            }
            let wirings = wirings(task, &server, cx.records)?;
            if wirings.is_empty() {
                continue;
            }
            let input = EnsurePortsInput { wirings };
            let place = Place::Host(placement.host);
            let step = Step::new("port.ensure", "wire a server's ports anew", place, &input)?;
            let id = JobId::new(format!("port.ensure@{}", planned.jobs.len() + 1));
            planned
                .jobs
                .push(step.id(id).attempts(10, 1000).within(120).done());
        }
        Ok(planned)
    }

    fn settle(&self, _task: &Task, _cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        Ok(Settled::default())
    }
}
