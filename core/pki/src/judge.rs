//! Who is at the other end, and what that counts for.
//!
//! ```text
//! handshake: chain ── signed by a root of ours? key proven? ──> let in: Valid, or Expired within the grace
//! each request: Peer ── Judge::standing(now) ──> Valid: acts as the host │ Expired: may_renew, nothing else │ others: nothing
//! ```
//!
//! A connection lives for weeks, so what was true at its handshake does not count: the standing is asked for with each request. That
//! is two look-ups and no cryptography.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use serde::{Deserialize, Serialize};
use skyloom_model::{HostId, Reason, Timestamp};

use crate::lifetimes::later;
use crate::tls::provider;
use crate::trust::unix;
use crate::{Fingerprint, HostCertificate, PkiError, PkiErrorKind, Revocations, RevokedBy, TrustBundle};

/// What a host's certificate counts for, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "standing", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Standing {
    /// It is the host.
    Valid,
    /// It begins later: a clock is wrong, or the host's epoch was raised this second.
    NotYet {
        /// From when it counts.
        from: Timestamp,
    },
    /// It was the host's. Nothing is known of the host by that: it is not dead, its agent was away or could not renew.
    Expired {
        /// Since when.
        since: Timestamp,
    },
    /// It was taken back.
    Revoked(RevokedBy),
    /// The root that has signed it is trusted no more.
    Foreign,
}

/// A host whose certificate was checked: a root of ours has signed it. Whether it still counts says [`Judge::standing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    certificate: HostCertificate,
    root: Fingerprint,
}

impl Peer {
    /// The certificate. It says who the peer claims to be; use [`Judge::host`] for who may act.
    #[must_use]
    pub fn certificate(&self) -> &HostCertificate {
        &self.certificate
    }
    /// The root that has signed it.
    #[must_use]
    pub fn root(&self) -> &Fingerprint {
        &self.root
    }
}

/// Knows the roots and what was taken back; both are handed in anew when they change. It is also the verifier of clients in
/// TLS ([`crate::server_config`]).
#[derive(Debug)]
pub struct Judge {
    trust: RwLock<Arc<TrustBundle>>,
    revocations: RwLock<Arc<Revocations>>,
    grace: Duration,
}

impl Judge {
    /// Of these roots and records. `grace`: [`crate::Lifetimes::grace`].
    #[must_use]
    pub fn new(trust: TrustBundle, revocations: Revocations, grace: Duration) -> Arc<Self> {
        Arc::new(Self {
            trust: RwLock::new(Arc::new(trust)),
            revocations: RwLock::new(Arc::new(revocations)),
            grace,
        })
    }

    /// From now on these roots.
    pub fn trust(&self, trust: TrustBundle) {
        *self.trust.write() = Arc::new(trust);
    }

    /// From now on these records.
    pub fn revoke(&self, revocations: Revocations) {
        *self.revocations.write() = Arc::new(revocations);
    }

    /// The host of a chain as rustls gives it: whether it is a host's certificate that a root of ours has signed, now or when it was
    /// valid.
    ///
    /// # Errors
    /// [`PkiErrorKind::Foreign`] for what others have signed, and those of [`HostCertificate::from_chain`].
    pub fn identify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<Peer, PkiError> {
        let certificate = HostCertificate::from_chain(chain)?;
        let leaf = chain.first().map_or(&[][..], |leaf| leaf.as_ref());
        // Whether it is valid now is the standing's question. Here: was it ever? The root must count today all the same.
        let at = now.clamp(
            certificate.not_before,
            certificate.not_after.max(certificate.not_before),
        );
        let trust = self.trust.read().clone();
        let root = trust.signer(&CertificateDer::from(leaf), at, now).map_err(|e| {
            PkiError::new(
                PkiErrorKind::Foreign,
                format!(
                    "the certificate {} is signed by no root of this cloud",
                    certificate.fingerprint
                ),
                "present the certificate that the host got from this cloud; after a change of roots, let it join again",
            )
            .with_source(e)
        })?;
        Ok(Peer {
            root: root.fingerprint().clone(),
            certificate,
        })
    }

