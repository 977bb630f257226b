//! What a journal remembers, and what a worker makes of it after a death at each of its steps.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt as _;
use serde_json::json;
use skyloom_flow::journal::{
    Effect, Entry, Intent, JobOutcome, Journal, JournalError, JournalErrorKind, JournalState, Line,
    MemoryDisk, MemoryJournal,
};
use skyloom_model::{Id, JobId, JobState, JobWant, Reason};
use skyloom_store::{LeaseName, Revision};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::host::Host;

fn intent(attempt: u32) -> Intent {
    Intent {
        effect: Effect {
            task: Id::from_uuid(Uuid::from_u128(1)),
            job: JobId::new("a"),
            want: JobWant::Run,
        },
        attempt,
        generation: 1,
        order: Revision(5),
    }
}

fn done() -> JobOutcome {
    Ok(Some(json!({ "made": "a" })))
}

#[tokio::test]
async fn what_was_acknowledged_survives_and_the_rest_does_not() {
    let disk = MemoryDisk::new();
    let journal = MemoryJournal::open(&disk).unwrap();
    journal.intend(intent(1)).await.unwrap();
    // Written, but dropped before the sync.
    assert!(journal.outcome(&intent(1), done()).now_or_never().is_none());
    disk.crash();
    assert_eq!(
        journal.intend(intent(2)).await.unwrap_err().kind(),
        JournalErrorKind::Closed
    );
    let next = MemoryJournal::open(&disk).unwrap();
    let entry = next.known(&intent(1).effect).unwrap();
    assert_eq!((entry.intent.attempt, entry.outcome), (1, None));
    next.outcome(&intent(1), done()).await.unwrap();
    drop(next);
    let last = MemoryJournal::open(&disk).unwrap();
    assert_eq!(last.known(&intent(1).effect).unwrap().outcome, Some(done()));
}

#[tokio::test]
async fn a_disk_has_one_journal_at_a_time() {
    let disk = MemoryDisk::new();
    let journal = MemoryJournal::open(&disk).unwrap();
    assert_eq!(
        MemoryJournal::open(&disk).unwrap_err().kind(),
        JournalErrorKind::InUse
    );
    drop(journal);
    let second = MemoryJournal::open(&disk).unwrap();
    disk.crash();
    let third = MemoryJournal::open(&disk).unwrap();
    drop(second);
    assert_eq!(
        MemoryJournal::open(&disk).unwrap_err().kind(),
        JournalErrorKind::InUse
    );
    drop(third);
}

#[tokio::test]
async fn epochs_never_go_back_and_a_refusal_stays() {
    let disk = MemoryDisk::new();
    let lease = LeaseName::parse("hosts/h").unwrap();
    let journal = MemoryJournal::open(&disk).unwrap();
    journal.hold(&lease, 7).await.unwrap();
    journal.hold(&lease, 9).await.unwrap();
    assert_eq!(
        journal.hold(&lease, 9).await.unwrap_err().kind(),
        JournalErrorKind::Behind
    );
    drop(journal);
    let next = MemoryJournal::open(&disk).unwrap();
    // Enough restarts would catch up with the old epoch: that proves nothing.
    assert_eq!(
        next.hold(&lease, 10).await.unwrap_err().kind(),
        JournalErrorKind::Behind
    );
    // Another cloud's host.
    next.hold(&LeaseName::parse("hosts/other").unwrap(), 1)
        .await
        .unwrap();
}

#[test]
fn an_outcome_counts_for_its_own_try_only() {
    let mut state = JournalState::default();
    let outcome = |attempt| Line::Outcome {
        effect: intent(1).effect,
        attempt,
        outcome: Err(Reason::new("x", "y")),
    };
    state.apply(outcome(1));
    assert_eq!(state, JournalState::default());
    state.apply(Line::Intent(intent(2)));
    state.apply(outcome(1));
    assert_eq!(state.known(&intent(2).effect).unwrap().outcome, None);
    state.apply(outcome(2));
    let mut again = JournalState::default();
    state.lines().into_iter().for_each(|line| again.apply(line));
    assert_eq!(again, state);
    state.apply(Line::Forget(intent(2).effect));
    assert_eq!(state, JournalState::default());
}

/// Where a life is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    BeforeIntent,
    AfterIntent,
    BeforeOutcome,
    AfterOutcome,
    BeforeForget,
}

/// A journal whose owner gets no further than the cut.
#[derive(Debug)]
struct CutOff {
    inner: MemoryJournal,
    at: Cut,
    reached: Arc<Notify>,
}

