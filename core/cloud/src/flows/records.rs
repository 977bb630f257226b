//! The records that server flows read and write.

use skyloom_flow::{PlanContext, Records, SettleContext};
use skyloom_identity::{Amounts, DomainId, LEDGERS, Ledger, Owner, ledger_path};
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{
    Claim, HostId, HostLedger, Image, ImageId, ImageState, Port, PortId, Project, Reason, Resource as _,
    Resources, Scope, Server, ServerId, Task, TaskEnd, VmObservation, paths,
};
use skyloom_scheduler::{Placement, claim, release};
use skyloom_store::{Guard, Key, Revision, Txn, Value};

use super::definition::definition_reads;
use super::wiring::wiring_reads;
use crate::amounts;

/// The key of a path made of ids and fixed words. A task whose words are not fixed is damaged.
pub(super) fn key(path: &str) -> Result<Key, Reason> {
    Key::parse(path).map_err(|e| Reason::new("record.bad_key", e.to_string()))
}

/// The key of a task's subject.
pub(super) fn subject_key(task: &Task) -> Result<Key, Reason> {
    key(&paths::resource(&task.subject.kind, task.scope, task.subject.id))
}

pub(super) fn port_key(task: &Task, port: PortId) -> Result<Key, Reason> {
    key(&paths::resource(Port::KIND, task.scope, port.uuid()))
}

pub(super) fn claim_key(host: HostId, server: ServerId) -> Result<Key, Reason> {
    key(&paths::claim(host, server))
}

pub(super) fn ledger_key(host: HostId) -> Result<Key, Reason> {
    key(&paths::ledger(host))
}

/// The server; then, once it is placed, what its host's agent last saw of it.
pub(super) fn power_reads(task: &Task, have: &Records) -> Result<Vec<Key>, Reason> {
    let mut keys = vec![subject_key(task)?];
    if let Some(server) = have.get::<Server>(&keys[0])?
        && let Some(placement) = &server.status.placement
    {
        keys.push(seen_key(placement.host, server.id())?);
    }
    Ok(keys)
}

/// The same, with what the server's definition is made of.
pub(super) fn restart_reads(task: &Task, have: &Records) -> Result<Vec<Key>, Reason> {
    let mut keys = power_reads(task, have)?;
    if let Some(server) = have.get::<Server>(&keys[0])? {
        keys.extend(definition_reads(task, &server)?);
        keys.extend(wiring_reads(task, have, &server)?);
    }
    Ok(keys)
}

pub(super) fn seen_key(host: HostId, server: ServerId) -> Result<Key, Reason> {
    key(&paths::host_vm(host, server))
}

/// A new order for a server: hosts refuse older ones from the moment that they have carried it out.
pub(super) fn order(server: &mut Server, cx: &PlanContext<'_>) {
    server.meta.generation += 1;
    server.meta.updated_at = cx.now;
}

/// Takes over what the host's agent last saw. The agent reports with each job's result, so this is never older than the
/// outputs, and it is newer when the guest has ended since. When the task is done its order has reached the domain, and
/// what was seen under an older one is old news; otherwise the domain may never have heard of the order.
///
/// Gives back the condition: that it still is the last look. Who watches the looks has compared a newer one with the record of
/// before, found nothing to change, and does not come back.
pub(super) fn take_seen(server: &mut Server, cx: &SettleContext<'_>) -> Result<Txn, Reason> {
    let Some(placement) = &server.status.placement else {
        return Ok(Txn::new());
    };
    let last_look = cx
        .records
        .guard(Txn::new(), &seen_key(placement.host, server.id())?);
    let seen = seen(server, cx.records)?;
    let current = server.meta.generation;
    let oldest = if cx.end == TaskEnd::Done { current } else { 0 };
    if let Some(seen) = seen.filter(|s| (oldest..=current).contains(&s.generation)) {
        server.status.power = seen.power;
        server.status.accelerator = seen.accelerator.or(server.status.accelerator.take());
    }
    Ok(last_look)
}

