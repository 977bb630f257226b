//! Samples, and the rows of the table.

use std::fmt;
use std::time::Duration;

use crate::meter::Cost;

/// Latencies of single operations.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples {
    all: Vec<Duration>,
    pub(crate) cost: Cost,
}

impl Samples {
    pub(crate) fn new(all: Vec<Duration>, cost: Cost) -> Self {
        Self { all, cost }
    }
    pub(crate) fn all(&self) -> &[Duration] {
        &self.all
    }
    /// Those of two measurements after each other.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.all.extend(more.all);
        self.cost = self.cost.and(more.cost);
        self
    }
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }
    /// Operations per second of wall clock.
    pub(crate) fn rate(&self) -> f64 {
        self.all.len() as f64 / self.cost.wall.as_secs_f64().max(f64::MIN_POSITIVE)
    }
    /// The latency that this share of all operations kept.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.all.clone();
        sorted.sort_unstable();
        let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or_default()
    }
    pub(crate) fn p50(&self) -> Duration {
        self.quantile(0.5)
    }
    pub(crate) fn cpu_each(&self) -> Duration {
        self.cost.cpu / u32::try_from(self.all.len().max(1)).unwrap_or(u32::MAX)
    }
}

/// A duration with three figures.
pub(crate) struct Short(pub(crate) Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_secs_f64() * 1e6;
        let (value, unit) = match us {
            us if us < 1.0 => (us * 1e3, "ns"),
            us if us < 1e3 => (us, "µs"),
            us if us < 1e6 => (us / 1e3, "ms"),
            us => (us / 1e6, "s"),
        };
        let places = if value < 10.0 {
            2
        } else if value < 100.0 {
            1
        } else {
            0
        };
        write!(f, "{value:.places$} {unit}")
    }
}

/// A number with its thousands apart.
pub(crate) struct Thousands(pub(crate) f64);

impl fmt::Display for Thousands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:.0}", self.0);
        for (i, digit) in digits.chars().enumerate() {
            if i > 0 && (digits.len() - i).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

/// One line of the table.
#[derive(Debug, Default)]
pub(crate) struct Row {
    what: String,
    cells: [String; 5],
    beside: String,
    goals: Vec<String>,
}

impl Row {
    /// A row of what `samples` say.
    pub(crate) fn of(what: impl Into<String>, samples: &Samples) -> Self {
        let others = format!("{:.0} %", samples.cost.others_share() * 100.0);
        let cells = [
            Thousands(samples.rate()).to_string(),
            Short(samples.p50()).to_string(),
            Short(samples.quantile(0.99)).to_string(),
            Short(samples.cpu_each()).to_string(),
            others,
        ];
        Self {
            what: what.into(),
            cells,
            ..Self::default()
        }
    }
    /// Without a rate: where the pace was set by the measurement.
    pub(crate) fn paced(mut self) -> Self {
        self.cells[0] = "-".to_owned();
        self
    }
    /// The limit or peer of the same run.
    pub(crate) fn beside(mut self, text: impl Into<String>) -> Self {
        self.beside = text.into();
        self
    }
    /// What is to be reached.
    pub(crate) fn goal(mut self, text: &str, met: bool) -> Self {
        self.goals
            .push(format!("{text}: {}", if met { "met" } else { "**missed**" }));
        self
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goals = if self.goals.is_empty() {
            "-".to_owned()
        } else {
            self.goals.join("; ")
        };
        let beside = if self.beside.is_empty() { "-" } else { &self.beside };
        write!(
            f,
            "| {} | {} | {beside} | {goals} |",
            self.what,
            self.cells.join(" | ")
        )
    }
}

/// The two first lines of the table.
pub(crate) const HEAD: &str = "\
| figure | per second | p50 | p99 | CPU each | others' CPU | beside it, same run | goal |
| --- | ---: | ---: | ---: | ---: | ---: | --- | --- |";
