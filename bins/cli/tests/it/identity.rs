//! Logging in, and the nouns of identity: what is asked of the cloud, and what is shown of its answers.

mod answers;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::binary::{bare, finish, run};
use crate::records::{id, problem};
use crate::stub::{Reply, Stub, TOKEN};

/// What a login gives.
const SESSION: &str = TOKEN;
const AT: &str = "2026-01-01T00:00:00Z";

/// Alice, Bob; the group dev; the roles member and rescuer; the domain acme; the project shop.
async fn furnished() -> Stub {
    let stub = Stub::start().await;
    let flat = |n: u32, name: &str| json!({"id": id(n), "name": name, "domain": id(500), "created_at": AT});
    let user = |n: u32, name: &str| {
        let mut user = flat(n, name);
        user["kind"] = "person".into();
        user["enabled"] = true.into();
        user
    };
    stub.put(
        "domains",
        vec![json!({"id": id(500), "name": "acme", "enabled": true, "created_at": AT})],
    );
    stub.put("users", vec![user(1, "alice"), user(2, "bob")]);
    stub.put("groups", vec![flat(300, "dev")]);
    let role = |n: u32, name: &str| json!({"id": id(n), "name": name, "domain": null, "permissions": ["server:*"], "created_at": AT});
    stub.put("roles", vec![role(400, "member"), role(401, "rescuer")]);
    let project = |n: u32, name: &str, parent: Option<u32>| {
        json!({"meta": {"id": id(n), "scope": "system", "name": name, "created_at": AT, "updated_at": AT, "generation": 1},
            "spec": {"description": "", "domain": id(500), "parent": parent.map(id), "enabled": true}})
    };
    stub.put(
        "projects",
        vec![project(600, "shop", None), project(601, "web", Some(600))],
    );
    stub
}

fn at(home: &Path, args: &[&str]) -> Command {
    let mut command = bare(args);
    command.env("XDG_CONFIG_HOME", home);
    command
}

fn session() -> Reply {
    Reply::Json(
        200,
        json!({"token": SESSION, "expires_at": AT, "scope": {"type": "project", "id": id(600)}}),
    )
}

