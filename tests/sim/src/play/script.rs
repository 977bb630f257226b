//! A script: the cloud of a day and what happens in it, as TOML. `docs/howto/simulate.md` shows one with all its parts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skyloom_model::PowerState;

use super::pattern::{Glob, Numbered};
use super::units::{Gib, Mib, Moment, Span};
use crate::faults::Kind;

/// A day: the inventory and what happens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// The time of the day at which it begins: `"08:00"`.
    pub start: Moment,
    /// When it ends. By default five minutes after the last event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// How many engines there are, named `engine-0` and so on.
    pub engines: usize,
    /// How long leases of hosts and engines last without renewal.
    pub lease_ttl: Span,
    /// The hosts.
    pub hosts: Vec<HostGroup>,
    /// Sizes of servers, besides those that every new cloud has.
    pub flavors: Vec<FlavorSize>,
    /// What happens.
    pub events: Vec<Event>,
}

impl Default for Script {
    /// A quiet day from midnight on, with two engines, leases of ten seconds and no hosts.
    fn default() -> Self {
        Self {
            start: Moment::Clock(std::time::Duration::ZERO),
            until: None,
            engines: 2,
            lease_ttl: Span::seconds(10),
            hosts: Vec::new(),
            flavors: Vec::new(),
            events: Vec::new(),
        }
    }
}

/// Hosts of one kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostGroup {
    /// How many.
    pub count: usize,
    /// Their names; `{n}` is the number.
    pub name: Numbered,
    /// Real CPUs of each.
    pub vcpus: u32,
    /// Memory of each.
    pub memory: Mib,
    /// Disk of each.
    pub disk: Gib,
    /// Virtual CPUs per real one; by default as the cloud does it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ratio: Option<f64>,
    /// Labels that servers can ask for.
    pub labels: BTreeMap<String, String>,
}

impl Default for HostGroup {
    fn default() -> Self {
        Self {
            count: 1,
            name: Numbered::new("host-{n}"),
            vcpus: 32,
            memory: Mib(128 * 1024),
            disk: Gib(2048),
            cpu_ratio: None,
            labels: BTreeMap::new(),
        }
    }
}

/// A size of servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlavorSize {
    /// Its name.
    pub name: String,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory.
    pub memory: Mib,
    /// Root disk.
    pub disk: Gib,
    /// Labels that a host must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub host_labels: BTreeMap<String, String>,
}

/// Something that happens at a moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "AnyEvent", into = "AnyEvent")]
pub struct Event {
    /// When.
    pub at: Moment,
    /// What.
    pub what: What,
}

/// Generates the kinds of events, and the table in which exactly one of them is filled in.
macro_rules! events {
    ($($(#[doc = $doc:literal])* $variant:ident($type:ty) = $field:ident,)*) => {
        /// What happens.
        #[derive(Debug, Clone, PartialEq)]
        pub enum What { $($(#[doc = $doc])* $variant($type),)* }

        impl What {
            /// Its name in a script.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($field),)* }
            }
        }

        #[derive(Clone, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct AnyEvent {
            at: Moment,
            $(#[serde(default, skip_serializing_if = "Option::is_none")] $field: Option<$type>,)*
        }

        impl From<Event> for AnyEvent {
            fn from(event: Event) -> Self {
                let mut any = Self { at: event.at, $($field: None,)* };
                match event.what { $(What::$variant(what) => any.$field = Some(what),)* }
                any
            }
        }

        impl TryFrom<AnyEvent> for Event {
            type Error = String;
            fn try_from(any: AnyEvent) -> Result<Self, String> {
                let mut found: Vec<What> = Vec::new();
                $(found.extend(any.$field.map(What::$variant));)*
                match (found.pop(), found.last()) {
                    (Some(what), None) => Ok(Self { at: any.at, what }),
                    (Some(one), Some(other)) => Err(format!(
                        "an event does one thing: this one has {} and {}", other.name(), one.name()
                    )),
                    (None, _) => {
                        let all = [$(stringify!($field)),*];
                        Err(format!("an event does one of {}: this one does nothing", all.join(", ")))
                    }
                }
            }
        }
    };
}

events! {
    /// Users make servers.
    Create(Create) = create,
    /// Users start servers.
    Start(Select) = start,
    /// Users stop servers.
    Stop(Halt) = stop,
    /// Users reboot servers.
    Reboot(Halt) = reboot,
    /// Users delete servers.
    Delete(Select) = delete,
    /// The operator lets no new servers onto hosts.
    Disable(Hosts) = disable,
    /// The operator lets new servers onto hosts again.
    Enable(Hosts) = enable,
    /// Hosts lose power: agents and guests are gone.
    PowerLoss(HostsFor) = power_loss,
    /// Agents die; guests run on.
    AgentCrash(HostsFor) = agent_crash,
    /// Engines die.
    EngineCrash(EnginesFor) = engine_crash,
    /// The API dies.
    ApiCrash(For) = api_crash,
    /// The network between processes and the store is cut.
    Cut(Cut) = cut,
    /// The store answers late.
    SlowStore(SlowStore) = slow_store,
    /// The store takes no writes.
    StoreFull(For) = store_full,
    /// Disks of hosts have no room.
    DiskFull(HostsFor) = disk_full,
    /// Guests die.
    GuestCrash(Guests) = guest_crash,
    /// Random faults for a while.
    Weather(Weather) = weather,
}

/// New servers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// How many.
    #[serde(default = "one")]
    pub count: usize,
    /// Their names; `{n}` is the number, which goes on from one event to the next.
    #[serde(default = "server_names")]
    pub name: Numbered,
    /// Their flavor.
    pub flavor: String,
    /// The requests are spread evenly over this time.
    #[serde(default)]
    pub over: Span,
    /// Their anti-affinity group: no two of them on one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Labels that their hosts must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub host_labels: BTreeMap<String, String>,
    /// Whether they are turned on.
    #[serde(default = "yes")]
    pub start: bool,
}

/// Some of the servers that there are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Select {
    /// Those of these names.
    pub servers: Glob,
    /// Only those in this power state: `running`, `stopped` or `crashed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerState>,
    /// So many of them, drawn by the seed; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// The requests are spread evenly over this time.
    #[serde(default)]
    pub over: Span,
}

/// Some of the servers that there are, to be turned off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Halt {
    /// Those of these names.
    pub servers: Glob,
    /// Only those in this power state: `running`, `stopped` or `crashed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<PowerState>,
    /// So many of them, drawn by the seed; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// The requests are spread evenly over this time.
    #[serde(default)]
    pub over: Span,
    /// Off at once, without asking the guest.
    #[serde(default)]
    pub force: bool,
}

/// Some hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// Those of these names.
    pub hosts: Glob,
    /// So many of them, drawn by the seed; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

/// Some hosts, for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostsFor {
    /// Those of these names.
    pub hosts: Glob,
    /// So many of them, drawn by the seed; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// How long.
    #[serde(rename = "for")]
    pub lasts: Span,
}

