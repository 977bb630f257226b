//! What the directory costs at ten thousand users: reading everything, a change of one record, and the answers.

#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde::Serialize;
use skyloom_identity::{
    Actor, AuthScope, BuiltIn, DEFAULT_DOMAIN, Directory, Edit, Editor, Grant, Group, GroupId, Membership,
    Snapshot, Target, User, UserId, UserKind, UserOptions, paths,
};
use skyloom_model::{
    Id, Ids, ManualClock, Meta, Name, Project, ProjectId, ProjectSpec, Scope, SeededIds, Timestamp,
};
use skyloom_store::{DynBackend, Key, KeyValue, MemoryConfig, MemoryStore, Revision, Store as _, Txn, Value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const USERS: usize = 10_000;
const GROUPS: usize = 500;
const PROJECTS: usize = 1_000;

fn id<K: ?Sized>(kind: u128, n: usize) -> Id<K> {
    // Spread as random ids are.
    Id::from_uuid(Uuid::from_u128(
        (n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) ^ kind,
    ))
}

fn document(path: &str, record: &impl Serialize) -> KeyValue {
    KeyValue {
        key: Key::parse(path).unwrap(),
        value: Value::json(record).unwrap(),
        created: Revision(1),
        modified: Revision(1),
    }
}

/// Each user in two groups, with a role of its own in one project; each group with a role in one.
fn town() -> Vec<KeyValue> {
    let at = Timestamp::UNIX_EPOCH;
    let mut all = Vec::new();
    let grant = |target: usize, actor| {
        let (target, role) = (Target::Project(id(2, target % PROJECTS)), BuiltIn::Member.id());
        let record = Grant {
            target,
            actor,
            role,
            inherited: false,
            created_at: at,
        };
        document(&paths::grant(target, actor, role, false), &record)
    };
    for n in 0..PROJECTS {
        let meta = Meta::new(
            id::<()>(2, n).uuid(),
            Name::new(format!("p{n}")).unwrap(),
            Scope::System,
            at,
        );
        let project = Project {
            meta,
            spec: ProjectSpec::default(),
        };
        all.push(document(&paths::project(id(2, n)), &project));
    }
    for n in 0..GROUPS {
        let group = Group {
            id: id(4, n),
            domain: DEFAULT_DOMAIN,
            name: format!("g{n}"),
            description: String::new(),
            deleting: false,
            extra: serde_json::Map::new(),
            created_at: at,
        };
        all.push(document(&paths::group(group.id), &group));
        all.push(grant(n, Actor::Group(group.id)));
    }
    for n in 0..USERS {
        let user = user(n, at);
        all.push(document(&paths::user(user.id), &user));
        all.push(grant(n, Actor::User(user.id)));
        for group in [n % GROUPS, (n + 7) % GROUPS] {
            let member = Membership {
                group: id(4, group),
                user: user.id,
                created_at: at,
            };
            all.push(document(&paths::member(member.group, member.user), &member));
        }
    }
    all
}

fn user(n: usize, at: Timestamp) -> User {
    User {
        id: id(3, n),
        domain: DEFAULT_DOMAIN,
        name: format!("u{n}"),
        kind: UserKind::Person,
        email: None,
        description: String::new(),
        enabled: true,
        deleting: false,
        default_project: None,
        options: UserOptions::default(),
        password_expires_at: None,
        needs_second_factor: false,
        epoch: 0,
        extra: serde_json::Map::new(),
        created_at: at,
    }
}

struct Rig {
    runtime: tokio::runtime::Runtime,
    editor: Editor,
    directory: Directory,
    _drivers: JoinSet<()>,
}

impl Rig {
    /// A store with everything in it and a directory that follows it.
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let clock = ManualClock::new();
        let ids: Arc<dyn Ids> = Arc::new(SeededIds::new(clock.clone(), 1));
        let store = Arc::new(MemoryStore::new(Arc::new(clock.clone()), MemoryConfig::default()));
        let mut drivers = JoinSet::new();
        let (directory, editor) = runtime.block_on(async {
            let first = Snapshot::default();
            let set_up =
                Edit::new(&first, &*ids, Timestamp::UNIX_EPOCH).bootstrap(Some("h".into()), None, false);
            store.commit(set_up.unwrap().txn).await.unwrap();
            for page in town().chunks(60) {
                let create = |txn: Txn, kv: &KeyValue| txn.create(kv.key.clone(), kv.value.clone());
                store.commit(page.iter().fold(Txn::new(), create)).await.unwrap();
            }
            let backend: DynBackend = store;
            let (directory, driver) = Directory::new(backend.clone(), Arc::new(clock.clone())).unwrap();
            drivers.spawn(driver.run(CancellationToken::new()));
            directory.ready().await.unwrap();
            (
                directory.clone(),
                Editor::new(directory, backend, Arc::new(clock), ids),
            )
        });
        Self {
            runtime,
            editor,
            directory,
            _drivers: drivers,
        }
    }
}

fn directory(c: &mut Criterion) {
    let rig = Rig::new();
    let mut group = c.benchmark_group("directory of 10,000 users");
    let all = town();
    group.sample_size(10);
    group.bench_function("read everything", |b| {
        b.iter_batched(
            || (),
            |()| Snapshot::of(&all, Revision(1)).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.sample_size(50);
    let mut n = 0;
    group.bench_function("change one user, until it is seen", |b| {
        b.iter(|| {
            n += 1;
            let change =
                |edit: &Edit<'_>| edit.update_user(id(3, n % USERS), |u| u.description = n.to_string());
            rig.runtime.block_on(rig.editor.change(change)).unwrap();
        });
    });
    let at = rig.directory.snapshot();
    let ask = |n: usize| {
        (
            id::<User>(3, n % USERS) as UserId,
            AuthScope::Project(id(2, n % PROJECTS) as ProjectId),
        )
    };
    let mut n = 0;
    group.bench_function("roles, worked out", |b| {
        // Never the same question within the memory of a snapshot: projects where there are no roles are worked out too.
        b.iter(|| {
            n += 1;
            let (user, _) = ask(n);
            black_box(at.effective_roles(user, AuthScope::Project(id(2, (n / USERS + n) % PROJECTS))))
        });
    });
    let mut n = 0;
    group.bench_function("roles, remembered", |b| {
        b.iter(|| {
            n = (n + 1) % 1000;
            let (user, scope) = ask(n);
            black_box(at.effective_roles(user, scope))
        });
    });
    group.bench_function("snapshot", |b| b.iter(|| black_box(rig.directory.snapshot())));
    group.bench_function("groups of a user", |b| {
        b.iter(|| {
            black_box(at.groups_of(id(3, 77)).count() + at.users_of(id::<Group>(4, 7) as GroupId).count())
        });
    });
    group.finish();
}

criterion_group!(benches, directory);
criterion_main!(benches);
