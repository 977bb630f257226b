//! A cloud in memory, its callers and its hosts.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use skyloom_cloud::{
    ByteStream, Caller, Cloud, CloudParts, CreateHost, CreateImage, CreateProject, CreateServer,
    DirImageRepo, HostParts, ImageRepo, ListQuery, RepoContent, host_jobs,
};
use skyloom_flow::JobRegistry;
use skyloom_hypervisor::{FakeOptions, FakeWire, FakeWorld};
use skyloom_identity::{AuthScope, BuiltIn, Rights};
use skyloom_model::{
    Actor, DiskFormat, Host, HostId, Ids, ImageId, ManualClock, ProjectId, Resource as _, Scope, SeededIds,
    paths,
};
use skyloom_store::{
    Document, DynBackend, Key, ListOptions, MemoryConfig, MemoryStore, Prefix, Txn, Value, Versioned,
};
use tempfile::TempDir;

/// Bytes that pass as a raw disk where any raw content is allowed.
pub(crate) const DISK: &[u8] = &[7; 1024];

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) store: DynBackend,
    pub(crate) repo: Arc<dyn ImageRepo>,
    pub(crate) cloud: Cloud,
    pub(crate) dir: TempDir,
    pub(crate) hosts: BTreeMap<HostId, FakeHost>,
    /// What all hosts that are made from then on share.
    pub(crate) shared: Option<Sharing>,
}

/// What hosts share whose guests can go from one to the other.
pub(crate) struct Sharing {
    /// The folder of all disks, or the shared pool `nfs`.
    pub(crate) pool: FakeWorld,
    /// Which of both.
    folder: bool,
    wire: FakeWire,
}

/// A host of the cloud and what its agent would work with.
pub(crate) struct FakeHost {
    pub(crate) fake: FakeWorld,
    pub(crate) jobs: JobRegistry,
}

/// What the agent of a host does, and reaches the store through `backend` for.
pub(crate) fn jobs_of(
    host: HostId,
    fake: &FakeWorld,
    pool: &FakeWorld,
    repo: &Arc<dyn ImageRepo>,
    backend: DynBackend,
) -> JobRegistry {
    host_jobs(&HostParts {
        host,
        hypervisor: Arc::new(fake.hypervisor()),
        storage: Arc::new(pool.storage()),
        network: Some(Arc::new(fake.network())),
        content: Arc::new(RepoContent(repo.clone())),
        backend,
    })
}

pub(crate) fn key(path: &str) -> Key {
    Key::parse(path).unwrap()
}

pub(crate) fn bytes(content: &'static [u8]) -> ByteStream {
    stream::iter(
        content
            .chunks(100)
            .map(|c| Ok(Bytes::from_static(c)))
            .collect::<Vec<_>>(),
    )
    .boxed()
}

pub(crate) fn list() -> ListQuery {
    ListQuery::default()
}

pub(crate) fn server(name: &str, image: ImageId) -> CreateServer {
    CreateServer {
        name: Some(name.to_owned()),
        image: image.to_string(),
        flavor: "m1.tiny".to_owned(),
        ..CreateServer::default()
    }
}

