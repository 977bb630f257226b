//! A store with a directory that follows it, and editors of both.

use std::sync::Arc;

use skyloom_identity::{
    AuthScope, ChangeError, ChangeResult, Directory, DomainId, Draft, Edit, Editor, GroupId, Method,
    Principal, RoleId, Snapshot, UserId, Via,
};
use skyloom_model::{ManualClock, Project, ProjectId, SeededIds};
use skyloom_store::{
    Capability, DynBackend, KeyValue, ListOptions, MemoryConfig, MemoryStore, Outcome, Prefix, Revision,
    Store as _, Txn,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) ids: Arc<SeededIds<ManualClock>>,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) directory: Directory,
    pub(crate) editor: Editor,
    _drivers: JoinSet<()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_ops(128).await
    }

    /// A store whose commits have at most `ops` operations.
    pub(crate) async fn with_ops(ops: usize) -> Self {
        let clock = ManualClock::new();
        let capability = Capability::PORTABLE.with_max_txn_ops(ops);
        let config = MemoryConfig::default().with_capability(capability);
        let store = Arc::new(MemoryStore::new(Arc::new(clock.clone()), config));
        let ids = Arc::new(SeededIds::new(clock.clone(), 7));
        let mut drivers = JoinSet::new();
        let (directory, editor) = follow(&store, &clock, &ids, &mut drivers).await;
        Self {
            clock,
            ids,
            store,
            directory,
            editor,
            _drivers: drivers,
        }
    }

    /// Another process: its own directory of the same store.
    pub(crate) async fn another(&self, drivers: &mut JoinSet<()>) -> Editor {
        follow(&self.store, &self.clock, &self.ids, drivers).await.1
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.directory.snapshot()
    }

    pub(crate) fn now(&self) -> skyloom_model::Timestamp {
        skyloom_model::Clock::now(&self.clock)
    }

    pub(crate) fn edit<'a>(&'a self, snapshot: &'a Snapshot) -> Edit<'a> {
        Edit::new(snapshot, &*self.ids, self.now())
    }

    pub(crate) async fn bootstrapped() -> Self {
        let this = Self::new().await;
        this.bootstrap().await;
        this
    }

    pub(crate) async fn bootstrap(&self) {
        let hash = || Some("a hash".to_owned());
        self.editor
            .change(|edit| edit.bootstrap(hash(), None, false))
            .await
            .unwrap();
    }

    /// Commits just this.
    pub(crate) async fn commit(&self, txn: Txn) -> Outcome {
        self.store.commit(txn).await.unwrap()
    }

    /// Everything in the store.
    pub(crate) async fn all(&self) -> (Vec<KeyValue>, Revision) {
        let first = self
            .store
            .list(&Prefix::all(), ListOptions::default())
            .await
            .unwrap();
        let (mut items, revision, mut more) = (first.items, first.revision, first.more);
        while more {
            let after = items.last().unwrap().key.clone();
            let page = ListOptions::default().with_at(revision).with_after(after);
            let page = self.store.list(&Prefix::all(), page).await.unwrap();
            more = page.more;
            items.extend(page.items);
        }
        (items, revision)
    }

    /// What the store has, read at once.
    pub(crate) async fn truth(&self) -> Snapshot {
        let (items, revision) = self.all().await;
        Snapshot::of(&items, revision).unwrap()
    }

    pub(crate) async fn user(&self, domain: DomainId, name: &str) -> UserId {
        let made = self
            .editor
            .change(|edit| edit.create_user(domain, name, |_| {}))
            .await;
        made.unwrap().id
    }
    pub(crate) async fn group(&self, domain: DomainId, name: &str) -> GroupId {
        let made = self
            .editor
            .change(|edit| edit.create_group(domain, name, |_| {}))
            .await;
        made.unwrap().id
    }
    pub(crate) async fn domain(&self, name: &str) -> DomainId {
        let made = self.editor.change(|edit| edit.create_domain(name, |_| {})).await;
        made.unwrap().id
    }
    pub(crate) async fn role(&self, name: &str) -> RoleId {
        let made = self
            .editor
            .change(|edit| edit.create_role(None, name, |_| {}))
            .await;
        made.unwrap().id
    }
    pub(crate) async fn project(&self, domain: DomainId, parent: Option<ProjectId>, name: &str) -> ProjectId {
        let made = self
            .editor
            .change(|edit| edit.create_project(domain, parent, name, |_| {}))
            .await;
        id_of(&made.unwrap())
    }

    /// The user in a project, as it would be after a login.
    pub(crate) fn principal(&self, user: UserId, project: ProjectId) -> Principal {
        let at = self.snapshot();
        let scope = AuthScope::Project(project);
        Principal {
            user,
            domain: at.user(user).unwrap().value.domain,
            scope,
            roles: at.effective_roles(user, scope),
            via: Via::User,
            methods: vec![Method::Password],
            until: None,
            audit_ids: Vec::new(),
        }
    }

    /// What a change is refused with.
    pub(crate) async fn refused<T: std::fmt::Debug>(
        &self,
        build: impl Fn(&Edit<'_>) -> ChangeResult<Draft<T>>,
    ) -> ChangeError {
        self.editor.change(build).await.unwrap_err()
    }
}

async fn follow(
    store: &Arc<MemoryStore>,
    clock: &ManualClock,
    ids: &Arc<SeededIds<ManualClock>>,
    drivers: &mut JoinSet<()>,
) -> (Directory, Editor) {
    let backend: DynBackend = Arc::clone(store) as DynBackend;
    let clock = Arc::new(clock.clone());
    let (directory, driver) = Directory::new(backend.clone(), clock.clone()).unwrap();
    drivers.spawn(driver.run(CancellationToken::new()));
    directory.ready().await.unwrap();
    let editor = Editor::new(directory.clone(), backend, clock, ids.clone());
    (directory, editor)
}

pub(crate) fn id_of(project: &Project) -> ProjectId {
    ProjectId::from_uuid(project.meta.id)
}
