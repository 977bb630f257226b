//! What the API adds to a request before and after its handler: `cargo bench -p skyloom-api --bench edge`.
//!
//! `plain` is a router of axum with the same answer and nothing around it; the others are the whole API, in-process: all of
//! observe, guard, rates and, with a token, authentication. The difference is what a request pays. `server` and `servers` are
//! one and 100 records, shown to who sees all fields and to who does not: there the difference is what hiding costs.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;

use axum::body::Body;
use axum::routing::get;
use criterion::{Criterion, criterion_group, criterion_main};
use http::Request;
use serde_json::json;
use skyloom_api::{ApiLimits, ApiParts, EdgeConfig, RateLimits, router};
use skyloom_cloud::{Caller, Cloud, CloudParts, CreateProject, DirImageRepo};
use skyloom_identity::{
    Actor, AuthScope, BuiltIn, Call, DEFAULT_DOMAIN, FileKeys, Holder, Identity, IdentityConfig,
    IdentityParts, NewApiToken, Rights, Target, Vault,
};
use skyloom_model::{Id, Ids, OsIds, ProjectId, Readiness, Resource as _, SystemClock};
use skyloom_store::{DynBackend, Key, MemoryConfig, MemoryStore, Txn, Value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Servers of the project.
const SERVERS: usize = 100;

/// The API over a memory store.
struct Api {
    routes: axum::Router,
    /// Sees all.
    operator: String,
    /// Sees what is a project's.
    member: String,
    project: ProjectId,
    server: String,
    /// What drives its identity.
    _drivers: JoinSet<()>,
}

/// So many servers of a project, as the document shows one; the last one's id.
async fn plant(backend: &DynBackend, ids: &dyn Ids, project: ProjectId) -> String {
    let document = serde_json::to_value(skyloom_api::openapi()).unwrap();
    let answer = &document["paths"]["/v1/servers/{id}"]["get"]["responses"]["200"];
    let mut server = answer["content"]["application/json"]["example"].clone();
    assert!(server["status"]["placement"].is_object());
    let mut id = String::new();
    for _ in 0..SERVERS {
        id = ids.uuid().to_string();
        server["meta"]["id"] = json!(id);
        server["meta"]["scope"] = json!({"project": project});
        let key = Key::parse(&format!("r/servers/{project}/{id}")).unwrap();
        let txn = Txn::new().put(key, Value::json(&server).unwrap());
        backend.commit(txn).await.unwrap();
    }
    id
}

/// A member of the project.
async fn member(identity: &Identity, ids: &dyn Ids, project: ProjectId) -> String {
    let editor = identity.editor();
    let user = editor
        .change(|edit| edit.create_user(DEFAULT_DOMAIN, "member", |_| {}))
        .await;
    let user = user.unwrap().id;
    let (target, role) = (Target::Project(project), BuiltIn::Member.id());
    let grant = editor.change(|edit| edit.grant(target, Actor::User(user), role, false));
    grant.await.unwrap();
    let asked = NewApiToken {
        name: "bench".to_owned(),
        holder: Holder::User {
            user,
            scope: AuthScope::Project(project),
            permissions: Vec::new(),
        },
        expires_at: None,
    };
    let root = Caller::internal("bench", Rights::of_the_cloud().unwrap(), Id::fresh(ids));
    let call = Call {
        by: &root.rights.principal,
        source: None,
        request_id: "req-bench",
    };
    let made = identity.create_token(&call, asked).await.unwrap();
    made.secret.expose().clone()
}

async fn api(images: &std::path::Path) -> Api {
    let clock = Arc::new(SystemClock::new());
    let ids = Arc::new(OsIds::new(clock.clone()));
    let backend: DynBackend = Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default()));
    let cloud = Cloud::new(CloudParts {
        backend: backend.clone(),
        clock: clock.clone(),
        ids: ids.clone(),
        images: Arc::new(DirImageRepo::open(images, 1 << 20).unwrap()),
    });
    cloud.bootstrap().await.unwrap();
    let shutdown = CancellationToken::new();
    let key = images.join("key");
    FileKeys::generate(&key, &*ids).unwrap();
    let keys = FileKeys::read(&key, &[], ids.clone()).unwrap();
    let parts = IdentityParts {
        backend: backend.clone(),
        clock: clock.clone(),
        ids: ids.clone(),
        secrets: Arc::new(Vault::new(Arc::new(keys), ids.clone())),
        audit: None,
        registry: None,
    };
    let (identity, driver) = Identity::open(parts, IdentityConfig::default()).unwrap();
    let mut drivers = JoinSet::new();
    drivers.spawn(driver.run(shutdown.clone()));
    let first = identity.bootstrap(None).await.unwrap().unwrap();
    let root = Caller::internal("bench", Rights::of_the_cloud().unwrap(), Id::fresh(&*ids));
    let named = CreateProject {
        name: "bench".to_owned(),
        ..CreateProject::default()
    };
    let project = cloud.create_project(&root, named).await.unwrap().id();
    let server = plant(&backend, &ids, project).await;
    let member = member(&identity, &ids, project).await;
    // As high as never to be reached: a bucket is asked all the same.
    let never = RateLimits::per_second(100_000_000);
    let rates = RateLimits::default().with_sources(never, never);
    let rates = rates.with_tokens(never, never, never);
    let routes = router(ApiParts {
        cloud: Arc::new(cloud),
        backend,
        authenticator: Arc::new(identity.clone()),
        identity: Some(identity),
        providers: Vec::new(),
        clock,
        ids,
        readiness: Readiness::new(),
        metrics: Arc::new(String::new),
        open_metrics: true,
        limits: ApiLimits::default(),
        edge: EdgeConfig::default().with_rates(rates),
        shutdown,
    });
    Api {
        routes,
        operator: first.token.expose().clone(),
        member,
        project,
        server,
        _drivers: drivers,
    }
}

