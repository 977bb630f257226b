//! What an operator sees in the shell, and what becomes of what was changed there.

use std::sync::Arc;

use libtest_mimic::Trial;
use mongodb::bson::{Bson, doc};
use skyloom_store::{ErrorKind, ListOptions, Store as _, Txn};

use crate::support::Server;
use crate::tools::{Shell, get, json, key, open, patient, prefix, put};
use crate::trial;

pub(crate) fn trials(server: &Arc<Server>) -> Vec<Trial> {
    vec![
        trial("operator::documents_are_found_by_their_members", server, members),
        trial("operator::the_log_tells_who_changed_what", server, log),
        trial("operator::odd_documents_keep_their_text", server, odd),
        trial(
            "operator::damage_is_named_and_repaired_by_writing",
            server,
            damage,
        ),
    ]
}

async fn members(server: Arc<Server>) {
    let config = patient(&server);
    let store = open(&config).await;
    put(&store, "servers/a", r#"{"name":"web","cpus":4,"tags":["x","y"]}"#).await;
    let modified = put(&store, "servers/b", r#"{"name":"db","cpus":8}"#).await;
    let shell = Shell::on(&config).await;
    let found = shell
        .one("docs", doc! { "value.cpus": { "$gt": 4 } })
        .await
        .unwrap();
    let shown = doc! {
        "_id": "servers/b", "value": { "name": "db", "cpus": 8 },
        "created": i64::try_from(modified.0).unwrap(), "modified": i64::try_from(modified.0).unwrap(),
    };
    assert_eq!(found, shown);
    let tagged = shell
        .one(
            "docs",
            doc! { "_id": { "$regex": "^servers/" }, "value.tags": "y" },
        )
        .await;
    assert_eq!(tagged.unwrap().get_str("_id").unwrap(), "servers/a");
    store.close().await;
}

async fn log(server: Arc<Server>) {
    let config = patient(&server);
    let store = open(&config).await;
    put(&store, "a", "1").await;
    store
        .commit(Txn::new().put(key("b"), json("true")).delete(key("a")))
        .await
        .unwrap();
    let shell = Shell::on(&config).await;
    let commit = shell.one("log", doc! { "changes.key": "b" }).await.unwrap();
    assert_eq!(commit.get("_id"), Some(&Bson::Int64(2)));
    let changes = vec![
        Bson::from(doc! { "key": "a", "deleted": true }),
        Bson::from(doc! { "key": "b", "created": 2_i64, "value": true }),
    ];
    assert_eq!(commit.get_array("changes").unwrap(), &changes);
    let past = shell.one("past", doc! { "key": "a" }).await.unwrap();
    let ended = doc! {
        "_id": "00000000000000000002 a", "value": 1, "created": 1_i64, "modified": 1_i64, "key": "a", "until": 2_i64,
    };
    assert_eq!(past, ended);
    let head = shell.one("state", doc! { "_id": "head" }).await.unwrap();
    assert_eq!(head.get("revision"), Some(&Bson::Int64(2)));
    store.close().await;
}

async fn odd(server: Arc<Server>) {
    let config = patient(&server);
    let store = open(&config).await;
    let text = r#"{"id": 18446744073709551615, "$where":1, "a.b":2}"#;
    put(&store, "odd", text).await;
    assert_eq!(get(&store, "odd").await.unwrap(), text);
    let shell = Shell::on(&config).await;
    let found = shell.one("docs", doc! { "value.a\u{ff0e}b": 2 }).await.unwrap();
    assert_eq!(found.get_str("text").unwrap(), text);
    put(&store, "odd", "{}").await;
    let now = shell.one("docs", doc! { "_id": "odd" }).await.unwrap();
    assert!(!now.contains_key("text"), "the old text stayed: {now}");
    store.close().await;
}

async fn damage(server: Arc<Server>) {
    let config = patient(&server);
    let store = open(&config).await;
    put(&store, "a/1", "1").await;
    put(&store, "a/2", "2").await;
    let shell = Shell::on(&config).await;
    let edit = doc! { "$set": { "value": mongodb::bson::DateTime::from_millis(5) } };
    shell
        .collection("docs")
        .update_one(doc! { "_id": "a/2" }, edit)
        .await
        .unwrap();
    let e = store.get(&key("a/2")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.to_string().contains("a/2"), "{e}");
    let e = store
        .list(&prefix("a"), ListOptions::default())
        .await
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert_eq!(get(&store, "a/1").await.as_deref(), Some("1"));
    put(&store, "a/2", "3").await;
    assert_eq!(get(&store, "a/2").await.as_deref(), Some("3"));
    store.close().await;
}
