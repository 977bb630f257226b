//! Events, operators' orders, sweeps and bounds on unfinished tasks, over HTTP.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value as Json, json};
use skyloom_cloud::TaskLimits;
use skyloom_model::{Clock as _, Scope, TaskId, paths};
use skyloom_store::{Key, Txn, Value};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::{Api, Events, Role, Setup};

/// A task that nobody carries out.
async fn import(api: &Api, token: &str) -> TaskId {
    let body = json!({"name": "i", "format": "raw", "url": "https://images.example.org/i"});
    let made = api.call("POST", "/v1/images", token).json(body).await.ok(202);
    made.json["task"]["id"].as_str().unwrap().parse().unwrap()
}

/// Writes a task's record as an engine would.
async fn put(api: &Api, id: TaskId, change: impl FnOnce(&mut Json)) {
    let at = Key::parse(&paths::task(Scope::Project(api.project), id)).unwrap();
    let found = api.backend.get(&at).await.unwrap().unwrap();
    let mut task: Json = found.value.parse().unwrap();
    change(&mut task);
    let txn = Txn::new().replace(at, found.modified, Value::json(&task).unwrap());
    assert!(api.backend.commit(txn).await.unwrap().committed().is_some());
}

async fn stuck(api: &Api) -> TaskId {
    let id = import(api, &api.admin).await;
    put(api, id, |task| {
        task["state"] = json!("stuck");
        task["resume"] = json!("unwinding");
        task["reason"] = json!({"code": "task.undo_failed", "message": "cannot undo"});
    })
    .await;
    id
}

#[tokio::test]
async fn events_are_listed_filtered_and_watched() {
    let api = Api::new().await;
    let member = api.member().await;
    let mut watched = Events::of(api.call("GET", "/v1/watch?kinds=events", &member).open().await);
    assert_eq!(watched.next().await.unwrap().event, "ready");
    let (first, second) = (import(&api, &member).await, import(&api, &member).await);
    let all = api.get("/v1/events").await.ok(200);
    let items = all.json["items"].as_array().unwrap();
    assert_eq!(items.len(), 2);
    assert_eq!(
        (&items[0]["kind"], &items[0]["task"]),
        (&json!("task_accepted"), &json!(first))
    );
    assert_eq!(items[0]["message"], "image.import of i was asked for by t");
    for (query, count) in [
        (format!("task={second}"), 1),
        (
            format!("subject={}", items[0]["subject"]["id"].as_str().unwrap()),
            1,
        ),
        ("kind=task_ended".to_owned(), 0),
        ("kind=task_accepted&limit=1".to_owned(), 1),
    ] {
        let found = api.get(&format!("/v1/events?{query}")).await.ok(200);
        assert_eq!(found.json["items"].as_array().unwrap().len(), count, "{query}");
    }
    api.get("/v1/events?kind=nonsense")
        .await
        .refused(400, "query.invalid");
    api.get("/v1/events?limit=0").await.refused(422, "limit.invalid");
    let put = watched.next().await.unwrap();
    assert_eq!(
        (put.event.as_str(), &put.json()["record"]["task"]),
        ("put", &json!(first))
    );

    let other = api.project("other").await;
    let stranger = api.token(Role::Reader { project: other }).await;
    let theirs = api.call("GET", "/v1/events", &stranger).send().await.ok(200);
    assert_eq!(theirs.json["items"], json!([]));
}

