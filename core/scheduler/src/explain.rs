//! Why a host was chosen, or none: counts for all hosts, verdicts for a bounded number of them.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};
use skyloom_model::{HostId, Name, Reason};

/// Why.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// Hosts that were looked at.
    pub considered: u64,
    /// Hosts that could take the server.
    pub fitting: u64,
    /// Refused hosts by the first filter that refused them, in the order of the filters. With `fitting` they add up to
    /// `considered`.
    #[serde(default)]
    pub rejected: Vec<Rejections>,
    /// What was found of single hosts: the chosen one first, then the best of each outcome. For operators.
    #[serde(default)]
    pub hosts: Vec<HostVerdict>,
    /// Hosts that are counted but not in `hosts`.
    #[serde(default)]
    pub omitted: u64,
    /// When no host fits: the one that comes nearest. For operators.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Nearest>,
}

/// The hosts that one filter refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rejections {
    /// The filter.
    pub filter: String,
    /// What is wrong with them, after their number: `lack memory`.
    pub complaint: String,
    /// How many.
    pub hosts: u64,
    /// What the server needs, of the host that comes nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<String>,
    /// What the host has that comes nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<String>,
}

/// What was found of one host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostVerdict {
    /// Which host.
    pub host: HostId,
    /// Its name.
    pub name: Name,
    /// What was found.
    pub verdict: Verdict,
}

/// Fit or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Verdict {
    /// It can take the server.
    Fit {
        /// How good it is.
        score: f64,
        /// What the score is made of.
        parts: Vec<ScorePart>,
    },
    /// It cannot.
    Rejected(Miss),
}

/// One weigher's part of a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScorePart {
    /// The weigher.
    pub weigher: String,
    /// What it said, 0 to 1.
    pub value: f64,
    /// How much that counts.
    pub weight: f64,
}

/// A condition that a host does not fulfil.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Miss {
    /// The filter.
    pub filter: String,
    /// What is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<String>,
    /// What is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub have: Option<String>,
}

/// The host that fails the fewest conditions, and all that it fails: change these and the server fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Nearest {
    /// Which host.
    pub host: HostId,
    /// Its name.
    pub name: Name,
    /// All that it fails.
    pub misses: Vec<Miss>,
    /// What can be done about each.
    pub advice: Vec<String>,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.filter)?;
        match (&self.need, &self.have) {
            (Some(need), Some(have)) => write!(f, " (need {need}, has {have})"),
            (Some(need), None) => write!(f, " (need {need})"),
            (None, Some(have)) => write!(f, " ({have})"),
            (None, None) => Ok(()),
        }
    }
}

/// `one, two, three`.
fn listed<T: fmt::Display>(items: &[T]) -> String {
    let mut text = String::new();
    for (i, item) in items.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}{item}", if i == 0 { "" } else { ", " });
    }
    text
}

impl fmt::Display for Rejections {
    /// `2 lack memory (need 65536 MiB, best has 41984 MiB)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.hosts, self.complaint)?;
        match (&self.need, &self.best) {
            (Some(need), Some(best)) => write!(f, " (need {need}, best has {best})"),
            (Some(need), None) => write!(f, " (need {need})"),
            _ => Ok(()),
        }
    }
}

impl Explanation {
    /// What a tenant may know: counts and what the own request needs; nothing of single hosts.
    #[must_use]
    pub fn for_tenant(&self) -> Self {
        Self {
            rejected: self
                .rejected
                .iter()
                .map(|r| Rejections {
                    best: None,
                    ..r.clone()
                })
                .collect(),
            hosts: Vec::new(),
            omitted: self.considered,
            nearest: None,
            ..self.clone()
        }
    }

    /// One line of counts, without anything of single hosts: for tenants.
    #[must_use]
    pub fn tenant_text(&self) -> String {
        self.for_tenant().counts()
    }

    /// The counts, then one line for each host that is kept, by name: for operators.
    #[must_use]
    pub fn operator_text(&self) -> String {
        let mut text = self.counts();
        for HostVerdict { host, name, verdict } in &self.hosts {
            // Writing to a string cannot fail.
            let _ = match verdict {
                Verdict::Fit { score, parts } => {
                    let parts: Vec<String> = parts
                        .iter()
                        .map(|p| format!("{} {:.3} x {}", p.weigher, p.value, p.weight))
                        .collect();
                    write!(
                        text,
                        "\n  {name} ({host}): fits, score {score:.3} ({})",
                        listed(&parts)
                    )
                }
                Verdict::Rejected(miss) => write!(text, "\n  {name} ({host}): refused by {miss}"),
            };
        }
        if self.omitted > 0 {
            let _ = write!(text, "\n  and {} more", self.omitted);
        }
        if let Some(nearest) = &self.nearest {
            let _ = write!(
                text,
                "\n  nearest: {} would fit but for {}",
                nearest.name,
                listed(&nearest.misses)
            );
        }
        text
    }

    /// `4 hosts considered: 1 fits, 2 lack memory (…), 1 disabled`.
    fn counts(&self) -> String {
        let hosts = if self.considered == 1 { "host" } else { "hosts" };
        let mut parts: Vec<String> = Vec::with_capacity(self.rejected.len() + 1);
        match self.fitting {
            0 => {}
            1 => parts.push("1 fits".into()),
            n => parts.push(format!("{n} fit")),
        }
        parts.extend(self.rejected.iter().map(ToString::to_string));
        if parts.is_empty() {
            return format!("{} {hosts} considered", self.considered);
        }
        format!("{} {hosts} considered: {}", self.considered, listed(&parts))
    }
}

/// No host can take the server.
#[derive(Debug, Clone, PartialEq)]
pub struct NoFit {
    /// Why.
    pub explanation: Box<Explanation>,
}

impl NoFit {
    /// As the reason of a task's failure. Names no host.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let reason = Reason::new("placement.no_host", self.to_string()).retryable();
        match self.hint() {
            Some(hint) => reason.hint(hint),
            None => reason.hint("add a host"),
        }
    }

    /// What would make it fit. What the nearest host has is not told: it may be a label.
    fn hint(&self) -> Option<String> {
        let nearest = self.explanation.nearest.as_ref()?;
        let misses: Vec<Miss> = nearest
            .misses
            .iter()
            .map(|m| Miss {
                have: None,
                ..m.clone()
            })
            .collect();
        Some(format!(
            "the nearest host would fit but for {}: {}",
            listed(&misses),
            listed(&nearest.advice)
        ))
    }
}

impl fmt::Display for NoFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no host can run this server: {}", self.explanation.counts())
    }
}

impl std::error::Error for NoFit {}
