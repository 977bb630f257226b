//! The durable ten-step workflow: Skyloom, steno and the bound of a bare log, by turns in one run.
//!
//! Each turn is a process of its own (this program, or benches/peers), so that memory and CPU time are nobody else's:
//!
//! ```text
//! PROGRAM [turn] WHAT IN_FLIGHT SECONDS FOLDER
//!   -> wall cpu others durable-writes rss-before rss-after     nanoseconds, KiB
//!   -> latency latency …                                       nanoseconds
//! ```

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use skyloom::model::SystemClock;
use skyloom::sql::{SqliteConfig, SqliteStore};
use skyloom::store::{DynBackend, MemoryConfig, MemoryStore};
use tokio::runtime::Runtime;

use crate::disk;
use crate::meter::{Anyhow, Awake, Cost, progress, rss};
use crate::rig::{Rig, Until};
use crate::table::{Samples, Short, Thousands};
use crate::ten::STEPS;
use crate::write;

/// Workflows before anything is counted.
const WARM_UP: usize = 200;

/// What one turn, or several, gave.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn {
    samples: Samples,
    /// Durable writes.
    syncs: u64,
    /// KiB by which the process has grown.
    grown: f64,
}

impl Turn {
    fn and(self, more: Self) -> Self {
        Self {
            samples: self.samples.and(more.samples),
            syncs: self.syncs + more.syncs,
            grown: self.grown + more.grown,
        }
    }

    fn per_workflow(&self, what: f64) -> f64 {
        what / self.samples.count().max(1) as f64
    }

    fn cpu_per_step(&self) -> Duration {
        let steps = self.samples.count().max(1) * STEPS;
        self.samples.cost.cpu / u32::try_from(steps).unwrap_or(u32::MAX)
    }
}

/// One turn of ours, in this process: prints it.
pub(crate) fn turn(arguments: &[String], clock: SystemClock) -> Result<(), Anyhow> {
    let [what, in_flight, seconds, folder] = arguments else {
        return Err("turn WHAT IN_FLIGHT SECONDS FOLDER".into());
    };
    let limit = Until::Time(Duration::from_secs_f64(seconds.parse()?));
    let runtime = Runtime::new()?;
    let dir = match what.as_str() {
        "skyloom-shm" => tempfile::tempdir_in("/dev/shm")?,
        _ => tempfile::tempdir_in(folder)?,
    };
    runtime.block_on(async {
        let sqlite = match what.as_str() {
            "skyloom-memory" => None,
            "skyloom-sqlite" | "skyloom-shm" => Some(sqlite(dir.path(), clock).await?),
            _ => return Err(format!("there is no {what}").into()),
        };
        let store: DynBackend = match &sqlite {
            Some(sqlite) => sqlite.clone(),
            None => Arc::new(MemoryStore::new(Arc::new(clock), MemoryConfig::default())),
        };
        let syncs = || sqlite.as_ref().map_or(0, |s| s.stats().batches);
        let rig = Rig::open(store, clock).await?;
        rig.closed_loop(1, Until::Count(WARM_UP)).await?;
        let before = (syncs(), rss()?);
        let (samples, tasks) = rig.closed_loop(in_flight.parse()?, limit).await?;
        let after = (syncs(), rss()?);
        rig.check(&tasks).await?;
        rig.close().await?;
        if let Some(sqlite) = sqlite {
            sqlite.close().await?;
        }
        let Cost { wall, cpu, others } = samples.cost;
        let [wall, cpu, others] = [wall, cpu, others].map(|t| t.as_nanos());
        write(format_args!(
            "{wall} {cpu} {others} {} {} {}",
            after.0 - before.0,
            before.1,
            after.1
        ))?;
        let mut line = String::new();
        for took in samples.all() {
            write!(line, "{} ", took.as_nanos())?;
        }
        write(line)
    })
}

async fn sqlite(dir: &Path, clock: SystemClock) -> Result<Arc<SqliteStore>, Anyhow> {
    let config = SqliteConfig::new(dir.join("workflows.db"));
    Ok(Arc::new(
        SqliteStore::open_or_create(config, Arc::new(clock)).await?,
    ))
}

/// Has another process take a turn.
fn elsewhere(
    program: &Path,
    what: &str,
    in_flight: usize,
    limit: Duration,
    folder: &Path,
) -> Result<Turn, Anyhow> {
    let mut command = Command::new(program);
    if what.starts_with("skyloom") {
        command.arg("turn");
    }
    let output = command
        .args([what, &in_flight.to_string(), &limit.as_secs_f64().to_string()])
        .arg(folder)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(format!("{} {what}: {}", program.display(), output.status).into());
    }
    parse(&String::from_utf8(output.stdout)?)
        .ok_or_else(|| format!("{} {what} gave no figures", program.display()).into())
}

