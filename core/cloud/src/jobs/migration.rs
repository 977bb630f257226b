//! A guest that goes to another host: `vm.receive`, `vm.send`, `vm.pass`, `vm.force`, `vm.hand-over`, `vm.take-over`, `vm.half`,
//! `vm.leave`.
//!
//! ```text
//!  destination   vm.receive ────────────────────────────────────────────> vm.take-over
//!  source                    vm.send ─> vm.pass ... ─> vm.hand-over ─────────────────── vm.leave
//!  back          undefined  <─ cancelled               ║ from here on undos lead onward: what can be taken over is
//! ```
//!
//! Each undo decides by what its own host knows, by the rule that a destination is complete only after its source has handed over.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{
    Error, ErrorKind, Half, Hypervisor, Incoming, Migrating, Migration, Progress, Stream,
};
use skyloom_model::ServerId;

use super::port::{self, PortGone};
use super::vm::{Define, DefineInput, newer_or, proven_gone};
use super::{ServerInput, host_error};

/// How often `vm.pass` looks, and how many times before it tells how far it is.
const LOOKS: (u32, Duration) = (20, Duration::from_millis(500));
/// How long a guest may be held when its migration is forced to end.
const FORCED_DOWNTIME: Duration = Duration::from_secs(60);

/// A hypervisor's ability.
fn ability(hypervisor: &dyn Hypervisor) -> Result<&dyn Migration, JobError> {
    let missing = || host_error(Error::new(ErrorKind::Unsupported, "migrate"));
    hypervisor.as_migration().ok_or_else(missing)
}

/// What is of the server on this host; nothing: no domain.
async fn half_of(hypervisor: &dyn Hypervisor, server: ServerId) -> Result<Option<Migrating>, JobError> {
    match ability(hypervisor)?.migration(server).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(host_error(error)),
    }
}

/// Destination: a domain that waits for a guest's memory.
#[derive(Debug)]
pub(super) struct Receive(pub(super) Define);

#[async_trait]
impl Job for Receive {
    fn kind(&self) -> &'static str {
        "vm.receive"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let spec = self.0.spec(cx.input()?, cx.record.generation).await?;
        cx.may_act()?;
        let waits = ability(&*self.0.hypervisor)?.receive(&spec).await;
        cx.output(&waits.map_err(host_error)?)
    }

    /// What has all of the guest's memory has the guest: its source has handed it over.
    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let input: DefineInput = cx.input()?;
        let hypervisor = &*self.0.hypervisor;
        if let Some(found) = half_of(hypervisor, input.server).await? {
            match (found.half, found.stream) {
                (Half::Receiving, Stream::Complete) => {
                    cx.may_act()?;
                    let taken = ability(hypervisor)?.take_over(input.server, cx.record.generation);
                    taken.await.map_err(host_error)?;
                    return Ok(Undo::Moot("the guest has arrived: it runs here".to_owned()));
                }
                (Half::Receiving, _) => {}
                _ => return Ok(Undo::Moot("the guest is this host's".to_owned())),
            }
        }
        cx.may_act()?;
        if let Err(error) = hypervisor.undefine(input.server, cx.record.generation).await {
            return newer_or(error);
        }
        let ports: Vec<PortGone> = input.wirings.iter().map(PortGone::of).collect();
        port::unplug(&self.0.network, &ports).await?;
        Ok(Undo::Undone)
    }
}

/// Input of `vm.send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DepartInput {
    /// Which server.
    pub(crate) server: ServerId,
    /// Where it is waited for.
    pub(crate) to: Incoming,
}

/// What is done at the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Send,
    Pass,
    Force,
    HandOver,
}

/// Source: the guest's memory goes out.
#[derive(Debug)]
pub(super) struct Go {
    pub(super) verb: Verb,
    pub(super) hypervisor: Arc<dyn Hypervisor>,
}

/// What `vm.pass` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Passed {
    /// Whether all is there but the last pass.
    pub(crate) ready: bool,
    /// How far it is.
    pub(crate) progress: Progress,
    /// In how many seconds the passes will be over; nothing: the guest writes as fast as they send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remaining_seconds: Option<u64>,
}

/// What `vm.hand-over` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedOver {
    /// What has become of the stream, as far as the source knows.
    pub(crate) stream: Stream,
}

impl Go {
    async fn passes(&self, server: ServerId) -> Result<Passed, JobError> {
        let (looks, between) = LOOKS;
        let mut passed = None;
        for _ in 0..looks {
            let Some(found) = half_of(&*self.hypervisor, server).await? else {
                return Err(broken("the domain is gone"));
            };
            let ready = match (found.half, found.stream) {
                (Half::HandedOver, _) | (Half::Sending, Stream::Ready | Stream::Complete) => true,
                (Half::Sending, Stream::Waiting | Stream::Flowing) => false,
                (Half::Sending, Stream::Broken) => return Err(broken("the connection is lost")),
                (Half::Whole | Half::Receiving, _) => return Err(broken("it is not on its way")),
            };
            passed = Some(Passed {
                ready,
                progress: found.progress,
                remaining_seconds: found.progress.remaining().map(|rest| rest.as_secs()),
            });
            if ready {
                break;
            }
            tokio::time::sleep(between).await;
        }
        passed.ok_or_else(|| broken("nobody has looked"))
    }
}

fn broken(why: &str) -> JobError {
    JobError::permanent(
        "migration.broken",
        format!("the guest's memory does not go out: {why}"),
    )
}