#[tokio::test]
async fn an_operator_orders_and_the_stream_waits_for_what_becomes_of_it() {
    let api = Api::new().await;
    let id = stuck(&api).await;
    let path = format!("/v1/tasks/{id}");
    let mut events = Events::of(
        api.call("GET", &format!("{path}/events"), &api.admin)
            .open()
            .await,
    );
    assert_eq!(events.next().await.unwrap().json()["task"]["state"], "stuck");
    assert_eq!(events.next().await, None, "nothing happens before an order");
    api.call("POST", &format!("{path}/cancel"), &api.admin)
        .send()
        .await
        .refused(409, "task.stuck");

    for verb in ["retry", "skip", "abandon"] {
        let action = format!("{path}/actions/{verb}");
        let member = api.member().await;
        let denied = api.call("POST", &action, &member).json(json!({"why": "x"})).await;
        denied.refused(403, "auth.forbidden");
        api.post(&action, json!({"why": ""}))
            .await
            .refused(422, "why.invalid");
        api.post(&action, json!({})).await.refused(422, "field.missing");
        api.call("POST", &action, &api.admin)
            .send()
            .await
            .refused(400, "body.missing");
        let given = api.post(&action, json!({"why": "so it is"})).await.ok(202);
        assert_eq!(given.header("location"), path);
        let order = given.json["task"]["orders"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (&order["verb"], &order["why"]),
            (&json!(verb), &json!("so it is"))
        );
        api.post(&action, json!({"why": "again"}))
            .await
            .refused(409, "task.order_open");

        let mut events = Events::of(
            api.call("GET", &format!("{path}/events"), &api.admin)
                .open()
                .await,
        );
        assert_eq!(events.next().await.unwrap().json()["task"]["state"], "stuck");
        put(&api, id, |task| {
            for order in task["orders"].as_array_mut().unwrap() {
                order["carried_out"] = json!(true);
            }
        })
        .await;
        let carried_out = events.next().await.unwrap().json();
        assert_eq!(carried_out["task"]["state"], "stuck", "it did not help");
        assert_eq!(events.next().await, None);
    }
    put(&api, id, |task| task["state"] = json!("failed")).await;
    api.post(&format!("{path}/actions/retry"), json!({"why": "late"}))
        .await
        .refused(409, "task.not_stuck");
    let told = api.get("/v1/events?kind=task_ordered").await.ok(200);
    assert_eq!(told.json["items"].as_array().unwrap().len(), 3);
    let kind = api.get("/v1/kinds/task").await.ok(200);
    let actions = kind.json["actions"].as_array().unwrap();
    let names: Vec<&Json> = actions.iter().map(|a| &a["name"]).collect();
    assert_eq!(names, ["cancel", "retry", "skip", "abandon"]);
    assert_eq!(actions[1]["allowed"], json!([{"state": "stuck"}]));
}

#[tokio::test]
async fn a_host_is_swept_by_a_task() {
    let api = Api::new().await;
    let (host, _) = api.host("h1").await;
    let path = format!("/v1/hosts/{host}/actions/sweep");
    let looked = api.call("POST", &path, &api.admin).send().await.ok(202);
    assert_eq!(looked.json["task"]["params"], json!({"remove": false}));
    let id = looked.json["task"]["id"].as_str().unwrap();
    assert_eq!(looked.header("location"), format!("/v1/tasks/{id}"));
    let detail = api.get(&format!("/v1/tasks/{id}")).await.ok(200);
    assert_eq!(detail.json["task"]["flow"], "host.sweep");
    assert_eq!(
        (&detail.json["running"], &detail.json["plan"]),
        (&json!([]), &Json::Null)
    );
    let removes = api.post(&path, json!({"remove": true})).await.ok(202);
    assert_eq!(removes.json["task"]["params"], json!({"remove": true}));
    let member = api.member().await;
    api.call("POST", &path, &member)
        .send()
        .await
        .refused(404, "host.not_found");
}

