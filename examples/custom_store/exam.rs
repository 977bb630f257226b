//! The exam of the store in `custom_store.rs`: every case, and the long part.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use libtest_mimic::Trial;
use skyloom::model::ManualClock;
use skyloom::store::{DynBackend, ErrorKind, Key, ListOptions, Prefix, Revision, Store as _, Txn, Value};
use skyloom_store::conformance::soak::{self, Amount};
use skyloom_store::conformance::{Abilities, Exam, Failure, Sitting, Verdict, conclude, trials};
use tempfile::TempDir;

use crate::LogStore;

/// How much of the long part is run: `HISTORIES,CHANGES[,SEED]`.
const VARIABLE: &str = "SKYLOOM_SOAK";

struct LogExam;

/// One empty store: a file in a folder of its own, and a clock that moves when it is told to.
struct LogSitting {
    folder: TempDir,
    clock: ManualClock,
    store: Option<Arc<LogStore>>,
}

impl LogSitting {
    fn log(&self) -> Arc<LogStore> {
        self.store.clone().expect("it is open between two calls")
    }

    async fn open(&mut self) -> Verdict {
        let file = self.folder.path().join("store.log");
        let store = LogStore::open(&file, Arc::new(self.clock.clone())).await?;
        self.store = Some(Arc::new(store));
        Ok(())
    }
}

#[async_trait]
impl Exam for LogExam {
    fn name(&self) -> String {
        "log".to_owned()
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            compact: true,
            reopen: true,
        }
    }

    async fn fresh(&self) -> Result<Box<dyn Sitting>, Failure> {
        let mut sitting = LogSitting {
            folder: tempfile::tempdir()?,
            clock: ManualClock::new(),
            store: None,
        };
        sitting.open().await?;
        Ok(Box::new(sitting))
    }
}

#[async_trait]
impl Sitting for LogSitting {
    fn store(&self) -> DynBackend {
        self.log()
    }

    async fn pass_time(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn compact(&self, revision: Revision) -> Verdict {
        self.log().0.memory.compact(revision);
        Ok(())
    }

    async fn reopen(&mut self) -> Verdict {
        self.store = None;
        self.open().await
    }

    /// History is forgotten under the watchers' eyes.
    async fn disturb(&self, _seed: u64) -> Verdict {
        let now = self.log().list(&Prefix::all(), ListOptions::default()).await?;
        self.compact(now.revision).await
    }
}

/// What the exam cannot know: how this store's file may be found.
async fn files() -> Verdict {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("store.log");
    let open = || LogStore::open(&path, Arc::new(ManualClock::new()));
    let put = |value| Ok::<_, Failure>(Txn::new().put(Key::parse("a")?, Value::json(&value)?));
    let store = open().await?;
    store.commit(put(1)?).await?;
    let second = open().await.err().map(|e| e.kind());
    assert_eq!(second, Some(ErrorKind::Denied), "it has one owner");
    drop(store);

    let whole = std::fs::read(&path)?;
    std::fs::write(&path, [&whole[..], b"{\"commit\":{\"wri"].concat())?;
    let store = open().await?;
    store.commit(put(2)?).await?;
    drop(store);
    let page = open().await?.list(&Prefix::all(), ListOptions::default()).await?;
    assert_eq!(page.revision, Revision(2), "a torn line was never acknowledged");

    std::fs::write(&path, [b"{}\n", &whole[..]].concat())?;
    let damaged = open().await.err().map(|e| e.kind());
    assert_eq!(
        damaged,
        Some(ErrorKind::Corrupt),
        "nothing acknowledged is left out"
    );
    Ok(())
}

pub(crate) fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "a test program of its own")]
    let amount = Amount::parse(std::env::var(VARIABLE).ok().as_deref()).expect("numbers in SKYLOOM_SOAK");
    let mut all = trials(Arc::new(LogExam));
    all.extend(soak::trials(Arc::new(LogExam), amount));
    all.push(Trial::test("log::files", || {
        let runtime = tokio::runtime::Runtime::new()?;
        Ok(runtime.block_on(files())?)
    }));
    conclude(all)
}
