//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures::future::BoxFuture;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{Peer, ServeLimits};
use crate::edge::Wire;
use crate::observe::REQUEST_ID;
use crate::problem::ApiError;

/// How long a connection that is not yet used is listened to after the shutdown.
const FIRST_WORDS: Duration = Duration::from_millis(500);

/// The configuration with the protocols that are spoken here, unless it names some itself.
pub(super) fn with_alpn(config: Arc<rustls::ServerConfig>) -> Arc<rustls::ServerConfig> {
    if !config.alpn_protocols.is_empty() {
        return config;
    }
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

pub(super) struct Connection {
    /// None when there is no seat for it: it is told so.
    pub(super) router: Option<axum::Router>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) limits: ServeLimits,
    pub(super) shutdown: CancellationToken,
}

impl Connection {
    pub(super) async fn run(self, stream: TcpStream) -> io::Result<()> {
        let wire = Wire {
            peer: stream.peer_addr()?,
            tls: self.tls.is_some(),
        };
        match self.tls.clone() {
            None => self.talk(stream, wire, Peer::default()).await,
            Some(tls) => {
                let handshake = tokio::time::timeout(self.limits.head_timeout, tls.accept(stream));
                let late = |_| io::Error::new(io::ErrorKind::TimedOut, "TLS handshake");
                let stream = handshake.await.map_err(late)??;
                let shown = stream.get_ref().1.peer_certificates();
                let shown = shown
                    .and_then(<[_]>::first)
                    .map(|first| first.clone().into_owned());
                self.talk(stream, wire, Peer::new(shown)).await
            }
        }
    }

    async fn talk(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        wire: Wire,
        peer: Peer,
    ) -> io::Result<()> {
        let limits = self.limits;
        let http = builder(&limits);
        let service = Service {
            router: self.router.map(TowerToHyperService::new),
            peer: peer.clone(),
            wire,
        };
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            biased;
            () = self.shutdown.cancelled() => {
                // One that has just come may have sent its first request: closed now, nobody could tell what became of it.
                tokio::select! {
                    biased;
                    ended = &mut connection => Some(ended),
                    () = peer.spoken() => None,
                    () = tokio::time::sleep(FIRST_WORDS) => None,
                }
            }
            () = peer.over(limits.head_timeout, limits.idle_timeout) => None,
            ended = &mut connection => Some(ended),
        };
        let ended = match ended {
            Some(ended) => ended,
            // What is under way is finished; a client that then does not go is cut off.
            None => {
                connection.as_mut().graceful_shutdown();
                let patience = limits.head_timeout.max(limits.drain);
                let rest = tokio::time::timeout(patience, connection).await;
                rest.unwrap_or(Ok(()))
            }
        };
        ended.map_err(io::Error::other)
    }
}

fn builder(limits: &ServeLimits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_buf_size(limits.max_head.max(8192));
    http.http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_streams)
        .initial_stream_window_size(limits.window)
        .initial_connection_window_size(limits.window.saturating_mul(4))
        .max_send_buf_size(limits.max_send_buffer)
        .max_pending_accept_reset_streams(limits.max_resets)
        .max_local_error_reset_streams(limits.max_resets.saturating_mul(16))
        .keep_alive_interval(limits.ping)
        .keep_alive_timeout(limits.ping_timeout);
    http
}

/// The router, with each request counted until its answer is sent.
struct Service {
    router: Option<TowerToHyperService<axum::Router>>,
    peer: Peer,
    wire: Wire,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let under_way = self.peer.begin();
        let Some(router) = &self.router else {
            self.peer.unwanted();
            let id = request.headers().get(REQUEST_ID);
            let id = id.and_then(|id| id.to_str().ok()).unwrap_or("refused");
            let refusal = ApiError::crowded().render(id);
            return Box::pin(async { Ok(refusal) });
        };
        request.extensions_mut().insert(self.peer.clone());
        request.extensions_mut().insert(self.wire);
        let answer = router.call(request);
        Box::pin(async {
            let response = answer.await?;
            Ok(response.map(|body| {
                // The frames pass as they are; what matters is how long this closure lives.
                Body::new(body.map_frame(move |frame| {
                    let _ = &under_way;
                    frame
                }))
            }))
        })
    }
}
