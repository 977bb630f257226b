//! What came of a play, as data.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};
use skyloom_model::{Reason, Resources, TaskId};

use super::diary::{Diary, HostSeen};
use crate::bed::Violation;
use crate::world::Report;

/// What was watched all the time: the promises of `docs/reliability.md`.
const INVARIANTS: [(&str, &str); 12] = [
    ("I1", "a guest executes on at most one host, once"),
    ("I2", "what was acknowledged does not disappear"),
    ("I3", "a task has one plan, and an ended task never changes"),
    ("I4", "an effect with a key happens once"),
    (
        "I5",
        "a write under an old epoch, generation or attempt changes nothing",
    ),
    (
        "I6",
        "a host's ledger is the sum of its claims, never above its capacity",
    ),
    ("I7", "a job never starts before what it builds on"),
    (
        "I8",
        "every task ends, or is stuck with a reason and an operator's verbs",
    ),
    ("I9", "a watcher sees each key's versions in order, or a gap"),
    ("I10", "what failed or was cancelled leaves nothing behind"),
    ("I11", "an agent acts on its own host only"),
    ("I12", "when all is quiet, nothing is without an owner"),
];

/// A day that was played. Prints itself as text to read; with `{:#}` each entry has a line of its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Played {
    /// What happened, in order.
    pub timeline: Vec<Entry>,
    /// Sums.
    pub summary: Summary,
    /// The invariant that was broken, if one was.
    #[serde(serialize_with = "violation")]
    pub violation: Option<Violation>,
    /// The last lines of the trace, if some were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trace: Vec<String>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// When, in milliseconds since the day began.
    pub at_ms: u64,
    /// When, as a time of the day.
    pub time: String,
    /// What sort of thing.
    pub kind: Kind,
    /// What. The same words for all things of that kind.
    pub what: String,
    /// To whom: the name of a host, server or process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// What else there is to say of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The number of the script's event that it belongs to, from 1 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<usize>,
    /// The task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// Sorts of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The script: an event begins, or is over.
    Script,
    /// What became of an event's requests.
    Outcome,
    /// A fault of the weather, or a guest's death.
    Fault,
    /// An event of the cloud about a host or server.
    Cloud,
    /// A task that failed, turned back or is stuck.
    Task,
    /// A request that was refused.
    Refused,
    /// The day itself.
    Day,
}

/// Sums of a day.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The seed.
    pub seed: u64,
    /// The hash of the trace: the same for the same script, options and program.
    pub hash: String,
    /// Steps of the trace.
    pub steps: u64,
    /// Commits that were looked at.
    pub commits: u64,
    /// Effects on hosts that were looked at.
    pub effects: u64,
    /// Virtual time in milliseconds, until everything had come to rest.
    pub virtual_ms: u64,
    /// Engines.
    pub engines: usize,
    /// Tasks by flow, end and reason.
    pub tasks: Vec<TaskCount>,
    /// From the request for a server to its being active.
    pub to_active: Option<Latency>,
    /// Tries of jobs beyond their first.
    pub retries: Vec<Retries>,
    /// How often each kind of fault has bitten.
    pub faults: BTreeMap<String, u64>,
    /// All hosts, the fullest first.
    pub hosts: Vec<HostUse>,
    /// The invariants that were watched.
    pub invariants: Vec<&'static str>,
}

/// Tasks that ended alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskCount {
    /// The flow.
    pub flow: String,
    /// The last state.
    pub state: String,
    /// The code of the reason, if there is one.
    pub reason: Option<String>,
    /// How many.
    pub count: u64,
}

/// Tries of jobs beyond their first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retries {
    /// The kind of job.
    pub job: String,
    /// How many tries.
    pub count: u64,
}

/// How long something took, in milliseconds of virtual time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Latency {
    /// How often it was measured.
    pub count: u64,
    /// The median.
    pub p50_ms: u64,
    /// 95 of 100 took no longer.
    pub p95_ms: u64,
    /// 99 of 100 took no longer.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

/// How full a host is at the end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HostUse {
    /// Its name.
    pub name: String,
    /// The greatest of its shares of CPUs, memory and disk that are claimed, in percent.
    pub percent: u32,
    /// Servers there.
    pub servers: u32,
    /// The most servers that were there at once.
    pub most_servers: u32,
    /// What is claimed.
    pub used: Size,
    /// What can be claimed.
    pub offers: Size,
    /// Whether its agent reports.
    pub reachable: bool,
    /// Whether new servers may be placed there.
    pub enabled: bool,
}

