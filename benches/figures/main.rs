//! The figures of docs/performance.md, each beside a limit or peer of the same run: one Markdown table on stdout.
//!
//! `tools/bench/run.sh` runs it and adds what is measured from outside (memory and CPU of an idle process).
//! Measurements that need a quiet machine cannot be had on a shared one: so the CPU time of each operation stands beside
//! the clock, what others took of the CPUs beside both, and whatever is to be compared is measured by turns.
//! What is measured one operation at a time comes twice: as it is, and with the CPUs kept from halting.

mod control;
mod disk;
mod meter;
mod stores;
mod table;

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use skyloom::model::SystemClock;
use skyloom::sql::{SqliteConfig, SqliteStore};
use skyloom::store::{DynBackend, MemoryConfig, MemoryStore};
use tokio::runtime::{Builder, Runtime};

use crate::meter::{Anyhow, Awake, cores, progress};
use crate::table::{HEAD, Row, Samples, Short, Thousands};

const TURNS: usize = 3;
const SECOND: Duration = Duration::from_secs(1);
const WATCH_ROUNDS: usize = 2_000;
const CREATES: usize = 200;

fn main() -> Result<(), Anyhow> {
    if std::env::args().nth(1).as_deref() == Some("spin") {
        Awake::spin();
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let bench = Figures {
        runtime: Runtime::new()?,
        clock: SystemClock::new(),
        dir: dir.path(),
    };
    write(format_args!("{}\n", machine()?))?;
    write(HEAD)?;
    let disk = bench.sqlite_commits()?;
    bench.memory_commits()?;
    for awake in [false, true] {
        bench.one_at_a_time(awake, &disk)?;
    }
    Ok(())
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
}

impl Figures<'_> {
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
        let mut bench = self
            .runtime
            .block_on(control::Bench::open(store, dir.path(), self.clock))?;
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
            let many = self.runtime.block_on(bench.burst(CREATES))?;
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
