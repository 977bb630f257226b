//! Of many creates at once exactly as many pass as the quota has room for: over memory and over SQLite, in one process and in two.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use futures::future::join_all;
use skyloom::cloud::{Caller, Cloud, CloudParts, CreateKeypair, DirImageRepo};
use skyloom::identity::{Limit, Limits, Owner, ResourceName, Rights, Slot};
use skyloom::model::{Ids, OsIds, Resource as _, SystemClock};
use skyloom::store::DynBackend;
use skyloom::{StoreOptions, open_store};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl me";

struct Process {
    cloud: Cloud,
    caller: Caller,
}

async fn process(backend: &DynBackend, images: &std::path::Path) -> Process {
    let clock = Arc::new(SystemClock::new());
    let ids: Arc<dyn Ids> = Arc::new(OsIds::new(clock.clone()));
    let cloud = Cloud::new(CloudParts {
        backend: backend.clone(),
        clock,
        ids,
        images: Arc::new(DirImageRepo::open(images, 1 << 20).unwrap()),
    });
    let project = cloud.bootstrap().await.unwrap().project.id();
    let caller = Caller::internal("test", Rights::of_the_cloud().unwrap(), project);
    Process { cloud, caller }
}

impl Process {
    async fn create(&self, number: usize) -> Result<(), String> {
        let request = CreateKeypair {
            name: format!("k{number}"),
            public_key: KEY.to_owned(),
        };
        let made = self.cloud.create_keypair(&self.caller, request).await;
        made.map(drop).map_err(|error| error.code().to_owned())
    }

    async fn slot(&self, backend: &DynBackend) -> Slot {
        Slot::load(backend, Owner::Project(self.caller.project))
            .await
            .unwrap()
    }
}

async fn sixty_four_at_once(uri: &str) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock::new());
    let mut options = StoreOptions::new(clock.clone(), Arc::new(OsIds::new(clock)));
    options.migrate = true;
    let uri = uri.replace("DIR", &dir.path().display().to_string());
    let store = open_store(&uri, &options).await.unwrap();
    let backend = store.backend.clone();
    let one = process(&backend, dir.path()).await;
    let other = process(&backend, dir.path()).await;
    let keypairs = ResourceName::new("keypairs").unwrap();

    // Without limits all pass, and the ledger is right.
    let all = join_all((0..64).map(|n| one.create(n))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(one.slot(&backend).await.used(&keypairs), 64);

    let limits = Limits::new().with(keypairs.clone(), Limit::Most(65));
    let txn = one
        .slot(&backend)
        .await
        .set_limits(limits, Limits::new())
        .unwrap();
    assert!(backend.commit(txn).await.unwrap().committed().is_some());
    let ours = (100..164).map(|n| one.create(n));
    let passed = join_all(ours).await;
    let refused = passed.iter().filter_map(|r| r.as_ref().err());
    assert!(refused.clone().all(|code| code == "quota.exceeded"), "{passed:?}");
    assert_eq!(refused.count(), 63, "exactly one has room");

    let limits = Limits::new().with(keypairs.clone(), Limit::Most(66));
    let txn = one
        .slot(&backend)
        .await
        .set_limits(limits, Limits::new())
        .unwrap();
    assert!(backend.commit(txn).await.unwrap().committed().is_some());
    let both = (200..232).map(|n| one.create(n)).collect::<Vec<_>>();
    let theirs = (300..332).map(|n| other.create(n)).collect::<Vec<_>>();
    let (ours, theirs) = futures::join!(join_all(both), join_all(theirs));
    let passed = ours.iter().chain(&theirs).filter(|r| r.is_ok()).count();
    assert_eq!(passed, 1, "of two processes, too: {ours:?} {theirs:?}");
    assert_eq!(one.slot(&backend).await.used(&keypairs), 66);
    assert_eq!(one.cloud.recount_quotas(&one.caller).await.unwrap(), []);
    store.close().await.unwrap();
}

#[tokio::test]
async fn over_memory() {
    sixty_four_at_once("memory:").await;
}

#[tokio::test]
async fn over_sqlite() {
    sixty_four_at_once("sqlite://DIR/store.db").await;
}
