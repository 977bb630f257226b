//! A store that hangs, callers that want too much.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::json;
use skyloom_api::ApiLimits;
use skyloom_model::{Phase, Readiness};
use skyloom_store::{
    Capability, DynBackend, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent, WatchOptions,
};

use crate::harness::{Api, Setup};

/// Passes everything through, but lists below `slow` never end, and below `broken` fail.
#[derive(Debug)]
struct Troubled(DynBackend);

#[async_trait]
impl Store for Troubled {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.0.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        match prefix.as_str() {
            "slow/" => std::future::pending().await,
            "broken/" => Err(Error::new(ErrorKind::Unavailable, "list")),
            _ => self.0.list(prefix, options).await,
        }
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        if txn.writes.iter().any(|w| w.key().as_str() == "unknown") {
            return Err(Error::new(ErrorKind::Unknown, "commit"));
        }
        self.0.commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.0.capability()
    }
}
impl Watch for Troubled {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.0.watch(prefix, options)
    }
}
#[async_trait]
impl Leases for Troubled {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.0.grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.0.renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.0.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.0.leases(prefix).await
    }
}

async fn troubled(limits: ApiLimits) -> Api {
    let wrap = |backend| Arc::new(Troubled(backend)) as DynBackend;
    Api::with(Setup {
        limits,
        wrap,
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn a_store_that_hangs_is_given_up_and_one_that_fails_is_told() {
    let limits = ApiLimits::default().with_timeouts(Duration::from_millis(50), Duration::from_secs(10));
    let api = troubled(limits).await;
    let reply = api.post("/v1/store/list", json!({"prefix": "slow"})).await;
    reply.refused(504, "request.timeout");
    assert_eq!(reply.json["retryable"], true);
    let reply = api.post("/v1/store/list", json!({"prefix": "broken"})).await;
    reply.refused(503, "store.unavailable");
    assert_eq!(
        (reply.header("retry-after"), &reply.json["store"]["kind"]),
        ("1", &json!("unavailable"))
    );
    let commit = json!({"writes": [{"put": {"key": "unknown", "value": 1}}]});
    let reply = api.post("/v1/store/commit", commit).await;
    reply.refused(504, "store.unknown");
    assert_eq!(
        reply.json["retryable"], false,
        "nobody may try this again without looking"
    );
}

#[tokio::test]
async fn one_token_cannot_take_all_seats() {
    let api = troubled(ApiLimits::default().with_max_requests(3, 2)).await;
    let member = api.member().await;
    let hang = || api.post("/v1/store/list", json!({"prefix": "slow"}));
    let (mut first, mut second) = (Box::pin(hang()), Box::pin(hang()));
    let begun = |poll: std::task::Poll<_>| assert!(poll.is_pending());
    begun(futures::poll!(&mut first));
    begun(futures::poll!(&mut second));
    let refused = api.get("/v1/servers").await;
    refused.refused(429, "caller.too_many");
    assert_eq!(refused.header("retry-after"), "1");
    api.call("GET", "/v1/servers", &member).send().await.ok(200);
    api.call("GET", "/healthz", "").send().await.ok(200);
    drop(first);
    api.get("/v1/servers").await.ok(200);
}

#[tokio::test]
async fn all_tokens_together_cannot_take_more_than_there_is() {
    let api = troubled(ApiLimits::default().with_max_requests(1, 1)).await;
    let mut hanging = Box::pin(api.post("/v1/store/list", json!({"prefix": "slow"})));
    assert!(futures::poll!(&mut hanging).is_pending());
    let refused = api.get("/v1/servers").await;
    refused.refused(503, "server.overloaded");
    assert_eq!(
        (refused.header("retry-after"), &refused.json["retryable"]),
        ("1", &json!(true))
    );
    drop(hanging);
    api.get("/v1/servers").await.ok(200);
}

#[tokio::test]
async fn open_streams_are_counted_until_they_are_let_go() {
    let api = Api::with(Setup {
        limits: ApiLimits::default().with_max_streams(10, 1),
        ..Setup::default()
    })
    .await;
    let open = api.call("GET", "/v1/watch", &api.admin).open().await;
    assert_eq!(open.status(), 200);
    api.get("/v1/watch").await.refused(429, "caller.too_many");
    let watch = json!({"prefix": "a", "after": 0});
    api.post("/v1/store/watch", watch)
        .await
        .refused(429, "caller.too_many");
    drop(open);
    assert_eq!(
        api.call("GET", "/v1/watch", &api.admin).open().await.status(),
        200
    );
}

#[tokio::test]
async fn readiness_is_asked_each_time() {
    let readiness = Readiness::new();
    readiness.pending("api", Phase::Watch, "waits");
    let api = Api::with(Setup {
        readiness: readiness.clone(),
        ..Setup::default()
    })
    .await;
    assert_eq!(
        api.get("/readyz").await.ok(503).json,
        json!({"ready": false, "phases": [{"part": "api", "phase": "watch", "state": "pending", "detail": "waits"}]})
    );
    readiness.done("api", Phase::Watch, "follows");
    api.get("/readyz").await.ok(200);
}
