//! The figures of docs/performance.md, each beside a limit or peer of the same run: Markdown tables on stdout.
//!
//! ```text
//! figures [--peers PROGRAM]              the short ones, in some minutes: stores, control plane, workflows, recovery
//! figures workflow [--peers PROGRAM]     the ten-step workflow alone; PROGRAM is that of benches/peers
//! figures recovery [TASKS]               an engine dies with so many open tasks (10,000)
//! figures history [MINUTES [RATE]]       so many minutes (10) of so many tasks a second (100)
//! figures placing [STORE [HOSTS]]        placed tasks and claims a second on `memory` and `sqlite` with 10,000 hosts
//! figures creates [STORE [HOSTS [N]]]    N (1,000) servers made through the whole control plane on so many (100) hosts
//! figures million [STORE [WORKFLOWS]]    memory over a million workflows on `sqlite` or `memory`
//! ```
//!
//! `tools/bench/run.sh` runs them and adds what is measured from outside (memory and CPU of an idle process).
//! Measurements that need a quiet machine cannot be had on a shared one: so the CPU time of each operation stands beside
//! the clock, what others took of the CPUs beside both, and whatever is to be compared is measured by turns.
//! What is measured one operation at a time comes twice: as it is, and with the CPUs kept from halting.

mod control;
mod disk;
mod history;
mod meter;
mod million;
mod placing;
mod recovery;
mod rig;
mod stores;
mod table;
mod ten;
mod workflow;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skyloom::model::SystemClock;
use skyloom::sql::{SqliteConfig, SqliteStore};
use skyloom::store::{DynBackend, MemoryConfig, MemoryStore};
use tokio::runtime::{Builder, Runtime};

use crate::meter::{Anyhow, Awake, cores, progress};
use crate::table::{HEAD, Row, Samples, Short, Thousands};

/// As in the programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TURNS: usize = 3;
const SECOND: Duration = Duration::from_secs(1);
const WATCH_ROUNDS: usize = 2_000;
const CREATES: usize = 200;
/// Open tasks of the short recovery.
const FEW: usize = 2_000;

fn main() -> Result<(), Anyhow> {
    // What `cargo bench` adds by itself is not meant for us.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let (options, arguments) = options(arguments)?;
    let clock = SystemClock::new();
    match arguments.first().map(String::as_str) {
        Some("spin") => Awake::spin(),
        Some("turn") => return workflow::turn(&arguments[1..], clock),
        _ => {}
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bench = Figures {
        runtime: Runtime::new()?,
        clock,
        dir: dir.path(),
        peers: options,
    };
    write(format_args!("{}", machine()?))?;
    let rest: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match rest.as_slice() {
        [] => bench.short(),
        ["workflow"] => bench.workflow(),
        ["recovery"] => bench.recovery(10_000),
        ["recovery", tasks] => bench.recovery(tasks.parse()?),
        ["history"] => bench.history(10, 100),
        ["history", minutes] => bench.history(minutes.parse()?, 100),
        ["history", minutes, rate] => bench.history(minutes.parse()?, rate.parse()?),
        ["placing"] => bench.placing(&["memory", "sqlite"], 10_000),
        ["placing", store] => bench.placing(&[store], 10_000),
        ["placing", store, hosts] => bench.placing(&[store], hosts.parse()?),
        ["creates"] => bench.creates(&["memory", "sqlite"], 100, 1_000),
        ["creates", store] => bench.creates(&[store], 100, 1_000),
        ["creates", store, hosts] => bench.creates(&[store], hosts.parse()?, 1_000),
        ["creates", store, hosts, servers] => bench.creates(&[store], hosts.parse()?, servers.parse()?),
        ["million"] => bench.million("sqlite", 1_000_000),
        ["million", store] => bench.million(store, 1_000_000),
        ["million", store, workflows] => bench.million(store, workflows.parse()?),
        other => Err(format!("{other:?}: see the head of benches/figures/main.rs").into()),
    }
}

/// Takes `--peers PROGRAM` out of the arguments.
fn options(mut arguments: Vec<String>) -> Result<(Option<PathBuf>, Vec<String>), Anyhow> {
    let Some(at) = arguments.iter().position(|a| a == "--peers") else {
        return Ok((None, arguments));
    };
    if at + 1 >= arguments.len() {
        return Err("--peers PROGRAM".into());
    }
    let program = arguments.drain(at..at + 2).nth(1);
    // Absolute, so that nothing depends on where this runs.
    let program = program.map(std::fs::canonicalize).transpose()?;
    Ok((program, arguments))
}

fn write(line: impl std::fmt::Display) -> Result<(), Anyhow> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// CPU, cores, memory, kernel.
fn machine() -> Result<String, Anyhow> {
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|l| l.starts_with(name));
        line.and_then(|l| l.split_once(':'))
            .map_or("unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cpu = field(&std::fs::read_to_string("/proc/cpuinfo")?, "model name");
    let memory = field(&std::fs::read_to_string("/proc/meminfo")?, "MemTotal");
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "Machine: {cpu}, {} cores, memory {memory}, Linux {}.",
        cores(),
        kernel.trim().split('-').next().unwrap_or_default()
    ))
}

