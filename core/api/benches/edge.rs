//! What the API adds to a request before and after its handler: `cargo bench -p skyloom-api --bench edge`.
//!
//! `plain` is a router of axum with the same answer and nothing around it; the others are the whole API, in-process: all of
//! observe, guard, rates and, with a token, authentication. The difference is what a request pays.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;

use axum::body::Body;
use axum::routing::get;
use criterion::{Criterion, criterion_group, criterion_main};
use http::Request;
use skyloom_api::{ApiLimits, ApiParts, EdgeConfig, RateLimits, router};
use skyloom_cloud::{Cloud, CloudParts, DirImageRepo};
use skyloom_identity::{FileKeys, Identity, IdentityConfig, IdentityParts, Vault};
use skyloom_model::{OsIds, Readiness, SystemClock};
use skyloom_store::{MemoryConfig, MemoryStore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The API over a memory store, its first token, and what drives its identity.
async fn api(images: &std::path::Path) -> (axum::Router, String, JoinSet<()>) {
    let clock = Arc::new(SystemClock::new());
    let ids = Arc::new(OsIds::new(clock.clone()));
    let backend = Arc::new(MemoryStore::new(clock.clone(), MemoryConfig::default()));
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
    (routes, first.token.expose().clone(), drivers)
}

/// A request with what a client sends along.
fn request(method: &str, path: &str, token: &str, body: &'static str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "cloud.example:8780")
        .header("user-agent", "skyloom/0.1.0")
        .header("accept", "*/*")
        .header("accept-encoding", "gzip, br")
        .header("x-request-id", "req-01980c2e-7b7a-7000-8000-000000000001")
        .header("authorization", format!("Bearer {token}"))
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
    let (api, token, _drivers) = runtime.block_on(api(images.path()));
    let plain = axum::Router::new().route(
        "/v1",
        get(|| std::future::ready(r#"{"name":"skyloom","version":"0.1.0","api":"v1"}"#)),
    );
    let mut group = c.benchmark_group("request");
    for (what, router, method, path, body) in [
        ("plain", &plain, "GET", "/v1", ""),
        ("edge", &api, "GET", "/v1", ""),
        (
            "edge, token and a small body",
            &api,
            "POST",
            "/v1/store/capability",
            "{}",
        ),
    ] {
        group.bench_function(what, |b| {
            b.to_async(&runtime).iter(|| async {
                let answer = router
                    .clone()
                    .oneshot(request(method, path, &token, body))
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
