//! TLS of this cloud: TLS 1.3, one provider, the handed-in clock, and material that can be exchanged while it runs.

mod live;
mod reload;

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::UnixTime;
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion, version};
use skyloom_model::Clock;

use crate::{Judge, PkiError};

pub use live::{IdentityMaterial, Live, Material, ReloadingClient, ReloadingServer};
pub use reload::{Files, MAX_MATERIAL, MaterialSource, Reload, ReloadStatus, Reloader};

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Oldest {
    /// 1.3 alone.
    #[default]
    Tls13,
    /// Also 1.2, for clients that an operator cannot change.
    Tls12,
}

impl Oldest {
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
        match self {
            Self::Tls13 => &BOTH[..1],
            Self::Tls12 => &BOTH,
        }
    }
}

/// A server's side. With `clients`, hosts may present their certificates; who presents none is let in all the same and must
/// show something else, such as a bearer token. ALPN is left to the caller.
///
/// Sessions are not resumed when clients have certificates: a resumed one would bring the client's chain from memory, past
/// the roots of today.
///
/// # Errors
/// [`crate::PkiErrorKind::Internal`].
pub fn server_config(
    server: Arc<ReloadingServer>,
    clients: Option<Arc<Judge>>,
    clock: Arc<dyn Clock>,
    oldest: Oldest,
) -> Result<ServerConfig, PkiError> {
    let builder = ServerConfig::builder_with_details(provider(), Arc::new(ClockTime(clock)))
        .with_protocol_versions(oldest.versions())
        .map_err(|e| PkiError::internal("no TLS for a server", e))?;
    let Some(judge) = clients else {
        return Ok(builder.with_no_client_auth().with_cert_resolver(server));
    };
    let mut config = builder
        .with_client_cert_verifier(judge)
        .with_cert_resolver(server);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A client's side: it trusts the roots of `client`, and presents its certificate if it has one and is asked. ALPN is left to
/// the caller. Sessions are not resumed, so that each connection asks the roots and presents the certificate of today.
///
/// # Errors
/// [`crate::PkiErrorKind::Internal`].
pub fn client_config(
    client: Arc<ReloadingClient>,
    clock: Arc<dyn Clock>,
    oldest: Oldest,
) -> Result<ClientConfig, PkiError> {
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(ClockTime(clock)))
        .with_protocol_versions(oldest.versions())
        .map_err(|e| PkiError::internal("no TLS for a client", e))?
        // What rustls calls dangerous is to bring one's own verifier; this one asks webpki with the roots of now.
        .dangerous()
        .with_custom_certificate_verifier(client.clone())
        .with_client_cert_resolver(client);
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The one provider.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[derive(Debug)]
struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(crate::trust::unix(self.0.now()))
    }
}
