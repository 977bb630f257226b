//! What is recorded at a task's end when a guest changes at that very moment.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use skyloom_model::{Clock as _, ManualClock, PowerState, Resource as _, TaskState, VmObservation, paths};
use skyloom_store::{
    Capability, DynBackend, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases, ListOptions,
    MemoryConfig, MemoryStore, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Value, Watch, WatchEvent,
    WatchOptions, Write,
};

use crate::engine::{Engine, active_image};
use crate::world::{World, key, server};

/// A store in which something else is committed right before the next task's end.
#[derive(Debug)]
struct Late {
    inner: DynBackend,
    before_end: Mutex<Option<Txn>>,
}

#[async_trait]
impl Store for Late {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.inner.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        let ends =
            |w: &Write| matches!(w, Write::Delete(key) if key.segments().next() == Some(paths::ACTIVE));
        if txn.writes.iter().any(ends) {
            let first = self.before_end.lock().take();
            if let Some(first) = first {
                self.inner.commit(first).await?;
            }
        }
        self.inner.commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Late {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.inner.watch(prefix, options)
    }
}

#[async_trait]
impl Leases for Late {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.inner.grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.inner.renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.inner.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.inner.leases(prefix).await
    }
}

#[tokio::test]
async fn a_guest_that_ends_while_its_task_ends_is_not_called_running() {
    let clock = ManualClock::new();
    let late = Arc::new(Late {
        inner: Arc::new(MemoryStore::new(Arc::new(clock.clone()), MemoryConfig::default())),
        before_end: Mutex::default(),
    });
    let mut world = World::over(late.clone(), clock);
    let admin = world.admin().await;
    let host = world.host(&admin, "h1").await;
    let image = active_image(&world, &admin).await;
    let mut made = world
        .cloud
        .create_server(&admin, server("s", image))
        .await
        .unwrap();
    let mut engine = Engine::new(&world).await;
    for task in ["server.create", "server.start"] {
        if task == "server.start" {
            let again = world.cloud.start_server(&admin, made.server.id()).await.unwrap();
            made.task = again.task;
        }
        // Planned: from here on the order has its generation.
        engine.drive(&made.task).await;
        let planned = world.cloud.get_server(&admin, made.server.id()).await.unwrap();
        let ended = VmObservation {
            server: made.server.id(),
            project: admin.project,
            generation: planned.value.meta.generation,
            power: PowerState::Crashed,
            cause: None,
            accelerator: None,
            observed_at: world.clock.now(),
        };
        let at = key(&paths::host_vm(host, made.server.id()));
        *late.before_end.lock() = Some(Txn::new().put(at, Value::json(&ended).unwrap()));
        assert_eq!(engine.carry(&made.task).await.state, TaskState::Done);
        assert!(late.before_end.lock().is_none());
        let left = world.cloud.get_server(&admin, made.server.id()).await.unwrap();
        assert_eq!(left.value.status.power, PowerState::Crashed, "{task}");
    }
}
