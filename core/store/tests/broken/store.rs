//! A store with one fault.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use skyloom_store::{
    Capability, Change, DynBackend, Grant, Guard, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, Outcome, Page, Prefix, Renewal, Result, Revision, Store, Txn, Value, Watch, WatchEvent,
    WatchOptions, Write,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None: the wrapper alone must pass.
    Sound,
    /// Checks the guards, then writes one key after the other.
    CommitsPiecemeal,
    /// Checks the guards and later writes all at once, whatever happened between.
    ChecksTooEarly,
    /// Takes every write as guarded by a lease that is held.
    IgnoresLeaseGuards,
    /// Takes every guard on a revision as a guard on existence.
    IgnoresRevisionGuards,
    /// Reports conflicts at the last guard and without the present revision.
    VagueConflicts,
    /// `hosts/host1` covers `hosts/host10`.
    PrefixWithoutDelimiter,
    /// Reads answer from before the last commit.
    StaleReads,
    /// Every page is of the present.
    IgnoresListRevision,
    /// `after` is inclusive.
    PagesOverlap,
    /// Every fifth event is missing.
    SkipsEvents,
    /// One event for each change.
    SplitsCommits,
    /// No event for deletes.
    HidesDeletes,
    /// Watching after a revision delivers that revision again.
    RepeatsOnResume,
    /// Where the history is gone, it starts with what is left.
    NoGaps,
    /// A watch always starts at the present.
    ForgetsBacklog,
    /// Leases are documents.
    LeasesMakeRevisions,
    /// Epochs start again after revocation.
    EpochsStartAgain,
    /// Renewing works after the end.
    RenewsTheDead,
    /// Takes what must be refused.
    NoLimits,
    /// Keeps documents as floating-point numbers.
    LosesDigits,
    /// A document created again remembers its first life.
    CreatedForEver,
}

#[derive(Debug)]
pub(crate) struct Broken {
    inner: DynBackend,
    fault: Fault,
    /// What reads saw before the last commit.
    old: Mutex<HashMap<Key, Option<KeyValue>>>,
    created: Mutex<HashMap<Key, Revision>>,
    fresh_epochs: Mutex<HashMap<LeaseName, u64>>,
}

impl Broken {
    pub(crate) fn new(inner: DynBackend, fault: Fault) -> Self {
        Self {
            inner,
            fault,
            old: Mutex::default(),
            created: Mutex::default(),
            fresh_epochs: Mutex::default(),
        }
    }

    /// The epoch that the store beneath knows.
    fn true_epoch(&self, name: &LeaseName, epoch: u64) -> u64 {
        epoch + self.fresh_epochs.lock().get(name).copied().unwrap_or(0)
    }

    fn older(&self, mut kv: KeyValue) -> KeyValue {
        if self.fault == Fault::CreatedForEver {
            kv.created = *self.created.lock().entry(kv.key.clone()).or_insert(kv.created);
        }
        kv
    }

    /// Everything below the text of the prefix without its delimiter.
    fn loose(&self, prefix: &Prefix) -> (Prefix, String) {
        let text = prefix.as_str().trim_end_matches('/').to_owned();
        if self.fault == Fault::PrefixWithoutDelimiter {
            (Prefix::all(), text)
        } else {
            (prefix.clone(), text)
        }
    }
}

fn as_float(value: &Value) -> Value {
    fn convert(json: serde_json::Value) -> serde_json::Value {
        match json {
            serde_json::Value::Number(n) => n.as_f64().into(),
            serde_json::Value::Array(items) => items.into_iter().map(convert).collect(),
            other => other,
        }
    }
    Value::json(&convert(value.parse().unwrap())).unwrap()
}

