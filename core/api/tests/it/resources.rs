//! The good ways: making, listing, showing, changing, deleting; once-only requests and preconditions.

use axum::body::Body;
use futures::stream;
use serde_json::{Value as Json, json};
use skyloom_cloud::ImageRepo as _;
use skyloom_model::{
    Clock as _, DiskFormat, Image, ImageSource, ImageSpec, ImageState, ImageStatus, Meta, Name,
    Resource as _, Scope, paths,
};
use skyloom_store::{Key, Outcome, Txn, Value};
use uuid::Uuid;

use crate::harness::{Api, Reply, Role};

fn id(record: &Json) -> String {
    record["meta"]["id"].as_str().expect("an id").to_owned()
}

async fn flavor(api: &Api, name: &str) -> Reply {
    api.post(
        "/v1/flavors",
        json!({"name": name, "vcpus": 1, "memory_mib": 64, "disk_gib": 1}),
    )
    .await
}

/// An image as an import leaves it.
pub(crate) async fn active_image(api: &Api, name: &str) -> Uuid {
    active_image_in(api, name, api.project).await
}

/// The same in another project.
pub(crate) async fn active_image_in(api: &Api, name: &str, project: skyloom_model::ProjectId) -> Uuid {
    let id = api.cloud.parts().ids.uuid();
    let image = Image {
        meta: Meta::new(
            id,
            Name::new(name).unwrap(),
            Scope::Project(project),
            api.clock.now(),
        ),
        spec: ImageSpec {
            format: DiskFormat::Raw,
            source: ImageSource::Upload,
            sha256: None,
            architecture: "x86_64".to_owned(),
            min_disk_gib: 0,
            min_memory_mib: 0,
            public: false,
        },
        status: ImageStatus {
            state: ImageState::Active,
            size_bytes: 512,
            virtual_size_bytes: 512,
            sha256: Some("0".repeat(64)),
            fault: None,
        },
    };
    let key = Key::parse(&paths::resource(Image::KIND, image.meta.scope, id)).unwrap();
    let txn = Txn::new().create(key, Value::json(&image).unwrap());
    assert!(matches!(
        api.backend.commit(txn).await.unwrap(),
        Outcome::Committed { .. }
    ));
    assert_eq!(image.id().uuid(), id);
    id
}

#[tokio::test]
async fn a_flavor_from_its_making_to_its_end() {
    let api = Api::new().await;
    let made = flavor(&api, "f").await.ok(201);
    let path = made.header("location").to_owned();
    assert_eq!(path, format!("/v1/flavors/{}", id(&made.json)));
    flavor(&api, "f").await.refused(409, "flavor.name_taken");

    let shown = api.get(&path).await.ok(200);
    assert_eq!(shown.json, made.json);
    let tag = shown.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
    let named = api.get("/v1/flavors?name=f").await.ok(200);
    assert_eq!(named.json, json!({"items": [made.json], "next": null}));

    let delete = |tag: &str| {
        api.call("DELETE", &path, &api.admin)
            .header("if-match", tag)
            .send()
    };
    delete("\"1\"").await.refused(412, "precondition.failed");
    delete(&tag).await.ok(204);
    api.get(&path).await.refused(404, "flavor.not_found");
}

#[tokio::test]
async fn lists_come_in_pages_that_hold_together() {
    let api = Api::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        flavor(&api, name).await.ok(201);
    }
    let all = api.get("/v1/flavors").await.ok(200).json["items"]
        .as_array()
        .unwrap()
        .clone();
    let (mut seen, mut path) = (Vec::new(), "/v1/flavors?limit=2".to_owned());
    loop {
        let page = api.get(&path).await.ok(200);
        let items = page.json["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        seen.extend(items.iter().cloned());
        let Some(next) = page.json["next"].as_str() else {
            break;
        };
        path = format!("/v1/flavors?limit=2&cursor={next}");
    }
    assert_eq!(seen, all);
    let foreign = api.get("/v1/flavors?limit=2").await.json["next"]
        .as_str()
        .unwrap()
        .to_owned();
    api.get(&format!("/v1/keypairs?cursor={foreign}"))
        .await
        .refused(400, "cursor.invalid");
}

