//! `host.sweep` and `claim.release`: what lies on a host, or is claimed there, and belongs to nobody.
//!
//! The proof: placing a server and claiming its share of the host are one commit, so whoever may have something on a host
//! has a claim there; a server that migrates has one on both. Ids are never used again, so what belongs to nobody may only become
//! somebody's again when its server comes back to the host, and then
//!
//! * its domain is of a newer generation than the one that was looked at: a host refuses to remove it (`removal` names the generation),
//! * its disks are in a folder or pool that hosts share: only such a server migrates. Sweeping removes nothing from a shared folder,
//! * its claim is there before anything else of it, and the commits here compare claim and record with what was read.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_model::{
    Claim, Host, HostId, HostLedger, Id, JobId, JobSpec, Place, Reason, Resource as _, Scope, Server,
    ServerId, StageOutcome, Task, TaskEnd, VmObservation, paths,
};
use skyloom_scheduler::release;
use skyloom_store::{Key, Txn};

use super::records::{claim_key, key, ledger_key, seen_key, subject_key};
use super::{Outputs, ReleaseParams, STORAGE, Step, SweepParams, output, params};
use crate::jobs::{Looked, ServerInput, Thing, UndefineInput};

/// Orphans removed by one task: what its last commit can put away. For more there are more sweeps.
const REMOVED: usize = 20;
/// Claims looked at by one task.
const CLAIMS: usize = 16;
/// Findings that a result names.
const NAMED: usize = 100;

/// Looks at everything on a host, names what belongs to nobody, and removes it if that was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostSweep;

/// Gives back shares of a host that were claimed for servers that do not live there.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClaimRelease;

/// Whose something on a host is.
enum Owner {
    /// A server that lives there.
    Server,
    /// Nobody, because …
    Nobody(String),
    /// That cannot be told, because …
    Unclear(String),
}

fn host(task: &Task) -> HostId {
    Id::from_uuid(task.subject.id)
}

/// The records that tell whose something of `server` on `host` is.
fn evidence(host: HostId, server: ServerId, have: &Records) -> Result<Vec<Key>, Reason> {
    let mut keys = vec![claim_key(host, server)?, seen_key(host, server)?];
    if let Some(scope) = scope_of(host, server, have)? {
        keys.push(server_key(scope, server)?);
    }
    Ok(keys)
}

/// Whose server it is, as its claim or its host's agent says.
fn scope_of(host: HostId, server: ServerId, have: &Records) -> Result<Option<Scope>, Reason> {
    let claim: Option<Claim> = have.get(&claim_key(host, server)?)?;
    let seen: Option<VmObservation> = have.get(&seen_key(host, server)?)?;
    let claimed = claim.and_then(|claim| claim.scope);
    Ok(claimed.or(seen.map(|seen| Scope::Project(seen.project))))
}

fn server_key(scope: Scope, server: ServerId) -> Result<Key, Reason> {
    key(&paths::resource(Server::KIND, scope, server.uuid()))
}

/// The server's record, if it is known where that would be.
fn record(host: HostId, server: ServerId, have: &Records) -> Result<Option<Option<Server>>, Reason> {
    match scope_of(host, server, have)? {
        Some(scope) => Ok(Some(have.get(&server_key(scope, server)?)?)),
        None => Ok(None),
    }
}

fn lives_on(server: &Server, host: HostId) -> bool {
    server.status.may_be_on(host)
}

/// Whether other hosts see the folder of the host's disks: what lies there may be a server's that is on any of them.
fn shares_disks(host: &Host) -> bool {
    let facts = host.status.facts.as_ref();
    facts.is_some_and(|facts| facts.traits.iter().any(|name| name.starts_with(STORAGE)))
}