/// Some engines, for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnginesFor {
    /// Those of these names.
    #[serde(default)]
    pub engines: Glob,
    /// How long.
    #[serde(rename = "for")]
    pub lasts: Span,
}

/// A while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct For {
    /// How long.
    #[serde(rename = "for")]
    pub lasts: Span,
}

/// Which way is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Requests do not arrive.
    Out,
    /// Answers and events do not come back.
    In,
    /// Neither.
    #[default]
    Both,
}

/// A cut between processes and the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// Processes: names of hosts (their agents), engines, or `api`.
    pub of: Glob,
    /// Which way.
    #[serde(default)]
    pub direction: Direction,
    /// How long.
    #[serde(rename = "for")]
    pub lasts: Span,
}

/// A store that answers late.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlowStore {
    /// How much later than usual each answer comes.
    pub by: Span,
    /// How long.
    #[serde(rename = "for")]
    pub lasts: Span,
}

/// Some guests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guests {
    /// Those of the servers of these names that run.
    pub servers: Glob,
    /// So many of them, drawn by the seed; by default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
}

/// Random faults for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weather {
    /// How often each kind of fault comes: of a thousand calls or events for those that [bite call by call](Kind::by_call),
    /// per hour for the others.
    #[serde(with = "by_kind")]
    pub faults: BTreeMap<Kind, u32>,
    /// How long.
    #[serde(rename = "for")]
    pub lasts: Span,
}

fn one() -> usize {
    1
}
fn yes() -> bool {
    true
}
fn server_names() -> Numbered {
    Numbered::new("server-{n}")
}

/// Kinds of faults by their names.
mod by_kind {
    use std::collections::BTreeMap;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::faults::Kind;

    pub(super) fn serialize<S: Serializer>(
        faults: &BTreeMap<Kind, u32>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(faults.iter().map(|(kind, rate)| (kind.name(), rate)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Kind, u32>, D::Error> {
        let named = BTreeMap::<String, u32>::deserialize(deserializer)?;
        named
            .into_iter()
            .map(|(name, rate)| {
                let kinds: Vec<&str> = Kind::ALL.iter().map(|k| k.name()).collect();
                let known = |why| D::Error::custom(format!("{why}, expected one of {}", kinds.join(", ")));
                Ok((name.parse().map_err(known)?, rate))
            })
            .collect()
    }
}

impl What {
    /// How long it goes on.
    #[must_use]
    pub fn lasts(&self) -> Span {
        match self {
            Self::Create(what) => what.over,
            Self::Start(what) | Self::Delete(what) => what.over,
            Self::Stop(what) | Self::Reboot(what) => what.over,
            Self::Disable(_) | Self::Enable(_) | Self::GuestCrash(_) => Span::default(),
            Self::PowerLoss(what) | Self::AgentCrash(what) | Self::DiskFull(what) => what.lasts,
            Self::EngineCrash(what) => what.lasts,
            Self::ApiCrash(what) | Self::StoreFull(what) => what.lasts,
            Self::Cut(what) => what.lasts,
            Self::SlowStore(what) => what.lasts,
            Self::Weather(what) => what.lasts,
        }
    }
}
