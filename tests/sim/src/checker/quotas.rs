//! I13: what a project's ledger says is in use is what the project has.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use skyloom_identity::{Ledger, Limits};
use skyloom_model::{ProjectId, Resources};
use skyloom_store::{Key, Value};

use super::{Checker, id};

/// So much of each, by name. Nothing has an entry of 0.
type Sum = BTreeMap<String, u64>;

/// What projects have, and what their ledgers say.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    /// What each resource takes, by its key.
    each: BTreeMap<Key, Sum>,
    there: BTreeMap<ProjectId, Sum>,
    written: BTreeMap<ProjectId, Sum>,
    /// Projects of which the commit at hand has changed something.
    touched: BTreeSet<ProjectId>,
}

#[derive(Deserialize)]
struct Doc<S> {
    spec: S,
}
#[derive(Deserialize)]
struct Server {
    spec: OfServer,
    status: ServerStatus,
}
#[derive(Deserialize)]
struct OfServer {
    flavor: Doc<OfFlavor>,
}
/// While a resize is neither confirmed nor taken back, the larger of both sizes counts.
#[derive(Deserialize)]
struct ServerStatus {
    resize: Option<Resize>,
}
#[derive(Deserialize)]
struct Resize {
    former: Doc<OfFlavor>,
}
#[derive(Deserialize)]
struct OfFlavor {
    resources: Resources,
}
#[derive(Deserialize)]
struct OfVolume {
    size_gib: u64,
}
#[derive(Deserialize)]
struct OfGroup {
    rules: Vec<IgnoredAny>,
}

impl Checker {
    /// Takes a resource that is written, or goes.
    pub(super) fn take_counted(&mut self, key: &Key, value: Option<&Value>) {
        let mut segments = key.segments().skip(1);
        let (kind, project) = (segments.next(), id::<ProjectId>(segments.next()));
        let (Some(kind), Some(project)) = (kind, project) else {
            return;
        };
        let takes = match value {
            None => Some(Sum::new()),
            Some(_) => self.takes(kind, key, value),
        };
        let Some(takes) = takes else { return };
        let quotas = &mut self.quotas;
        let sum = quotas.there.entry(project).or_default();
        for (name, amount) in quotas.each.remove(key).unwrap_or_default() {
            let left = sum.remove(&name).unwrap_or_default().saturating_sub(amount);
            if left > 0 {
                sum.insert(name, left);
            }
        }
        for (name, amount) in takes.iter().filter(|(_, amount)| **amount > 0) {
            *sum.entry(name.clone()).or_default() += amount;
        }
        if !takes.is_empty() {
            quotas.each.insert(key.clone(), takes);
        }
        quotas.touched.insert(project);
    }

    /// What a resource of that kind takes; nothing known of kinds that are not counted.
    fn takes(&mut self, kind: &str, key: &Key, value: Option<&Value>) -> Option<Sum> {
        fn spec<S: DeserializeOwned>(checker: &mut Checker, key: &Key, value: Option<&Value>) -> Option<S> {
            checker.parse::<Doc<S>>(key, value).map(|doc| doc.spec)
        }
        let more = match kind {
            "servers" => {
                let server: Server = self.parse(key, value)?;
                let wanted = server.spec.flavor.spec.resources;
                let former = server.status.resize.map(|resize| resize.former.spec.resources);
                let Resources {
                    vcpus, memory_mib, ..
                } = former.map_or(wanted, |former| wanted.at_least(former));
                vec![("vcpus", u64::from(vcpus)), ("memory_mib", memory_mib)]
            }
            "volumes" => vec![("volume_gib", spec::<OfVolume>(self, key, value)?.size_gib)],
            "security_groups" => {
                let rules = spec::<OfGroup>(self, key, value)?.rules.len();
                vec![("security_group_rules", rules as u64)]
            }
            "ports" | "images" | "keypairs" | "networks" | "subnets" | "snapshots" => Vec::new(),
            _ => return None,
        };
        let all = more.into_iter().chain([(kind, 1)]);
        Some(all.map(|(name, amount)| (name.to_owned(), amount)).collect())
    }

    /// Takes a ledger.
    pub(super) fn take_quota(&mut self, key: &Key, value: Option<&Value>) {
        let Some(project) = id::<ProjectId>(Some(key.last())) else {
            return;
        };
        let ledger = self.parse::<Ledger>(key, value).unwrap_or_default();
        // Domains have ledgers here too, when they have limits: in the simulator none has.
        debug_assert_eq!(ledger.limits, Limits::new());
        let used = ledger.used.iter().filter(|(_, amount)| *amount > 0);
        let used = used.map(|(name, amount)| (name.to_string(), amount)).collect();
        self.quotas.written.insert(project, used);
        self.quotas.touched.insert(project);
    }

    /// Compares what the commit at hand has touched.
    pub(super) fn check_quotas(&mut self) {
        for project in std::mem::take(&mut self.quotas.touched) {
            let there = self.quotas.there.get(&project).cloned().unwrap_or_default();
            let written = self.quotas.written.get(&project).cloned().unwrap_or_default();
            if there != written {
                self.complain(
                    "I13",
                    format!("project {project} has {there:?} and its ledger says {written:?}"),
                );
            }
        }
    }
}
