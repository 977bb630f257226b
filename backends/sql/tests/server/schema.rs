//! Tables: made once, never downgraded, many sets in one database, readable.

use std::time::Duration;

use futures::future::join_all;
use skyloom_store::{Class, ErrorKind, Grant, LeaseMode, LeaseName, WatchOptions};
use skyloom_store_sql::Engine;

use crate::servers::Handle;
use crate::support::{all, commits_until, key, prefix, put, server};

pub(crate) async fn migrating_at_the_same_time_is_done_once(engine: Engine) {
    let server = server(engine).await;
    let config = server.config();
    let done = join_all((0..6).map(|_| Handle::migrate(&config))).await;
    let done: Vec<(u32, u32)> = done
        .into_iter()
        .map(|m| m.unwrap())
        .map(|m| (m.from, m.to))
        .collect();
    assert_eq!(done.iter().filter(|m| **m == (0, 1)).count(), 1, "{done:?}");
    assert_eq!(done.iter().filter(|m| **m == (1, 1)).count(), 5, "{done:?}");
    // Again, with something in it.
    let store = Handle::open(config.clone()).await.unwrap();
    let revision = put(&*store.backend(), "a", "1").await;
    Handle::migrate(&config).await.unwrap();
    assert_eq!(
        store.backend().get(&key("a")).await.unwrap().unwrap().modified,
        revision
    );
    store.close().await.unwrap();
}

pub(crate) async fn newer_tables_are_refused(engine: Engine) {
    let server = server(engine).await;
    let config = server.config();
    Handle::migrate(&config).await.unwrap();
    server
        .execute(&format!("UPDATE {}_state SET version = 2", config.prefix))
        .await
        .unwrap();
    let e = Handle::open(config.clone()).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::TooNew);
    let e = Handle::migrate(&config).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::TooNew);
}

pub(crate) async fn there_must_be_tables(engine: Engine) {
    let server = server(engine).await;
    let config = server.config();
    let e = Handle::open(config.clone()).await.err().unwrap();
    assert_eq!((e.kind(), e.class()), (ErrorKind::Unavailable, Class::Permanent));
    assert!(e.to_string().contains("run migrate"), "{e}");
    // Opening has made none.
    let e = Handle::open(config).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
}

pub(crate) async fn clouds_of_different_prefixes_do_not_see_each_other(engine: Engine) {
    let server = server(engine).await;
    let one = server.config();
    // Half a name of the other's tables.
    let two = server.config_at(&format!("{}_state", one.prefix));
    let a = Handle::create(one).await.unwrap();
    let b = Handle::create(two).await.unwrap();
    let first = put(&*a.backend(), "k/a", "1").await;
    assert_eq!(
        put(&*b.backend(), "k/b", "1").await,
        first,
        "revisions are their own"
    );
    let mut stream = b.backend().watch(&prefix(""), WatchOptions::after(first));
    put(&*a.backend(), "k/a", "2").await;
    let last = put(&*b.backend(), "k/b", "2").await;
    let seen = commits_until(&mut stream, last).await.unwrap();
    let keys: Vec<_> = seen
        .iter()
        .flat_map(|(_, c)| c)
        .map(|c| c.key().to_string())
        .collect();
    assert_eq!(keys, ["k/b"]);
    for (store, wanted) in [(&a, "k/a"), (&b, "k/b")] {
        let found = all(&*store.backend(), "", None, 10).await.unwrap();
        assert_eq!(
            found.iter().map(|kv| kv.key.as_str()).collect::<Vec<_>>(),
            [wanted]
        );
        store.close().await.unwrap();
    }
}

pub(crate) async fn documents_can_be_read_with_plain_sql(engine: Engine) {
    let server = server(engine).await;
    let config = server.config();
    let store = Handle::create(config.clone()).await.unwrap();
    for (n, name) in ["web", "db"].iter().enumerate() {
        let document = format!("{{\"meta\":{{\"name\":\"{name}\"}},\"cpus\":{}}}", n + 2);
        put(&*store.backend(), &format!("servers/{n}"), &document).await;
    }
    // The statements of the README.
    let p = &config.prefix;
    let sql = match engine {
        Engine::Postgres => format!(
            "SELECT sum((value ->> 'cpus')::bigint)::bigint FROM {p}_documents \
              WHERE key LIKE 'servers/%' AND value #>> '{{meta,name}}' = 'db'"
        ),
        _ => format!(
            "SELECT CAST(SUM(JSON_VALUE(value, '$.cpus')) AS SIGNED) FROM {p}_documents \
              WHERE `key` LIKE 'servers/%' AND JSON_VALUE(value, '$.meta.name') = 'db'"
        ),
    };
    assert_eq!(server.number(&sql).await.unwrap(), 3);
    store.close().await.unwrap();
}

pub(crate) async fn few_privileges_are_enough(engine: Engine) {
    let server = server(engine).await;
    let mut config = server.config();
    Handle::migrate(&config).await.unwrap();
    let p = config.prefix.clone();
    match engine {
        Engine::Postgres => {
            let tables = ["documents", "history", "leases", "writers", "state"]
                .map(|t| format!("{p}_{t}"))
                .join(", ");
            let grant =
                format!("CREATE ROLE {p} LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {p}");
            server.execute(&grant).await.unwrap();
        }
        _ => {
            let grant = format!(
                "CREATE USER {p}@localhost; GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE ON skyloom.* TO {p}@localhost"
            );
            server.execute(&grant).await.unwrap();
        }
    }
    config.user = p.clone();
    let store = Handle::open(config.clone()).await.unwrap();
    let backend = store.backend();
    let name = LeaseName::parse("l").unwrap();
    let granted = backend
        .grant(&name, "me", Duration::from_secs(60), LeaseMode::Acquire)
        .await
        .unwrap();
    assert_eq!(granted, Grant::Granted { epoch: 1 });
    let first = put(&*backend, "a", "1").await;
    let mut stream = backend.watch(&prefix(""), WatchOptions::after(first));
    let last = put(&*backend, "a", "2").await;
    assert_eq!(commits_until(&mut stream, last).await.unwrap().len(), 1);
    store.compact(last).await.unwrap();
    store.close().await.unwrap();
    // Not enough to make tables.
    config.prefix = format!("{p}_new");
    if engine == Engine::Postgres {
        server
            .execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
            .await
            .unwrap();
    }
    let e = Handle::migrate(&config).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Denied, "{e:?}");
}
