//! The one task that forgets history: raises the floor to what is kept, and deletes below it in small steps.
//!
//! Raising is a moment; deleting holds nobody up, because nothing below the floor is read any more. Several processes may
//! do it at once: they delete the same rows, or find them gone.

use std::sync::Arc;
use std::time::Duration;

use skyloom_store::Result;
use skyloom_store::feed::Hub;

use super::dialect::{Dialect, Position};
use super::pool::Pool;

/// Revisions that are deleted at once.
const STEP: i64 = 500;
/// Time between two looks.
const EVERY: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Trimmer<D: Dialect> {
    pub(super) pool: Arc<Pool<D>>,
    pub(super) hub: Arc<Hub>,
    pub(super) keep: u64,
}

impl<D: Dialect> Trimmer<D> {
    pub(super) async fn run(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            let head = self.hub.head();
            // A tenth more than asked for, so that the floor does not move with every commit.
            if head.revision.0.saturating_sub(head.floor.0) > self.keep + self.keep / 10
                && let Err(e) = self.trim().await
            {
                tracing::warn!(error = &e as &dyn std::error::Error, "history cannot be trimmed");
            }
        }
    }

    async fn trim(&self) -> Result<()> {
        let keep = i64::try_from(self.keep).unwrap_or(i64::MAX);
        let position = self.pool.run("trim", |d, link| d.position(link)).await?;
        raise(&self.pool, position.revision.saturating_sub(keep)).await
    }
}

/// Raises the floor to `floor`, as far as there are revisions, and deletes what is below.
pub(super) async fn raise<D: Dialect>(pool: &Pool<D>, floor: i64) -> Result<()> {
    let Position { floor, mut swept, .. } = pool.run("trim", |d, link| d.raise(link, floor, 0)).await?;
    while swept < floor {
        let to = floor.min(swept + STEP);
        pool.run("trim", |d, link| d.sweep(link, swept, to)).await?;
        pool.run("trim", |d, link| d.raise(link, 0, to)).await?;
        swept = to;
    }
    Ok(())
}
