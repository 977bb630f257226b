//! What the service costs: letting a bearer in (signature remembered and not), an API token, and giving a token for an application credential.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may panic")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use skyloom_identity::{
    Actor, AuthScope, Authenticator as _, BuiltIn, CredentialRef, DEFAULT_DOMAIN, FileKeys, Identity,
    IdentityConfig, IdentityParts, LogIn, NewApplicationCredential, NewSecret, Principal, Proof, ScopeAsked,
    Target, Vault, Via,
};
use skyloom_model::{Clock, Ids, OsIds, ProjectId, Secret, SystemClock};
use skyloom_store::{MemoryConfig, MemoryStore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const SOURCE: &str = "192.0.2.1";

struct Site {
    identity: Identity,
    forgetful: Identity,
    robot: CredentialRef,
    secret: Secret<String>,
    first: Secret<String>,
    _drivers: JoinSet<()>,
}

fn open(parts: &IdentityParts, remembered_tokens: usize, drivers: &mut JoinSet<()>) -> Identity {
    let config = IdentityConfig {
        remembered_tokens,
        ..IdentityConfig::default()
    };
    let (identity, driver) = Identity::open(parts.clone(), config).unwrap();
    drivers.spawn(driver.run(CancellationToken::new()));
    identity
}

async fn site() -> Site {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let ids: Arc<dyn Ids> = Arc::new(OsIds::new(SystemClock::new()));
    let folder = tempfile::tempdir().unwrap();
    let kek = folder.path().join("kek");
    FileKeys::generate(&kek, &*ids).unwrap();
    let keys = FileKeys::read(&kek, &[], Arc::clone(&ids)).unwrap();
    let parts = IdentityParts {
        backend: Arc::new(MemoryStore::new(Arc::clone(&clock), MemoryConfig::default())),
        clock,
        ids: Arc::clone(&ids),
        secrets: Arc::new(Vault::new(Arc::new(keys), Arc::clone(&ids))),
        audit: None,
        registry: None,
    };
    let mut drivers = JoinSet::new();
    let identity = open(&parts, 20_000, &mut drivers);
    let forgetful = open(&parts, 0, &mut drivers);
    identity.ready().await.unwrap();
    forgetful.ready().await.unwrap();
    let first = identity.bootstrap(None).await.unwrap().unwrap();
    let edit = identity.editor();
    let project = edit
        .change(|edit| edit.create_project(DEFAULT_DOMAIN, None, "bench", |_| {}))
        .await
        .unwrap();
    let project = ProjectId::from_uuid(project.meta.id);
    let user = edit
        .change(|edit| edit.create_user(DEFAULT_DOMAIN, "bench", |_| {}))
        .await
        .unwrap()
        .id;
    let (target, role) = (Target::Project(project), BuiltIn::Member.id());
    edit.change(|edit| edit.grant(target, Actor::User(user), role, false))
        .await
        .unwrap();
    let scope = AuthScope::Project(project);
    let by = Principal {
        user,
        domain: DEFAULT_DOMAIN,
        scope,
        roles: identity.directory().snapshot().effective_roles(user, scope),
        via: Via::User,
        methods: Vec::new(),
        until: None,
        audit_ids: Vec::new(),
    };
    let secret = NewSecret::generate(&*ids);
    let asked = NewApplicationCredential {
        name: "robot".to_owned(),
        description: String::new(),
        roles: None,
        secret_hash: secret.hash.clone(),
        expires_at: None,
        unrestricted: false,
        access_rules: Vec::new(),
        permissions: Vec::new(),
    };
    let robot = edit
        .change(|edit| edit.create_application_credential(&by, asked.clone()))
        .await
        .unwrap();
    Site {
        identity,
        forgetful,
        robot: CredentialRef::Id(robot.id),
        secret: secret.secret,
        first: first.token,
        _drivers: drivers,
    }
}

fn ask(site: &Site) -> LogIn {
    let proof = Proof::ApplicationCredential {
        credential: site.robot.clone(),
        secret: site.secret.clone(),
    };
    LogIn::new(vec![proof], ScopeAsked::Default)
}

fn service(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let site = runtime.block_on(site());
    let mut group = c.benchmark_group("service");
    group.throughput(Throughput::Elements(1));
    group.bench_function("give a token for an application credential", |b| {
        b.to_async(&runtime)
            .iter(|| async { site.identity.log_in(black_box(ask(&site)), SOURCE).await.unwrap() });
    });
    let session = runtime
        .block_on(site.identity.log_in(ask(&site), SOURCE))
        .unwrap();
    let bearer = session.token.expose();
    for (name, identity, secret) in [
        ("let a bearer in, signature remembered", &site.identity, bearer),
        (
            "let a bearer in, signature not remembered",
            &site.forgetful,
            bearer,
        ),
        ("let an API token in", &site.identity, site.first.expose()),
    ] {
        group.bench_function(name, |b| {
            b.to_async(&runtime)
                .iter(|| async { identity.authenticate(black_box(secret), SOURCE).await.unwrap() });
        });
    }
    group.finish();
}

criterion_group!(benches, service);
criterion_main!(benches);
