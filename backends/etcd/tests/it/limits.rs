//! What etcd does not take.

use skyloom_store::{
    ErrorKind, Guard, LeaseName, Leases as _, ListOptions, Outcome, Prefix, Store as _, Txn, Value,
};
use skyloom_store_etcd::EtcdConfig;

use super::support::{Etcd, open};
use super::{commit, key, kind, put, revision, seen, story, until, watch};

/// A JSON string of `length` bytes.
fn text(length: usize) -> Value {
    Value::from_json_bytes(format!("\"{}\"", "x".repeat(length - 2)).into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn too_large_is_said_and_nothing_happens() {
    let server = Etcd::start(&[]).await;
    let store = open(server.config("c")).await.unwrap();
    let start = revision(&store).await;
    let two = |length| Txn::new().put(key("a"), text(length)).put(key("b"), text(length));
    let answer = store.commit(two(800_000)).await;
    let words = story(answer);
    assert!(
        words.contains("limit 1572864") && words.contains("etcd takes 1.5 MiB"),
        "{words}"
    );

    // A server that takes less than we were told says so itself: the request, and then the message.
    let mut config = server.config("c");
    config.max_request_bytes = usize::MAX;
    let bold = open(config).await.unwrap();
    assert_eq!(kind(bold.commit(two(800_000)).await), ErrorKind::TooLarge);
    assert_eq!(kind(bold.commit(two(1 << 20)).await), ErrorKind::TooLarge);
    let mut huge = Txn::new();
    for n in 0..20 {
        huge = huge.put(key(&format!("n/{n}")), text(1 << 20));
    }
    assert_eq!(kind(bold.commit(huge).await), ErrorKind::TooLarge);
    assert_eq!(revision(&store).await, start);
    commit(&bold, two(700_000)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_operations_as_etcd_takes() {
    let server = Etcd::start(&[]).await;
    let store = open(server.config("c")).await.unwrap();
    let puts = |count| (0..count).fold(Txn::new(), |txn, n| txn.put(key(&format!("n/{n}")), text(9)));
    commit(&store, puts(127)).await;
    assert_eq!(
        kind(store.commit(puts(128)).await),
        ErrorKind::TooLarge,
        "one is for the head"
    );
    commit(&store, puts(127).guard(Guard::Absent(key("x")))).await;
    let guards = (0..128).fold(Txn::new(), |txn, n| {
        txn.guard(Guard::Absent(key(&format!("g/{n}"))))
    });
    commit(&store, guards).await;
    let lease = |n| Guard::Lease(LeaseName::parse(&format!("l/{n}")).unwrap(), 1);
    let fences = |count| (0..count).fold(Txn::new(), |txn, n| txn.guard(lease(n)));
    assert!(matches!(
        store.commit(fences(64)).await,
        Ok(Outcome::Conflict { guard: 0, .. })
    ));
    assert_eq!(
        kind(store.commit(fences(65)).await),
        ErrorKind::TooLarge,
        "each is two compares"
    );
    // Deletes that do not know what is there.
    let deletes = |count| (0..count).fold(Txn::new(), |txn, n| txn.delete(key(&format!("n/{n}"))));
    let before = revision(&store).await;
    let mut events = watch(&store, "", before);
    let deleted = commit(&store, deletes(126)).await;
    let (at, keys) = seen(&mut events).await;
    assert_eq!((at, keys.len()), (deleted, 126));
    assert_eq!(
        commit(&store, deletes(126)).await,
        deleted,
        "nothing is there any more"
    );
    assert_eq!(revision(&store).await, deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_large_documents_are_cut_shorter() {
    let server = Etcd::start(&[]).await;
    let store = open(server.config("c")).await.unwrap();
    for n in 0..80 {
        commit(&store, Txn::new().put(key(&format!("a/{n:02}")), text(1 << 20))).await;
    }
    let (mut options, mut count, mut pages) = (ListOptions::default(), 0, 0);
    loop {
        let page = store.list(&Prefix::all(), options.clone()).await.unwrap();
        (count, pages) = (count + page.items.len(), pages + 1);
        match page.items.last() {
            Some(last) if page.more => options = options.with_at(page.revision).with_after(last.key.clone()),
            _ => break,
        }
    }
    assert_eq!(count, 80);
    assert!(pages > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_loses_nothing_and_recovers() {
    let server = Etcd::start(&["--quota-backend-bytes", "16000000"]).await;
    let store = open(server.config("c")).await.unwrap();
    let (mut written, mut refused) = (Vec::new(), Vec::new());
    for n in 0.. {
        let path = format!("a/{n:03}");
        match store.commit(Txn::new().create(key(&path), text(300_000))).await {
            Ok(outcome) => written.push((path, outcome.committed().unwrap())),
            Err(e) => {
                // The one that filled it may have been written all the same.
                assert!(
                    [ErrorKind::Full, ErrorKind::Unknown].contains(&e.kind()),
                    "{}",
                    skyloom_model::report(&e)
                );
                if e.kind() == ErrorKind::Full {
                    refused.push(path);
                }
                if refused.len() == 5 {
                    break;
                }
            }
        }
    }
    let words = story(store.commit(put("b", 1)).await);
    assert!(
        words.contains("store full") && words.contains("compact, defragment"),
        "{words}"
    );
    for (path, revision) in &written {
        assert_eq!(store.get(&key(path)).await.unwrap().unwrap().created, *revision);
    }
    for path in &refused {
        assert!(
            store.get(&key(path)).await.unwrap().is_none(),
            "{path} was refused"
        );
    }
    // A store can be opened and read meanwhile; what the hint says makes room.
    let other = open(server.config("c")).await.unwrap();
    assert_eq!(revision(&other).await, revision(&store).await);
    let mut client = server.native().await;
    for chunk in written.chunks(100) {
        for (path, _) in chunk {
            client.delete(format!("/c/docs/{path}"), None).await.unwrap();
        }
    }
    let now = client.get("x", None).await.unwrap().header().unwrap().revision();
    let physical = etcd_client::CompactionOptions::new().with_physical();
    client.compact(now, Some(physical)).await.unwrap();
    client.defragment().await.unwrap();
    let (member, full) = (client.status().await.unwrap(), etcd_client::AlarmType::Nospace);
    let mut options = etcd_client::AlarmOptions::new();
    options.with_member(member.header().unwrap().member_id());
    client
        .alarm(etcd_client::AlarmAction::Deactivate, full, Some(options))
        .await
        .unwrap();
    until("there is room", async || store.commit(put("b", 1)).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_smaller_limits_is_refused_at_once() {
    let server = Etcd::prepare_and_run(&["--max-txn-ops", "64"]);
    let error = async || open(server.config("c")).await.unwrap_err();
    until("it answers", async || {
        error().await.kind() != ErrorKind::Unavailable
    })
    .await;
    let error = error().await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(skyloom_model::report(&error).contains("--max-txn-ops=128"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_program_wrote_is_left_alone() {
    let server = Etcd::start(&[]).await;
    server
        .native()
        .await
        .put("/c/docs.head", r#"{"format":2}"#, None)
        .await
        .unwrap();
    assert_eq!(kind(open(server.config("c")).await), ErrorKind::TooNew);
    open(server.config("d")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clouds_do_not_see_each_other() {
    let server = Etcd::start(&[]).await;
    let mut stores = Vec::new();
    for prefix in ["c", "c2", "c/d", "c/d/e"] {
        stores.push(open(server.config(prefix)).await.unwrap());
    }
    let mut marks = Vec::new();
    for store in &stores {
        marks.push(commit(store, put("a/1", 1)).await);
    }
    for (store, mark) in stores.iter().zip(&marks) {
        let page = store.list(&Prefix::all(), ListOptions::default()).await.unwrap();
        assert_eq!((page.items.len(), page.revision), (1, *mark));
        let mut events = watch(store, "", *mark);
        let next = commit(store, put("a/2", 1)).await;
        assert_eq!(seen(&mut events).await, (next, vec!["a/2".to_owned()]));
    }
    let lease = LeaseName::parse("a").unwrap();
    for store in &stores {
        let minute = std::time::Duration::from_secs(60);
        let grant = store.grant(&lease, "h", minute, skyloom_store::LeaseMode::Acquire);
        assert!(matches!(
            grant.await.unwrap(),
            skyloom_store::Grant::Granted { .. }
        ));
        assert_eq!(store.leases(&Prefix::all()).await.unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_written_by_hand_are_told() {
    let server = Etcd::start(&[]).await;
    let store = open(EtcdConfig::new([server.endpoint()])).await.unwrap();
    commit(&store, put("a/1", 1)).await;
    let mut client = server.native().await;
    let mut events = watch(&store, "", revision(&store).await);
    client.put("/skyloom/docs/a b", "1", None).await.unwrap();
    let words = story(store.list(&Prefix::all(), ListOptions::default()).await);
    assert!(
        words.contains("corrupt data") && words.contains("/skyloom/docs/a b"),
        "{words}"
    );
    client.delete("/skyloom/docs/a b", None).await.unwrap();
    let next = commit(&store, put("a/2", 1)).await;
    assert_eq!(
        seen(&mut events).await.0,
        next,
        "the watch passes over what has no key"
    );
    // As the README says.
    let by_hand = etcd_client::Txn::new()
        .when([etcd_client::Compare::mod_revision(
            "/skyloom/docs/a/3",
            etcd_client::CompareOp::Equal,
            0,
        )])
        .and_then([
            etcd_client::TxnOp::put("/skyloom/docs/a/3", "{}", None),
            etcd_client::TxnOp::put("/skyloom/docs.head", "{\"format\":1}", None),
        ]);
    client.txn(by_hand).await.unwrap();
    assert_eq!(
        seen(&mut events).await,
        (revision(&store).await, vec!["a/3".to_owned()])
    );
    assert_eq!(
        store
            .list(&Prefix::all(), ListOptions::default())
            .await
            .unwrap()
            .items
            .len(),
        3
    );
}
