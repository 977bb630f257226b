//! Of many creates at once exactly as many pass as the quota has room for: over memory and over SQLite, in one process and in two.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use futures::future::join_all;
use skyloom::cloud::{Caller, Cloud, CloudParts, CreateKeypair, CreateServer, DirImageRepo};
use skyloom::identity::{Limit, Limits, Owner, ResourceName, Rights, Slot};
use skyloom::model::{
    Clock as _, DiskFormat, Ids, Image, ImageId, ImageSource, ImageSpec, ImageState, ImageStatus, Meta, Name,
    OsIds, Resource as _, Scope, SystemClock, paths,
};
use skyloom::store::{DynBackend, Key, Txn, Value};
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

    async fn create_server(&self, number: usize, image: ImageId) -> Result<(), String> {
        let request = CreateServer {
            name: Some(format!("s{number}")),
            image: image.to_string(),
            flavor: "m1.tiny".to_owned(),
            config_drive: Some(false),
            ..CreateServer::default()
        };
        let made = self.cloud.create_server(&self.caller, request).await;
        made.map(drop).map_err(|error| error.code().to_owned())
    }

    /// At most so many of the project's servers, from now on.
    async fn limit_servers(&self, backend: &DynBackend, most: u64) {
        let limits = Limits::new().with(ResourceName::new("servers").unwrap(), Limit::Most(most));
        let slot = self.slot(backend).await;
        let txn = slot.set_limits(limits, Limits::new()).unwrap();
        assert!(backend.commit(txn).await.unwrap().committed().is_some());
    }

    async fn slot(&self, backend: &DynBackend) -> Slot {
        Slot::load(backend, Owner::Project(self.caller.project))
            .await
            .unwrap()
    }
}

/// An image of the cloud itself that servers can be made of; it counts for no project.
async fn public_image(backend: &DynBackend) -> ImageId {
    let clock = Arc::new(SystemClock::new());
    let id = ImageId::fresh(&OsIds::new(clock.clone()));
    let image = Image {
        meta: Meta::new(id.uuid(), Name::new("blank").unwrap(), Scope::System, clock.now()),
        spec: ImageSpec {
            format: DiskFormat::Raw,
            source: ImageSource::Upload,
            sha256: None,
            architecture: "x86_64".to_owned(),
            min_disk_gib: 0,
            min_memory_mib: 0,
            public: true,
        },
        status: ImageStatus {
            state: ImageState::Active,
            size_bytes: 512,
            virtual_size_bytes: 512,
            sha256: Some("0".repeat(64)),
            fault: None,
        },
    };
    let key = Key::parse(&paths::resource(Image::KIND, Scope::System, id.uuid())).unwrap();
    let txn = Txn::new().create(key, Value::json(&image).unwrap());
    assert!(backend.commit(txn).await.unwrap().committed().is_some());
    id
}

/// Servers are charged several resources, with a task and a port in the same commit.
async fn sixty_four_servers_at_once(uri: &str) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock::new());
    let mut options = StoreOptions::new(clock.clone(), Arc::new(OsIds::new(clock)));
    options.migrate = true;
    let uri = uri.replace("DIR", &dir.path().display().to_string());
    let store = open_store(&uri, &options).await.unwrap();
    let backend = store.backend.clone();
    let one = process(&backend, dir.path()).await;
    let other = process(&backend, dir.path()).await;
    let image = public_image(&backend).await;
    one.create_server(0, image).await.unwrap();

    one.limit_servers(&backend, 2).await;
    let passed = join_all((100..164).map(|n| one.create_server(n, image))).await;
    let refused = passed.iter().filter_map(|r| r.as_ref().err());
    assert!(refused.clone().all(|code| code == "quota.exceeded"), "{passed:?}");
    assert_eq!(refused.count(), 63, "exactly one has room");

    one.limit_servers(&backend, 3).await;
    let ours = join_all((200..232).map(|n| one.create_server(n, image)));
    let theirs = join_all((300..332).map(|n| other.create_server(n, image)));
    let (ours, theirs) = futures::join!(ours, theirs);
    let passed = ours.iter().chain(&theirs).filter(|r| r.is_ok()).count();
    assert_eq!(passed, 1, "of two processes, too: {ours:?} {theirs:?}");
    let slot = one.slot(&backend).await;
    for name in ["servers", "vcpus", "ports"] {
        assert_eq!(slot.used(&ResourceName::new(name).unwrap()), 3, "{name}");
    }
    assert_eq!(one.cloud.recount_quotas(&one.caller).await.unwrap(), []);
    store.close().await.unwrap();
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

#[tokio::test]
async fn servers_over_memory() {
    sixty_four_servers_at_once("memory:").await;
}

#[tokio::test]
async fn servers_over_sqlite() {
    sixty_four_servers_at_once("sqlite://DIR/store.db").await;
}
