//! `skyloom store …` on files of SQLite: the built binary, in an empty environment.

#![expect(clippy::unwrap_used, reason = "a broken helper should end its test")]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::{Value as Json, json};
use skyloom::cloud::{Cloud, CloudParts, DirImageRepo};
use skyloom::flow::Standing;
use skyloom::model::{Incarnation, Kinship, OsIds, SystemClock};
use skyloom::store::{Key, Txn, Value};
use skyloom::{Opened, StoreOptions, open_store};

fn uri(folder: &Path, name: &str) -> String {
    format!("sqlite://{}/{name}.db", folder.display())
}

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skyloom"))
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[track_caller]
fn ok(args: &[&str]) -> Json {
    let run = run(args);
    let err = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{args:?}: {err}");
    serde_json::from_slice(&run.stdout).unwrap()
}

#[track_caller]
fn fails(args: &[&str], code: i32, says: &str) {
    let run = run(args);
    let err = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(code), "{args:?}: {err}");
    assert!(err.contains(says), "{args:?}: {err}");
}

async fn opened(uri: &str) -> Opened {
    let clock = Arc::new(SystemClock::new());
    let options = StoreOptions::new(clock.clone(), Arc::new(OsIds::new(clock)));
    open_store(uri, &options).await.unwrap()
}

async fn founded(folder: &Path, name: &str) -> String {
    let uri = uri(folder, name);
    let store = opened(&uri).await;
    let clock = Arc::new(SystemClock::new());
    let cloud = Cloud::new(CloudParts {
        backend: store.backend.clone(),
        ids: Arc::new(OsIds::new(clock.clone())),
        clock,
        images: Arc::new(DirImageRepo::open(&folder.join("images"), 1 << 20).unwrap()),
    });
    cloud.bootstrap().await.unwrap();
    drop(cloud);
    for n in 0..300 {
        let key = Key::parse(&format!("extra/{n:04}")).unwrap();
        let put = Txn::new().put(key, Value::json(&n).unwrap());
        store.backend.commit(put).await.unwrap();
    }
    store.close().await.unwrap();
    uri
}

async fn incarnation(uri: &str) -> (Incarnation, bool) {
    let store = opened(uri).await;
    let standing = Standing::read(&*store.backend).await.unwrap();
    store.close().await.unwrap();
    (standing.incarnation().unwrap(), standing.hold.is_some())
}

#[tokio::test]
async fn a_cloud_goes_to_another_store_and_into_a_file_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let first = founded(folder, "first").await;
    let (born, held) = incarnation(&first).await;
    assert!(!held);

    let report = ok(&["store", "check", &first, "-o", "json"]);
    assert_eq!(report["records"]["extra"], 300);
    assert_eq!(report["cluster"], Json::Null, "it stands under incarnation");
    assert_eq!(report["incarnation"]["cluster"], born.cluster.to_string());
    assert_eq!(report["backend"], "sqlite");
    assert!(report["durability"].as_str().unwrap().starts_with("safe"));
    let server = &report["server"];
    assert!(
        server["server"].as_str().unwrap().starts_with("SQLite 3."),
        "{server}"
    );
    assert_eq!(server["schema"], 2);
    assert_eq!(
        server["durability"],
        json!({ "journal_mode": "wal", "synchronous": "FULL" })
    );
    assert_eq!(server["risks"], json!([]));

    let moved = uri(folder, "moved");
    let done = ok(&["store", "copy", "--from", &first, "--to", &moved, "-o", "json"]);
    let records = done["records"].as_u64().unwrap();
    assert!(records > 300 && done["source_moved_on"] == false);
    let (second, held) = incarnation(&moved).await;
    assert!(born.kinship(&second) == Kinship::Newer && !held);
    fails(
        &["store", "copy", "--from", &first, "--to", &moved],
        2,
        "not empty",
    );

    let file = folder.join("cloud.backup").display().to_string();
    let kept = ok(&["store", "backup", &moved, &file, "-o", "json"]);
    assert_eq!(
        (kept["records"].as_u64(), &kept["sha256"]),
        (Some(records), &done["sha256"])
    );
    fails(&["store", "backup", &moved, &file], 2, "already a file");

    let back = uri(folder, "back");
    ok(&["store", "restore", &file, &back, "-o", "json"]);
    let (third, held) = incarnation(&back).await;
    assert!(second.kinship(&third) == Kinship::Newer && held);
    let report = ok(&["store", "check", &back, "-o", "json"]);
    assert!(report["hold"]["reason"].as_str().unwrap().contains("restored"));
}

#[tokio::test]
async fn looking_makes_no_store_and_a_wrong_record_is_told_by_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let nowhere = uri(folder, "nowhere");
    let file = folder.join("x").display().to_string();
    for args in [
        &["store", "check", &nowhere][..],
        &["store", "backup", &nowhere, &file],
        &["store", "copy", "--from", &nowhere, "--to", &uri(folder, "other")],
    ] {
        let run = run(args);
        assert!(!run.status.success(), "{args:?}");
        assert!(!folder.join("nowhere.db").exists(), "{args:?}");
    }
    let first = founded(folder, "first").await;
    let store = opened(&first).await;
    let key = Key::parse("r/servers/x/y").unwrap();
    let put = Txn::new().put(key, Value::json("no server").unwrap());
    store.backend.commit(put).await.unwrap();
    store.close().await.unwrap();
    fails(&["store", "check", &first], 1, "1 records are not in order");
}

#[test]
fn migrate_says_what_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let new = uri(folder.path(), "new");
    for _ in 0..2 {
        let done = ok(&["store", "migrate", &new, "-o", "json"]);
        assert_eq!(done["did"], "the store is there");
    }
    assert!(folder.path().join("new.db").exists());
    fails(&["store", "migrate", "floppy:///a"], 2, "this build knows");
}

#[test]
fn a_damaged_backup_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad");
    std::fs::write(&file, "{}\n").unwrap();
    let to = uri(folder.path(), "to");
    fails(
        &["store", "restore", &file.display().to_string(), &to],
        1,
        "no first line of a backup",
    );
}
