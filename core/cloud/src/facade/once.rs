//! Mutations: read, check, commit; again when somebody else was faster; once per idempotency key.
//!
//! The record of an answer is written in the same commit as what it answers, so "the same key again" gives the same
//! answer also after a crash between commit and answer. Secrets are never in it: a repeated create shows no password.

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use skyloom_identity::Amounts;
use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{Meta, Reason, Scope, Task, Timestamp, crash_point, paths};
use skyloom_store::{Guard, Txn};
use uuid::Uuid;

use super::Cloud;
use super::audit::Told;
use super::quotas::Quota;
use super::records::create;
use crate::{Caller, CloudError, Result, checks, hash};

/// Tries of one mutation before it gives up against others.
const TRIES: usize = 16;

/// A mutation ready to be committed.
pub(crate) struct Change<T> {
    /// The writes with their guards.
    txn: Txn,
    /// The task that does the rest.
    task: Option<Task>,
    /// What else it was made from. A change goes through when that is gone meanwhile; a plan that was shown does not.
    made_from: Vec<Guard>,
    /// What it takes of the quota of the caller's project, or gives back.
    quota: Option<Quota>,
    /// What the audit says of it.
    told: Option<Told>,
    /// What is answered, without secrets.
    answer: T,
}

impl<T> Change<T> {
    /// Writes that are all there is to do.
    pub(crate) fn new(txn: Txn, answer: T) -> Self {
        Self {
            txn,
            task: None,
            made_from: Vec::new(),
            quota: None,
            told: None,
            answer,
        }
    }

    /// With what else it was made from.
    pub(crate) fn made_from(mut self, guards: Vec<Guard>) -> Self {
        self.made_from = guards;
        self
    }

    /// What it takes of the quota of the caller's project.
    pub(crate) fn charge(mut self, amounts: Amounts) -> Self {
        self.quota = Some(Quota::Charge(amounts));
        self
    }

    /// What it gives back to it.
    pub(crate) fn give_back(mut self, amounts: Amounts) -> Self {
        self.quota = Some(Quota::GiveBack(amounts));
        self
    }

    /// What the audit says of it: the permission that was used, on what.
    pub(crate) fn told(mut self, action: &'static str, meta: &Meta) -> Self {
        self.told = Some(Told::of(action, meta));
        self
    }

    /// The same of what has no name of its own.
    pub(crate) fn told_of(mut self, action: &'static str, id: Option<Uuid>, scope: Scope) -> Self {
        self.told = Some(Told::nameless(action, id, scope));
        self
    }

    /// With a task that does the rest, submitted in the same commit.
    pub(crate) fn task(mut self, task: impl Into<Option<Task>>) -> Self {
        self.task = task.into();
        self
    }
}

/// A mutation that happened.
pub(crate) struct Done<T> {
    /// The answer.
    pub(crate) answer: T,
    /// Whether it happened now, not under the same key before.
    pub(crate) fresh: bool,
}

/// What was answered to a key. Lies at [`paths::idempotency`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Remembered {
    /// Hash of the request that it answers.
    request: String,
    /// The answer.
    answer: Json,
    /// When.
    at: Timestamp,
}

/// The address of an answer, and the request that it must fit.
struct Slot {
    path: String,
    request: String,
}

