//! Hosts that take no servers, are emptied, are off and come back.

use serde_json::json;

use crate::harness::Api;

#[tokio::test]
async fn a_host_is_closed_drained_fenced_and_taken_back() {
    let api = Api::new().await;
    let (id, _) = api.host("a").await;
    let path = format!("/v1/hosts/{id}");
    let action = |verb: &str| format!("{path}/actions/{verb}");
    let patch = async |body| api.call("PATCH", &path, &api.admin).json(body).await;

    let closed = patch(json!({"enabled": false, "why": "new firmware"}))
        .await
        .ok(200)
        .json;
    assert_eq!(closed["spec"]["closed"]["why"], "new firmware");
    assert_eq!(closed["spec"]["closed"]["drain"], false);
    patch(json!({"why": "for nothing"}))
        .await
        .refused(422, "why.invalid");
    let opened = patch(json!({"enabled": true})).await.ok(200).json;
    assert!(opened["spec"]["closed"].is_null());

    let none = json!({"at_once": 0});
    api.post(&action("drain"), none)
        .await
        .refused(422, "at_once.out_of_range");
    let drained = api
        .post(&action("drain"), json!({"why": "a fan is broken"}))
        .await
        .ok(200)
        .json;
    assert_eq!(drained["spec"]["closed"]["drain"], true);
    let plan = api.get(&format!("{path}/drain")).await.ok(200).json;
    assert_eq!((&plan["under_way"], &plan["servers"]), (&json!(true), &json!([])));
    let advice = api
        .get("/v1/placement/advice?goal=drain&host=a")
        .await
        .ok(200)
        .json;
    assert_eq!(advice["moves"], json!([]));
    api.get("/v1/placement/advice?goal=dance")
        .await
        .refused(422, "goal.invalid");

    let why = json!({"why": "its cord is pulled"});
    api.post(&action("fence"), why.clone())
        .await
        .refused(422, "fence.not_confirmed");
    api.post(&action("evacuate"), json!({}))
        .await
        .refused(409, "host.not_fenced");
    let sure = json!({"why": "its cord is pulled", "is_off": true});
    let fenced = api.post(&action("fence"), sure).await.ok(200).json;
    assert_eq!(fenced["spec"]["fenced"]["why"], why["why"]);
    let nobody = api.post(&action("evacuate"), json!({})).await.ok(200).json;
    assert_eq!((&nobody["items"], &nobody["refused"]), (&json!([]), &json!(0)));
    let swept = api.post(&action("unfence"), json!({})).await.ok(202).json;
    assert_eq!(swept["task"]["flow"], "host.sweep");
    api.post(&action("unfence"), json!({}))
        .await
        .refused(409, "host.not_fenced");
    let host = api.get(&path).await.ok(200).json;
    assert!(host["spec"]["fenced"].is_null());
    assert_eq!(host["spec"]["enabled"], false);
    for told in ["host:drain", "host:fence", "host:unfence"] {
        assert_eq!(api.audited(&format!("action={told}")).await.len(), 1, "{told}");
    }
}
