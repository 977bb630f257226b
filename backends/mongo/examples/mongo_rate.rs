//! How many commits the store makes per second, beside the driver's own compare-and-set in the same run.
//!
//! `cargo run --release -p skyloom-store-mongo --example mongo_rate URI [SECONDS [ROUNDS]]`, with a URI such as
//! `mongodb://127.0.0.1:27017/bench?replicaSet=rs0`. It leaves the collections `rate_*` behind.

#[path = "../../../tests/common/rate.rs"]
mod rate;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::{CollectionOptions, WriteConcern};
use mongodb::{Client, Collection};
use skyloom_store::{Key, Outcome, Store as _, Txn, Value};
use skyloom_store_mongo::{MongoConfig, MongoStore};

use rate::{AnyError, measure};

/// The driver's own: one document, replaced if it is as read.
async fn native(cas: Collection<Document>, client: usize, n: u64) -> Result<u64, AnyError> {
    let id = format!("w{client}");
    let rev = i64::try_from(n)?;
    let update = doc! { "$set": { "rev": rev + 1, "value": { "n": rev, "padding": "x".repeat(230) } } };
    let found = cas
        .find_one_and_update(doc! { "_id": id, "rev": rev }, update)
        .upsert(n == 0)
        .await?;
    if found.is_none() && n > 0 {
        return Err("somebody else wrote".into());
    }
    Ok(n + 1)
}

/// Ours: one document, replaced as read.
async fn ours(store: Arc<MongoStore>, below: String, client: usize, revision: u64) -> Result<u64, AnyError> {
    let key = Key::parse(&format!("{below}/w{client}"))?;
    let value = Value::json(&serde_json::json!({ "n": revision, "padding": "x".repeat(230) }))?;
    let txn = match revision {
        0 => Txn::new().create(key, value),
        _ => Txn::new().replace(key, skyloom_store::Revision(revision), value),
    };
    match store.commit(txn).await? {
        Outcome::Committed { revision } => Ok(revision.0),
        conflict @ Outcome::Conflict { .. } => Err(format!("somebody else wrote: {conflict:?}").into()),
    }
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    let uri = arguments
        .next()
        .ok_or("usage: mongo_rate URI [SECONDS [ROUNDS]]")?;
    let limit = Duration::from_secs(arguments.next().map_or(Ok(3), |s| s.parse())?);
    let rounds: usize = arguments.next().map_or(Ok(3), |s| s.parse())?;
    let mut config = MongoConfig::from_uri(&uri)?;
    config.prefix = "rate_".to_owned();
    let client = Client::with_uri_str(&config.uri).await?;
    let mut concern = WriteConcern::majority();
    concern.journal = Some(true);
    let mut options = CollectionOptions::default();
    options.write_concern = Some(concern);
    let db = client.database(&config.database);
    let store = Arc::new(MongoStore::open_or_create(config).await?);
    let mut out = std::io::stdout();
    for round in 0..rounds {
        for clients in [1, 64] {
            let cas: Collection<Document> =
                db.collection_with_options(&format!("rate_cas_{round}_{clients}"), options.clone());
            let peer = measure(clients, limit, move |c, n| native(cas.clone(), c, n)).await?;
            let before = store.stats();
            let handle = Arc::clone(&store);
            let below = format!("r{round}c{clients}");
            let mine = measure(clients, limit, move |c, n| {
                ours(Arc::clone(&handle), below.clone(), c, n)
            })
            .await?;
            let after = store.stats();
            writeln!(
                out,
                "{clients:>2} clients: native {:>6.0}/s (p50 {:?}, p99 {:?}); store {:>6.0}/s (p50 {:?}, p99 {:?}), \
                 {:.1} commits per transaction; ratio {:.2}",
                peer.per_second,
                peer.p50,
                peer.p99,
                mine.per_second,
                mine.p50,
                mine.p99,
                (after.commits - before.commits) as f64 / (after.batches - before.batches).max(1) as f64,
                mine.per_second / peer.per_second,
            )?;
        }
    }
    store.close().await;
    Ok(())
}