/// An amount of what hosts offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Disk in GiB.
    pub disk_gib: u64,
}

impl From<Resources> for Size {
    fn from(r: Resources) -> Self {
        Self {
            vcpus: r.vcpus,
            memory_mib: r.memory_mib,
            disk_gib: r.disk_gib,
        }
    }
}

impl Latency {
    /// Of these measurements, in milliseconds.
    pub(super) fn of(mut took: Vec<u64>) -> Option<Self> {
        took.sort_unstable();
        let max_ms = *took.last()?;
        let count = took.len();
        let at = |percent: usize| took[(count * percent).div_ceil(100).clamp(1, count) - 1];
        Some(Self {
            count: count as u64,
            p50_ms: at(50),
            p95_ms: at(95),
            p99_ms: at(99),
            max_ms,
        })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
        write!(
            f,
            "p50 {}, p95 {}, p99 {}, max {}",
            s(self.p50_ms),
            s(self.p95_ms),
            s(self.p99_ms),
            s(self.max_ms)
        )
    }
}

fn violation<S: Serializer>(violation: &Option<Violation>, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Broken<'a> {
        invariant: &'a str,
        promise: Option<&'a str>,
        what: &'a str,
        at_ms: u64,
    }
    let broken = violation.as_ref().map(|v| Broken {
        invariant: v.invariant,
        promise: promise(v.invariant),
        what: &v.what,
        at_ms: v.at.as_millis() as u64,
    });
    broken.serialize(serializer)
}

/// What an invariant says.
pub(super) fn promise(invariant: &str) -> Option<&'static str> {
    let found = INVARIANTS.iter().find(|(name, _)| *name == invariant);
    found.map(|(_, text)| *text)
}

fn host_use(host: &HostSeen) -> HostUse {
    let (used, offers) = (host.ledger.used, host.offers);
    let percent = |used: u64, of: u64| (used * 100).checked_div(of).unwrap_or_default() as u32;
    let shares = [
        percent(used.vcpus.into(), offers.vcpus.into()),
        percent(used.memory_mib, offers.memory_mib),
        percent(used.disk_gib, offers.disk_gib),
    ];
    HostUse {
        name: host.name.clone(),
        percent: shares.into_iter().max().unwrap_or_default(),
        servers: host.ledger.servers,
        most_servers: host.most_servers,
        used: used.into(),
        offers: offers.into(),
        reachable: host.reachable,
        enabled: host.enabled,
    }
}

/// Puts it together.
pub(super) fn played(report: Report, mut diary: Diary, engines: usize) -> Played {
    diary.finish(report.took);
    let mut hosts: Vec<HostUse> = diary.hosts.values().map(host_use).collect();
    hosts.sort_by(|a, b| b.percent.cmp(&a.percent).then_with(|| a.name.cmp(&b.name)));
    let ends = report.ends.into_iter();
    let tasks = ends.map(|((flow, state, reason), count)| TaskCount {
        flow,
        state: state.to_lowercase(),
        reason: Some(reason).filter(|r| !r.is_empty()),
        count,
    });
    let retries = diary.retries.into_iter();
    let summary = Summary {
        seed: report.seed,
        hash: format!("{:016x}", report.hash),
        steps: report.steps,
        commits: diary.commits,
        effects: diary.effects,
        virtual_ms: report.took.as_millis() as u64,
        engines,
        tasks: tasks.collect(),
        to_active: Latency::of(diary.to_active),
        retries: retries.map(|(job, count)| Retries { job, count }).collect(),
        faults: report
            .bites
            .iter()
            .map(|(kind, n)| (kind.to_string(), *n))
            .collect(),
        hosts,
        invariants: INVARIANTS.iter().map(|(name, _)| *name).collect(),
    };
    Played {
        timeline: diary.entries,
        summary,
        violation: report.violation,
        trace: report.lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        assert_eq!(Latency::of(Vec::new()), None);
        let one = Latency::of(vec![7]).unwrap();
        assert_eq!((one.p50_ms, one.p99_ms, one.max_ms), (7, 7, 7));
        let all = Latency::of((1..=200).rev().collect()).unwrap();
        assert_eq!(
            (all.p50_ms, all.p95_ms, all.p99_ms, all.max_ms),
            (100, 190, 198, 200)
        );
    }
}
