//! Leases, on etcd's own: the server's leader counts the time, and removes what is bound to a lease that ran out.
//!
//! ```text
//! /PREFIX/leases/NAME   who was granted it; written once per grant, so its modification revision is the epoch
//! /PREFIX/held/NAME     there while it is held: bound to an etcd lease, which takes it away
//! ```
//!
//! Both are written by the same transaction and removed together by a revocation, so a lease is held at an epoch
//! exactly when the record has that revision and the other key is there: what [`Guard::Lease`] compares. Epochs grow
//! because etcd's revisions do. Keeping alive writes nothing: no revision, no event, no history.
//!
//! [`Guard::Lease`]: skyloom_store::Guard::Lease

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, DeleteOptions, Error as Native, GetOptions, PutOptions, Txn as NativeTxn, TxnOp,
    TxnOpResponse, TxnResponse,
};
use serde::{Deserialize, Serialize};
use skyloom_model::{Clock, Timestamp};
use skyloom_store::{
    Error, ErrorKind, Grant, LeaseInfo, LeaseMode, LeaseName, Prefix, Renewal, Result, check_grant,
};

use crate::commit::{header, native, revision};
use crate::error::{Fate, corrupt};
use crate::keys::Keys;
use crate::link::{Clients, Link};

/// Longest lease that etcd grants, in seconds.
const LONGEST_S: u64 = 9_000_000_000;
/// Leases in one answer.
const PAGE: usize = 1000;
/// How often a renewal looks again because others changed the lease meanwhile.
const LOOKS: usize = 8;

/// What stands under `leases/NAME`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    holder: String,
    ttl_s: u64,
    granted_at: Timestamp,
}

/// What stands under `held/NAME`.
#[derive(Debug, Serialize, Deserialize)]
struct Held {
    /// What was asked for; the server may give more.
    ttl_s: u64,
}

/// Whole seconds, rounded up: etcd counts no finer.
fn seconds(ttl: Duration) -> u64 {
    let up = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    up.clamp(1, LONGEST_S)
}

fn json<T: Serialize>(operation: &'static str, value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::new(ErrorKind::Internal, operation).because(e))
}

fn garbled(operation: &'static str) -> Error {
    Error::new(ErrorKind::Internal, operation)
        .because("etcd's answer does not have the form that was asked for")
}

/// A lease that somebody holds.
struct Seen {
    epoch: u64,
    record: Record,
    held: Held,
    etcd_lease: i64,
}

/// The leases of one store.
#[derive(Debug)]
pub(crate) struct Leasing {
    link: Arc<Link>,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
}

impl Leasing {
    pub(crate) fn new(link: Arc<Link>, keys: Arc<Keys>, clock: Arc<dyn Clock>) -> Self {
        Self { link, keys, clock }
    }

    async fn txn(
        &self,
        operation: &'static str,
        fate: Fate,
        request: impl Fn() -> NativeTxn,
    ) -> Result<TxnResponse> {
        let call = |clients: Arc<Clients>| {
            let request = request();
            async move { clients.kv.clone().txn(request).await }
        };
        self.link.call(operation, fate, call).await
    }

    /// A new etcd lease, bound to nothing. One that is not used runs out by itself.
    async fn etcd_lease(&self, operation: &'static str, ttl_s: u64) -> Result<i64> {
        let call =
            |clients: Arc<Clients>| async move { clients.lease.clone().grant(native(ttl_s), None).await };
        Ok(self.link.call(operation, Fate::Nothing, call).await?.id())
    }

    /// Ends an etcd lease that nothing depends on any more; if that fails, time does it.
    async fn drop_etcd_lease(&self, id: i64) {
        if id == 0 {
            return;
        }
        let call = |clients: Arc<Clients>| async move { clients.lease.clone().revoke(id).await };
        if let Err(e) = self.link.call("end etcd lease", Fate::Nothing, call).await
            && e.kind() != ErrorKind::NotFound
        {
            tracing::debug!(
                error = skyloom_model::report(&e),
                "an etcd lease runs out by itself"
            );
        }
    }

    fn expires(&self, from: Timestamp, ttl_s: u64) -> Timestamp {
        from.checked_add(Duration::from_secs(ttl_s))
            .unwrap_or(Timestamp::MAX)
    }

    /// Of what is held, only the server knows how much time is left: at most all of it.
    fn info(&self, name: LeaseName, seen: &Seen) -> LeaseInfo {
        LeaseInfo {
            name,
            epoch: seen.epoch,
            holder: seen.record.holder.clone(),
            expires_at: self.expires(self.clock.now(), seen.held.ttl_s),
            expired: false,
        }
    }

