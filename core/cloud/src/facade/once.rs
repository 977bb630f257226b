//! Mutations: read, check, commit; again when somebody else was faster; once per idempotency key.
//!
//! The record of an answer is written in the same commit as what it answers, so "the same key again" gives the same
//! answer also after a crash between commit and answer. Secrets are never in it: a repeated create shows no password.

use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use skyloom_model::{Reason, Timestamp, paths};
use skyloom_store::Txn;

use super::Cloud;
use super::records::create;
use crate::{Caller, CloudError, Result, checks, hash};

/// Tries of one mutation before it gives up against others.
const TRIES: usize = 16;

/// A mutation ready to be committed.
pub(crate) struct Change<T> {
    /// All writes with their guards.
    pub(crate) txn: Txn,
    /// What is answered, without secrets.
    pub(crate) answer: T,
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
    pub(super) at: Timestamp,
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
        let slot = slot(caller, operation, &request)?;
        for _ in 0..TRIES {
            if let Some(slot) = &slot
                && let Some(answer) = self.remembered(slot).await?
            {
                return Ok(Done { answer, fresh: false });
            }
            let Change { mut txn, answer } = make().await?;
            if let Some(slot) = &slot {
                let answer =
                    serde_json::to_value(&answer).map_err(|e| CloudError::internal(e.to_string()))?;
                let record = Remembered {
                    request: slot.request.clone(),
                    answer,
                    at: self.now(),
                };
                txn = txn.and(create(&slot.path, &record)?);
            }
            if self.commit(txn).await? {
                return Ok(Done { answer, fresh: true });
            }
        }
        let reason = Reason::new(
            "conflict.contended",
            "others changed the same records again and again",
        );
        Err(CloudError::conflict(reason.hint("try again").retryable()))
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
