//! Jobs: I3, I4, I5, I7, I11.

use std::time::Duration;

use skyloom_flow::journal::Effect as Effort;
use skyloom_model::{JobId, JobRecord, JobState, JobWant, Place, TaskId, paths};
use skyloom_store::{Key, Value};

use super::model::{JobDoc, StepDoc, TaskModel};
use super::{Changed, Checker, id};
use crate::bed::{Part, Who};

impl Checker {
    pub(super) fn take_job(&mut self, key: &Key, value: Option<&Value>, changed: &mut Vec<Changed>) {
        let mut segments = key.segments().rev();
        let Some(name) = segments.next() else { return };
        let Some(task) = id::<TaskId>(segments.next()) else {
            return;
        };
        let job = JobId::new(name);
        let doc = if key.segments().next() == Some(paths::STEPS) {
            let step = self.parse::<StepDoc>(key, value);
            match step {
                Some(StepDoc { id: Some(_), .. }) => step.and_then(|step| self.whole(task, &job, step)),
                // In format 1 it is whole already.
                _ => self.parse::<JobDoc>(key, value),
            }
        } else {
            self.parse::<JobDoc>(key, value)
        };
        let anew = |doc: &JobDoc| matches!(doc.state, JobState::Ready | JobState::UndoReady);
        if doc.as_ref().is_none_or(anew) {
            for want in [JobWant::Run, JobWant::Undo] {
                let job = job.clone();
                self.journaled.remove(&Effort { task, job, want });
            }
        }
        let jobs = &mut self.tasks.entry(task).or_default().jobs;
        let before = match doc {
            Some(doc) => jobs.insert(job.clone(), doc),
            None => jobs.remove(&job),
        };
        changed.push(Changed::Job(task, job, before));
    }

    /// A step of the engine says only what its plan does not.
    fn whole(&mut self, task: TaskId, job: &JobId, step: StepDoc) -> Option<JobDoc> {
        let plan = self.tasks.get(&task).and_then(|t| t.plan.as_ref());
        let spec = plan.and_then(|p| p.jobs.iter().find(|j| j.id == *job)).cloned();
        if spec.is_none() || step.id.as_ref() != Some(job) {
            self.complain("I3", format!("step {job} of task {task} is not in its plan"));
        }
        Some(JobDoc {
            task,
            spec: spec?,
            want: step.want,
            attempt: step.attempt,
            state: step.state,
            worker: None,
        })
    }

