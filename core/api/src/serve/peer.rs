//! Who is at the other end of one connection, and how busy it is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use skyloom_model::{Timestamp, TokenId};
use skyloom_pki::Judge;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::problem::ApiError;
use crate::seats::{Seat, Seats};

/// One connection, as its requests see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Requests begun.
    begun: AtomicU64,
    /// Requests whose answers are not yet sent.
    active: AtomicUsize,
    /// One seat for each token that came this way: a proxy in front carries many.
    tokens: Mutex<BTreeMap<TokenId, Seat>>,
    /// What was shown at the handshake; whether it counts is asked with each request.
    certificate: Option<CertificateDer<'static>>,
    /// Whose it is.
    host: OnceLock<Option<skyloom_pki::Peer>>,
    unwanted: CancellationToken,
    /// Rung at the first request.
    first: Notify,
}

/// One request under way; dropping it ends that.
#[derive(Debug)]
pub(super) struct UnderWay(Peer);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Peer {
    /// One that has shown a certificate, or none.
    pub(super) fn new(certificate: Option<CertificateDer<'static>>) -> Self {
        Self(Arc::new(Shared {
            certificate,
            ..Shared::default()
        }))
    }

    /// The host whose certificate was shown, if it is one of ours.
    pub(crate) fn host(&self, judge: &Judge, now: Timestamp) -> Option<&skyloom_pki::Peer> {
        let certificate = self.0.certificate.as_ref()?;
        let host = self.0.host.get_or_init(|| {
            let chain = std::slice::from_ref(certificate);
            judge.identify(chain, now).ok()
        });
        host.as_ref()
    }

    pub(super) fn begin(&self) -> UnderWay {
        if self.0.begun.fetch_add(1, Ordering::Relaxed) == 0 {
            self.0.first.notify_one();
        }
        self.0.active.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// Counts this connection as one of `token`'s. Who has too many is refused, and the connection is to be closed.
    pub(crate) fn admit(&self, seats: &Arc<Seats>, token: TokenId) -> Result<(), ApiError> {
        let mut tokens = self.0.tokens.lock();
        if tokens.contains_key(&token) {
            return Ok(());
        }
        let mut seat = seats.take()?;
        if seat.name(token).is_err() {
            if tokens.is_empty() {
                self.unwanted();
            }
            return Err(ApiError::too_many_connections());
        }
        tokens.insert(token, seat);
        Ok(())
    }

    /// Returns when a request has begun.
    pub(super) async fn spoken(&self) {
        if self.0.begun.load(Ordering::Relaxed) == 0 {
            self.0.first.notified().await;
        }
    }

    /// Has the connection closed when its requests are answered.
    pub(crate) fn unwanted(&self) {
        self.0.unwanted.cancel();
    }

    /// Returns when the connection should end: nobody wants it, no first request came within `first`, or none was under
    /// way for `idle` (up to half as long again).
    pub(super) async fn over(&self, first: Duration, idle: Duration) {
        let (mut last, mut quiet) = (0, 0);
        while quiet < 2 {
            let half = if last == 0 { first } else { idle } / 2;
            let waited = tokio::time::timeout(half, self.0.unwanted.cancelled()).await;
            if waited.is_ok() {
                return;
            }
            let begun = self.0.begun.load(Ordering::Relaxed);
            let now_quiet = begun == last && self.0.active.load(Ordering::Relaxed) == 0;
            quiet = if now_quiet { quiet + 1 } else { 0 };
            last = begun;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(2);
    const IDLE: Duration = Duration::from_secs(10);

    /// After how many seconds a connection is over, when `used` is done with it.
    async fn over_after(used: impl AsyncFnOnce(&Peer)) -> f64 {
        let peer = Peer::default();
        let start = tokio::time::Instant::now();
        let ((), ()) = tokio::join!(peer.over(FIRST, IDLE), used(&peer));
        start.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn silent_idle_and_unwanted_connections_end_and_busy_ones_stay() {
        let silent = over_after(async |_| ()).await;
        assert!((2.0..2.1).contains(&silent), "{silent}");
        let idle = over_after(async |peer| drop(peer.begin())).await;
        assert!((11.0..16.1).contains(&idle), "{idle}");
        let busy = over_after(async |peer| {
            let request = peer.begin();
            tokio::time::sleep(IDLE * 10).await;
            drop(request);
        });
        let busy = busy.await;
        assert!((105.0..116.0).contains(&busy), "{busy}");
        let unwanted = over_after(async |peer| peer.unwanted()).await;
        assert!(unwanted < 0.1, "{unwanted}");
    }
}
