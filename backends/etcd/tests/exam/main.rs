//! The exam of every store, sat on a real etcd.
//!
//! All cases share one server, each with a prefix of its own. Compaction concerns a whole server, so the cases that
//! compact have one each.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "soak.rs"]
mod long;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use libtest_mimic::{Arguments, Trial};
use skyloom_store::conformance::soak::{self, Amount};
use skyloom_store::conformance::{Abilities, Exam, Failure, Sitting, Verdict, cases, run_case};
use skyloom_store::{DynBackend, Revision};
use skyloom_store_etcd::EtcdStore;

use crate::support::{Etcd, open};

/// Cases that only wait leave the machine to others.
const THREADS: usize = 6;

struct EtcdExam {
    /// What all sittings share; without it each has its own.
    server: Option<Arc<Etcd>>,
    sittings: AtomicU64,
}

struct EtcdSitting {
    server: Arc<Etcd>,
    prefix: String,
    store: Arc<EtcdStore>,
    second: Arc<EtcdStore>,
}

#[async_trait]
impl Exam for EtcdExam {
    fn name(&self) -> String {
        "etcd".to_owned()
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            compact: self.server.is_none(),
            reopen: true,
        }
    }

    /// etcd counts whole seconds and looks twice a second for what has run out.
    fn ttl(&self) -> Duration {
        Duration::from_secs(4)
    }

    async fn fresh(&self) -> Result<Box<dyn Sitting>, Failure> {
        let server = match &self.server {
            Some(server) => Arc::clone(server),
            None => Arc::new(Etcd::start(&[]).await),
        };
        let prefix = format!("exam/{}", self.sittings.fetch_add(1, Ordering::Relaxed));
        let store = Arc::new(open(server.config(&prefix)).await?);
        let second = Arc::new(open(server.config(&prefix)).await?);
        Ok(Box::new(EtcdSitting {
            server,
            prefix,
            store,
            second,
        }))
    }
}

#[async_trait]
impl Sitting for EtcdSitting {
    fn store(&self) -> DynBackend {
        self.store.clone()
    }

    fn second(&self) -> DynBackend {
        self.second.clone()
    }

    async fn pass_time(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }

    async fn compact(&self, revision: Revision) -> Verdict {
        Ok(self.store.compact(revision).await?)
    }

    async fn reopen(&mut self) -> Verdict {
        self.store.close().await?;
        self.second.close().await?;
        self.store = Arc::new(open(self.server.config(&self.prefix)).await?);
        self.second = Arc::new(open(self.server.config(&self.prefix)).await?);
        Ok(())
    }

    async fn end(self: Box<Self>) {
        let _ = self.store.close().await;
        let _ = self.second.close().await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// How long the long part is, from the environment.
#[expect(clippy::disallowed_methods, reason = "a test is told by whoever runs it")]
fn amount() -> Amount {
    Amount::parse(std::env::var("SKYLOOM_SOAK").ok().as_deref()).unwrap()
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let exam = |server| {
        Arc::new(EtcdExam {
            server,
            sittings: AtomicU64::new(0),
        })
    };
    let server = Arc::new(runtime().block_on(Etcd::start(&[])));
    let (shared, own) = (exam(Some(server.clone())), exam(None));
    let trials = cases().into_iter().map(|case| {
        let exam = Arc::clone(if case.needs.compact { &own } else { &shared });
        Trial::test(format!("{}::{}", exam.name(), case.name), move || {
            Ok(runtime().block_on(run_case(&*exam, case))?)
        })
    });
    let long = soak::trials(Arc::new(long::EtcdSoak), amount());
    let conclusion = libtest_mimic::run(&arguments, trials.chain(long).collect());
    // The trials are gone, and this was the last handle: the server ends here.
    drop((shared, own, server));
    conclusion.exit_code()
}
