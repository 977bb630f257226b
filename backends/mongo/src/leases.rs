//! Leases: one document each, changed by single atomic updates on the server's own clock (`$$NOW`).
//!
//! ```text
//! { _id: name, epoch, held, ended, holder, ttl_ms, expires_at, grant, guards }
//! held: not given back    ended: somebody has seen that it ran out    grant: the call that got it    guards: commits under it
//! ```
//!
//! That a lease has run out is made a fact by whoever sees it first: the field `ended` is set by a write, which waits for
//! commits under the lease that are being made, and from then on no clock that steps back can bring the lease to life again.
//!
//! The calls are repeated until they are answered: a grant finds its own mark and changes nothing the second time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{ReadConcern, ReturnDocument};
use skyloom_model::Timestamp;
use skyloom_store::{
    Error, ErrorKind, Grant, Key, LeaseInfo, LeaseMode, LeaseName, Leases, Prefix, Renewal, Result,
    check_grant,
};

use crate::error::{DUPLICATE_KEY, code, damaged, from_driver, is_passing, was_sent};
use crate::space::{Space, int, range, uint};

/// How often a grant looks for what it should have made.
const UPSERTS: usize = 5;
/// Between two tries of one call.
const PAUSE: Duration = Duration::from_millis(20);
/// How often a list looks again because a lease ran out meanwhile.
const LOOKS: usize = 8;
/// Longest time for a lease: a hundred years.
const MAX_TTL_MS: u128 = 100 * 366 * 86_400_000;

/// A lease as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    pub(crate) name: LeaseName,
    pub(crate) epoch: u64,
    held: bool,
    ended: bool,
    holder: String,
    expires_at: Timestamp,
    grant: String,
}

impl Lease {
    pub(crate) fn parse(document: Document, operation: &'static str) -> Result<Self> {
        let id = document.get_str("_id").unwrap_or_default();
        let broken = || damaged(operation, format_args!("lease {id}"));
        let text = |name| document.get_str(name).map(str::to_owned);
        let millis = document
            .get_datetime("expires_at")
            .map(|at| at.timestamp_millis());
        Ok(Self {
            name: LeaseName::parse(id).map_err(|e| broken().because(e))?,
            epoch: uint(&document, "epoch").ok_or_else(broken)?,
            held: document.get_bool("held").map_err(|e| broken().because(e))?,
            ended: document.get_bool("ended").map_err(|e| broken().because(e))?,
            holder: text("holder").map_err(|e| broken().because(e))?,
            expires_at: Timestamp::from_millisecond(millis.map_err(|e| broken().because(e))?)
                .unwrap_or(Timestamp::MAX),
            grant: text("grant").unwrap_or_default(),
        })
    }

    /// Whether it guards.
    pub(crate) fn is_held(&self) -> bool {
        self.held && !self.ended
    }

    fn info(self) -> LeaseInfo {
        LeaseInfo {
            name: self.name,
            epoch: self.epoch,
            holder: self.holder,
            expires_at: self.expires_at,
            expired: self.ended,
        }
    }
}

/// Whether the lease has run out by the server's clock, or has been seen to.
fn ran_out() -> Bson {
    let ended = doc! { "$eq": ["$ended", true] };
    let over = doc! { "$lte": [{ "$toLong": "$expires_at" }, { "$toLong": "$$NOW" }] };
    doc! { "$or": [ended, over] }.into()
}

/// `yes` or `no`, as the field or expression `when` says.
fn either(when: &str, yes: impl Into<Bson>, no: &str) -> Bson {
    doc! { "$cond": [when, yes.into(), no] }.into()
}

/// Marks leases that ran out, and counts a commit under them: after it nobody can change them before the commit.
pub(crate) fn touch() -> Vec<Document> {
    let guards = doc! { "$add": [{ "$ifNull": ["$guards", 0_i64] }, 1_i64] };
    vec![doc! { "$set": { "guards": guards, "ended": ran_out() } }]
}

fn millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis().clamp(1, MAX_TTL_MS)).unwrap_or(i64::MAX)
}

/// The update that grants, unless somebody holds the lease, or this very call has got it already.
fn granting(call: &str, holder: &str, ttl: Duration, mode: LeaseMode) -> Vec<Document> {
    let ttl = millis(ttl);
    let free: Bson = match mode {
        LeaseMode::TakeOver => true.into(),
        LeaseMode::Acquire => doc! { "$or": [{ "$ne": ["$held", true] }, ran_out()] }.into(),
    };
    let give = doc! { "$cond": [{ "$eq": ["$grant", call] }, false, free] };
    let next = doc! { "$add": [{ "$ifNull": ["$epoch", 0_i64] }, 1_i64] };
    vec![
        doc! { "$set": { "give": give } },
        doc! { "$set": {
            "epoch": either("$give", next, "$epoch"),
            "held": either("$give", true, "$held"),
            "ended": either("$give", false, "$ended"),
            "holder": either("$give", doc! { "$literal": holder }, "$holder"),
            "ttl_ms": either("$give", ttl, "$ttl_ms"),
            "expires_at": either("$give", doc! { "$add": ["$$NOW", ttl] }, "$expires_at"),
            "grant": either("$give", doc! { "$literal": call }, "$grant"),
        } },
        doc! { "$unset": "give" },
    ]
}

