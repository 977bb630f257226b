//! TLS of every process: the one provider, and certificates from files that are followed while it runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use skyloom::pki::{
    Files, Live, Material, MaterialSource as _, PkiError, Reloader, ReloadingClient, ReloadingServer,
};
use skyloom_model::Clock;
use tokio_util::sync::CancellationToken;

use crate::exit::MainError;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Makes aws-lc-rs the provider of all TLS in this process. To be called first in `main`; later calls change nothing.
pub fn install_default_provider() {
    // An error means that one is installed already, which is what is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Certificates in use, and the files that they came from.
#[derive(Debug)]
pub struct Followed<T> {
    /// What is in use.
    pub live: Arc<T>,
    files: Files,
    clock: Arc<dyn Clock>,
}

impl<T: Live + 'static> Followed<T> {
    /// Takes what is new in the files into use, until `shutdown`. What is of no use there is reported, and what was before stays.
    pub async fn follow(self, shutdown: CancellationToken) {
        Reloader::new(self.files, self.live, self.clock)
            .run(LOOK, shutdown)
            .await;
    }
}

async fn opened<T>(
    files: Files,
    clock: Arc<dyn Clock>,
    make: impl Fn(&Material) -> Result<Arc<T>, PkiError>,
) -> Result<Followed<T>, MainError> {
    let refused = |e| MainError::usage("TLS cannot be set up", e);
    let material = files.read().await.map_err(refused)?;
    let live = make(&material).map_err(refused)?;
    Ok(Followed { live, files, clock })
}

/// A server's certificate and key.
///
/// # Errors
/// When a file cannot be read, holds no certificate or key, or they do not belong together.
pub async fn server(
    certificates: &Path,
    key: &Path,
    clock: Arc<dyn Clock>,
) -> Result<Followed<ReloadingServer>, MainError> {
    let files = Files {
        identity: Some((certificates.to_owned(), key.to_owned())),
        roots: None,
    };
    opened(files, clock, ReloadingServer::new).await
}

/// The roots that a client believes instead of the system's.
///
/// # Errors
/// When the file cannot be read, or holds no root.
pub async fn client(roots: PathBuf, clock: Arc<dyn Clock>) -> Result<Followed<ReloadingClient>, MainError> {
    let files = Files {
        identity: None,
        roots: Some(roots),
    };
    opened(files, clock, ReloadingClient::new).await
}

#[cfg(test)]
mod tests {
    use skyloom::pki::testing::TestPki;
    use skyloom_model::SystemClock;

    use super::*;

    #[test]
    fn installing_twice_leaves_one_provider() {
        install_default_provider();
        install_default_provider();
        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }

    #[tokio::test]
    async fn files_of_no_use_are_named() {
        let (pki, dir) = (TestPki::new(1), tempfile::tempdir().unwrap());
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let clock = || Arc::new(SystemClock::new());
        let missing = server(&cert, &key, clock()).await.unwrap_err();
        assert!(missing.to_string().contains("TLS cannot be set up"), "{missing}");
        std::fs::write(&cert, &pki.server.certificates).unwrap();
        std::fs::write(&key, pki.server.key.expose()).unwrap();
        server(&cert, &key, clock()).await.unwrap();
        assert!(
            client(cert.clone(), clock()).await.is_err(),
            "a server is no root"
        );
        std::fs::write(&cert, pki.authority.certificate_pem()).unwrap();
        assert!(server(&cert, &key, clock()).await.is_err(), "of another key");
        client(cert, clock()).await.unwrap();
    }
}
