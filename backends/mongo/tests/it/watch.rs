//! Watching what several stores commit at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use libtest_mimic::Trial;
use mongodb::bson::doc;
use skyloom_store::{Revision, Store as _, Txn, Value, WatchOptions};
use skyloom_store_mongo::{MongoConfig, MongoStore};
use tokio::task::JoinSet;

use crate::support::Server;
use crate::tools::{Events, Shell, committed, key, open, patient, put, until};
use crate::trial;

pub(crate) fn trials(server: &Arc<Server>) -> Vec<Trial> {
    vec![
        trial("watch::two_writing_stores_leave_no_gap", server, two_writers),
        trial("watch::lost_change_streams_lose_nothing", server, lost_streams),
        trial("watch::without_change_streams_the_log_is_polled", server, polled),
        trial("watch::another_store_may_be_ahead", server, ahead),
        trial("watch::a_log_that_ends_too_soon_is_a_gap", server, trimmed),
    ]
}

/// Each store commits `each` times by eight tasks; what was committed, by revision.
async fn write(stores: &[Arc<MongoStore>], each: usize) -> BTreeMap<Revision, String> {
    let mut tasks = JoinSet::new();
    for (s, store) in stores.iter().enumerate() {
        for task in 0..8 {
            let store = Arc::clone(store);
            tasks.spawn(async move {
                let mut done = Vec::new();
                for n in 0..each / 8 {
                    let path = format!("a/{s}-{task}-{n}");
                    let txn = Txn::new().put(key(&path), Value::json(&n).unwrap());
                    done.push((committed(store.commit(txn).await), path));
                    tokio::task::yield_now().await;
                }
                done
            });
        }
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// The watcher must see exactly these, in order.
async fn sees(events: &mut Events, wanted: &BTreeMap<Revision, String>) {
    for (revision, path) in wanted {
        let (seen, changes) = events.commit().await;
        let paths: Vec<_> = changes.iter().map(|c| c.key().as_str()).collect();
        assert_eq!((seen, &paths[..]), (*revision, &[path.as_str()][..]));
    }
}

async fn two_writers(server: Arc<Server>) {
    let config = patient(&server);
    let stores = [open(&config).await, open(&config).await];
    let reader = open(&config).await;
    let mut watchers = [
        Events::after(&stores[0], "", Revision(0)),
        Events::after(&stores[1], "a", Revision(0)),
        Events::after(&reader, "a", Revision(0)),
    ];
    let done = write(&stores, 400).await;
    let revisions: Vec<u64> = done.keys().map(|r| r.0).collect();
    assert_eq!(revisions, (1..=800).collect::<Vec<_>>(), "revisions are dense");
    for events in &mut watchers {
        sees(events, &done).await;
    }
    sees(&mut Events::after(&reader, "", Revision(0)), &done).await;
    let stats = stores[0].stats();
    assert!(
        stats.batches < stats.commits,
        "nothing was committed together: {stats:?}"
    );
    assert!(
        stores.iter().any(|store| store.stats().conflicts > 0),
        "they never met"
    );
    for store in stores.iter().chain([&reader]) {
        store.close().await;
    }
}

/// A server of its own whose change streams fail in these ways.
async fn failing(fail_points: &[(i32, mongodb::bson::Document)], poll_ms: u64) {
    let server = Server::start(&["--enable-test-commands"]);
    let mut config = patient(&server);
    config.poll_ms = poll_ms;
    let stores = [open(&config).await, open(&config).await];
    let mut events = Events::after(&stores[1], "a", Revision(0));
    let shell = Shell::on(&config).await;
    let mut all = BTreeMap::new();
    for (times, data) in fail_points {
        shell.fail(*times, data.clone()).await;
        let done = write(&stores[..1], 40).await;
        sees(&mut events, &done).await;
        all.extend(done);
    }
    sees(&mut Events::after(&stores[1], "", Revision(0)), &all).await;
    for store in stores {
        store.close().await;
    }
}

/// History lost, invalid tokens, cut connections.
async fn lost_streams(_: Arc<Server>) {
    let fatal = |code: i32| {
        doc! {
            "failCommands": ["getMore"], "errorCode": code, "errorLabels": ["NonResumableChangeStreamError"],
        }
    };
    failing(
        &[
            (2, fatal(286)),
            (2, fatal(260)),
            (2, fatal(9)),
            (2, doc! { "failCommands": ["getMore"], "closeConnection": true }),
            (
                4,
                doc! { "failCommands": ["getMore", "aggregate"], "errorCode": 286, "errorLabels": ["NonResumableChangeStreamError"] },
            ),
        ],
        50,
    )
    .await;
}

async fn polled(_: Arc<Server>) {
    let denied = doc! { "failCommands": ["aggregate"], "errorCode": 13 };
    let broken = doc! { "failCommands": ["getMore"], "closeConnection": true };
    failing(&[(100_000, denied), (1, broken)], 50).await;
}

/// Somebody lists through one store and watches through another that has not heard of it.
async fn ahead(server: Arc<Server>) {
    let config = patient(&server);
    let mut deaf: MongoConfig = config.clone();
    // It hears of the writer's commits by its change stream alone, later than the watcher does.
    deaf.poll_ms = 3_600_000;
    let (writer, reader) = (open(&config).await, open(&deaf).await);
    for n in 0..20 {
        let revision = put(&writer, "a/1", &n.to_string()).await;
        let mut events = Events::after(&reader, "a", revision);
        let next = put(&writer, "a/1", "0").await;
        assert_eq!(events.commit().await.0, next);
    }
    let present = reader.stats().revision;
    assert!(
        Events::after(&reader, "a", Revision(present.0 + 100)).gap().await <= Revision(40),
        "the floor lies in the future"
    );
    writer.close().await;
    reader.close().await;
}

/// A store that was cut off for longer than the history lasts.
async fn trimmed(server: Arc<Server>) {
    let config = patient(&server);
    let (writer, reader) = (open(&config).await, open(&config).await);
    let first = put(&writer, "a/1", "0").await;
    until(async || (reader.stats().revision == first).then_some(())).await;
    let mut slow = Events::of(&reader, "a", WatchOptions::after(first).with_buffer(1));
    for n in 0..10 {
        put(&writer, "a/1", &n.to_string()).await;
    }
    writer.compact(Revision(8)).await.unwrap();
    // Never asked before: it begins with what is gone.
    let floor = slow.gap().await;
    assert!(floor >= Revision(8), "{floor}");
    let mut events = Events::after(&reader, "a", floor);
    for revision in floor.0 + 1..=11 {
        assert_eq!(events.commit().await.0, Revision(revision));
    }
    writer.close().await;
    reader.close().await;
}
