//! A server for those who have none: HTTP/1.1 on a listener, with or without TLS, ended gracefully.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Bounds on connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServeLimits {
    /// Open connections; more wait to be accepted.
    pub max_connections: usize,
    /// Longest time for a request's head to arrive, for a TLS handshake, and for a connection to be idle.
    pub head_timeout: Duration,
    /// Longest head in bytes.
    pub max_head: usize,
    /// Longest time for open requests to end after the shutdown.
    pub drain: Duration,
}

impl Default for ServeLimits {
    /// 16384 connections, 30 s, 64 KiB, 10 s.
    fn default() -> Self {
        Self {
            max_connections: 16384,
            head_timeout: Duration::from_secs(30),
            max_head: 64 << 10,
            drain: Duration::from_secs(10),
        }
    }
}

impl ServeLimits {
    /// With another number of connections.
    #[must_use]
    pub fn with_max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections.max(1);
        self
    }
    /// With another longest time for a head.
    #[must_use]
    pub fn with_head_timeout(mut self, timeout: Duration) -> Self {
        self.head_timeout = timeout;
        self
    }
    /// With another longest time for the end.
    #[must_use]
    pub fn with_drain(mut self, drain: Duration) -> Self {
        self.drain = drain;
        self
    }
}

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
    let tls = tls.map(TlsAcceptor::from);
    let seats = Arc::new(Semaphore::new(limits.max_connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &seats) => accepted,
        };
        let (stream, peer, seat) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Such as no file descriptors left: it passes, and must not be asked in a busy loop.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let connection = Connection {
            router: router.clone(),
            tls: tls.clone(),
            limits,
            shutdown: shutdown.clone(),
        };
        connections.spawn(async move {
            if let Err(error) = connection.run(stream).await {
                tracing::debug!(%peer, error = %error, "connection ended");
            }
            drop(seat);
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain, drained).await.is_err() {
        tracing::warn!(%address, left = connections.len(), "connections are cut off");
        connections.shutdown().await;
    }
    Ok(())
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, seats: &Arc<Semaphore>) -> io::Result<Accepted> {
    let seat = Arc::clone(seats)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, seat))
}

struct Connection {
    router: axum::Router,
    tls: Option<TlsAcceptor>,
    limits: ServeLimits,
    shutdown: CancellationToken,
}

impl Connection {
    async fn run(self, stream: TcpStream) -> io::Result<()> {
        match self.tls.clone() {
            None => self.talk(stream).await,
            Some(tls) => {
                let handshake = tokio::time::timeout(self.limits.head_timeout, tls.accept(stream));
                let late = |_| io::Error::new(io::ErrorKind::TimedOut, "TLS handshake");
                let stream = handshake.await.map_err(late)??;
                self.talk(stream).await
            }
        }
    }

    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_buf_size(self.limits.max_head.max(8192));
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(self.router));
        tokio::pin!(connection);
        let ended = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            ended = &mut connection => ended,
        };
        ended.map_err(io::Error::other)
    }
}