#[tokio::test]
async fn archived_tasks_are_listed_shown_and_followed() {
    let api = Api::new().await;
    let member = api.member().await;
    let (old, open) = (import(&api, &member).await, import(&api, &member).await);
    let ended = api.clock.now();
    put(&api, old, |task| {
        task["state"] = json!("failed");
        task["reason"] = json!({"code": "image.fetch_failed", "message": "no answer"});
        task["ended_at"] = json!(ended);
    })
    .await;
    let before = api.get(&format!("/v1/tasks/{old}")).await.ok(200);
    assert_eq!(before.json["archived"], false);
    api.clock.advance(Duration::from_secs(8 * 24 * 3600));
    // The task and both acceptances.
    assert_eq!(api.cloud.forget_old().await.unwrap(), 3);
    let ids = async |query: &str| {
        let page = api
            .call("GET", &format!("/v1/tasks{query}"), &member)
            .send()
            .await
            .ok(200);
        let items = page.json["items"].as_array().unwrap().iter();
        items
            .map(|t| t["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids("").await, [open.to_string()]);
    for query in [
        "?archived=true".to_owned(),
        "?archived=true&state=failed&kind=images&name=i&code=image&actor=t".to_owned(),
        format!("?archived=true&ended_after={ended}"),
    ] {
        assert_eq!(ids(&query).await, [old.to_string()], "{query}");
    }
    for query in [
        "?archived=true&state=done".to_owned(),
        "?archived=true&actor=nobody".to_owned(),
        format!("?archived=true&ended_before={ended}"),
        "?state=failed".to_owned(),
    ] {
        assert!(ids(&query).await.is_empty(), "{query}");
    }
    for wrong in ["ended_after=yesterday", "archived=perhaps", "archive=true"] {
        api.get(&format!("/v1/tasks?{wrong}"))
            .await
            .refused(400, "query.invalid");
    }

    let path = format!("/v1/tasks/{old}");
    let after = api.get(&path).await.ok(200);
    assert_eq!(after.json["archived"], true);
    assert_eq!(after.json["task"], before.json["task"]);
    assert_eq!(after.header("etag"), before.header("etag"));
    let mut events = Events::of(api.call("GET", &format!("{path}/events"), &member).open().await);
    assert_eq!(events.next().await.unwrap().json()["archived"], true);
    assert_eq!(events.next().await, None, "it has ended");
    api.post(&format!("{path}/cancel"), json!({}))
        .await
        .refused(409, "task.ended");
    let told = api.get("/v1/events?archived=true").await.ok(200);
    assert_eq!(told.json["items"].as_array().unwrap().len(), 2);
    assert_eq!(api.get("/v1/events").await.ok(200).json["items"], json!([]));

    let other = api.project("other").await;
    let stranger = api.token(Role::Reader { project: other }).await;
    let theirs = api
        .call("GET", "/v1/tasks?archived=true", &stranger)
        .send()
        .await
        .ok(200);
    assert_eq!(theirs.json["items"], json!([]));
    api.call("GET", &path, &stranger)
        .send()
        .await
        .refused(404, "task.not_found");
}

#[tokio::test]
async fn too_many_unfinished_tasks_are_429_with_retry_after() {
    let api = Api::with(Setup {
        tasks: TaskLimits {
            per_project: 2,
            in_all: 100,
        },
        ..Setup::default()
    })
    .await;
    let (mut running, stop) = (JoinSet::new(), CancellationToken::new());
    let (cloud, until) = (api.cloud.clone(), stop.clone());
    running.spawn(async move { cloud.keep_tidy(until).await });
    while api.cloud.unfinished_tasks().is_none() {
        tokio::task::yield_now().await;
    }
    let body = json!({"name": "i", "format": "raw", "url": "https://images.example.org/i"});
    for _ in 0..2 {
        api.post("/v1/images", body.clone()).await.ok(202);
    }
    let refused = api.post("/v1/images", body).await;
    refused.refused(429, "tasks.too_many");
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&wait));
    assert_eq!(refused.json["retryable"], true);
    let hint = refused.json["hint"].as_str().unwrap();
    assert!(hint.contains(&format!("{wait} s")), "{hint}");
    api.get("/v1/images").await.ok(200);
    stop.cancel();
    while running.join_next().await.is_some() {}
}