/// A request with what a client sends along.
fn request(method: &str, path: &str, token: &str, project: &str, body: &'static str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "cloud.example:8780")
        .header("user-agent", "skyloom/0.1.0")
        .header("accept", "*/*")
        .header("accept-encoding", "gzip, br")
        .header("x-request-id", "req-01980c2e-7b7a-7000-8000-000000000001")
        .header("authorization", format!("Bearer {token}"))
        .header("x-skyloom-project", project)
        .header("content-type", "application/json")
        .body(Body::from(body))
        .unwrap()
}

fn benches(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let images = tempfile::tempdir().unwrap();
    let api = runtime.block_on(api(images.path()));
    let plain = axum::Router::new().route(
        "/v1",
        get(|| std::future::ready(r#"{"name":"skyloom","version":"0.1.0","api":"v1"}"#)),
    );
    let mut group = c.benchmark_group("request");
    let (routes, operator, member) = (&api.routes, &*api.operator, &*api.member);
    let server = &*format!("/v1/servers/{}", api.server);
    let project = &*api.project.to_string();
    let servers = "/v1/servers?limit=100";
    let capability = "/v1/store/capability";
    for (what, router, token, method, path, body) in [
        ("plain", &plain, operator, "GET", "/v1", ""),
        ("edge", routes, operator, "GET", "/v1", ""),
        (
            "edge, token and a small body",
            routes,
            operator,
            "POST",
            capability,
            "{}",
        ),
        ("server, all fields", routes, operator, "GET", server, ""),
        ("server, some hidden", routes, member, "GET", server, ""),
        ("servers, all fields", routes, operator, "GET", servers, ""),
        ("servers, some hidden", routes, member, "GET", servers, ""),
    ] {
        group.bench_function(what, |b| {
            b.to_async(&runtime).iter(|| async {
                let answer = router
                    .clone()
                    .oneshot(request(method, path, token, project, body))
                    .await
                    .unwrap();
                assert!(answer.status().is_success(), "{}", answer.status());
                black_box(answer)
            });
        });
    }
    group.finish();
}

criterion_group!(edge, benches);
criterion_main!(edge);
