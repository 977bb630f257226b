//! The steps of a task as people see them: a live list on a terminal, one line per finished step elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use skyloom_model::{JobId, JobRecord, JobSpec, JobState, Stage, StageOutcome, Task, TaskState};

use crate::client::types::TaskDocument;
use crate::out;
use crate::text::{clean, took, word};

/// One job of a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) spec: &'a JobSpec,
    pub(crate) record: Option<&'a JobRecord>,
    /// Whether it runs without a record: in the engine.
    pub(crate) running: bool,
    /// How many jobs must come before, on the longest way.
    pub(crate) depth: usize,
}

/// The jobs in plan order with what is known of each.
pub(crate) fn steps(document: &TaskDocument) -> Vec<Step<'_>> {
    let specs: Vec<&JobSpec> = match &document.plan {
        Some(plan) => plan.jobs.iter().collect(),
        None => document.jobs.iter().map(|job| &job.spec).collect(),
    };
    let mut depths: BTreeMap<&JobId, usize> = BTreeMap::new();
    let mut steps = Vec::new();
    for spec in specs {
        let before = spec.after.iter().filter_map(|id| depths.get(id)).max();
        let depth = before.map_or(0, |depth| depth + 1);
        depths.insert(&spec.id, depth);
        let record = document.jobs.iter().find(|job| job.spec.id == spec.id);
        let running = document.running.contains(&spec.id);
        steps.push(Step {
            spec,
            record,
            running,
            depth,
        });
    }
    steps
}

impl Step<'_> {
    fn state(&self) -> Option<JobState> {
        self.record.map(|record| record.state)
    }

    /// A sign for where it stands.
    pub(crate) fn sign(&self) -> &'static str {
        match self.state() {
            None if self.running => "●",
            None | Some(JobState::Ready) => "·",
            Some(JobState::Started) => "●",
            Some(JobState::Succeeded) => "✓",
            Some(JobState::Failed | JobState::UndoFailed) => "✗",
            Some(JobState::UndoReady | JobState::UndoStarted | JobState::Undone) => "↶",
        }
    }

    /// What it is, how long it took and what went wrong.
    pub(crate) fn text(&self) -> String {
        let mut text = clean(&self.spec.title);
        let Some(record) = self.record else { return text };
        if let (Some(from), Some(to)) = (record.started_at, record.ended_at) {
            text.push_str(&format!("  {}", took(from, to)));
        }
        if record.attempt > 1 {
            text.push_str(&format!("  try {}", record.attempt));
        }
        if !matches!(
            record.state,
            JobState::Ready | JobState::Started | JobState::Succeeded
        ) {
            text.push_str(&format!("  {}", word(&record.state).replace('_', " ")));
        }
        if let Some(error) = &record.error {
            text.push_str(&format!("  {}", clean(&error.whole())));
        }
        text
    }

    /// Whether nothing more happens to it for now.
    fn settled(&self) -> bool {
        self.state().is_some_and(|state| !state.for_worker())
    }
}

/// The step at which a task is stuck, and why.
pub(crate) fn stuck_at(document: &TaskDocument) -> Option<String> {
    let wanted = match document.task.resume {
        Some(TaskState::Unwinding) => JobState::UndoFailed,
        _ => JobState::Failed,
    };
    let job = document.jobs.iter().find(|job| job.state == wanted)?;
    let why = job
        .error
        .as_ref()
        .map(|e| format!(": {}", e.whole()))
        .unwrap_or_default();
    Some(format!("stuck at {} ({}){why}", job.spec.id, job.spec.title))
}

/// What an operator can order for a stuck task, as commands.
pub(crate) fn orders(task: &Task) -> Vec<String> {
    [
        ("retry", "the cause is repaired: try again"),
        (
            "skip",
            "what cannot be undone was dealt with by hand: take it as undone",
        ),
        ("abandon", "leave what is left; the task ends as failed"),
    ]
    .map(|(verb, when)| format!("skyloom task {verb} {} --why …  # {when}", task.id))
    .to_vec()
}

/// The tree of `task show`. Stages have heads when there are several.
pub(crate) fn tree(document: &TaskDocument) -> String {
    let steps = steps(document);
    let stages = document.plan.as_ref().map_or(&[][..], |plan| &plan.stages);
    let head = |step: &Step<'_>| {
        let begins = |stage: &&Stage| stage.jobs.first() == Some(&step.spec.id);
        stages.iter().find(begins).filter(|_| stages.len() > 1)
    };
    let width = |step: &Step<'_>| step.depth * 2 + step.spec.id.as_str().chars().count();
    let column = steps.iter().map(width).max().unwrap_or(0);
    let mut text = String::new();
    for step in &steps {
        if let Some(stage) = head(step) {
            let outcome = match &stage.outcome {
                None => "under way".to_owned(),
                Some(StageOutcome::Done) => "done".to_owned(),
                Some(StageOutcome::Undone(why)) => format!("undone, {why}"),
            };
            text.push_str(&format!("{}: {}\n", clean(&stage.name), clean(&outcome)));
        }
        let gap = column - width(step) + 2;
        text.push_str(&format!(
            "{:indent$}{} {}{:gap$}{}\n",
            "",
            step.sign(),
            clean(step.spec.id.as_str()),
            "",
            step.text(),
            indent = step.depth * 2,
        ));
    }
    text
}

