//! What is refused, by whom ever, is one clear message and the documented exit code.

use serde_json::json;

use crate::binary::{bare, command, finish, run};
use crate::records::{id, problem, server};
use crate::stub::{Reply, Stub};

#[tokio::test]
async fn an_unknown_name_names_its_neighbours() {
    let stub = Stub::furnished().await;
    let run1 = run(&stub, &["server", "show", "web1"]).await.code(5);
    let run1 = run1.says(&[
        "error: there is no server \"web1\" here\n",
        "  hint: did you mean web-1, web-2?\n",
    ]);
    assert_eq!(run1.out, "");
    run(&stub, &["flavor", "show", "zzzzzz"])
        .await
        .code(5)
        .says(&["see `skyloom flavor list`"]);
    run(
        &stub,
        &["server", "create", "x", "--image", "debain", "--flavor", "small"],
    )
    .await
    .code(5)
    .says(&["did you mean debian?"]);
    assert_eq!(stub.changes(), 0);
}

#[tokio::test]
async fn an_ambiguous_name_or_prefix_is_not_guessed() {
    let stub = Stub::start().await;
    stub.put(
        "servers",
        vec![server(0xabcd_0001, "web"), server(0xabcd_0002, "web")],
    );
    for text in ["web", "abcd"] {
        let refused = run(&stub, &["server", "stop", text]).await.code(2);
        refused.says(&["2 servers are called", &id(0xabcd_0001), &id(0xabcd_0002)]);
    }
    assert_eq!(stub.changes(), 0);
}

#[tokio::test]
async fn refusals_of_the_api_have_their_exit_codes() {
    for (status, code, exit) in [
        (403, "role.denied", 4),
        (404, "server.not_found", 5),
        (409, "server.busy", 6),
        (412, "precondition.failed", 6),
        (422, "idempotency.key_reused", 6),
        (507, "storage.full", 7),
        (409, "quota.exceeded", 7),
        (409, "placement.no_host", 7),
        (422, "metadata.invalid", 2),
        (400, "body.malformed", 2),
        (500, "internal", 1),
    ] {
        let stub = Stub::furnished().await;
        let what = format!("POST /v1/servers/{}/actions/start", id(1));
        stub.on(&what, Reply::Json(status, problem(code, "it cannot be")));
        let run = run(&stub, &["server", "start", "web-1"]).await.code(exit);
        assert_eq!(
            run.err,
            format!("error: it cannot be\n  hint: do it otherwise\n  code {code} · request req-of-stub\n")
        );
        assert_eq!(run.out, "");
    }
}

#[tokio::test]
async fn a_bad_token_or_none_is_exit_3() {
    let stub = Stub::furnished().await;
    let mut wrong = command(&stub, &["server", "list"]);
    wrong.env("SKYLOOM_TOKEN", "sky_other");
    finish(wrong).await.code(3).says(&["the token is not known"]);
    let mut none = command(&stub, &["server", "list"]);
    none.env_remove("SKYLOOM_TOKEN");
    finish(none).await.code(3);
    // A flag wins over the environment.
    run(&stub, &["server", "list", "--token", "sky_flag"])
        .await
        .code(3);
}

#[tokio::test]
async fn wrong_fields_are_listed() {
    let stub = Stub::furnished().await;
    let mut refusal = problem("format", "the request has 2 mistakes");
    refusal["errors"] = json!([
        {"field": "metadata.a", "code": "too_long", "message": "is too long"},
        {"field": "hostname", "code": "bad", "message": "is no host name"},
    ]);
    stub.on("POST /v1/servers", Reply::Json(422, refusal));
    run(
        &stub,
        &["server", "create", "x", "--image", "debian", "--flavor", "small"],
    )
    .await
    .code(2)
    .says(&["error: the request has 2 mistakes\n  metadata.a: is too long\n  hostname: is no host name\n"]);
}

#[tokio::test]
async fn an_answer_of_something_else_is_shown_short() {
    let stub = Stub::start().await;
    stub.on(
        "GET /v1/servers",
        Reply::Text(502, "<html>upstream is gone</html>".into()),
    );
    run(&stub, &["server", "list"]).await.code(1).says(&[
        "502 Bad Gateway",
        "upstream is gone",
        "request req-",
    ]);
    stub.on("GET /v1/images", Reply::Text(200, "not json".into()));
    run(&stub, &["image", "list"])
        .await
        .code(1)
        .says(&["is not understood", "skyloom version"]);
}

