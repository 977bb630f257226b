//! Who is let in, and what each role may do: enumerated from the OpenAPI document.

use std::time::Duration;

use serde_json::json;
use skyloom_model::HostId;

use crate::harness::{Api, Role, operations};

const NOWHERE: &str = "01980c2e-7b7a-7000-8000-00000000dead";
const PUBLIC: [&str; 5] = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/v1"];

fn concrete(template: &str) -> String {
    template.replace("{id}", NOWHERE).replace("{name}", "server")
}

#[tokio::test]
async fn without_a_token_nothing_answers_but_what_is_public() {
    let api = Api::new().await;
    let mut seen = 0;
    for (method, path, _) in operations() {
        // Where one proves who one is, nobody has yet.
        if PROVING.contains(&path) {
            continue;
        }
        let reply = api.call(&method, &concrete(path), "").send().await;
        if PUBLIC.contains(&path) {
            reply.ok(200);
        } else {
            reply.refused(401, "auth.required");
            assert_eq!(
                reply.header("www-authenticate"),
                "Bearer realm=\"skyloom\"",
                "{method} {path}"
            );
            seen += 1;
        }
    }
    assert!(seen > 40, "the document has only {seen} protected operations");
}

#[tokio::test]
async fn no_way_of_failing_can_be_told_from_another() {
    let api = Api::new().await;
    let member = Role::Member { project: api.project };
    let (id, gone) = api.token_until(member, None).await;
    let unknown = format!("sky_{}", "x".repeat(43));
    let soon = "2026-01-01T00:01:00Z".parse().unwrap();
    let (_, expiring) = api.token_until(member, Some(soon)).await;
    assert_eq!(api_call(&api, &expiring).send().await.status, 200);
    assert_eq!(api_call(&api, &gone).send().await.status, 200);
    api.clock.advance(Duration::from_secs(60));
    api.call("DELETE", &format!("/v1/tokens/{id}"), &api.admin)
        .send()
        .await
        .ok(204);

    let mut answers = Vec::new();
    for token in [
        &*gone,
        &unknown,
        &expiring,
        "sky_",
        "nonsense",
        &"x".repeat(10_000),
    ] {
        let reply = api_call(&api, token).send().await;
        reply.refused(401, "auth.required");
        answers.push(reply.text);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

/// With a fixed request id, so that answers can be compared.
fn api_call<'a>(api: &'a Api, token: &str) -> crate::harness::Call<'a> {
    api.call("GET", "/v1/servers", token)
        .header("x-request-id", "same")
}

const PROVING: [&str; 3] = ["/v1/auth/login", "/v1/join", "/v1/join/renew"];

/// Operations that users make, without the store's and the public ones.
fn user_operations() -> impl Iterator<Item = (String, &'static str)> {
    operations()
        .map(|(method, path, _)| (method, path))
        .filter(|(_, path)| {
            !PUBLIC.contains(path)
                && !PROVING.contains(path)
                && !path.starts_with("/v1/store/")
                && !path.starts_with("/v1/kinds")
        })
}

/// A body that is right as far as its form goes.
fn body(path: &str, method: &str) -> Option<serde_json::Value> {
    let document = &*crate::harness::DOCUMENT;
    let operation = &document["paths"][path][method.to_lowercase()];
    let example = &operation["requestBody"]["content"]["application/json"]["example"];
    (!example.is_null()).then(|| example.clone())
}

async fn try_as(api: &Api, method: &str, path: &str, token: &str) -> crate::harness::Reply {
    let call = api.call(method, &concrete(path), token);
    match body(path, method) {
        Some(body) => call.json(body).await,
        None if method == "PUT" => {
            call.header("content-type", "application/octet-stream")
                .body("x")
                .send()
                .await
        }
        None => call.send().await,
    }
}

#[tokio::test]
async fn engines_and_agents_make_no_user_calls() {
    let api = Api::new().await;
    let (_, agent) = api.host("h1").await;
    let engine = api.token(Role::Engine).await;
    for (method, path) in user_operations() {
        for token in [&agent, &engine] {
            let reply = try_as(&api, &method, path, token).await;
            let host_sends = method == "PUT" && token == &agent;
            if path.ends_with("/data") && (method == "GET" || host_sends) {
                reply.refused(404, "image.not_found"); // agents fetch images, and send what their jobs name
            } else {
                assert_eq!(reply.status, 403, "{method} {path}: {}", reply.text);
            }
        }
    }
}

