//! An agent in this process meets the checks of one that comes over HTTP. That refused transactions are the same ones is
//! checked beside those over HTTP, in `scopes`.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use skyloom_cloud::AgentScoped;
use skyloom_model::{HostId, ManualClock, PowerState, ServerId, VmObservation, paths};
use skyloom_store::{
    DynBackend, Error, ErrorKind, Grant, Guard, Key, LeaseMode, LeaseName, Leases as _, ListOptions,
    MemoryConfig, MemoryStore, Outcome, Prefix, Store as _, Txn, Value, Watch as _, WatchEvent, WatchOptions,
};
use uuid::Uuid;

const TTL: Duration = Duration::from_secs(10);

fn host(n: u128) -> HostId {
    HostId::from_uuid(Uuid::from_u128(n))
}

fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

fn seen(server: ServerId) -> VmObservation {
    VmObservation {
        server,
        project: skyloom_model::ProjectId::from_uuid(Uuid::from_u128(3)),
        generation: 1,
        power: PowerState::Running,
        cause: None,
        accelerator: None,
        observed_at: skyloom_model::Timestamp::UNIX_EPOCH,
    }
}

/// The whole store, and what the agent of host 1 has of it.
fn both() -> (DynBackend, AgentScoped) {
    let clock = Arc::new(ManualClock::new());
    let all: DynBackend = Arc::new(MemoryStore::new(clock, MemoryConfig::default()));
    (all.clone(), AgentScoped::new(all, host(1)))
}

#[track_caller]
fn denied<T: std::fmt::Debug>(answer: Result<T, Error>) {
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn its_own_areas_are_there_as_in_the_whole_store() {
    let (all, agent) = both();
    let server = ServerId::from_uuid(Uuid::from_u128(9));
    let at = key(&paths::host_vm(host(1), server));
    let below = Prefix::parse(&format!("vms/{}", host(1))).unwrap();
    let lease = LeaseName::parse(&paths::host_lease(host(1))).unwrap();
    let granted = agent.grant(&lease, "h1", TTL, LeaseMode::TakeOver).await.unwrap();
    let Grant::Granted { epoch } = granted else {
        panic!("{granted:?}")
    };
    let mut events = agent.watch(&below, WatchOptions::after(skyloom_store::Revision(0)));
    let txn = Txn::new()
        .guard(Guard::Lease(lease.clone(), epoch))
        .create(at.clone(), Value::json(&seen(server)).unwrap());
    let revision = agent.commit(txn.clone()).await.unwrap().committed().unwrap();
    assert_eq!(agent.get(&at).await.unwrap(), all.get(&at).await.unwrap());
    let page = agent.list(&below, ListOptions::default()).await.unwrap();
    assert_eq!((page.items.len(), page.revision), (1, revision));
    let event = events.next().await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Commit { revision: r, .. } if r == revision));
    // A guard that does not hold is an answer and no refusal.
    let again = agent.commit(txn).await.unwrap();
    assert_eq!(
        again,
        Outcome::Conflict {
            guard: 1,
            current: Some(revision)
        }
    );
    agent.renew(&lease, epoch, TTL).await.unwrap();
    agent.revoke(&lease, epoch).await.unwrap();
    assert_eq!(agent.capability(), all.capability());
}

#[tokio::test]
async fn what_is_not_its_own_is_not_there_at_all() {
    let (all, agent) = both();
    let server = ServerId::from_uuid(Uuid::from_u128(9));
    let foreign = key(&paths::host_vm(host(2), server));
    all.commit(Txn::new().put(foreign.clone(), Value::json(&seen(server)).unwrap()))
        .await
        .unwrap();
    denied(agent.get(&foreign).await);
    denied(agent.commit(Txn::new().delete(foreign.clone())).await);
    denied(
        agent
            .commit(Txn::new().guard(Guard::Absent(foreign.clone())))
            .await,
    );
    for path in ["", "vms", &format!("vms/{}", host(2))] {
        let prefix = Prefix::parse(path).unwrap();
        denied(agent.list(&prefix, ListOptions::default()).await);
        denied(agent.leases(&prefix).await);
        let events: Vec<_> = agent
            .watch(&prefix, WatchOptions::after(skyloom_store::Revision(0)))
            .collect()
            .await;
        assert_eq!(events.len(), 1, "an error, and then the end");
        events.into_iter().for_each(denied);
    }
    let lease = LeaseName::parse(&paths::host_lease(host(2))).unwrap();
    denied(agent.grant(&lease, "h1", TTL, LeaseMode::TakeOver).await);
    denied(agent.renew(&lease, 1, TTL).await);
    denied(agent.revoke(&lease, 1).await);
    assert!(all.get(&foreign).await.unwrap().is_some());
    assert_eq!(all.leases(&Prefix::all()).await.unwrap(), []);
}
