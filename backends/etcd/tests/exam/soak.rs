//! The long part of the exam: a server of its own, behind a line that is cut, and killed now and then.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skyloom_store::conformance::soak::Line;
use skyloom_store::conformance::{Abilities, Exam, Failure, Sitting, Verdict};
use skyloom_store::{DynBackend, Revision};
use skyloom_store_etcd::{EtcdConfig, EtcdStore};
use tokio::sync::Mutex;

use crate::support::{Etcd, open};

/// Of so many disturbances, one kills the server.
const KILLS: u64 = 6;

/// The exam of the long part.
pub(crate) struct EtcdSoak;

struct Soaked {
    server: Mutex<Etcd>,
    line: Line,
    stores: [Arc<EtcdStore>; 2],
}

#[async_trait]
impl Exam for EtcdSoak {
    fn name(&self) -> String {
        "etcd".to_owned()
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            compact: true,
            reopen: false,
        }
    }

    async fn fresh(&self) -> Result<Box<dyn Sitting>, Failure> {
        let server = Etcd::start(&[]).await;
        let far = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port));
        let (line, near) = Line::tcp(far).await.unwrap();
        let config = EtcdConfig::new([near.to_string()]).with_prefix("soak");
        let stores = [
            Arc::new(open(config.clone()).await?),
            Arc::new(open(config).await?),
        ];
        Ok(Box::new(Soaked {
            server: Mutex::new(server),
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
        let mut server = self.server.lock().await;
        if let Some(mut child) = server.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        server.run();
        server.wait().await;
        Ok(())
    }

    async fn end(self: Box<Self>) {
        for store in &self.stores {
            let _ = store.close().await;
        }
    }
}
