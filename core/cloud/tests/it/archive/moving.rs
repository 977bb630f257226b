//! What moves and when, how much of the store is read for it, and what leaves the archive.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use skyloom_cloud::{Archive, ArchiveConfig, ArchiveParts};
use skyloom_model::{ManualClock, Readiness, TaskState, paths};
use skyloom_store::{
    Capability, DynBackend, Key, KeyValue, ListOptions, Outcome, Page, Prefix, Result, Store, Txn,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::shared::{DAY, Fated, Fates, Fault, Stores, everything, memory, project};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_task_moves_a_day_after_its_end_and_an_event_a_week_after_it_happened() {
    let stores = Stores::new();
    let archive = stores.calm();
    let project = project(&stores.ids);
    let task = stores.finished(project, TaskState::Done, 2).await;
    stores.clock.advance(DAY);
    assert_eq!(
        archive.move_all().await.unwrap().tasks,
        0,
        "not longer than a day ago"
    );
    stores.clock.advance(SECOND);
    let moved = archive.move_all().await.unwrap();
    assert_eq!((moved.tasks, moved.events), (1, 0));
    stores.clock.advance(DAY * 6);
    assert_eq!(archive.move_all().await.unwrap().events, 1);
    let hot = everything(&stores.hot).await;
    assert!(hot.is_empty(), "{hot:?}");
    let cold = everything(&stores.cold).await;
    let at = paths::archived_task(task.scope, task.ended_at.unwrap(), task.id);
    assert!(cold.contains_key(&at), "{:?}", cold.keys());
    assert_eq!(cold.len(), 3);
}

#[tokio::test]
async fn what_is_not_finished_or_cannot_be_read_stays_and_hides_nothing() {
    let stores = Stores::new();
    let project = project(&stores.ids);
    for state in TaskState::ALL {
        stores.finished(project, state, 1).await;
    }
    let odd = format!("tasks/{project}/00000000-0000-7000-8000-000000000000");
    stores.put(&odd, &"no task").await;
    stores.finished(project, TaskState::Done, 1).await;
    stores.clock.advance(DAY + SECOND);
    let moved = stores.calm().move_all().await.unwrap();
    assert_eq!((moved.tasks, moved.left), (4, 0));
    let hot = everything(&stores.hot).await;
    let mut states: Vec<&str> = hot
        .iter()
        .filter(|(key, _)| key.starts_with("tasks/") && **key != odd)
        .map(|(_, task)| task["state"].as_str().unwrap())
        .collect();
    states.sort_unstable();
    assert_eq!(states, ["queued", "running", "stuck", "unwinding", "waiting"]);
    assert!(hot.contains_key(&odd));
}

#[tokio::test]
async fn with_zero_nothing_moves() {
    let stores = Stores::new();
    stores.finished(project(&stores.ids), TaskState::Done, 1).await;
    stores.clock.advance(DAY * 30);
    let config = ArchiveConfig::default().with_after(Duration::ZERO);
    let archive = stores.archive_with(stores.hot.clone(), stores.cold.clone(), config);
    assert_eq!(archive.move_all().await.unwrap().tasks, 0);
    // And the loop that would do it ends by itself.
    archive.run(CancellationToken::new()).await;
    assert!(everything(&stores.cold).await.is_empty());
}

/// Counts the documents that are read.
#[derive(Debug)]
struct Counted {
    inner: DynBackend,
    read: Mutex<usize>,
}

#[async_trait]
impl Store for Counted {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        *self.read.lock() += 1;
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        let page = self.inner.list(prefix, options).await?;
        *self.read.lock() += page.items.len();
        Ok(page)
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        self.inner.commit(txn).await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

#[tokio::test]
async fn a_pass_reads_few_young_tasks_and_nothing_of_the_archive() {
    let stores = Stores::new();
    let projects = [project(&stores.ids), project(&stores.ids), project(&stores.ids)];
    for number in 0..600 {
        stores.finished(projects[number % 3], TaskState::Done, 1).await;
    }
    stores.clock.advance(DAY + SECOND);
    // The archive within the store itself: in the same prefixes as everything.
    let own = stores.archive_with(stores.hot.clone(), stores.hot.clone(), ArchiveConfig::default());
    assert_eq!(own.move_all().await.unwrap().tasks, 600);
    for number in 0..600 {
        stores.finished(projects[number % 3], TaskState::Done, 1).await;
    }
    let calls = Arc::new(Fates::default());
    let counted = Arc::new(Counted {
        inner: stores.hot.clone(),
        read: Mutex::default(),
    });
    let hot = Arc::new(Fated::new(&stores.hot, &calls));
    let archive = stores.archive_with(hot, counted.clone(), ArchiveConfig::default());
    assert_eq!(archive.move_all().await.unwrap().tasks, 0);
    assert_eq!(*counted.read.lock(), 0, "the archive is not read");
    // Three projects with tasks and with events: a list for each, and one behind the last.
    assert!(calls.count() <= 8, "{} calls", calls.count());
}

#[tokio::test]
async fn the_archive_may_be_the_store_itself() {
    let stores = Stores::new();
    let task = stores.finished(project(&stores.ids), TaskState::Failed, 3).await;
    stores.clock.advance(DAY * 8);
    let own = Archive::within(stores.hot.clone(), Arc::new(stores.clock.clone()));
    let moved = own.move_all().await.unwrap();
    assert_eq!((moved.tasks, moved.events), (1, 1));
    let keys: Vec<String> = everything(&stores.hot).await.into_keys().collect();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|key| key.starts_with("archive/")), "{keys:?}");
    let at = paths::archived_task(task.scope, task.ended_at.unwrap(), task.id);
    assert!(keys.contains(&at));
}

