//! The verbs. Each works under its domain's locks (see `order.rs`), and each takes a newer order on before it does anything.

use std::sync::Arc;
use std::time::Duration;

use skyloom_hypervisor::{
    Error, ErrorKind, Half, Inspection, Recovered, Result, Step, StopMode, Stopped, VmEvent, VmEventKind,
    VmSpec,
};
use skyloom_model::{PowerState, ServerId, report};
use skyloom_qemu::tasks::Tasks;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use virt::connect::Connect;

use crate::config::LibvirtConfig;
use crate::console::Logs;
use crate::domain::{self, Surroundings};
use crate::errors::{self, Fault, blocking};
use crate::facts;
use crate::hub::{HOST_REQUEST, Hub};
use crate::kept::Kept;
use crate::lane::{Driver, Lane};
use crate::order::{Hold, Slot, Slots};
use crate::state::Seen;
use crate::xml;

/// How often a domain that is on its way somewhere is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: LibvirtConfig,
    pub(crate) driver: Driver,
    /// Whether the daemon can confine guests.
    pub(crate) confine: bool,
    pub(crate) hub: Arc<Hub>,
    pub(crate) look: Arc<Lane>,
    pub(crate) work: Arc<Lane>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) slots: Slots,
    pub(crate) tasks: Tasks,
}

