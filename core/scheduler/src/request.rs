//! What is asked, and what is offered.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use skyloom_model::{Claim, HostId, HostLedger, Name, Reason, Resources, Scope, ServerId};

use crate::fleet::Report;

/// What a server asks of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which server.
    pub server: ServerId,
    /// Whose server that is.
    #[serde(default)]
    pub scope: Option<Scope>,
    /// How much it takes.
    pub resources: Resources,
    /// CPU architecture of its image.
    pub architecture: String,
    /// A certain hypervisor; `None` takes any.
    #[serde(default)]
    pub hypervisor: Option<String>,
    /// Traits that the host must have.
    #[serde(default)]
    pub traits: Vec<String>,
    /// Labels that the host must carry.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// No other server of this group may be on the host. Groups of different projects must have different names here.
    #[serde(default)]
    pub anti_affinity_group: Option<String>,
    /// Hosts that must not be chosen.
    #[serde(default)]
    pub exclude: BTreeSet<HostId>,
    /// The only host that may be chosen.
    #[serde(default)]
    pub only: Option<HostId>,
}

impl Request {
    /// A request for `resources` on any host of an architecture.
    #[must_use]
    pub fn new(server: ServerId, resources: Resources, architecture: impl Into<String>) -> Self {
        Self {
            server,
            scope: None,
            resources,
            architecture: architecture.into(),
            hypervisor: None,
            traits: Vec::new(),
            labels: BTreeMap::new(),
            anti_affinity_group: None,
            exclude: BTreeSet::new(),
            only: None,
        }
    }

    /// What the host's ledger will count for it.
    #[must_use]
    pub fn claim(&self) -> Claim {
        Claim {
            server: self.server,
            scope: self.scope,
            resources: self.resources,
            group: self.anti_affinity_group.clone(),
        }
    }
}

/// A host for a server.
#[derive(Debug, Clone, PartialEq)]
pub struct Placement {
    /// The host.
    pub host: HostId,
    /// Its name.
    pub name: Name,
    /// The claim to write.
    pub claim: Claim,
    /// The host's ledger with the claim.
    pub ledger_after: HostLedger,
    /// Revision of the ledger that this was reckoned from: compare it when committing.
    pub ledger_revision: u64,
    /// Why this host.
    pub report: Report,
}

/// No host can take the server.
#[derive(Debug, Clone, PartialEq)]
pub struct NoFit {
    /// Why.
    pub report: Box<Report>,
}

impl NoFit {
    /// As the reason of a task's failure: the hosts by what they lack, and the fewest changes. Names no host.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let remedy = self.report.remedy();
        Reason::new("placement.no_host", self.to_string())
            .retryable()
            .hint(remedy.unwrap_or_else(|| "add a host".to_owned()))
    }
}

impl fmt::Display for NoFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no host can run this server: {}", self.report.summary())
    }
}

impl std::error::Error for NoFit {}
