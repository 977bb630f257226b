//! What a schedule is made of, drawn from its seed: sizes, operations, which faults exist and how often they come.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skyloom_cloud::CreateFlavor;
use skyloom_model::{Resources, ServerAction};

use crate::faults::{self, Kind, Planned};
use crate::play::{Act, HostPlan};
use crate::rng::Rng;

/// How long after the faults a small cloud must have come to rest.
pub(crate) const REST: Duration = Duration::from_secs(600);
/// Where the numbers of migrations begin among all operations.
const MIGRATIONS: usize = 1_000;
/// Where the numbers of what puts servers away begin.
const SHELVES: usize = 2_000;
/// More steps than any drawn schedule needs.
pub(crate) const MOST_STEPS: u64 = 400_000;

/// What of a seed's schedule is left out: how failures are shrunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Omit {
    /// Kinds of faults that do not exist.
    pub kinds: BTreeSet<Kind>,
    /// Planned faults that do not happen, by their number.
    pub faults: BTreeSet<usize>,
    /// Operations that no client does, by their number.
    pub operations: BTreeSet<usize>,
}

/// What a client does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operation {
    Create {
        flavor: usize,
        start: bool,
        group: bool,
    },
    Start {
        pick: u64,
    },
    Stop {
        pick: u64,
        force: bool,
    },
    Reboot {
        pick: u64,
    },
    Delete {
        pick: u64,
    },
    /// Cancels what this client asked for last.
    Cancel,
    Mesh {
        host: usize,
        fails: Option<&'static str>,
        secret: bool,
    },
    /// Sends a server to another host, by an operator.
    Migrate {
        pick: u64,
        live: bool,
    },
    /// Any action of a server that has no options of note.
    Act {
        pick: u64,
        action: ServerAction,
    },
    /// Looks for what belongs to nobody on a host.
    Sweep {
        host: usize,
        remove: bool,
    },
    Poison,
}

/// An operation of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its number among all operations of the schedule.
    pub(crate) number: usize,
    /// How long the client thinks before.
    pub(crate) pause_ms: u64,
    /// Whether it waits for the task to come to rest.
    pub(crate) waits: bool,
    pub(crate) operation: Operation,
}

/// A schedule.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) hosts: usize,
    /// Whether all hosts see one folder of disks, and send guests to each other.
    pub(crate) shared: bool,
    pub(crate) engines: usize,
    /// What each host has.
    pub(crate) capacity: Resources,
    /// Steps of each client.
    pub(crate) clients: Vec<Vec<Step>>,
    /// When the faults end.
    pub(crate) faults_until: Duration,
    /// Whether all processes are started anew then.
    pub(crate) restart_all: bool,
    pub(crate) rates: BTreeMap<Kind, u32>,
    /// Planned faults with their moment and number.
    pub(crate) planned: Vec<(Duration, usize, Planned)>,
    /// Commits that the store remembers.
    pub(crate) history: usize,
    /// Whether somebody only watches.
    pub(crate) watcher: bool,
    pub(crate) lease_ttl: Duration,
    /// How much clocks are off in speed at most, in millionths.
    pub(crate) drift: u64,
    /// How long after the faults everything must have come to rest.
    pub(crate) rest: Duration,
    /// More steps than it needs.
    pub(crate) most_steps: u64,
    /// Hosts that have names and sizes of their own.
    pub(crate) named: Vec<HostPlan>,
    /// Flavors besides those of every new cloud.
    pub(crate) flavors: Vec<CreateFlavor>,
    /// What happens by a script.
    pub(crate) acts: Vec<(Duration, Act)>,
}

impl Scenario {
    /// The schedule of `seed`, without what is left out.
    pub(crate) fn draw(seed: u64, omit: &Omit) -> Self {
        let mut rng = Rng::of(seed, "scenario");
        let hosts = rng.within(1, 3) as usize;
        let engines = rng.within(1, 3) as usize;
        let (vcpus, memory) = *rng.pick(&[(1, 1_300), (2, 2_400), (4, 4_096)]);
        let capacity = Resources {
            vcpus,
            memory_mib: memory,
            disk_gib: 100,
        };
        let faults_until = Duration::from_millis(rng.within(8_000, 45_000));
        let restart_all = rng.happens(500);
        let history = *rng.pick(&[30, 200, 10_000]);
        let watcher = rng.happens(150);
        let lease_ttl = Duration::from_secs(*rng.pick(&[4, 10]));
        let calm = rng.happens(60);
        let kinds: BTreeSet<Kind> = Kind::ALL
            .iter()
            .copied()
            .filter(|_| rng.happens(300) && !calm)
            .collect();
        // A stream of its own: what does not move is drawn as if nothing could.
        let mut moves = Rng::of(seed, "moves");
        let shared = hosts > 1 && moves.happens(400);
        let mut clients = clients(seed, hosts, omit);
        if shared {
            migrations(&mut moves, &mut clients, omit);
        }
        let mut away = Rng::of(seed, "shelves");
        if away.happens(300) {
            shelves(&mut away, &mut clients, omit);
        }
        let processes = engines + hosts + 1;
        let until = faults_until.as_millis() as u64;
        let mut planned = Vec::new();
        let mut rates = BTreeMap::new();
        for kind in Kind::ALL {
            // Each kind has a stream of its own, so that leaving one out does not change the others.
            let mut rng = Rng::of(seed, kind.name());
            rates.insert(*kind, *rng.pick(&[5, 20, 60]) as u32);
            for _ in 0..rng.within(1, 4) {
                let at = Duration::from_millis(rng.below(until));
                planned.extend(faults::draw(&mut rng, *kind, processes, hosts).map(|p| (at, p)));
            }
        }
        let exists = |kind: &Kind| kinds.contains(kind) && !omit.kinds.contains(kind);
        let drift = if exists(&Kind::Drift) { 20_000 } else { 0 };
        rates.retain(|kind, _| exists(kind));
        let planned = planned
            .into_iter()
            .enumerate()
            .filter(|(n, (_, p))| exists(&p.kind()) && !omit.faults.contains(n))
            .map(|(n, (at, p))| (at, n, p))
            .collect();
        Self {
            seed,
            hosts,
            shared,
            engines,
            capacity,
            clients,
            faults_until,
            restart_all,
            rates,
            planned,
            history,
            watcher,
            lease_ttl,
            drift,
            rest: REST,
            most_steps: MOST_STEPS,
            named: Vec::new(),
            flavors: Vec::new(),
            acts: Vec::new(),
        }
    }