/// What its host's agent last saw of a server. Of one that has no domain there is nothing.
pub(super) fn seen(server: &Server, records: &Records) -> Result<Option<VmObservation>, Reason> {
    match &server.status.placement {
        Some(placement) => records.get(&seen_key(placement.host, server.id())?),
        None => Ok(None),
    }
}

/// The server; then, once it is placed, its ports, its claim, its host's ledger and what the agent last saw of it.
pub(super) fn server_reads(task: &Task, have: &Records) -> Result<Vec<Key>, Reason> {
    let mut keys = vec![subject_key(task)?];
    if let Some(server) = have.get::<Server>(&keys[0])? {
        keys.extend(definition_reads(task, &server)?);
        keys.extend(wiring_reads(task, have, &server)?);
        if let Some(placement) = &server.status.placement {
            keys.push(claim_key(placement.host, server.id())?);
            keys.push(ledger_key(placement.host)?);
            keys.push(seen_key(placement.host, server.id())?);
        }
    }
    Ok(keys)
}

/// Where the ledgers lie that what is in a task's project is charged to: the project first, then what is found by it.
pub(super) fn quota_reads(task: &Task, have: &Records) -> Result<Vec<Key>, Reason> {
    let Scope::Project(id) = task.scope else {
        return Ok(Vec::new());
    };
    let project = key(&paths::resource(Project::KIND, Scope::System, id.uuid()))?;
    let mut keys = vec![key(&ledger_path(Owner::Project(id)))?];
    if let Some(project) = have.get::<Project>(&project)? {
        let domain = DomainId::from_uuid(project.spec.domain);
        keys.push(key(&ledger_path(Owner::Domain(domain)))?);
    }
    keys.push(project);
    Ok(keys)
}

/// Adds: the project's quota has that back, and its domain's where it is kept. Nothing where nothing was ever charged.
pub(super) fn give_back(
    mut txn: Txn,
    task: &Task,
    records: &Records,
    amounts: &Amounts,
) -> Result<Txn, Reason> {
    for at in quota_reads(task, records)? {
        if at.segments().next() != Some(LEDGERS) {
            continue;
        }
        let Some(mut ledger) = records.get::<Ledger>(&at)? else {
            continue;
        };
        let of_project = matches!(task.scope, Scope::Project(id) if at.last() == id.to_string());
        if of_project || ledger.counts_for_domain() {
            ledger.give_back(amounts);
            txn = records.put(txn, &at, &ledger)?;
        }
    }
    Ok(txn)
}

/// Adds: the server's ports are bound, or not.
pub(super) fn bind_ports(
    mut txn: Txn,
    task: &Task,
    server: &Server,
    records: &Records,
    bound: bool,
) -> Result<Txn, Reason> {
    for id in &server.spec.ports {
        let key = port_key(task, *id)?;
        if let Some(mut port) = records.get::<Port>(&key)?
            && port.status.bound != bound
        {
            port.status.bound = bound;
            txn = records.put(txn, &key, &port)?;
        }
    }
    Ok(txn)
}

/// Adds: the server's claim is of this size from now on. Nothing when it is, or when there is none.
pub(super) fn size_claim(
    txn: Txn,
    server: &Server,
    size: Resources,
    records: &Records,
) -> Result<Txn, Reason> {
    let Some(placement) = &server.status.placement else {
        return Ok(txn);
    };
    let (claim_at, ledger_at) = (
        claim_key(placement.host, server.id())?,
        ledger_key(placement.host)?,
    );
    let Some(before) = records.get::<Claim>(&claim_at)?.filter(|c| c.resources != size) else {
        return Ok(txn);
    };
    let after = Claim {
        resources: size,
        ..before.clone()
    };
    let ledger: HostLedger = records.get(&ledger_at)?.unwrap_or_default();
    let ledger = claim(&release(&ledger, &before), &after);
    let txn = records.put(txn, &ledger_at, &ledger)?;
    records.put(txn, &claim_at, &after)
}

