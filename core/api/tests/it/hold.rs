//! The hold over HTTP.

use serde_json::json;

use crate::harness::Api;

#[tokio::test]
async fn while_held_changes_are_refused_with_503_and_when_to_ask_again() {
    let api = Api::new().await;
    let shown = api.get("/v1/hold").await.ok(200);
    assert!(shown.json["hold"].is_null());
    assert_eq!(shown.json["incarnation"]["number"], 1);

    let set = api
        .post("/v1/hold", json!({"reason": "maintenance"}))
        .await
        .ok(200);
    assert_eq!(set.json["hold"]["reason"], "maintenance");
    api.post("/v1/hold", json!({"reason": "again"}))
        .await
        .refused(409, "hold.already");

    let flavor = json!({"name": "f", "vcpus": 1, "memory_mib": 64, "disk_gib": 1});
    let reply = api.post("/v1/flavors", flavor.clone()).await;
    reply.refused(503, "fleet.held");
    assert_eq!(reply.header("retry-after"), "30");
    assert_eq!(reply.json["retryable"], true);
    assert!(reply.json["detail"].as_str().unwrap().contains("maintenance"));
    api.get("/v1/flavors").await.ok(200);

    let release = "/v1/hold/actions/release";
    let shown = api.post(release, json!({"anyway": true})).await.ok(200);
    assert!(shown.json["hold"].is_null());
    api.post(release, json!({})).await.refused(409, "hold.none");
    api.post("/v1/flavors", flavor).await.ok(201);
}
