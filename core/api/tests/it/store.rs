//! The store protocol over HTTP, for those who have the whole store.

use axum::response::Response;
use futures::StreamExt as _;
use serde_json::{Value as Json, json};
use skyloom_store::Revision;

use crate::harness::{Api, Role, Setup};

#[tokio::test]
async fn engines_have_the_whole_store() {
    let api = Api::new().await;
    let engine = api.token(Role::Engine).await;
    let ask = |what: &str, body: Json| api.call("POST", &format!("/v1/store/{what}"), &engine).json(body);
    // Not by `json!`: numbers must pass as they are written.
    let put = r#"{"guards": [{"absent": "a/b"}], "writes": [{"put": {"key": "a/b", "value": {"x":1.50}}}]}"#;
    let commit = || {
        let call = api.call("POST", "/v1/store/commit", &engine);
        call.header("content-type", "application/json").body(put).send()
    };
    let revision = commit().await.ok(200).json["committed"]["revision"]
        .as_u64()
        .unwrap();
    let refused = commit().await.ok(200).json;
    assert_eq!(refused, json!({"conflict": {"guard": 0, "current": revision}}));
    let got = ask("get", json!({"key": "a/b"})).await.ok(200);
    assert!(
        got.text.contains("{\"x\":1.50}"),
        "as it was written: {}",
        got.text
    );
    assert_eq!(got.json["item"]["modified"], revision);
    assert_eq!(
        ask("get", json!({"key": "a/c"})).await.ok(200).json,
        json!({"item": null})
    );
    let listed = ask("list", json!({"prefix": "a"})).await.ok(200).json;
    assert_eq!(
        (listed["items"].as_array().unwrap().len(), &listed["more"]),
        (1, &json!(false))
    );

    let lease = json!({"name": "engines/e1", "holder": "me", "ttl_ms": 10_000, "mode": "acquire"});
    let epoch = ask("lease-grant", lease.clone()).await.ok(200).json["granted"]["epoch"]
        .as_u64()
        .unwrap();
    assert_eq!(
        ask("lease-grant", lease).await.ok(200).json["held"]["holder"],
        "me"
    );
    let renew = json!({"name": "engines/e1", "epoch": epoch, "ttl_ms": 10_000});
    assert_eq!(ask("lease-renew", renew.clone()).await.ok(200).json, "held");
    assert_eq!(
        ask("leases", json!({"prefix": "engines"})).await.ok(200).json["leases"][0]["epoch"],
        epoch
    );
    assert_eq!(
        ask("lease-revoke", json!({"name": "engines/e1", "epoch": epoch}))
            .await
            .ok(200)
            .json,
        json!({})
    );
    assert_eq!(ask("lease-renew", renew).await.ok(200).json, "lost");
    assert_eq!(ask("capability", json!({})).await.ok(200).json["durable"], false);
}

#[tokio::test]
async fn users_have_no_part_of_it() {
    let api = Api::new().await;
    for role in [
        Role::Member { project: api.project },
        Role::Reader { project: api.project },
    ] {
        let token = api.token(role).await;
        let get = api
            .call("POST", "/v1/store/get", &token)
            .json(json!({"key": "a"}))
            .await;
        get.refused(403, "auth.forbidden");
        let watch = api
            .call("POST", "/v1/store/watch", &token)
            .json(json!({"prefix": "", "after": 0}))
            .await;
        watch.refused(403, "auth.forbidden");
    }
}

#[tokio::test]
async fn what_the_store_refuses_goes_back_as_it_said_it() {
    let api = Api::new().await;
    let twice = json!({"writes": [{"delete": {"key": "a"}}, {"delete": {"key": "a"}}]});
    let reply = api.post("/v1/store/commit", twice).await;
    reply.refused(422, "store.invalid");
    assert_eq!(
        (&reply.json["store"]["kind"], &reply.json["store"]["operation"]),
        (&json!("invalid"), &json!("commit"))
    );
    let future = json!({"prefix": "a", "at": 999_999});
    api.post("/v1/store/list", future)
        .await
        .refused(422, "store.invalid");
    let many: Vec<Json> = (0..200)
        .map(|n| json!({"delete": {"key": format!("k/{n}")}}))
        .collect();
    api.post("/v1/store/commit", json!({"writes": many}))
        .await
        .refused(413, "store.too_large");
    let forever = json!({"name": "x", "epoch": 1, "ttl_ms": u64::MAX});
    api.post("/v1/store/lease-renew", forever)
        .await
        .refused(422, "store.invalid");
    let nothing = json!({"name": "x", "holder": "me", "ttl_ms": 0, "mode": "acquire"});
    api.post("/v1/store/lease-grant", nothing)
        .await
        .refused(422, "store.invalid");
    for (what, body) in [
        ("get", json!({"key": "a//b"})),
        ("get", json!({"key": ""})),
        ("get", json!({"key": "a b"})),
        ("get", json!({"key": "a\u{0}"})),
        ("get", json!({"key": "a", "more": 1})),
        ("list", json!({"prefix": "/"})),
        ("list", json!({"prefix": "a", "limit": -1})),
        ("commit", json!({"writes": [{"put": {"key": "a"}}]})),
        ("commit", json!({"guards": [{"present": "a"}]})),
        ("watch", json!({"prefix": "a"})),
    ] {
        let reply = api.post(&format!("/v1/store/{what}"), body.clone()).await;
        // The prefix "/" is the same as none.
        let want = if what == "list" && body["prefix"] == "/" {
            200
        } else {
            422
        };
        assert_eq!(reply.status, want, "{what} {body}: {}", reply.text);
    }
}

