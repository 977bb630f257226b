//! `image.import` and `image.delete`.

use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_model::{Image, ImageState, JobId, Place, Reason, Resource as _, Task, TaskEnd};
use skyloom_store::{Key, Txn};

use super::records::subject_key;
use super::{ImportParams, Step, output, params};
use crate::jobs::{DeleteImageInput, FetchInput, InspectInput, Inspected, PublishInput};

/// Fetches if need be, inspects, publishes.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageImport;

/// Removes an image's content, then its record.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageDelete;

impl TaskFlow for ImageImport {
    fn name(&self) -> &'static str {
        "image.import"
    }

    fn reads(&self, task: &Task, _have: &Records) -> Vec<Key> {
        subject_key(task).into_iter().collect()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let image: Image = cx.records.need(&subject_key(task)?)?;
        let ImportParams {
            upload,
            url,
            format,
            sha256,
        } = params(task)?;
        let mut jobs = Vec::new();
        let mut before = Vec::new();
        if let Some(url) = url {
            let fetch = Step::new(
                "image.fetch",
                "fetch the content",
                Place::Engine,
                &FetchInput { upload, url },
            )?;
            jobs.push(fetch.attempts(3, 2000).weight(10).done());
            before.push(JobId::new("image.fetch"));
        }
        let inspect = InspectInput {
            upload,
            format,
            sha256,
        };
        let inspect = Step::new("image.inspect", "inspect the content", Place::Engine, &inspect)?;
        jobs.push(inspect.after(before).weight(3).done());
        let publish = PublishInput {
            upload,
            image: image.id(),
        };
        let publish = Step::new("image.publish", "publish the content", Place::Engine, &publish)?;
        jobs.push(publish.after([JobId::new("image.inspect")]).done());
        Ok(Planned {
            jobs,
            generation: image.meta.generation,
            ..Planned::default()
        })
    }

    fn next(
        &self,
        _task: &Task,
        _end: &StageEnd<'_>,
        _cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        Ok(None)
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let at = subject_key(task)?;
        let Some(mut image) = cx.records.get::<Image>(&at)? else {
            return Ok(Settled::default());
        };
        image.meta.updated_at = cx.now;
        match (cx.end, output::<Inspected>(cx.outputs, "image.inspect")) {
            (TaskEnd::Done, Some(found)) => {
                image.status.state = ImageState::Active;
                image.status.size_bytes = found.size_bytes;
                image.status.virtual_size_bytes = found.virtual_size_bytes;
                image.status.sha256 = Some(found.sha256);
                image.status.fault = None;
            }
            (TaskEnd::Done, None) => {
                return Err(Reason::new("image.not_inspected", "the inspection gave no facts"));
            }
            (TaskEnd::Failed | TaskEnd::Cancelled | TaskEnd::Stuck, _) => {
                image.status.state = ImageState::Error;
                image.status.fault = cx.reason.cloned();
            }
        }
        Ok(Settled {
            changes: cx.records.put(Txn::new(), &at, &image)?,
            result: None,
        })
    }
}

impl TaskFlow for ImageDelete {
    fn name(&self) -> &'static str {
        "image.delete"
    }

    fn reads(&self, task: &Task, _have: &Records) -> Vec<Key> {
        subject_key(task).into_iter().collect()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let image: Image = cx.records.need(&subject_key(task)?)?;
        let input = DeleteImageInput { image: image.id() };
        let delete = Step::new("image.delete", "delete the content", Place::Engine, &input)?;
        let jobs = vec![delete.attempts(10, 1000).done()];
        Ok(Planned {
            jobs,
            generation: image.meta.generation,
            ..Planned::default()
        })
    }

    fn next(
        &self,
        _task: &Task,
        _end: &StageEnd<'_>,
        _cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        Ok(None)
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let at = subject_key(task)?;
        let Some(mut image) = cx.records.get::<Image>(&at)? else {
            return Ok(Settled::default());
        };
        let changes = if cx.end == TaskEnd::Done {
            cx.records.delete(Txn::new(), &at)
        } else {
            image.status.state = ImageState::Error;
            image.status.fault = cx.reason.cloned();
            image.meta.updated_at = cx.now;
            cx.records.put(Txn::new(), &at, &image)?
        };
        Ok(Settled {
            changes,
            result: None,
        })
    }
}
