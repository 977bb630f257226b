//! The processes of a run: an engine and an agent per host, each of the real parts, each with as many lives as it needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skyloom_model::{ActiveTask, Clock, HostId, paths};
use skyloom_store::{DynBackend, LeaseName, ListOptions, Prefix, latest};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::World;
use super::script::{Process, Script, Trouble, Who};
use super::tamper::tamper;
use super::tap::Tap;
use crate::journal::{MemoryDisk, MemoryJournal};
use crate::{Driver, DriverParts, Fence, InventoryFeed, LeaseKeeper, Life, Rest, Slot, Worker, WorkerParts};

const ENGINE: &str = "harness";
/// How long leases last without renewal.
const LEASE: Duration = Duration::from_secs(10);
/// When a task is looked at again although nothing has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// All processes of a run.
pub(super) struct Lives {
    world: Arc<dyn World>,
    clock: Arc<dyn Clock>,
    script: Arc<Script>,
    task: latest::Sender<Option<ActiveTask>>,
    disks: BTreeMap<HostId, MemoryDisk>,
    running: BTreeMap<Process, JoinSet<()>>,
    /// Of all, when all die together.
    dead: CancellationToken,
}

impl Lives {
    /// Begins the first life of each.
    pub(super) fn begin(
        world: Arc<dyn World>,
        clock: Arc<dyn Clock>,
        script: Arc<Script>,
    ) -> Result<Self, String> {
        let disks = world
            .hosts()
            .into_iter()
            .map(|h| (h, MemoryDisk::new()))
            .collect();
        let mut lives = Self {
            world,
            clock,
            script,
            task: latest::channel(None).0,
            disks,
            running: BTreeMap::new(),
            dead: CancellationToken::new(),
        };
        lives.start(Process::Engine)?;
        for host in lives.world.hosts() {
            lives.start(Process::Agent(host))?;
        }
        Ok(lives)
    }

    /// This is the task to carry out.
    pub(super) fn carry(&self, task: ActiveTask) {
        self.task.send_replace(Some(task));
    }

    /// Buries the dead and begins their next lives.
    pub(super) async fn renew(&mut self, died: Process) -> Result<(), String> {
        self.dead = CancellationToken::new();
        let all: Vec<Process> = match self.script.trouble {
            Trouble::Crash { who: Who::All, .. } => self.running.keys().copied().collect(),
            _ => vec![died],
        };
        for process in &all {
            if let Some(mut life) = self.running.remove(process) {
                life.shutdown().await;
            }
        }
        all.into_iter().try_for_each(|process| self.start(process))
    }

    /// Ends them all; what they wait for does not come.
    pub(super) async fn end(mut self) {
        for life in self.running.values_mut() {
            life.shutdown().await;
        }
    }

    fn start(&mut self, process: Process) -> Result<(), String> {
        let dead = match self.script.trouble {
            Trouble::Crash { who: Who::All, .. } => self.dead.clone(),
            _ => CancellationToken::new(),
        };
        let backend: DynBackend = Arc::new(Tap {
            inner: self.world.backend(),
            process,
            script: self.script.clone(),
            dead,
        });
        let life = match process {
            Process::Engine => self.engine(backend)?,
            Process::Agent(host) => self.agent(host, backend)?,
        };
        self.running.insert(process, life);
        Ok(())
    }

    fn keeper(
        &self,
        backend: &DynBackend,
        name: &str,
        life: &mut JoinSet<()>,
    ) -> Result<latest::Receiver<Option<Fence>>, String> {
        let lease = LeaseName::parse(name).map_err(|e| e.to_string())?;
        let (keeper, fence) = LeaseKeeper::new(backend.clone(), self.clock.clone(), lease, name, LEASE);
        // Lives are ended before the next begins.
        life.spawn(keeper.alone().run(CancellationToken::new()));
        Ok(fence)
    }

