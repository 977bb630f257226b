//! A far end that answers as the test says: one request per connection.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use h2::server::{Connection, SendResponse};
use http::{Request, Response};
use skyloom_model::Secret;
use skyloom_store_remote::{RemoteConfig, RemoteStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// What follows the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// The answer's end.
    End,
    /// Silence.
    Silence,
    /// The connection's end, without the answer's.
    Close,
    /// A farewell (GOAWAY) that covers the request, and then the connection's end.
    Farewell,
    /// The stream is refused as not begun.
    Refuse,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// None: not even a head.
    pub(crate) status: Option<u16>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    pub(crate) then: Then,
}

impl Answer {
    pub(crate) fn nothing(then: Then) -> Self {
        Self {
            status: None,
            headers: Vec::new(),
            body: Bytes::new(),
            then,
        }
    }

    pub(crate) fn new(status: u16, kind: &str, body: impl Into<Bytes>) -> Self {
        Self {
            status: Some(status),
            headers: vec![("content-type", kind.to_owned())],
            body: body.into(),
            then: Then::End,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }
}

/// A request as it arrived.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) head: Request<()>,
    pub(crate) body: String,
}

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) requests: mpsc::UnboundedReceiver<Heard>,
    _task: JoinSet<()>,
}

pub(crate) async fn peer(answer: Answer) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, requests) = mpsc::unbounded_channel();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            connections.spawn(talk(stream, answer.clone(), tell.clone()));
        }
    });
    Peer {
        address,
        requests,
        _task: task,
    }
}

async fn talk(stream: TcpStream, answer: Answer, tell: mpsc::UnboundedSender<Heard>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (head, mut body) = request.into_parts();
        let mut text = Vec::new();
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = body.data() => chunk,
                _ = connection.accept() => panic!("one request at a time"),
            };
            let Some(chunk) = chunk else { break };
            let chunk = chunk.unwrap();
            body.flow_control().release_capacity(chunk.len()).unwrap();
            text.extend_from_slice(&chunk);
        }
        let head = Request::from_parts(head, ());
        let body = String::from_utf8(text).unwrap();
        // The test may have heard enough.
        let _ = tell.send(Heard { head, body });
        say(&mut connection, &mut respond, &answer).await;
        match answer.then {
            Then::End | Then::Refuse => {}
            Then::Silence => return std::future::pending().await,
            Then::Close => return,
            Then::Farewell => {
                connection.graceful_shutdown();
                let _ = connection.accept().now_or_never();
                return;
            }
        }
    }
}

async fn say(
    connection: &mut Connection<TcpStream, Bytes>,
    respond: &mut SendResponse<Bytes>,
    answer: &Answer,
) {
    if answer.then == Then::Refuse {
        respond.send_reset(h2::Reason::REFUSED_STREAM);
        return;
    }
    let Some(status) = answer.status else { return };
    let mut head = Response::builder().status(status);
    for (name, value) in &answer.headers {
        head = head.header(*name, value);
    }
    let end = answer.then == Then::End;
    let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
    // As far as the reader takes it; it may have had enough and gone.
    if stream.send_data(answer.body.clone(), end).is_err() {
        return;
    }
    if !end {
        let _ = connection.accept().now_or_never();
    }
}

impl Peer {
    pub(crate) fn store(&self) -> RemoteStore {
        RemoteStore::open(self.config()).unwrap()
    }
    pub(crate) fn config(&self) -> RemoteConfig {
        RemoteConfig::new(
            format!("http://{}", self.address),
            Secret::new("sky_secret".to_owned()),
        )
        .with_request_timeout(Duration::from_millis(300))
        .with_silence_timeout(Duration::from_millis(300))
        .with_reconnect_spread(Duration::from_millis(20))
    }
    /// Requests that arrived so far.
    pub(crate) fn heard(&mut self) -> usize {
        std::iter::from_fn(|| self.requests.try_recv().ok()).count()
    }
}