impl Core {
    /// A short step of a verb.
    pub(crate) async fn step<T: Send + 'static>(
        &self,
        operation: &'static str,
        id: ServerId,
        hold: impl Send + 'static,
        work: impl FnOnce(&Connect) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let limit = self.config.timeouts.command;
        self.long(operation, id, limit, hold, work).await
    }

    /// A step that may take as long as `limit`.
    pub(crate) async fn long<T: Send + 'static>(
        &self,
        operation: &'static str,
        id: ServerId,
        limit: Duration,
        hold: impl Send + 'static,
        work: impl FnOnce(&Connect) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let done = self.work.call(limit, hold, work).await;
        done.map_err(|fault| fault.of(operation, id))
    }

    /// How to define a domain on this host, now. Called on a thread of a lane.
    pub(crate) fn surroundings(&self, id: ServerId) -> impl Fn(&Connect) -> Surroundings + Send + use<> {
        let (driver, emulator, confine) = (self.driver, self.config.emulator.clone(), self.confine);
        let console = (driver == Driver::Qemu).then(|| self.logs.path(id));
        move |conn| Surroundings {
            kind: match driver {
                Driver::Qemu => xml::Kind::Qemu(facts::accelerator(conn).kind),
                Driver::Test => xml::Kind::Test,
            },
            emulator: emulator.clone(),
            confine,
            console: console.clone(),
        }
    }

    pub(crate) async fn define(&self, spec: &VmSpec) -> Result<()> {
        xml::check(spec)?;
        let id = spec.id;
        let slot = self.slots.get(id);
        let record = slot.record().await;
        self.logs.prepare(id).await?;
        let (spec, host) = (spec.clone(), self.surroundings(id));
        self.step("define", id, record, move |conn| {
            domain::ensure_defined(conn, &spec, &host(conn))
        })
        .await
    }

    /// What the domain carries, after it has taken on the order's generation.
    pub(crate) async fn ordered(
        &self,
        operation: &'static str,
        slot: &Slot,
        id: ServerId,
        generation: u64,
        step: Option<Step>,
    ) -> Result<Option<Kept>> {
        let record = slot.record().await;
        self.step(operation, id, record, move |conn| {
            domain::ordered(conn, id, generation, step)
        })
        .await
    }

    pub(crate) async fn see(&self, operation: &'static str, id: ServerId) -> Result<Option<Seen>> {
        let seen = self.step(operation, id, (), move |conn| domain::see_by_id(conn, id));
        Ok(seen.await?.map(|(_, seen)| seen))
    }

    /// How it stands once no start and no end is under way.
    pub(crate) async fn see_settled(
        &self,
        operation: &'static str,
        id: ServerId,
        limit: Duration,
    ) -> Result<Option<Seen>> {
        let settled = async {
            loop {
                match self.see(operation, id).await? {
                    Some(Seen::Starting | Seen::Ending) => tokio::time::sleep(LOOK_AGAIN).await,
                    seen => return Ok(seen),
                }
            }
        };
        let late = |_| Err(Fault::Late(limit).of(operation, id));
        tokio::time::timeout(limit, settled).await.unwrap_or_else(late)
    }

    /// What the domain carries and how it stands, after it has taken on the order's generation.
    pub(crate) async fn obeyed(
        &self,
        operation: &'static str,
        slot: &Slot,
        id: ServerId,
        generation: u64,
    ) -> Result<(Kept, Seen)> {
        let missing = || Fault::Absent.of(operation, id);
        let kept = self
            .ordered(operation, slot, id, generation, Some(Step::Other))
            .await?
            .ok_or_else(missing)?;
        let limit = self.config.timeouts.start;
        let seen = self
            .see_settled(operation, id, limit)
            .await?
            .ok_or_else(missing)?;
        Ok((kept, seen))
    }

    pub(crate) async fn start(&self, id: ServerId, generation: u64) -> Result<()> {
        let slot = self.slots.get(id);
        let op = slot.op().await;
        match self.obeyed("start", &slot, id, generation).await?.1 {
            Seen::Up => Ok(()),
            Seen::Held => {
                let resumed = self.step("start", id, op, move |conn| domain::resume(conn, id));
                resumed.await
            }
            Seen::Dead => {
                self.force_off("start", id, &op).await?;
                self.launch(&slot, id, generation, op).await
            }
            // Under the definition that its memory was written by.
            Seen::Off(PowerState::Suspended) => self.create(id, op).await,
            Seen::Off(_) => self.launch(&slot, id, generation, op).await,
            other => Err(Error::new(ErrorKind::Unsupported, "start")
                .with("server", id)
                .with("state", format!("{other:?}"))),
        }
    }

    async fn launch(&self, slot: &Slot, id: ServerId, generation: u64, op: Hold) -> Result<()> {
        self.logs.prepare(id).await?;
        let (record, host) = (slot.record().await, self.surroundings(id));
        let hold = (record, Arc::clone(&op));
        self.step("start", id, hold, move |conn| {
            domain::ready(conn, id, generation, &host(conn))
        })
        .await?;
        self.create(id, op).await
    }

    async fn create(&self, id: ServerId, op: Hold) -> Result<()> {
        let limit = self.config.timeouts.start;
        let created = self.long("start", id, limit, op, move |conn| domain::create(conn, id));
        match created.await? {
            // A guest may be quick to shut down again: it did run.
            Seen::Up | Seen::Off(_) | Seen::Ending => Ok(()),
            other => Err(Error::new(ErrorKind::Refused, "start")
                .with("server", id)
                .with("state", format!("{other:?}"))),
        }
    }

    pub(crate) async fn force_off(&self, operation: &'static str, id: ServerId, op: &Hold) -> Result<bool> {
        let limit = self.config.timeouts.force;
        let forced = self.long(operation, id, limit, Arc::clone(op), move |conn| {
            domain::force(conn, id)
        });
        forced.await
    }

    pub(crate) async fn stop(&self, id: ServerId, generation: u64, mode: StopMode) -> Result<Stopped> {
        let slot = self.slots.get(id);
        let op = slot.op().await;
        let asked = self.ordered("stop", &slot, id, generation, Some(Step::Stop));
        if asked.await?.is_none() {
            return Ok(Stopped::AlreadyOff);
        }
        let limits = self.config.timeouts;
        let how = match self.see_settled("stop", id, limits.force).await? {
            None | Some(Seen::Off(_)) => Stopped::AlreadyOff,
            Some(seen) => {
                if let (StopMode::Graceful { timeout }, Seen::Up) = (mode, seen)
                    && tokio::time::timeout(timeout, self.ask(id, &op)).await.is_ok()
                {
                    Stopped::Gracefully
                } else if self.force_off("stop", id, &op).await? {
                    Stopped::Forced
                } else {
                    Stopped::AlreadyOff
                }
            }
        };
        let hold = (slot.record().await, op);
        let settled = self.step("stop", id, hold, move |conn| domain::settle_off(conn, id));
        if settled.await? {
            self.hub.publish(id, PowerState::Stopped, HOST_REQUEST);
        }
        Ok(how)
    }

    /// Presses the power button, now and then, until the guest is off. Early in its boot a guest does not hear it.
    async fn ask(&self, id: ServerId, op: &Hold) {
        let acpi = self.driver == Driver::Qemu;
        let mut heard = self.hub.listen();
        loop {
            let pressed = self.step("stop", id, Arc::clone(op), move |conn| {
                domain::press(conn, id, acpi)
            });
            if let Err(e) = pressed.await {
                tracing::debug!(server = %id, error = %report(&e), "cannot press the power button");
            }
            let again = self.config.timeouts.press_again;
            // Told or not: what counts is what is.
            let _ = tokio::time::timeout(again, until_off(&mut heard, id)).await;
            if matches!(
                self.see_settled("stop", id, self.config.timeouts.force).await,
                Ok(None | Some(Seen::Off(_)))
            ) {
                return;
            }
        }
    }

    pub(crate) async fn undefine(&self, id: ServerId, generation: u64) -> Result<()> {
        let slot = self.slots.get(id);
        let op = slot.op().await;
        // Cut short, it must not be followed by an older start.
        self.ordered("undefine", &slot, id, generation, None).await?;
        let hold = (slot.record().await, op);
        let nvram = self.driver == Driver::Qemu;
        let limit = self.config.timeouts.force;
        self.long("undefine", id, limit, hold.clone(), move |conn| {
            domain::remove(conn, id, generation, nvram)
        })
        .await?;
        let removed = self.logs.remove(id).await;
        drop(hold);
        removed
    }

    /// Notes each crash that is told of, for ever: a daemon that is restarted forgets it.
    pub(crate) async fn note_crashes(self: Arc<Self>) {
        let mut heard = self.hub.listen();
        loop {
            let id = match heard.recv().await {
                Ok(VmEvent {
                    id: Some(id),
                    kind:
                        VmEventKind::Power {
                            power: PowerState::Crashed,
                            ..
                        },
                }) => id,
                Ok(_) | Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return,
            };
            let record = self.slots.get(id).record().await;
            let noted = self.step("note crash", id, record, move |conn| domain::note_crash(conn, id));
            if let Err(e) = noted.await {
                tracing::warn!(server = %id, error = %report(&e), "a crash is not noted");
            }
        }
    }

    pub(crate) async fn inspect(&self, id: ServerId) -> Inspection {
        let limit = self.config.timeouts.inspect;
        let look = async {
            loop {
                let seen = self.look.call(limit, (), move |conn| domain::see_by_id(conn, id));
                let seen = match seen.await {
                    Ok(seen) => seen,
                    Err(fault) => {
                        return Inspection::CannotTell {
                            reason: report(&fault),
                        };
                    }
                };
                let Some((kept, seen)) = seen else {
                    return Inspection::Absent;
                };
                if let Some(inspection) = domain::inspection(&kept, seen) {
                    return inspection;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let late = |_| Inspection::CannotTell {
            reason: format!("no answer within {limit:?}"),
        };
        tokio::time::timeout(limit, look).await.unwrap_or_else(late)
    }

    pub(crate) async fn list(&self, operation: &'static str) -> Result<Vec<(Recovered, Half)>> {
        let listed = self.look.call(self.config.timeouts.list, (), domain::all);
        listed.await.map_err(|fault| fault.plain(operation))
    }

    /// As `list`, sweeps what removed domains left, and watches again what is on its way.
    pub(crate) async fn recover(self: Arc<Self>) -> Result<Vec<Recovered>> {
        let found = self.list("recover").await?;
        let (logs, known) = (Arc::clone(&self.logs), found.iter().map(|(r, _)| r.id).collect());
        let swept = blocking(move || logs.sweep(&known)).await;
        swept.map_err(|e| errors::file("recover", e))?;
        for (on_its_way, _) in found.iter().filter(|(_, half)| *half == Half::Sending) {
            self.tasks.spawn(Arc::clone(&self).watch(on_its_way.id));
        }
        Ok(found.into_iter().map(|(found, _)| found).collect())
    }
}

/// Waits until the events say that the domain is off, or that they may have missed it.
async fn until_off(heard: &mut broadcast::Receiver<VmEvent>, id: ServerId) {
    loop {
        match heard.recv().await {
            Ok(event) => match event.kind {
                VmEventKind::Power { power, .. } if event.id == Some(id) && !power.may_execute() => return,
                VmEventKind::Lost => return,
                _ => {}
            },
            Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}
