//! What is shown of the cloud's answers.

use serde_json::{Value, json};

use super::{AT, furnished};
use crate::binary::run;
use crate::records::{id, project, server};
use crate::stub::Reply;

#[tokio::test]
async fn what_is_missing_or_unknown_changes_nothing() {
    let stub = furnished().await;
    for (args, code, says) in [
        (
            &["grant", "add", "member", "--project", "shop"][..],
            2,
            "--user or --group",
        ),
        (
            &["grant", "add", "member", "--user", "alice"],
            2,
            "--project, --domain or --system",
        ),
        (
            &["grant", "add", "membre", "--user", "alice", "--system"],
            5,
            "did you mean member?",
        ),
        (&["user", "update", "alice"], 2, "nothing to change"),
        (&["user", "delete", "alice"], 2, "--yes"),
        (
            &["group", "add", "dev", "alice", "nobody"],
            5,
            "there is no user \"nobody\"",
        ),
        (&["user", "create", "x", "--dry-run"], 2, "--dry-run goes with"),
        (
            &["quota", "set", "servers=-1", "--of", "shop"],
            2,
            "RESOURCE=NUMBER",
        ),
        (
            &["policy", "explain", "alice", "server:start", "shop"],
            2,
            "names no object",
        ),
    ] {
        run(&stub, args).await.code(code).says(&[says]);
    }
    assert_eq!(stub.changes(), 0);
}

#[tokio::test]
async fn tables_show_names_and_programs_get_ids() {
    let stub = furnished().await;
    let table = run(&stub, &["user", "list"]).await.code(0).out;
    assert!(
        table.starts_with("NAME") && table.contains("acme") && !table.contains(&id(500)),
        "{table}"
    );
    let json = run(&stub, &["user", "list", "-o", "json"]).await.code(0).json();
    assert_eq!(json[0]["domain"], id(500).as_str());
    let names = run(&stub, &["user", "list", "-o", "name", "--domain", "acme"])
        .await
        .code(0)
        .out;
    assert_eq!(names, "alice\nbob\n");
    let shown = run(&stub, &["user", "show", "alice", "-o", "yaml"])
        .await
        .code(0)
        .out;
    assert!(shown.contains("name: alice"), "{shown}");
    let grant = json!({"id": "g", "role": id(400), "role_name": "member", "user": id(1), "project": id(600),
        "system": false, "inherited": false, "created_at": AT});
    stub.put("grants", vec![grant]);
    let table = run(&stub, &["grant", "list", "--user", "alice"])
        .await
        .code(0)
        .out;
    for text in ["member", "alice", "shop"] {
        assert!(table.contains(text), "{table}");
    }
    assert!(
        stub.seen("GET /v1/grants")[0]
            .query
            .contains(&format!("user={}", id(1)))
    );
    assert_eq!(
        run(&stub, &["project", "tree"]).await.code(0).out,
        "shop\n  web\n"
    );
}

#[tokio::test]
async fn a_credentials_secret_is_shown_once_and_apart() {
    let stub = furnished().await;
    stub.on(
        "GET /v1/auth/whoami",
        Reply::Json(200, json!({"user": id(1), "name": "alice"})),
    );
    let path = format!("users/{}/credentials", id(1));
    let ci = json!({"id": id(70), "name": "ci", "kind": "application", "project": id(600), "created_at": AT});
    stub.on(
        &format!("POST /v1/{path}"),
        Reply::Json(201, json!({"credential": ci, "secret": "sky_once"})),
    );
    let create = [
        "credential",
        "create",
        "ci",
        "--role",
        "member",
        "--expires",
        "2027-01-01T00:00:00Z",
    ];
    let made = run(&stub, &create)
        .await
        .code(0)
        .says(&["shown this once", "sky_once"]);
    assert!(!made.out.contains("sky_once"), "{}", made.out);
    let body = json!({"name": "ci", "roles": [id(400)], "expires_at": "2027-01-01T00:00:00Z"});
    assert_eq!(stub.seen(&format!("POST /v1/{path}"))[0].json(), body);
    let json = run(&stub, &[&create[..], &["-o", "json"]].concat())
        .await
        .code(0)
        .json();
    assert_eq!(json["secret"], "sky_once");

    stub.on(
        &format!("GET /v1/{path}"),
        Reply::Json(200, json!({"items": [ci], "next": null})),
    );
    let what = format!("DELETE /v1/{path}/{}", id(70));
    stub.on(&what, Reply::Empty(204));
    run(&stub, &["credential", "delete", "nothing", "--yes"])
        .await
        .code(5);
    let deleted = run(&stub, &["credential", "delete", "ci", "--yes"]).await.code(0);
    assert_eq!(deleted.out, "credential ci: deleted\n");
    assert_eq!(stub.seen(&what).len(), 1);
}

