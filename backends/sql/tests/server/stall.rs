//! Other people's open transactions.

use skyloom_store::{ErrorKind, WatchOptions};
use skyloom_store_sql::Engine;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use crate::servers::{Handle, Server};
use crate::support::{commits_until, prefix, put, put_txn, server};

/// Somebody's session with an open transaction.
pub(crate) enum Somebody {
    Postgres(sqlx::PgConnection),
    MySql(sqlx::MySqlConnection),
}

impl Somebody {
    pub(crate) async fn begin(engine: Engine, server: &Server, sql: &str) -> Self {
        let mut somebody = match engine {
            Engine::Postgres => {
                let options = server.postgres().application_name("culprit");
                Self::Postgres(options.connect().await.unwrap())
            }
            _ => Self::MySql(server.mysql().connect().await.unwrap()),
        };
        somebody.run(sql).await;
        somebody
    }

    async fn number(&mut self) -> i64 {
        match self {
            Self::Postgres(conn) => {
                sqlx::query_scalar("SELECT pg_backend_pid()::bigint")
                    .fetch_one(conn)
                    .await
            }
            Self::MySql(conn) => {
                sqlx::query_scalar("SELECT CAST(CONNECTION_ID() AS SIGNED)")
                    .fetch_one(conn)
                    .await
            }
        }
        .unwrap()
    }

    async fn run(&mut self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Postgres(conn) => sqlx::raw_sql(sql).execute(conn).await.map(drop),
            Self::MySql(conn) => sqlx::raw_sql(sql).execute(conn).await.map(drop),
        }
        .unwrap();
    }

    pub(crate) async fn commit(mut self) {
        self.run("COMMIT").await;
        self.end().await;
    }

    /// Holds up all commits at `prefix`, until [`Somebody::commit`].
    pub(crate) async fn hold(engine: Engine, server: &Server, prefix: &str) -> Self {
        let sql = match engine {
            Engine::Postgres => {
                format!(
                    "BEGIN; SELECT pg_advisory_xact_lock(1397447500, '{prefix}_state'::regclass::oid::integer)"
                )
            }
            _ => format!("BEGIN; SELECT * FROM {prefix}_state FOR UPDATE"),
        };
        Self::begin(engine, server, &sql).await
    }

    pub(crate) async fn end(self) {
        match self {
            Self::Postgres(conn) => conn.close().await.unwrap(),
            Self::MySql(conn) => conn.close().await.unwrap(),
        }
    }
}

pub(crate) async fn somebody_elses_lock_is_reported(engine: Engine) {
    let server = server(engine).await;
    let mut config = server.config();
    config.max_wait_ms = 2_000;
    config.stall_ms = 100;
    let store = Handle::create(config.clone()).await.unwrap();
    let backend = store.backend();
    put(&*backend, "a", "1").await;
    let p = &config.prefix;
    let holds = match engine {
        Engine::Postgres => format!("BEGIN; UPDATE {p}_documents SET value = '2' WHERE key = 'a'"),
        _ => format!("BEGIN; UPDATE {p}_documents SET value = '2' WHERE `key` = 'a'"),
    };
    let mut somebody = Somebody::begin(engine, &server, &holds).await;
    let number = somebody.number().await;
    let e = backend.commit(put_txn("a", "3")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    let text = e.to_string();
    assert!(text.contains(&format!("held up by session {number} ")), "{text}");
    if engine == Engine::Postgres {
        assert!(text.contains("culprit, idle in transaction"), "{text}");
    }
    assert_eq!(store.stats().stalls, 1);
    // What is read is not held up, and afterwards nothing is.
    assert_eq!(
        backend
            .get(&crate::support::key("a"))
            .await
            .unwrap()
            .unwrap()
            .value,
        crate::support::json("1")
    );
    somebody.end().await;
    put(&*backend, "a", "4").await;
    store.close().await.unwrap();
}

pub(crate) async fn open_transactions_elsewhere_hold_nobody_up(engine: Engine) {
    let server = server(engine).await;
    let config = server.config();
    let stores = [
        Handle::create(config.clone()).await.unwrap(),
        Handle::create(config.clone()).await.unwrap(),
    ];
    let before = put(&*stores[0].backend(), "a", "0").await;
    let p = &config.prefix;
    // One has a snapshot of our tables, the other has written elsewhere: another database, where the server has such.
    let reads = match engine {
        Engine::Postgres => format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT txid_current(); SELECT count(*) FROM {p}_documents"
        ),
        _ => format!("START TRANSACTION WITH CONSISTENT SNAPSHOT; SELECT COUNT(*) FROM {p}_documents"),
    };
    let reader = Somebody::begin(engine, &server, &reads).await;
    let writer = match engine {
        Engine::Postgres => {
            server
                .execute(&format!("CREATE DATABASE other_{p}"))
                .await
                .unwrap();
            let options = server.postgres().database(&format!("other_{p}"));
            let mut conn = options.connect().await.unwrap();
            sqlx::raw_sql("BEGIN; CREATE TABLE t (n bigint); INSERT INTO t VALUES (1)")
                .execute(&mut conn)
                .await
                .unwrap();
            Somebody::Postgres(conn)
        }
        _ => {
            server
                .execute(&format!("CREATE TABLE {p}_other (n BIGINT) ENGINE = InnoDB"))
                .await
                .unwrap();
            Somebody::begin(
                engine,
                &server,
                &format!("BEGIN; INSERT INTO {p}_other VALUES (1)"),
            )
            .await
        }
    };
    let mut stream = stores[1]
        .backend()
        .watch(&prefix(""), WatchOptions::after(before));
    for n in 1..20 {
        let revision = put(&*stores[0].backend(), "a", &n.to_string()).await;
        let seen = commits_until(&mut stream, revision).await.unwrap();
        assert_eq!(seen.len(), 1);
    }
    assert_eq!(stores[0].stats().stalls, 0);
    reader.end().await;
    writer.end().await;
    for store in stores {
        store.close().await.unwrap();
    }
}