#[tokio::test]
async fn the_same_key_gives_the_same_answer_once() {
    let api = Api::new().await;
    active_image(&api, "tiny").await;
    let body = json!({"name": "web", "image": "tiny", "flavor": "m1.tiny"});
    let post = |key: &'static str, body: &Json| {
        api.call("POST", "/v1/servers", &api.admin)
            .header("idempotency-key", key)
            .json(body.clone())
    };
    let first = post("k", &body).await.ok(202);
    assert!(first.json["password"].is_string(), "{}", first.text);
    let again = post("k", &body).await.ok(202);
    assert_eq!(again.json["password"], Json::Null, "a secret is shown once");
    assert_eq!(again.json["server"], first.json["server"]);
    assert_eq!(again.header("location"), first.header("location"));
    let mut other = body.clone();
    other["name"] = json!("db");
    post("k", &other).await.refused(422, "idempotency.key_reused");
    assert_eq!(
        api.get("/v1/servers").await.json["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    post("l", &body).await.ok(202);
    assert_eq!(
        api.get("/v1/servers").await.json["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn fifty_at_once_make_one() {
    let api = Api::new().await;
    let body = json!({"name": "p"});
    let asks = (0..50).map(|_| {
        api.call("POST", "/v1/projects", &api.admin)
            .header("idempotency-key", "same")
            .json(body.clone())
    });
    let answers = futures::future::join_all(asks).await;
    let first = &answers[0].json;
    assert!(
        answers.iter().all(|a| a.status == 201 && a.json == *first),
        "{answers:?}"
    );
    assert_eq!(
        api.get("/v1/projects?name=p").await.json["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_server_is_made_by_a_task_and_busy_until_then() {
    let api = Api::new().await;
    active_image(&api, "tiny").await;
    let made = api
        .post(
            "/v1/servers",
            json!({"hostname": "web-1", "image": "tiny", "flavor": "m1.tiny"}),
        )
        .await
        .ok(202);
    let (server, task) = (
        id(&made.json["server"]),
        made.json["task"]["id"].as_str().unwrap(),
    );
    assert_eq!(made.header("location"), format!("/v1/tasks/{task}"));
    assert_eq!(made.json["server"]["meta"]["name"], "web-1");
    let password = made.json["password"].as_str().unwrap();

    let path = format!("/v1/servers/{server}");
    let shown = api.get(&path).await.ok(200);
    assert!(!shown.text.contains(password));
    let detail = api.get(&format!("/v1/tasks/{task}")).await.ok(200);
    assert_eq!(detail.json["task"]["flow"], "server.create");
    assert!(!detail.text.contains(password));
    let found = api
        .get(&format!(
            "/v1/tasks?flow=server.create&subject={server}&state=queued"
        ))
        .await
        .ok(200);
    assert_eq!(found.json["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        api.get("/v1/ports").await.ok(200).json["items"][0]["spec"]["server"],
        server
    );
    assert_eq!(
        api.get(&format!("{path}/placement")).await.ok(200).json,
        json!({"task": task, "placement": null})
    );

    for action in ["start", "stop", "reboot"] {
        let reply = api
            .call("POST", &format!("{path}/actions/{action}"), &api.admin)
            .send()
            .await;
        reply.refused(409, "server.busy");
        assert_eq!(reply.json["retryable"], true);
    }
    let stop = format!("{path}/actions/stop");
    api.post(&stop, json!({"force": "yes"}))
        .await
        .refused(422, "field.invalid");
    api.post(&format!("{path}/actions/explode"), json!({}))
        .await
        .refused(404, "route.not_found");
    api.get(&format!("{path}/console"))
        .await
        .refused(409, "server.not_placed");
    api.get(&format!("{path}/screenshot"))
        .await
        .refused(409, "server.not_placed");
    api.get(&format!("{path}/console?bytes=0"))
        .await
        .refused(422, "bytes.invalid");

    let cancelled = api
        .call("POST", &format!("/v1/tasks/{task}/cancel"), &api.admin)
        .send()
        .await
        .ok(202);
    assert_eq!(cancelled.json["task"]["cancel"], true);
}

#[tokio::test]
async fn what_the_facade_finds_wrong_comes_with_its_fields() {
    let api = Api::new().await;
    active_image(&api, "tiny").await;
    for (body, code) in [
        (
            json!({"name": "a", "image": "none", "flavor": "m1.tiny"}),
            "image.not_found",
        ),
        (
            json!({"name": "a", "image": "tiny", "flavor": "none"}),
            "flavor.not_found",
        ),
        (json!({"image": "tiny", "flavor": "m1.tiny"}), "name.missing"),
        (
            json!({"name": "a", "image": "tiny", "flavor": "m1.tiny", "password": "short"}),
            "password.weak",
        ),
        (
            json!({"name": "a", "image": "tiny", "flavor": "m1.tiny", "networks": [{"vnic_type": "direct-physical"}]}),
            "network.physical_function_refused",
        ),
    ] {
        let reply = api.post("/v1/servers", body.clone()).await;
        reply.refused(422, code);
        assert!(
            !reply.json["errors"][0]["field"]
                .as_str()
                .unwrap_or_default()
                .is_empty(),
            "{}",
            reply.text
        );
    }
    assert_eq!(
        api.get("/v1/servers").await.json["items"],
        json!([]),
        "nothing was made"
    );
    assert_eq!(
        api.get("/v1/tasks").await.json["items"],
        json!([]),
        "nothing was asked"
    );
}

#[tokio::test]
async fn image_content_goes_in_and_out_as_a_stream() {
    let api = Api::new().await;
    let made = api
        .post("/v1/images", json!({"name": "i", "format": "raw"}))
        .await
        .ok(201);
    assert_eq!(
        (made.json["image"]["status"]["state"].as_str(), &made.json["task"]),
        (Some("queued"), &Json::Null)
    );
    let image = id(&made.json["image"]);
    let path = format!("/v1/images/{image}/data");
    let put = |kind: &'static str, body: Body| {
        api.call("PUT", &path, &api.admin)
            .header("content-type", kind)
            .body(body)
            .send()
    };
    put("text/plain", "x".into())
        .await
        .refused(415, "body.media_type");
    put("application/octet-stream", Body::empty())
        .await
        .refused(400, "body.missing");
    let broken = stream::iter([Ok("abc"), Err(std::io::Error::other("gone"))]);
    put("application/octet-stream", Body::from_stream(broken))
        .await
        .refused(400, "image.content_broke_off");
    let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 64 << 10]));
    put("application/octet-stream", Body::from_stream(endless))
        .await
        .refused(413, "image.too_large");
    api.get(&path).await.refused(409, "image.not_active");

    let sent = put("application/octet-stream", vec![7_u8; 5000].into())
        .await
        .ok(202);
    let task = sent.json["task"]["id"].as_str().unwrap();
    assert_eq!(sent.header("location"), format!("/v1/tasks/{task}"));
    assert_eq!(sent.json["task"]["flow"], "image.import");
    put("application/octet-stream", "x".into())
        .await
        .refused(409, "image.not_waiting");

    // As the import does at its end.
    let upload = sent.json["task"]["params"]["upload"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    api.images.publish(upload, image.parse().unwrap()).await.unwrap();
    let (_, agent) = api.host("h1").await;
    let reply = api.call("GET", &path, &agent).send().await;
    reply.refused(404, "image.not_found"); // no job of that host names the image
    let engine = api.token(Role::Engine).await;
    let got = api.call("GET", &path, &engine).send().await.ok(200);
    assert_eq!(
        (got.header("content-type"), got.header("content-length")),
        ("application/octet-stream", "5000")
    );
    assert_eq!(got.text.len(), 5000);
}

#[tokio::test]
async fn hosts_and_tokens_show_their_secret_once() {
    let api = Api::new().await;
    let (host, agent) = api.host("h1").await;
    let path = format!("/v1/hosts/{host}");
    let shown = api.get(&path).await.ok(200);
    assert!(!shown.text.contains(&agent));
    let patch = api
        .call("PATCH", &path, &api.admin)
        .json(json!({"enabled": false}))
        .await
        .ok(200);
    assert_eq!(patch.json["spec"]["enabled"], false);
    api.call("PATCH", &path, &api.admin)
        .json(json!({"status": {}}))
        .await
        .refused(422, "field.unknown");
    let stale = api
        .call("PATCH", &path, &api.admin)
        .header("if-match", shown.header("etag"));
    stale
        .json(json!({"enabled": true}))
        .await
        .refused(412, "precondition.failed");

    let holder = json!({"type": "engine"});
    let made = api
        .post("/v1/tokens", json!({"name": "ci", "holder": holder}))
        .await
        .ok(201);
    let secret = made.json["secret"].as_str().unwrap();
    let list = api.get("/v1/tokens").await.ok(200);
    assert!(!list.text.contains(secret) && list.text.contains(&id(&made.json["token"])));
    let past = json!({"name": "ci", "holder": holder, "expires_at": "2020-01-01T00:00:00Z"});
    api.post("/v1/tokens", past).await.refused(422, "token.expired");
}

#[tokio::test]
async fn kinds_tell_what_each_state_allows() {
    let api = Api::new().await;
    let kind = api.get("/v1/kinds/server").await.ok(200).json;
    let action = |name: &str| {
        let actions = kind["actions"].as_array().unwrap();
        actions.iter().find(|a| a["name"] == name).unwrap()["allowed"]
            .as_array()
            .unwrap()
            .clone()
    };
    let state = |lifecycle: &str, power: &str| json!({"lifecycle": lifecycle, "power": power});
    assert_eq!(
        action("start"),
        [
            state("active", "stopped"),
            state("active", "suspended"),
            state("active", "crashed")
        ]
    );
    assert!(action("delete").contains(&state("error", "unknown")));
    assert!(!action("stop").contains(&state("active", "stopped")));
    assert_eq!(
        kind["axes"][0]["states"][0],
        json!({"value": "building", "steady": false, "labels": {"en": "building", "zh": "创建中"}})
    );
    let all = api.get("/v1/kinds").await.ok(200).json;
    assert_eq!(all["items"][0], kind);
    api.get("/v1/kinds/nothing").await.refused(404, "kind.not_found");
}

#[tokio::test]
async fn public_answers() {
    let api = Api::new().await;
    assert_eq!(api.get("/healthz").await.ok(200).text, "ok");
    assert_eq!(
        api.get("/v1").await.ok(200).json,
        json!({"name": "skyloom", "version": "0.1.0", "api": "v1"})
    );
    let ready = api.get("/readyz?verbose").await.ok(200).json;
    assert_eq!(
        ready,
        json!({"ready": true, "phases": [{"part": "api", "phase": "watch", "state": "ready", "detail": ""}]})
    );
    let document = api.get("/openapi.json").await.ok(200).json;
    assert_eq!(document, *crate::harness::DOCUMENT);
}
