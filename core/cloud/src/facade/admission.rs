//! How many tasks may be unfinished at once: beyond that new ones are refused until some have ended.
//!
//! ```text
//!  once ── seat for the task ──> counts <── marks of unfinished tasks (mirror of active/, followed by keep_tidy)
//!            └ 429 tasks.too_many
//! ```
//!
//! Asking costs a look into two maps. A task that this process is about to submit is counted before its mark is seen,
//! so one process never goes over; of several processes each learns of the others' tasks as fast as a watch tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skyloom_model::{ActiveTask, Clock, Reason, Scope, Task, TaskId, paths};
use skyloom_store::{Changed, DynBackend, Key, Mirror};
use tokio_util::sync::CancellationToken;

use super::records::prefix;
use crate::{CloudError, ErrorKind, Result};

/// Bounds on unfinished tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskLimits {
    /// Of one project, or of the cloud itself.
    pub per_project: usize,
    /// Of all together.
    pub in_all: usize,
}

impl Default for TaskLimits {
    /// 1,000 of a project, 20,000 in all.
    fn default() -> Self {
        Self {
            per_project: 1000,
            in_all: 20_000,
        }
    }
}

/// A task that was let in and whose mark was not seen after so long is not waited for any more.
const UNSEEN: Duration = Duration::from_secs(60);
/// Ends are counted over one to two of these.
const WINDOW: Duration = Duration::from_secs(30);
/// What a refused caller is told when nothing has ended lately.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The unfinished tasks by count. Limits nothing before [`Admission::follow`] runs.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: TaskLimits,
    clock: Arc<dyn Clock>,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Whether the marks are followed.
    known: bool,
    /// Tasks whose marks were seen.
    open: BTreeMap<TaskId, Scope>,
    /// Tasks that were let in, since when.
    ahead: BTreeMap<TaskId, (Scope, Duration)>,
    /// How many of both each scope has.
    by_scope: BTreeMap<Scope, usize>,
    /// When the window began, ends in the one before and in this one.
    window: (Duration, u32, u32),
}

/// A task's place among the unfinished. Dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Seat {
    admission: Arc<Admission>,
    task: Option<TaskId>,
}

impl Seat {
    /// The task was submitted, or may have been: its mark will tell.
    pub(crate) fn keep(mut self) {
        self.task = None;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(task) = self.task {
            self.admission.counts.lock().leave_ahead(task);
        }
    }
}

impl Admission {
    pub(crate) fn new(limits: TaskLimits, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            clock,
            counts: Mutex::new(Counts::default()),
        })
    }

    /// Lets a task in, or says who has too many.
    pub(crate) fn admit(self: &Arc<Self>, task: &Task) -> Result<Seat> {
        let now = self.clock.monotonic();
        let mut counts = self.counts.lock();
        let seat = |task| Seat {
            admission: self.clone(),
            task,
        };
        if !counts.known {
            return Ok(seat(None));
        }
        let own = counts.by_scope.get(&task.scope).copied().unwrap_or_default();
        let all = counts.open.len() + counts.ahead.len();
        let (who, open, limit) = if own >= self.limits.per_project {
            let who = match task.scope {
                Scope::Project(_) => "the project",
                Scope::System => "the cloud itself",
            };
            (who, own, self.limits.per_project)
        } else if all >= self.limits.in_all {
            ("the whole cloud", all, self.limits.in_all)
        } else {
            counts.ahead.insert(task.id, (task.scope, now));
            *counts.by_scope.entry(task.scope).or_default() += 1;
            return Ok(seat(Some(task.id)));
        };
        let wait = counts.wait(limit, now);
        drop(counts);
        let message = format!("{who} has {open} unfinished tasks; {limit} are allowed at once");
        let reason = Reason::new("tasks.too_many", message)
            .hint(format!(
                "ask again in {} s, when some have ended; see the unfinished ones in the list of tasks",
                wait.as_secs()
            ))
            .retryable();
        Err(CloudError::new(ErrorKind::TooManyRequests, reason).retry_after(wait))
    }

    /// How many there are; nothing while they are not counted.
    pub(crate) fn open(&self) -> Option<usize> {
        let counts = self.counts.lock();
        counts.known.then(|| counts.open.len() + counts.ahead.len())
    }

    /// Counts by the marks of unfinished tasks until `shutdown`.
    pub(crate) async fn follow(&self, backend: &DynBackend, shutdown: CancellationToken) -> Result<()> {
        let (marks, driver) = Mirror::<ActiveTask>::new(backend.clone(), prefix(paths::ACTIVE)?);
        let mut changes = marks.changes();
        let follow = async {
            while let Some(changed) = changes.next().await {
                self.take(&changed, &marks);
            }
        };
        tokio::join!(driver.run(shutdown), follow);
        *self.counts.lock() = Counts::default();
        Ok(())
    }

    fn take(&self, changed: &Changed, marks: &Mirror<ActiveTask>) {
        let now = self.clock.monotonic();
        let mut counts = self.counts.lock();
        match changed {
            Changed::Keys(keys) => {
                for key in keys {
                    if let Some(task) = task_of(key) {
                        counts.see(task, marks.get(key).map(|mark| mark.value.scope), now);
                    }
                }
            }
            Changed::Everything => {
                let there: BTreeMap<TaskId, Scope> = marks
                    .snapshot()
                    .iter()
                    .map(|mark| (mark.value.task, mark.value.scope))
                    .collect();
                let gone: Vec<TaskId> = counts
                    .open
                    .keys()
                    .filter(|task| !there.contains_key(task))
                    .copied()
                    .collect();
                for task in gone {
                    counts.see(task, None, now);
                }
                for (task, scope) in there {
                    counts.see(task, Some(scope), now);
                }
            }
        }
        counts.forget_unseen(now);
        counts.known = true;
    }
}