    /// What the peer's certificate counts for now.
    #[must_use]
    pub fn standing(&self, peer: &Peer, now: Timestamp) -> Standing {
        let trusted = self
            .trust
            .read()
            .get(&peer.root)
            .is_some_and(|root| root.counts_at(now));
        if !trusted {
            return Standing::Foreign;
        }
        let certificate = &peer.certificate;
        if let Some(by) = self.revocations.read().find(certificate) {
            return Standing::Revoked(by);
        }
        if now < certificate.not_before {
            return Standing::NotYet {
                from: certificate.not_before,
            };
        }
        if now > certificate.not_after {
            return Standing::Expired {
                since: certificate.not_after,
            };
        }
        Standing::Valid
    }

    /// The host that this peer may act as now: the one that is [`Standing::Valid`].
    #[must_use]
    pub fn host(&self, peer: &Peer, now: Timestamp) -> Option<HostId> {
        (self.standing(peer, now) == Standing::Valid).then_some(peer.certificate.host)
    }
}

/// Whether a peer may have the successor of its certificate: while it is valid and, since a host may be switched off for weeks, for a grace
/// after it. The peer has proven the old key by its handshake, and the request proves the new one.
///
/// # Errors
/// Why not, and what to do.
pub fn may_renew(standing: &Standing, now: Timestamp, grace: Duration) -> Result<(), Reason> {
    match standing {
        Standing::Valid => Ok(()),
        Standing::Expired { since } if now <= later(*since, grace) => Ok(()),
        Standing::Expired { since } => Err(Reason::new(
            "certificate.expired",
            format!("the host's certificate has expired at {since}, too long ago to be renewed"),
        )
        .hint("make a join token for this host and let it join again")),
        Standing::NotYet { from } => Err(Reason::new(
            "certificate.not_yet",
            format!("the host's certificate begins at {from}"),
        )
        .hint("look at the clocks of the host and of the API")
        .retryable()),
        Standing::Revoked(_) => Err(Reason::new(
            "certificate.revoked",
            "the host's certificate was taken back",
        )
        .hint("if the host is to be trusted again, make a join token for it")),
        Standing::Foreign => Err(Reason::new(
            "certificate.foreign",
            "the host's certificate is signed by no root that is trusted now",
        )
        .hint("make a join token for this host and let it join again")),
    }
}

/// Lets in who is a host of ours and proves its key, also with a certificate that has expired within the grace, and who
/// presents no certificate. Anything else ends the handshake.
impl ClientCertVerifier for Judge {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: clients have one certificate, and roots change while this is borrowed.
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        time: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let seconds = i64::try_from(time.as_secs()).map_err(|_| Error::FailedToGetCurrentTime)?;
        let now = Timestamp::from_second(seconds).map_err(|_| Error::FailedToGetCurrentTime)?;
        let chain = std::slice::from_ref(end_entity);
        let peer = self.identify(chain, now).map_err(|e| match e.kind() {
            PkiErrorKind::Foreign => CertificateError::UnknownIssuer,
            PkiErrorKind::NotAllowed => CertificateError::InvalidPurpose,
            _ => CertificateError::BadEncoding,
        })?;
        let refused = match self.standing(&peer, now) {
            Standing::Valid => return Ok(ClientCertVerified::assertion()),
            Standing::Expired { since } if now <= later(since, self.grace) => {
                return Ok(ClientCertVerified::assertion());
            }
            Standing::Expired { since } => CertificateError::ExpiredContext {
                time,
                not_after: unix(since),
            },
            Standing::NotYet { from } => CertificateError::NotValidYetContext {
                time,
                not_before: unix(from),
            },
            Standing::Revoked(_) => CertificateError::Revoked,
            Standing::Foreign => CertificateError::UnknownIssuer,
        };
        Err(refused.into())
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
