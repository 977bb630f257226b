//! The remaining commands: what they send and print.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::binary::{bare, command, finish, run};
use crate::records::{HOST, flavor, host, id, keypair, project, server, token};
use crate::stub::{Reply, Stub, TOKEN};

#[tokio::test]
async fn the_small_records_are_made_as_asked() {
    let stub = Stub::furnished().await;
    stub.on("POST /v1/flavors", Reply::Json(201, flavor(902, "tiny")));
    stub.on("POST /v1/keypairs", Reply::Json(201, keypair(701, "new")));
    stub.on("POST /v1/projects", Reply::Json(201, project("shop")));
    let args = [
        "flavor",
        "create",
        "tiny",
        "--vcpus",
        "1",
        "--memory",
        "1G",
        "--disk",
        "5",
        "--host-label",
        "a=b",
    ];
    run(&stub, &args).await.code(0);
    let want =
        json!({"name": "tiny", "vcpus": 1, "memory_mib": 1024, "disk_gib": 5, "host_labels": {"a": "b"}});
    assert_eq!(stub.seen("POST /v1/flavors")[0].json(), want);

    let dir = tempfile::tempdir().unwrap();
    let public = dir.path().join("id.pub");
    std::fs::write(&public, "ssh-ed25519 AAAA me\n").unwrap();
    run(
        &stub,
        &[
            "keypair",
            "create",
            "new",
            "--public-key-file",
            public.to_str().unwrap(),
        ],
    )
    .await
    .code(0);
    assert_eq!(
        stub.seen("POST /v1/keypairs")[0].json(),
        json!({"name": "new", "public_key": "ssh-ed25519 AAAA me"})
    );
    let private = dir.path().join("id");
    std::fs::write(&private, "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n").unwrap();
    let refused = run(
        &stub,
        &[
            "keypair",
            "create",
            "new",
            "--public-key-file",
            private.to_str().unwrap(),
        ],
    )
    .await;
    refused.code(2).says(&["holds a private key; it was not sent"]);
    assert_eq!(stub.seen("POST /v1/keypairs").len(), 1);

    let made = run(
        &stub,
        &["project", "create", "shop", "--description", "x", "-o", "name"],
    )
    .await
    .code(0);
    assert_eq!(made.out, "shop\n");
    assert_eq!(
        stub.seen("POST /v1/projects")[0].json(),
        json!({"name": "shop", "description": "x"})
    );
}

#[tokio::test]
async fn hosts_are_added_and_turned_off_for_new_servers() {
    let stub = Stub::furnished().await;
    stub.on(
        "POST /v1/hosts",
        Reply::Json(201, json!({"host": host("n3", true), "token": "sky_agent"})),
    );
    stub.on(
        &format!("PATCH /v1/hosts/{HOST}"),
        Reply::Json(200, host("host-a", false)),
    );
    stub.on(&format!("DELETE /v1/hosts/{HOST}"), Reply::Empty(204));
    run(
        &stub,
        &["host", "add", "n3", "--label", "rack=1", "--cpu-ratio", "2"],
    )
    .await
    .code(0)
    .says(&["sky_agent"]);
    assert_eq!(
        stub.seen("POST /v1/hosts")[0].json(),
        json!({"name": "n3", "labels": {"rack": "1"}, "cpu_ratio": 2.0})
    );
    let off = run(&stub, &["host", "disable", "host-a"]).await.code(0);
    assert!(off.out.contains("up, disabled"), "{}", off.out);
    assert_eq!(
        stub.seen(&format!("PATCH /v1/hosts/{HOST}"))[0].json(),
        json!({"enabled": false})
    );
    let gone = run(&stub, &["host", "remove", "host-a", "--yes"]).await.code(0);
    assert_eq!(gone.out, "host host-a: removed\n");
}