fn parse(text: &str) -> Option<Turn> {
    let (figures, latencies) = text.split_once('\n')?;
    let figures: Vec<u64> = numbers(figures)?;
    let [wall, cpu, others, syncs, before, after] = figures.try_into().ok()?;
    let [wall, cpu, others] = [wall, cpu, others].map(Duration::from_nanos);
    let took = numbers(latencies)?
        .into_iter()
        .map(Duration::from_nanos)
        .collect();
    Some(Turn {
        samples: Samples::new(took, Cost { wall, cpu, others }),
        syncs,
        grown: after as f64 - before as f64,
    })
}

fn numbers(line: &str) -> Option<Vec<u64>> {
    line.split_whitespace().map(|n| n.parse().ok()).collect()
}

/// Who takes turns: the name in arguments, the name in the table.
const CONTESTANTS: [(&str, &str); 6] = [
    ("bound", "bound: 11 records in a chain on a bare write-ahead log"),
    ("steno-wal", "steno 0.5 on that log"),
    ("skyloom-sqlite", "**Skyloom, SQLite, `synchronous=FULL`**"),
    ("skyloom-shm", "Skyloom, SQLite on /dev/shm: software alone"),
    ("steno-memory", "steno 0.5, storing nothing"),
    ("skyloom-memory", "**Skyloom, memory store**"),
];

/// How each is run: callers, and whether the CPUs are kept awake.
const WAYS: [(usize, bool); 3] = [(1, false), (1, true), (64, false)];

/// The table. Without `peers` (the program of benches/peers) only what is ours.
pub(crate) fn table(
    dir: &Path,
    peers: Option<&Path>,
    turns: usize,
    limit: Duration,
    clock: SystemClock,
) -> Result<(), Anyhow> {
    let ours = std::env::current_exe()?;
    let mut results: Vec<[Turn; WAYS.len()]> = vec![Default::default(); CONTESTANTS.len()];
    let mut probe = Samples::default();
    for number in 1..=turns {
        progress(&format!("ten steps, turn {number} of {turns}"));
        probe = probe.and(disk::fdatasync(dir, limit / 2, clock)?);
        for (way, (in_flight, awake)) in WAYS.into_iter().enumerate() {
            let _awake = awake.then(Awake::start).transpose()?;
            for ((what, _), result) in CONTESTANTS.into_iter().zip(&mut results) {
                let program = match (peers, what.starts_with("skyloom")) {
                    (_, true) => ours.as_path(),
                    (Some(peers), false) => peers,
                    (None, false) => continue,
                };
                let turn = elsewhere(program, what, in_flight, limit, dir)?;
                result[way] = std::mem::take(&mut result[way]).and(turn);
            }
        }
    }
    write(format_args!(
        "\nDisk in these turns: write 4 KiB + fdatasync {}/s, p50 {}.\n",
        Thousands(probe.rate()),
        Short(probe.p50())
    ))?;
    write(HEAD)?;
    for (way, (in_flight, awake)) in WAYS.into_iter().enumerate() {
        for ((what, name), result) in CONTESTANTS.into_iter().zip(&results) {
            if result[way].samples.count() > 0 {
                let bound = results[0][way].samples.rate();
                write(row(what, name, in_flight, awake, &result[way], bound))?;
            }
        }
    }
    Ok(())
}

const HEAD: &str = "\
| ten durable steps | in flight | workflows/s | p50 | p99 | CPU per step | fdatasync each | kept each | of the bound | others' CPU | goal |
| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |";

fn row(what: &str, name: &str, in_flight: usize, awake: bool, turn: &Turn, bound: f64) -> String {
    let rate = turn.samples.rate();
    let durable = !what.ends_with("memory") && !what.ends_with("shm");
    let syncs = turn.per_workflow(turn.syncs as f64);
    let mut goals = Vec::new();
    let mut goal = |text: &str, met: bool| {
        goals.push(format!("{text}: {}", if met { "met" } else { "**missed**" }));
    };
    let cpu = turn.cpu_per_step();
    let micros = Duration::from_micros;
    match (what, in_flight) {
        ("skyloom-sqlite", 1) => {
            goal("≥ 250/s", rate >= 250.0);
            goal("≤ 12 fdatasync", syncs <= 12.0);
        }
        ("skyloom-sqlite", _) => {
            goal("≥ 2,000/s", rate >= 2_000.0);
            goal("≤ 25 µs CPU per step", cpu <= micros(25));
        }
        ("skyloom-memory", 64) => goal("≥ 10,000/s", rate >= 10_000.0),
        _ => {}
    }
    let dash = || "-".to_owned();
    format!(
        "| {name} | {in_flight}{} | {} | {} | {} | {} | {} | {:.1} KiB | {} | {:.0} % | {} |",
        if awake { ", CPUs awake" } else { "" },
        Thousands(rate),
        Short(turn.samples.p50()),
        Short(turn.samples.quantile(0.99)),
        Short(cpu),
        if durable { format!("{syncs:.2}") } else { dash() },
        turn.per_workflow(turn.grown),
        if durable && bound > 0.0 {
            format!("{:.0} %", 100.0 * rate / bound)
        } else {
            dash()
        },
        turn.samples.cost.others_share() * 100.0,
        if goals.is_empty() {
            dash()
        } else {
            goals.join("; ")
        },
    )
}
