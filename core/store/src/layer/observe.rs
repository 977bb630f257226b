//! Spans and metrics of every call.
//!
//! | metric | kind | labels |
//! | --- | --- | --- |
//! | `skyloom_store_call_seconds` | histogram | `operation`, `outcome` (`ok`, `conflict`, or the kind of error) |
//! | `skyloom_store_watches` | gauge | |
//! | `skyloom_store_watch_events_total` | counter | `event` (`commit`, `progress`, `gap`, `error`) |

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use skyloom_model::Clock;
use tracing::Instrument as _;

use crate::{
    Capability, DynBackend, ErrorKind, Grant, Key, KeyValue, LeaseInfo, LeaseMode, LeaseName, Leases,
    ListOptions, Outcome, Page, Prefix, Renewal, Result, Store, Txn, Watch, WatchEvent, WatchOptions,
};

/// Measures every call and counts what watches deliver.
pub struct Observe {
    inner: DynBackend,
    clock: Arc<dyn Clock>,
}

impl Observe {
    /// Observes `inner` by `clock`.
    #[must_use]
    pub fn new(inner: DynBackend, clock: Arc<dyn Clock>) -> Self {
        Self { inner, clock }
    }

    fn label(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("observe")
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        subject: &(dyn fmt::Display + Sync),
        good: fn(&T) -> &'static str,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let span = tracing::debug_span!("store", operation, %subject);
        let start = self.clock.monotonic();
        let answer = call.instrument(span.clone()).await;
        let took = self.clock.monotonic().saturating_sub(start);
        let outcome = match &answer {
            Ok(answer) => good(answer),
            Err(e) => {
                span.in_scope(|| tracing::debug!(error = %e, class = ?e.class(), "store call failed"));
                error_label(e.kind())
            }
        };
        metrics::histogram!("skyloom_store_call_seconds", "operation" => operation, "outcome" => outcome)
            .record(took);
        answer
    }
}

fn ok<T>(_: &T) -> &'static str {
    "ok"
}

fn outcome_label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Committed { .. } => "ok",
        Outcome::Conflict { .. } => "conflict",
    }
}

fn error_label(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Unknown => "unknown",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Overloaded => "overloaded",
        ErrorKind::Full => "full",
        ErrorKind::TooLarge => "too_large",
        ErrorKind::Compacted => "compacted",
        ErrorKind::Denied => "denied",
        ErrorKind::Invalid => "invalid",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::TooNew => "too_new",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::NotFound => "not_found",
        ErrorKind::Conflict => "error_conflict",
        ErrorKind::Internal => "internal",
    }
}

super::show_layer!(Observe);

#[async_trait]
impl Store for Observe {
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.call("get", key, ok, self.inner.get(key)).await
    }
    async fn list(&self, prefix: &Prefix, options: ListOptions) -> Result<Page> {
        self.call("list", prefix, ok, self.inner.list(prefix, options))
            .await
    }
    async fn commit(&self, txn: Txn) -> Result<Outcome> {
        let subject = format!("{} guards, {} writes", txn.guards.len(), txn.writes.len());
        self.call("commit", &subject, outcome_label, self.inner.commit(txn))
            .await
    }
    fn capability(&self) -> Capability {
        self.inner.capability()
    }
}

/// A watch that is counted while it is open.
struct Counted(BoxStream<'static, Result<WatchEvent>>);

impl Counted {
    fn open(stream: BoxStream<'static, Result<WatchEvent>>) -> Self {
        metrics::gauge!("skyloom_store_watches").increment(1.0);
        Self(stream)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("skyloom_store_watches").decrement(1.0);
    }
}

impl Stream for Counted {
    type Item = Result<WatchEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.0.poll_next_unpin(cx);
        if let Poll::Ready(Some(item)) = &polled {
            let event = match item {
                Ok(WatchEvent::Commit { .. }) => "commit",
                Ok(WatchEvent::Progress(_)) => "progress",
                Ok(WatchEvent::Gap { .. }) => "gap",
                Err(_) => "error",
            };
            metrics::counter!("skyloom_store_watch_events_total", "event" => event).increment(1);
        }
        polled
    }
}

impl Watch for Observe {
    fn watch(&self, prefix: &Prefix, options: WatchOptions) -> BoxStream<'static, Result<WatchEvent>> {
        tracing::debug!(%prefix, after = %options.after, "watch opened");
        Counted::open(self.inner.watch(prefix, options)).boxed()
    }
}

#[async_trait]
impl Leases for Observe {
    async fn grant(&self, name: &LeaseName, holder: &str, ttl: Duration, mode: LeaseMode) -> Result<Grant> {
        let label = |grant: &Grant| match grant {
            Grant::Granted { .. } => "ok",
            Grant::Held(_) => "held",
        };
        self.call("grant", name, label, self.inner.grant(name, holder, ttl, mode))
            .await
    }
    async fn renew(&self, name: &LeaseName, epoch: u64, ttl: Duration) -> Result<Renewal> {
        let label = |renewal: &Renewal| match renewal {
            Renewal::Held => "ok",
            Renewal::Lost => "lost",
        };
        self.call("renew", name, label, self.inner.renew(name, epoch, ttl))
            .await
    }
    async fn revoke(&self, name: &LeaseName, epoch: u64) -> Result<()> {
        self.call("revoke", name, ok, self.inner.revoke(name, epoch))
            .await
    }
    async fn leases(&self, prefix: &Prefix) -> Result<Vec<LeaseInfo>> {
        self.call("leases", prefix, ok, self.inner.leases(prefix)).await
    }
}
