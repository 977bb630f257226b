//! One request, one bounded answer, and what each failure means.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Certificate, Response, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skyloom_store::wire::{MAX_LINE_BYTES, ROOT, WireError};
use skyloom_store::{Error, ErrorKind, Result};

use crate::RemoteConfig;

/// Longest body of an answer: a page of the protocol with room for its own writing.
const MAX_ANSWER_BYTES: usize = MAX_LINE_BYTES;
/// Longest error body that is read.
const MAX_PROBLEM_BYTES: usize = 64 << 10;

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
    http: reqwest::Client,
    base: Url,
    authorization: HeaderValue,
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
        let invalid = || Error::new(ErrorKind::Invalid, "open remote store");
        let base = config.base()?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", config.token.expose()))
            .map_err(|_| invalid().with("token", "has characters that no token has"))?;
        authorization.set_sensitive(true);
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(config.connect_timeout)
            // Shorter than servers keep idle connections: a request on one that is just being closed would be lost.
            .pool_idle_timeout(Duration::from_secs(10))
            .tcp_keepalive(Duration::from_secs(30));
        if let Some(pem) = &config.ca_pem {
            let authorities = Certificate::from_pem_bundle(pem).map_err(|e| invalid().because(e))?;
            if authorities.is_empty() {
                return Err(invalid().with("ca_pem", "holds no certificate"));
            }
            builder = builder.tls_certs_only(authorities);
        }
        let http = builder.build().map_err(|e| invalid().because(e))?;
        Ok(Self {
            http,
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
        let exchange = async {
            let response = self.send(endpoint, operation, body, fate).await?;
            let bytes = read(response, MAX_ANSWER_BYTES)
                .await
                .map_err(|e| lost(operation, fate, e))?;
            serde_json::from_slice(&bytes)
                .map_err(|e| lost(operation, fate, Lost::Broken(format!("no such answer: {e}"))))
        };
        match tokio::time::timeout(self.request_timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(lost(operation, fate, Lost::Late)),
        }
    }

    /// Sends `body` to `endpoint` and waits for the head of a good answer.
    pub(crate) async fn open(
        &self,
        endpoint: &str,
        operation: &'static str,
        body: &(impl Serialize + Sync),
    ) -> Result<Response> {
        let opening = self.send(endpoint, operation, body, Fate::Nothing);
        match tokio::time::timeout(self.request_timeout, opening).await {
            Ok(response) => response,
            Err(_) => Err(lost(operation, Fate::Nothing, Lost::Late)),
        }
    }

    async fn send(
        &self,
        endpoint: &str,
        operation: &'static str,
        body: &(impl Serialize + Sync),
        fate: Fate,
    ) -> Result<Response> {
        let body =
            serde_json::to_vec(body).map_err(|e| Error::new(ErrorKind::Invalid, operation).because(e))?;
        let response = self
            .http
            .post(self.url(endpoint))
            .header(AUTHORIZATION, self.authorization.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(body)
            .send()
            .await;
        let response = match response {
            Ok(response) => response,
            // No connection: not a byte of the request has left.
            Err(e) if e.is_connect() || e.is_builder() => {
                return Err(Error::new(ErrorKind::Unavailable, operation).because(e.without_url()));
            }
            Err(e) => return Err(lost(operation, fate, Lost::Native(e))),
        };
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        Err(refused(response, operation, fate).await)
    }
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
