//! `--dry-run`, and the plans that it has shown.

use serde_json::{Value, json};

use crate::binary::{command, finish, run};
use crate::records::{HOST, TASK, document, id, task};
use crate::stub::{Reply, Stub};

const PLAN: &str = "01980000-0000-7000-8000-0000000000dd";

fn preview(plan: Value) -> Value {
    let size = |n: u32| json!({"vcpus": n, "memory_mib": 1024 * n, "disk_gib": 10 * n});
    let step = |id: &str, title: &str, after: Value| {
        json!({"id": id, "title": title, "kind": id, "place": "host-a", "after": after, "weight": 1,
            "retry": {"max_attempts": 3, "backoff_ms": 500}, "timeout_ms": null})
    };
    json!({"operation": "servers.create", "plan": plan, "flow": "server.create",
        "subject": {"kind": "servers", "id": id(1), "name": "web-1"},
        "steps": [step("disk.root", "make the root disk", json!([])),
            step("vm.start", "start the virtual machine", json!(["disk.root"]))],
        "placement": {"considered": 3, "fitting": 2, "fallen": [], "chosen": null, "compared": [], "nearest": [],
            "for_tenant": [], "for_operator": []},
        "reservation": {"resources": size(1), "host": {"name": "host-a", "capacity": size(8),
            "used_before": size(0), "used_after": size(1), "nearly_full": ["95 % of its disk would be taken"]}},
        "changes": [{"change": "created", "kind": "servers", "id": null, "name": "web-1"},
            {"change": "changed", "kind": "ledgers", "id": HOST, "name": null}],
        "later": ["the next best host is tried"], "risks": ["the step vm.start is risky"],
        "made_from": [{"kind": "images", "id": id(800), "revision": 7}], "quota": []})
}

fn plan() -> Value {
    json!({"id": PLAN, "at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z",
        "actor": {"id": "t", "name": "tester"}, "applied": null, "preview": preview(json!(PLAN))})
}

const CREATE: [&str; 8] = [
    "server",
    "create",
    "web-1",
    "--image",
    "debian",
    "--flavor",
    "small",
    "--dry-run",
];

#[tokio::test]
async fn a_dry_run_prints_the_plan_and_how_to_apply_it() {
    let stub = Stub::furnished().await;
    stub.on("POST /v1/servers", Reply::Json(200, preview(json!(PLAN))));
    let shown = run(&stub, &CREATE).await.code(0);
    assert_eq!(
        shown.out,
        format!(
            "server.create of web-1\n\n\
             Steps\n  · disk.root   make the root disk (host-a)\n    · vm.start  start the virtual machine (host-a)\n\n\
             Room\n  1 vCPU, 1 GiB, 10 GiB disk\n  \
             on host-a: then 1 of 8 vCPU, 1 GiB of 8 GiB, 10 of 80 GiB disk are taken\n  \
             nearly full: 95 % of its disk would be taken\n\n\
             Why there\n  2 of 3 hosts fit\n\n\
             Records\n  make    servers   web-1\n  change  ledgers   {HOST}\n\n\
             Then\n  the next best host is tried\n\n\
             Risks\n  the step vm.start is risky\n"
        )
    );
    assert_eq!(
        shown.err,
        format!("nothing was done; to do exactly this, within a day: skyloom plan apply {PLAN}\n")
    );
    let seen = stub.seen("POST /v1/servers");
    assert_eq!((seen.len(), seen[0].query.as_str()), (1, "dry_run=plan"));

    let args: Vec<&str> = CREATE.iter().copied().chain(["-o", "json", "--wait"]).collect();
    let whole = run(&stub, &args).await.code(0);
    assert_eq!(whole.json(), preview(json!(PLAN)));
    let args: Vec<&str> = CREATE.iter().copied().chain(["-o", "name"]).collect();
    assert_eq!(run(&stub, &args).await.code(0).out, format!("{PLAN}\n"));
}

#[tokio::test]
async fn a_dry_run_asks_nobody_and_shows_each_of_several() {
    let stub = Stub::furnished().await;
    for n in [1, 2] {
        stub.on(
            &format!("DELETE /v1/servers/{}", id(n)),
            Reply::Json(200, preview(Value::Null)),
        );
    }
    let both = finish(command(
        &stub,
        &["server", "delete", "web-1", "web-2", "--dry-run"],
    ))
    .await
    .code(0);
    assert_eq!(both.out.matches("server.create of web-1\n").count(), 2);
    assert_eq!(both.err, "nothing was done\nnothing was done\n");
    let refusal = crate::records::problem("placement.no_host", "no host can run this");
    let stub = Stub::furnished().await;
    stub.on("POST /v1/servers", Reply::Json(409, refusal));
    run(&stub, &CREATE).await.code(7).says(&["no host can run this"]);
}