#[tokio::test]
async fn readers_read_and_members_do_not_operate() {
    let api = Api::new().await;
    let reader = api.token(Role::Reader { project: api.project }).await;
    let member = api.member().await;
    // Whoever may not know of something is told that there is none: so it is with all of one host, and never with all of a kind.
    let operators = [
        "/v1/hosts",
        "/v1/hold",
        "/v1/placement/forecast",
        "/v1/placement/test",
        "/v1/placement/advice",
    ];
    // What of identity each role may is in the matrix.
    let of_identity = |path: &str| {
        let kinds = [
            "auth", "domains", "users", "groups", "roles", "grants", "trusts", "tokens", "quotas", "audit",
            "policy", "catalog", "projects",
        ];
        path.split('/').nth(2).is_some_and(|kind| kinds.contains(&kind))
    };
    for (method, path) in user_operations().filter(|(_, path)| !of_identity(path)) {
        let one = path.contains('{');
        let operating = !one && operators.iter().any(|o| path.starts_with(o)) || path.starts_with("/v1/hold");
        let flavors = path == "/v1/flavors" && method != "GET";
        let as_member = try_as(&api, &method, path, &member).await;
        assert_eq!(
            as_member.status == 403,
            operating || flavors,
            "{method} {path}: {}",
            as_member.text
        );
        let as_reader = try_as(&api, &method, path, &reader).await;
        assert_eq!(
            as_reader.status == 403,
            operating || (method != "GET" && !one && path != "/v1/projects"),
            "{method} {path}: {}",
            as_reader.text
        );
    }
}

/// Attack 8: signed requests are no way in, whether they are fresh or played again; neither are secrets in other places.
#[tokio::test]
async fn a_signed_request_proves_nothing() {
    let api = Api::new().await;
    let aws = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/region/iam/aws4_request, SignedHeaders=host;x-amz-date, \
               Signature=5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
    let signed = [
        aws.to_owned(),
        "AWS AKIDEXAMPLE:frJIUN8DYpKDtOLCwo//yllqDzg=".to_owned(),
        "Signature keyId=\"admin\",algorithm=\"hmac-sha256\",signature=\"c2ln\"".to_owned(),
        "Hawk id=\"admin\", ts=\"1353832234\", nonce=\"j4h3g2\", mac=\"bWFj\"".to_owned(),
        format!("Basic {}", api.admin),
        format!("Signature {}", api.admin),
    ];
    for header in signed {
        for _ in 0..2 {
            let call = api
                .call("GET", "/v1/servers", "")
                .header("authorization", &header)
                .header("x-amz-date", "20260101T000000Z");
            call.send().await.refused(401, "auth.required");
        }
    }
    let query =
        "/v1/servers?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a&X-Amz-Signature=b&X-Amz-Expires=60";
    api.call("GET", query, "")
        .send()
        .await
        .refused(401, "auth.required");
    let elsewhere = api
        .call("GET", "/v1/servers", "")
        .header("x-auth-token", &api.admin);
    elsewhere.send().await.refused(401, "auth.required");
}

