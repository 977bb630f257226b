//! What the pool's cases do again and again.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use sha2::{Digest, Sha256};
use skyloom_model::{Id, Ids, ImageId, ManualClock, SeededIds, ServerId};

use super::domains::must_refuse;
use super::harness::{PoolDesk, StorageCase};
use super::{ExamImage, disks, images, volumes};
use crate::{CachedImage, ErrorKind, HostStorage, ImageSpec, OverlaySpec, ProgressFn, Result};

/// All cases of the pool's exam.
#[must_use]
pub fn cases() -> Vec<StorageCase> {
    let cases = images::cases().into_iter().chain(disks::cases());
    cases.chain(volumes::cases()).collect()
}

pub(super) fn id<K: ?Sized>(seed: u64) -> Id<K> {
    Id::from_uuid(SeededIds::new(ManualClock::new(), seed).uuid())
}
pub(super) fn server(seed: u64) -> ServerId {
    id(seed)
}

pub(super) fn spec(image: &ExamImage) -> ImageSpec {
    let sha256: String = Sha256::digest(&image.content)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let id: ImageId = id(image.content.len() as u64);
    ImageSpec {
        id,
        sha256,
        format: image.format,
        size_bytes: image.content.len() as u64,
    }
}

pub(super) fn quietly() -> ProgressFn {
    Arc::new(|_, _| {})
}

/// The bytes in pieces that fit no block.
pub(super) fn pieces(content: Bytes) -> BoxStream<'static, io::Result<Bytes>> {
    const PIECE: usize = 61_001;
    let starts = (0..content.len()).step_by(PIECE);
    stream::iter(starts.map(move |at| Ok(content.slice(at..content.len().min(at + PIECE))))).boxed()
}

impl PoolDesk {
    pub(super) fn storage(&self) -> Arc<dyn HostStorage> {
        self.pool.storage()
    }
    pub(super) async fn files(&self) -> BTreeSet<PathBuf> {
        self.pool.files().await.into_iter().collect()
    }
    pub(super) async fn cache(&self, image: &ExamImage) -> Result<CachedImage> {
        self.storage()
            .cache_image(&spec(image), pieces(image.content.clone()), quietly())
            .await
    }
    /// Caches image number `number` of the exam.
    pub(super) async fn cached(&self, number: usize) -> ImageSpec {
        let image = &self.images[number];
        self.cache(image).await.expect("cache image");
        spec(image)
    }
    pub(super) async fn overlay(&self, server: ServerId, disk: &str, number: usize) -> OverlaySpec {
        let base = self.cached(number).await;
        OverlaySpec {
            server,
            disk: disk.to_owned(),
            base,
            size_bytes: self.size(),
        }
    }
    /// A size that is enough for every image.
    pub(super) fn size(&self) -> u64 {
        self.images
            .iter()
            .map(|i| i.virtual_size)
            .max()
            .unwrap_or_default()
            .next_multiple_of(1 << 20)
    }
    pub(super) async fn names(&self, server: ServerId) -> Vec<String> {
        self.storage()
            .disks(server)
            .await
            .expect("disks")
            .into_iter()
            .map(|d| d.name)
            .collect()
    }
    /// Caching `image` from `content` fails with `kind` and leaves no trace; afterwards the true content is accepted.
    pub(super) async fn must_not_cache(
        &self,
        image: &ImageSpec,
        content: BoxStream<'static, io::Result<Bytes>>,
        kind: Option<ErrorKind>,
    ) {
        let before = self.files().await;
        let done = self.storage().cache_image(image, content, quietly()).await;
        match kind {
            Some(kind) => must_refuse(done, kind),
            None => assert!(done.is_err(), "must fail, but says {done:?}"),
        }
        assert_eq!(self.storage().cached_image(image).await.expect("look up"), None);
        assert_eq!(self.files().await, before, "nothing is left behind");
    }
}