/// Adds: the server has a claim on the host that was chosen, whose ledger is as it was when it was chosen.
pub(super) fn take_claim(mut txn: Txn, server: ServerId, placed: &Placement) -> Result<Txn, Reason> {
    let document = |e: skyloom_store::Error| Reason::new("record.unencodable", skyloom_model::report(&e));
    let ledger_at = ledger_key(placed.host)?;
    if kept(Rule::ClaimCompare) {
        txn = txn.guard(match placed.ledger_revision {
            0 => Guard::Absent(ledger_at.clone()),
            revision => Guard::Revision(ledger_at.clone(), Revision(revision)),
        });
    }
    Ok(txn
        .put(ledger_at, Value::json(&placed.ledger_after).map_err(document)?)
        .create(
            claim_key(placed.host, server)?,
            Value::json(&placed.claim).map_err(document)?,
        ))
}

pub(super) fn image_key(task: &Task, image: ImageId) -> Result<Key, Reason> {
    key(&paths::resource(Image::KIND, task.scope, image.uuid()))
}

/// The image that is a server's alone, and the quota that has it back.
pub(super) fn own_image_reads(task: &Task, have: &Records) -> Result<Vec<Key>, Reason> {
    let server: Option<Server> = have.get(&subject_key(task)?)?;
    let Some(image) = server.and_then(|server| server.status.own_image) else {
        return Ok(Vec::new());
    };
    let mut keys = quota_reads(task, have)?;
    keys.push(image_key(task, image)?);
    Ok(keys)
}

/// Adds: the record of the image that is a server's alone is gone. Also what that gives back.
pub(super) fn without_own_image(
    txn: Txn,
    task: &Task,
    server: &Server,
    records: &Records,
) -> Result<(Txn, Amounts), Reason> {
    let Some(image) = server.status.own_image else {
        return Ok((txn, Amounts::new()));
    };
    let at = image_key(task, image)?;
    Ok(match records.get::<Image>(&at)? {
        Some(_) => (records.delete(txn, &at), amounts::of_image()),
        None => (txn, Amounts::new()),
    })
}

/// Adds: whether the content of that image is still there nobody knows.
pub(super) fn doubt_own_image(
    txn: Txn,
    task: &Task,
    server: &Server,
    cx: &SettleContext<'_>,
) -> Result<Txn, Reason> {
    let Some(image) = server.status.own_image.filter(|_| cx.plan.is_some()) else {
        return Ok(txn);
    };
    let at = image_key(task, image)?;
    let Some(mut image) = cx.records.get::<Image>(&at)? else {
        return Ok(txn);
    };
    image.status.state = ImageState::Error;
    image.status.fault = cx.reason.cloned();
    image.meta.updated_at = cx.now;
    cx.records.put(txn, &at, &image)
}

/// Adds: the server's claim is gone, and its share of the host's ledger, with so many GiB of volumes that are gone with it.
pub(super) fn release_claim(
    txn: Txn,
    server: &Server,
    records: &Records,
    room_gib: u64,
) -> Result<Txn, Reason> {
    let Some(placement) = &server.status.placement else {
        return Ok(txn);
    };
    let (claim_at, ledger_at) = (
        claim_key(placement.host, server.id())?,
        ledger_key(placement.host)?,
    );
    let ledger: HostLedger = records.get(&ledger_at)?.unwrap_or_default();
    let ledger = ledger.without_volumes(room_gib);
    let Some(claim) = records.get::<Claim>(&claim_at)? else {
        return match room_gib {
            0 => Ok(txn),
            _ => records.put(txn, &ledger_at, &ledger),
        };
    };
    let txn = records.put(txn, &ledger_at, &release(&ledger, &claim))?;
    Ok(records.delete(txn, &claim_at))
}
