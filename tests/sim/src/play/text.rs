//! A play as text: the timeline, in which things alike are told once, and the sums.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::describe::{counted, listed};
use super::played::{Entry, HostUse, Kind, Played, Summary, promise};

/// Things alike within so many milliseconds are told together.
const TOGETHER: u64 = 60_000;
/// Hosts that are shown of each end of the table.
const HOSTS: usize = 5;

/// Entries that are told in one line.
struct Group<'a> {
    entries: Vec<&'a Entry>,
}

/// Puts things alike together. What the script and the day say stays by itself.
fn groups(timeline: &[Entry], each: bool) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut open: BTreeMap<(Kind, &str, Option<&str>), usize> = BTreeMap::new();
    for entry in timeline {
        let alone = each || matches!(entry.kind, Kind::Script | Kind::Outcome | Kind::Day);
        let alike = (
            entry.kind,
            entry.what.as_str(),
            entry.reason.as_ref().map(|r| r.code.as_str()),
        );
        let together = open.get(&alike).copied().filter(|group| {
            let first = groups[*group].entries[0];
            !alone && entry.at_ms - first.at_ms <= TOGETHER
        });
        match together {
            Some(group) => groups[group].entries.push(entry),
            None => {
                open.insert(alike, groups.len());
                groups.push(Group { entries: vec![entry] });
            }
        }
    }
    groups
}

fn mark(kind: Kind) -> &'static str {
    match kind {
        Kind::Script => ">",
        Kind::Outcome => "=",
        Kind::Fault => "*",
        Kind::Cloud => " ",
        Kind::Task | Kind::Refused => "!",
        Kind::Day => "#",
    }
}

impl fmt::Display for Group<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.entries[0];
        write!(f, "{} {} ", first.time, mark(first.kind))?;
        if self.entries.len() > 1 {
            write!(f, "{} × ", self.entries.len())?;
        }
        f.write_str(&first.what)?;
        let mut subjects: Vec<&str> = self.entries.iter().filter_map(|e| e.subject.as_deref()).collect();
        subjects.dedup();
        if !subjects.is_empty() {
            write!(f, ": {}", listed(&subjects))?;
        }
        if let (Some(detail), 1) = (&first.detail, self.entries.len()) {
            write!(f, ", {detail}")?;
        }
        if let Some(last) = self
            .entries
            .last()
            .filter(|last| last.at_ms - first.at_ms >= 1000)
        {
            write!(f, " (until {})", last.time)?;
        }
        writeln!(f)?;
        if let Some(reason) = &first.reason {
            writeln!(f, "{:15}{reason}", "")?;
            if let Some(hint) = &reason.hint {
                writeln!(f, "{:15}hint: {hint}", "")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in groups(&self.timeline, f.alternate()) {
            write!(f, "{group}")?;
        }
        write!(f, "\n{}", self.summary)?;
        match &self.violation {
            None => {
                let (steps, commits) = (self.summary.steps, self.summary.commits);
                let (effects, count) = (self.summary.effects, self.summary.invariants.len());
                writeln!(
                    f,
                    "checks      {count} invariants held over {steps} steps, {commits} commits, {effects} effects"
                )
            }
            Some(v) => {
                let promise = promise(v.invariant)
                    .map(|p| format!(" ({p})"))
                    .unwrap_or_default();
                writeln!(
                    f,
                    "VIOLATION   {}{promise} at {:?}: {}",
                    v.invariant, v.at, v.what
                )
            }
        }?;
        writeln!(
            f,
            "trace       {} of seed {}",
            self.summary.hash, self.summary.seed
        )
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hosts, engines) = (counted(self.hosts.len(), "host"), counted(self.engines, "engine"));
        let minutes = self.virtual_ms / 60_000;
        let (h, m) = (minutes / 60, minutes % 60);
        writeln!(
            f,
            "played      {h} h {m:02} m of virtual time, {hosts}, {engines}"
        )?;
        let mut head = "tasks";
        for t in &self.tasks {
            let reason = t.reason.as_deref().unwrap_or_default();
            let line = format!(
                "{head:<11} {:<15} {:<10} {:>6}  {reason}",
                t.flow, t.state, t.count
            );
            writeln!(f, "{}", line.trim_end())?;
            head = "";
        }
        if let Some(latency) = &self.to_active {
            writeln!(
                f,
                "to active   {latency} (of {})",
                counted(latency.count as usize, "server")
            )?;
        }
        let retries: Vec<String> = self
            .retries
            .iter()
            .map(|r| format!("{} {}", r.count, r.job))
            .collect();
        if !retries.is_empty() {
            writeln!(f, "retries     {}", retries.join(", "))?;
        }
        let faults: Vec<String> = self
            .faults
            .iter()
            .map(|(kind, n)| format!("{n} {kind}"))
            .collect();
        if !faults.is_empty() {
            writeln!(f, "faults      {}", faults.join(", "))?;
        }
        f.write_str(&table(&self.hosts))
    }
}

