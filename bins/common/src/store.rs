//! The `[store]` section: one line chooses the backend.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skyloom::pki::ReloadingClient;
use skyloom::{Opened, StoreOptions, open_store};
use skyloom_model::{Clock, Ids, Secret};

use crate::exit::MainError;
use crate::tls::{self, Followed};

/// Which store.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreConfig {
    /// `sqlite:///absolute/path`, `postgres://…`, `mysql://…`, `etcd://…`, `mongodb://…`, `https://api.example:8780`, `memory:`.
    pub uri: String,
    /// Create or upgrade the schema of a database on a server when opening it. Else `skyloom store migrate` does.
    pub migrate: bool,
    /// File with the bearer token, for stores behind an API.
    pub token_file: Option<PathBuf>,
    /// File with certificate authorities in PEM, believed instead of the system's.
    pub ca_file: Option<PathBuf>,
}

// By hand: there may be a password in the address.
impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("uri", &skyloom::shown(&self.uri))
            .field("migrate", &self.migrate)
            .field("token_file", &self.token_file)
            .field("ca_file", &self.ca_file)
            .finish()
    }
}

impl StoreConfig {
    /// The token, if one is configured.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn token(&self) -> Result<Option<Secret<String>>, MainError> {
        self.token_file.as_deref().map(read_token).transpose()
    }

    /// The roots that are believed instead of the system's, if any are configured.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub async fn tls(&self, clock: Arc<dyn Clock>) -> Result<Option<Followed<ReloadingClient>>, MainError> {
        match &self.ca_file {
            None => Ok(None),
            Some(file) => tls::client(file.clone(), clock).await.map(Some),
        }
    }

    /// What opening it needs beside the address. Roots are as the file has them now.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn options(&self, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Result<StoreOptions, MainError> {
        let mut options = StoreOptions::new(clock, ids);
        if let Some(token) = self.token()? {
            options = options.with_token(token);
        }
        if let Some(path) = &self.ca_file {
            let pem = std::fs::read(path)
                .map_err(|e| MainError::usage(format!("cannot read store.ca_file {}", path.display()), e))?;
            options = options.with_ca_pem(pem);
        }
        options.migrate = self.migrate;
        Ok(options)
    }

    /// Opens it.
    ///
    /// # Errors
    /// When it is not configured or does not open.
    pub async fn open(&self, clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Result<Opened, MainError> {
        let tls = self.tls(clock.clone()).await?.map(|followed| followed.live);
        self.open_with(clock, ids, tls).await
    }

    /// Opens it with TLS that somebody follows.
    ///
    /// # Errors
    /// When it is not configured or does not open.
    pub async fn open_with(
        &self,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        tls: Option<Arc<ReloadingClient>>,
    ) -> Result<Opened, MainError> {
        if self.uri.is_empty() {
            let known = skyloom::schemes().join(", ");
            return Err(MainError::usage("store.uri is not set", format!("this build knows: {known}"))
                .hint("set it in the file given by --config, or with --set store.uri=sqlite:///var/lib/skyloom/skyloom.db"));
        }
        let mut options = self.options(clock, ids)?;
        options.tls = tls;
        open_store(&self.uri, &options)
            .await
            .map_err(|e| MainError::failed(format!("cannot open the store {}", skyloom::shown(&self.uri)), e))
    }
}

/// Reads a secret from a file; outer white space is no part of it.
///
/// # Errors
/// When the file cannot be read or is empty.
pub fn read_token(path: &Path) -> Result<Secret<String>, MainError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| MainError::usage(format!("cannot read the token file {}", path.display()), e))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(MainError::usage(
            format!("the token file {}", path.display()),
            "it is empty",
        ));
    }
    Ok(Secret::new(token.to_owned()))
}

/// Writes a secret into a file that only its owner can read, replacing what was there.
///
/// # Errors
/// Those of the file system.
pub fn write_token(path: &Path, token: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let part = path.with_extension("part");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(token.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    std::fs::rename(part, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn tokens_are_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        write_token(&path, "sky_1").unwrap();
        assert_eq!(read_token(&path).unwrap().expose(), "sky_1");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        std::fs::write(&path, " \n").unwrap();
        assert!(read_token(&path).is_err());
    }
}
