//! `?dry_run=plan` on every change, and plans that were shown.

use http::StatusCode;
use serde_json::{Value as Json, json};
use skyloom_model::{HostFacts, HostId, Resources, Scope, paths};
use skyloom_store::{Key, Txn, Value};

use crate::harness::{Api, operations};
use crate::resources::active_image;

/// A host that reports room.
async fn host(api: &Api, name: &str) -> HostId {
    let (id, _) = api.host(name).await;
    let at = Key::parse(&paths::resource("hosts", Scope::System, id.uuid())).unwrap();
    let found = api.backend.get(&at).await.unwrap().unwrap();
    let mut host: skyloom_model::Host = found.value.parse().unwrap();
    host.status.reachable = true;
    host.status.facts = Some(HostFacts {
        capacity: Resources {
            vcpus: 8,
            memory_mib: 16_384,
            disk_gib: 100,
        },
        architecture: "x86_64".to_owned(),
        hypervisor: "fake".to_owned(),
        hypervisor_version: "1".to_owned(),
        accelerator: "none".to_owned(),
        accelerator_reason: String::new(),
        traits: Vec::new(),
    });
    let txn = Txn::new().replace(at, found.modified, Value::json(&host).unwrap());
    assert!(api.backend.commit(txn).await.unwrap().committed().is_some());
    id
}

fn web() -> Json {
    json!({"name": "web", "image": "tiny", "flavor": "m1.tiny"})
}

#[tokio::test]
async fn a_dry_run_answers_200_with_what_would_be_done() {
    let api = Api::new().await;
    active_image(&api, "tiny").await;
    host(&api, "rack1").await;
    let shown = api.post("/v1/servers?dry_run=plan", web()).await.ok(200);
    assert_eq!(shown.header("content-type"), "application/json");
    let preview = &shown.json;
    assert_eq!(
        (&preview["flow"], &preview["subject"]["name"]),
        (&json!("server.create"), &json!("web"))
    );
    assert_eq!(preview["steps"][0]["place"], "rack1");
    assert_eq!(preview["reservation"]["host"]["name"], "rack1");
    assert_eq!(api.get("/v1/servers").await.ok(200).json["items"], json!([]));

    let member = api.member().await;
    let theirs = api
        .call("POST", "/v1/servers?dry_run=plan", &member)
        .json(web())
        .await
        .ok(200);
    assert_eq!(theirs.json["reservation"]["host"], Json::Null);
    assert!(!theirs.text.contains("rack1"), "{}", theirs.text);

    for bad in ["dry_run=true", "dry_run=", "dry_run=plan&dry_run=plan"] {
        let refused = api.post(&format!("/v1/servers?{bad}"), web()).await;
        refused.refused(400, "dry_run.invalid");
    }
    let flavor = json!({"name": "f", "vcpus": 1, "memory_mib": 64, "disk_gib": 1});
    let shown = api.post("/v1/flavors?dry_run=plan", flavor).await.ok(200);
    assert_eq!(
        shown.json["changes"],
        json!([{"change": "created", "kind": "flavors", "id": null, "name": "f"}])
    );
    let no_host = json!({"name": "web", "image": "tiny", "flavor": "m1.tiny", "host_labels": {"gpu": "yes"}});
    api.post("/v1/servers?dry_run=plan", no_host)
        .await
        .refused(409, "placement.no_host");
}

