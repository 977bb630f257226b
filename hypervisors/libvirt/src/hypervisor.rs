//! The [`Hypervisor`] itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use skyloom_hypervisor::{
    Capability, Console, GuestAgent, Hotplug, Hypervisor, Inspection, Migration, Pause, Recovered, Result,
    Screen, Snapshots, StopMode, Stopped, Suspend, VmEvent, VmEventKind, VmSpec,
};
use skyloom_model::{HostFacts, ServerId};
use skyloom_qemu::tasks::Tasks;
use tokio::sync::broadcast::error::RecvError;

use crate::config::LibvirtConfig;
use crate::console::Logs;
use crate::errors::{self, Fault, blocking};
use crate::facts;
use crate::hub::Hub;
use crate::lane::{Driver, Lane};
use crate::lifecycle::Core;
use crate::order::Slots;

/// Calls at a time that only look.
const LOOKS: usize = 4;
/// Calls at a time that work: as many as libvirt's daemon takes from one connection.
const WORKS: usize = 5;
/// How long closing waits for calls that are under way.
const CLOSING: Duration = Duration::from_secs(10);

/// Virtual machines on libvirt. See the crate's documentation.
#[derive(Debug)]
pub struct LibvirtHypervisor {
    pub(crate) core: Arc<Core>,
}

impl LibvirtHypervisor {
    /// Opens the connections. Guests are found by [`Hypervisor::recover`].
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](skyloom_hypervisor::ErrorKind::Unavailable) when libvirt cannot be reached,
    /// [`ErrorKind::Conflict`](skyloom_hypervisor::ErrorKind::Conflict) when another hypervisor uses the directory.
    pub async fn open(config: LibvirtConfig) -> Result<Self> {
        let (dir, owner) = (config.dir.clone(), config.daemon_user);
        let logs = blocking(move || Logs::open(&dir, owner)).await;
        let logs = Arc::new(
            logs.map_err(|e| errors::file("open hypervisor", e).with("directory", config.dir.display()))?,
        );
        let hub = Arc::new(Hub::new(config.event_buffer));
        let fail = |fault: Fault| fault.plain("open hypervisor").with("uri", &config.uri);
        let (look, driver) = Lane::open(&config, "libvirt-look", LOOKS, Some(Arc::clone(&hub)))
            .await
            .map_err(fail)?;
        let (work, _) = match Lane::open(&config, "libvirt-work", WORKS, None).await {
            Ok(work) => work,
            Err(fault) => {
                look.shut();
                return Err(fail(fault));
            }
        };
        let confine = !config.uri.contains("/session");
        let core = Arc::new(Core {
            confine,
            driver,
            hub,
            look,
            work,
            logs,
            slots: Slots::default(),
            tasks: Tasks::new(),
            config,
        });
        core.tasks.spawn(Arc::clone(&core.look).keep());
        core.tasks.spawn(Arc::clone(&core.work).keep());
        core.tasks.spawn(Arc::clone(&core).note_crashes());
        let (bytes, every) = (core.config.log_bytes, core.config.timeouts.log_check);
        core.tasks
            .spawn(Arc::clone(&core.logs).keep_bounded(bytes, every));
        Ok(Self { core })
    }

    /// Ends all tasks and connections, waits for that and gives the directory free. Guests run on; verbs answer
    /// [`ErrorKind::Unavailable`](skyloom_hypervisor::ErrorKind::Unavailable) from now on.
    pub async fn close(&self) {
        self.core.tasks.close().await;
        for lane in [&self.core.look, &self.core.work] {
            lane.shut();
            lane.ended(CLOSING).await;
        }
        self.core.logs.unlock();
    }

    /// Why libvirt cannot be reached now; `None` when it can.
    #[must_use]
    pub fn unreachable(&self) -> Option<String> {
        self.core.look.down().or_else(|| self.core.work.down())
    }

    pub(crate) async fn finish<T, F>(
        &self,
        operation: &'static str,
        work: impl FnOnce(Arc<Core>) -> F + Send,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let work = work(Arc::clone(&self.core));
        self.core.tasks.finish(operation, work).await
    }
}

impl Drop for LibvirtHypervisor {
    fn drop(&mut self) {
        self.core.tasks.abort();
        self.core.look.shut();
        self.core.work.shut();
        self.core.logs.unlock();
    }
}

