//! What an agent is about to do and what came of it, on its own disk.
//!
//! ```text
//!  order ──> intend (durable) ──> effect, looked at ──> outcome (durable) ──> reported to the store ──> forget
//!               │ crash: look again and run                 │ crash: reported without running
//! ```
//!
//! The store says what shall be, the host what is; the journal says what this host was about to change, also when the store
//! cannot be asked or has lost its newest commits. An error of the journal means: do not act. It also keeps the incarnation:
//! the last epoch of the host's lease. Epochs only grow, so a smaller one comes from a store that was put back in time.
//!
//! Epochs, attempts and revisions mean something within one incarnation of the store only. The journal keeps which one its host
//! obeys; with a newer one it begins anew: what it knew is of a history that is no more, and jobs look before they act.
//!
//! All journals keep the same [`JournalState`]; they differ in where its [`Line`]s become durable.

mod memory;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt::{self, Debug};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use skyloom_model::{Incarnation, JobId, JobRecord, JobWant, Kinship, Reason, TaskId};
use skyloom_store::{LeaseName, Revision};

pub use memory::{MemoryDisk, MemoryJournal};

/// One direction of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Whose job it is.
    pub task: TaskId,
    /// The job.
    pub job: JobId,
    /// Which way.
    pub want: JobWant,
}

impl Effect {
    /// What `record` orders.
    #[must_use]
    pub fn of(record: &JobRecord) -> Self {
        Self {
            task: record.task,
            job: record.spec.id.clone(),
            want: record.want,
        }
    }

    fn order(&self) -> (TaskId, &JobId, bool) {
        (self.task, &self.job, self.want == JobWant::Undo)
    }
}

impl Ord for Effect {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order().cmp(&other.order())
    }
}

impl PartialOrd for Effect {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let undo = if self.want == JobWant::Undo {
            "undo of "
        } else {
            ""
        };
        write!(f, "{undo}job {} of task {}", self.job, self.task)
    }
}

/// What is about to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// What.
    pub effect: Effect,
    /// In which try.
    pub attempt: u32,
    /// For which generation of the subject.
    pub generation: u64,
    /// The revision of the job's record that ordered it.
    pub order: Revision,
}

/// What came of an effect: the job's output, or why it failed.
pub type JobOutcome = Result<Option<Value>, Reason>;

/// What a journal knows of one effect.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The last try that was begun.
    pub intent: Intent,
    /// What came of it; nothing when it was cut off.
    pub outcome: Option<JobOutcome>,
}

/// An agent's memory across its own death.
///
/// # Contract
/// * `Ok` of [`Journal::intend`], [`Journal::outcome`] and [`Journal::hold`] means durable: the next life of this journal
///   knows it. After an error nobody can tell, and the caller does not act.
/// * One journal is open in one process at a time.
#[async_trait]
pub trait Journal: Send + Sync + Debug + 'static {
    /// Keeps `intent`, in place of what was known of its effect.
    async fn intend(&self, intent: Intent) -> Result<(), JournalError>;

    /// Keeps what came of `intent`. Without effect when another try was begun meanwhile.
    async fn outcome(&self, intent: &Intent, outcome: JobOutcome) -> Result<(), JournalError>;

    /// Drops what is known of an effect: the store has it, or nobody wants it any more. Need not be durable.
    fn forget(&self, effect: &Effect);

    /// What is known of an effect.
    fn known(&self, effect: &Effect) -> Option<Entry>;

    /// All effects that something is known of.
    fn effects(&self) -> Vec<Effect>;

    /// Keeps that `lease` was granted at `epoch`, before anything is done under it.
    ///
    /// # Errors
    /// [`JournalErrorKind::Behind`] when it was held at that epoch or a later one before: the store has gone back in time.
    /// From then on every epoch is refused, until a person has looked and put the journal away.
    async fn hold(&self, lease: &LeaseName, epoch: u64) -> Result<(), JournalError>;

    /// Keeps that `incarnation` is obeyed, before anything is done under it; `true` when it follows on another one, of which
    /// everything is forgotten then.
    ///
    /// # Errors
    /// [`JournalErrorKind::Foreign`] when another cloud was obeyed before, [`JournalErrorKind::Behind`] when a newer incarnation
    /// was.
    async fn obey(&self, incarnation: &Incarnation) -> Result<bool, JournalError>;

    /// Which incarnation is obeyed.
    fn obeys(&self) -> Option<Incarnation>;
}

/// What went wrong with a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JournalErrorKind {
    /// The disk is full.
    Full,
    /// The disk does not work.
    Io,
    /// What is there is damaged.
    Corrupt,
    /// Another process has it open.
    InUse,
    /// The lease's epoch or the store's incarnation has gone back.
    Behind,
    /// The store is of another cloud.
    Foreign,
    /// Its owner has ended.
    Closed,
}

/// An error of a journal: one line, with a hint where something can be done.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct JournalError {
    kind: JournalErrorKind,
    what: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl JournalError {
    /// An error of `kind`; `what` says what went wrong, where, and what to do about it.
    #[must_use]
    pub fn new(kind: JournalErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of error it is.
    #[must_use]
    pub const fn kind(&self) -> JournalErrorKind {
        self.kind
    }
}

/// One step of a journal, as it is written to a disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// An effect is about to be made.
    Intent(Intent),
    /// What came of it.
    Outcome {
        /// Of what.
        effect: Effect,
        /// Of which try.
        attempt: u32,
        /// What came of it.
        outcome: JobOutcome,
    },
    /// It can be forgotten.
    Forget(Effect),
    /// An incarnation is obeyed.
    Obeys(Incarnation),
    /// A lease was granted.
    Held {
        /// Which.
        lease: LeaseName,
        /// At which epoch.
        epoch: u64,
    },
    /// A lease was granted at an epoch that cannot be.
    Refused {
        /// Which.
        lease: LeaseName,
        /// At which epoch.
        epoch: u64,
    },
}