#[tokio::test]
async fn the_archive_forgets_what_it_need_not_keep() {
    let stores = Stores::new();
    let (a, b) = (project(&stores.ids), project(&stores.ids));
    let small = Capability::PORTABLE.with_max_value_len(3000);
    let fates = Arc::new(Fates::default());
    let cold: Arc<dyn Store> = Arc::new(Fated {
        capability: small,
        ..Fated::new(&stores.cold, &fates)
    });
    let config = ArchiveConfig::default().with_keep(Some(DAY * 30));
    let archive = stores.archive_with(stores.hot.clone(), cold, config);
    for project in [a, b, a] {
        for jobs in [1, 40] {
            for _ in 0..60 {
                stores.finished(project, TaskState::Done, jobs).await;
            }
        }
    }
    stores.clock.advance(DAY * 20);
    let late = stores.finished(b, TaskState::Done, 1).await;
    stores.clock.advance(DAY * 8);
    let moved = archive.move_all().await.unwrap();
    assert_eq!((moved.tasks, moved.events, moved.forgotten), (361, 361, 0));
    assert!(
        everything(&stores.cold)
            .await
            .keys()
            .any(|key| key.starts_with("archive/task-part/"))
    );
    stores.clock.advance(DAY * 3);
    assert_eq!(archive.move_all().await.unwrap().forgotten, 720);
    let left: Vec<String> = everything(&stores.cold).await.into_keys().collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.iter().any(|key| key.ends_with(&late.id.to_string())));
    assert_eq!(archive.move_all().await.unwrap().forgotten, 0);
}

/// A store that says that it survives.
fn durable(clock: &ManualClock) -> DynBackend {
    let inner = memory(clock);
    Arc::new(Fated {
        capability: inner.capability().with_durable(true),
        ..Fated::new(&inner, &Arc::new(Fates::default()))
    })
}

#[tokio::test]
async fn an_archive_that_would_lose_things_is_refused() {
    let clock = ManualClock::new();
    let make = |hot: DynBackend, store: DynBackend, config| {
        Archive::new(ArchiveParts {
            hot,
            store,
            clock: Arc::new(clock.clone()),
            readiness: None,
            config,
        })
        .map(|_| ())
        .map_err(|e| e.code().to_owned())
    };
    let usual = ArchiveConfig::default();
    let refused = |code: &str| Err(code.to_owned());
    assert_eq!(
        make(durable(&clock), memory(&clock), usual),
        refused("archive.not_durable")
    );
    assert_eq!(make(durable(&clock), durable(&clock), usual), Ok(()));
    assert_eq!(make(memory(&clock), memory(&clock), usual), Ok(()));
    let config = usual.with_keep(Some(DAY * 6));
    let short = make(memory(&clock), memory(&clock), config);
    assert_eq!(short, refused("archive.keep_too_short"));
}

/// What readiness says of the archive.
fn said(readiness: &Readiness) -> String {
    let report = readiness.report();
    let line = report.iter().find(|line| line.part == "archive").unwrap();
    assert!(readiness.is_ready(), "the archive makes nobody unready");
    line.detail.clone()
}

#[tokio::test(start_paused = true)]
async fn the_loop_backs_off_while_the_archive_is_away_and_says_how_far_behind_it_is() {
    let stores = Stores::new();
    stores.finished(project(&stores.ids), TaskState::Done, 1).await;
    stores.clock.advance(DAY + SECOND * 30);
    let fates = Arc::new(Fates::one(0, Fault::DeadBefore));
    let calm = Arc::new(Fates::default());
    let readiness = Readiness::new();
    let archive = Archive::new(ArchiveParts {
        hot: Arc::new(Fated::new(&stores.hot, &calm)),
        store: Arc::new(Fated::new(&stores.cold, &fates)),
        clock: Arc::new(stores.clock.clone()),
        readiness: Some(readiness.clone()),
        config: ArchiveConfig::default(),
    })
    .unwrap();
    assert!(said(&readiness).contains("not looked"), "{}", said(&readiness));
    let stop = CancellationToken::new();
    let mut running = JoinSet::new();
    let until = stop.clone();
    running.spawn(async move { archive.run(until).await });
    // Time is virtual here: it goes on when nobody has anything to do.
    while !said(&readiness).contains("does not work") {
        tokio::time::sleep(SECOND).await;
    }
    assert!(said(&readiness).contains("30 s behind"), "{}", said(&readiness));
    let first = calm.count();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let tries = (calm.count() - first) / 3;
    assert!((5..20).contains(&tries), "{tries} tries in an hour");
    assert_eq!(everything(&stores.cold).await.len(), 0);
    // It comes back.
    fates.revive();
    while !said(&readiness).starts_with("works; 1 tasks") {
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!(everything(&stores.cold).await.len(), 2);
    stop.cancel();
    running.join_next().await.unwrap().unwrap();
}
