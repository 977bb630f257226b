//! Fake guests that go from one fake host to another: what the verbs do to the records of both.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use skyloom_model::{PowerState, ServerId};

use super::FakeHypervisor;
use super::book::{FakeDomain, Note};
use super::domains::take_on;
use super::guests::{error, ordered};
use super::history::EffectKind;
use super::script::{Fault, FaultPoint};
use super::world::{FakeWorld, Host};
use crate::{ErrorKind, Half, Incoming, Migrating, Migration, Progress, Result, Step, Stream, VmSpec};

/// What connects in-memory hosts: memory goes along it. Clones are the same wire.
#[derive(Debug, Clone, Default)]
pub struct FakeWire(Arc<Mutex<BTreeMap<String, Weak<Host>>>>);

impl FakeWire {
    pub(super) fn plug_in(&self, host: &Arc<Host>) {
        let address = address_of(host);
        self.0.lock().insert(address, Arc::downgrade(host));
    }
    fn at(&self, address: &str) -> Option<FakeWorld> {
        let host = self.0.lock().get(address)?.upgrade()?;
        Some(FakeWorld(host))
    }
}

fn address_of(host: &Host) -> String {
    format!("fake:{}", host.ledger.host)
}

/// What a fake domain knows of its migration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FakeHalf {
    /// The half.
    pub half: Half,
    /// The stream.
    pub stream: Stream,
    /// Where it goes.
    pub to: String,
}

impl FakeDomain {
    /// Whether a verb of this step may be; records what it makes of the half.
    pub(super) fn step(&mut self, step: Step, point: FaultPoint, note: &mut Note) -> Result<()> {
        let next = self.migration.half.step(step, self.migration.stream);
        let next =
            next.map_err(|why| error(ErrorKind::Conflict, point, self.spec.id).with("because", why))?;
        note.changed |= next != self.migration.half;
        self.migration.half = next;
        Ok(())
    }

    /// The stream of this side ends before it was complete.
    fn broke(&mut self, note: &mut Note) {
        let (half, stream) = (self.migration.half, self.migration.stream);
        if half == Half::Whole || matches!(stream, Stream::Complete | Stream::Broken) {
            return;
        }
        self.migration.stream = Stream::Broken;
        note.changed = true;
        match (half, self.power) {
            (Half::Sending, PowerState::Paused) => {
                self.power = PowerState::Running;
                note.effect(self.spec.generation, EffectKind::Unpaused);
            }
            (Half::HandedOver, _) => self.off(PowerState::Stopped),
            _ => {}
        }
    }

    /// Little is left: the guest is held.
    fn ready(&mut self, note: &mut Note) {
        self.migration.stream = Stream::Ready;
        self.power = PowerState::Paused;
        note.effect(self.spec.generation, EffectKind::Paused);
    }
}

impl FakeWorld {
    fn receive_now(&self, spec: &VmSpec) -> Result<Incoming> {
        self.0.ledger.book(spec.id, |book, note| {
            if let Some(domain) = &mut book.domain {
                take_on(domain, FaultPoint::Receive, spec.generation, note)?;
                return domain.step(Step::Receive, FaultPoint::Receive, note);
            }
            let mut domain = FakeDomain::new(spec);
            domain.migration.half = Half::Receiving;
            book.domain = Some(domain);
            note.effect(spec.generation, EffectKind::Incoming);
            Ok(())
        })??;
        Ok(Incoming {
            address: address_of(&self.0),
        })
    }

    fn send_now(&self, id: ServerId, generation: u64, address: &str) -> Result<()> {
        let point = FaultPoint::Send;
        let flows = self.0.ledger.book(id, |book, note| {
            let domain = ordered(book, note, point, id, generation)?;
            let flows = domain.migration.half == Half::Sending && domain.migration.stream != Stream::Broken;
            if flows && domain.migration.to != address {
                return Err(error(ErrorKind::Conflict, point, id).with("because", "it goes somewhere else"));
            }
            if !flows && domain.migration.half != Half::HandedOver && domain.power != PowerState::Running {
                return Err(error(ErrorKind::Conflict, point, id).with("because", "it does not run"));
            }
            domain
                .migration
                .half
                .step(Step::Send, domain.migration.stream)
                .map_err(|why| error(ErrorKind::Conflict, point, id).with("because", why))?;
            Ok(flows)
        })??;
        if flows {
            return Ok(());
        }
        let nobody = || error(ErrorKind::Unavailable, point, id).with("address", address);
        let there = self.0.wire.as_ref().and_then(|wire| wire.at(address));
        let there = there.ok_or_else(nobody)?;
        let waits = there.0.ledger.book(id, |book, note| match &mut book.domain {
            Some(d) if d.migration.half == Half::Receiving && d.migration.stream == Stream::Waiting => {
                d.migration.stream = Stream::Flowing;
                note.changed = true;
                true
            }
            _ => false,
        })?;
        if !waits {
            return Err(nobody());
        }
        let busy = self.0.ledger.script(|s| (false, s.busy.contains(&id)))?;
        self.0.ledger.book(id, |book, note| {
            let domain = ordered(book, note, point, id, generation)?;
            domain.step(Step::Send, point, note)?;
            address.clone_into(&mut domain.migration.to);
            domain.migration.stream = Stream::Flowing;
            note.changed = true;
            if !busy {
                domain.ready(note);
            }
            Ok(())
        })??;
        if self.meets_stream_fault(id)?.is_some() {
            self.lose_stream(id)?;
            there.lose_stream(id)?;
        }
        Ok(())
    }

