//! Image content over the API, for agents that are not on the API's machine.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use skyloom_cloud::{ByteStream, ImageContent, Measured, Sending};
use skyloom_hypervisor::ImageSpec;
use skyloom_model::{Clock, Secret};
use skyloom_pki::{Oldest, ReloadingClient, client_config};
use skyloom_store::{Error, ErrorKind, Result};

/// Where and as whom to read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpContentConfig {
    /// Base URL of the API, such as `https://cloud.example:8780`.
    pub api: String,
    /// The agent's token; nothing for one that shows its host's certificate.
    pub token: Option<Secret<String>>,
    /// Whom to believe, and what to show; else the system's authorities.
    pub tls: Option<Arc<ReloadingClient>>,
    /// Whether certificates count now.
    pub clock: Arc<dyn Clock>,
    /// Longest wait for a connection, an answer or the next bytes.
    pub idle: Duration,
}

impl HttpContentConfig {
    /// Content from `api`; 30 s without bytes is too long.
    #[must_use]
    pub fn new(api: impl Into<String>, clock: Arc<dyn Clock>) -> Self {
        Self {
            api: api.into(),
            token: None,
            tls: None,
            clock,
            idle: Duration::from_secs(30),
        }
    }

    /// With the agent's token.
    #[must_use]
    pub fn with_token(mut self, token: Option<Secret<String>>) -> Self {
        self.token = token;
        self
    }

    /// With roots, and maybe a certificate, that may be exchanged.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Arc<ReloadingClient>>) -> Self {
        self.tls = tls;
        self
    }
}

/// Reads images from `GET /v1/images/{id}/data`, and sends saved disks to `PUT` there.
pub struct HttpContent {
    client: reqwest::Client,
    api: String,
    token: Option<Secret<String>>,
}

impl fmt::Debug for HttpContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpContent")
            .field("api", &self.api)
            .finish_non_exhaustive()
    }
}

impl HttpContent {
    /// A reader.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the certificate authorities cannot be read.
    pub fn new(config: HttpContentConfig) -> Result<Self> {
        let invalid = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Invalid, "prepare image downloads").because(e)
        };
        let mut builder = reqwest::Client::builder()
            .connect_timeout(config.idle)
            .read_timeout(config.idle)
            // A connection shows the certificate that it was made with: none is kept until that has ended.
            .pool_idle_timeout(config.idle)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(tls) = config.tls {
            let mut tls =
                client_config(tls, config.clock, Oldest::Tls12).map_err(|e| invalid(Box::new(e)))?;
            // Each download has a connection of its own.
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            builder = builder.tls_backend_preconfigured(tls);
        }
        let client = builder.build().map_err(|e| invalid(Box::new(e)))?;
        Ok(Self {
            client,
            api: config.api.trim_end_matches('/').to_owned(),
            token: config.token,
        })
    }
}

#[async_trait]
impl ImageContent for HttpContent {
    async fn open(&self, image: &ImageSpec) -> io::Result<ByteStream> {
        let url = format!("{}/v1/images/{}/data", self.api, image.id);
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let answer = request.send().await.map_err(io::Error::other)?;
        let status = answer.status();
        if status == reqwest::StatusCode::NOT_FOUND {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("the API has no content of image {}", image.id),
            ));
        }
        if !status.is_success() {
            return Err(io::Error::other(format!(
                "the API answered {status} for image {}",
                image.id
            )));
        }
        Ok(answer
            .bytes_stream()
            .map(|chunk| chunk.map_err(io::Error::other))
            .boxed())
    }

    async fn send(&self, what: &Sending, content: ByteStream) -> io::Result<Measured> {
        let Sending { image, size, .. } = *what;
        let url = format!("{}/v1/images/{image}/data", self.api);
        let mut request = self
            .client
            .put(url)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, size)
            .body(reqwest::Body::wrap_stream(content));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose());
        }
        let answer = request.send().await.map_err(io::Error::other)?;
        let status = answer.status();
        if !status.is_success() {
            return Err(io::Error::other(format!(
                "the API answered {status} to the content of image {image}"
            )));
        }
        let text = answer.bytes().await.map_err(io::Error::other)?;
        serde_json::from_slice(&text).map_err(io::Error::other)
    }
}
