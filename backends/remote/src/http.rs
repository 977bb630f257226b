//! The HTTP client of the moment: when roots or certificate were exchanged, what is asked next goes over a new connection.
//!
//! Requests and watches that are under way end on the connection that they began on. The server ends those watches when the certificate
//! that it was made with counts no more.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use skyloom_pki::{Oldest, client_config};
use skyloom_store::{Error, ErrorKind, Result};

use crate::RemoteConfig;
use crate::config::LiveTls;
use crate::link::{Gate, Link};

/// Bytes that one answer or watch may send ahead of its reader.
const STREAM_WINDOW: u32 = 256 << 10;
/// All streams together.
const STREAMS: u32 = 256;

#[derive(Debug)]
pub(crate) struct Http {
    ping: Duration,
    link: Arc<Link>,
    tls: Option<LiveTls>,
    made: RwLock<Made>,
}

#[derive(Debug)]
struct Made {
    client: reqwest::Client,
    /// Of the material that it was made with.
    generation: u64,
}

impl Http {
    pub(crate) fn new(config: &RemoteConfig, link: Arc<Link>) -> Result<Self> {
        let generation = config.tls.as_ref().map_or(0, |tls| tls.client.generation());
        let mut builder = builder(config.ping, &link);
        if let Some(tls) = &config.tls {
            builder = builder.tls_backend_preconfigured(with_alpn(tls)?);
        } else if let Some(pem) = &config.ca_pem {
            let authorities = reqwest::Certificate::from_pem_bundle(pem).map_err(invalid)?;
            if authorities.is_empty() {
                return Err(Error::new(ErrorKind::Invalid, "open remote store")
                    .with("ca_pem", "holds no certificate"));
            }
            builder = builder.tls_certs_only(authorities);
        }
        let client = builder.build().map_err(invalid)?;
        Ok(Self {
            ping: config.ping,
            link,
            tls: config.tls.clone(),
            made: RwLock::new(Made { client, generation }),
        })
    }

    /// The client for what is asked now.
    pub(crate) fn current(&self) -> Result<reqwest::Client> {
        let Some(tls) = &self.tls else {
            return Ok(self.made.read().client.clone());
        };
        // Read before the material: at worst a client is made once more than needed.
        let generation = tls.client.generation();
        {
            let made = self.made.read();
            if made.generation == generation {
                return Ok(made.client.clone());
            }
        }
        let mut made = self.made.write();
        if made.generation != generation {
            let builder = builder(self.ping, &self.link).tls_backend_preconfigured(with_alpn(tls)?);
            *made = Made {
                client: builder.build().map_err(invalid)?,
                generation,
            };
        }
        Ok(made.client.clone())
    }
}

fn builder(ping: Duration, link: &Arc<Link>) -> reqwest::ClientBuilder {
    // What is repeated is only what HTTP/2 says was not begun: refused streams, and those after a server's farewell.
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .http2_prior_knowledge()
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(STREAM_WINDOW * STREAMS)
        .http2_max_header_list_size(16 << 10)
        .http2_keep_alive_interval(ping)
        .http2_keep_alive_timeout(ping)
        .http2_keep_alive_while_idle(true)
        .connector_layer(Gate(Arc::clone(link)))
        // Shorter than servers keep idle connections: a request on one that is just being closed would be lost.
        .pool_idle_timeout(Duration::from_secs(10))
        .tcp_keepalive(Duration::from_secs(30))
}

fn with_alpn(tls: &LiveTls) -> Result<rustls::ClientConfig> {
    let mut config = client_config(tls.client.clone(), tls.clock.clone(), Oldest::Tls12).map_err(invalid)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Invalid, "open remote store").because(error)
}