/// What a journal knows: the sum of its lines.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JournalState {
    entries: BTreeMap<Effect, Entry>,
    obeys: Option<Incarnation>,
    held: Option<(LeaseName, u64)>,
    refused: Option<u64>,
}

impl JournalState {
    /// Takes in one line.
    pub fn apply(&mut self, line: Line) {
        match line {
            Line::Intent(intent) => {
                let entry = Entry {
                    intent,
                    outcome: None,
                };
                self.entries.insert(entry.intent.effect.clone(), entry);
            }
            Line::Outcome {
                effect,
                attempt,
                outcome,
            } => {
                if let Some(entry) = self.entries.get_mut(&effect)
                    && entry.intent.attempt == attempt
                {
                    entry.outcome = Some(outcome);
                }
            }
            Line::Forget(effect) => {
                self.entries.remove(&effect);
            }
            Line::Obeys(incarnation) => {
                if self.obeys.is_some_and(|before| before != incarnation) {
                    *self = Self::default();
                }
                self.obeys = Some(incarnation);
            }
            Line::Held { lease, epoch } => {
                self.held = Some((lease, epoch));
                self.refused = None;
            }
            Line::Refused { lease, epoch } => {
                if self.held.as_ref().is_some_and(|(held, _)| *held == lease) {
                    self.refused = Some(epoch);
                }
            }
        }
    }

    /// The fewest lines that make this state.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = self.obeys.map(Line::Obeys).into_iter().collect();
        if let Some((lease, epoch)) = &self.held {
            let (lease, epoch) = (lease.clone(), *epoch);
            lines.push(Line::Held {
                lease: lease.clone(),
                epoch,
            });
            lines.extend(self.refused.map(|epoch| Line::Refused { lease, epoch }));
        }
        for entry in self.entries.values() {
            lines.push(Line::Intent(entry.intent.clone()));
            lines.extend(entry.outcome.clone().map(|outcome| Line::Outcome {
                effect: entry.intent.effect.clone(),
                attempt: entry.intent.attempt,
                outcome,
            }));
        }
        lines
    }

    /// What is known of an effect.
    #[must_use]
    pub fn known(&self, effect: &Effect) -> Option<&Entry> {
        self.entries.get(effect)
    }

    /// All effects that something is known of, in order.
    pub fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.entries.keys()
    }

    /// Which incarnation is obeyed.
    #[must_use]
    pub fn obeys(&self) -> Option<Incarnation> {
        self.obeys
    }

    /// The line to keep when the store says that it is in `incarnation`, if there is one to keep.
    ///
    /// # Errors
    /// [`JournalErrorKind::Foreign`], [`JournalErrorKind::Behind`].
    pub fn obey(&self, incarnation: &Incarnation) -> Result<Option<Line>, JournalError> {
        let Some(known) = &self.obeys else {
            return Ok(Some(Line::Obeys(*incarnation)));
        };
        match known.kinship(incarnation) {
            Kinship::Same => Ok(None),
            Kinship::Newer => Ok(Some(Line::Obeys(*incarnation))),
            Kinship::Older => Err(JournalError::new(
                JournalErrorKind::Behind,
                format!(
                    "the store is in incarnation {} ({}), but this host has obeyed incarnation {} ({}): it is an old copy; \
                     restore it with `skyloom store restore`, or connect the host to the store in use",
                    incarnation.number, incarnation.id, known.number, known.id
                ),
            )),
            Kinship::Foreign => Err(JournalError::new(
                JournalErrorKind::Foreign,
                format!(
                    "the store is of cloud {}, but this host belongs to cloud {}: two control planes must not command one host; \
                     if it is to move, see that no guest is left on it, then put the journal away and start again",
                    incarnation.cluster, known.cluster
                ),
            )),
        }
    }

    /// The line to keep when `lease` is granted at `epoch`, and the error to answer when that cannot be.
    #[must_use]
    pub fn grant(&self, lease: &LeaseName, epoch: u64) -> (Line, Option<JournalError>) {
        let lease = lease.clone();
        match &self.held {
            Some((held, before)) if *held == lease && (self.refused.is_some() || epoch <= *before) => {
                let error = JournalError::new(
                    JournalErrorKind::Behind,
                    format!(
                        "the store granted {lease} at epoch {epoch}, but this host has held epoch {before}: the store was put \
                         back to an older state; compare this host's guests with the store, then put the journal away and \
                         start again"
                    ),
                );
                (Line::Refused { lease, epoch }, Some(error))
            }
            _ => (Line::Held { lease, epoch }, None),
        }
    }
}

/// Remembers nothing: for workers whose effects are all in the store, and for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoJournal;

#[async_trait]
impl Journal for NoJournal {
    async fn intend(&self, _: Intent) -> Result<(), JournalError> {
        Ok(())
    }
    async fn outcome(&self, _: &Intent, _: JobOutcome) -> Result<(), JournalError> {
        Ok(())
    }
    fn forget(&self, _: &Effect) {}
    fn known(&self, _: &Effect) -> Option<Entry> {
        None
    }
    fn effects(&self) -> Vec<Effect> {
        Vec::new()
    }
    async fn hold(&self, _: &LeaseName, _: u64) -> Result<(), JournalError> {
        Ok(())
    }
    async fn obey(&self, _: &Incarnation) -> Result<bool, JournalError> {
        Ok(false)
    }
    fn obeys(&self) -> Option<Incarnation> {
        None
    }
}