#[tokio::test]
async fn hosts_are_emptied_and_those_that_are_off_are_fenced() {
    let stub = Stub::furnished().await;
    let step = |state: &str, why: &str| json!({"server": id(500), "name": "web-1", "state": state, "way": "live", "to": "host-b", "memory_mib": 512, "task": null, "why": why});
    let plan = |under_way: bool, servers: Vec<serde_json::Value>| json!({"host": "host-a", "closed": null, "under_way": under_way, "servers": servers, "memory_mib": 512});
    let shown = plan(false, vec![step("waits", "most memory left")]);
    stub.on(&format!("GET /v1/hosts/{HOST}/drain"), Reply::Json(200, shown));
    stub.on(
        &format!("POST /v1/hosts/{HOST}/actions/drain"),
        Reply::Json(200, host("host-a", false)),
    );
    let would = run(&stub, &["host", "drain", "host-a", "--dry-run"])
        .await
        .code(0)
        .out;
    assert!(
        would.contains("web-1") && would.contains("most memory left"),
        "{would}"
    );
    assert!(
        stub.seen(&format!("POST /v1/hosts/{HOST}/actions/drain"))
            .is_empty()
    );
    let left = run(
        &stub,
        &[
            "host",
            "drain",
            "host-a",
            "--why",
            "fan",
            "--at-once",
            "4",
            "--wait",
        ],
    )
    .await;
    left.code(6).says(&["1 servers are still on host-a"]);
    assert_eq!(
        stub.seen(&format!("POST /v1/hosts/{HOST}/actions/drain"))[0].json(),
        json!({"why": "fan", "at_once": 4})
    );

    stub.on(
        &format!("POST /v1/hosts/{HOST}/actions/fence"),
        Reply::Json(200, host("host-a", true)),
    );
    run(&stub, &["host", "fence", "host-a", "--why", "no power", "--yes"])
        .await
        .code(0);
    assert_eq!(
        stub.seen(&format!("POST /v1/hosts/{HOST}/actions/fence"))[0].json(),
        json!({"why": "no power", "is_off": true})
    );
    let reason = json!({"code": "server.disk_local", "message": "no other host sees these disks: root"});
    let asked = json!({"refused": 1, "items": [{"id": id(500), "name": "web-1", "refused": reason}]});
    stub.on(
        &format!("POST /v1/hosts/{HOST}/actions/evacuate"),
        Reply::Json(200, asked),
    );
    let some = run(&stub, &["host", "evacuate", "host-a", "--yes"]).await;
    assert!(
        some.out.contains("no other host sees these disks"),
        "{}",
        some.out
    );
    some.code(6).says(&["1 of 1 were refused"]);
}

#[tokio::test]
async fn tokens_are_shown_once_and_revoked() {
    let stub = Stub::furnished().await;
    stub.put("tokens", vec![token(600, "ci")]);
    stub.on(
        "POST /v1/tokens",
        Reply::Json(201, json!({"token": token(601, "new"), "secret": "sky_secret"})),
    );
    stub.on(&format!("DELETE /v1/tokens/{}", id(600)), Reply::Empty(204));
    let made = run(
        &stub,
        &["token", "create", "new", "--role", "engine", "-o", "json"],
    )
    .await
    .code(0);
    assert_eq!(made.json()["secret"], "sky_secret");
    let role = stub.seen("POST /v1/tokens")[0].json()["holder"].clone();
    assert_eq!(role, json!({"type": "engine"}));
    let args = [
        "token",
        "create",
        "a",
        "--role",
        "agent",
        "--host",
        "host-a",
        "--expires",
        "2027-01-01T00:00:00Z",
    ];
    run(&stub, &args).await.code(0).says(&["sky_secret"]);
    let sent = stub.seen("POST /v1/tokens")[1].json();
    let want =
        json!({"name": "a", "holder": {"type": "agent", "host": HOST}, "expires_at": "2027-01-01T00:00:00Z"});
    assert_eq!(sent, want);
    let gone = run(&stub, &["token", "revoke", "ci", "-y"]).await.code(0);
    assert_eq!(gone.out, "token ci: revoked\n");
}

#[tokio::test]
async fn a_picture_goes_into_its_file() {
    let stub = Stub::furnished().await;
    let of = format!("GET /v1/servers/{}/screenshot", id(1));
    stub.on(&of, Reply::Text(200, "\u{fffd}PNG\r\n".into()));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("web-1.png");
    let to = file.to_str().unwrap();
    let taken = run(&stub, &["server", "screenshot", "web-1", "--file", to])
        .await
        .code(0)
        .says(&["8 bytes of PNG"]);
    assert_eq!(taken.out, "");
    assert_eq!(std::fs::read(&file).unwrap(), "\u{fffd}PNG\r\n".as_bytes());
}

