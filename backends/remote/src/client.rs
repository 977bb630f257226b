//! One request, one bounded answer, and what each failure means.
//!
//! All requests share one HTTP/2 connection. What stands in nobody's way there:
//! * the window of the connection is as large as the windows of all its streams together, so a watch that nobody reads
//!   fills its own window and delays no other answer;
//! * watches, leases and all other calls have seats of their own, together as many as the API allows streams: a renewal
//!   never waits for a stream behind a watch or a commit;
//! * the bodies of all other calls that are on their way at a time are few bytes, so it does not wait behind them either.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skyloom_model::Secret;
use skyloom_store::wire::{MAX_LINE_BYTES, ROOT, WireError};
use skyloom_store::{Class, Error, ErrorKind, Result};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::RemoteConfig;
use crate::http::Http;
use crate::link::Link;

/// Longest body of an answer: a page of the protocol with room for its own writing.
const MAX_ANSWER_BYTES: usize = MAX_LINE_BYTES;
/// Longest error body that is read.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

/// Requests about leases under way at a time.
const LEASE_SEATS: usize = 32;
/// Other calls under way at a time; the rest of the API's 256 streams are for watches.
const CALL_SEATS: usize = 96;
/// Kibibytes of requests on their way at a time: what a renewal may find before it on the wire.
const BULK_KIB: u32 = 2 << 10;
/// What may have happened behind when the answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing that matters: a read, or a call that may be made again.
    Nothing,
    /// The change may have been made.
    Unknown,
}

/// The HTTP side of a remote store.
pub(crate) struct Client {
    http: Http,
    link: Arc<Link>,
    calls: Semaphore,
    leases: Semaphore,
    bulk: Semaphore,
    watches: Arc<Semaphore>,
    base: Url,
    authorization: Option<HeaderValue>,
    request_timeout: Duration,
    pub(crate) silence_timeout: Duration,
}

/// The part of a problem document that matters here.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    code: Option<String>,
    /// Kept loose: a newer server may know kinds that this program does not.
    #[serde(default)]
    store: Option<serde_json::Value>,
}

impl Client {
    pub(crate) fn new(config: RemoteConfig) -> Result<Self> {
        let base = config.base()?;
        let authorization = config.token.as_ref().map(authorization).transpose()?;
        let link = Arc::new(Link::new(
            &seed(&config),
            config.reconnect_spread,
            config.connect_timeout,
        ));
        let http = Http::new(&config, Arc::clone(&link))?;
        Ok(Self {
            http,
            link,
            calls: Semaphore::new(CALL_SEATS),
            leases: Semaphore::new(LEASE_SEATS),
            bulk: Semaphore::new(BULK_KIB as usize),
            watches: Arc::new(Semaphore::new(config.max_watches)),
            base,
            authorization,
            request_timeout: config.request_timeout,
            silence_timeout: config.silence_timeout,
        })
    }

    /// The API's address, for display.
    pub(crate) fn address(&self) -> &str {
        self.base.as_str()
    }

    fn url(&self, endpoint: &str) -> Url {
        let mut url = self.base.clone();
        let path = format!("{}{ROOT}/{endpoint}", self.base.path().trim_end_matches('/'));
        url.set_path(&path);
        url
    }

    /// Sends `body` to `endpoint` and reads the whole answer.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        endpoint: &str,
        operation: &'static str,
        body: &(impl Serialize + Sync),
        fate: Fate,
    ) -> Result<T> {
        let body = json(operation, body)?;
        let _seats = self.begin(endpoint, operation, body.len()).await?;
        let exchange = async {
            let response = self.send(endpoint, operation, body, fate).await?;
            let made = self.link.made();
            let bytes = read(response, MAX_ANSWER_BYTES).await.map_err(|e| {
                if matches!(e, Lost::Native(_)) {
                    self.link.lost(made);
                }
                lost(operation, fate, e)
            })?;
            serde_json::from_slice(&bytes)
                .map_err(|e| lost(operation, fate, Lost::Broken(format!("no such answer: {e}"))))
        };
        match tokio::time::timeout(self.request_timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(lost(operation, fate, Lost::Late)),
        }
    }

    /// Waits until a call may be made; nothing has left before.
    async fn begin(&self, endpoint: &str, operation: &'static str, length: usize) -> Result<Seats<'_>> {
        let waiting = async {
            let seats = if endpoint.starts_with("lease") {
                (self.leases.acquire().await, None)
            } else {
                let kib = u32::try_from(length >> 10).unwrap_or(u32::MAX).min(BULK_KIB);
                let seat = self.calls.acquire().await;
                (seat, Some(self.bulk.acquire_many(kib).await))
            };
            self.link.ready().await;
            seats
        };
        // The semaphores are never closed.
        tokio::time::timeout(self.request_timeout, waiting)
            .await
            .map_err(|_| {
                Error::new(ErrorKind::Overloaded, operation)
                    .because("too many calls of this client are under way")
            })
    }

    /// Sends `body` to `endpoint` and waits for the head of a good answer.
    pub(crate) async fn open(
        &self,
        endpoint: &str,
        operation: &'static str,
        body: &(impl Serialize + Sync),
    ) -> Result<Opened> {
        let Ok(seat) = Arc::clone(&self.watches).try_acquire_owned() else {
            return Err(Error::new(ErrorKind::Overloaded, operation)
                .because("this client has as many watches open as it may"));
        };
        let body = json(operation, body)?;
        let opening = async {
            self.link.watchable().await;
            self.send(endpoint, operation, body, Fate::Nothing).await
        };
        match tokio::time::timeout(self.request_timeout, opening).await {
            Ok(Ok(response)) => Ok(Opened {
                response,
                made: self.link.made(),
                seat,
            }),
            Ok(Err(e)) => {
                self.troubled(&e);
                Err(e)
            }
            Err(_) => Err(lost(operation, Fate::Nothing, Lost::Late)),
        }
    }

    /// A watch ended or was refused for a reason that passes: other clients' watches did too, most likely.
    pub(crate) fn troubled(&self, error: &Error) {
        if error.class() == Class::Transient {
            self.link.troubled();
        }
    }

    /// A stream of the `made`-th connection broke off.
    pub(crate) fn broken(&self, made: u64) {
        self.link.lost(made);
    }

    async fn send(
        &self,
        endpoint: &str,
        operation: &'static str,
        body: Vec<u8>,
        fate: Fate,
    ) -> Result<Response> {
        let made = self.link.made();
        let mut request = self
            .http
            .current()?
            .post(self.url(endpoint))
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let response = request.send().await;
        let response = match response {
            Ok(response) => response,
            // Not a byte of the request has left.
            Err(e) if e.is_connect() || e.is_builder() => {
                return Err(Error::new(ErrorKind::Unavailable, operation).because(e.without_url()));
            }
            Err(e) => {
                self.link.lost(made);
                let fate = if not_begun(&e) { Fate::Nothing } else { fate };
                return Err(lost(operation, fate, Lost::Native(e)));
            }
        };
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        Err(refused(response, operation, fate).await)
    }
}

