//! Commits that wait too long: who holds them, for the log and for the caller.
//!
//! Somebody else's open transaction can hold a row that a commit needs. The server ends the wait after `max_wait_ms`, but says
//! nothing of the reason, and by then it has forgotten. So a second connection looks while the first one still waits.

use std::sync::atomic::Ordering;

use super::dialect::Dialect;
use super::pool::Pool;
use super::{Counters, Limits};

/// Awaits `call` of the session `waiting`. When that takes long, finds out and logs what it waits for.
pub(super) async fn watched<D: Dialect, T>(
    pool: &Pool<D>,
    counters: &Counters,
    limits: Limits,
    waiting: i64,
    call: impl Future<Output = T>,
) -> (T, Option<String>) {
    let mut call = std::pin::pin!(call);
    if let Ok(answer) = tokio::time::timeout(limits.stall, &mut call).await {
        return (answer, None);
    }
    counters.stalls.fetch_add(1, Ordering::Relaxed);
    metrics::counter!("skyloom_store_stalls_total").increment(1);
    let mut look = std::pin::pin!(pool.run("commit", |d, link| d.holder(link, waiting)));
    let holder = tokio::select! {
        biased;
        answer = &mut call => return (answer, None),
        found = &mut look => found.ok().flatten(),
    };
    tracing::warn!(
        waited_ms = limits.stall.as_millis(),
        held_by = holder.as_deref().unwrap_or("nobody that this user may see"),
        "a commit does not get on"
    );
    (call.await, holder)
}
