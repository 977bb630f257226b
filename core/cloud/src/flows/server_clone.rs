//! `server.clone`: a server whose root disk is a copy of another's, which goes on meanwhile.
//!
//! ```text
//!  freeze (the other's disk held still) ──> save (a copy is sent and inspected) ──> publish ──> as server.create, over that image
//!                                                                                                  │ done: server.tidy deletes the image
//! ```
//!
//! The other server is busy until the end; whatever that is, it is what it was, and of a clone that fails nothing stays but its record.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_model::{Image, Reason, Server, ServerId, StageOutcome, Task, TaskEnd};
use skyloom_store::{Key, Txn};

use super::image_save::{SaveOf, host};
use super::records::{image_key, quota_reads, server_reads};
use super::server_create::{another, made, on_a_host};
use super::server_shelve::{FREEZE, KeepParams, PUBLISH, copies, look_soon};
use super::volume_records::{free_server, ordered, server_key, with_server};
use super::{BaseImage, CreateParams, Outputs, Step, params};

/// Makes a server after another.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerClone;

/// Parameters of `server.clone`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CloneParams {
    /// How it is made once there is an image.
    pub(crate) create: CreateParams,
    /// The image that the other's root disk becomes.
    pub(crate) keep: KeepParams,
}

impl CloneParams {
    /// The server whose disk is copied.
    fn other(&self) -> Result<ServerId, Reason> {
        match self.keep.save.of {
            SaveOf::Server { server } => Ok(server),
            SaveOf::Copy { .. } => Err(Reason::new("task.bad_params", "a clone is made of a server")),
        }
    }

    /// As a server is created, over the image that there is by now.
    fn create(&self, task: &Task, records: &Records) -> Result<CreateParams, Reason> {
        let image: Image = records.need(&image_key(task, self.keep.image)?)?;
        Ok(CreateParams {
            image: BaseImage::of(&image),
            ..self.create.clone()
        })
    }
}

impl TaskFlow for ServerClone {
    fn name(&self) -> &'static str {
        "server.clone"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let mut keys = server_reads(task, have).unwrap_or_default();
        if let Ok(how) = params::<CloneParams>(task) {
            let other = how.other().and_then(|other| with_server(task, other, have));
            keys.extend(other.unwrap_or_default());
            keys.extend(image_key(task, how.keep.image));
            keys.extend(quota_reads(task, have).unwrap_or_default());
        }
        keys
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let how: CloneParams = params(task)?;
        let mut other: Server = cx.records.need(&server_key(task, how.other()?)?)?;
        let (place, moment) = (host(&other)?, how.keep.save.moment(&other));
        let take = Step::new(
            "snapshot.take",
            "hold the other server's disk still",
            place,
            &moment,
        )?;
        let (changes, generation) = ordered(task, Txn::new(), Some(&mut other), cx)?;
        Ok(Planned {
            stage: FREEZE.to_owned(),
            jobs: vec![take.attempts(3, 2000).weight(3).within(3600).done()],
            generation,
            changes,
            ..Planned::default()
        })
    }

    fn next(
        &self,
        task: &Task,
        end: &StageEnd<'_>,
        cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        let how: CloneParams = params(task)?;
        if !copies(end.stage) {
            return another(task, end, cx, &how.create(task, cx.records)?);
        }
        if *end.outcome != StageOutcome::Done {
            return Ok(None);
        }
        if end.stage == PUBLISH {
            let create = how.create(task, cx.records)?;
            return on_a_host(task, cx, &create, BTreeSet::new()).map(Some);
        }
        let other: Server = cx.records.need(&server_key(task, how.other()?)?)?;
        how.keep.next(task, &other, end, cx)
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let how: CloneParams = params(task)?;
        let mut settled = made(task, cx, &how.create, |server| {
            if matches!(cx.end, TaskEnd::Failed | TaskEnd::Cancelled) {
                server.status.own_image = None;
            }
        })?;
        let other: Option<Server> = cx.records.get(&server_key(task, how.other()?)?)?;
        let txn = free_server(task, settled.changes, other, cx, |_| {})?;
        settled.changes = how.keep.settled(txn, task, cx)?;
        if cx.end == TaskEnd::Done {
            settled.changes = settled.changes.and(look_soon(task, cx)?);
        }
        Ok(settled)
    }
}