#[async_trait]
impl Hypervisor for LibvirtHypervisor {
    fn capability(&self) -> Capability {
        match self.core.driver {
            Driver::Qemu if self.core.config.migration.is_some() => Capability::full().with_migration(),
            Driver::Qemu => Capability::full(),
            Driver::Test => {
                let mut capability = Capability::basic();
                // What the test driver runs lives in this process, and writes nowhere.
                capability.guests_outlive_agent = false;
                capability.durable_generation = false;
                capability.console_log = false;
                capability
            }
        }
    }

    async fn facts(&self) -> Result<HostFacts> {
        let (driver, dir) = (self.core.driver, self.core.logs.dir().to_owned());
        let limit = self.core.config.timeouts.list;
        let measured = self
            .core
            .look
            .call(limit, (), move |conn| facts::measure(conn, driver, &dir));
        measured.await.map_err(|fault| fault.plain("measure the host"))
    }

    async fn define(&self, spec: &VmSpec) -> Result<()> {
        let spec = spec.clone();
        self.finish("define", |core| async move { core.define(&spec).await })
            .await
    }

    async fn start(&self, id: ServerId, generation: u64) -> Result<()> {
        self.finish("start", |core| async move { core.start(id, generation).await })
            .await
    }

    async fn stop(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopped> {
        self.finish("stop", move |core| async move {
            core.stop(id, generation, mode).await
        })
        .await
    }

    async fn undefine(&self, id: ServerId, generation: u64) -> Result<()> {
        self.finish(
            "undefine",
            |core| async move { core.undefine(id, generation).await },
        )
        .await
    }

    async fn inspect(&self, id: ServerId) -> Result<Inspection> {
        Ok(self.core.inspect(id).await)
    }

    async fn recover(&self) -> Result<Vec<Recovered>> {
        self.finish("recover", |core| async move { core.recover().await })
            .await
    }

    async fn list(&self) -> Result<Vec<Recovered>> {
        let found = self.core.list("list").await?;
        Ok(found.into_iter().map(|(found, _)| found).collect())
    }

    fn events(&self) -> BoxStream<'static, VmEvent> {
        stream::unfold(self.core.hub.listen(), |mut events| async {
            match events.recv().await {
                Ok(event) => Some((event, events)),
                Err(RecvError::Lagged(_)) => {
                    let kind = VmEventKind::Lost;
                    Some((VmEvent { id: None, kind }, events))
                }
                Err(RecvError::Closed) => None,
            }
        })
        .boxed()
    }

    fn as_console(&self) -> Option<&dyn Console> {
        (self.core.driver == Driver::Qemu).then_some(self)
    }

    fn as_pause(&self) -> Option<&dyn Pause> {
        (self.core.driver == Driver::Qemu).then_some(self)
    }

    fn as_suspend(&self) -> Option<&dyn Suspend> {
        (self.core.driver == Driver::Qemu).then_some(self)
    }

    fn as_snapshots(&self) -> Option<&dyn Snapshots> {
        (self.core.driver == Driver::Qemu).then_some(self)
    }

    fn as_hotplug(&self) -> Option<&dyn Hotplug> {
        (self.core.driver == Driver::Qemu).then_some(self)
    }

    fn as_migration(&self) -> Option<&dyn Migration> {
        (self.core.driver == Driver::Qemu && self.core.config.migration.is_some()).then_some(self)
    }

    fn as_screen(&self) -> Option<&dyn Screen> {
        (self.core.driver == Driver::Qemu).then_some(self)
    }

    fn as_guest_agent(&self) -> Option<&dyn GuestAgent> {
        (self.core.driver == Driver::Qemu).then_some(self)
    }
}

#[async_trait]
impl Console for LibvirtHypervisor {
    async fn console_tail(&self, id: ServerId, max_bytes: usize) -> Result<Vec<u8>> {
        let logs = Arc::clone(&self.core.logs);
        let tail = blocking(move || logs.tail(id, max_bytes)).await;
        let tail = tail.map_err(|e| errors::file("read console", e).with("server", id))?;
        tail.ok_or_else(|| Fault::Absent.of("read console", id))
    }
}