struct Figures<'a> {
    runtime: Runtime,
    clock: SystemClock,
    dir: &'a Path,
    peers: Option<PathBuf>,
}

impl Figures<'_> {
    fn short(&self) -> Result<(), Anyhow> {
        write(format_args!("\n{HEAD}"))?;
        let disk = self.sqlite_commits()?;
        self.memory_commits()?;
        for awake in [false, true] {
            self.one_at_a_time(awake, &disk)?;
        }
        self.workflow()?;
        self.recovery(FEW)
    }

    fn workflow(&self) -> Result<(), Anyhow> {
        workflow::table(self.dir, self.peers.as_deref(), TURNS, 2 * SECOND, self.clock)
    }

    fn recovery(&self, tasks: usize) -> Result<(), Anyhow> {
        self.disk()?;
        write(recovery::HEAD)?;
        let on_disk = self.sqlite(self.dir, "recovery.db")?;
        self.runtime.block_on(async {
            recovery::run("memory", self.memory(), tasks, self.clock).await?;
            recovery::run("SQLite", on_disk.clone(), tasks, self.clock).await?;
            Ok(on_disk.close().await?)
        })
    }

    fn history(&self, minutes: usize, per_second: usize) -> Result<(), Anyhow> {
        self.disk()?;
        self.runtime.block_on(history::run(
            minutes,
            60 * SECOND,
            per_second,
            self.dir,
            self.clock,
        ))
    }

    fn million(&self, store: &str, workflows: usize) -> Result<(), Anyhow> {
        self.disk()?;
        self.runtime
            .block_on(million::run(store, workflows, self.dir, self.clock))
    }

    fn placing(&self, stores: &[&str], hosts: usize) -> Result<(), Anyhow> {
        self.disk()?;
        write(placing::HEAD)?;
        for store in stores {
            let (engines, tasks, claims) = match *store {
                "memory" => (&[1, 2, 8][..], 5_000.0, None),
                _ => (&[1, 8][..], 0.0, Some(20_000.0)),
            };
            // Each row has hosts of its own: what one takes is not there for the next.
            for engines in engines {
                let goal = (*engines == 1 && tasks > 0.0).then_some(tasks);
                self.on(store, async |backend| {
                    placing::hosts(backend, hosts, self.clock).await?;
                    placing::by_engines(store, backend, (*engines, 256, hosts), goal, self.clock).await
                })?;
            }
            self.on(store, async |backend| {
                placing::hosts(backend, hosts, self.clock).await?;
                placing::by_clients(store, backend, (64, 4 * hosts), claims, self.clock).await
            })?;
        }
        Ok(())
    }

    fn creates(&self, stores: &[&str], hosts: usize, servers: usize) -> Result<(), Anyhow> {
        self.disk()?;
        write(
            "\n| servers created, API to active | hosts | callers | per second | p50 | p99 | CPU each | commits each | peak memory | others' CPU | goal |",
        )?;
        write("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")?;
        for store in stores {
            for callers in [control::CALLERS, 64] {
                progress(&format!("{servers} servers on {store}, {callers} callers"));
                self.on(store, async |backend| {
                    meter::forget_peak()?;
                    let dir = tempfile::tempdir_in(self.dir)?;
                    let mut bench =
                        control::Bench::open(backend.clone(), dir.path(), hosts, self.clock).await?;
                    let before = bench.revision().await?;
                    let made = bench.burst(callers, servers).await?;
                    let commits = (bench.revision().await?.0 - before.0) as f64 / servers as f64;
                    bench.close().await?;
                    let goal = if *store == "memory" { 2_000.0 } else { 500.0 };
                    let met = if made.rate() >= goal { "met" } else { "**missed**" };
                    write(format_args!(
                        "| {store} | {hosts} | {callers} | {} | {} | {} | {} | {commits:.1} | {:.0} MiB | {:.0} % | ≥ {}/s: {met} |",
                        Thousands(made.rate()),
                        Short(made.p50()),
                        Short(made.quantile(0.99)),
                        Short(made.cpu_each()),
                        meter::peak()? as f64 / 1024.0,
                        made.cost.others_share() * 100.0,
                        Thousands(goal),
                    ))
                })?;
            }
        }
        Ok(())
    }

    /// Runs `work` on a fresh store of that name.
    fn on(
        &self,
        store: &str,
        work: impl AsyncFnOnce(&DynBackend) -> Result<(), Anyhow>,
    ) -> Result<(), Anyhow> {
        match store {
            "memory" => self.runtime.block_on(work(&self.memory())),
            "sqlite" => {
                let dir = tempfile::tempdir_in(self.dir)?;
                let sqlite = self.sqlite(dir.path(), "figures.db")?;
                let backend: DynBackend = sqlite.clone();
                self.runtime.block_on(async {
                    work(&backend).await?;
                    Ok(sqlite.close().await?)
                })
            }
            _ => Err(format!("there is no store {store}: memory, sqlite").into()),
        }
    }

    /// The machine's own rate of durable writes.
    fn disk(&self) -> Result<(), Anyhow> {
        let disk = disk::fdatasync(self.dir, SECOND, self.clock)?;
        write(format_args!(
            "\nDisk: write 4 KiB + fdatasync {}/s, p50 {}.",
            Thousands(disk.rate()),
            Short(disk.p50())
        ))
    }

    fn memory(&self) -> DynBackend {
        Arc::new(MemoryStore::new(Arc::new(self.clock), MemoryConfig::default()))
    }

    fn sqlite(&self, dir: &Path, name: &str) -> Result<Arc<SqliteStore>, Anyhow> {
        let config = SqliteConfig::new(dir.join(name));
        Ok(Arc::new(self.runtime.block_on(SqliteStore::open_or_create(
            config,
            Arc::new(self.clock),
        ))?))
    }

    /// SQLite on the disk and without one, by turns with the disk itself. Gives the disk's samples.
    fn sqlite_commits(&self) -> Result<Samples, Anyhow> {
        let shm = tempfile::tempdir_in("/dev/shm")?;
        let disk_store = self.sqlite(self.dir, "commits.db")?;
        let shm_store = self.sqlite(shm.path(), "commits.db")?;
        let (on_disk, on_shm): (DynBackend, DynBackend) = (disk_store.clone(), shm_store.clone());
        let (mut disk, mut one, mut many, mut many_shm) = (
            Samples::default(),
            Samples::default(),
            Samples::default(),
            Samples::default(),
        );
        let commits = |store, writers, limit| {
            self.runtime
                .block_on(stores::commits(store, writers, limit, self.clock))
        };
        // Makes the documents, outside of everything that is counted.
        commits(&on_disk, 64, Duration::ZERO)?;
        commits(&on_shm, 64, Duration::ZERO)?;
        let mut batches = 0;
        for turn in 1..=TURNS {
            progress(&format!("disk and SQLite, turn {turn} of {TURNS}"));
            disk = disk.and(disk::fdatasync(self.dir, SECOND, self.clock)?);
            one = one.and(commits(&on_disk, 1, SECOND)?);
            let before = disk_store.stats().batches;
            many = many.and(commits(&on_disk, 64, 2 * SECOND)?);
            batches += disk_store.stats().batches - before;
            many_shm = many_shm.and(commits(&on_shm, 64, SECOND)?);
        }
        let per_batch = many.count() as f64 / batches.max(1) as f64;
        write(Row::of("disk: write 4 KiB + fdatasync", &disk))?;
        write(Row::of("SQLite, 1 writer: guarded commit", &one).beside(format!(
            "{:.0} % of the disk's rate",
            100.0 * one.rate() / disk.rate()
        )))?;
        write(
            Row::of("SQLite, 64 writers: guarded commit", &many)
                .beside(format!(
                    "{per_batch:.1} commits per fdatasync; {:.1} × the disk's rate",
                    many.rate() / disk.rate()
                ))
                .goal("≥ 10,000/s", many.rate() >= 10_000.0)
                .goal("≥ 30 per fdatasync", per_batch >= 30.0),
        )?;
        write(
            Row::of("the same on /dev/shm: software alone", &many_shm).beside(format!(
                "with the disk: {:.0} % of it",
                100.0 * many.rate() / many_shm.rate()
            )),
        )?;
        self.runtime.block_on(async {
            disk_store.close().await?;
            shm_store.close().await
        })?;
        Ok(disk)
    }

    fn memory_commits(&self) -> Result<(), Anyhow> {
        let single = Builder::new_current_thread().enable_all().build()?;
        let store = self.memory();
        let (mut commits, mut map) = (Samples::default(), Samples::default());
        for turn in 1..=TURNS {
            progress(&format!("memory store, turn {turn} of {TURNS}"));
            map = map.and(stores::bare_map(SECOND, self.clock)?);
            commits = commits.and(single.block_on(stores::commits(&store, 1, SECOND, self.clock))?);
        }
        write(
            Row::of("memory store, 1 thread: guarded commit", &commits)
                .beside(format!(
                    "bare `Mutex<BTreeMap>` insert: {}/s",
                    Thousands(map.rate())
                ))
                .goal("≥ 200,000/s", commits.rate() >= 200_000.0),
        )
    }

    /// Latencies of single operations.
    fn one_at_a_time(&self, awake: bool, disk_before: &Samples) -> Result<(), Anyhow> {
        let _awake = awake.then(Awake::start).transpose()?;
        let suffix = if awake { ", CPUs kept awake" } else { "" };
        progress(&format!("watch latency{suffix}"));
        let hop = self
            .runtime
            .block_on(stores::channel_latency(WATCH_ROUNDS * 5, self.clock))?;
        let memory = self.memory();
        let seen = self
            .runtime
            .block_on(stores::watch_latency(&memory, WATCH_ROUNDS * 5, self.clock))?;
        write(
            Row::of(format!("memory: commit call → watcher{suffix}"), &seen)
                .paced()
                .beside(format!(
                    "bare channel between two tasks: p50 {}",
                    Short(hop.p50())
                ))
                .goal("p50 < 50 µs", seen.p50() < Duration::from_micros(50)),
        )?;

        let disk = if awake {
            disk::fdatasync(self.dir, SECOND, self.clock)?
        } else {
            disk_before.clone()
        };
        let sqlite = self.sqlite(self.dir, if awake { "watch-awake.db" } else { "watch.db" })?;
        let backend: DynBackend = sqlite.clone();
        let seen = self
            .runtime
            .block_on(stores::watch_latency(&backend, WATCH_ROUNDS, self.clock))?;
        write(
            Row::of(format!("SQLite: commit call → watcher{suffix}"), &seen)
                .paced()
                .beside(format!("fdatasync: p50 {}", Short(disk.p50()))),
        )?;
        self.control_plane(
            &format!("memory{suffix}"),
            memory,
            Duration::from_millis(2),
            None,
            awake,
        )?;
        self.control_plane(
            &format!("SQLite{suffix}"),
            backend,
            Duration::from_millis(40),
            Some(&disk),
            awake,
        )?;
        Ok(self.runtime.block_on(sqlite.close())?)
    }

    fn control_plane(
        &self,
        name: &str,
        store: DynBackend,
        goal: Duration,
        disk: Option<&Samples>,
        awake: bool,
    ) -> Result<(), Anyhow> {
        progress(&format!("control plane on {name}"));
        let dir = tempfile::tempdir_in(self.dir)?;
        let mut bench = self.runtime.block_on(control::Bench::open(
            store,
            dir.path(),
            control::HOSTS,
            self.clock,
        ))?;
        let before = self.runtime.block_on(bench.revision())?;
        let one = self.runtime.block_on(bench.one_by_one(CREATES))?;
        let commits = (self.runtime.block_on(bench.revision())?.0 - before.0) as f64 / CREATES as f64;
        let floor = disk.map_or(String::new(), |d| format!("; fdatasync: p50 {}", Short(d.p50())));
        write(
            Row::of(format!("create: accepted → hypervisor start, {name}"), &one)
                .paced()
                .beside(format!("{commits:.1} commits per create, to its end{floor}"))
                .goal(&format!("p50 ≤ {}", Short(goal)), one.p50() <= goal),
        )?;
        if !awake {
            let many = self.runtime.block_on(bench.burst(control::CALLERS, CREATES))?;
            write(
                Row::of(
                    format!("create, {} callers at once, {name}", control::CALLERS),
                    &many,
                )
                .beside("p50, p99: accepted → start; per second: to the task's end"),
            )?;
        }
        self.runtime.block_on(bench.close())
    }
}