#[tokio::test]
async fn a_token_is_of_oneself_or_of_somebody_in_a_scope() {
    let stub = furnished().await;
    let token = json!({"id": id(90), "name": "ci", "hint": "sky_abcd", "created_at": AT,
        "holder": {"type": "user", "user": id(1), "scope": {"type": "project", "id": id(600)}, "permissions": ["*:read"]}});
    stub.on(
        "POST /v1/tokens",
        Reply::Json(201, json!({"token": token, "secret": "sky_abcdefgh"})),
    );
    let shop = json!({"type": "project", "id": id(600)});
    for (flags, holder) in [
        (&[][..], Value::Null),
        (
            &["--permission", "*:read"],
            json!({"type": "user", "permissions": ["*:read"]}),
        ),
        (
            &["--user", "bob", "--project", "shop"],
            json!({"type": "user", "user": id(2), "scope": shop}),
        ),
        (
            &["--system"],
            json!({"type": "user", "scope": {"type": "system"}}),
        ),
        (
            &["--in-domain", "acme"],
            json!({"type": "user", "scope": {"type": "domain", "id": id(500)}}),
        ),
    ] {
        let made = run(&stub, &[&["token", "create", "ci"], flags].concat())
            .await
            .code(0);
        assert!(
            made.err.contains("sky_abcdefgh") && !made.out.contains("sky_abcdefgh"),
            "{made:?}"
        );
        assert_eq!(
            stub.seen("POST /v1/tokens").last().unwrap().json()["holder"],
            holder,
            "{flags:?}"
        );
    }
    stub.put("tokens", vec![token]);
    let list = run(&stub, &["token", "list", "--prefix", "sky_abcdefgh"])
        .await
        .code(0)
        .out;
    for text in ["ci", "alice", "project", "sky_abcd"] {
        assert!(list.contains(text), "{list}");
    }
    assert!(
        stub.seen("GET /v1/tokens")[0]
            .query
            .contains("prefix=sky_abcdefgh")
    );
    let shown = run(&stub, &["token", "show", "ci", "-o", "json"])
        .await
        .code(0)
        .json();
    assert_eq!(shown["holder"]["user"], id(1).as_str());
}

#[tokio::test]
async fn setting_one_limit_keeps_the_others() {
    let stub = furnished().await;
    let path = format!("/v1/quotas/{}", id(600));
    let quota = json!({"owner": id(600), "each_project": {}, "resources":
        {"servers": {"used": 3, "limit": 10}, "vcpus": {"used": 6, "limit": null}, "volumes": {"used": 0, "limit": 5}}});
    stub.on(&format!("GET {path}"), Reply::Json(200, quota.clone()));
    stub.on(&format!("PUT {path}"), Reply::Json(200, quota));
    let shown = run(&stub, &["quota", "show", "--of", "shop"]).await.code(0).out;
    let rows: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[1], ["servers", "3", "10"], "{shown}");
    assert_eq!(rows[2], ["vcpus", "6", "unlimited"], "{shown}");
    run(
        &stub,
        &["quota", "set", "servers=20", "volumes=unlimited", "--of", "shop"],
    )
    .await
    .code(0);
    let body = json!({"limits": {"servers": 20, "volumes": null}, "each_project": {}});
    assert_eq!(stub.seen(&format!("PUT {path}"))[0].json(), body);
}

