//! Becoming a host: a join token for the first certificate, the present certificate for the next one.

use std::time::Duration;

use reqwest::{Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use skyloom_pki::{HostJoined, JoinHost, Oldest, RenewCertificate, client_config};

use crate::RemoteConfig;
use crate::config::LiveTls;

/// Longest answer that is read: a certificate, and as many roots as there may be.
const MAX_ANSWER: usize = 256 << 10;

/// Asks the API for certificates. Each request is made on a connection of its own, which shows the certificate of that moment.
#[derive(Debug, Clone)]
pub struct JoinClient {
    base: Url,
    tls: LiveTls,
    connect_timeout: Duration,
    timeout: Duration,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct JoinFailed {
    what: String,
    code: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl JoinFailed {
    /// The stable code of the API's refusal; `None` when it was not heard or is away, and asking again may help.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.code.as_deref()
    }

    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            code: None,
            source: None,
        }
    }

    fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// The part of a problem document that matters here.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
    #[serde(default)]
    hint: Option<String>,
    #[serde(default)]
    retryable: bool,
}

impl JoinClient {
    /// Asks the API at `url`, which must speak TLS.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn new(url: &str, tls: LiveTls) -> Result<Self, JoinFailed> {
        let config = RemoteConfig::by_certificate(url, tls.clone());
        let base = config
            .base()
            .map_err(|e| JoinFailed::new(format!("{url} cannot be used")).because(e))?;
        if base.scheme() != "https" {
            return Err(JoinFailed::new(format!(
                "{base} is not https: there are no certificates without TLS"
            )));
        }
        Ok(Self {
            base,
            tls,
            connect_timeout: config.connect_timeout,
            timeout: config.request_timeout,
        })
    }

    /// Presents a join token. The same token and key may be presented again for some minutes, when the answer was lost.
    ///
    /// # Errors
    /// [`JoinFailed`].
    pub async fn join(&self, request: &JoinHost) -> Result<HostJoined, JoinFailed> {
        self.ask("/v1/join", request).await
    }

    /// Asks for the successor of the certificate that is shown.
    ///
    /// # Errors
    /// [`JoinFailed`].
    pub async fn renew(&self, request: &RenewCertificate) -> Result<HostJoined, JoinFailed> {
        self.ask("/v1/join/renew", request).await
    }

    async fn ask(&self, path: &str, request: &(impl Serialize + Sync)) -> Result<HostJoined, JoinFailed> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        let lost = |e: reqwest::Error| {
            JoinFailed::new(format!("the API at {} was not reached", self.base)).because(e.without_url())
        };
        let mut config = client_config(self.tls.client.clone(), self.tls.clock.clone(), Oldest::Tls12)
            .map_err(|e| JoinFailed::new("no TLS").because(e))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(self.connect_timeout)
            .timeout(self.timeout)
            .tls_backend_preconfigured(config)
            .build()
            .map_err(lost)?;
        let answer = http.post(url).json(request).send().await.map_err(lost)?;
        let status = answer.status();
        let body = read(answer).await.map_err(lost)?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body)
                .map_err(|e| JoinFailed::new("the API's answer is not understood").because(e));
        }
        let Ok(problem) = serde_json::from_slice::<Problem>(&body) else {
            return Err(JoinFailed::new(format!("the API answered {status}")));
        };
        let hint = problem.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        Err(JoinFailed {
            what: format!("{}{hint}", problem.detail),
            code: (status.is_client_error() && !problem.retryable).then_some(problem.code),
            source: None,
        })
    }
}

async fn read(mut answer: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        let room = MAX_ANSWER - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == MAX_ANSWER {
            break;
        }
    }
    Ok(body)
}
