//! The way into and out of every verb: steps, faults, events.

use skyloom_model::{PowerState, ServerId};
use tokio::sync::watch;

use super::FakeWorld;
use super::book::{SCRIPT, Script};
use super::script::{Fault, FaultPoint};
use crate::{Error, ErrorKind, Result, VmEvent, VmEventKind};

/// What is left to do of a fault when the verb is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    Return,
    Fail(ErrorKind),
    Hang,
    CannotTell,
}

struct Waiting<'a>(&'a watch::Sender<usize>);
impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n = n.saturating_sub(1));
    }
}
impl FakeWorld {
    /// Before a verb: waits for a step, meets a planned fault.
    pub(super) async fn enter(&self, point: FaultPoint, server: Option<ServerId>) -> Result<After> {
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
        let failed = |kind| {
            let error = Error::new(kind, point.operation()).with("fake", "planned fault");
            Err(match server {
                Some(server) => error.with("server", server),
                None => error,
            })
        };
        match self.planned(point, server)? {
            None | Some(Fault::Lose | Fault::Duplicate | Fault::Delay) => Ok(After::Return),
            Some(Fault::Fail(kind)) => failed(kind),
            Some(Fault::FailAfterEffect(kind)) => Ok(After::Fail(kind)),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::HangAfterEffect) => Ok(After::Hang),
            Some(Fault::Vanish) => {
                if let Some(server) = server {
                    self.vanish(server)?;
                }
                Ok(After::Return)
            }
            Some(Fault::CannotTell) if matches!(point, FaultPoint::Inspect | FaultPoint::Recover) => {
                Ok(After::CannotTell)
            }
            Some(Fault::CannotTell) => failed(ErrorKind::Unavailable),
        }
    }

    /// After a verb: what is left of the fault.
    pub(super) async fn leave<T>(&self, after: After, point: FaultPoint, done: T) -> Result<T> {
        match after {
            After::Return | After::CannotTell => Ok(done),
            After::Hang => std::future::pending().await,
            After::Fail(kind) => {
                Err(Error::new(kind, point.operation()).with("fake", "planned fault after the effect"))
            }
        }
    }

    fn planned(&self, point: FaultPoint, server: Option<ServerId>) -> Result<Option<Fault>> {
        self.0.ledger.with(|records| {
            let Some(mut script) = records.get::<Script>(SCRIPT)? else {
                return Ok(None);
            };
            let Some(place) = script.planned.iter().position(|p| p.fits(point, server)) else {
                return Ok(None);
            };
            let fault = script.planned.remove(place).fault;
            records.put(SCRIPT, &script)?;
            Ok(Some(fault))
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
        let times = match self.planned(FaultPoint::Event, Some(server))? {
            Some(Fault::Delay) => {
                self.0.delayed.lock().push_back(event);
                return Ok(());
            }
            Some(Fault::Lose) => 0,
            Some(Fault::Duplicate) => 2,
            _ => 1,
        };
        for _ in 0..times {
            self.send(event.clone());
        }
        Ok(())
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
