//! `image.expect` and `image.send`: the way of a disk's copy from its host to the control plane.

use std::io::{self, Write as _};
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{HostStorage, VolumeAt};
use skyloom_image::HashingWriter;
use skyloom_model::ImageId;
use uuid::Uuid;

use super::host_error;
use crate::{ImageContent, ImageRepo, Measured, Sending};

/// Input of `image.expect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExpectInput {
    /// Where it will be staged.
    pub(crate) upload: Uuid,
}

/// Makes sure that nothing is staged; its undo does, too, whatever a host has sent meanwhile.
#[derive(Debug)]
pub(super) struct Expect {
    pub(super) images: Arc<dyn ImageRepo>,
}

impl Expect {
    async fn clear(&self, cx: &JobContext<'_>) -> Result<(), JobError> {
        let ExpectInput { upload } = cx.input()?;
        let gone = self.images.discard(upload).await;
        gone.map_err(|error| JobError(error.reason()))
    }
}

#[async_trait]
impl Job for Expect {
    fn kind(&self) -> &'static str {
        "image.expect"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        self.clear(cx).await?;
        Ok(json!({}))
    }

    async fn undo(&self, cx: &JobContext<'_>) -> Result<Undo, JobError> {
        self.clear(cx).await?;
        Ok(Undo::Undone)
    }
}

/// Input of `image.send`. It is what lets the host write: see [`crate::Cloud::receive_image`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SendInput {
    /// Which image it becomes.
    pub(crate) image: ImageId,
    /// Where it is staged.
    pub(crate) upload: Uuid,
    /// The copy.
    pub(crate) at: VolumeAt,
}

impl SendInput {
    /// The kind of its job.
    pub(crate) const KIND: &'static str = "image.send";
}

/// Sends a volume that nothing has open as an image's content.
#[derive(Debug)]
pub(super) struct Send {
    pub(super) storage: Arc<dyn HostStorage>,
    pub(super) content: Arc<dyn ImageContent>,
}

#[async_trait]
impl Job for Send {
    fn kind(&self) -> &'static str {
        SendInput::KIND
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let SendInput { image, upload, at } = cx.input()?;
        let file = self.storage.read_volume(&at).await.map_err(host_error)?;
        let hash = Arc::new(Mutex::new(HashingWriter::new(io::sink())));
        let hashing = Arc::clone(&hash);
        let content = file.content.map(move |piece| {
            let piece = piece?;
            hashing.lock().write_all(&piece).map(|()| piece)
        });
        let what = Sending {
            image,
            upload,
            size: file.size_bytes,
        };
        let sent = self.content.send(&what, content.boxed()).await;
        let arrived: Measured = sent.map_err(|e| {
            let message = format!("the content of image {image} cannot be sent: {e}");
            JobError::transient("image.content_unavailable", message)
        })?;
        // Whoever sent it may not have dropped it yet.
        let (_, read) = std::mem::replace(&mut *hash.lock(), HashingWriter::new(io::sink())).finish();
        if (&read.sha256, read.bytes) != (&arrived.sha256, arrived.size) {
            let message = format!("other bytes of image {image} arrived than were sent");
            return Err(JobError::transient("image.content_broke_off", message));
        }
        cx.output(&arrived)
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("what was sent is dropped where it is kept".to_owned()))
    }
}