#[tokio::test]
async fn console_placement_and_kinds_are_printed() {
    let stub = Stub::furnished().await;
    let of = |what: &str| format!("GET /v1/servers/{}/{what}", id(1));
    stub.on(&of("console"), Reply::Text(200, "boot\r\nlogin:".into()));
    let report = json!({
        "considered": 2, "fitting": 1, "chosen": null, "compared": [], "nearest": [],
        "fallen": [{"reason": "fewer than 4096 MiB of memory left", "hosts": 1, "alone": 1}],
        "for_tenant": [], "for_operator": [],
    });
    for placement in [report, json!({"own": ["words"]}), Value::Null] {
        stub.on(
            &of("placement"),
            Reply::Json(200, json!({"task": null, "placement": placement})),
        );
    }
    stub.on(
        "GET /v1/kinds/server",
        Reply::Json(200, json!({"states": ["active"]})),
    );
    let console = run(&stub, &["server", "console", "web-1", "--bytes", "100"])
        .await
        .code(0);
    assert_eq!(console.out, "boot\r\nlogin:\n");
    assert_eq!(stub.seen(&of("console"))[0].query, "bytes=100");
    let mut why = Vec::new();
    for _ in 0..3 {
        why.push(run(&stub, &["server", "why", "web-1"]).await.code(0).out);
    }
    assert_eq!(
        why,
        [
            "web-1 is on host-a\n1 of 2 hosts fit\n  1: fewer than 4096 MiB of memory left\n",
            "web-1 is on host-a\nown:\n  - words\n",
            "web-1 is on host-a\nnothing is recorded of how its host was chosen\n",
        ]
    );
    let mut homeless = server(1, "web-1");
    homeless["status"]["placement"] = Value::Null;
    homeless["status"]["fault"] =
        json!({"code": "placement.no_host", "message": "no host has room", "hint": "ask for less"});
    stub.put("servers", vec![homeless]);
    let none = run(&stub, &["server", "why", "web-1"]).await.code(0).out;
    assert_eq!(
        none,
        "web-1 is on no host\nno host has room [placement.no_host]\nhint: ask for less\n"
    );
    let why = run(&stub, &["server", "why", "web-1", "-o", "json"])
        .await
        .code(0);
    assert_eq!(why.json(), json!({"task": null, "placement": null}));
    let kind = run(&stub, &["kind", "show", "server", "-o", "json"])
        .await
        .code(0)
        .json();
    assert_eq!(kind, json!({"states": ["active"]}));
}

#[tokio::test]
async fn changes_are_printed_as_they_come_and_gaps_are_told() {
    let stub = Stub::furnished().await;
    let change = |name, record: Value| {
        (
            name,
            json!({"kind": "servers", "id": id(1), "revision": 1, "record": record}),
        )
    };
    stub.on(
        "GET /v1/watch",
        Reply::Events(vec![
            ("ready", json!(0)),
            change("put", server(1, "web-1")),
            ("gap", json!({})),
        ]),
    );
    stub.on("GET /v1/watch", Reply::Held(vec![change("delete", Value::Null)]));
    let args = [
        "event", "tail", "--kind", "servers", "--kind", "tasks", "--count", "2", "-o", "jsonl",
    ];
    let tail = run(&stub, &args)
        .await
        .code(0)
        .says(&["some changes were missed"]);
    let lines: Vec<Value> = tail
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&lines[0]["event"], &lines[1]["event"]),
        (&json!("put"), &json!("delete"))
    );
    assert_eq!(lines[0]["record"]["meta"]["name"], "web-1");
    let seen = stub.seen("GET /v1/watch");
    assert_eq!(seen[0].query, "kinds=servers%2Ctasks");
    assert_eq!(
        seen[1].header("last-event-id"),
        None,
        "after a gap it begins anew"
    );
    let table = run(&stub, &["event", "tail", "--count", "1"]).await.code(0);
    assert!(table.out.contains("delete  servers"), "{}", table.out);
}