fn owner(host: HostId, thing: &Thing, have: &Records) -> Result<Owner, Reason> {
    if let Some(why) = &thing.unclear {
        return Ok(Owner::Unclear(format!(
            "nobody can tell what its domain does: {why}"
        )));
    }
    let claimed = have.get::<Claim>(&claim_key(host, thing.server)?)?.is_some();
    let record = record(host, thing.server, have)?;
    Ok(match (claimed, record) {
        (true, Some(None)) => {
            Owner::Unclear("its record is gone, its claim is not: release that first".to_owned())
        }
        (true, Some(Some(server))) if !lives_on(&server, host) => {
            Owner::Unclear("it lives elsewhere, its claim is here: release that first".to_owned())
        }
        (true, _) => Owner::Server,
        (false, None) => Owner::Nobody("nothing is claimed for it here".to_owned()),
        (false, Some(None)) => Owner::Nobody("its record is gone".to_owned()),
        (false, Some(Some(server))) if lives_on(&server, host) => {
            Owner::Unclear("it lives here by its record and has no claim".to_owned())
        }
        (false, Some(Some(server))) => match thing.domain {
            Some((generation, _)) if generation >= server.meta.generation => {
                Owner::Unclear("its domain is of a newer order than its record".to_owned())
            }
            _ => Owner::Nobody("it lives elsewhere by a newer order".to_owned()),
        },
    })
}

impl TaskFlow for HostSweep {
    fn name(&self) -> &'static str {
        "host.sweep"
    }

    fn reads(&self, task: &Task, have: &Records, outputs: &Outputs) -> Vec<Key> {
        let things = output::<Looked>(outputs, "host.look").map_or_else(Vec::new, |looked| looked.things);
        let evidence = things
            .iter()
            .filter_map(|thing| evidence(host(task), thing.server, have).ok());
        subject_key(task).into_iter().chain(evidence.flatten()).collect()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let subject: Host = cx.records.need(&subject_key(task)?)?;
        let look = Step::new(
            "host.look",
            "look at everything on the host",
            place(task),
            &json!({}),
        )?;
        Ok(Planned {
            stage: "look".to_owned(),
            jobs: vec![look.attempts(5, 1000).within(600).done()],
            generation: subject.meta.generation,
            ..Planned::default()
        })
    }

    fn next(
        &self,
        task: &Task,
        end: &StageEnd<'_>,
        cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        let SweepParams { remove } = params(task)?;
        let looked = end.plan.stages.len() == 1 && *end.outcome == StageOutcome::Done;
        if !looked || !remove {
            return Ok(None);
        }
        let looked = output::<Looked>(end.outputs, "host.look").ok_or_else(not_looked)?;
        let host = host(task);
        let mut next = Planned {
            stage: "remove".to_owned(),
            generation: end.plan.last_stage().map_or(0, |stage| stage.generation),
            ..Planned::default()
        };
        let shared = shares_disks(&cx.records.need(&subject_key(task)?)?);
        let mut orphans = 0;
        for thing in looked.things.iter().filter(|thing| concerns(thing, shared)) {
            if orphans == REMOVED || !matches!(owner(host, thing, cx.records)?, Owner::Nobody(_)) {
                continue;
            }
            orphans += 1;
            next.changes = cx.records.guard(next.changes, &claim_key(host, thing.server)?);
            if let Some(scope) = scope_of(host, thing.server, cx.records)? {
                next.changes = cx.records.guard(next.changes, &server_key(scope, thing.server)?);
            }
            next.jobs.extend(removal(thing, place(task), shared)?);
        }
        Ok((orphans > 0).then_some(next))
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let Some(looked) = output::<Looked>(cx.outputs, "host.look") else {
            return Ok(Settled::default());
        };
        let host = host(task);
        let (mut orphans, mut unclear, mut removed) = (Vec::new(), Vec::new(), 0);
        let subject: Option<Host> = cx.records.get(&subject_key(task)?)?;
        let shared = subject.is_some_and(|host| shares_disks(&host));
        for thing in looked.things.iter().filter(|thing| concerns(thing, shared)) {
            let gone = cx.outputs.contains_key(&last_job(thing.server, shared));
            removed += usize::from(gone);
            match owner(host, thing, cx.records)? {
                Owner::Server => {}
                Owner::Nobody(why) => orphans.push(named(thing, &why, gone)),
                // What was removed was nobody's when it was.
                Owner::Unclear(why) if gone => orphans.push(named(thing, &why, gone)),
                Owner::Unclear(why) => unclear.push(named(thing, &why, gone)),
            }
        }
        let found = orphans.len();
        let omitted = orphans.len().saturating_sub(NAMED) + unclear.len().saturating_sub(NAMED);
        orphans.truncate(NAMED);
        unclear.truncate(NAMED);
        Ok(Settled {
            changes: Txn::new(),
            result: Some(json!({
                "looked_at": looked.things.len(),
                "of_nobody": found,
                "removed": removed,
                "orphans": orphans,
                "unclear": unclear,
                "omitted": omitted,
            })),
        })
    }
}

