//! The durable ten-step workflow on others: on steno, and on a bare write-ahead log, which bounds them all.
//!
//! One step is `x + 1`, and its result is recorded durably before the next step begins. Callers in a closed loop: each
//! begins its next workflow when the one before has ended. A latency is that of a whole workflow.
//!
//! ```text
//! skyloom-peers [FOLDER]                        everything, as a table
//! skyloom-peers WHAT IN_FLIGHT SECONDS FOLDER   one turn, for benches/figures: a line of figures, a line of latencies in ns
//! ```

mod saga;
mod wal;

use std::fs::File;
use std::future::Future;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// The same as in our own programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use crate::saga::{Sagas, WalStore};
use crate::wal::Wal;

/// Steps of a workflow.
const STEPS: usize = 10;
/// Workflows before anything is counted.
const WARM_UP: usize = 200;
/// What can be measured, with its name in tables.
const ALL: [(&str, &str); 3] = [
    ("bound", "bare write-ahead log, 11 records in a chain"),
    ("steno-memory", "steno 0.5, InMemorySecStore (stores nothing)"),
    ("steno-wal", "steno 0.5 on that log"),
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [what, in_flight, seconds, folder] => {
            let limit = Duration::from_secs_f64(seconds.parse()?);
            let turn = turn(what, in_flight.parse()?, limit, Path::new(folder))?;
            let Turn {
                wall,
                cpu,
                others,
                syncs,
                rss_before,
                rss_after,
                took,
            } = turn;
            let [wall, cpu, others] = [wall, cpu, others].map(|t| t.as_nanos());
            println!("{wall} {cpu} {others} {syncs} {rss_before} {rss_after}");
            let took: Vec<String> = took.iter().map(|t| t.as_nanos().to_string()).collect();
            println!("{}", took.join(" "));
            Ok(())
        }
        [] => table(&std::env::temp_dir()),
        [folder] => table(Path::new(folder)),
        _ => bail!("see the head of main.rs for the arguments"),
    }
}

fn table(parent: &Path) -> anyhow::Result<()> {
    let dir = tempfile::tempdir_in(parent)?;
    println!(
        "write 4 KiB + fdatasync, one writer: {:.0}/s\n",
        fdatasync(dir.path())?
    );
    println!("| ten steps | in flight | workflows/s | p50 | p99 | CPU per step | fdatasync per workflow |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (what, name) in ALL {
        for in_flight in [1, 64] {
            let mut t = turn(what, in_flight, Duration::from_secs(2), dir.path())?;
            let n = t.took.len() as f64;
            t.took.sort_unstable();
            let at = |share: f64| t.took[((n * share) as usize).min(t.took.len() - 1)];
            println!(
                "| {name} | {in_flight} | {:.0} | {:.2?} | {:.2?} | {:.1} µs | {:.2} |",
                n / t.wall.as_secs_f64(),
                at(0.5),
                at(0.99),
                t.cpu.as_secs_f64() * 1e6 / n / STEPS as f64,
                t.syncs as f64 / n,
            );
        }
    }
    Ok(())
}

/// What one turn gave.
#[derive(Debug)]
struct Turn {
    wall: Duration,
    cpu: Duration,
    /// CPU time of everybody else.
    others: Duration,
    /// Durable writes.
    syncs: u64,
    /// Resident memory in KiB.
    rss_before: u64,
    rss_after: u64,
    /// Latencies of whole workflows.
    took: Vec<Duration>,
}

/// Runs workflows of one kind for `limit`.
fn turn(what: &str, in_flight: usize, limit: Duration, folder: &Path) -> anyhow::Result<Turn> {
    let runtime = Runtime::new()?;
    let wal = match what {
        "steno-memory" => None,
        _ => Some(Arc::new(Wal::create(&folder.join("peers.wal"))?)),
    };
    runtime.block_on(async {
        match (what, &wal) {
            ("bound", Some(log)) => {
                let log = Arc::clone(log);
                let one = move || {
                    let log = Arc::clone(&log);
                    async move {
                        for _ in 0..=STEPS {
                            log.append(vec![b'x'; 511]).await?;
                        }
                        Ok(())
                    }
                };
                measure(one, in_flight, limit, wal.as_deref()).await
            }
            ("steno-wal", Some(log)) => {
                sagas(
                    Sagas::new(Arc::new(WalStore(Arc::clone(log))))?,
                    in_flight,
                    limit,
                    wal.as_deref(),
                )
                .await
            }
            ("steno-memory", None) => {
                sagas(
                    Sagas::new(Arc::new(steno::InMemorySecStore::new()))?,
                    in_flight,
                    limit,
                    None,
                )
                .await
            }
            _ => bail!("there is no {what}: {ALL:?}"),
        }
    })
}

async fn sagas(sagas: Sagas, in_flight: usize, limit: Duration, wal: Option<&Wal>) -> anyhow::Result<Turn> {
    let sagas = Arc::new(sagas);
    let one = move || {
        let sagas = Arc::clone(&sagas);
        async move { sagas.one().await }
    };
    measure(one, in_flight, limit, wal).await
}

/// The closed loop.
async fn measure<F, W>(one: F, in_flight: usize, limit: Duration, wal: Option<&Wal>) -> anyhow::Result<Turn>
where
    F: Fn() -> W + Clone + Send + 'static,
    W: Future<Output = anyhow::Result<()>> + Send,
{
    for _ in 0..WARM_UP {
        one().await?;
    }
    let syncs = wal.map_or(0, Wal::syncs);
    let (rss_before, busy, cpu, begin) = (rss()?, busy()?, cpu(), Instant::now());
    let mut callers = JoinSet::new();
    for _ in 0..in_flight {
        let one = one.clone();
        callers.spawn(async move {
            let mut took = Vec::new();
            while begin.elapsed() < limit {
                let start = Instant::now();
                one().await?;
                took.push(start.elapsed());
            }
            anyhow::Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(caller) = callers.join_next().await {
        took.extend(caller??);
    }
    let cpu = self::cpu().saturating_sub(cpu);
    Ok(Turn {
        wall: begin.elapsed(),
        cpu,
        others: self::busy()?.saturating_sub(busy).saturating_sub(cpu),
        syncs: wal.map_or(0, Wal::syncs) - syncs,
        rss_before,
        rss_after: rss()?,
        took,
    })
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        t.tv_sec.try_into().unwrap_or(0),
        t.tv_nsec.try_into().unwrap_or(0),
    )
}

/// CPU time of the whole machine so far, without idle time and without niced processes.
fn busy() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().skip(1).map_while(|n| n.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; a tick is 10 ms.
    let sum: u64 = [0, 2, 5, 6, 7].iter().filter_map(|&i: &usize| ticks.get(i)).sum();
    Ok(Duration::from_millis(sum * 10))
}

/// Resident memory of this process in KiB.
fn rss() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|l| l.split_whitespace().next());
    Ok(kib.context("no VmRSS")?.parse()?)
}

/// Durable writes per second of one writer over a file whose room is taken.
fn fdatasync(folder: &Path) -> anyhow::Result<f64> {
    let file = File::create(folder.join("probe"))?;
    file.write_all_at(&vec![1; 4 << 20], 0)?;
    file.sync_all()?;
    let (begin, mut n) = (Instant::now(), 0_u64);
    while begin.elapsed() < Duration::from_secs(1) {
        file.write_all_at(&[7; 4096], (n % 1024) * 4096)?;
        file.sync_data()?;
        n += 1;
    }
    Ok(n as f64 / begin.elapsed().as_secs_f64())
}
