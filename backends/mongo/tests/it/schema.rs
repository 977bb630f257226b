//! Opening, migrating, refusing.

use std::sync::Arc;

use libtest_mimic::Trial;
use mongodb::bson::doc;
use skyloom_store::{ErrorKind, Store as _};
use skyloom_store_mongo::{Migrated, MongoConfig, MongoStore, migrate};

use crate::support::Server;
use crate::tools::{Shell, all, get, key, open, patient, put};
use crate::trial;

pub(crate) fn trials(server: &Arc<Server>) -> Vec<Trial> {
    vec![
        trial("schema::opening_never_migrates", server, opening),
        trial("schema::migrating_twice_keeps_everything", server, twice),
        trial("schema::a_newer_schema_is_refused", server, newer),
        trial("schema::clouds_share_a_database", server, clouds),
        trial("schema::a_server_that_stands_alone_is_refused", server, alone),
        trial(
            "schema::unsafe_settings_are_refused_unless_allowed",
            server,
            risky,
        ),
        trial("schema::nobody_there_is_said_in_time", server, nobody),
        trial("schema::a_closed_store_says_so", server, closed),
    ]
}

async fn refused(config: &MongoConfig, kind: ErrorKind) -> String {
    let e = MongoStore::open(config.clone()).await.unwrap_err();
    let text = skyloom_model::report(&e);
    assert_eq!(e.kind(), kind, "{text}");
    text
}

async fn opening(server: Arc<Server>) {
    let config = patient(&server);
    let text = refused(&config, ErrorKind::Unavailable).await;
    assert!(text.contains("migrate"), "{text}");
    let shell = Shell::on(&config).await;
    assert_eq!(
        shell.db.list_collection_names().await.unwrap(),
        Vec::<String>::new(),
        "opening wrote"
    );
}

async fn twice(server: Arc<Server>) {
    let config = patient(&server);
    assert_eq!(migrate(&config).await.unwrap(), Migrated::Created);
    let store = open(&config).await;
    put(&store, "a", "1").await;
    assert_eq!(migrate(&config).await.unwrap(), Migrated::Current);
    assert_eq!(get(&store, "a").await.as_deref(), Some("1"));
    store.close().await;
}

async fn newer(server: Arc<Server>) {
    let config = patient(&server);
    migrate(&config).await.unwrap();
    let shell = Shell::on(&config).await;
    shell
        .collection("state")
        .update_one(doc! { "_id": "schema" }, doc! { "$set": { "version": 2 } })
        .await
        .unwrap();
    refused(&config, ErrorKind::TooNew).await;
    assert_eq!(migrate(&config).await.unwrap_err().kind(), ErrorKind::TooNew);
}

async fn clouds(server: Arc<Server>) {
    let east = patient(&server);
    let mut west = east.clone();
    west.prefix = "west_".to_owned();
    let (a, b) = (open(&east).await, open(&west).await);
    put(&a, "x", "1").await;
    put(&b, "y", "2").await;
    put(&b, "y", "3").await;
    let keys = async |store: &MongoStore| {
        let items = all(store, "", None, 10).await.unwrap();
        items.into_iter().map(|kv| kv.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        (keys(&a).await, keys(&b).await),
        (vec!["x".to_owned()], vec!["y".to_owned()])
    );
    a.close().await;
    b.close().await;
}

async fn alone(_: Arc<Server>) {
    let server = Server::start(&["--standalone"]);
    let mut config = patient(&server);
    for allow in [false, true] {
        config.allow_unsafe = allow;
        let e = migrate(&config).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported, "{e}");
        assert!(e.to_string().contains("stands alone"), "{e}");
        refused(&config, ErrorKind::Unsupported).await;
    }
}

async fn risky(server: Arc<Server>) {
    let mut config = patient(&server);
    let store = open(&config).await;
    assert!(store.capability().durable);
    let about = store.about();
    assert!(about.server.starts_with("MongoDB "), "{about:?}");
    assert_eq!((about.schema, about.risks.len()), (Some(1), 0), "{about:?}");
    assert_eq!(about.durability["write concern"], "w: majority, j: true");
    for option in [
        "w=1",
        "journal=false",
        "readConcernLevel=local",
        "readPreference=nearest",
    ] {
        config.uri = format!("{}&{option}", server.uri());
        config.allow_unsafe = false;
        let text = refused(&config, ErrorKind::Unsupported).await;
        assert!(text.contains("allow_unsafe"), "{text}");
        config.allow_unsafe = true;
        let store = MongoStore::open(config.clone()).await.unwrap();
        assert!(!store.capability().durable, "{option}");
        assert_eq!(store.about().risks.len(), 1, "{option}");
        put(&store, "a", "1").await;
        store.close().await;
    }
}

async fn nobody(_: Arc<Server>) {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut config = MongoConfig::new(Server::uri_through(port), "d");
    config.connect_ms = 300;
    let text = refused(&config, ErrorKind::Unavailable).await;
    assert!(text.contains("no usable primary"), "{text}");
}

async fn closed(server: Arc<Server>) {
    let store = open(&patient(&server)).await;
    put(&store, "a", "1").await;
    store.close().await;
    store.close().await;
    let e = store.get(&key("a")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    let e = store
        .commit(skyloom_store::Txn::new().delete(key("a")))
        .await
        .unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.to_string().contains("closed"), "{e}");
}