    /// The kinds of faults that exist in it.
    pub(crate) fn kinds(&self) -> BTreeSet<Kind> {
        let planned = self.planned.iter().map(|(_, _, p)| p.kind());
        let mut kinds: BTreeSet<Kind> = planned.chain(self.rates.keys().copied()).collect();
        if self.drift > 0 {
            kinds.insert(Kind::Drift);
        }
        kinds
    }
}

fn clients(seed: u64, hosts: usize, omit: &Omit) -> Vec<Vec<Step>> {
    let mut rng = Rng::of(seed, "clients");
    let mut number = 0;
    let mut all = Vec::new();
    for _ in 0..rng.within(1, 3) {
        let mut steps = Vec::new();
        for i in 0..rng.within(1, 4) {
            let operation = operation(&mut rng, hosts, i == 0);
            let step = Step {
                number,
                pause_ms: rng.below(4_000),
                waits: rng.happens(700),
                operation,
            };
            if !omit.operations.contains(&number) {
                steps.push(step);
            }
            number += 1;
        }
        all.push(steps);
    }
    all
}

/// Each client sends servers to other hosts among what it does otherwise.
fn migrations(rng: &mut Rng, clients: &mut [Vec<Step>], omit: &Omit) {
    for (client, steps) in clients.iter_mut().enumerate() {
        for i in 0..rng.within(0, 3) as usize {
            let step = Step {
                number: MIGRATIONS + 10 * client + i,
                pause_ms: rng.below(4_000),
                waits: rng.happens(500),
                operation: Operation::Migrate {
                    pick: rng.next(),
                    live: rng.happens(700),
                },
            };
            let after = rng.within(1, 4) as usize;
            if !omit.operations.contains(&step.number) {
                steps.insert(after.min(steps.len()), step);
            }
        }
    }
}

/// Clients put servers away and make them again. Nobody reconciles here: who puts one away has its host forget it.
fn shelves(rng: &mut Rng, clients: &mut [Vec<Step>], omit: &Omit) {
    for (client, steps) in clients.iter_mut().enumerate() {
        let pick = rng.next();
        let mut at = rng.within(1, 3) as usize;
        for (i, action) in [
            ServerAction::Shelve,
            ServerAction::Offload,
            ServerAction::Unshelve,
        ]
        .into_iter()
        .enumerate()
        {
            let step = Step {
                number: SHELVES + 10 * client + i,
                pause_ms: rng.below(4_000),
                waits: rng.happens(800),
                operation: Operation::Act { pick, action },
            };
            at += usize::from(i > 0 && rng.happens(300)) + usize::from(i > 0);
            if !omit.operations.contains(&step.number) {
                steps.insert(at.min(steps.len()), step);
            }
        }
    }
}

fn operation(rng: &mut Rng, hosts: usize, first: bool) -> Operation {
    let pick = rng.next();
    let drawn = rng.below(100);
    let host = rng.index(hosts);
    let flag = rng.happens(500);
    let fails = *rng.pick(&["a", "b", "c", "d", "e", "f"]);
    if first && drawn < 75 || drawn < 25 {
        return Operation::Create {
            flavor: rng.index(2),
            start: rng.happens(800),
            group: rng.happens(200),
        };
    }
    match drawn {
        0..=34 => Operation::Stop { pick, force: flag },
        35..=42 => Operation::Start { pick },
        43..=50 => Operation::Reboot { pick },
        51..=68 => Operation::Delete { pick },
        69..=78 => Operation::Cancel,
        79..=88 => Operation::Mesh {
            host,
            fails: None,
            secret: flag,
        },
        89..=94 => Operation::Mesh {
            host,
            fails: Some(fails),
            secret: flag,
        },
        95..=97 => Operation::Sweep { host, remove: flag },
        _ => Operation::Poison,
    }
}
