//! What the hypervisor's verbs do to the records. Each runs at once and as a whole.

use skyloom_model::ablation::{Rule, kept};
use skyloom_model::{PowerState, ServerId};

use super::book::{FakeDomain, Note};
use super::history::{Effect, EffectKind};
use super::late::{Answer, Target};
use super::script::FaultPoint;
use super::world::FakeWorld;
use crate::{Boot, Error, ErrorKind, Result, Step, StopMode, Stopped, VmSpec};

/// A stop: done, or waiting for a guest that has been asked.
#[derive(Debug)]
pub(super) enum Stopping {
    Done(Stopped),
    Asked(Answer<Stopped>),
}

/// An order for power.
#[derive(Debug, Clone, Copy)]
enum Order {
    Start(u64),
    Stop(u64),
}

/// An order of an older generation than the domain's is refused.
pub(super) fn not_older(domain: &FakeDomain, point: FaultPoint, ordered: u64) -> Result<()> {
    let carried = domain.spec.generation;
    if kept(Rule::GenerationCompare) && ordered < carried {
        return Err(Error::new(ErrorKind::Stale, point.operation())
            .with("server", domain.spec.id)
            .with("ordered", ordered)
            .with("domain", carried));
    }
    Ok(())
}

/// The domain takes on the generation of an order that is newer; says whether it was.
pub(super) fn take_on(
    domain: &mut FakeDomain,
    point: FaultPoint,
    ordered: u64,
    note: &mut Note,
) -> Result<bool> {
    not_older(domain, point, ordered)?;
    match point {
        FaultPoint::Stop => domain.step(Step::Stop, point, note)?,
        // These look at its half themselves.
        _ if FaultPoint::MIGRATION.contains(&point) => {}
        _ => domain.step(Step::Other, point, note)?,
    }
    let newer = ordered > domain.spec.generation;
    if newer {
        domain.spec.generation = ordered;
        note.changed = true;
    }
    Ok(newer)
}

impl FakeWorld {
    pub(super) fn define_now(&self, spec: &VmSpec) -> Result<()> {
        if !self.0.capability.kernel_boot && spec.boot != Boot::FirstDisk {
            return Err(
                Error::new(ErrorKind::Unsupported, FaultPoint::Define.operation()).with("server", spec.id)
            );
        }
        self.0.ledger.book(spec.id, |book, note| {
            match &mut book.domain {
                Some(domain) => {
                    not_older(domain, FaultPoint::Define, spec.generation)?;
                    if domain.spec.generation != spec.generation {
                        domain.step(Step::Other, FaultPoint::Define, note)?;
                        domain.spec = spec.clone();
                        note.effect(spec.generation, EffectKind::Redefined);
                    }
                }
                None => {
                    book.domain = Some(FakeDomain::new(spec));
                    note.effect(spec.generation, EffectKind::Defined);
                }
            }
            Ok(())
        })?
    }

    /// `again` is the same request once more.
    pub(super) fn start_now(&self, id: ServerId, generation: u64, again: bool) -> Result<()> {
        let naive = self.0.naive_start && !again;
        let line = self.0.ledger.script(|s| (false, s.ready_line.clone()))?;
        let started = self.0.ledger.book(id, |book, note| {
            let Some(domain) = &mut book.domain else {
                return Err(Error::new(ErrorKind::NotFound, FaultPoint::Start.operation()).with("server", id));
            };
            let newer = take_on(domain, FaultPoint::Start, generation, note)?;
            note.changed |= book.orders.starts.note(generation);
            let runs = domain.power == PowerState::Running;
            if runs && (newer || !naive) {
                return Ok(false);
            }
            let goes_on = match domain.power {
                PowerState::Paused => Some(EffectKind::Unpaused),
                PowerState::Suspended => Some(EffectKind::Resumed),
                _ => None,
            };
            if let Some(goes_on) = goes_on {
                domain.power = PowerState::Running;
                note.effect(generation, goes_on);
                return Ok(true);
            }
            domain.boot(line.as_deref());
            note.effect(
                generation,
                if runs {
                    EffectKind::StartedTwice
                } else {
                    EffectKind::Started
                },
            );
            Ok(true)
        })??;
        if started {
            self.tell(id, PowerState::Running, "host-request")?;
        }
        Ok(())
    }

