//! Writers, and watchers that come and go: every commit is seen once and in order, or the loss of the position is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::super::failure::{ensure, ensure_eq};
use super::super::seat::{json, key, list_in_pages, prefix};
use super::super::{Exam, Failure, Sitting, Verdict};
use super::{Amount, CALM, Chance};
use crate::layer::{Chaos, ChaosConfig};
use crate::{
    Change, DynBackend, Error, ErrorKind, Key, KeyValue, ListOptions, Outcome, Prefix, Revision, Txn,
    WatchEvent, WatchOptions,
};

const WRITERS: u64 = 8;
const WATCHERS: u64 = 4;
/// Keys that are written.
const KEYS: u64 = 60;
/// Most changes of one commit.
const MOST_CHANGES: u64 = 10;
/// Revisions that are left when the history is cut.
const KEPT: u64 = 200;
/// Revisions that writers may be ahead of the foremost watcher: else a store that is fast enough has taken every change before
/// anybody has looked, and lists cover it all.
const LEAD: u64 = 400;
/// Longest time without anything.
const SILENCE: Duration = Duration::from_secs(60);

/// What the writers know.
#[derive(Debug, Default)]
struct Written {
    /// What each commit put, by its revision.
    done: BTreeMap<Revision, BTreeSet<(Key, i64)>>,
    /// What commits would have put of which nobody knows whether they happened, by their number.
    unknown: BTreeMap<i64, BTreeSet<(Key, i64)>>,
}

/// How far the foremost watcher is.
#[derive(Debug, Default)]
struct Pace {
    seen: AtomicU64,
    moved: Notify,
}

impl Pace {
    fn seen(&self, revision: Revision) {
        self.seen.fetch_max(revision.0, Ordering::SeqCst);
        self.moved.notify_waiters();
    }

    /// Waits until the foremost watcher is near enough to `revision`.
    async fn follow(&self, revision: Revision) -> Verdict {
        loop {
            let moved = self.moved.notified();
            if self.seen.load(Ordering::SeqCst) + LEAD >= revision.0 {
                return Ok(());
            }
            let waited = tokio::time::timeout(SILENCE, moved).await;
            waited.map_err(|_| Failure::new(format!("no watcher came near {revision} for {SILENCE:?}")))?;
        }
    }
}

/// What one watcher saw.
#[derive(Debug, Default)]
struct Diary {
    /// What each commit put.
    seen: BTreeMap<Revision, BTreeSet<(Key, i64)>>,
    /// What lists have covered: after the first, up to the second.
    listed: Vec<(Revision, Revision)>,
    now: BTreeMap<Key, KeyValue>,
    resumed: usize,
}

/// Writes the changes and checks what watchers saw of them. Needs a tokio runtime.
///
/// # Errors
/// What was missing, doubled, out of order or otherwise than it was written.
pub async fn watched(exam: &dyn Exam, amount: Amount) -> Verdict {
    let sitting = exam.fresh().await?;
    let verdict = one(&*sitting, exam.abilities().compact, amount).await;
    sitting.end().await;
    verdict
}