fn not_looked() -> Reason {
    Reason::new("host.not_looked_at", "the look at the host gave nothing")
}

fn place(task: &Task) -> Place {
    Place::Host(host(task))
}

/// The last job of an orphan's removal.
fn last_job(server: ServerId, shared: bool) -> JobId {
    JobId::new(match shared {
        true => format!("vm.undefine.{server}"),
        false => format!("disk.delete_all.{server}"),
    })
}

/// Whether a thing is the host's own. Disks in a folder that others `share` say nothing of this host.
fn concerns(thing: &Thing, shared: bool) -> bool {
    !shared || thing.domain.is_some() || thing.unclear.is_some()
}

/// The jobs that remove an orphan: its domain, and its disks unless others `share` their folder.
fn removal(thing: &Thing, place: Place, shared: bool) -> Result<Vec<JobSpec>, Reason> {
    let server = thing.server;
    let mut jobs = Vec::new();
    if let Some((generation, _)) = thing.domain {
        let input = UndefineInput {
            server,
            generation: Some(generation),
        };
        let undefine = Step::new("vm.undefine", "remove a virtual machine of nobody", place, &input)?;
        let id = JobId::new(format!("vm.undefine.{server}"));
        jobs.push(undefine.id(id).attempts(5, 1000).within(300).done());
    }
    if shared {
        return Ok(jobs);
    }
    let input = ServerInput { server };
    let disks = Step::new("disk.delete_all", "delete disks of nobody", place, &input)?;
    let after: Vec<JobId> = jobs.iter().map(|job: &JobSpec| job.id.clone()).collect();
    jobs.push(
        disks
            .id(last_job(server, shared))
            .after(after)
            .attempts(5, 1000)
            .within(600)
            .done(),
    );
    Ok(jobs)
}

fn named(thing: &Thing, why: &str, removed: bool) -> Value {
    json!({
        "server": thing.server,
        "why": why,
        "domain": thing.domain.map(|(_, power)| power),
        "disks": thing.disks,
        "removed": removed,
    })
}

impl TaskFlow for ClaimRelease {
    fn name(&self) -> &'static str {
        "claim.release"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let servers = params::<ReleaseParams>(task).map_or_else(|_| Vec::new(), |p| p.servers);
        let evidence = servers
            .iter()
            .take(CLAIMS)
            .filter_map(|s| evidence(host(task), *s, have).ok());
        ledger_key(host(task))
            .into_iter()
            .chain(evidence.flatten())
            .collect()
    }

    fn plan(&self, task: &Task, _cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let _: ReleaseParams = params(task)?;
        // Nothing to do outside: all is in the commit that settles.
        Ok(Planned::default())
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        if cx.end != TaskEnd::Done {
            return Ok(Settled::default());
        }
        let servers: BTreeSet<ServerId> = params::<ReleaseParams>(task)?.servers.into_iter().collect();
        let (host, ledger_at) = (host(task), ledger_key(host(task))?);
        let mut ledger: HostLedger = cx.records.need(&ledger_at)?;
        let mut changes = Txn::new();
        let (mut released, mut kept) = (Vec::new(), Vec::new());
        for server in servers.into_iter().take(CLAIMS) {
            let at = claim_key(host, server)?;
            let why = match (cx.records.get::<Claim>(&at)?, record(host, server, cx.records)?) {
                (None, _) => Err("there is no such claim"),
                (Some(_), None) => Err("nothing says whose server it is"),
                (Some(_), Some(Some(server))) if lives_on(&server, host) => Err("it lives there"),
                (Some(claim), Some(None)) => Ok((claim, "its record is gone")),
                (Some(claim), Some(Some(_))) => Ok((claim, "it lives elsewhere")),
            };
            match why {
                Ok((claim, why)) => {
                    ledger = release(&ledger, &claim);
                    changes = cx.records.delete(changes, &at);
                    if let Some(scope) = scope_of(host, server, cx.records)? {
                        changes = cx.records.guard(changes, &server_key(scope, server)?);
                    }
                    released.push(json!({ "server": server, "why": why }));
                }
                Err(why) => kept.push(json!({ "server": server, "why": why })),
            }
        }
        if !released.is_empty() {
            changes = cx.records.put(changes, &ledger_at, &ledger)?;
        }
        Ok(Settled {
            changes,
            result: Some(json!({ "released": released, "kept": kept })),
        })
    }
}
