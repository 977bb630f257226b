//! What the edge lets through, how often, and what it says of where a request comes from.

mod attacks;
mod frames;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ConnectInfo;
use http::Request;
use serde_json::json;
use skyloom_api::{EdgeConfig, RateLimits, Source};
use tower::ServiceExt as _;

use crate::harness::{Api, Role, Setup, operations};

async fn limited(rates: RateLimits) -> Api {
    Api::with(Setup {
        edge: EdgeConfig::default().with_rates(rates),
        ..Setup::default()
    })
    .await
}

#[tokio::test]
async fn each_token_has_its_own_rate_of_each_class() {
    let one = RateLimits::per_second(1);
    let api = limited(RateLimits::unlimited().with_tokens(one, one, one)).await;
    let member = api.member().await;
    let read = || api.get("/v1/flavors");
    for _ in 0..5 {
        read().await.ok(200);
    }
    let refused = read().await;
    refused.refused(429, "rate.exceeded");
    assert_eq!(
        (refused.header("retry-after"), &refused.json["retryable"]),
        ("1", &json!(true))
    );
    api.call("GET", "/v1/flavors", &member).send().await.ok(200);

    let flavor = |name: &str| json!({"name": name, "vcpus": 1, "memory_mib": 64, "disk_gib": 1});
    for name in ["a", "b", "c", "d", "e"] {
        api.post("/v1/flavors", flavor(name)).await.ok(201);
    }
    api.post("/v1/flavors", flavor("f"))
        .await
        .refused(429, "rate.exceeded");
    for _ in 0..5 {
        api.get("/v1/watch").await.ok(200);
    }
    api.get("/v1/watch").await.refused(429, "rate.exceeded");

    api.clock.advance(Duration::from_secs(2));
    read().await.ok(200);
    read().await.ok(200);
    read().await.refused(429, "rate.exceeded");
    api.post("/v1/flavors", flavor("f")).await.ok(201);
    let made = api.get("/v1/flavors?name=f").await;
    made.refused(429, "rate.exceeded");
}

/// Attack 78: who floods is refused, and nobody else.
#[tokio::test]
async fn agents_have_a_rate_of_their_own_and_engines_none() {
    let one = RateLimits::per_second(1);
    let api = limited(
        RateLimits::unlimited()
            .with_agents(one)
            .with_tokens(one, one, one),
    )
    .await;
    let (_, agent) = api.host("h").await;
    let engine = api.token(Role::Engine).await;
    let ask = |token: &str| {
        let call = api.call("POST", "/v1/store/capability", token);
        call.json(json!({}))
    };
    for _ in 0..5 {
        ask(&agent).await.ok(200);
    }
    let (_, other) = api.host("h2").await;
    for _ in 0..1000 {
        ask(&agent).await.refused(429, "rate.exceeded");
    }
    ask(&other).await.ok(200);
    for _ in 0..50 {
        ask(&engine).await.ok(200);
    }
}

#[tokio::test]
async fn who_is_not_let_in_is_slowed_down_by_source_and_nobody_else_is() {
    let one = RateLimits::per_second(1);
    let api = limited(RateLimits::unlimited().with_sources(one, one)).await;
    let ask = async |from: &str, path: &str, token: &str| {
        let from: SocketAddr = from.parse().unwrap();
        let mut request = Request::get(path).header("authorization", format!("Bearer {token}"));
        request.extensions_mut().unwrap().insert(ConnectInfo(from));
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = api.router.clone().oneshot(request).await.unwrap();
        response.status().as_u16()
    };
    let wrong = format!("sky_{}", "x".repeat(43));
    for path in ["/v1/servers", "/healthz", "/nothing", "/v1/hosts", "/v1"] {
        assert_ne!(ask("192.0.2.1:5", path, &wrong).await, 429, "{path}");
    }
    for path in ["/v1/servers", "/healthz", "/nothing", "/v1/hosts", "/v1"] {
        assert_eq!(ask("192.0.2.1:6", path, &wrong).await, 429, "{path}");
    }
    // Whoever has a good token at the same address is not kept out by them; nor is anybody elsewhere.
    assert_eq!(ask("192.0.2.1:7", "/v1/servers", &api.admin).await, 200);
    assert_eq!(ask("192.0.2.2:5", "/v1/servers", &wrong).await, 401);
    for host in 0..5_u16 {
        let from = format!("[2001:db8::{host:x}]:5");
        assert_eq!(ask(&from, "/v1/servers", &wrong).await, 401);
    }
    let neighbour = ask("[2001:db8::ffff]:5", "/v1/servers", &wrong).await;
    assert_eq!(neighbour, 429, "a network of 64 bits is one source");
}

