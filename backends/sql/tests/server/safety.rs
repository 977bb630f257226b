//! Servers that would not keep what they promise.

use skyloom_store::ErrorKind;
use skyloom_store_sql::Engine;

use crate::servers::Handle;
use crate::support::{own_server, put, server};

pub(crate) async fn unsafe_settings_are_refused(engine: Engine) {
    let (settings, reasons): (&'static [&'static str], &[&str]) = match engine {
        Engine::Postgres => (
            &["fsync=off", "full_page_writes=off", "synchronous_commit=off"],
            &[
                "fsync = off",
                "full_page_writes = off",
                "synchronous_commit = off",
            ],
        ),
        _ => (
            &[
                "innodb-flush-log-at-trx-commit=2",
                "log-bin=binlog",
                "server-id=1",
                "sync-binlog=0",
                "innodb-doublewrite=0",
            ],
            &[
                "innodb_flush_log_at_trx_commit is not 1",
                "sync_binlog is not 1",
                "innodb_doublewrite is off",
            ],
        ),
    };
    let server = own_server(engine, settings).await;
    let mut config = server.config();
    let e = Handle::create(config.clone()).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    for reason in reasons {
        assert!(e.to_string().contains(reason), "{e}");
    }
    config.allow_unsafe = true;
    let store = Handle::open(config).await.unwrap();
    assert!(!store.backend().capability().durable);
    let about = store.about();
    assert_eq!(
        (about.schema, about.risks.len()),
        (Some(1), reasons.len()),
        "{about:?}"
    );
    let (product, setting, value) = match engine {
        Engine::Postgres => ("PostgreSQL ", "fsync", "off"),
        _ => ("MariaDB ", "innodb_flush_log_at_trx_commit", "2"),
    };
    assert!(about.server.starts_with(product), "{about:?}");
    assert_eq!(about.durability[setting], value);
    put(&*store.backend(), "a", "1").await;
    store.close().await.unwrap();

    // One session's own setting counts as well.
    if engine == Engine::Postgres {
        let server = crate::support::server(engine).await;
        let mut config = server.config();
        let p = config.prefix.clone();
        server
            .execute(&format!(
                "CREATE ROLE {p} SUPERUSER LOGIN; ALTER ROLE {p} SET synchronous_commit = off"
            ))
            .await
            .unwrap();
        config.user = p;
        let e = Handle::create(config).await.err().unwrap();
        assert!(e.to_string().contains("synchronous_commit = off"), "{e}");
    }
}

pub(crate) async fn a_read_only_server_is_refused(engine: Engine) {
    let (server, mut config) = match engine {
        Engine::Postgres => {
            let server = server(engine).await;
            let mut config = server.config();
            Handle::migrate(&config).await.unwrap();
            let p = config.prefix.clone();
            let role = format!(
                "CREATE ROLE {p} SUPERUSER LOGIN; ALTER ROLE {p} SET default_transaction_read_only = on"
            );
            server.execute(&role).await.unwrap();
            config.user = p;
            (server, config)
        }
        // With a binary log, as most have it, and what is visible then is durable.
        _ => {
            let server = own_server(engine, &["log-bin=binlog", "server-id=1", "sync-binlog=1"]).await;
            let config = server.config();
            let store = Handle::create(config.clone()).await.unwrap();
            assert!(store.backend().capability().durable);
            put(&*store.backend(), "a", "1").await;
            store.close().await.unwrap();
            server.execute("SET GLOBAL read_only = 1").await.unwrap();
            (server, config)
        }
    };
    let e = Handle::open(config.clone()).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.to_string().contains("read-only"), "{e}");
    // Nobody gets in with a wrong name either, and no error shows the password.
    config.user = "nobody-of-that-name".to_owned();
    config.password = Some(skyloom_model::Secret::new("hunter2".to_owned()));
    let e = Handle::open(config).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Denied, "{e:?}");
    assert!(!format!("{} {e:?}", skyloom_model::report(&e)).contains("hunter2"));
    drop(server);
}
