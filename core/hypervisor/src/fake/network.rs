//! The fake network: ports are records in their server's book.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use skyloom_model::{NicKind, PortId, ServerId};

use super::FakeWorld;
use super::history::EffectKind;
use super::script::FaultPoint;
use crate::{Error, ErrorKind, HostNetwork, NetworkCapability, NicDevice, PortThere, PortWiring, Result};

/// The network of a [`FakeWorld`].
#[derive(Debug)]
pub struct FakeNetwork {
    world: FakeWorld,
}

/// A port's record. User data is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FakePort(PortWiring);

impl FakeNetwork {
    pub(super) fn new(world: FakeWorld) -> Self {
        Self { world }
    }
    /// The host that it belongs to.
    #[must_use]
    pub fn world(&self) -> &FakeWorld {
        &self.world
    }
}

fn error(kind: ErrorKind, point: FaultPoint, port: PortId) -> Error {
    Error::new(kind, point.operation()).with("port", port)
}

fn stale(point: FaultPoint, port: PortId, order: u64, there: u64) -> Error {
    error(ErrorKind::Stale, point, port)
        .with("order", order)
        .with("there", there)
}

impl FakeWorld {
    /// The wiring of a port, if it is there; without user data.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn wiring(&self, port: PortId) -> Result<Option<PortWiring>> {
        let mut found = None;
        self.0.ledger.each(|_, book| {
            if let Some(there) = book.ports.get(&port) {
                found = Some(there.0.clone());
            }
        })?;
        Ok(found)
    }

    fn wirings(&self) -> Result<Vec<PortWiring>> {
        let mut all = Vec::new();
        self.0
            .ledger
            .each(|_, book| all.extend(book.ports.values().map(|p| p.0.clone())))?;
        all.sort_unstable_by_key(|w| w.port);
        Ok(all)
    }

    fn ensure_port_now(&self, wiring: &PortWiring) -> Result<NicDevice> {
        let point = FaultPoint::EnsurePort;
        wiring.check()?;
        for other in self.wirings()? {
            let same = other.port == wiring.port;
            if same && other.generation > wiring.generation {
                return Err(stale(point, wiring.port, wiring.generation, other.generation));
            }
            let moved = same && (other.network.id != wiring.network.id || other.server != wiring.server);
            let taken = !same
                && other.network.id == wiring.network.id
                && (other.mac == wiring.mac || other.addresses.iter().any(|a| wiring.addresses.contains(a)));
            if moved || taken {
                return Err(error(ErrorKind::Conflict, point, wiring.port).with("other", other.port));
            }
        }
        let mut kept = wiring.clone();
        kept.metadata.user_data = None;
        self.0.ledger.book(wiring.server, |book, note| {
            let kind = match book.ports.insert(kept.port, FakePort(kept.clone())) {
                None => EffectKind::PortWired { port: kept.port },
                Some(there) if there.0 != kept => EffectKind::PortRewired { port: kept.port },
                Some(_) => return,
            };
            note.effect(0, kind);
        })?;
        Ok(NicDevice {
            kind: NicKind::Tap,
            device: Some(format!("fake-{}", wiring.port)),
        })
    }

    fn remove_port_now(&self, port: PortId, generation: u64) -> Result<()> {
        let Some(there) = self.wiring(port)? else {
            return Ok(());
        };
        if there.generation > generation {
            return Err(stale(FaultPoint::RemovePort, port, generation, there.generation));
        }
        self.0.ledger.book(there.server, |book, note| {
            if book.ports.remove(&port).is_some() {
                note.effect(0, EffectKind::PortRemoved { port });
            }
        })
    }
}

#[async_trait]
impl HostNetwork for FakeNetwork {
    fn capability(&self) -> NetworkCapability {
        NetworkCapability {
            dhcp: true,
            dhcp_v6: true,
            metadata: true,
            ipv6: true,
            ..NetworkCapability::bare(NicKind::Tap)
        }
    }

    async fn ensure_port(&self, wiring: &PortWiring) -> Result<NicDevice> {
        let wanted = wiring.clone();
        let ensure = move |w: &FakeWorld, _| w.ensure_port_now(&wanted);
        self.world
            .perform(FaultPoint::EnsurePort, Some(wiring.server), ensure)
            .await
    }

    async fn remove_port(&self, port: PortId, generation: u64) -> Result<()> {
        let server: Option<ServerId> = self.world.wiring(port)?.map(|w| w.server);
        let remove = move |w: &FakeWorld, _| w.remove_port_now(port, generation);
        self.world.perform(FaultPoint::RemovePort, server, remove).await
    }

    async fn ports(&self) -> Result<Vec<PortThere>> {
        let there = |w: PortWiring| PortThere {
            port: w.port,
            server: w.server,
            network: w.network.id,
            generation: w.generation,
            complete: true,
        };
        let ports = |w: &FakeWorld| Ok(w.wirings()?.into_iter().map(there).collect());
        self.world.look(FaultPoint::Ports, None, ports).await
    }

    async fn recover(&self) -> Result<()> {
        self.world
            .look(FaultPoint::RecoverNetwork, None, |_| Ok(()))
            .await
    }
}