#[async_trait::async_trait]
impl Store for Broken {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        let now = self.inner.get(key).await?.map(|kv| self.older(kv));
        if self.fault == Fault::StaleReads {
            // The answer to a question is what it was when somebody asked last.
            return Ok(self.old.lock().insert(key.clone(), now.clone()).unwrap_or(now));
        }
        Ok(now)
    }

    async fn list(&self, prefix: &Prefix, mut options: ListOptions) -> Result<Page> {
        match self.fault {
            Fault::PrefixWithoutDelimiter => {
                let (all, text) = self.loose(prefix);
                let mut page = self.inner.list(&all, options).await?;
                page.items.retain(|kv| kv.key.as_str().starts_with(&text));
                Ok(page)
            }
            Fault::IgnoresListRevision => {
                let at = options.at.take();
                let mut page = self.inner.list(prefix, options).await?;
                page.revision = at.unwrap_or(page.revision);
                Ok(page)
            }
            Fault::PagesOverlap => {
                let again = match &options.after {
                    Some(after) => self.inner.get(after).await?,
                    None => None,
                };
                let mut page = self.inner.list(prefix, options).await?;
                page.items.splice(0..0, again);
                Ok(page)
            }
            _ => {
                let mut page = self.inner.list(prefix, options).await?;
                page.items = page.items.into_iter().map(|kv| self.older(kv)).collect();
                Ok(page)
            }
        }
    }

    async fn commit(&self, mut txn: Txn) -> Result<Outcome> {
        for guard in &mut txn.guards {
            if let Guard::Lease(name, epoch) = guard {
                *epoch = self.true_epoch(name, *epoch);
            }
        }
        match self.fault {
            Fault::CommitsPiecemeal => {
                txn.check(&self.inner.capability())?;
                let mut outcome = self
                    .inner
                    .commit(Txn {
                        guards: txn.guards,
                        writes: vec![],
                    })
                    .await?;
                for write in txn
                    .writes
                    .into_iter()
                    .filter(|_| outcome.committed().is_some())
                    .collect::<Vec<_>>()
                {
                    tokio::task::yield_now().await;
                    outcome = self
                        .inner
                        .commit(Txn {
                            guards: vec![],
                            writes: vec![write],
                        })
                        .await?;
                }
                Ok(outcome)
            }
            Fault::ChecksTooEarly => {
                txn.check(&self.inner.capability())?;
                let outcome = self
                    .inner
                    .commit(Txn {
                        guards: txn.guards,
                        writes: vec![],
                    })
                    .await?;
                if outcome.committed().is_none() {
                    return Ok(outcome);
                }
                tokio::task::yield_now().await;
                self.inner
                    .commit(Txn {
                        guards: vec![],
                        writes: txn.writes,
                    })
                    .await
            }
            Fault::IgnoresLeaseGuards => {
                txn.guards.retain(|g| !matches!(g, Guard::Lease(..)));
                self.inner.commit(txn).await
            }
            Fault::IgnoresRevisionGuards => {
                txn.guards.retain(|g| !matches!(g, Guard::Revision(..)));
                self.inner.commit(txn).await
            }
            Fault::VagueConflicts => {
                let last = txn.guards.len().saturating_sub(1);
                Ok(match self.inner.commit(txn).await? {
                    Outcome::Conflict { .. } => Outcome::Conflict {
                        guard: last,
                        current: None,
                    },
                    committed @ Outcome::Committed { .. } => committed,
                })
            }
            Fault::NoLimits => {
                let most = self.inner.capability().max_txn_ops;
                let mut last = HashMap::new();
                for write in txn.writes.into_iter().take(most) {
                    if !matches!(&write, Write::Put(_, v) if v.parse::<serde_json::Value>().is_err()) {
                        last.insert(write.key().clone(), write);
                    }
                }
                txn.writes = last.into_values().take(most - txn.guards.len()).collect();
                self.inner.commit(txn).await
            }
            Fault::CreatedForEver => {
                let keys: Vec<Key> = txn.writes.iter().map(|w| w.key().clone()).collect();
                let outcome = self.inner.commit(txn).await;
                for key in keys {
                    self.get(&key).await?;
                }
                outcome
            }
            Fault::LosesDigits => {
                for write in &mut txn.writes {
                    if let Write::Put(_, value) = write
                        && value.parse::<serde_json::Value>().is_ok()
                    {
                        *value = as_float(value);
                    }
                }
                self.inner.commit(txn).await
            }
            _ => self.inner.commit(txn).await,
        }
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Broken {
    fn watch(&self, prefix: &Prefix, mut options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        let fault = self.fault;
        let (below, text) = self.loose(prefix);
        match fault {
            Fault::RepeatsOnResume => options.after = Revision(options.after.0.saturating_sub(1)),
            Fault::ForgetsBacklog => {
                let page = futures::executor::block_on(self.inner.list(&below, ListOptions::default()));
                options.after = page.unwrap().revision;
            }
            _ => {}
        }
        let events = self.inner.watch(&below, options.clone());
        if fault == Fault::NoGaps {
            let inner = self.inner.clone();
            let replace = move |event| match event {
                Ok(WatchEvent::Gap { floor }) => inner.watch(&below, WatchOptions::after(floor)),
                event => futures::stream::iter([event]).boxed(),
            };
            return events.flat_map(replace).boxed();
        }
        let mut number = 0;
        let change = move |event: Result<WatchEvent>| -> Vec<Result<WatchEvent>> {
            let Ok(WatchEvent::Commit {
                revision,
                mut changes,
            }) = event
            else {
                return vec![event];
            };
            number += 1;
            match fault {
                Fault::SkipsEvents if number % 5 == 0 => return vec![],
                Fault::SplitsCommits => {
                    let split = changes.into_iter().map(|c| {
                        Ok(WatchEvent::Commit {
                            revision,
                            changes: vec![c],
                        })
                    });
                    return split.collect();
                }
                Fault::HidesDeletes => changes.retain(|c| matches!(c, Change::Put(_))),
                Fault::PrefixWithoutDelimiter => changes.retain(|c| c.key().as_str().starts_with(&text)),
                _ => {}
            }
            if changes.is_empty() {
                vec![]
            } else {
                vec![Ok(WatchEvent::Commit { revision, changes })]
            }
        };
        events.map(change).flat_map(futures::stream::iter).boxed()
    }
}

#[async_trait::async_trait]
impl Leases for Broken {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        if self.fault == Fault::LeasesMakeRevisions {
            let document = Txn::new().put(name.as_key().clone(), Value::json(holder)?);
            self.inner.commit(document).await?;
        }
        let grant = self.inner.grant(name, holder, ttl, mode).await?;
        let skipped = self.true_epoch(name, 0);
        Ok(match grant {
            Grant::Granted { epoch } => Grant::Granted {
                epoch: epoch - skipped,
            },
            Grant::Held(mut info) => {
                info.epoch = info.epoch.saturating_sub(skipped);
                Grant::Held(info)
            }
        })
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        let renewal = self.inner.renew(name, self.true_epoch(name, epoch), ttl).await?;
        Ok(if self.fault == Fault::RenewsTheDead {
            Renewal::Held
        } else {
            renewal
        })
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        let epoch = self.true_epoch(name, epoch);
        if self.fault == Fault::EpochsStartAgain {
            self.fresh_epochs.lock().insert(name.clone(), epoch);
        }
        self.inner.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.inner.leases(prefix).await
    }
}
