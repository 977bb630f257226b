//! Bringing images in.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::binary::{bare, finish, run};
use crate::records::{TASK, document, id, image, problem, task};
use crate::stub::{Reply, Stub};

/// SHA-256 of a million `a`: a known test vector.
const MILLION_A: &str = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

fn file(bytes: usize) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new()
        .prefix("debian-")
        .suffix(".qcow2")
        .tempfile()
        .unwrap();
    file.write_all(&vec![b'a'; bytes]).unwrap();
    file
}

async fn stub() -> (Stub, String) {
    let stub = Stub::furnished().await;
    stub.on(
        "POST /v1/images",
        Reply::Json(201, json!({"image": image(801, "new", "queued"), "task": null})),
    );
    let data = format!("/v1/images/{}/data", id(801));
    let accepted = json!({"image": image(801, "new", "importing"), "task": task("queued", Value::Null)});
    stub.on(&format!("PUT {data}"), Reply::Json(202, accepted));
    stub.put("images", vec![image(801, "new", "active")]);
    let events = vec![("task", document("done", Value::Null, "succeeded", "succeeded"))];
    stub.on(&format!("GET /v1/tasks/{TASK}/events"), Reply::Events(events));
    (stub, format!("PUT {data}"))
}

#[tokio::test]
async fn a_file_is_hashed_claimed_and_streamed() {
    let (stub, put) = stub().await;
    let file = file(1_000_000);
    let path = file.path().to_str().unwrap();
    let run = run(
        &stub,
        &[
            "image",
            "import",
            "--file",
            path,
            "--wait",
            "--min-disk",
            "10G",
            "-o",
            "json",
        ],
    )
    .await;
    let run = run.code(0).says(&[
        "sending 976.5 KiB of ",
        &format!("sent 976.5 KiB, sha256 {MILLION_A}"),
    ]);
    assert_eq!(run.json()["image"]["status"]["state"], "active");

    let claim = stub.seen("POST /v1/images")[0].json();
    let stem = file.path().file_stem().unwrap().to_str().unwrap();
    assert_eq!(
        claim,
        json!({"name": stem, "format": "qcow2", "sha256": MILLION_A, "min_disk_gib": 10})
    );
    let sent = &stub.seen(&put)[0];
    assert_eq!(sent.body.len(), 1_000_000);
    assert!(sent.parts > 1, "streamed");
    assert_eq!(sent.header("content-length"), Some("1000000"));
    assert_eq!(sent.header("content-type"), Some("application/octet-stream"));
    assert!(sent.header("idempotency-key").is_some());
}

#[tokio::test]
async fn without_waiting_the_task_is_given() {
    let (stub, _) = stub().await;
    let file = file(10);
    let path = file.path().to_str().unwrap();
    let args = [
        "image",
        "import",
        "--file",
        path,
        "--format",
        "raw",
        "--name",
        "x",
        "--no-wait",
        "-o",
        "name",
    ];
    assert_eq!(run(&stub, &args).await.code(0).out, format!("{TASK}\n"));
    let claim = stub.seen("POST /v1/images")[0].json();
    assert_eq!((&claim["format"], &claim["name"]), (&json!("raw"), &json!("x")));
}

#[tokio::test]
async fn another_sum_than_the_given_one_sends_nothing() {
    let (stub, _) = stub().await;
    let file = file(5);
    let path = file.path().to_str().unwrap();
    let run1 = run(&stub, &["image", "import", "--file", path, "--sha256", MILLION_A])
        .await
        .code(2);
    run1.says(&["does not have the SHA-256", MILLION_A]);
    for bad in ["/nonexistent/disk.qcow2", "/"] {
        run(&stub, &["image", "import", "--file", bad, "--name", "x"])
            .await
            .code(2)
            .says(&[bad]);
    }
    let empty = tempfile::NamedTempFile::new().unwrap();
    run(
        &stub,
        &["image", "import", "--file", empty.path().to_str().unwrap()],
    )
    .await
    .code(2)
    .says(&["is empty"]);
    assert_eq!(stub.changes(), 0);
}

#[tokio::test]
async fn a_refused_upload_says_what_is_left_behind() {
    let (stub, put) = stub().await;
    let refused = format!("PUT /v1/images/{}/data", id(802));
    assert_ne!(refused, put);
    stub.on(
        "POST /v1/images",
        Reply::Json(201, json!({"image": image(802, "bad", "queued"), "task": null})),
    );
    stub.on(
        &refused,
        Reply::Json(507, problem("storage.full", "there is no room")),
    );
    let file = file(5);
    let path = file.path().to_str().unwrap();
    run(&stub, &["image", "import", "--file", path]).await.code(0);
    let run = run(&stub, &["image", "import", "--file", path]).await.code(7);
    run.says(&[
        "there is no room",
        &format!("skyloom image delete {}", id(802)),
        "request req-of-stub",
    ]);
}

#[tokio::test]
async fn a_url_is_the_clouds_to_fetch() {
    let (stub, put) = stub().await;
    let accepted = json!({"image": image(801, "new", "queued"), "task": task("queued", Value::Null)});
    let fetching = Stub::furnished().await;
    fetching.on("POST /v1/images", Reply::Json(202, accepted));
    let args = [
        "image",
        "import",
        "--url",
        "https://example.org/a/debian.qcow2?x=1",
        "--public",
    ];
    run(&fetching, &args).await.code(0).says(&["skyloom task wait"]);
    let claim = fetching.seen("POST /v1/images")[0].json();
    let want = json!({"name": "debian", "format": "qcow2", "url": "https://example.org/a/debian.qcow2?x=1", "public": true});
    assert_eq!(claim, want);
    assert!(stub.seen(&put).is_empty());
    finish(bare(&["image", "import", "--url", "https://example.org/"]))
        .await
        .code(2)
        .says(&["--name"]);
}
