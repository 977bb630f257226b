//! The processes of a schedule: engines, agents and the API, each a future of product code that may end at any moment and
//! is started again with nothing but its name, its store and its host.

use std::sync::Arc;
use std::time::Duration;

use skyloom_agent::{Agent, AgentConfig, AgentParts};
use skyloom_cloud::{
    AgentScoped, Cloud, CloudParts, EngineParts as EngineJobParts, HostParts, ImageRepo, NoFetch,
    RepoContent, engine_jobs, host_jobs,
};
use skyloom_engine::{Engine, EngineConfig, EngineParts};
use skyloom_flow::journal::{Journal, MemoryDisk, MemoryJournal};
use skyloom_image::Limits;
use skyloom_model::{Clock, Ids, Readiness, SeededIds};
use skyloom_scheduler::FleetScheduler;
use skyloom_store::DynBackend;
use skyloom_store::layer::{Retry, RetryConfig, Timeout, TimeoutConfig};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::bed::{Bed, Part, Who};
use crate::client::Door;
use crate::clock::SimClock;
use crate::direct::Direct;
use crate::gate::Gate;
use crate::host::{HostBed, Reach};
use crate::journal::Kept;
use crate::link::Link;
use crate::rng::Rng;
use crate::watcher::{self, Shown};
use crate::work::{self, Marks, Poison};

/// A process that ended: its place among all processes, and which life it was.
pub(crate) type Ended = (usize, u32);

/// What all processes share.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) seed: u64,
    pub(crate) bed: Arc<Bed>,
    pub(crate) door: Arc<Door>,
    pub(crate) images: Arc<dyn ImageRepo>,
    pub(crate) marks: Arc<Marks>,
    pub(crate) hosts: Vec<Arc<HostBed>>,
    pub(crate) pool: Option<Arc<HostBed>>,
    pub(crate) lease_ttl: Duration,
    pub(crate) shown: Shown,
}

/// A process by its name, over all its lives.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: Arc<str>,
    pub(crate) part: Part,
    index: usize,
    clock: Arc<SimClock>,
    lives: u32,
    /// The present life, if it is up.
    pub(crate) life: Option<Life>,
    /// A life that stands still while another goes on under its name.
    pub(crate) zombie: Option<Life>,
}

/// One life of a process.
#[derive(Debug)]
pub(crate) struct Life {
    number: u32,
    pub(crate) gate: Arc<Gate>,
    pub(crate) link: Arc<Link>,
    abort: AbortHandle,
    /// Tells it to end in order.
    pub(crate) stop: CancellationToken,
    /// The disk with its journal, of agents.
    disk: Option<MemoryDisk>,
}

impl Life {
    fn end(self) {
        self.gate.kill();
        self.abort.abort();
        if let Some(disk) = self.disk {
            disk.crash();
        }
    }
}

impl Process {
    pub(crate) fn new(index: usize, name: &str, part: Part, clock: SimClock) -> Self {
        Self {
            name: name.into(),
            part,
            index,
            clock: Arc::new(clock),
            lives: 0,
            life: None,
            zombie: None,
        }
    }

    pub(crate) fn step_clock(&self, by_ms: i64) {
        self.clock.step(by_ms);
    }

    /// Starts a new life. `false` when that cannot be now: another has the journal open.
    pub(crate) fn start(&mut self, ground: &Ground, set: &mut JoinSet<Ended>) -> bool {
        let host = match self.part {
            Part::Agent(host) => ground.hosts.iter().find(|h| h.id == host),
            _ => None,
        };
        let journal = match host.map(|h| MemoryJournal::open(&h.disk)) {
            Some(Err(_)) => {
                ground
                    .bed
                    .note(&self.name, "does not start: the journal is in use", String::new);
                return false;
            }
            Some(Ok(journal)) => Some(journal),
            None => None,
        };
        self.lives += 1;
        let number = self.lives;
        let who = Who {
            name: self.name.clone(),
            part: self.part.clone(),
            life: number,
        };
        ground.bed.note(&self.name, "starts", || format!("life {number}"));
        let gate = Arc::new(Gate::default());
        let rng = Rng::of(ground.seed, &format!("{}/{number}", self.name));
        let mut seeds = rng.clone();
        let direct: DynBackend = Arc::new(Direct {
            bed: ground.bed.clone(),
            who: who.clone(),
        });
        // As the API lets agents in.
        let store: DynBackend = match self.part {
            Part::Agent(host) => Arc::new(AgentScoped::new(direct, host)),
            _ => direct,
        };
        let link = Arc::new(Link::new(
            store,
            ground.bed.clone(),
            who.clone(),
            gate.clone(),
            rng,
        ));
        let clock: Arc<dyn Clock> = self.clock.clone();
        let ids: Arc<dyn Ids> = Arc::new(SeededIds::new(clock.clone(), seeds.next()));
        let backend = layered(link.clone(), ids.clone());
        let poison = Poison {
            bed: ground.bed.clone(),
            who,
            gate: gate.clone(),
        };
        let stop = CancellationToken::new();
        let parts = Parts {
            stop: stop.clone(),
            backend,
            clock,
            ids,
            poison,
        };
        let ended = (self.index, number);
        let abort = match self.part {
            Part::Engine => set.spawn(engine(ground, &self.name, parts, ended)),
            Part::Watcher => set.spawn(watcher(ground, parts, ended)),
            _ => match (host, journal) {
                (Some(host), Some(journal)) => set.spawn(agent(
                    ground,
                    host.clone(),
                    Arc::new(Kept {
                        inner: journal,
                        bed: ground.bed.clone(),
                    }),
                    parts,
                    seeds,
                    ended,
                )),
                _ => set.spawn(api(ground, parts, ended)),
            },
        };
        self.life = Some(Life {
            number,
            gate,
            link,
            abort,
            stop,
            disk: host.map(|h| h.disk.clone()),
        });
        true
    }

