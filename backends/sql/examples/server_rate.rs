//! How many commits PostgreSQL and MariaDB make durable per second through the store, beside the server's own
//! compare-and-set by the same driver.
//!
//! `cargo run --release -p skyloom-store-sql --features postgres,mysql --example server_rate [SECONDS [ROUNDS]]` starts
//! both servers in temporary folders. Rows of one round are measured one after the other, so compare within a round.

#[path = "../tests/servers/mod.rs"]
mod servers;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use skyloom_model::{Clock as _, SystemClock};
use skyloom_store::{DynBackend, Key, Outcome, Txn, Value};
use skyloom_store_sql::{Engine, MySqlStore, PostgresStore, ServerConfig};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::task::JoinSet;

use servers::{AnyError, Server};

const CLIENTS: usize = 64;

/// 256 bytes.
fn document(n: u64) -> String {
    format!("{{\"n\":{n:>10},\"padding\":\"{}\"}}", "x".repeat(229))
}

#[derive(Default)]
struct Rate {
    per_second: f64,
    /// What it takes when nobody else is on the processors.
    p10: Duration,
    p50: Duration,
    p99: Duration,
}

fn rate(mut took: Vec<Duration>, elapsed: Duration) -> Rate {
    took.sort_unstable();
    let at = |share: f64| {
        let index = (took.len() as f64 * share) as usize;
        took.get(index).copied().unwrap_or_default()
    };
    Rate {
        per_second: took.len() as f64 / elapsed.as_secs_f64(),
        p10: at(0.1),
        p50: at(0.5),
        p99: at(0.99),
    }
}

/// `clients` that each compare and set their own document, through the store.
async fn through(
    store: &DynBackend,
    clients: usize,
    limit: Duration,
    clock: SystemClock,
) -> Result<Rate, AnyError> {
    let mut tasks = JoinSet::new();
    let mut revisions = Vec::new();
    for client in 0..clients {
        let key = Key::parse(&format!("bench/c{client}"))?;
        let txn = Txn::new().put(key.clone(), Value::from_json_bytes(document(0)));
        let Outcome::Committed { revision } = store.commit(txn).await? else {
            return Err("conflict".into());
        };
        revisions.push((key, revision));
    }
    let start = clock.monotonic();
    for (key, mut revision) in revisions {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let mut took = Vec::new();
            for n in 0.. {
                let begin = clock.monotonic();
                if begin - start >= limit {
                    break;
                }
                let txn = Txn::new().replace(key.clone(), revision, Value::from_json_bytes(document(n)));
                let Outcome::Committed { revision: new } = store.commit(txn).await? else {
                    return Err(AnyError::from("conflict"));
                };
                revision = new;
                took.push(clock.monotonic() - begin);
            }
            Ok::<_, AnyError>(took)
        });
    }
    gather(tasks, start, clock).await
}

async fn gather(
    mut tasks: JoinSet<Result<Vec<Duration>, AnyError>>,
    start: Duration,
    clock: SystemClock,
) -> Result<Rate, AnyError> {
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.extend(done??);
    }
    Ok(rate(took, clock.monotonic() - start))
}

/// The same by the driver alone: one statement, one transaction, one connection per client.
async fn native(
    server: &Server,
    engine: Engine,
    clients: usize,
    limit: Duration,
    clock: SystemClock,
) -> Result<Rate, AnyError> {
    let (key, text) = match engine {
        Engine::Postgres => ("varchar(512)", "json"),
        _ => ("varchar(512) character set ascii", "longtext"),
    };
    server.execute("DROP TABLE IF EXISTS native").await?;
    server
        .execute(&format!(
            "CREATE TABLE native (name {key} PRIMARY KEY, rev bigint NOT NULL, value {text} NOT NULL)"
        ))
        .await?;
    for client in 0..clients {
        server
            .execute(&format!(
                "INSERT INTO native VALUES ('bench/c{client}', 0, '{}')",
                document(0)
            ))
            .await?;
    }
    let mut tasks: JoinSet<Result<Vec<Duration>, AnyError>> = JoinSet::new();
    let ready = Arc::new(tokio::sync::Barrier::new(clients + 1));
    for client in 0..clients {
        let ready = Arc::clone(&ready);
        let key = format!("bench/c{client}");
        let (postgres, mysql) = (server.postgres(), server.mysql());
        tasks.spawn(async move {
            let mut took = Vec::new();
            macro_rules! run {
                ($options:expr, $sql:literal) => {{
                    let mut conn = $options.disable_statement_logging().connect().await?;
                    ready.wait().await;
                    let start = clock.monotonic();
                    for n in 0i64.. {
                        let begin = clock.monotonic();
                        if begin - start >= limit {
                            break;
                        }
                        let query = sqlx::query($sql)
                            .bind(document(n.unsigned_abs()))
                            .bind(&key)
                            .bind(n);
                        if query.execute(&mut conn).await?.rows_affected() != 1 {
                            return Err(AnyError::from("conflict"));
                        }
                        took.push(clock.monotonic() - begin);
                    }
                    conn.close().await?;
                }};
            }
            match engine {
                Engine::Postgres => {
                    run!(
                        postgres,
                        "UPDATE native SET rev = rev + 1, value = $1::text::json WHERE name = $2 AND rev = $3"
                    )
                }
                _ => run!(
                    mysql,
                    "UPDATE native SET rev = rev + 1, value = ? WHERE name = ? AND rev = ?"
                ),
            }
            Ok(took)
        });
    }
    ready.wait().await;
    let start = clock.monotonic();
    gather(tasks, start, clock).await
}

async fn open(config: ServerConfig) -> Result<DynBackend, AnyError> {
    Ok(match config.engine {
        Engine::Postgres => Arc::new(PostgresStore::open_or_create(config).await?),
        _ => Arc::new(MySqlStore::open_or_create(config).await?),
    })
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    let limit = Duration::from_secs(arguments.next().map_or(Ok(3), |s| s.parse())?);
    let rounds: u32 = arguments.next().map_or(Ok(2), |s| s.parse())?;
    let clock = SystemClock::new();
    let mut out = std::io::stdout();
    for engine in [Engine::Postgres, Engine::MySql] {
        let server = tokio::task::spawn_blocking(move || Server::start(engine, &[])).await??;
        let config = server.config();
        let store = open(config.clone()).await?;
        let mut alone = config;
        alone.max_batch = 1;
        let alone = open(alone).await?;
        for round in 1..=rounds {
            let rows = [
                (
                    "native CAS, 1 client",
                    native(&server, engine, 1, limit, clock).await?,
                ),
                ("commit, 1 client", through(&store, 1, limit, clock).await?),
                (
                    "native CAS, 64 clients",
                    native(&server, engine, CLIENTS, limit, clock).await?,
                ),
                (
                    "commit, 64 clients",
                    through(&store, CLIENTS, limit, clock).await?,
                ),
                (
                    "commit alone, 64 clients",
                    through(&alone, CLIENTS, limit, clock).await?,
                ),
            ];
            for (name, rate) in rows {
                writeln!(
                    out,
                    "{engine} {round} {name:<25} {:>7.0}/s  p10 {:>9.1?}  p50 {:>9.1?}  p99 {:>9.1?}",
                    rate.per_second, rate.p10, rate.p50, rate.p99
                )?;
            }
        }
    }
    Ok(())
}