async fn one(sitting: &dyn Sitting, compact: bool, amount: Amount) -> Verdict {
    let written = Arc::new(Mutex::new(Written::default()));
    let pace = Arc::new(Pace::default());
    let commits = (amount.changes as u64 * 2)
        .div_ceil(MOST_CHANGES + 1)
        .div_ceil(WRITERS);
    let (last, told) = watch::channel(None);
    let start = sitting
        .store()
        .list(&prefix("soak")?, ListOptions::default())
        .await?
        .revision;
    let mut watchers = JoinSet::new();
    for n in 0..WATCHERS {
        let store = if n % 2 == 0 {
            sitting.store()
        } else {
            sitting.second()
        };
        let faults = ChaosConfig::default().with_watch_faults(1, 2, 2);
        let store: DynBackend = Arc::new(Chaos::new(store, faults, amount.seed ^ n));
        let chance = Chance(amount.seed + n);
        watchers.spawn(follow(store, start, told.clone(), pace.clone(), chance));
    }
    let mut writers = JoinSet::new();
    for n in 0..WRITERS {
        let store = if n % 2 == 0 {
            sitting.store()
        } else {
            sitting.second()
        };
        let store: DynBackend = Arc::new(Chaos::new(
            store,
            ChaosConfig::allowed(5),
            amount.seed ^ (n << 32),
        ));
        writers.spawn(write(
            store,
            n,
            commits,
            written.clone(),
            pace.clone(),
            Chance(amount.seed ^ (n << 16)),
        ));
    }
    let mut chance = Chance(amount.seed);
    loop {
        tokio::select! {
            biased;
            done = writers.join_next() => match done {
                Some(done) => done??,
                None => break,
            },
            () = tokio::time::sleep(CALM) => {
                sitting.disturb(chance.next()).await?;
                let newest = written.lock().done.keys().next_back().copied();
                if let Some(newest) = newest.filter(|r| compact && r.0 > KEPT && chance.below(3) == 0) {
                    sitting.compact(Revision(newest.0 - KEPT)).await?;
                }
            }
        }
    }
    let end = finish(&*sitting.store()).await?;
    let _ = last.send(Some(end));
    let (there, _) = list_in_pages(&*sitting.store(), &prefix("soak")?, 1000).await?;
    let there: BTreeMap<Key, KeyValue> = there.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
    let mut diaries = Vec::new();
    while let Some(diary) = watchers.join_next().await {
        diaries.push(diary??);
    }
    let written = written.lock();
    for diary in &diaries {
        check(diary, &written, start, end)?;
        ensure_eq!(diary.now, there, "a watcher's picture is not what is there");
    }
    let most = diaries.iter().map(|d| d.seen.len()).max().unwrap_or_default();
    ensure!(
        most * 2 > written.done.len(),
        "no watcher saw half of the {} commits; the best saw {most}",
        written.done.len()
    );
    let resumed: usize = diaries.iter().map(|d| d.resumed).sum();
    ensure!(resumed > 0, "no watcher ever resumed");
    Ok(())
}

/// The last commit, which must happen.
async fn finish(store: &dyn crate::Backend) -> Result<Revision, Failure> {
    loop {
        match store.commit(Txn::new().put(key("soak/end")?, json(-1)?)).await {
            Ok(Outcome::Committed { revision }) => return Ok(revision),
            Ok(conflict) => return Err(Failure::new(format!("{conflict:?} without a guard"))),
            Err(error) if passes(&error) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => return Err(error.into()),
        }
    }
}

fn passes(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unknown | ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Overloaded
    )
}

