//! Image content over the API, for agents that are not on the API's machine.

use std::fmt;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use skyloom_cloud::{ByteStream, ImageContent};
use skyloom_hypervisor::ImageSpec;
use skyloom_model::Secret;
use skyloom_store::{Error, ErrorKind, Result};

/// Where and as whom to read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpContentConfig {
    /// Base URL of the API, such as `https://cloud.example:8780`.
    pub api: String,
    /// The agent's token.
    pub token: Secret<String>,
    /// Certificate authorities in PEM, believed instead of the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Longest wait for a connection, an answer or the next bytes.
    pub idle: Duration,
}

impl HttpContentConfig {
    /// Content from `api` with `token`; 30 s without bytes is too long.
    #[must_use]
    pub fn new(api: impl Into<String>, token: Secret<String>) -> Self {
        Self {
            api: api.into(),
            token,
            ca_pem: None,
            idle: Duration::from_secs(30),
        }
    }

    /// With certificate authorities in PEM.
    #[must_use]
    pub fn with_ca_pem(mut self, pem: Option<Vec<u8>>) -> Self {
        self.ca_pem = pem;
        self
    }
}

/// Reads images from `GET /v1/images/{id}/data`.
pub struct HttpContent {
    client: reqwest::Client,
    api: String,
    token: Secret<String>,
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
        let invalid =
            |e: reqwest::Error| Error::new(ErrorKind::Invalid, "prepare image downloads").because(e);
        let mut builder = reqwest::Client::builder()
            .connect_timeout(config.idle)
            .read_timeout(config.idle)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(pem) = &config.ca_pem {
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem).map_err(invalid)?);
        }
        let client = builder.build().map_err(invalid)?;
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
        let answer = self
            .client
            .get(url)
            .bearer_auth(self.token.expose())
            .send()
            .await
            .map_err(io::Error::other)?;
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
}
