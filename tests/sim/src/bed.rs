//! The ground under all links: the one store, who did what there, the trace and the checker.
//!
//! ```text
//!  Link (engine-1) ──────────────> Direct ─┐        ┌─> MemoryStore
//!  Link (agent-2)  ─> AgentScoped ─> Direct ┼─> Bed ┼─> Checker: looks at every commit and effect as it happens
//!  Link (api)      ──────────────> Direct ─┘        └─> Trace: hash of every step
//! ```
//!
//! Everything here happens in one step, without waiting: what takes time happens in the links.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use skyloom_hypervisor::Effect;
use skyloom_model::{HostId, JobRecord};
use skyloom_store::{
    DynBackend, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases as _,
    ListOptions, MemoryConfig, MemoryStore, Outcome, Page, Prefix, Renewal, Result, Store as _, Txn,
    Watch as _, WatchEvent, WatchOptions,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::checker::Checker;
use crate::clock::TrueClock;
use crate::faults::{Kind, Weather};
use crate::link::Request;
use crate::play::Diary;
use crate::trace::Trace;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant is broken, such as `I6`.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
    /// When, in virtual time.
    pub at: Duration,
}

/// What sort of process makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// An engine; its lease is `engines/{name}`.
    Engine,
    /// The agent of a host.
    Agent(HostId),
    /// The API.
    Api,
    /// A part of the simulator that only looks.
    Watcher,
    /// Somebody with an agent's token.
    Rogue(HostId),
}

/// A process in one of its lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) name: Arc<str>,
    pub(crate) part: Part,
    pub(crate) life: u32,
}

/// A request whose sender has given it up or died, and that is still on its way.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) due: Instant,
    pub(crate) store: DynBackend,
    pub(crate) request: Request,
}

#[derive(Debug)]
struct State {
    trace: Trace,
    checker: Checker,
    violation: Option<Violation>,
    bites: BTreeMap<Kind, u64>,
    late: Vec<Late>,
    /// Processes that have killed themselves, by name.
    fallen: VecDeque<Arc<str>>,
    full: bool,
    /// What is written down for people, of a play.
    diary: Option<Diary>,
}

/// See above.
#[derive(Debug)]
pub(crate) struct Bed {
    pub(crate) clock: TrueClock,
    pub(crate) weather: Weather,
    store: MemoryStore,
    state: Mutex<State>,
    /// How much later than usual the store answers, in milliseconds.
    slow: AtomicU64,
    /// Tells the schedule's own loop that there is something to see.
    pub(crate) wake: Notify,
}

impl Bed {
    pub(crate) fn new(weather: Weather, history: usize, checker: Checker, keep_lines: usize) -> Self {
        let clock = TrueClock::new();
        Self {
            clock,
            weather,
            store: MemoryStore::new(Arc::new(clock), MemoryConfig::default().with_history(history)),
            state: Mutex::new(State {
                trace: Trace::new(keep_lines),
                checker,
                violation: None,
                bites: BTreeMap::new(),
                late: Vec::new(),
                fallen: VecDeque::new(),
                full: false,
                diary: None,
            }),
            slow: AtomicU64::new(0),
            wake: Notify::new(),
        }
    }

    /// With a diary.
    pub(crate) fn with_diary(mut self, diary: Diary) -> Self {
        self.state.get_mut().diary = Some(diary);
        self
    }

    /// The diary, if one was kept.
    pub(crate) fn take_diary(&self) -> Option<Diary> {
        self.state.lock().diary.take()
    }

    /// The diary, if one is kept, with the time.
    pub(crate) fn diary<T>(&self, write: impl FnOnce(&mut Diary, Duration) -> T) -> Option<T> {
        let now = self.clock.elapsed();
        self.state.lock().diary.as_mut().map(|diary| write(diary, now))
    }

    /// The state, looked at or changed by the schedule itself.
    pub(crate) fn checker<T>(&self, look: impl FnOnce(&mut Checker) -> T) -> T {
        look(&mut self.state.lock().checker)
    }

    /// Something must not be so.
    pub(crate) fn violated(&self, invariant: &'static str, what: String) {
        let mut state = self.state.lock();
        self.fail(&mut state, invariant, what);
    }

    fn fail(&self, state: &mut State, invariant: &'static str, what: String) {
        if state.violation.is_none() {
            let at = self.clock.elapsed();
            state.violation = Some(Violation { invariant, what, at });
            self.wake.notify_one();
        }
    }

    fn settle(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        if let Some((invariant, what)) = state.checker.complaint() {
            self.fail(&mut state, invariant, what);
        }
    }

    pub(crate) fn violation(&self) -> Option<Violation> {
        self.state.lock().violation.clone()
    }

    /// A fault has bitten.
    pub(crate) fn bit(&self, who: &str, kind: Kind, line: impl FnOnce() -> String) {
        let mut state = self.state.lock();
        *state.bites.entry(kind).or_default() += 1;
        self.step(&mut state, who, kind.name(), &[], 0, line);
    }