#[tokio::test]
async fn what_counting_anew_put_right_is_shown() {
    let stub = furnished().await;
    let found = json!({"corrections": [{"kind": "project", "owner": id(600), "resource": "servers", "was": 7, "is": 3}]});
    stub.on("POST /v1/quotas/actions/recount", Reply::Json(200, found));
    let shown = run(&stub, &["quota", "recount"]).await.code(0).out;
    let row: Vec<&str> = shown
        .lines()
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(row, ["project", &id(600), "servers", "7", "3"], "{shown}");
}

#[tokio::test]
async fn projects_are_made_below_others_and_in_domains() {
    let stub = furnished().await;
    stub.on("POST /v1/projects", Reply::Json(201, project("web")));
    let args = ["project", "create", "web", "--parent", "shop", "--domain", "acme"];
    run(&stub, &args).await.code(0);
    let sent = stub.seen("POST /v1/projects")[0].json();
    assert_eq!(sent["parent"], id(600).as_str(), "{sent}");
    assert_eq!(sent["domain"], id(500).as_str(), "{sent}");
    let lost = ["project", "create", "web", "--parent", "nowhere"];
    run(&stub, &lost).await.code(5).says(&["there is no project"]);
    assert_eq!(stub.changes(), 1);
}

#[tokio::test]
async fn the_audit_is_searched_and_a_broken_one_is_an_error() {
    let stub = furnished().await;
    let entry = json!({"id": id(80), "at": AT, "user": id(1), "source": "192.0.2.1", "action": "server:delete",
        "kind": "server", "name": "web-1", "outcome": "denied", "request_id": "req-1", "times": 1, "changes": []});
    stub.put("audit", vec![entry]);
    let search = [
        "audit",
        "search",
        "--user",
        "alice",
        "--action",
        "server:delete",
        "--since",
        "2026-01-01T00:00:00Z",
    ];
    let found = run(&stub, &search).await.code(0).out;
    for text in ["alice", "192.0.2.1", "server:delete", "web-1", "denied"] {
        assert!(found.contains(text), "{found}");
    }
    let query = &stub.seen("GET /v1/audit")[0].query;
    for part in [
        &*format!("user={}", id(1)),
        "action=server%3Adelete",
        "from=2026-01-01T00%3A00%3A00Z",
    ] {
        assert!(query.contains(part), "{query}");
    }
    for (whole, code) in [(true, 0), (false, 6)] {
        let stub = furnished().await;
        let report = json!({"whole": whole, "seals": 3, "entries": 40, "findings": []});
        stub.on("POST /v1/audit/actions/verify", Reply::Json(200, report));
        let verified = run(&stub, &["audit", "verify", "-o", "json"]).await.code(code);
        assert_eq!(verified.json()["seals"], 3);
    }
}

#[tokio::test]
async fn a_decision_is_explained_where_the_object_lies() {
    let stub = furnished().await;
    let mut web = server(5, "web-1");
    web["meta"]["scope"] = json!({"project": id(600)});
    stub.put("servers", vec![web]);
    let answer = json!({"effect": "allow", "rules": [], "text": "allowed by rule 0 of member\n"});
    stub.on("POST /v1/policy/actions/explain", Reply::Json(200, answer));
    let explain = |object: &'static str| ["policy", "explain", "alice", "server:start", object];
    let shop = json!({"type": "project", "id": id(600)});
    for (object, question) in [
        ("project/shop", json!({"project": id(600), "scope": shop})),
        ("server/web-1", json!({"project": id(600), "scope": shop})),
        (
            "domain/acme",
            json!({"domain": id(500), "scope": {"type": "domain", "id": id(500)}}),
        ),
        (
            "user/bob",
            json!({"domain": id(500), "owner": id(2), "scope": {"type": "domain", "id": id(500)}}),
        ),
        ("system", json!({"scope": {"type": "system"}})),
    ] {
        let said = run(&stub, &explain(object)).await.code(0);
        assert_eq!(said.out, "allowed by rule 0 of member\n");
        let mut question = question;
        question["user"] = id(1).into();
        question["permission"] = "server:start".into();
        let seen = stub.seen("POST /v1/policy/actions/explain");
        assert_eq!(seen.last().unwrap().json(), question, "{object}");
    }
    let name = run(&stub, &[&explain("system")[..], &["-o", "name"]].concat())
        .await
        .code(0);
    assert_eq!(name.out, "allow\n");
}
