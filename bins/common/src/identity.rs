//! The identity of a process that serves the API: opened over its store, with its key-encryption key in a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skyloom::identity::{FileKeys, Identity, IdentityConfig, IdentityDriver, IdentityParts, Vault};
use skyloom::model::{Clock, Ids};
use skyloom::store::DynBackend;

use crate::exit::MainError;

/// Who may call, and what guards it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IdentitySection {
    /// The file of the key that seals secrets in the store: the same one for all API processes, made by the first start. Without it,
    /// `identity.key` in the image folder, which they share, too.
    pub key_file: Option<PathBuf>,
    /// Key files of before: what they sealed can still be read. The roots' keys are sealed anew with `key_file`.
    pub older_key_files: Vec<PathBuf>,
    /// How it works.
    pub settings: IdentityConfig,
}

impl IdentitySection {
    /// Where the key of secrets is.
    #[must_use]
    pub fn key_path(&self, folder: &Path) -> PathBuf {
        match &self.key_file {
            Some(path) => path.clone(),
            None => folder.join("identity.key"),
        }
    }

    /// Opens the identity in `backend`. The driver must be run.
    ///
    /// # Errors
    /// When the key file cannot be read or made, or the configuration is not possible.
    pub fn open(
        &self,
        folder: &Path,
        backend: DynBackend,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
    ) -> Result<(Identity, IdentityDriver), MainError> {
        let path = self.key_path(folder);
        let failed = |e| MainError::failed("the key of the cloud's secrets cannot be had", e);
        if !path.exists()
            && let Err(error) = FileKeys::generate(&path, &*ids)
            && !path.exists()
        {
            return Err(failed(error));
        }
        let older: Vec<&Path> = self.older_key_files.iter().map(PathBuf::as_path).collect();
        let keys = FileKeys::read(&path, &older, ids.clone()).map_err(failed)?;
        let parts = IdentityParts {
            backend,
            clock,
            secrets: Arc::new(Vault::new(Arc::new(keys), ids.clone())),
            ids,
            audit: None,
            registry: None,
        };
        Identity::open(parts, self.settings.clone())
            .map_err(|e| MainError::failed("the identity cannot be set up", e))
    }
}
