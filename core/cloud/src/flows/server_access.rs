//! `server.set-password` and `server.set-keys`: who gets into the guest.
//!
//! ```text
//!  set-password, running:  agent (guest.set-password) ──> drive (disk.seed)      set: the same edition; the next boot changes nothing
//!  set-password, off  ┐                                                          silent or refused: a new edition, which the next
//!  set-keys           ┴──> drive (disk.seed), a new edition                      boot reads as if it were the first
//! ```
//!
//! The hash lies in the server's secrets from the request on and is lent to the host for the time of the task; keys stand in the server's
//! record. Config drives are made anew beside a running guest, which sees the old one until it is turned on again. Nothing is taken
//! back: the drive says what the records say.

use serde_json::json;
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_model::{
    JobSpec, Place, Port, Reason, Resource as _, Scope, Server, StageOutcome, Task, TaskEnd,
};
use skyloom_store::{Key, Txn};

use super::records::{port_key, restart_reads, subject_key};
use super::server_power::settled;
use super::{Outputs, PortPlan, Step, output};
use crate::jobs::{SeedInput, SeedOf, ServerInput, Told};

/// Sets how somebody gets into a server's guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerAccess {
    /// The first user's password.
    Password,
    /// The first user's keys.
    Keys,
}

const AGENT: &str = "agent";
const DRIVE: &str = "drive";

impl TaskFlow for ServerAccess {
    fn name(&self) -> &'static str {
        match self {
            Self::Password => "server.set-password",
            Self::Keys => "server.set-keys",
        }
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        restart_reads(task, have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let server: Server = cx.records.need(&subject_key(task)?)?;
        let mut planned = if *self == Self::Password && server.status.power.may_execute() {
            let input = ServerInput { server: server.id() };
            let step = Step::new(
                "guest.set-password",
                "have the agent in the guest set the password",
                place(&server)?,
                &input,
            )?;
            // The secrets are lent in the plan's commit; an agent behind a slow link may see the job first.
            Planned {
                stage: AGENT.to_owned(),
                jobs: vec![step.attempts(5, 500).within(60).done()],
                generation: server.meta.generation,
                ..Planned::default()
            }
        } else {
            drive(task, server.clone(), cx, true)?
        };
        if let (Scope::Project(project), Place::Host(host)) = (task.scope, place(&server)?) {
            planned.lend = vec![(project, server.id(), host)];
        }
        Ok(planned)
    }

    fn next(
        &self,
        task: &Task,
        end: &StageEnd<'_>,
        cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        if *end.outcome != StageOutcome::Done || end.stage != AGENT {
            return Ok(None);
        }
        let server: Server = cx.records.need(&subject_key(task)?)?;
        let told: Option<Told> = output(end.outputs, "guest.set-password");
        let set = told == Some(Told::Set);
        if set && !server.spec.config_drive {
            return Ok(None);
        }
        let mut planned = drive(task, server, cx, !set)?;
        let before = end.plan.last_stage().map(|stage| stage.jobs.clone());
        for job in &mut planned.jobs {
            job.after = before.clone().unwrap_or_default();
        }
        Ok(Some(planned))
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let told: Option<Told> = output(cx.outputs, "guest.set-password");
        let mut next_boot = false;
        let mut settled = settled(task, cx, |server| {
            next_boot = cx.end == TaskEnd::Done && server.spec.config_drive;
        })?;
        settled.result = Some(json!({ "guest": told, "config_drive": next_boot }));
        Ok(settled)
    }
}

fn place(server: &Server) -> Result<Place, Reason> {
    let placement = server.status.placement.as_ref();
    let placement = placement.ok_or_else(|| Reason::new("server.not_placed", "the server is on no host"))?;
    Ok(Place::Host(placement.host))
}

/// The stage that makes the config drive say what the records say; `anew`: the guest is to read it as if for the first time.
fn drive(task: &Task, mut server: Server, cx: &PlanContext<'_>, anew: bool) -> Result<Planned, Refusal> {
    if !server.spec.config_drive {
        let reason = Reason::new(
            "guest.no_agent",
            "no agent in the guest has set it, and the server has no config drive to carry it",
        );
        return Err(reason.into());
    }
    let mut changes = Txn::new();
    if anew {
        server.status.drive_edition += 1;
        changes = cx.records.put(changes, &subject_key(task)?, &server)?;
    }
    Ok(Planned {
        stage: DRIVE.to_owned(),
        jobs: vec![seed(task, &server, cx.records)?],
        generation: server.meta.generation,
        changes,
        ..Planned::default()
    })
}

fn seed(task: &Task, server: &Server, records: &Records) -> Result<JobSpec, Reason> {
    let mut ports: Vec<PortPlan> = Vec::with_capacity(server.spec.ports.len());
    for id in &server.spec.ports {
        let port: Port = records.need(&port_key(task, *id)?)?;
        ports.push(PortPlan::of(&port));
    }
    // Only the first is the guest's way out.
    ports.iter_mut().skip(1).for_each(|port| port.gateway = None);
    let input = SeedInput {
        of: SeedOf::Server,
        server: server.id(),
        edition: server.status.drive_edition,
        stays: true,
        hostname: server.spec.hostname.clone(),
        ssh_keys: server.spec.ssh_keys.clone(),
        metadata: server.spec.metadata.clone(),
        ports,
    };
    let step = Step::new("disk.seed", "make the config drive anew", place(server)?, &input)?;
    Ok(step.attempts(5, 500).within(120).done())
}
