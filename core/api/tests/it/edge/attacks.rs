//! Attacks on what is inside of a request, by their numbers in the threat list, each with the answer that it must get.

use serde_json::json;

use crate::harness::{Api, Reply, Role, operations};

const FLAVORS: &str = "/v1/flavors";

async fn post(api: &Api, path: &str, body: impl Into<axum::body::Body>) -> Reply {
    let call = api
        .call("POST", path, &api.admin)
        .header("content-type", "application/json");
    call.body(body).send().await
}

/// A path of the document with ids that nothing has.
fn concrete(template: &str) -> String {
    let path = template.replace("{name}", "server");
    path.replace("{id}", "01980c2e-7b7a-7000-8000-00000000dead")
}

#[tokio::test]
async fn attack_12_headers_that_claim_to_be_somebody_are_as_if_absent() {
    let api = Api::new().await;
    let member = api.member().await;
    let claims = [
        ("x-user-id", "admin"),
        ("x-user-name", "admin"),
        ("x-roles", "admin"),
        ("x-is-admin-project", "true"),
        ("x-project-id", "00000000-0000-0000-0000-000000000000"),
        ("x-identity-status", "Confirmed"),
        ("x-forwarded-user", "admin"),
        ("x-remote-user", "admin"),
        ("remote-user", "admin"),
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1"),
        ("x-http-method-override", "DELETE"),
        ("x-original-url", "/healthz"),
        ("x-client-cert", "host"),
    ];
    for (method, path) in [
        ("GET", "/v1/servers"),
        ("GET", "/v1/hosts"),
        ("POST", "/v1/projects"),
    ] {
        for token in ["", &member, &api.admin] {
            let plain = api.call(method, path, token).header("x-request-id", "same");
            let mut claiming = api.call(method, path, token).header("x-request-id", "same");
            for (name, value) in claims {
                claiming = claiming.header(name, value);
            }
            let (plain, claiming) = (plain.send().await, claiming.send().await);
            assert_eq!(
                (plain.status, plain.text),
                (claiming.status, claiming.text),
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn attack_25_nesting_ends_at_25_in_every_body() {
    let api = Api::new().await;
    let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    for n in [26, 1000, 100_000] {
        post(&api, FLAVORS, nested(n)).await.refused(400, "body.too_deep");
        post(&api, FLAVORS, "[".repeat(n))
            .await
            .refused(400, "body.too_deep");
        let inside = format!("{{\"name\": {}}}", nested(n));
        post(&api, FLAVORS, inside).await.refused(400, "body.too_deep");
        post(&api, FLAVORS, "{\"a\":".repeat(n))
            .await
            .refused(400, "body.too_deep");
    }
    post(&api, FLAVORS, nested(25))
        .await
        .refused(422, "field.invalid");
    let bodies =
        operations().filter(|(_, _, op)| !op["requestBody"]["content"]["application/json"].is_null());
    let mut seen = 0;
    for (method, path, _) in bodies {
        let call = api.call(&method, &concrete(path), &api.admin);
        let call = call.header("content-type", "application/json");
        let reply = call.body("[".repeat(100_000)).send().await;
        let refused = (reply.status == 400 && reply.code() == "body.too_deep") || reply.status == 404;
        assert!(refused, "{method} {path}: {}", reply.text);
        seen += u32::from(reply.status == 400);
    }
    assert!(seen > 10, "{seen} operations have looked at their bodies");
}

#[tokio::test]
async fn attack_25_an_agents_documents_are_as_flat_as_anybodys() {
    let api = Api::new().await;
    let (host, agent) = api.host("h").await;
    let commit = |token: &str, n: usize| {
        let value = format!("{}{}", "[".repeat(n), "]".repeat(n));
        let body =
            format!("{{\"writes\": [{{\"put\": {{\"key\": \"agents/{host}/x\", \"value\": {value}}}}}]}}");
        let call = api.call("POST", "/v1/store/commit", token);
        call.header("content-type", "application/json").body(body).send()
    };
    commit(&agent, 26).await.refused(400, "body.too_deep");
    let deep = commit(&agent, 25).await;
    assert_ne!(deep.code(), "body.too_deep", "{}", deep.text);
    let engine = api.token(Role::Engine).await;
    commit(&engine, 120).await.ok(200);
}

#[tokio::test]
async fn attack_26_every_body_is_bounded() {
    let api = Api::new().await;
    let bodies =
        operations().filter(|(_, _, op)| !op["requestBody"]["content"]["application/json"].is_null());
    for (method, path, _) in bodies {
        let store = path.starts_with("/v1/store/");
        let most = if store {
            skyloom_store::wire::MAX_REQUEST_BYTES
        } else {
            1 << 20
        };
        let call = api.call(&method, &concrete(path), &api.admin);
        let call = call.header("content-type", "application/json");
        let reply = call.body(" ".repeat(most + 1)).send().await;
        let refused = reply.code() == "body.too_large" || reply.status == 404;
        assert!(refused, "{method} {path}: {}", reply.text);
    }
}

#[tokio::test]
async fn attack_27_what_is_not_one_json_text_is_malformed() {
    let api = Api::new().await;
    let field = |value: &str| {
        format!("{{\"name\": \"f\", \"vcpus\": {value}, \"memory_mib\": 64, \"disk_gib\": 1}}").into_bytes()
    };
    for (body, status) in [
        (field("NaN"), 400),
        (field("Infinity"), 400),
        (field("1e400"), 400),
        (field("01"), 400),
        (field("+1"), 400),
        (field("18446744073709551617"), 422),
        (field("-0"), 422),
        (field("1.5"), 422),
        (field("\"\\ud800\""), 400),
        (field("1, \"vcpus\": 2"), 422),
        (b"\xef\xbb\xbf{}".to_vec(), 400),
        (b"{\"name\": \"\xff\"}".to_vec(), 400),
        (b"{\"name\": \"a\0b\"}".to_vec(), 400),
        (b"{\"name\": \"f\"}\0".to_vec(), 400),
        (b"\x1f\x8b\x08".to_vec(), 400),
    ] {
        let shown = String::from_utf8_lossy(&body).into_owned();
        let reply = post(&api, FLAVORS, body).await;
        assert_eq!(reply.status.as_u16(), status, "{shown:?}: {}", reply.text);
    }
    assert_eq!(
        api.get("/v1/flavors?name=f").await.json["items"],
        json!([]),
        "nothing was made"
    );
}

#[tokio::test]
async fn attack_29_other_types_and_packed_bodies_are_refused_unread() {
    let api = Api::new().await;
    for (kind, coding) in [
        ("text/plain", "identity"),
        ("application/xml", "identity"),
        ("application/yaml", "identity"),
        ("multipart/form-data; boundary=x", "identity"),
        ("application/json-patch+json", "identity"),
        ("application/json", "gzip"),
        ("application/json", "br"),
        ("application/json", "gzip, identity"),
        ("application/json", "deflate"),
    ] {
        let call = api.call("POST", FLAVORS, &api.admin);
        let call = call
            .header("content-type", kind)
            .header("content-encoding", coding);
        let body = futures::stream::repeat_with(|| Ok::<_, std::io::Error>("x"));
        let reply = call.body(axum::body::Body::from_stream(body)).send().await;
        reply.refused(415, "body.media_type");
    }
}

#[tokio::test]
async fn attack_32_paths_lead_nowhere_else() {
    let api = Api::new().await;
    for path in [
        "//evil.example/%2f..",
        "/..;/v1/servers",
        "/%00",
        "/v1/servers/%00",
        "/v1%2fservers",
        "/v1/servers/..%2f..%2fhealthz",
        "/v1/./servers",
        "/v1//servers",
        "/V1/servers",
        "/v1/servers;x=y",
        "/\\evil.example",
    ] {
        let reply = api.get(path).await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text);
        assert_eq!(reply.header("location"), "", "{path}");
    }
}

#[tokio::test]
async fn attack_33_methods_are_what_they_say() {
    let api = Api::new().await;
    for (method, path, _) in operations() {
        for other in ["TRACE", "CONNECT", "OPTIONS", "PROPFIND", "get"] {
            let call = api.call(other, &concrete(path), &api.admin);
            let call = call.header("x-http-method-override", &method);
            let reply = call.header("x-method-override", &method).send().await;
            assert_eq!(reply.status, 405, "{other} {path}: {}", reply.text);
        }
    }
}