impl CutOff {
    async fn here(&self, at: Cut) {
        if self.at == at {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Journal for CutOff {
    async fn intend(&self, intent: Intent) -> Result<(), JournalError> {
        self.here(Cut::BeforeIntent).await;
        self.inner.intend(intent).await?;
        self.here(Cut::AfterIntent).await;
        Ok(())
    }
    async fn outcome(&self, intent: &Intent, outcome: JobOutcome) -> Result<(), JournalError> {
        self.here(Cut::BeforeOutcome).await;
        self.inner.outcome(intent, outcome).await?;
        self.here(Cut::AfterOutcome).await;
        Ok(())
    }
    fn forget(&self, effect: &Effect) {
        if self.at == Cut::BeforeForget {
            self.reached.notify_one();
        } else {
            self.inner.forget(effect);
        }
    }
    fn known(&self, effect: &Effect) -> Option<Entry> {
        self.inner.known(effect)
    }
    fn effects(&self) -> Vec<Effect> {
        self.inner.effects()
    }
    async fn hold(&self, lease: &LeaseName, epoch: u64) -> Result<(), JournalError> {
        self.inner.hold(lease, epoch).await
    }
    async fn obey(&self, incarnation: &skyloom_model::Incarnation) -> Result<bool, JournalError> {
        self.inner.obey(incarnation).await
    }
    fn obeys(&self) -> Option<skyloom_model::Incarnation> {
        self.inner.obeys()
    }
}

/// Dies at `cut`, lives again, and says how often the job's code was called in all.
async fn calls_with_a_death_at(cut: Cut) -> usize {
    let host = Host::new().await;
    host.put(&host.order("a", "")).await;
    let journal = CutOff {
        inner: host.journal(),
        at: cut,
        reached: host.reached.clone(),
    };
    let life = host.live_with(Arc::new(journal));
    host.reached.notified().await;
    host.disk.crash();
    drop(life);
    host.grant().await;
    let _next = host.live();
    let record = host.until_state("a", JobState::Succeeded).await;
    assert_eq!(record.output, Some(json!({ "made": "a" })), "{cut:?}");
    assert_eq!(record.attempt, 1, "{cut:?}");
    assert_eq!(host.effects(), ["a"], "{cut:?}");
    host.minute().await;
    // What the store has is forgotten, also when it was reported in a former life.
    host.put(&host.order("other", "")).await;
    host.until_state("other", JobState::Succeeded).await;
    host.minute().await;
    assert_eq!(host.disk.durable().known(&Effect::of(&record)), None, "{cut:?}");
    host.calls().iter().filter(|c| *c == "a").count()
}

#[tokio::test(start_paused = true)]
async fn after_a_death_a_known_outcome_is_reported_and_all_else_is_looked_at_again() {
    assert_eq!(calls_with_a_death_at(Cut::BeforeIntent).await, 1);
    assert_eq!(calls_with_a_death_at(Cut::AfterIntent).await, 1);
    assert_eq!(calls_with_a_death_at(Cut::BeforeOutcome).await, 2);
    assert_eq!(calls_with_a_death_at(Cut::AfterOutcome).await, 1);
    assert_eq!(calls_with_a_death_at(Cut::BeforeForget).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_death_in_the_middle_of_an_effect_makes_it_once() {
    let host = Host::new().await;
    host.put(&host.order("a", "wait after")).await;
    let life = host.live();
    host.reached.notified().await;
    host.disk.crash();
    drop(life);
    host.grant().await;
    let _next = host.live();
    host.reached.notified().await;
    host.go.notify_one();
    host.until_state("a", JobState::Succeeded).await;
    assert_eq!(
        (host.calls(), host.effects()),
        (vec!["a".into(), "a".into()], vec!["a".into()])
    );
}

#[tokio::test(start_paused = true)]
async fn without_the_journal_nothing_is_done() {
    let host = Host::new().await;
    host.disk.set_full(true);
    host.put(&host.order("a", "")).await;
    let _life = host.live();
    host.until_state("a", JobState::Started).await;
    host.minute().await;
    assert!(host.calls().is_empty());
    host.disk.set_full(false);
    host.until_state("a", JobState::Succeeded).await;
    assert_eq!(host.calls(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_the_journal_does_not_take_is_not_reported() {
    let host = Host::new().await;
    host.put(&host.order("a", "wait after")).await;
    let _life = host.live();
    host.reached.notified().await;
    host.disk.set_full(true);
    host.go.notify_one();
    host.minute().await;
    assert_eq!(host.record("a").await.state, JobState::Started);
    host.disk.set_full(false);
    host.reached.notified().await;
    host.go.notify_one();
    host.until_state("a", JobState::Succeeded).await;
    assert_eq!(host.effects(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_known_outcome_is_reported_also_for_another_generation() {
    let host = Host::new().await;
    let mut order = host.order("a", "");
    order.generation = 9;
    let begun = Intent {
        order: Revision(1000),
        ..intent(1)
    };
    {
        let journal = host.journal();
        journal.intend(begun.clone()).await.unwrap();
        let failed = Err(Reason::new("test.broken", "half done"));
        journal.outcome(&begun, failed).await.unwrap();
    }
    host.put(&order).await;
    let _life = host.live();
    let record = host.until_state("a", JobState::Failed).await;
    assert_eq!(record.error.unwrap().code, "test.broken");
    assert!(host.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_order_older_than_the_journal_is_refused_until_a_newer_one_comes() {
    let host = Host::new().await;
    let begun = Intent {
        order: Revision(1000),
        ..intent(3)
    };
    host.journal().intend(begun).await.unwrap();
    let mut order = host.order("a", "");
    host.put(&order).await;
    let _life = host.live();
    host.minute().await;
    assert!(host.calls().is_empty());
    assert_eq!(host.record("a").await.state, JobState::Ready);
    order.attempt = 3;
    host.put(&order).await;
    host.until_state("a", JobState::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn tries_may_count_anew_after_the_store_has_had_the_result() {
    let host = Host::new().await;
    let first = host.put(&host.order("a", "")).await;
    let begun = Intent {
        order: first,
        ..intent(3)
    };
    {
        let journal = host.journal();
        journal.intend(begun.clone()).await.unwrap();
        journal.outcome(&begun, Err(Reason::new("x", "y"))).await.unwrap();
    }
    host.put(&host.order("a", "")).await;
    let _life = host.live();
    host.until_state("a", JobState::Succeeded).await;
    assert_eq!(host.calls(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_any_more_is_forgotten() {
    let host = Host::new().await;
    host.journal().intend(intent(1)).await.unwrap();
    let _life = host.live();
    host.put(&host.order("other", "")).await;
    host.until_state("other", JobState::Succeeded).await;
    host.put(&host.order("third", "")).await;
    host.until_state("third", JobState::Succeeded).await;
    assert_eq!(
        host.disk.durable().effects().count(),
        1,
        "only the last may remain"
    );
}
