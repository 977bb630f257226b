//! Stuck tasks and what operators order, events, sweeps, a cloud that has too much to do.

use serde_json::{Value, json};

use crate::binary::run;
use crate::records::{HOST, PROJECT, TASK, document, id, server, task};
use crate::stub::{Reply, Stub};

/// A task that is stuck at undoing its first step.
fn stuck() -> Value {
    let reason =
        json!({"code": "task.undo_failed", "message": "cannot undo disk.root", "hint": "look at the pool"});
    let mut document = document("stuck", reason, "undo_failed", "undone");
    document["task"]["resume"] = json!("unwinding");
    document["jobs"][0]["error"] = json!({"code": "host.pool", "message": "the pool does not answer"});
    document
}

fn path(verb: &str) -> String {
    format!("POST /v1/tasks/{TASK}/actions/{verb}")
}

async fn furnished(report: Vec<(&'static str, Value)>) -> Stub {
    let stub = Stub::furnished().await;
    stub.on(&format!("GET /v1/tasks/{TASK}"), Reply::Json(200, stuck()));
    stub.on(&format!("GET /v1/tasks/{TASK}/events"), Reply::Events(report));
    for verb in ["retry", "skip", "abandon"] {
        stub.on(
            &path(verb),
            Reply::Json(202, json!({"task": task("stuck", Value::Null)})),
        );
    }
    stub
}

#[tokio::test]
async fn a_stuck_task_shows_where_why_and_what_can_be_ordered() {
    let stub = furnished(vec![("task", stuck())]).await;
    let shown = run(&stub, &["task", "show", TASK]).await.code(0);
    for text in [
        "stuck at disk.root (make the root disk): the pool does not answer [host.pool]\n",
        &format!("skyloom task retry {TASK} --why …"),
        &format!("skyloom task skip {TASK} --why …"),
        &format!("skyloom task abandon {TASK} --why …"),
        "Priority  normal\n",
    ] {
        assert!(shown.out.contains(text), "no {text:?} in {}", shown.out);
    }
    // Waiting for it ends at once, with the same words.
    let waited = run(&stub, &["task", "wait", TASK]).await.code(9);
    waited.says(&[
        "is stuck and needs an operator",
        "cannot undo disk.root",
        "stuck at disk.root (make the root disk): the pool does not answer",
        "look at the pool",
        &format!("skyloom task abandon {TASK} --why"),
    ]);
}

#[tokio::test]
async fn an_order_is_sent_with_its_reason_and_waited_for() {
    let mut open = stuck();
    let by = json!({"id": "o", "name": "ops"});
    open["task"]["orders"] = json!([{"verb": "skip", "by": by, "at": "2026-01-01T00:00:00Z", "request_id": "r",
        "why": "removed by hand"}]);
    let mut ended = document("failed", Value::Null, "undone", "undone");
    ended["task"]["orders"] = open["task"]["orders"].clone();
    ended["task"]["orders"][0]["carried_out"] = json!(true);
    let stub = furnished(vec![("task", open), ("task", ended.clone())]).await;
    let done = run(
        &stub,
        &["task", "skip", TASK, "--why", "removed by hand", "--wait"],
    )
    .await
    .code(0);
    assert!(
        done.out.contains("failed"),
        "it went on behind the open order: {}",
        done.out
    );
    assert!(done.out.contains("skip by ops"), "{}", done.out);
    assert!(
        done.out.contains("ago: removed by hand (carried out)"),
        "{}",
        done.out
    );
    assert_eq!(
        stub.seen(&path("skip"))[0].json(),
        json!({"why": "removed by hand"})
    );

    let later = run(&stub, &["task", "retry", TASK, "--why", "x", "--no-wait"])
        .await
        .code(0);
    later.says(&["skyloom task wait"]);
    run(&stub, &["task", "abandon", TASK])
        .await
        .code(2)
        .says(&["--why"]);
    assert!(stub.seen(&path("abandon")).is_empty());
}

#[tokio::test]
async fn an_order_that_did_not_help_is_exit_9() {
    let mut again = stuck();
    again["task"]["orders"] = json!([{"verb": "retry", "by": {"id": "o", "name": "ops"}, "carried_out": true,
        "at": "2026-01-01T00:00:00Z", "request_id": "r", "why": "x"}]);
    let stub = furnished(vec![("task", again)]).await;
    run(&stub, &["task", "retry", TASK, "--why", "x", "--wait"])
        .await
        .code(9)
        .says(&["is stuck and needs an operator"]);
}

#[tokio::test]
async fn an_abandoned_task_is_not_said_to_be_undone() {
    let mut abandoned = document(
        "failed",
        json!({"code": "task.abandoned", "message": "abandoned"}),
        "undo_failed",
        "",
    );
    abandoned["task"]["orders"] = json!([{"verb": "abandon", "by": {"id": "o", "name": "ops"}, "carried_out": true,
        "at": "2026-01-01T00:00:00Z", "request_id": "r", "why": "x"}]);
    let stub = furnished(vec![("task", abandoned)]).await;
    let waited = run(&stub, &["task", "wait", TASK]).await.code(9);
    assert!(!waited.err.contains("everything is as before"), "{}", waited.err);
    waited.says(&["an operator abandoned it"]);
}

#[tokio::test]
async fn events_are_listed_as_asked() {
    let stub = Stub::furnished().await;
    let event = json!({"format": 2, "id": id(3), "at": "2026-01-01T00:00:00Z", "scope": {"project": PROJECT},
        "kind": "task_ended", "subject": {"kind": "servers", "id": id(1), "name": "web-1"}, "task": TASK,
        "message": "server.create: done"});
    stub.on(
        "GET /v1/events",
        Reply::Json(200, json!({"items": [event], "next": null})),
    );
    let list = run(&stub, &["event", "list", "--kind", "task_ended", "--task", TASK])
        .await
        .code(0);
    assert!(
        list.out
            .contains("2026-01-01T00:00:00Z  task_ended  web-1    server.create: done"),
        "{}",
        list.out
    );
    let query = &stub.seen("GET /v1/events")[0].query;
    assert!(
        query.contains("kind=task_ended") && query.contains(&format!("task={TASK}")),
        "{query}"
    );
    run(&stub, &["event", "list", "--kind", "nonsense"])
        .await
        .code(2)
        .says(&["task_stuck"]);
}

#[tokio::test]
async fn a_sweep_gives_its_result() {
    let stub = Stub::furnished().await;
    let what = format!("POST /v1/hosts/{HOST}/actions/sweep");
    stub.on(
        &what,
        Reply::Json(202, json!({"task": task("queued", Value::Null)})),
    );
    let mut done = document("done", Value::Null, "succeeded", "succeeded");
    done["task"]["result"] = json!({"disks": ["left-1"]});
    stub.on(
        &format!("GET /v1/tasks/{TASK}/events"),
        Reply::Events(vec![("task", done)]),
    );
    let swept = run(&stub, &["host", "sweep", "host-a", "--wait"]).await.code(0);
    assert!(
        swept.out.contains("\nResult\n") && swept.out.contains("left-1"),
        "{}",
        swept.out
    );
    run(&stub, &["host", "sweep", "host-a", "--remove"]).await.code(0);
    let sent: Vec<Value> = stub.seen(&what).iter().map(|seen| seen.json()).collect();
    assert_eq!(sent, [json!({"remove": false}), json!({"remove": true})]);
}

#[tokio::test]
async fn a_busy_cloud_is_asked_again_with_the_same_key() {
    let stub = Stub::furnished().await;
    let what = format!("POST /v1/servers/{}/actions/start", id(1));
    stub.on(&what, Reply::Busy(0));
    let accepted = json!({"server": server(1, "web-1"), "task": task("queued", Value::Null)});
    stub.on(&what, Reply::Json(202, accepted));
    run(&stub, &["server", "start", "web-1"])
        .await
        .code(0)
        .says(&["the cloud has too much to do; asking again in 0 s"]);
    let seen = stub.seen(&what);
    assert_eq!(seen.len(), 2);
    assert_eq!(
        seen[0].header("idempotency-key"),
        seen[1].header("idempotency-key")
    );

    let stub = Stub::furnished().await;
    stub.on(&what, Reply::Busy(0));
    run(&stub, &["server", "start", "web-1"]).await.code(7).says(&[
        "1000 unfinished tasks",
        "tasks.too_many",
        "do it otherwise",
    ]);
    assert_eq!(stub.seen(&what).len(), 4, "three more times");
    let stub = Stub::furnished().await;
    stub.on(&what, Reply::Busy(3600));
    run(&stub, &["server", "start", "web-1"]).await.code(7);
    assert_eq!(stub.seen(&what).len(), 1, "an hour is too long to wait for");
}