/// The update that extends, unless the lease has run out.
fn renewing(ttl: Duration) -> Vec<Document> {
    let ttl = millis(ttl);
    vec![
        doc! { "$set": { "ended": ran_out() } },
        doc! { "$set": {
            "ttl_ms": { "$cond": ["$ended", "$ttl_ms", ttl] },
            "expires_at": { "$cond": ["$ended", "$expires_at", { "$add": ["$$NOW", ttl] }] },
        } },
    ]
}

/// The leases of one cloud.
#[derive(Debug)]
pub(crate) struct LeaseBook {
    space: Arc<Space>,
    /// Names the calls of this process.
    instance: String,
    calls: AtomicU64,
}

impl LeaseBook {
    pub(crate) fn new(space: Arc<Space>, instance: &str) -> Self {
        Self {
            space,
            instance: instance.to_owned(),
            calls: AtomicU64::new(0),
        }
    }

    /// Repeats `update`, which may be done twice, until it is answered.
    async fn settle<T, F>(&self, operation: &'static str, update: impl Fn() -> F) -> Result<T>
    where
        F: IntoFuture<Output = mongodb::error::Result<T>>,
    {
        let deadline = self.space.deadline();
        let mut sent = false;
        let mut last = None;
        loop {
            match tokio::time::timeout_at(deadline, update()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(e)) if is_passing(&e) || code(&e) == Some(DUPLICATE_KEY) => {
                    sent |= was_sent(&e);
                    last = Some(e);
                }
                Ok(Err(e)) => return Err(from_driver(operation, e)),
                Err(_) => {
                    sent = true;
                }
            }
            if tokio::time::timeout_at(deadline, tokio::time::sleep(PAUSE))
                .await
                .is_err()
            {
                let kind = if sent {
                    ErrorKind::Unknown
                } else {
                    ErrorKind::Unavailable
                };
                let error = self.space.late(kind, operation);
                return Err(match last {
                    Some(e) => error.because(e),
                    None => error,
                });
            }
        }
    }

    /// All that are not revoked, with `ended` as it is by the server's clock, and whether that is news.
    async fn look(&self, prefix: &Prefix) -> Result<Vec<(Lease, bool)>> {
        const OPERATION: &str = "list leases";
        let pipeline = [
            doc! { "$match": { "_id": range(prefix, None), "held": true } },
            doc! { "$set": { "was": "$ended", "ended": ran_out() } },
            doc! { "$sort": { "_id": 1 } },
        ];
        let read = async {
            let cursor = self
                .space
                .leases
                .aggregate(pipeline)
                .read_concern(ReadConcern::linearizable())
                .await?;
            cursor.try_collect::<Vec<Document>>().await
        };
        let documents = self.space.read(OPERATION, read).await?;
        let leases = documents.into_iter().map(|document| {
            let was = document.get_bool("was").unwrap_or(false);
            let lease = Lease::parse(document, OPERATION)?;
            let news = lease.ended && !was;
            Ok((lease, news))
        });
        leases.collect()
    }
}

#[async_trait]
impl Leases for LeaseBook {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        const OPERATION: &str = "grant lease";
        check_grant(holder, ttl)?;
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let call = format!("{}/{number}", self.instance);
        let update = || {
            self.space
                .leases
                .find_one_and_update(
                    doc! { "_id": name.as_key().as_str() },
                    granting(&call, holder, ttl, mode),
                )
                .upsert(true)
                .return_document(ReturnDocument::After)
        };
        for _ in 0..UPSERTS {
            // Two that make the same lease at once may leave one of them without a document.
            let Some(document) = self.settle(OPERATION, update).await? else {
                continue;
            };
            let lease = Lease::parse(document, OPERATION)?;
            if lease.grant == call {
                return Ok(Grant::Granted { epoch: lease.epoch });
            }
            return Ok(Grant::Held(lease.info()));
        }
        Err(Error::new(ErrorKind::Unknown, OPERATION).with("lease made, but not shown", name))
    }

    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        const OPERATION: &str = "renew lease";
        let update = || {
            let filter =
                doc! { "_id": name.as_key().as_str(), "epoch": int(epoch), "held": true, "ended": false };
            self.space
                .leases
                .find_one_and_update(filter, renewing(ttl))
                .return_document(ReturnDocument::After)
        };
        let Some(document) = self.settle(OPERATION, update).await? else {
            return Ok(Renewal::Lost);
        };
        let lease = Lease::parse(document, OPERATION)?;
        Ok(if lease.ended { Renewal::Lost } else { Renewal::Held })
    }

    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        let update = || {
            let filter = doc! { "_id": name.as_key().as_str(), "epoch": int(epoch) };
            self.space
                .leases
                .update_one(filter, doc! { "$set": { "held": false } })
        };
        self.settle("revoke lease", update).await.map(drop)
    }

    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        let mut leases = self.look(prefix).await?;
        for _ in 0..LOOKS {
            let names: Vec<&str> = leases
                .iter()
                .filter(|(_, news)| *news)
                .map(|(lease, _)| Key::as_str(lease.name.as_key()))
                .collect();
            if names.is_empty() {
                break;
            }
            let filter = doc! { "_id": { "$in": names }, "held": true };
            let mark = vec![doc! { "$set": { "ended": ran_out() } }];
            let update = || self.space.leases.update_many(filter.clone(), mark.clone());
            self.settle("list leases", update).await?;
            leases = self.look(prefix).await?;
        }
        Ok(leases.into_iter().map(|(lease, _)| lease.info()).collect())
    }
}
