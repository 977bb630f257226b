//! How many commits the SQLite store makes durable per second, beside the disk's own `fdatasync` rate.
//!
//! `cargo run --release -p skyloom-store-sql --features sqlite --example sqlite_rate [FOLDER [SECONDS]]`

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use skyloom_model::{Clock as _, SystemClock};
use skyloom_store::{Key, Store as _, Txn, Value};
use skyloom_store_sql::{SqliteConfig, SqliteStore};
use tokio::task::JoinSet;

type AnyError = Box<dyn Error + Send + Sync>;

/// 4 KiB written and synced, again and again, at the end of a file.
fn disk(folder: &Path, limit: Duration, clock: &SystemClock) -> Result<f64, AnyError> {
    let file = File::create(folder.join("probe"))?;
    let block = [7; 4096];
    let (start, mut n) = (clock.monotonic(), 0);
    while clock.monotonic() - start < limit {
        file.write_all_at(&block, n * 4096)?;
        file.sync_data()?;
        n += 1;
    }
    Ok(n as f64 / (clock.monotonic() - start).as_secs_f64())
}

struct Rate {
    commits: f64,
    per_batch: f64,
    p50: Duration,
    p99: Duration,
}

/// Each writer replaces its own documents in turn, as read.
async fn store(
    store: &Arc<SqliteStore>,
    writers: u64,
    limit: Duration,
    clock: SystemClock,
) -> Result<Rate, AnyError> {
    let before = store.stats();
    let start = clock.monotonic();
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let mut took = Vec::new();
            for n in 0u64.. {
                let begin = clock.monotonic();
                if begin - start >= limit {
                    break;
                }
                let key = Key::parse(&format!("bench/w{writer}/d{}", n % 1000))?;
                let value = Value::json(&serde_json::json!({ "n": n, "padding": "x".repeat(230) }))?;
                store.commit(Txn::new().put(key, value)).await?;
                took.push(clock.monotonic() - begin);
            }
            Ok::<_, AnyError>(took)
        });
    }
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.extend(done??);
    }
    let seconds = (clock.monotonic() - start).as_secs_f64();
    took.sort_unstable();
    let after = store.stats();
    let (commits, batches) = (
        (after.commits - before.commits) as f64,
        (after.batches - before.batches) as f64,
    );
    let at = |share: f64| {
        took.get((took.len() as f64 * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    Ok(Rate {
        commits: commits / seconds,
        per_batch: commits / batches,
        p50: at(0.5),
        p99: at(0.99),
    })
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    let parent = arguments.next().unwrap_or_else(|| "target".to_owned());
    let limit = Duration::from_secs(arguments.next().map_or(Ok(3), |s| s.parse())?);
    let dir = tempfile::tempdir_in(parent)?;
    let clock = SystemClock::new();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "disk: {:.0} fdatasync/s (4 KiB each)",
        disk(dir.path(), limit, &clock)?
    )?;
    let config = SqliteConfig::new(dir.path().join("store.db"));
    let sqlite = Arc::new(SqliteStore::open_or_create(config, Arc::new(clock)).await?);
    for writers in [1, 8, 64, 256] {
        let Rate {
            commits,
            per_batch,
            p50,
            p99,
        } = store(&sqlite, writers, limit, clock).await?;
        writeln!(
            out,
            "{writers:>3} writers: {commits:>6.0} commits/s, {per_batch:>5.1} commits per fdatasync, p50 {p50:?}, p99 {p99:?}"
        )?;
    }
    let key = Key::parse("bench/w0/d1")?;
    let (start, n) = (clock.monotonic(), 20_000u32);
    for _ in 0..n {
        sqlite.get(&key).await?;
    }
    writeln!(
        out,
        "get: {:?} each, one after the other",
        (clock.monotonic() - start) / n
    )?;
    sqlite.close().await?;
    Ok(())
}