    pub(crate) async fn grant(
        &self,
        name: &LeaseName,
        holder: &str,
        ttl: Duration,
        mode: LeaseMode,
    ) -> Result<Grant> {
        const OPERATION: &str = "grant lease";
        check_grant(holder, ttl)?;
        let ttl_s = seconds(ttl);
        let record = Record {
            holder: holder.to_owned(),
            ttl_s,
            granted_at: self.clock.now(),
        };
        let (record, held) = (json(OPERATION, &record)?, json(OPERATION, &Held { ttl_s })?);
        let (record_key, held_key) = (self.keys.lease(name), self.keys.held(name));
        let id = self.etcd_lease(OPERATION, ttl_s).await?;
        let request = || {
            let bound = PutOptions::new().with_lease(id).with_prev_key();
            let writes = vec![
                TxnOp::put(record_key.as_str(), record.as_slice(), None),
                TxnOp::put(held_key.as_str(), held.as_slice(), Some(bound)),
            ];
            let request = match mode {
                LeaseMode::Acquire => {
                    let free = Compare::create_revision(held_key.as_str(), CompareOp::Equal, 0);
                    NativeTxn::new().when([free])
                }
                LeaseMode::TakeOver => NativeTxn::new(),
            };
            request.and_then(writes).or_else([
                TxnOp::get(record_key.as_str(), None),
                TxnOp::get(held_key.as_str(), None),
            ])
        };
        let answer = match self.txn(OPERATION, Fate::Unknown, request).await {
            Ok(answer) => answer,
            // It ran out before it could be used.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(Error::new(ErrorKind::Unavailable, OPERATION)
                    .with("lease", name)
                    .because(e));
            }
            Err(e) => return Err(e.with("lease", name)),
        };
        if answer.succeeded() {
            if let Some(TxnOpResponse::Put(put)) = answer.op_responses().get(1)
                && let Some(former) = put.prev_key()
            {
                self.drop_etcd_lease(former.lease()).await;
            }
            return Ok(Grant::Granted {
                epoch: header(&answer).0,
            });
        }
        self.drop_etcd_lease(id).await;
        let seen = seen(OPERATION, &answer)?.ok_or_else(|| garbled(OPERATION))?;
        Ok(Grant::Held(self.info(name.clone(), &seen)))
    }

    /// Who holds it now.
    async fn look(&self, operation: &'static str, name: &LeaseName) -> Result<Option<Seen>> {
        let request = || {
            NativeTxn::new().and_then([
                TxnOp::get(self.keys.lease(name), None),
                TxnOp::get(self.keys.held(name), None),
            ])
        };
        seen(operation, &self.txn(operation, Fate::Nothing, request).await?)
    }

    pub(crate) async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        const OPERATION: &str = "renew lease";
        let ttl_s = seconds(ttl);
        for _ in 0..LOOKS {
            let Some(seen) = self.look(OPERATION, name).await?.filter(|s| s.epoch == epoch) else {
                return Ok(Renewal::Lost);
            };
            let held = if seen.held.ttl_s == ttl_s {
                self.keep_alive(seen.etcd_lease).await?
            } else {
                self.exchange(name, epoch, &seen, ttl_s).await?
            };
            if held {
                return Ok(Renewal::Held);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, OPERATION)
            .with("lease", name)
            .because("others kept changing it"))
    }

    /// Starts the time anew; `false` when the etcd lease is gone.
    async fn keep_alive(&self, id: i64) -> Result<bool> {
        let call = |clients: Arc<Clients>| async move {
            match clients.lease.clone().keep_alive(id).await {
                Ok(_) => Ok(true),
                // The crate's own words for an answer without time left.
                Err(Native::LeaseKeepAliveError(_)) => Ok(false),
                Err(e) => Err(e),
            }
        };
        self.link.call("renew lease", Fate::Nothing, call).await
    }

    /// Binds the held lease to another etcd lease, of another length; `false` when it has changed meanwhile.
    async fn exchange(&self, name: &LeaseName, epoch: u64, seen: &Seen, ttl_s: u64) -> Result<bool> {
        const OPERATION: &str = "renew lease";
        let id = self.etcd_lease(OPERATION, ttl_s).await?;
        let held = json(OPERATION, &Held { ttl_s })?;
        let request = || {
            let same = [
                Compare::mod_revision(self.keys.lease(name), CompareOp::Equal, native(epoch)),
                Compare::lease(self.keys.held(name), CompareOp::Equal, seen.etcd_lease),
            ];
            let bound = PutOptions::new().with_lease(id);
            let put = TxnOp::put(self.keys.held(name), held.as_slice(), Some(bound));
            NativeTxn::new().when(same).and_then([put])
        };
        let exchanged = match self.txn(OPERATION, Fate::Nothing, request).await {
            Ok(answer) => answer.succeeded(),
            Err(e) if e.kind() == ErrorKind::NotFound => false,
            Err(e) => return Err(e),
        };
        self.drop_etcd_lease(if exchanged { seen.etcd_lease } else { id })
            .await;
        Ok(exchanged)
    }

    pub(crate) async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        let request = || {
            let same = Compare::mod_revision(self.keys.lease(name), CompareOp::Equal, native(epoch));
            // Nothing was ever modified at 0; an absent record says it was.
            let there = Compare::create_revision(self.keys.lease(name), CompareOp::Greater, 0);
            let tell = DeleteOptions::new().with_prev_key();
            NativeTxn::new().when([same, there]).and_then([
                TxnOp::delete(self.keys.held(name), Some(tell)),
                TxnOp::delete(self.keys.lease(name), None),
            ])
        };
        let answer = self.txn("revoke lease", Fate::Nothing, request).await?;
        if answer.succeeded()
            && let Some(TxnOpResponse::Delete(deleted)) = answer.op_responses().first()
            && let Some(held) = deleted.prev_kvs().first()
        {
            self.drop_etcd_lease(held.lease()).await;
        }
        Ok(())
    }

    pub(crate) async fn below(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        const OPERATION: &str = "list leases";
        let mut all: Vec<LeaseInfo> = Vec::new();
        loop {
            let after = all.last().map(|info| info.name.to_string());
            let records = self.keys.leases_after(prefix, after.as_deref());
            let held = self.keys.held_after(prefix, after.as_deref());
            let (Some(records), Some(held)) = (records, held) else {
                return Ok(all);
            };
            // Each held lease has a record, so a page of those covers the held ones among them.
            let get = |(first, end): &(String, String)| {
                let options = GetOptions::new()
                    .with_range(end.as_str())
                    .with_limit(native(PAGE as u64));
                TxnOp::get(first.as_str(), Some(options))
            };
            let request = || NativeTxn::new().and_then([get(&records), get(&held)]);
            let answer = self.txn(OPERATION, Fate::Nothing, request).await?;
            let more = self.page(OPERATION, &answer, &mut all)?;
            if !more {
                return Ok(all);
            }
        }
    }

    fn page(&self, operation: &'static str, answer: &TxnResponse, into: &mut Vec<LeaseInfo>) -> Result<bool> {
        let mut parts = answer.op_responses().into_iter();
        let (Some(TxnOpResponse::Get(records)), Some(TxnOpResponse::Get(held))) =
            (parts.next(), parts.next())
        else {
            return Err(garbled(operation));
        };
        let mut living = HashSet::new();
        for kv in held.kvs() {
            living.extend(self.keys.held_name(kv.key()));
        }
        let now = self.clock.now();
        for kv in records.kvs() {
            let bad = || corrupt(operation, kv.key());
            let name = self.keys.lease_name(kv.key()).ok_or_else(bad)?;
            let record: Record = serde_json::from_slice(kv.value()).map_err(|e| bad().because(e))?;
            let expired = !living.contains(name);
            let from = if expired { record.granted_at } else { now };
            into.push(LeaseInfo {
                name: LeaseName::parse(name).map_err(|e| bad().because(e))?,
                epoch: revision(kv.mod_revision()).0,
                expires_at: self.expires(from, record.ttl_s),
                holder: record.holder,
                expired,
            });
        }
        Ok(records.more())
    }
}

