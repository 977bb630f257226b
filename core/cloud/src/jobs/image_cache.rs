//! `image.cache`: the image's content is on the host.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use skyloom_flow::{Job, JobContext, JobError, Undo};
use skyloom_hypervisor::{HostStorage, ImageSpec};
use skyloom_model::ablation::{Rule, kept};

use super::host_error;
use crate::ImageContent;

/// Input of `image.cache`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CacheInput {
    /// Which image.
    pub(crate) image: ImageSpec,
}

/// Brings an image into the host's cache.
#[derive(Debug)]
pub(super) struct CacheImage {
    pub(super) storage: Arc<dyn HostStorage>,
    pub(super) content: Arc<dyn ImageContent>,
}

#[async_trait]
impl Job for CacheImage {
    fn kind(&self) -> &'static str {
        "image.cache"
    }

    async fn run(&self, cx: &JobContext<'_>) -> Result<Value, JobError> {
        let CacheInput { image } = cx.input()?;
        if kept(Rule::ObserveBeforeAct)
            && self
                .storage
                .cached_image(&image)
                .await
                .map_err(host_error)?
                .is_some()
        {
            return Ok(json!({ "already_there": true }));
        }
        let content = self.content.open(&image).await.map_err(|e| {
            let message = format!("the content of image {} cannot be read: {e}", image.id);
            match e.kind() {
                std::io::ErrorKind::NotFound => JobError::permanent("image.content_missing", message),
                _ => JobError::transient("image.content_unavailable", message),
            }
        })?;
        self.storage
            .cache_image(&image, content, Arc::new(|_, _| {}))
            .await
            .map_err(host_error)?;
        Ok(json!({ "already_there": false, "bytes": image.size_bytes }))
    }

    async fn undo(&self, _cx: &JobContext<'_>) -> Result<Undo, JobError> {
        Ok(Undo::Moot("the host's cache belongs to all servers".to_owned()))
    }
}
