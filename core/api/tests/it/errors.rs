//! Each way of asking wrongly, and its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::stream;
use serde_json::{Value as Json, json};
use skyloom_api::ApiLimits;

use crate::harness::{Api, Setup};

const FLAVORS: &str = "/v1/flavors";

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let api = Api::new().await;
    for path in [
        "/",
        "/v1/",
        "/v1/nothing",
        "/v1/servers/",
        "//evil.example/%2e%2e",
        "/v1/../etc",
        "/v1/servers/%ff/x",
    ] {
        api.get(path).await.refused(404, "route.not_found");
    }
    for (method, path, allow) in [
        ("PUT", "/v1/servers", "GET,HEAD,POST"),
        ("POST", "/healthz", "GET,HEAD"),
        ("GET", "/v1/store/get", "POST"),
        ("TRACE", "/v1/servers", "GET,HEAD,POST"),
        ("OPTIONS", "/v1/servers", "GET,HEAD,POST"),
        ("BREW", "/v1/hosts", "GET,HEAD,POST"),
    ] {
        let reply = api.call(method, path, &api.admin).send().await;
        reply.refused(405, "method.not_allowed");
        let mut methods: Vec<&str> = reply.header("allow").split(',').collect();
        methods.sort_unstable();
        assert_eq!(methods.join(","), allow, "{method} {path}");
    }
}

#[tokio::test]
async fn each_bad_body_has_its_own_answer() {
    let api = Api::new().await;
    let post = |kind: &'static str, body: String| {
        let call = api.call("POST", FLAVORS, &api.admin).body(body);
        let call = if kind.is_empty() {
            call
        } else {
            call.header("content-type", kind)
        };
        call.send()
    };
    let good = json!({"name": "f", "vcpus": 1, "memory_mib": 64, "disk_gib": 1}).to_string();
    post("application/json", String::new())
        .await
        .refused(400, "body.missing");
    post("", String::new()).await.refused(400, "body.missing");
    post("", good.clone()).await.refused(415, "body.media_type");
    post("text/plain", good.clone())
        .await
        .refused(415, "body.media_type");
    post("application/x-www-form-urlencoded", "a=b".to_owned())
        .await
        .refused(415, "body.media_type");
    post("application/json", "{".to_owned())
        .await
        .refused(400, "body.malformed");
    post("application/json", format!("{good}{good}"))
        .await
        .refused(400, "body.malformed");
    post("application/json", "[".repeat(100_000))
        .await
        .refused(400, "body.too_deep");
    post("application/json", " ".repeat((1 << 20) + 1))
        .await
        .refused(413, "body.too_large");
    post("application/json; charset=utf-8", good).await.ok(201);

    let call = api
        .call("POST", FLAVORS, &api.admin)
        .header("content-type", "application/json");
    call.header("content-encoding", "gzip")
        .body("x")
        .send()
        .await
        .refused(415, "body.media_type");
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let api = Api::new().await;
    let good = json!({"name": "f", "vcpus": 1, "memory_mib": 64, "disk_gib": 1});
    let with = |field: &str, value: Json| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for (body, field, code) in [
        (with("vcpus", json!("two")), "vcpus", "field.invalid"),
        (with("vcpus", json!(-1)), "vcpus", "field.invalid"),
        (with("vcpus", Json::Null), "vcpus", "field.invalid"),
        (with("owner", json!("me")), "owner", "field.unknown"),
        (with("project_id", json!("x")), "project_id", "field.unknown"),
        (with("id", json!("x")), "id", "field.unknown"),
        (
            with("host_labels", json!({"a": 1})),
            "host_labels.a",
            "field.invalid",
        ),
        (
            json!({"vcpus": 1, "memory_mib": 64, "disk_gib": 1}),
            "name",
            "field.missing",
        ),
        (json!([]), "body", "field.invalid"),
        (json!("x"), "body", "field.invalid"),
    ] {
        let reply = api.post(FLAVORS, body.clone()).await;
        reply.refused(422, code);
        assert_eq!(reply.json["errors"][0]["field"], field, "{body}");
        assert_eq!(reply.json["errors"][0]["code"], code, "{body}");
    }
    assert_eq!(
        api.get("/v1/flavors?name=f").await.json["items"],
        json!([]),
        "nothing was made"
    );
}

