//! Tasks, marks and plans: I2, I3, I4, I5.

use std::time::Duration;

use serde_json::Value as Json;
use skyloom_model::{Stage, TaskId, TaskState, paths};
use skyloom_store::{Key, Value};

use super::model::{PlanModel, PlanText, SpecDoc, TaskDoc};
use super::{Changed, Checker, id};
use crate::bed::{Part, Who};

impl Checker {
    pub(super) fn take_task(&mut self, key: &Key, value: Option<&Value>, changed: &mut Vec<Changed>) {
        let Some(task) = id::<TaskId>(Some(key.last())) else {
            return;
        };
        if value.is_none() && self.tasks.get(&task).is_some_and(|t| t.archived) {
            // It is in the archive as it was: for all other rules it is there still.
            return;
        }
        let doc = self.parse::<TaskDoc>(key, value);
        let model = self.tasks.entry(task).or_default();
        let text = value.map(|v| v.bytes().clone()).unwrap_or_default();
        let ended = model.state().is_some_and(TaskState::ended);
        let same = model.text == text;
        let before = std::mem::replace(&mut model.doc, doc);
        model.text = text;
        if ended && !same {
            self.complain("I3", format!("task {task} has ended and is changed"));
        }
        changed.push(Changed::Task(task, before));
    }

    /// I2: what is archived has ended, and is archived as it is.
    pub(super) fn take_archived(&mut self, key: &Key, value: Option<&Value>) {
        let Some(task) = id::<TaskId>(Some(key.last())) else {
            return;
        };
        let archived = self.parse::<Json>(key, value);
        let model = self.tasks.entry(task).or_default();
        let ended = model.state().is_some_and(TaskState::ended);
        let same = archived.is_some_and(|copy| {
            serde_json::from_slice::<Json>(&model.text).is_ok_and(|task| copy.get("task") == Some(&task))
        });
        model.archived = ended && same;
        if !model.archived {
            self.complain("I2", format!("task {task} is archived otherwise than it ended"));
        }
    }