pub(crate) fn image(name: &str) -> CreateImage {
    CreateImage::new(name, DiskFormat::Raw)
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new();
        Self::over(
            Arc::new(MemoryStore::new(Arc::new(clock.clone()), MemoryConfig::default())),
            clock,
        )
    }

    pub(crate) fn over(store: DynBackend, clock: ManualClock) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ids: Arc<dyn Ids> = Arc::new(SeededIds::new(clock.clone(), 11));
        let repo: Arc<dyn ImageRepo> = Arc::new(DirImageRepo::open(dir.path(), 1 << 20).unwrap());
        let cloud = Cloud::new(CloudParts {
            backend: store.clone(),
            clock: Arc::new(clock.clone()),
            ids: ids.clone(),
            images: repo.clone(),
        });
        Self {
            clock,
            ids,
            store,
            repo,
            cloud,
            dir,
            hosts: BTreeMap::new(),
            shared: None,
        }
    }

    /// An administrator of a bootstrapped cloud, in the default project.
    pub(crate) async fn admin(&self) -> Caller {
        let project = self.cloud.bootstrap().await.unwrap().project.id();
        caller(BuiltIn::Admin, project)
    }

    /// A member of a new project.
    pub(crate) async fn member(&self, admin: &Caller, name: &str) -> Caller {
        let request = CreateProject {
            name: name.to_owned(),
            ..Default::default()
        };
        let project = self.cloud.create_project(admin, request).await.unwrap().id();
        caller(BuiltIn::Member, project)
    }

    /// A host that reports and is reachable.
    pub(crate) async fn host(&mut self, admin: &Caller, name: &str) -> HostId {
        let nfs = self
            .shared
            .iter()
            .map(|_| ("pool.nfs".to_owned(), "yes".to_owned()));
        let request = CreateHost {
            name: name.to_owned(),
            labels: nfs.collect(),
            ..CreateHost::default()
        };
        let host = self.cloud.create_host(admin, request).await.unwrap().host;
        let id = host.id();
        let mut options = FakeOptions::in_memory();
        if let Some(shared) = &self.shared {
            let tag = u32::try_from(self.hosts.len()).unwrap();
            options = options.tag(tag).wire(&shared.wire);
            let nfs = "nfs".to_owned().try_into().unwrap();
            options = options.shared_pool(nfs, shared.pool.clone());
        }
        let fake = FakeWorld::open(options).unwrap();
        let mut facts = skyloom_hypervisor::facts_of(&fake.hypervisor()).await.unwrap();
        let folder = self.shared.iter().filter(|shared| shared.folder);
        facts.traits.extend(folder.map(|_| "storage:one".to_owned()));
        let at = paths::resource(Host::KIND, Scope::System, id.uuid());
        self.edit(&at, |host: &mut Host| {
            host.status.reachable = true;
            host.status.facts = Some(facts);
        })
        .await;
        let jobs = jobs_of(id, &fake, self.pool(&fake), &self.repo, self.store.clone());
        self.hosts.insert(id, FakeHost { fake, jobs });
        id
    }

    /// Changes a record behind the cloud's back.
    pub(crate) async fn edit<T: Document>(&self, at: &str, change: impl FnOnce(&mut T)) {
        let at = key(at);
        let mut found: Versioned<T> =
            Versioned::decode(&self.store.get(&at).await.unwrap().unwrap()).unwrap();
        change(&mut found.value);
        let txn = Txn::new().replace(at, found.modified, Value::json(&found.value).unwrap());
        assert!(self.store.commit(txn).await.unwrap().committed().is_some());
    }

    /// The host's agent is not heard of any more.
    pub(crate) async fn lose(&self, host: HostId) {
        let at = paths::resource(Host::KIND, Scope::System, host.uuid());
        self.edit(&at, |host: &mut Host| host.status.reachable = false)
            .await;
    }

    /// Hosts that are made from now on see one folder of disks, and send guests to each other.
    pub(crate) fn share_disks(&mut self) {
        self.share(true);
    }

    /// The same, with no more than a pool of volumes in common.
    pub(crate) fn share_pool(&mut self) {
        self.share(false);
    }

    fn share(&mut self, folder: bool) {
        self.shared = Some(Sharing {
            pool: FakeWorld::in_memory(),
            folder,
            wire: FakeWire::default(),
        });
    }

    /// Where a host's disks are.
    pub(crate) fn pool<'a>(&'a self, fake: &'a FakeWorld) -> &'a FakeWorld {
        let shared = self.shared.as_ref().filter(|shared| shared.folder);
        shared.map_or(fake, |shared| &shared.pool)
    }

    /// Every document below a path, as text.
    pub(crate) async fn documents(&self, path: &str) -> BTreeMap<String, String> {
        let prefix = Prefix::parse(path).unwrap();
        let mut all = BTreeMap::new();
        let mut options = ListOptions::default();
        loop {
            let page = self.store.list(&prefix, options).await.unwrap();
            for kv in &page.items {
                let text = String::from_utf8(kv.value.bytes().to_vec()).unwrap();
                all.insert(kv.key.to_string(), text);
            }
            match page.items.last().filter(|_| page.more) {
                Some(last) => options = ListOptions::default().with_after(last.key.clone()),
                None => return all,
            }
        }
    }

    /// Names of the files that the image repository holds.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut all = Vec::new();
        for sub in ["staged", "images"] {
            for entry in std::fs::read_dir(self.dir.path().join(sub)).unwrap() {
                all.push(format!(
                    "{sub}/{}",
                    entry.unwrap().file_name().into_string().unwrap()
                ));
            }
        }
        all.sort();
        all
    }
}

/// Somebody with one built-in role: an administrator of the whole cloud, or whoever else in `project`.
pub(crate) fn caller(role: BuiltIn, project: ProjectId) -> Caller {
    let scope = match role {
        BuiltIn::Admin => AuthScope::System,
        _ => AuthScope::Project(project),
    };
    with_rights(role.name(), Rights::built_in(scope, role).unwrap(), project)
}

pub(crate) fn with_rights(name: &str, rights: Rights, project: ProjectId) -> Caller {
    Caller {
        actor: Actor {
            id: format!("{name}-{project}"),
            name: name.to_owned(),
        },
        request_id: "req-test".to_owned(),
        ..Caller::internal(name, rights, project)
    }
}

pub(crate) fn with_key(caller: &Caller, idempotency_key: &str) -> Caller {
    Caller {
        idempotency_key: Some(idempotency_key.to_owned()),
        ..caller.clone()
    }
}
