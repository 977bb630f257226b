//! `server.create`: choose a host, then image → disk → (config drive) → domain → power.

use serde_json::{Value, json};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_hypervisor::OverlaySpec;
use skyloom_model::{
    JobId, JobSpec, Lifecycle, Place, Placement, PowerState, Reason, Resource as _, Scope, Server, Task,
    TaskEnd, paths,
};
use skyloom_scheduler::Request;
use skyloom_store::{Guard, Key, Revision, Txn, Value as Document};

use super::records::{bind_ports, key, release_claim, server_reads, subject_key, take_seen};
use super::{CreateParams, Step, output, params};
use crate::jobs::{CacheInput, DefineInput, SeedInput, ServerInput, Started};

/// Makes a server on a host.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerCreate;

impl TaskFlow for ServerCreate {
    fn name(&self) -> &'static str {
        "server.create"
    }

    fn reads(&self, task: &Task, have: &Records) -> Vec<Key> {
        server_reads(task, have).unwrap_or_default()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let at = subject_key(task)?;
        let mut server: Server = cx.records.need(&at)?;
        let params: CreateParams = params(task)?;
        let Scope::Project(project) = task.scope else {
            return Err(Reason::new("task.bad_scope", "a server belongs to a project").into());
        };
        let request = request(&server, &params, task.scope);
        let placed = cx
            .scheduler
            .place(&request, cx.inventory)
            .map_err(|no| Refusal::Fail(no.reason()))?;
        server.meta.generation += 1;
        server.meta.updated_at = cx.now;
        server.status.placement = Some(Placement {
            host: placed.host,
            host_name: placed.name,
        });
        let ledger_at = key(&paths::ledger(placed.host))?;
        let ledger_as_read = match placed.ledger_revision {
            0 => Guard::Absent(ledger_at.clone()),
            revision => Guard::Revision(ledger_at.clone(), Revision(revision)),
        };
        let changes = Txn::new()
            .guard(ledger_as_read)
            .put(ledger_at, document(&placed.ledger_after)?)
            .create(
                key(&paths::claim(placed.host, server.id()))?,
                document(&placed.claim)?,
            );
        let changes = cx.records.put(changes, &at, &server)?;
        let explanation = serde_json::to_value(&placed.explanation)
            .map_err(|e| Reason::new("placement.unencodable", e.to_string()))?;
        let lend = if server.spec.config_drive {
            vec![(project, server.id(), placed.host)]
        } else {
            Vec::new()
        };
        Ok(Planned {
            jobs: jobs(&server, &params, Place::Host(placed.host))?,
            placement: Some(explanation),
            changes,
            generation: server.meta.generation,
            lend,
            ..Planned::default()
        })
    }

    fn next(
        &self,
        _task: &Task,
        _end: &StageEnd<'_>,
        _cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        Ok(None)
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let at = subject_key(task)?;
        let Some(mut server) = cx.records.get::<Server>(&at)? else {
            return Ok(Settled::default());
        };
        server.meta.updated_at = cx.now;
        server.status.activity = None;
        let mut changes = Txn::new();
        let mut result = None;
        match cx.end {
            TaskEnd::Done => {
                let params: CreateParams = params(task)?;
                server.status.lifecycle = Lifecycle::Active;
                server.status.power = PowerState::Stopped;
                server.status.fault = None;
                server.status.addresses = params.ports.iter().map(|p| p.address.to_string()).collect();
                if let Some(started) = output::<Started>(cx.outputs, "vm.start") {
                    server.status.power = started.power;
                    server.status.accelerator = started.accelerator;
                    server.status.launched_at = Some(cx.now);
                }
                take_seen(&mut server, cx.records)?;
                changes = bind_ports(changes, task, &server, cx.records, true)?;
                result = Some(result_of(&server));
            }
            TaskEnd::Failed | TaskEnd::Cancelled => {
                server.status.lifecycle = Lifecycle::Error;
                server.status.power = PowerState::Stopped;
                server.status.fault = cx.reason.cloned();
                changes = release_claim(changes, &server, cx.records)?;
                if server.status.placement.take().is_some() {
                    server.meta.generation += 1;
                }
            }
            TaskEnd::Stuck => {
                server.status.lifecycle = Lifecycle::Error;
                server.status.fault = cx.reason.cloned();
            }
        }
        Ok(Settled {
            changes: cx.records.put(changes, &at, &server)?,
            result,
        })
    }
}

fn document<T: serde::Serialize>(value: &T) -> Result<Document, Reason> {
    Document::json(value).map_err(|e| Reason::new("record.unencodable", skyloom_model::report(&e)))
}

fn request(server: &Server, params: &CreateParams, scope: Scope) -> Request {
    let flavor = &server.spec.flavor.spec;
    let mut request = Request::new(server.id(), flavor.resources, params.architecture.clone());
    request.labels = flavor.host_labels.clone();
    request.labels.extend(server.spec.host_labels.clone());
    // A group is the project's own; ledgers hold groups of all projects.
    request.anti_affinity_group = server
        .spec
        .anti_affinity_group
        .as_ref()
        .map(|g| format!("{scope}:{g}"));
    request
}

fn jobs(server: &Server, params: &CreateParams, place: Place) -> Result<Vec<JobSpec>, Reason> {
    let (id, spec) = (server.id(), &server.spec);
    let image = params.image.spec();
    let job = JobId::new;
    let mut jobs = vec![
        Step::new(
            "image.cache",
            "fetch the image into the host's cache",
            place,
            &CacheInput { image: image.clone() },
        )?
        .attempts(5, 1000)
        .weight(10)
        .done(),
        Step::new(
            "disk.overlay",
            "make the root disk",
            place,
            &OverlaySpec {
                server: id,
                disk: "root".to_owned(),
                base: image,
                size_bytes: spec.flavor.spec.resources.disk_gib.saturating_mul(1 << 30),
            },
        )?
        .id("disk.root")
        .after([job("image.cache")])
        .weight(2)
        .done(),
    ];
    let mut disks = vec![job("disk.root")];
    if spec.config_drive {
        let input = SeedInput {
            server: id,
            hostname: spec.hostname.clone(),
            ssh_keys: spec.ssh_keys.clone(),
            metadata: spec.metadata.clone(),
            ports: params.ports.clone(),
        };
        // The secrets are lent in the plan's commit; an agent behind a slow link may see the job first.
        jobs.push(
            Step::new("disk.seed", "make the config drive", place, &input)?
                .attempts(5, 500)
                .done(),
        );
        disks.push(job("disk.seed"));
    }
    let define = DefineInput::of(server, params);
    jobs.push(
        Step::new("vm.define", "define the virtual machine", place, &define)?
            .after(disks)
            .weight(2)
            .done(),
    );
    if params.start {
        let start = Step::new(
            "vm.start",
            "start the virtual machine",
            place,
            &ServerInput { server: id },
        )?;
        jobs.push(start.after([job("vm.define")]).weight(5).done());
    }
    Ok(jobs)
}

fn result_of(server: &Server) -> Value {
    json!({
        "server": server.id(),
        "host": server.status.placement.as_ref().map(|p| p.host_name.as_str()),
        "addresses": server.status.addresses,
    })
}
