//! How many commits the store makes per second, beside etcd's own puts and compare-and-sets by its driver in the same run.
//!
//! `cargo run --release -p skyloom-store-etcd --example etcd_rate 127.0.0.1:2379 [SECONDS [ROUNDS]]`. It leaves keys below
//! `rate` behind.

#[path = "../../../tests/common/rate.rs"]
mod rate;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, KvClient, Txn as NativeTxn, TxnOp};
use skyloom_model::SystemClock;
use skyloom_store::{Key, Outcome, Revision, Store as _, Txn, Value};
use skyloom_store_etcd::{EtcdConfig, EtcdStore};

use rate::{AnyError, measure};

fn document(n: u64) -> String {
    format!("{{\"n\":{n:>10},\"padding\":\"{}\"}}", "x".repeat(229))
}

/// The driver's own: a key of this client, written whatever stands there.
async fn put(mut kv: KvClient, client: usize, n: u64) -> Result<u64, AnyError> {
    kv.put(format!("rate/put/c{client}"), document(n), None).await?;
    Ok(n + 1)
}

/// The driver's own: a key of this client, written if it is as it was left.
async fn swap(mut kv: KvClient, client: usize, revision: u64) -> Result<u64, AnyError> {
    let key = format!("rate/cas/c{client}");
    let mut txn = NativeTxn::new();
    // The first of each client has nothing to compare with.
    if revision > 0 {
        let revision = i64::try_from(revision)?;
        txn = txn.when([Compare::mod_revision(key.clone(), CompareOp::Equal, revision)]);
    }
    let txn = txn.and_then([TxnOp::put(key, document(revision), None)]);
    let answer = kv.txn(txn).await?;
    if !answer.succeeded() {
        return Err("somebody else wrote".into());
    }
    let header = answer.header().ok_or("an answer without a revision")?;
    Ok(u64::try_from(header.revision())?)
}

/// Ours: one document, replaced as it was left.
async fn ours(store: Arc<EtcdStore>, below: String, client: usize, revision: u64) -> Result<u64, AnyError> {
    let key = Key::parse(&format!("{below}/c{client}"))?;
    let value = Value::from_json_bytes(document(revision));
    let txn = match revision {
        0 => Txn::new().create(key, value),
        _ => Txn::new().replace(key, Revision(revision), value),
    };
    match store.commit(txn).await? {
        Outcome::Committed { revision } => Ok(revision.0),
        conflict @ Outcome::Conflict { .. } => Err(format!("somebody else wrote: {conflict:?}").into()),
    }
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments
        .next()
        .ok_or("usage: etcd_rate HOST:PORT [SECONDS [ROUNDS]]")?;
    let limit = Duration::from_secs(arguments.next().map_or(Ok(3), |s| s.parse())?);
    let rounds: usize = arguments.next().map_or(Ok(3), |s| s.parse())?;
    let kv = Client::connect([&endpoint], None).await?.kv_client();
    let config = EtcdConfig::new([endpoint]).with_prefix("rate");
    let store = Arc::new(EtcdStore::open(config, Arc::new(SystemClock::new())).await?);
    let mut out = std::io::stdout();
    for round in 0..rounds {
        for clients in [1, 64] {
            let peer = kv.clone();
            let puts = measure(clients, limit, move |c, n| put(peer.clone(), c, n)).await?;
            let peer = kv.clone();
            let swaps = measure(clients, limit, move |c, n| swap(peer.clone(), c, n)).await?;
            let handle = Arc::clone(&store);
            let below = format!("r{round}c{clients}");
            let mine = measure(clients, limit, move |c, n| {
                ours(Arc::clone(&handle), below.clone(), c, n)
            })
            .await?;
            for (name, rate) in [("put", &puts), ("native CAS", &swaps), ("commit", &mine)] {
                writeln!(
                    out,
                    "etcd {round} {name:<10} {clients:>2} clients {:>7.0}/s  p50 {:>9.1?}  p99 {:>9.1?}",
                    rate.per_second, rate.p50, rate.p99
                )?;
            }
            writeln!(
                out,
                "etcd {round} commit/CAS {:.2}",
                mine.per_second / swaps.per_second
            )?;
        }
    }
    store.close().await?;
    Ok(())
}
