//! What a piece of work took: wall clock, this process's CPU time, and what others took of the machine meanwhile.

use std::error::Error;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use skyloom::model::{Clock as _, SystemClock};

/// Whatever can go wrong in a measurement.
pub(crate) type Anyhow = Box<dyn Error + Send + Sync>;

/// A measurement under way.
pub(crate) struct Meter {
    clock: SystemClock,
    wall: Duration,
    own: Duration,
    busy: Duration,
}

/// What was measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Wall clock.
    pub(crate) wall: Duration,
    /// CPU time of this process.
    pub(crate) cpu: Duration,
    /// CPU time of everybody else, and what the machine below us took away.
    pub(crate) others: Duration,
}

impl Meter {
    pub(crate) fn start(clock: SystemClock) -> Result<Self, Anyhow> {
        Ok(Self {
            clock,
            busy: busy()?,
            own: own(),
            wall: clock.monotonic(),
        })
    }

    pub(crate) fn stop(self) -> Result<Cost, Anyhow> {
        let wall = self.clock.monotonic().saturating_sub(self.wall);
        let cpu = own().saturating_sub(self.own);
        let others = busy()?.saturating_sub(self.busy).saturating_sub(cpu);
        Ok(Cost { wall, cpu, others })
    }
}

impl Cost {
    /// Both after each other.
    pub(crate) fn and(self, more: Self) -> Self {
        Self {
            wall: self.wall + more.wall,
            cpu: self.cpu + more.cpu,
            others: self.others + more.others,
        }
    }

    /// The share of all cores that others took, 0 to 1.
    pub(crate) fn others_share(&self) -> f64 {
        let all = self.wall.as_secs_f64() * cores() as f64;
        if all > 0.0 {
            self.others.as_secs_f64() / all
        } else {
            0.0
        }
    }
}

/// How many CPUs there are.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// CPU time of this process so far.
fn own() -> Duration {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(t.tv_sec).unwrap_or(0),
        u32::try_from(t.tv_nsec).unwrap_or(0),
    )
}

/// CPU time of the whole machine so far, without idle time and without niced processes (our own [`Awake`]).
fn busy() -> Result<Duration, Anyhow> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .map_while(|n| n.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; a tick is 10 ms.
    let sum: u64 = [0, 2, 5, 6, 7].iter().filter_map(|&i: &usize| ticks.get(i)).sum();
    Ok(Duration::from_millis(sum * 10))
}

/// Resident memory of this process in KiB.
pub(crate) fn rss() -> Result<u64, Anyhow> {
    memory("VmRSS:")
}

/// The most memory of this process, in KiB, that was resident since [`forget_peak`].
pub(crate) fn peak() -> Result<u64, Anyhow> {
    memory("VmHWM:")
}

/// From now on [`peak`] counts anew.
pub(crate) fn forget_peak() -> Result<(), Anyhow> {
    // proc(5): 5 resets the peak of the resident set.
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

fn memory(field: &str) -> Result<u64, Anyhow> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix(field));
    let kib = line.and_then(|l| l.split_whitespace().next());
    Ok(kib.ok_or("a field of /proc/self/status is not there")?.parse()?)
}

/// Keeps all CPUs from halting while it lives: waking a halted virtual CPU takes longer than most of what is measured
/// here. One process per CPU, of the lowest priority, so that it never keeps a CPU from the work.
pub(crate) struct Awake(Vec<Child>);

impl Awake {
    pub(crate) fn start() -> Result<Self, Anyhow> {
        let program = std::env::current_exe()?;
        let mut all = Self(Vec::new());
        for _ in 0..cores() {
            let child = Command::new("nice")
                .args(["-n", "19"])
                .arg(&program)
                .arg("spin")
                .stdin(Stdio::piped())
                .spawn()?;
            all.0.push(child);
        }
        Ok(all)
    }

    /// What such a process does: until its parent is gone.
    pub(crate) fn spin() -> ! {
        let parent = std::thread::spawn(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
        while !parent.is_finished() {
            std::hint::spin_loop();
        }
        std::process::exit(0)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // An end by itself, when its input closes, is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Says on stderr what is being measured: standard output is the table.
pub(crate) fn progress(what: &str) {
    let _ = writeln!(std::io::stderr(), "measuring: {what}");
}
