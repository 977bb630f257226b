//! One domain as this process knows it: its records, its monitor connection, who works on it.
//!
//! * `op` is held by one verb at a time, for as long as it takes (a graceful stop: minutes).
//! * `record` is held only while the records are read or written; `define` and `inspect` need no more.
//! * [`Glance`] tells waiting verbs what the monitor task has noted.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use skyloom_hypervisor::{Error, ErrorKind, Result, VmEvent, VmEventKind, VmSpec};
use skyloom_model::{PowerState, ServerId};
use tokio::sync::{broadcast, watch};

use crate::client::Client;
use crate::config::QmpConfig;
use crate::devices::Shape;
use crate::dir::{self, VmDir};
use crate::errors::{self, blocking};
use crate::process::{self, ProcessId};
use crate::record::{Arrival, Desc, Entry, FORMAT, Live, LiveFile, Run};

/// What all domains share.
#[derive(Debug)]
pub(crate) struct Env {
    pub(crate) config: QmpConfig,
    pub(crate) events: broadcast::Sender<VmEvent>,
}

#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) id: ServerId,
    pub(crate) dir: Arc<VmDir>,
    pub(crate) env: Arc<Env>,
    pub(crate) op: tokio::sync::Mutex<()>,
    pub(crate) record: tokio::sync::Mutex<Record>,
    glance: watch::Sender<Glance>,
    pub(crate) client: watch::Sender<Option<Client>>,
    /// The process that a monitor task looks after.
    pub(crate) monitored: parking_lot::Mutex<Option<ProcessId>>,
    /// The reason in the last SHUTDOWN event.
    pub(crate) shutdown_reason: parking_lot::Mutex<Option<String>>,
    published: parking_lot::Mutex<Option<PowerState>>,
    /// Held while the agent in the guest is talked to.
    pub(crate) talking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub(crate) struct Record {
    /// `None` until `define` has written it.
    pub(crate) desc: Option<Desc>,
    pub(crate) live: Live,
    /// Why nothing can be said or done.
    pub(crate) damaged: Option<String>,
    /// The directory is gone; another [`Vm`] may have taken its place.
    pub(crate) gone: bool,
}

/// The phase without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Glance {
    Off,
    Starting,
    Up,
    Halted,
}

impl Glance {
    fn of(live: &Live) -> Self {
        match live {
            Live::Off
            | Live::Ended { .. }
            | Live::HandedOver { run: None, .. }
            | Live::Receiving {
                arrival: Arrival::Waiting | Arrival::Broken,
            } => Self::Off,
            Live::Starting { .. }
            | Live::Receiving {
                arrival: Arrival::Starting { .. },
            } => Self::Starting,
            Live::Running { .. } | Live::Stopping { .. } | Live::Saving { .. } | Live::Sending { .. } => {
                Self::Up
            }
            Live::Halted { .. } | Live::Saved { .. } | Live::HandedOver { .. } | Live::Receiving { .. } => {
                Self::Halted
            }
        }
    }
}

impl Record {
    /// Reads both files.
    pub(crate) fn load(dir: &VmDir) -> Self {
        let mut damaged = None;
        let mut keep = |name: &str, e: std::io::Error| damaged = Some(format!("{name} cannot be read: {e}"));
        let desc = dir.read::<Desc>(dir::DESC).unwrap_or_else(|e| {
            keep(dir::DESC, e);
            None
        });
        let live = dir.read::<LiveFile>(dir::LIVE).unwrap_or_else(|e| {
            keep(dir::LIVE, e);
            None
        });
        let formats = [desc.as_ref().map(|d| d.format), live.as_ref().map(|l| l.format)];
        if let Some(format) = formats.into_iter().flatten().find(|f| *f != FORMAT) {
            damaged = Some(format!(
                "a record has format {format}, this program knows {FORMAT}"
            ));
        }
        Self {
            desc,
            live: live.map_or(Live::Off, |l| l.live),
            damaged,
            gone: false,
        }
    }

    /// The description, when the domain exists and its records can be used.
    pub(crate) fn usable(&self, operation: &'static str, id: ServerId) -> Result<Option<&Desc>> {
        match &self.damaged {
            Some(why) => Err(Error::new(ErrorKind::Corrupt, operation)
                .with("server", id)
                .with("because", why)),
            None => Ok(self.desc.as_ref()),
        }
    }
}

