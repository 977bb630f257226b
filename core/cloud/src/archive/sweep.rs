//! Looking for what can go to the archive, in portions, until the process ends.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use skyloom_model::{Event, Task, TaskId, paths};
use skyloom_store::{Error, Key, KeyValue, Result};
use tokio_util::sync::CancellationToken;

use super::copy::{Fate, key, of_record};
use super::walk::{Verdict, Walk};
use super::{Archive, EVENTS_AFTER, at_once};

/// Records of an area that one portion looks at.
const MOST: usize = 4_000;
/// Tasks that are on their way at the same time.
const SIDE_BY_SIDE: usize = 8;
/// Bytes of events in one commit.
const MOST_BYTES: usize = 512 << 10;
/// The pause before the rest, when there was more than one portion looks at.
const PAUSE: Duration = Duration::from_secs(1);
/// The pauses between two passes.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(600);
/// The first pause after a failure; it doubles.
const BACK_OFF: Duration = Duration::from_secs(5);
/// Tasks that are known not to be movable, so that each is reported once.
const MOST_REPORTED: usize = 10_000;

/// What one look, or several, did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// Tasks that came to the archive and left the hot store.
    pub tasks: usize,
    /// Events that did.
    pub events: usize,
    /// Records that could not be moved and stay in the hot store. They have been reported in the log.
    pub left: usize,
    /// Tasks and events that the archive need not keep any more.
    pub forgotten: usize,
}

impl Moved {
    fn add(&mut self, other: Self) {
        self.tasks += other.tasks;
        self.events += other.events;
        self.left += other.left;
        self.forgotten += other.forgotten;
    }
}

/// Where a pass goes on.
#[derive(Debug)]
pub(super) struct Pass {
    tasks: Walk,
    events: Walk,
    pub(super) old_tasks: Walk,
    pub(super) old_events: Walk,
}

impl Pass {
    fn new() -> Self {
        Self {
            tasks: Walk::new(paths::TASKS),
            events: Walk::new(paths::EVENTS),
            old_tasks: Walk::new(paths::ARCHIVED_TASKS),
            old_events: Walk::new(paths::ARCHIVED_EVENTS),
        }
    }

    fn under_way(&self) -> bool {
        [&self.tasks, &self.events, &self.old_tasks, &self.old_events]
            .iter()
            .any(|walk| walk.under_way())
    }
}