impl Cloud {
    /// Makes a change once. `request` is all that tells this request from others; `make` reads, checks and puts the
    /// commit together, and is called again on fresh records when a guard did not hold.
    pub(crate) async fn once<'a, T, F>(
        &'a self,
        caller: &'a Caller,
        operation: &'static str,
        request: Json,
        make: F,
    ) -> Result<Done<T>>
    where
        T: Serialize + DeserializeOwned + Send,
        F: Fn() -> BoxFuture<'a, Result<Change<T>>> + Send + Sync,
    {
        if caller.dry_run {
            let change = make().await?;
            let txn = only_from(change.txn, change.made_from);
            let quota = match &change.quota {
                Some(quota) => self.would_charge(caller, quota).await?,
                None => Vec::new(),
            };
            let preview = self.previewed(caller, operation, &request, txn, change.task.as_ref(), quota);
            return Err(CloudError::previewed(preview.await?));
        }
        let slot = match self.applying {
            Some(applying) => slot(caller, "plans.apply", &json!(applying.plan))?,
            None => slot(caller, operation, &request)?,
        };
        for _ in 0..TRIES {
            if let Some(slot) = &slot
                && let Some(answer) = self.remembered(slot).await?
            {
                return Ok(Done { answer, fresh: false });
            }
            let Change {
                mut txn,
                task,
                made_from,
                quota,
                told,
                answer,
            } = make().await?;
            // Held until the commit has ended: the next in the project reads what this one writes.
            let charged = match &quota {
                Some(quota) => Some(self.charged(caller, quota).await?),
                None => None,
            };
            match &charged {
                Some(charged) if kept(Rule::QuotaWithResource) => txn = txn.and(charged.txn.clone()),
                Some(charged) => drop(self.commit(charged.txn.clone()).await?),
                None => {}
            }
            if let Some(told) = told {
                txn = txn.and(self.audited(caller, told, task.as_ref())?);
            }
            let seat = task.as_ref().map(|t| self.admission.admit(t)).transpose()?;
            if let Some(slot) = &slot
                && kept(Rule::IdempotencyRecord)
            {
                let answer =
                    serde_json::to_value(&answer).map_err(|e| CloudError::internal(e.to_string()))?;
                let record = Remembered {
                    request: slot.request.clone(),
                    answer,
                    at: self.now(),
                };
                txn = txn.and(create(&slot.path, &record)?);
            }
            let (txn, later) = match (&task, self.applying) {
                (Some(task), Some(applying)) => {
                    let txn = only_from(txn, made_from);
                    (self.applied(caller, applying.plan, txn, task).await?, None)
                }
                (Some(task), None) if kept(Rule::OneCommit) => (txn.and(self.submission(task)?), None),
                (Some(task), None) => (txn, Some(self.submission(task)?)),
                (None, _) => (txn, None),
            };
            let held = super::hold::guard_of(operation)?;
            let stops = held.is_some();
            let txn = held.into_iter().fold(txn, Txn::guard);
            crash_point("api.before_commit");
            if self.commit_seated(txn, seat).await? {
                crash_point("api.after_commit");
                if let Some(later) = later {
                    self.commit(later).await?;
                }
                return Ok(Done { answer, fresh: true });
            }
            if stops {
                self.refuse_held().await?;
            }
        }
        Err(CloudError::contended())
    }

    async fn remembered<T: DeserializeOwned>(&self, slot: &Slot) -> Result<Option<T>> {
        let Some(found) = self.read::<Remembered>(&slot.path).await? else {
            return Ok(None);
        };
        if found.value.request != slot.request {
            let reason = Reason::new(
                "idempotency.key_reused",
                "this Idempotency-Key was used for another request",
            );
            return Err(CloudError::invalid(
                reason.hint("use a new key for each new request"),
            ));
        }
        let answer = serde_json::from_value(found.value.answer)
            .map_err(|e| CloudError::internal(format!("a kept answer cannot be read: {e}")))?;
        Ok(Some(answer))
    }
}

/// `txn`, if all that it was made from is unchanged.
fn only_from(txn: Txn, made_from: Vec<Guard>) -> Txn {
    made_from.into_iter().fold(txn, Txn::guard)
}

fn slot(caller: &Caller, operation: &str, request: &Json) -> Result<Option<Slot>> {
    let Some(given) = &caller.idempotency_key else {
        return Ok(None);
    };
    checks::idempotency_key(given)?;
    // Keys of different callers never meet, not even inside a project.
    let key = hash::sha256_of(&[caller.actor.id.as_bytes(), given.as_bytes()]);
    let request = hash::sha256_of(&[operation.as_bytes(), request.to_string().as_bytes()]);
    Ok(Some(Slot {
        path: paths::idempotency(caller.scope(), &key),
        request,
    }))
}