fn authorization(token: &Secret<String>) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(|_| {
        Error::new(ErrorKind::Invalid, "open remote store").with("token", "has characters that no token has")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// What this client has that no other has: its token, or the key of its certificate.
fn seed(config: &RemoteConfig) -> String {
    match (&config.token, &config.tls) {
        (Some(token), _) => token.expose().clone(),
        (None, Some(tls)) => tls.client.key_name().unwrap_or_default(),
        (None, None) => String::new(),
    }
}

/// What a call holds while it is under way.
type Seat<'a> = std::result::Result<SemaphorePermit<'a>, AcquireError>;
type Seats<'a> = (Seat<'a>, Option<Seat<'a>>);

fn json(operation: &'static str, body: &(impl Serialize + Sync)) -> Result<Vec<u8>> {
    serde_json::to_vec(body).map_err(|e| Error::new(ErrorKind::Invalid, operation).because(e))
}

/// The head of a watch's answer.
pub(crate) struct Opened {
    pub(crate) response: Response,
    /// Of which connection it is a stream.
    pub(crate) made: u64,
    /// Held as long as the watch is open.
    pub(crate) seat: OwnedSemaphorePermit,
}

/// Whether the far end says that it has not looked at the request: it refused the stream, or had said farewell before.
fn not_begun(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        if let Some(e) = e.downcast_ref::<h2::Error>() {
            let refused = e.is_reset() && e.reason() == Some(h2::Reason::REFUSED_STREAM);
            let farewell = e.is_go_away() && e.reason() == Some(h2::Reason::NO_ERROR);
            return e.is_remote() && (refused || farewell);
        }
        cause = e.source();
    }
    false
}

/// How an answer got lost.
pub(crate) enum Lost {
    Late,
    Broken(String),
    Native(reqwest::Error),
}

/// The error for an answer that did not come, although the request may have been heard.
pub(crate) fn lost(operation: &'static str, fate: Fate, how: Lost) -> Error {
    let kind = match (fate, &how) {
        (Fate::Unknown, _) => ErrorKind::Unknown,
        (Fate::Nothing, Lost::Late) => ErrorKind::Timeout,
        (Fate::Nothing, Lost::Native(e)) if e.is_timeout() => ErrorKind::Timeout,
        (Fate::Nothing, Lost::Native(_)) => ErrorKind::Unavailable,
        (Fate::Nothing, Lost::Broken(_)) => ErrorKind::Internal,
    };
    let error = Error::new(kind, operation);
    match how {
        Lost::Late => error.because("no answer in time"),
        Lost::Broken(what) => error.because(what),
        Lost::Native(e) => error.because(e.without_url()),
    }
}

/// Reads a body of at most `limit` bytes.
async fn read(response: Response, limit: usize) -> std::result::Result<Vec<u8>, Lost> {
    let mut body = Vec::new();
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(Lost::Native)?;
        if body.len() + chunk.len() > limit {
            return Err(Lost::Broken(format!("the answer is longer than {limit} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The error for an answer that says no.
async fn refused(response: Response, operation: &'static str, fate: Fate) -> Error {
    let status = response.status();
    let body = read(response, MAX_PROBLEM_BYTES).await.unwrap_or_default();
    let problem: Option<Problem> = serde_json::from_slice(&body).ok();
    let told = problem.as_ref().and_then(|p| p.store.clone());
    if let Some(told) = told.and_then(|v| serde_json::from_value::<WireError>(v).ok()) {
        return told.into_error(operation);
    }
    let kind = match status.as_u16() {
        401 | 403 => ErrorKind::Denied,
        400 | 415 | 422 => ErrorKind::Invalid,
        413 => ErrorKind::TooLarge,
        429 => ErrorKind::Overloaded,
        // Our own server answers so before it starts; a stranger's page in between may come after.
        503 if problem.as_ref().is_some_and(|p| p.code.is_some()) => ErrorKind::Unavailable,
        404 | 405 => ErrorKind::Unsupported,
        _ if fate == Fate::Unknown => ErrorKind::Unknown,
        408 | 504 => ErrorKind::Timeout,
        502 | 503 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let error = Error::new(kind, operation).with("status", status.as_u16());
    match problem {
        Some(Problem { detail, code, .. }) => {
            let code = code.unwrap_or_default();
            error.because(format!("{} [{code}]", detail.unwrap_or_default()))
        }
        None => error,
    }
}