    fn migration_of(&self, id: ServerId) -> Result<Migrating> {
        let found = self.0.ledger.read(id, |book| {
            let domain = book.domain.as_ref()?;
            let bytes = domain.spec.memory_mib << 20;
            let busy = domain.migration.half == Half::Sending && domain.migration.stream == Stream::Flowing;
            Some(Migrating {
                half: domain.migration.half,
                stream: domain.seen_stream(),
                progress: Progress {
                    pass: u64::from(domain.migration.half != Half::Whole),
                    total_bytes: bytes,
                    sent_bytes: bytes,
                    remaining_bytes: if busy { bytes } else { 0 },
                    ..Progress::default()
                },
            })
        })?;
        found.ok_or_else(|| error(ErrorKind::NotFound, FaultPoint::LookMigration, id))
    }

    fn cancel_now(&self, id: ServerId, generation: u64) -> Result<()> {
        let point = FaultPoint::CancelMigration;
        self.0.ledger.book(id, |book, note| {
            let domain = ordered(book, note, point, id, generation)?;
            let was = domain.migration.half;
            let mut undone = domain.clone();
            undone.step(Step::Cancel, point, note)?;
            if was == Half::Sending {
                domain.broke(note);
                domain.step(Step::Cancel, point, note)?;
            }
            Ok(())
        })?
    }

    fn force_now(&self, id: ServerId, generation: u64) -> Result<()> {
        let point = FaultPoint::ForceMigration;
        self.0.ledger.book(id, |book, note| {
            let domain = ordered(book, note, point, id, generation)?;
            domain.step(Step::Force, point, note)?;
            if domain.migration.stream == Stream::Flowing && domain.power == PowerState::Running {
                domain.ready(note);
            }
            Ok(())
        })?
    }

    /// `half`: the record only, and the last pass is not let go.
    fn hand_over_now(&self, id: ServerId, generation: u64, half: bool) -> Result<Stream> {
        let point = FaultPoint::HandOver;
        let (leaves, stream) = self.0.ledger.book(id, |book, note| {
            let domain = ordered(book, note, point, id, generation)?;
            let was = domain.migration.half;
            domain.migration.stream = domain.seen_stream();
            domain.step(Step::HandOver, point, note)?;
            if was == Half::Sending {
                note.effect(generation, EffectKind::HandedOver);
            }
            let due = domain.migration.stream == Stream::Ready;
            Ok((due.then(|| domain.clone()), domain.migration.stream))
        })??;
        let Some(guest) = leaves.filter(|_| !half) else {
            return Ok(stream);
        };
        let there = self.0.wire.as_ref().and_then(|wire| wire.at(&guest.migration.to));
        let fault = self.meets_stream_fault(id)?;
        let lost = matches!(fault, Some(Fault::Fail(_)));
        let arrived = match there {
            Some(there) if lost => {
                there.lose_stream(id)?;
                false
            }
            Some(there) => there.arrive(id, &guest)?,
            None => false,
        };
        let stream = match fault {
            None if arrived => Stream::Complete,
            _ => Stream::Broken,
        };
        self.0.ledger.book(id, |book, note| {
            if let Some(domain) = &mut book.domain {
                domain.off(PowerState::Stopped);
                domain.migration.stream = stream;
                note.changed = true;
            }
        })?;
        self.tell(id, PowerState::Stopped, "handed-over")?;
        Ok(stream)
    }

    /// The last pass comes in. Says whether anybody waited for it.
    fn arrive(&self, id: ServerId, guest: &FakeDomain) -> Result<bool> {
        self.0.ledger.book(id, |book, note| match &mut book.domain {
            Some(d) if d.migration.half == Half::Receiving && d.migration.stream == Stream::Flowing => {
                d.migration.stream = Stream::Complete;
                d.memory = guest.memory;
                d.boots = guest.boots;
                d.guest.clone_from(&guest.guest);
                d.platters.clone_from(&guest.platters);
                d.snapshots.clone_from(&guest.snapshots);
                note.changed = true;
                true
            }
            _ => false,
        })
    }

