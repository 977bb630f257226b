//! Commits whose answer is lost, and servers that fail in the middle: done once, or not at all, or said to be unknown.

use std::sync::Arc;

use libtest_mimic::Trial;
use mongodb::bson::{Document, doc};
use skyloom_store::{ErrorKind, Leases as _, Outcome, Revision, Store as _, Txn};
use skyloom_store_mongo::MongoStore;
use tokio::task::JoinSet;

use crate::proxy::{Mode, Proxy};
use crate::support::Server;
use crate::tools::{Shell, committed, get, json, key, lease, open, open_through, patient, put};
use crate::trial;

pub(crate) fn trials(server: &Arc<Server>) -> Vec<Trial> {
    vec![
        trial("fault::a_lost_answer_is_found_in_the_log", server, lost_answer),
        trial(
            "fault::a_commit_that_was_not_sent_is_sent_again",
            server,
            lost_request,
        ),
        trial("fault::unknown_is_said_when_nobody_can_be_asked", server, unknown),
        trial("fault::failing_commands_are_repeated", server, failing),
        trial(
            "fault::one_bad_commit_does_not_spoil_the_others",
            server,
            bad_neighbour,
        ),
        trial("fault::what_the_server_denies_is_denied", server, denied),
        trial("fault::a_grant_without_an_answer_is_given_once", server, grant),
    ]
}

fn increment(kv: &skyloom_store::KeyValue) -> Txn {
    let n: i64 = kv.value.parse().unwrap();
    Txn::new().replace(kv.key.clone(), kv.modified, json(&(n + 1).to_string()))
}

/// Increments `times` times through a network that does `mode` to every commit: what was answered must have happened once.
async fn counts_through(server: &Server, mode: Mode, times: usize) -> Arc<MongoStore> {
    let config = patient(server);
    let direct = open(&config).await;
    let proxy = Proxy::to(server.port).await;
    let store = open_through(&config, proxy.port).await;
    put(&direct, "n", "0").await;
    for n in 1..=times {
        let kv = direct.get(&key("n")).await.unwrap().unwrap();
        proxy.set(mode);
        let outcome = store.commit(increment(&kv)).await.unwrap();
        assert_eq!(
            outcome,
            Outcome::Committed {
                revision: Revision(kv.modified.0 + 1)
            },
            "increment {n}"
        );
        assert_eq!(get(&direct, "n").await.unwrap(), n.to_string());
        proxy.reached(Mode::Pass).await;
    }
    direct.close().await;
    store
}

async fn lost_answer(server: Arc<Server>) {
    counts_through(&server, Mode::CutAfterCommit, 5)
        .await
        .close()
        .await;
}

async fn lost_request(server: Arc<Server>) {
    counts_through(&server, Mode::CutBeforeCommit, 5)
        .await
        .close()
        .await;
}

async fn unknown(server: Arc<Server>) {
    let config = patient(&server);
    let direct = open(&config).await;
    let proxy = Proxy::to(server.port).await;
    let mut impatient = config.clone();
    impatient.uri = Server::uri_through(proxy.port);
    impatient.call_ms = 1_500;
    impatient.connect_ms = 500;
    let store = MongoStore::open(impatient).await.unwrap();
    put(&store, "a", "1").await;
    proxy.set(Mode::CutAfterCommitForGood);
    let e = store
        .commit(Txn::new().put(key("a"), json("2")))
        .await
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unknown, "{}", skyloom_model::report(&e));
    assert_eq!(get(&direct, "a").await.as_deref(), Some("2"), "it did happen");
    // What begins now certainly does not happen.
    let e = store
        .commit(Txn::new().put(key("a"), json("3")))
        .await
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{}", skyloom_model::report(&e));
    let e = store.get(&key("a")).await.unwrap_err();
    assert!(
        matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout),
        "{e}"
    );
    proxy.set(Mode::Pass);
    crate::tools::until(async || store.get(&key("a")).await.ok()).await;
    assert_eq!(get(&store, "a").await.as_deref(), Some("2"));
    put(&store, "a", "4").await;
    store.close().await;
    direct.close().await;
}