impl Archive {
    /// Until `shutdown`: moves what has ended long enough ago. Any number of processes may do it.
    pub async fn run(&self, shutdown: CancellationToken) {
        if !self.moves() {
            return;
        }
        let every = (self.config().after / 10).clamp(SHORTEST, LONGEST);
        let (mut pass, mut pause, mut failures) = (Pass::new(), every.min(LONGEST), 0_u32);
        let mut total = Moved::default();
        loop {
            // A portion that is cut off is gone on with by the next process.
            let portion = async {
                tokio::time::sleep(pause).await;
                self.portion(&mut pass).await
            };
            let moved = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                moved = portion => moved,
            };
            pause = match moved {
                Ok(moved) => {
                    if failures > 0 {
                        tracing::info!("the archive works again");
                    }
                    failures = 0;
                    total.add(moved);
                    self.report(total, moved.left);
                    if pass.under_way() { PAUSE } else { every }
                }
                Err(error) => {
                    let why = skyloom_model::report(&error);
                    let behind = self.behind();
                    if failures == 0 {
                        tracing::warn!(error = %why, "the archive does not work; finished tasks stay in the store");
                    } else {
                        tracing::debug!(error = %why, behind = behind.as_secs(), "the archive still does not work");
                    }
                    // Not why: that may name addresses.
                    self.tell(format!(
                        "does not work, {} s behind; see the log",
                        behind.as_secs()
                    ));
                    metrics::gauge!("skyloom_archive_behind_seconds").set(behind.as_secs_f64());
                    metrics::counter!("skyloom_archive_failures_total").increment(1);
                    failures = failures.saturating_add(1);
                    // From the start again: what could not be moved lies before where it stopped.
                    pass = Pass::new();
                    (BACK_OFF * 2_u32.saturating_pow(failures - 1)).min(LONGEST)
                }
            };
        }
    }

    /// Moves all that can be moved now. What [`Archive::run`] does in small portions.
    ///
    /// # Errors
    /// Those of both stores; what was moved till then is moved.
    pub async fn move_all(&self) -> Result<Moved> {
        let (mut pass, mut total) = (Pass::new(), Moved::default());
        if !self.moves() {
            return Ok(total);
        }
        loop {
            total.add(self.portion(&mut pass).await?);
            if !pass.under_way() {
                return Ok(total);
            }
        }
    }

    fn report(&self, total: Moved, left: usize) {
        metrics::gauge!("skyloom_archive_behind_seconds").set(self.behind().as_secs_f64());
        let left = match left {
            0 => String::new(),
            left => format!("; {left} that cannot be moved stay in the store, see the log"),
        };
        self.tell(format!(
            "works; {} tasks and {} events moved since the start{left}",
            total.tasks, total.events
        ));
    }

    /// How much later than configured the oldest task that waits will be moved.
    fn behind(&self) -> Duration {
        let Some(end) = *self.0.waits.lock() else {
            return Duration::ZERO;
        };
        let age = Duration::try_from(self.now().duration_since(end)).unwrap_or_default();
        age.saturating_sub(self.config().after)
    }

    /// A portion of every area.
    async fn portion(&self, pass: &mut Pass) -> Result<Moved> {
        // An area that is through waits for the others.
        let all = !pass.under_way();
        let mut moved = Moved::default();
        if all || pass.tasks.under_way() {
            moved.add(self.tasks(&mut pass.tasks).await?);
        }
        if all || pass.events.under_way() {
            moved.add(self.events(&mut pass.events).await?);
        }
        if let Some(keep) = self.config().keep {
            if all || pass.old_tasks.under_way() {
                moved.forgotten += self.forget_tasks(&mut pass.old_tasks, keep, MOST).await?;
            }
            if all || pass.old_events.under_way() {
                moved.forgotten += self.forget_events(&mut pass.old_events, keep, MOST).await?;
            }
        }
        metrics::counter!("skyloom_archive_moved_total", "kind" => "tasks").increment(count(moved.tasks));
        metrics::counter!("skyloom_archive_moved_total", "kind" => "events").increment(count(moved.events));
        Ok(moved)
    }

    async fn tasks(&self, walk: &mut Walk) -> Result<Moved> {
        let (mut moved, mut looked) = (Moved::default(), 0);
        while looked < MOST {
            let step = walk.step(&**self.hot(), |kv| self.judge_task(kv)).await?;
            looked += step.looked;
            let old: Vec<(KeyValue, Task)> = step.old.into_iter().filter_map(finished).collect();
            let waits = old.iter().filter_map(|(_, task)| task.ended_at).min();
            let mut fates = stream::iter(old)
                .map(|(record, task)| async move {
                    let id = task.id;
                    (id, self.move_task(&record, task).await)
                })
                .buffer_unordered(SIDE_BY_SIDE);
            while let Some((id, fate)) = fates.next().await {
                match fate {
                    Ok(Fate::Moved) => moved.tasks += 1,
                    Ok(Fate::Elsewhere) => {}
                    Err(error) if of_record(&error) => {
                        self.report_left(id, &error);
                        moved.left += 1;
                    }
                    Err(error) => {
                        self.0.waits.lock().get_or_insert(waits.unwrap_or(self.now()));
                        return Err(error);
                    }
                }
            }
            if !walk.under_way() {
                break;
            }
        }
        *self.0.waits.lock() = None;
        Ok(moved)
    }

    fn judge_task(&self, kv: &KeyValue) -> Verdict {
        let Ok(task) = kv.value.parse::<Task>() else {
            tracing::debug!(key = %kv.key, "a task that cannot be read is not archived");
            return Verdict::Stays;
        };
        let after = self.config().after;
        match task.ended_at.filter(|_| task.state.ended()) {
            Some(end) if self.older(after, end) => Verdict::Old,
            // Nobody ends before he was asked for, and ids grow with the time of that.
            _ if !self.older(after, task.created_at) => Verdict::Young,
            _ => Verdict::Stays,
        }
    }

    fn report_left(&self, id: TaskId, error: &Error) {
        let mut reported = self.0.reported.lock();
        if reported.len() < MOST_REPORTED && reported.insert(id) {
            let error = skyloom_model::report(error);
            tracing::error!(task = %id, %error, "a finished task cannot be archived and stays where it is");
            metrics::counter!("skyloom_archive_left_total").increment(1);
        }
    }

    async fn events(&self, walk: &mut Walk) -> Result<Moved> {
        let (mut moved, mut looked) = (Moved::default(), 0);
        let most = at_once(self.hot().capability()).min(at_once(self.store().capability()));
        while looked < MOST {
            let step = walk
                .step(&**self.hot(), |kv| self.judge_event(kv, EVENTS_AFTER))
                .await?;
            looked += step.looked;
            let old = step.old.into_iter().filter_map(addressed).collect();
            for portion in portions(old, most) {
                let (events, left) = self.move_events(&portion).await?;
                moved.events += events;
                moved.left += left.len();
                for key in left {
                    tracing::warn!(%key, "an event cannot be archived and stays where it is");
                }
            }
            if !walk.under_way() {
                break;
            }
        }
        Ok(moved)
    }

    pub(super) fn judge_event(&self, kv: &KeyValue, keep: Duration) -> Verdict {
        match kv.value.parse::<Event>() {
            Ok(event) if self.older(keep, event.at) => Verdict::Old,
            Ok(_) => Verdict::Young,
            Err(_) => {
                tracing::debug!(key = %kv.key, "an event that cannot be read is not archived");
                Verdict::Stays
            }
        }
    }
}

fn finished(record: KeyValue) -> Option<(KeyValue, Task)> {
    let task = record.value.parse().ok()?;
    Some((record, task))
}

fn addressed(record: KeyValue) -> Option<(KeyValue, Key)> {
    let event: Event = record.value.parse().ok()?;
    let to = key(&paths::archived_event(event.scope, event.id)).ok()?;
    Some((record, to))
}

/// Cuts `old` where a commit would have too many operations or bytes.
fn portions(old: Vec<(KeyValue, Key)>, most: usize) -> Vec<Vec<(KeyValue, Key)>> {
    let mut all: Vec<Vec<_>> = Vec::new();
    let mut bytes = 0;
    for event in old {
        let length = event.0.value.bytes().len();
        match all.last_mut() {
            Some(last) if last.len() < most && bytes + length <= MOST_BYTES => {
                last.push(event);
                bytes += length;
            }
            _ => {
                all.push(vec![event]);
                bytes = length;
            }
        }
    }
    all
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
