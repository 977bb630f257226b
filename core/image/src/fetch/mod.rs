//! The one downloader for URLs that users name.
//!
//! The URL is checked as text ([`check_url`]); its name is resolved once, all its addresses are checked against the
//! policy, and the connection goes to exactly those; each redirect starts again from the text. No proxies, no
//! credentials, no transparent decompression, no reuse of connections; size, pauses and total time are limited.
//!
//! Content flows in chunks from the response into the caller's writer, and is hashed on the way.

mod address;
mod resolver;
mod target;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, LOCATION};
use reqwest::{Client, Response, Url, redirect};
use skyloom_model::Reason;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

pub use self::address::Cidr;
pub use self::resolver::{Lookup, SystemLookup};
pub use self::target::check_url;
use crate::hash::{Digest, HashingWriter};

/// What a download may do.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchPolicy {
    /// Blocks that may be reached besides the public Internet.
    pub allow: Vec<Cidr>,
    /// Most bytes of content.
    pub max_bytes: u64,
    /// How many redirects are followed.
    pub max_redirects: u32,
    /// Longest wait for a connection, an answer or the next bytes.
    pub idle: Duration,
    /// Longest download in all.
    pub total: Duration,
}

impl Default for FetchPolicy {
    /// Public addresses only, 64 GiB, 5 redirects, 30 s without bytes, 6 h in all.
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            max_bytes: 64 << 30,
            max_redirects: 5,
            idle: Duration::from_secs(30),
            total: Duration::from_secs(6 * 3600),
        }
    }
}

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchProgress {
    /// Bytes written.
    pub done: u64,
    /// Bytes in all, if the server says so.
    pub total: Option<u64>,
}

/// Downloads under one policy. Cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    client: Client,
    policy: Arc<FetchPolicy>,
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetcher")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Fetcher {
    /// A fetcher that resolves names as the system does.
    ///
    /// # Errors
    /// `url.setup`, when TLS cannot be set up (no trusted roots, for one).
    pub fn new(policy: FetchPolicy) -> Result<Self, Reason> {
        Self::with_lookup(policy, Arc::new(SystemLookup))
    }

    /// A fetcher with another way to resolve names.
    ///
    /// # Errors
    /// See [`Fetcher::new`].
    pub fn with_lookup(policy: FetchPolicy, lookup: Arc<dyn Lookup>) -> Result<Self, Reason> {
        let policy = Arc::new(policy);
        let client = Client::builder()
            .dns_resolver(resolver::Guard::new(lookup, policy.clone()))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_deflate()
            .no_zstd()
            .pool_max_idle_per_host(0)
            .connect_timeout(policy.idle)
            .user_agent("skyloom")
            .build()
            .map_err(|error| Reason::new("url.setup", skyloom_model::report(&error)))?;
        Ok(Self { client, policy })
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &FetchPolicy {
        &self.policy
    }

    /// Downloads `url` into `out` and flushes it. After an error `out` may hold a part, which the caller throws away;
    /// dropping the future stops the download.
    ///
    /// # Errors
    /// `url.invalid`, `url.scheme`, `url.credentials`, `url.host`, `url.address_denied`, `url.redirects`, `url.status`,
    /// `url.encoding`, `url.too_large`, and these that may work later: `url.timeout`, `url.unreachable`, `url.cut_off`;
    /// `url.write` when `out` fails.
    pub async fn fetch<W>(
        &self,
        url: &str,
        out: &mut W,
        progress: &(dyn Fn(FetchProgress) + Send + Sync),
    ) -> Result<Digest, Reason>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let work = async {
            let response = self.open(check_url(url, &self.policy)?).await?;
            self.copy(response, out, progress).await
        };
        match timeout(self.policy.total, work).await {
            Ok(done) => done,
            Err(_) => Err(slow("the download takes too long in all")),
        }
    }

    /// Follows redirects to the response with the content.
    async fn open(&self, mut url: Url) -> Result<Response, Reason> {
        for _ in 0..=self.policy.max_redirects {
            let request = self
                .client
                .get(url.clone())
                .header(ACCEPT_ENCODING, "identity")
                .send();
            let response = self.in_time(request).await?;
            let status = response.status();
            if !status.is_redirection() {
                if status.as_u16() != 200 {
                    let reason = Reason::new("url.status", format!("{} answers {status}", shown(&url)));
                    let later = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
                    return Err(if later { reason.retryable() } else { reason });
                }
                return Ok(response);
            }
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok());
            let Some(location) = location else {
                let message = format!("{} redirects to nowhere ({status})", shown(&url));
                return Err(Reason::new("url.status", message));
            };
            url = target::check_redirect(&url, location, &self.policy)?;
        }
        let message = format!("more than {} redirects", self.policy.max_redirects);
        Err(Reason::new("url.redirects", message))
    }

    async fn copy<W>(
        &self,
        mut response: Response,
        out: &mut W,
        progress: &(dyn Fn(FetchProgress) + Send + Sync),
    ) -> Result<Digest, Reason>
    where
        W: AsyncWrite + Unpin + Send,
    {
        let encoded = response.headers().get(CONTENT_ENCODING);
        if encoded.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Reason::new(
                "url.encoding",
                "the server sends compressed content though none was asked for",
            ));
        }
        let total = response.content_length();
        if total.is_some_and(|total| total > self.policy.max_bytes) {
            return Err(self.too_large());
        }
        let mut hash = HashingWriter::new(());
        progress(FetchProgress { done: 0, total });
        while let Some(chunk) = self.in_time(response.chunk()).await? {
            if hash.bytes() + chunk.len() as u64 > self.policy.max_bytes {
                return Err(self.too_large());
            }
            out.write_all(&chunk).await.map_err(|error| unwritten(&error))?;
            hash.update(&chunk);
            progress(FetchProgress {
                done: hash.bytes(),
                total,
            });
        }
        out.flush().await.map_err(|error| unwritten(&error))?;
        Ok(hash.finish().1)
    }

    async fn in_time<T>(&self, step: impl Future<Output = reqwest::Result<T>>) -> Result<T, Reason> {
        match timeout(self.policy.idle, step).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(slow("the server sends nothing for too long")),
        }
    }

    fn too_large(&self) -> Reason {
        let message = format!(
            "the content has more than the allowed {} bytes",
            self.policy.max_bytes
        );
        Reason::new("url.too_large", message)
    }
}

fn slow(message: &str) -> Reason {
    Reason::new("url.timeout", message).retryable()
}

fn unwritten(error: &std::io::Error) -> Reason {
    Reason::new("url.write", format!("the content cannot be written: {error}"))
}

/// A URL for messages: without its query, which may be a signature.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

fn failed(error: reqwest::Error) -> Reason {
    let error = error.without_url();
    if let Some(denied) = resolver::denial(&error) {
        return denied;
    }
    let code = if error.is_timeout() {
        "url.timeout"
    } else if error.is_connect() {
        "url.unreachable"
    } else {
        "url.cut_off"
    };
    Reason::new(code, skyloom_model::report(&error)).retryable()
}