/// Each fault once, under a few commits; all of them are done exactly once.
async fn failing(_: Arc<Server>) {
    let server = Server::start(&["--enable-test-commands"]);
    let config = patient(&server);
    let store = open(&config).await;
    let shell = Shell::on(&config).await;
    let transient = |command: &str, code: i32| doc! { "failCommands": [command], "errorCode": code, "errorLabels": ["TransientTransactionError"] };
    let cut = |command: &str| doc! { "failCommands": [command], "closeConnection": true };
    let faults: Vec<(i32, Document)> = vec![
        (3, transient("findAndModify", 112)),
        (2, transient("find", 246)),
        (2, transient("update", 112)),
        (1, transient("insert", 251)),
        (1, cut("findAndModify")),
        (1, cut("insert")),
        (3, cut("commitTransaction")),
        (3, doc! { "failCommands": ["commitTransaction"], "errorCode": 89 }),
        (2, doc! { "failCommands": ["commitTransaction"], "errorCode": 50 }),
        (1, transient("commitTransaction", 112)),
        (
            1,
            doc! { "failCommands": ["commitTransaction"], "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } },
        ),
    ];
    put(&store, "n", "0").await;
    let mut wanted = 0;
    for (times, fault) in faults {
        for n in 0..3 {
            let kv = store.get(&key("n")).await.unwrap().unwrap();
            if n == 0 {
                shell.fail(times, fault.clone()).await;
            }
            let outcome = store.commit(increment(&kv)).await;
            let revision = outcome.unwrap_or_else(|e| panic!("{fault}: {e:?}")).committed();
            assert!(revision.is_some(), "{fault}: it was done twice");
            wanted += 1;
        }
        assert_eq!(get(&store, "n").await.unwrap(), wanted.to_string(), "{fault}");
    }
    assert!(store.stats().resolved > 0, "nothing had to be looked up");
    let log = shell.count("log").await;
    assert_eq!(Revision(log), store.stats().revision, "the log has holes");
    store.close().await;
}

async fn bad_neighbour(_: Arc<Server>) {
    let server = Server::start(&["--enable-test-commands"]);
    let config = patient(&server);
    let store = open(&config).await;
    let shell = Shell::on(&config).await;
    // As if the server would not take one of the documents.
    shell
        .fail(1, doc! { "failCommands": ["insert"], "errorCode": 10334 })
        .await;
    let mut tasks = JoinSet::new();
    for n in 0..16 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            store
                .commit(Txn::new().put(key(&format!("a/{n}")), json("1")))
                .await
        });
    }
    let answers = tasks.join_all().await;
    let failed: Vec<_> = answers.iter().filter_map(|a| a.as_ref().err()).collect();
    // The first batch may have been one commit, which then fails; a larger one is taken apart.
    assert!(failed.len() <= 1, "{failed:?}");
    assert!(
        failed.iter().all(|e| e.kind() == ErrorKind::TooLarge),
        "{failed:?}"
    );
    let revisions: Vec<_> = answers
        .into_iter()
        .flatten()
        .map(|o| o.committed().unwrap())
        .collect();
    assert_eq!(revisions.iter().max().unwrap().0 as usize, revisions.len());
    store.close().await;
}

async fn denied(_: Arc<Server>) {
    let server = Server::start(&["--enable-test-commands"]);
    let config = patient(&server);
    let store = open(&config).await;
    let shell = Shell::on(&config).await;
    shell
        .fail(1, doc! { "failCommands": ["findAndModify"], "errorCode": 13 })
        .await;
    let e = store
        .commit(Txn::new().put(key("a"), json("1")))
        .await
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Denied);
    shell
        .fail(1, doc! { "failCommands": ["find"], "errorCode": 13 })
        .await;
    assert_eq!(store.get(&key("a")).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(put(&store, "a", "1").await, Revision(1));
    store.close().await;
}

async fn grant(_: Arc<Server>) {
    let server = Server::start(&["--enable-test-commands"]);
    let config = patient(&server);
    let store = open(&config).await;
    let shell = Shell::on(&config).await;
    for (times, fault) in [
        (
            3,
            doc! { "failCommands": ["findAndModify"], "closeConnection": true },
        ),
        (
            2,
            doc! { "failCommands": ["findAndModify"], "writeConcernError": { "code": 64, "errmsg": "waiting for replication timed out" } },
        ),
    ] {
        shell.fail(times, fault.clone()).await;
        let name = lease(&format!("hosts/h{times}"));
        let ttl = std::time::Duration::from_secs(600);
        let grant = store
            .grant(&name, "h", ttl, skyloom_store::LeaseMode::Acquire)
            .await
            .unwrap();
        assert_eq!(grant, skyloom_store::Grant::Granted { epoch: 1 }, "{fault}");
    }
    assert_eq!(
        committed(store.commit(Txn::new()).await),
        Revision(0),
        "leases are no commits"
    );
    store.close().await;
}
