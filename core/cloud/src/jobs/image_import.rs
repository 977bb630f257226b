//! `image.fetch`, `image.inspect`, `image.publish`, `image.delete`.

use std::io::{self, Seek as _, SeekFrom};
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_image::{Limits, Refusal};
use skyloom_model::{DiskFormat, ImageId};
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::ReaderStream;
use uuid::Uuid;

use crate::images::{RepoError, StagedFile};
use crate::{ImageFetch, ImageRepo};

/// Bytes between the fetcher and the repository.
const PIPE: usize = 256 << 10;

fn repo_error(error: RepoError) -> JobError {
    JobError(error.reason())
}

/// Input of `image.fetch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FetchInput {
    /// Where it is staged.
    pub(crate) upload: Uuid,
    /// From where.
    pub(crate) url: String,
}

/// Stages what a URL gives.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) images: Arc<dyn ImageRepo>,
    pub(super) fetch: Arc<dyn ImageFetch>,
}

#[async_trait]
impl Job for Fetch {
    fn kind(&self) -> &'static str {
        "image.fetch"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: FetchInput = cx.input()?;
        let (mut writer, reader) = tokio::io::duplex(PIPE);
        let fetch = async move {
            self.fetch.fetch(&input.url, &mut writer).await?;
            let end = writer.shutdown().await;
            end.map_err(|e| JobError::transient("image.content_broke_off", e.to_string()))
        };
        let content = ReaderStream::with_capacity(reader, PIPE).boxed();
        let stage = async { self.images.stage(input.upload, content).await.map_err(repo_error) };
        // A fetch that fails ends this before the repository can take its end of content for a whole.
        let ((), measured) = tokio::try_join!(biased; fetch, stage)?;
        Ok(json!({ "sha256": measured.sha256, "size_bytes": measured.size }))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let input: FetchInput = cx.input()?;
        self.images.discard(input.upload).await.map_err(repo_error)?;
        Ok(Undo::Undone)
    }
}

/// Input of `image.inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InspectInput {
    /// Where it is staged.
    pub(crate) upload: Uuid,
    /// The claimed format.
    pub(crate) format: DiskFormat,
}

/// What `image.inspect` gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inspected {
    /// Measured, in lower-case hex.
    pub(crate) sha256: String,
    /// Bytes of the file.
    pub(crate) size_bytes: u64,
    /// Bytes of the disk.
    pub(crate) virtual_size_bytes: u64,
}

/// Looks at staged content with our own eyes before any tool does.
#[derive(Debug)]
pub(super) struct Inspect {
    pub(super) images: Arc<dyn ImageRepo>,
    pub(super) limits: Limits,
}

fn inspect(mut file: StagedFile, input: &InspectInput, limits: &Limits) -> Result<Inspected, JobError> {
    let unreadable =
        |e: io::Error| JobError::transient("image.repository_failed", format!("staged content: {e}"));
    let digest = skyloom_image::sha256_of(&mut file.content).map_err(unreadable)?;
    file.content.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    let facts = skyloom_image::inspect(&mut file.content, digest.bytes, input.format, limits).map_err(
        |e| match e {
            Refusal::Content(reason) => JobError(reason),
            Refusal::Read(e) => unreadable(e),
            other => JobError::permanent("image.refused", skyloom_model::report(&other)),
        },
    )?;
    Ok(Inspected {
        sha256: digest.sha256,
        size_bytes: digest.bytes,
        virtual_size_bytes: facts.virtual_size,
    })
}

#[async_trait]
impl Job for Inspect {
    fn kind(&self) -> &'static str {
        "image.inspect"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: InspectInput = cx.input()?;
        let file = self.images.staged(input.upload).await.map_err(repo_error)?;
        let limits = self.limits;
        if file.in_memory {
            return cx.output(&inspect(file, &input, &limits)?);
        }
        let work = tokio::task::spawn_blocking(move || inspect(file, &input, &limits));
        let found = work
            .await
            .map_err(|e| JobError::transient("image.inspection_ended", e.to_string()))??;
        cx.output(&found)
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        // Sent content has no fetch job that would drop it: an import that failed here cannot go on from it.
        let input: InspectInput = cx.input()?;
        self.images.discard(input.upload).await.map_err(repo_error)?;
        Ok(Undo::Undone)
    }
}

/// Input of `image.publish`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishInput {
    /// Where it is staged.
    pub(crate) upload: Uuid,
    /// Which image gets it.
    pub(crate) image: ImageId,
}

/// Makes staged content an image's content.
#[derive(Debug)]
pub(super) struct Publish {
    pub(super) images: Arc<dyn ImageRepo>,
}

#[async_trait]
impl Job for Publish {
    fn kind(&self) -> &'static str {
        "image.publish"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: PublishInput = cx.input()?;
        self.images
            .publish(input.upload, input.image)
            .await
            .map_err(repo_error)?;
        Ok(json!({}))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let input: PublishInput = cx.input()?;
        self.images.delete(input.image).await.map_err(repo_error)?;
        Ok(Undo::Undone)
    }
}

/// Input of `image.delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeleteImageInput {
    /// Which image.
    pub(crate) image: ImageId,
}

/// Removes an image's content.
#[derive(Debug)]
pub(super) struct Delete {
    pub(super) images: Arc<dyn ImageRepo>,
}

#[async_trait]
impl Job for Delete {
    fn kind(&self) -> &'static str {
        "image.delete"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let input: DeleteImageInput = cx.input()?;
        self.images.delete(input.image).await.map_err(repo_error)?;
        Ok(json!({}))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        let input: DeleteImageInput = cx.input()?;
        // Looking comes after a deletion that was given up under way.
        let why = match self.images.open(input.image).await {
            Ok(_) => "it was not deleted",
            Err(RepoError::NotFound) => "deleted content is not made again",
            Err(other) => return Err(repo_error(other)),
        };
        Ok(Undo::Moot(why.to_owned()))
    }
}