async fn write(
    store: DynBackend,
    writer: u64,
    commits: u64,
    written: Arc<Mutex<Written>>,
    pace: Arc<Pace>,
    mut chance: Chance,
) -> Verdict {
    for n in 0..commits {
        let number = i64::try_from(writer * commits + n)?;
        let (mut txn, mut touched, mut puts) = (Txn::new(), BTreeSet::new(), BTreeSet::new());
        for change in 0..=chance.below(MOST_CHANGES) {
            let at = key(&format!("soak/{}", chance.below(KEYS)))?;
            if !touched.insert(at.clone()) {
                continue;
            }
            // The first is always a put, so that every commit can be told by its number.
            if change > 0 && chance.below(4) == 0 {
                txn = txn.delete(at);
            } else {
                txn = txn.put(at.clone(), json(number)?);
                puts.insert((at, number));
            }
        }
        match store.commit(txn).await {
            Ok(Outcome::Committed { revision }) => {
                let other = written.lock().done.insert(revision, puts);
                ensure!(other.is_none(), "two commits were made at {revision}");
                pace.follow(revision).await?;
            }
            Ok(conflict) => return Err(Failure::new(format!("{conflict:?} without a guard"))),
            Err(error) if error.kind() == ErrorKind::Unknown => {
                written.lock().unknown.insert(number, puts);
            }
            Err(error) if passes(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Watches until it has seen the last commit; goes away and comes back now and then.
async fn follow(
    store: DynBackend,
    start: Revision,
    mut last: watch::Receiver<Option<Revision>>,
    pace: Arc<Pace>,
    mut chance: Chance,
) -> Result<Diary, Failure> {
    let below = prefix("soak")?;
    let (mut diary, mut at) = (Diary::default(), start);
    loop {
        let options = WatchOptions::after(at).with_buffer(1 << 16);
        let mut stream = store.watch(&below, options);
        let mut patience = 1 + chance.below(3_000);
        diary.resumed += 1;
        while patience > 0 {
            pace.seen(at);
            if last.borrow().is_some_and(|last| at >= last) {
                return Ok(diary);
            }
            let next = tokio::select! {
                biased;
                // It may be the one that has been seen already.
                Ok(()) = last.changed() => continue,
                next = tokio::time::timeout(SILENCE, stream.next()) => next,
            };
            match next.map_err(|_| Failure::new(format!("nothing came after {at} for {SILENCE:?}")))? {
                Some(Ok(WatchEvent::Commit { revision, changes })) => {
                    ensure!(revision > at, "{revision} was delivered after {at}");
                    at = revision;
                    diary.take(revision, changes)?;
                }
                Some(Ok(WatchEvent::Progress(revision))) => {
                    ensure!(revision >= at, "progress to {revision} after {at}");
                    at = revision;
                }
                Some(Ok(WatchEvent::Gap { .. })) => {
                    at = diary.list(&*store, &below, at).await?;
                    break;
                }
                Some(Err(error)) if passes(&error) => break,
                Some(Err(error)) => return Err(error.into()),
                None => break,
            }
            patience -= 1;
        }
    }
}

impl Diary {
    fn take(&mut self, revision: Revision, changes: Vec<Change>) -> Verdict {
        let mut puts = BTreeSet::new();
        for change in changes {
            match change {
                Change::Put(kv) => {
                    ensure_eq!(kv.modified, revision, "a change of another commit");
                    puts.insert((kv.key.clone(), kv.value.parse::<i64>()?));
                    self.now.insert(kv.key.clone(), kv);
                }
                Change::Delete(key) => {
                    let gone = self.now.remove(&key);
                    ensure!(
                        gone.is_some(),
                        "{key} was removed at {revision} and was not there"
                    );
                }
            }
        }
        self.seen.insert(revision, puts);
        Ok(())
    }

    /// Lists in place of what was lost.
    async fn list(
        &mut self,
        store: &dyn crate::Backend,
        below: &Prefix,
        at: Revision,
    ) -> Result<Revision, Failure> {
        loop {
            // Another commit may cut the history away between two pages; then it begins anew.
            match list_in_pages(store, below, 1000).await {
                Ok((items, revision)) => {
                    ensure!(revision >= at, "a list at {revision} after {at} had been seen");
                    self.now = items.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
                    self.listed.push((at, revision));
                    return Ok(revision);
                }
                Err(failure) => {
                    if let Err(error) = store.list(below, ListOptions::default()).await
                        && !passes(&error)
                    {
                        return Err(failure);
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// Every commit was seen once, as it was made, or a list has covered it; and nothing else was seen.
fn check(diary: &Diary, written: &Written, start: Revision, end: Revision) -> Verdict {
    for (revision, puts) in written.done.range(start..=end) {
        match diary.seen.get(revision) {
            Some(seen) => ensure_eq!(
                seen,
                puts,
                "commit {revision} was seen otherwise than it was made"
            ),
            None => ensure!(
                diary
                    .listed
                    .iter()
                    .any(|(after, to)| after < revision && revision <= to),
                "commit {revision} was never seen"
            ),
        }
    }
    let mut happened = BTreeSet::new();
    for (revision, puts) in &diary.seen {
        if written.done.contains_key(revision) || *revision == end {
            continue;
        }
        let number = puts.first().map_or(-1, |(_, number)| *number);
        if number == -1 {
            continue; // an earlier try of the last commit
        }
        let wanted = written.unknown.get(&number);
        ensure_eq!(
            Some(puts),
            wanted,
            "commit {revision} was seen and nobody made it"
        );
        ensure!(
            happened.insert(number),
            "a commit of unknown outcome happened twice"
        );
    }
    Ok(())
}
