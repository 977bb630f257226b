//! Calls per second, and how long one takes: what the rate examples of the backends share.

use std::error::Error;
use std::time::Duration;

use skyloom_model::{Clock as _, SystemClock};
use tokio::task::JoinSet;

pub(crate) type AnyError = Box<dyn Error + Send + Sync>;

/// What was measured.
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

/// Runs `clients` loops of `call(client, n)` for `limit`; each call gets what the one before gave, the first gets 0.
pub(crate) async fn measure<F>(
    clients: usize,
    limit: Duration,
    call: impl Fn(usize, u64) -> F + Clone + Send + 'static,
) -> Result<Rate, AnyError>
where
    F: Future<Output = Result<u64, AnyError>> + Send,
{
    let clock = SystemClock::new();
    let start = clock.monotonic();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let call = call.clone();
        tasks.spawn(async move {
            let mut took = Vec::new();
            let mut state = 0;
            loop {
                let begin = clock.monotonic();
                if begin - start >= limit {
                    return Ok::<_, AnyError>(took);
                }
                state = call(client, state).await?;
                took.push(clock.monotonic() - begin);
            }
        });
    }
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.extend(done??);
    }
    let seconds = (clock.monotonic() - start).as_secs_f64();
    took.sort_unstable();
    let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default();
    Ok(Rate {
        per_second: took.len() as f64 / seconds,
        p50: at(50),
        p99: at(99),
    })
}
