//! The way through every verb: steps, faults, what is under way already, events.

use std::future::pending;
use std::time::Duration;

use skyloom_model::{PowerState, ServerId, crash_point};
use tokio::sync::watch;

use super::FakeWorld;
use super::late::Target;
use super::script::{Fault, FaultPoint};
use crate::{Error, ErrorKind, Result, VmEvent, VmEventKind};

/// A verb on its way, and what is left to do of its fault.
#[derive(Debug)]
pub(super) struct Passage {
    point: FaultPoint,
    target: Target,
    fault: Option<Fault>,
}

impl Passage {
    /// Nobody can tell what is.
    pub(super) fn cannot_tell(&self) -> bool {
        self.fault == Some(Fault::CannotTell)
    }
}

struct Waiting<'a>(&'a watch::Sender<usize>);
impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl FakeWorld {
    /// A verb that changes the host. `work` is told whether it is the same request once more.
    pub(super) async fn perform<T: Send + 'static>(
        &self,
        point: FaultPoint,
        server: Option<ServerId>,
        work: impl Fn(&Self, bool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let passage = self.enter(point, server).await?;
        let done = self.carry_out(&passage, work).await?;
        self.told(passage, done).await
    }

    /// The way out of a verb that has changed the host: its effect is there, and its caller may never hear of it.
    async fn told<T>(&self, passage: Passage, done: T) -> Result<T> {
        crash_point("agent.mid_effect");
        self.leave(passage, done).await
    }

    /// A verb of several steps. `work` is told whether only the first of them is to happen.
    pub(super) async fn perform_in_steps<T: Send + 'static>(
        &self,
        point: FaultPoint,
        server: ServerId,
        work: impl Fn(&Self, bool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let passage = self.enter(point, Some(server)).await?;
        if let Some(Fault::Halfway(kind)) = passage.fault {
            work(self, true)?;
            return Err(Error::new(kind, point.operation())
                .with("server", server)
                .with("fake", "planned fault halfway"));
        }
        let done = self.carry_out(&passage, move |w, _| work(w, false)).await?;
        self.told(passage, done).await
    }

    /// A verb that only looks.
    pub(super) async fn look<T>(
        &self,
        point: FaultPoint,
        server: Option<ServerId>,
        look: impl FnOnce(&Self) -> Result<T>,
    ) -> Result<T> {
        let passage = self.enter(point, server).await?;
        let seen = look(self)?;
        self.leave(passage, seen).await
    }

    /// Before a verb: waits for a step, meets a planned fault, waits for what is under way.
    pub(super) async fn enter(&self, point: FaultPoint, server: Option<ServerId>) -> Result<Passage> {
        if self.0.step && point.changes() {
            let _waiting = {
                self.0.waiting.send_modify(|n| *n += 1);
                Waiting(&self.0.waiting)
            };
            match self.0.steps.acquire().await {
                Ok(permit) => permit.forget(),
                Err(_) => return Err(Error::new(ErrorKind::Internal, "wait for a step")),
            }
        }
        let fault = self.planned(point, server)?;
        let failed = |kind| {
            let error = Error::new(kind, point.operation()).with("fake", "planned fault");
            Err(match server {
                Some(server) => error.with("server", server),
                None => error,
            })
        };
        match fault {
            Some(Fault::Fail(kind)) => return failed(kind),
            Some(Fault::Halfway(kind)) if !point.in_steps() => return failed(kind),
            Some(Fault::Hang) => return pending().await,
            Some(Fault::CannotTell)
                if !matches!(
                    point,
                    FaultPoint::Inspect | FaultPoint::List | FaultPoint::Recover
                ) =>
            {
                return failed(ErrorKind::Unavailable);
            }
            Some(Fault::Late(by)) if !point.changes() => tokio::time::sleep(by).await,
            _ => {}
        }
        let target = Target::from(server);
        if point.changes() || matches!(point, FaultPoint::Disks | FaultPoint::CachedImage) {
            self.until_free(target, !point.alone()).await;
        }
        if let (Some(Fault::Vanish), Some(server)) = (fault, server) {
            self.vanish(server)?;
        }
        Ok(Passage { point, target, fault })
    }

    /// Lets `work` happen: now, twice, or later and by itself.
    pub(super) async fn carry_out<T: Send + 'static>(
        &self,
        passage: &Passage,
        work: impl Fn(&Self, bool) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match passage.fault {
            Some(Fault::Late(by)) => {
                let late = self.begin(passage.target, true, by, move |world| work(world, false));
                self.end(late).await
            }
            Some(Fault::Twice) => {
                work(self, false)?;
                work(self, true)
            }
            _ => work(self, false),
        }
    }

    /// After a verb: what is left of the fault.
    pub(super) async fn leave<T>(&self, passage: Passage, done: T) -> Result<T> {
        match passage.fault {
            Some(Fault::HangAfterEffect) => pending().await,
            Some(Fault::FailAfterEffect(kind)) => {
                Err(Error::new(kind, passage.point.operation())
                    .with("fake", "planned fault after the effect"))
            }
            _ => Ok(done),
        }
    }

    fn planned(&self, point: FaultPoint, server: Option<ServerId>) -> Result<Option<Fault>> {
        self.0.ledger.script(|script| {
            let met = script.meet(point, server);
            (met.is_some(), met)
        })
    }

    /// Sends an event, unless a fault says otherwise.
    pub(super) fn tell(&self, server: ServerId, power: PowerState, cause: &str) -> Result<()> {
        let event = VmEvent {
            id: Some(server),
            kind: VmEventKind::Power {
                power,
                cause: Some(cause.to_owned()),
            },
        };
        match self.planned(FaultPoint::Event, Some(server))? {
            Some(Fault::Delay) => self.0.delayed.lock().push_back(event),
            Some(Fault::Lose) => {}
            Some(Fault::Late(by)) => self.send_late(event, by),
            Some(Fault::Duplicate | Fault::Twice) => {
                self.send(event.clone());
                self.send(event);
            }
            _ => self.send(event),
        }
        Ok(())
    }

    fn send_late(&self, event: VmEvent, by: Duration) {
        drop(self.begin(Target::Event, false, by, move |world| {
            world.send(event);
            Ok(())
        }));
    }

    /// Sends the delayed events now.
    pub fn release_events(&self) {
        let delayed = std::mem::take(&mut *self.0.delayed.lock());
        delayed.into_iter().for_each(|event| self.send(event));
    }
    /// Sends any event, true or not.
    pub fn send(&self, event: VmEvent) {
        // Without a listener nobody is told; that is no error.
        let _ = self.0.events.send(event);
    }
}
