//! kill -9: a child process commits and prints what was acknowledged, and dies at a point that it does not choose.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use libtest_mimic::Trial;
use skyloom_model::SystemClock;
use skyloom_store::{Key, ListOptions, Outcome, Prefix, Store, Txn, Value};
use skyloom_store_sql::{SqliteConfig, SqliteStore};
use tokio::task::JoinSet;

/// First argument of a child.
pub(crate) const CHILD: &str = "crash-child";
const ROUNDS: u64 = 40;
const WRITERS: u64 = 8;

type AnyError = Box<dyn Error + Send + Sync>;

fn config(path: &Path) -> SqliteConfig {
    let mut config = SqliteConfig::new(path);
    config.max_history = 50; // so that history is swept while the process is killed
    config
}

fn key(round: &str, writer: u64, n: u64, half: &str) -> Result<Key, AnyError> {
    Ok(Key::parse(&format!("{half}/r{round}-w{writer}-n{n}"))?)
}

/// `crash-child PATH ROUND`: prints `writer n revision` for each acknowledged commit, for ever.
pub(crate) fn child(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let (Some(path), Some(round)) = (arguments.next(), arguments.next()) else {
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let run = async {
        let store =
            Arc::new(SqliteStore::open(config(&PathBuf::from(path)), Arc::new(SystemClock::new())).await?);
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            writers.spawn(write(Arc::clone(&store), round.clone(), writer));
        }
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        Ok::<_, AnyError>(())
    };
    match runtime
        .map_err(AnyError::from)
        .and_then(|runtime| runtime.block_on(run))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "child: {e:?}");
            ExitCode::FAILURE
        }
    }
}

async fn write(store: Arc<SqliteStore>, round: String, writer: u64) -> Result<(), AnyError> {
    for n in 0.. {
        let value = Value::json(&serde_json::json!({ "writer": writer, "n": n }))?;
        let txn = Txn::new()
            .create(key(&round, writer, n, "left")?, value.clone())
            .create(key(&round, writer, n, "right")?, value)
            .put(Key::parse("shared")?, Value::json(&n)?);
        let Outcome::Committed { revision } = store.commit(txn).await? else {
            return Err("a new key conflicts".into());
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{writer} {n} {revision}")?;
        out.flush()?;
    }
    Ok(())
}

pub(crate) fn trial() -> Trial {
    Trial::test("sqlite::process::acknowledged_commits_survive_kill_9", || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        Ok(runtime.block_on(rounds()).map_err(|e| format!("{e:?}"))?)
    })
}

async fn rounds() -> Result<(), AnyError> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("store.db");
    skyloom_store_sql::migrate(&config(&path)).await?;
    let mut acked: BTreeMap<String, u64> = BTreeMap::new();
    let mut chance: u64 = 7;
    for round in 0..ROUNDS {
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let before = acked.len();
        kill_one(&path, round, 20 + (chance >> 33) % 300, &mut acked)?;
        if acked.len() == before {
            return Err(format!("round {round}: the child acknowledged nothing").into());
        }
        check(&path, &acked)
            .await
            .map_err(|e| format!("round {round}: {e}"))?;
    }
    Ok(())
}

/// Lets a child run until it has acknowledged `lines` commits, kills it, and notes all that it acknowledged.
fn kill_one(path: &Path, round: u64, lines: u64, acked: &mut BTreeMap<String, u64>) -> Result<(), AnyError> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(CHILD)
        .arg(path)
        .arg(round.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().ok_or("the child has no stdout")?;
    let mut reader = BufReader::new(out);
    let mut line = String::new();
    let mut seen = 0;
    while reader.read_line(&mut line)? > 0 {
        // A last line without its end may be torn, but then it counts only as far as it goes.
        if line.ends_with('\n') {
            let fields: Vec<u64> = line
                .split_whitespace()
                .map(str::parse)
                .collect::<Result<_, _>>()?;
            let [writer, n, revision] = fields[..] else {
                return Err(format!("strange line {line:?}").into());
            };
            for half in ["left", "right"] {
                acked.insert(key(&round.to_string(), writer, n, half)?.to_string(), revision);
            }
        }
        line.clear();
        seen += 1;
        if seen == lines {
            child.kill()?; // SIGKILL; what is in the pipe is still read
        }
    }
    let status = child.wait()?;
    if status.code().is_some() {
        return Err(format!("the child ended by itself: {status}").into());
    }
    Ok(())
}

async fn check(path: &Path, acked: &BTreeMap<String, u64>) -> Result<(), AnyError> {
    let store = SqliteStore::open(config(path), Arc::new(SystemClock::new())).await?;
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    for half in ["left", "right"] {
        let mut options = ListOptions::default();
        loop {
            let page = store.list(&Prefix::parse(half)?, options.clone()).await?;
            found.extend(page.items.iter().map(|kv| (kv.key.to_string(), kv.modified.0)));
            match page.items.last() {
                Some(last) if page.more => {
                    options = options.with_at(page.revision).with_after(last.key.clone())
                }
                _ => break,
            }
        }
    }
    let newest = store.stats().revision.0;
    store.close().await?;
    for (key, revision) in acked {
        if found.get(key) != Some(revision) {
            return Err(format!(
                "{key} was acknowledged at {revision} and is now at {:?}",
                found.get(key)
            )
            .into());
        }
    }
    let mut by_revision: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for (key, revision) in &found {
        by_revision
            .entry(*revision)
            .or_default()
            .push(key.split_once('/').map_or("", |(_, rest)| rest));
    }
    for (revision, keys) in by_revision {
        if keys.len() != 2 || keys[0] != keys[1] || revision > newest {
            return Err(format!(
                "revision {revision} of {newest} holds {keys:?} instead of one whole commit"
            )
            .into());
        }
    }
    Ok(())
}