#[tokio::test]
async fn a_login_keeps_its_token_where_nobody_else_reads_it() {
    let stub = furnished().await;
    stub.on("POST /v1/auth/login", session());
    let who = json!({"name": "alice", "user": id(1), "roles": ["member"], "scope": {"type": "project", "id": id(600)}});
    stub.on("GET /v1/auth/whoami", Reply::Json(200, who));
    stub.on("POST /v1/auth/logout", Reply::Empty(204));
    let home = tempfile::tempdir().unwrap();
    let (password, code) = (home.path().join("password"), home.path().join("code"));
    std::fs::write(&password, "correct horse\n").unwrap();
    std::fs::write(&code, "123456\n").unwrap();
    let args = [
        "login",
        "alice",
        "--domain",
        "acme",
        "--endpoint",
        &stub.endpoint,
        "--project",
        "shop",
        "--password-file",
        password.to_str().unwrap(),
        "--code-file",
        code.to_str().unwrap(),
        "--debug",
    ];
    let login = finish(at(home.path(), &args)).await.code(0);
    assert!(
        !login.err.contains("horse") && !login.err.contains(SESSION) && login.out.is_empty(),
        "{login:?}"
    );
    let seen = &stub.seen("POST /v1/auth/login")[0];
    let body = json!({"user": "alice", "domain": "acme", "password": "correct horse", "code": "123456",
        "scope": {"project": "shop"}, "life_seconds": 3600});
    assert_eq!(seen.json(), body);
    assert_eq!(
        (seen.header("authorization"), seen.header("x-skyloom-project")),
        (None, None)
    );

    let dir = home.path().join("skyloom");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    assert!(read("config.toml").contains(&stub.endpoint) && !read("config.toml").contains(SESSION));
    assert!(read("credentials.toml").contains(SESSION) && !read("credentials.toml").contains("horse"));
    let mode = std::fs::metadata(dir.join("credentials.toml"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let who = finish(at(home.path(), &["whoami"])).await.code(0);
    assert!(
        who.out.contains("alice") && who.out.contains("member"),
        "{}",
        who.out
    );
    let seen = &stub.seen("GET /v1/auth/whoami")[0];
    assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {SESSION}")));
    finish(at(home.path(), &["logout"])).await.code(0);
    assert_eq!(stub.seen("POST /v1/auth/logout").len(), 1);
    assert!(!read("credentials.toml").contains(SESSION));
}

#[tokio::test]
async fn scopes_are_asked_for_as_they_are_named() {
    let stub = furnished().await;
    stub.on("POST /v1/auth/login", session());
    let home = tempfile::tempdir().unwrap();
    let password = home.path().join("password");
    std::fs::write(&password, "x").unwrap();
    for (flags, scope) in [
        (&[][..], Value::Null),
        (&["--system"], json!("system")),
        (&["--unscoped"], json!("none")),
        (&["--in-domain", "acme"], json!({"domain": "acme"})),
        (&["--project", "shop"], json!({"project": "shop"})),
    ] {
        let password = password.to_str().unwrap();
        let args = [
            &[
                "login",
                "alice",
                "--endpoint",
                &stub.endpoint,
                "--password-file",
                password,
            ][..],
            flags,
        ]
        .concat();
        finish(at(home.path(), &args)).await.code(0);
        let seen = stub.seen("POST /v1/auth/login");
        assert_eq!(seen.last().unwrap().json()["scope"], scope, "{flags:?}");
    }
}

#[tokio::test]
async fn a_refused_login_leaves_nothing_behind_and_nobody_is_asked_without_a_terminal() {
    let stub = furnished().await;
    stub.on(
        "POST /v1/auth/login",
        Reply::Json(401, problem("auth.denied", "the credentials were not accepted")),
    );
    let home = tempfile::tempdir().unwrap();
    let password = home.path().join("password");
    std::fs::write(&password, "wrong").unwrap();
    let args = [
        "login",
        "alice",
        "--endpoint",
        &stub.endpoint,
        "--password-file",
        password.to_str().unwrap(),
    ];
    let refused = finish(at(home.path(), &args)).await.code(3);
    refused.says(&["the credentials were not accepted", "password or code are wrong"]);
    assert_eq!(stub.seen("POST /v1/auth/login").len(), 1);
    assert!(!home.path().join("skyloom").exists());
    let mute = finish(at(home.path(), &["login", "alice", "--endpoint", &stub.endpoint]))
        .await
        .code(2);
    mute.says(&["--password-file"]);
    finish(at(home.path(), &["login", "alice"]))
        .await
        .code(2)
        .says(&["--endpoint"]);
    let dry = ["login", "alice", "--endpoint", &stub.endpoint, "--dry-run"];
    finish(at(home.path(), &dry))
        .await
        .code(2)
        .says(&["--dry-run goes with"]);
    assert_eq!(stub.seen("POST /v1/auth/login").len(), 1);
}

/// One command, the one change that it asks for, and the body of that.
async fn asks(args: &[&str], what: &str, answer: Reply, body: Value) {
    let stub = furnished().await;
    stub.on(what, answer);
    let mut with_output = args.to_vec();
    with_output.extend(["-o", "json"]);
    run(&stub, &with_output).await.code(0);
    let seen = stub.seen(what);
    assert_eq!((seen.len(), stub.changes()), (1, 1), "{args:?}");
    let sent = if seen[0].body.is_empty() {
        Value::Null
    } else {
        seen[0].json()
    };
    assert_eq!(sent, body, "{args:?}");
}

#[tokio::test]
async fn each_change_is_one_request_with_what_was_given() {
    let (alice, bob, dev, member, rescuer) = (id(1), id(2), id(300), id(400), id(401));
    let (acme, shop) = (id(500), id(600));
    let made = || {
        Reply::Json(
            201,
            json!({"id": id(9), "name": "x", "enabled": true, "created_at": AT}),
        )
    };
    let done = || Reply::Empty(204);
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "secret\n").unwrap();
    let file = password.path().to_str().unwrap();
    let at = |method: &str, path: &str| format!("{method} /v1/{path}");
    for (args, what, answer, body) in [
        (
            &["domain", "create", "x", "--description", "d"][..],
            at("POST", "domains"),
            made(),
            json!({"name": "x", "description": "d"}),
        ),
        (
            &["domain", "update", "acme", "--disable"],
            at("PATCH", &format!("domains/{acme}")),
            made(),
            json!({"enabled": false}),
        ),
        (
            &["domain", "delete", "acme", "--yes"],
            at("DELETE", &format!("domains/{acme}")),
            done(),
            Value::Null,
        ),
        (
            &[
                "user",
                "create",
                "x",
                "--domain",
                "acme",
                "--email",
                "x@y",
                "--service",
                "--default-project",
                "shop",
                "--password-file",
                file,
            ],
            at("POST", "users"),
            made(),
            json!({"name": "x", "domain": acme, "email": "x@y", "kind": "service", "default_project": shop, "password": "secret"}),
        ),
        (
            &["user", "update", "bob", "--enable", "--name", "rob"],
            at("PATCH", &format!("users/{bob}")),
            made(),
            json!({"enabled": true, "name": "rob"}),
        ),
        (
            &["user", "delete", "bob", "--yes"],
            at("DELETE", &format!("users/{bob}")),
            done(),
            Value::Null,
        ),
        (
            &["user", "set-password", "bob", "--password-file", file],
            at("POST", &format!("users/{bob}/actions/set-password")),
            done(),
            json!({"password": "secret"}),
        ),
        (
            &[
                "user",
                "change-password",
                "--old-password-file",
                file,
                "--password-file",
                file,
            ],
            at("POST", "users/me/actions/change-password"),
            done(),
            json!({"old": "secret", "new": "secret"}),
        ),
        (
            &["group", "create", "x"],
            at("POST", "groups"),
            made(),
            json!({"name": "x"}),
        ),
        (
            &["group", "add", "dev", "alice"],
            at("PUT", &format!("groups/{dev}/members/{alice}")),
            done(),
            Value::Null,
        ),
        (
            &["group", "remove", "dev", "alice"],
            at("DELETE", &format!("groups/{dev}/members/{alice}")),
            done(),
            Value::Null,
        ),
        (
            &[
                "role",
                "create",
                "x",
                "--permission",
                "server:*",
                "--permission",
                "*:read",
            ],
            at("POST", "roles"),
            made(),
            json!({"name": "x", "permissions": ["server:*", "*:read"]}),
        ),
        (
            &["role", "imply", "rescuer", "member"],
            at("PUT", &format!("roles/{rescuer}/implies/{member}")),
            done(),
            Value::Null,
        ),
        (
            &["role", "unimply", "rescuer", "member"],
            at("DELETE", &format!("roles/{rescuer}/implies/{member}")),
            done(),
            Value::Null,
        ),
        (
            &["grant", "add", "member", "--user", "alice", "--project", "shop"],
            at("PUT", "grants"),
            made(),
            json!({"role": member, "user": alice, "project": shop}),
        ),
        (
            &[
                "grant",
                "add",
                "member",
                "--group",
                "dev",
                "--domain",
                "acme",
                "--inherited",
            ],
            at("PUT", "grants"),
            made(),
            json!({"role": member, "group": dev, "domain": acme, "inherited": true}),
        ),
        (
            &["grant", "remove", "member", "--user", "alice", "--system"],
            at("DELETE", "grants"),
            done(),
            Value::Null,
        ),
        (
            &[
                "project",
                "update",
                "web",
                "--tag",
                "a",
                "--tag",
                "b",
                "--description",
                "",
            ],
            at("PATCH", &format!("projects/{}", id(601))),
            made(),
            json!({"tags": ["a", "b"], "description": ""}),
        ),
        (
            &["project", "delete", "web", "--yes"],
            at("DELETE", &format!("projects/{}", id(601))),
            done(),
            Value::Null,
        ),
    ] {
        asks(args, &what, answer, body).await;
    }
}