#[tokio::test]
async fn debug_shows_requests_without_secrets() {
    let stub = Stub::furnished().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pw");
    std::fs::write(&file, "hunter22hunter\n").unwrap();
    let path = file.to_str().unwrap();
    let args = [
        "server",
        "create",
        "x",
        "--image",
        "debian",
        "--flavor",
        "small",
        "--password-file",
        path,
        "--debug",
    ];
    let run = run(&stub, &args).await.code(5);
    let run = run.says(&[
        "curl -X GET 'http://127.0.0.1:",
        "curl -X POST",
        "$SKYLOOM_TOKEN",
        "idempotency-key: ",
    ]);
    assert!(
        !run.err.contains(TOKEN) && !run.err.contains("hunter22"),
        "{}",
        run.err
    );
    assert_eq!(
        stub.seen("POST /v1/servers")[0].json()["password"],
        "hunter22hunter"
    );
}

#[tokio::test]
async fn the_project_goes_along() {
    let stub = Stub::furnished().await;
    let mut with = command(&stub, &["server", "list"]);
    with.env("SKYLOOM_PROJECT", "shop");
    finish(with).await.code(0);
    assert_eq!(
        stub.seen("GET /v1/servers")[0].header("x-skyloom-project"),
        Some("shop")
    );
}

/// Reads one request with its body; gives its idempotency key.
async fn request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part).await.unwrap();
        text.push_str(std::str::from_utf8(&part[..read]).unwrap());
        let lower = text.to_ascii_lowercase();
        let field = |name: &str| {
            let from = lower.find(name)? + name.len();
            Some(text[from..].lines().next().unwrap_or("").trim().to_owned())
        };
        let Some((_, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length: usize = field("content-length:").map_or(0, |length| length.parse().unwrap());
        if body.len() >= length {
            return field("idempotency-key:").unwrap();
        }
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let args = ["project", "create", "shop", "-o", "name", "--endpoint", &endpoint];
    let child = finish(bare(&args));
    let server = async {
        let (mut first, _) = listener.accept().await.unwrap();
        let key = request(&mut first).await;
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        let again = request(&mut second).await;
        let body = project("shop").to_string();
        let answer = format!(
            "HTTP/1.1 201 Created\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        second.write_all(answer.as_bytes()).await.unwrap();
        (key, again)
    };
    let (run, (key, again)) = tokio::join!(child, server);
    assert_eq!(run.code(0).out, "shop\n");
    assert_eq!(key, again);
}

#[tokio::test]
async fn questions_about_placement_are_asked_and_printed() {
    let stub = Stub::furnished().await;
    let of = |verb: &str| format!("GET /v1/placement/{verb}");
    let report = json!({
        "considered": 2, "fitting": 0, "chosen": null, "compared": [], "nearest": [],
        "fallen": [{"reason": "disabled", "hosts": 2, "alone": 2}], "for_tenant": [], "for_operator": [],
    });
    let explained = json!({"flavor": "large", "fits": false, "report": report, "fitting_flavors": ["small"]});
    stub.on(&of("explain"), Reply::Json(200, explained));
    let forecast = json!({"flavor": "large", "servers": 3, "hosts": 2, "by_label": {"a": 2, "b": 1}});
    stub.on(
        &of("forecast"),
        Reply::Json(200, json!({"items": [forecast], "next": null})),
    );
    let share = json!({"host": id(9), "name": "host-a", "servers": 2});
    let tested = json!({"flavor": "large", "servers": 3, "placed": 2, "hosts": [share], "report": report});
    stub.on(&of("test"), Reply::Json(200, tested));
    let asked = [
        "placement",
        "explain",
        "large",
        "--host-label",
        "zone=a",
        "--host-label",
        "rack=b",
        "--group",
        "web",
    ];
    assert_eq!(
        run(&stub, &asked).await.code(0).out,
        "a server of large does not fit\n0 of 2 hosts fit\n  2: disabled (and nothing else for 2)\nflavors that fit: small\n"
    );
    assert_eq!(
        stub.seen(&of("explain"))[0].query,
        "host_labels=zone%3Da%2Crack%3Db&flavor=large&anti_affinity_group=web"
    );
    let counted = run(&stub, &["placement", "forecast", "--by", "zone"])
        .await
        .code(0)
        .out;
    assert!(counted.contains("a 2, b 1"), "{counted}");
    assert_eq!(stub.seen(&of("forecast"))[0].query, "by=zone");
    let placed = run(&stub, &["placement", "test", "large", "--count", "3"])
        .await
        .code(0)
        .out;
    for part in [
        "2 of 3 servers of large fit\n",
        "host-a",
        "\nnot one more: 0 of 2 hosts fit\n",
    ] {
        assert!(placed.contains(part), "{placed}");
    }
}