/// The fullest and the emptiest hosts.
fn table(hosts: &[HostUse]) -> String {
    let mut text = format!(
        "hosts       {:<20} {:>5} {:>8} {:>6} {:>13} {:>19} {:>15}\n",
        "NAME", "USED", "SERVERS", "MOST", "VCPU", "MEMORY GIB", "DISK GIB"
    );
    let gib = |mib: u64| mib.div_ceil(1024);
    for (i, host) in hosts.iter().enumerate() {
        let behind = hosts.len().saturating_sub(HOSTS);
        if hosts.len() > 2 * HOSTS && i >= HOSTS && i < behind {
            if i == HOSTS {
                let _ = writeln!(text, "{:12}… {} more", "", behind - HOSTS);
            }
            continue;
        }
        let of = |used: u64, offers: u64| format!("{used}/{offers}");
        let mut state = String::new();
        if !host.enabled {
            state.push_str("  disabled");
        }
        if !host.reachable {
            state.push_str("  unreachable");
        }
        let _ = writeln!(
            text,
            "{:12}{:<20} {:>4}% {:>8} {:>6} {:>13} {:>19} {:>15}{state}",
            "",
            host.name,
            host.percent,
            host.servers,
            host.most_servers,
            of(host.used.vcpus.into(), host.offers.vcpus.into()),
            of(gib(host.used.memory_mib), gib(host.offers.memory_mib)),
            of(host.used.disk_gib, host.offers.disk_gib),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Violation;

    fn entry(at_ms: u64, what: &str, subject: &str) -> Entry {
        Entry {
            at_ms,
            time: format!("{at_ms}"),
            kind: Kind::Cloud,
            what: what.to_owned(),
            subject: Some(subject.to_owned()),
            detail: None,
            event: None,
            task: None,
            reason: None,
        }
    }

    fn played(timeline: Vec<Entry>) -> Played {
        let summary = Summary {
            seed: 5,
            hash: "00ff".to_owned(),
            steps: 10,
            commits: 3,
            effects: 2,
            virtual_ms: 3_720_000,
            engines: 1,
            tasks: Vec::new(),
            to_active: None,
            retries: Vec::new(),
            faults: BTreeMap::new(),
            hosts: Vec::new(),
            invariants: vec!["I1"],
        };
        Played {
            timeline,
            summary,
            violation: None,
            trace: Vec::new(),
        }
    }

    #[test]
    fn things_alike_are_told_once_unless_they_are_far_apart() {
        let day = played(vec![
            entry(0, "host is unreachable", "a"),
            entry(10, "server now crashed", "x"),
            entry(2_000, "host is unreachable", "b"),
            entry(70_000, "host is unreachable", "c"),
        ]);
        let text = day.to_string();
        let lines: Vec<&str> = text.lines().take(3).collect();
        assert_eq!(
            lines,
            [
                "0   2 × host is unreachable: a, b (until 2000)",
                "10   server now crashed: x",
                "70000   host is unreachable: c",
            ]
        );
        assert_eq!(format!("{day:#}").matches("host is unreachable").count(), 3);
        assert!(
            text.contains("played      1 h 02 m of virtual time, 0 hosts, 1 engine\n"),
            "{text}"
        );
    }

    #[test]
    fn a_violation_is_told_with_its_promise() {
        let mut day = played(Vec::new());
        day.violation = Some(Violation {
            invariant: "I6",
            what: "too much is claimed".to_owned(),
            at: Duration::from_secs(3),
        });
        let text = day.to_string();
        assert!(
            text.contains("VIOLATION   I6 (a host's ledger is the sum of its claims, never above its capacity) at 3s: too much"),
            "{text}"
        );
        assert!(!text.contains("held"), "{text}");
        let json = serde_json::to_value(&day).unwrap_or_default();
        assert_eq!(
            (&json["violation"]["invariant"], &json["violation"]["at_ms"]),
            (&"I6".into(), &3000.into())
        );
    }
}
