//! What a worker does with orders: leases, time limits, strangers, unknown outcomes, turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use serde_json::json;
use skyloom_flow::Companion;
use skyloom_flow::journal::{Effect, Entry, Intent, JobOutcome, Journal, JournalError, NoJournal};
use skyloom_model::{FORMAT, JobRecord, JobState, JobWant, WorkerMark};
use skyloom_store::{
    Capability, DynBackend, Error, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Value as Stored, Versioned, Watch,
    WatchEvent, WatchOptions, Write, latest,
};

use crate::host::{Host, project};

/// Remembers nothing; the lease runs out while it writes an intent.
#[derive(Debug)]
struct Slow(latest::Receiver<Option<skyloom_flow::Fence>>);

#[async_trait]
impl Journal for Slow {
    async fn intend(&self, _: Intent) -> Result<(), JournalError> {
        if let Some(fence) = &*self.0.borrow()
            && fence.epoch == 1
        {
            fence.extend(Duration::ZERO);
        }
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
    async fn obey(&self, _: &skyloom_model::Incarnation) -> Result<bool, JournalError> {
        Ok(false)
    }
    fn obeys(&self) -> Option<skyloom_model::Incarnation> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_after_the_lease_has_run_out_on_the_way() {
    let host = Host::new().await;
    host.put(&host.order("a", "")).await;
    let _life = host.live_with(Arc::new(Slow(host.fence.subscribe())));
    host.until("a", |r| r.state != JobState::Ready).await;
    host.minute().await;
    assert!(host.calls().is_empty());
    let next = host.grant().await;
    let record = host.until_state("a", JobState::Succeeded).await;
    assert_eq!(record.worker.unwrap().epoch, next.epoch);
    assert_eq!(host.calls(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_renewed_late_is_gone_on_with() {
    let host = Host::new().await;
    let fence = host.grant().await;
    fence.extend(Duration::ZERO);
    host.put(&host.order("a", "")).await;
    let _life = host.live();
    host.minute().await;
    assert_eq!(host.record("a").await.state, JobState::Ready);
    fence.extend(Duration::MAX);
    host.until_state("a", JobState::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn a_job_asks_for_its_lease_again_and_does_not_lose_a_try_by_it() {
    let host = Host::new().await;
    let fence = host.grant().await;
    host.put(&host.order("a", "wait before")).await;
    let _life = host.live();
    host.reached.notified().await;
    fence.extend(Duration::ZERO);
    host.go.notify_one();
    host.minute().await;
    assert_eq!(host.record("a").await.state, JobState::Started);
    assert!(host.effects().is_empty());
    host.grant().await;
    host.reached.notified().await;
    host.go.notify_one();
    let record = host.until_state("a", JobState::Succeeded).await;
    assert_eq!((record.attempt, host.effects()), (1, vec!["a".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_whose_start_the_store_refused() {
    let host = Host::new().await;
    // Another life of this host has the lease; this one has not noticed.
    let taken = host.grant_elsewhere().await;
    host.put(&host.order("a", "")).await;
    let _life = host.live();
    host.minute().await;
    assert!(host.calls().is_empty());
    assert_eq!(host.record("a").await.state, JobState::Ready);
    host.fence.send_replace(Some(taken.clone()));
    let record = host.until_state("a", JobState::Succeeded).await;
    assert_eq!(record.worker.unwrap().epoch, taken.epoch);
}

#[tokio::test(start_paused = true)]
async fn a_result_is_written_under_the_next_lease() {
    let host = Host::new().await;
    host.put(&host.order("a", "wait after")).await;
    let _life = host.live();
    host.reached.notified().await;
    let next = host.grant_elsewhere().await;
    host.go.notify_one();
    host.minute().await;
    assert_eq!(host.record("a").await.state, JobState::Started);
    host.fence.send_replace(Some(next));
    host.until_state("a", JobState::Succeeded).await;
    assert_eq!(host.calls(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_result_of_an_older_try_changes_nothing() {
    let host = Host::new().await;
    host.put(&host.order("a", "wait after")).await;
    let _life = host.live();
    host.reached.notified().await;
    let mut next = host.order("a", "fail");
    next.attempt = 2;
    host.put(&next).await;
    host.go.notify_one();
    let record = host.until("a", |r| r.ended_at.is_some()).await;
    assert_eq!((record.attempt, record.state), (2, JobState::Failed));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_too_long_fails_for_a_passing_reason() {
    let host = Host::new().await;
    let mut order = host.order("a", "hang before");
    order.spec.timeout_ms = Some(5000);
    host.put(&order).await;
    let _life = host.live();
    let record = host.until_state("a", JobState::Failed).await;
    let reason = record.error.unwrap();
    assert_eq!((reason.code.as_str(), reason.retryable), ("job.deadline", true));
    let took = record
        .ended_at
        .unwrap()
        .duration_since(record.started_at.unwrap());
    assert_eq!(took.as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn jobs_of_a_newer_version_are_left_alone_and_others_go_on() {
    let host = Host::new().await;
    let mut kind = host.order("kind", "");
    kind.spec.kind = "test.newer".into();
    let mut format = host.order("format", "");
    format.format = FORMAT + 1;
    host.put(&kind).await;
    host.put(&format).await;
    let strange = host.key(&host.order("strange", ""));
    let txn = Txn::new().put(strange, Stored::json(&json!({ "format": 99 })).unwrap());
    host.store.commit(txn).await.unwrap();
    let _life = host.live();
    host.put(&host.order("a", "")).await;
    host.until_state("a", JobState::Succeeded).await;
    host.minute().await;
    assert_eq!(host.calls(), ["a"]);
    assert_eq!(host.record("kind").await, kind);
    assert_eq!(host.record("format").await, format);
    // What the engine writes anew is looked at again.
    for name in ["kind", "format", "strange"] {
        host.put(&host.order(name, "")).await;
        host.until_state(name, JobState::Succeeded).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_s_job_is_taken_over_when_its_lease_is_gone() {
    let host = Host::new().await;
    let other = LeaseName::parse("hosts/8").unwrap();
    let ttl = Duration::from_secs(90);
    let granted = host
        .store
        .grant(&other, "o", ttl, LeaseMode::Acquire)
        .await
        .unwrap();
    let Grant::Granted { epoch } = granted else {
        panic!("{granted:?}")
    };
    let mut order = host.order("a", "");
    order.state = JobState::Started;
    order.worker = Some(WorkerMark {
        lease: other.to_string(),
        epoch,
    });
    host.put(&order).await;
    let _life = host.live();
    host.minute().await;
    assert!(host.calls().is_empty());
    host.minute().await;
    host.until_state("a", JobState::Succeeded).await;
}

#[tokio::test(start_paused = true)]
async fn projects_take_turns() {
    let mut host = Host::new().await;
    host.slots = 1;
    for number in 0..20 {
        let mut order = host.order(&format!("many{number}"), "");
        order.scope = project(1);
        host.put(&order).await;
    }
    for name in ["few0", "few1"] {
        let mut order = host.order(name, "");
        order.scope = project(2);
        host.put(&order).await;
    }
    let _life = host.live();
    host.until_state("many19", JobState::Succeeded).await;
    assert_eq!(host.calls()[..5], ["many0", "few0", "many1", "few1", "many2"]);
}

#[tokio::test(start_paused = true)]
async fn jobs_of_one_subject_wait_for_one_another() {
    let host = Host::new().await;
    host.put(&host.order("a", "wait after")).await;
    let mut second = host.order("b", "");
    second.subject = host.order("a", "").subject;
    host.put(&second).await;
    host.put(&host.order("c", "")).await;
    let _life = host.live();
    host.reached.notified().await;
    host.until_state("c", JobState::Succeeded).await;
    host.minute().await;
    assert!(!host.calls().contains(&"b".to_owned()));
    host.go.notify_one();
    host.until_state("b", JobState::Succeeded).await;
}

/// Panics the first time.
#[derive(Debug, Default)]
struct Clumsy(AtomicBool);

#[async_trait]
impl Companion for Clumsy {
    async fn writes(&self, _: &JobRecord) -> Txn {
        assert!(self.0.swap(true, Ordering::Relaxed), "as told");
        Txn::new()
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_outside_of_its_job_is_made_up_for() {
    let mut host = Host::new().await;
    host.companion = Some(Arc::new(Clumsy::default()));
    host.put(&host.order("a", "")).await;
    let _life = host.live();
    host.until_state("a", JobState::Succeeded).await;
    assert_eq!(host.calls(), ["a"], "the journal knew");
}

/// How a commit that writes a result ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trick {
    /// It happens, nobody is told, and the engine has already ordered the next try.
    LostAnswer,
    /// It does not happen, and nobody is told.
    LostRequest,
    /// The store is full, once.
    Full,
}

/// A store that plays one trick.
#[derive(Debug)]
struct Tricky {
    inner: DynBackend,
    trick: Mutex<Option<Trick>>,
}

#[async_trait]
impl Store for Tricky {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.inner.list(prefix, options).await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        let record = txn.writes.iter().find_map(|w| match w {
            Write::Put(_, value) => value.parse::<JobRecord>().ok(),
            Write::Delete(_) => None,
        });
        let Some(mut record) = record.filter(|r| r.ended_at.is_some()) else {
            return self.inner.commit(txn).await;
        };
        let trick = self.trick.lock().take();
        match trick {
            None => self.inner.commit(txn).await,
            Some(Trick::Full) => Err(Error::new(ErrorKind::Full, "commit")),
            Some(Trick::LostRequest) => Err(Error::new(ErrorKind::Unknown, "commit")),
            Some(Trick::LostAnswer) => {
                let key = txn.writes[0].key().clone();
                self.inner.commit(txn).await?;
                let kv = self.inner.get(&key).await?.unwrap();
                record.state = JobState::Ready;
                record.attempt += 1;
                record.spec.input = json!("");
                record.ended_at = None;
                let next = Versioned::<JobRecord>::decode(&kv)?.replace(&record)?;
                self.inner.commit(next).await?;
                Err(Error::new(ErrorKind::Unknown, "commit"))
            }
        }
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

impl Watch for Tricky {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        self.inner.watch(prefix, options)
    }
}

#[async_trait]
impl Leases for Tricky {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        self.inner.grant(name, holder, ttl, mode).await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        self.inner.renew(name, epoch, ttl).await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.inner.revoke(name, epoch).await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.inner.leases(prefix).await
    }
}

async fn with_trick(trick: Trick) -> Host {
    let mut host = Host::new().await;
    host.store = Arc::new(Tricky {
        inner: host.store.clone(),
        trick: Mutex::new(Some(trick)),
    });
    host
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_answer_the_next_try_is_seen() {
    let host = with_trick(Trick::LostAnswer).await;
    host.put(&host.order("a", "fail")).await;
    let _life = host.live_with(Arc::new(NoJournal));
    let record = host.until_state("a", JobState::Succeeded).await;
    assert_eq!((record.attempt, host.calls().len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_request_the_result_is_written_again() {
    let host = with_trick(Trick::LostRequest).await;
    host.put(&host.order("a", "")).await;
    let _life = host.live();
    host.until_state("a", JobState::Succeeded).await;
    assert_eq!(host.calls(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_full_for_a_while_takes_the_result_later() {
    let host = with_trick(Trick::Full).await;
    host.put(&host.order("a", "")).await;
    let _life = host.live();
    let record = host.until("a", |r| {
        r.state != JobState::Ready && r.state != JobState::Started
    });
    assert_eq!(record.await.state, JobState::Succeeded);
    assert_eq!(host.calls(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn an_undo_has_its_own_place_in_the_journal() {
    let host = Host::new().await;
    host.put(&host.order("a", "")).await;
    let _life = host.live();
    let mut record = host.until_state("a", JobState::Succeeded).await;
    record.want = JobWant::Undo;
    record.state = JobState::UndoReady;
    record.ended_at = None;
    host.put(&record).await;
    let undone = host.until_state("a", JobState::Undone).await;
    assert_eq!(host.calls(), ["a", "-a"]);
    assert_eq!(undone.output, Some(json!({ "made": "a" })));
    assert!(host.effects().is_empty());
}