/// Lines of an open watch.
struct Lines {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Lines {
    fn of(response: Response) -> Self {
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    async fn any(&mut self) -> Option<Json> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let line = serde_json::from_str(line).unwrap();
                self.text = rest.to_owned();
                return Some(line);
            }
            let chunk = tokio::time::timeout(std::time::Duration::from_secs(30), self.body.next());
            self.text
                .push_str(std::str::from_utf8(&chunk.await.expect("a line in time")?.unwrap()).unwrap());
        }
    }

    /// The next line that is no heartbeat.
    async fn next(&mut self) -> Option<Json> {
        loop {
            let line = self.any().await?;
            if line.get("progress").is_none() {
                return Some(line);
            }
        }
    }
}

async fn watch(api: &Api, body: Json) -> Lines {
    let call = api
        .call("POST", "/v1/store/watch", &api.admin)
        .header("content-type", "application/json");
    Lines::of(call.body(body.to_string()).open().await)
}

async fn put(api: &Api, key: &str, value: Json) -> u64 {
    let done = api
        .post(
            "/v1/store/commit",
            json!({"writes": [{"put": {"key": key, "value": value}}]}),
        )
        .await
        .ok(200);
    done.json["committed"]["revision"].as_u64().unwrap()
}

#[tokio::test]
async fn a_watch_is_lines_with_heartbeats_and_ends_with_the_server() {
    let api = Api::new().await;
    let before = put(&api, "w/1", json!(1)).await;
    let mut lines = watch(&api, json!({"prefix": "w", "after": before})).await;
    put(&api, "other/1", json!(1)).await;
    let revision = put(&api, "w/2", json!({"a": "x\ny"})).await;
    let line = lines.next().await.unwrap();
    assert_eq!(line["commit"]["revision"], revision);
    assert_eq!(line["commit"]["changes"][0]["put"]["value"], json!({"a": "x\ny"}));
    let beat = lines.any().await.unwrap();
    assert_eq!(
        beat,
        json!({"progress": {"revision": revision}}),
        "nothing more is claimed than was sent"
    );
    api.shutdown.cancel();
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn a_lost_position_is_a_gap_and_the_end() {
    let api = Api::with(Setup {
        history: 4,
        ..Setup::default()
    })
    .await;
    let before = put(&api, "w/0", json!(0)).await;
    for n in 1..20 {
        put(&api, &format!("w/{n}"), json!(n)).await;
    }
    for after in [before, 1 << 40] {
        let mut lines = watch(&api, json!({"prefix": "w", "after": after})).await;
        let line = lines.next().await.unwrap();
        assert!(line["gap"]["floor"].is_u64(), "{line}");
        assert_eq!(lines.next().await, None);
    }
    assert!(api.memory.revision() > Revision(before));
}

#[tokio::test]
async fn a_revoked_token_loses_its_open_watch() {
    let api = Api::new().await;
    let engine = api.token(Role::Engine).await;
    let call = api
        .call("POST", "/v1/store/watch", &engine)
        .header("content-type", "application/json");
    let mut lines = Lines::of(
        call.body(json!({"prefix": "w", "after": 0}).to_string())
            .open()
            .await,
    );
    assert!(lines.any().await.is_some());
    let tokens = api.get("/v1/tokens?name=t").await.json;
    let id = tokens["items"][0]["meta"]["id"].as_str().unwrap();
    api.call("DELETE", &format!("/v1/tokens/{id}"), &api.admin)
        .send()
        .await
        .ok(204);
    while lines.any().await.is_some() {}
}