/// The task of a mark's key.
fn task_of(key: &Key) -> Option<TaskId> {
    key.last().parse().ok()
}

impl Counts {
    /// A task's mark is there, or is gone.
    fn see(&mut self, task: TaskId, there: Option<Scope>, now: Duration) {
        self.leave_ahead(task);
        let before = match there {
            Some(scope) => self.open.insert(task, scope),
            None => self.open.remove(&task),
        };
        if let Some(scope) = before {
            self.one_less(scope);
        }
        match there {
            Some(scope) => *self.by_scope.entry(scope).or_default() += 1,
            None if before.is_some() => {
                self.roll(now);
                self.window.2 = self.window.2.saturating_add(1);
            }
            None => {}
        }
    }

    fn leave_ahead(&mut self, task: TaskId) {
        if let Some((scope, _)) = self.ahead.remove(&task) {
            self.one_less(scope);
        }
    }

    fn one_less(&mut self, scope: Scope) {
        if let Some(count) = self.by_scope.get_mut(&scope) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_scope.remove(&scope);
            }
        }
    }

    fn forget_unseen(&mut self, now: Duration) {
        let old = |since: Duration| now.saturating_sub(since) > UNSEEN;
        let lost: Vec<TaskId> = self
            .ahead
            .iter()
            .filter(|(_, (_, since))| old(*since))
            .map(|(task, _)| *task)
            .collect();
        for task in lost {
            self.leave_ahead(task);
        }
    }

    /// Begins a new window when this one is over.
    fn roll(&mut self, now: Duration) {
        let over = now.saturating_sub(self.window.0);
        if over >= WINDOW {
            let before = if over < WINDOW * 2 { self.window.2 } else { 0 };
            self.window = (now, before, 0);
        }
    }

    /// How long until about a hundredth of `limit` has ended, as fast as tasks end now: 1 to 30 seconds.
    fn wait(&mut self, limit: usize, now: Duration) -> Duration {
        self.roll(now);
        let (began, before, ended) = self.window;
        let ends = before.saturating_add(ended);
        if ends == 0 {
            return LONGEST_WAIT;
        }
        let over = now.saturating_sub(began) + if before > 0 { WINDOW } else { Duration::ZERO };
        let wanted = u32::try_from(limit / 100).unwrap_or(u32::MAX).max(1);
        let wait = over.saturating_mul(wanted) / ends;
        Duration::from_secs(wait.as_secs().saturating_add(1)).min(LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use skyloom_model::ProjectId;
    use uuid::Uuid;

    use super::*;

    fn id(n: u128) -> TaskId {
        TaskId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn a_task_is_counted_once_from_its_request_to_its_end() {
        let scope = Scope::Project(ProjectId::from_uuid(Uuid::from_u128(7)));
        let mut counts = Counts::default();
        counts.ahead.insert(id(1), (scope, Duration::ZERO));
        counts.by_scope.insert(scope, 1);
        counts.see(id(1), Some(scope), Duration::ZERO);
        counts.see(id(1), Some(scope), Duration::ZERO);
        assert_eq!((counts.by_scope[&scope], counts.open.len()), (1, 1));
        counts.see(id(1), None, Duration::ZERO);
        counts.see(id(1), None, Duration::ZERO);
        assert!(counts.by_scope.is_empty() && counts.open.is_empty());
        assert_eq!(counts.window.2, 1, "it ended once");
        // Created and gone before anybody looked.
        counts.ahead.insert(id(2), (scope, Duration::ZERO));
        counts.by_scope.insert(scope, 1);
        counts.see(id(2), None, Duration::ZERO);
        assert!(counts.by_scope.is_empty() && counts.ahead.is_empty());
    }

    #[test]
    fn what_never_shows_is_forgotten() {
        let mut counts = Counts::default();
        counts.ahead.insert(id(1), (Scope::System, Duration::ZERO));
        counts.by_scope.insert(Scope::System, 1);
        counts.forget_unseen(UNSEEN);
        assert_eq!(counts.ahead.len(), 1);
        counts.forget_unseen(UNSEEN + Duration::from_secs(1));
        assert!(counts.ahead.is_empty() && counts.by_scope.is_empty());
    }

    #[test]
    fn the_wait_follows_the_rate_of_ends() {
        let mut counts = Counts::default();
        let at = Duration::from_secs;
        assert_eq!(counts.wait(1000, at(5)), LONGEST_WAIT, "nothing ends");
        for n in 0..20 {
            counts.see(id(n), Some(Scope::System), at(5));
            counts.see(id(n), None, at(5));
        }
        // 20 ends in 10 s: ten more take 5 s.
        assert_eq!(counts.wait(1000, at(10)), at(6));
        assert_eq!(counts.wait(1000, at(200)), LONGEST_WAIT, "they are long past");
    }
}
