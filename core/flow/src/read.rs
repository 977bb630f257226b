//! Reading what a flow asks for: rounds of point reads, over writes that are not committed yet where there are such.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use skyloom_model::{JobId, Task};
use skyloom_store::{DynBackend, Key, Result, Txn, Value, Write};

use crate::{Records, TaskFlow};

/// Rounds of [`TaskFlow::reads`] before planning goes on with what was read.
const MAX_ROUNDS: usize = 8;

/// The store as it will be once `over` is committed.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    backend: &'a DynBackend,
    over: Option<&'a Txn>,
}

impl<'a> Reading<'a> {
    /// The store as it is.
    #[must_use]
    pub const fn of(backend: &'a DynBackend) -> Self {
        Self { backend, over: None }
    }

    /// The store as it will be after `over`.
    #[must_use]
    pub const fn after(backend: &'a DynBackend, over: &'a Txn) -> Self {
        Self {
            backend,
            over: Some(over),
        }
    }

    /// The pending write of `key`: `Some(None)` is a deletion.
    fn pending(&self, key: &Key) -> Option<Option<&'a Value>> {
        self.over?
            .writes
            .iter()
            .rev()
            .find(|w| w.key() == key)
            .map(|w| match w {
                Write::Put(_, value) => Some(value),
                Write::Delete(_) => None,
            })
    }

    /// The document under `key`.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn value(&self, key: &Key) -> Result<Option<Value>> {
        match self.pending(key) {
            Some(value) => Ok(value.cloned()),
            None => Ok(self.backend.get(key).await?.map(|kv| kv.value)),
        }
    }

    /// Reads what `flow` names, until it names nothing new.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn records(
        &self,
        flow: &dyn TaskFlow,
        task: &Task,
        outputs: &BTreeMap<JobId, Json>,
    ) -> Result<Records> {
        let mut records = Records::new();
        for _ in 0..MAX_ROUNDS {
            let mut wanted: Vec<Key> = flow.reads(task, &records, outputs);
            wanted.retain(|k| !records.has_read(k));
            wanted.sort_unstable();
            wanted.dedup();
            if wanted.is_empty() {
                break;
            }
            let (pending, stored): (Vec<Key>, Vec<Key>) =
                wanted.into_iter().partition(|k| self.pending(k).is_some());
            for key in pending {
                let value = self.pending(&key).flatten().cloned();
                records.insert_pending(key, value);
            }
            let found = futures::future::try_join_all(stored.iter().map(|k| self.backend.get(k))).await?;
            for (key, found) in stored.into_iter().zip(found) {
                records.insert(key, found.map(|kv| (kv.value, kv.modified)));
            }
        }
        Ok(records)
    }
}
