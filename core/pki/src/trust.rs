//! Roots that are trusted, several at a time while they change.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, Error};
use skyloom_model::Timestamp;

use crate::certificate::read;
use crate::pem::{certificates, malformed, timestamp};
use crate::tls::provider;
use crate::{Fingerprint, PkiError, PkiErrorKind};

/// Most roots that are trusted at a time.
pub const MAX_ROOTS: usize = 16;

/// A root certificate, and what checks paths to it.
#[derive(Debug, Clone)]
pub struct Root {
    certificate: CertificateDer<'static>,
    fingerprint: Fingerprint,
    not_before: Timestamp,
    not_after: Timestamp,
    clients: Arc<dyn ClientCertVerifier>,
    servers: Arc<WebPkiServerVerifier>,
}

impl Root {
    /// Reads one in DER.
    ///
    /// # Errors
    /// [`PkiErrorKind::Malformed`], and [`PkiErrorKind::NotAllowed`] for a certificate that is no authority.
    pub fn new(certificate: CertificateDer<'static>) -> Result<Self, PkiError> {
        let what = "a root's certificate";
        let read = read(&certificate, what)?;
        let constraints = read.basic_constraints().map_err(|e| malformed(what, e))?;
        let usage = read.key_usage().map_err(|e| malformed(what, e))?;
        let signs = usage.is_none_or(|u| u.value.key_cert_sign());
        if !constraints.is_some_and(|c| c.value.ca) || !signs {
            return Err(PkiError::new(
                PkiErrorKind::NotAllowed,
                "this certificate is no authority's",
                "give the root that signs, not what it has signed",
            ));
        }
        let (not_before, not_after) = (
            timestamp(read.validity().not_before)?,
            timestamp(read.validity().not_after)?,
        );
        let mut store = RootCertStore::empty();
        store.add(certificate.clone()).map_err(|e| malformed(what, e))?;
        let store = Arc::new(store);
        let provider: Arc<CryptoProvider> = provider();
        let clients = WebPkiClientVerifier::builder_with_provider(store.clone(), provider.clone())
            .build()
            .map_err(|e| malformed(what, e))?;
        let servers = WebPkiServerVerifier::builder_with_provider(store, provider)
            .build()
            .map_err(|e| malformed(what, e))?;
        Ok(Self {
            fingerprint: Fingerprint::of(&certificate),
            certificate,
            not_before,
            not_after,
            clients,
            servers,
        })
    }
    /// Of its certificate.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }
    /// Its certificate in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem_of(&self.certificate)
    }
    /// From when it counts.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }
    /// Until when it counts.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
    /// Whether it counts at that time. TLS libraries do not ask that of roots; here what is over is over.
    #[must_use]
    pub fn counts_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// The roots that are trusted.
#[derive(Debug, Clone, Default)]
pub struct TrustBundle {
    roots: Vec<Root>,
}

impl TrustBundle {
    /// Of these roots; one that is there twice counts once.
    ///
    /// # Errors
    /// [`PkiErrorKind::TooLarge`] for more than [`MAX_ROOTS`].
    pub fn new(roots: impl IntoIterator<Item = Root>) -> Result<Self, PkiError> {
        let mut bundle = Self::default();
        for root in roots {
            if bundle.get(&root.fingerprint).is_none() {
                bundle.roots.push(root);
            }
            if bundle.roots.len() > MAX_ROOTS {
                return Err(PkiError::new(
                    PkiErrorKind::TooLarge,
                    format!("more than {MAX_ROOTS} roots"),
                    "drop those that have nothing signed any more",
                ));
            }
        }
        Ok(bundle)
    }

    /// Reads a file of roots.
    ///
    /// # Errors
    /// [`PkiErrorKind::Malformed`], [`PkiErrorKind::TooLarge`], and [`PkiErrorKind::NotAllowed`] when one of them is no root.
    pub fn from_pem(text: &[u8]) -> Result<Self, PkiError> {
        let roots = certificates(text, MAX_ROOTS, "the file of roots")?;
        Self::new(roots.into_iter().map(Root::new).collect::<Result<Vec<_>, _>>()?)
    }

    /// All of them in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.roots.iter().map(Root::to_pem).collect()
    }

    /// The roots.
    #[must_use]
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// The root of that fingerprint.
    #[must_use]
    pub fn get(&self, fingerprint: &Fingerprint) -> Option<&Root> {
        self.roots.iter().find(|root| root.fingerprint == *fingerprint)
    }

    /// The root that has itself signed this client's certificate, as of `at`. There is nothing between a root and its
    /// certificates, so what else a client sends is not looked at.
    pub(crate) fn signer(
        &self,
        leaf: &CertificateDer<'_>,
        at: Timestamp,
        now: Timestamp,
    ) -> Result<&Root, Error> {
        self.first(now, |root| {
            root.clients.verify_client_cert(leaf, &[], unix(at)).map(|_| root)
        })
    }

    pub(crate) fn check_server(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let at = i64::try_from(now.as_secs())
            .ok()
            .and_then(|s| Timestamp::from_second(s).ok());
        let at = at.ok_or(Error::FailedToGetCurrentTime)?;
        self.first(at, |root| {
            root.servers
                .verify_server_cert(leaf, intermediates, name, &[], now)
                .map(|_| ())
        })
    }

    /// What the first root says that does not only say that it is not its own.
    fn first<'a, T>(
        &'a self,
        now: Timestamp,
        ask: impl Fn(&'a Root) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let mut last = unknown.clone();
        for root in self.roots.iter().filter(|root| root.counts_at(now)) {
            match ask(root) {
                Ok(answer) => return Ok(answer),
                Err(error) if error == unknown => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

pub(crate) fn unix(at: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        u64::try_from(at.as_second()).unwrap_or(0),
    ))
}

pub(crate) fn pem_of(certificate: &CertificateDer<'_>) -> String {
    let text = STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = next;
    }
    pem + "-----END CERTIFICATE-----\n"
}