#[tokio::test]
async fn what_is_foreign_is_not_there() {
    let api = Api::new().await;
    let other = api.project("other").await;
    let stranger = api.token(Role::Member { project: other }).await;
    let mine = api.member().await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl me";
    let made = api
        .call("POST", "/v1/keypairs", &mine)
        .json(json!({"name": "k", "public_key": key}))
        .await
        .ok(201);
    let keypair = made.json["meta"]["id"].as_str().unwrap().to_owned();
    let made = api
        .call("POST", "/v1/images", &mine)
        .json(json!({"name": "i", "format": "raw", "url": "https://images.example.org/i"}))
        .await
        .ok(202);
    let image = made.json["image"]["meta"]["id"].as_str().unwrap().to_owned();
    let task = made.json["task"]["id"].as_str().unwrap().to_owned();
    for (method, path, id) in [
        ("GET", "/v1/keypairs/{id}", &keypair),
        ("DELETE", "/v1/keypairs/{id}", &keypair),
        ("GET", "/v1/images/{id}", &image),
        ("GET", "/v1/images/{id}/data", &image),
        ("DELETE", "/v1/images/{id}", &image),
        ("PUT", "/v1/images/{id}/data", &image),
        ("GET", "/v1/tasks/{id}", &task),
        ("GET", "/v1/tasks/{id}/events", &task),
        ("POST", "/v1/tasks/{id}/cancel", &task),
    ] {
        let ask = |id: &str, token: &str| {
            let call = api
                .call(method, &path.replace("{id}", id), token)
                .header("x-request-id", "same");
            let put = method == "PUT";
            let call = if put {
                call.header("content-type", "application/octet-stream").body("x")
            } else {
                call
            };
            call.send()
        };
        let (foreign, absent) = (ask(id, &stranger).await, ask(NOWHERE, &stranger).await);
        assert_eq!(
            (foreign.status.as_u16(), &foreign.text),
            (404, &absent.text),
            "{method} {path}"
        );
        let (upper, short) = (ask(&id.to_uppercase(), &mine).await, ask("x", &mine).await);
        assert_eq!(
            (upper.status.as_u16(), short.status.as_u16()),
            (404, 404),
            "{method} {path}"
        );
    }
    for list in [
        "/v1/keypairs",
        "/v1/images",
        "/v1/tasks",
        "/v1/servers",
        "/v1/ports",
    ] {
        let seen = api.call("GET", list, &stranger).send().await.ok(200);
        assert_eq!(seen.json["items"], json!([]), "{list}");
    }
}

#[tokio::test]
async fn only_who_is_of_the_whole_system_picks_a_project() {
    let api = Api::new().await;
    let other = api.project("other").await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJX0NWVkXQ5sbKdNNMgH4k1kcaaz4Qw7oJkqHeT0iKsl me";
    let pick = |token: &str, project: &str| {
        api.call("GET", "/v1/keypairs", token)
            .header("x-skyloom-project", project)
    };
    let post = api
        .call("POST", "/v1/keypairs", &api.admin)
        .header("x-skyloom-project", "other");
    post.json(json!({"name": "k", "public_key": key})).await.ok(201);
    for project in ["other", &other.to_string()] {
        assert_eq!(
            pick(&api.admin, project).send().await.ok(200).json["items"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
    pick(&api.admin, "nowhere")
        .send()
        .await
        .refused(404, "project.not_found");
    pick(&api.admin, NOWHERE)
        .send()
        .await
        .refused(404, "project.not_found");
    let member = api.member().await;
    for project in ["other", "nowhere", ""] {
        pick(&member, project)
            .send()
            .await
            .refused(404, "project.not_found");
    }
    for project in ["default", &api.project.to_string()] {
        assert_eq!(
            pick(&member, project).send().await.ok(200).json["items"],
            json!([])
        );
    }
    let forged = api
        .call("GET", "/v1/hosts", &member)
        .header("x-roles", "admin")
        .header("x-user-id", "root");
    forged.send().await.refused(403, "auth.forbidden");
}

#[tokio::test]
async fn metrics_may_be_closed() {
    let api = Api::with(crate::harness::Setup {
        open_metrics: false,
        ..Default::default()
    })
    .await;
    let member = api.member().await;
    api.call("GET", "/metrics", "")
        .send()
        .await
        .refused(401, "auth.required");
    api.call("GET", "/metrics", &member)
        .send()
        .await
        .refused(403, "auth.forbidden");
    assert_eq!(api.get("/metrics").await.ok(200).text, "up 1\n");
}

#[tokio::test]
async fn a_host_that_is_deleted_locks_its_agent_out() {
    let api = Api::new().await;
    let (host, agent): (HostId, String) = api.host("h1").await;
    let get = || {
        api.call("POST", "/v1/store/get", &agent)
            .json(json!({"key": format!("jobs/{host}/t/j")}))
    };
    get().await.ok(200);
    api.call("DELETE", &format!("/v1/hosts/{host}"), &api.admin)
        .send()
        .await
        .ok(204);
    get().await.refused(401, "auth.required");
}
