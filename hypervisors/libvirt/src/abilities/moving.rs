//! Guests that go to another host. Who watches a stream holds the guest when little is left; see `moving.rs`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skyloom_hypervisor::{Incoming, Migrating, Migration, Result, Stream, VmSpec};
use skyloom_model::{ServerId, report};

use crate::LibvirtHypervisor;
use crate::config::Moving;
use crate::errors::Fault;
use crate::lifecycle::Core;
use crate::moving::{self, Passes};
use crate::xml;

/// How often a stream is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[async_trait]
impl Migration for LibvirtHypervisor {
    async fn receive(&self, spec: &VmSpec) -> Result<Incoming> {
        let spec = spec.clone();
        self.finish("receive", |core| async move { core.receive(spec).await })
            .await
    }

    async fn send(&self, id: ServerId, generation: u64, address: &str) -> Result<()> {
        let address = address.to_owned();
        self.finish("send", move |core| async move {
            core.send(id, generation, address).await
        })
        .await
    }

    async fn migration(&self, id: ServerId) -> Result<Migrating> {
        let limit = self.core.config.timeouts.inspect;
        let looked = self.core.look.call(limit, (), move |conn| moving::look(conn, id));
        looked.await.map_err(|fault| fault.of("look at migration", id))
    }

    async fn cancel(&self, id: ServerId, generation: u64) -> Result<()> {
        self.finish("cancel", move |core| async move {
            let cancelled = move |conn: &_| Ok(moving::cancel(conn, id, generation)?.then_some(()));
            core.until("cancel", id, cancelled).await
        })
        .await
    }

    async fn force(&self, id: ServerId, generation: u64, downtime: Duration) -> Result<()> {
        self.finish("force", move |core| async move {
            let slot = core.slots.get(id);
            let hold = (slot.op().await, slot.record().await);
            core.step("force", id, hold, move |conn| {
                moving::force(conn, id, generation, downtime)
            })
            .await
        })
        .await
    }

    async fn hand_over(&self, id: ServerId, generation: u64) -> Result<Stream> {
        self.finish("hand over", move |core| async move {
            core.until("hand over", id, move |conn| {
                moving::hand_over(conn, id, generation)
            })
            .await
        })
        .await
    }

    async fn take_over(&self, id: ServerId, generation: u64) -> Result<()> {
        self.finish("take over", move |core| async move {
            let slot = core.slots.get(id);
            let (hold, host) = ((slot.op().await, slot.record().await), core.surroundings(id));
            let limit = core.config.timeouts.start;
            core.long("take over", id, limit, hold, move |conn| {
                moving::take_over(conn, id, generation, &host(conn))
            })
            .await
        })
        .await
    }
}

impl Core {
    /// What is on its way goes on, though no more may.
    fn moving(&self) -> Moving {
        let alone = || Moving::new(Ipv4Addr::LOCALHOST.into());
        self.config.migration.unwrap_or_else(alone)
    }

    async fn receive(self: &Arc<Self>, spec: VmSpec) -> Result<Incoming> {
        xml::check(&spec)?;
        let id = spec.id;
        let slot = self.slots.get(id);
        let hold = (slot.op().await, slot.record().await);
        self.logs.prepare(id).await?;
        let (host, listen) = (self.surroundings(id), self.moving().listen);
        let limit = self.config.timeouts.start;
        let address = self.long("receive", id, limit, hold, move |conn| {
            moving::receive(conn, &spec, &host(conn), listen)
        });
        Ok(Incoming {
            address: address.await?,
        })
    }

    async fn send(self: &Arc<Self>, id: ServerId, generation: u64, address: String) -> Result<()> {
        let slot = self.slots.get(id);
        let hold = (slot.op().await, slot.record().await);
        let bytes = self.moving().bytes_per_second;
        let sent = self.step("send", id, hold, move |conn| {
            moving::send(conn, id, generation, &address, bytes)
        });
        sent.await?;
        self.until("send", id, move |conn| moving::begun(conn, id))
            .await?;
        self.tasks.spawn(Arc::clone(self).watch(id));
        Ok(())
    }

    /// Takes the step again and again, each time under the domain's locks, until it has an answer.
    async fn until<T: Send + 'static>(
        &self,
        operation: &'static str,
        id: ServerId,
        step: impl Fn(&virt::connect::Connect) -> std::result::Result<Option<T>, Fault> + Clone + Send + 'static,
    ) -> Result<T> {
        let slot = self.slots.get(id);
        let op = slot.op().await;
        let limit = self.config.timeouts.memory;
        let ended = async {
            loop {
                let hold = (slot.record().await, Arc::clone(&op));
                let limit = self.config.timeouts.force;
                if let Some(answer) = self.long(operation, id, limit, hold, step.clone()).await? {
                    return Ok(answer);
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let late = |_| Err(Fault::Late(limit).of(operation, id));
        tokio::time::timeout(limit, ended).await.unwrap_or_else(late)
    }

    /// Watches a guest on its way until it is ready, or stays.
    pub(crate) async fn watch(self: Arc<Self>, id: ServerId) {
        let mut passes = Passes::default();
        let (bytes, downtime) = (self.moving().bytes_per_second, self.moving().downtime);
        loop {
            let slot = self.slots.get(id);
            let hold = (slot.op().await, slot.record().await);
            let watched = self.step("watch", id, hold, move |conn| {
                moving::watch(conn, id, passes, bytes, downtime)
            });
            match watched.await {
                Ok(Some(seen)) => passes = seen,
                Ok(None) => return,
                Err(e) => tracing::debug!(server = %id, error = %report(&e), "a migration cannot be watched"),
            }
            drop(slot);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