    fn agent(&self, host: HostId, backend: DynBackend) -> Result<JoinSet<()>, String> {
        let mut life = JoinSet::new();
        let fence = self.keeper(&backend, &paths::host_lease(host), &mut life)?;
        let disk = &self.disks[&host];
        disk.crash();
        let worker = Worker::new(WorkerParts {
            backend: backend.clone(),
            host,
            jobs: tamper(&self.world.host_jobs(host, backend), &self.script),
            clock: self.clock.clone(),
            fence,
            journal: Arc::new(MemoryJournal::open(disk).map_err(|e| e.to_string())?),
            companion: self.world.companion(host),
            concurrency: 4,
        });
        life.spawn(worker.map_err(|e| e.to_string())?.run(CancellationToken::new()));
        Ok(life)
    }

    fn engine(&self, backend: DynBackend) -> Result<JoinSet<()>, String> {
        let mut life = JoinSet::new();
        let fence = self.keeper(&backend, &paths::engine_lease(ENGINE), &mut life)?;
        let (inventory, feed) = InventoryFeed::new(&backend).map_err(|e| e.to_string())?;
        life.spawn(feed.run(CancellationToken::new()));
        let driver = Driver::new(DriverParts {
            backend: backend.clone(),
            flows: self.world.flows(),
            jobs: tamper(&self.world.engine_jobs(), &self.script),
            scheduler: self.world.scheduler(),
            inventory: inventory.clone(),
            clock: self.clock.clone(),
            ids: self.world.ids(),
            engine: ENGINE.to_owned(),
            job_slots: 4,
        });
        let desk = Desk {
            backend,
            driver,
            clock: self.clock.clone(),
            inventory,
            fence,
            task: self.task.subscribe(),
            changes: self.script.changes(),
        };
        life.spawn(desk.work());
        Ok(life)
    }
}

/// What one life of an engine works with.
struct Desk {
    backend: DynBackend,
    driver: Driver,
    clock: Arc<dyn Clock>,
    inventory: Arc<InventoryFeed>,
    fence: latest::Receiver<Option<Fence>>,
    task: latest::Receiver<Option<ActiveTask>>,
    changes: latest::Receiver<usize>,
}

impl Desk {
    /// Drives the one task, again after each change.
    async fn work(mut self) {
        let (any, one) = (Prefix::all(), ListOptions::default().with_limit(1));
        let Ok(born) = self.backend.list(&any, one).await.map(|page| page.revision) else {
            return;
        };
        if self.inventory.ready().await.is_err() {
            return;
        }
        loop {
            let Ok(Some(mark)) = self.task.wait_for(Option::is_some).await.map(|t| t.clone()) else {
                return;
            };
            let Ok(Some(fence)) = self.fence.wait_for(Option::is_some).await.map(|f| f.clone()) else {
                return;
            };
            self.changes.mark_unchanged();
            let rest = self.turn(&mark, &Life { fence, born }).await;
            let pause = match rest {
                Rest::Again => Duration::from_millis(10),
                Rest::Until(Some(at)) | Rest::Room(at) => {
                    Duration::try_from(at.duration_since(self.clock.now()))
                        .unwrap_or_default()
                        .clamp(Duration::from_millis(1), LOOK_AGAIN)
                }
                Rest::Until(None) | Rest::Ended | Rest::NotMine => LOOK_AGAIN,
            };
            tokio::select! {
                biased;
                _ = self.changes.changed() => {}
                _ = self.task.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Drives as far as it goes; each commit of anybody is news.
    async fn turn(&self, mark: &ActiveTask, life: &Life) -> Rest {
        let slots = Arc::new(Semaphore::new(1));
        let Ok(permit) = slots.clone().acquire_owned().await else {
            return Rest::Again;
        };
        let mut slot = Slot::taken(slots, permit);
        let (nudged, shutdown) = (Notify::new(), CancellationToken::new());
        let mut changes = self.changes.clone();
        let nudge = async {
            while changes.changed().await.is_ok() {
                nudged.notify_one();
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            rest = self.driver.drive(mark, life, &mut slot, &nudged, &shutdown) => rest.unwrap_or(Rest::Again),
            () = nudge => Rest::Again,
        }
    }
}
