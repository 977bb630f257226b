//! The fake hypervisor: verbs on the world's records.

use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use skyloom_model::{HostFacts, ServerId};
use tokio::sync::broadcast::error::RecvError;

use super::FakeWorld;
use super::domains::Stopping;
use super::late::Target;
use super::script::FaultPoint;
use crate::{
    Capability, Console, Error, ErrorKind, Hypervisor, Inspection, Recovered, Result, StopMode, Stopped,
    VmEvent, VmEventKind, VmSpec,
};

/// How long `inspect` waits for a late operation before it says that it cannot tell.
const INSPECT_PATIENCE: Duration = Duration::from_secs(2);

/// A hypervisor whose guests are records of a [`FakeWorld`]. Dropping it changes nothing there.
#[derive(Debug)]
pub struct FakeHypervisor {
    pub(super) world: FakeWorld,
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

    /// What is known of one domain without waiting.
    fn glance(&self, id: ServerId) -> Result<Inspection> {
        let cannot_tell = |reason: &str| Inspection::CannotTell {
            reason: reason.to_owned(),
        };
        let world = &self.world;
        if world.0.ledger.script(|s| (false, s.cannot_tell.contains(&id)))? {
            return Ok(cannot_tell("planned fault"));
        }
        if world.is_hidden(Target::Server(id)) {
            return Ok(cannot_tell("an operation is under way"));
        }
        world.0.ledger.read(id, |book| match &book.domain {
            Some(domain) => Inspection::Found {
                generation: domain.spec.generation,
                power: domain.power,
            },
            None => Inspection::Absent,
        })
    }

    async fn all(&self, point: FaultPoint) -> Result<Vec<Recovered>> {
        let passage = self.world.enter(point, None).await?;
        let mut ids = Vec::new();
        self.world.0.ledger.each(|id, book| {
            if book.domain.is_some() {
                ids.push(id);
            }
        })?;
        let mut all = Vec::with_capacity(ids.len());
        for id in ids {
            let inspection = if passage.cannot_tell() {
                Inspection::CannotTell {
                    reason: "planned fault".into(),
                }
            } else {
                self.glance(id)?
            };
            if inspection != Inspection::Absent {
                all.push(Recovered { id, inspection });
            }
        }
        self.world.leave(passage, all).await
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    fn capability(&self) -> Capability {
        self.world.0.capability
    }

    async fn facts(&self) -> Result<HostFacts> {
        self.world
            .look(FaultPoint::Facts, None, |w| Ok(w.0.facts.lock().clone()))
            .await
    }

    async fn define(&self, spec: &VmSpec) -> Result<()> {
        let wanted = spec.clone();
        self.world
            .perform(FaultPoint::Define, Some(spec.id), move |w, _| {
                w.define_now(&wanted)
            })
            .await
    }

    async fn start(&self, id: ServerId, generation: u64) -> Result<()> {
        self.world
            .perform(FaultPoint::Start, Some(id), move |w, again| {
                w.start_now(id, generation, again)
            })
            .await
    }

    async fn stop(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopped> {
        let passage = self.world.enter(FaultPoint::Stop, Some(id)).await?;
        let stop = move |w: &FakeWorld, _| w.stop_now(id, generation, mode);
        let how = match self.world.carry_out(&passage, stop).await? {
            Stopping::Done(how) => how,
            Stopping::Asked(answer) => self.world.end(answer).await?,
        };
        self.world.leave(passage, how).await
    }

    async fn undefine(&self, id: ServerId, generation: u64) -> Result<()> {
        self.world
            .perform(FaultPoint::Undefine, Some(id), move |w, _| {
                w.undefine_now(id, generation)
            })
            .await
    }

    async fn inspect(&self, id: ServerId) -> Result<Inspection> {
        let passage = self.world.enter(FaultPoint::Inspect, Some(id)).await?;
        if passage.cannot_tell() {
            return Ok(Inspection::CannotTell {
                reason: "planned fault".into(),
            });
        }
        let target = Target::Server(id);
        if self.world.is_hidden(target) {
            let clear = self.world.until_free(target, true);
            // When it is not clear in time, the glance says so.
            let _ = tokio::time::timeout(INSPECT_PATIENCE, clear).await;
        }
        let seen = self.glance(id)?;
        self.world.leave(passage, seen).await
    }

    async fn recover(&self) -> Result<Vec<Recovered>> {
        self.all(FaultPoint::Recover).await
    }

    async fn list(&self) -> Result<Vec<Recovered>> {
        self.all(FaultPoint::List).await
    }

    fn events(&self) -> BoxStream<'static, VmEvent> {
        stream::unfold(self.world.0.events.subscribe(), |mut events| async move {
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
        self.capability().console_log.then_some(self as &dyn Console)
    }
    fn as_pause(&self) -> Option<&dyn crate::Pause> {
        self.capability().pause.then_some(self as &dyn crate::Pause)
    }
    fn as_suspend(&self) -> Option<&dyn crate::Suspend> {
        self.capability().suspend.then_some(self as &dyn crate::Suspend)
    }
    fn as_snapshots(&self) -> Option<&dyn crate::Snapshots> {
        self.capability()
            .snapshots
            .then_some(self as &dyn crate::Snapshots)
    }
    fn as_hotplug(&self) -> Option<&dyn crate::Hotplug> {
        self.capability().hotplug.then_some(self as &dyn crate::Hotplug)
    }
    fn as_screen(&self) -> Option<&dyn crate::Screen> {
        self.capability().screenshot.then_some(self as &dyn crate::Screen)
    }
    fn as_migration(&self) -> Option<&dyn crate::Migration> {
        self.capability()
            .migration
            .then_some(self as &dyn crate::Migration)
    }
    fn as_guest_agent(&self) -> Option<&dyn crate::GuestAgent> {
        self.capability()
            .guest_agent
            .then_some(self as &dyn crate::GuestAgent)
    }
}

#[async_trait]
impl Console for FakeHypervisor {
    async fn console_tail(&self, id: ServerId, max_bytes: usize) -> Result<Vec<u8>> {
        let point = FaultPoint::Console;
        let tail = |world: &FakeWorld| {
            world.0.ledger.read(id, |book| {
                let domain = book.domain.as_ref();
                let domain = domain
                    .ok_or_else(|| Error::new(ErrorKind::NotFound, point.operation()).with("server", id))?;
                let text = domain.console.as_bytes();
                Ok(text[text.len().saturating_sub(max_bytes)..].to_vec())
            })?
        };
        self.world.look(point, Some(id), tail).await
    }
}
