//! A writer whose COMMIT fails, which no caller can bring about from outside.

use std::sync::atomic::{AtomicBool, Ordering};

use skyloom_model::ManualClock;
use skyloom_store::{Capability, Key, Outcome, Revision, Txn, Value};
use tempfile::TempDir;

use super::super::queue::{Prepared, Queue};
use super::super::reader::Reader;
use super::*;
use crate::{SqliteConfig, migrate};

struct Bench {
    _dir: TempDir,
    queue: Queue,
    writer: Writer,
    /// While set, the database refuses to commit.
    fail: Arc<AtomicBool>,
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let config = SqliteConfig::new(dir.path().join("store.db"));
    migrate(&config).await.unwrap();
    let owner = Arc::new(Owner::take(&config.path).unwrap());
    let settings = Settings {
        path: config.path.clone(),
        max_batch: 100,
        max_wait: Duration::from_secs(5),
        max_file_bytes: None,
        allow_unsafe: false,
        retention: Retention {
            commits: 100,
            bytes: 1 << 20,
        },
    };
    let mut conn = settings.connect(&owner).await.unwrap();
    let fail = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fail);
    conn.lock_handle()
        .await
        .unwrap()
        .set_commit_hook(move || !failing.load(Ordering::Relaxed));
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new());
    let now = Now::read(&*clock);
    let (state, present) = load::everything(&mut conn, now, settings.retention, true)
        .await
        .unwrap();
    let (queue, jobs) = Queue::new(1024, Duration::from_secs(5));
    let hub = Arc::new(Hub::new(Revision(0), Revision(0)));
    let counters = Arc::new(Counters::default());
    Bench {
        _dir: dir,
        queue,
        writer: Writer {
            jobs,
            conn: Some(conn),
            owner,
            state,
            present: Arc::new(Mutex::new(present)),
            dirty_since: None,
            full: false,
            logged: 0,
            moved: Arc::default(),
            spare: Batch::default(),
            hub,
            clock,
            counters,
            settings,
        },
        fail,
    }
}

fn put(key: &str) -> Op {
    let txn = Txn::new().create(Key::parse(key).unwrap(), Value::from_json_bytes("1"));
    Op::Commit(Prepared::new(txn, &Capability::PORTABLE).unwrap())
}

fn kind(answer: Result<Answer>) -> Result<Option<Revision>, ErrorKind> {
    match answer {
        Ok(Answer::Outcome(outcome)) => Ok(outcome.committed()),
        Ok(other) => panic!("{other:?}"),
        Err(e) => Err(e.kind()),
    }
}

#[tokio::test]
async fn a_commit_that_fails_at_its_end_is_unknown_and_the_writer_goes_on() {
    let Bench {
        _dir,
        queue,
        writer,
        fail,
    } = bench().await;
    let hub = Arc::clone(&writer.hub);
    let calls = async {
        assert_eq!(kind(queue.ask(put("a")).await), Ok(Some(Revision(1))));
        fail.store(true, Ordering::Relaxed);
        let prefix = skyloom_store::Prefix::all();
        let (one, two, read) = futures::join!(
            queue.ask(put("b")),
            queue.ask(put("c")),
            queue.ask(Op::Leases(prefix))
        );
        // Whoever changed something does not know; whoever only asked may ask again.
        assert_eq!(
            (kind(one), kind(two)),
            (Err(ErrorKind::Unknown), Err(ErrorKind::Unknown))
        );
        assert_eq!(read.unwrap_err().kind(), ErrorKind::Unavailable);
        // The new connection has no such fault. The file says that nothing happened, so memory says so, too.
        assert_eq!(hub.head().revision, Revision(1));
        assert_eq!(kind(queue.ask(put("b")).await), Ok(Some(Revision(2))));
        assert!(matches!(
            queue.ask(put("a")).await,
            Ok(Answer::Outcome(Outcome::Conflict { guard: 0, .. }))
        ));
        queue.close().await.unwrap().unwrap();
    };
    futures::join!(writer.run(), calls);
}

#[tokio::test]
async fn a_commit_that_happened_although_it_seemed_to_fail_is_found_again_and_watchers_are_told() {
    let Bench {
        _dir,
        queue,
        mut writer,
        ..
    } = bench().await;
    let hub = Arc::clone(&writer.hub);
    let mut watcher = hub.subscribe(&skyloom_store::Prefix::all(), 10);
    // The connection dies after the database did its work: written by somebody the writer has not heard of.
    let mut conn = writer.conn.take().unwrap();
    let crc = i64::from(super::super::crc::of_state(7, 0));
    sqlx::query("UPDATE state SET revision = 7, crc = ?")
        .bind(crc)
        .execute(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
    let calls = async {
        assert_eq!(kind(queue.ask(put("a")).await), Ok(Some(Revision(8))));
        assert_eq!(watcher.next().await.unwrap_err(), skyloom_store::feed::End::Lost);
        queue.close().await.unwrap().unwrap();
    };
    futures::join!(writer.run(), calls);
}

#[tokio::test]
async fn while_the_file_cannot_be_opened_calls_are_refused_and_later_served() {
    let Bench {
        _dir,
        queue,
        mut writer,
        ..
    } = bench().await;
    writer.conn.take().unwrap().close().await.unwrap();
    let (path, away) = (
        writer.settings.path.clone(),
        writer.settings.path.with_extension("away"),
    );
    std::fs::rename(&path, &away).unwrap();
    let calls = async {
        assert_eq!(kind(queue.ask(put("a")).await), Err(ErrorKind::Unavailable));
        std::fs::rename(&away, &path).unwrap();
        assert_eq!(kind(queue.ask(put("a")).await), Ok(Some(Revision(1))));
        queue.close().await.unwrap().unwrap();
    };
    futures::join!(writer.run(), calls);
}

#[tokio::test]
async fn a_list_waits_for_memory_where_the_file_is_ahead_of_it() {
    let Bench { _dir, mut writer, .. } = bench().await;
    let shared = (Arc::clone(&writer.present), Arc::clone(&writer.moved));
    let path = &writer.settings.path;
    let reader = Reader::connect(path, 1, Duration::from_secs(60), shared)
        .await
        .unwrap();
    // A transaction that is durable and that nobody has been told of.
    let mut conn = writer.conn.take().unwrap();
    let crc = i64::from(super::super::crc::of_state(7, 0));
    sqlx::query("UPDATE state SET revision = 7, crc = ?")
        .bind(crc)
        .execute(&mut conn)
        .await
        .unwrap();
    conn.close().await.unwrap();
    let (all, options) = (
        skyloom_store::Prefix::all(),
        skyloom_store::ListOptions::default(),
    );
    let mut list = Box::pin(reader.list(&all, &options, 10));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut list).await;
    assert!(early.is_err(), "{early:?}");
    {
        let mut present = writer.present.lock();
        present.revision = 7;
        present.flushed();
    }
    writer.moved.notify_waiters();
    assert_eq!(list.await.unwrap().revision, Revision(7));
    reader.close().await;
}