#[tokio::test]
async fn a_shown_plan_is_listed_and_applied_once() {
    let api = Api::new().await;
    active_image(&api, "tiny").await;
    host(&api, "rack1").await;
    let shown = api.post("/v1/servers?dry_run=plan", web()).await.ok(200);
    let id = shown.json["plan"].as_str().unwrap();
    let path = format!("/v1/plans/{id}");
    let plan = api.get(&path).await.ok(200);
    assert_eq!(plan.json["preview"], shown.json);
    assert!(!plan.header("etag").is_empty());
    let list = api.get("/v1/plans").await.ok(200);
    assert_eq!(list.json["items"], json!([plan.json]));

    let other = api.project("other").await;
    let stranger = api.token(crate::harness::Role::Member { project: other }).await;
    let apply = format!("{path}/actions/apply");
    api.call("GET", &path, &stranger)
        .send()
        .await
        .refused(404, "plan.not_found");
    api.call("POST", &apply, &stranger)
        .send()
        .await
        .refused(404, "plan.not_found");

    let applied = api.call("POST", &apply, &api.admin).send().await.ok(202);
    let task = &applied.json["task"];
    assert_eq!(
        (&task["state"], &task["flow"]),
        (&json!("running"), &json!("server.create"))
    );
    assert_eq!(
        applied.header("location"),
        format!("/v1/tasks/{}", task["id"].as_str().unwrap())
    );
    assert!(applied.json["password"].is_string());
    api.call("POST", &apply, &api.admin)
        .send()
        .await
        .refused(409, "plan.applied");
    let now = api.get(&path).await.ok(200);
    assert_eq!(
        (&now.json["applied"], &now.json["preview"]),
        (&task["id"], &shown.json)
    );
    let server = task["subject"]["id"].as_str().unwrap();
    let why = api.get(&format!("/v1/servers/{server}/placement")).await.ok(200);
    assert_eq!(
        (&why.json["task"], &why.json["placement"]),
        (&task["id"], &shown.json["placement"])
    );

    let next = api.post("/v1/servers?dry_run=plan", web()).await.ok(200);
    let next = next.json["plan"].as_str().unwrap().to_owned();
    api.post("/v1/servers", web()).await.ok(202);
    let image = api.get("/v1/images").await.json["items"][0]["meta"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    api.call("DELETE", &format!("/v1/images/{image}"), &api.admin)
        .send()
        .await
        .ok(202);
    let moved = api
        .call("POST", &format!("/v1/plans/{next}/actions/apply"), &api.admin)
        .send()
        .await;
    moved.refused(409, "plan.world_moved");
    assert!(moved.json["hint"].as_str().unwrap().contains("dry run"));
}

/// Every change of the document is refused, or shown; none is made.
#[tokio::test]
async fn no_change_is_made_by_a_dry_run() {
    let api = Api::new().await;
    let image = active_image(&api, "tiny").await.to_string();
    let host = host(&api, "rack1").await;
    let flavor = api.get("/v1/flavors").await.json["items"][0]["meta"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl me";
    let keypair = api
        .post("/v1/keypairs", json!({"name": "k", "public_key": key}))
        .await
        .ok(201);
    let keypair = keypair.json["meta"]["id"].as_str().unwrap().to_owned();
    let made = api.post("/v1/servers", web()).await.ok(202);
    let (server, task) = (
        made.json["server"]["meta"]["id"].as_str(),
        made.json["task"]["id"].as_str(),
    );
    let waiting = api
        .post("/v1/images", json!({"name": "w", "format": "raw"}))
        .await
        .ok(201);
    let waiting = waiting.json["image"]["meta"]["id"].as_str().unwrap().to_owned();
    let token = api.get("/v1/tokens").await.json["items"][0]["meta"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = revision(&api).await;
    let mut shown = 0;
    for (method, path, operation) in operations() {
        if method == "GET" || path.starts_with("/v1/store") {
            continue;
        }
        let id = match path.split('/').nth(2).unwrap() {
            "servers" => server.unwrap(),
            "tasks" => task.unwrap(),
            "images" if path.ends_with("/data") => &waiting,
            "images" => &image,
            "hosts" => &host.to_string(),
            "flavors" => &flavor,
            "keypairs" => &keypair,
            "tokens" => &token,
            "plans" => "01980c2e-7b7a-7000-8000-000000000001",
            _ => "",
        };
        let call = api.call(
            &method,
            &format!("{}?dry_run=plan", path.replace("{id}", id)),
            &api.admin,
        );
        let content = &operation["requestBody"]["content"];
        let reply = if let Some(body) = content.get("application/json") {
            call.json(body["example"].clone()).await
        } else if content.is_object() {
            call.header("content-type", "application/octet-stream")
                .body("bytes")
                .send()
                .await
        } else {
            call.send().await
        };
        assert!(
            reply.status == StatusCode::OK || reply.status.is_client_error(),
            "{method} {path}: {} {}",
            reply.status,
            reply.text
        );
        shown += u32::from(reply.status == StatusCode::OK);
    }
    assert!(shown >= 10, "only {shown} were shown");
    // Nothing but shown plans was written.
    for area in [
        "r",
        "names",
        "secrets",
        "tasks",
        "active",
        "plans",
        "claims",
        "events",
        "idempotency",
        "identity",
    ] {
        let below = skyloom_store::Prefix::parse(area).unwrap();
        let page = api.backend.list(&below, Default::default()).await.unwrap();
        assert!(page.items.iter().all(|kv| kv.modified <= before), "{area}");
    }
}

async fn revision(api: &Api) -> skyloom_store::Revision {
    let all = skyloom_store::Prefix::all();
    api.backend.list(&all, Default::default()).await.unwrap().revision
}
