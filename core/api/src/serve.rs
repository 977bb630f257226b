//! A server for those who have none: HTTP/1.1 and HTTP/2 on a listener, with or without TLS, ended gracefully.
//!
//! ```text
//! listener ── seat? ──> TLS (ALPN) ──> HTTP/1.1 or HTTP/2 ──> router
//!    └ none left: the connection is told 503 and closed
//! ```
//!
//! Each connection is watched over: one that says nothing, that stays idle, or whose far end does not answer pings, is
//! ended. At the shutdown clients are told to go elsewhere while what they have begun is finished.

mod limits;
mod peer;
mod talk;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use limits::ServeLimits;
pub(crate) use peer::Peer;

use talk::Connection;

/// Connections beyond [`ServeLimits::max_connections`] that are told so at a time; more wait to be accepted.
const REFUSED_AT_A_TIME: usize = 64;

/// Serves `router` on `listener` until `shutdown`: then nothing more is accepted, open requests may end, and after
/// [`ServeLimits::drain`] what is left is cut off.
///
/// # Errors
/// When the listener has no address, that is: when it never worked.
pub async fn serve(
    listener: TcpListener,
    router: axum::Router,
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: ServeLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, tls = tls.is_some(), "serving");
    let tls = tls.map(|config| TlsAcceptor::from(talk::with_alpn(config)));
    let seats = Arc::new(Semaphore::new(limits.max_connections));
    let refusals = Arc::new(Semaphore::new(REFUSED_AT_A_TIME));
    let mut connections = JoinSet::new();
    let begin = |accepted: Accepted, connections: &mut JoinSet<()>| {
        let connection = Connection {
            router: (!accepted.refused).then(|| router.clone()),
            tls: tls.clone(),
            limits,
            shutdown: shutdown.clone(),
        };
        connections.spawn(async move {
            if let Err(error) = connection.run(accepted.stream).await {
                tracing::debug!(peer = %accepted.from, error = %error, "connection ended");
            }
            drop(accepted.seat);
        });
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &seats, &refusals) => accepted,
        };
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Such as no file descriptors left: it passes, and must not be asked in a busy loop.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        begin(accepted, &mut connections);
    }
    // Those who have been let in by the kernel already; they are told to go elsewhere.
    while let Some(Ok(accepted)) = accept(&listener, &seats, &refusals).now_or_never() {
        begin(accepted, &mut connections);
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!(%address, left = connections.len(), "connections are cut off");
        connections.shutdown().await;
    }
    Ok(())
}

struct Accepted {
    stream: TcpStream,
    from: SocketAddr,
    seat: OwnedSemaphorePermit,
    /// There was no seat for it but that of those who are told so.
    refused: bool,
}

async fn accept(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
    refusals: &Arc<Semaphore>,
) -> io::Result<Accepted> {
    let (seat, refused) = tokio::select! {
        biased;
        seat = Arc::clone(seats).acquire_owned() => (seat, false),
        seat = Arc::clone(refusals).acquire_owned() => (seat, true),
    };
    let seat = seat.map_err(io::Error::other)?;
    let (stream, from) = listener.accept().await?;
    stream.set_nodelay(true)?;
    // A seat may have become free while nobody came.
    let (seat, refused) = match Arc::clone(seats).try_acquire_owned() {
        Ok(free) if refused => (free, false),
        _ => (seat, refused),
    };
    Ok(Accepted {
        stream,
        from,
        seat,
        refused,
    })
}