#[tokio::test]
async fn without_a_cloud_the_hint_names_dev() {
    let none = finish(bare(&["server", "list"])).await.code(2);
    none.says(&[
        "error: no cloud is configured\n",
        "SKYLOOM_ENDPOINT",
        "hint: start one here with `skyloom dev`",
    ]);
    // A port that was just free: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let endpoint = format!("http://{port}");
    let gone = finish(bare(&["server", "list", "--endpoint", &endpoint]))
        .await
        .code(1);
    gone.says(&["cannot reach the cloud at http://127.0.0.1", "`skyloom dev`"]);
    for bad in ["nonsense", "ftp://x", "http://user:pw@host"] {
        finish(bare(&["server", "list", "--endpoint", bad]))
            .await
            .code(2)
            .says(&["is no endpoint"]);
    }
}

#[tokio::test]
async fn wrong_flags_are_exit_2_with_a_suggestion() {
    let wrong = finish(bare(&["server", "list", "--nmae", "x"])).await.code(2);
    wrong.says(&["--nmae", "--name"]);
    for args in [
        &["server"][..],
        &["server", "craete"],
        &["server", "list", "-o", "csv"],
        &["server", "create"],
        &[
            "server",
            "create",
            "x",
            "--image",
            "i",
            "--flavor",
            "f",
            "--metadata",
            "noequals",
        ],
        &[
            "server",
            "create",
            "x",
            "--image",
            "i",
            "--flavor",
            "f",
            "--timeout",
            "soon",
        ],
        &[
            "server",
            "create",
            "x",
            "--image",
            "i",
            "--flavor",
            "f",
            "--network",
            ":direct",
        ],
        &["server", "stop", "x", "--force", "--guest-time", "5s"],
        &["server", "list", "--limit", "0"],
        &["image", "import"],
        &["image", "import", "--file", "a", "--url", "b"],
        &["image", "import", "--file", "a", "--sha256", "zz"],
        &[
            "flavor", "create", "x", "--vcpus", "0", "--memory", "1", "--disk", "1",
        ],
        &["task", "list", "--state", "sleeping"],
        &["token", "create", "x", "--role", "agent"],
    ] {
        let refused = finish(bare(args)).await;
        assert_eq!(refused.code, 2, "{args:?}: {}{}", refused.out, refused.err);
        assert_eq!(refused.out, "", "{args:?}");
    }
}

#[tokio::test]
async fn secrets_that_cannot_be_read_are_named() {
    let stub = Stub::furnished().await;
    let create = ["server", "create", "x", "--image", "debian", "--flavor", "small"];
    let with = |more: &[&'static str]| {
        create
            .iter()
            .copied()
            .chain(more.iter().copied())
            .collect::<Vec<_>>()
    };
    let gone = run(&stub, &with(&["--password-file", "/nonexistent/pw"]))
        .await
        .code(2);
    gone.says(&["/nonexistent/pw"]);
    // stdin is empty here.
    run(&stub, &with(&["--password-file", "-"]))
        .await
        .code(2)
        .says(&["is not one line of text"]);
    run(&stub, &with(&["--password-file", "-", "--user-data", "-"]))
        .await
        .code(2)
        .says(&["cannot both"]);
    assert_eq!(stub.changes(), 0);
}

#[tokio::test]
async fn help_and_versions_need_no_cloud() {
    let codes = finish(bare(&["help", "exit-codes"])).await.code(0);
    for code in [
        "  0  done",
        "  5  not found",
        "  8  timed out",
        "130  interrupted",
    ] {
        assert!(codes.out.contains(code), "{}", codes.out);
    }
    let help = finish(bare(&["help", "server", "create"])).await.code(0);
    assert!(
        help.out.contains("--anti-affinity") && help.out.contains("Examples:"),
        "{}",
        help.out
    );
    finish(bare(&["help", "nonsense"]))
        .await
        .code(2)
        .says(&["no help on \"nonsense\""]);
    assert!(
        finish(bare(&["--version"]))
            .await
            .code(0)
            .out
            .starts_with("skyloom ")
    );
    let version = finish(bare(&["version", "-o", "json"])).await.code(0).json();
    assert_eq!(
        (version["program"].is_string(), version["cloud"].is_null()),
        (true, true)
    );
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = finish(bare(&["completion", shell])).await.code(0);
        assert!(
            script.out.contains("exit-codes") || script.out.contains("keypair"),
            "{shell}"
        );
    }
}
