//! The one TLS provider of every process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Makes aws-lc-rs the provider of all TLS in this process. To be called first in `main`; later calls change nothing.
pub fn install_default_provider() {
    // An error means that one is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[cfg(test)]
mod tests {
    #[test]
    fn installing_twice_leaves_one_provider() {
        super::install_default_provider();
        super::install_default_provider();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
}

/// A server's TLS configuration from PEM files.
///
/// # Errors
/// When a file cannot be read, holds no certificate or key, or they do not belong together.
pub fn server(certificates: &Path, key: &Path) -> Result<Arc<rustls::ServerConfig>, TlsError> {
    let chain = CertificateDer::pem_file_iter(certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| TlsError::Pem(certificates.to_owned(), e))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|e| TlsError::Pem(key.to_owned(), e))?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM file cannot be used.
    #[error("cannot use {0}")]
    Pem(PathBuf, #[source] rustls::pki_types::pem::Error),
    /// Certificate and key are refused.
    #[error("certificate and key are refused")]
    Refused(#[from] rustls::Error),
}