    /// Notes a step of the schedule itself or of a client.
    pub(crate) fn note(&self, who: &str, what: &str, line: impl FnOnce() -> String) {
        let mut state = self.state.lock();
        self.step(&mut state, who, what, &[], 0, line);
    }

    fn step(
        &self,
        state: &mut State,
        who: &str,
        what: &str,
        on: &[u8],
        outcome: u64,
        line: impl FnOnce() -> String,
    ) {
        // What comes after the end is of no interest.
        if state.violation.is_none() {
            let at = self.clock.elapsed();
            state.trace.step(at, who, what, on, outcome, line);
        }
    }

    /// Hash, steps and kept lines of the trace; and how often each fault has bitten.
    pub(crate) fn results(&self) -> (u64, u64, Vec<String>, BTreeMap<Kind, u64>) {
        let state = self.state.lock();
        (
            state.trace.hash(),
            state.trace.steps(),
            state.trace.lines(),
            state.bites.clone(),
        )
    }

    pub(crate) fn steps(&self) -> u64 {
        self.state.lock().trace.steps()
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// The store answers that much later than before, or sooner.
    pub(crate) fn slower(&self, by_ms: i64) {
        let slow = self.slow();
        self.slow
            .store(slow.saturating_add_signed(by_ms), Ordering::Relaxed);
    }

    /// The store answers as fast as ever.
    pub(crate) fn not_slow(&self) {
        self.slow.store(0, Ordering::Relaxed);
    }

    /// How much later than usual the store answers, in milliseconds.
    pub(crate) fn slow(&self) -> u64 {
        self.slow.load(Ordering::Relaxed)
    }

    pub(crate) fn compact(&self) {
        self.store.compact(self.store.revision());
    }

    // Calls.

    pub(crate) fn get(&self, who: &Who, key: &Key) -> Result<Option<KeyValue>> {
        let found = ready(self.store.get(key))?;
        let revision = found.as_ref().map_or(0, |kv| kv.modified.0);
        let mut state = self.state.lock();
        self.step(
            &mut state,
            &who.name,
            "get",
            key.as_str().as_bytes(),
            revision,
            || format!("{key} at {revision}"),
        );
        Ok(found)
    }

    pub(crate) fn list(&self, who: &Who, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        let page = ready(self.store.list(prefix, options));
        let (items, revision) = page.as_ref().map_or((0, 0), |p| (p.items.len(), p.revision.0));
        let mut state = self.state.lock();
        let on = prefix.as_str().as_bytes();
        self.step(
            &mut state,
            &who.name,
            "list",
            on,
            revision ^ ((items as u64) << 32),
            || format!("{prefix} has {items} at {revision}"),
        );
        page
    }

    pub(crate) fn leases(&self, who: &Who, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        let found = ready(self.store.leases(prefix))?;
        let held = found.iter().filter(|l| !l.expired).count();
        let mut state = self.state.lock();
        let on = prefix.as_str().as_bytes();
        self.step(&mut state, &who.name, "leases", on, held as u64, || {
            format!("{prefix}: {held} held of {}", found.len())
        });
        Ok(found)
    }

    pub(crate) fn watch(
        &self,
        who: &Who,
        prefix: &Prefix,
        options: WatchOptions,
    ) -> BoxStream<'static, Result<WatchEvent>> {
        let after = options.after.0;
        let mut state = self.state.lock();
        let on = prefix.as_str().as_bytes();
        self.step(&mut state, &who.name, "watch", on, after, || {
            format!("{prefix} after {after}")
        });
        drop(state);
        self.store.watch(prefix, options)
    }

    /// An event has reached its watcher.
    pub(crate) fn delivered(&self, who: &Who, prefix: &Prefix, event: &WatchEvent) {
        let revision = match event {
            WatchEvent::Commit { revision, .. } | WatchEvent::Progress(revision) => revision.0,
            WatchEvent::Gap { .. } => 0,
        };
        let mut state = self.state.lock();
        let on = prefix.as_str().as_bytes();
        self.step(&mut state, &who.name, "event", on, revision, || {
            format!("{prefix} {revision}")
        });
    }

    pub(crate) fn grant(
        &self,
        who: &Who,
        name: &LeaseName,
        holder: &str,
        ttl: Duration,
        mode: LeaseMode,
    ) -> Result<Grant> {
        let answer = ready(self.store.grant(name, holder, ttl, mode))?;
        let mut state = self.state.lock();
        let epoch = match &answer {
            Grant::Granted { epoch } => *epoch,
            Grant::Held(_) => 0,
        };
        if epoch > 0 {
            let end = self.clock.elapsed() + ttl;
            state.checker.leases.granted(name, epoch, end);
            state.checker.holds(who);
        }
        let on = name.as_key().as_str().as_bytes();
        self.step(&mut state, &who.name, "grant", on, epoch, || {
            format!("{name} for {ttl:?}: {answer:?}")
        });
        Ok(answer)
    }

