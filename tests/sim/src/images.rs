//! Image content in memory: one small image that is there from the start.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use skyloom_cloud::{ByteStream, ImageRepo, Measured, PublishedContent, RepoError, StagedFile};
use skyloom_model::ImageId;
use uuid::Uuid;

/// Content of the image that schedules start with.
pub(crate) const CONTENT: &[u8] = b"a disk that no guest will ever read";

/// SHA-256 in lower-case hex.
pub(crate) fn sha256(content: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(content)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Keeps content in maps.
#[derive(Debug, Default)]
pub(crate) struct MemoryImages {
    staged: Mutex<BTreeMap<Uuid, Bytes>>,
    published: Mutex<BTreeMap<ImageId, Bytes>>,
}

impl MemoryImages {
    /// With `image` published.
    pub(crate) fn with(image: ImageId) -> Self {
        let images = Self::default();
        images.published.lock().insert(image, Bytes::from_static(CONTENT));
        images
    }
}

#[async_trait]
impl ImageRepo for MemoryImages {
    async fn stage(&self, upload: Uuid, mut content: ByteStream) -> Result<Measured, RepoError> {
        let mut all = BytesMut::new();
        while let Some(chunk) = content.next().await {
            all.extend_from_slice(&chunk.map_err(RepoError::Source)?);
        }
        let measured = Measured {
            sha256: sha256(&all),
            size: all.len() as u64,
        };
        self.staged.lock().insert(upload, all.freeze());
        Ok(measured)
    }

    async fn staged(&self, upload: Uuid) -> Result<StagedFile, RepoError> {
        let staged = self.staged.lock();
        let content = staged.get(&upload).ok_or(RepoError::NotFound)?.clone();
        Ok(StagedFile {
            size: content.len() as u64,
            content: Box::new(std::io::Cursor::new(content)),
            // A thread of its own would make a trace depend on when that is run.
            in_memory: true,
        })
    }

    async fn discard(&self, upload: Uuid) -> Result<(), RepoError> {
        self.staged.lock().remove(&upload);
        Ok(())
    }

    async fn publish(&self, upload: Uuid, image: ImageId) -> Result<(), RepoError> {
        let content = self.staged.lock().remove(&upload);
        let mut published = self.published.lock();
        match content {
            Some(content) => published.entry(image).or_insert(content),
            None => published.get_mut(&image).ok_or(RepoError::NotFound)?,
        };
        Ok(())
    }

    async fn open(&self, image: ImageId) -> Result<PublishedContent, RepoError> {
        let content = self
            .published
            .lock()
            .get(&image)
            .ok_or(RepoError::NotFound)?
            .clone();
        Ok(PublishedContent {
            size: content.len() as u64,
            content: stream::iter([Ok(content)]).boxed(),
        })
    }

    async fn delete(&self, image: ImageId) -> Result<(), RepoError> {
        self.published.lock().remove(&image);
        Ok(())
    }
}