    pub(super) fn check_job(
        &mut self,
        now: Duration,
        who: &Who,
        task: TaskId,
        job: &JobId,
        before: Option<&JobDoc>,
    ) {
        let Some(model) = self.tasks.get(&task) else {
            return;
        };
        let Some(doc) = model.jobs.get(job) else {
            // Deleted: only with the task's end, which is checked there.
            if !model.state().is_some_and(|s| s.ended()) {
                self.complain(
                    "I2",
                    format!("job {job} of task {task} is deleted before the task's end"),
                );
            }
            return;
        };
        let mut wrong: Vec<(&'static str, String)> = Vec::new();
        let name = || format!("job {job} of task {task}");
        if model.state().is_none_or(|s| s.ended()) {
            wrong.push(("I3", format!("{} is written and its task has ended", name())));
        }
        if let Part::Agent(host) = who.part
            && (doc.spec.place != Place::Host(host) || before.is_none())
        {
            wrong.push((
                "I11",
                format!("{} writes {} of {:?}", who.name, name(), doc.spec.place),
            ));
        }
        match before {
            None => wrong.extend(began(model, doc).map(|what| ("I7", what))),
            Some(before) => {
                let step = before.state != doc.state;
                if step && !may_become(before, doc) {
                    wrong.push((
                        "I3",
                        format!("{} goes from {:?} to {:?}", name(), before.state, doc.state),
                    ));
                }
                // Of an engine's job only results are written: one that fails again is ready again.
                let again = doc.spec.place == Place::Engine && doc.attempt == before.attempt + 1;
                let anew = before.want != doc.want
                    || (step || again) && matches!(doc.state, JobState::Ready | JobState::UndoReady);
                if before.attempt != doc.attempt && !anew {
                    let (old, new) = (before.attempt, doc.attempt);
                    wrong.push((
                        "I5",
                        format!("{} goes from attempt {old} to {new} without a new try", name()),
                    ));
                }
                if before.want == JobWant::Run && doc.want == JobWant::Undo {
                    wrong.extend(still_built_on(model, doc).map(|what| ("I7", what)));
                }
                if step && doc.state == JobState::Ready {
                    wrong.extend(began(model, doc).map(|what| ("I7", what)));
                }
                if let (Some(old), Some(new)) = (&before.worker, &doc.worker)
                    && !step
                    && old.lease != new.lease
                    && self.leases.held(&old.lease, now) == Some(old.epoch)
                {
                    wrong.push((
                        "I5",
                        format!("{} is taken from {} which is alive", name(), old.lease),
                    ));
                }
            }
        }
        for (invariant, what) in wrong {
            self.complain(invariant, what);
        }
    }

    /// What came of a try is kept on its host's disk.
    pub(crate) fn journaled(&mut self, effort: &Effort, attempt: u32) {
        self.journaled.insert(effort.clone(), attempt);
    }

    /// A job begins in a worker: I4, I5, I11.
    pub(crate) fn job_begins(&mut self, now: Duration, who: &Who, record: &JobRecord) {
        let name = format!(
            "{} {:?} of task {} attempt {}",
            record.spec.id, record.want, record.task, record.attempt
        );
        let Part::Agent(host) = who.part else { return };
        if record.spec.place != Place::Host(host) {
            self.complain(
                "I11",
                format!("{} begins {name}, which is of {:?}", who.name, record.spec.place),
            );
            return;
        }
        if self.journaled.get(&Effort::of(record)) == Some(&record.attempt) {
            self.complain(
                "I4",
                format!("{} begins {name}, of which its journal has the outcome", who.name),
            );
        }
        let lease = paths::host_lease(host);
        let epoch = record.worker.as_ref().map_or(0, |w| w.epoch);
        if !self.leases.promised(&lease, epoch, now) {
            self.complain(
                "I5",
                format!("{} begins {name} and its lease, epoch {epoch}, is over", who.name),
            );
        }
        let model = self.tasks.get(&record.task);
        let stored = model.and_then(|t| t.jobs.get(&record.spec.id));
        let wanted = match record.want {
            JobWant::Run => JobState::Started,
            JobWant::Undo => JobState::UndoStarted,
        };
        let Some(stored) = stored else {
            self.complain(
                "I4",
                format!("{} begins {name}, which is over with its task", who.name),
            );
            return;
        };
        if stored.attempt != record.attempt || stored.want != record.want || stored.state != wanted {
            let (attempt, state) = (stored.attempt, stored.state);
            self.complain(
                "I4",
                format!(
                    "{} begins {name}; stored is attempt {attempt}, {state:?}",
                    who.name
                ),
            );
        }
    }
}

/// Whether a job may go on like this. Of an engine's job only results are written.
fn may_become(before: &JobDoc, after: &JobDoc) -> bool {
    before.state.may_become(after.state)
        || before.spec.place == Place::Engine
            && before.state != JobState::Undone
            && (before.want == JobWant::Run || after.want == JobWant::Undo)
}

/// What is missing for a job to begin.
fn began(model: &TaskModel, doc: &JobDoc) -> Option<String> {
    if doc.want == JobWant::Undo || doc.state == JobState::Undone {
        return None;
    }
    let missing = doc
        .spec
        .after
        .iter()
        .find(|a| model.job(a) != Some(JobState::Succeeded))?;
    let state = model.job(missing);
    Some(format!(
        "job {} of task {} begins and {missing} is {state:?}",
        doc.spec.id, doc.task
    ))
}

/// What was built on a job that is to be undone, and is still there.
fn still_built_on(model: &TaskModel, doc: &JobDoc) -> Option<String> {
    let plan = model.plan.as_ref()?;
    let there = |id: &JobId| !matches!(model.job(id), None | Some(JobState::Undone));
    let above = plan
        .jobs
        .iter()
        .find(|j| j.after.contains(&doc.spec.id) && there(&j.id))?;
    let state = model.job(&above.id);
    Some(format!(
        "job {} of task {} is undone and {} is {state:?}",
        doc.spec.id, doc.task, above.id
    ))
}
