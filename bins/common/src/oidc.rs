//! Identity providers (OpenID Connect) of a process that serves the API: configured by file, their keys fetched over HTTPS.
//!
//! ```text
//! [[oidc]] ──> Oidc (core/identity) ──keys wanted──> HttpKeys: keys_url, or what {issuer}/.well-known/openid-configuration names
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use skyloom::identity::{DEFAULT_DOMAIN, DomainId, GroupId, Oidc, OidcConfig, ProviderKeys};
use skyloom::model::Clock;

use crate::exit::MainError;

/// How long a provider may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer in bytes.
const LONGEST: usize = 256 << 10;

/// One provider.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcSection {
    /// Its name, exactly as in its tokens.
    pub issuer: String,
    /// The id under which it knows this cloud.
    pub client_id: String,
    /// Where its public keys are; without it the provider is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys_url: Option<String>,
    /// Certificates of the authorities that its own is checked with, in PEM; without it those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The domain that its users go into.
    #[serde(default = "default_domain")]
    pub domain: DomainId,
    /// The claim that a new user's name is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_claim: Option<String>,
    /// The claim that lists a user's groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_claim: Option<String>,
    /// Which of its groups are which groups here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, GroupId>,
}

fn default_domain() -> DomainId {
    DEFAULT_DOMAIN
}

impl OidcSection {
    /// The provider. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When an address is not `https` (on this machine `http` will do), or the authorities cannot be used.
    pub fn open(&self, clock: Arc<dyn Clock>) -> Result<Oidc, MainError> {
        let issuer = &*self.issuer;
        let addresses = [Some(&self.issuer), self.keys_url.as_ref()];
        for address in addresses.into_iter().flatten() {
            address_of(address).map_err(|why| refused(issuer, why))?;
        }
        let mut config = OidcConfig::new(issuer, &self.client_id, self.domain);
        if let Some(claim) = &self.name_claim {
            config.name_claim.clone_from(claim);
        }
        if let Some(claim) = &self.groups_claim {
            config.groups_claim.clone_from(claim);
        }
        config.groups.clone_from(&self.groups);
        // A redirection could lead anywhere.
        let mut client = Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(file) = &self.ca_file {
            let pem = std::fs::read(file).map_err(|e| refused(issuer, format!("{}: {e}", file.display())))?;
            let authorities =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| refused(issuer, e.to_string()))?;
            client = client.tls_certs_only(authorities);
        }
        let keys = HttpKeys {
            issuer: issuer.to_owned(),
            keys_url: self.keys_url.clone(),
            client: client.build().map_err(|e| refused(issuer, e.to_string()))?,
        };
        Ok(Oidc::new(config, Arc::new(keys), clock))
    }
}

fn refused(issuer: &str, why: impl Into<String>) -> MainError {
    let why: String = why.into();
    MainError::usage(format!("the identity provider {issuer} cannot be set up"), why)
}

/// An address to ask. Keys over plain HTTP could be anybody's.
fn address_of(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("{text}: {e}"))?;
    let local = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    match url.scheme() {
        "https" => Ok(url),
        "http" if local => Ok(url),
        other => Err(format!("{url} has the scheme {other}, and needs https")),
    }
}

/// A provider's keys over HTTP.
#[derive(Debug)]
struct HttpKeys {
    issuer: String,
    keys_url: Option<String>,
    client: Client,
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

impl HttpKeys {
    async fn get(&self, url: Url) -> Result<Vec<u8>, String> {
        let shown = url.to_string();
        let failed = |e: &dyn std::fmt::Display| format!("{shown}: {e}");
        let mut answer = self.client.get(url).send().await.map_err(|e| failed(&e))?;
        if !answer.status().is_success() {
            return Err(failed(&answer.status()));
        }
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(|e| failed(&e))? {
            body.extend_from_slice(&part);
            if body.len() > LONGEST {
                return Err(failed(&"the answer is too long"));
            }
        }
        Ok(body)
    }

    async fn keys_url(&self) -> Result<Url, String> {
        if let Some(url) = &self.keys_url {
            return address_of(url);
        }
        let address = format!(
            "{}/.well-known/openid-configuration",
            self.issuer.trim_end_matches('/')
        );
        let found: Discovered = serde_json::from_slice(&self.get(address_of(&address)?).await?)
            .map_err(|e| format!("{address} is no provider's configuration: {e}"))?;
        if found.issuer != self.issuer {
            return Err(format!("{address} is the configuration of {}", found.issuer));
        }
        address_of(&found.jwks_uri)
    }
}

#[async_trait]
impl ProviderKeys for HttpKeys {
    async fn fetch(&self) -> Result<Vec<u8>, String> {
        self.get(self.keys_url().await?).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    /// Answers each request with what stands at its path.
    fn serve(listener: TcpListener, pages: Vec<(&'static str, String)>) {
        for stream in listener.incoming().take(pages.len()) {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let (status, body) = match pages.iter().find(|(at, _)| *at == path) {
                Some((_, body)) => ("200 OK", body.as_str()),
                None => ("404 Not Found", ""),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    }

    fn keys(issuer: &str) -> HttpKeys {
        crate::tls::install_default_provider();
        HttpKeys {
            issuer: issuer.to_owned(),
            keys_url: None,
            client: Client::builder().no_proxy().build().unwrap(),
        }
    }

    #[tokio::test]
    async fn keys_are_where_the_provider_says() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}/realm", listener.local_addr().unwrap());
        let about = serde_json::json!({"issuer": issuer, "jwks_uri": format!("{issuer}/certs")}).to_string();
        let pages = vec![
            ("/realm/.well-known/openid-configuration", about),
            ("/realm/certs", "{\"keys\":[]}".to_owned()),
        ];
        let server = std::thread::spawn(move || serve(listener, pages));
        assert_eq!(keys(&issuer).fetch().await.unwrap(), b"{\"keys\":[]}");
        server.join().unwrap();
    }

    #[tokio::test]
    async fn another_providers_configuration_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let about =
            serde_json::json!({"issuer": "https://other.example", "jwks_uri": format!("{issuer}/certs")});
        let pages = vec![("/.well-known/openid-configuration", about.to_string())];
        let server = std::thread::spawn(move || serve(listener, pages));
        let error = keys(&issuer).fetch().await.unwrap_err();
        assert!(error.contains("https://other.example"), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn plain_http_is_for_this_machine_alone() {
        let clock: Arc<dyn Clock> = Arc::new(skyloom::model::SystemClock::new());
        crate::tls::install_default_provider();
        let open = |issuer: &str, keys: Option<&str>| {
            let section = OidcSection {
                issuer: issuer.to_owned(),
                client_id: "skyloom".to_owned(),
                keys_url: keys.map(str::to_owned),
                ca_file: None,
                domain: DEFAULT_DOMAIN,
                name_claim: None,
                groups_claim: None,
                groups: BTreeMap::new(),
            };
            section.open(clock.clone())
        };
        assert_eq!(
            open("https://login.example", None).unwrap().config().issuer,
            "https://login.example"
        );
        assert_eq!(
            open("https://login.example/a/", None).unwrap().config().issuer,
            "https://login.example/a/"
        );
        assert!(open("http://127.0.0.1:8080/realm", None).is_ok());
        assert!(open("http://login.example", None).is_err());
        assert!(open("https://login.example", Some("http://login.example/certs")).is_err());
        assert!(open("https://login.example", Some("file:///etc/keys")).is_err());
    }
}