/// The answers to a question for the record and the held key.
fn seen(operation: &'static str, answer: &TxnResponse) -> Result<Option<Seen>> {
    let mut parts = answer.op_responses().into_iter();
    let (Some(TxnOpResponse::Get(record)), Some(TxnOpResponse::Get(held))) = (parts.next(), parts.next())
    else {
        return Err(garbled(operation));
    };
    let (Some(record), Some(held)) = (record.kvs().first(), held.kvs().first()) else {
        return Ok(None);
    };
    let parse = |e: serde_json::Error, key: &[u8]| corrupt(operation, key).because(e);
    Ok(Some(Seen {
        epoch: revision(record.mod_revision()).0,
        record: serde_json::from_slice(record.value()).map_err(|e| parse(e, record.key()))?,
        held: serde_json::from_slice(held.value()).map_err(|e| parse(e, held.key()))?,
        etcd_lease: held.lease(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_rounded_up_to_seconds() {
        for (ttl, wanted) in [
            (Duration::from_nanos(1), 1),
            (Duration::from_secs(1), 1),
            (Duration::from_millis(1001), 2),
            (Duration::from_secs(10), 10),
            (Duration::MAX, LONGEST_S),
        ] {
            assert_eq!(seconds(ttl), wanted, "{ttl:?}");
        }
    }
}
