//! The memory store against a model that keeps every state there ever was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use proptest::prelude::*;
use skyloom_model::{Clock as _, ManualClock};
use skyloom_store::{
    Change, ErrorKind, Grant, Guard, Key, KeyValue, LeaseMode, LeaseName, Leases as _, ListOptions,
    MemoryConfig, MemoryStore, Outcome, Prefix, Renewal, Revision, Store as _, Txn, Value, Watch as _,
    WatchEvent, WatchOptions, Write,
};

const PATHS: [&str; 7] = ["a", "a/1", "a/2", "a/1/x", "a1", "b/1", "b-/1"];
const PREFIXES: [&str; 5] = ["", "a", "a/1", "b", "none"];
const NAMES: [&str; 2] = ["l/1", "l/2"];

#[derive(Debug, Clone)]
enum Step {
    Commit {
        guards: Vec<(usize, GuardKind)>,
        writes: Vec<(usize, Option<u8>)>,
    },
    List {
        prefix: usize,
        back: u64,
        limit: usize,
        after: Option<usize>,
    },
    Watch {
        prefix: usize,
        back: u64,
    },
    Compact {
        back: u64,
    },
    Grant {
        name: usize,
        take_over: bool,
        ttl: u64,
    },
    Renew {
        name: usize,
        old: bool,
        ttl: u64,
    },
    Revoke {
        name: usize,
        old: bool,
    },
    Wait {
        seconds: u64,
    },
}