    /// Ends the present life at once, if there is one.
    pub(crate) fn kill(&mut self, ground: &Ground) -> bool {
        if self.part == Part::Api {
            ground.door.close();
        }
        match self.life.take() {
            Some(life) => {
                life.end();
                true
            }
            None => false,
        }
    }

    /// Ends the life that stands still.
    pub(crate) fn bury(&mut self) {
        if let Some(zombie) = self.zombie.take() {
            zombie.end();
        }
    }

    /// A life has ended by itself. Says whether it was the present one.
    pub(crate) fn ended(&mut self, number: u32) -> bool {
        if self.zombie.as_ref().is_some_and(|z| z.number == number) {
            self.zombie = None;
        }
        if self.life.as_ref().is_some_and(|l| l.number == number) {
            self.life = None;
            return true;
        }
        false
    }
}

/// What product code is made of, in any process.
struct Parts {
    stop: CancellationToken,
    backend: DynBackend,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    poison: Poison,
}

/// The layers that decide what a process makes of a bad link. Those that only measure or bound are left out.
fn layered(link: Arc<Link>, ids: Arc<dyn Ids>) -> DynBackend {
    let timed = Arc::new(Timeout::new(link, TimeoutConfig::default()));
    Arc::new(Retry::new(timed, RetryConfig::default(), ids))
}

fn engine(ground: &Ground, name: &str, parts: Parts, ended: Ended) -> impl Future<Output = Ended> + use<> {
    let jobs = engine_jobs(&EngineJobParts {
        images: ground.images.clone(),
        fetch: Arc::new(NoFetch),
        limits: Limits::default(),
    });
    let engine = Engine::new(EngineParts {
        backend: parts.backend,
        flows: work::flows(parts.poison.clone()),
        jobs: work::jobs(jobs, &ground.marks, &parts.poison, None),
        scheduler: Arc::new(FleetScheduler::default()),
        clock: parts.clock,
        ids: parts.ids,
        readiness: Readiness::new(),
        config: EngineConfig::new(name).with_lease_ttl(ground.lease_ttl),
    });
    async move {
        // It comes back only when it could not begin; then it is started again.
        let _ = engine.run(parts.stop).await;
        ended
    }
}

fn agent(
    ground: &Ground,
    host: Arc<HostBed>,
    journal: Arc<dyn Journal>,
    parts: Parts,
    mut seeds: Rng,
    ended: Ended,
) -> impl Future<Output = Ended> + use<> {
    let reach = Reach::new(
        host.clone(),
        ground.pool.clone(),
        parts.poison.gate.clone(),
        Rng::of(seeds.next(), "reach"),
    );
    let hypervisor = reach.hypervisor();
    let jobs = host_jobs(&HostParts {
        host: host.id,
        hypervisor: hypervisor.clone(),
        storage: reach.storage(),
        network: None,
        content: Arc::new(RepoContent(ground.images.clone())),
        backend: parts.backend.clone(),
    });
    let here = Some((&*host, parts.backend.clone()));
    let mut config = AgentConfig::new(host.id, host.name.clone());
    config.lease_ttl = ground.lease_ttl;
    let agent = Agent::new(AgentParts {
        backend: parts.backend,
        hypervisor,
        jobs: work::jobs(jobs, &ground.marks, &parts.poison, here),
        journal,
        clock: parts.clock,
        readiness: Readiness::new(),
        config,
    });
    async move {
        let _ = agent.run(parts.stop).await;
        ended
    }
}

fn api(ground: &Ground, parts: Parts, ended: Ended) -> impl Future<Output = Ended> + use<> {
    let cloud = Arc::new(Cloud::new(CloudParts {
        backend: parts.backend,
        clock: parts.clock,
        ids: parts.ids,
        images: ground.images.clone(),
    }));
    ground.door.open(cloud.clone(), CancellationToken::new());
    async move {
        cloud.keep_tidy(parts.stop).await;
        ended
    }
}

fn watcher(ground: &Ground, parts: Parts, ended: Ended) -> impl Future<Output = Ended> + use<> {
    let (bed, shown) = (ground.bed.clone(), ground.shown.clone());
    async move {
        tokio::select! {
            biased;
            () = parts.stop.cancelled() => {}
            () = watcher::watch(parts.backend, bed, shown) => {}
        }
        ended
    }
}
