//! The long part of the exam: a server of its own, behind a line that is cut, and killed now and then.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skyloom_store::conformance::soak::Line;
use skyloom_store::conformance::{Abilities, Exam, Failure, Sitting, Verdict};
use skyloom_store::{DynBackend, Revision};
use skyloom_store_sql::Engine;
use tempfile::TempDir;

use crate::servers::{AnyError, Handle, Server};

/// Of so many disturbances, one kills the server.
const KILLS: u64 = 6;

/// The long exam of one kind of server.
pub(crate) struct ServerSoak(pub(crate) Engine);

struct Soaked {
    server: Arc<Server>,
    line: Line,
    /// Of the line's near end.
    _dir: TempDir,
    handles: [Handle; 2],
}

/// Servers are started and ended on threads that may wait.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AnyError> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Failure::new(e.to_string()))?
        .map_err(|e| Failure::new(e.to_string()))
}

#[async_trait]
impl Exam for ServerSoak {
    fn name(&self) -> String {
        self.0.to_string()
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            compact: true,
            reopen: false,
        }
    }

    async fn fresh(&self) -> Result<Box<dyn Sitting>, Failure> {
        let engine = self.0;
        let server = Arc::new(aside(move || Server::start(engine, &[])).await?);
        let dir = tempfile::tempdir().map_err(|e| Failure::new(e.to_string()))?;
        let socket = server.socket();
        let near = dir.path().join(socket.file_name().unwrap_or_default());
        let line = Line::unix(&near, socket).map_err(|e| Failure::new(e.to_string()))?;
        let mut config = server.config();
        config.socket = Some(match engine {
            Engine::Postgres => dir.path().to_owned(),
            _ => near,
        });
        let handles = [
            Handle::create(config.clone()).await?,
            Handle::create(config).await?,
        ];
        Ok(Box::new(Soaked {
            server,
            line,
            _dir: dir,
            handles,
        }))
    }
}

#[async_trait]
impl Sitting for Soaked {
    fn store(&self) -> DynBackend {
        self.handles[0].backend()
    }

    fn second(&self) -> DynBackend {
        self.handles[1].backend()
    }

    async fn pass_time(&self, by: Duration) {
        tokio::time::sleep(by).await;
    }

    async fn compact(&self, revision: Revision) -> Verdict {
        // The line may have been cut a moment ago; another compaction comes.
        let _ = self.handles[0].compact(revision).await;
        Ok(())
    }

    async fn disturb(&self, seed: u64) -> Verdict {
        if !seed.is_multiple_of(KILLS) {
            self.line.cut();
            return Ok(());
        }
        let server = Arc::clone(&self.server);
        aside(move || {
            server.kill()?;
            server.run()
        })
        .await
    }

    async fn end(self: Box<Self>) {
        for handle in &self.handles {
            let _ = handle.close().await;
        }
        let server = Arc::clone(&self.server);
        let _ = aside(move || server.kill()).await;
    }
}
