//! The one connection's comings and goings: when it may be made anew, and what became of the last attempt.
//!
//! ```text
//! a call or watch breaks ──> Link::lost ──> not before: a moment of this client's own
//! next calls ── Link::ready (wait for that moment) ──> connector ── Link::attempt ──> made | failed: not before …
//! ```
//!
//! The moment comes from the client's token and a count, so it needs no source of chance: every agent has a token of its
//! own, so no two have the same moments.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// What is known of the connection.
#[derive(Debug)]
pub(crate) struct Link {
    seed: u64,
    spread: Duration,
    connect_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Connections made so far.
    made: u64,
    /// Moments drawn so far.
    drawn: u64,
    /// Attempts that failed since the last connection.
    failures: u32,
    /// The next attempt waits until then.
    not_before: Option<Instant>,
    /// The next watch waits until then: the store behind the API has trouble, and told all watchers at once.
    no_watch_before: Option<Instant>,
}

impl Link {
    pub(crate) fn new(token: &str, spread: Duration, connect_timeout: Duration) -> Self {
        let mut hasher = DefaultHasher::new();
        token.hash(&mut hasher);
        Self {
            seed: hasher.finish(),
            spread,
            connect_timeout,
            state: Mutex::default(),
        }
    }

    /// Which connection this is: 0 before the first.
    pub(crate) fn made(&self) -> u64 {
        self.state.lock().made
    }

    /// Waits while a broken connection may not be made anew yet.
    pub(crate) async fn ready(&self) {
        let until = self.state.lock().not_before;
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Waits while watches may not be opened anew yet.
    pub(crate) async fn watchable(&self) {
        self.ready().await;
        let until = self.state.lock().no_watch_before;
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// The store ended or refused a watch.
    pub(crate) fn troubled(&self) {
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.no_watch_before.is_none_or(|until| until <= now) {
            state.no_watch_before = Some(self.moment(&mut state, self.spread));
        }
    }

    /// The `made`-th connection is no more. Only the first to say so moves the next attempt.
    pub(crate) fn lost(&self, made: u64) {
        let mut state = self.state.lock();
        if state.made == made && state.not_before.is_none() {
            self.draw(&mut state);
        }
    }

    fn draw(&self, state: &mut State) {
        let spread = self.spread * if state.failures == 0 { 1 } else { 2 };
        state.not_before = Some(self.moment(state, spread));
    }

    /// A moment of this client's own within `spread`.
    fn moment(&self, state: &mut State, spread: Duration) -> Instant {
        state.drawn += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, state.drawn).hash(&mut hasher);
        let part = hasher.finish() as f64 / u64::MAX as f64;
        Instant::now() + spread.mul_f64(part)
    }

    /// Whether an attempt may begin now.
    fn attempt(&self) -> Result<(), BoxError> {
        match self.state.lock().not_before {
            Some(until) if until > Instant::now() => Err("the last attempt has just failed".into()),
            _ => Ok(()),
        }
    }

    fn attempted(&self, made: bool) {
        let mut state = self.state.lock();
        if made {
            state.made += 1;
            state.failures = 0;
            state.not_before = None;
        } else {
            state.failures = state.failures.saturating_add(1);
            self.draw(&mut state);
        }
    }
}

/// Puts a [`Link`] around a connector.
#[derive(Debug, Clone)]
pub(crate) struct Gate(pub(crate) Arc<Link>);

#[derive(Debug, Clone)]
pub(crate) struct Gated<S> {
    link: Arc<Link>,
    inner: S,
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;
    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            link: Arc::clone(&self.0),
            inner,
        }
    }
}

impl<S, R> Service<R> for Gated<S>
where
    S: Service<R, Error = BoxError>,
    S::Future: Send + 'static,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let link = Arc::clone(&self.link);
        // Calls that waited for an attempt that failed fail with it: each trying in turn would add up their waits.
        if let Err(e) = link.attempt() {
            return Box::pin(async move { Err(e) });
        }
        let attempt = tokio::time::timeout(link.connect_timeout, self.inner.call(request));
        Box::pin(async move {
            let made = attempt
                .await
                .unwrap_or_else(|_| Err("no connection in time".into()));
            link.attempted(made.is_ok());
            made
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPREAD: Duration = Duration::from_secs(2);

    fn waits(link: &Link) -> Duration {
        let until = link.state.lock().not_before;
        until.map_or(Duration::ZERO, |until| until - Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn two_thousand_clients_come_back_spread_over_the_time() {
        let mut per_tenth = [0_u32; 10];
        for n in 0..2000 {
            let link = Link::new(&format!("sky_{n}"), SPREAD, SPREAD);
            link.attempted(true);
            link.lost(link.made());
            let wait = waits(&link);
            assert!(wait <= SPREAD);
            per_tenth[(wait.as_millis() * 10 / 2001) as usize] += 1;
        }
        assert!(
            per_tenth.iter().all(|n| (140..=260).contains(n)),
            "200 in each tenth: {per_tenth:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_holds_back_watches_and_nothing_else() {
        let link = Link::new("sky_1", SPREAD, SPREAD);
        link.attempted(true);
        link.troubled();
        let start = Instant::now();
        link.ready().await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        link.watchable().await;
        let waited = start.elapsed();
        assert!(
            waited > Duration::ZERO && waited <= SPREAD + Duration::from_millis(1),
            "{waited:?}"
        );
        link.watchable().await;
        assert_eq!(start.elapsed(), waited);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_counts_once_and_only_while_it_is_news() {
        let link = Link::new("sky_1", SPREAD, SPREAD);
        link.ready().await;
        assert!(link.attempt().is_ok(), "the first connection waits for nothing");
        link.attempted(true);
        link.lost(0);
        assert_eq!(waits(&link), Duration::ZERO, "that was an earlier one");
        link.lost(1);
        let first = waits(&link);
        assert!(first > Duration::ZERO);
        link.lost(1);
        assert_eq!(waits(&link), first, "the second to tell moves nothing");
        assert!(link.attempt().is_err());
        link.ready().await;
        assert!(link.attempt().is_ok());
        link.attempted(false);
        assert!(waits(&link) > Duration::ZERO && waits(&link) <= SPREAD * 2);
        link.attempted(true);
        assert_eq!(waits(&link), Duration::ZERO);
    }
}
