//! What goes wrong in one run, and what all parts of the run share.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use skyloom_model::{HostId, JobId, JobRecord, JobWant, TaskId};
use skyloom_store::latest;
use tokio::sync::mpsc;

use super::{Digest, World};

/// What goes wrong in one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    None,
    /// Every job is done twice before its result is known, and every undo.
    Twice,
    /// A job fails; everything else is done twice.
    Fail(Target, When, How),
    /// The last job fails for good, and the first undo of jobs of this kind fails for a passing reason.
    UndoFails(String, When),
    /// The last job fails for good, and undos of this kind fail until an operator has repaired it and says `retry`.
    Stuck(String),
    /// A process dies at a commit. With `back`, the last job has failed for good.
    Crash {
        /// At which commit, from 1.
        at: usize,
        /// Whether the commit happens; its answer never comes.
        applied: bool,
        /// Who dies.
        who: Who,
        /// Whether the task is on its way back at some time.
        back: bool,
    },
    /// The task is cancelled right after this commit, from 1.
    Cancel(usize),
}

/// Which jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one of that name.
    Job(JobId),
    /// All of a kind, in whatever stage.
    Kind(String),
}

/// When a job fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before it has done anything.
    Before,
    /// When its effect is there.
    After,
}

/// How a job fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// For good.
    ForGood,
    /// For a passing reason, each time.
    EachTime,
}

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Whoever makes the commit.
    One,
    /// Everybody.
    All,
}

/// A process of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Process {
    /// The engine.
    Engine,
    /// The agent of a host.
    Agent(HostId),
}

/// What happens to one try of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Once,
    Twice,
    Fail(When, How),
}

/// What all parts of a run share.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) world: Arc<dyn World>,
    pub(super) trouble: Trouble,
    /// The kind of the plain run's last job: where ways back begin.
    turn: Option<String>,
    /// Commits that this run's processes have made.
    commits: latest::Sender<usize>,
    deaths: mpsc::UnboundedSender<Process>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    task: Option<TaskId>,
    died: bool,
    repaired: bool,
    passed: BTreeSet<Digest>,
}

impl Script {
    pub(super) fn new(
        world: Arc<dyn World>,
        trouble: Trouble,
        turn: Option<String>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Process>) {
        let (deaths, died) = mpsc::unbounded_channel();
        let script = Self {
            world,
            trouble,
            turn,
            commits: latest::channel(0).0,
            deaths,
            inner: Mutex::default(),
        };
        (Arc::new(script), died)
    }

    /// The task has been asked for: from now on its commits count.
    pub(super) fn asked(&self, task: TaskId) {
        self.inner.lock().task = Some(task);
    }

    pub(super) fn changes(&self) -> latest::Receiver<usize> {
        self.commits.subscribe()
    }

    pub(super) fn commits(&self) -> usize {
        *self.commits.borrow()
    }

    /// What the outside looked like after each commit.
    pub(super) fn passed(&self) -> BTreeSet<Digest> {
        self.inner.lock().passed.clone()
    }

    /// An operator has repaired what undos failed on.
    pub(super) fn repair(&self) {
        self.inner.lock().repaired = true;
    }

    /// Whether the next commit is one that somebody dies at, and whether it still happens.
    pub(super) fn cut(&self) -> Option<bool> {
        let inner = self.inner.lock();
        match self.trouble {
            Trouble::Crash { at, applied, .. } if !inner.died && inner.task.is_some() => {
                (self.commits() + 1 == at).then_some(applied)
            }
            _ => None,
        }
    }

    /// `process` dies now, or all do.
    pub(super) fn die(&self, process: Process) {
        self.inner.lock().died = true;
        // The run itself listens as long as there are processes.
        let _ = self.deaths.send(process);
    }

    /// A commit has happened.
    pub(super) async fn committed(&self) {
        let Some(task) = self.inner.lock().task else {
            return;
        };
        self.commits.send_modify(|n| *n += 1);
        match self.trouble {
            Trouble::Cancel(after) if self.commits() == after => self.world.cancel(task).await,
            Trouble::None => {
                let digest = self.world.digest().await;
                self.inner.lock().passed.insert(digest);
            }
            _ => {}
        }
    }

    pub(super) fn fate(&self, record: &JobRecord) -> Fate {
        let (run, kind) = (record.want == JobWant::Run, &record.spec.kind);
        let turns = run && self.turn.as_ref() == Some(kind);
        let fail = Fate::Fail(When::After, How::ForGood);
        match &self.trouble {
            Trouble::Twice => Fate::Twice,
            Trouble::Fail(target, when, how) if run && target.is(record) => Fate::Fail(*when, *how),
            Trouble::Fail(..) => Fate::Twice,
            Trouble::UndoFails(..) | Trouble::Stuck(_) | Trouble::Crash { back: true, .. } if turns => fail,
            Trouble::UndoFails(broken, when) if !run && broken == kind && record.attempt == 1 => {
                Fate::Fail(*when, How::EachTime)
            }
            Trouble::Stuck(broken) if !run && broken == kind && !self.inner.lock().repaired => {
                Fate::Fail(When::Before, How::ForGood)
            }
            Trouble::None
            | Trouble::UndoFails(..)
            | Trouble::Stuck(_)
            | Trouble::Crash { .. }
            | Trouble::Cancel(_) => Fate::Once,
        }
    }
}

impl Target {
    fn is(&self, record: &JobRecord) -> bool {
        match self {
            Self::Job(id) => *id == record.spec.id,
            Self::Kind(kind) => *kind == record.spec.kind,
        }
    }
}
