//! Which hosts can take a server at all.

use std::borrow::Cow;
use std::fmt::{self, Debug};

use crate::{HostView, Request};

/// One condition on a host.
pub trait Filter: Send + Sync + Debug + 'static {
    /// Its name: stable, lower-case, such as `memory`.
    fn name(&self) -> &'static str;
    /// What is wrong with the hosts that it refuses, after a number of hosts: `lack memory`.
    fn complaint(&self) -> &'static str;
    /// What can be done about it.
    fn advice(&self) -> &'static str;
    /// Whether `host` fulfils it. Called for every host: should not allocate.
    ///
    /// # Errors
    /// What is needed and what is there.
    fn check<'a>(&self, request: &'a Request, host: &'a HostView) -> Result<(), Refusal<'a>>;
}

/// Why a filter refuses a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal<'a> {
    /// What is needed.
    pub need: Amount<'a>,
    /// What is there.
    pub have: Amount<'a>,
}

impl Refusal<'_> {
    /// How far the host is from fitting, where that is a number. Smaller is nearer.
    #[must_use]
    pub fn distance(&self) -> u64 {
        match (&self.need, &self.have) {
            (Amount::Number(need, _), Amount::Number(have, _)) => need.saturating_sub(*have),
            _ => 0,
        }
    }
}

/// A need or a possession, borrowed until it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Amount<'a> {
    /// There is nothing to tell.
    Nothing,
    /// A number and its unit.
    Number(u64, &'static str),
    /// A label.
    Label(&'a str, &'a str),
    /// Text.
    Text(Cow<'a, str>),
}

impl<'a> Amount<'a> {
    fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
    /// As it is shown; `None` for [`Amount::Nothing`].
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        (*self != Self::Nothing).then(|| self.to_string())
    }
}

impl fmt::Display for Amount<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Number(number, unit) => write!(f, "{number} {unit}"),
            Self::Label(key, value) => write!(f, "{key}={value}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The filters that come with the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuiltinFilter {
    /// The operator wants servers there.
    Enabled,
    /// Its agent holds its lease.
    Reachable,
    /// Its agent has reported what it offers.
    Reported,
    /// It is not excluded by the request.
    NotExcluded,
    /// It runs the image's architecture.
    Architecture,
    /// It runs the asked-for hypervisor.
    Hypervisor,
    /// It has the asked-for traits.
    Traits,
    /// It carries the asked-for labels.
    Labels,
    /// It holds no other server of the group.
    AntiAffinity,
    /// Virtual CPUs are left.
    Cpu,
    /// Memory is left.
    Memory,
    /// Disk is left.
    Disk,
}

impl BuiltinFilter {
    /// All, in the order in which they are asked: what cannot change soon first, room last.
    pub const ALL: [Self; 12] = [
        Self::Enabled,
        Self::Reachable,
        Self::Reported,
        Self::NotExcluded,
        Self::Architecture,
        Self::Hypervisor,
        Self::Traits,
        Self::Labels,
        Self::AntiAffinity,
        Self::Cpu,
        Self::Memory,
        Self::Disk,
    ];

    /// Name, complaint, advice.
    const fn texts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Enabled => ("enabled", "disabled", "enable a host"),
            Self::Reachable => (
                "reachable",
                "unreachable",
                "look after the hosts whose agents do not report",
            ),
            Self::Reported => (
                "reported",
                "not reported yet",
                "wait for the first report of the host's agent",
            ),
            Self::NotExcluded => ("not_excluded", "excluded", "exclude fewer hosts"),
            Self::Architecture => (
                "architecture",
                "of another architecture",
                "use an image for the architecture of the hosts",
            ),
            Self::Hypervisor => (
                "hypervisor",
                "with another hypervisor",
                "ask for a hypervisor that there is",
            ),
            Self::Traits => ("traits", "lack a trait", "ask for fewer traits"),
            Self::Labels => ("labels", "lack a label", "ask for other labels, or label a host"),
            Self::AntiAffinity => (
                "anti_affinity",
                "hold a server of the same group",
                "use fewer servers in the group, or add hosts",
            ),
            Self::Cpu => (
                "cpu",
                "lack CPUs",
                "choose a flavor with fewer CPUs, or add a host",
            ),
            Self::Memory => (
                "memory",
                "lack memory",
                "choose a flavor with less memory, or add a host",
            ),
            Self::Disk => (
                "disk",
                "lack disk",
                "choose a flavor with less disk, or add a host",
            ),
        }
    }
}

/// Refuses unless `fits`.
fn unless<'a>(fits: bool, need: Amount<'a>, have: Amount<'a>) -> Result<(), Refusal<'a>> {
    if fits { Ok(()) } else { Err(Refusal { need, have }) }
}

fn enough<'a>(need: u64, have: u64, unit: &'static str) -> Result<(), Refusal<'a>> {
    unless(
        need <= have,
        Amount::Number(need, unit),
        Amount::Number(have, unit),
    )
}

impl Filter for BuiltinFilter {
    fn name(&self) -> &'static str {
        self.texts().0
    }
    fn complaint(&self) -> &'static str {
        self.texts().1
    }
    fn advice(&self) -> &'static str {
        self.texts().2
    }

    fn check<'a>(&self, request: &'a Request, host: &'a HostView) -> Result<(), Refusal<'a>> {
        let facts = host.facts.as_ref();
        match self {
            Self::Enabled => unless(host.spec.enabled, Amount::Nothing, Amount::Nothing),
            Self::Reachable => unless(host.reachable, Amount::Nothing, Amount::Nothing),
            Self::Reported => unless(facts.is_some(), Amount::Nothing, Amount::Nothing),
            Self::NotExcluded => unless(
                !request.exclude.contains(&host.id),
                Amount::Nothing,
                Amount::Nothing,
            ),
            Self::Architecture => {
                let have = facts.map_or("", |f| &f.architecture);
                unless(
                    have == request.architecture,
                    Amount::text(&request.architecture),
                    Amount::text(have),
                )
            }
            Self::Hypervisor => match &request.hypervisor {
                None => Ok(()),
                Some(need) => {
                    let have = facts.map_or("", |f| &f.hypervisor);
                    unless(have == need, Amount::text(need), Amount::text(have))
                }
            },
            Self::Traits => {
                let have = facts.map_or(&[][..], |f| &f.traits);
                match request.traits.iter().find(|need| !have.contains(need)) {
                    None => Ok(()),
                    Some(need) => Err(Refusal {
                        need: Amount::text(need),
                        have: Amount::Nothing,
                    }),
                }
            }
            Self::Labels => {
                let missing = request
                    .labels
                    .iter()
                    .find(|(key, value)| host.labels.get(*key) != Some(value));
                let Some((key, value)) = missing else {
                    return Ok(());
                };
                let have = host
                    .labels
                    .get(key)
                    .map_or(Amount::Nothing, |have| Amount::Label(key, have));
                Err(Refusal {
                    need: Amount::Label(key, value),
                    have,
                })
            }
            Self::AntiAffinity => match &request.anti_affinity_group {
                Some(group) if host.ledger.groups.get(group).is_some_and(|n| *n > 0) => Err(Refusal {
                    need: Amount::Nothing,
                    have: Amount::text(group),
                }),
                _ => Ok(()),
            },
            Self::Cpu => enough(request.resources.vcpus.into(), host.free().vcpus.into(), "vCPU"),
            Self::Memory => enough(request.resources.memory_mib, host.free().memory_mib, "MiB"),
            Self::Disk => enough(request.resources.disk_gib, host.free().disk_gib, "GiB"),
        }
    }
}
