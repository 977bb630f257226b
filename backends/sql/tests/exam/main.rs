//! The exam of every store, sat by SQLite, PostgreSQL and MariaDB; and what only real processes can show.

#[path = "crash.rs"]
mod crash;
#[path = "servers.rs"]
mod exams;
#[path = "soak.rs"]
mod long;
#[path = "../servers/mod.rs"]
mod servers;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use libtest_mimic::Arguments;
use skyloom_model::ManualClock;
use skyloom_store::conformance::soak::{self, Amount};
use skyloom_store::conformance::{Abilities, Exam, Failure, Sitting, Verdict, trials};
use skyloom_store::{DynBackend, Revision};
use skyloom_store_sql::{Engine, SqliteConfig, SqliteStore};
use tempfile::TempDir;

/// SQLite in a folder of its own, with a manual clock.
struct SqliteExam;

struct SqliteSitting {
    dir: TempDir,
    clock: ManualClock,
    store: Option<Arc<SqliteStore>>,
}

impl SqliteSitting {
    async fn open(dir: &TempDir, clock: &ManualClock) -> Result<Arc<SqliteStore>, Failure> {
        let config = SqliteConfig::new(dir.path().join("store.db"));
        Ok(Arc::new(
            SqliteStore::open_or_create(config, Arc::new(clock.clone())).await?,
        ))
    }

    fn sqlite(&self) -> &Arc<SqliteStore> {
        self.store.as_ref().expect("the store is open between two calls")
    }
}

#[async_trait]
impl Exam for SqliteExam {
    fn name(&self) -> String {
        "sqlite".to_owned()
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            compact: true,
            reopen: true,
        }
    }

    async fn fresh(&self) -> Result<Box<dyn Sitting>, Failure> {
        let dir = tempfile::tempdir().map_err(|e| Failure::new(e.to_string()))?;
        let clock = ManualClock::new();
        let store = Some(SqliteSitting::open(&dir, &clock).await?);
        Ok(Box::new(SqliteSitting { dir, clock, store }))
    }
}

#[async_trait]
impl Sitting for SqliteSitting {
    fn store(&self) -> DynBackend {
        self.sqlite().clone()
    }

    async fn pass_time(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn compact(&self, revision: Revision) -> Verdict {
        Ok(self.sqlite().compact(revision).await?)
    }

    async fn reopen(&mut self) -> Verdict {
        if let Some(store) = self.store.take() {
            store.close().await?;
        }
        self.store = Some(Self::open(&self.dir, &self.clock).await?);
        Ok(())
    }

    async fn end(self: Box<Self>) {
        // There is none after a reopening that failed.
        if let Some(store) = &self.store {
            let _ = store.close().await;
        }
    }
}

/// How long the long part is, from the environment.
#[expect(clippy::disallowed_methods, reason = "a test is told by whoever runs it")]
fn amount() -> Amount {
    Amount::parse(std::env::var("SKYLOOM_SOAK").ok().as_deref()).expect("HISTORIES,CHANGES[,SEED]")
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(crash::CHILD) {
        return crash::child(arguments);
    }
    let mut all = trials(Arc::new(SqliteExam));
    all.extend(soak::trials(Arc::new(SqliteExam), amount()));
    all.push(crash::trial());
    for engine in [Engine::Postgres, Engine::MySql] {
        all.extend(trials(Arc::new(exams::ServerExam(engine))));
        all.extend(soak::trials(Arc::new(long::ServerSoak(engine)), amount()));
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), all);
    servers::stop();
    conclusion.exit_code()
}