    pub(crate) fn renew(&self, who: &Who, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        let answer = ready(self.store.renew(name, epoch, ttl))?;
        let mut state = self.state.lock();
        if answer == Renewal::Held {
            let end = self.clock.elapsed() + ttl;
            state.checker.leases.granted(name, epoch, end);
        }
        let on = name.as_key().as_str().as_bytes();
        let outcome = epoch << 1 | u64::from(answer == Renewal::Held);
        self.step(&mut state, &who.name, "renew", on, outcome, || {
            format!("{name} epoch {epoch}: {answer:?}")
        });
        Ok(answer)
    }

    pub(crate) fn revoke(&self, who: &Who, name: &LeaseName, epoch: u64) -> Result<()> {
        ready(self.store.revoke(name, epoch))?;
        let mut state = self.state.lock();
        state.checker.leases.revoked(name, epoch);
        let on = name.as_key().as_str().as_bytes();
        self.step(&mut state, &who.name, "revoke", on, epoch, || {
            format!("{name} epoch {epoch}")
        });
        Ok(())
    }

    pub(crate) fn commit(&self, who: &Who, txn: Txn) -> Result<Outcome> {
        if self.state.lock().full {
            return Err(Error::new(ErrorKind::Full, "commit"));
        }
        let writes = txn.writes.clone();
        let outcome = ready(self.store.commit(txn))?;
        let mut state = self.state.lock();
        let mark = match &outcome {
            Outcome::Committed { revision } => revision.0,
            Outcome::Conflict { guard, .. } => u64::MAX - *guard as u64,
        };
        let mut on = Vec::new();
        for write in &writes {
            on.extend_from_slice(write.key().as_str().as_bytes());
            if let skyloom_store::Write::Put(_, value) = write {
                on.extend_from_slice(value.bytes());
            }
        }
        self.step(&mut state, &who.name, "commit", &on, mark, || {
            crate::checker::describe(&writes, &outcome)
        });
        if outcome.committed().is_some() {
            let now = self.clock.elapsed();
            state.checker.commit(now, who, &writes);
            if let Some(diary) = &mut state.diary {
                diary.commit(now, &writes);
            }
            self.settle(state);
        }
        Ok(outcome)
    }

    /// Tells what is there in another way. It is not the product that writes, and nothing changes in what is told: the checker
    /// does not look.
    pub(crate) fn rewrite(&self, txn: Txn) {
        let writes = txn.writes.clone();
        let told = ready(self.store.commit(txn)).is_ok_and(|outcome| outcome.committed().is_some());
        self.note("store", "tells in an older format", || {
            format!(
                "{told}, {}",
                writes.first().map_or("", |write| write.key().as_str())
            )
        });
    }

    /// The lease of a process ends now.
    pub(crate) fn expire(&self, name: &LeaseName) -> Result<()> {
        let held = ready(self.store.leases(&Prefix::all()))?;
        if let Some(lease) = held.iter().find(|l| l.name == *name && !l.expired) {
            ready(self.store.revoke(name, lease.epoch))?;
            self.state.lock().checker.leases.revoked(name, lease.epoch);
        }
        Ok(())
    }

    // Requests that outlive their sender, processes that end themselves.

    pub(crate) fn later(&self, late: Late) {
        self.state.lock().late.push(late);
        self.wake.notify_one();
    }

    pub(crate) fn take_late(&self) -> Vec<Late> {
        std::mem::take(&mut self.state.lock().late)
    }

    pub(crate) fn falls(&self, name: &Arc<str>) {
        self.state.lock().fallen.push_back(name.clone());
        self.wake.notify_one();
    }

    pub(crate) fn take_fallen(&self) -> Option<Arc<str>> {
        self.state.lock().fallen.pop_front()
    }

    // Effects.

    /// Something has happened on a host.
    pub(crate) fn effect(&self, host: &str, effect: &Effect) {
        let mut state = self.state.lock();
        let on = effect.server.map(|s| *s.uuid().as_bytes()).unwrap_or_default();
        self.step(&mut state, host, "effect", &on, effect.generation, || {
            format!(
                "{:?} {:?} generation {}",
                effect.kind, effect.server, effect.generation
            )
        });
        state.checker.effect(effect);
        if let Some(diary) = &mut state.diary {
            diary.effect();
        }
        self.settle(state);
    }

    /// A job begins in a process.
    pub(crate) fn job_begins(&self, who: &Who, record: &JobRecord) {
        let mut state = self.state.lock();
        let on = record.task.uuid();
        self.step(
            &mut state,
            &who.name,
            "job",
            on.as_bytes(),
            u64::from(record.attempt),
            || {
                format!(
                    "{:?} {} attempt {} of {}",
                    record.want, record.spec.id, record.attempt, record.task
                )
            },
        );
        let now = self.clock.elapsed();
        state.checker.job_begins(now, who, record);
        self.settle(state);
    }
}

/// The memory store never waits.
pub(crate) fn ready<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    call.now_or_never()
        .unwrap_or_else(|| Err(Error::new(ErrorKind::Internal, "call the memory store")))
}