/// Shows a task's steps while it is waited for.
#[derive(Debug)]
pub(crate) enum Show {
    /// On a terminal.
    Live {
        list: MultiProgress,
        bars: BTreeMap<JobId, ProgressBar>,
        waits: Option<ProgressBar>,
    },
    /// In a log: what was said once is not said again.
    Lines { said: BTreeSet<String> },
}

impl Show {
    pub(crate) fn new(live: bool) -> Self {
        if live {
            Self::Live {
                list: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
                bars: BTreeMap::new(),
                waits: None,
            }
        } else {
            Self::Lines {
                said: BTreeSet::new(),
            }
        }
    }

    /// Shows the newest document.
    pub(crate) fn update(&mut self, document: &TaskDocument) {
        let task = &document.task;
        let reason = task
            .reason
            .as_ref()
            .filter(|_| !task.state.rests())
            .map(|reason| format!("{}: {}", word(&task.state), clean(&reason.to_string())));
        match self {
            Self::Live { list, bars, waits } => {
                for step in steps(document) {
                    let bar = bars
                        .entry(step.spec.id.clone())
                        .or_insert_with(|| list.add(ProgressBar::new_spinner()));
                    draw(bar, &step);
                }
                match (reason, &waits) {
                    (Some(reason), _) => waits
                        .get_or_insert_with(|| list.add(ProgressBar::new_spinner()))
                        .set_message(reason),
                    (None, Some(bar)) => {
                        bar.finish_and_clear();
                        *waits = None;
                    }
                    (None, None) => {}
                }
            }
            Self::Lines { said } => {
                let steps = steps(document);
                let lines = steps
                    .iter()
                    .filter(|step| step.settled())
                    .map(|step| format!("{} {}", step.sign(), step.text()));
                for line in lines.chain(reason) {
                    if said.insert(line.clone()) {
                        out::message(&line);
                    }
                }
            }
        }
    }
}

/// A template that is known to be good; the default one otherwise.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn draw(bar: &ProgressBar, step: &Step<'_>) {
    let running = step.running || step.state().is_some_and(JobState::for_worker);
    if running {
        bar.set_style(style("{spinner} {msg}"));
        bar.enable_steady_tick(Duration::from_millis(120));
    } else {
        bar.disable_steady_tick();
        bar.set_style(style("{prefix} {msg}"));
        bar.set_prefix(step.sign());
    }
    bar.set_message(step.text());
    if step.settled() {
        bar.abandon();
    } else {
        bar.reset_elapsed();
        bar.tick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document() -> TaskDocument {
        let spec = |id: &str, after: &[&str]| {
            json!({"id": id, "kind": id, "title": format!("make {id}"), "input": {}, "after": after,
                "place": "engine", "weight": 1})
        };
        let task = "01980000-0000-7000-8000-000000000001";
        let subject = json!({"kind": "servers", "id": task, "name": "web-1"});
        let job = |spec: serde_json::Value, state: &str, error: serde_json::Value| {
            json!({"format": 1, "task": task, "scope": "system", "subject": subject, "generation": 1,
                "request_id": "r", "spec": spec, "want": "run", "attempt": 2, "state": state, "error": error,
                "started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:01.5Z"})
        };
        let plan = [
            spec("disk", &[]),
            spec("seed", &[]),
            spec("vm.start", &["disk", "seed"]),
        ];
        serde_json::from_value(json!({
            "task": {"format": 1, "id": task, "scope": "system", "flow": "server.create", "subject": subject,
                "params": {}, "actor": {"id": "a", "name": "a"}, "request_id": "r", "state": "running",
                "created_at": "2026-01-01T00:00:00Z"},
            "plan": {"format": 1, "task": task, "jobs": plan, "made_at": "2026-01-01T00:00:00Z"},
            "jobs": [job(spec("disk", &[]), "succeeded", json!(null)),
                job(spec("seed", &[]), "failed", json!({"code": "seed.bad", "message": "no room"}))],
        }))
        .unwrap()
    }

    #[test]
    fn the_tree_shows_order_state_time_and_reason() {
        assert_eq!(
            tree(&document()),
            "✓ disk        make disk  1.5s  try 2\n\
             ✗ seed        make seed  1.5s  try 2  failed  no room [seed.bad]\n  \
             · vm.start  make vm.start\n"
        );
    }

    #[test]
    fn what_runs_in_an_engine_is_shown_running() {
        let mut document = document();
        document.jobs.truncate(1);
        document.running = vec![JobId::new("seed")];
        assert!(
            tree(&document).contains("● seed        make seed\n"),
            "{}",
            tree(&document)
        );
    }

    #[test]
    fn several_stages_have_heads() {
        let mut document = document();
        let stage = |name: &str, jobs: &[&str], outcome: serde_json::Value| json!({"name": name, "jobs": jobs, "generation": 1, "made_at": "2026-01-01T00:00:00Z", "outcome": outcome});
        let undone = json!({"undone": {"code": "host.full", "message": "no room"}});
        let both = json!([
            stage("first", &["disk"], undone),
            stage("second", &["seed", "vm.start"], json!(null))
        ]);
        document.plan.as_mut().unwrap().stages = serde_json::from_value(both).unwrap();
        let text = tree(&document);
        assert!(
            text.starts_with("first: undone, no room [host.full]\n✓ disk "),
            "{text}"
        );
        assert!(text.contains("\nsecond: under way\n✗ seed "), "{text}");
    }

    #[test]
    fn without_a_plan_the_jobs_are_the_steps() {
        let mut document = document();
        document.plan = None;
        assert_eq!(steps(&document).len(), 2);
    }
}
