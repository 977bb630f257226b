//! The fake hypervisor: verbs on the world's records.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use skyloom_model::{HostFacts, PowerState, ServerId};
use tokio::sync::broadcast::error::RecvError;

use super::history::EffectKind;
use super::passage::After;
use super::script::FaultPoint;
use super::{FakeDomain, FakeWorld};
use crate::{
    Capability, Console, Error, ErrorKind, Hypervisor, Inspection, Recovered, Result, StopMode, Stopped,
    VmEvent, VmEventKind, VmSpec,
};

/// A hypervisor whose guests are records of a [`FakeWorld`]. Dropping it changes nothing there.
#[derive(Debug)]
pub struct FakeHypervisor {
    world: FakeWorld,
}

impl FakeHypervisor {
    pub(super) fn new(world: FakeWorld) -> Self {
        Self { world }
    }
    /// The host that it works on.
    #[must_use]
    pub fn world(&self) -> &FakeWorld {
        &self.world
    }
}

/// The domain is of a newer generation than the order.
fn stale(point: FaultPoint, domain: &FakeDomain, ordered: u64) -> Error {
    Error::new(ErrorKind::Stale, point.operation())
        .with("server", domain.spec.id)
        .with("ordered", ordered)
        .with("domain", domain.spec.generation)
}

fn cannot_tell() -> Inspection {
    Inspection::CannotTell {
        reason: "planned fault".into(),
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    fn capability(&self) -> Capability {
        self.world.capability_now()
    }

    async fn facts(&self) -> Result<HostFacts> {
        let after = self.world.enter(FaultPoint::Facts, None).await?;
        self.world
            .leave(after, FaultPoint::Facts, self.world.facts_now())
            .await
    }

    async fn define(&self, spec: &VmSpec) -> Result<()> {
        let after = self.world.enter(FaultPoint::Define, Some(spec.id)).await?;
        self.world.book(spec.id, |book, note| {
            match &mut book.domain {
                Some(domain) if domain.spec.generation > spec.generation => {
                    return Err(stale(FaultPoint::Define, domain, spec.generation));
                }
                Some(domain) if domain.spec.generation == spec.generation => {}
                Some(domain) => {
                    domain.spec = spec.clone();
                    note.effect(spec.generation, EffectKind::Redefined);
                }
                None => {
                    let spec = spec.clone();
                    let generation = spec.generation;
                    book.domain = Some(FakeDomain {
                        spec,
                        power: PowerState::Stopped,
                        boots: 0,
                        console: String::new(),
                    });
                    note.effect(generation, EffectKind::Defined);
                }
            }
            Ok(())
        })??;
        self.world.leave(after, FaultPoint::Define, ()).await
    }

    async fn start(&self, id: ServerId, generation: u64) -> Result<()> {
        let after = self.world.enter(FaultPoint::Start, Some(id)).await?;
        let line = self.world.ready_line_now()?;
        let started = self.world.book(id, |book, note| {
            let Some(domain) = &mut book.domain else {
                return Err(Error::new(ErrorKind::NotFound, FaultPoint::Start.operation()).with("server", id));
            };
            if domain.spec.generation != generation {
                return Err(stale(FaultPoint::Start, domain, generation));
            }
            if domain.power == PowerState::Running {
                return Ok(false);
            }
            domain.boot(line);
            note.effect(generation, EffectKind::Started);
            Ok(true)
        })??;
        if started {
            self.world.tell(id, PowerState::Running, "host-request")?;
        }
        self.world.leave(after, FaultPoint::Start, ()).await
    }

    async fn stop(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopped> {
        let after = self.world.enter(FaultPoint::Stop, Some(id)).await?;
        let asks = matches!(mode, StopMode::Graceful { .. }) && self.world.capability_now().graceful_stop;
        let ignores = self.world.ignores_graceful(id)?;
        let stopped = self.world.book(id, |book, note| {
            let Some(domain) = &mut book.domain else {
                return Ok(Stopped::AlreadyOff);
            };
            let carried = domain.spec.generation;
            if carried > generation {
                return Err(stale(FaultPoint::Stop, domain, generation));
            }
            if !domain.power.may_execute() {
                return Ok(Stopped::AlreadyOff);
            }
            domain.power = PowerState::Stopped;
            let how = if asks && !ignores {
                Stopped::Gracefully
            } else {
                Stopped::Forced
            };
            if asks {
                note.effect(carried, EffectKind::Asked);
            }
            note.effect(carried, EffectKind::stopped(how));
            Ok(how)
        })??;
        match stopped {
            Stopped::AlreadyOff => {}
            Stopped::Gracefully => self.world.tell(id, PowerState::Stopped, "guest-shutdown")?,
            Stopped::Forced => self.world.tell(id, PowerState::Stopped, "host-request")?,
        }
        self.world.leave(after, FaultPoint::Stop, stopped).await
    }

    async fn undefine(&self, id: ServerId, generation: u64) -> Result<()> {
        let after = self.world.enter(FaultPoint::Undefine, Some(id)).await?;
        let ran = self.world.book(id, |book, note| {
            let Some(domain) = &book.domain else {
                return Ok(false);
            };
            let carried = domain.spec.generation;
            if carried > generation {
                return Err(stale(FaultPoint::Undefine, domain, generation));
            }
            let ran = domain.power.may_execute();
            book.domain = None;
            note.effect(carried, EffectKind::Undefined);
            Ok(ran)
        })??;
        if ran {
            self.world.tell(id, PowerState::Stopped, "host-request")?;
        }
        self.world.leave(after, FaultPoint::Undefine, ()).await
    }

    async fn inspect(&self, id: ServerId) -> Result<Inspection> {
        let after = self.world.enter(FaultPoint::Inspect, Some(id)).await?;
        if after == After::CannotTell || self.world.nobody_can_tell(id)? {
            return Ok(cannot_tell());
        }
        let seen = match self.world.domain(id)? {
            Some(domain) => found(&domain),
            None => Inspection::Absent,
        };
        self.world.leave(after, FaultPoint::Inspect, seen).await
    }

    async fn recover(&self) -> Result<Vec<Recovered>> {
        let after = self.world.enter(FaultPoint::Recover, None).await?;
        let mut all = Vec::new();
        for domain in self.world.domains()? {
            let id = domain.spec.id;
            let nobody = after == After::CannotTell || self.world.nobody_can_tell(id)?;
            all.push(Recovered {
                id,
                inspection: if nobody { cannot_tell() } else { found(&domain) },
            });
        }
        self.world.leave(after, FaultPoint::Recover, all).await
    }

    fn events(&self) -> BoxStream<'static, VmEvent> {
        stream::unfold(self.world.subscribe(), |mut events| async move {
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
        self.world
            .capability_now()
            .console_log
            .then_some(self as &dyn Console)
    }
}

fn found(domain: &FakeDomain) -> Inspection {
    Inspection::Found {
        generation: domain.spec.generation,
        power: domain.power,
    }
}

#[async_trait]
impl Console for FakeHypervisor {
    async fn console_tail(&self, id: ServerId, max_bytes: usize) -> Result<Vec<u8>> {
        let after = self.world.enter(FaultPoint::Console, Some(id)).await?;
        let Some(domain) = self.world.domain(id)? else {
            return Err(Error::new(ErrorKind::NotFound, FaultPoint::Console.operation()).with("server", id));
        };
        let text = domain.console.as_bytes();
        let tail = text[text.len().saturating_sub(max_bytes)..].to_vec();
        self.world.leave(after, FaultPoint::Console, tail).await
    }
}