    pub(super) fn stop_now(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopping> {
        let patience = match mode {
            StopMode::Graceful { timeout } if self.0.capability.graceful_stop => Some(timeout),
            StopMode::Graceful { .. } | StopMode::Force => None,
        };
        let deaf = self
            .0
            .ledger
            .script(|s| (false, s.ignores_graceful.contains(&id)))?;
        let mut dropped = false;
        let how = self.0.ledger.book(id, |book, note| {
            let Some(domain) = &mut book.domain else {
                return Ok(Some(Stopped::AlreadyOff));
            };
            take_on(domain, FaultPoint::Stop, generation, note)?;
            note.changed |= book.orders.stops.note(generation);
            if domain.power == PowerState::Suspended {
                domain.off(PowerState::Stopped);
                note.effect(generation, EffectKind::MemoryDropped);
                dropped = true;
            }
            if !domain.power.may_execute() {
                return Ok(Some(Stopped::AlreadyOff));
            }
            let how = match patience {
                // A held guest hears no button.
                Some(_) if domain.power != PowerState::Paused => {
                    note.effect(generation, EffectKind::Asked);
                    if deaf {
                        return Ok(None);
                    }
                    Stopped::Gracefully
                }
                _ => Stopped::Forced,
            };
            domain.off(PowerState::Stopped);
            note.effect(generation, EffectKind::stopped(how));
            Ok(Some(how))
        })??;
        let Some(how) = how else {
            let force = move |world: &Self| world.force_off_now(id, generation);
            let answer = self.begin(Target::Server(id), false, patience.unwrap_or_default(), force);
            return Ok(Stopping::Asked(answer));
        };
        match how {
            Stopped::AlreadyOff if dropped => self.tell(id, PowerState::Stopped, "host-request")?,
            Stopped::AlreadyOff => {}
            Stopped::Gracefully => self.tell(id, PowerState::Stopped, "guest-shutdown")?,
            Stopped::Forced => self.tell(id, PowerState::Stopped, "host-request")?,
        }
        Ok(Stopping::Done(how))
    }

    /// The guest has been asked in vain, or has ended in the meantime.
    fn force_off_now(&self, id: ServerId, generation: u64) -> Result<Stopped> {
        let how = self.0.ledger.book(id, |book, note| match &mut book.domain {
            Some(domain) if domain.power.may_execute() => {
                domain.off(PowerState::Stopped);
                note.effect(generation, EffectKind::stopped(Stopped::Forced));
                Stopped::Forced
            }
            _ => Stopped::Gracefully,
        })?;
        if how == Stopped::Forced {
            self.tell(id, PowerState::Stopped, "host-request")?;
        }
        Ok(how)
    }

    pub(super) fn undefine_now(&self, id: ServerId, generation: u64) -> Result<()> {
        let ran = self.0.ledger.book(id, |book, note| {
            let Some(domain) = &book.domain else {
                return Ok(false);
            };
            not_older(domain, FaultPoint::Undefine, generation)?;
            let ran = domain.power.may_execute();
            book.domain = None;
            note.effect(generation, EffectKind::Undefined);
            Ok(ran)
        })??;
        if ran {
            self.tell(id, PowerState::Stopped, "host-request")?;
        }
        Ok(())
    }

    /// Delivers a start or stop of an older generation than the domain's once more, as a request that was held up for
    /// long: one that would change something where one is known. Tells what it did, which must be nothing. `None`: no
    /// such order is known, or an operation is under way.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn replay_old_order(&self, server: ServerId) -> Result<Option<Vec<Effect>>> {
        if self.is_busy(server) {
            return Ok(None);
        }
        let order = self.0.ledger.read(server, |book| {
            let (generation, runs) = match &book.domain {
                Some(domain) => (domain.spec.generation, domain.power.may_execute()),
                None => (u64::MAX, false),
            };
            let start = book.orders.starts.before(generation).map(Order::Start);
            let stop = book.orders.stops.before(generation).map(Order::Stop);
            if runs { stop.or(start) } else { start.or(stop) }
        })?;
        let Some(order) = order else { return Ok(None) };
        let from = self.position()?;
        let delivered = match order {
            Order::Start(generation) => self.start_now(server, generation, true),
            Order::Stop(generation) => self.stop_now(server, generation, StopMode::Force).map(|_| ()),
        };
        match delivered {
            Err(error) if !matches!(error.kind(), ErrorKind::Stale | ErrorKind::NotFound) => Err(error),
            _ => self.0.ledger.effects(from, Some(server)).map(Some),
        }
    }
}
