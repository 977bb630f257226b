//! `LISTEN`: woken by the commits of other processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use skyloom_store::Result;
use sqlx::postgres::{PgListener, PgPoolOptions};

use super::{Postgres, setup};
use crate::server::dialect::{Bell, failed};

#[derive(Debug)]
struct Listening {
    listener: PgListener,
    /// This process: its own notifications are no news.
    writer: Arc<AtomicI64>,
}

/// Starts to listen.
pub(super) async fn hang(postgres: &Postgres, writer: Arc<AtomicI64>) -> Result<Box<dyn Bell>> {
    let sql = |e| failed(postgres, "listen", e);
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(postgres.config.max_wait())
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(setup::options(&postgres.config));
    let mut listener = PgListener::connect_with(&pool).await.map_err(sql)?;
    // A lost connection is an error here: the caller looks for itself and listens anew.
    listener.eager_reconnect(false);
    listener.listen(&setup::name(postgres)).await.map_err(sql)?;
    Ok(Box::new(Listening { listener, writer }))
}

#[async_trait]
impl Bell for Listening {
    async fn rung(&mut self) -> sqlx::Result<()> {
        loop {
            let Some(notification) = self.listener.try_recv().await? else {
                return Err(sqlx::Error::WorkerCrashed);
            };
            let own = self.writer.load(Ordering::Relaxed).to_string();
            if notification.payload() != own {
                return Ok(());
            }
        }
    }
}
