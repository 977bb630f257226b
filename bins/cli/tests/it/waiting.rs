//! Work that is started: waited for or not, well ended or not.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::binary::{command, finish, run};
use crate::records::{TASK, document, id, server, task};
use crate::stub::{Reply, Stub};

const CREATE: [&str; 7] = [
    "server", "create", "web-1", "--image", "debian", "--flavor", "small",
];

fn create(more: &[&'static str]) -> Vec<&'static str> {
    CREATE.iter().chain(more).copied().collect()
}

fn events() -> String {
    format!("GET /v1/tasks/{TASK}/events")
}

/// A stub that takes a create and then reports these documents.
async fn creating(report: Reply) -> Stub {
    let stub = Stub::furnished().await;
    let accepted =
        json!({"server": server(1, "web-1"), "task": task("queued", Value::Null), "password": "made-up-pw"});
    stub.on("POST /v1/servers", Reply::Json(202, accepted));
    stub.on(&events(), report);
    stub
}

fn good() -> Vec<(&'static str, Value)> {
    vec![
        ("task", document("running", Value::Null, "started", "")),
        ("task", document("running", Value::Null, "succeeded", "started")),
        ("task", document("done", Value::Null, "succeeded", "succeeded")),
    ]
}

fn ended(state: &str, reason: Value) -> Reply {
    Reply::Events(vec![("task", document(state, reason, "succeeded", "failed"))])
}

#[tokio::test]
async fn waiting_in_a_log_prints_each_step_once() {
    let stub = creating(Reply::Events(good())).await;
    let run = run(&stub, &create(&["--wait", "--key", "me", "--metadata", "a=b"]))
        .await
        .code(0);
    assert_eq!(
        run.err,
        "the password (shown this once): made-up-pw\n✓ make the root disk  0.4s\n✓ start the virtual machine  0.4s\n"
    );
    assert!(run.out.contains("web-1  running  host-a"), "{}", run.out);

    let seen = &stub.seen("POST /v1/servers")[0];
    assert_eq!(
        seen.json(),
        json!({"name": "web-1", "image": id(800), "flavor": id(900), "keypairs": [id(700)], "config_drive": true,
            "metadata": {"a": "b"}, "start": true})
    );
    assert!(seen.header("idempotency-key").is_some_and(|key| key.len() == 36));
    assert!(
        seen.header("x-request-id")
            .is_some_and(|id| id.starts_with("req-"))
    );
}

#[tokio::test]
async fn not_waiting_is_the_default_in_a_script_and_gives_the_task() {
    let stub = creating(Reply::Events(good())).await;
    let run1 = run(&stub, &create(&["--no-wait", "-o", "name"])).await.code(0);
    assert_eq!(run1.out, format!("{TASK}\n"));
    let run2 = run(&stub, &create(&["-o", "json"])).await.code(0);
    let body = run2.json();
    assert_eq!(
        (&body["task"]["id"], &body["password"]),
        (&json!(TASK), &json!("made-up-pw"))
    );
    assert_eq!(run2.err, "", "the password is in the document");
    run(&stub, &create(&[]))
        .await
        .code(0)
        .says(&["skyloom task wait"]);
    assert!(stub.seen(&events()).is_empty());
}

#[tokio::test]
async fn a_waited_create_gives_the_final_document() {
    let stub = creating(Reply::Events(good())).await;
    let body = run(&stub, &create(&["--wait", "-o", "json"]))
        .await
        .code(0)
        .json();
    assert_eq!(
        (&body["task"]["state"], &body["server"]["status"]["power"]),
        (&json!("done"), &json!("running"))
    );
    let name = run(&stub, &create(&["--wait", "-o", "name"])).await.code(0);
    assert_eq!(name.out, "web-1\n");
}

#[tokio::test]
async fn a_failed_task_is_exit_9_with_its_reason() {
    let reason = json!({"code": "disk.full", "message": "the pool has no room", "hint": "free some"});
    let stub = creating(ended("failed", reason)).await;
    let run = run(&stub, &create(&["--wait"])).await.code(9);
    let text = format!(
        "error: server.create of web-1 failed; everything is as before\n  the pool has no room\n  hint: free some\n  \
         code disk.full · request req-of-task · task {TASK}\n"
    );
    let run = run.says(&["✗ start the virtual machine", &text]);
    assert_eq!(run.out, "");
}

#[tokio::test]
async fn no_room_is_exit_7_and_other_ends_are_9() {
    for (state, code, exit, text) in [
        ("failed", "placement.no_host", 7, "failed"),
        ("failed", "quota.vcpus", 7, "failed"),
        ("cancelled", "task.cancelled", 9, "was cancelled"),
        ("stuck", "disk.busy", 9, "needs an operator"),
    ] {
        let stub = creating(ended(state, json!({"code": code, "message": "so it is"}))).await;
        run(&stub, &create(&["--wait"]))
            .await
            .code(exit)
            .says(&[text, "so it is", code]);
    }
}

#[tokio::test]
async fn a_timeout_says_that_the_task_goes_on() {
    let running = vec![("task", document("running", Value::Null, "started", ""))];
    let stub = creating(Reply::Held(running)).await;
    let run = run(&stub, &create(&["--wait", "--timeout", "1s"])).await.code(8);
    run.says(&[
        &format!("still running as task {TASK}"),
        &format!("skyloom task wait {TASK}"),
    ]);
}

#[tokio::test]
async fn a_lost_stream_is_taken_up_where_it_broke() {
    let stub = creating(Reply::Events(good()[..2].to_vec())).await;
    stub.on(&events(), Reply::Events(good()[2..].to_vec()));
    run(&stub, &create(&["--wait"])).await.code(0);
    let seen = stub.seen(&events());
    let last: Vec<_> = seen.iter().map(|seen| seen.header("last-event-id")).collect();
    assert_eq!(last, [None, Some("2")]);
}

#[tokio::test]
async fn a_task_that_waits_says_why() {
    let reason = json!({"code": "placement.no_host_now", "message": "no host has room", "retryable": true});
    let mut report = vec![("task", document("waiting", reason, "", ""))];
    report.extend(good());
    let stub = creating(Reply::Events(report)).await;
    run(&stub, &create(&["--wait"]))
        .await
        .code(0)
        .says(&["waiting: no host has room"]);
}

#[tokio::test]
async fn an_interrupt_detaches() {
    let halfway = vec![("task", document("running", Value::Null, "succeeded", "started"))];
    let stub = creating(Reply::Held(halfway)).await;
    let mut child = command(&stub, &create(&["--wait", "-o", "json"]))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = lines.next_line().await.unwrap().unwrap();
    assert!(first.starts_with("✓ make the root disk"), "{first}");
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let mut rest = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        rest.push_str(&line);
    }
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    assert!(
        rest.contains(&format!("detached: task {TASK} keeps running")),
        "{rest}"
    );
    assert!(rest.contains("skyloom task cancel"), "{rest}");
}

#[tokio::test]
async fn several_are_done_although_one_is_refused() {
    let stub = Stub::furnished().await;
    let action = |n| format!("POST /v1/servers/{}/actions/stop", id(n));
    let refusal = crate::records::problem("server.busy", "web-1 is busy");
    stub.on(&action(1), Reply::Json(409, refusal));
    let accepted = json!({"server": server(2, "web-2"), "task": task("queued", Value::Null)});
    stub.on(&action(2), Reply::Json(202, accepted));
    let args = [
        "server",
        "stop",
        "web-1",
        "web-2",
        "--guest-time",
        "2m",
        "-o",
        "name",
    ];
    let run1 = run(&stub, &args).await.code(6).says(&["web-1 is busy"]);
    assert_eq!(run1.out, format!("{TASK}\n"));
    assert_eq!(
        stub.seen(&action(2))[0].json(),
        json!({"force": false, "timeout_seconds": 120})
    );
    // An unknown name among them: nothing is done at all.
    let before = stub.changes();
    run(&stub, &["server", "stop", "web-1", "nobody-here"])
        .await
        .code(5);
    assert_eq!(stub.changes(), before);
}

#[tokio::test]
async fn tasks_are_shown_waited_for_and_cancelled() {
    let stub = Stub::furnished().await;
    stub.on(
        &format!("GET /v1/tasks/{TASK}"),
        Reply::Json(200, document("running", Value::Null, "succeeded", "started")),
    );
    stub.on(
        "GET /v1/tasks",
        Reply::Json(
            200,
            json!({"items": [task("running", Value::Null)], "next": null}),
        ),
    );
    stub.on(&events(), Reply::Events(good()));
    let cancelled = json!({"task": task("running", Value::Null)});
    stub.on(
        &format!("POST /v1/tasks/{TASK}/cancel"),
        Reply::Json(202, cancelled),
    );

    let list = run(
        &stub,
        &["task", "list", "--state", "running", "--flow", "server.create"],
    )
    .await
    .code(0);
    assert!(
        list.out.contains("server.create  web-1    running  50%"),
        "{}",
        list.out
    );
    let query = &stub.seen("GET /v1/tasks")[0].query;
    assert!(
        query.contains("state=running") && query.contains("flow=server.create"),
        "{query}"
    );

    let filtered = [
        "task",
        "list",
        "--archived",
        "--filter",
        "name=web-1",
        "--filter",
        "ended-after=2026-11-01",
    ];
    run(&stub, &filtered).await.code(0);
    let query = &stub.seen("GET /v1/tasks")[1].query;
    for part in [
        "archived=true",
        "name=web-1",
        "ended_after=2026-11-01T00%3A00%3A00Z",
    ] {
        assert!(query.contains(part), "{query}");
    }
    for (wrong, said) in [("nam=x", "did you mean name?"), ("state=a", "twice")] {
        let args = ["task", "list", "--state", "running", "--filter", wrong];
        run(&stub, &args).await.code(2).says(&[said]);
    }

    let tree = run(&stub, &["task", "show", "01990000"]).await.code(0);
    assert!(
        tree.out
            .contains("\n✓ disk.root   make the root disk  0.4s\n  ● vm.start  start the virtual"),
        "{}",
        tree.out
    );
    let json = run(&stub, &["task", "show", TASK, "-o", "json"])
        .await
        .code(0)
        .json();
    assert_eq!(json["jobs"].as_array().map(Vec::len), Some(2));
    run(&stub, &["task", "wait", TASK]).await.code(0);
    run(&stub, &["task", "cancel", TASK]).await.code(0);
    run(&stub, &["task", "show", "nothing"])
        .await
        .code(5)
        .says(&["skyloom task list"]);
}

#[tokio::test]
async fn a_server_is_waited_for_by_its_changes() {
    let stub = Stub::furnished().await;
    let mut booting = server(1, "web-1");
    booting["status"]["power"] = json!("stopped");
    stub.put("servers", vec![booting]);
    let change = |name, record: Value| (name, json!({"kind": "servers", "id": id(1), "record": record}));
    stub.on(
        "GET /v1/watch",
        Reply::Held(vec![change("put", server(1, "web-1"))]),
    );
    run(&stub, &["server", "wait", "web-1", "--for", "stopped"])
        .await
        .code(0);
    run(&stub, &["server", "wait", "web-1", "--for", "running"])
        .await
        .code(0);
    run(
        &stub,
        &["server", "wait", "web-1", "--for", "deleted", "--timeout", "1s"],
    )
    .await
    .code(8);
    run(&stub, &["server", "wait", "nobody", "--for", "deleted"])
        .await
        .code(0);

    let stub = Stub::furnished().await;
    stub.on("GET /v1/watch", Reply::Held(vec![change("delete", Value::Null)]));
    run(&stub, &["server", "wait", "web-1", "--for", "deleted"])
        .await
        .code(0);
    run(&stub, &["server", "wait", "web-1", "--for", "stopped"])
        .await
        .code(5);
    let mut broken = server(1, "web-1");
    broken["status"]["lifecycle"] = json!("error");
    broken["status"]["fault"] = json!({"code": "vm.lost", "message": "its disk is gone"});
    stub.put("servers", vec![broken]);
    run(&stub, &["server", "wait", "web-1", "--for", "running"])
        .await
        .code(9)
        .says(&["its disk is gone"]);
}

#[tokio::test]
async fn a_delete_asks_or_is_told_yes() {
    let stub = Stub::furnished().await;
    let what = format!("DELETE /v1/servers/{}", id(1));
    stub.on(
        &what,
        Reply::Json(
            202,
            json!({"server": server(1, "web-1"), "task": task("queued", Value::Null)}),
        ),
    );
    let refused = finish(command(&stub, &["server", "delete", "web-1"]))
        .await
        .code(2);
    refused.says(&["would delete server web-1", "--yes"]);
    assert_eq!(stub.changes(), 0);
    let started = run(&stub, &["server", "delete", "web-1", "--yes", "-o", "name"])
        .await
        .code(0);
    assert_eq!(started.out, format!("{TASK}\n"));
    stub.on(&events(), Reply::Events(good()));
    let done = run(&stub, &["server", "rm", "web-1", "-y", "--wait"])
        .await
        .code(0);
    assert_eq!(done.out, "server web-1: deleted\n");
    assert!(stub.seen(&what)[0].header("idempotency-key").is_some());
}
