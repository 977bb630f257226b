//! Follows files: what is new and of use takes the place of what was there; what is of no use is reported and left alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::Mutex;
use skyloom_model::{Clock, Secret, Timestamp, report};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use super::{IdentityMaterial, Live, Material};
use crate::{PkiError, PkiErrorKind};

/// Longest file that is read.
pub const MAX_MATERIAL: u64 = 256 * 1024;

/// Where material comes from.
#[async_trait]
pub trait MaterialSource: Send + Sync + std::fmt::Debug {
    /// All of it, as it is now.
    ///
    /// # Errors
    /// [`PkiErrorKind::Unreadable`], [`PkiErrorKind::TooLarge`].
    async fn read(&self) -> Result<Material, PkiError>;
}

/// Files in PEM.
#[derive(Debug, Clone)]
pub struct Files {
    /// Certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Roots.
    pub roots: Option<PathBuf>,
}

#[async_trait]
impl MaterialSource for Files {
    async fn read(&self) -> Result<Material, PkiError> {
        let identity = match &self.identity {
            None => None,
            Some((certificates, key)) => Some(IdentityMaterial {
                certificates: read_file(certificates).await?,
                key: Secret::new(read_file(key).await?),
            }),
        };
        let roots = match &self.roots {
            None => None,
            Some(roots) => Some(read_file(roots).await?),
        };
        Ok(Material { identity, roots })
    }
}

async fn read_file(path: &Path) -> Result<Vec<u8>, PkiError> {
    let unreadable = |e: std::io::Error| {
        PkiError::new(
            PkiErrorKind::Unreadable,
            format!("cannot read {}", path.display()),
            "look at its path and its permissions",
        )
        .with_source(e)
    };
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let mut text = Vec::new();
    let read = file.take(MAX_MATERIAL + 1).read_to_end(&mut text).await;
    if read.map_err(unreadable)? as u64 > MAX_MATERIAL {
        return Err(PkiError::new(
            PkiErrorKind::TooLarge,
            format!("{} is longer than {MAX_MATERIAL} bytes", path.display()),
            "give a file in PEM with nothing else in it",
        ));
    }
    Ok(text)
}

/// What one look came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// Nothing has changed.
    Unchanged,
    /// New material is in use.
    Replaced,
    /// What is there now is of no use; what was there before stays in use.
    Kept,
}

/// How it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReloadStatus {
    /// When material was last taken.
    pub replaced_at: Option<Timestamp>,
    /// The end of the certificate in use.
    pub not_after: Option<Timestamp>,
    /// What is wrong with what is there now.
    pub failure: Option<String>,
}

/// Looks at a source again and again. It compares contents: times of files lie when they are restored, linked or written twice
/// within their grain, and three small files are read in no time.
#[derive(Debug)]
pub struct Reloader<S> {
    source: S,
    target: Arc<dyn Live>,
    clock: Arc<dyn Clock>,
    seen: Option<[u8; 32]>,
    status: Arc<Mutex<ReloadStatus>>,
}

impl<S: MaterialSource> Reloader<S> {
    /// Hands what `source` has to `target`.
    pub fn new(source: S, target: Arc<dyn Live>, clock: Arc<dyn Clock>) -> Self {
        Self {
            source,
            target,
            clock,
            seen: None,
            status: Arc::default(),
        }
    }

    /// How it stands, for health checks and alarms.
    #[must_use]
    pub fn status(&self) -> Arc<Mutex<ReloadStatus>> {
        self.status.clone()
    }

    /// Looks once.
    pub async fn look(&mut self) -> Reload {
        let now = self.clock.now();
        let material = match self.source.read().await {
            Ok(material) => material,
            Err(error) => return self.keep(&error),
        };
        let hash = hash(&material);
        if self.seen == Some(hash) {
            // It is in use, so whatever was wrong since then was put right by putting it back.
            self.status.lock().failure = None;
            return Reload::Unchanged;
        }
        match self.target.replace(&material, now) {
            Ok(not_after) => {
                self.seen = Some(hash);
                *self.status.lock() = ReloadStatus {
                    replaced_at: Some(now),
                    not_after,
                    failure: None,
                };
                tracing::info!(
                    until = not_after.map(tracing::field::display),
                    "certificates are taken into use"
                );
                Reload::Replaced
            }
            Err(error) => self.keep(&error),
        }
    }

    /// Says a failure once, and tries again at each look.
    fn keep(&self, error: &PkiError) -> Reload {
        let text = report(error);
        let mut status = self.status.lock();
        if status.failure.as_ref() != Some(&text) {
            tracing::warn!(error = %text, "new certificates are of no use; those from before stay in use");
        }
        status.failure = Some(text);
        Reload::Kept
    }

    /// Looks every `every` until the shutdown.
    pub async fn run(mut self, every: Duration, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            self.look().await;
        }
    }
}

fn hash(material: &Material) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    let identity = material.identity.as_ref();
    let parts = [
        identity.map(|i| i.certificates.as_slice()),
        identity.map(|i| i.key.expose().as_slice()),
        material.roots.as_deref(),
    ];
    for part in parts {
        // With lengths, so that bytes that move from one part to the next are a change.
        let len = part.map_or(u64::MAX, |p| p.len() as u64);
        context.update(&len.to_be_bytes());
        context.update(part.unwrap_or(&[]));
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}