#[tokio::test]
async fn what_changes_nothing_takes_no_dry_run() {
    let stub = Stub::furnished().await;
    for args in [
        &["server", "list", "--dry-run"][..],
        &["task", "wait", TASK, "--dry-run"],
        &["plan", "list", "--dry-run"],
        &["event", "tail", "--dry-run"],
        &["dev", "--dry-run"],
        &["version", "--dry-run"],
    ] {
        run(&stub, args)
            .await
            .code(2)
            .says(&["--dry-run goes with commands that change the cloud"]);
    }
    // All others send it.
    let dir = tempfile::tempdir().unwrap();
    let public = dir.path().join("id.pub");
    std::fs::write(&public, "ssh-ed25519 AAAA me\n").unwrap();
    stub.put("tokens", vec![crate::records::token(600, "ci")]);
    stub.on(
        &format!("GET /v1/tasks/{TASK}"),
        Reply::Json(200, document("stuck", Value::Null, "", "")),
    );
    stub.on(&format!("GET /v1/plans/{PLAN}"), Reply::Json(200, plan()));
    let server = id(1);
    for (args, what) in [
        (
            vec!["server", "start", "web-1"],
            format!("POST /v1/servers/{server}/actions/start"),
        ),
        (
            vec!["server", "stop", "web-1"],
            format!("POST /v1/servers/{server}/actions/stop"),
        ),
        (
            vec!["server", "reboot", "web-1"],
            format!("POST /v1/servers/{server}/actions/reboot"),
        ),
        (
            vec!["image", "import", "--url", "https://example.org/i"],
            "POST /v1/images".to_owned(),
        ),
        (
            vec!["image", "import", "--file", public.to_str().unwrap()],
            "POST /v1/images".to_owned(),
        ),
        (
            vec!["image", "delete", "debian"],
            format!("DELETE /v1/images/{}", id(800)),
        ),
        (
            vec![
                "flavor", "create", "f", "--vcpus", "1", "--memory", "1G", "--disk", "5",
            ],
            "POST /v1/flavors".to_owned(),
        ),
        (
            vec!["flavor", "delete", "small"],
            format!("DELETE /v1/flavors/{}", id(900)),
        ),
        (
            vec![
                "keypair",
                "create",
                "k",
                "--public-key-file",
                public.to_str().unwrap(),
            ],
            "POST /v1/keypairs".to_owned(),
        ),
        (
            vec!["keypair", "delete", "me"],
            format!("DELETE /v1/keypairs/{}", id(700)),
        ),
        (vec!["host", "add", "n3"], "POST /v1/hosts".to_owned()),
        (
            vec!["host", "disable", "host-a"],
            format!("PATCH /v1/hosts/{HOST}"),
        ),
        (
            vec!["host", "sweep", "host-a"],
            format!("POST /v1/hosts/{HOST}/actions/sweep"),
        ),
        (
            vec!["host", "remove", "host-a"],
            format!("DELETE /v1/hosts/{HOST}"),
        ),
        (
            vec!["task", "cancel", TASK],
            format!("POST /v1/tasks/{TASK}/cancel"),
        ),
        (
            vec!["task", "abandon", TASK, "--why", "x"],
            format!("POST /v1/tasks/{TASK}/actions/abandon"),
        ),
        (vec!["project", "create", "p"], "POST /v1/projects".to_owned()),
        (
            vec!["plan", "apply", PLAN],
            format!("POST /v1/plans/{PLAN}/actions/apply"),
        ),
    ] {
        stub.on(&what, Reply::Json(200, preview(Value::Null)));
        let args: Vec<&str> = args.into_iter().chain(["--dry-run"]).collect();
        let shown = run(&stub, &args).await.code(0).says(&["nothing was done"]);
        assert!(
            shown.out.starts_with("server.create of web-1\n"),
            "{args:?}: {}",
            shown.out
        );
        let seen = stub.seen(&what);
        assert_eq!(seen.last().unwrap().query, "dry_run=plan", "{args:?}");
    }
}

#[tokio::test]
async fn plans_are_listed_shown_and_applied() {
    let stub = Stub::furnished().await;
    stub.on(
        "GET /v1/plans",
        Reply::Json(200, json!({"items": [plan()], "next": null})),
    );
    stub.on(&format!("GET /v1/plans/{PLAN}"), Reply::Json(200, plan()));
    let list = run(&stub, &["plan", "list"]).await.code(0);
    assert!(
        list.out
            .contains(&format!("{PLAN}  servers.create  web-1    2      -        ")),
        "{}",
        list.out
    );
    let shown = run(&stub, &["plan", "show", "01980000"]).await.code(0);
    assert!(
        shown.out.contains("\nserver.create of web-1\n\nSteps\n"),
        "{}",
        shown.out
    );
    let whole = run(&stub, &["plan", "show", PLAN, "-o", "json"]).await.code(0);
    assert_eq!(whole.json(), plan());

    let apply = format!("POST /v1/plans/{PLAN}/actions/apply");
    let applied = json!({"plan": PLAN, "task": task("running", Value::Null), "password": "made-up-pw"});
    stub.on(&apply, Reply::Json(202, applied));
    let done = document("done", Value::Null, "succeeded", "succeeded");
    stub.on(
        &format!("GET /v1/tasks/{TASK}/events"),
        Reply::Events(vec![("task", done)]),
    );
    let waited = run(&stub, &["plan", "apply", PLAN, "--wait"]).await.code(0);
    assert!(waited.out.contains("done"), "{}", waited.out);
    waited.says(&[
        "the password (shown this once): made-up-pw",
        "✓ start the virtual machine",
    ]);
    let later = run(&stub, &["plan", "apply", PLAN, "--no-wait", "-o", "name"])
        .await
        .code(0);
    assert_eq!(later.out, format!("{TASK}\n"));

    let stub = Stub::furnished().await;
    stub.on(&format!("GET /v1/plans/{PLAN}"), Reply::Json(200, plan()));
    let moved = crate::records::problem("plan.world_moved", "the world has moved: images x has changed");
    stub.on(&apply, Reply::Json(409, moved));
    run(&stub, &["plan", "apply", PLAN])
        .await
        .code(6)
        .says(&["images x has changed", "plan.world_moved"]);
    run(&stub, &["plan", "show", "nothing"])
        .await
        .code(5)
        .says(&["skyloom plan list"]);
}
