//! Identities and roots that are exchanged as a whole while connections come and go. Those that are there go on as they began.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, InconsistentKeys, SignatureScheme};
use skyloom_model::{Secret, Timestamp};

use super::provider;
use crate::certificate::read;
use crate::pem::{certificates, malformed, timestamp};
use crate::{PkiError, PkiErrorKind, TrustBundle};

/// Most certificates in a chain that is presented.
const MAX_CHAIN: usize = 8;

/// What TLS of one side is made of, in PEM.
#[derive(Debug, Clone)]
pub struct Material {
    /// What it presents; a client that has not joined has nothing.
    pub identity: Option<IdentityMaterial>,
    /// The roots that a client trusts; a server has none here: the hosts' roots are the [`crate::Judge`]'s.
    pub roots: Option<Vec<u8>>,
}

/// A certificate chain and its key, in PEM.
#[derive(Debug, Clone)]
pub struct IdentityMaterial {
    /// The certificate, and what stands between it and the root, if anything does.
    pub certificates: Vec<u8>,
    /// The private key.
    pub key: Secret<Vec<u8>>,
}

/// Something that takes new material while it works.
pub trait Live: Send + Sync + std::fmt::Debug {
    /// Takes all of it, or nothing. Gives the end of the certificate's time.
    ///
    /// # Errors
    /// Why it is of no use. What was there before stays.
    fn replace(&self, material: &Material, now: Timestamp) -> Result<Option<Timestamp>, PkiError>;
}

/// An identity that can be presented.
#[derive(Debug, Clone)]
struct Identity {
    key: Arc<CertifiedKey>,
    not_after: Timestamp,
}

impl Identity {
    fn new(material: &IdentityMaterial) -> Result<Self, PkiError> {
        let chain = certificates(&material.certificates, MAX_CHAIN, "the certificate")?;
        let first = chain.first().map_or(&[][..], |first| first.as_ref());
        let not_after = timestamp(read(first, "the certificate")?.validity().not_after)?;
        // The cause is left out: it must not quote the key.
        let key = PrivateKeyDer::from_pem_slice(material.key.expose())
            .map_err(|_| malformed("the private key", "no key in PEM"))?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|e| match e {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => PkiError::new(
                PkiErrorKind::Mismatch,
                "the private key is not the certificate's",
                "put both files of one issue in place; if they are being exchanged now, this passes",
            ),
            e => malformed("the certificate or its key", e),
        })?;
        Ok(Self {
            key: Arc::new(key),
            not_after,
        })
    }

    /// What has ended must not take the place of what has not.
    fn follows(&self, before: Option<&Self>, now: Timestamp) -> Result<(), PkiError> {
        let worse = self.not_after < now && before.is_some_and(|b| b.not_after > self.not_after);
        if !worse {
            return Ok(());
        }
        Err(PkiError::new(
            PkiErrorKind::Expired,
            format!("the new certificate has expired at {}", self.not_after),
            "put one in place that is valid",
        ))
    }
}

/// What a server presents.
#[derive(Debug)]
pub struct ReloadingServer {
    identity: RwLock<Identity>,
}

impl ReloadingServer {
    /// Begins with this material.
    ///
    /// # Errors
    /// Why it is of no use.
    pub fn new(material: &Material) -> Result<Arc<Self>, PkiError> {
        let identity = Identity::new(needed(material)?)?;
        Ok(Arc::new(Self {
            identity: RwLock::new(identity),
        }))
    }
}

impl Live for ReloadingServer {
    fn replace(&self, material: &Material, now: Timestamp) -> Result<Option<Timestamp>, PkiError> {
        let new = Identity::new(needed(material)?)?;
        let mut identity = self.identity.write();
        new.follows(Some(&identity), now)?;
        let not_after = new.not_after;
        *identity = new;
        Ok(Some(not_after))
    }
}

impl ResolvesServerCert for ReloadingServer {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.identity.read().key.clone())
    }
}

/// What a client presents, and whom it trusts.
#[derive(Debug)]
pub struct ReloadingClient {
    state: RwLock<Client>,
    generation: AtomicU64,
}

#[derive(Debug)]
struct Client {
    identity: Option<Identity>,
    trust: Arc<TrustBundle>,
}

impl Client {
    fn new(material: &Material) -> Result<Self, PkiError> {
        let roots = material.roots.as_deref().ok_or_else(|| {
            PkiError::new(
                PkiErrorKind::Unreadable,
                "a client has no roots to trust",
                "give the file of the cloud's roots",
            )
        })?;
        Ok(Self {
            identity: material.identity.as_ref().map(Identity::new).transpose()?,
            trust: Arc::new(TrustBundle::from_pem(roots)?),
        })
    }
}

impl ReloadingClient {
    /// Begins with this material.
    ///
    /// # Errors
    /// Why it is of no use.
    pub fn new(material: &Material) -> Result<Arc<Self>, PkiError> {
        Ok(Arc::new(Self {
            state: RwLock::new(Client::new(material)?),
            generation: AtomicU64::new(0),
        }))
    }

    /// The fingerprint of the key that it presents, if it has one.
    #[must_use]
    pub fn key_name(&self) -> Option<String> {
        let state = self.state.read();
        let key = state.identity.as_ref()?.key.key.public_key()?;
        Some(crate::Fingerprint::of(&key).as_str().to_owned())
    }

    /// Counts how often it was exchanged. A connection goes on with what it began with, so who keeps one for long makes another when this
    /// has grown.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

impl Live for ReloadingClient {
    fn replace(&self, material: &Material, now: Timestamp) -> Result<Option<Timestamp>, PkiError> {
        let new = Client::new(material)?;
        let mut state = self.state.write();
        if let Some(identity) = &new.identity {
            identity.follows(state.identity.as_ref(), now)?;
        }
        let not_after = new.identity.as_ref().map(|i| i.not_after);
        *state = new;
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(not_after)
    }
}

impl ResolvesClientCert for ReloadingClient {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.state.read().identity.as_ref().map(|i| i.key.clone())
    }
    fn has_certs(&self) -> bool {
        self.state.read().identity.is_some()
    }
}

impl ServerCertVerifier for ReloadingClient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let trust = self.state.read().trust.clone();
        trust.check_server(end_entity, intermediates, server_name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn needed(material: &Material) -> Result<&IdentityMaterial, PkiError> {
    material.identity.as_ref().ok_or_else(|| {
        PkiError::new(
            PkiErrorKind::Unreadable,
            "a server has no certificate to present",
            "give the files of its certificate and key",
        )
    })
}
