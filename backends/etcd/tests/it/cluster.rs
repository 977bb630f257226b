//! Three members, and the leader killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skyloom_store::{ErrorKind, Grant, LeaseMode, LeaseName, Leases as _, Outcome, Renewal, Store as _, Txn};
use skyloom_store_etcd::{EtcdConfig, EtcdStore};

use super::support::{Etcd, folder, free_port, open};
use super::{commit, json, key, kind, put, revision, seen, soon, until, watch};

/// Starts three members; the parts of a heartbeat are long enough for a busy machine.
fn start() -> Vec<Etcd> {
    let ports: Vec<(u16, u16)> = (0..3).map(|_| (free_port(), free_port())).collect();
    let peers: Vec<String> = ports
        .iter()
        .enumerate()
        .map(|(n, (_, peer))| format!("m{n}=http://127.0.0.1:{peer}"))
        .collect();
    let peers = peers.join(",");
    let member = |(n, (port, peer)): (usize, &(u16, u16))| {
        let dir = folder();
        let (url, peer) = (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{peer}"),
        );
        let data = dir.path().join("data").display().to_string();
        let args = [
            "--name",
            &format!("m{n}"),
            "--data-dir",
            &data,
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &peers,
            "--initial-cluster-state",
            "new",
            "--heartbeat-interval",
            "50",
            "--election-timeout",
            "500",
            "--log-level",
            "error",
        ];
        let mut server = Etcd {
            args: args.map(str::to_owned).to_vec(),
            port: *port,
            dir,
            child: None,
        };
        server.run();
        server
    };
    ports.iter().enumerate().map(member).collect()
}

fn config(members: &[Etcd]) -> EtcdConfig {
    EtcdConfig::new(members.iter().map(Etcd::endpoint)).with_prefix("c")
}

/// Which member leads.
async fn leader(members: &[Etcd]) -> usize {
    let mut found = None;
    until("there is a leader", async || {
        for (n, member) in members.iter().enumerate().filter(|(_, m)| m.child.is_some()) {
            if let Ok(status) = member.native().await.status().await
                && status.leader() != 0
                && status.header().is_some_and(|h| h.member_id() == status.leader())
            {
                found = Some(n);
                return true;
            }
        }
        false
    })
    .await;
    found.unwrap()
}

/// Writes numbered documents until `count` are acknowledged: those that were, and those that nobody knows of.
async fn write(store: &EtcdStore, from: u32, count: usize) -> (BTreeMap<String, u64>, Vec<String>) {
    let (mut acknowledged, mut unknown) = (BTreeMap::new(), Vec::new());
    let mut n = from;
    while acknowledged.len() < count {
        n += 1;
        let path = format!("a/{n:06}");
        match store.commit(Txn::new().create(key(&path), json(n))).await {
            Ok(Outcome::Committed { revision }) => {
                acknowledged.insert(path, revision.0);
            }
            Ok(conflict) => panic!("{conflict:?}"),
            Err(e) => {
                match e.kind() {
                    ErrorKind::Unknown => unknown.push(path),
                    ErrorKind::Unavailable | ErrorKind::Overloaded => {}
                    other => panic!("{other:?}: {}", skyloom_model::report(&e)),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    (acknowledged, unknown)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_is_killed() {
    let mut members = start();
    members[0].wait_with(config(&members)).await;
    let first = leader(&members).await;
    // The store talks to the leader.
    members.swap(0, first);
    let store = Arc::new(open(config(&members)).await.unwrap());
    let mut events = watch(&*store, "a", revision(&*store).await);
    let lease = LeaseName::parse("l").unwrap();
    let minute = Duration::from_secs(60);
    let Grant::Granted { epoch } = store
        .grant(&lease, "h", minute, LeaseMode::Acquire)
        .await
        .unwrap()
    else {
        panic!("a free lease was not granted");
    };
    let (mut all, mut unknown) = write(&store, 0, 50).await;
    for round in 1..=3 {
        let led = leader(&members).await;
        members[led].kill();
        let (more, lost) = soon("commits of the others", write(&store, round * 10_000, 50)).await;
        all.extend(more);
        unknown.extend(lost);
        until("the lease is kept alive", async || {
            matches!(store.renew(&lease, epoch, minute).await, Ok(Renewal::Held))
        })
        .await;
        members[led].run();
        members[led]
            .wait_with(EtcdConfig::new([members[led].endpoint()]).with_prefix("c"))
            .await;
    }
    let end = commit(&*store, put("a/end", 1)).await;
    let mut watched = BTreeMap::new();
    loop {
        let (revision, keys) = seen(&mut events).await;
        if revision == end {
            break;
        }
        for key in keys {
            assert_eq!(watched.insert(key.clone(), revision.0), None, "{key} came twice");
        }
    }
    for (path, revision) in &all {
        assert_eq!(watched.remove(path), Some(*revision), "{path} was acknowledged");
    }
    assert!(watched.keys().all(|path| unknown.contains(path)), "{watched:?}");
    for path in all.keys() {
        assert!(
            store.get(&key(path)).await.unwrap().is_some(),
            "{path} was acknowledged"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minority_does_nothing_and_says_so() {
    let mut members = start();
    members[0].wait_with(config(&members)).await;
    let mut config = config(&members);
    config.request_timeout_ms = 3_000;
    let store = open(config).await.unwrap();
    commit(&store, put("a", 1)).await;
    members[1].kill();
    members[2].kill();
    // What is under way when the others die may be kept; then the one that is left knows that it is alone.
    until(
        "it is noticed",
        async || matches!(store.commit(put("b", 1)).await, Err(e) if e.kind() == ErrorKind::Unavailable),
    )
    .await;
    assert_eq!(kind(store.commit(put("c", 1)).await), ErrorKind::Unavailable);
    let read = kind(store.get(&key("a")).await);
    assert!(
        [ErrorKind::Unavailable, ErrorKind::Timeout].contains(&read),
        "{read:?}"
    );
    members[1].run();
    until("commits go on", async || store.commit(put("d", 1)).await.is_ok()).await;
    assert!(store.get(&key("c")).await.unwrap().is_none());
}
