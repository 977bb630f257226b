//! The one TLS provider of every process.

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