#[tokio::test]
async fn a_body_without_length_is_cut_off_and_a_slow_one_given_up() {
    let limits = ApiLimits::default()
        .with_max_body(1000)
        .with_timeouts(Duration::from_secs(30), Duration::from_millis(50));
    let api = Api::with(Setup {
        limits,
        ..Setup::default()
    })
    .await;
    let post = |body: Body| {
        api.call("POST", FLAVORS, &api.admin)
            .header("content-type", "application/json")
            .body(body)
            .send()
    };
    let endless = stream::repeat_with(|| Ok::<_, std::io::Error>("  "));
    post(Body::from_stream(endless))
        .await
        .refused(413, "body.too_large");
    let silent = stream::pending::<Result<&str, std::io::Error>>();
    post(Body::from_stream(silent))
        .await
        .refused(408, "body.too_slow");
    let broken = stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]);
    post(Body::from_stream(broken)).await.refused(400, "body.broken");
}

#[tokio::test]
async fn bad_queries_and_headers_are_refused() {
    let api = Api::new().await;
    for query in [
        "limit=x",
        "limit=-1",
        "limit=1&limit=2",
        "sort=size",
        "tenant=x",
        "name[$ne]=x",
        "limit=99999999999",
    ] {
        api.get(&format!("/v1/servers?{query}"))
            .await
            .refused(400, "query.invalid");
    }
    for (query, status, code) in [
        ("limit=0", 422, "limit.invalid"),
        ("limit=1001", 422, "limit.invalid"),
        ("label=x", 422, "label.invalid"),
        ("cursor=x", 400, "cursor.invalid"),
    ] {
        api.get(&format!("/v1/servers?{query}"))
            .await
            .refused(status, code);
    }
    api.get("/v1/tasks?state=no").await.refused(400, "query.invalid");
    api.get("/v1/watch?kinds=secrets")
        .await
        .refused(400, "kinds.unknown");

    let path = format!("/v1/flavors/{}", uuid::Uuid::nil());
    for (name, value, code) in [
        ("if-match", "42".to_owned(), "if_match.invalid"),
        ("idempotency-key", String::new(), "idempotency.key_invalid"),
        ("idempotency-key", "x".repeat(129), "idempotency.key_invalid"),
        ("idempotency-key", "\u{e9}".to_owned(), "header.invalid"),
    ] {
        let reply = api
            .call("DELETE", &path, &api.admin)
            .header(name, &value)
            .send()
            .await;
        reply.refused(400, code);
    }
    let call = api
        .call("DELETE", &path, &api.admin)
        .header("if-match", "\"1\"")
        .header("if-match", "\"2\"");
    call.send().await.refused(400, "header.invalid");
}

#[tokio::test]
async fn request_ids_are_kept_if_plain_and_made_if_not() {
    let api = Api::new().await;
    let ask = |id: &'static str| {
        api.call("GET", "/v1/nothing", "")
            .header("x-request-id", id)
            .send()
    };
    assert_eq!(ask("abc.D-1_").await.header("x-request-id"), "abc.D-1_");
    for bad in ["", "a b", "<script>", "x\u{e9}", &*"x".repeat(65).leak()] {
        let reply = ask(bad).await;
        let made = reply.header("x-request-id");
        assert!(
            made.starts_with("req-") && made.len() == 40,
            "{bad:?} became {made:?}"
        );
    }
}

#[tokio::test]
async fn a_panic_is_a_problem_and_nothing_of_it_leaks() {
    let metrics = Arc::new(|| -> String { panic!("the secret of the house") });
    let api = Api::with(Setup {
        metrics,
        ..Setup::default()
    })
    .await;
    let reply = api.get("/metrics").await;
    reply.refused(500, "internal");
    assert!(!reply.text.contains("secret"));
    api.get("/healthz").await.ok(200);
}
