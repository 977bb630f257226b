//! What must hold when all processes are dead and all tasks have ended: the promises of `docs/reliability.md`, checked against the
//! store's file, the simulated host's own ledger and the agent's journal.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use skyloom::agent::FileJournal;
use skyloom::flow::journal::Journal as _;
use skyloom::hypervisor::{EffectKind, FakeWorld, never_two_running};
use skyloom::model::paths::CLOUD;
use skyloom::model::{Claim, HostLedger, OsIds, PowerState, Resources, Server, ServerId, SystemClock, Task};
use skyloom::store::{ListOptions, Prefix};
use skyloom::{StoreOptions, open_store};

/// All documents of a store, by the first part of their keys.
pub(crate) struct Rest {
    areas: BTreeMap<String, Vec<(String, Vec<u8>)>>,
}

impl Rest {
    /// Reads the store's file. Its writers must be dead.
    pub(crate) fn of(file: &Path) -> Self {
        Self::at(&format!("sqlite://{}", file.display()))
    }

    /// Reads the store at an address.
    pub(crate) fn at(uri: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut areas: BTreeMap<String, Vec<_>> = BTreeMap::new();
        runtime.block_on(async {
            let clock = Arc::new(SystemClock::new());
            let ids = Arc::new(OsIds::new(clock.clone()));
            let store = open_store(uri, &StoreOptions::new(clock, ids)).await.unwrap();
            let mut options = ListOptions::default();
            loop {
                let page = store.backend.list(&Prefix::all(), options.clone()).await.unwrap();
                let last = page.items.last().map(|kv| kv.key.clone());
                for kv in page.items {
                    let area = kv.key.segments().next().unwrap().to_owned();
                    let document = (kv.key.as_str().to_owned(), kv.value.bytes().to_vec());
                    areas.entry(area).or_default().push(document);
                }
                match last.filter(|_| page.more) {
                    Some(last) => options = options.with_after(last).with_at(page.revision),
                    None => break,
                }
            }
            store.close().await.unwrap();
        });
        Self { areas }
    }

    /// Keys of the documents that are not the same in both, but for what a store says of itself.
    pub(crate) fn differs_from(&self, other: &Self) -> Vec<String> {
        let documents = |rest: &Self| -> BTreeSet<(String, Vec<u8>)> {
            let own = rest.areas.iter().filter(|(area, _)| area.as_str() != CLOUD);
            own.flat_map(|(_, documents)| documents.clone()).collect()
        };
        let (ours, theirs) = (documents(self), documents(other));
        ours.symmetric_difference(&theirs)
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn keys(&self, area: &str) -> Vec<&str> {
        self.area(area).iter().map(|(key, _)| key.as_str()).collect()
    }

    fn area(&self, area: &str) -> &[(String, Vec<u8>)] {
        self.areas.get(area).map_or(&[], Vec::as_slice)
    }

    fn all<T: serde::de::DeserializeOwned>(&self, area: &str) -> Vec<T> {
        self.area(area)
            .iter()
            .map(|(_, bytes)| serde_json::from_slice(bytes).unwrap())
            .collect()
    }

    pub(crate) fn tasks(&self, flow: &str) -> Vec<Task> {
        let mut tasks: Vec<Task> = self.all("tasks");
        tasks.retain(|t| t.flow == flow);
        tasks
    }

    fn servers(&self) -> BTreeMap<ServerId, Server> {
        self.area("r")
            .iter()
            .filter(|(key, _)| key.starts_with("r/servers/"))
            .map(|(_, bytes)| serde_json::from_slice::<Server>(bytes).unwrap())
            .map(|s| (s.meta.id.to_string().parse().unwrap(), s))
            .collect()
    }

    /// Every promise that can be looked at from here. `acknowledged`: tasks that the client was told of.
    pub(crate) fn check(&self, world: &FakeWorld, acknowledged: &[String]) {
        let history = world.history().unwrap();
        never_two_running(std::slice::from_ref(&history)).unwrap_or_else(|e| panic!("I1: {e}"));

        self.all_work_has_ended(acknowledged);
        self.effects_happened_once(&history);
        let servers = self.servers();
        let claims: BTreeSet<ServerId> = self.all::<Claim>("claims").iter().map(|c| c.server).collect();
        let placed: BTreeSet<ServerId> = servers
            .iter()
            .filter(|(_, s)| s.status.placement.is_some())
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(
            claims, placed,
            "I6, I10: claims are of the servers that are placed"
        );
        let held: BTreeMap<_, _> = world.holdings().unwrap();
        assert_eq!(
            held.keys().copied().collect::<BTreeSet<_>>(),
            placed,
            "I10, I12: the host holds what is placed there: {held:#?}"
        );
        for (id, holding) in &held {
            let (_, power) = holding.domain.expect("a placed server has a domain");
            assert_eq!(power, servers[id].status.power, "{id}");
            assert_eq!(power, PowerState::Running, "{id}");
        }
    }

    /// What the client was told of is there and has ended, and holds nothing any more.
    pub(crate) fn all_work_has_ended(&self, acknowledged: &[String]) {
        let tasks: Vec<Task> = self.all("tasks");
        let known: BTreeSet<String> = tasks.iter().map(|t| t.id.to_string()).collect();
        for told in acknowledged {
            assert!(known.contains(told), "I2: the acknowledged task {told} is gone");
        }
        for task in &tasks {
            assert!(
                task.state.ended(),
                "I8: {} {:?} {:?}",
                task.flow,
                task.state,
                task.reason
            );
        }
        assert!(
            self.keys("plans").len() <= tasks.len(),
            "I3: more plans than tasks"
        );
        self.ledgers_are_the_sum_of_their_claims();

        for area in ["active", "jobs", "steps"] {
            assert!(self.keys(area).is_empty(), "I12: {:?}", self.keys(area));
        }
    }

    /// Each effect of a create at most once, whatever died.
    fn effects_happened_once(&self, history: &[skyloom::hypervisor::Effect]) {
        let mut seen: BTreeMap<(ServerId, String), u32> = BTreeMap::new();
        for effect in history {
            if let (
                Some(server),
                EffectKind::Started | EffectKind::Defined | EffectKind::DiskCreated { .. },
            ) = (effect.server, &effect.kind)
            {
                *seen.entry((server, format!("{:?}", effect.kind))).or_default() += 1;
            }
        }
        let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "I4: {twice:?}");
    }

    fn ledgers_are_the_sum_of_their_claims(&self) {
        for (key, bytes) in self.area("ledgers") {
            let ledger: HostLedger = serde_json::from_slice(bytes).unwrap();
            let host = key.rsplit('/').next().unwrap();
            let claims = self
                .area("claims")
                .iter()
                .filter(|(key, _)| key.split('/').nth(1) == Some(host))
                .map(|(_, bytes)| serde_json::from_slice::<Claim>(bytes).unwrap());
            let (mut used, mut servers) = (Resources::default(), 0);
            for claim in claims {
                used = used.plus(claim.resources);
                servers += 1;
            }
            assert_eq!((ledger.used, ledger.servers), (used, servers), "I6: {key}");
        }
    }
}

/// The journal below a host's folder has forgotten `task`: it is bounded by what is under way.
pub(crate) fn journal_has_forgotten(folder: &Path, task: &str) {
    let journal = FileJournal::open(folder).unwrap();
    let kept = journal.effects();
    assert!(kept.iter().all(|e| e.task.to_string() != task), "CP19: {kept:?}");
}
