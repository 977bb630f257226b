//! From the accepted create to the hypervisor's `start`: everything that the cloud does by itself.
//!
//! A whole [`LocalCloud`] with fake hosts. Their hypervisors are wrapped: each call of `start` is noted with its time and
//! passed on. Nothing is executed, so what is left is engine, agent, scheduler and store.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use skyloom::cloud::{Caller, Cloud, CreateImage, CreateServer, DirImageRepo, NoFetch, ServerAccepted};
use skyloom::hypervisor::{
    Capability, Console, FakeHypervisor, FakeOptions, FakeWorld, Hypervisor, Inspection, Recovered, Result,
    StopMode, Stopped, VmEvent, VmSpec,
};
use skyloom::image::Limits;
use skyloom::model::{
    Clock as _, DiskFormat, HostFacts, OsIds, Resource as _, Resources, ServerId, SystemClock, Task, TaskId,
    TaskState, paths,
};
use skyloom::store::{Change, DynBackend, ListOptions, Prefix, Revision, WatchEvent, WatchOptions};
use skyloom::{LocalCloud, LocalHost, LocalParts};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::meter::{Anyhow, Meter};
use crate::table::Samples;

/// Hosts of the cloud, all alike, unless told.
pub(crate) const HOSTS: usize = 8;
/// Creates that are asked for at the same time, unless told.
pub(crate) const CALLERS: usize = 16;

/// Notes when a server is started.
#[derive(Debug)]
struct Noting {
    inner: FakeHypervisor,
    clock: SystemClock,
    starts: UnboundedSender<(ServerId, Duration)>,
}

#[async_trait]
impl Hypervisor for Noting {
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
    async fn facts(&self) -> Result<HostFacts> {
        self.inner.facts().await
    }
    async fn define(&self, spec: &VmSpec) -> Result<()> {
        self.inner.define(spec).await
    }
    async fn start(&self, id: ServerId, generation: u64) -> Result<()> {
        // Nobody listens while the cloud is being taken down.
        let _ = self.starts.send((id, self.clock.monotonic()));
        self.inner.start(id, generation).await
    }
    async fn stop(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopped> {
        self.inner.stop(id, generation, mode).await
    }
    async fn undefine(&self, id: ServerId, generation: u64) -> Result<()> {
        self.inner.undefine(id, generation).await
    }
    async fn inspect(&self, id: ServerId) -> Result<Inspection> {
        self.inner.inspect(id).await
    }
    async fn recover(&self) -> Result<Vec<Recovered>> {
        self.inner.recover().await
    }
    async fn list(&self) -> Result<Vec<Recovered>> {
        self.inner.list().await
    }
    fn events(&self) -> BoxStream<'static, VmEvent> {
        self.inner.events()
    }
    fn as_console(&self) -> Option<&dyn Console> {
        self.inner.as_console()
    }
    fn as_pause(&self) -> Option<&dyn skyloom_hypervisor::Pause> {
        self.inner.as_pause()
    }
    fn as_suspend(&self) -> Option<&dyn skyloom_hypervisor::Suspend> {
        self.inner.as_suspend()
    }
    fn as_snapshots(&self) -> Option<&dyn skyloom_hypervisor::Snapshots> {
        self.inner.as_snapshots()
    }
    fn as_hotplug(&self) -> Option<&dyn skyloom_hypervisor::Hotplug> {
        self.inner.as_hotplug()
    }
    fn as_screen(&self) -> Option<&dyn skyloom_hypervisor::Screen> {
        self.inner.as_screen()
    }
    fn as_guest_agent(&self) -> Option<&dyn skyloom_hypervisor::GuestAgent> {
        self.inner.as_guest_agent()
    }
}