impl Vm {
    pub(crate) fn new(id: ServerId, dir: VmDir, record: Record, env: Arc<Env>) -> Self {
        Self {
            id,
            dir: Arc::new(dir),
            env,
            op: tokio::sync::Mutex::new(()),
            glance: watch::Sender::new(Glance::of(&record.live)),
            client: watch::Sender::new(None),
            monitored: parking_lot::Mutex::new(None),
            shutdown_reason: parking_lot::Mutex::new(None),
            published: parking_lot::Mutex::new(match &record.live {
                Live::Ended { power, .. } => Some(*power),
                Live::Off | Live::Starting { .. } | Live::HandedOver { .. } | Live::Receiving { .. } => {
                    Some(PowerState::Stopped)
                }
                Live::Saved { .. } => Some(PowerState::Suspended),
                Live::Running { .. }
                | Live::Stopping { .. }
                | Live::Saving { .. }
                | Live::Sending { .. }
                | Live::Halted { .. } => None,
            }),
            record: tokio::sync::Mutex::new(record),
            talking: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn error(&self, kind: ErrorKind, operation: &'static str) -> Error {
        Error::new(kind, operation).with("server", self.id)
    }

    /// Writes `desc.json`, then believes it.
    pub(crate) async fn set_desc(
        &self,
        record: &mut Record,
        operation: &'static str,
        spec: VmSpec,
    ) -> Result<()> {
        let desc = Desc { format: FORMAT, spec };
        let (dir, file) = (Arc::clone(&self.dir), desc.clone());
        let written = blocking(move || dir.write(dir::DESC, &file)).await;
        written.map_err(|e| errors::file(operation, self.id, e))?;
        record.desc = Some(desc);
        Ok(())
    }

    /// Writes `live.json`, then believes it.
    pub(crate) async fn set_live(&self, record: &mut Record, live: Live) -> Result<()> {
        let dir = Arc::clone(&self.dir);
        let file = LiveFile {
            format: FORMAT,
            live: live.clone(),
        };
        let written = blocking(move || dir.write(dir::LIVE, &file)).await;
        written.map_err(|e| errors::file("record state", self.id, e))?;
        self.believe(record, live);
        Ok(())
    }

    /// As [`Vm::set_live`] for what has happened already: true whether it can be written or not.
    async fn note_live(&self, record: &mut Record, live: Live) {
        if let Err(e) = self.set_live(record, live.clone()).await {
            tracing::warn!(server = %self.id, error = %skyloom_model::report(&e), "cannot record a domain's state");
            self.believe(record, live);
        }
    }

    fn believe(&self, record: &mut Record, live: Live) {
        self.glance.send_replace(Glance::of(&live));
        record.live = live;
    }

    /// Notes that its guest is off while its process lives.
    pub(crate) async fn note_halt(&self, process: &ProcessId, cause: &str) {
        let mut record = self.record.lock().await;
        let (run, cause) = match &record.live {
            Live::Running { run } | Live::Sending { run, .. } if run.process == *process => {
                (run.clone(), cause)
            }
            Live::Stopping { run } if run.process == *process => (run.clone(), HOST_REQUEST),
            _ => return,
        };
        self.note_live(
            &mut record,
            Live::Halted {
                run,
                cause: cause.to_owned(),
            },
        )
        .await;
        drop(record);
        self.publish(PowerState::Stopped, Some(cause));
    }

    /// Notes that its process is gone, and works out what that means. Only the first note of one end counts.
    pub(crate) async fn note_end(&self, process: Option<&ProcessId>, status: Option<ExitStatus>) {
        let mut record = self.record.lock().await;
        let same = |run: &Run| process.is_none_or(|p| *p == run.process);
        let mut memory = None;
        let (power, cause) = match &record.live {
            Live::Off | Live::Ended { .. } => return,
            Live::HandedOver { run, to, stream } => {
                if run.as_deref().is_some_and(same) {
                    let (to, stream) = (to.clone(), *stream);
                    let gone = Live::HandedOver {
                        run: None,
                        to,
                        stream,
                    };
                    self.note_live(&mut record, gone).await;
                    drop(record);
                    self.publish(PowerState::Stopped, Some("handed-over"));
                }
                return;
            }
            Live::Receiving { arrival } => {
                let arrival = match arrival {
                    // Nobody was told to send: another one can come.
                    Arrival::Starting { .. } => Arrival::Waiting,
                    Arrival::Flowing { run } | Arrival::Complete { run } if same(run) => Arrival::Broken,
                    _ => return,
                };
                self.note_live(&mut record, Live::Receiving { arrival }).await;
                return;
            }
            // Its CPUs have not run: the memory is as it was.
            Live::Starting { launch } if launch.entry == Entry::Memory => {
                memory = launch.shape.clone().map(Box::new);
                (PowerState::Suspended, "start-failed".to_owned())
            }
            Live::Starting { .. } => (PowerState::Stopped, "start-failed".to_owned()),
            Live::Halted { run, cause } if same(run) => (PowerState::Stopped, cause.clone()),
            Live::Stopping { run } if same(run) => (PowerState::Stopped, HOST_REQUEST.to_owned()),
            Live::Saved { run } if same(run) => {
                memory = run.launch.shape.clone().map(Box::new);
                (PowerState::Suspended, HOST_REQUEST.to_owned())
            }
            // The file has its name: the memory was whole, and the CPUs were held.
            Live::Saving { run } if same(run) && self.dir.join(dir::MEMORY).exists() => {
                memory = run.launch.shape.clone().map(Box::new);
                (PowerState::Suspended, HOST_REQUEST.to_owned())
            }
            Live::Running { run } | Live::Saving { run } | Live::Sending { run, .. } if same(run) => {
                (PowerState::Crashed, self.crash_cause(&run.process, status))
            }
            Live::Halted { .. }
            | Live::Stopping { .. }
            | Live::Saving { .. }
            | Live::Saved { .. }
            | Live::Sending { .. }
            | Live::Running { .. } => return,
        };
        let at = self.env.config.clock.now();
        self.note_live(
            &mut record,
            Live::Ended {
                power,
                cause: cause.clone(),
                at,
                memory,
            },
        )
        .await;
        drop(record);
        self.publish(power, Some(&cause));
    }

    fn crash_cause(&self, process: &ProcessId, status: Option<ExitStatus>) -> String {
        if process.boot_id != process::boot_id() {
            return "host-reboot".to_owned();
        }
        if let Some(reason) = self.shutdown_reason.lock().take() {
            return reason;
        }
        match status {
            Some(status) if status.signal().is_some() => "killed".to_owned(),
            Some(_) => "exited".to_owned(),
            None => "vanished".to_owned(),
        }
    }

    /// Whether its CPUs are to be held.
    pub(crate) async fn is_held(&self) -> bool {
        matches!(&self.record.lock().await.live, Live::Running { run } if run.paused)
    }

    /// Whether its memory is on disk while its process lives.
    pub(crate) async fn is_saved(&self) -> bool {
        matches!(&self.record.lock().await.live, Live::Saved { .. })
    }

    /// What wrote the memory that is on disk, of a suspended domain.
    pub(crate) async fn memory(&self) -> Option<Shape> {
        match &self.record.lock().await.live {
            Live::Ended {
                power: PowerState::Suspended,
                memory,
                ..
            } => memory.as_deref().cloned(),
            _ => None,
        }
    }

    /// What is known of the guest that runs.
    pub(crate) async fn run(&self) -> Option<Run> {
        match &self.record.lock().await.live {
            Live::Running { run } => Some(run.clone()),
            _ => None,
        }
    }

    /// Notes whether its CPUs are to be held.
    pub(crate) async fn note_paused(&self, paused: bool) -> Result<()> {
        let mut record = self.record.lock().await;
        match &record.live {
            Live::Running { run } if run.paused != paused => {
                let run = Run {
                    paused,
                    ..run.clone()
                };
                self.set_live(&mut record, Live::Running { run }).await
            }
            _ => Ok(()),
        }
    }

    /// Notes what the guest is made of now.
    pub(crate) async fn note_shape(&self, shape: Shape) -> Result<()> {
        let mut record = self.record.lock().await;
        match &record.live {
            Live::Running { run } => {
                let mut run = run.clone();
                run.launch.shape = Some(shape);
                self.set_live(&mut record, Live::Running { run }).await
            }
            _ => Ok(()),
        }
    }

    /// Removes a guest's memory that nobody goes back to: what cannot be removed now is with the next one.
    pub(crate) async fn drop_memory(&self) {
        let dir = Arc::clone(&self.dir);
        if let Err(e) = blocking(move || dir.drop_memory()).await {
            tracing::warn!(server = %self.id, error = %e, "cannot remove a guest's memory");
        }
    }

    /// Tells listeners, once per change.
    pub(crate) fn publish(&self, power: PowerState, cause: Option<&str>) {
        if self.published.lock().replace(power) != Some(power) {
            tracing::info!(server = %self.id, ?power, cause, "power state");
            let kind = VmEventKind::Power {
                power,
                cause: cause.map(str::to_owned),
            };
            // No listener is no error.
            let _ = self.env.events.send(VmEvent {
                id: Some(self.id),
                kind,
            });
        }
    }

    /// Whether the domain is up: its events mean something.
    pub(crate) fn is_up(&self) -> bool {
        *self.glance.borrow() == Glance::Up
    }

    /// Waits until the phase is one of those that `wanted` tells; `false` when that did not come in time.
    pub(crate) async fn wait_for(&self, limit: Duration, wanted: impl FnMut(&Glance) -> bool) -> bool {
        let mut glance = self.glance.subscribe();
        tokio::time::timeout(limit, glance.wait_for(wanted))
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    /// Waits for a monitor connection; `None` when there is none in time or the process has ended.
    pub(crate) async fn wait_client(&self, limit: Duration) -> Option<Client> {
        let mut clients = self.client.subscribe();
        let mut glance = self.glance.subscribe();
        let connected = async {
            let open = |c: &Option<Client>| c.as_ref().is_some_and(|c| !c.is_closed());
            clients.wait_for(open).await.ok().and_then(|c| c.clone())
        };
        let ended = async { drop(glance.wait_for(|g| *g == Glance::Off).await) };
        tokio::select! {
            biased;
            client = connected => client,
            () = ended => None,
            () = tokio::time::sleep(limit) => None,
        }
    }
}

/// The cause of what we did ourselves.
pub(crate) const HOST_REQUEST: &str = "host-request";
