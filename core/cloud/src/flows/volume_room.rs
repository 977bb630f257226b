//! The room of volumes in the local pool of a host: its ledger counts it, in the commit in which the volume's record says so.
//!
//! ```text
//! volume.create, volume.grow: the plan's commit    status.reserved_gib + ledger.volume_gib, under a compare of the ledger's revision
//! volume.delete, server.delete: the commit that settles                  - ledger.volume_gib
//! ```
//!
//! A shared pool is of no host: its volumes take nothing of one.

use skyloom_flow::{PlanContext, Records, Refusal};
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{HostLedger, Pool, Reason, Task, Volume};
use skyloom_store::{Guard, Key, Revision, Txn, Value as Document};

use super::records::{key, ledger_key, subject_key};

/// The ledger that counts the subject, a volume, once it is read.
pub(super) fn room_reads(task: &Task, have: &Records) -> Vec<Key> {
    let volume = subject_key(task).and_then(|at| have.get::<Volume>(&at));
    let host = volume.ok().flatten().and_then(|volume| volume.status.host);
    host.and_then(|host| ledger_key(host).ok()).into_iter().collect()
}

/// Adds: its host's ledger counts all of the volume.
pub(super) fn reserve(txn: Txn, volume: &mut Volume, cx: &PlanContext<'_>) -> Result<Txn, Refusal> {
    let more = volume.spec.size_gib.saturating_sub(volume.status.reserved_gib);
    let (Pool::Local, Some(host)) = (&volume.spec.pool, volume.status.host) else {
        return Ok(txn);
    };
    if more == 0 {
        return Ok(txn);
    }
    let Some(view) = cx.inventory.get(host) else {
        return Err(Refusal::Fail(Reason::new("volume.no_host", "its host is gone")));
    };
    let free = view.free().disk_gib;
    if free < more {
        let message = format!(
            "it takes {more} GiB more of the disk of {}, which has {free}",
            view.name
        );
        let hint = "delete what is not needed there, or use a shared pool";
        return Err(Refusal::Fail(Reason::new("volume.no_room", message).hint(hint)));
    }
    let at = key(&skyloom_model::paths::ledger(host))?;
    let as_read = match view.ledger_revision {
        0 => Guard::Absent(at.clone()),
        revision => Guard::Revision(at.clone(), Revision(revision)),
    };
    volume.status.reserved_gib = volume.spec.size_gib;
    let after = Document::json(&view.ledger.with_volumes(more))
        .map_err(|e| Reason::new("record.unencodable", skyloom_model::report(&e)))?;
    let txn = if kept(Rule::ClaimCompare) {
        txn.guard(as_read)
    } else {
        txn
    };
    Ok(txn.put(at, after))
}

/// Adds: its host's ledger counts no more than so many GiB of the volume.
pub(super) fn keep_room(txn: Txn, volume: &mut Volume, gib: u64, records: &Records) -> Result<Txn, Reason> {
    let less = volume.status.reserved_gib.saturating_sub(gib);
    let Some(host) = volume.status.host.filter(|_| less > 0) else {
        return Ok(txn);
    };
    let at = ledger_key(host)?;
    let ledger: HostLedger = records.need(&at)?;
    volume.status.reserved_gib -= less;
    records.put(txn, &at, &ledger.without_volumes(less))
}