/// The tasks of a store as they end.
struct Ends(BoxStream<'static, skyloom::store::Result<WatchEvent>>);

impl Ends {
    async fn watch(store: &DynBackend) -> Result<Self, Anyhow> {
        let prefix = Prefix::parse(paths::TASKS)?;
        let now = store
            .list(&prefix, ListOptions::default().with_limit(1))
            .await?
            .revision;
        Ok(Self(
            store.watch(&prefix, WatchOptions::after(now).with_buffer(100_000)),
        ))
    }

    /// The next tasks that are done. One that ended otherwise is an error.
    async fn next(&mut self) -> Result<Vec<TaskId>, Anyhow> {
        loop {
            let changes = match self.0.next().await.ok_or("the watch of tasks ended")?? {
                WatchEvent::Commit { changes, .. } => changes,
                WatchEvent::Progress(_) => continue,
                WatchEvent::Gap { floor } => return Err(format!("a gap below {floor}").into()),
            };
            let mut done = Vec::new();
            for change in changes {
                let Change::Put(kv) = change else { continue };
                let task: Task = kv.value.parse()?;
                match task.state {
                    TaskState::Done => done.push(task.id),
                    state if state.ended() => {
                        return Err(format!(
                            "task {} of {} ended {state:?}: {:?}",
                            task.id, task.flow, task.reason
                        )
                        .into());
                    }
                    _ => {}
                }
            }
            if !done.is_empty() {
                return Ok(done);
            }
        }
    }

    async fn until_done(&mut self, id: TaskId) -> Result<(), Anyhow> {
        while !self.next().await?.contains(&id) {}
        Ok(())
    }
}

/// A cloud under measurement.
pub(crate) struct Bench {
    cloud: Arc<Cloud>,
    admin: Caller,
    store: DynBackend,
    clock: SystemClock,
    starts: UnboundedReceiver<(ServerId, Duration)>,
    ends: Ends,
    count: usize,
    shutdown: CancellationToken,
    running: JoinSet<Result<(), Anyhow>>,
}

impl Bench {
    /// A cloud in `store` with so many large hosts and one image, warmed up by a first server.
    pub(crate) async fn open(
        store: DynBackend,
        dir: &Path,
        hosts: usize,
        clock: SystemClock,
    ) -> Result<Self, Anyhow> {
        let (sender, starts) = mpsc::unbounded_channel();
        let local = open_cloud(store.clone(), dir, hosts, clock, sender).await?;
        let (cloud, admin) = (local.cloud(), local.admin());
        let shutdown = CancellationToken::new();
        let mut running = JoinSet::new();
        let token = shutdown.clone();
        running.spawn(async move { Ok(local.run(token).await?) });
        let mut bench = Self {
            cloud,
            admin,
            clock,
            starts,
            ends: Ends::watch(&store).await?,
            store,
            count: 0,
            shutdown,
            running,
        };
        import(&bench.cloud, &bench.admin, &bench.store).await?;
        bench.one_by_one(20).await?;
        Ok(bench)
    }

    fn request(&mut self) -> CreateServer {
        self.count += 1;
        CreateServer::new(format!("figure-{}", self.count), "figures", "m1.tiny")
    }

    /// Creates servers one after the other, each when the one before is done. From the facade's answer to the start.
    pub(crate) async fn one_by_one(&mut self, servers: usize) -> Result<Samples, Anyhow> {
        let meter = Meter::start(self.clock)?;
        let mut took = Vec::with_capacity(servers);
        for _ in 0..servers {
            let request = self.request();
            let accepted = self.cloud.create_server(&self.admin, request).await?;
            let answered = self.clock.monotonic();
            let (id, at) = self.starts.recv().await.ok_or("the hosts are gone")?;
            if id != accepted.server.id() {
                return Err("another server was started".into());
            }
            took.push(at.saturating_sub(answered));
            self.ends.until_done(accepted.task.id).await?;
        }
        Ok(Samples::new(took, meter.stop()?))
    }

    /// Creates servers from so many callers at once. The rate counts to the last task's end.
    pub(crate) async fn burst(&mut self, callers: usize, servers: usize) -> Result<Samples, Anyhow> {
        let requests: Vec<CreateServer> = (0..servers).map(|_| self.request()).collect();
        let meter = Meter::start(self.clock)?;
        let (cloud, admin, clock) = (&self.cloud, &self.admin, self.clock);
        let mut accepted: Vec<(ServerAccepted, Duration)> = Vec::with_capacity(servers);
        let mut creates = stream::iter(requests)
            .map(|request| async move {
                let answer = cloud.create_server(admin, request).await?;
                Ok::<_, Anyhow>((answer, clock.monotonic()))
            })
            .buffer_unordered(callers);
        while let Some(answer) = creates.next().await {
            accepted.push(answer?);
        }
        drop(creates);
        let mut done = 0;
        while done < servers {
            done += self.ends.next().await?.len();
        }
        let cost = meter.stop()?;
        let accepted: HashMap<ServerId, Duration> =
            accepted.into_iter().map(|(a, at)| (a.server.id(), at)).collect();
        let mut took = Vec::with_capacity(servers);
        for _ in 0..servers {
            let (id, at) = self.starts.recv().await.ok_or("the hosts are gone")?;
            let answered = accepted.get(&id).ok_or("an unknown server")?;
            took.push(at.saturating_sub(*answered));
        }
        Ok(Samples::new(took, cost))
    }

    /// The store's revision: commits so far.
    pub(crate) async fn revision(&self) -> Result<Revision, Anyhow> {
        Ok(self
            .store
            .list(
                &Prefix::parse(paths::TASKS)?,
                ListOptions::default().with_limit(1),
            )
            .await?
            .revision)
    }

    pub(crate) async fn close(mut self) -> Result<(), Anyhow> {
        self.shutdown.cancel();
        while let Some(ended) = self.running.join_next().await {
            ended??;
        }
        Ok(())
    }
}

/// Puts the image there that all servers are made from.
pub(crate) async fn import(cloud: &Cloud, admin: &Caller, store: &DynBackend) -> Result<(), Anyhow> {
    let mut ends = Ends::watch(store).await?;
    let request = CreateImage::new("figures", DiskFormat::Raw);
    let image = cloud.create_image(admin, request).await?.image;
    let content = stream::once(async { Ok(vec![0; 1 << 20].into()) }).boxed();
    let accepted = cloud.upload_image(admin, image.id(), content, None).await?;
    let task = accepted.task.ok_or("an upload without a task")?;
    ends.until_done(task.id).await
}

/// A cloud in `store` with so many hosts that say when they start a server.
pub(crate) async fn open_cloud(
    backend: DynBackend,
    dir: &Path,
    count: usize,
    clock: SystemClock,
    starts: UnboundedSender<(ServerId, Duration)>,
) -> Result<LocalCloud, Anyhow> {
    let clock_of_cloud = Arc::new(clock);
    let mut hosts = Vec::with_capacity(count);
    for number in 1..=count {
        // What the fake remembers of its past is no part of the cloud's memory.
        let world = FakeWorld::open(FakeOptions::in_memory().forgetful())?;
        let mut facts = world.hypervisor().facts().await?;
        facts.capacity = Resources {
            vcpus: 1_000_000,
            memory_mib: 1 << 40,
            disk_gib: 1 << 40,
        };
        world.set_facts(facts);
        let noting = Noting {
            inner: world.hypervisor(),
            clock,
            starts: starts.clone(),
        };
        hosts.push(LocalHost::new(
            format!("host-{number}"),
            Arc::new(noting),
            Arc::new(world.storage()),
        ));
    }
    Ok(LocalCloud::open(LocalParts {
        backend,
        images: Arc::new(DirImageRepo::open(&dir.join("images"), 1 << 30)?),
        hosts,
        fetch: Arc::new(NoFetch),
        limits: Limits {
            allow_any_raw: true,
            ..Limits::default()
        },
        ids: Arc::new(OsIds::new(clock_of_cloud.clone())),
        clock: clock_of_cloud,
    })
    .await?)
}
