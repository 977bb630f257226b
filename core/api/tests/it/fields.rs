//! Fields that take a permission of their own: who runs the cloud sees them, a member of a project does not, on every way.

use serde_json::{Value as Json, json};
use skyloom_model::{FIELD_RULES, ProjectId, Task, paths};
use skyloom_store::{Key, Outcome, Txn, Value};

use crate::harness::{Api, DOCUMENT, Events};

/// What the document shows as an answer.
fn example(path: &str) -> Json {
    let operation = &DOCUMENT["paths"][path]["get"]["responses"]["200"];
    operation["content"]["application/json"]["example"].clone()
}

async fn put(api: &Api, path: &str, record: &Json) {
    let key = Key::parse(path).unwrap();
    let txn = Txn::new().put(key, Value::json(record).unwrap());
    let done = api.backend.commit(txn).await.unwrap();
    assert!(matches!(done, Outcome::Committed { .. }));
}

/// The document's own server, volume or snapshot under a new id, in a project.
pub(crate) async fn planted(api: &Api, kind: &str, project: ProjectId) -> String {
    let mut record = example(&format!("/v1/{kind}/{{id}}"));
    let id = api.cloud.parts().ids.uuid();
    record["meta"]["id"] = json!(id);
    record["meta"]["scope"] = json!({"project": project});
    if kind == "servers" {
        record["status"]["migration"] = json!({"to": record["status"]["placement"], "live": true,
            "since": record["meta"]["updated_at"], "forced": false});
    }
    put(api, &format!("r/{kind}/{project}/{id}"), &record).await;
    id.to_string()
}

/// A task with a host's job that has begun and given something.
async fn task(api: &Api, member: &str) -> String {
    let body = json!({"name": "i", "format": "raw", "url": "https://images.example.org/i"});
    let made = api.call("POST", "/v1/images", member).json(body).await.ok(202);
    let task: Task = serde_json::from_value(made.json["task"].clone()).unwrap();
    let host = "01980c2e-7b7a-7000-8000-00000000abcd";
    let spec = json!({"id": "fetch", "kind": "fetch", "title": "fetch", "input": {"pool": "/srv/rack1-07"},
        "place": {"host": host}, "weight": 1});
    let plan = json!({"format": 1, "task": task.id, "jobs": [spec], "made_at": task.created_at});
    put(api, &paths::plan(task.id), &plan).await;
    let job = json!({"format": 1, "task": task.id, "scope": task.scope, "subject": task.subject, "generation": 1,
        "request_id": "r", "spec": spec, "want": "run", "attempt": 1, "state": "succeeded",
        "output": {"file": "/srv/rack1-07/x"}, "worker": {"lease": host, "epoch": 1},
        "error": {"code": "host.full", "message": "disk.create: full", "detail": "no room in /srv/rack1-07"}});
    put(api, &format!("jobs/{host}/{}/fetch", task.id), &job).await;
    task.id.to_string()
}

/// Whether an answer or a part of it has a host in it.
fn names_host(part: &Json) -> bool {
    let nil = uuid::Uuid::nil().to_string();
    match part {
        Json::Object(fields) => fields.iter().any(|(name, value)| {
            let own = match name.as_str() {
                "placement" | "host_name" | "worker" | "output" => !value.is_null(),
                "host" => *value != json!(nil),
                _ => false,
            };
            own || names_host(value)
        }),
        Json::Array(items) => items.iter().any(names_host),
        Json::String(text) => text.contains("rack1-07"),
        _ => false,
    }
}

#[tokio::test]
async fn a_host_is_shown_to_who_may_see_hosts_and_to_nobody_else() {
    let api = Api::new().await;
    let member = api.member().await;
    let server = planted(&api, "servers", api.project).await;
    let volume = planted(&api, "volumes", api.project).await;
    let task = task(&api, &member).await;
    for path in [
        format!("/v1/servers/{server}"),
        "/v1/servers".to_owned(),
        format!("/v1/volumes/{volume}"),
        "/v1/volumes".to_owned(),
        format!("/v1/tasks/{task}"),
    ] {
        let seen = api.get(&path).await.ok(200);
        assert!(names_host(&seen.json), "{path}: {}", seen.text);
        let own = api.call("GET", &path, &member).send().await.ok(200);
        assert!(!names_host(&own.json), "{path}: {}", own.text);
        assert!(own.text.contains(&server) || own.text.contains(&volume) || own.text.contains(&task));
    }
    // What changes the server answers with it, too.
    for (action, lock) in [("lock", true), ("unlock", false)] {
        let path = format!("/v1/servers/{server}/actions/{action}");
        let own = api.call("POST", &path, &member).send().await.ok(200);
        assert_eq!(own.json["status"]["overlays"]["locked"], lock);
        assert!(!names_host(&own.json), "{}", own.text);
    }
    let path = format!("/v1/servers/{server}/actions/protect");
    assert!(names_host(&api.post(&path, json!({})).await.ok(200).json));
}

#[tokio::test]
async fn streams_leave_out_what_answers_leave_out() {
    let api = Api::new().await;
    let member = api.member().await;
    let admin = api.admin.clone();
    let mut seen = Vec::new();
    for token in [&member, &admin] {
        let open = api.call("GET", "/v1/watch?kinds=servers,volumes", token);
        let mut events = Events::of(open.open().await);
        assert_eq!(events.next().await.unwrap().event, "ready");
        seen.push(events);
    }
    planted(&api, "servers", api.project).await;
    planted(&api, "volumes", api.project).await;
    for (events, sees) in seen.iter_mut().zip([false, true]) {
        for kind in ["servers", "volumes"] {
            let event = events.next().await.unwrap().json();
            assert_eq!(event["kind"], kind);
            assert!(event["record"]["status"].is_object());
            assert_eq!(names_host(&event["record"]), sees, "{event}");
        }
    }
    let task = task(&api, &member).await;
    for (token, sees) in [(&member, false), (&admin, true)] {
        let open = api.call("GET", &format!("/v1/tasks/{task}/events"), token);
        let event = Events::of(open.open().await).next().await.unwrap().json();
        assert_eq!(event["jobs"][0]["state"], "succeeded");
        assert_eq!(names_host(&event), sees, "{event}");
    }
}

#[tokio::test]
async fn an_explained_decision_names_the_rules_of_fields() {
    let api = Api::new().await;
    let member = api.member().await;
    for (token, sees) in [(&member, false), (&api.admin, true)] {
        for kind in ["server", "volume", "task"] {
            let question = json!({"permission": format!("{kind}:read"), "project": api.project});
            let path = "/v1/policy/actions/explain";
            let told = api.call("POST", path, token).json(question).await.ok(200);
            let rules = FIELD_RULES.iter().filter(|rule| rule.kind == kind);
            let want: Vec<Json> = rules
                .map(|rule| json!({"field": rule.path, "permission": rule.permission, "shown": sees}))
                .collect();
            assert!(!want.is_empty());
            assert_eq!(told.json["fields"], json!(want));
            let said = if sees { "shown" } else { "hidden" };
            let line = format!(
                "field {} takes host:read: {said}",
                want[0]["field"].as_str().unwrap()
            );
            assert!(
                told.json["text"].as_str().unwrap().contains(&line),
                "{}",
                told.text
            );
        }
    }
    let question = json!({"permission": "server:start", "project": api.project});
    let told = api.post("/v1/policy/actions/explain", question).await.ok(200);
    assert_eq!(told.json["fields"], json!([]));
}
