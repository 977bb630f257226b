//! The [`Hypervisor`] itself: verbs run to their end in tasks of their own.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use rustix::fs::FlockOperation;
use skyloom_hypervisor::{
    Capability, Console, Error, ErrorKind, GuestAgent, Hotplug, Hypervisor, Inspection, Migration, Pause,
    Recovered, Result, Screen, Snapshots, StopMode, Stopped, Suspend, VmEvent, VmEventKind, VmSpec,
};
use skyloom_model::{HostFacts, ServerId};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::abilities::passage;
use crate::config::QmpConfig;
use crate::core::{Core, load};
use crate::errors::{self, blocking};
use crate::facts;
use crate::tasks::Tasks;
use crate::vm::{Env, Vm};

/// Domains that are taken over or looked at, at a time.
const TAKE_OVER: usize = 16;

/// Virtual machines on QEMU. See the crate's documentation.
#[derive(Debug)]
pub struct QmpHypervisor {
    pub(crate) core: Arc<Core>,
    /// The directory, locked: one hypervisor at a time.
    lock: File,
}

impl QmpHypervisor {
    /// Opens the directory and reads what is there. Guests are found and taken over by [`Hypervisor::recover`].
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when another hypervisor uses the directory, [`ErrorKind::NotFound`] when there is no
    /// QEMU, [`ErrorKind::Invalid`] when no host can be told where guests come in.
    pub async fn open(config: QmpConfig) -> Result<Self> {
        let qemu_version = facts::qemu_version(&config.qemu).await?;
        let events = broadcast::Sender::new(config.event_buffer.max(1));
        let env = Arc::new(Env { config, events });
        let loading = Arc::clone(&env);
        let fail = |e: std::io::Error| {
            let kind = if e.kind() == std::io::ErrorKind::WouldBlock {
                ErrorKind::Conflict
            } else {
                errors::io_kind(&e)
            };
            Error::new(kind, "open hypervisor")
                .with("directory", env.config.dir.display())
                .because(e)
        };
        let (lock, vms) = blocking(move || load(&loading)).await.map_err(fail)?;
        let core = Core {
            env,
            qemu_version,
            vms: parking_lot::Mutex::new(vms),
            creating: tokio::sync::Mutex::new(()),
            tasks: Arc::new(Tasks::new()),
            removed: AtomicU64::new(0),
        };
        let core = Arc::new(core);
        if let Some(migration) = core.env.config.migration {
            let listener = passage::listen(migration.listen, core.env.config.timeouts.connect).await?;
            core.tasks.spawn(passage::serve(Arc::clone(&core), listener));
        }
        Ok(Self { core, lock })
    }

    /// Ends all tasks, waits for that and gives the directory free. Guests run on; verbs answer
    /// [`ErrorKind::Unavailable`] from now on.
    pub async fn close(&self) {
        self.core.tasks.close().await;
        if let Err(e) = rustix::fs::flock(&self.lock, FlockOperation::Unlock) {
            tracing::warn!(error = %e, "cannot give the directory free");
        }
    }
}

impl Drop for QmpHypervisor {
    fn drop(&mut self) {
        self.core.tasks.abort();
    }
}

#[async_trait]
impl Hypervisor for QmpHypervisor {
    fn capability(&self) -> Capability {
        match self.core.env.config.migration {
            Some(_) => Capability::full().with_migration(),
            None => Capability::full(),
        }
    }

    async fn facts(&self) -> Result<HostFacts> {
        let (dir, version) = (self.core.env.config.dir.clone(), self.core.qemu_version.clone());
        let measured = blocking(move || facts::measure(&dir, version)).await;
        measured.map_err(|e| Error::new(ErrorKind::Unavailable, "measure the host").because(e))
    }

    async fn define(&self, spec: &VmSpec) -> Result<()> {
        let (core, spec) = (Arc::clone(&self.core), spec.clone());
        self.core
            .tasks
            .finish("define", async move { core.define(&spec).await })
            .await
    }

    async fn start(&self, id: ServerId, generation: u64) -> Result<()> {
        let core = Arc::clone(&self.core);
        self.core
            .tasks
            .finish("start", async move { core.start(id, generation).await })
            .await
    }

    async fn stop(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopped> {
        let core = Arc::clone(&self.core);
        self.core
            .tasks
            .finish("stop", async move { core.stop(id, generation, mode).await })
            .await
    }

    async fn undefine(&self, id: ServerId, generation: u64) -> Result<()> {
        let core = Arc::clone(&self.core);
        self.core
            .tasks
            .finish("undefine", async move { core.undefine(id, generation).await })
            .await
    }

    async fn inspect(&self, id: ServerId) -> Result<Inspection> {
        Ok(self.core.inspect(id).await)
    }

    async fn recover(&self) -> Result<Vec<Recovered>> {
        let core = Arc::clone(&self.core);
        let work = async move {
            let vms: Vec<Arc<Vm>> = core.vms.lock().values().cloned().collect();
            let each = stream::iter(vms).map(|vm| {
                let core = Arc::clone(&core);
                async move { core.take_over(&vm).await }
            });
            let mut found: Vec<Recovered> = each
                .buffer_unordered(TAKE_OVER)
                .filter_map(async |r| r)
                .collect()
                .await;
            found.sort_by_key(|r| r.id);
            Ok(found)
        };
        self.core.tasks.finish("recover", work).await
    }

    async fn list(&self) -> Result<Vec<Recovered>> {
        let ids: Vec<ServerId> = self.core.vms.lock().keys().copied().collect();
        let each = stream::iter(ids).map(async |id| Recovered {
            id,
            inspection: self.core.inspect(id).await,
        });
        let mut found: Vec<Recovered> = each
            .buffer_unordered(TAKE_OVER)
            .filter(|r| std::future::ready(r.inspection != Inspection::Absent))
            .collect()
            .await;
        found.sort_unstable_by_key(|r| r.id);
        Ok(found)
    }

    fn events(&self) -> BoxStream<'static, VmEvent> {
        let events = self.core.env.events.subscribe();
        stream::unfold(events, |mut events| async {
            match events.recv().await {
                Ok(event) => Some((event, events)),
                Err(RecvError::Lagged(_)) => Some((
                    VmEvent {
                        id: None,
                        kind: VmEventKind::Lost,
                    },
                    events,
                )),
                Err(RecvError::Closed) => None,
            }
        })
        .boxed()
    }

    fn as_console(&self) -> Option<&dyn Console> {
        Some(self)
    }
    fn as_pause(&self) -> Option<&dyn Pause> {
        Some(self)
    }
    fn as_suspend(&self) -> Option<&dyn Suspend> {
        Some(self)
    }
    fn as_snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }
    fn as_hotplug(&self) -> Option<&dyn Hotplug> {
        Some(self)
    }
    fn as_migration(&self) -> Option<&dyn Migration> {
        self.core.env.config.migration.is_some().then_some(self)
    }
    fn as_screen(&self) -> Option<&dyn Screen> {
        Some(self)
    }
    fn as_guest_agent(&self) -> Option<&dyn GuestAgent> {
        Some(self)
    }
}

#[async_trait]
impl Console for QmpHypervisor {
    async fn console_tail(&self, id: ServerId, max_bytes: usize) -> Result<Vec<u8>> {
        let missing = || Error::new(ErrorKind::NotFound, "read console").with("server", id);
        let vm = self.core.get(id).ok_or_else(missing)?;
        let dir = Arc::clone(&vm.dir);
        blocking(move || dir.serial_tail(max_bytes))
            .await
            .map_err(|e| errors::file("read console", id, e))
    }
}