#[derive(Debug, Clone, Copy)]
enum GuardKind {
    Absent,
    Present,
    Stale,
    Lease { old: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS.len();
    let guard_kind = prop_oneof![
        3 => Just(GuardKind::Absent),
        6 => Just(GuardKind::Present),
        1 => Just(GuardKind::Stale),
        2 => any::<bool>().prop_map(|old| GuardKind::Lease { old }),
    ];
    let writes = prop::collection::btree_map(path.clone(), prop::option::weighted(0.7, any::<u8>()), 0..4);
    let guards = prop::collection::vec((path.clone(), guard_kind), 0..3);
    let commit = (guards, writes).prop_map(|(guards, writes)| Step::Commit {
        guards,
        writes: writes.into_iter().rev().collect(),
    });
    let name = 0..NAMES.len();
    prop_oneof![
        8 => commit,
        3 => (0..PREFIXES.len(), 0..12_u64, 0..4_usize, prop::option::of(path))
            .prop_map(|(prefix, back, limit, after)| Step::List { prefix, back, limit, after }),
        3 => (0..PREFIXES.len(), 0..12_u64).prop_map(|(prefix, back)| Step::Watch { prefix, back }),
        1 => (0..8_u64).prop_map(|back| Step::Compact { back }),
        2 => (name.clone(), any::<bool>(), 1..6_u64)
            .prop_map(|(name, take_over, ttl)| Step::Grant { name, take_over, ttl }),
        2 => (name.clone(), any::<bool>(), 1..6_u64).prop_map(|(name, old, ttl)| Step::Renew { name, old, ttl }),
        1 => (name, any::<bool>()).prop_map(|(name, old)| Step::Revoke { name, old }),
        2 => (0..5_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

type State = BTreeMap<Key, KeyValue>;

struct Model {
    /// The state at each revision.
    states: Vec<State>,
    floor: usize,
    history: usize,
    /// Epoch and end of each name.
    leases: [(u64, Option<Duration>); 2],
    clock: ManualClock,
}

impl Model {
    fn now(&self) -> usize {
        self.states.len() - 1
    }
    fn present(&self) -> &State {
        &self.states[self.now()]
    }
    fn held(&self, name: usize) -> bool {
        self.leases[name]
            .1
            .is_some_and(|end| self.clock.monotonic() < end)
    }
    fn epoch(&self, name: usize, old: bool) -> u64 {
        self.leases[name].0.saturating_sub(u64::from(old))
    }

    fn guard(&self, path: usize, kind: GuardKind) -> Guard {
        let key = Key::parse(PATHS[path]).unwrap();
        let modified = self.present().get(&key).map(|kv| kv.modified);
        match kind {
            GuardKind::Absent => Guard::Absent(key),
            GuardKind::Present => Guard::Revision(key, modified.unwrap_or(Revision(1))),
            GuardKind::Stale => Guard::Revision(key, Revision(modified.map_or(0, |r| r.0.saturating_sub(1)))),
            GuardKind::Lease { old } => {
                let name = path % NAMES.len();
                Guard::Lease(LeaseName::parse(NAMES[name]).unwrap(), self.epoch(name, old))
            }
        }
    }

    fn commit(&mut self, txn: &Txn) -> Outcome {
        for (guard, wanted) in txn.guards.iter().enumerate() {
            let modified = |key: &Key| self.present().get(key).map(|kv| kv.modified);
            let (holds, current) = match wanted {
                Guard::Absent(key) => (modified(key).is_none(), modified(key)),
                Guard::Revision(key, revision) => (modified(key) == Some(*revision), modified(key)),
                Guard::Lease(name, epoch) => {
                    let name = NAMES.iter().position(|n| *n == name.to_string()).unwrap();
                    (self.held(name) && self.leases[name].0 == *epoch, None)
                }
            };
            if !holds {
                return Outcome::Conflict { guard, current };
            }
        }
        let revision = Revision(self.now() as u64 + 1);
        let mut state = self.present().clone();
        for write in &txn.writes {
            match write {
                Write::Put(key, value) => {
                    let created = state.get(key).map_or(revision, |old| old.created);
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        created,
                        modified: revision,
                    };
                    state.insert(key.clone(), kv);
                }
                Write::Delete(key) => {
                    state.remove(key);
                }
            }
        }
        if state != *self.present() {
            self.states.push(state);
            self.floor = self.floor.max(self.now().saturating_sub(self.history));
        }
        Outcome::Committed {
            revision: Revision(self.now() as u64),
        }
    }

    /// What watching `prefix` after `after` must deliver, by comparing neighbouring states.
    fn events(&self, prefix: &Prefix, after: usize) -> Vec<WatchEvent> {
        let mut events = Vec::new();
        for revision in after + 1..self.states.len() {
            let (old, new) = (&self.states[revision - 1], &self.states[revision]);
            let mut changes: Vec<Change> = Vec::new();
            for key in PATHS
                .iter()
                .map(|p| Key::parse(p).unwrap())
                .filter(|k| prefix.covers(k))
            {
                match (old.get(&key), new.get(&key)) {
                    (a, b) if a == b => {}
                    (_, Some(kv)) => changes.push(Change::Put(kv.clone())),
                    (_, None) => changes.push(Change::Delete(key)),
                }
            }
            changes.sort_by(|a, b| a.key().cmp(b.key()));
            if !changes.is_empty() {
                events.push(WatchEvent::Commit {
                    revision: Revision(revision as u64),
                    changes,
                });
            }
        }
        events
    }
}

fn done<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("the memory store never waits")
}

fn run(steps: Vec<Step>, history: usize) -> Result<(), TestCaseError> {
    let clock = ManualClock::new();
    let store = MemoryStore::new(
        Arc::new(clock.clone()),
        MemoryConfig::default().with_history(history),
    );
    let mut model = Model {
        states: vec![State::new()],
        floor: 0,
        history,
        leases: [(0, None); 2],
        clock,
    };
    // These follow from the start and must see everything.
    let mut followers: Vec<_> = PREFIXES
        .iter()
        .map(|p| Prefix::parse(p).unwrap())
        .map(|p| (store.watch(&p, WatchOptions::after(Revision(0))), p))
        .collect();
    for step in steps {
        match step {
            Step::Commit { guards, writes } => {
                let mut txn = Txn::new();
                for (path, kind) in guards {
                    txn = txn.guard(model.guard(path, kind));
                }
                for (path, value) in writes {
                    let key = Key::parse(PATHS[path]).unwrap();
                    txn = match value {
                        Some(n) => txn.put(key, Value::json(&n).unwrap()),
                        None => txn.delete(key),
                    };
                }
                prop_assert_eq!(done(store.commit(txn.clone())).unwrap(), model.commit(&txn));
            }
            Step::List {
                prefix,
                back,
                limit,
                after,
            } => {
                let prefix = Prefix::parse(PREFIXES[prefix]).unwrap();
                let at = (model.now() as u64).saturating_sub(back);
                let after = after.map(|path| Key::parse(PATHS[path]).unwrap());
                let mut options = ListOptions::default().with_limit(limit).with_at(Revision(at));
                options.after = after.clone();
                let answer = done(store.list(&prefix, options));
                if (at as usize) < model.floor {
                    prop_assert_eq!(answer.unwrap_err().kind(), ErrorKind::Compacted);
                    continue;
                }
                let state = model.states[at as usize].values();
                let below: Vec<_> = state
                    .filter(|kv| prefix.covers(&kv.key) && after.as_ref().is_none_or(|a| kv.key > *a))
                    .collect();
                let page = answer.unwrap();
                let limit = if limit == 0 { usize::MAX } else { limit };
                prop_assert_eq!(page.more, below.len() > limit);
                prop_assert_eq!(
                    page.items.iter().collect::<Vec<_>>(),
                    below.into_iter().take(limit).collect::<Vec<_>>()
                );
                prop_assert_eq!(page.revision, Revision(at));
            }
            Step::Watch { prefix, back } => {
                let prefix = Prefix::parse(PREFIXES[prefix]).unwrap();
                let after = model.now().saturating_sub(back as usize);
                let mut stream = store.watch(&prefix, WatchOptions::after(Revision(after as u64)));
                if after < model.floor {
                    let gap = WatchEvent::Gap {
                        floor: Revision(model.floor as u64),
                    };
                    prop_assert_eq!(done(stream.next()).unwrap().unwrap(), gap);
                    prop_assert!(done(stream.next()).is_none());
                    continue;
                }
                for wanted in model.events(&prefix, after) {
                    prop_assert_eq!(done(stream.next()).unwrap().unwrap(), wanted);
                }
                prop_assert!(stream.next().now_or_never().is_none(), "more than there was");
            }
            Step::Compact { back } => {
                let revision = model.now().saturating_sub(back as usize);
                store.compact(Revision(revision as u64));
                model.floor = model.floor.max(revision);
            }
            Step::Grant { name, take_over, ttl } => {
                let (mode, ttl) = (
                    if take_over {
                        LeaseMode::TakeOver
                    } else {
                        LeaseMode::Acquire
                    },
                    Duration::from_secs(ttl),
                );
                let answer =
                    done(store.grant(&LeaseName::parse(NAMES[name]).unwrap(), "h", ttl, mode)).unwrap();
                if model.held(name) && !take_over {
                    prop_assert!(
                        matches!(answer, Grant::Held(info) if info.epoch == model.leases[name].0 && !info.expired)
                    );
                } else {
                    model.leases[name] = (model.leases[name].0 + 1, Some(model.clock.monotonic() + ttl));
                    prop_assert_eq!(
                        answer,
                        Grant::Granted {
                            epoch: model.leases[name].0
                        }
                    );
                }
            }
            Step::Renew { name, old, ttl } => {
                let (epoch, ttl) = (model.epoch(name, old), Duration::from_secs(ttl));
                let answer = done(store.renew(&LeaseName::parse(NAMES[name]).unwrap(), epoch, ttl)).unwrap();
                let holds = model.held(name) && epoch == model.leases[name].0;
                prop_assert_eq!(answer, if holds { Renewal::Held } else { Renewal::Lost });
                if holds {
                    model.leases[name].1 = Some(model.clock.monotonic() + ttl);
                }
            }
            Step::Revoke { name, old } => {
                let epoch = model.epoch(name, old);
                done(store.revoke(&LeaseName::parse(NAMES[name]).unwrap(), epoch)).unwrap();
                if epoch == model.leases[name].0 {
                    model.leases[name].1 = None;
                }
            }
            Step::Wait { seconds } => model.clock.advance(Duration::from_secs(seconds)),
        }
        for path in PATHS {
            let key = Key::parse(path).unwrap();
            let found = done(store.get(&key)).unwrap();
            prop_assert_eq!(found.as_ref(), model.present().get(&key));
        }
        let shown = done(store.leases(&Prefix::parse("l").unwrap())).unwrap();
        let wanted: Vec<_> = (0..2)
            .filter(|n| model.leases[*n].1.is_some())
            .map(|n| (model.leases[n].0, !model.held(n)))
            .collect();
        prop_assert_eq!(
            shown.iter().map(|l| (l.epoch, l.expired)).collect::<Vec<_>>(),
            wanted
        );
    }
    for (stream, prefix) in &mut followers {
        for wanted in model.events(prefix, 0) {
            prop_assert_eq!(done(stream.next()).unwrap().unwrap(), wanted);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_memory_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60), history in 0..15_usize) {
        run(steps, history)?;
    }
}