#[tokio::test]
async fn by_default_ten_thousand_guesses_do_not_pass_and_the_defaults_let_people_work() {
    let api = limited(RateLimits::default()).await;
    let wrong = format!("sky_{}", "x".repeat(43));
    let mut looked_at = 0;
    for _ in 0..10_000 {
        let status = api.call("GET", "/v1/servers", &wrong).send().await.status;
        looked_at += u32::from(status == 401);
    }
    assert_eq!(looked_at, 500);
    for _ in 0..1000 {
        api.get("/v1/flavors").await.ok(200);
    }
}

#[tokio::test]
async fn every_operation_carries_the_security_headers_and_none_is_told_to_insist_without_tls() {
    let api = Api::new().await;
    for (method, path, _) in operations() {
        let path = path.replace("{id}", "x").replace("{name}", "server");
        for token in ["", &api.admin] {
            let reply = api
                .call(&method, &path, token)
                .header("origin", "https://evil.example")
                .send()
                .await;
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                (
                    "content-security-policy",
                    "default-src 'none'; frame-ancestors 'none'",
                ),
                ("referrer-policy", "no-referrer"),
                ("cache-control", "no-store"),
                ("strict-transport-security", ""),
                ("access-control-allow-origin", ""),
            ] {
                assert_eq!(reply.header(name), value, "{method} {path} {name}");
            }
        }
    }
}

#[tokio::test]
async fn routes_of_others_can_stand_behind_the_edge_too() {
    use axum::routing::get;
    let show = async |axum::Extension(source): axum::Extension<Source>, headers: http::HeaderMap| {
        format!("{} {}", source.name(), headers.len())
    };
    let routes = axum::Router::new().route("/show", get(show)).route(
        "/v3/auth/tokens",
        axum::routing::post(async || http::StatusCode::CREATED),
    );
    let clock = skyloom_model::ManualClock::new();
    let ids = std::sync::Arc::new(skyloom_model::SeededIds::new(clock.clone(), 1));
    let config = EdgeConfig::default()
        .with_trusted_proxies(["10.0.0.0/8".parse().unwrap()])
        .with_rates(RateLimits::unlimited().with_sources(RateLimits::per_second(1), None));
    let routes = skyloom_api::protect(routes, config, std::sync::Arc::new(clock), ids);
    let ask = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let from: SocketAddr = "10.0.0.1:5".parse().unwrap();
        request.extensions_mut().unwrap().insert(ConnectInfo(from));
        let answer = routes
            .clone()
            .oneshot(request.body(axum::body::Body::empty()).unwrap());
        let answer = answer.await.unwrap();
        let (head, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        (head, String::from_utf8(body.to_vec()).unwrap())
    };
    let claims = [
        ("x-forwarded-for", "198.51.100.9"),
        ("x-user-id", "admin"),
        ("host", "x"),
    ];
    let (_, shown) = ask("GET", "/show", &claims).await;
    assert_eq!(
        shown, "198.51.100.9 1",
        "the client's address, and the host alone"
    );
    let (head, problem) = ask("GET", "/show", &[("host", "x/y")]).await;
    assert_eq!(head.status, 400);
    assert!(
        problem.contains("request.host") && head.headers.contains_key("x-request-id"),
        "{problem}"
    );
    for _ in 0..5 {
        assert_eq!(ask("POST", "/v3/auth/tokens", &[]).await.0.status, 201);
    }
    let (head, problem) = ask("POST", "/v3/auth/tokens", &[]).await;
    assert_eq!(
        (head.status.as_u16(), &head.headers["retry-after"]),
        (429, &"1".parse().unwrap())
    );
    assert!(problem.contains("rate.exceeded"), "{problem}");
}
