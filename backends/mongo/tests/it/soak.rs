//! The long part of the exam: a server of its own, behind a line that is cut, and killed now and then.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use libtest_mimic::Trial;
use skyloom_store::conformance::soak::{self, Amount, Line};
use skyloom_store::conformance::{Abilities, Exam, Failure, Sitting, Verdict};
use skyloom_store::{DynBackend, Revision};
use skyloom_store_mongo::{MongoConfig, MongoStore};
use tokio::sync::Mutex;

use crate::support::Server;

/// Of so many disturbances, one kills the server.
const KILLS: u64 = 6;

pub(crate) fn trials() -> Vec<Trial> {
    soak::trials(Arc::new(MongoSoak), amount())
}

/// How long the long part is, from the environment.
#[expect(clippy::disallowed_methods, reason = "a test is told by whoever runs it")]
fn amount() -> Amount {
    Amount::parse(std::env::var("SKYLOOM_SOAK").ok().as_deref()).unwrap()
}

struct MongoSoak;

struct Soaked {
    server: Arc<Mutex<Server>>,
    line: Line,
    stores: [Arc<MongoStore>; 2],
}

#[async_trait]
impl Exam for MongoSoak {
    fn name(&self) -> String {
        "mongo".to_owned()
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            compact: true,
            reopen: false,
        }
    }

    async fn fresh(&self) -> Result<Box<dyn Sitting>, Failure> {
        let started = tokio::task::spawn_blocking(|| Server::start(&["--sync-on-commit"])).await;
        let server = started.map_err(|e| Failure::new(e.to_string()))?;
        let far = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port));
        let (line, near) = Line::tcp(far).await.unwrap();
        let mut config = MongoConfig::new(Server::uri_through(near.port()), "soak");
        // A loaded machine is no reason to fail.
        config.call_ms = 30_000;
        config.connect_ms = 20_000;
        skyloom_store_mongo::migrate(&config).await?;
        let stores = [
            Arc::new(MongoStore::open(config.clone()).await?),
            Arc::new(MongoStore::open(config).await?),
        ];
        Ok(Box::new(Soaked {
            server: Arc::new(Mutex::new(server)),
            line,
            stores,
        }))
    }
}

#[async_trait]
impl Sitting for Soaked {
    fn store(&self) -> DynBackend {
        self.stores[0].clone()
    }

    fn second(&self) -> DynBackend {
        self.stores[1].clone()
    }

    async fn pass_time(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }

    async fn compact(&self, revision: Revision) -> Verdict {
        // The line may have been cut a moment ago; another compaction comes.
        let _ = self.stores[0].compact(revision).await;
        Ok(())
    }

    async fn disturb(&self, seed: u64) -> Verdict {
        if !seed.is_multiple_of(KILLS) {
            self.line.cut();
            return Ok(());
        }
        let mut server = Arc::clone(&self.server).lock_owned().await;
        let again = move || {
            server.kill();
            server.restart();
        };
        let done = tokio::task::spawn_blocking(again).await;
        done.map_err(|e| Failure::new(e.to_string()))
    }

    async fn end(self: Box<Self>) {
        for store in &self.stores {
            store.close().await;
        }
    }
}
