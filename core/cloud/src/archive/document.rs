//! A task as it lies in the archive.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use skyloom_model::{FORMAT, Plan, Run, Scope, Task, TaskId, Timestamp, paths};
use skyloom_store::{Error, ErrorKind, KeyValue, Result, Revision, Value};

use super::copy::key;
use crate::hash;

/// One archived task. The records are kept as they were, also what this build does not know of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Document {
    /// Version of this document's format.
    pub(super) format: u16,
    /// When it came here.
    pub(super) archived_at: Timestamp,
    /// The revision of the task's record in the hot store.
    pub(super) revision: Revision,
    /// The task.
    pub(super) task: Json,
    /// What else there was to it.
    #[serde(flatten)]
    pub(super) rest: Rest,
    /// Where the rest is, when it is not here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parts: Option<Parts>,
}

/// What there is to a task beside its own record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rest {
    /// Its plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) plan: Option<Json>,
    /// Its jobs as they were at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<Json>,
}

/// The rest in pieces: `archive/task-part/{task}/{digest}-{number}`, numbers from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Parts {
    /// Tells these pieces from others of the same task.
    pub(super) digest: String,
    /// How many there are.
    pub(super) count: usize,
}

/// One piece of the text of a [`Rest`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) task: TaskId,
    pub(super) part: usize,
    pub(super) of: usize,
    pub(super) text: String,
}

/// Where an archived task is. Lies at [`paths::archived_task_id`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) scope: Scope,
    pub(super) ended_at: Timestamp,
}

/// Only the task of a [`Document`].
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TaskOf {
    pub(super) task: Task,
}

/// Where the parts of a [`Document`] are.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct PartsOf {
    #[serde(default)]
    pub(super) parts: Option<Parts>,
}

/// An archived task as it is read.
#[derive(Debug, Clone)]
pub(crate) struct Archived {
    /// The revision of the task's record while it was in the hot store.
    pub(crate) revision: Revision,
    /// The task.
    pub(crate) task: Task,
    /// Its plan, if it had one.
    pub(crate) plan: Option<Plan>,
    /// What became of its jobs.
    pub(crate) run: Option<Run>,
}

/// A finished task's records in the hot store.
#[derive(Debug, Clone)]
pub(super) struct Finished {
    pub(super) record: KeyValue,
    pub(super) task: Task,
    pub(super) ended_at: Timestamp,
    pub(super) plan: Option<KeyValue>,
    pub(super) run: Option<KeyValue>,
}

/// A finished task ready to be written to the archive.
#[derive(Debug)]
pub(super) struct Composed {
    /// The document.
    pub(super) head: Value,
    /// Where it is.
    pub(super) place: Value,
    /// What goes before it, with its name below the task's parts.
    pub(super) parts: Vec<(String, Value)>,
}

/// What is compared: two copies are equal when these are.
#[derive(Debug, PartialEq)]
pub(super) struct Content {
    task: Json,
    rest: Rest,
}

impl Content {
    pub(super) fn of(document: Document) -> Self {
        Self {
            task: document.task,
            rest: document.rest,
        }
    }
}

impl Finished {
    /// The content of a copy, as it is read back.
    pub(super) fn content(&self) -> Result<Content> {
        // Written and read once, as every number is on its way through a store.
        Ok(Content {
            task: again(&self.record)?,
            rest: Rest {
                plan: self.plan.as_ref().map(again).transpose()?,
                run: self.run.as_ref().map(again).transpose()?,
            },
        })
    }

    /// What is written, each value no longer than `longest`.
    pub(super) fn compose(&self, now: Timestamp, longest: usize) -> Result<Composed> {
        let Content { task, rest } = self.content()?;
        let place = Value::json(&Place {
            scope: self.task.scope,
            ended_at: self.ended_at,
        })?;
        let document = Document {
            format: FORMAT,
            archived_at: now,
            revision: self.record.modified,
            task,
            rest,
            parts: None,
        };
        let head = Value::json(&document)?;
        if head.bytes().len() <= longest {
            return Ok(Composed {
                head,
                place,
                parts: Vec::new(),
            });
        }
        let text = serde_json::to_string(&document.rest).map_err(unreadable)?;
        // A piece of JSON text, as text in JSON, is at most twice as long.
        let pieces = pieces(&text, (longest.saturating_sub(200) / 2).max(1));
        let length = pieces.first().map_or(0, |piece| piece.len()).to_string();
        let mut digest = hash::sha256_of(&[text.as_bytes(), length.as_bytes()]);
        digest.truncate(16);
        let of = pieces.len();
        let part = |(at, piece): (usize, &&str)| {
            let part = at + 1;
            let value = Value::json(&Part {
                task: self.task.id,
                part,
                of,
                text: (*piece).to_owned(),
            })?;
            Ok((part_name(&digest, part), value))
        };
        let parts = pieces.iter().enumerate().map(part).collect::<Result<_>>()?;
        let head = Value::json(&Document {
            rest: Rest::default(),
            parts: Some(Parts { digest, count: of }),
            ..document
        })?;
        if head.bytes().len() > longest {
            return Err(Error::new(ErrorKind::TooLarge, "archive task")
                .with("bytes", head.bytes().len())
                .with("limit", longest));
        }
        Ok(Composed { head, place, parts })
    }
}

impl Parts {
    /// The names of the parts, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = String> + '_ {
        (1..=self.count).map(|part| part_name(&self.digest, part))
    }
}

impl Archived {
    pub(super) fn of(document: Document) -> Result<Self> {
        let Document {
            revision, task, rest, ..
        } = document;
        Ok(Self {
            revision,
            task: serde_json::from_value(task).map_err(unreadable)?,
            plan: rest
                .plan
                .map(serde_json::from_value)
                .transpose()
                .map_err(unreadable)?,
            run: rest
                .run
                .map(serde_json::from_value)
                .transpose()
                .map_err(unreadable)?,
        })
    }
}

/// The rest that was written in parts.
pub(super) fn joined(texts: &[String]) -> Result<Rest> {
    serde_json::from_str(&texts.concat()).map_err(unreadable)
}

fn part_name(digest: &str, part: usize) -> String {
    format!("{digest}-{part:04}")
}

/// The key of a part.
pub(super) fn part_key(task: TaskId, name: &str) -> Result<skyloom_store::Key> {
    key(&format!("{}/{name}", paths::archived_parts(task)))
}

fn again(kv: &KeyValue) -> Result<Json> {
    let once: Json = kv.value.parse()?;
    Value::json(&once)?.parse()
}

/// `text` cut into pieces of at most `longest` bytes, between characters.
fn pieces(text: &str, longest: usize) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let mut end = longest.min(rest.len());
        while end < rest.len() && !rest.is_char_boundary(end) {
            end -= 1;
        }
        if end == 0 {
            end = rest.chars().next().map_or(rest.len(), char::len_utf8);
        }
        let (piece, behind) = rest.split_at(end);
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn unreadable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "read archived task").because(error)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_make_the_text_again_and_are_short(text in "\\PC{0,80}", longest in 1_usize..20) {
            let pieces = pieces(&text, longest);
            prop_assert_eq!(pieces.concat(), text.as_str());
            prop_assert!(pieces.iter().all(|p| p.len() <= longest.max(4) && !p.is_empty()));
        }
    }
}