    pub(super) fn check_task(&mut self, now: Duration, who: &Who, task: TaskId, before: Option<&TaskDoc>) {
        let Some(model) = self.tasks.get(&task) else {
            return;
        };
        let Some(doc) = &model.doc else {
            self.complain("I2", format!("task {task} is deleted"));
            return;
        };
        let mut wrong: Vec<(&'static str, String)> = Vec::new();
        match before {
            None => {
                if doc.state != TaskState::Queued || !model.mark {
                    wrong.push((
                        "I2",
                        format!("task {task} begins as {:?}, mark: {}", doc.state, model.mark),
                    ));
                }
                if doc.flow.starts_with("server.")
                    && !self
                        .servers
                        .contains_key(&skyloom_model::Id::from_uuid(doc.subject.id))
                {
                    wrong.push(("I2", format!("task {task} is there without its server")));
                }
                if let Some(key) = &doc.idempotency_key {
                    let slot = (doc.actor.id.clone(), key.clone());
                    if let Some(other) = self.keys.insert(slot, task) {
                        wrong.push((
                            "I4",
                            format!("tasks {other} and {task} were made for the key {key}"),
                        ));
                    }
                }
            }
            Some(before) => {
                if before.state != doc.state && !before.state.may_become(doc.state) {
                    wrong.push((
                        "I3",
                        format!("task {task} goes from {:?} to {:?}", before.state, doc.state),
                    ));
                }
                if who.part == Part::Engine {
                    let own = doc.owner.as_ref().is_some_and(|o| *o.engine == *who.name);
                    if !own {
                        wrong.push((
                            "I5",
                            format!("{} writes task {task} of {:?}", who.name, doc.owner),
                        ));
                    }
                } else if before.state != doc.state {
                    wrong.push(("I5", format!("{} sets task {task} to {:?}", who.name, doc.state)));
                }
                if let Some(old) = &before.owner
                    && doc.owner.as_ref().is_some_and(|new| new.engine != old.engine)
                    && self.leases.held(&paths::engine_lease(&old.engine), now) == Some(old.lease_epoch)
                {
                    wrong.push((
                        "I5",
                        format!("task {task} is taken from {}, which is alive", old.engine),
                    ));
                }
                if before.cancel && !doc.cancel {
                    wrong.push(("I2", format!("the cancellation of task {task} is forgotten")));
                }
            }
        }
        if doc.state.ended() {
            if model.mark || !model.jobs.is_empty() {
                let jobs = model.jobs.len();
                wrong.push((
                    "I12",
                    format!("task {task} has ended; mark: {}, live jobs: {jobs}", model.mark),
                ));
            }
            if model.plan.is_some() && !model.run {
                wrong.push((
                    "I2",
                    format!("task {task} has ended and its job records are lost"),
                ));
            }
        }
        if doc.state == TaskState::Stuck && doc.reason.is_none() {
            wrong.push(("I8", format!("task {task} is stuck without a reason")));
        }
        for (invariant, what) in wrong {
            self.complain(invariant, what);
        }
    }

    /// I2: what happens to a task is told in the commit in which it happens.
    pub(super) fn check_told(&mut self, task: TaskId, before: Option<&TaskDoc>, changed: &[Changed]) {
        let Some(doc) = self.tasks.get(&task).and_then(|t| t.doc.as_ref()) else {
            return;
        };
        let news = match before {
            None => !doc.flow.starts_with("sim."),
            Some(before) if before.state == doc.state => false,
            // Only an operator's order leads out of here, and that was told when it was given.
            Some(before) if before.state == TaskState::Stuck && !doc.state.ended() => false,
            Some(_) => doc.state.ended() || matches!(doc.state, TaskState::Stuck | TaskState::Unwinding),
        };
        if news
            && !changed
                .iter()
                .any(|c| matches!(c, Changed::Event(of) if *of == task))
        {
            let state = doc.state;
            self.complain("I2", format!("task {task} becomes {state:?} and nobody is told"));
        }
    }

    pub(super) fn check_mark(&mut self, task: TaskId) {
        let Some(model) = self.tasks.get(&task) else {
            return;
        };
        let open = model.state().is_some_and(|s| !s.ended());
        if model.mark != open {
            let state = model.state();
            self.complain("I2", format!("task {task} is {state:?}, mark: {}", model.mark));
        }
    }

    pub(super) fn take_plan(&mut self, key: &Key, value: Option<&Value>, changed: &mut Vec<Changed>) {
        let Some(task) = id::<TaskId>(Some(key.last())) else {
            return;
        };
        let Some(value) = value else {
            if !self.tasks.get(&task).is_some_and(|t| t.archived) {
                self.complain("I3", format!("the plan of task {task} is deleted"));
            }
            return;
        };
        let plan = serde_json::from_slice::<PlanText<'_>>(value.bytes()).and_then(|text| {
            let jobs = text.jobs.iter().map(|j| serde_json::from_str::<SpecDoc>(j.get()));
            Ok(PlanModel {
                jobs: jobs.collect::<Result<_, _>>()?,
                texts: text.jobs.iter().map(|j| j.get().into()).collect(),
                stages: text.stages,
            })
        });
        let plan = match plan {
            Ok(plan) => plan,
            Err(error) => {
                self.complain("I3", format!("{key} cannot be read: {error}"));
                return;
            }
        };
        let before = self.tasks.entry(task).or_default().plan.replace(plan.clone());
        if let Some(before) = before
            && !appended(&before, &plan)
        {
            self.complain(
                "I3",
                format!("the plan of task {task} is changed, not appended to"),
            );
        }
        changed.push(Changed::Plan(task));
    }

    pub(super) fn check_plan_writer(&mut self, who: &Who, task: TaskId) {
        if who.part != Part::Engine {
            self.complain("I3", format!("{} writes the plan of task {task}", who.name));
        }
    }
}

/// Whether `after` is `before` and perhaps more; a stage's outcome may be told once.
fn appended(before: &PlanModel, after: &PlanModel) -> bool {
    let same_stage = |a: &Stage, b: &Stage| {
        a.name == b.name
            && a.jobs == b.jobs
            && a.generation == b.generation
            && a.made_at == b.made_at
            && (a.outcome.is_none() || a.outcome == b.outcome)
    };
    after.texts.starts_with(&before.texts)
        && after.stages.len() >= before.stages.len()
        && before
            .stages
            .iter()
            .zip(&after.stages)
            .all(|(a, b)| same_stage(a, b))
}
