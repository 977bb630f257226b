//! A host's certificate, read.

use jiff::SignedDuration;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use skyloom_model::{HostId, Timestamp};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::pem::{malformed, timestamp};
use crate::{Fingerprint, PkiError, PkiErrorKind, Serial};

/// How a host's id stands in its certificate, as URI.
pub(crate) const HOST_URI: &str = "skyloom:host:";
/// Longest certificate that is looked at; ours have about 600 bytes.
const MAX_CERTIFICATE: usize = 16 * 1024;

/// What a host's certificate says. Whether that is true and still counts is for the [`crate::Judge`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostCertificate {
    /// The host.
    pub host: HostId,
    /// Its serial number.
    pub serial: Serial,
    /// From when it counts.
    pub not_before: Timestamp,
    /// Until when it counts.
    pub not_after: Timestamp,
    /// Of the whole certificate.
    pub fingerprint: Fingerprint,
    /// Of the public key in it.
    pub key: Fingerprint,
}

impl HostCertificate {
    /// Reads the first certificate of a chain, as rustls gives it.
    ///
    /// # Errors
    /// [`PkiErrorKind::Malformed`], and [`PkiErrorKind::NotAllowed`] for a certificate that is not a host's: a server's, an authority's, one
    /// with more names or usages.
    pub fn from_chain(chain: &[CertificateDer<'_>]) -> Result<Self, PkiError> {
        let first = chain
            .first()
            .ok_or_else(|| malformed("an empty certificate chain", "no certificates"))?;
        Self::parse(first)
    }

    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// As [`HostCertificate::from_chain`].
    pub fn parse(der: &[u8]) -> Result<Self, PkiError> {
        let certificate = read(der, "a host's certificate")?;
        let not_a_host = |what: &str| {
            PkiError::new(
                PkiErrorKind::NotAllowed,
                format!("this is no host's certificate: {what}"),
                "present the certificate that the host got when it joined",
            )
        };
        let extension = |e| malformed("an extension of a certificate", e);
        let authority = certificate.basic_constraints().map_err(extension)?;
        if authority.is_some_and(|c| c.value.ca) {
            return Err(not_a_host("it is an authority"));
        }
        let usage = certificate.extended_key_usage().map_err(extension)?;
        let client_only = usage.is_some_and(|u| {
            let u = u.value;
            let more = u.any
                || u.server_auth
                || u.code_signing
                || u.email_protection
                || u.time_stamping
                || u.ocsp_signing;
            u.client_auth && !more && u.other.is_empty()
        });
        if !client_only {
            return Err(not_a_host("it is not for clients alone"));
        }
        let names = certificate.subject_alternative_name().map_err(extension)?;
        let host = match names.as_ref().map(|n| n.value.general_names.as_slice()) {
            Some([GeneralName::URI(uri)]) => host_of(uri),
            _ => None,
        };
        let host = host.ok_or_else(|| not_a_host("it names no host"))?;
        let validity = certificate.validity();
        Ok(Self {
            host,
            serial: Serial::from_bytes(certificate.raw_serial())
                .ok_or_else(|| malformed("a certificate's serial number", "zero or too long"))?,
            not_before: timestamp(validity.not_before)?,
            not_after: timestamp(validity.not_after)?,
            fingerprint: Fingerprint::of(der),
            key: Fingerprint::of(certificate.public_key().raw),
        })
    }

    /// When its host should ask for the next one: after a half to two thirds of its life, each host at a moment of its own, so
    /// that a fleet that joined at once does not come at once.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        // The fingerprint is as good as random.
        let share = u8::from_str_radix(&self.fingerprint.as_str()[..2], 16).unwrap_or(0);
        let spread = life.as_secs() / 6 * i64::from(share) / 256;
        self.not_before
            .saturating_add(SignedDuration::from_secs(life.as_secs() / 2 + spread))
            .unwrap_or(self.not_after)
    }

    /// From when somebody should be told that it was not renewed: a third of its life is left.
    #[must_use]
    pub fn alarm_at(&self) -> Timestamp {
        let third = self.not_after.duration_since(self.not_before).as_secs() / 3;
        self.not_after
            .saturating_sub(SignedDuration::from_secs(third))
            .unwrap_or(self.not_before)
    }
}

/// A certificate, alone and not too long.
pub(crate) fn read<'a>(der: &'a [u8], what: &str) -> Result<X509Certificate<'a>, PkiError> {
    if der.len() > MAX_CERTIFICATE {
        return Err(PkiError::new(
            PkiErrorKind::TooLarge,
            format!("{what} has {} bytes", der.len()),
            format!("at most {MAX_CERTIFICATE} are taken"),
        ));
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|e| malformed(what, e))?;
    if !rest.is_empty() {
        return Err(malformed(what, "bytes follow it"));
    }
    Ok(certificate)
}

/// The host of a URI that is written exactly as ours are.
fn host_of(uri: &str) -> Option<HostId> {
    let text = uri.strip_prefix(HOST_URI)?;
    let host: HostId = text.parse().ok()?;
    (host.to_string() == text).then_some(host)
}
