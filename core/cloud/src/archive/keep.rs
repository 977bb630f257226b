//! What the archive need not keep any more.

use std::time::Duration;

use skyloom_model::{Task, paths};
use skyloom_store::{Guard, KeyValue, ListOptions, Outcome, Result, Txn};

use super::copy::{key, prefix};
use super::document::{PartsOf, TaskOf};
use super::walk::{Verdict, Walk};
use super::{Archive, at_once};

impl Archive {
    /// Removes tasks that ended longer ago than `keep`.
    pub(super) async fn forget_tasks(&self, walk: &mut Walk, keep: Duration, most: usize) -> Result<usize> {
        let (mut forgotten, mut looked) = (0, 0);
        while looked < most {
            let judge = |kv: &KeyValue| match task_of(kv).and_then(|task| task.ended_at) {
                Some(end) if self.older(keep, end) => Verdict::Old,
                Some(_) => Verdict::Young,
                None => Verdict::Stays,
            };
            let step = walk.step(self.store(), judge).await?;
            looked += step.looked;
            let (plain, parted): (Vec<_>, Vec<_>) = step.old.into_iter().partition(|kv| !in_parts(kv));
            // Each with its address: two writes and a guard.
            for portion in plain.chunks((at_once(self.store().capability()) / 2).max(1)) {
                forgotten += self.forget_portion(portion, Txn::new()).await?;
            }
            for kv in parted {
                let parts = self.parts_of(&kv).await?;
                forgotten += self.forget_portion(&[kv], parts).await?;
            }
            if !walk.under_way() {
                break;
            }
        }
        Ok(forgotten)
    }

    async fn forget_portion(&self, portion: &[KeyValue], mut txn: Txn) -> Result<usize> {
        for kv in portion {
            let Some(task) = task_of(kv) else { continue };
            txn = txn
                .guard(Guard::Revision(kv.key.clone(), kv.modified))
                .delete(kv.key.clone())
                .delete(key(&paths::archived_task_id(task.id))?);
        }
        match self.store().commit(txn).await? {
            Outcome::Committed { .. } => Ok(portion.len()),
            Outcome::Conflict { .. } => Ok(0),
        }
    }

    /// The removal of a task's parts, also of those that a process left behind that died.
    async fn parts_of(&self, head: &KeyValue) -> Result<Txn> {
        let Some(task) = task_of(head) else {
            return Ok(Txn::new());
        };
        let options = ListOptions::default().with_limit(at_once(self.store().capability()));
        let below = prefix(&paths::archived_parts(task.id))?;
        let page = self.store().list(&below, options).await?;
        Ok(page
            .items
            .into_iter()
            .fold(Txn::new(), |txn, part| txn.delete(part.key)))
    }

    /// Removes events older than `keep`.
    pub(super) async fn forget_events(&self, walk: &mut Walk, keep: Duration, most: usize) -> Result<usize> {
        let (mut forgotten, mut looked) = (0, 0);
        while looked < most {
            let step = walk.step(self.store(), |kv| self.judge_event(kv, keep)).await?;
            looked += step.looked;
            for portion in step.old.chunks(at_once(self.store().capability())) {
                let txn = portion.iter().fold(Txn::new(), |txn, kv| {
                    txn.guard(Guard::Revision(kv.key.clone(), kv.modified))
                        .delete(kv.key.clone())
                });
                if let Outcome::Committed { .. } = self.store().commit(txn).await? {
                    forgotten += portion.len();
                }
            }
            if !walk.under_way() {
                break;
            }
        }
        Ok(forgotten)
    }
}

fn in_parts(kv: &KeyValue) -> bool {
    kv.value.parse::<PartsOf>().is_ok_and(|of| of.parts.is_some())
}

fn task_of(kv: &KeyValue) -> Option<Task> {
    kv.value.parse::<TaskOf>().ok().map(|of| of.task)
}
