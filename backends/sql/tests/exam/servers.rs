//! The exam of every store, sat by PostgreSQL and MariaDB: one server each, one table prefix per case.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skyloom_store::conformance::{Abilities, Exam, Failure, Sitting, Verdict};
use skyloom_store::{DynBackend, Revision};
use skyloom_store_sql::{Engine, ServerConfig};

use crate::servers::{Handle, Server, shared};

/// The exam of one kind of server.
pub(crate) struct ServerExam(pub(crate) Engine);

struct ServerSitting {
    server: Arc<Server>,
    config: ServerConfig,
    /// Two stores with connections of their own, as two processes have them.
    handles: [Handle; 2],
}

impl ServerSitting {
    async fn open(config: &ServerConfig) -> Result<[Handle; 2], Failure> {
        Ok([
            Handle::create(config.clone()).await?,
            Handle::create(config.clone()).await?,
        ])
    }
}

#[async_trait]
impl Exam for ServerExam {
    fn name(&self) -> String {
        self.0.to_string()
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            compact: true,
            reopen: true,
        }
    }

    async fn fresh(&self) -> Result<Box<dyn Sitting>, Failure> {
        let engine = self.0;
        let server = tokio::task::spawn_blocking(move || shared(engine))
            .await
            .map_err(|e| Failure::new(e.to_string()))?
            .map_err(|e| Failure::new(e.to_string()))?;
        let config = server.config();
        let handles = ServerSitting::open(&config).await?;
        Ok(Box::new(ServerSitting {
            server,
            config,
            handles,
        }))
    }
}

#[async_trait]
impl Sitting for ServerSitting {
    fn store(&self) -> DynBackend {
        self.handles[0].backend()
    }

    fn second(&self) -> DynBackend {
        self.handles[1].backend()
    }

    /// The database's clock cannot be moved, so the ends of all leases move towards it.
    async fn pass_time(&self, by: Duration) {
        let by = by.as_micros();
        let leases = format!("{}_leases", self.config.prefix);
        let sql = match self.config.engine {
            Engine::Postgres => {
                format!("UPDATE {leases} SET expires_at = expires_at - {by} * interval '1 microsecond'")
            }
            _ => format!("UPDATE {leases} SET expires_at = expires_at - INTERVAL {by} MICROSECOND"),
        };
        self.server
            .execute(&sql)
            .await
            .expect("the leases can be changed");
    }

    async fn compact(&self, revision: Revision) -> Verdict {
        Ok(self.handles[0].compact(revision).await?)
    }

    async fn reopen(&mut self) -> Verdict {
        for handle in &self.handles {
            handle.close().await?;
        }
        self.handles = Self::open(&self.config).await?;
        Ok(())
    }

    async fn end(self: Box<Self>) {
        for handle in &self.handles {
            let _ = handle.close().await;
        }
    }
}