    fn take_over_now(&self, id: ServerId, generation: u64) -> Result<()> {
        let point = FaultPoint::TakeOver;
        let taken = self.0.ledger.book(id, |book, note| {
            let domain = ordered(book, note, point, id, generation)?;
            let was = domain.migration.half;
            domain.step(Step::TakeOver, point, note)?;
            if was == Half::Receiving {
                domain.power = PowerState::Running;
                note.effect(generation, EffectKind::TakenOver);
            } else if !domain.power.may_execute() {
                return Err(error(ErrorKind::Conflict, point, id).with("because", "it is off"));
            }
            Ok(was == Half::Receiving)
        })??;
        if taken {
            self.tell(id, PowerState::Running, "taken-over")?;
        }
        Ok(())
    }

    fn meets_stream_fault(&self, id: ServerId) -> Result<Option<Fault>> {
        self.0.ledger.script(|script| {
            let met = script.meet(FaultPoint::Stream, Some(id));
            (met.is_some(), met)
        })
    }

    /// This host's end of a migration's connection breaks, if its stream is not complete. A guest that was not handed over
    /// runs on at its source.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn lose_stream(&self, server: ServerId) -> Result<()> {
        self.0.ledger.book(server, |book, note| {
            if let Some(domain) = &mut book.domain {
                domain.broke(note);
            }
        })
    }

    /// What waits here for a guest dies, with what memory has come in. Says whether something waited.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn crash_incoming(&self, server: ServerId) -> Result<bool> {
        self.0.ledger.book(server, |book, note| match &mut book.domain {
            Some(domain) if domain.migration.half == Half::Receiving => {
                domain.migration.stream = Stream::Broken;
                domain.guest = None;
                note.changed = true;
                true
            }
            _ => false,
        })
    }

    /// Whether the guest writes faster than any pass sends, so that a migration must be forced.
    ///
    /// # Errors
    /// When the ledger cannot be used.
    pub fn busy_guest(&self, server: ServerId, busy: bool) -> Result<()> {
        let change = |s: &mut super::script::Script| {
            if busy {
                s.busy.insert(server)
            } else {
                s.busy.remove(&server)
            }
        };
        self.0.ledger.script(|s| (true, change(s))).map(|_| ())
    }
}

impl FakeDomain {
    /// A source's stream ends with its process.
    fn seen_stream(&self) -> Stream {
        let FakeHalf { half, stream, .. } = self.migration;
        let sends = matches!(half, Half::Sending | Half::HandedOver);
        if sends && matches!(stream, Stream::Flowing | Stream::Ready) && !self.power.may_execute() {
            return Stream::Broken;
        }
        stream
    }
}

#[async_trait]
impl Migration for FakeHypervisor {
    async fn receive(&self, spec: &VmSpec) -> Result<Incoming> {
        let (id, spec) = (spec.id, spec.clone());
        let work = move |w: &FakeWorld, _| w.receive_now(&spec);
        self.world.perform(FaultPoint::Receive, Some(id), work).await
    }
    async fn send(&self, id: ServerId, generation: u64, address: &str) -> Result<()> {
        let address = address.to_owned();
        let work = move |w: &FakeWorld, _| w.send_now(id, generation, &address);
        self.world.perform(FaultPoint::Send, Some(id), work).await
    }
    async fn migration(&self, id: ServerId) -> Result<Migrating> {
        self.world
            .look(FaultPoint::LookMigration, Some(id), |w| w.migration_of(id))
            .await
    }
    async fn cancel(&self, id: ServerId, generation: u64) -> Result<()> {
        let work = move |w: &FakeWorld, _| w.cancel_now(id, generation);
        self.world
            .perform(FaultPoint::CancelMigration, Some(id), work)
            .await
    }
    async fn force(&self, id: ServerId, generation: u64, _: Duration) -> Result<()> {
        let work = move |w: &FakeWorld, _| w.force_now(id, generation);
        self.world
            .perform(FaultPoint::ForceMigration, Some(id), work)
            .await
    }
    async fn hand_over(&self, id: ServerId, generation: u64) -> Result<Stream> {
        let work = move |w: &FakeWorld, half| w.hand_over_now(id, generation, half);
        self.world.perform_in_steps(FaultPoint::HandOver, id, work).await
    }
    async fn take_over(&self, id: ServerId, generation: u64) -> Result<()> {
        let work = move |w: &FakeWorld, _| w.take_over_now(id, generation);
        self.world.perform(FaultPoint::TakeOver, Some(id), work).await
    }
}
