//! Keys, and requests for certificates of them.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey, VerificationAlgorithm};
use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData,
    SignatureAlgorithm,
};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use skyloom_model::Secret;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::AlgorithmIdentifier;

use crate::pem::malformed;
use crate::{Fingerprint, PkiError, PkiErrorKind};

/// Longest request that is looked at, in PEM or DER; ours have about 400 bytes.
pub const MAX_REQUEST: usize = 8 * 1024;

/// A private key: ECDSA P-256, or Ed25519 if it was made elsewhere.
#[derive(Debug)]
pub struct PrivateKey {
    pub(crate) pair: KeyPair,
}

impl PrivateKey {
    /// A new one, ECDSA P-256, from the operating system's randomness.
    ///
    /// # Errors
    /// [`PkiErrorKind::Internal`].
    pub fn generate() -> Result<Self, PkiError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|e| PkiError::internal("no key could be made", e))?;
        Ok(Self { pair })
    }

    /// Reads one in PKCS #8 PEM.
    ///
    /// # Errors
    /// [`PkiErrorKind::Malformed`], and [`PkiErrorKind::NotAllowed`] for other kinds of keys.
    pub fn from_pem(pem: &Secret<String>) -> Result<Self, PkiError> {
        // The cause is left out: it must not quote the key.
        let pair =
            KeyPair::from_pem(pem.expose()).map_err(|_| malformed("a private key", "no key in PKCS #8"))?;
        if pair.algorithm() != &PKCS_ECDSA_P256_SHA256 && pair.algorithm() != &PKCS_ED25519 {
            return Err(kind_of_key());
        }
        Ok(Self { pair })
    }

    /// It in PKCS #8 PEM.
    #[must_use]
    pub fn to_pem(&self) -> Secret<String> {
        Secret::new(self.pair.serialize_pem())
    }

    /// Its public half.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.pair.subject_public_key_info())
    }

    /// A request for a certificate of it, in PEM: the public key and proof that the private one is here. It names nothing.
    ///
    /// # Errors
    /// [`PkiErrorKind::Internal`].
    pub fn request(&self) -> Result<String, PkiError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .serialize_request(&self.pair)
            .and_then(|request| request.pem())
            .map_err(|e| PkiError::internal("no request for a certificate could be made", e))
    }
}

/// A request whose signature was checked. All that is taken from it is the public key: what names, usages or other extensions it asks
/// for is not even read.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    algorithm: &'static SignatureAlgorithm,
    /// As it stands in the key's record: a point or 32 bytes.
    raw: Vec<u8>,
    fingerprint: Fingerprint,
}

impl CertificateRequest {
    /// Reads and checks a request in PEM.
    ///
    /// # Errors
    /// As [`CertificateRequest::from_der`].
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        limit(pem.len())?;
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| malformed("the request for a certificate", e))?;
        Self::from_der(&der)
    }

    /// Reads and checks a request in DER.
    ///
    /// # Errors
    /// [`PkiErrorKind::TooLarge`], [`PkiErrorKind::Malformed`], [`PkiErrorKind::NotAllowed`] for a key that is neither P-256 nor Ed25519, and
    /// [`PkiErrorKind::BadSignature`] when another key or none has signed it.
    pub fn from_der(der: &[u8]) -> Result<Self, PkiError> {
        limit(der.len())?;
        let what = "the request for a certificate";
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|e| malformed(what, e))?;
        if !rest.is_empty() {
            return Err(malformed(what, "bytes follow it"));
        }
        let info = &request.certification_request_info;
        let key = &info.subject_pki;
        let (algorithm, check, signature) = kind(&key.algorithm).ok_or_else(kind_of_key)?;
        let raw = key.subject_public_key.data.as_ref();
        // The kind of signature follows from the key: a request does not get to choose how it is checked.
        let signed = request.signature_algorithm.algorithm == signature
            && UnparsedPublicKey::new(check, raw)
                .verify(info.raw, &request.signature_value.data)
                .is_ok();
        if !signed {
            return Err(PkiError::new(
                PkiErrorKind::BadSignature,
                "the request for a certificate is not signed by the key in it",
                "make the request with the private key that the certificate is for",
            ));
        }
        Ok(Self {
            algorithm,
            raw: raw.to_vec(),
            fingerprint: Fingerprint::of(key.raw),
        })
    }

    /// Of the public key.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }
}

impl PublicKeyData for CertificateRequest {
    fn der_bytes(&self) -> &[u8] {
        &self.raw
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

type Kind = (
    &'static SignatureAlgorithm,
    &'static dyn VerificationAlgorithm,
    x509_parser::der_parser::oid::Oid<'static>,
);

/// How a key of this kind signs; `None` for those that are not taken.
fn kind(key: &AlgorithmIdentifier<'_>) -> Option<Kind> {
    if key.algorithm == OID_SIG_ED25519 && key.parameters.is_none() {
        return Some((&PKCS_ED25519, &ED25519, OID_SIG_ED25519));
    }
    let curve = key.parameters.as_ref()?.as_oid().ok()?;
    (key.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY && curve == OID_EC_P256).then_some((
        &PKCS_ECDSA_P256_SHA256,
        &ECDSA_P256_SHA256_ASN1,
        OID_SIG_ECDSA_WITH_SHA256,
    ))
}

fn limit(len: usize) -> Result<(), PkiError> {
    if len <= MAX_REQUEST {
        return Ok(());
    }
    Err(PkiError::new(
        PkiErrorKind::TooLarge,
        format!("the request for a certificate has {len} bytes"),
        format!("at most {MAX_REQUEST} are taken; it needs nothing but a key"),
    ))
}

fn kind_of_key() -> PkiError {
    PkiError::new(
        PkiErrorKind::NotAllowed,
        "this kind of key is not taken",
        "make an ECDSA P-256 or Ed25519 key",
    )
}
