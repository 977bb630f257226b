//! `image.import` and `image.delete`.

use skyloom_flow::{PlanContext, Planned, Records, Refusal, SettleContext, Settled, StageEnd, TaskFlow};
use skyloom_model::{
    DiskFormat, Image, ImageState, JobId, JobSpec, Place, Reason, Resource as _, StageOutcome, Task, TaskEnd,
};
use skyloom_store::{Key, Txn};
use uuid::Uuid;

use super::records::{give_back, quota_reads, subject_key};
use super::{ImportParams, Outputs, Step, output, params};
use crate::amounts;
use crate::jobs::{DeleteImageInput, FetchInput, InspectInput, Inspected, PublishInput};

/// Fetches if need be and inspects; publishes what was found to be what was claimed.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageImport;

/// Removes an image's content, then its record.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageDelete;

impl TaskFlow for ImageImport {
    fn name(&self) -> &'static str {
        "image.import"
    }

    fn reads(&self, task: &Task, _have: &Records, _outputs: &Outputs) -> Vec<Key> {
        subject_key(task).into_iter().collect()
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let image: Image = cx.records.need(&subject_key(task)?)?;
        let ImportParams {
            upload, url, format, ..
        } = params(task)?;
        let mut jobs = Vec::new();
        let mut before = Vec::new();
        if let Some(url) = url {
            let input = FetchInput { upload, url };
            // No limit of its own: the fetcher keeps time, and the task may have a deadline.
            let fetch = Step::new("image.fetch", "fetch the content", Place::Engine, &input)?;
            jobs.push(fetch.attempts(3, 2000).weight(10).done());
            before.push(JobId::new("image.fetch"));
        }
        jobs.push(inspect(upload, format, before)?);
        Ok(Planned {
            stage: "inspect".to_owned(),
            jobs,
            generation: image.meta.generation,
            ..Planned::default()
        })
    }

    fn next(
        &self,
        task: &Task,
        end: &StageEnd<'_>,
        cx: &mut PlanContext<'_>,
    ) -> Result<Option<Planned>, Refusal> {
        if *end.outcome != StageOutcome::Done {
            return Ok(None);
        }
        let at = subject_key(task)?;
        let mut image: Image = cx.records.need(&at)?;
        let params: ImportParams = params(task)?;
        let found = output::<Inspected>(end.outputs, "image.inspect").ok_or_else(not_inspected)?;
        fits(&image, &params, &found)?;
        // Plans of format 1 publish in their only stage.
        if end.plan.jobs.iter().any(|job| job.kind == "image.publish") {
            return Ok(None);
        }
        note(&mut image, found);
        image.meta.updated_at = cx.now;
        Ok(Some(Planned {
            stage: "publish".to_owned(),
            jobs: vec![publish(&image, params.upload)?],
            generation: image.meta.generation,
            changes: cx.records.put(Txn::new(), &at, &image)?,
            ..Planned::default()
        }))
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let at = subject_key(task)?;
        let Some(mut image) = cx.records.get::<Image>(&at)? else {
            return Ok(Settled::default());
        };
        conclude(&mut image, cx)?;
        Ok(Settled {
            changes: cx.records.put(Txn::new(), &at, &image)?,
            result: None,
        })
    }
}

/// The job that looks at what is staged.
pub(super) fn inspect(
    upload: Uuid,
    format: DiskFormat,
    after: impl IntoIterator<Item = JobId>,
) -> Result<JobSpec, Reason> {
    let input = InspectInput { upload, format };
    let inspect = Step::new("image.inspect", "inspect the content", Place::Engine, &input)?;
    Ok(inspect.after(after).weight(3).within(3600).done())
}

/// The job that makes what is staged the image's content.
pub(super) fn publish(image: &Image, upload: Uuid) -> Result<JobSpec, Reason> {
    let input = PublishInput {
        upload,
        image: image.id(),
    };
    let publish = Step::new("image.publish", "publish the content", Place::Engine, &input)?;
    Ok(publish.within(600).done())
}

/// What an image is when its content was made, or was not.
pub(super) fn conclude(image: &mut Image, cx: &SettleContext<'_>) -> Result<(), Reason> {
    image.meta.updated_at = cx.now;
    match (cx.end, output::<Inspected>(cx.outputs, "image.inspect")) {
        (TaskEnd::Done, Some(found)) => {
            note(image, found);
            image.status.state = ImageState::Active;
            image.status.fault = None;
        }
        (TaskEnd::Done, None) => return Err(not_inspected()),
        (TaskEnd::Failed | TaskEnd::Cancelled | TaskEnd::Abandoned, _) => {
            image.status.state = ImageState::Error;
            image.status.size_bytes = 0;
            image.status.virtual_size_bytes = 0;
            image.status.sha256 = None;
            image.status.fault = cx.reason.cloned();
        }
    }
    Ok(())
}

/// What was found of the content.
pub(super) fn note(image: &mut Image, found: Inspected) {
    image.status.size_bytes = found.size_bytes;
    image.status.virtual_size_bytes = found.virtual_size_bytes;
    image.status.sha256 = Some(found.sha256);
}

pub(super) fn not_inspected() -> Reason {
    Reason::new("image.not_inspected", "the inspection gave no facts")
}

/// Whether what was found is what was claimed.
fn fits(image: &Image, params: &ImportParams, found: &Inspected) -> Result<(), Reason> {
    if let Some(claimed) = params.sha256.as_ref().filter(|claimed| **claimed != found.sha256) {
        let message = format!(
            "the content has the SHA-256 {}, not the claimed {claimed}",
            found.sha256
        );
        let hint = "the source has changed or is damaged: compare with what its publisher says";
        return Err(Reason::new("image.checksum_mismatch", message).hint(hint));
    }
    let (least, needed) = (
        image.spec.min_disk_gib,
        found.virtual_size_bytes.div_ceil(1 << 30),
    );
    if least > 0 && least < needed {
        let message =
            format!("the image describes a disk of {needed} GiB, more than its min_disk_gib of {least}");
        let hint = "register it with a larger min_disk_gib, or with none";
        return Err(Reason::new("image.min_disk_too_small", message).hint(hint));
    }
    Ok(())
}

impl TaskFlow for ImageDelete {
    fn name(&self) -> &'static str {
        "image.delete"
    }

    fn reads(&self, task: &Task, have: &Records, _outputs: &Outputs) -> Vec<Key> {
        let mut keys: Vec<Key> = subject_key(task).into_iter().collect();
        keys.extend(quota_reads(task, have).unwrap_or_default());
        keys
    }

    fn plan(&self, task: &Task, cx: &mut PlanContext<'_>) -> Result<Planned, Refusal> {
        let image: Image = cx.records.need(&subject_key(task)?)?;
        let input = DeleteImageInput { image: image.id() };
        let delete = Step::new("image.delete", "delete the content", Place::Engine, &input)?;
        let jobs = vec![delete.attempts(10, 1000).within(600).done()];
        Ok(Planned {
            jobs,
            generation: image.meta.generation,
            ..Planned::default()
        })
    }

    fn settle(&self, task: &Task, cx: &SettleContext<'_>) -> Result<Settled, Reason> {
        let at = subject_key(task)?;
        let Some(mut image) = cx.records.get::<Image>(&at)? else {
            return Ok(Settled::default());
        };
        let changes = if cx.end == TaskEnd::Done {
            let txn = cx.records.delete(Txn::new(), &at);
            give_back(txn, task, cx.records, &amounts::of_image())?
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
