//! Where image content is kept, and how hosts get at it.
//!
//! ```text
//!  upload / fetch ──> stage(upload) ──> inspect the staged bytes ──> publish(image) ──> open(image) ──> hosts' caches
//!                          └── discard(upload) when anything is wrong         └── delete(image)
//! ```
//!
//! Content is addressed by ids only; nothing that a user wrote becomes a path.

mod dir;

use std::fmt::Debug;
use std::io::{self, Read, Seek};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use skyloom_model::{ImageId, Reason};
use tokio::io::AsyncWrite;
use uuid::Uuid;

pub use dir::DirImageRepo;

/// Chunks of content.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// What was measured of content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Measured {
    /// SHA-256 in lower-case hex.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// Bytes that can be read from anywhere.
pub trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

/// Staged bytes to look at.
pub struct StagedFile {
    /// The bytes.
    pub content: Box<dyn ReadSeek>,
    /// How many.
    pub size: u64,
    /// Whether they are in memory: then they are looked at where one is, and no thread waits for them.
    pub in_memory: bool,
}

impl Debug for StagedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StagedFile")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Published bytes to send.
pub struct PublishedContent {
    /// The bytes.
    pub content: ByteStream,
    /// How many.
    pub size: u64,
}

impl Debug for PublishedContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishedContent")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Why content could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepoError {
    /// More bytes than allowed.
    #[error("the content is larger than {0} bytes")]
    TooLarge(u64),
    /// The sender's stream broke.
    #[error("the content broke off")]
    Source(#[source] io::Error),
    /// It is not there.
    #[error("there is no such content")]
    NotFound,
    /// The repository itself failed.
    #[error("image repository: {0}")]
    Io(&'static str, #[source] io::Error),
}

impl RepoError {
    /// As a reason for tasks and answers.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let text = skyloom_model::report(self);
        match self {
            Self::TooLarge(_) => Reason::new("image.too_large", text),
            Self::Source(_) => Reason::new("image.content_broke_off", text).retryable(),
            Self::NotFound => Reason::new("image.content_missing", text),
            Self::Io(..) => Reason::new("image.repository_failed", text).retryable(),
        }
    }
}

/// Keeps image content. All verbs say *ensure* and can be repeated. A call that is dropped may still happen, but never after a
/// later call has begun.
#[async_trait]
pub trait ImageRepo: Send + Sync + Debug + 'static {
    /// Keeps content under a fresh upload id, or over what a broken attempt left there. Durable when it returns; nothing
    /// is left behind when it fails or is dropped.
    async fn stage(&self, upload: Uuid, content: ByteStream) -> Result<Measured, RepoError>;

    /// The staged bytes.
    ///
    /// # Errors
    /// [`RepoError::NotFound`] when nothing is staged under `upload`.
    async fn staged(&self, upload: Uuid) -> Result<StagedFile, RepoError>;

    /// Ensures that nothing is staged under `upload`.
    async fn discard(&self, upload: Uuid) -> Result<(), RepoError>;

    /// Makes the staged bytes the image's content, atomically; the upload id is free then. What is published already stays.
    ///
    /// # Errors
    /// [`RepoError::NotFound`] when nothing is staged and nothing published.
    async fn publish(&self, upload: Uuid, image: ImageId) -> Result<(), RepoError>;

    /// The content of an image.
    ///
    /// # Errors
    /// [`RepoError::NotFound`] when none is published.
    async fn open(&self, image: ImageId) -> Result<PublishedContent, RepoError>;

    /// Ensures that the image has no content.
    async fn delete(&self, image: ImageId) -> Result<(), RepoError>;
}

/// How a host reads and sends image content: from and to the repository itself, or over the network.
#[async_trait]
pub trait ImageContent: Send + Sync + Debug + 'static {
    /// The bytes of `image`.
    async fn open(&self, image: &skyloom_hypervisor::ImageSpec) -> io::Result<ByteStream>;

    /// Has `content` of `size` bytes staged for `image`, under the id that the host's job names. Over the network the other
    /// side looks into that job itself: nothing else can be written.
    async fn send(&self, what: &Sending, content: ByteStream) -> io::Result<Measured>;
}

/// Content that a host sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    /// Which image it becomes.
    pub image: ImageId,
    /// Where it is staged.
    pub upload: Uuid,
    /// Bytes.
    pub size: u64,
}

/// Content straight from a repository in the same process or on the same machine.
#[derive(Debug, Clone)]
pub struct RepoContent(pub Arc<dyn ImageRepo>);

#[async_trait]
impl ImageContent for RepoContent {
    async fn open(&self, image: &skyloom_hypervisor::ImageSpec) -> io::Result<ByteStream> {
        match self.0.open(image.id).await {
            Ok(published) => Ok(published.content),
            Err(e @ RepoError::NotFound) => Err(io::Error::new(io::ErrorKind::NotFound, e)),
            Err(e) => Err(io::Error::other(e)),
        }
    }

    async fn send(&self, what: &Sending, content: ByteStream) -> io::Result<Measured> {
        self.0.stage(what.upload, content).await.map_err(io::Error::other)
    }
}

/// Fetches what users name by URL, guarded.
#[async_trait]
pub trait ImageFetch: Send + Sync + Debug + 'static {
    /// Writes the content of `url` to `out`.
    ///
    /// # Errors
    /// A reason with its own code; nothing of `out` may be used then.
    async fn fetch(&self, url: &str, out: &mut (dyn AsyncWrite + Unpin + Send)) -> Result<(), Reason>;
}

/// For clouds that fetch nothing: every URL is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFetch;

#[async_trait]
impl ImageFetch for NoFetch {
    async fn fetch(&self, _url: &str, _out: &mut (dyn AsyncWrite + Unpin + Send)) -> Result<(), Reason> {
        Err(
            Reason::new("image.fetch_disabled", "this cloud fetches no images")
                .hint("send the content instead"),
        )
    }
}

#[cfg(feature = "fetch")]
#[async_trait]
impl ImageFetch for skyloom_image::fetch::Fetcher {
    async fn fetch(&self, url: &str, mut out: &mut (dyn AsyncWrite + Unpin + Send)) -> Result<(), Reason> {
        skyloom_image::fetch::Fetcher::fetch(self, url, &mut out, &|_| {})
            .await
            .map(|_| ())
    }
}
