//! Who may open which file.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use skyloom_model::report;
use skyloom_store::{Class, Error, ErrorKind, Result, Revision, Store};
use skyloom_store_sql::{SqliteStore, migrate};

use crate::support::{Place, json, key, prefix, put};

async fn try_open(place: &Place) -> Result<SqliteStore> {
    SqliteStore::open(place.config(), Arc::new(place.clock.clone())).await
}

async fn refusal(place: &Place) -> Error {
    match try_open(place).await {
        Ok(store) => panic!("{store:?} opened"),
        Err(e) => e,
    }
}

#[tokio::test]
async fn opening_creates_nothing() {
    let place = Place::new();
    let e = refusal(&place).await;
    assert_eq!((e.kind(), e.class()), (ErrorKind::Unavailable, Class::Permanent));
    assert!(e.to_string().contains("hint run migrate"), "{e}");
    assert_eq!(std::fs::read_dir(place.dir.path()).unwrap().count(), 0);
    // An empty file is no schema either.
    std::fs::write(place.path(), "").unwrap();
    assert!(refusal(&place).await.to_string().contains("there is no schema"));
}

#[tokio::test]
async fn migrate_creates_once_and_keeps_what_is_there() {
    let place = Place::new();
    let first = migrate(&place.config()).await.unwrap();
    assert_eq!((first.from, first.to), (0, 2));
    let store = try_open(&place).await.unwrap();
    put(&store, "a/b", "1").await;
    store.close().await.unwrap();
    let again = migrate(&place.config()).await.unwrap();
    assert_eq!((again.from, again.to), (2, 2));
    let store = try_open(&place).await.unwrap();
    assert_eq!(store.get(&key("a/b")).await.unwrap().unwrap().value, json("1"));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_database_of_version_1_is_upgraded_with_all_its_documents() {
    let place = Place::new();
    migrate(&place.config()).await.unwrap();
    let store = try_open(&place).await.unwrap();
    put(&store, "a/b", "1").await;
    let revision = put(&store, "a/c", "2").await;
    store.close().await.unwrap();
    // As version 1 left it.
    for statement in [
        "DROP TABLE history",
        "CREATE TABLE history (revision INTEGER NOT NULL, key TEXT NOT NULL, PRIMARY KEY (revision, key)) STRICT",
        "PRAGMA user_version = 1",
    ] {
        place.sql_run(statement).await;
    }
    assert_eq!(refusal(&place).await.kind(), ErrorKind::Unavailable);
    let migrated = migrate(&place.config()).await.unwrap();
    assert_eq!((migrated.from, migrated.to), (1, 2));
    let store = try_open(&place).await.unwrap();
    assert_eq!(store.get(&key("a/b")).await.unwrap().unwrap().value, json("1"));
    // The history of version 1 is gone.
    assert_eq!(
        (store.stats().revision, store.stats().floor),
        (revision, revision)
    );
    assert_eq!(put(&store, "a/d", "3").await, Revision(revision.0 + 1));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let place = Place::new();
    migrate(&place.config()).await.unwrap();
    place.sql_run("PRAGMA user_version = 99").await;
    assert_eq!(refusal(&place).await.kind(), ErrorKind::TooNew);
    assert_eq!(
        migrate(&place.config()).await.unwrap_err().kind(),
        ErrorKind::TooNew
    );
    assert_eq!(place.sql_number("PRAGMA user_version").await, 99);
}

#[tokio::test]
async fn a_database_of_another_program_is_refused_and_left_alone() {
    let place = Place::new();
    place.sql_create().await;
    let before = std::fs::read(place.path()).unwrap();
    for e in [refusal(&place).await, migrate(&place.config()).await.unwrap_err()] {
        assert_eq!(e.kind(), ErrorKind::Invalid);
        assert!(e.to_string().contains("another program"), "{e}");
    }
    assert_eq!(std::fs::read(place.path()).unwrap(), before);
}

#[tokio::test]
async fn a_second_opener_learns_who_has_the_file() {
    let place = Place::new();
    let store = place.open().await;
    let e = refusal(&place).await;
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(
        e.to_string()
            .contains(&format!("already open in process {}", std::process::id())),
        "{e}"
    );
    assert!(e.to_string().contains("remote backend"), "{e}");
    assert_eq!(
        migrate(&place.config()).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    // Another spelling of the same file is the same file.
    let mut config = place.config();
    config.path = place.dir.path().join("link.db");
    std::os::unix::fs::symlink(place.path(), &config.path).unwrap();
    assert!(
        SqliteStore::open(config, Arc::new(place.clock.clone()))
            .await
            .is_err()
    );
    store.close().await.unwrap();
    try_open(&place).await.unwrap().close().await.unwrap();
}

#[tokio::test]
async fn files_are_private() {
    let place = Place::new();
    let mut config = place.config();
    config.path = place.dir.path().join("new/deep/store.db");
    let store = place.open_with(config.clone()).await;
    put(&store, "a/b", "1").await;
    let mode = |path: &str| {
        place
            .dir
            .path()
            .join(path)
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("new"), mode("new/deep")), (0o700, 0o700));
    for file in ["store.db", "store.db-wal", "store.db-shm", "store.db.lock"] {
        assert_eq!(mode(&format!("new/deep/{file}")), 0o600, "{file}");
    }
    store.close().await.unwrap();
    std::fs::set_permissions(&config.path, std::fs::Permissions::from_mode(0o644)).unwrap();
    place.open_with(config).await.close().await.unwrap();
    assert_eq!(mode("new/deep/store.db"), 0o600);
}

#[tokio::test]
async fn a_path_that_cannot_be_is_one_clear_error() {
    let place = Place::new();
    std::fs::write(place.dir.path().join("file"), "x").unwrap();
    for path in ["", "/", "file/store.db"] {
        let mut config = place.config();
        config.path = if path.is_empty() {
            "".into()
        } else {
            place.dir.path().join(path)
        };
        let e = migrate(&config).await.unwrap_err();
        assert!(
            matches!(e.kind(), ErrorKind::Invalid | ErrorKind::Unavailable),
            "{path:?}: {}",
            report(&e)
        );
    }
}

#[tokio::test]
async fn after_close_everything_is_refused_and_the_file_is_whole() {
    let place = Place::new();
    let store = place.open().await;
    put(&store, "a/b", "1").await;
    store.close().await.unwrap();
    store.close().await.unwrap();
    let commit = store
        .commit(skyloom_store::Txn::new().put(key("a/b"), json("2")))
        .await;
    assert_eq!(commit.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(
        store.get(&key("a/b")).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert_eq!(
        store
            .list(&prefix("a"), Default::default())
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Unavailable
    );
    assert!(!place.dir.path().join("store.db-wal").exists());
    assert_eq!(place.sql_number("SELECT revision FROM state").await, 1);
}

#[tokio::test]
async fn values_are_readable_with_plain_sql() {
    let place = Place::new();
    let store = place.open().await;
    let revision = put(&store, "servers/1", r#"{"name":"a \u0000 é 🦀","n":[1,2.50]}"#).await;
    assert_eq!(revision, Revision(1));
    store.close().await.unwrap();
    let query = "SELECT value ->> '$.n[0]' FROM documents WHERE key = 'servers/1'";
    assert_eq!(place.sql_number(query).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starting_child_processes_does_not_keep_the_lock() {
    let place = Place::new();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let children = std::thread::spawn(move || {
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let child = std::process::Command::new(std::env::current_exe().unwrap())
                .arg("--list")
                .output();
            assert!(child.unwrap().status.success());
        }
    });
    for _ in 0..60 {
        place.open().await.close().await.unwrap();
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    children.join().unwrap();
}