#[async_trait]
impl Job for Go {
    fn kind(&self) -> &'static str {
        match self.verb {
            Verb::Send => "vm.send",
            Verb::Pass => "vm.pass",
            Verb::Force => "vm.force",
            Verb::HandOver => "vm.hand-over",
        }
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let ServerInput { server } = cx.input()?;
        let (ability, generation) = (ability(&*self.hypervisor)?, cx.record.generation);
        cx.may_act()?;
        match self.verb {
            Verb::Send => {
                let DepartInput { to, .. } = cx.input()?;
                let sent = ability.send(server, generation, &to.address).await;
                sent.map_err(host_error)?;
                Ok(json!({}))
            }
            Verb::Pass => cx.output(&self.passes(server).await?),
            Verb::Force => {
                let forced = ability.force(server, generation, FORCED_DOWNTIME).await;
                forced.map_err(host_error)?;
                Ok(json!({}))
            }
            Verb::HandOver => {
                let stream = ability.hand_over(server, generation).await;
                cx.output(&HandedOver {
                    stream: stream.map_err(host_error)?,
                })
            }
        }
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let ServerInput { server } = cx.input()?;
        let (ability, generation) = (ability(&*self.hypervisor)?, cx.record.generation);
        let half = half_of(&*self.hypervisor, server).await?.map(|found| found.half);
        match (self.verb, half) {
            (Verb::Pass | Verb::Force, _) => {
                Ok(Undo::Moot("the guest's memory is still its host's".to_owned()))
            }
            (_, None) => Ok(Undo::Moot("there is no domain any more".to_owned())),
            (Verb::Send, Some(Half::HandedOver)) => Err(JobError::permanent(
                "migration.handed_over",
                "the guest was handed over: this host does not know what has become of it",
            )),
            (Verb::Send, Some(_)) => {
                cx.may_act()?;
                match ability.cancel(server, generation).await {
                    Ok(()) => Ok(Undo::Undone),
                    Err(error) => newer_or(error),
                }
            }
            // An interrupted switch-over is ended; there is no way back from it.
            (Verb::HandOver, Some(Half::HandedOver)) => {
                cx.may_act()?;
                let ended = ability.hand_over(server, generation).await;
                ended.map_err(host_error)?;
                Ok(Undo::Moot("what was handed over stays so".to_owned()))
            }
            (Verb::HandOver, Some(_)) => Ok(Undo::Moot("it was not handed over".to_owned())),
        }
    }
}

/// Destination: the guest goes on here. There is no way back: undoing it ensures the same where the memory is complete.
#[derive(Debug)]
pub(super) struct TakeOver(pub(super) Arc<dyn Hypervisor>);

#[async_trait]
impl Job for TakeOver {
    fn kind(&self) -> &'static str {
        "vm.take-over"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let ServerInput { server } = cx.input()?;
        cx.may_act()?;
        let taken = ability(&*self.0)?.take_over(server, cx.record.generation).await;
        taken.map_err(host_error)?;
        Ok(json!({}))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let ServerInput { server } = cx.input()?;
        let found = half_of(&*self.0, server).await?;
        if found.is_some_and(|found| (found.half, found.stream) == (Half::Receiving, Stream::Complete)) {
            cx.may_act()?;
            let taken = ability(&*self.0)?.take_over(server, cx.record.generation).await;
            taken.map_err(host_error)?;
        }
        Ok(Undo::Moot("a guest that has arrived stays".to_owned()))
    }
}

/// What `vm.half` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HalfSeen {
    /// What is of the server on the host; nothing: no domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) half: Option<(Half, Stream)>,
}

/// Only looks at one side of a migration.
#[derive(Debug)]
pub(super) struct LookAtHalf(pub(super) Arc<dyn Hypervisor>);

#[async_trait]
impl Job for LookAtHalf {
    fn kind(&self) -> &'static str {
        "vm.half"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let ServerInput { server } = cx.input()?;
        let (looks, between) = LOOKS;
        let mut half = None;
        for _ in 0..looks {
            half = half_of(&*self.0, server)
                .await?
                .map(|found| (found.half, found.stream));
            // What still comes in is complete or broken in a moment.
            if !matches!(half, Some((Half::Receiving, Stream::Waiting | Stream::Flowing))) {
                break;
            }
            tokio::time::sleep(between).await;
        }
        cx.output(&HalfSeen { half })
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("looking changes nothing".to_owned()))
    }
}

/// Input of `vm.leave`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaveInput {
    /// Which server.
    pub(crate) server: ServerId,
    /// Its ports.
    pub(crate) ports: Vec<PortGone>,
    /// The domain that the way back makes; nothing: the guest has gone for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) back: Option<DefineInput>,
}

/// Source: nothing of the server stays but its disks, which are not the host's alone.
#[derive(Debug)]
pub(super) struct Leave(pub(super) Define);

impl Leave {
    async fn gone(&self, input: &LeaveInput, generation: u64) -> Result<(), JobError> {
        let gone = self.0.hypervisor.undefine(input.server, generation).await;
        gone.map_err(host_error)?;
        proven_gone(&*self.0.hypervisor, input.server).await?;
        port::unplug(&self.0.network, &input.ports).await
    }
}

#[async_trait]
impl Job for Leave {
    fn kind(&self) -> &'static str {
        "vm.leave"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: LeaveInput = cx.input()?;
        cx.may_act()?;
        self.gone(&input, cx.record.generation).await?;
        Ok(json!({}))
    }

    /// Makes the domain that was there, off; of a guest that has gone for good it ensures that nothing stays.
    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let mut input: LeaveInput = cx.input()?;
        cx.may_act()?;
        let Some(back) = input.back.take() else {
            self.gone(&input, cx.record.generation).await?;
            return Ok(Undo::Moot("the guest has gone for good".to_owned()));
        };
        let spec = self.0.spec(back, cx.record.generation + 1).await?;
        match self.0.hypervisor.define(&spec).await {
            Ok(()) => Ok(Undo::Undone),
            Err(error) => newer_or(error),
        }
    }
}
