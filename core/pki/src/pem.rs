//! PEM and times of X.509, with limits.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error, PemObject as _};
use skyloom_model::Timestamp;

use crate::{PkiError, PkiErrorKind};

/// All certificates in `text`, of which there must be 1 to `most`.
pub(crate) fn certificates(
    text: &[u8],
    most: usize,
    what: &str,
) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text) {
        found.push(certificate.map_err(|e| malformed(what, e))?);
        if found.len() > most {
            return Err(PkiError::new(
                PkiErrorKind::TooLarge,
                format!("{what} has more than {most} certificates"),
                "leave out what is not needed",
            ));
        }
    }
    if found.is_empty() {
        return Err(malformed(what, Error::NoItemsFound));
    }
    Ok(found)
}

pub(crate) fn malformed(what: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> PkiError {
    PkiError::new(
        PkiErrorKind::Malformed,
        format!("{what} cannot be read"),
        "give it whole, in PEM, as it was made",
    )
    .with_source(source)
}

/// A moment as rcgen wants it: whole seconds since 1970.
pub(crate) fn moment<T: std::ops::Add<Duration, Output = T>>(epoch: T, at: Timestamp) -> Result<T, PkiError> {
    // Certificates know no year after 9999; no root is that old.
    let seconds = u64::try_from(at.as_second())
        .ok()
        .filter(|s| *s < 200_000_000_000)
        .ok_or_else(|| {
            PkiError::new(
                PkiErrorKind::NotAllowed,
                format!("{at} cannot be a time in a certificate"),
                "look at the clock and at the configured lifetimes",
            )
        })?;
    Ok(epoch + Duration::from_secs(seconds))
}

/// A moment from a certificate.
pub(crate) fn timestamp(time: x509_parser::time::ASN1Time) -> Result<Timestamp, PkiError> {
    Timestamp::from_second(time.timestamp()).map_err(|e| malformed("a time in a certificate", e))
}
